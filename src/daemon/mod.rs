//! Wires the parts and starts and stops them in the right order.
//!
//! Start: lock and open the store, load the queue, start the executor (pending jobs of the last run go out at once),
//! answer the control socket, set the watches and look for what changed meanwhile. Stop: watchers first, so that no new
//! work comes; then the executor, which gives running rsyncs a moment; then the plugins, likewise; then the queue, which
//! writes down what is left; the control socket last. Nothing is marked failed by a stop.
//!
//! The main thread touches no file system but that of the state directory: it looks after schedules, and it is what
//! tells a service manager that the daemon is alive. Each root has a thread of its own, so that a file system that hangs
//! holds up only the root on it.
//!
//! This module holds no logic of mirroring: it only connects. It and the CLI are the only ones that know everybody.

pub mod detach;
mod explain;
mod fail_log;
pub mod logging;
mod notify;
pub mod offline;
mod operate;
mod options;
mod paths;
mod plugins;
mod root;
mod signals;
mod sysctl;
mod verify;
mod view;
mod vital;
mod wait;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::{error, info, warn};

pub use fail_log::FailLogOptions;
pub use options::{OnReady, Options, RootOptions};
pub use plugins::{PluginOptions, PluginRoot};
pub use sysctl::{InotifyLimits, InotifySysctl, QUEUED_EVENTS};

use detach::PidFile;
use fail_log::FailLog;
use notify::Manager;
use plugins::Plugins;
use root::{RootRuntime, StartOptions};
use signals::{SignalThread, Stop};
use view::{NamedTarget, Phase, View};
use vital::Crashed;

use crate::clock::{Clock, SystemClock, monotonic};
use crate::control::{ControlServer, DaemonState, Inspect, TcpServer};
use crate::filter::Filter;
use crate::mirror::{self, Connections, DispatchSettings, Executor, Guard, Limits, RootIdentity, TargetContext};
use crate::model::{RelPath, Scope, TargetId};
use crate::queue::Queue;
use crate::schedule::Scheduler;
use crate::store::StoreError;
use crate::store::sled::{FreshReason, Opened, SledStore};

/// How often roots and schedules are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long a start waits for the store's lock, and how often it looks.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_POLL: Duration = Duration::from_millis(20);
/// How long a stop waits for a look at a root that is under way.
const TEND_PATIENCE: Duration = Duration::from_secs(2);
/// How long a stop waits for the store.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// A directory to watch that is not there and never was as far as the store knows: rather misspelt than not mounted.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {}", .path.display())]
pub struct UnknownRoot {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// Runs the daemon until a signal stops it.
pub fn run(options: Options) -> Result<()> {
    let (stop, stopped) = bounded(2);
    let (died, deaths) = bounded(1);
    vital::report_deaths(died);
    let mut manager = Manager::from_env();
    manager.starting("opening the queue");
    let mut daemon = Daemon::start(&options)?;
    let signals = {
        let executor = Arc::clone(&daemon.executor);
        let view = Arc::clone(&daemon.view);
        let on_stop = move |urgency| {
            if urgency == Stop::Forced {
                executor.hurry_stop();
            }
            // Full means that a stop is under way.
            let _ = stop.try_send(());
        };
        SignalThread::start(on_stop, move || signals::log_status(&view.status())).context("cannot handle signals")?
    };
    let result = daemon.serve(options.on_ready, &mut manager, &Ends { stopped, deaths });
    manager.stopping();
    daemon.stop();
    drop(signals);
    result
}

/// What ends the daemon.
struct Ends {
    stopped: Receiver<()>,
    deaths: Receiver<Crashed>,
}

/// The threads that look after the roots, one each. Dropping it ends them, except one that a file system holds up.
struct Tenders {
    /// A result for each root once it is watched.
    watching: Receiver<Result<()>>,
    /// Dropping it tells them to end.
    stop: Option<Sender<()>>,
    /// Disconnected when all have.
    ended: Receiver<()>,
}

impl Drop for Tenders {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.ended.recv_timeout(TEND_PATIENCE);
    }
}

struct Daemon {
    clock: Arc<dyn Clock>,
    queue: Arc<Queue>,
    executor: Arc<Executor>,
    connections: Connections,
    roots: Vec<Arc<RootRuntime>>,
    view: Arc<View>,
    plugins: Arc<Plugins>,
    fail_log: Option<FailLog>,
    control: ControlServer,
    tcp: Option<TcpServer>,
    scheduler: Scheduler,
    state_dir: PathBuf,
    pid_file: PidFile,
}

