//! `-m`: tells a plugin of the watcher's changes, without any target.
//!
//! The changes go through a queue of their own, in memory, in which each root has one target that stands for the plugin.
//! The queue merges repeated changes and waits until a file is complete, as it does for mirrors. The plugin is told of each
//! job that the queue hands out, and the job is done. Changes that happened while no such process ran are not told, as in
//! sersync.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{error, warn};
use parking_lot::{Mutex, MutexGuard};

use super::{Engine, Notice, Source};
use crate::clock::Clock;
use crate::filter::{Filter, Kind};
use crate::mirror::Operation;
use crate::model::{Change, ClaimedJob, Destination, JobAction, Lane, RelPath, Scope, TargetId, Verdict};
use crate::queue::{Batch, BatchResult, Policy, Queue};
use crate::store::StoreError;
use crate::store::memory::MemoryStore;

/// The longest sleep; a change ends it.
const IDLE: Duration = Duration::from_secs(3600);

/// A root whose changes the plugin is told of.
#[derive(Debug, Clone)]
pub struct FollowedRoot {
    pub source: Arc<Source>,
    pub filter: Arc<Filter>,
    pub policy: Policy,
    pub engine: Arc<Engine>,
}

/// The followed roots, by the target that stands for them in the queue.
type Followed = BTreeMap<TargetId, FollowedRoot>;

/// Directories that are gone and not yet told of: a path that is gone does not show that it was a directory.
type GoneDirectories = HashSet<(TargetId, RelPath)>;

/// Tells a plugin of the changes in its roots; see the module's documentation.
#[derive(Debug)]
pub struct Follower {
    queue: Arc<Queue>,
    followed: Arc<Mutex<Followed>>,
    gone_directories: Arc<Mutex<GoneDirectories>>,
    stop: Mutex<Option<Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Follower {
    /// Starts the thread. The plugin is told of nothing before [`follow`](Self::follow). The error: the queue cannot be
    /// opened.
    pub fn start(clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (queue, _) = Queue::open(Box::new(MemoryStore::new()), Arc::clone(&clock))?;
        let queue = Arc::new(queue);
        let (followed, gone_directories) = (Arc::default(), Arc::default());
        let (stop, stopped) = bounded(1);
        let worker = Worker {
            queue: Arc::clone(&queue),
            clock,
            followed: Arc::clone(&followed),
            gone_directories: Arc::clone(&gone_directories),
        };
        let thread = std::thread::Builder::new().name("follow".into()).spawn(move || worker.run(&stopped));
        let thread = thread.map_err(|source| StoreError::Write { source })?;
        let (stop, thread) = (Mutex::new(Some(stop)), Mutex::new(Some(thread)));
        Ok(Self { queue, followed, gone_directories, stop, thread })
    }

    /// From now on tells the plugin of changes in these roots, and in no others. Changes in the other roots that still wait
    /// for a file to be complete are dropped; the log says how many.
    pub fn follow(&self, roots: Vec<FollowedRoot>) {
        let nowhere = Destination::Local("plugin".into());
        let register = |root: FollowedRoot| (self.queue.register(&root.source.path, &nowhere, root.policy).0, root);
        let followed: Followed = roots.into_iter().map(register).collect();
        let before = std::mem::replace(&mut *lock(&self.followed), followed);
        for (target, root) in before {
            if lock(&self.followed).contains_key(&target) {
                continue;
            }
            let mut left = 0;
            let mut after = None;
            loop {
                let step = self.queue.operate(target, after.as_ref(), usize::MAX, JobAction::Purge, &|_| true);
                left += step.jobs.len();
                after = step.next;
                if after.is_none() {
                    break;
                }
            }
            if left > 0 {
                let path = root.source.path.display();
                warn!("{path} is no longer followed; plugins are not told of {left} changes that were not complete");
            }
            lock(&self.gone_directories).retain(|(gone_from, _)| *gone_from != target);
        }
    }

    /// Takes the changes that a root's watcher reports. Never waits.
    pub fn changes(&self, root: &Path, changes: &[Change]) {
        let target =
            lock(&self.followed).iter().find(|(_, known)| known.source.path == root).map(|(target, _)| *target);
        let Some(target) = target else { return };
        let told: Vec<Change> = changes.iter().filter(|change| is_told(root, change)).cloned().collect();
        let gone = told.iter().filter(|change| change.gone_directory).map(|change| (target, change.path.clone()));
        lock(&self.gone_directories).extend(gone);
        self.queue.enqueue(&[target], &told);
    }

    /// Ends the thread. Changes that still wait for a file to be complete are dropped. May be called twice.
    pub fn stop(&self) {
        drop(self.stop.lock().take());
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            error!("the plugin's thread ended in a panic");
        }
    }
}

