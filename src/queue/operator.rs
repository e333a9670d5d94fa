//! The operators' side of the queue: selecting jobs and retrying or purging them, pausing targets, and finding out
//! whether all that had changed before a moment has arrived.

use super::Queue;
use crate::model::{Job, JobAction, RelPath, TargetId, TargetTrouble, Timestamp};

pub use super::target_queue::Selected;

/// The reasons for which all of a target's jobs wait.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    pub paused_since: Option<Timestamp>,
    pub trouble: Option<TargetTrouble>,
    pub probe_at: Option<Timestamp>,
    /// When a job was last done; `None` if none was since the daemon's start.
    pub last_success: Option<Timestamp>,
    /// How many paths may still change on the target because a run was cut off, and when the first of them is looked at
    /// again.
    pub awaits_receivers: Option<(usize, Timestamp)>,
}

impl Queue {
    /// The reasons for which all of a target's jobs wait, if there are any.
    pub fn standing(&self, target: TargetId) -> Standing {
        let state = self.shared.lock();
        let paused_since = state.catalog.target(target).and_then(|record| record.paused_since);
        let queue = state.targets.get(&target);
        let breaker = queue.map(|queue| &queue.breaker);
        Standing {
            paused_since,
            trouble: breaker.and_then(|breaker| breaker.trouble().cloned()),
            probe_at: breaker.and_then(super::breaker::Breaker::probe_at),
            last_success: queue.and_then(|queue| queue.last_success),
            awaits_receivers: queue.and_then(super::target_queue::TargetQueue::awaits_receivers),
        }
    }

    /// Does `action` to up to `limit` jobs of a target, in path order, and returns the jobs as they were before. May
    /// return fewer although there are more: [`Selected::next`] tells. The changes are not durable yet.
    pub fn operate(
        &self,
        target: TargetId,
        after: Option<&RelPath>,
        limit: usize,
        action: JobAction,
        wanted: &dyn Fn(&Job) -> bool,
    ) -> Selected {
        let mut state = self.shared.lock();
        let Some(queue) = state.targets.get_mut(&target) else { return Selected::default() };
        let selected = queue.select(after, limit, action, wanted);
        for job in &selected.jobs {
            queue.act(&job.path, action);
        }
        if action != JobAction::List {
            self.shared.dirty.notify_all();
            self.shared.announce_work();
        }
        selected
    }

    /// The jobs that [`operate`](Self::operate) would change, left as they are.
    pub fn preview(
        &self,
        target: TargetId,
        after: Option<&RelPath>,
        limit: usize,
        action: JobAction,
        wanted: &dyn Fn(&Job) -> bool,
    ) -> Selected {
        let state = self.shared.lock();
        state.targets.get(&target).map(|queue| queue.select(after, limit, action, wanted)).unwrap_or_default()
    }

    /// Stops handing out the target's jobs, or starts again. Returns whether that is a change. Runs in flight come to
    /// their end. The change is not durable yet.
    pub fn pause(&self, target: TargetId, paused: bool) -> bool {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        let Some(queue) = state.targets.get_mut(&target).filter(|queue| queue.paused != paused) else { return false };
        queue.paused = paused;
        state.catalog.set_paused(target, paused.then_some(now));
        state.notes += 1;
        self.shared.hurry_committer();
        self.shared.announce_work();
        true
    }

    /// The number of the target's newest change. It stands for all changes up to now, see [`lacking`](Self::lacking).
    pub fn newest_change(&self, target: TargetId) -> u64 {
        self.shared.lock().targets.get(&target).map_or(0, super::TargetQueue::newest_change)
    }

    /// Returns up to `limit` jobs for changes numbered up to `number`, about `path` or about anything. None if the target
    /// has all these changes.
    pub fn lacking(&self, target: TargetId, number: u64, path: Option<&RelPath>, limit: usize) -> Vec<Job> {
        let state = self.shared.lock();
        state.targets.get(&target).map(|queue| queue.lacking(number, path, limit)).unwrap_or_default()
    }