impl Daemon {
    fn start(options: &Options) -> Result<Self> {
        if !options.plugin_only {
            mirror::find_rsync()?;
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (store, opened) = open_store(&options.state_dir, clock.as_ref())?;
        log_opened(&opened);
        let pid_file = PidFile::create(&options.state_dir).context("cannot write the pid file")?;
        // Absolute, so that a daemon started from elsewhere knows it again.
        let owner = options.state_dir.canonicalize().context("cannot find the state directory")?;
        match mirror::end_leftovers(&owner) {
            0 => {}
            count => info!("ended {count} processes that the last syncq left running"),
        }
        let connections = Connections::new(&owner);
        let (queue, damaged) = Queue::open(Box::new(store), Arc::clone(&clock))?;
        if damaged > 0 {
            warn!("{damaged} records of the store were damaged and are dropped; every target is compared in full");
        }
        let queue = Arc::new(queue);

        if let Err(failure) = sysctl::InotifySysctl::default().ensure(0) {
            warn!("cannot read the inotify limits: {failure}");
        }
        let start = StartOptions {
            // What is accepted happens now, and not at some later comparison.
            reconcile: options.reconcile || options.accept_deletions,
            // Here it is about an empty one only.
            accept_root: options.accept_root || options.accept_deletions,
            keeps_watermark: true,
            store_is_whole: !opened.may_lack_jobs() && damaged == 0,
        };
        let mut scheduler = Scheduler::default();
        let mut roots = Vec::new();
        let mut named = Vec::new();
        let mut accepted = Vec::new();
        let mut contexts = BTreeMap::new();
        for (index, root_options) in options.roots.iter().enumerate() {
            let RootOptions { root, settings } = root_options;
            let filter = Arc::new(Filter::new(&root.excludes, root.legacy_hidden)?);
            let identity = match (RootIdentity::of(&root.path), queue.root_mark(&root.path)) {
                (Ok(seen), Some(mark)) if mark == seen.mark() => seen,
                (Ok(seen), None) => seen,
                (Ok(seen), Some(_)) if options.accept_root => {
                    accepted.push((&root.path, seen.mark()));
                    seen
                }
                // Missing, or another one in its place: most likely a disk that is not mounted. Better to wait.
                (_, Some(mark)) => RootIdentity::remembered(mark),
                (Err(source), None) => return Err(UnknownRoot { path: root.path.clone(), source }.into()),
            };
            let limits = Limits { large_file_bytes: settings.large_file_bytes, ..Limits::default() };
            let mut ids: Vec<TargetId> = Vec::new();
            for target in &root.targets {
                let (id, _) = queue.register(&root.path, &target.destination, root_options.policy());
                ids.push(id);
                named.push(NamedTarget { id, name: target.name(), root: root.path.clone() });
                let mut context = TargetContext::new(
                    root.path.clone(),
                    identity,
                    target.clone(),
                    Arc::clone(&filter),
                    limits,
                    Guard::new(settings.max_delete, options.accept_deletions, options.accept_root),
                    &owner,
                );
                context.connection = connections.of(target, settings.ssh_share);
                contexts.insert(id, context);
            }
            if let Some(schedule) = &root.schedule {
                // A run that was missed while no daemon ran is made up for.
                let last = queue.root_record(&root.path).and_then(|record| record.scheduled_run);
                if last.is_none() {
                    queue.set_scheduled_run(&root.path, clock.now());
                }
                scheduler.add(index, schedule, last.unwrap_or(clock.now()), clock.now())?;
            }
            let settle = (settings.quiet_period, settings.hot_interval);
            let queue = Arc::clone(&queue);
            let sharing = options.roots.iter().filter(|other| other.root.path == root.path).count();
            let start = StartOptions { keeps_watermark: sharing == 1, ..start };
            roots.push(Arc::new(RootRuntime::new(root.clone(), ids, filter, identity, start, settle, queue)));
        }
        for (path, mark) in accepted {
            queue.forget_watermark(path);
            queue.set_root_mark(path, mark);
        }
        log_forgotten_targets(&queue, &named);
        for target in &named {
            if let Some(since) = queue.standing(target.id).paused_since {
                warn!("{}: paused since {since}, nothing is sent; to go on: syncq resume", target.name);
            }
        }
        let pending_max = options.roots.iter().map(|root| root.settings.pending_max).min().unwrap_or(u32::MAX);
        queue.set_pending_max(pending_max as usize);

        let plugins = Arc::new(Plugins::start(options, &roots, &mut contexts, &queue, &clock)?);

        let connections_max = options.roots.iter().map(|root| root.settings.connections_max).max().unwrap_or(1);
        let dispatch = DispatchSettings { threads: options.threads, connections_max: connections_max as usize };
        let executor = Executor::start(Arc::clone(&queue), Arc::clone(&clock), contexts, dispatch)
            .context("cannot start the executor")?;
        let executor = Arc::new(executor);
        for target in &named {
            if let Some(command) = executor.command_line(target.id, &RelPath::root(), Scope::Subtree) {
                info!("execute command: {command}");
            }
        }
        let fail_log = start_fail_log(options, &roots, &named, &queue, &executor, &clock, &owner);
        let view = Arc::new(View {
            queue: Arc::clone(&queue),
            executor: Arc::clone(&executor),
            clock: Arc::clone(&clock),
            roots: roots.clone(),
            targets: named,
            configs: options.sources.iter().map(|path| path.display().to_string()).collect(),
            started_at: clock.now(),
            plugins: Arc::clone(&plugins),
            phase: Phase::default(),
            comparing: Mutex::default(),
        });
        view.phase.set(DaemonState::Starting);
        let control = ControlServer::start(&options.state_dir, Arc::<View>::clone(&view))?;
        let tcp = listen(options, &view)?;
        let state_dir = options.state_dir.clone();
        Ok(Self {
            clock,
            queue,
            executor,
            connections,
            roots,
            view,
            plugins,
            fail_log,
            control,
            tcp,
            scheduler,
            state_dir,
            pid_file,
        })
    }

    /// Sets the watches, then looks after roots and schedules until told to stop.
    fn serve(&mut self, on_ready: Option<OnReady>, manager: &mut Manager, ends: &Ends) -> Result<()> {
        let tenders = self.tend_roots()?;
        let tick = manager.interval().map_or(TICK, |interval| interval.min(TICK));
        let roots = self.roots.len();
        let mut watched = 0;
        // A stop may come while a large tree is still being walked.
        while watched < roots {
            manager.starting(&format!("setting watches, {watched} of {roots} roots are done"));
            crossbeam_channel::select! {
                recv(ends.stopped) -> _ => return Ok(()),
                recv(ends.deaths) -> crashed => return crashed.map_or(Ok(()), |crashed| Err(crashed.into())),
                recv(tenders.watching) -> result => {
                    result??;
                    watched += 1;
                }
                default(tick) => {}
            }
        }
        self.view.phase.set(DaemonState::Running);
        info!("ready: {} roots, {} targets", self.roots.len(), self.view.targets.len());
        manager.ready(&notify::summary(&self.view.status()));
        if let Some(on_ready) = on_ready {
            on_ready(Arc::<View>::clone(&self.view));
        }
        loop {
            crossbeam_channel::select! {
                recv(ends.stopped) -> _ => return Ok(()),
                recv(ends.deaths) -> crashed => return crashed.map_or(Ok(()), |crashed| Err(crashed.into())),
                default(tick) => {}
            }
            self.stay_reachable();
            self.plugins.tick();
            for index in self.scheduler.due(self.clock.now()) {
                if let Some(root) = self.roots.get(index) {
                    info!("{}: scheduled comparison of the whole tree", root.path().display());
                    root.reconcile();
                    self.queue.set_scheduled_run(root.path(), self.clock.now());
                }
            }
            if manager.listens() {
                // Whoever holds a lock for ever holds this up, and that is meant: it is a sign of life of them all.
                manager.alive(&notify::summary(&self.view.status()));
            }
        }
    }

    /// Walks all roots at once and then looks after them, each on a thread of its own.
    fn tend_roots(&self) -> Result<Tenders> {
        let (done, watching) = bounded(self.roots.len());
        let (stop, stopped) = bounded::<()>(0);
        let (running, ended) = bounded::<()>(0);
        for root in &self.roots {
            let (root, done) = (Arc::clone(root), done.clone());
            let (stopped, running) = (stopped.clone(), running.clone());
            let tend = move || {
                let result = root.start().map_err(anyhow::Error::from);
                let is_watched = result.is_ok();
                // Nobody listens any more after a stop.
                let _ = done.send(result);
                while is_watched && stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    root.tend();
                }
                drop(running);
            };
            std::thread::Builder::new().name("root".into()).spawn(tend).context("cannot start a thread")?;
        }
        Ok(Tenders { watching, stop: Some(stop), ended })
    }

