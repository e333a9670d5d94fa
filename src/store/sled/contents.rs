//! Reads a tree into [`Contents`], and encodes operations as changes of a tree. Never writes.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::key::{self, Key};
use super::migrations::RawChange;
use super::record::{self, RecordError};
use super::tree::{Tree, Trouble};
use crate::model::{DirectoryId, Job, RelPath, RootId, TargetId};
use crate::store::{Census, Contents, DirectoryRecord, Op, RootRecord, StoreError, TargetRecord};

/// The contents of a tree, and the keys of records that cannot be used.
#[derive(Debug, Default)]
pub struct Scanned {
    pub contents: Contents,
    pub damaged: Vec<Vec<u8>>,
    /// The number of the last commit.
    pub commit: u64,
}

/// Which of the records that are read are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    All,
    /// Roots and targets, which are few.
    Outline,
}

/// Reads the whole tree. Records that are not kept are only looked at for damage.
pub fn scan(tree: &Tree, keep: Keep) -> Result<Scanned, Trouble> {
    let keeps_all = keep == Keep::All;
    let mut past_jobs = 0;
    let mut contents = Contents::default();
    let mut damaged = Vec::new();
    let mut commit = 0;
    tree.visit(b"", |bytes, value| match read(bytes, value) {
        Ok(Record::NextJobId(id)) => contents.next_job_id = id,
        Ok(Record::Commit(number)) => commit = number,
        Ok(Record::OtherMeta) => {}
        Ok(Record::Root(root)) => contents.roots.push(root),
        Ok(Record::Target(target)) => contents.targets.push(target),
        Ok(Record::Directory(directory)) => contents.directories.extend(keeps_all.then_some(directory)),
        Ok(Record::Job(job)) => {
            past_jobs = past_jobs.max(job.id.0.saturating_add(1));
            contents.jobs.extend(keeps_all.then_some(job));
        }
        Err(error) => {
            log::warn!("a damaged record is dropped: {} ({error})", bytes.escape_ascii());
            damaged.push(bytes.to_vec());
        }
    })?;
    drop_orphans(&mut contents, &mut damaged);
    // Also when the record of the next id was lost, no id is ever given twice.
    contents.next_job_id = contents.next_job_id.max(past_jobs);
    contents.damaged_records = damaged.len() as u64;
    Ok(Scanned { contents, damaged, commit })
}

/// Counts the records of the tree, and those of them that cannot be used.
pub fn census(tree: &Tree) -> Result<Census, Trouble> {
    let (roots, targets) = known(tree)?;
    let roots: HashSet<RootId> = roots.iter().map(|root| root.id).collect();
    let targets: HashSet<TargetId> = targets.iter().map(|target| target.id).collect();
    let mut census = Census { roots: roots.len() as u64, targets: targets.len() as u64, ..Census::default() };
    tree.visit(b"", |bytes, value| {
        census.live_bytes += (bytes.len() + value.len()) as u64;
        let (count, is_good) = match read(bytes, value) {
            Ok(Record::Directory(directory)) => (&mut census.directories, roots.contains(&directory.root)),
            Ok(Record::Job(job)) => (&mut census.jobs, targets.contains(&job.target)),
            Ok(Record::Target(target)) if !targets.contains(&target.id) => (&mut census.damaged, true),
            Ok(_) => return,
            Err(_) => (&mut census.damaged, true),
        };
        if is_good {
            *count += 1;
        } else {
            census.damaged += 1;
        }
    })?;
    Ok(census)
}

/// The roots, and the targets of these roots, ordered by id.
pub fn known(tree: &Tree) -> Result<(Vec<RootRecord>, Vec<TargetRecord>), Trouble> {
    let (mut roots, mut targets): (Vec<RootRecord>, Vec<TargetRecord>) = Default::default();
    tree.visit(key::ROOTS, |bytes, value| {
        if let Ok(Record::Root(root)) = read(bytes, value) {
            roots.push(root);
        }
    })?;
    tree.visit(key::TARGETS, |bytes, value| {
        if let Ok(Record::Target(target)) = read(bytes, value)
            && roots.iter().any(|root| root.id == target.root)
        {
            targets.push(target);
        }
    })?;
    Ok((roots, targets))
}

