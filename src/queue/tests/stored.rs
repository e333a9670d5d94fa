//! What the queue gives the store to hold, and when.

use super::*;
use crate::store::COMMIT_OPS_MAX;

/// A finished job that was never written costs the store nothing; one that was is deleted from it.
#[test]
fn only_what_the_store_holds_is_deleted_from_it() {
    let mut bench = Bench::new();
    bench.write("a");
    bench.small();
    bench.done("a");
    assert_eq!(bench.queue.dirty_len(), 0);
    bench.write("a");
    let mut ops = Vec::new();
    bench.queue.release_dirty();
    bench.queue.take_dirty(10, &mut ops);
    assert!(matches!(ops.as_slice(), [Op::PutJob(_)]));
    bench.small();
    bench.done("a");
    bench.write("a");
    bench.small();
    bench.done("a");
    ops.clear();
    bench.queue.release_dirty();
    bench.queue.take_dirty(10, &mut ops);
    assert!(matches!(ops.as_slice(), [Op::DeleteJob { .. }]));
}

#[test]
fn what_was_enqueued_is_there_after_a_crash() {
    let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
    let queue = open(&store, &clock);
    let (target, new) = queue.register(Path::new("/src"), &destination(), Policy::default());
    assert!(new);
    let changes: Vec<Change> = (0..2_500).map(|n| Change::write(path(&format!("f{n}")))).collect();
    queue.enqueue(&[target], &changes);
    assert!(queue.flush(SOON));
    queue.claim(target, Lane::Small).expect("a batch is running at the crash");
    std::mem::forget(queue);

    let queue = open(&store, &clock);
    let (same, new) = queue.register(Path::new("/src"), &destination(), Policy::default());
    assert_eq!((same, new), (target, false));
    assert_eq!(queue.stats(target).unwrap().counts, Counts { ready: 2_500, ..Counts::default() });
    let ids: BTreeSet<u64> = queue.page(target, None, 10_000, |_| true).iter().map(|job| job.id.0).collect();
    assert_eq!(ids.len(), 2_500, "ids are unique");
    queue.enqueue(&[target], &[Change::write(path("one more"))]);
    let one_more = queue.page(target, None, 10_000, |_| true).iter().map(|job| job.id.0).max();
    assert_eq!(one_more, ids.iter().max().map(|max| max + 1), "and are never used twice");
}

/// Each of these jobs cost the disk two commits.
#[test]
fn a_job_that_is_done_at_once_is_never_written() {
    let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
    let queue = open(&store, &clock);
    let (target, _) = queue.register(Path::new("/src"), &destination(), Policy::default());
    assert!(queue.flush(SOON));
    let before = store.commits();
    for n in 0..100 {
        queue.enqueue(&[target], &[Change::write(path(&format!("f{n}")))]);
        let batch = queue.claim(target, Lane::Small).expect("a job");
        let verdicts = batch.jobs.iter().map(|job| (job.path.clone(), Verdict::Done)).collect();
        queue.finish(&batch, BatchResult { verdicts, reached: true, ..BatchResult::default() });
    }
    // The first job may have been there before the committer went to rest.
    assert!(queue.flush(SOON) && store.commits() <= before + 2, "{} commits", store.commits() - before);
    drop(queue);
    let queue = open(&store, &clock);
    queue.enqueue(&[target], &[Change::write(path("one more"))]);
    let id = queue.page(target, None, 1, |_| true).first().map(|job| job.id.0);
    assert_eq!(id, Some(101), "no number is given twice");
}

/// A crash between the two commits would forget the path that failed. The directory's job has been in line for longer.
#[test]
fn a_failure_that_a_run_found_is_stored_with_the_end_of_its_job() {
    let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
    let queue = open(&store, &clock);
    let (target, _) = queue.register(Path::new("/src"), &destination(), Policy::default());
    let whole = |origin| Change { origin, ..Change::scan(path("d"), Scope::Subtree) };
    queue.enqueue(&[target], &[whole(Origin::Reconcile)]);
    assert!(queue.flush(SOON));
    queue.enqueue(&[target], &[whole(Origin::Scan)]);
    // A change of any other record releases all that is dirty, the directory's job included.
    queue.set_root_mark(Path::new("/src"), DirectoryId { inode: 1, born_ns: None });
    let batch = queue.claim(target, Lane::Large).expect("a job");
    let found = vec![Found::entry(path("d/f"), JobError::new(Some(23), "permission denied"))];
    let verdicts = vec![(path("d"), Verdict::Done)];
    queue.finish(&batch, BatchResult { verdicts, found, reached: true, ..BatchResult::default() });
    let begun = crate::clock::monotonic();
    loop {
        let stored: Vec<RelPath> = store.contents().jobs.iter().map(|job| job.path.clone()).collect();
        if !stored.contains(&path("d")) {
            assert_eq!(stored, [path("d/f")]);
            break;
        }
        assert!(begun.elapsed() < SOON * 4, "the job's end is not written");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// No run will do the job's work soon, so the job is written without waiting to be asked.
#[test]
fn a_job_of_a_target_that_is_not_served_is_written_at_once() {
    let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
    let queue = open(&store, &clock);
    let (target, _) = queue.register(Path::new("/src"), &destination(), Policy::default());
    assert!(queue.pause(target, true) && queue.flush(SOON));
    queue.enqueue(&[target], &[Change::write(path("f"))]);
    let begun = crate::clock::monotonic();
    while store.contents().jobs.is_empty() {
        assert!(begun.elapsed() < SOON, "it is not written");
        std::thread::yield_now();
    }
}

#[test]
fn a_failing_store_stops_nothing_and_catches_up() {
    let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
    let queue = open(&store, &clock);
    let (target, _) = queue.register(Path::new("/src"), &destination(), Policy::default());
    assert!(queue.flush(SOON));
    store.fail_after(0);
    queue.enqueue(&[target], &[Change::write(path("a"))]);
    assert!(!queue.flush(Duration::from_millis(50)));
    assert!(queue.claim(target, Lane::Small).is_some(), "mirroring goes on from memory");
    store.heal();
    assert!(queue.flush(SOON), "and the job is stored once the store is back");
    assert_eq!(queue.store_health().error, None);
}

/// A flush waited until nothing at all was dirty, which under load was never the case.
#[test]
fn a_flush_waits_for_what_came_before_it_only() {
    let (store, clock) = (MemoryStore::default(), Arc::new(SimulatedClock::new(Timestamp(1_000))));
    let queue = open(&store, &clock);
    let (target, _) = queue.register(Path::new("/src"), &destination(), Policy::default());
    let (other, _) = queue.register(Path::new("/other"), &destination(), Policy::default());
    let stop = AtomicBool::new(false);
    let (begun, has_begun) = bounded(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                let changes: Vec<Change> =
                    (0..COMMIT_OPS_MAX * 3).map(|n| Change::write(path(&format!("{round}/{n}")))).collect();
                queue.enqueue(&[target], &changes);
                let _ = begun.try_send(());
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        has_begun.recv().unwrap();
        for marked in [target, other] {
            let marker = path(&format!("marker of {}", marked.0));
            queue.enqueue(&[marked], &[Change::write(marker.clone())]);
            let flushed = queue.flush(SOON);
            let stored = store.contents().jobs.iter().any(|job| job.target == marked && job.path == marker);
            stop.store(!flushed || marked == other, Ordering::SeqCst);
            assert!(flushed, "returns");
            assert!(stored, "but not too early");
        }
    });
    assert!(queue.flush(SOON));
    assert_eq!(store.contents().jobs.len(), queue.stats(target).unwrap().counts.total() + 1);
}
