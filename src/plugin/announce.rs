//! Decides when plugins are told of a mirrored path.
//!
//! A plugin is told of a path when a run has changed the path on one target, and no other target of the root has yet to
//! take it. A target that is in trouble, or at which the path itself fails, is not waited for, and no target longer than
//! [`PATIENCE`]. When such a target gets the path later, the plugin is told again. So once the plugin has been told, a
//! reader of any healthy target finds the new content, and the content of a late target is announced as well.
//!
//! Memory is bounded by the jobs that are pending at the other targets, and by [`OWED_MAX`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::{Engine, Notice, Source};
use crate::clock::Clock;
use crate::mirror::{Changed, Observer, Operation, Ran};
use crate::model::{RelPath, Scope, TargetId, Timestamp, below_range};
use crate::queue::Queue;

/// How long a path that one target has waits for the others, at most, before the plugin is told.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many paths may wait for other targets. The plugin is told of further ones at once.
const OWED_MAX: usize = 200_000;

/// Announces to one plugin the paths that are mirrored from one root.
#[derive(Debug)]
pub struct Announcer {
    engine: Arc<Engine>,
    source: Arc<Source>,
    targets: Vec<TargetId>,
    queue: Arc<Queue>,
    clock: Arc<dyn Clock>,
    owed: Mutex<Owed>,
}

/// Paths that some target has and others have yet to take.
#[derive(Debug, Default)]
struct Owed {
    /// No target is waited for any more.
    finished: bool,
    paths: BTreeMap<RelPath, Debt>,
    /// The owed paths by age, the oldest first. A path that is no longer owed is skipped.
    by_age: VecDeque<(Timestamp, RelPath)>,
}

#[derive(Debug, Clone)]
struct Debt {
    operation: Operation,
    directory: bool,
    since: Timestamp,
    /// Targets that are done with the path. For the queue their runs may still be in flight.
    through: Vec<TargetId>,
}

impl Announcer {
    pub fn new(
        engine: Arc<Engine>,
        source: Arc<Source>,
        targets: Vec<TargetId>,
        queue: Arc<Queue>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { engine, source, targets, queue, clock, owed: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock()
    }

    /// Tells the plugin of paths that have waited long enough for other targets. To be called now and then while
    /// [`is_waiting`](Self::is_waiting).
    pub fn tick(&self) {
        let now = self.clock.now();
        let mut owed = self.lock();
        while owed.by_age.front().is_some_and(|(since, _)| now.since(*since) >= PATIENCE) {
            let Some((since, path)) = owed.by_age.pop_front() else { break };
            if owed.paths.get(&path).is_some_and(|debt| debt.since == since)
                && let Some(debt) = owed.paths.remove(&path)
            {
                self.notify(path, debt);
            }
        }
    }

    /// Whether any path waits for other targets, and so for [`tick`](Self::tick).
    pub fn is_waiting(&self) -> bool {
        !self.lock().paths.is_empty()
    }

    /// Whether an announcer made of these parts would do the same.
    pub fn is_for(&self, engine: &Arc<Engine>, source: &Source, targets: &[TargetId]) -> bool {
        Arc::ptr_eq(&self.engine, engine) && *self.source == *source && self.targets == targets
    }

    /// Tells the plugin of all paths that wait for other targets, before the end. A path that a later run changes is told
    /// of at once.
    pub fn finish(&self) {
        let mut owed = self.lock();
        owed.finished = true;
        for (path, debt) in std::mem::take(&mut owed.paths) {
            self.notify(path, debt);
        }
    }

    fn notify(&self, path: RelPath, debt: Debt) {
        let Debt { operation, directory, .. } = debt;
        self.engine.notify(Notice { source: Arc::clone(&self.source), path, operation, directory });
    }

    /// Whether a target that is not through with the path has yet to take it. A path deleted with its directory has no job
    /// of its own: the directory's job stands for it.
    fn is_awaited(&self, path: &RelPath, debt: &Debt) -> bool {
        let has_yet_to = |other: TargetId| {
            let goes_with =
                || path.ancestors().any(|above| !above.is_root() && self.queue.has_due_job_for(other, &above));
            self.queue.has_due_job_for(other, path) || (debt.operation == Operation::Delete && goes_with())
        };
        self.targets.iter().any(|other| !debt.through.contains(other) && has_yet_to(*other))
    }
}

impl Observer for Announcer {
    fn ran(&self, ran: Ran<'_>) {
        let now = self.clock.now();
        let mut owed = self.lock();
        let mut touched = owed.below(&ran);
        let finished = owed.finished;
        for Changed { path, operation, directory } in ran.changed {
            owed.add(&path, Debt { operation, directory, since: now, through: Vec::new() });
            touched.insert(path);
        }
        for path in touched {
            let Some(debt) = owed.paths.get_mut(&path) else { continue };
            if !debt.through.contains(&ran.target) {
                debt.through.push(ran.target);
            }
            let waits = !finished && self.is_awaited(&path, debt);
            if (!waits || owed.paths.len() > OWED_MAX)
                && let Some(debt) = owed.paths.remove(&path)
            {
                self.notify(path, debt);
            }
        }
    }
}

impl Owed {
    /// Adds a debt to the path's earlier one: the newest operation counts, and the oldest time. Targets that were through
    /// with the earlier change do not have the newest one, but nobody waits for them a second time.
    fn add(&mut self, path: &RelPath, debt: Debt) {
        match self.paths.get_mut(path) {
            Some(Debt { operation, directory, .. }) => (*operation, *directory) = (debt.operation, debt.directory),
            None => {
                self.by_age.push_back((debt.since, path.clone()));
                self.paths.insert(path.clone(), debt);
            }
        }
    }

