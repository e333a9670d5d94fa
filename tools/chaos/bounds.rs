//! Situations that last, and the bounds on their costs: a burst beside bare rsync, a target that is away, targets that hang.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::harness::free_port;
use crate::harness::{Rsyncd, World, make_dir, secs, wait_until};
use crate::journal::Journal;
use crate::proxy::{Mode, Proxy};
use crate::rounds::{INTERRUPTED, Settings, said};
use crate::stage::{Setting, Stage, TARGETS, rest};

/// Creates files as fast as one process can, into an event queue that cannot hold them. Compares the time with bare rsync's.
pub fn bursts(settings: &Settings, journal: &Journal, files: usize) {
    for events in [1_024, 16_384] {
        if !settings.inside {
            return println!("faults: bursts are left out: they need root and a mount namespace");
        }
        let setting = Setting {
            seed: settings.seed,
            twins: false,
            mounts: true,
            queue: Some(events),
            ordinary: false,
            late: false,
        };
        let stage = Stage::set(setting, journal);
        stage.note(format!("--- {files} files, a queue of {events} ---"));
        let began = Instant::now();
        create(&stage.tree, files);
        let created = began.elapsed();
        // Reading a directory keeps rsync from adding to it, so look at the last file first.
        let last_is_there = |dst: &Path| dst.join(burst_file(files - 1)).exists();
        let all_there = |dst: &PathBuf| last_is_there(dst) && count(dst) > files;
        wait_until(secs(300), "all files on both targets", || stage.world.dsts.iter().all(all_there));
        let arrived = began.elapsed();
        stage.world.converges(secs(300));
        let overflows = &stage.world.cli.status().json["watches"]["overflows"];
        println!(
            "faults: {files} files, max_queued_events {events}: created in {:.1} s, all on both targets after {:.1} s, \
             equal; {overflows} overflows",
            created.as_secs_f64(),
            arrived.as_secs_f64()
        );
    }
    println!("faults: bare rsync of {files} such files to both targets: {:.1} s", bare(files).as_secs_f64());
}

/// The number of waiting changes, and how much a daemon may take in MB while they wait for a target: memory, and disk in its
/// store.
const AWAY_BOUNDS: (usize, u64, u64) = (200_000, 150, 300);
/// How many single files are timed for one latency.
const SINGLES: usize = 21;

/// Creates many files while one of two targets is away. Reports the cost in memory and disk, the delay for the other target,
/// and the time until the return is complete.
pub fn away(settings: &Settings, journal: &Journal, files: usize) {
    const FILES_PER_DIR: usize = 1_000;
    let setting =
        Setting { seed: settings.seed, twins: false, mounts: false, queue: None, ordinary: false, late: false };
    let mut stage = Stage::set(setting, journal);
    stage.note(format!("--- {files} files while a target is away ---"));
    let before = latency(&stage, "before");
    stage.proxies[1].set(Mode::Refuse);
    let began = Instant::now();
    create_in_dirs(&stage.tree, files, FILES_PER_DIR);
    let last = format!("dir{}/file{}", (files - 1) / FILES_PER_DIR, files - 1);
    wait_until(secs(300), "all files on the target that stays", || {
        stage.world.arrived(0, &last) && stage.world.cli.status().target(TARGETS[0].1).is_idle()
    });
    let arrived = began.elapsed();
    let during = latency(&stage, "during");
    let (memory_mb, store_mb) = (stage.peak_memory_mb(), stage.store_mb());
    stage.note("the target returns");
    let began = Instant::now();
    stage.heal();
    stage.retry();
    wait_until(secs(300), "all work done", || stage.world.cli.status().is_idle());
    let returned = began.elapsed();
    stage.equal();
    println!(
        "faults: {files} files while a target is away: on the other one after {:.1} s; {memory_mb} MB of memory at most, \
         a store of {store_mb} MB; a small file to the other one takes {:.1} ms, {:.1} ms before; all done {:.1} s after \
         the return, and equal",
        arrived.as_secs_f64(),
        during.as_secs_f64() * 1e3,
        before.as_secs_f64() * 1e3,
        returned.as_secs_f64(),
    );
    let (files_max, memory_max, store_max) = AWAY_BOUNDS;
    assert!(files > files_max || memory_mb <= memory_max, "{memory_mb} MB of memory");
    assert!(files > files_max || store_mb <= store_max, "{store_mb} MB of store");
    println!("faults: bare rsync of {files} such files: {:.1} s", bare(files).as_secs_f64());
}

/// The number of targets, of which most hang.
const MANY: usize = 12;
/// How soon a small file has to be on the other targets, and how long it may take while the daemon is still finding out which
/// hang.
const QUICK: Duration = Duration::from_secs(3);
const FOUND_OUT_WITHIN: Duration = Duration::from_secs(60);
const FOUND_OUT_BY: u32 = 8;

