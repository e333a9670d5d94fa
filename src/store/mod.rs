//! What the queue persists through: load everything once, then commit batches.
//!
//! A store keeps jobs and the names of targets, and applies one batch of operations at a time, atomically and
//! durably: when [`Store::commit`] returns `Ok`, a power cut loses nothing of the batch; when it returns `Err`, none
//! of it may be relied on. It has no idea of order, due times or states beyond keeping them: that is the queue's
//! work. The embedded engine is [`sled`]; [`memory`] is for tests.

pub mod memory;
pub mod sled;

use std::path::PathBuf;

use crate::model::{Job, RelPath, TargetId};

/// At most this many operations in one commit: above it sled's memory grows without bound.
pub const COMMIT_OPS_MAX: usize = 1_000;

/// A target as the store knows it. `root` and `destination` together identify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRecord {
    pub id: TargetId,
    /// The root's absolute path, as bytes.
    pub root: Vec<u8>,
    /// The destination as `Destination`'s `Display` writes it.
    pub destination: String,
}

/// One change of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Stores a job under its target and path, replacing what is there. `Running` is stored as `Ready`.
    PutJob(Job),
    /// Removes the job of that target and path, if there is one.
    DeleteJob { target: TargetId, path: RelPath },
    /// Makes a target known.
    PutTarget(TargetRecord),
    /// Raises the number from which new job ids are taken.
    PutNextJobId(u64),
}

/// All that a store holds, as handed over at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub targets: Vec<TargetRecord>,
    pub jobs: Vec<Job>,
    /// Job ids from here on have never been used.
    pub next_job_id: u64,
    /// Records that could not be read (bad checksum, unknown form) and were dropped. If any, the trees have to be
    /// compared in full.
    pub damaged_records: u64,
}

/// Sizes for `status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes on disk.
    pub bytes: u64,
}

/// Where the queue keeps its jobs.
pub trait Store: Send {
    /// Reads everything. Called once, before the first commit.
    fn load(&mut self) -> Result<Contents, StoreError>;

    /// Applies `ops`, at most [`COMMIT_OPS_MAX`] of them, atomically and durably.
    fn commit(&mut self, ops: &[Op]) -> Result<(), StoreError>;

    fn stats(&self) -> StoreStats;
}

/// What can go wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another syncq uses the state directory {}", .dir.display())]
    Locked { dir: PathBuf },
    #[error("the store in {} has schema {found}, written by syncq {writer}; this is syncq {ours} (schema {supported})", .dir.display())]
    NewerSchema { dir: PathBuf, found: u32, supported: u32, writer: String, ours: &'static str },
    #[error("cannot use the state directory {}", .dir.display())]
    Directory { dir: PathBuf, source: std::io::Error },
    #[error("the store in {} is damaged: {reason}", .dir.display())]
    Damaged { dir: PathBuf, reason: String },
    #[error("cannot write the store")]
    Write { source: std::io::Error },
    #[error("cannot read the store")]
    Read { source: std::io::Error },
}

impl StoreError {
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
