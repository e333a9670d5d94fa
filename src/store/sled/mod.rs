//! The durable store: one directory with an embedded sled database. The only module that names sled, the encoding of
//! records, or the layout of keys.
//!
//! ```text
//! <state dir>/lock            held by the syncq that uses the directory; holds its process id
//! <state dir>/identity        which store belongs here, its schema, whether it was closed in order
//! <state dir>/progress        how many commits were acknowledged
//! <state dir>/ballast         16 MiB to be given up when a start finds the disk full
//! <state dir>/store/          sled's files
//! <state dir>/store.compact   the copy that a compaction makes
//! <state dir>/store.old       the store that it replaces, for the moment of the swap
//! <state dir>/store.damaged-* stores that could not be used, kept for whoever wants to look
//! <state dir>/store.schema-*  copies made before a migration
//! ```
//!
//! A commit is one `apply_batch` on one tree, sled's `flush()`, then `fdatasync` on a descriptor of our own: only the
//! three together survived simulated power cuts (`disk`). `open` is the ladder that gets any directory to a usable store,
//! `key` and `record` are the format, `migrations/` is its history, `compact` makes a store small again, and `look` reads
//! one without touching it.
//!
//! A store that is removed, replaced or damaged while it is in use is made anew, empty, and the caller is told to write
//! all that it knows ([`StoreError::Lost`]).
//!
//! Deliberately not here: order, due times and states beyond keeping them, and retries: a failed commit is retried by
//! committing again.

mod ballast;
mod compact;
mod contents;
mod disk;
mod guard;
mod identity;
mod key;
mod layout;
mod lock;
mod look;
#[path = "../../../migrations/mod.rs"]
mod migrations;
mod open;
mod progress;
mod record;
mod slack;
mod tree;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::Path;

use self::contents::{Keep, Scanned};
use self::identity::Identity;
use self::layout::Layout;
use self::lock::Lock;
pub use self::look::Looked;
use self::migrations::{STEPS, Step};
pub use self::open::FreshReason;
use self::open::{Otherwise, Usable};
use self::progress::Progress;
use self::tree::{Tree, Trouble};
use super::{COMMIT_OPS_MAX, Census, Contents, Op, Store, StoreError, StoreStats};
use crate::model::{DirectoryId, RootId, Timestamp};
use crate::trust;

/// After this many operations it is worth a look whether the store has grown too large for its contents. The look reads
/// up to a quarter of the file.
const OPS_BETWEEN_LOOKS: usize = 50_000;

/// A store in a state directory. Holds the directory's lock until dropped.
#[derive(Debug)]
pub struct SledStore {
    /// `None` after a failed commit, until the next commit opens the tree again.
    tree: Option<Tree>,
    /// The records that opening for a daemon has read, until `load` asks for them.
    scanned: Option<Scanned>,
    /// Keys of records that cannot be used, to be removed with the next commits.
    damaged: Vec<Vec<u8>>,
    /// The highest number stored for the next job's id, so that it never falls.
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
    /// Whether a store that is lost is made anew.
    starts_anew: bool,
    /// Ballast cannot be made here, so it is not tried again.
    no_ballast: bool,
    /// Commits that were acknowledged are missing, and nothing was committed since.
    rolled_back: bool,
    /// Operations since the last look at the store's size.
    ops_since_look: usize,
    // The last field, so that the lock is dropped after the tree.
    lock: Lock,
}

/// The outcome of opening a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Why the store is empty, if it is; all that was mirrored before is unknown then. `None`: the store of the last run
    /// is there.
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

/// The records and files that were found on opening a store.
struct Read {
    scanned: Scanned,
    identity: Identity,
    progress: Progress,
    acknowledged: u64,
    rolled_back: bool,
}

impl SledStore {
    /// Opens the store in the state directory `dir` for a daemon, creating what is missing. A store that cannot be used
    /// is set aside under a name with `now` in it.
    pub fn open(dir: &Path, now: Timestamp) -> Result<(Self, Opened), StoreError> {
        Self::open_with_steps(dir, now, STEPS)
    }

