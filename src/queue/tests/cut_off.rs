//! A run that is cut off leaves a receiver that may still write for a moment: over what a newer run has sent, or where it
//! has deleted. After a `kill -9` under load 71 deleted files stood on the target again.

use super::*;

/// How long receivers are waited for.
const PATIENCE_MS: u64 = 5_000;

#[test]
fn what_runs_right_after_a_start_runs_twice_and_later_once() {
    let mut bench = Bench::new();
    bench.write("a");
    bench.queue.open_receiver_window(bench.now, false);
    assert_eq!(bench.small(), ["a"]);
    bench.wait(100);
    bench.done("a");
    assert_eq!(bench.job("a").state, JobState::Waiting);
    assert!(bench.small().is_empty());
    bench.wait(PATIENCE_MS);
    assert_eq!(bench.small(), ["a"]);
    bench.done("a");
    bench.write("b");
    assert_eq!(bench.small(), ["b"]);
    bench.done("b");
    assert_eq!(bench.len(), 0);
}

/// A run that began early may have looked at the target before its receivers had ended, however long the run takes.
#[test]
fn a_run_that_began_early_counts_however_late_it_ends() {
    for (killed, again) in [(true, vec!["."]), (false, vec![])] {
        let mut bench = Bench::new();
        bench.queue.open_receiver_window(bench.now, killed);
        bench.scan("", Scope::Subtree);
        assert_eq!(bench.claim(Lane::Large), ["."]);
        bench.wait(60_000);
        bench.queue.finish(&RelPath::root(), Verdict::Done, Duration::from_secs(60), bench.now, 0.5);
        assert_eq!(bench.claim(Lane::Large), again);
    }
}

#[test]
fn a_newer_change_does_not_wait_and_is_repeated_as_well() {
    let mut bench = Bench::new();
    bench.queue.open_receiver_window(bench.now, false);
    bench.write("a");
    assert_eq!(bench.small(), ["a"]);
    bench.done("a");
    bench.wait(PATIENCE_MS - 1_000);
    bench.write("a");
    assert_eq!(bench.small(), ["a"], "at once");
    bench.wait(2_000);
    bench.done("a");
    assert!(bench.small().is_empty());
    bench.wait(PATIENCE_MS);
    assert_eq!(bench.small(), ["a"]);
    bench.done("a");
    assert_eq!(bench.len(), 0);
}

/// A change of the directory's own times during the second run made the repetition as small as that change.
#[test]
fn a_run_that_was_cut_off_is_repeated_in_full_whatever_changes_meanwhile() {
    let mut bench = Bench::new();
    bench.scan("d", Scope::Subtree);
    assert_eq!(bench.claim(Lane::Large), ["d"]);
    bench.queue.note_cut(&path("d"), bench.now);
    bench.finish("d", Verdict::Released);
    assert_eq!(bench.claim(Lane::Large), ["d"]);
    bench.scan("d", Scope::Entry);
    bench.done("d");
    assert_eq!(bench.claim(Lane::Large), ["d"], "at once, for what is new");
    bench.done("d");
    assert_eq!((bench.job("d").state, bench.job("d").scope), (JobState::Waiting, Scope::Subtree));
    bench.wait(PATIENCE_MS);
    assert_eq!(bench.claim(Lane::Large), ["d"]);
    bench.done("d");
    // A file may have stood there when the run was cut off. The run that deletes its part was early as well, so it runs
    // twice.
    for _ in 0..2 {
        assert_eq!(bench.small(), [".rsync-partial/d"]);
        bench.done(".rsync-partial/d");
        bench.wait(PATIENCE_MS);
    }
    assert_eq!(bench.len(), 0);
}

/// The sweep that took the repetition over ran at once, and then nothing was repeated.
#[test]
fn a_repeat_that_a_sweep_takes_over_is_not_forgotten() {
    let mut bench = Bench::new();
    bench.write("d/a");
    assert_eq!(bench.small(), ["d/a"]);
    bench.queue.note_cut(&path("d/a"), bench.now);
    bench.done("d/a");
    assert_eq!(bench.job("d/a").state, JobState::Waiting);
    bench.add(Change { origin: Origin::Write, ..Change::scan(path("d"), Scope::Subtree) });
    assert_eq!(bench.claim(Lane::Large), ["d"]);
    bench.done("d");
    bench.wait(PATIENCE_MS);
    assert_eq!(bench.claim(Lane::Large), ["d"]);
    bench.done("d");
    assert_eq!(bench.len(), 0);
}

