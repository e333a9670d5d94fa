//! Answers what operators ask: puts together what queue, executor and watchers know.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::control::{
    AddError, DaemonState, Inspect, JobRow, ListPage, NewJob, RootState, RootStatus, Status, StoreState, StoreStatus,
    TargetState, TargetStatus, WatchStatus, seconds,
};
use crate::mirror::Executor;
use crate::model::{Change, Scope, TargetId, TargetTrouble, Timestamp, TroubleClass};
use crate::queue::{Queue, StoreHealth, TargetStats};

use super::plugins::Plugins;
use super::root::RootRuntime;
use super::sysctl;

/// A target with its names, for whatever is shown.
#[derive(Debug, Clone)]
pub struct NamedTarget {
    pub id: TargetId,
    pub name: String,
    pub root: std::path::PathBuf,
}

/// The running daemon as [`Inspect`] shows it.
pub struct View {
    pub queue: Arc<Queue>,
    pub executor: Arc<Executor>,
    pub clock: Arc<dyn Clock>,
    pub roots: Vec<Arc<RootRuntime>>,
    pub targets: Vec<NamedTarget>,
    pub configs: Vec<String>,
    pub started_at: Timestamp,
    pub plugins: Arc<Plugins>,
    pub phase: Phase,
}

/// Where the daemon is between start and stop.
#[derive(Debug, Default)]
pub struct Phase(AtomicU8);

impl Phase {
    pub fn set(&self, state: DaemonState) {
        self.0.store(state as u8, Ordering::SeqCst);
    }

    pub fn get(&self) -> DaemonState {
        [DaemonState::Starting, DaemonState::Running, DaemonState::Stopping]
            .into_iter()
            .find(|state| *state as u8 == self.0.load(Ordering::SeqCst))
            .unwrap_or(DaemonState::Unknown)
    }
}

impl View {
    fn root_status(&self, root: &RootRuntime) -> RootStatus {
        let reason = root.suspended();
        let state = match (&reason, root.is_starting()) {
            (Some(_), _) => RootState::Suspended,
            (None, true) => RootState::Scanning,
            (None, false) => RootState::Watching,
        };
        let names = self.targets.iter().filter(|target| root.targets.contains(&target.id));
        RootStatus {
            path: root.path().display().to_string(),
            state,
            reason,
            targets: names.map(|target| target.name.clone()).collect(),
        }
    }

    fn target_status(&self, target: &NamedTarget) -> Option<TargetStatus> {
        let stats = self.queue.stats(target.id)?;
        let last_path = self.executor.last_path(target.id).map(|path| path.to_string());
        Some(target_status(target, &stats, last_path, self.clock.now()))
    }

    fn watches(&self) -> WatchStatus {
        let limit = sysctl::InotifySysctl::default().read().map_or(0, |limits| limits.watches);
        let mut watches = WatchStatus { limit, ..WatchStatus::default() };
        for stats in self.roots.iter().map(|root| root.watch_stats()) {
            watches.used += stats.watches;
            watches.unwatched += stats.unwatched;
            watches.overflows += stats.overflows;
        }
        if watches.unwatched > 0 {
            let enough = (watches.used + watches.unwatched).saturating_mul(2).max(limit);
            watches.hint = Some(format!(
                "sysctl -w fs.inotify.max_user_watches={enough}; directories that cannot be read are named in the log"
            ));
        }
        watches
    }
}

impl Inspect for View {
    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.phase.get(),
            pid: std::process::id(),
            started_at: Some(self.started_at),
            configs: self.configs.clone(),
            roots: self.roots.iter().map(|root| self.root_status(root)).collect(),
            targets: self.targets.iter().filter_map(|target| self.target_status(target)).collect(),
            store: store_status(self.queue.store_health()),
            watches: self.watches(),
            plugins: self.plugins.status(),
        }
    }

    fn list(&self, page: &ListPage) -> Vec<JobRow> {
        list(&self.queue, &self.targets, page)
    }

    fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, AddError> {
        add(&self.queue, &self.targets, jobs)
    }
}

/// How long jobs that somebody adds may take to be on disk.
const ADD_DEADLINE: Duration = Duration::from_secs(20);