    /// Opens the store in `dir` for a command that changes its contents while no daemon runs. Creates and replaces no
    /// store, and leaves it to the next daemon to see how the last one ended. Without a store the error is `Directory`
    /// with `NotFound`. With a store of another user the error is `OfAnother`, since the files that sled makes anew would
    /// be this user's.
    pub fn open_existing(dir: &Path) -> Result<Self, StoreError> {
        let layout = Layout::of(dir);
        let owner = layout.owner().map_err(|source| layout.directory(source))?;
        if owner != rustix::process::geteuid().as_raw() {
            return Err(StoreError::OfAnother { dir: dir.to_owned(), owner });
        }
        // A link that others have put there would lead sled's writes elsewhere.
        trust::check_state(dir).map_err(|source| layout.directory(source))?;
        let lock = Lock::take(dir, &layout.lock)?;
        Ok(Self::open_locked(layout, lock, Otherwise::Refuse, STEPS)?.0)
    }

    fn read<T>(&mut self, read: impl FnOnce(&Tree) -> Result<T, Trouble>) -> Result<T, StoreError> {
        read(self.tree()?).map_err(|trouble| match trouble {
            Trouble::Damage(reason) => StoreError::Damaged { dir: self.layout.dir.clone(), reason },
            Trouble::Outside(source) => StoreError::Read { source },
        })
    }

    fn open_with_steps(dir: &Path, now: Timestamp, steps: &[Step]) -> Result<(Self, Opened), StoreError> {
        match Self::try_open(dir, now, steps) {
            Err(error) if error.is_full_disk() && ballast::give_up(&Layout::of(dir).ballast) => {
                log::warn!("{}; the ballast is given up", error.with_causes());
                match Self::try_open(dir, now, steps) {
                    Err(error) if error.is_full_disk() => Self::open_unwritten(dir, steps, error),
                    result => result,
                }
            }
            Err(error) if error.is_full_disk() => Self::open_unwritten(dir, steps, error),
            result => result,
        }
    }

    /// Takes up a store that cannot be opened in its place, since opening writes and its disk is full. Its records are
    /// read from a copy elsewhere, and each commit tries whether the store itself can be opened by then. `full` is the
    /// error if reading a copy is not possible either.
    fn open_unwritten(dir: &Path, steps: &[Step], full: StoreError) -> Result<(Self, Opened), StoreError> {
        let layout = Layout::of(dir);
        let lock = Lock::take(dir, &layout.lock)?;
        let read = || -> Result<Option<(Usable, u64, Progress)>, StoreError> {
            let progress = Progress::open(&layout.progress).map_err(|source| layout.directory(source))?;
            let acknowledged = progress.commit();
            let known = Identity::read(&layout.identity).map_err(|source| layout.directory(source))?;
            // A migration needs room in the store's own place.
            if known.is_some_and(|known| known.schema < steps.last().map_or(0, |step| step.number)) {
                return Ok(None);
            }
            let copy = look::Copy::of_locked(&layout)?;
            let mut usable = open::open(&copy.layout, acknowledged, Otherwise::Refuse, steps)?;
            usable.scanned =
                contents::scan(&usable.tree, Keep::All).map_err(|trouble| layout.directory(trouble.into()))?;
            Ok(Some((usable, acknowledged, progress)))
        };
        match read() {
            Ok(Some((usable, acknowledged, progress))) => {
                log::warn!(
                    "{}; what the store holds is read from a copy, and nothing is written to it until there is room",
                    full.with_causes()
                );
                let Usable { tree, scanned, identity, fresh, recovered, rolled_back } = usable;
                drop(tree);
                let opened = Opened { fresh, recovered, rolled_back, clean: identity.clean };
                let read = Read { scanned, identity, progress, acknowledged, rolled_back };
                Ok((Self::assemble(layout, lock, None, read, true), opened))
            }
            Ok(None) => Err(full),
            Err(error) => {
                log::warn!("the store cannot be read from a copy either: {}", error.with_causes());
                Err(full)
            }
        }
    }