/// By the wall clock the moment of the start then lies in the future for an hour.
#[test]
fn a_clock_that_is_set_back_repeats_nothing_for_ever() {
    let mut bench = Bench::new();
    bench.now = Timestamp(10_000_000);
    bench.queue.open_receiver_window(bench.now, true);
    bench.now = Timestamp(1_000_000);
    bench.write("a");
    assert_eq!(bench.small(), ["a"]);
    bench.done("a");
    bench.wait(PATIENCE_MS);
    assert_eq!(bench.small(), ["a"]);
    bench.done("a");
    assert_eq!(bench.len(), 0);
}

/// The connection broke in the middle: only the jobs that were on it are doubtful.
#[test]
fn what_was_on_a_connection_that_broke_is_sent_once_more() {
    let clock = Arc::new(SimulatedClock::new(Timestamp(1_000_000)));
    let store = crate::store::memory::MemoryStore::new();
    let (queue, _) = Queue::open(Box::new(store), Arc::<SimulatedClock>::clone(&clock)).expect("opens");
    let (target, _) = queue.register(Path::new("/src"), &Destination::Local("/dst".into()), Policy::default());
    let paths = |batch: &Batch| batch.jobs.iter().map(|job| job.path.to_string()).collect::<Vec<_>>();
    let finished = |batch: &Batch, trouble: Option<TargetTrouble>| {
        let verdict = if trouble.is_some() { Verdict::Released } else { Verdict::Done };
        let verdicts = batch.jobs.iter().map(|job| (job.path.clone(), verdict.clone())).collect();
        let reached = trouble.is_none();
        queue.finish(batch, BatchResult { verdicts, trouble, reached, ..BatchResult::default() });
    };
    let broken = TargetTrouble {
        class: TroubleClass::Unavailable,
        code: Some(12),
        message: "connection reset".into(),
        hint: None,
        command: None,
    };
    queue.enqueue(&[target], &[Change::write(path("a"))]);
    finished(&queue.claim(target, Lane::Small).expect("a batch"), Some(broken));
    queue.enqueue(&[target], &[Change::write(path("b"))]);
    clock.advance(Duration::from_secs(120));
    let probe = queue.claim(target, Lane::Small).expect("a probe");
    finished(&probe, None);
    while let Some(batch) = queue.claim(target, Lane::Small) {
        finished(&batch, None);
    }
    clock.advance(Duration::from_millis(PATIENCE_MS));
    queue.next_due(&[target]);
    let again = queue.claim(target, Lane::Small).expect("what was cut off");
    assert_eq!(paths(&again), ["a"]);
    finished(&again, None);
    assert_eq!(queue.stats(target).expect("a target").counts.total(), 0);
}

/// A mirror whose runs are ended now and then lagged because of all that was repeated after each. A mirror to a directory
/// of this machine also looked at all of it again, although its receivers are ended with the run.
#[test]
fn what_was_begun_again_behind_a_closed_connection_is_done_and_looked_at_later_where_something_may_come() {
    let daemon = Destination::Daemon { host: "b".into(), module: "m".into() };
    for (destination, is_looked_at) in [(daemon, true), (Destination::Local("/dst".into()), false)] {
        let clock = Arc::new(SimulatedClock::new(Timestamp(1_000_000)));
        let store = crate::store::memory::MemoryStore::new();
        let (queue, _) = Queue::open(Box::new(store), Arc::<SimulatedClock>::clone(&clock)).expect("opens");
        let (target, _) = queue.register(Path::new("/src"), &destination, Policy::default());
        queue.enqueue(&[target], &[Change::write(path("a"))]);
        let batch = queue.claim(target, Lane::Small).expect("a batch");
        let verdicts = vec![(path("a"), Verdict::Done)];
        queue.finish(&batch, BatchResult { verdicts, cut: CutOff::Closed, reached: true, ..BatchResult::default() });
        assert_eq!(queue.stats(target).expect("a target").counts.total(), 0);
        // Something between both sides may have kept data back.
        clock.advance(Duration::from_secs(120));
        queue.next_due(&[target]);
        let looked_at = queue.claim(target, Lane::Small).map(|batch| batch.jobs[0].path.clone());
        assert_eq!(looked_at, is_looked_at.then(|| path("a")), "{destination}");
    }
}

