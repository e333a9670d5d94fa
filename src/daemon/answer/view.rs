//! Answers the questions of operators by putting together what queue, executor and watchers know.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use crate::control::{
    AcceptRequest, Accepted, DaemonState, DifferenceRow, Event, ExplainQuery, Explanation, Inspect, ListPage, Listed,
    Listen, NewJob, Operate, PathArg, PauseRequest, Paused, ReconcileJob, ReconcileRequest, Reconciled, Recovered,
    Refusal, RefusalKind, Reloaded, RootState, RootStatus, RunStatus, Sent, Status, StoreReport, TargetState,
    TargetStatus, Trouble, VerifyLine, VerifyRequest, Wait, WaitRequest, WatchStatus, seconds,
};
use crate::dispatch::{Activity, Executor, Happened};
use crate::mirror::{Presence, Source};
use crate::model::{Job, JobAction, JobError, RelPath, Timestamp};
use crate::queue::Queue;
use crate::watch::Notice;

use super::explain::{Circumstances, answered, check_known, explain, left_out, on_target};
use super::paths::resolve;
use super::status::{path_text, store_status, target_status};
use super::verify::{Verification, Wanted, survey};
use super::wait::{Mirrored, RootWait, Stage};
use super::{jobs, verify};
use crate::daemon::active_config::{ActiveConfig, Core};
use crate::daemon::named_target::NamedTarget;
use crate::daemon::reload::Reloads;
use crate::daemon::root::{RootRuntime, Sight, Suspension};
use crate::system::inotify_limits;

/// How long an answer waits for a look at a root. The root's file system may hang.
const LOOK_PATIENCE: Duration = Duration::from_millis(300);

/// The running daemon as [`Inspect`] shows it.
pub(crate) struct View {
    core: Arc<Core>,
    queue: Arc<Queue>,
    executor: Arc<Executor>,
    configs: Vec<String>,
    started_at: Timestamp,
    pub phase: Phase,
    /// Locked during a verification: two at a time would take each other's runs for changes.
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

    /// The configuration in force now. Each question uses one such value throughout, even if a reload happens meanwhile.
    fn active(&self) -> Arc<ActiveConfig> {
        self.core.current.get()
    }

    fn root_status(active: &ActiveConfig, root: &RootRuntime) -> RootStatus {
        let (state, reason, hint) = match root.sight() {
            Sight::Whole => match root.answered().map(|path| Notice::Answered { path }) {
                Some(notice) => (RootState::Watching, Some(notice.to_string()), notice.hint().map(str::to_owned)),
                None => (RootState::Watching, None, None),
            },
            Sight::Behind(reason) => (RootState::Scanning, Some(reason), None),
            Sight::Partial(reason, hint) => (RootState::Polling, Some(reason), hint),
            Sight::Suspended(Suspension { reason, hint, .. }) => (RootState::Suspended, Some(reason), hint),
        };
        let targets = active.targets.iter().filter(|target| root.has(target.id)).map(|target| target.name.clone());
        RootStatus { path: root.path().display().to_string(), state, reason, hint, targets: targets.collect() }
    }

    fn target_status(&self, active: &ActiveConfig, target: &NamedTarget) -> Option<TargetStatus> {
        let root = active.roots().find(|root| root.has(target.id));
        // Take the sight before the jobs: a change that is discovered in between already has a job.
        let sight = root.map_or_else(|| Sight::Behind("it is not being watched yet".to_owned()), |root| root.sight());
        let stats = self.queue.stats(target.id)?;
        let last_path = self.executor.last_path(target.id).map(|path| path.to_string());
        let mut status = target_status(target, &stats, &sight, last_path, self.core.clock.now());
        if let Some(held_up) = self.executor.held_up(target.id) {
            let reason = status.reason.map_or(held_up.clone(), |reason| format!("{held_up}; {reason}"));
            status.reason = Some(reason);
        }
        status.run = self.executor.course(target.id).map(|course| RunStatus {
            elapsed_s: seconds(course.elapsed),
            sent_bytes: course.sent_bytes,
            still_s: seconds(course.still),
            connecting: course.is_connecting,
        });
        if status.reason.is_none()
            && let Some(left_out) = self.executor.context(target.id).and_then(|context| context.left_out())
        {
            let hint =
                "nothing of that is mirrored there: change `exclude` in rsyncd.conf, or leave it out here as well";
            (status.reason, status.hint) = (Some(left_out), Some(hint.to_owned()));
        }
        Some(status)
    }

