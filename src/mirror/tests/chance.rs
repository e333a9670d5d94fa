//! Batches against an rsync that ends by chance, within this process. Whatever rsync says, and however a batch then falls
//! back, halves, verifies, judges deletions or gives up, each job gets one verdict, and there are no more runs than
//! allowed.
//!
//! A case is a number: the configuration, the jobs and rsync's answers all follow from it. The n-th answer depends only on
//! n, so one run more or less changes all later answers.

use std::fs::FileTimes;
use std::io;
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use fastrand::Rng;

use super::*;
use crate::mirror::rsync::blocked::{Blocked, Cause};
use crate::mirror::rsync::capture::Capture;
use crate::mirror::rsync::ended::{Cut, End, Ended};
use crate::mirror::target::launch::StandIn;
use crate::model::{AtFirst, Mounted};
use crate::mounts::Mounts;

/// Paths for jobs and for rsync's words. Some are missing at the source, some exist in a part of the cases.
const PATHS: [&str; 25] = [
    "",
    "a",
    "b",
    "c.log",
    "big",
    "d",
    "d/f01",
    "d/f02",
    "d/sub",
    "d/sub/x",
    "e",
    "e/1",
    "e/deep",
    "e/deep/y",
    "e/large",
    "fifo",
    "gone",
    "gone/below",
    "huge",
    "large",
    "late",
    "late/x",
    "link",
    "moved",
    "skip/x",
];
/// The moves of some cases: the new name and the old one.
const MOVED: [(&str, &str); 3] = [("moved", "old"), ("e/large", "old-large/large"), ("large", "old-name")];
/// More than any batch needs: the limit of a batch, and the runs that its trees add.
const RUNS_MAX: usize = 100;

/// A source that all cases share.
fn stage() -> Stage {
    let stage = Stage::new();
    for name in ["a", "b", "c.log", "d/sub/x", "e/1", "e/deep/y", "skip/x", "moved/small"] {
        stage.write(name, "0123456789");
    }
    for n in 0..40 {
        stage.write(&format!("d/f{n:02}"), "x");
    }
    let sized = |name: &str, size: u64| {
        stage.write(name, "");
        std::fs::File::options().write(true).open(stage.src(name)).unwrap().set_len(size).unwrap();
    };
    sized("big", 100_000);
    ["large", "e/large", "moved/large"].iter().for_each(|name| sized(name, 2 << 20));
    std::os::unix::fs::symlink("a", stage.src("link")).unwrap();
    assert!(Command::new("mkfifo").arg(stage.src("fifo")).status().unwrap().success());
    let quiet = UNIX_EPOCH + Duration::from_millis(1_600_000_000_123);
    std::fs::File::open(stage.src("a")).unwrap().set_times(FileTimes::new().set_modified(quiet)).unwrap();
    stage
}

/// Puts the source back to the state in which a case begins.
fn reset(stage: &Stage, case: u64) {
    std::fs::remove_dir_all(stage.src("late")).ok();
    if case.is_multiple_of(2) {
        stage.write("late/x", "late");
    }
    std::fs::remove_file(stage.src("huge")).ok();
    if case.is_multiple_of(3) {
        stage.write("huge", "");
        std::fs::File::options().write(true).open(stage.src("huge")).unwrap().set_len(300 << 20).unwrap();
    }
}

#[derive(Debug)]
struct Told;

