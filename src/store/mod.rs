//! The contract through which the queue persists: load everything once, then commit batches.
//!
//! A store keeps roots with their directories, targets and jobs. It applies one batch of operations at a time, atomically
//! and durably: when [`Store::commit`] returns `Ok`, a power cut loses nothing of the batch; when it returns `Err`, none
//! of the batch may be relied on. A store has no idea of order, due times or states beyond keeping them: they are the
//! queue's work. The embedded engine is [`sled`]; `memory` is for tests, and for contents that are not worth keeping.

pub mod memory;
pub mod sled;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::model::{DirectoryId, Job, Moment, Mounted, RelPath, RootId, TargetId, Timestamp, Top, Unvouched};

/// At most this many operations in one commit: above it sled's memory grows without bound.
pub const COMMIT_OPS_MAX: usize = 1_000;

/// A root as the store knows it. `path` identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRecord {
    pub id: RootId,
    /// The absolute path, as bytes.
    pub path: Vec<u8>,
    /// Which directory the root was when it was last mirrored, to notice at a start that another directory has taken its
    /// place (a disk that is not mounted).
    pub mark: Option<DirectoryId>,
    /// Every change with an earlier ctime is mirrored or has a job. `None`: the watermark is not known, and the root's
    /// directory records mean nothing.
    pub watermark: Option<Moment>,
    /// When the whole tree was last compared by schedule.
    pub scheduled_run: Option<Timestamp>,
    /// Where file systems are mounted below the root, so that one that is not mounted at the next start does not look
    /// deleted.
    pub mounts: Vec<Mounted>,
}

/// A target as the store knows it. `root` and `destination` together identify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRecord {
    pub id: TargetId,
    pub root: RootId,
    /// The destination as `Destination`'s `Display` writes it.
    pub destination: String,
    /// Nothing shows yet that the target is a copy of its root: it has not been equal since it became a target, was not
    /// seen to hold nothing, and no operator has agreed to what equality takes.
    pub is_new: bool,
    /// Fingerprint of the settings under which the target was last known to be complete up to the root's watermark.
    /// `None`: it still has to be compared in full.
    pub complete_under: Option<u64>,
    /// Since when an operator has the target paused.
    pub paused_since: Option<Timestamp>,
    /// The part of the target's content that nothing vouches for. `None`: all of it was sent or compared by content.
    pub unvouched: Option<Unvouched>,
    /// Which directory a local target was when it was last served.
    pub mark: Option<DirectoryId>,
    /// Where the name of a daemon's host led when it was last looked up; empty if it was not.
    pub addresses: BTreeSet<IpAddr>,
    /// The names at the top of a target on another machine, when it was last looked at.
    pub top: Option<Top>,
}

impl TargetRecord {
    /// A target of which nothing is known yet.
    pub fn new(id: TargetId, root: RootId, destination: String) -> Self {
        let addresses = BTreeSet::new();
        Self {
            id,
            root,
            destination,
            is_new: false,
            complete_under: None,
            paused_since: None,
            unvouched: None,
            mark: None,
            addresses,
            top: None,
        }
    }
}

/// A directory below a root, as it was at the root's watermark. The root directory itself has no record. The record names
/// the directory's parent instead of its path, so that renaming a directory with all below it changes one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryRecord {
    pub root: RootId,
    pub id: DirectoryId,
    pub parent: DirectoryId,
    pub name: Vec<u8>,
}

/// One change of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Stores a job under its target and path, replacing what is there. `Running` is stored as `Ready`. The target has
    /// to be known before, or by the same commit: a job of an unknown target counts as damaged at the next start.
    PutJob(Job),
    /// Removes the job of that target and path, if there is one.
    DeleteJob { target: TargetId, path: RelPath },
    /// Makes a target known. Its root has to be known before, or by the same commit.
    PutTarget(TargetRecord),
    /// Makes a root known.
    PutRoot(RootRecord),
    /// Stores where a directory is, replacing the record under its root and id. The root has to be known.
    PutDirectory(DirectoryRecord),
    /// Removes the record of that directory, if there is one.
    DeleteDirectory { root: RootId, id: DirectoryId },
    /// Raises the number from which new job ids are taken.
    PutNextJobId(u64),
}

/// All that a store holds, as handed over at the start. Roots and targets come ordered by id, directories by root and
/// id, jobs by target and path. Each root and target that is named by another record is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub roots: Vec<RootRecord>,
    pub targets: Vec<TargetRecord>,
    pub directories: Vec<DirectoryRecord>,
    pub jobs: Vec<Job>,
    /// Job ids from here on have never been used.
    pub next_job_id: u64,
    /// Records that could not be read (bad checksum, unknown form, a job whose target is gone) and were dropped. If there
    /// are any, the trees have to be compared in full. The store removes these records together with the first commit, so
    /// let that commit hold the jobs that compare: after a crash before it the damage is reported again.
    pub damaged_records: u64,
}

/// Sizes for `status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes on disk.
    pub bytes: u64,
}

/// The contents and the size of a store, counted by reading all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    pub schema: u32,
    pub roots: u64,
    pub targets: u64,
    pub directories: u64,
    pub jobs: u64,
    /// Records that the next start would drop, and then compare every target in full.
    pub damaged: u64,
    /// Commits that were acknowledged are missing; the next start compares every target in full.
    pub rolled_back: bool,
    /// Bytes of keys and values.
    pub live_bytes: u64,
    /// Bytes on disk: what is live, and what was live before.
    pub bytes: u64,
    /// Earlier stores that were kept beside this one, damaged or before a migration.
    pub kept: Vec<KeptStore>,
}

