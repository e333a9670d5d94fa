//! Answers what operators ask: puts together what queue, executor and watchers know.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use crossbeam_channel::Receiver;

use crate::control::{
    AcceptRequest, Accepted, DaemonState, DifferenceRow, Event, ExplainQuery, Explanation, Inspect, ListPage, Listed,
    Listen, NewJob, Operate, PathArg, PauseRequest, Paused, ReconcileJob, ReconcileRequest, Reconciled, Recovered,
    Refusal, RefusalKind, Reloaded, RootState, RootStatus, Sent, Status, StoreReport, StoreState, StoreStatus,
    TargetState, TargetStatus, Trouble, VerifyLine, VerifyRequest, Wait, WaitRequest, WatchStatus, seconds,
};
use crate::mirror::{Activity, Executor, Happened};
use crate::model::{Job, JobAction, JobError, RelPath, TargetId, TargetTrouble, Timestamp, TroubleClass};
use crate::queue::{Queue, StoreHealth, TargetStats};

use super::explain::{Circumstances, explain, on_target};
use super::paths::resolve;
use super::reload::Reloads;
use super::root::RootRuntime;
use super::setup::{Core, Setup};
use super::verify::{Verification, Wanted, survey};
use super::wait::{Mirrored, RootWait, Stage};
use super::{operate, sysctl};

/// A target with its names, for whatever is shown.
#[derive(Debug, Clone)]
pub struct NamedTarget {
    pub id: TargetId,
    pub name: String,
    pub root: std::path::PathBuf,
}

/// The running daemon as [`Inspect`] shows it.
pub(super) struct View {
    core: Arc<Core>,
    queue: Arc<Queue>,
    executor: Arc<Executor>,
    configs: Vec<String>,
    started_at: Timestamp,
    pub phase: Phase,
    /// Held by the comparison under way: two would notice each other's.
    pub comparing: Mutex<()>,
    pub reloads: Reloads,
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
    pub fn new(core: Arc<Core>, configs: Vec<String>, reloads: Reloads) -> Self {
        let (queue, executor, started_at) = (Arc::clone(&core.queue), Arc::clone(&core.executor), core.clock.now());
        Self {
            core,
            queue,
            executor,
            configs,
            started_at,
            phase: Phase::default(),
            comparing: Mutex::default(),
            reloads,
        }
    }

    /// What is in force now. One question is answered by one setup, whatever happens meanwhile.
    fn setup(&self) -> Arc<Setup> {
        self.core.current.get()
    }

    fn root_status(setup: &Setup, root: &RootRuntime) -> RootStatus {
        let reason = root.suspended();
        let state = match (&reason, root.is_starting()) {
            (Some(_), _) => RootState::Suspended,
            (None, true) => RootState::Scanning,
            (None, false) => RootState::Watching,
        };
        let names = setup.targets.iter().filter(|target| root.has(target.id));
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
        Some(target_status(target, &stats, last_path, self.core.clock.now()))
    }

    fn watches(setup: &Setup) -> WatchStatus {
        let limit = sysctl::InotifySysctl::default().read().map_or(0, |limits| limits.watches);
        let mut watches = WatchStatus { limit, ..WatchStatus::default() };
        for stats in setup.roots().map(|root| root.watch_stats()) {
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
        let setup = self.setup();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.phase.get(),
            pid: std::process::id(),
            started_at: Some(self.started_at),
            configs: self.configs.clone(),
            config: (!self.configs.is_empty()).then(|| self.core.current.status().clone()),
            roots: setup.roots().map(|root| Self::root_status(&setup, root)).collect(),
            targets: setup.targets.iter().filter_map(|target| self.target_status(target)).collect(),
            store: store_status(self.queue.store_health()),
            watches: Self::watches(&setup),
            plugins: setup.plugins.status(),
        }
    }

    fn store(&self) -> Result<StoreReport, Refusal> {
        operate::store(&self.queue, false)
    }

    fn list(&self, page: &ListPage) -> Result<Listed, Refusal> {
        operate::jobs(&self.queue, &self.setup().targets, JobAction::List, page)
    }
}

