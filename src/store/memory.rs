//! A store in memory, for contents that need not outlive the process, and for tests of the queue: the store can be made
//! to fail, and it outlives the queue that used it.
//!
//! Clones are handles to the same contents, so a test can drop a queue in the middle of anything ("crash") and open
//! the next one on a clone. Keeps the contract of [`Store`] except durability; it never damages a record.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::{
    COMMIT_OPS_MAX, Census, Contents, DirectoryRecord, Op, RootRecord, Store, StoreError, StoreStats, TargetRecord,
};
use crate::model::{DirectoryId, Job, JobState, RelPath, RootId, TargetId};

/// A handle to contents in memory. Cloning it shares them.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    roots: BTreeMap<RootId, RootRecord>,
    directories: BTreeMap<(RootId, DirectoryId), DirectoryRecord>,
    targets: BTreeMap<TargetId, TargetRecord>,
    jobs: BTreeMap<(TargetId, RelPath), Job>,
    next_job_id: u64,
    lost: bool,
    /// How many more commits succeed; `None` for all.
    commits_left: Option<u64>,
    commits: u64,
    ops: u64,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the next `commits` commits succeed and all after them fail, until [`heal`](Self::heal).
    pub fn fail_after(&self, commits: u64) {
        self.shared().commits_left = Some(commits);
    }

    /// Lets commits succeed again.
    pub fn heal(&self) {
        self.shared().commits_left = None;
    }

    /// Empties the store, as if its files had been removed. The next commit reports the loss.
    pub fn lose(&self) {
        *self.shared() = Shared { lost: true, ..Shared::default() };
    }

    /// A separate store with the same contents, which never fails: the state that a crash leaves.
    pub fn copy(&self) -> Self {
        let Shared { roots, directories, targets, jobs, next_job_id, .. } = &*self.shared();
        let shared = Shared {
            roots: roots.clone(),
            directories: directories.clone(),
            targets: targets.clone(),
            jobs: jobs.clone(),
            next_job_id: *next_job_id,
            ..Shared::default()
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// How many commits have succeeded.
    pub fn commits(&self) -> u64 {
        self.shared().commits
    }

    /// How many operations the successful commits held together.
    pub fn ops(&self) -> u64 {
        self.shared().ops
    }

    /// The contents that a queue would be given that opened the store now.
    pub fn contents(&self) -> Contents {
        let shared = self.shared();
        let past_jobs = shared.jobs.values().map(|job| job.id.0.saturating_add(1)).max().unwrap_or(0);
        Contents {
            roots: shared.roots.values().cloned().collect(),
            directories: shared.directories.values().cloned().collect(),
            targets: shared.targets.values().cloned().collect(),
            jobs: shared.jobs.values().cloned().collect(),
            next_job_id: shared.next_job_id.max(past_jobs),
            damaged_records: 0,
        }
    }

    // A test that panicked with the lock held has failed already; other tests go on.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock()
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Contents, StoreError> {
        Ok(self.contents())
    }

    fn commit(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        if ops.len() > COMMIT_OPS_MAX {
            return Err(StoreError::TooManyOps { given: ops.len(), max: COMMIT_OPS_MAX });
        }
        let mut shared = self.shared();
        if std::mem::take(&mut shared.lost) {
            return Err(StoreError::Lost { dir: "/memory".into(), reason: "a test wants it".into() });
        }
        if let Some(left) = &mut shared.commits_left {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => return Err(StoreError::Write { source: io::Error::from(io::ErrorKind::StorageFull) }),
            }
        }
        for op in ops {
            shared.apply(op);
        }
        shared.commits += 1;
        shared.ops += ops.len() as u64;
        Ok(())
    }

    fn directories(&mut self, root: RootId, limit: usize) -> Result<Vec<DirectoryId>, StoreError> {
        let shared = self.shared();
        if shared.commits_left == Some(0) {
            return Err(StoreError::Read { source: io::Error::from(io::ErrorKind::StorageFull) });
        }
        Ok(shared.directories.keys().filter(|key| key.0 == root).map(|key| key.1).take(limit).collect())
    }

    fn maintain(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn census(&mut self) -> Result<Census, StoreError> {
        let shared = self.shared();
        Ok(Census {
            roots: shared.roots.len() as u64,
            targets: shared.targets.len() as u64,
            directories: shared.directories.len() as u64,
            jobs: shared.jobs.len() as u64,
            ..Census::default()
        })
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }
}

impl Shared {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::PutJob(job) => {
                let mut job = job.clone();
                if job.state == JobState::Running {
                    job.state = JobState::Ready;
                }
                self.jobs.insert((job.target, job.path.clone()), job);
            }
            Op::DeleteJob { target, path } => {
                self.jobs.remove(&(*target, path.clone()));
            }
            Op::PutTarget(record) => {
                self.targets.insert(record.id, record.clone());
            }
            Op::PutRoot(record) => {
                self.roots.insert(record.id, record.clone());
            }
            Op::PutDirectory(record) => {
                self.directories.insert((record.root, record.id), record.clone());
            }
            Op::DeleteDirectory { root, id } => {
                self.directories.remove(&(*root, *id));
            }
            Op::PutNextJobId(id) => self.next_job_id = self.next_job_id.max(*id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::job;

    #[test]
    fn a_clone_sees_what_the_other_committed() {
        let store = MemoryStore::new();
        store.clone().commit(&[Op::PutJob(job(7, 1, b"a")), Op::PutNextJobId(3)]).expect("no failure armed");
        let contents = store.contents();
        assert_eq!(contents.jobs, [job(7, 1, b"a")]);
        assert_eq!(contents.next_job_id, 8);
        assert_eq!((store.commits(), store.ops()), (1, 2));
    }

    #[test]
    fn a_failing_commit_changes_nothing_and_healing_helps() {
        let mut store = MemoryStore::new();
        store.fail_after(1);
        store.commit(&[Op::PutJob(job(1, 1, b"a"))]).expect("one is left");
        assert!(store.commit(&[Op::PutJob(job(2, 1, b"b"))]).is_err());
        assert_eq!(store.contents().jobs.len(), 1);
        store.heal();
        store.commit(&[Op::PutJob(job(2, 1, b"b"))]).expect("healed");
        assert_eq!(store.contents().jobs.len(), 2);
    }
}