    /// The status as known at this moment. Waits for nothing.
    pub fn known_status(&self) -> Status {
        let active = self.active();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.phase.get(),
            pid: std::process::id(),
            started_at: Some(self.started_at),
            configs: self.configs.clone(),
            config: (!self.configs.is_empty()).then(|| self.core.current.status().clone()),
            roots: active.roots().map(|root| Self::root_status(&active, root)).collect(),
            targets: active.targets.iter().filter_map(|target| self.target_status(&active, target)).collect(),
            store: store_status(self.queue.store_health()),
            watches: Self::watches(&active),
            plugins: active.plugins.status(),
        }
    }

    fn watches(active: &ActiveConfig) -> WatchStatus {
        let limit = inotify_limits::InotifySysctl::default().read().map_or(0, |limits| limits.watches);
        let mut watches = WatchStatus { limit, ..WatchStatus::default() };
        for stats in active.roots().map(|root| root.watch_stats()) {
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
        self.active().roots().for_each(|root| root.look_again(LOOK_PATIENCE));
        self.known_status()
    }

    fn store(&self) -> Result<StoreReport, Refusal> {
        jobs::store(&self.queue, false)
    }

    fn list(&self, page: &ListPage) -> Result<Listed, Refusal> {
        jobs::jobs(&self.queue, &self.active().targets, JobAction::List, page)
    }
}

impl Operate for View {
    fn change(&self, action: JobAction, page: &ListPage) -> Result<Listed, Refusal> {
        jobs::jobs(&self.queue, &self.active().targets, action, page)
    }

    fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, Refusal> {
        jobs::add(&self.queue, &self.active().targets, jobs)
    }

    fn compact_store(&self) -> Result<StoreReport, Refusal> {
        jobs::store(&self.queue, true)
    }

    fn pause(&self, request: &PauseRequest) -> Result<Paused, Refusal> {
        let targets = &self.active().targets;
        let paused = jobs::pause(&self.queue, targets, request)?;
        for target in targets.iter().filter(|target| self.queue.standing(target.id).paused_since.is_some()) {
            self.executor.hang_up(target.id);
        }
        Ok(paused)
    }