impl Operate for View {
    fn change(&self, action: JobAction, page: &ListPage) -> Result<Listed, Refusal> {
        operate::jobs(&self.queue, &self.setup().targets, action, page)
    }

    fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, Refusal> {
        operate::add(&self.queue, &self.setup().targets, jobs)
    }

    fn compact_store(&self) -> Result<StoreReport, Refusal> {
        operate::store(&self.queue, true)
    }

    fn pause(&self, request: &PauseRequest) -> Result<Paused, Refusal> {
        let targets = &self.setup().targets;
        let paused = operate::pause(&self.queue, targets, request)?;
        for target in targets.iter().filter(|target| self.queue.standing(target.id).paused_since.is_some()) {
            self.executor.hang_up(target.id);
        }
        Ok(paused)
    }

    fn accept_deletions(&self, request: &AcceptRequest) -> Result<Accepted, Refusal> {
        let AcceptRequest { target, root, all } = request;
        let setup = self.setup();
        let wanted = operate::named(&setup.targets, target.as_deref(), root.as_deref(), *all)?;
        let refused = |job: &Job| job.last_error.as_ref().is_some_and(JobError::asks_for_approval);
        for target in &wanted {
            log::warn!("{}: an operator has agreed to its deletions", target.name);
            self.executor.accept_deletions(target.id);
            for root in setup.roots().filter(|root| root.has(target.id)) {
                root.accept_empty();
                root.accept_unmounted();
                // What is accepted happens now, and not at some later comparison.
                root.compare_below(&RelPath::root(), &[target.id]);
            }
            let mut after = None;
            loop {
                let step = self.queue.operate(target.id, after.as_ref(), ListPage::ROWS, JobAction::Retry, &refused);
                after = step.next;
                if after.is_none() {
                    break;
                }
            }
        }
        operate::make_durable(&self.queue)?;
        Ok(Accepted { targets: wanted.iter().map(|target| target.name.clone()).collect() })
    }

    fn reconcile(&self, request: &ReconcileRequest) -> Result<Reconciled, Refusal> {
        let mut jobs = Vec::new();
        for (root, path, targets) in self.selected(request.path.as_ref(), request.target.as_deref())? {
            let path = path.unwrap_or_else(RelPath::root);
            root.compare_below(&path, &targets.iter().map(|target| target.id).collect::<Vec<_>>());
            jobs.extend(targets.iter().map(|target| ReconcileJob {
                target: target.name.clone(),
                root: target.root.display().to_string(),
                path: path_text(&path),
            }));
        }
        operate::make_durable(&self.queue)?;
        Ok(Reconciled { jobs })
    }