    /// The owed paths that the jobs of a batch cover.
    fn below(&self, ran: &Ran<'_>) -> BTreeSet<RelPath> {
        if ran.in_trouble {
            return self.paths.keys().cloned().collect();
        }
        let mut below = BTreeSet::new();
        if self.paths.is_empty() {
            return below;
        }
        for job in &ran.settled {
            if self.paths.contains_key(&job.path) {
                below.insert(job.path.clone());
            }
            if !job.path.is_root() {
                // The directory's job settles a file that was deleted with its directory.
                let (start, end) = below_range(&job.path);
                let range = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
                below.extend(self.paths.range::<[u8], _>(range).map(|(path, _)| path.clone()));
            } else if job.scope > Scope::Entry {
                below.extend(self.paths.keys().cloned());
            }
        }
        below
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Recorder;
    use super::*;
    use crate::clock::SimulatedClock;
    use crate::model::{Change, ClaimedJob, Destination, JobError, Lane, TargetTrouble, TroubleClass, Verdict};
    use crate::queue::{Batch, BatchResult, Policy};
    use crate::store::memory::MemoryStore;

    /// Two targets of one root, and what the plugin was told.
    struct Scene {
        queue: Arc<Queue>,
        clock: Arc<SimulatedClock>,
        announcer: Announcer,
        recorder: Recorder,
        targets: [TargetId; 2],
    }

    impl Scene {
        fn new() -> Self {
            let clock = Arc::new(SimulatedClock::new(Timestamp(1_000)));
            let (queue, _) = Queue::open(Box::new(MemoryStore::new()), Arc::clone(&clock) as _).unwrap();
            let queue = Arc::new(queue);
            let root = std::path::Path::new("/d");
            let targets =
                ["a", "b"].map(|name| queue.register(root, &Destination::Local(name.into()), Policy::default()).0);
            let recorder = Recorder::default();
            let source = Source { path: root.into(), spelled: root.into(), targets: Vec::new() };
            let (engine, source) = (recorder.engine(), Arc::new(source));
            let announcer =
                Announcer::new(engine, source, targets.to_vec(), Arc::clone(&queue), Arc::clone(&clock) as _);
            Self { queue, clock, announcer, recorder, targets }
        }

        fn change(&self, path: &str) {
            self.queue.enqueue(&self.targets, &[Change::write(RelPath::new(path.as_bytes()).unwrap())]);
        }

        fn claim(&self, n: usize) -> Batch {
            self.queue.claim(self.targets[n], Lane::Small).unwrap()
        }

        /// Ends a batch. All of its paths have changed, unless `verdict` says otherwise.
        fn end(&self, batch: &Batch, verdict: &Verdict, trouble: Option<TargetTrouble>) {
            let done = *verdict == Verdict::Done;
            let changed =
                |job: &ClaimedJob| Changed { path: job.path.clone(), operation: Operation::Update, directory: false };
            self.announcer.ran(Ran {
                target: batch.target,
                settled: batch.jobs.iter().filter(|_| *verdict != Verdict::Released).collect(),
                changed: batch.jobs.iter().filter(|_| done).map(changed).collect(),
                in_trouble: trouble.is_some(),
            });
            let verdicts = batch.jobs.iter().map(|job| (job.path.clone(), verdict.clone())).collect();
            self.queue.finish(batch, BatchResult { verdicts, trouble, reached: done, ..BatchResult::default() });
        }

        fn told(&self) -> Vec<String> {
            self.recorder.told(&self.announcer.engine)
        }
    }

    #[test]
    fn a_path_is_told_of_once_when_the_last_target_has_it() {
        let scene = Scene::new();
        scene.change("f");
        let (first, second) = (scene.claim(0), scene.claim(1));
        scene.end(&first, &Verdict::Done, None);
        assert_eq!(scene.told(), [""; 0]);
        scene.end(&second, &Verdict::Done, None);
        assert_eq!(scene.told(), ["f"]);
    }

    /// Two targets end at the same moment. Neither may leave the telling to the other, nor may both tell.
    #[test]
    fn two_targets_that_end_together_tell_once() {
        let scene = Scene::new();
        scene.change("f");
        let batches = [scene.claim(0), scene.claim(1)];
        for batch in &batches {
            let changed = batch.jobs.iter().map(|job| Changed {
                path: job.path.clone(),
                operation: Operation::Delete,
                directory: false,
            });
            let settled = batch.jobs.iter().collect();
            let ran = Ran { target: batch.target, settled, changed: changed.collect(), in_trouble: false };
            scene.announcer.ran(ran);
        }
        assert_eq!(scene.told(), ["f"]);
    }

    /// If it were told after the first target and again after the second, a CDN would fetch from the second a file that is
    /// gone.
    #[test]
    fn what_goes_with_its_directory_is_told_of_once_all_targets_have_lost_it() {
        let scene = Scene::new();
        scene.change("d");
        let batches = [scene.claim(0), scene.claim(1)];
        let paths = ["d", "d/e", "d/e/f"];
        for (batch, told) in batches.iter().zip([&[""; 0][..], &paths[..]]) {
            let gone = |path: &str| Changed {
                path: RelPath::new(path.as_bytes()).unwrap(),
                operation: Operation::Delete,
                directory: !path.ends_with('f'),
            };
            scene.announcer.ran(Ran {
                target: batch.target,
                settled: batch.jobs.iter().collect(),
                changed: paths.map(gone).into(),
                in_trouble: false,
            });
            let verdicts = batch.jobs.iter().map(|job| (job.path.clone(), Verdict::Done)).collect();
            scene.queue.finish(batch, BatchResult { verdicts, reached: true, ..BatchResult::default() });
            assert_eq!(scene.told(), told);
        }
    }

    #[test]
    fn a_target_that_cannot_take_it_is_not_waited_for() {
        let down = |message: &str| TargetTrouble {
            class: TroubleClass::Unavailable,
            code: Some(10),
            message: message.into(),
            hint: None,
            command: None,
        };
        let failed = Verdict::Failed(JobError::new(Some(23), "no"));
        for (verdict, trouble) in [(Verdict::Released, Some(down("down"))), (failed, None)] {
            let scene = Scene::new();
            scene.change("f");
            let (first, second) = (scene.claim(0), scene.claim(1));
            scene.end(&first, &Verdict::Done, None);
            scene.end(&second, &verdict, trouble);
            assert_eq!(scene.told(), ["f"]);
            // A target in trouble is not waited for: the next path is told of at once, and again when the late target has
            // it.
            scene.change("g");
            let batch = scene.claim(0);
            scene.end(&batch, &Verdict::Done, None);
            let expected: &[&str] = if verdict == Verdict::Released { &["f", "g"] } else { &["f"] };
            assert_eq!(scene.told(), expected);
        }
    }

    #[test]
    fn nobody_is_waited_for_longer_than_the_patience() {
        let scene = Scene::new();
        scene.change("f");
        let (first, second) = (scene.claim(0), scene.claim(1));
        scene.end(&first, &Verdict::Done, None);
        scene.clock.advance(PATIENCE - Duration::from_millis(1));
        scene.announcer.tick();
        assert_eq!(scene.told(), [""; 0]);
        scene.clock.advance(Duration::from_millis(1));
        scene.announcer.tick();
        assert_eq!(scene.told(), ["f"]);
        scene.end(&second, &Verdict::Done, None);
        assert_eq!(scene.told(), ["f", "f"]);
        // At the end the plugin is told of all owed paths.
        scene.change("g");
        let first = scene.claim(0);
        scene.end(&first, &Verdict::Done, None);
        scene.announcer.finish();
        assert_eq!(scene.told(), ["f", "f", "g"]);
        // A run that ends later waits for no target.
        scene.change("h");
        let first = scene.claim(0);
        scene.end(&first, &Verdict::Done, None);
        assert_eq!(scene.told(), ["f", "f", "g", "h"]);
    }
}