    /// Comes back to a state directory that was removed, once the store has made it anew.
    fn stay_reachable(&mut self) {
        if self.control.is_reachable() || !self.state_dir.is_dir() {
            return;
        }
        match ControlServer::start(&self.state_dir, Arc::<View>::clone(&self.view)) {
            Ok(control) => {
                warn!("the control socket was removed and is made anew");
                // The old one takes the name with it when it ends.
                std::mem::replace(&mut self.control, control).abandon();
            }
            Err(failure) => warn!("the control socket was removed: {failure}"),
        }
        if let Err(failure) = self.pid_file.write() {
            warn!("cannot write the pid file: {failure}");
        }
    }

    fn stop(&self) {
        self.view.phase.set(DaemonState::Stopping);
        for root in &self.roots {
            root.stop();
        }
        self.executor.stop();
        self.connections.close();
        self.plugins.stop();
        if let Some(fail_log) = &self.fail_log {
            fail_log.stop();
        }
        self.queue.close(CLOSE_DEADLINE);
        let health = self.queue.store_health();
        if health.uncommitted > 0 {
            error!(
                "{} changes could not be written to the store ({}); the next start compares every target in full",
                health.uncommitted,
                health.error.unwrap_or_else(|| "it took too long".to_owned())
            );
        }
        self.control.stop();
        self.tcp.iter().for_each(TcpServer::stop);
        info!("stopped");
    }
}

