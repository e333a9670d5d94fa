//! Turns records into bytes and back. Pure; the structs here are the stored form, apart from the model's.
//!
//! A value is `crc32 (4 bytes, big-endian) | version (1 byte) | MessagePack map with named fields`. The checksum covers
//! the key as well: a record that turns up under another key is damaged. The parts of the key (target, path) are not
//! repeated in the value. A new field gets `#[serde(default)]`; enum variants are stored by name, so renaming one is a
//! migration.

use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{
    DirectoryId, Generation, Job, JobError, JobId, JobState, Moment, Mounted, Origin, RelPath, RootId, Scope, TargetId,
    Timestamp, Top, Unvouched,
};
use crate::store::{DirectoryRecord, RootRecord, TargetRecord};

/// The longest value. Pages of more than 128 KiB, some 16 records, go to files that sled never syncs.
pub const VALUE_BYTES_MAX: usize = 2_048;

const VERSION: u8 = 1;

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record is cut short")]
    Short,
    #[error("the checksum does not match")]
    Checksum,
    #[error("the record has version {0}")]
    Version(u8),
    #[error("the record has an unknown form")]
    Form,
    #[error("{0} bytes follow the record")]
    Trailing(usize),
    #[error("the record has {0} bytes")]
    TooLarge(usize),
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredJob {
    id: u64,
    scope: Scope,
    origin: Origin,
    state: StoredState,
    generation: u64,
    queued_at: u64,
    changed_at: u64,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    due_at: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<StoredError>,
}