    /// Whether a job is at the path or below it, or makes all equal in a directory that the path lies in. A comparison of
    /// the whole tree does not count, since it would stand for any name.
    pub fn is_about(&self, target: TargetId, path: &RelPath) -> bool {
        self.shared.lock().targets.get(&target).is_some_and(|queue| queue.is_about(path))
    }

    /// Starts to note which of the target's runs end. Serves one caller at a time.
    pub fn record_ends(&self, target: TargetId) {
        self.shared.lock().targets.get_mut(&target).into_iter().for_each(super::TargetQueue::record_ends);
    }

    /// Takes the paths whose runs have ended since [`record_ends`](Self::record_ends), and stops noting them. `None`:
    /// there were more than can be noted.
    pub fn take_ends(&self, target: TargetId) -> Option<Vec<RelPath>> {
        self.shared.lock().targets.get_mut(&target).and_then(super::TargetQueue::take_ends)
    }

    /// The job that will make the path equal, if there is one, and the path whose run in flight that job waits for.
    pub fn job_for(&self, target: TargetId, path: &RelPath) -> Option<(Job, Option<RelPath>)> {
        let state = self.shared.lock();
        let queue = state.targets.get(&target)?;
        let job = queue.job_for(path)?;
        let blocker = queue.blocker(&job.path);
        Some((job, blocker))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock::SimulatedClock;
    use crate::model::{Change, Destination, Lane, Timestamp};
    use crate::queue::Policy;
    use crate::store::memory::MemoryStore;

    fn open(store: &MemoryStore) -> (Queue, TargetId) {
        let clock = Arc::new(SimulatedClock::new(Timestamp(1_000)));
        let (queue, _) = Queue::open(Box::new(store.clone()), clock).unwrap();
        let destination = Destination::Local("/dst".into());
        let (target, _) = queue.register(Path::new("/src"), &destination, Policy::default());
        (queue, target)
    }

    #[test]
    fn a_pause_outlasts_the_process_and_loses_nothing() {
        let store = MemoryStore::default();
        let (queue, target) = open(&store);
        assert!(queue.pause(target, true) && !queue.pause(target, true));
        queue.enqueue(&[target], &[Change::write(RelPath::new(b"a").unwrap())]);
        assert!(queue.claim(target, Lane::Small).is_none());
        assert_eq!(queue.next_due(&[target]), None);
        assert!(queue.flush(Duration::from_secs(5)));
        std::mem::forget(queue);

        let (queue, target) = open(&store);
        assert!(queue.claim(target, Lane::Small).is_none());
        assert_eq!(queue.stats(target).unwrap().paused_since, Some(Timestamp(1_000)));
        assert!(queue.pause(target, false));
        assert_eq!(queue.claim(target, Lane::Small).unwrap().jobs.len(), 1);
        assert!(queue.flush(Duration::from_secs(5)));
        std::mem::forget(queue);
        let (queue, target) = open(&store);
        assert_eq!(queue.stats(target).unwrap().paused_since, None);
    }

    #[test]
    fn what_is_purged_stays_away_after_a_crash() {
        let store = MemoryStore::default();
        let (queue, target) = open(&store);
        let changes: Vec<Change> = ["a", "b", "c"].map(|n| Change::write(RelPath::new(n.as_bytes()).unwrap())).into();
        queue.enqueue(&[target], &changes);
        assert!(queue.flush(Duration::from_secs(5)));
        let is_b = |job: &Job| job.path.as_bytes() == b"b";
        assert_eq!(queue.preview(target, None, 10, JobAction::Purge, &is_b).jobs.len(), 1);
        assert_eq!(queue.operate(target, None, 10, JobAction::Purge, &is_b).jobs.len(), 1);
        assert!(queue.flush(Duration::from_secs(5)));
        std::mem::forget(queue);
        let (queue, target) = open(&store);
        let left = queue.preview(target, None, 10, JobAction::List, &|_| true).jobs;
        assert_eq!(left.iter().map(|job| job.path.to_string()).collect::<Vec<_>>(), ["a", "c"]);
    }
}
