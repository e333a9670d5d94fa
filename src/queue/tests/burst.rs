//! What a batch takes of a burst, and how long it waits for the rest.

use super::*;

struct Stage {
    clock: Arc<SimulatedClock>,
    queue: Queue,
    target: TargetId,
}

impl Stage {
    fn new() -> Self {
        let clock = Arc::new(SimulatedClock::new(Timestamp(1_000_000)));
        let shared: Arc<dyn Clock> = Arc::<SimulatedClock>::clone(&clock);
        let queue = Queue::open(Box::new(MemoryStore::default()), shared).expect("opens").0;
        let (target, _) = queue.register(Path::new("/src"), &Destination::Local("/mirror".into()), Policy::default());
        Self { clock, queue, target }
    }

    fn changes(&self, names: impl IntoIterator<Item = String>, more_follow: bool) {
        let changes: Vec<Change> = names.into_iter().map(|name| Change::write(path(&name))).collect();
        self.queue.enqueue_burst(&[self.target], &changes, more_follow);
    }

    fn claim(&self) -> Option<Vec<String>> {
        let batch = self.queue.claim(self.target, Lane::Small)?;
        Some(batch.jobs.iter().map(|job| job.path.to_string()).collect())
    }
}

fn files(dir: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("{dir}/{n}"))
}

/// When a flood of 60,000 files was sent as it came in, it took three times as many runs, each of which found some
/// directory half full.
#[test]
fn a_burst_that_goes_on_is_waited_for_as_long_as_sending_it_would_take() {
    let stage = Stage::new();
    stage.changes(files("d", 1_000), true);
    assert_eq!(stage.claim(), None);
    let due = stage.queue.next_due(&[stage.target]).expect("a time");
    let wait = due.since(stage.clock.now());
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    stage.clock.advance(wait);
    assert_eq!(stage.claim().map(|jobs| jobs.len()), Some(1_000), "whatever comes");
}

#[test]
fn what_is_over_or_fills_a_batch_is_not_waited_for() {
    let stage = Stage::new();
    stage.changes(files("d", 500), true);
    assert_eq!(stage.claim(), None);
    stage.changes([], false);
    assert_eq!(stage.claim().map(|jobs| jobs.len()), Some(500), "it is over");

    let stage = Stage::new();
    stage.changes(files("d", 20_000), true);
    assert!(stage.claim().is_some(), "a batch is full");

    let stage = Stage::new();
    stage.changes(["slow".to_owned()], true);
    assert!(stage.claim().is_some(), "one file takes no time");
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let mut bench = Bench::new();
    (0..1_000).for_each(|n| bench.write(&format!("d/{n}")));
    bench.queue.expects_more = true;
    assert!(bench.queue.held_until(bench.now).is_some());
    assert_eq!(bench.queue.held_until(Timestamp(bench.now.0 - 1)), None);
}

#[test]
fn the_last_directory_of_a_batch_is_left_to_the_next_one() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.add(fresh_dir(name));
        files(name, 30).for_each(|name| bench.write(&name));
    }
    // 93 jobs: all of `a` and `b`, and a part of `c`.
    let chosen = bench.queue.claim(Lane::Small, 80, bench.now);
    assert_eq!(chosen.len(), 62);
    assert!(chosen.iter().all(|job| !path("c").covers(&job.path)));

    let mut bench = Bench::new();
    ["a/1", "a/2"].into_iter().chain(["b/1", "b/2", "b/3"]).for_each(|name| bench.write(name));
    assert_eq!(bench.queue.claim(Lane::Small, 5, bench.now).len(), 5, "it is most of the batch");
}

/// A flood of two times 60,000 files collapsed while most of it was on its way.
#[test]
fn what_is_in_flight_is_no_backlog() {
    let stage = Stage::new();
    stage.queue.set_pending_max(100);
    stage.changes(files("d", 90), false);
    assert_eq!(stage.claim().map(|jobs| jobs.len()), Some(90));
    stage.changes(files("e", 90), false);
    assert_eq!(stage.queue.stats(stage.target).map(|stats| stats.counts.ready), Some(90));
    stage.changes(files("f", 90), false);
    assert!(stage.queue.stats(stage.target).is_some_and(|stats| stats.counts.ready <= 100));
}
