//! Times the parts of syncq that every change goes through, one by one: how long each takes for one event, path or job, and how
//! often it allocates memory. `tools/micro` builds and starts it; `tools/micro commit --dir /dev/shm` runs one part with its
//! files on another file system.
//!
//! A part is repeated for half a second, and the median of its rounds is shown, so that a disturbed round does not count.
//! Memory is counted by an allocator in front of the system's. The last part measures a size and not a time: the memory of a
//! watched directory.
//!
//! Deliberately absent: whole programs and rsync, which `tools/bench` measures; and limits, which a slow machine would miss. So
//! this is no test.

// A benchmark prints for people and reads real clocks. A part that fails ends the program with a message.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::expect_used, clippy::indexing_slicing)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use inotify::EventMask;

use syncq::clock::SystemClock;
use syncq::filter::{Filter, Kind};
use syncq::mirror::parts::{Deletion, plan};
use syncq::mirror::{Limits, Presence};
use syncq::model::{
    Change, ClaimedJob, Destination, DirectoryId, Generation, Job, JobId, JobState, Lane, Origin, RelPath, Scope,
    TargetId, Timestamp, Verdict,
};
use syncq::queue::{BatchResult, Policy, Queue};
use syncq::store::memory::MemoryStore;
use syncq::store::sled::SledStore;
use syncq::store::{Op, Store};
use syncq::watch::parts::{Event, Existence, Gather, RawEvent, Table, Wd};

/// How long a part is repeated.
const BUDGET: Duration = Duration::from_millis(500);
/// The events, paths or jobs of a round: as many as one commit, one batch and one read of the kernel's queue hold.
const ROUND: usize = 1_000;
/// The directories of the table whose size is measured.
const DIRECTORIES: i32 = 200_000;

#[global_allocator]
static COUNTED: Counted = Counted;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

struct Counted;

#[allow(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: hands everything on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Time the parts of syncq that every change goes through
#[derive(Parser)]
#[command(name = "tools/micro", disable_version_flag = true)]
struct Args {
    /// Only these: decode, table, gather, filter, queue, plan, commit, size
    parts: Vec<String>,
    /// Where the store of `commit` is made [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Set by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench {
        // `cargo test --all-targets` starts benchmarks too, but needs no measurement.
        println!("the benchmark runs through tools/micro");
        return ExitCode::SUCCESS;
    }
    let dir = args.dir.unwrap_or_else(std::env::temp_dir);
    let parts: [(&str, &dyn Fn()); 8] = [
        ("decode", &decode),
        ("table", &table),
        ("gather", &gather),
        ("filter", &filter),
        ("queue", &queue),
        ("plan", &planned),
        ("commit", &|| commit(&dir)),
        ("size", &size),
    ];
    if let Some(unknown) = args.parts.iter().find(|wanted| !parts.iter().any(|(name, _)| name == wanted)) {
        println!("no part is called {unknown}; there are {}", parts.map(|(name, _)| name).join(", "));
        return ExitCode::from(2);
    }
    println!("{:<44}{:>12}{:>14}", "", "ns each", "allocations");
    for (name, run) in parts {
        if args.parts.is_empty() || args.parts.iter().any(|wanted| wanted == name) {
            run();
        }
    }
    ExitCode::SUCCESS
}

/// Repeats `round`, which handles `count` items, and prints the cost of one item. The time of `prepare` is not counted.
fn measure<T>(what: &str, count: usize, mut prepare: impl FnMut() -> T, mut round: impl FnMut(T)) {
    let begun = Instant::now();
    let (mut times, mut allocations) = (Vec::new(), Vec::new());
    while times.len() < 3 || begun.elapsed() < BUDGET {
        let prepared = prepare();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let started = Instant::now();
        round(prepared);
        times.push(started.elapsed());
        allocations.push(ALLOCATIONS.load(Ordering::Relaxed) - before);
    }
    times.sort();
    allocations.sort();
    let each = |sum: f64| sum / count as f64;
    let time = each(times[times.len() / 2].as_nanos() as f64);
    println!("{what:<44}{time:>12.0}{:>14.2}", each(allocations[allocations.len() / 2] as f64));
}

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("a path")
}

/// Paths like those of web sites, in 40 directories.
fn paths() -> Vec<RelPath> {
    (0..ROUND).map(|n| path(&format!("site{}/articles/section{:02}/picture-{n:06}.jpeg", n % 3, n % 40))).collect()
}

fn decode() {
    let masks = [EventMask::CREATE, EventMask::MODIFY, EventMask::CLOSE_WRITE, EventMask::DELETE | EventMask::ISDIR];
    let events: Vec<RawEvent<'_>> = (0..ROUND)
        .map(|n| RawEvent { wd: Wd(1), mask: masks[n % masks.len()], cookie: 0, name: b"picture-000001.jpeg" })
        .collect();
    measure(
        "decode an event",
        ROUND,
        || (),
        |()| {
            for event in &events {
                black_box(matches!(black_box(*event).decode(), Event::Entry { .. }));
            }
        },
    );
}

fn id(number: i32) -> Option<DirectoryId> {
    Some(DirectoryId { inode: u64::from(number.unsigned_abs()), born_ns: Some(1_700_000_000_000_000_000) })
}

/// A table of `count` directories. The root is number 1, and every other directory has ten below it.
fn watched(count: i32) -> Table {
    let mut table = Table::new(Wd(1), id(1));
    for number in 2..=count {
        table.insert(
            Wd(number / 10 + i32::from(number < 10)),
            format!("directory{number}").as_bytes(),
            Some(Wd(number)),
            id(number),
        );
    }
    table.take_changes();
    table
}