/// The first attempt was cut off and the second went through, all in one batch.
#[test]
fn what_was_begun_twice_is_sent_once_more() {
    let clock = Arc::new(SimulatedClock::new(Timestamp(1_000_000)));
    let store = crate::store::memory::MemoryStore::new();
    let (queue, _) = Queue::open(Box::new(store), Arc::<SimulatedClock>::clone(&clock)).expect("opens");
    let (target, _) = queue.register(Path::new("/src"), &Destination::Local("/dst".into()), Policy::default());
    let done = |batch: &Batch, cut: CutOff| {
        let verdicts = batch.jobs.iter().map(|job| (job.path.clone(), Verdict::Done)).collect();
        queue.finish(batch, BatchResult { verdicts, cut, reached: true, ..BatchResult::default() });
    };
    queue.enqueue(&[target], &[Change::write(path("a"))]);
    done(&queue.claim(target, Lane::Small).expect("a batch"), CutOff::Open);
    assert!(queue.is_open(target) && queue.claim(target, Lane::Small).is_none());
    clock.advance(Duration::from_millis(PATIENCE_MS));
    queue.next_due(&[target]);
    done(&queue.claim(target, Lane::Small).expect("once more"), CutOff::No);
    assert_eq!(queue.stats(target).expect("a target").counts.total(), 0);
}

#[test]
fn a_target_is_open_unless_it_is_paused_or_in_trouble() {
    let clock = Arc::new(SimulatedClock::new(Timestamp(1_000_000)));
    let store = crate::store::memory::MemoryStore::new();
    let (queue, _) = Queue::open(Box::new(store), Arc::<SimulatedClock>::clone(&clock)).expect("opens");
    let (target, _) = queue.register(Path::new("/src"), &Destination::Local("/dst".into()), Policy::default());
    assert!(queue.is_open(target));
    queue.pause(target, true);
    assert!(!queue.is_open(target));
    queue.pause(target, false);
    queue.enqueue(&[target], &[Change::write(path("a"))]);
    let batch = queue.claim(target, Lane::Small).expect("a batch");
    let down = TargetTrouble {
        class: TroubleClass::Unavailable,
        code: Some(10),
        message: "refused".into(),
        hint: None,
        command: None,
    };
    queue.finish(&batch, BatchResult { trouble: Some(down), ..BatchResult::default() });
    assert!(!queue.is_open(target));
}

/// A deletion that was cut off came late, to a directory that had come to its place, and what was in it never came back: only
/// the path of the deletion was looked at again.
#[test]
fn where_a_directory_has_come_since_all_of_it_is_looked_at_again() {
    for came in ["d", "d/a"] {
        let mut bench = Bench::new();
        bench.scan("d/a", Scope::Entry);
        assert_eq!(bench.small(), ["d/a"]);
        bench.queue.note_cut(&path("d/a"), bench.now);
        bench.finish("d/a", Verdict::Released);
        assert_eq!(bench.small(), ["d/a"]);
        bench.add(Change { fresh: true, ..Change::scan(path(came), Scope::Subtree) });
        bench.done("d/a");
        let mut looked_at = Vec::new();
        for _ in 0..20 {
            for job in [bench.small(), bench.claim(Lane::Large)].concat() {
                looked_at.push((job.clone(), bench.job(&job).scope));
                bench.done(&job);
            }
            let Some(due) = bench.queue.next_due() else { break };
            bench.now = due;
            bench.raise_doubts();
        }
        assert_eq!(looked_at.last(), Some(&("d/a".to_owned(), Scope::Subtree)), "{came}: {looked_at:?}");
    }
}

