//! What a stopped daemon's store tells, and what can be done to its jobs. Opens the store, takes its lock for as long as
//! the answer lives, and starts nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use crate::clock::{Clock, SystemClock};
use crate::control::{
    DaemonState, ExplainQuery, Explanation, Inspect, ListPage, Listed, NewJob, Operate, PauseRequest, Paused, Refusal,
    RootState, RootStatus, Status, StoreReport, TargetState, TargetStatus, WatchStatus, seconds,
};
use crate::model::JobAction;
use crate::queue::Queue;
use crate::store::TargetRecord;
use crate::store::sled::SledStore;

use super::explain::{Circumstances, explain_offline, on_target};
use super::operate;
use super::paths::resolve;
use super::view::{NamedTarget, store_status};

struct Offline {
    queue: Queue,
    targets: Vec<NamedTarget>,
}

/// Opens the store in `state_dir` for looking at it, and for what can be done to it without a daemon.
pub fn open(state_dir: &Path) -> anyhow::Result<Box<dyn Operate>> {
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
                state: if stats.paused_since.is_some() { TargetState::Paused } else { TargetState::Offline },
                pending: stats.counts.ready as u64,
                running: 0,
                waiting: stats.counts.waiting as u64,
                failed: stats.counts.failed as u64,
                lag_s: stats.oldest.map_or(0.0, |oldest| seconds(now.since(oldest))),
                jobs_per_s: 0.0,
                eta_s: None,
                last_path: None,
                last_success_at: None,
                paused_since: stats.paused_since,
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

    fn store(&self) -> Result<StoreReport, Refusal> {
        operate::store(&self.queue, false)
    }

    fn list(&self, page: &ListPage) -> Result<Listed, Refusal> {
        operate::jobs(&self.queue, &self.targets, JobAction::List, page)
    }
}

impl Operate for Offline {
    fn change(&self, action: JobAction, page: &ListPage) -> Result<Listed, Refusal> {
        operate::jobs(&self.queue, &self.targets, action, page)
    }

    fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, Refusal> {
        operate::add(&self.queue, &self.targets, jobs)
    }

    fn compact_store(&self) -> Result<StoreReport, Refusal> {
        operate::store(&self.queue, true)
    }

    fn explain(&self, query: &ExplainQuery) -> Result<Explanation, Refusal> {
        let mut roots: Vec<&Path> = self.targets.iter().map(|target| target.root.as_path()).collect();
        roots.sort();
        roots.dedup();
        let (root, path) = resolve(query, &roots)?;
        let targets = self.targets.iter().filter(|target| target.root == root);
        let targets = targets.map(|target| {
            on_target(&self.queue, target, &path, |_, _| Circumstances {
                state: TargetState::Offline,
                suspended: Some("a running daemon (syncq run)".to_owned()),
                command: None,
            })
        });
        Ok(explain_offline(&root, &path, targets))
    }

    fn pause(&self, request: &PauseRequest) -> Result<Paused, Refusal> {
        operate::pause(&self.queue, &self.targets, request)
    }
}