/// An earlier store that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptStore {
    pub path: PathBuf,
    pub bytes: u64,
}

/// Where the queue keeps its jobs.
pub trait Store: Send {
    /// Reads everything. Called once, before the first commit.
    fn load(&mut self) -> Result<Contents, StoreError>;

    /// Applies `ops`, at most [`COMMIT_OPS_MAX`] of them, atomically and durably, in their order.
    ///
    /// After an error the same operations may be committed again, then or later: the store makes itself usable again if
    /// it can. Nothing else is needed, and commits of other operations in between do no harm. Only after
    /// [`StoreError::Lost`] everything has to be committed again.
    fn commit(&mut self, ops: &[Op]) -> Result<(), StoreError>;

    /// Up to `limit` directories that have a record under `root`.
    fn directories(&mut self, root: RootId, limit: usize) -> Result<Vec<DirectoryId>, StoreError>;

    /// Looks after the store: whether it is still there, and whether it has grown too large for its contents. To be
    /// called now and then, between commits. May take as long as copying the contents.
    fn maintain(&mut self) -> Result<(), StoreError>;

    /// Reads everything and counts it, holding none of it.
    fn census(&mut self) -> Result<Census, StoreError>;

    /// Makes the store as small as its contents allow. After [`StoreError::NotCompacted`] the store is what it was.
    fn compact(&mut self) -> Result<(), StoreError>;

    fn stats(&self) -> StoreStats;
}

/// The failures of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `pid` is what the holder of the lock wrote into the lock file, if that could be read.
    #[error("another syncq{} uses the state directory {}", shown_pid(.pid), .dir.display())]
    Locked { dir: PathBuf, pid: Option<u32> },
    #[error("the store in {} has schema {found}, written by syncq {writer}; this is syncq {ours} (schema {supported})", .dir.display())]
    NewerSchema { dir: PathBuf, found: u32, supported: u32, writer: String, ours: &'static str },
    #[error("cannot use the state directory {}", .dir.display())]
    Directory { dir: PathBuf, source: std::io::Error },
    /// The files that this user would leave in the store could not be written by the owner's daemon.
    #[error("the store in {} belongs to the user with the number {owner}", .dir.display())]
    OfAnother { dir: PathBuf, owner: u32 },
    /// A store is looked at through a copy, and there is no place for the copy.
    #[error("cannot copy the store in {}, {} MiB, to look at it", .dir.display(), bytes.div_ceil(1 << 20))]
    NoCopy { dir: PathBuf, bytes: u64, source: std::io::Error },
    #[error("the store in {} is damaged: {reason}", .dir.display())]
    Damaged { dir: PathBuf, reason: String },
    /// An empty store has taken the place of the one that was in use. All that the caller knows has to be committed
    /// again; records that the caller does not know are lost.
    #[error("the store in {} is lost, a new one is made: {reason}", .dir.display())]
    Lost { dir: PathBuf, reason: String },
    #[error("cannot write the store")]
    Write { source: std::io::Error },
    #[error("cannot read the store")]
    Read { source: std::io::Error },
    #[error("cannot compact the store: {reason}")]
    NotCompacted { reason: String },
    #[error("a commit has {given} operations, allowed {max}")]
    TooManyOps { given: usize, max: usize },
    /// A root or a destination whose name is too long; nothing else can grow that far.
    #[error("a record of {bytes} bytes is too large for the store, allowed {max}")]
    RecordTooLarge { bytes: usize, max: usize },
    #[error("cannot bring the store in {} from schema {from} to {to}", .dir.display())]
    Migration { dir: PathBuf, from: u32, to: u32, source: std::io::Error },
}

fn shown_pid(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl StoreError {
    /// Whether the disk, or the part of it that this user may fill, is full.
    pub fn is_full_disk(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let (Self::Directory { source, .. }
        | Self::Write { source }
        | Self::Read { source }
        | Self::Migration { source, .. }) = self
        else {
            return false;
        };
        matches!(source.kind(), StorageFull | QuotaExceeded)
    }

    /// The error and what caused it, on one line.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Generation, JobId, JobState, Origin, Scope, Timestamp};

    /// A plain job for tests of the stores.
    pub(super) fn job(id: u64, target: u32, path: &[u8]) -> Job {
        Job {
            id: JobId(id),
            target: TargetId(target),
            path: RelPath::new(path).expect("a valid path"),
            scope: Scope::Entry,
            origin: Origin::Write,
            state: JobState::Ready,
            generation: Generation::FIRST,
            queued_at: Timestamp(1_000),
            changed_at: Timestamp(2_000),
            attempts: 0,
            due_at: Timestamp(0),
            partial: false,
            last_error: None,
        }
    }

    #[test]
    fn a_held_lock_names_its_holder() {
        let locked = |pid| StoreError::Locked { dir: "/s".into(), pid }.to_string();
        assert_eq!(locked(Some(7)), "another syncq (pid 7) uses the state directory /s");
        assert_eq!(locked(None), "another syncq uses the state directory /s");
    }
}
