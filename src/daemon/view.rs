//! Answers what operators ask: puts together what queue, executor and watchers know.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::control::{
    AcceptRequest, Accepted, ContentsStatus, DaemonState, DifferenceRow, Event, ExplainQuery, Explanation, Inspect,
    ListPage, Listed, Listen, NewJob, Operate, PathArg, PauseRequest, Paused, ReconcileJob, ReconcileRequest,
    Reconciled, Recovered, Refusal, RefusalKind, Reloaded, RootState, RootStatus, RunStatus, Sent, Status, StoreReport,
    StoreState, StoreStatus, TargetState, TargetStatus, Trouble, VerifyLine, VerifyRequest, Wait, WaitRequest,
    WatchStatus, seconds,
};
use crate::dispatch::{Activity, Executor, Happened};
use crate::mirror::{Presence, Source};
use crate::model::{Job, JobAction, JobError, RelPath, TargetTrouble, Timestamp, TroubleClass, Unvouched};
use crate::queue::{Queue, StoreHealth, TargetStats};
use crate::watch::Notice;

use super::explain::{Circumstances, answered, check_known, explain, left_out, on_target};
use super::named_target::NamedTarget;
use super::paths::resolve;
use super::reload::Reloads;
use super::root::{RootRuntime, Sight, Suspension};
use super::setup::{Core, Setup};
use super::verify::{Verification, Wanted, survey};
use super::wait::{Mirrored, RootWait, Stage, may_change};
use super::{operate, sysctl, verify};