/// Old data that a stalled server or a proxy held for longer than five seconds stayed on the target for ever.
#[test]
fn what_was_cut_off_is_looked_at_again_at_growing_distances() {
    let mut bench = Bench::new();
    bench.write("a");
    assert_eq!(bench.small(), ["a"]);
    bench.queue.note_cut(&path("a"), bench.now);
    bench.finish("a", Verdict::Released);
    assert_eq!(bench.small(), ["a"]);
    bench.done("a");
    let sent_again = bench.now;
    bench.wait(PATIENCE_MS);
    assert_eq!(bench.small(), ["a"]);
    bench.done("a");
    assert_eq!(bench.len(), 0, "nobody waits for what follows");
    let mut looks = Vec::new();
    while let Some(due) = bench.queue.next_due() {
        bench.now = due;
        bench.raise_doubts();
        assert_eq!(bench.small(), ["a"]);
        bench.done("a");
        looks.push(due.since(sent_again).as_secs());
        assert_eq!(bench.len(), 0);
    }
    assert_eq!(looks, [120, 240, 360]);
}

/// The kernel goes on sending for a dead process for up to a minute and a half, and the repetition came after five
/// seconds.
#[test]
fn a_repeat_does_not_count_while_what_was_cut_off_is_still_being_sent() {
    let mut bench = Bench::new();
    bench.write("a");
    bench.small();
    bench.queue.note_cut(&path("a"), bench.now);
    bench.finish("a", Verdict::Released);
    bench.small();
    bench.done("a");
    for times in [1, 1, 2, 2, 3, 3, 4, 4] {
        bench.wait(PATIENCE_MS * times - 1);
        assert!(bench.small().is_empty(), "the distances grow");
        bench.wait(1);
        let jobs = bench.queue.claim(Lane::Small, 100, bench.now);
        assert!(jobs.len() == 1 && jobs[0].is_safety_rerun);
        bench.queue.note_lingering(&path("a"));
        bench.done("a");
        assert_eq!(bench.job("a").state, JobState::Waiting, "it is not said to be done");
        assert_eq!(bench.queue.awaits_receivers().map(|(count, _)| count), Some(1));
    }
    bench.wait(PATIENCE_MS * 4);
    assert_eq!(bench.small(), ["a"]);
    bench.done("a");
    assert_eq!(bench.len(), 0);
}

/// A large file's run was cut off, and the file was renamed: the part that had arrived stayed on the target until a comparison.
#[test]
fn what_a_cut_off_run_kept_of_a_large_file_goes_with_its_job() {
    let mut bench = Bench::new();
    bench.write("d/big");
    bench.small();
    bench.finish("d/big", Verdict::Large);
    assert!(bench.job("d/big").partial, "a killed daemon would not know");
    assert_eq!(bench.claim(Lane::Large), ["d/big"]);
    bench.finish("d/big", Verdict::Released);
    let since = bench.job("d/big").queued_at;
    bench.wait(10);
    assert_eq!(bench.claim(Lane::Large), ["d/big"]);
    bench.done("d/big");
    assert_eq!(bench.job("d/.rsync-partial/big").queued_at, since, "a wait must not end before it");
    assert_eq!(bench.small(), ["d/.rsync-partial/big"]);
    bench.done("d/.rsync-partial/big");
    assert_eq!(bench.len(), 0);
}

#[test]
fn what_went_well_at_once_left_nothing() {
    let mut bench = Bench::new();
    bench.write("big");
    bench.small();
    bench.finish("big", Verdict::Large);
    assert_eq!(bench.claim(Lane::Large), ["big"]);
    bench.done("big");
    assert_eq!(bench.len(), 0);
}

/// If the directory were deleted with the part that another file's next run was to begin with, that file would be sent
/// from its start.
#[test]
fn what_another_large_file_begins_with_stays_until_that_is_done() {
    let mut bench = Bench::new();
    for name in ["d/one", "d/two"] {
        bench.write(name);
        bench.small();
        bench.finish(name, Verdict::Large);
        assert_eq!(bench.claim(Lane::Large), [name]);
        bench.finish(name, Verdict::Failed(JobError::new(Some(10), "cut off")));
    }
    bench.wait(60_000);
    assert_eq!(bench.claim(Lane::Large), ["d/one"]);
    bench.done("d/one");
    assert_eq!(bench.len(), 1);
    assert_eq!(bench.claim(Lane::Large), ["d/two"]);
    bench.done("d/two");
    assert_eq!(bench.small(), ["d/.rsync-partial/two"]);
}