/// The states without `running`: a crash makes a running job `ready`, so it is stored as such.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredState {
    Ready,
    Waiting,
    Failed,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredError {
    #[serde(default)]
    code: Option<i32>,
    message: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredRoot {
    #[serde(with = "serde_bytes")]
    path: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<DirectoryId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watermark: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheduled_run: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<RelPath>,
    /// The identity of each of the `mounts`, where it is known; older records have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mount_ids: Vec<Option<DirectoryId>>,
}

/// `root_id` and not `root`, which held the root's path in schema 1.
#[derive(Debug, Serialize, Deserialize)]
struct StoredTarget {
    root_id: RootId,
    destination: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_new: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    complete_under: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paused_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unvouched: Option<StoredUnvouched>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<DirectoryId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    top: Option<Top>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredUnvouched {
    since: Timestamp,
    /// Empty when the path would make the record too large: then the comparison begins anew.
    #[serde(default, with = "serde_bytes", skip_serializing_if = "Vec::is_empty")]
    up_to: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredDirectory {
    parent: DirectoryId,
    #[serde(with = "serde_bytes")]
    name: Vec<u8>,
}

/// A number of the store itself, such as the next job's id.
#[derive(Debug, Serialize, Deserialize)]
struct StoredNumber {
    number: u64,
}

/// Encodes a job for storing under `key`. The job's error is shortened, in the end dropped, before the record gets too
/// large.
pub fn encode_job(key: &[u8], job: &Job) -> Result<Vec<u8>, RecordError> {
    let mut stored = StoredJob {
        id: job.id.0,
        scope: job.scope,
        origin: job.origin,
        state: match job.state {
            JobState::Ready | JobState::Running => StoredState::Ready,
            JobState::Waiting => StoredState::Waiting,
            JobState::Failed => StoredState::Failed,
        },
        generation: job.generation.0,
        queued_at: job.queued_at.0,
        changed_at: job.changed_at.0,
        attempts: job.attempts,
        due_at: job.due_at.0,
        partial: job.partial,
        last_error: job.last_error.as_ref().map(|error| {
            // The fields of an error are open to all, so its limit may not have been kept.
            let JobError { code, message } = JobError::new(error.code, error.message.as_str());
            StoredError { code, message }
        }),
    };
    match encode(key, &stored) {
        Err(RecordError::TooLarge(_)) if stored.last_error.take().is_some() => encode(key, &stored),
        other => other,
    }
}

pub fn decode_job(key: &[u8], target: TargetId, path: RelPath, value: &[u8]) -> Result<Job, RecordError> {
    let stored: StoredJob = decode(key, value)?;
    Ok(Job {
        id: JobId(stored.id),
        target,
        path,
        scope: stored.scope,
        origin: stored.origin,
        state: match stored.state {
            StoredState::Ready => JobState::Ready,
            StoredState::Waiting => JobState::Waiting,
            StoredState::Failed => JobState::Failed,
        },
        generation: Generation(stored.generation),
        queued_at: Timestamp(stored.queued_at),
        changed_at: Timestamp(stored.changed_at),
        attempts: stored.attempts,
        due_at: Timestamp(stored.due_at),
        partial: stored.partial,
        last_error: stored.last_error.map(|error| JobError::new(error.code, error.message)),
    })
}

pub fn encode_target(key: &[u8], target: &TargetRecord) -> Result<Vec<u8>, RecordError> {
    let TargetRecord {
        id: _,
        root: root_id,
        destination,
        is_new,
        complete_under,
        paused_since,
        unvouched,
        mark,
        addresses,
        top,
    } = target.clone();
    let unvouched =
        unvouched.map(|Unvouched { since, up_to }| StoredUnvouched { since, up_to: up_to.as_bytes().to_vec() });
    let addresses = addresses.iter().map(IpAddr::to_string).collect();
    let mut stored =
        StoredTarget { root_id, destination, is_new, complete_under, paused_since, unvouched, mark, addresses, top };
    match encode(key, &stored) {
        Err(RecordError::TooLarge(_)) if stored.unvouched.is_some() || stored.top.is_some() => {
            stored.unvouched.iter_mut().for_each(|unvouched| unvouched.up_to.clear());
            stored.top = None;
            encode(key, &stored)
        }
        other => other,
    }
}

pub fn decode_target(key: &[u8], id: TargetId, value: &[u8]) -> Result<TargetRecord, RecordError> {
    let StoredTarget {
        root_id: root,
        destination,
        is_new,
        complete_under,
        paused_since,
        unvouched,
        mark,
        addresses,
        top,
    } = decode(key, value)?;
    let unvouched = unvouched.map(|StoredUnvouched { since, up_to }| Unvouched {
        since,
        // An invalid path is worth as much as the beginning.
        up_to: RelPath::new(&up_to).unwrap_or_else(|_| RelPath::root()),
    });
    let addresses = addresses.iter().filter_map(|address| address.parse().ok()).collect();
    Ok(TargetRecord { id, root, destination, is_new, complete_under, paused_since, unvouched, mark, addresses, top })
}

pub fn encode_root(key: &[u8], root: &RootRecord) -> Result<Vec<u8>, RecordError> {
    let RootRecord { id: _, path, mark, watermark, scheduled_run, mounts } = root.clone();
    let (mounts, mount_ids) = mounts.into_iter().map(|Mounted { path, id }| (path, id)).unzip();
    encode(key, &StoredRoot { path, mark, watermark, scheduled_run, mounts, mount_ids })
}

pub fn decode_root(key: &[u8], id: RootId, value: &[u8]) -> Result<RootRecord, RecordError> {
    let StoredRoot { path, mark, watermark, scheduled_run, mounts, mount_ids } = decode(key, value)?;
    let ids = mount_ids.into_iter().chain(std::iter::repeat(None));
    let mounts = mounts.into_iter().zip(ids).map(|(path, id)| Mounted { path, id }).collect();
    Ok(RootRecord { id, path, mark, watermark, scheduled_run, mounts })
}

pub fn encode_directory(key: &[u8], directory: &DirectoryRecord) -> Result<Vec<u8>, RecordError> {
    encode(key, &StoredDirectory { parent: directory.parent, name: directory.name.clone() })
}

pub fn decode_directory(
    key: &[u8],
    root: RootId,
    id: DirectoryId,
    value: &[u8],
) -> Result<DirectoryRecord, RecordError> {
    let StoredDirectory { parent, name } = decode(key, value)?;
    Ok(DirectoryRecord { root, id, parent, name })
}

pub fn encode_number(key: &[u8], number: u64) -> Result<Vec<u8>, RecordError> {
    encode(key, &StoredNumber { number })
}

pub fn decode_number(key: &[u8], value: &[u8]) -> Result<u64, RecordError> {
    decode(key, value).map(|stored: StoredNumber| stored.number)
}

fn encode<T: Serialize>(key: &[u8], record: &T) -> Result<Vec<u8>, RecordError> {
    let mut body = vec![VERSION];
    rmp_serde::encode::write_named(&mut body, record).map_err(|_| RecordError::Form)?;
    let mut value = checksum(key, &body).to_be_bytes().to_vec();
    value.append(&mut body);
    if value.len() > VALUE_BYTES_MAX { Err(RecordError::TooLarge(value.len())) } else { Ok(value) }
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, RecordError> {
    let (sum, body) = value.split_first_chunk::<4>().ok_or(RecordError::Short)?;
    if checksum(key, body) != u32::from_be_bytes(*sum) {
        return Err(RecordError::Checksum);
    }
    let (&version, mut rest) = body.split_first().ok_or(RecordError::Short)?;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    // `from_slice` would let bytes behind the record pass.
    let record = rmp_serde::from_read(&mut rest).map_err(|_| RecordError::Form)?;
    if rest.is_empty() { Ok(record) } else { Err(RecordError::Trailing(rest.len())) }
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests;
