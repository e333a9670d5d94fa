//! `-m`: tells a plugin of the watcher's changes, without any target.
//!
//! The changes go through a queue of their own, in memory, with one target per root that is no target: it merges what
//! changes again and again and waits until a file is complete, as it does for mirrors. What it hands out is told of and
//! done. What changed while no such process ran is not told of, as in sersync.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{error, warn};

use super::{Engine, Notice, Source};
use crate::clock::Clock;
use crate::filter::{Filter, Kind};
use crate::mirror::Operation;
use crate::model::{Change, ClaimedJob, Destination, Lane, RelPath, Scope, TargetId, Verdict};
use crate::queue::{Batch, BatchResult, Policy, Queue};
use crate::store::StoreError;
use crate::store::memory::MemoryStore;

/// The longest sleep; a change ends it.
const IDLE: Duration = Duration::from_secs(3600);

/// A root whose changes are told of.
#[derive(Debug, Clone)]
pub struct FollowedRoot {
    pub source: Arc<Source>,
    pub filter: Arc<Filter>,
    pub policy: Policy,
    pub engine: Arc<Engine>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Follower {
    queue: Arc<Queue>,
    roots: BTreeMap<PathBuf, TargetId>,
    stop: Mutex<Option<Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Follower {
    pub fn start(roots: Vec<FollowedRoot>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (queue, _) = Queue::open(Box::new(MemoryStore::new()), Arc::clone(&clock))?;
        let queue = Arc::new(queue);
        let mut followed = BTreeMap::new();
        let mut by_path = BTreeMap::new();
        for root in roots {
            let nowhere = Destination::Local("plugin".into());
            let (id, _) = queue.register(&root.source.path, &nowhere, root.policy);
            by_path.insert(root.source.path.clone(), id);
            followed.insert(id, root);
        }
        let (stop, stopped) = bounded(1);
        let worker = Worker { queue: Arc::clone(&queue), clock, roots: followed };
        let thread = std::thread::Builder::new().name("follow".into()).spawn(move || worker.run(&stopped));
        let thread = thread.map_err(|source| StoreError::Write { source })?;
        Ok(Self { queue, roots: by_path, stop: Mutex::new(Some(stop)), thread: Mutex::new(Some(thread)) })
    }

    /// Takes what a root's watcher reports. Never waits.
    pub fn changes(&self, root: &Path, changes: &[Change]) {
        let Some(target) = self.roots.get(root) else { return };
        let told: Vec<Change> = changes.iter().filter(|change| is_told(root, change)).cloned().collect();
        self.queue.enqueue(&[*target], &told);
    }

    /// Ends the telling; what waits to be complete is not told of. May be called twice.
    pub fn stop(&self) {
        drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            error!("the plugin's thread ended in a panic");
        }
    }
}

/// A directory by itself is reported whenever an entry of it comes or goes, and that is no news: the entry is.
fn is_told(root: &Path, change: &Change) -> bool {
    let is_directory = || std::fs::symlink_metadata(change.path.under(root)).is_ok_and(|found| found.is_dir());
    change.scope > Scope::Entry || !is_directory()
}

struct Worker {
    queue: Arc<Queue>,
    clock: Arc<dyn Clock>,
    roots: BTreeMap<TargetId, FollowedRoot>,
}

impl Worker {
    fn run(self, stopped: &Receiver<()>) {
        let work = self.queue.work().clone();
        let targets: Vec<TargetId> = self.roots.keys().copied().collect();
        loop {
            let due = self.queue.next_due(&targets);
            let mut busy = false;
            for (&target, root) in &self.roots {
                for lane in [Lane::Small, Lane::Large] {
                    while let Some(batch) = self.queue.claim(target, lane) {
                        busy = true;
                        tell(root, &batch);
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

/// Tells of each path of a batch, and of what stands in new directories.
fn tell(root: &FollowedRoot, batch: &Batch) {
    for job in &batch.jobs {
        let found = std::fs::symlink_metadata(job.path.under(&root.source.path));
        let (operation, directory) = match &found {
            Ok(found) => (Operation::Update, found.is_dir()),
            Err(_) => (Operation::Delete, false),
        };
        if job.path.is_root() {
            if job.scope == Scope::Subtree {
                warn!("{}: changes were missed, and plugins are not told of them", root.source.path.display());
            }
            continue;
        }
        let path = job.path.clone();
        root.engine.tell(Notice { source: Arc::clone(&root.source), path, operation, directory });
        if directory && job.scope > Scope::Entry {
            tell_of_content(root, &job.path, job.scope == Scope::Subtree);
        }
    }
}

/// What came with a directory has caused no event of its own.
fn tell_of_content(root: &FollowedRoot, directory: &RelPath, deep: bool) {
    let mut open = vec![directory.clone()];
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(directory.under(&root.source.path));
        for entry in entries.into_iter().flatten().flatten() {
            let name: &OsStr = &entry.file_name();
            let path = directory.join(name.as_bytes());
            let Ok(found) = entry.metadata() else { continue };
            let kind = if found.is_dir() { Kind::Directory } else { Kind::File { size: found.len() } };
            // A directory at the first level has been reported by itself.
            if root.filter.excludes(&path, kind) || (found.is_dir() && !deep) {
                continue;
            }
            if found.is_dir() {
                open.push(path.clone());
            }
            let (source, directory) = (Arc::clone(&root.source), found.is_dir());
            root.engine.tell(Notice { source, path, operation: Operation::Update, directory });
        }
    }
}
