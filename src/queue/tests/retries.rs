//! What becomes of a job, and of a target, whose run failed.

use super::*;

#[test]
fn released_jobs_keep_their_place_and_count_no_attempt() {
    let mut bench = Bench::new();
    bench.write("a");
    assert_eq!(bench.small(), ["a"]);
    bench.write("b");
    bench.finish("a", Verdict::Released);
    assert_eq!(bench.job("a").attempts, 0);
    assert_eq!(bench.small(), ["a", "b"]);
}

#[test]
fn failures_back_off_and_a_newer_change_shortens_the_wait() {
    let mut bench = Bench::new();
    bench.write("a");
    for attempt in 1..=5 {
        bench.wait(3_600_000);
        assert_eq!(bench.small(), ["a"]);
        bench.failed("a");
        assert_eq!(bench.job("a").attempts, attempt);
        assert!(bench.small().is_empty());
    }
    assert_eq!(bench.job("a").due_at, bench.now.after(Duration::from_secs(16)));
    bench.write("a");
    assert_eq!(bench.job("a").due_at, bench.now.after(Duration::from_secs(1)));
    bench.wait(1_000);
    assert_eq!(bench.small(), ["a"]);
}

#[test]
fn after_the_last_attempt_a_job_is_dead_until_its_path_changes() {
    let mut bench = Bench::new();
    bench.queue.policy.attempts_max = 2;
    bench.write("a");
    for _ in 0..2 {
        bench.wait(3_600_000);
        assert_eq!(bench.small(), ["a"]);
        bench.failed("a");
    }
    assert_eq!(bench.job("a").state, JobState::Failed);
    bench.wait(86_400_000);
    assert!(bench.small().is_empty());
    bench.write("a");
    assert_eq!(bench.small(), ["a"]);
}

#[test]
fn a_reconcile_revives_dead_letters() {
    let mut bench = Bench::new();
    bench.queue.policy.attempts_max = 1;
    bench.write("d/a");
    bench.small();
    bench.failed("d/a");
    bench.scan("", Scope::Subtree);
    assert_eq!(bench.small(), ["d/a"]);
}

#[test]
fn a_source_that_keeps_vanishing_backs_off_at_last() {
    let mut bench = Bench::new();
    bench.write("a");
    let mut looks = 0;
    while bench.job("a").attempts == 0 {
        bench.wait(10_000);
        assert_eq!(bench.small(), ["a"]);
        bench.finish("a", Verdict::LookAgain(Scope::Entry));
        looks += 1;
        assert!(looks < 100);
    }
}

#[test]
fn a_target_in_trouble_burns_no_attempts_and_is_probed_by_one_job() {
    let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
    let queue = open(&store, &clock);
    let (target, _) = queue.register(Path::new("/src"), &destination(), Policy::default());
    let changes: Vec<Change> = (0..50).map(|n| Change::write(path(&format!("f{n}")))).collect();
    queue.enqueue(&[target], &changes);
    let trouble = TargetTrouble {
        class: TroubleClass::Unavailable,
        code: Some(10),
        message: "connection refused".into(),
        hint: None,
        command: None,
    };
    let down = || BatchResult { trouble: Some(trouble.clone()), ..BatchResult::default() };
    let batch = queue.claim(target, Lane::Small).unwrap();
    assert_eq!(batch.jobs.len(), 50);
    assert!(matches!(queue.finish(&batch, down()), Some(TargetEvent::Trouble { .. })));
    assert!(queue.claim(target, Lane::Small).is_none());
    let due = queue.next_due(&[target]).expect("a probe is due");
    clock.advance(due.since(clock.now()));
    let probe = queue.claim(target, Lane::Small).unwrap();
    assert_eq!((probe.jobs.len(), probe.probe), (1, true));
    assert!(queue.claim(target, Lane::Small).is_none(), "one probe at a time");
    let verdicts = vec![(probe.jobs[0].path.clone(), Verdict::Done)];
    let up = BatchResult { verdicts, reached: true, ..BatchResult::default() };
    assert!(matches!(queue.finish(&probe, up), Some(TargetEvent::Recovered { .. })));
    let batch = queue.claim(target, Lane::Small).unwrap();
    assert_eq!(batch.jobs.len(), 49);
    assert!(queue.page(target, None, 100, |_| true).iter().all(|job| job.attempts == 0));
}

/// A directory that could not be made came back as an entry: its content was never sent.
#[test]
fn a_failure_below_a_subtree_comes_back_with_what_it_left_undone() {
    let found = |since| Found {
        path: path("d/e"),
        error: JobError::new(Some(23), "mkdir failed"),
        scope: Scope::Subtree,
        origin: Origin::Write,
        since,
    };
    for pending in [None, Some("waiting"), Some("running")] {
        let mut bench = Bench::new();
        bench.scan("d", Scope::Subtree);
        assert_eq!(bench.claim(Lane::Large), ["d"]);
        if pending.is_some() {
            bench.scan("d/e", Scope::Entry);
        }
        if pending == Some("running") {
            assert_eq!(bench.small(), ["d/e"]);
        }
        bench.finish("d", Verdict::Done);
        let since = Timestamp(bench.now.0 - 5_000);
        bench.queue.add_failure(found(Some(since)), bench.now, 0.5, || JobId(99));
        bench.queue.check_invariants();
        if pending == Some("running") {
            bench.done("d/e");
        }
        let job = bench.job("d/e");
        assert_eq!((job.scope, job.origin), (Scope::Subtree, Origin::Write), "{pending:?}");
        assert!(job.queued_at <= since, "{pending:?}: what was written before would not be looked for");
    }
}