/// How long an answer waits for a look at a root whose file system may not answer.
const LOOK_PATIENCE: Duration = Duration::from_millis(300);

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
        let (state, reason, hint) = match root.sight() {
            Sight::Whole => match root.answered().map(|path| Notice::Answered { path }) {
                Some(notice) => (RootState::Watching, Some(notice.to_string()), notice.hint().map(str::to_owned)),
                None => (RootState::Watching, None, None),
            },
            Sight::Behind(reason) => (RootState::Scanning, Some(reason), None),
            Sight::Partial(reason, hint) => (RootState::Polling, Some(reason), hint),
            Sight::Suspended(Suspension { reason, hint, .. }) => (RootState::Suspended, Some(reason), hint),
        };
        let targets = setup.targets.iter().filter(|target| root.has(target.id)).map(|target| target.name.clone());
        RootStatus { path: root.path().display().to_string(), state, reason, hint, targets: targets.collect() }
    }

    fn target_status(&self, setup: &Setup, target: &NamedTarget) -> Option<TargetStatus> {
        let root = setup.roots().find(|root| root.has(target.id));
        // Before the jobs: what comes to light in between has one.
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

    /// What is known at this moment. Waits for nothing.
    pub fn known_status(&self) -> Status {
        let setup = self.setup();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.phase.get(),
            pid: std::process::id(),
            started_at: Some(self.started_at),
            configs: self.configs.clone(),
            config: (!self.configs.is_empty()).then(|| self.core.current.status().clone()),
            roots: setup.roots().map(|root| Self::root_status(&setup, root)).collect(),
            targets: setup.targets.iter().filter_map(|target| self.target_status(&setup, target)).collect(),
            store: store_status(self.queue.store_health()),
            watches: Self::watches(&setup),
            plugins: setup.plugins.status(),
        }
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
        self.setup().roots().for_each(|root| root.look_again(LOOK_PATIENCE));
        self.known_status()
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

    fn accept_target(&self, request: &AcceptRequest) -> Result<Accepted, Refusal> {
        let AcceptRequest { target, root, all } = request;
        let setup = self.setup();
        let wanted = operate::named(&setup.targets, target.as_deref(), root.as_deref(), *all)?;
        for target in &wanted {
            log::warn!("{}: an operator has agreed to what is in its place now", target.name);
            self.queue.set_target_mark(target.id, None);
            self.queue.set_target_top(target.id, None);
            self.queue.distrust(&[target.id]);
            self.executor.accept_target(target.id);
            for root in setup.roots().filter(|root| root.has(target.id)) {
                root.compare_below(&RelPath::root(), &[target.id]);
            }
            self.queue.note_place(target.id, Ok(()));
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
        let setup = self.setup();
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
                state: self.target_status(&setup, target).map_or(TargetState::Unknown, |status| status.state),
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
        if selected.is_empty() {
            // With -m. Nothing that is said of no target would be wrong.
            return Err(Refusal::new(RefusalKind::Unknown, "no target mirrors it", "see syncq status"));
        }
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

pub(super) fn contents_status(unvouched: &Unvouched) -> ContentsStatus {
    ContentsStatus { since: unvouched.since, up_to: path_text(&unvouched.up_to) }
}

pub(super) fn store_status(health: StoreHealth) -> StoreStatus {
    let state = if health.error.is_some() { StoreState::Degraded } else { StoreState::Ok };
    StoreStatus { state, bytes: health.stats.bytes, error: health.error }
}

/// A target's figures in the form that `status` has. `sight`: of its root, taken before the figures.
fn target_status(
    target: &NamedTarget,
    stats: &TargetStats,
    sight: &Sight,
    last_path: Option<String>,
    now: Timestamp,
) -> TargetStatus {
    let counts = stats.counts;
    let suspended = match sight {
        Sight::Suspended(suspended) => Some(suspended),
        _ => None,
    };
    // But for what has failed, jobs wait for moments: until a file has settled, or is sent once more to be certain.
    let open = (counts.ready + counts.running + counts.waiting).saturating_sub(stats.backing_off);
    let state = match (&stats.trouble, sight) {
        _ if stats.paused_since.is_some() => TargetState::Paused,
        (_, Sight::Suspended(_)) => TargetState::SourceGone,
        (Some(TargetTrouble { class, .. }), _) => match class {
            TroubleClass::Unavailable => TargetState::BackingOff,
            TroubleClass::Busy => TargetState::Busy,
            TroubleClass::Misconfigured => TargetState::Misconfigured,
            TroubleClass::Source => TargetState::SourceGone,
            TroubleClass::Target => TargetState::TargetGone,
        },
        _ if stats.refused.is_some() => TargetState::NeedsApproval,
        _ if open > 0 => TargetState::Syncing,
        _ if counts.total() > 0 => TargetState::Failing,
        (None, Sight::Behind(_) | Sight::Partial(..)) => TargetState::Scanning,
        (None, Sight::Whole) if stats.unvouched.is_some() => TargetState::Comparing,
        (None, Sight::Whole) => TargetState::Idle,
    };
    let contents = stats.unvouched.as_ref().map(contents_status);
    // Without trouble of its own a target may still have jobs that fail; one of them is shown.
    let failing = stats.refused.as_ref().or(stats.failing.as_ref());
    let advice = || match (&stats.refused, stats.backing_off) {
        (Some(_), _) => format!("if that is right: syncq accept-deletions {}", target.name),
        (None, 0) => "all that is given up: syncq list --state failed".to_owned(),
        (None, _) => "all failing paths: syncq list --state waiting".to_owned(),
    };
    let (reason, hint) = match (suspended, &stats.trouble, failing, sight) {
        // What an operator is asked there says more.
        (Some(Suspension { reason, hint, .. }), _, Some((path, error)), _) if stats.refused.is_some() => {
            (Some(format!("{reason}; {path}: {error}")), hint.clone())
        }
        (Some(Suspension { reason, hint, .. }), ..) => (Some(reason.clone()), hint.clone()),
        (None, Some(trouble), ..) => (Some(trouble.message.clone()), trouble.hint.clone()),
        (None, None, Some((path, error)), _) => (Some(format!("{path}: {error}")), Some(advice())),
        (None, None, None, Sight::Behind(reason)) => (Some(reason.clone()), None),
        (None, None, None, Sight::Partial(reason, hint)) => (Some(reason.clone()), hint.clone()),
        (None, None, None, _) => (stats.unsure.map(|unsure| may_change(unsure, now)), None),
    };
    let oldest = [stats.oldest, suspended.map(|suspended| suspended.since)].into_iter().flatten().min();
    let jobs_per_s = (stats.jobs_per_s * 10.0).round() / 10.0;
    // The pace says nothing about a target that is held up.
    let eta_s = (state == TargetState::Syncing && jobs_per_s > 0.0).then(|| (open as f64 / jobs_per_s).round());
    TargetStatus {
        name: target.name.clone(),
        port: target.port,
        root: target.root.display().to_string(),
        state,
        pending: counts.ready as u64,
        running: counts.running as u64,
        waiting: counts.waiting as u64,
        failed: counts.failed as u64,
        lag_s: oldest.map_or(0.0, |oldest| seconds(now.since(oldest))),
        jobs_per_s,
        eta_s,
        last_path,
        last_success_at: stats.last_success,
        paused_since: stats.paused_since,
        reason,
        hint,
        command: stats.trouble.as_ref().filter(|_| suspended.is_none()).and_then(|trouble| trouble.command.clone()),
        retry_at: stats.retry_at.filter(|_| stats.paused_since.is_none() && suspended.is_none()),
        contents,
        run: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TargetId;
    use crate::queue::Counts;

    const NOW: Timestamp = Timestamp(9_000);

    fn equal() -> TargetStats {
        TargetStats {
            counts: Counts::default(),
            oldest: None,
            trouble: None,
            trouble_since: None,
            trouble_failures: 0,
            retry_at: None,
            backing_off: 0,
            paused_since: None,
            refused: None,
            jobs_per_s: 0.0,
            last_success: None,
            failing: None,
            unvouched: None,
            unsure: None,
        }
    }

    fn trouble(class: TroubleClass) -> Option<TargetTrouble> {
        Some(TargetTrouble {
            class,
            code: Some(10),
            message: "refused".into(),
            hint: Some("see".into()),
            command: None,
        })
    }

    fn shown(stats: &TargetStats, sight: &Sight) -> TargetStatus {
        let target = NamedTarget { id: TargetId(1), name: "b::m".to_owned(), port: None, root: "/srv".into() };
        target_status(&target, stats, sight, None, NOW)
    }

    fn away() -> Sight {
        let hint = Some("restart syncq with --accept-root".to_owned());
        Sight::Suspended(Suspension { reason: "another directory".to_owned(), hint, since: Timestamp(4_000) })
    }

    /// A target of a source that was away was `idle`, as was one that lacks what failed, or what has not been found yet.
    #[test]
    fn idle_is_said_of_a_target_that_is_equal_and_of_no_other() {
        use TargetState as State;
        let error = |message: &str| Some((RelPath::root(), JobError::new(Some(23), message)));
        let counted = |ready, running, waiting, failed| TargetStats {
            counts: Counts { ready, running, waiting, failed },
            ..equal()
        };
        let behind = Sight::Behind("walked".to_owned());
        let partial = Sight::Partial("3 directories".to_owned(), Some("sysctl".to_owned()));
        let backs_off = TargetStats { backing_off: 2, failing: error("denied"), ..counted(0, 0, 2, 0) };
        let given_up = TargetStats { failing: error("denied"), ..counted(0, 0, 0, 1) };
        let paused = TargetStats { paused_since: Some(Timestamp(1)), ..equal() };
        let in_trouble = |class| TargetStats { trouble: trouble(class), retry_at: Some(Timestamp(9_500)), ..equal() };
        let unvouched = Some(Unvouched { since: Timestamp(1), up_to: RelPath::root() });
        let compared = TargetStats { unvouched, ..equal() };
        for (stats, sight, state, reason, hint) in [
            (&equal(), &Sight::Whole, State::Idle, "", ""),
            (&compared, &Sight::Whole, State::Comparing, "", ""),
            (&compared, &behind, State::Scanning, "walked", ""),
            (&in_trouble(TroubleClass::Target), &Sight::Whole, State::TargetGone, "refused", "see"),
            (&equal(), &behind, State::Scanning, "walked", ""),
            (&equal(), &partial, State::Scanning, "3 directories", "sysctl"),
            (&equal(), &away(), State::SourceGone, "another directory", "--accept-root"),
            (&counted(1, 0, 0, 0), &away(), State::SourceGone, "another directory", "--accept-root"),
            (&in_trouble(TroubleClass::Unavailable), &away(), State::SourceGone, "another directory", "--accept-root"),
            (&paused, &away(), State::Paused, "another directory", "--accept-root"),
            (&paused, &Sight::Whole, State::Paused, "", ""),
            (&counted(1, 0, 0, 0), &behind, State::Syncing, "walked", ""),
            (&counted(0, 1, 0, 0), &Sight::Whole, State::Syncing, "", ""),
            // Until a file has settled, or what may have been undone is sent once more.
            (&counted(0, 0, 1, 0), &Sight::Whole, State::Syncing, "", ""),
            (&backs_off, &Sight::Whole, State::Failing, "denied", "--state waiting"),
            (
                &TargetStats { counts: Counts { waiting: 3, ..backs_off.counts }, ..backs_off.clone() },
                &Sight::Whole,
                State::Syncing,
                "denied",
                "--state waiting",
            ),
            (&given_up, &partial, State::Failing, "denied", "--state failed"),
            (
                &TargetStats { refused: error("too many"), ..backs_off.clone() },
                &Sight::Whole,
                State::NeedsApproval,
                "too many",
                "accept-deletions b::m",
            ),
            (&in_trouble(TroubleClass::Unavailable), &Sight::Whole, State::BackingOff, "refused", "see"),
            (&in_trouble(TroubleClass::Misconfigured), &Sight::Whole, State::Misconfigured, "refused", "see"),
            (&in_trouble(TroubleClass::Busy), &partial, State::Busy, "refused", "see"),
            (&in_trouble(TroubleClass::Source), &Sight::Whole, State::SourceGone, "refused", "see"),
        ] {
            let target = shown(stats, sight);
            assert_eq!(target.state, state, "{stats:?} {sight:?}");
            for (said, words) in [(&target.reason, reason), (&target.hint, hint)] {
                let said = said.as_deref();
                assert!(
                    if words.is_empty() { said.is_none() } else { said.is_some_and(|said| said.contains(words)) },
                    "{said:?} for {stats:?} {sight:?}"
                );
            }
            let is_held = matches!(sight, Sight::Suspended(_)) || stats.paused_since.is_some();
            assert_eq!(target.retry_at, stats.retry_at.filter(|_| !is_held));
        }
    }

    #[test]
    fn what_an_operator_is_asked_is_said_of_a_source_that_is_empty_too() {
        let refused = Some((RelPath::root(), JobError::new(None, "21 entries would be deleted")));
        let target = shown(&TargetStats { refused, ..equal() }, &away());
        assert_eq!(target.state, TargetState::SourceGone);
        assert_eq!(target.reason.as_deref(), Some("another directory; .: 21 entries would be deleted"));
    }

    /// The lag of a target whose source was away stood at 0.
    #[test]
    fn the_lag_is_that_of_the_oldest_change_or_of_what_is_not_seen() {
        let lacks = TargetStats { oldest: Some(Timestamp(6_500)), ..equal() };
        let older = TargetStats { oldest: Some(Timestamp(1_000)), ..equal() };
        for (stats, sight, lag_s) in [
            (&equal(), &Sight::Whole, 0.0),
            (&lacks, &Sight::Whole, 2.5),
            (&equal(), &away(), 5.0),
            (&lacks, &away(), 5.0),
            (&older, &away(), 8.0),
        ] {
            assert_eq!(shown(stats, sight).lag_s, lag_s, "{stats:?} {sight:?}");
        }
    }

    /// A target that was paused, or had only failing jobs, was "done in about 6s". Those that fail were counted with the
    /// others.
    #[test]
    fn only_a_target_that_is_at_work_has_a_time_when_it_is_done() {
        let at_work = || TargetStats {
            counts: Counts { ready: 20, waiting: 10, ..Counts::default() },
            jobs_per_s: 10.0,
            ..equal()
        };
        let waiting = Counts { waiting: 3, ..Counts::default() };
        for (stats, expected) in [
            (at_work(), Some(3.0)),
            (TargetStats { backing_off: 10, ..at_work() }, Some(2.0)),
            (TargetStats { paused_since: Some(Timestamp(1)), ..at_work() }, None),
            (TargetStats { trouble: trouble(TroubleClass::Unavailable), ..at_work() }, None),
            (TargetStats { counts: waiting, backing_off: 3, ..at_work() }, None),
            (TargetStats { jobs_per_s: 0.04, ..at_work() }, None),
        ] {
            assert_eq!(shown(&stats, &Sight::Whole).eta_s, expected, "{stats:?}");
            assert_eq!(shown(&stats, &away()).eta_s, None, "{stats:?}");
        }
    }
}
