//! The durable job queue: one job per target and path, added by changes, removed only by a confirmed run or
//! an operator.
//!
//! Theory of operation. All jobs are in memory, in one `TargetQueue` per target; the store holds a copy of each that
//! survives the process. [`Queue::enqueue`] and [`Queue::finish`] change memory and note what became dirty; one
//! committer thread turns what has gathered into a single atomic, durable batch, and so on without a pause, so that a
//! commit costs the more jobs the less each of them. Claiming does not wait for the disk: running a job early is
//! harmless. If the store fails, mirroring goes on from memory, the failure is shown, and the commit is tried again.
//!
//! Callers give changes and verdicts and take batches; each call is short and never waits for disk or network.
//! Invariant: the queue knows nothing of rsync, inotify or files.

mod batch_size;
mod breaker;
mod checkpoint;
mod committer;
mod operator;
mod pace;
mod sent_log;
mod state;
mod target_queue;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

pub use operator::{Selected, Standing};
pub use target_queue::{BatchId, Counts, Policy, taken_over};

use breaker::Gate;
use checkpoint::Ledger;
use committer::Committer;
use state::{Shared, State, StoreTask};
use target_queue::TargetQueue;

use crate::clock::Clock;
use crate::model::{
    Change, ClaimedJob, CutOff, Destination, DirectoryChange, DirectoryId, Found, Job, JobError, JobId, Lane, Lingers,
    Moment, Mounted, RelPath, TargetId, TargetTrouble, Timestamp, Top, TroubleClass, Unvouched, Verdict,
};
use crate::store::{Census, Contents, DirectoryRecord, RootRecord, Store, StoreError, StoreStats, TargetRecord};
use std::os::unix::ffi::OsStrExt;

/// A batch of jobs handed to the executor, which gives it back through [`Queue::finish`].
#[derive(Debug, Clone)]
pub struct Batch {
    pub id: BatchId,
    pub target: TargetId,
    pub lane: Lane,
    pub jobs: Vec<ClaimedJob>,
    /// Finds out whether a target in trouble is back.
    pub probe: bool,
    /// What nothing vouches for, of what the target holds.
    pub unvouched: Option<Unvouched>,
    started_at: Timestamp,
}

/// What came of a batch.
#[derive(Debug, Clone, Default)]
pub struct BatchResult {
    /// One for each of the batch's jobs; a job without one is released.
    pub verdicts: Vec<(RelPath, Verdict)>,
    /// Failures at paths that no job of the batch named: below a subtree.
    pub found: Vec<Found>,
    /// Why the target could not be used, if so.
    pub trouble: Option<TargetTrouble>,
    /// The target answered and took work, so it is not in trouble.
    pub reached: bool,
    /// Paths that are done and where nothing had to be sent.
    pub equal: BTreeSet<RelPath>,
    /// Whether what a run that was cut off has left may arrive after these. What was repeated for its sake then has to be so
    /// again.
    pub lingers: Lingers,
    /// What became of the connections of runs of it that were cut off and begun again.
    pub cut: CutOff,
}

/// What [`Queue::finish`] has to say to an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetEvent {
    /// The target is in trouble, or in another one than before. It is tried again at that time.
    Trouble { trouble: TargetTrouble, probe_at: Timestamp },
    /// The target is back after this long.
    Recovered { class: TroubleClass, after: Duration },
}

