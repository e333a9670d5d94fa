//! One watched root at run time: its watcher, its targets, up to when the tree is known, and whether the source is what it
//! was.
//!
//! A root is suspended while its directory is missing, another one than before, or at the start empty while it was not:
//! nothing is sent or deleted then. [`RootRuntime::tend`], called once a second while something is going on and now and then
//! while not, notices both that and the return; on the return the tree is watched anew and compared in full. What happened
//! meanwhile to the watcher itself is told by its notices.
//!
//! The watermark is the time up to which every change has a job in the store or is mirrored. It moves in three steps, so
//! that nothing it stands for can be lost after it: the watcher passes on everything up to a barrier, the queue writes down
//! all jobs, and then the watermark with the directories that are known. With it the next start looks only for what has
//! changed since; without it (a first start, a boot, a clock set back, a store that lost something) every target is
//! compared in full.
//!
//! What another configuration makes of a root that is watched already is in `change`; how much is seen of it, in `sight` and
//! `seen`; what a target's content depends on beside it, in `fingerprint`.

mod change;
mod fingerprint;
mod seen;
mod sight;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use log::{error, info, warn};
use rustix::io::Errno;

use crate::clock::{moment, monotonic};
use crate::ctime;
use crate::filter::Filter;
use crate::mirror::{Place, RootIdentity};
use crate::model::{
    Change, DirectoryChange, EventSwitches, Moment, Origin, RelPath, Scope, TargetId, TargetTrouble, changed_since,
    counted, dated_since,
};
use crate::mounts::Mounts;
use crate::plugin::Follower;
use crate::queue::Queue;
use crate::watch::{CatchUp, Notice, Sink, WatchError, WatchSettings, WatchStats, Watcher};

use super::options::RootOptions;
use super::sysctl;
pub use fingerprint::fingerprint;
use sight::{Answered, Gone};
pub use sight::{Sight, Suspension};

/// The least time between two moves of the watermark: as much is looked through again after a crash.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// A move has all jobs written. While many would have to be that are not, it waits so long for most of them to be done.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(30);
const UNWRITTEN_MANY: usize = 1_000;
/// How long a checkpoint waits for the disk before it tries again later, and how long the last one waits.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// How long a start waits for its first checkpoint.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);

/// How much older than the watermark something may be that is looked at after a boot, or when the clock was set back: the
/// last minutes before a power cut may have come to the disk in another order, here and on a target of this machine.
const UNSURE_MARGIN: Duration = Duration::from_secs(600);

/// How the watcher of a root stands.
#[derive(Debug, Default)]
enum Watching {
    /// Watches are being set.
    #[default]
    Starting,
    On(Watcher),
    /// The tree cannot be watched; why.
    Off(Suspension),
}

/// How a tree is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub path: PathBuf,
    pub events: EventSwitches,
    pub excludes: Vec<String>,
    pub legacy_hidden: bool,
    /// Names of files whose rules hold for the directories that they lie in.
    pub rule_files: Vec<String>,
    pub quiet_period: Duration,
    pub hot_interval: Duration,
    /// Some target has files with several names linked as they are.
    pub keeps_links: bool,
    /// No other configuration watches the same directory: the store keeps one watermark for each.
    pub keeps_watermark: bool,
}

impl Rules {
    pub fn new(options: &RootOptions, keeps_watermark: bool) -> Self {
        let RootOptions { root, settings } = options;
        Self {
            path: root.path.clone(),
            events: root.events,
            excludes: root.excludes.clone(),
            legacy_hidden: root.legacy_hidden,
            rule_files: root.targets.iter().flat_map(|target| target.options.params.rule_files()).collect(),
            quiet_period: settings.quiet_period,
            hot_interval: settings.hot_interval,
            keeps_links: root.targets.iter().any(|target| target.options.params.has_any(&["hard-links"])),
            keeps_watermark,
        }
    }
}

/// A target, and what its completeness depends on beside the source.
pub type Fingerprint = (TargetId, u64);