/// In each round most of many targets hang, some of them in the middle of a large file. The others must get small files as
/// quickly as ever.
pub fn hung(settings: &Settings, journal: &Journal, count: u32) {
    let began = Instant::now();
    let mut rng = Rng::with_seed(settings.seed ^ 0x4a6e);
    let mut world = World::new();
    world.keep = true;
    journal.keep_in(world.base());
    let modules: Vec<String> = (0..MANY).map(|n| format!("t{n}")).collect();
    let addresses: Vec<String> = (0..MANY).map(|n| format!("127.0.1.{}", n + 1)).collect();
    let (port, upstream) = (free_port(), free_port());
    world.conf.local_paths.clear();
    let remotes: Vec<(&str, &str)> = addresses.iter().zip(&modules).map(|(a, m)| (a.as_str(), m.as_str())).collect();
    let src = world.src.clone();
    world.conf.root(&src, &remotes).port = port;
    world.conf.syncq = "<backoff base=\"200ms\" cap=\"5s\"/>".to_owned();
    world.dsts = modules.iter().map(|module| world.side(module)).collect();
    let mut server = Rsyncd::at(&world.base().join("rsyncd-many"), "0.0.0.0", upstream);
    for (module, dst) in modules.iter().zip(&world.dsts) {
        server.module(module, dst);
    }
    server.start();
    let proxies: Vec<Proxy> = addresses.iter().map(|address| Proxy::start(address, port, upstream)).collect();
    crate::harness::write(world.src.join("first"), "first");
    world.start_daemon(&[]);
    world.answers_are_true(secs(60));
    let mut worst = Duration::ZERO;
    for round in 1..=count {
        let mut order: Vec<usize> = (0..MANY).collect();
        rng.shuffle(&mut order);
        let (well, ill) = order.split_at(rng.usize(1..4));
        journal.note(format!("--- hung round {round}: {well:?} are well ---"));
        if rng.bool() {
            crate::harness::write(world.src.join(format!("large{round}")), vec![7; 30 << 20]);
            rest(&mut rng, 300);
        }
        ill.iter().for_each(|n| proxies[*n].set(Mode::Stall));
        let arrive = |name: String, within: Duration| {
            crate::harness::write(world.src.join(&name), &name);
            let written = Instant::now();
            wait_until(within, &name, || well.iter().all(|n| world.dsts[*n].join(&name).exists()));
            written.elapsed()
        };
        // Targets that worked until now are found to hang by the runs that they are given.
        for n in 0..FOUND_OUT_BY {
            let took = arrive(format!("f{round}-found-{n}"), FOUND_OUT_WITHIN);
            journal.note(format!("{n}: after {took:?}"));
        }
        for n in 0..10 {
            rest(&mut rng, 300);
            worst = worst.max(arrive(format!("f{round}-{n}"), QUICK));
        }
        proxies.iter().for_each(|proxy| proxy.set(Mode::Pass));
        // Targets that hung go on where they stopped.
        let cli = &world.cli;
        drop(cli.run(["retry".as_ref(), "--state-dir".as_ref(), cli.state.as_os_str()]).ok());
        world.answers_are_true(secs(300));
        if INTERRUPTED.load(Ordering::Relaxed) {
            break;
        }
    }
    said("hung targets", count, began);
    println!(
        "faults: with most of {MANY} targets hung, the others had a small file after {} ms at most",
        worst.as_millis()
    );
    world.daemon().stop();
    server.stop();
    world.keep = false;
}

/// The median time from the write of a small file until the first target has it, on an otherwise idle daemon.
fn latency(stage: &Stage, name: &str) -> Duration {
    let mut taken: Vec<Duration> = (0..SINGLES)
        .map(|n| {
            let file = format!("{name}-{n}");
            std::thread::sleep(Duration::from_millis(100));
            crate::harness::write(stage.tree.join(&file), "small");
            let written = Instant::now();
            while !stage.world.arrived(0, &file) && written.elapsed() < secs(10) {
                std::thread::sleep(Duration::from_micros(200));
            }
            written.elapsed()
        })
        .collect();
    taken.sort();
    taken[taken.len() / 2]
}

fn create_in_dirs(tree: &Path, files: usize, files_per_dir: usize) {
    for n in 0..files {
        let dir = tree.join(format!("dir{}", n / files_per_dir));
        if n % files_per_dir == 0 {
            make_dir(&dir);
        }
        fs::write(dir.join(format!("file{n}")), "content").expect("cannot create a file");
    }
}

/// The name of a file of the burst. All are in the root itself, as if unpacked there.
fn burst_file(n: usize) -> String {
    format!("burst{n}")
}

fn create(dir: &Path, files: usize) {
    for n in 0..files {
        fs::write(dir.join(burst_file(n)), "content").expect("cannot create a file");
    }
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// The time of two rsyncs at once, for files that all exist already.
fn bare(files: usize) -> Duration {
    let world = World::new();
    let mut server = Rsyncd::at(&world.side("bare"), "127.0.0.1", free_port());
    make_dir(&world.src);
    server.module("m1", &world.dsts[0]).module("m2", &world.dsts[1]);
    server.start();
    create(&world.src, files);
    let began = Instant::now();
    let mut runs: Vec<_> = ["m1", "m2"]
        .map(|module| {
            let mut command = Command::new("rsync");
            command.arg("-art").arg("--port").arg(server.port.to_string());
            command.arg(format!("{}/", world.src.display())).arg(server.remote(module));
            command.spawn().expect("cannot start rsync")
        })
        .into();
    for run in &mut runs {
        assert!(run.wait().expect("cannot wait for rsync").success(), "bare rsync failed");
    }
    began.elapsed()
}