fn table() {
    let table = watched(10_000);
    measure(
        "path of an event, directory by directory",
        ROUND,
        || (),
        |()| {
            for n in 0..ROUND as i32 {
                black_box(table.path(Wd(9_000 + n / 25)).map(|dir| dir.join(b"picture-000001.jpeg")));
            }
        },
    );
    measure(
        "path of an event, each in another one",
        ROUND,
        || (),
        |()| {
            for n in 0..ROUND as i32 {
                black_box(table.path(Wd(9_000 + n)).map(|dir| dir.join(b"picture-000001.jpeg")));
            }
        },
    );
}

fn gather() {
    let paths = paths();
    let mut gather = Gather::default();
    measure(
        "gather four events of a file",
        ROUND,
        || (),
        |()| {
            for path in &paths {
                for _ in 0..4 {
                    gather.add(Change::write(path.clone()), Existence::There);
                }
            }
            black_box(gather.take());
        },
    );
}

fn filter() {
    let paths = paths();
    let ten = [
        r"(.*)\.svn",
        r"(.*)\.gz",
        r"^info/*",
        r"^static/*",
        r".*\.tmp$",
        r".*/cache/.*",
        r".*\.swp",
        r"\.git/.*",
        r".*~$",
        r"^upload/tmp/.*",
    ];
    let ten: Vec<String> = ten.iter().map(|expression| (*expression).to_owned()).collect();
    for (what, expressions) in [("filter a path, no expressions", Vec::new()), ("filter a path, ten expressions", ten)]
    {
        let filter = Filter::new(&expressions, false).expect("expressions");
        measure(
            what,
            ROUND,
            || (),
            |()| {
                for path in &paths {
                    black_box(filter.excludes(path, Kind::File));
                }
            },
        );
    }
}

fn queue() {
    let (queue, _) = Queue::open(Box::new(MemoryStore::default()), Arc::new(SystemClock)).expect("a queue");
    let policy = Policy { hot_interval: Duration::ZERO, ..Policy::default() };
    let (target, _) = queue.register(Path::new("/src"), &Destination::Local("/mirror".into()), policy);
    let changes: Vec<Change> = paths().into_iter().map(Change::write).collect();
    measure(
        "enqueue, claim and finish a job",
        ROUND,
        || (),
        |()| {
            queue.enqueue(&[target], &changes);
            while let Some(batch) = queue.claim(target, Lane::Small) {
                let verdicts = batch.jobs.iter().map(|job| (job.path.clone(), Verdict::Done)).collect();
                queue.finish(&batch, BatchResult { verdicts, reached: true, ..BatchResult::default() });
            }
        },
    );
}

fn planned() {
    let claimed = |path| ClaimedJob {
        path,
        scope: Scope::Entry,
        origin: Origin::Write,
        generation: Generation::FIRST,
        since: Timestamp(1),
        moved_from: None,
        several_names: None,
        is_new: false,
        is_safety_rerun: false,
    };
    let jobs: Vec<ClaimedJob> = paths().into_iter().map(claimed).collect();
    let indices: Vec<usize> = (0..jobs.len()).collect();
    let mut look =
        |path: &RelPath| if path.name().ends_with(b".jpeg") { Presence::File { size: 5 } } else { Presence::Directory };
    measure(
        "plan a job",
        ROUND,
        || (),
        |()| {
            black_box(plan(&jobs, &indices, Lane::Small, Limits::default(), Deletion::ByName, &mut look));
        },
    );
}

/// Writes to the disk: each job is put and then deleted, in two commits of `ROUND` jobs.
fn commit(dir: &Path) {
    let dir = tempfile::tempdir_in(dir).expect("a directory");
    let (mut store, _) = SledStore::open(dir.path(), Timestamp(1)).expect("a store");
    let target = TargetId(1);
    let job = |(number, path): (usize, RelPath)| Job {
        id: JobId(number as u64),
        target,
        path,
        scope: Scope::Entry,
        origin: Origin::Write,
        state: JobState::Ready,
        generation: Generation::FIRST,
        queued_at: Timestamp(1_700_000_000_000),
        changed_at: Timestamp(1_700_000_000_000),
        attempts: 0,
        due_at: Timestamp::ZERO,
        partial: false,
        last_error: None,
    };
    let put: Vec<Op> = paths().into_iter().enumerate().map(job).map(Op::PutJob).collect();
    let delete: Vec<Op> = paths().into_iter().map(|path| Op::DeleteJob { target, path }).collect();
    for (what, ops) in [("commit a job, thousand at a time", ROUND), ("commit a job, one at a time", 1)] {
        measure(
            what,
            ops,
            || (),
            |()| {
                store.commit(&put[..ops]).expect("a commit");
                store.commit(&delete[..ops]).expect("a commit");
            },
        );
    }
}

fn size() {
    let before = BYTES.load(Ordering::Relaxed);
    let table = watched(DIRECTORIES);
    let bytes = BYTES.load(Ordering::Relaxed) - before;
    let names: usize = (2..=DIRECTORIES).map(|number| format!("directory{number}").len()).sum();
    let each = (bytes as usize - names) / DIRECTORIES as usize;
    println!("the table takes {each} bytes for each of {DIRECTORIES} directories, beside their names");
    drop(black_box(table));
}