/// See the module's documentation.
#[derive(Debug)]
pub struct RootRuntime {
    pub rules: Rules,
    pub filter: Arc<Filter>,
    pub identity: RootIdentity,
    /// What is mounted below it.
    pub mounts: Arc<Mounts>,
    options: StartOptions,
    queue: Arc<Queue>,
    targets: Mutex<Vec<Fingerprint>>,
    /// Where local targets are.
    places: Mutex<Vec<(TargetId, Arc<Place>)>>,
    /// Told of every change, with `-m`.
    follower: OnceLock<Arc<Follower>>,
    state: Mutex<State>,
    gone: Mutex<Gone>,
    /// Files that another rsync was seen to write here over and over, the newest last.
    answered: Mutex<Answered>,
    /// When the source was last looked at; told whenever it is.
    looked: (Mutex<Instant>, Condvar),
    /// Rouses whoever tends the root.
    stir: Sender<()>,
    stirred: Receiver<()>,
}

/// What the start of the daemon asks of a root.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartOptions {
    /// Compare every target in full, whatever is known.
    pub reconcile: bool,
    /// Take the directory as it is, even if it is another one or empty.
    pub accept_root: bool,
    /// The store holds all that was ever written to it.
    pub store_is_whole: bool,
    /// Watch beside others of the same tree, until [`RootRuntime::take_over`].
    pub beside: bool,
}

/// What is known of the changes while nobody watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// Nothing: contents have to be compared.
    Nothing,
    /// What the times of changes tell, by a clock that may have been another one meanwhile.
    Dates,
    /// All of them.
    Changes,
}

#[derive(Debug, Default)]
struct State {
    watching: Watching,
    /// Why nothing is sent, if so.
    suspended: Option<Suspension>,
    /// The store knows which directory this is.
    remembered: bool,
    /// The tree has been watched since the start.
    was_watched: bool,
    /// An operator has agreed to its being empty.
    accepts_empty: bool,
    checkpoint: Checkpoint,
    /// No other runtime of the same tree is to be asked before this one touches what the store knows of it.
    in_charge: bool,
    /// Ended for good. A watcher that is still being started then is given up.
    over: bool,
}

/// How far the next move of the watermark has come.
#[derive(Debug, Default)]
struct Checkpoint {
    /// The watcher has been asked to pass on everything up to this moment.
    asked: Option<(Moment, Receiver<Vec<DirectoryChange>>)>,
    /// It has; the jobs have to be durable yet.
    reached: Option<Moment>,
    /// Came with it.
    directories: Vec<DirectoryChange>,
    /// When the watermark last moved, and how many events had been read when that was begun.
    last: Option<Instant>,
    events: Option<u64>,
}

impl RootRuntime {
    pub fn new(
        rules: Rules,
        filter: Arc<Filter>,
        identity: RootIdentity,
        mounts: Arc<Mounts>,
        options: StartOptions,
        targets: Vec<Fingerprint>,
        queue: Arc<Queue>,
    ) -> Self {
        let state = Mutex::new(State { in_charge: !options.beside, ..State::default() });
        let (targets, places, follower) = (Mutex::new(targets), Mutex::default(), OnceLock::new());
        let (stir, stirred) = bounded(1);
        let (gone, answered, looked) = (Mutex::default(), Mutex::default(), (Mutex::new(monotonic()), Condvar::new()));
        Self {
            rules,
            filter,
            identity,
            mounts,
            options,
            queue,
            targets,
            places,
            follower,
            state,
            gone,
            answered,
            looked,
            stir,
            stirred,
        }
    }

    /// Receives a token when something has happened that [`tend`](Self::tend) may have to see to.
    pub fn stirred(&self) -> &Receiver<()> {
        &self.stirred
    }

    fn stir(&self) {
        // Full means that one is on its way.
        let _ = self.stir.try_send(());
    }

    pub fn path(&self) -> &Path {
        &self.rules.path
    }

    /// The targets that the changes go to.
    pub fn targets(&self) -> Vec<TargetId> {
        self.lock_targets().iter().map(|(target, _)| *target).collect()
    }

