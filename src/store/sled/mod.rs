//! The durable store: one directory with an embedded sled database. The only module that names sled, the encoding of
//! records, or the layout of keys.
//!
//! ```text
//! <state dir>/lock            held by the syncq that uses the directory; holds its process id
//! <state dir>/identity        which store belongs here, its schema, whether it was closed in order
//! <state dir>/progress        how many commits were acknowledged
//! <state dir>/store/          sled's files
//! <state dir>/store.damaged-* stores that could not be used, kept for whoever wants to look
//! <state dir>/store.schema-*  copies made before a migration
//! ```
//!
//! A commit is one `apply_batch` on one tree, sled's `flush()`, then `fdatasync` on a descriptor of our own: only that
//! together survived simulated power cuts (`disk`). `open` is the ladder that gets any directory to a usable store,
//! `key` and `record` are the format, `migrations/` is its history.
//!
//! Deliberately not here: order, due times and states beyond keeping them; compaction (a drained backlog leaves the
//! file at its size); and any retry by itself: a failed commit is retried by committing again.

mod contents;
mod disk;
mod guard;
mod identity;
mod key;
mod lock;
#[path = "../../../migrations/mod.rs"]
mod migrations;
mod open;
mod progress;
mod record;
mod tree;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use self::contents::Scanned;
use self::identity::Identity;
use self::lock::Lock;
use self::migrations::{STEPS, Step};
use self::open::{Layout, Otherwise, Usable};
use self::progress::Progress;
use self::tree::{Tree, Trouble};
use super::{COMMIT_OPS_MAX, Contents, Op, Store, StoreError, StoreStats};
use crate::model::{DirectoryId, RootId, Timestamp};

/// The version that is stored as a store's writer.
const WRITER: &str = env!("CARGO_PKG_VERSION");

/// A store in a state directory. Holds the directory's lock until dropped.
#[derive(Debug)]
pub struct SledStore {
    /// `None` after a failed commit, until the next one opens it again.
    tree: Option<Tree>,
    /// What opening has read, until it is asked for.
    scanned: Option<Scanned>,
    /// Keys of records that are of no use, removed with the next commits.
    damaged: Vec<Vec<u8>>,
    /// The highest number stored, so that it never falls.
    next_job_id: u64,
    /// The number of the last commit that was acknowledged, in this life of the store or an earlier one.
    acknowledged: u64,
    /// The number of the last commit that the present store holds for certain.
    committed: u64,
    progress: Progress,
    layout: Layout,
    identity: Identity,
    /// Whether closing marks the store as closed in order.
    marks_clean: bool,
    // Last: dropped after the tree.
    _lock: Lock,
}

/// How opening went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Why the store is empty, if it is; all that was mirrored before is unknown then. `None`: the store of the last
    /// run is there.
    pub fresh: Option<FreshReason>,
    /// Files of the engine were damaged and made anew from its log. Nothing is known to be missing.
    pub recovered: bool,
    /// Commits that were acknowledged are missing: the engine gave up the damaged end of its log. Reported at each
    /// opening until something is committed.
    pub rolled_back: bool,
    /// The last syncq closed the store in order. Otherwise it was killed, or the machine stopped.
    pub clean: bool,
}

impl Opened {
    /// Whether jobs may be missing that no catch-up scan would find, so that the trees have to be compared in full. The
    /// same holds if loading reports damaged records.
    pub fn may_lack_jobs(&self) -> bool {
        self.fresh.is_some() || self.recovered || self.rolled_back
    }
}

/// Why a store starts empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FreshReason {
    /// There was none, or none that ever held a target.
    New,
    /// The one that was there could not be used and is kept at `path`.
    SetAside { path: PathBuf, reason: String },
    /// The files of the one that belongs here are gone.
    Emptied,
}

impl SledStore {
    /// Opens the store in the state directory `dir` for a daemon, creating what is missing. One that cannot be used is
    /// set aside under a name with `now` in it.
    pub fn open(dir: &Path, now: Timestamp) -> Result<(Self, Opened), StoreError> {
        Self::open_with_steps(dir, now, STEPS)
    }

    /// Opens the store in `dir` for a command while no daemon runs: creates and replaces nothing, and leaves it to the
    /// next daemon to see how the last one ended. Without a store the error is `Directory` with `NotFound`.
    pub fn open_existing(dir: &Path) -> Result<Self, StoreError> {
        let layout = Layout::of(dir);
        if let Err(source) = std::fs::metadata(layout.store.join("db")) {
            return Err(StoreError::Directory { dir: dir.to_owned(), source });
        }
        let lock = Lock::take(dir, &layout.lock)?;
        Ok(Self::open_locked(layout, lock, Otherwise::Refuse, STEPS)?.0)
    }