    fn accept_deletions(&self, request: &AcceptRequest) -> Result<Accepted, Refusal> {
        let AcceptRequest { target, root, all } = request;
        let active = self.active();
        let wanted = jobs::named(&active.targets, target.as_deref(), root.as_deref(), *all)?;
        let refused = |job: &Job| job.last_error.as_ref().is_some_and(JobError::asks_for_approval);
        for target in &wanted {
            log::warn!("{}: an operator has agreed to its deletions", target.name);
            self.executor.accept_deletions(target.id);
            for root in active.roots().filter(|root| root.has(target.id)) {
                root.accept_empty();
                root.accept_unmounted();
                // Accepted deletions are to happen now, not at some later comparison.
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
        jobs::make_durable(&self.queue)?;
        Ok(Accepted { targets: wanted.iter().map(|target| target.name.clone()).collect() })
    }

    fn accept_target(&self, request: &AcceptRequest) -> Result<Accepted, Refusal> {
        let AcceptRequest { target, root, all } = request;
        let active = self.active();
        let wanted = jobs::named(&active.targets, target.as_deref(), root.as_deref(), *all)?;
        for target in &wanted {
            log::warn!("{}: an operator has agreed to what is in its place now", target.name);
            self.queue.set_target_mark(target.id, None);
            self.queue.set_target_top(target.id, None);
            self.queue.distrust(&[target.id]);
            self.executor.accept_target(target.id);
            for root in active.roots().filter(|root| root.has(target.id)) {
                root.compare_below(&RelPath::root(), &[target.id]);
            }
            self.queue.note_place(target.id, Ok(()));
        }
        jobs::make_durable(&self.queue)?;
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
        jobs::make_durable(&self.queue)?;
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
        let Some(_alone) = self.comparing.try_lock() else {
            let message = "another comparison is under way";
            return Err(Refusal::new(RefusalKind::Unavailable, message, "try again when it is done"));
        };
        for (root, path, targets) in self.selected(request.path.as_ref(), request.target.as_deref())? {
            let path = path.unwrap_or_else(RelPath::root);
            verify::barrier(&root);
            check_known(&root, &path, &self.core, &targets)?;
            for target in &targets {
                let (queue, executor) = (&self.queue, &self.executor);
                let verification = Verification { queue, executor, root: &root, target, wanted, is_wanted };
                if verification.run(&path, each).is_break() {
                    return Ok(());
                }
            }
        }
        if request.repair { jobs::make_durable(&self.queue) } else { Ok(()) }
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
        let active = self.active();
        let targets = targets.map(|(root, target)| {
            root.look_again(LOOK_PATIENCE);
            let (suspended, unknown) = match root.sight() {
                Sight::Whole => (None, None),
                Sight::Behind(reason) | Sight::Partial(reason, _) => (None, Some(reason)),
                Sight::Suspended(Suspension { reason, .. }) => (Some(reason.clone()), Some(reason)),
            };
            let is_hidden = matches!(Source::new(root.path()).look(path), Presence::Unknown(_));
            let unknown = unknown.or(is_hidden.then(|| "what is there may not be looked at".to_owned()));
            let (left_out, unasked) = match left_out(root, path, &self.executor, target) {
                Ok(left_out) => (left_out, None),
                Err(error) => (None, Some(format!("rsync cannot be asked whether its options leave it out: {error}"))),
            };
            let found = self.queue.job_for(target.id, path);
            let standing = self.queue.standing(target.id);
            on_target(target, path, found, &standing, |path, scope| Circumstances {
                state: self.target_status(&active, target).map_or(TargetState::Unknown, |status| status.state),
                suspended,
                unknown: unknown.or(unasked),
                answered: answered(root, path),
                left_out,
                command: self.executor.command_line(target.id, path, scope),
            })
        });
        let targets = targets.collect();
        let is_away = selected.iter().all(|(root, ..)| matches!(root.sight(), Sight::Suspended(_)));
        Ok(explain(first.path(), path, is_away, targets))
    }
}

/// A root, a path in it if the request gives one, and those of its targets that the request means.
type Selected = (Arc<RootRuntime>, Option<RelPath>, Vec<NamedTarget>);

impl View {
    /// Resolves a path and a target's name. Without both, everything is selected.
    fn selected(&self, path: Option<&PathArg>, target: Option<&str>) -> Result<Vec<Selected>, Refusal> {
        let active = self.active();
        let mut paths: Vec<&Path> = active.roots().map(|root| root.path()).collect();
        paths.sort();
        paths.dedup();
        let place = path.map(|path| resolve(path, &paths)).transpose()?;
        let mut selected = Vec::new();
        for root in active.roots() {
            let path = match &place {
                Some((at, _)) if at != root.path() => continue,
                Some((_, path)) => Some(path.clone()),
                None => None,
            };
            let wanted = |named: &&NamedTarget| root.has(named.id) && target.is_none_or(|target| target == named.name);
            let targets: Vec<NamedTarget> = active.targets.iter().filter(wanted).cloned().collect();
            if !targets.is_empty() {
                selected.push((Arc::clone(root), path, targets));
            }
        }
        let root = place.map(|(root, _)| root.display().to_string());
        jobs::check_names(&active.targets, target, root.as_deref(), !selected.is_empty())?;
        if selected.is_empty() {
            // No root has a target (`-m`). Any statement about zero targets would be true, so refuse instead.
            return Err(Refusal::new(RefusalKind::Unknown, "no target mirrors it", "see syncq status"));
        }
        Ok(selected)
    }
}

/// An activity as the event that listeners receive.
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
