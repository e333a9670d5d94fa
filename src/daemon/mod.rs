//! Wires the parts and starts and stops them in the right order.
//!
//! Start: lock and open the store, load the queue, start the executor (pending jobs of the last run go out at once), answer the
//! control socket, set the watches and look for what changed meanwhile. Stop: watchers first, so that no new work comes; then
//! the executor, which gives running rsyncs a moment; then the plugins, likewise; then the queue, which writes down what is
//! left; the control socket last. A stop marks no job as failed.
//!
//! The main thread touches no file system but that of the state directory. It looks after schedules, and its notifications tell
//! a service manager that the daemon is alive. Each root has a thread of its own, so that a file system that hangs holds up
//! only the root on it. All that a configuration says is one piece (`active_config`), which `reload` replaces.
//!
//! This module holds no logic of mirroring: it only connects. No module but this one and the CLI knows all the others.

mod active_config;
mod answer;
mod contents;
mod fail_log;
pub mod init;
mod named_target;
mod options;
mod plugins;
mod reload;
mod root;
mod root_threads;
mod witness;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, bounded};
use log::{error, info, warn};
use parking_lot::Mutex;

pub use active_config::UnknownRoot;
pub use answer::offline;
pub use options::{
    ConfigSource, Configuration, FailLogOptions, NotTaken, OnReady, Options, PluginOptions, PluginRoot, RootOptions,
};

use active_config::{ActiveConfig, Asked, Core, Current};
use answer::summary::{log_status, summary};
use answer::view::View;
use contents::ContentsThread;
use fail_log::FailLog;
use reload::{Progress, ReloadThread, Reloader};
use root_threads::RootThreads;
use witness::Witness;

use crate::clock::{Clock, SystemClock, moment, monotonic};
use crate::control::{ConfigStatus, ControlServer, DaemonState, TcpOptions, TcpServer};
use crate::dispatch::Executor;
use crate::mirror::{self, Confinement, Connections, Standbys};
use crate::model::{AtFirst, counted};
use crate::plugin::Follower;
use crate::queue::Queue;
use crate::store::StoreError;
use crate::store::sled::{FreshReason, Opened, SledStore};
use crate::system::detach::PidFile;
use crate::system::inotify_limits::{self, InotifySysctl};
use crate::system::logging;
use crate::system::sd_notify::Manager;
use crate::system::signals::{EarlyHup, SignalThread, Stop};
use crate::system::vital_threads::{Crashed, report_deaths};

/// How often the main thread makes its rounds while something is going on. `REST` is for a quiet daemon: some faults, such as a
/// removed control socket, cause no event.
const TICK: Duration = Duration::from_secs(1);
/// How long rsync may take to tell its version.
const VERSION_WITHIN: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(15);
/// How long a start waits for the store's lock, and how often it tries.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_POLL: Duration = Duration::from_millis(20);
/// How long a stop waits for the store.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// Runs the daemon until a signal stops it.
pub fn run(options: Options) -> Result<()> {
    let (stop, stopped) = bounded(2);
    let (died, deaths) = bounded(1);
    report_deaths(died);
    let early_hup = EarlyHup::note().context("cannot handle signals")?;
    let mut manager = Manager::from_env();
    manager.starting("opening the queue");
    let (mut daemon, reloader, progress) = Daemon::start(options)?;
    let signals = {
        let executor = Arc::clone(&daemon.core.executor);
        let (view, reloads) = (Arc::clone(&daemon.view), daemon.view.reloads.clone());
        let on_stop = move |urgency| {
            if urgency == Stop::Forced {
                executor.hurry_stop();
            }
            // A full channel means that a stop is under way already.
            let _ = stop.try_send(());
        };
        let on_reload = move || reloads.ask();
        SignalThread::start(on_stop, on_reload, move || log_status(&view.known_status()))
            .context("cannot handle signals")?
    };
    if early_hup.has_come() {
        logging::reopen();
        daemon.view.reloads.ask();
    }
    let result = daemon.serve(&mut manager, reloader, &Ends { stopped, deaths, progress });
    manager.stopping();
    daemon.stop();
    drop(signals);
    result
}