/// A target's figures.
#[derive(Debug, Clone)]
pub struct TargetStats {
    pub counts: Counts,
    /// When the oldest change that the target lacks was seen.
    pub oldest: Option<Timestamp>,
    pub trouble: Option<TargetTrouble>,
    pub trouble_since: Option<Timestamp>,
    /// Failures in a row for the present reason.
    pub trouble_failures: u32,
    /// When a target in trouble is tried again. `None` also while it is being tried, and if nothing is there to try it with.
    pub retry_at: Option<Timestamp>,
    /// Of the jobs that wait, those that do so since they failed.
    pub backing_off: usize,
    /// Since when an operator has it paused.
    pub paused_since: Option<Timestamp>,
    /// A job that waits for an operator's approval of its deletions, with what it says.
    pub refused: Option<(RelPath, JobError)>,
    /// Jobs done per second, over the last minute.
    pub jobs_per_s: f64,
    /// When a job was last done, since the start.
    pub last_success: Option<Timestamp>,
    /// A failing path and its error, if any.
    pub failing: Option<(RelPath, JobError)>,
    /// What nothing vouches for, of what the target holds.
    pub unvouched: Option<Unvouched>,
    /// Paths that may still change there, and when the first of them is looked at again.
    pub unsure: Option<(usize, Timestamp)>,
}

/// The store as an operator sees it.
#[derive(Debug, Clone, Default)]
pub struct StoreHealth {
    pub stats: StoreStats,
    /// Why the last commit failed, if it did. Until it is repaired, new jobs are held in memory only.
    pub error: Option<String>,
    /// Records that wait to be written.
    pub uncommitted: usize,
}

