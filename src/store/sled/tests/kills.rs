//! Kills at any moment: every acknowledged commit is there.

use super::*;

const CHILD_DIR: &str = "SYNCQ_TEST_STORE_CHILD";
const CHILD_COMPACTS: &str = "SYNCQ_TEST_STORE_CHILD_COMPACTS";

/// Not a test: the process that `kill_9_loses_nothing_acknowledged` starts and kills. Commits for ever, adding and
/// removing, and prints the number of each commit once it is acknowledged.
#[test]
fn child_that_commits_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let (mut store, _) = open(Path::new(&dir));
    let start = store.load().expect("loads").next_job_id;
    let mut acknowledge = acknowledgements();
    for n in start.. {
        store.commit(&numbered(n)).expect("commits");
        acknowledge(n);
        if n % 8 == 0 && std::env::var_os(CHILD_COMPACTS).is_some() {
            store.compact().expect("compacts");
        }
    }
}

/// Prints numbers of commits straight to the descriptor: the test runner holds back text that is printed.
pub(super) fn acknowledgements() -> impl FnMut(u64) {
    use std::io::Write;
    let mut out = fs::OpenOptions::new().append(true).open("/proc/self/fd/1").expect("an output");
    // One write a line: the kill may come between several.
    move |n| out.write_all(format!("acknowledged {n}\n").as_bytes()).expect("the parent reads")
}

/// The operations of commit `n`: they add and remove jobs so that [`holds_numbered`] knows which commits a store holds.
pub(super) fn numbered(n: u64) -> Vec<Op> {
    let mut ops = vec![Op::PutRoot(root()), Op::PutTarget(target(1)), Op::PutNextJobId(n + 1)];
    ops.push(Op::PutJob(job(n, 1, format!("kept {n}").as_bytes())));
    ops.extend((0..20).map(|i| Op::PutJob(Job { id: JobId(n), ..job(n, 1, format!("torn {i}").as_bytes()) })));
    if n % 2 == 1 {
        let path = RelPath::new(format!("kept {}", n - 1).as_bytes()).expect("a valid path");
        ops.push(Op::DeleteJob { target: TargetId(1), path });
    }
    ops
}

/// Fails unless a store holds all commits from 0 to `acknowledged`, or one more, which may have been made without being
/// acknowledged, and none by halves.
pub(super) fn holds_numbered(loaded: &Contents, acknowledged: Option<u64>, case: &str) {
    let made = loaded.next_job_id.checked_sub(1);
    let next = acknowledged.map_or(0, |last| last + 1);
    assert!(made == acknowledged || made == Some(next), "{case}: {acknowledged:?} acknowledged, {made:?} there");
    let Some(made) = made else { return };
    let (mut kept, mut whole) = (Vec::new(), Vec::new());
    for job in &loaded.jobs {
        if job.path.as_bytes().starts_with(b"kept ") { kept.push(job.id.0) } else { whole.push(job.id.0) }
    }
    kept.sort_unstable();
    let expected: Vec<u64> = (0..=made).filter(|n| n % 2 == 1 || *n == made).collect();
    assert_eq!(kept, expected, "{case}");
    assert_eq!(whole, [made; 20], "{case}: a commit is torn");
}

/// The promise of the store: a job that was acknowledged is there after a kill at any moment, one that was removed is
/// not, and no commit is there by halves.
#[test]
fn kill_9_loses_nothing_acknowledged() {
    kill_9(12, false);
}

/// The same promise while the store is being compacted most of the time.
#[test]
fn kill_9_during_compactions_loses_nothing_acknowledged() {
    kill_9(16, true);
}

fn kill_9(rounds: u64, compacts: bool) {
    let temp = tempfile::tempdir().expect("a directory");
    let mut random = fastrand::Rng::with_seed(9);
    for round in 0..rounds {
        let mut command = Command::new(std::env::current_exe().expect("a test binary"));
        command
            .args(["--exact", "store::sled::tests::kills::child_that_commits_until_killed", "--nocapture"])
            .env(CHILD_DIR, temp.path())
            .stdout(Stdio::piped());
        if compacts {
            command.env(CHILD_COMPACTS, "yes");
        }
        let mut child = command.spawn().expect("the child starts");
        let reader = BufReader::new(child.stdout.take().expect("piped"));
        let patience = random.u64(1..150);
        // Every other round the kill falls among commits for certain, else anywhere from the start of the process on.
        let among_commits = round % 2 == 0;
        let (committing, wait) = std::sync::mpsc::channel();
        let killer = std::thread::spawn(move || {
            if among_commits {
                // An error means that the child is gone already.
                let _ = wait.recv();
            }
            std::thread::sleep(Duration::from_millis(patience));
            child.kill().and_then(|()| child.wait()).expect("the child ends");
        });
        let mut last = None;
        for line in reader.lines() {
            let line = line.expect("text");
            if let Some(number) = line.strip_prefix("acknowledged ") {
                last = Some(number.parse::<u64>().expect("a number"));
                let _ = committing.send(());
            }
        }
        drop(committing);
        killer.join().expect("killed");

        let (mut store, opened) = open(temp.path());
        let loaded = store.load().expect("loads");
        assert_eq!(loaded.damaged_records, 0, "round {round}");
        assert!(last.is_some() || !among_commits, "round {round}: the child committed nothing");
        let Some(last) = last else { continue };
        assert_eq!(opened.fresh, None, "round {round}");
        assert!(!opened.clean && !opened.may_lack_jobs(), "round {round}: {opened:?}");
        holds_numbered(&loaded, Some(last), &format!("round {round}"));
    }
}