/// Answers on TCP, if that is asked for.
fn listen(options: &Options, view: &Arc<View>) -> Result<Option<TcpServer>> {
    let Some(tcp) = &options.listen else { return Ok(None) };
    let server = TcpServer::start(tcp.clone(), Arc::<View>::clone(view))?;
    let (address, manner) = (server.address(), if tcp.token.is_some() { "with a token" } else { "read-only" });
    info!("listening on {address}, {manner}");
    if !address.ip().is_loopback() {
        warn!("others can reach {address}, and there is no TLS: better listen on 127.0.0.1 and use a tunnel (ssh -L)");
    }
    Ok(Some(server))
}

/// Lists that cannot be written stop nothing.
fn start_fail_log(
    options: &Options,
    roots: &[Arc<RootRuntime>],
    named: &[NamedTarget],
    queue: &Arc<Queue>,
    executor: &Arc<Executor>,
    clock: &Arc<dyn Clock>,
    owner: &Path,
) -> Option<FailLog> {
    let mut lists: BTreeMap<_, Vec<NamedTarget>> = BTreeMap::new();
    for FailLogOptions { path, roots: indices } in &options.fail_logs {
        let of_list = lists.entry(path.clone()).or_default();
        let ids = indices.iter().filter_map(|&index| roots.get(index)).flat_map(|root| root.targets.iter());
        of_list.extend(ids.filter_map(|id| named.iter().find(|target| target.id == *id)).cloned());
    }
    if lists.is_empty() {
        return None;
    }
    let sources = fail_log::Sources {
        queue: Arc::clone(queue),
        executor: Arc::clone(executor),
        clock: Arc::clone(clock),
        state_dir: owner.to_owned(),
        lists,
    };
    FailLog::start(sources).inspect_err(|failure| warn!("no failLog is written: {failure}")).ok()
}

/// Opens the store. A `syncq status` or `list` that looks into it at this moment lets go of it soon.
fn open_store(state_dir: &Path, clock: &dyn Clock) -> Result<(SledStore, Opened), StoreError> {
    let begun = monotonic();
    loop {
        match SledStore::open(state_dir, clock.now()) {
            Err(StoreError::Locked { .. }) if begun.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_POLL),
            result => return result,
        }
    }
}

fn log_opened(opened: &Opened) {
    match &opened.fresh {
        Some(FreshReason::SetAside { path, reason }) => warn!(
            "the store was damaged ({reason}) and is kept as {}; a new one is started, and every target is compared \
             in full",
            path.display()
        ),
        Some(FreshReason::Emptied) => warn!("the store's files were gone; every target is compared in full"),
        Some(FreshReason::New) => {}
        None if !opened.clean => info!("syncq was not stopped in order last time; pending jobs are taken up again"),
        None => {}
    }
}

/// Jobs of targets that are no longer configured are kept, since the configuration may come back, and shown.
fn log_forgotten_targets(queue: &Queue, named: &[NamedTarget]) {
    for record in queue.known_targets() {
        if named.iter().any(|target| target.id == record.id) {
            continue;
        }
        let jobs = queue.stats(record.id).map_or(0, |stats| stats.counts.total());
        if jobs > 0 {
            warn!("{} is no longer configured; its {jobs} jobs are kept", record.destination);
        }
    }
}