    pub fn has(&self, target: TargetId) -> bool {
        self.lock_targets().iter().any(|(id, _)| *id == target)
    }

    fn lock_targets(&self) -> MutexGuard<'_, Vec<Fingerprint>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has every change told to plugins from now on.
    pub fn follow(&self, follower: Arc<Follower>) {
        let _ = self.follower.set(follower);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to watch; a source that is missing or not what it was is waited for.
    pub fn start(self: &Arc<Self>) -> Result<(), WatchError> {
        if let Err(suspended) = self.look() {
            self.suspend(suspended);
            return Ok(());
        }
        if self.options.beside {
            let watcher = self.start_watcher(None)?;
            self.keep(watcher);
            return Ok(());
        }
        self.watch()
    }

    /// Sets the watches, which takes as long as a walk of the tree, and sees to it that what changed while nobody watched is
    /// found. Live changes flow from the first watch on.
    fn watch(self: &Arc<Self>) -> Result<(), WatchError> {
        if self.lock().over {
            return Ok(());
        }
        let (catch_up, known) = self.catch_up().map_or((None, Known::Nothing), |(since, known)| (Some(since), known));
        let complete = self.complete();
        if known == Known::Nothing {
            self.queue.forget_watermark(self.path());
        }
        let watcher = self.start_watcher(catch_up)?;
        self.compare(known, &complete);
        self.begin(watcher);
        if known == Known::Nothing {
            self.first_checkpoint();
        }
        Ok(())
    }

    /// Has a watermark as soon as can be: until there is one, a crash leaves nothing that tells what has changed.
    fn first_checkpoint(&self) {
        if !self.rules.keeps_watermark || self.queue.store_health().uncommitted >= UNWRITTEN_MANY {
            return;
        }
        let mut state = self.lock();
        let State { watching: Watching::On(watcher), checkpoint, .. } = &mut *state else { return };
        let events = watcher.stats().events;
        let (asked_at, reply) = (moment(), watcher.checkpoint());
        checkpoint.events = Some(events);
        drop(state);
        match reply.recv_timeout(FIRST_PATIENCE) {
            Ok(directories) => {
                let mut state = self.lock();
                state.checkpoint.reached = Some(asked_at);
                state.checkpoint.directories.extend(directories);
                drop(state);
                self.settle(FIRST_PATIENCE);
            }
            // It is still to be taken.
            Err(RecvTimeoutError::Timeout) => self.lock().checkpoint.asked = Some((asked_at, reply)),
            Err(RecvTimeoutError::Disconnected) => {}
        }
    }

    fn start_watcher(self: &Arc<Self>, catch_up: Option<CatchUp>) -> Result<Watcher, WatchError> {
        let settings = WatchSettings {
            root: self.rules.path.clone(),
            events: self.rules.events,
            filter: Arc::clone(&self.filter),
            quiet_period: self.rules.quiet_period,
            hot_interval: self.rules.hot_interval,
            ctime_margin: ctime::MARGIN,
            keeps_links: self.rules.keeps_links,
            mounts: Arc::clone(&self.mounts),
            catch_up,
        };
        let sink = Arc::new(RootSink { root: Arc::clone(self) });
        let watcher = Watcher::start(settings, sink).inspect_err(|failure| {
            self.lock().watching = Watching::Off(Suspension::now(failure.to_string(), failure.hint()));
        })?;
        let directories = counted(watcher.stats().watches, "directory");
        info!("watch path is: {} ({directories})", self.path().display());
        Ok(watcher)
    }

    /// Has a watcher that was started be the root's, unless the root has ended meanwhile. Returns whether it is.
    fn keep(&self, watcher: Watcher) -> bool {
        let mut state = self.lock();
        if state.over {
            // Its thread may want the lock before it ends.
            drop(state);
            watcher.stop();
            return false;
        }
        state.watching = Watching::On(watcher);
        true
    }

    fn begin(&self, watcher: Watcher) {
        let remembered = self.remember();
        if !self.keep(watcher) {
            return;
        }
        let mut state = self.lock();
        state.remembered |= remembered;
        state.was_watched = true;
        state.checkpoint = Checkpoint::default();
    }

    /// From when on and beside which directories to look for what changed while nobody watched, if that is known.
    fn catch_up(&self) -> Option<(CatchUp, Known)> {
        let path = self.path();
        // A tree that was out of reach may have been changed elsewhere, by another clock.
        if self.lock().was_watched || !(self.options.store_is_whole && self.rules.keeps_watermark) {
            return None;
        }
        let record = self.queue.root_record(path)?;
        let watermark = record.watermark?;
        if record.mark != Some(self.identity.mark()) {
            return None;
        }
        let now = moment();
        let (since, certainty) = match changed_since(watermark, now, ctime::MARGIN) {
            Some(since) => (since, Known::Changes),
            None => (dated_since(watermark, now, UNSURE_MARGIN), Known::Dates),
        };
        let records = self.queue.take_directories(path)?;
        let known =
            records.into_iter().map(|known| (known.id, (known.parent, known.name.into_boxed_slice()))).collect();
        Some((CatchUp { since, known }, certainty))
    }

    /// The targets that were complete when the tree was last known, under the settings of today.
    fn complete(&self) -> Vec<TargetId> {
        let is_complete = |&&(target, fingerprint): &&Fingerprint| {
            self.queue.target_record(target).and_then(|record| record.complete_under) == Some(fingerprint)
        };
        self.lock_targets().iter().filter(is_complete).map(|(target, _)| *target).collect()
    }

    /// Has those targets compared in full of which too little is known. Of those that are not `complete` nothing is, however
    /// much is known of the tree.
    fn compare(&self, known: Known, complete: &[TargetId]) {
        let targets = self.targets();
        let is_complete = |target: &TargetId| known > Known::Nothing && complete.contains(target);
        let unvouched: Vec<TargetId> = targets.iter().copied().filter(|target| !is_complete(target)).collect();
        self.queue.distrust(&unvouched);
        let compared = if known == Known::Changes { &unvouched } else { &targets };
        self.queue.enqueue(compared, &[Change::whole_tree()]);
        let path = self.path().display();
        match (compared.len(), known) {
            // With -m there is none.
            _ if targets.is_empty() => {}
            _ if self.options.reconcile && self.rules.events.delete => info!(
                "{path}: every target is compared in full, as was asked for; what the source lacks is deleted there, as far \
                 as nobody has to agree to that first"
            ),
            _ if self.options.reconcile => info!("{path}: every target is compared in full, as was asked for"),
            (0, _) if self.options.beside => info!("{path}: nothing has to be compared again"),
            (0, _) => info!("{path}: only what has changed since the last run is sent"),
            (1, Known::Changes) => info!("{path}: 1 target is compared in full"),
            (count, Known::Changes) => info!("{path}: {count} targets are compared in full"),
            (_, Known::Dates | Known::Nothing) => info!("{path}: every target is compared in full"),
        }
        if self.options.reconcile {
            self.reconcile();
        }
        // Jobs that are held back, so that what is not mounted does not pass for equal.
        for place in self.mounts.missing() {
            let what = if self.mounts.has_any(&place) { "another file system than before" } else { "no file system" };
            warn!("{}: {what} is mounted at {place}; nothing is sent or deleted there", self.path().display());
            self.queue.enqueue(&targets, &[Change::scan(place, Scope::Subtree)]);
        }
    }

    /// Has the whole tree compared with every target.
    pub fn reconcile(&self) {
        self.compare_below(&RelPath::root(), &self.targets());
    }

    /// Has a path and all below it compared with some of the targets.
    pub fn compare_below(&self, path: &RelPath, targets: &[TargetId]) {
        let change = Change { origin: Origin::Reconcile, ..Change::scan(path.clone(), Scope::Subtree) };
        self.queue.enqueue(targets, &[change]);
    }

    /// Does what is due: looks whether the source is what it was, and moves the watermark. Returns whether something is going
    /// on that has to be seen to soon.
    pub fn tend(self: &Arc<Self>) -> bool {
        if !self.lock().in_charge {
            return true;
        }
        self.check();
        self.remember_mounts();
        self.check_places();
        self.note_look();
        self.advance();
        !self.is_at_rest()
    }

    /// Tells where its local targets are.
    pub fn set_places(&self, places: Vec<(TargetId, Arc<Place>)>) {
        *self.places.lock().unwrap_or_else(PoisonError::into_inner) = places;
    }

    /// Looks whether local targets are what they were. Each run does that as well, but while nothing changes none is started.
    fn check_places(&self) {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (target, place) in places {
            let found = place.check();
            if !self.queue.note_place(target, found.clone()) {
                continue;
            }
            match found {
                Err(TargetTrouble { message, hint, .. }) => {
                    error!("{message}; nothing is sent there until it is back");
                    hint.iter().for_each(|hint| warn!("hint: {hint}"));
                }
                Ok(()) => {
                    info!("{}: the target is back, and is compared", place.path().display());
                    // Whatever else it was used for meanwhile.
                    self.queue.enqueue(&[target], &[Change::whole_tree()]);
                }
            }
        }
    }

    /// Whether the source is as it should be and the watermark stands for all that has happened.
    fn is_at_rest(&self) -> bool {
        let state = self.lock();
        let Watching::On(watcher) = &state.watching else { return false };
        let Checkpoint { asked, reached, events, .. } = &state.checkpoint;
        let is_marked = asked.is_none() && reached.is_none() && *events == Some(watcher.stats().events);
        state.suspended.is_none() && (is_marked || !self.rules.keeps_watermark)
    }

    /// Whether the source is there and what it was. An empty one that was not when it was last mirrored is most likely
    /// waiting for its content; once it is watched, events tell how it became empty.
    fn look(&self) -> Result<(), Suspension> {
        self.identity.check(self.path()).map_err(|trouble| Suspension::now(trouble.message, trouble.hint))?;
        // The lock is not held while the file system is asked: `status` shall answer even if that hangs.
        let guarded = {
            let state = self.lock();
            !state.was_watched && !self.options.accept_root && !state.accepts_empty
        };
        if guarded && is_empty(self.path()) && self.queue.root_mark(self.path()).is_some() {
            let reason = format!("{} is empty, and was not when it was last mirrored", self.path().display());
            let hint = "mount or restore what was in it; if it is to be empty: syncq accept-deletions TARGET";
            return Err(Suspension::now(reason, Some(hint)));
        }
        Ok(())
    }

    fn suspend(&self, suspended: Suspension) {
        let path = self.path().display();
        // Most reasons name it themselves.
        let reason = suspended.reason.strip_suffix(&format!(": {path}")).unwrap_or(&suspended.reason);
        error!("{path}: {reason}; nothing is sent or deleted until it is back");
        if let Some(hint) = &suspended.hint {
            error!("{}: hint: {hint}", self.path().display());
        }
        self.lock().suspended = Some(suspended);
    }

    fn check(self: &Arc<Self>) {
        let now = self.look();
        let mut state = self.lock();
        match (&state.suspended, now) {
            (None, Err(suspended)) => {
                drop(state);
                self.suspend(suspended);
            }
            (Some(before), Err(suspended)) => {
                let since = before.since;
                state.suspended = Some(Suspension { since, ..suspended });
            }
            (Some(_), Ok(())) => {
                info!("{}: the source is back", self.path().display());
                state.suspended = None;
                let old = std::mem::take(&mut state.watching);
                drop(state);
                if let Watching::On(watcher) = old {
                    watcher.stop();
                }
                // Another failure shows in `status`, and the next check finds it again.
                if let Err(failure) = self.watch() {
                    error!("{}: {failure}", self.path().display());
                    self.lock().suspended = Some(Suspension::now(failure.to_string(), failure.hint()));
                }
                self.queue.hurry(&self.targets());
            }
            (None, Ok(())) if !state.remembered => {
                drop(state);
                let remembered = self.remember();
                self.lock().remembered |= remembered;
            }
            _ => {}
        }
    }

    /// Goes on with the next move of the watermark; see the module's documentation. Nothing has to move while nothing
    /// happens.
    fn advance(&self) {
        let store = self.queue.store_health();
        if !self.rules.keeps_watermark || store.error.is_some() {
            return;
        }
        let interval = if store.uncommitted < UNWRITTEN_MANY { CHECKPOINT_INTERVAL } else { CHECKPOINT_PATIENCE };
        let mut state = self.lock();
        let State { watching: Watching::On(watcher), suspended: None, checkpoint, .. } = &mut *state else { return };
        if checkpoint.asked.is_none() && checkpoint.reached.is_none() {
            let events = watcher.stats().events;
            let waited = checkpoint.last.is_none_or(|last| last.elapsed() >= interval);
            if waited && checkpoint.events.replace(events) != Some(events) {
                checkpoint.asked = Some((moment(), watcher.checkpoint()));
            }
            return;
        }
        if let Some((asked_at, reply)) = &checkpoint.asked {
            match reply.try_recv() {
                Ok(directories) => {
                    checkpoint.reached = Some(*asked_at);
                    checkpoint.directories.extend(directories);
                }
                Err(TryRecvError::Empty) => return,
                // The watching has ended.
                Err(TryRecvError::Disconnected) => {}
            }
            checkpoint.asked = None;
        }
        let age = checkpoint.reached.map_or(0, |reached| moment().uptime_ms.saturating_sub(reached.uptime_ms));
        let may_wait = Duration::from_millis(age) < CHECKPOINT_PATIENCE;
        drop(state);
        if store.uncommitted < UNWRITTEN_MANY || !may_wait {
            self.settle(FLUSH_PATIENCE);
        }
    }

    /// Moves the watermark to the barrier that was reached, once all jobs up to there are on disk.
    fn settle(&self, patience: Duration) {
        // Before the flush: what is a target by now has its jobs by then.
        let mut complete = self.lock_targets().clone();
        if self.lock().checkpoint.reached.is_none() || !self.queue.flush(patience) {
            return;
        }
        // Locked to the end: after another runtime has taken over, this one does not touch the watermark.
        let mut state = self.lock();
        if !state.in_charge {
            return;
        }
        let Some(reached) = state.checkpoint.reached.take() else { return };
        let directories = std::mem::take(&mut state.checkpoint.directories);
        // The next one is due at once if targets have been given other settings since this one was begun.
        state.checkpoint.last = state.checkpoint.events.map(|_| monotonic());
        // Held to the end: what has been given other settings meanwhile is not complete under these.
        let targets = self.lock_targets();
        complete.retain(|print| targets.contains(print));
        self.queue.checkpoint(self.path(), reached, directories, &complete);
    }

    /// Notes in the store which directory this is, and returns whether it did. An empty one may be a mount point: what
    /// counts is the one with something in it.
    fn remember(&self) -> bool {
        let counts = self.identity.check(self.path()).is_ok() && !is_empty(self.path());
        if counts {
            self.queue.set_root_mark(self.path(), self.identity.mark());
        }
        counts
    }

    /// Notes in the store what is mounted below.
    fn remember_mounts(&self) {
        if let Some(mounts) = self.mounts.take_changed() {
            self.queue.set_mounts(self.path(), mounts);
        }
    }

    /// Takes it as it is that something is mounted no more.
    pub fn accept_unmounted(&self) {
        for place in self.mounts.accept_missing() {
            warn!(
                "{}: an operator has agreed to {place} being mounted no more, or something else there",
                self.path().display()
            );
        }
        self.stir();
    }

    /// Takes the directory as it is although it is empty. The next [`tend`](Self::tend) goes on with it.
    pub fn accept_empty(&self) {
        self.lock().accepts_empty = true;
        self.stir();
    }

    fn note_look(&self) {
        *self.looked.0.lock().unwrap_or_else(PoisonError::into_inner) = monotonic();
        self.looked.1.notify_all();
    }

    fn note_gone(&self, paths: &[RelPath]) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        paths.iter().for_each(|path| gone.note(path));
    }