impl Observer for Told {
    fn ran(&self, _: Ran<'_>) {}
}

/// The target of a case.
fn context(stage: &Stage, rng: &mut Rng) -> TargetContext {
    let destination = match rng.u8(0..5) {
        0 => Destination::Local(stage.dst("")),
        _ => Destination::Daemon { host: "h".to_owned(), module: "m".into() },
    };
    let mut options = TransferOptions { delete: rng.u8(0..8) > 0, ..TransferOptions::default() };
    match rng.u8(0..8) {
        0 => options.params.extend(["--exclude=nothing"]),
        1 => options.params.extend(["--max-delete=4"]),
        _ => {}
    }
    let excludes: &[&str] = if rng.u8(0..5) < 2 { &["^skip", r"(.*)\.log"] } else { &[] };
    let mut ctx = stage.context_filtered(destination, options, excludes);
    let limit = *rng
        .choice(&[MaxDelete::Unlimited, MaxDelete::Unlimited, MaxDelete::Entries(3), MaxDelete::default()])
        .unwrap();
    let at_first = *rng.choice(&[AtFirst::Usual, AtFirst::Usual, AtFirst::Few, AtFirst::Nothing]).unwrap();
    ctx.guard = Guard::new(limit, false, false).at_first(at_first).with_params(&ctx.target.options.params);
    // Directories of this machine stand for mount points in the tree: `proc` is mounted, `e` is not.
    let expected: &[&str] = match rng.u8(0..10) {
        0 | 1 => &["proc"],
        2 => &["e"],
        _ => &[],
    };
    let expected = expected.iter().map(|place| Mounted { path: path(place), id: None });
    ctx.mounts = Arc::new(Mounts::new(Path::new("/"), expected));
    ctx.set_observer((rng.u8(0..3) == 0).then(|| Arc::new(Told) as Arc<dyn Observer>));
    ctx
}

fn jobs(rng: &mut Rng) -> Vec<ClaimedJob> {
    let count = rng.usize(1..20);
    let mut names = rng.choose_multiple(PATHS, count);
    if rng.bool() && !names.contains(&"") {
        names.push("");
    }
    let mut jobs: Vec<ClaimedJob> = names
        .into_iter()
        .map(|name| {
            let scope = *rng.choice(&[Scope::Entry, Scope::Entry, Scope::Children, Scope::Subtree]).unwrap();
            let scope = if name.is_empty() && rng.u8(0..3) > 0 { Scope::Subtree } else { scope };
            let origins = [Origin::Scan, Origin::Write, Origin::Write, Origin::Replaced, Origin::Reconcile];
            job(name, scope, *rng.choice(&origins).unwrap())
        })
        .collect();
    if rng.u8(0..4) == 0 {
        let burst = (0..40).map(|n| job(&format!("d/f{n:02}"), Scope::Entry, Origin::Write));
        let known: Vec<RelPath> = jobs.iter().map(|job| job.path.clone()).collect();
        jobs.extend(burst.filter(|job| !known.contains(&job.path)));
    }
    if rng.u8(0..4) == 0 {
        for (new, old) in rng.choose_multiple(MOVED, 2) {
            let scope = if new == "moved" { Scope::Subtree } else { Scope::Entry };
            jobs.retain(|job| job.path != path(new));
            jobs.push(ClaimedJob { moved_from: Some(path(old)), ..job(new, scope, Origin::Replaced) });
            jobs.push(job(old, Scope::Entry, Origin::Write));
        }
    }
    let (several, is_new) = (rng.u8(0..6) == 0, rng.u8(0..6) == 0);
    for job in &mut jobs {
        job.since = Timestamp(rng.u64(0..NOW.0));
        job.several_names = (several && rng.bool()).then(|| rng.u64(0..2));
        job.is_new = is_new;
    }
    rng.shuffle(&mut jobs);
    jobs
}

/// The rsync of a case.
struct Chance {
    case: u64,
    /// The share of runs that do not simply succeed.
    temper: f64,
    root: PathBuf,
}

impl Chance {
    fn answer(
        &self,
        (n, args, list): (usize, &[OsString], &[u8]),
        kept: Option<Capture>,
        stop: &StopSignal,
    ) -> io::Result<Ended> {
        let rng = &mut Rng::with_seed(self.case.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(n as u64));
        let listed: Vec<String> = list
            .split(|&b| b == 0)
            .map(|name| String::from_utf8_lossy(name).trim_start_matches("./").trim_end_matches('/').to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        if rng.u8(0..12) == 0 {
            let late = self.root.join("late");
            if std::fs::remove_dir_all(&late).is_err() {
                write(&late.join("x"), "late");
            }
        }
        let mut ended = Ended {
            end: End::Exit(0),
            stderr: Capture::of_errors(),
            stdout: Capture::default(),
            blocked: None,
            cut: *rng.choice(&[Cut::No, Cut::No, Cut::Closed, Cut::Held]).unwrap(),
        };
        let has = |wanted: &str| args.iter().any(|arg| arg == wanted);
        if let Some(kept) = kept {
            ended.stdout = if rng.u8(0..20) == 0 { Capture::new(30, 0) } else { kept };
            for _ in 0..rng.u8(0..6) {
                ended.stdout.push(self.line(rng, &listed).as_bytes());
            }
            if has("--info=stats2") && rng.u8(0..8) > 0 {
                let (files, deleted) = (rng.u32(1..40), rng.u32(0..8));
                let stats = format!(
                    "Number of files: {files}\nNumber of created files: 1\nNumber of deleted files: {deleted}\n"
                );
                ended.stdout.push(stats.as_bytes());
            }
            if has("--list-only") {
                ended.stdout.push(b"-rw-r--r--              0 2020/11/20 10:00:00 d/.f.txt.Ab12Cd\n");
            }
        }
        if has("--max-delete=0") && rng.bool() {
            let held = rng.choice([1, 2, 5, 30, 1_000]).unwrap();
            ended.stderr.push(format!("Deletions stopped due to --max-delete limit ({held} skipped)\n").as_bytes());
            ended.end = End::Exit(*rng.choice(&[0, 25]).unwrap());
        }
        let asks_whether_it_is_well = list.is_empty() && !has("-r");
        if rng.f64() >= self.temper || (asks_whether_it_is_well && rng.u8(0..5) > 0) {
            return Ok(ended);
        }
        let name = name(rng, &listed);
        let at = self.root.join(&name).display().to_string();
        let (code, said) = match rng.u8(0..100) {
            0..12 => (23, format!("rsync: [sender] send_files failed to open \"{at}\": Permission denied (13)")),
            12..20 => (23, format!("rsync: [receiver] mkstemp \"/{name}\" (in m) failed: Permission denied (13)")),
            20..24 => {
                (23, format!("rsync: [generator] delete_file: rmdir(/{name}) (in m) failed: Permission denied (13)"))
            }
            24..34 => {
                ended.stdout.push(b"IO error encountered -- skipping file deletion\n");
                (23, format!("rsync: [sender] opendir \"{at}\" failed: Permission denied (13)"))
            }
            34..40 => (24, format!("file has vanished: \"{at}\"")),
            40..46 => (*rng.choice(&[0, 23]).unwrap(), "words that nobody knows".to_owned()),
            46..52 => (23, String::new()),
            52..64 => (12, "rsync: connection unexpectedly closed (7 bytes)".to_owned()),
            64..67 => {
                (11, format!("rsync: [receiver] write failed on \"/{name}\" (in m): No space left on device (28)"))
            }
            67..69 => (11, "rsync: [receiver] write failed: No space left on device (28)".to_owned()),
            69..80 => {
                // A server refuses only options that the run has.
                let options = [
                    "--delete-missing-args",
                    "--delete",
                    "--link-dest",
                    "--fuzzy",
                    "--checksum",
                    "--modify-window",
                    "--partial-dir",
                    "--force",
                    "--ignore-times",
                ];
                let is_asked = |option: &&str| args.iter().any(|arg| arg.as_bytes().starts_with(option.as_bytes()));
                let asked: Vec<&str> = options.into_iter().filter(is_asked).collect();
                match rng.choice(&asked) {
                    Some(option) => (4, format!("ERROR: The server is configured to refuse {option}")),
                    None => return Ok(ended),
                }
            }
            80..82 => (2, format!("invalid file mode 00 for {name} [Receiver]")),
            82..93 => {
                let file = (rng.u8(0..4) > 0).then(|| PathBuf::from(&at));
                let cause = if file.is_some() { Cause::NoFile } else { Cause::Unseen };
                ended.blocked = Some(Box::new(Blocked { path: file, cause }));
                ended.end = End::Blocked;
                return Ok(ended);
            }
            93..95 => (10, "rsync: failed to connect to h: Connection refused (111)".to_owned()),
            95 => {
                stop.raise();
                (20, "rsync error: received SIGINT, SIGTERM, or SIGHUP (code 20)".to_owned())
            }
            96 => {
                ended.end = End::Stopped;
                return Ok(ended);
            }
            97 => {
                ended.end = *rng.choice(&[End::Signal(9), End::Stalled]).unwrap();
                return Ok(ended);
            }
            98 => return Err(io::ErrorKind::OutOfMemory.into()),
            _ => (11, "rsync: [Receiver] mkdir \"/x\" (in m) failed: No such file or directory (2)".to_owned()),
        };
        ended.end = End::Exit(code);
        ended.stderr.push(format!("{said}\n").as_bytes());
        Ok(ended)
    }

    /// A line about one path in rsync's output.
    fn line(&self, rng: &mut Rng, listed: &[String]) -> String {
        let name = name(rng, listed);
        let forms = [
            "<f+++++++++ NAME",
            ".f          NAME",
            ".d          NAME/",
            ".f..t...... NAME",
            "*deleting   NAME",
            "*deleting   NAME/",
            "*deleting   NAME/x",
            "cd+++++++++ NAME/",
            "cannot delete non-empty directory: NAME",
            "skipping non-regular file \"NAME\"",
        ];
        // The last form is printed by one version only, and means that an option is lacking.
        let form = if rng.u8(0..60) == 0 { forms.len() - 1 } else { rng.usize(0..forms.len() - 1) };
        forms.get(form).unwrap().replace("NAME", &name) + "\n"
    }
}

/// Usually a name of the list, sometimes one below it, or any other.
fn name(rng: &mut Rng, listed: &[String]) -> String {
    match rng.choice(listed) {
        Some(name) if rng.u8(0..4) > 0 => name.clone(),
        Some(name) if rng.bool() => format!("{name}/below"),
        _ => (*rng.choice(&PATHS[1..]).unwrap()).to_owned(),
    }
}

/// Arguments and list of each run.
type Started = Vec<(Vec<OsString>, Vec<u8>)>;

/// Carries a case out: its runs, and the report.
fn course(stage: &Stage, case: u64) -> (Started, BatchReport) {
    let rng = &mut Rng::with_seed(case);
    reset(stage, case);
    let mut ctx = context(stage, rng);
    let jobs = jobs(rng);
    let lane = *rng.choice(&[Lane::Small, Lane::Large]).unwrap();
    let contents = if rng.u8(0..4) == 0 { Contents::Unvouched } else { Contents::Vouched };
    let temper = *rng.choice(&[0.05, 0.2, 0.4, 0.7]).unwrap();
    let chance = Chance { case, temper, root: ctx.root.clone() };
    let runs = Arc::new(Mutex::new(Vec::new()));
    let kept_runs = Arc::clone(&runs);
    ctx.stand_in = Some(StandIn(Box::new(move |args, list, kept, stop| {
        let mut runs = kept_runs.lock().unwrap();
        runs.push((args.to_vec(), list.to_vec()));
        chance.answer((runs.len(), args, list), kept, stop)
    })));
    let report = execute(&ctx, lane, &jobs, contents, NOW, &StopSignal::new().unwrap());
    let answered: Vec<&RelPath> = report.verdicts.iter().map(|(path, _)| path).collect();
    assert_eq!(answered, jobs.iter().map(|job| &job.path).collect::<Vec<_>>(), "case {case}");
    ctx.stand_in = None;
    (Arc::into_inner(runs).unwrap().into_inner().unwrap(), report)
}

/// `SYNCQ_TEST_CHANCE_CASES` sets another number of cases.
#[test]
fn each_job_gets_one_verdict_whatever_rsync_says() {
    let stage = stage();
    let cases = std::env::var("SYNCQ_TEST_CHANCE_CASES").map_or(200, |text| text.parse().unwrap());
    let mut longest = 0;
    for case in 0..cases {
        let (runs, report) = course(&stage, case);
        assert!(runs.len() <= RUNS_MAX, "case {case}: {} runs", runs.len());
        longest = longest.max(runs.len());
        // The same case again has the same course: nothing outside the case plays a part.
        let (again, second) = course(&stage, case);
        assert_eq!((&runs, format!("{report:?}")), (&again, format!("{second:?}")), "case {case}");
    }
    assert!(longest > 5, "no case is more than a few runs");
}