    fn try_open(dir: &Path, now: Timestamp, steps: &[Step]) -> Result<(Self, Opened), StoreError> {
        let layout = Layout::of(dir);
        disk::own_private_dir(dir).map_err(|source| StoreError::Directory { dir: dir.to_owned(), source })?;
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
        let starts_anew = matches!(otherwise, Otherwise::StartAnew(_));
        let opened = Opened { fresh, recovered, rolled_back, clean: identity.clean };
        let read = Read { scanned, identity, progress, acknowledged, rolled_back };
        Ok((Self::assemble(layout, lock, Some(tree), read, starts_anew), opened))
    }

    fn assemble(layout: Layout, lock: Lock, tree: Option<Tree>, read: Read, starts_anew: bool) -> Self {
        let Read { scanned, identity, progress, acknowledged, rolled_back } = read;
        let marks_clean = identity.clean || starts_anew;
        // A new store counts on from the old one's number: otherwise it would look rolled back once it holds something.
        let acknowledged = acknowledged.max(scanned.commit);
        Self {
            tree,
            damaged: scanned.damaged.clone(),
            committed: scanned.commit,
            next_job_id: scanned.contents.next_job_id,
            scanned: starts_anew.then_some(scanned),
            acknowledged,
            progress,
            layout,
            identity,
            marks_clean,
            starts_anew,
            no_ballast: false,
            rolled_back,
            ops_since_look: OPS_BETWEEN_LOOKS,
            lock,
        }
    }

    /// The tree, opened again if a commit failed before.
    fn tree(&mut self) -> Result<&Tree, StoreError> {
        if self.tree.is_none() {
            self.stay_beside()?;
            let reopened = match open::reopen(&self.layout, &self.identity, self.committed) {
                Err(StoreError::Damaged { reason, .. }) => return Err(self.start_over(reason)),
                other => other?,
            };
            self.tree = Some(reopened);
        }
        self.tree.as_ref().ok_or_else(|| StoreError::Write { source: io::ErrorKind::NotConnected.into() })
    }

    /// Makes sure that the next start will read what is written: the directory or the store may have been removed, or
    /// replaced by another.
    fn stay_in_place(&mut self) -> Result<(), StoreError> {
        if let Some(tree) = &self.tree
            && !tree.is_in(&self.layout.store).map_err(|source| StoreError::Write { source })?
        {
            return Err(self.start_over("its files were removed or replaced while it was in use".into()));
        }
        self.stay_beside()
    }

    /// Makes sure of this for the files beside the store: somebody may have removed the lock as a forgotten one.
    fn stay_beside(&mut self) -> Result<(), StoreError> {
        let layout = &self.layout;
        let directory = |source| layout.directory(source);
        if !self.lock.is_at(&layout.lock).map_err(directory)? {
            disk::own_private_dir(&layout.dir).map_err(directory)?;
            self.lock = Lock::take(&layout.dir, &layout.lock)?;
        }
        if !self.progress.is_at(&layout.progress).map_err(directory)? {
            self.progress = Progress::open(&layout.progress).map_err(directory)?;
            self.progress.note(self.acknowledged);
        }
        Ok(())
    }

    /// Starts an empty store in the place of the one that was in use. Returns the error that the caller is to be given.
    fn start_over(&mut self, reason: String) -> StoreError {
        let dir = self.layout.dir.clone();
        if !self.starts_anew {
            return StoreError::Damaged { dir, reason };
        }
        if let Some(tree) = self.tree.take()
            && let Err(error) = tree.close()
        {
            log::debug!("closing the store that is lost: {error}");
        }
        match self.replace() {
            Ok(()) => StoreError::Lost { dir, reason },
            Err(error) => error,
        }
    }

    fn replace(&mut self) -> Result<(), StoreError> {
        self.stay_beside()?;
        let (tree, identity) = open::replace(&self.layout)?;
        (self.tree, self.identity) = (Some(tree), identity);
        self.committed = 0;
        self.scanned = None;
        self.damaged.clear();
        Ok(())
    }