    fn survey(
        &self,
        request: &ReconcileRequest,
        each: &mut dyn FnMut(DifferenceRow) -> ControlFlow<()>,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), Refusal> {
        for (_, path, targets) in self.selected(request.path.as_ref(), request.target.as_deref())? {
            let path = path.unwrap_or_else(RelPath::root);
            for target in &targets {
                if survey(&self.executor, target, &path, each, is_wanted)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn verify(
        &self,
        request: &VerifyRequest,
        each: &mut dyn FnMut(VerifyLine) -> ControlFlow<()>,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), Refusal> {
        let wanted = Wanted::new(request)?;
        let _alone = match self.comparing.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let message = "another comparison is under way";
                return Err(Refusal::new(RefusalKind::Unavailable, message, "try again when it is done"));
            }
        };
        for (root, path, targets) in self.selected(request.path.as_ref(), request.target.as_deref())? {
            let path = path.unwrap_or_else(RelPath::root);
            for target in &targets {
                let (queue, executor) = (&self.queue, &self.executor);
                let verification = Verification { queue, executor, root: &root, target, wanted, is_wanted };
                if verification.run(&path, each).is_break() {
                    return Ok(());
                }
            }
        }
        if request.repair { operate::make_durable(&self.queue) } else { Ok(()) }
    }

    fn wait(&self, request: &WaitRequest) -> Result<Box<dyn Wait>, Refusal> {
        let mut roots = Vec::new();
        let needed = request.targets.map(|count| count as usize);
        for (root, path, targets) in self.selected(request.path.as_ref(), request.target.as_deref())? {
            if needed.is_some_and(|needed| needed == 0 || needed > targets.len()) {
                let message = format!("{} has {} targets", root.path().display(), targets.len());
                return Err(Refusal::new(RefusalKind::Wrong, message, "wait for 1 to that many, or for all"));
            }
            roots.push(RootWait { root: root.path().to_owned(), path, targets, stage: Stage::default() });
        }
        Ok(Box::new(Mirrored { core: Arc::clone(&self.core), roots, needed }))
    }

    fn reload(&self) -> Result<Receiver<Reloaded>, Refusal> {
        self.reloads.ask_and_wait()
    }

    fn follow(&self, listener: Arc<dyn Listen>) {
        let listener = Arc::downgrade(&listener);
        self.executor.listen(Box::new(move |activity| match listener.upgrade() {
            Some(listener) => {
                listener.hear(event(activity));
                true
            }
            None => false,
        }));
    }

    fn explain(&self, query: &ExplainQuery) -> Result<Explanation, Refusal> {
        let selected = self.selected(Some(query), None)?;
        let Some((first, Some(path), _)) = selected.first() else {
            return Err(Refusal::new(RefusalKind::Unknown, "no target mirrors it", "see syncq status"));
        };
        let targets = selected.iter().flat_map(|(root, _, targets)| targets.iter().map(move |target| (root, target)));
        let targets = targets.map(|(root, target)| {
            let found = self.queue.job_for(target.id, path);
            let standing = self.queue.standing(target.id);
            on_target(target, path, found, &standing, |path, scope| Circumstances {
                state: self.target_status(target).map_or(TargetState::Unknown, |status| status.state),
                suspended: root.suspended(),
                command: self.executor.command_line(target.id, path, scope),
            })
        });
        Ok(explain(first, path, targets))
    }
}

/// A root with a path in it, if one is given, and with some of its targets.
type Selected = (Arc<RootRuntime>, Option<RelPath>, Vec<NamedTarget>);

impl View {
    /// What a path and the name of a target select; without both, everything.
    fn selected(&self, path: Option<&PathArg>, target: Option<&str>) -> Result<Vec<Selected>, Refusal> {
        let setup = self.setup();
        let mut paths: Vec<&Path> = setup.roots().map(|root| root.path()).collect();
        paths.sort();
        paths.dedup();
        let place = path.map(|path| resolve(path, &paths)).transpose()?;
        let mut selected = Vec::new();
        for root in setup.roots() {
            let path = match &place {
                Some((at, _)) if at != root.path() => continue,
                Some((_, path)) => Some(path.clone()),
                None => None,
            };
            let wanted = |named: &&NamedTarget| root.has(named.id) && target.is_none_or(|target| target == named.name);
            let targets: Vec<NamedTarget> = setup.targets.iter().filter(wanted).cloned().collect();
            if !targets.is_empty() {
                selected.push((Arc::clone(root), path, targets));
            }
        }
        let root = place.map(|(root, _)| root.display().to_string());
        operate::check_names(&setup.targets, target, root.as_deref(), !selected.is_empty())?;
        Ok(selected)
    }
}

/// What happened, as it is told.
fn event(activity: &Activity) -> Event {
    let Activity { target, root, what } = activity;
    let (target, root) = (target.clone(), root.display().to_string());
    match what {
        Happened::Sent { jobs, took } => Event::Sent(Sent { target, root, paths: *jobs, took_s: seconds(*took) }),
        Happened::Trouble { trouble, retry_at } => {
            let (reason, hint) = (trouble.message.clone(), trouble.hint.clone());
            Event::Trouble(Trouble { target, root, reason, hint, retry_at: *retry_at })
        }
        Happened::Recovered { after } => Event::Recovered(Recovered { target, root, after_s: seconds(*after) }),
    }
}

fn path_text(path: &RelPath) -> String {
    if path.is_root() { String::new() } else { path.to_string() }
}

pub(super) fn store_status(health: StoreHealth) -> StoreStatus {
    let state = if health.error.is_some() { StoreState::Degraded } else { StoreState::Ok };
    StoreStatus { state, bytes: health.stats.bytes, error: health.error }
}

/// A target's figures in the form that `status` has.
fn target_status(target: &NamedTarget, stats: &TargetStats, last_path: Option<String>, now: Timestamp) -> TargetStatus {
    let counts = stats.counts;
    let state = match &stats.trouble {
        _ if stats.paused_since.is_some() => TargetState::Paused,
        Some(TargetTrouble { class: TroubleClass::Unavailable, .. }) => TargetState::BackingOff,
        Some(TargetTrouble { class: TroubleClass::Busy, .. }) => TargetState::Busy,
        Some(TargetTrouble { class: TroubleClass::Misconfigured, .. }) => TargetState::Misconfigured,
        Some(TargetTrouble { class: TroubleClass::Source, .. }) => TargetState::SourceGone,
        None if stats.refused.is_some() => TargetState::NeedsApproval,
        None if counts.ready + counts.running > 0 => TargetState::Syncing,
        None => TargetState::Idle,
    };
    // Without trouble of its own a target may still have jobs that fail; one of them is shown.
    let failing = stats.refused.as_ref().or(stats.failing.as_ref());
    let advice = || match &stats.refused {
        Some(_) => format!("if that is right: syncq accept-deletions {}", target.name),
        None => "all failing paths: syncq list --state waiting".to_owned(),
    };
    let reason = stats
        .trouble
        .as_ref()
        .map(|trouble| trouble.message.clone())
        .or_else(|| failing.map(|(path, error)| format!("{path}: {error}")));
    let hint = stats.trouble.as_ref().and_then(|trouble| trouble.hint.clone()).or_else(|| failing.map(|_| advice()));
    let open = counts.ready + counts.running + counts.waiting;
    let jobs_per_s = (stats.jobs_per_s * 10.0).round() / 10.0;
    // The pace says nothing about a target that is held up, nor about jobs that wait for their time.
    let eta_s = (state == TargetState::Syncing && jobs_per_s > 0.0).then(|| (open as f64 / jobs_per_s).round());
    TargetStatus {
        name: target.name.clone(),
        root: target.root.display().to_string(),
        state,
        pending: counts.ready as u64,
        running: counts.running as u64,
        waiting: counts.waiting as u64,
        failed: counts.failed as u64,
        lag_s: stats.oldest.map_or(0.0, |oldest| seconds(now.since(oldest))),
        jobs_per_s,
        eta_s,
        last_path,
        last_success_at: stats.last_success,
        paused_since: stats.paused_since,
        reason,
        hint,
        command: stats.trouble.as_ref().and_then(|trouble| trouble.command.clone()),
        retry_at: stats.probe_at.filter(|_| stats.paused_since.is_none()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Counts;

    /// A target that was paused, or had only failing jobs, was "done in about 6s".
    #[test]
    fn only_a_target_that_is_at_work_has_a_time_when_it_is_done() {
        let target = NamedTarget { id: TargetId(1), name: "b::m".to_owned(), root: "/srv".into() };
        let at_work = || TargetStats {
            counts: Counts { ready: 20, waiting: 10, ..Counts::default() },
            oldest: None,
            trouble: None,
            trouble_since: None,
            trouble_failures: 0,
            probe_at: None,
            paused_since: None,
            refused: None,
            jobs_per_s: 10.0,
            last_success: None,
            failing: None,
        };
        let trouble = TargetTrouble {
            class: TroubleClass::Unavailable,
            code: Some(10),
            message: "refused".into(),
            hint: None,
            command: None,
        };
        let waiting = Counts { waiting: 3, ..Counts::default() };
        for (stats, expected) in [
            (at_work(), Some(3.0)),
            (TargetStats { paused_since: Some(Timestamp(1)), ..at_work() }, None),
            (TargetStats { trouble: Some(trouble), ..at_work() }, None),
            (TargetStats { counts: waiting, ..at_work() }, None),
            (TargetStats { jobs_per_s: 0.04, ..at_work() }, None),
        ] {
            assert_eq!(target_status(&target, &stats, None, Timestamp(9)).eta_s, expected, "{stats:?}");
        }
    }
}