    fn open_with_steps(dir: &Path, now: Timestamp, steps: &[Step]) -> Result<(Self, Opened), StoreError> {
        let layout = Layout::of(dir);
        disk::create_private_dir(dir).map_err(|source| StoreError::Directory { dir: dir.to_owned(), source })?;
        let lock = Lock::take(dir, &layout.lock)?;
        Self::open_locked(layout, lock, Otherwise::StartAnew(now), steps)
    }

    fn open_locked(
        layout: Layout,
        lock: Lock,
        otherwise: Otherwise,
        steps: &[Step],
    ) -> Result<(Self, Opened), StoreError> {
        let progress = Progress::open(&layout.progress)
            .map_err(|source| StoreError::Directory { dir: layout.dir.clone(), source })?;
        let acknowledged = progress.commit();
        let usable = open::open(&layout, acknowledged, otherwise, steps)?;
        let Usable { tree, scanned, identity, fresh, recovered, rolled_back } = usable;
        let marks_clean = identity.clean || matches!(otherwise, Otherwise::StartAnew(_));
        let opened = Opened { fresh, recovered, rolled_back, clean: identity.clean };
        // A new store counts on from the old one's number: it must not look rolled back once it holds something.
        let acknowledged = acknowledged.max(scanned.commit);
        let store = Self {
            tree: Some(tree),
            damaged: scanned.damaged.clone(),
            committed: scanned.commit,
            next_job_id: scanned.contents.next_job_id,
            scanned: Some(scanned),
            acknowledged,
            progress,
            layout,
            identity,
            marks_clean,
            _lock: lock,
        };
        Ok((store, opened))
    }

    /// The tree, opened again if a commit failed before.
    fn tree(&mut self) -> Result<&Tree, StoreError> {
        match &mut self.tree {
            Some(tree) => Ok(tree),
            closed => Ok(closed.insert(open::reopen(&self.layout, &self.identity, self.committed)?)),
        }
    }
}

impl Store for SledStore {
    fn load(&mut self) -> Result<Contents, StoreError> {
        if let Some(scanned) = self.scanned.take() {
            return Ok(scanned.contents);
        }
        let scanned = match contents::scan(self.tree()?) {
            Ok(scanned) => scanned,
            Err(Trouble::Damage(reason)) => {
                return Err(StoreError::Damaged { dir: self.layout.dir.clone(), reason });
            }
            Err(Trouble::Outside(source)) => return Err(StoreError::Read { source }),
        };
        self.damaged = scanned.damaged;
        Ok(scanned.contents)
    }

    fn commit(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        if ops.len() > COMMIT_OPS_MAX {
            return Err(StoreError::TooManyOps { given: ops.len(), max: COMMIT_OPS_MAX });
        }
        // What `load` would have given out is history from here on.
        self.scanned = None;
        let mut next_job_id = self.next_job_id;
        // Removals first, so that a record put anew in the place of a damaged one stays.
        let removed = self.damaged.len().min(COMMIT_OPS_MAX - ops.len());
        let mut changes: Vec<_> = self.damaged.iter().take(removed).map(|key| (key.clone(), None)).collect();
        for op in ops {
            if let Op::PutNextJobId(id) = op {
                next_job_id = next_job_id.max(*id);
            }
            changes.push(contents::change(op, next_job_id)?);
        }
        if changes.is_empty() {
            return self.tree().map(drop);
        }
        let commit = self.acknowledged.saturating_add(1);
        changes.push(contents::commit_change(commit)?);
        let tree = self.tree()?;
        if let Err(trouble) = tree.write(changes) {
            // sled refuses everything from here on, also when the cause is gone.
            self.tree = None;
            return Err(StoreError::Write { source: io::Error::from(trouble) });
        }
        self.progress.note(commit);
        self.acknowledged = commit;
        self.committed = commit;
        self.next_job_id = next_job_id;
        self.damaged.drain(..removed);
        Ok(())
    }

    fn directories(&mut self, root: RootId, limit: usize) -> Result<Vec<DirectoryId>, StoreError> {
        let found = contents::directories(self.tree()?, root, limit);
        found.map_err(|trouble| {
            // sled that fails once may fail for ever.
            self.tree = None;
            StoreError::Read { source: io::Error::from(trouble) }
        })
    }

    fn stats(&self) -> StoreStats {
        StoreStats { bytes: disk::size_bytes(&self.layout.store) }
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        let closed_in_order = self.tree.take().is_some();
        if !(closed_in_order && self.marks_clean) {
            return;
        }
        if let Err(error) = self.progress.sync() {
            log::warn!("cannot write the store's progress: {error}");
        }
        let marked = Identity { clean: true, ..self.identity.clone() };
        if let Err(error) = marked.write(&self.layout.identity) {
            log::warn!("cannot mark the store as closed: {error}");
        }
    }
}