/// No panic leaves these maps and sets in an inconsistent state.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock()
}

/// A directory itself is reported whenever an entry of it comes or goes. Only the entry is news.
fn is_told(root: &Path, change: &Change) -> bool {
    let is_directory = || std::fs::symlink_metadata(change.path.under(root)).is_ok_and(|found| found.is_dir());
    change.scope > Scope::Entry || !is_directory()
}

struct Worker {
    queue: Arc<Queue>,
    clock: Arc<dyn Clock>,
    followed: Arc<Mutex<Followed>>,
    gone_directories: Arc<Mutex<GoneDirectories>>,
}

impl Worker {
    fn run(self, stopped: &Receiver<()>) {
        let work = self.queue.work().clone();
        loop {
            // A change also wakes the loop if its root is new.
            let followed = lock(&self.followed).clone();
            let due = self.queue.next_due(&followed.keys().copied().collect::<Vec<_>>());
            let mut busy = false;
            for (&target, root) in &followed {
                for lane in [Lane::Small, Lane::Large] {
                    while let Some(batch) = self.queue.claim(target, lane) {
                        busy = true;
                        let was_directory =
                            |path: &RelPath| lock(&self.gone_directories).remove(&(target, path.clone()));
                        notify(root, &batch, was_directory);
                        let done = |job: &ClaimedJob| (job.path.clone(), Verdict::Done);
                        let verdicts = batch.jobs.iter().map(done).collect();
                        self.queue.finish(&batch, BatchResult { verdicts, reached: true, ..BatchResult::default() });
                    }
                }
            }
            let wait = match (busy, due) {
                (true, _) => Duration::ZERO,
                (false, Some(due)) => due.since(self.clock.now()).clamp(Duration::from_millis(1), IDLE),
                (false, None) => IDLE,
            };
            crossbeam_channel::select! {
                recv(stopped) -> _ => return,
                recv(work) -> _ => {}
                default(wait) => {}
            }
        }
    }
}

/// Tells the plugin of each path of a batch, and of the files in new directories.
fn notify(root: &FollowedRoot, batch: &Batch, was_directory: impl Fn(&RelPath) -> bool) {
    for job in &batch.jobs {
        let found = std::fs::symlink_metadata(job.path.under(&root.source.path));
        let was_directory = was_directory(&job.path);
        let (operation, directory) = match &found {
            Ok(found) => (Operation::Update, found.is_dir()),
            Err(_) => (Operation::Delete, was_directory),
        };
        if job.path.is_root() {
            if job.scope == Scope::Subtree {
                warn!("{}: changes were missed, and plugins are not told of them", root.source.path.display());
            }
            continue;
        }
        let path = job.path.clone();
        root.engine.notify(Notice { source: Arc::clone(&root.source), path, operation, directory });
        if directory && job.scope > Scope::Entry {
            tell_of_content(root, &job.path, job.scope == Scope::Subtree);
        }
    }
}

/// Files that came with a directory have caused no event of their own.
fn tell_of_content(root: &FollowedRoot, directory: &RelPath, deep: bool) {
    let mut open = vec![directory.clone()];
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(directory.under(&root.source.path));
        for entry in entries.into_iter().flatten().flatten() {
            let name: &OsStr = &entry.file_name();
            let path = directory.join(name.as_bytes());
            let Ok(found) = entry.metadata() else { continue };
            let kind = if found.is_dir() { Kind::Directory } else { Kind::File };
            // A directory in the first level has been reported by itself.
            if root.filter.excludes(&path, kind) || (found.is_dir() && !deep) {
                continue;
            }
            if found.is_dir() {
                open.push(path.clone());
            }
            let (source, directory) = (Arc::clone(&root.source), found.is_dir());
            root.engine.notify(Notice { source, path, operation: Operation::Update, directory });
        }
    }
}