/// The events that the main thread waits for.
struct Ends {
    stopped: Receiver<()>,
    deaths: Receiver<Crashed>,
    progress: Receiver<Progress>,
}

struct Daemon {
    core: Arc<Core>,
    view: Arc<View>,
    control: ControlServer,
    tcp: Option<TcpServer>,
    /// Started once the daemon is ready.
    reload: Option<ReloadThread>,
    contents: Option<ContentsThread>,
    on_ready: Option<OnReady>,
    state_dir: PathBuf,
    pid_file: PidFile,
}

impl Daemon {
    fn start(options: Options) -> Result<(Self, Reloader, Receiver<Progress>)> {
        let Options { config, threads, state_dir, listen: tcp, source, plugin_only, on_ready, .. } = options;
        if !plugin_only {
            mirror::find_rsync()?;
            if let Some(untested) = mirror::rsync_version(VERSION_WITHIN).ok().and_then(|found| found.untested()) {
                warn!("{}", untested.message());
                warn!("hint: {}", untested.hint());
            }
            match mirror::confinement() {
                Confinement::Missing(missing) => {
                    warn!("{}", missing.message());
                    warn!("hint: {}", missing.hint());
                }
                Confinement::Landlock => {
                    info!("rsync is older than 3.5.0: it is confined to the source and the target")
                }
                Confinement::Unneeded => {}
            }
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (store, opened) = open_store(&state_dir, clock.as_ref())?;
        log_opened(&opened);
        let pid_file = PidFile::new(&state_dir);
        if let Err(failure) = pid_file.write() {
            // The disk may be full. The pid file is only for scripts, and the mirror works without it.
            warn!("cannot write the pid file: {failure}");
        }
        // Absolute, so that a daemon started from another working directory recognises leftover processes by it.
        let owner = state_dir.canonicalize().context("cannot find the state directory")?;
        match mirror::end_leftovers(&owner) {
            0 => {}
            count => info!("ended {count} processes that the last syncq left running"),
        }
        let witness = Witness::open(&owner);
        let connections = Connections::new(&owner);
        let (queue, damaged) = Queue::open(Box::new(store), Arc::clone(&clock))?;
        if damaged > 0 {
            warn!("{damaged} records of the store were damaged and are dropped; every target is compared in full");
        }
        let queue = Arc::new(queue);
        // A boot takes longer than any receiver of a cut-off run lives.
        let boot = moment().boot;
        let has_booted = queue.known_roots().iter().filter_map(|root| root.watermark).any(|known| known.boot != boot);
        if opened.fresh.is_none() && !has_booted {
            queue.open_receiver_window(!opened.clean);
        }

        inotify_limits::widen_descriptors();
        if let Err(failure) = InotifySysctl::default().widen_queue() {
            warn!("cannot read the inotify limits: {failure}");
        }
        let executor = Executor::start(Arc::clone(&queue), Arc::clone(&clock), threads);
        let executor = Arc::new(executor.context("cannot start the executor")?);
        let follower = plugin_only.then(|| Follower::start(Arc::clone(&clock))).transpose();
        let core = Arc::new(Core {
            fail_log: start_fail_log(&queue, &executor, &clock, &owner),
            queue,
            executor,
            clock: Arc::clone(&clock),
            connections,
            standbys: Standbys::default(),
            root_threads: RootThreads::default(),
            owner,
            follower: follower.context("cannot follow changes")?.map(Arc::new),
            store_is_whole: !opened.may_lack_jobs() && damaged == 0,
            witness: Mutex::new(witness),
            current: Current::default(),
        });
        let (reconcile, accept_root) = (options.reconcile, options.accept_root);
        // Targets that are missing only from a damaged store are not new ones.
        let is_new = matches!(opened.fresh, Some(FreshReason::New));
        let at_first = if core.store_is_whole || is_new { options.at_first } else { AtFirst::Usual };
        let accept_deletions = options.accept_deletions;
        let asked = Asked { reconcile, accept_root, accept_deletions, at_first };
        let nothing = ActiveConfig::default();
        ActiveConfig::prepare(&core, config, asked, &nothing)?.put_in_force(&core, &nothing);
        let files = source.iter().flat_map(|source| &source.files).map(|file| file.display().to_string()).collect();
        *core.current.status() = ConfigStatus { loaded_at: source.is_some().then(|| clock.now()), error: None };
        let (reloader, reloads, progress) = Reloader::new(Arc::clone(&core), source);
        let view = Arc::new(View::new(Arc::clone(&core), files, reloads));
        view.phase.set(DaemonState::Starting);
        let control = ControlServer::start(&state_dir, Arc::<View>::clone(&view))?;
        let tcp = tcp.map(|tcp| answer_on_tcp(tcp, &view)).transpose()?;
        let (reload, contents) = (None, None);
        let daemon = Self { core, view, control, tcp, reload, contents, on_ready, state_dir, pid_file };
        Ok((daemon, reloader, progress))
    }

    /// Sets the watches, then looks after schedules and plugins until a signal or a crash ends the daemon.
    fn serve(&mut self, manager: &mut Manager, reloader: Reloader, ends: &Ends) -> Result<()> {
        let active = self.core.current.get();
        let fresh = active.fresh_roots(&ActiveConfig::default());
        let watching = self.core.root_threads.start(&fresh)?;
        let tick = manager.interval().map_or(TICK, |interval| interval.min(TICK));
        let roots = fresh.len();
        let mut watched = 0;
        // A stop may be asked for while a large tree is still being walked.
        while watched < roots {
            manager.starting(&format!("setting watches, {watched} of {roots} roots are done"));
            crossbeam_channel::select! {
                recv(ends.stopped) -> _ => return Ok(()),
                recv(ends.deaths) -> crashed => return crashed.map_or(Ok(()), |crashed| Err(crashed.into())),
                recv(watching) -> result => {
                    result??;
                    watched += 1;
                }
                default(tick) => {}
            }
        }
        self.view.phase.set(DaemonState::Running);
        info!("ready: {}, {}", counted(roots as u64, "root"), counted(active.targets.len() as u64, "target"));
        drop(active);
        manager.ready(&summary(&self.view.known_status()));
        if let Some(on_ready) = self.on_ready.take() {
            on_ready(Arc::<View>::clone(&self.view));
        }
        self.contents = Some(ContentsThread::start(Arc::clone(&self.core)).context("cannot start a thread")?);
        // Requests for a reload that came earlier are answered now.
        self.reload = Some(reloader.start().context("cannot start a thread")?);
        let mut reloading = false;
        let changed = self.core.queue.subscribe();
        // After an event nothing rouses this loop before the next tick, so that a busy queue does not keep this thread busy
        // too.
        let (never, mut is_busy) = (crossbeam_channel::never(), true);
        loop {
            let rest = if is_busy { tick } else { self.rest().min(manager.interval().unwrap_or(REST)) };
            let roused = if is_busy { &never } else { &changed };
            crossbeam_channel::select! {
                recv(ends.stopped) -> _ => return Ok(()),
                recv(ends.deaths) -> crashed => return crashed.map_or(Ok(()), |crashed| Err(crashed.into())),
                recv(ends.progress) -> progress => {
                    reloading = progress == Ok(Progress::Begun);
                    match reloading {
                        true => manager.reloading(),
                        false => manager.ready(&summary(&self.view.known_status())),
                    }
                }
                recv(roused) -> _ => {
                    is_busy = true;
                    continue;
                }
                default(rest) => {}
            }
            let is_reachable = self.stay_reachable();
            let active = self.core.current.get();
            is_busy = active.plugins.tick() || reloading || !is_reachable;
            active.run_due(&self.core);
            active.bear_witness(&self.core);
            if reloading {
                manager.still_reloading();
            }
            if manager.listens() {
                // This status takes the locks of all parts. A lock that is never released is meant to stop the sign of life.
                manager.alive(&summary(&self.view.known_status()));
            }
        }
    }

    /// How long the main thread has nothing to do.
    fn rest(&self) -> Duration {
        let due = self.core.current.get().next_due().map(|due| due.since(self.core.clock.now()));
        due.map_or(REST, |due| due.clamp(Duration::from_millis(1), REST))
    }

    /// Binds the control socket anew once the store has recreated a state directory that was removed. Returns whether the
    /// socket was in its place.
    fn stay_reachable(&mut self) -> bool {
        if self.control.is_reachable() {
            return true;
        }
        if !self.state_dir.is_dir() {
            self.core.queue.doubt_store();
            return false;
        }
        match ControlServer::start(&self.state_dir, Arc::<View>::clone(&self.view)) {
            Ok(control) => {
                warn!("the control socket was removed and is made anew");
                // `abandon`: otherwise the old socket would remove the new one's name when it ends.
                std::mem::replace(&mut self.control, control).abandon();
            }
            Err(failure) => warn!("the control socket was removed: {failure}"),
        }
        if let Err(failure) = self.pid_file.write() {
            warn!("cannot write the pid file: {failure}");
        }
        false
    }

    fn stop(&mut self) {
        self.view.phase.set(DaemonState::Stopping);
        if let Some(reload) = &self.reload {
            reload.stop();
        }
        if let Some(contents) = &mut self.contents {
            contents.stop();
        }
        let Core { queue, executor, connections, standbys, fail_log, root_threads, follower, current, .. } =
            &*self.core;
        let active = current.get();
        root_threads.end(|_| true);
        active.roots().for_each(|root| root.stop());
        standbys.close();
        executor.stop();
        connections.close();
        follower.iter().for_each(|follower| follower.stop());
        active.plugins.stop();
        if let Some(fail_log) = fail_log {
            fail_log.stop();
        }
        queue.close(CLOSE_DEADLINE);
        let health = queue.store_health();
        if health.uncommitted > 0 {
            error!(
                "{} changes could not be written to the store ({}); the next start compares every target in full",
                health.uncommitted,
                health.error.unwrap_or_else(|| "it took too long".to_owned())
            );
        } else {
            self.core.witness().remove();
        }
        self.control.stop();
        self.tcp.iter().for_each(TcpServer::stop);
        info!("stopped");
    }
}

fn answer_on_tcp(tcp: TcpOptions, view: &Arc<View>) -> Result<TcpServer> {
    let manner = if tcp.token.is_some() { "with a token" } else { "read-only" };
    let server = TcpServer::start(tcp, Arc::<View>::clone(view))?;
    let address = server.address();
    info!("listening on {address}, {manner}");
    if !address.ip().is_loopback() {
        warn!("others can reach {address}, and there is no TLS: better listen on 127.0.0.1 and use a tunnel (ssh -L)");
    }
    Ok(server)
}

/// Starts the thread for failLogs. Lists that cannot be written stop nothing else.
fn start_fail_log(
    queue: &Arc<Queue>,
    executor: &Arc<Executor>,
    clock: &Arc<dyn Clock>,
    owner: &Path,
) -> Option<FailLog> {
    let sources = fail_log::Sources {
        queue: Arc::clone(queue),
        executor: Arc::clone(executor),
        clock: Arc::clone(clock),
        state_dir: owner.to_owned(),
    };
    FailLog::start(sources).inspect_err(|failure| warn!("no failLog is written: {failure}")).ok()
}

/// Opens the store. Waits `LOCK_PATIENCE` for the lock, which a `syncq status` or `list` holds for a moment.
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