    /// Makes the store small again if that pays. A store that cannot be copied goes on as it is.
    fn compact_if_worthwhile(&mut self) -> Result<(), StoreError> {
        if self.ops_since_look < OPS_BETWEEN_LOOKS {
            return Ok(());
        }
        let Some(tree) = &self.tree else { return Ok(()) };
        self.ops_since_look = 0;
        match compact::is_worthwhile(tree, disk::size_bytes(&self.layout.store)) {
            Ok(true) => match self.compact() {
                Err(error @ StoreError::NotCompacted { .. }) => {
                    log::warn!("{error}");
                    Ok(())
                }
                result => result,
            },
            Ok(false) => Ok(()),
            Err(trouble) => {
                log::warn!("cannot look through the store: {}", io::Error::from(trouble));
                Ok(())
            }
        }
    }
}

impl Store for SledStore {
    fn load(&mut self) -> Result<Contents, StoreError> {
        if let Some(scanned) = self.scanned.take() {
            return Ok(scanned.contents);
        }
        let scanned = self.read(|tree| contents::scan(tree, Keep::All))?;
        self.damaged = scanned.damaged;
        Ok(scanned.contents)
    }

    fn commit(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        if ops.len() > COMMIT_OPS_MAX {
            return Err(StoreError::TooManyOps { given: ops.len(), max: COMMIT_OPS_MAX });
        }
        // The records that `load` would have given out are history from here on.
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
            // sled refuses everything from here on, even when the cause is gone.
            self.tree = None;
            return Err(StoreError::Write { source: io::Error::from(trouble) });
        }
        // Check only now: whatever removed the store before the write took what was written with it.
        self.stay_in_place()?;
        self.progress.note(commit);
        self.ops_since_look = self.ops_since_look.saturating_add(ops.len());
        self.acknowledged = commit;
        self.committed = commit;
        self.rolled_back = false;
        self.next_job_id = next_job_id;
        self.damaged.drain(..removed);
        Ok(())
    }

    fn directories(&mut self, root: RootId, limit: usize) -> Result<Vec<DirectoryId>, StoreError> {
        let found = contents::directories(self.tree()?, root, limit);
        found.map_err(|trouble| {
            // Once sled has failed, it may fail for ever.
            self.tree = None;
            StoreError::Read { source: io::Error::from(trouble) }
        })
    }

    fn maintain(&mut self) -> Result<(), StoreError> {
        self.stay_in_place()?;
        // A command that only looks does not change the store.
        if !self.starts_anew {
            return Ok(());
        }
        if !self.no_ballast
            && let Err(error) = ballast::make(&self.layout.ballast)
        {
            log::debug!("there will be no ballast: {error}");
            self.no_ballast = true;
        }
        self.compact_if_worthwhile()
    }

    fn census(&mut self) -> Result<Census, StoreError> {
        let rolled_back = self.rolled_back;
        let census = self.read(contents::census)?;
        let kept = self.layout.kept().map_err(|source| StoreError::Read { source })?;
        let bytes = disk::size_bytes(&self.layout.store);
        Ok(Census { schema: self.identity.schema, rolled_back, bytes, kept, ..census })
    }

    /// Copies the store to a fresh one and goes on with the copy.
    fn compact(&mut self) -> Result<(), StoreError> {
        let bytes = disk::size_bytes(&self.layout.store);
        self.tree()?;
        if bytes < compact::SMALLEST_BYTES {
            return Ok(());
        }
        let Some(tree) = self.tree.take() else { return Ok(()) };
        if let Err(error) = compact::copy(&self.layout, &tree) {
            self.tree = Some(tree);
            return Err(StoreError::NotCompacted { reason: error.to_string() });
        }
        let write = |source| StoreError::Write { source };
        tree.close().map_err(write)?;
        compact::swap(&self.layout).map_err(write)?;
        match open::take_up(&self.layout, &self.identity, self.committed) {
            Ok(tree) => self.tree = Some(tree),
            Err(error) => {
                compact::swap_back(&self.layout).map_err(write)?;
                return Err(StoreError::NotCompacted { reason: error.with_causes() });
            }
        }
        compact::finish_swap(&self.layout).map_err(write)?;
        log::info!("the store is compacted: {bytes} bytes before, {} now", disk::size_bytes(&self.layout.store));
        Ok(())
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