/// See the module's documentation.
pub struct Queue {
    shared: Arc<Shared>,
    work: Receiver<()>,
    distrusted: Receiver<()>,
    committer: Mutex<Option<Committer>>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    /// Takes over what the store holds and starts the committer. Returns also how many records were damaged: if any,
    /// the trees have to be compared in full.
    pub fn open(mut store: Box<dyn Store>, clock: Arc<dyn Clock>) -> Result<(Self, u64), StoreError> {
        let Contents { roots, targets: records, directories, jobs, next_job_id, damaged_records } = store.load()?;
        let mut targets: BTreeMap<TargetId, TargetQueue> =
            records.iter().map(|record| (record.id, TargetQueue::known(record))).collect();
        let next_job_id = jobs.iter().map(|job| job.id.0 + 1).max().unwrap_or(1).max(next_job_id);
        for job in jobs {
            targets.entry(job.target).or_insert_with(|| TargetQueue::new(job.target)).load(job);
        }
        let (wake, work) = bounded(1);
        let (distrust, distrusted) = bounded(1);
        let state = State {
            targets,
            new_targets: BTreeSet::new(),
            ledger: Ledger::new(roots, records, directories),
            next_job_id,
            stored_job_id: next_job_id,
            next_batch_id: 1,
            batches: HashMap::new(),
            store_error: None,
            store_stats: store.stats(),
            collapse_above: usize::MAX,
            pending_max: usize::MAX,
            notes: 0,
            notes_taken: 0,
            notes_durable: 0,
            cut_at: None,
            flushing: 0,
            store_tasks: Vec::new(),
            store_in_doubt: false,
            random: fastrand::Rng::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            dirty: Condvar::new(),
            hurry: Condvar::new(),
            committed: Condvar::new(),
            closing: AtomicBool::new(false),
            clock,
            wake,
            distrust,
            bells: Mutex::default(),
        });
        let committer = Committer::start(Arc::clone(&shared), store);
        Ok((Self { shared, work, distrusted, committer: Mutex::new(Some(committer)) }, damaged_records))
    }

    /// An earlier daemon has ended a moment ago: receivers of runs that it could not bring to their end may still write. What
    /// runs in the first seconds therefore runs twice; comparisons of whole trees only if `killed`.
    pub fn begin_unsure(&self, killed: bool) {
        let now = self.shared.clock.now();
        self.shared.lock().targets.values_mut().for_each(|queue| queue.begin_unsure(now, killed));
    }

    /// The number of the target that mirrors `root` to `destination`, and whether the store had not known it. From now
    /// on its jobs follow `policy`.
    pub fn register(&self, root: &Path, destination: &Destination, policy: Policy) -> (TargetId, bool) {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        let (id, new) = state.ledger.register(root.as_os_str().as_bytes(), destination.to_string(), now);
        state.notes += u64::from(new);
        if new {
            state.new_targets.insert(id);
            self.shared.announce_distrust();
        }
        state.targets.entry(id).or_insert_with(|| TargetQueue::new(id)).policy = policy;
        self.shared.hurry_committer();
        (id, new)
    }

    /// Which directory `root` was when it was last mirrored, if it ever was.
    pub fn root_mark(&self, root: &Path) -> Option<DirectoryId> {
        self.root_record(root)?.mark
    }

    /// Remembers which directory `root` is.
    pub fn set_root_mark(&self, root: &Path, mark: DirectoryId) {
        self.change_ledger(|ledger| ledger.set_mark(root.as_os_str().as_bytes(), mark));
    }

    /// Remembers where file systems are mounted below `root`.
    pub fn set_mounts(&self, root: &Path, mounts: Vec<Mounted>) {
        self.change_ledger(|ledger| ledger.set_mounts(root.as_os_str().as_bytes(), mounts));
    }

    /// The root as the store knows it: a watermark that is still being written is not there yet.
    pub fn root_record(&self, root: &Path) -> Option<RootRecord> {
        self.shared.lock().ledger.root(root.as_os_str().as_bytes()).cloned()
    }

    /// The target as the store knows it.
    pub fn target_record(&self, id: TargetId) -> Option<TargetRecord> {
        self.shared.lock().ledger.target(id).cloned()
    }

    /// The directories below `root` that the store held at the start, as of the root's watermark then. They are handed out
    /// once, and no longer take memory then: what the store holds later is not read again.
    pub fn take_directories(&self, root: &Path) -> Option<Vec<DirectoryRecord>> {
        self.shared.lock().ledger.take_directories(root.as_os_str().as_bytes())
    }

    /// Notes that every change below `root` before `watermark` is mirrored or has a job, what became of directories
    /// since the last checkpoint, and which targets are complete, under which settings; no other target of the root is
    /// from now on. The caller has made sure by
    /// [`flush`](Self::flush) that the jobs are on disk; the watermark gets there after the directories, not before. A
    /// root that has no watermark after that flush, at first or because the store was lost, needs all its directories.
    pub fn checkpoint(
        &self,
        root: &Path,
        watermark: Moment,
        directories: Vec<DirectoryChange>,
        complete: &[(TargetId, u64)],
    ) {
        self.change_ledger(|ledger| ledger.checkpoint(root.as_os_str().as_bytes(), watermark, directories, complete));
    }

    /// Notes that nothing is known of the tree at `root` any more: all its targets have to be compared in full.
    pub fn forget_watermark(&self, root: &Path) {
        self.change_ledger(|ledger| ledger.forget_watermark(root.as_os_str().as_bytes()));
    }

    /// Notes that these targets are complete no more, under whatever settings they were.
    pub fn forget_complete(&self, targets: &[TargetId]) {
        self.change_ledger(|ledger| ledger.forget_complete(&targets.iter().copied().collect()));
    }

    /// Notes that nothing vouches for what these targets hold: equal size and time may stand over other content. Of one that
    /// was registered since the start that is noted already, and what was found out by now holds.
    pub fn distrust(&self, targets: &[TargetId]) {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let known: Vec<TargetId> = targets.iter().copied().filter(|target| !state.new_targets.remove(target)).collect();
        drop(state);
        self.change_ledger(|ledger| ledger.distrust(&known, now));
        self.shared.announce_distrust();
    }

    /// Notes that what the target holds has been compared by content up to a path in the order of the tree, or all of it.
    /// Means nothing if it was distrusted since then.
    pub fn vouch(&self, target: TargetId, since: Timestamp, up_to: Option<RelPath>) {
        self.change_ledger(|ledger| ledger.vouch(target, since, up_to));
    }

    /// Notes that a target is known to be a copy of its source: it was equal once, or holds nothing yet.
    pub fn note_known_target(&self, target: TargetId) {
        self.change_ledger(|ledger| ledger.note_known(target));
    }

    /// Receives a token when a target has been distrusted. One token may stand for several.
    pub fn distrusted(&self) -> &Receiver<()> {
        &self.distrusted
    }

    /// Remembers which directory a local target is, or that whatever is there counts.
    pub fn set_target_mark(&self, target: TargetId, mark: Option<DirectoryId>) {
        self.change_ledger(|ledger| ledger.set_target_mark(target, mark));
    }

    /// Remembers what stood at the top of a target on another machine, or that whatever is there counts.
    pub fn set_target_top(&self, target: TargetId, top: Option<Top>) {
        self.change_ledger(|ledger| ledger.set_target_top(target, top));
    }

    /// Remembers where the name of a target's host leads.
    pub fn set_target_addresses(&self, target: TargetId, addresses: BTreeSet<IpAddr>) {
        self.change_ledger(|ledger| ledger.set_target_addresses(target, addresses));
    }

    /// Notes what a look at a target's place told: that it is not what it was, or that it is, which ends a trouble of that
    /// kind. Returns whether that is news.
    pub fn note_place(&self, target: TargetId, found: Result<(), TargetTrouble>) -> bool {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        let Some(queue) = state.targets.get_mut(&target) else { return false };
        let known = queue.breaker.trouble().map(|trouble| trouble.class);
        let is_news = match found {
            // What else it is in trouble for may come from that, and is found out anew by a run.
            Err(trouble) if known != Some(TroubleClass::Target) => {
                queue.breaker.trip(trouble, false, now, state.random.f64())
            }
            Ok(()) if known == Some(TroubleClass::Target) => queue.breaker.close(now).is_some(),
            Err(_) | Ok(()) => false,
        };
        if is_news {
            self.shared.hurry_committer();
            self.shared.announce_work();
        }
        is_news
    }

    /// Remembers when the tree at `root` was last compared by schedule.
    pub fn set_scheduled_run(&self, root: &Path, at: Timestamp) {
        self.change_ledger(|ledger| ledger.set_scheduled_run(root.as_os_str().as_bytes(), at));
    }

    fn change_ledger(&self, change: impl FnOnce(&mut Ledger)) {
        let mut state = self.shared.lock();
        change(&mut state.ledger);
        // It may build on jobs, and must not get to the disk before them.
        state.ripen();
        // What the store has already is not written again.
        state.notes += u64::from(state.ledger.dirty_len() > 0);
        self.shared.hurry_committer();
    }

    /// All roots that the store knows, configured or not.
    pub fn known_roots(&self) -> Vec<RootRecord> {
        self.shared.lock().ledger.roots().to_vec()
    }

    /// From now on no more than `jobs` are held one by one, over all targets, but for those in flight. Above that, those
    /// of the target with the most become fewer that stand for whole directories.
    pub fn set_pending_max(&self, jobs: usize) {
        let mut state = self.shared.lock();
        state.pending_max = jobs;
        state.collapse_above = jobs;
        state.bound_backlog(self.shared.clock.now());
        self.shared.dirty.notify_all();
    }

    /// All targets that the store knows, configured or not.
    pub fn known_targets(&self) -> Vec<TargetRecord> {
        self.shared.lock().ledger.targets().to_vec()
    }

    /// Notes for each of `targets` that each of `changes` may differ there.
    pub fn enqueue(&self, targets: &[TargetId], changes: &[Change]) {
        if !changes.is_empty() {
            self.enqueue_burst(targets, changes, false);
        }
    }

    /// The same for changes that came in a burst, which goes on if `more_follow`. Then the next batch may wait for them, a
    /// second at most, so that a flood is sent in few batches.
    pub fn enqueue_burst(&self, targets: &[TargetId], changes: &[Change], more_follow: bool) {
        if targets.is_empty() {
            return;
        }
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        for target in targets {
            let Some(queue) = state.targets.get_mut(target) else { continue };
            queue.expects_more = more_follow;
            for change in changes {
                queue.enqueue(change, now, || {
                    let id = JobId(state.next_job_id);
                    state.next_job_id += 1;
                    id
                });
            }
        }
        state.bound_backlog(now);
        self.shared.dirty.notify_all();
        self.shared.announce_work();
    }

    /// Hands out the oldest jobs that may run now in one batch, or nothing: then [`Self::next_due`] tells whether that is
    /// because a burst goes on.
    pub fn claim(&self, target: TargetId, lane: Lane) -> Option<Batch> {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        let queue = state.targets.get_mut(&target).filter(|queue| !queue.paused)?;
        let gate = queue.breaker.gate(now);
        let jobs_max = match gate {
            Gate::Closed if lane == Lane::Small && queue.held_until(now).is_some() => return None,
            Gate::Closed => queue.batch_size.jobs(),
            Gate::Probe => 1,
            Gate::Open(_) => return None,
        };
        let jobs = queue.claim(lane, jobs_max, now);
        if jobs.is_empty() {
            return None;
        }
        let probe = gate == Gate::Probe;
        if probe {
            queue.breaker.probe_started();
        }
        let id = BatchId(state.next_batch_id);
        state.next_batch_id += 1;
        state.batches.insert(id, jobs.iter().map(|job| job.path.clone()).collect());
        let unvouched = state.ledger.target(target).and_then(|record| record.unvouched.clone());
        Some(Batch { id, target, lane, jobs, probe, unvouched, started_at: now })
    }

    /// Whether [`claim`](Self::claim) would hand out something.
    pub fn has_work(&self, target: TargetId, lane: Lane) -> bool {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let Some(queue) = state.targets.get_mut(&target).filter(|queue| !queue.paused) else { return false };
        let is_open = match queue.breaker.gate(now) {
            Gate::Closed => lane != Lane::Small || queue.held_until(now).is_none(),
            Gate::Probe => true,
            Gate::Open(_) => false,
        };
        is_open && queue.has_claimable(lane, now)
    }

    /// Whether jobs of the target are ready, be it that others exclude them for now.
    pub fn has_ready(&self, target: TargetId) -> bool {
        let state = self.shared.lock();
        state
            .targets
            .get(&target)
            .is_some_and(|queue| [Lane::Small, Lane::Large].iter().any(|&lane| queue.ready_len(lane) > 0))
    }

    /// Takes a batch back. Jobs of it that have no verdict are released.
    pub fn finish(&self, batch: &Batch, result: BatchResult) -> Option<TargetEvent> {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        let mut unsettled = state.batches.remove(&batch.id)?;
        let queue = state.targets.get_mut(&batch.target)?;
        let took = now.since(batch.started_at);
        if batch.lane == Lane::Small {
            match result.trouble {
                Some(_) => queue.batch_size.failed(),
                None if result.reached => queue.batch_size.note(batch.jobs.len(), took),
                None => {}
            }
        }
        let mut verdicts: HashMap<RelPath, Verdict> = result.verdicts.into_iter().collect();
        let is_cut = result.trouble.as_ref().is_some_and(|trouble| trouble.class == TroubleClass::Unavailable);
        if result.lingers == Lingers::Surely {
            queue.still_unsure(now);
        }
        // In the order of the claim, so that released jobs keep theirs.
        for path in unsettled.drain(..) {
            let verdict = verdicts.remove(&path).unwrap_or(Verdict::Released);
            let is_unsent = is_cut && verdict == Verdict::Released;
            match result.cut {
                CutOff::No if is_unsent => queue.note_cut(&path, now),
                CutOff::No => {}
                CutOff::Closed if !is_unsent => queue.doubt(&path, now),
                CutOff::Closed | CutOff::Open => queue.note_cut(&path, now),
            }
            if result.lingers > Lingers::No {
                queue.note_lingering(&path);
            }
            if result.equal.contains(&path) {
                queue.note_equal(&path);
            }
            queue.finish(&path, verdict, took, now, state.random.f64());
        }
        let has_found = !result.found.is_empty();
        for found in result.found {
            let chance = state.random.f64();
            queue.add_failure(found, now, chance, || {
                let id = JobId(state.next_job_id);
                state.next_job_id += 1;
                id
            });
        }
        if has_found {
            // Not written after the deletion of the job that found it: that may be in line for longer.
            queue.ripen();
        }
        let event = if let Some(trouble) = result.trouble {
            let chance = state.random.f64();
            let news = queue.breaker.trip(trouble.clone(), batch.probe, now, chance);
            self.shared.hurry_committer();
            queue.breaker.probe_at().filter(|_| news).map(|probe_at| TargetEvent::Trouble { trouble, probe_at })
        } else if result.reached {
            queue.breaker.close(now).map(|(class, after)| TargetEvent::Recovered { class, after })
        } else {
            if batch.probe {
                queue.breaker.probe_void();
            }
            None
        };
        state.bound_backlog(now);
        self.shared.dirty.notify_all();
        self.shared.announce_work();
        event
    }

    /// Lets targets in trouble be tried now: their reason may have gone (the source is back).
    pub fn hurry(&self, targets: &[TargetId]) {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        for target in targets {
            if let Some(queue) = state.targets.get_mut(target) {
                queue.breaker.hurry(now);
            }
        }
        self.shared.announce_work();
    }

    /// Receives a token whenever there may be new work. One token may stand for many changes.
    pub fn work(&self) -> &Receiver<()> {
        &self.work
    }

    /// Receives a token after jobs have come, gone or changed, so that whoever shows them can sleep until then. One token may
    /// stand for many changes.
    pub fn stirred(&self) -> Receiver<()> {
        let (bell, stirred) = bounded(1);
        self.shared.bells.lock().unwrap_or_else(PoisonError::into_inner).push(bell);
        stirred
    }

    /// Makes ready what has waited long enough, and tells when one of `targets` next has something to do that no token
    /// announces: a wait ends, or a probe is due. To be asked before claiming, so that nothing is missed in between.
    pub fn next_due(&self, targets: &[TargetId]) -> Option<Timestamp> {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        let mut next = None;
        for target in targets {
            let Some(queue) = state.targets.get_mut(target) else { continue };
            queue.promote(now);
            let next_job_id = &mut state.next_job_id;
            queue.raise_doubts(now, || {
                let id = JobId(*next_job_id);
                *next_job_id += 1;
                id
            });
            if queue.paused {
                continue;
            }
            let due = match queue.breaker.gate(now) {
                Gate::Closed => [queue.next_due(), queue.held_until(now)].into_iter().flatten().min(),
                Gate::Probe => queue.next_due(),
                Gate::Open(at) => at,
            };
            next = [next, due].into_iter().flatten().min();
        }
        next
    }

    /// The time by which jobs are due.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Whether the target is not in trouble, as far as is known.
    pub fn is_well(&self, target: TargetId) -> bool {
        self.shared.lock().targets.get(&target).is_some_and(|queue| queue.breaker.trouble().is_none())
    }

    /// Whether the target is neither paused nor in trouble.
    pub fn is_open(&self, target: TargetId) -> bool {
        let is_well = |queue: &TargetQueue| !queue.paused && queue.breaker.trouble().is_none();
        self.shared.lock().targets.get(&target).is_some_and(is_well)
    }

    /// A target's figures. Looks at each of its jobs.
    pub fn stats(&self, target: TargetId) -> Option<TargetStats> {
        let mut state = self.shared.lock();
        let record = state.ledger.target(target).cloned();
        let (paused_since, unvouched) =
            record.map(|record| (record.paused_since, record.unvouched)).unwrap_or_default();
        let queue = state.targets.get_mut(&target)?;
        let now = self.shared.clock.now();
        queue.promote(now);
        Some(TargetStats {
            refused: queue.asks_for_approval(),
            jobs_per_s: queue.pace.per_second(now),
            last_success: queue.last_success,
            paused_since,
            counts: queue.counts(),
            oldest: queue.oldest(),
            trouble: queue.breaker.trouble().cloned(),
            trouble_since: queue.breaker.history().map(|(since, _)| since),
            trouble_failures: queue.breaker.history().map_or(0, |(_, failures)| failures),
            retry_at: queue.retry_at(now),
            backing_off: queue.backing_off(),
            failing: queue.an_error(),
            unvouched,
            unsure: queue.unsure(),
        })
    }

    /// Whether a target that is well has yet to take the path.
    pub fn awaits(&self, target: TargetId, path: &RelPath) -> bool {
        self.shared.lock().targets.get(&target).is_some_and(|queue| queue.awaits(path))
    }

    /// Up to `limit` jobs of a target that have failed and are tried again or given up, in path order, and how many
    /// there are in all. Looks at each of its jobs.
    pub fn failing(&self, target: TargetId, limit: usize) -> (Vec<Job>, usize) {
        self.shared.lock().targets.get(&target).map(|queue| queue.failing(limit)).unwrap_or_default()
    }

    /// Up to `limit` jobs of a target in path order, after the path `after`.
    #[cfg(test)]
    pub fn page(
        &self,
        target: TargetId,
        after: Option<&RelPath>,
        limit: usize,
        wanted: impl Fn(crate::model::JobState) -> bool,
    ) -> Vec<Job> {
        let state = self.shared.lock();
        state.targets.get(&target).map(|queue| queue.page(after, limit, wanted)).unwrap_or_default()
    }

    pub fn store_health(&self) -> StoreHealth {
        let state = self.shared.lock();
        StoreHealth { stats: state.store_stats, error: state.store_error.clone(), uncommitted: state.dirty_len() }
    }

    /// Counts what the store holds, after making it as small as that if `compact` says so. Reads all of it; commits wait
    /// meanwhile and mirroring does not. `Err` says why it is not done.
    pub fn store_census(&self, compact: bool, timeout: Duration) -> Result<Census, String> {
        let (reply, answer) = bounded(1);
        if self.shared.closing.load(Ordering::SeqCst) {
            return Err("syncq is stopping".to_owned());
        }
        let mut state = self.shared.lock();
        state.store_tasks.push(StoreTask { compact, reply });
        drop(state);
        self.shared.hurry_committer();
        answer.recv_timeout(timeout).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => Err("it takes too long".to_owned()),
            RecvTimeoutError::Disconnected => Err("syncq is stopping".to_owned()),
        })
    }

    /// Has it looked at once whether the store is still what and where it was. That happens from time to time by itself.
    pub fn doubt_store(&self) {
        self.shared.lock().store_in_doubt = true;
        self.shared.hurry_committer();
    }

    /// Waits until everything noted before the call is on disk, at most `timeout`. Returns whether it is. What is noted
    /// meanwhile is not waited for.
    pub fn flush(&self, timeout: Duration) -> bool {
        let mut state = self.shared.lock();
        let mark = state.mark();
        state.flushing += 1;
        self.shared.hurry_committer();
        let (mut state, _) = self
            .shared
            .committed
            .wait_timeout_while(state, timeout, |state| {
                !state.is_durable(&mark) && !self.shared.closing.load(Ordering::SeqCst)
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.flushing = state.flushing.saturating_sub(1);
        state.is_durable(&mark)
    }

    /// Commits what is dirty, ends the committer and gives up the store. May be called twice.
    pub fn close(&self, timeout: Duration) {
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(committer) = committer else { return };
        self.flush(timeout);
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.hurry_committer();
        self.shared.committed.notify_all();
        committer.join();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close(Duration::from_secs(5));
    }
}

#[cfg(test)]
mod tests;