/// Queues what may differ. What it is, and with it how it is compared, is looked up in the source.
pub(super) fn add(queue: &Queue, targets: &[NamedTarget], jobs: &[NewJob]) -> Result<Vec<Option<String>>, AddError> {
    let add = |job: &NewJob| {
        let Some(path) = job.path() else { return Some("this is no path".to_owned()) };
        let known = targets.iter().find(|known| known.name == job.target && known.root == Path::new(&job.root));
        let Some(known) = known else { return Some(format!("{} is not mirrored to {}", job.root, job.target)) };
        let directory = std::fs::symlink_metadata(path.under(&known.root)).is_ok_and(|found| found.is_dir());
        let change = match (job.subtree || directory, path.is_root() && !job.subtree) {
            (true, false) => Change::scan(path, Scope::Subtree),
            (true, true) => Change::scan(path, Scope::Entry),
            (false, _) => Change::write(path),
        };
        queue.enqueue(&[known.id], &[change]);
        None
    };
    let answers = jobs.iter().map(add).collect();
    if queue.flush(ADD_DEADLINE) { Ok(answers) } else { Err(AddError) }
}

pub(super) fn store_status(health: StoreHealth) -> StoreStatus {
    let state = if health.error.is_some() { StoreState::Degraded } else { StoreState::Ok };
    StoreStatus { state, bytes: health.stats.bytes, error: health.error }
}

/// A target's figures in the form that `status` has.
fn target_status(target: &NamedTarget, stats: &TargetStats, last_path: Option<String>, now: Timestamp) -> TargetStatus {
    let counts = stats.counts;
    let state = match &stats.trouble {
        Some(TargetTrouble { class: TroubleClass::Unavailable, .. }) => TargetState::BackingOff,
        Some(TargetTrouble { class: TroubleClass::Busy, .. }) => TargetState::Busy,
        Some(TargetTrouble { class: TroubleClass::Misconfigured, .. }) => TargetState::Misconfigured,
        Some(TargetTrouble { class: TroubleClass::Source, .. }) => TargetState::SourceGone,
        None if counts.ready + counts.running > 0 => TargetState::Syncing,
        None => TargetState::Idle,
    };
    // Without trouble of its own a target may still have jobs that fail; one of them is shown.
    let failing = stats.failing.as_ref();
    let reason = stats
        .trouble
        .as_ref()
        .map(|trouble| trouble.message.clone())
        .or_else(|| failing.map(|(path, error)| format!("{path}: {error}")));
    let hint = stats
        .trouble
        .as_ref()
        .and_then(|trouble| trouble.hint.clone())
        .or_else(|| failing.map(|_| "all failing paths: syncq list --state waiting".to_owned()));
    TargetStatus {
        name: target.name.clone(),
        root: target.root.display().to_string(),
        state,
        pending: counts.ready as u64,
        running: counts.running as u64,
        waiting: counts.waiting as u64,
        failed: counts.failed as u64,
        lag_s: stats.oldest.map_or(0.0, |oldest| seconds(now.since(oldest))),
        last_path,
        reason,
        hint,
        command: stats.trouble.as_ref().and_then(|trouble| trouble.command.clone()),
        retry_at: stats.probe_at,
    }
}

/// One page of jobs over all targets, in the order of (target, path).
pub(super) fn list(queue: &Queue, targets: &[NamedTarget], page: &ListPage) -> Vec<JobRow> {
    let mut rows = Vec::new();
    let mut in_order: Vec<&NamedTarget> = targets.iter().collect();
    in_order.sort_by_key(|target| target.id);
    for target in in_order {
        if page.filter.target.as_ref().is_some_and(|name| *name != target.name) {
            continue;
        }
        let after = match &page.after {
            Some((id, _)) if target.id < *id => continue,
            Some((id, path)) if target.id == *id => Some(path),
            _ => None,
        };
        let room = page.limit.saturating_sub(rows.len());
        let wanted = |state| page.filter.state.is_none_or(|only| only == state);
        let jobs = queue.page(target.id, after, room, wanted);
        rows.extend(jobs.iter().map(|job| JobRow::new(job, &target.root, &target.name)));
        if rows.len() >= page.limit {
            break;
        }
    }
    rows
}
