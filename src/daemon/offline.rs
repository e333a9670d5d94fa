//! What a stopped daemon's store tells. Opens the store, takes its lock for as long as the answer lives, and starts
//! nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use crate::clock::{Clock, SystemClock};
use crate::control::{
    AddError, DaemonState, Inspect, JobRow, ListPage, NewJob, RootState, RootStatus, Status, TargetState, TargetStatus,
    WatchStatus, seconds,
};
use crate::queue::Queue;
use crate::store::TargetRecord;
use crate::store::sled::SledStore;

use super::view::{NamedTarget, add, list, store_status};

struct Offline {
    queue: Queue,
    targets: Vec<NamedTarget>,
}

/// Opens the store in `state_dir` for looking at it.
pub fn inspect(state_dir: &Path) -> anyhow::Result<Box<dyn Inspect>> {
    let store = SledStore::open_existing(state_dir)?;
    let (queue, _) = Queue::open(Box::new(store), Arc::new(SystemClock))
        .with_context(|| format!("cannot read the store in {}", state_dir.display()))?;
    let roots = queue.known_roots();
    let named = |record: TargetRecord| {
        let root = roots.iter().find(|root| root.id == record.root)?;
        Some(NamedTarget {
            id: record.id,
            name: record.destination,
            root: PathBuf::from(OsStr::from_bytes(&root.path)),
        })
    };
    let targets = queue.known_targets().into_iter().filter_map(named).collect();
    Ok(Box::new(Offline { queue, targets }))
}

impl Inspect for Offline {
    fn status(&self) -> Status {
        let now = SystemClock.now();
        let mut roots: Vec<RootStatus> = Vec::new();
        let mut targets = Vec::new();
        for target in &self.targets {
            let Some(stats) = self.queue.stats(target.id) else { continue };
            let root = target.root.display().to_string();
            match roots.iter_mut().find(|known| known.path == root) {
                Some(known) => known.targets.push(target.name.clone()),
                None => roots.push(RootStatus {
                    path: root.clone(),
                    state: RootState::Offline,
                    reason: None,
                    targets: vec![target.name.clone()],
                }),
            }
            targets.push(TargetStatus {
                name: target.name.clone(),
                root,
                state: TargetState::Offline,
                pending: stats.counts.ready as u64,
                running: 0,
                waiting: stats.counts.waiting as u64,
                failed: stats.counts.failed as u64,
                lag_s: stats.oldest.map_or(0.0, |oldest| seconds(now.since(oldest))),
                last_path: None,
                reason: None,
                hint: None,
                command: None,
                retry_at: None,
            });
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: DaemonState::Offline,
            pid: 0,
            started_at: None,
            configs: Vec::new(),
            roots,
            targets,
            store: store_status(self.queue.store_health()),
            watches: WatchStatus::default(),
            plugins: Vec::new(),
        }
    }

    fn list(&self, page: &ListPage) -> Vec<JobRow> {
        list(&self.queue, &self.targets, page)
    }

    fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, AddError> {
        add(&self.queue, &self.targets, jobs)
    }
}