/// Hands the jobs of a target to `each` in the order of their paths, from behind `after`, until it breaks off.
pub fn jobs(
    tree: &Tree,
    target: TargetId,
    after: Option<&RelPath>,
    each: &mut dyn FnMut(Job) -> ControlFlow<()>,
) -> Result<(), Trouble> {
    let after = after.map(|path| key::job(target, path));
    tree.walk(&key::jobs(target), after.as_deref(), |bytes, value| match read(bytes, value) {
        Ok(Record::Job(job)) => each(job),
        _ => ControlFlow::Continue(()),
    })
}

/// The job of that target and path.
pub fn job(tree: &Tree, target: TargetId, path: &RelPath) -> Result<Option<Job>, Trouble> {
    let key = key::job(target, path);
    let value = tree.read(&key)?;
    Ok(value.and_then(|value| record::decode_job(&key, target, path.clone(), &value).ok()))
}

/// A record, decoded.
enum Record {
    NextJobId(u64),
    Commit(u64),
    /// A record of a later version, or the schema and the store's id, which have their own readers.
    OtherMeta,
    Root(RootRecord),
    Target(TargetRecord),
    Directory(DirectoryRecord),
    Job(Job),
}

fn read(bytes: &[u8], value: &[u8]) -> Result<Record, RecordError> {
    match key::parse(bytes) {
        Some(Key::Meta) if bytes == key::NEXT_JOB_ID => record::decode_number(bytes, value).map(Record::NextJobId),
        Some(Key::Meta) if bytes == key::COMMIT => record::decode_number(bytes, value).map(Record::Commit),
        Some(Key::Meta) => Ok(Record::OtherMeta),
        Some(Key::Root(id)) => record::decode_root(bytes, id, value).map(Record::Root),
        Some(Key::Target(id)) => record::decode_target(bytes, id, value).map(Record::Target),
        Some(Key::Directory(root, id)) => record::decode_directory(bytes, root, id, value).map(Record::Directory),
        Some(Key::Job(target, path)) => record::decode_job(bytes, target, path, value).map(Record::Job),
        None => Err(RecordError::Form),
    }
}

/// Removes records that belong to a root or a target without a readable record, since its number may be given away again.
fn drop_orphans(contents: &mut Contents, damaged: &mut Vec<Vec<u8>>) {
    let mut orphan = |key: Vec<u8>| {
        log::warn!("a record is dropped whose root or target is damaged: {}", key.escape_ascii());
        damaged.push(key);
        false
    };
    let roots: HashSet<RootId> = contents.roots.iter().map(|root| root.id).collect();
    contents.targets.retain(|target| roots.contains(&target.root) || orphan(key::target(target.id)));
    contents.directories.retain(|dir| roots.contains(&dir.root) || orphan(key::directory(dir.root, dir.id)));
    let targets: HashSet<TargetId> = contents.targets.iter().map(|target| target.id).collect();
    contents.jobs.retain(|job| targets.contains(&job.target) || orphan(key::job(job.target, &job.path)));
}

/// Whether the tree, of whatever schema, holds more than the store's own notes. Reads the whole tree.
pub fn holds_records(tree: &Tree) -> Result<bool, Trouble> {
    let mut holds = false;
    tree.visit(b"", |key, _| holds |= !key::is_meta(key))?;
    Ok(holds)
}

/// Up to `limit` directories that have a record under `root`.
pub fn directories(tree: &Tree, root: RootId, limit: usize) -> Result<Vec<DirectoryId>, Trouble> {
    let mut found = Vec::new();
    tree.walk(&key::directories(root), None, |bytes, _| {
        if let Some(Key::Directory(_, id)) = key::parse(bytes) {
            found.push(id);
        }
        if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
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

/// The change that `op` makes in the tree. `next_job_id` is the highest number stored so far.
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
        Op::PutRoot(root) => {
            let key = key::root(root.id);
            let value = record::encode_root(&key, root);
            put(key, value)
        }
        Op::PutDirectory(directory) => {
            let key = key::directory(directory.root, directory.id);
            let value = record::encode_directory(&key, directory);
            put(key, value)
        }
        Op::DeleteDirectory { root, id } => Ok((key::directory(*root, *id), None)),
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