    /// Whether the tree has been watched since the start.
    pub fn was_watched(&self) -> bool {
        self.lock().was_watched
    }

    pub fn watch_stats(&self) -> WatchStats {
        match &self.lock().watching {
            Watching::On(watcher) => watcher.stats(),
            _ => WatchStats::default(),
        }
    }

    /// Ends the watching, with the watermark as far as it can be.
    pub fn stop(&self) {
        self.remember();
        self.remember_mounts();
        let mut state = self.lock();
        let watching = std::mem::take(&mut state.watching);
        let asked = state.checkpoint.asked.take();
        let Watching::On(watcher) = watching else {
            state.over = true;
            return;
        };
        drop(state);
        let asked_at = moment();
        // The last answer may not have been taken yet, and what it holds is not told twice.
        let last = asked.map(|(_, reply)| reply).into_iter().chain([watcher.checkpoint()]);
        let deadline = monotonic() + LAST_PATIENCE;
        let answers: Option<Vec<_>> = last.map(|reply| reply.recv_deadline(deadline).ok()).collect();
        watcher.stop();
        self.lock().over = true;
        if let Some(answers) = answers
            && self.rules.keeps_watermark
            && self.lock().suspended.is_none()
        {
            let mut state = self.lock();
            state.checkpoint.reached = Some(asked_at);
            state.checkpoint.directories.extend(answers.into_iter().flatten());
            drop(state);
            self.settle(LAST_PATIENCE);
        }
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Passes on what the watcher finds. Its own type, so that the root is no part of the watcher's surface.
struct RootSink {
    root: Arc<RootRuntime>,
}

impl Sink for RootSink {
    fn changes(&self, changes: Vec<Change>, more_follow: bool) {
        // By a watcher that is about to be given up: another one goes by other rules.
        if self.root.lock().over {
            return;
        }
        if let Some(follower) = self.root.follower.get() {
            follower.changes(self.root.path(), &changes);
        }
        let rules = self.root.rules.rule_files.iter().map(String::as_bytes);
        let of_rules = changes.iter().filter(|change| rules.clone().any(|name| name == change.path.name()));
        // What a file of rules says concerns all below its directory.
        let parents = of_rules.filter_map(|change| change.path.parent());
        let concerned: Vec<Change> = parents.map(|parent| Change::scan(parent, Scope::Subtree)).collect();
        let changes = if concerned.is_empty() { changes } else { [changes, concerned].concat() };
        self.root.queue.enqueue_burst(&self.root.targets(), &changes, more_follow);
        self.root.stir();
    }

    fn make_instances(&self) -> bool {
        sysctl::make_instances()
    }

    fn gone(&self, paths: Vec<RelPath>) {
        self.root.note_gone(&paths);
    }

    fn notice(&self, notice: Notice) {
        let root = self.root.path().display();
        match notice.hint() {
            Some(hint) => warn!("{root}: {notice}; hint: {hint}"),
            None => warn!("{root}: {notice}"),
        }
        match notice {
            Notice::RootGone { .. } => {
                // The next look says more about it.
                let hint = "mount or restore it: syncq goes on by itself when it is back";
                self.root.lock().suspended = Some(Suspension::now(notice.to_string(), Some(hint)));
                self.root.stir();
            }
            // The watcher tries again by itself and then reports what it has missed.
            Notice::Unwatched { errno: Errno::NOSPC, .. } => {
                sysctl::make_watches();
            }
            Notice::Answered { path } => {
                self.root.answered.lock().unwrap_or_else(PoisonError::into_inner).note(path, monotonic());
            }
            // What is mounted below is remembered.
            Notice::Mounted { .. } | Notice::Unmounted { .. } => self.root.stir(),
            _ => {}
        }
    }
}
