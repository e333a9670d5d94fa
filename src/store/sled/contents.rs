//! From the tree to [`Contents`] and from operations to changes of the tree. Reads and encodes, never writes.

use std::collections::HashSet;

use super::key::{self, Key};
use super::migrations::RawChange;
use super::record::{self, RecordError};
use super::tree::{Tree, Trouble};
use crate::model::TargetId;
use crate::store::{Contents, Op, StoreError};

/// What a tree holds, and the keys of records that are of no use.
#[derive(Debug, Default)]
pub struct Scanned {
    pub contents: Contents,
    pub damaged: Vec<Vec<u8>>,
    /// The number of the last commit.
    pub commit: u64,
}

/// Reads the whole tree.
pub fn scan(tree: &Tree) -> Result<Scanned, Trouble> {
    let mut contents = Contents::default();
    let mut known = HashSet::<TargetId>::new();
    let mut damaged = Vec::new();
    let mut commit = 0;
    // Byte order: meta, then targets, then jobs, so a job's target has been seen before it.
    tree.visit(b"", |bytes, value| {
        let taken = match key::parse(bytes) {
            Some(Key::Meta) if bytes == key::NEXT_JOB_ID => {
                record::decode_number(bytes, value).map(|id| contents.next_job_id = id)
            }
            Some(Key::Meta) if bytes == key::COMMIT => {
                record::decode_number(bytes, value).map(|number| commit = number)
            }
            // Of a later version, or the schema and the store's id, which have their own readers.
            Some(Key::Meta) => Ok(()),
            Some(Key::Target(id)) => record::decode_target(bytes, id, value).map(|target| {
                known.insert(id);
                contents.targets.push(target);
            }),
            Some(Key::Job(target, path)) if known.contains(&target) => {
                record::decode_job(bytes, target, path, value).map(|job| contents.jobs.push(job))
            }
            // Its target's record was damaged, and the target's number may be given away again.
            Some(Key::Job(..)) | None => Err(RecordError::Form),
        };
        if let Err(error) = taken {
            log::warn!("a damaged record is dropped: {} ({error})", bytes.escape_ascii());
            damaged.push(bytes.to_vec());
        }
    })?;
    // Also when that record was lost: no id is ever given twice.
    let past_jobs = contents.jobs.iter().map(|job| job.id.0.saturating_add(1)).max().unwrap_or(0);
    contents.next_job_id = contents.next_job_id.max(past_jobs);
    contents.damaged_records = damaged.len() as u64;
    Ok(Scanned { contents, damaged, commit })
}

/// The number of the last commit, without reading the rest.
pub fn last_commit(tree: &Tree) -> Result<u64, Trouble> {
    let value = tree.read(key::COMMIT)?;
    Ok(value.and_then(|value| record::decode_number(key::COMMIT, &value).ok()).unwrap_or(0))
}

/// The change that stores the number of a commit.
pub fn commit_change(commit: u64) -> Result<RawChange, StoreError> {
    put(key::COMMIT.to_vec(), record::encode_number(key::COMMIT, commit))
}

/// What `op` changes in the tree. `next_job_id` is the highest number stored so far.
pub fn change(op: &Op, next_job_id: u64) -> Result<RawChange, StoreError> {
    match op {
        Op::PutJob(job) => {
            let key = key::job(job.target, &job.path);
            let value = record::encode_job(&key, job);
            put(key, value)
        }
        Op::DeleteJob { target, path } => Ok((key::job(*target, path), None)),
        Op::PutTarget(target) => {
            let key = key::target(target.id);
            let value = record::encode_target(&key, target);
            put(key, value)
        }
        Op::PutNextJobId(id) => {
            let key = key::NEXT_JOB_ID.to_vec();
            let value = record::encode_number(&key, next_job_id.max(*id));
            put(key, value)
        }
    }
}

fn put(key: Vec<u8>, value: Result<Vec<u8>, RecordError>) -> Result<RawChange, StoreError> {
    match value {
        Ok(value) => Ok((key, Some(value))),
        Err(error) => {
            let bytes = if let RecordError::TooLarge(bytes) = error { bytes } else { 0 };
            Err(StoreError::RecordTooLarge { bytes, max: record::VALUE_BYTES_MAX })
        }
    }
}
