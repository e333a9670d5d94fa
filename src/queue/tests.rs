//! The queue's promises. Promises of a single target's queue are tried without a store and without threads, the others
//! with a store in memory that fails on demand. There is a module for each promise; this file holds what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::target_queue::TargetQueue;
use super::*;
use crate::clock::SimulatedClock;
use crate::model::{DirectoryChange, DirectoryId, Job, JobError, Moment};
use crate::model::{JobState, Origin, Scope, Settle, TroubleClass};
use crate::store::Op;
use crate::store::memory::MemoryStore;
use crate::store::{RootRecord, TargetRecord};

mod ancestors;
mod backlog;
mod burst;
mod checkpoints;
mod cut_off;
mod equality;
mod full_disk;
mod merging;
mod names;
mod renames;
mod retries;
mod settling;
mod simulation;
mod stored;

const SOON: Duration = Duration::from_secs(5);

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

fn fresh_dir(text: &str) -> Change {
    Change { scope: Scope::Children, fresh: true, ..Change::write(path(text)) }
}

/// One target's queue with a clock and ids of its own.
struct Bench {
    queue: TargetQueue,
    now: Timestamp,
    ids: u64,
}

impl Bench {
    fn new() -> Self {
        let now = Timestamp(1_000_000);
        Self { queue: TargetQueue::new(TargetId(1)), now, ids: 0 }
    }

    fn add(&mut self, change: Change) {
        let ids = &mut self.ids;
        self.queue.enqueue(&change, self.now, || {
            *ids += 1;
            JobId(*ids)
        });
        self.queue.check_invariants();
    }

    fn write(&mut self, text: &str) {
        self.add(Change::write(path(text)));
    }

    fn scan(&mut self, text: &str, scope: Scope) {
        let path = if text.is_empty() { RelPath::root() } else { path(text) };
        self.add(Change::scan(path, scope));
    }

    fn claim(&mut self, lane: Lane) -> Vec<String> {
        let jobs = self.queue.claim(lane, 100, self.now);
        self.queue.check_invariants();
        jobs.iter().map(|job| job.path.to_string()).collect()
    }

    fn small(&mut self) -> Vec<String> {
        self.claim(Lane::Small)
    }

    fn finish(&mut self, text: &str, verdict: Verdict) {
        let path = if text.is_empty() { RelPath::root() } else { path(text) };
        self.queue.finish(&path, verdict, Duration::from_millis(30), self.now, 0.5);
        self.queue.check_invariants();
    }

    fn done(&mut self, text: &str) {
        self.finish(text, Verdict::Done);
    }

    fn failed(&mut self, text: &str) {
        self.finish(text, Verdict::Failed(JobError::new(Some(23), "permission denied")));
    }

    fn raise_doubts(&mut self) {
        let ids = &mut self.ids;
        self.queue.raise_doubts(self.now, || {
            *ids += 1;
            JobId(*ids)
        });
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now.after(Duration::from_millis(ms));
    }

    fn len(&self) -> usize {
        self.queue.page(None, usize::MAX, |_| true).len()
    }

    fn job(&self, text: &str) -> Job {
        let all = self.queue.page(None, usize::MAX, |_| true);
        all.into_iter().find(|job| job.path == path(text)).unwrap_or_else(|| panic!("no job at {text}"))
    }
}

/// The whole queue on `store`, with its threads.
fn open(store: &MemoryStore, clock: &Arc<SimulatedClock>) -> Queue {
    let clock: Arc<dyn Clock> = Arc::<SimulatedClock>::clone(clock);
    Queue::open(Box::new(store.clone()), clock).expect("opens").0
}

fn destination() -> Destination {
    Destination::Local("/mirror".into())
}
