//! Reads the configuration again while the daemon runs, and puts it in force, on a thread of its own.
//!
//! Everything that can fail comes first: reading, checking, and watching the new directories, which may take as long as a walk
//! of them. Until then the old configuration is in force entirely, and it stays so if anything fails. All requests that arrive
//! during a reload are answered together by one more reload.
//!
//! Deliberately absent: what a change means to roots, targets and plugins (`active_config`), and who sends the requests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use log::{error, info, warn};
use parking_lot::Mutex;

use super::active_config::{ActiveConfig, Asked, Core};
use super::options::{ConfigSource, Configuration, NotTaken, RootOptions};
use crate::control::{ConfigChanges, ConfigError, Refusal, RefusalKind, Reloaded, Tally};
use crate::model::Target;

/// Requests that wait for the next reload. Greater than the number of connections of the control socket.
const REQUESTS_MAX: usize = 128;
/// How often a reload that waits for directories to be watched checks whether the daemon stops.
const STOP_POLL: Duration = Duration::from_millis(100);

/// The progress of a reload, for the service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Begun,
    Ended,
}

/// A request for a reload. The sender, if there is one, receives the outcome.
type Request = Option<Sender<Reloaded>>;

/// The handle by which others request reloads. Reloads begin once the daemon is ready.
#[derive(Debug, Clone)]
pub(super) struct Reloads {
    requests: Sender<Request>,
    /// Whether there are configuration files to be read.
    has_source: bool,
}

impl Reloads {
    /// Requests a reload without waiting for the outcome. In a daemon without configuration files only the service manager is
    /// told.
    pub fn ask(&self) {
        // A full channel holds enough requests already.
        let _ = self.requests.try_send(None);
    }

    /// Requests a reload, and returns a receiver for its outcome.
    pub fn ask_and_wait(&self) -> Result<Receiver<Reloaded>, Refusal> {
        if !self.has_source {
            let message = "this daemon has no configuration files";
            return Err(Refusal::new(RefusalKind::Wrong, message, "stop syncq mirror, and start it as it shall be"));
        }
        let (answer, answered) = bounded(1);
        match self.requests.try_send(Some(answer)) {
            Ok(()) => Ok(answered),
            Err(TrySendError::Full(_)) => {
                Err(Refusal::new(RefusalKind::Unavailable, "too many have asked already", "ask again later"))
            }
            Err(TrySendError::Disconnected(_)) => {
                Err(Refusal::new(RefusalKind::Unavailable, "the daemon is being stopped", "see syncq status"))
            }
        }
    }
}

/// All that the reload thread needs.
pub(super) struct Reloader {
    core: Arc<Core>,
    source: Option<ConfigSource>,
    requests: Receiver<Request>,
    progress: Sender<Progress>,
    /// True once the daemon stops. Locked while a configuration is being put in force.
    stopped: Arc<Mutex<bool>>,
}

/// The thread that reloads.
#[derive(Debug)]
pub(super) struct ReloadThread {
    stopped: Arc<Mutex<bool>>,
    _thread: JoinHandle<()>,
}

impl ReloadThread {
    /// Prevents that any configuration is put in force from now on. Does not wait for a reload that a file system holds up.
    pub fn stop(&self) {
        *self.stopped.lock() = true;
    }
}

impl Reloader {
    /// Also returns the handle for requests, and the receiver of progress.
    pub fn new(core: Arc<Core>, source: Option<ConfigSource>) -> (Self, Reloads, Receiver<Progress>) {
        let (ask, requests) = bounded(REQUESTS_MAX);
        // Two messages for each reload. The main thread takes them many times a second.
        let (progress, told) = bounded(2);
        let reloads = Reloads { requests: ask, has_source: source.is_some() };
        (Self { core, source, requests, progress, stopped: Arc::default() }, reloads, told)
    }

    /// Starts the thread, which begins to answer requests.
    pub fn start(self) -> std::io::Result<ReloadThread> {
        let stopped = Arc::clone(&self.stopped);
        let thread = std::thread::Builder::new().name("reload".into()).spawn(move || self.run())?;
        Ok(ReloadThread { stopped, _thread: thread })
    }

    fn run(self) {
        while let Ok(first) = self.requests.recv() {
            // Requests that are here before the files are read are all answered by this reload.
            let asked: Vec<Request> = std::iter::once(first).chain(self.requests.try_iter()).collect();
            if self.progress.send(Progress::Begun).is_err() || self.is_stopped() {
                return;
            }
            if let Some(source) = &self.source {
                let outcome = self.reload(source);
                if self.is_stopped() {
                    return;
                }
                let reloaded = self.note(outcome);
                asked.into_iter().flatten().for_each(|answer| drop(answer.send(reloaded.clone())));
            }
            if self.progress.send(Progress::Ended).is_err() {
                return;
            }
        }
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.lock()
    }

    fn reload(&self, source: &ConfigSource) -> Result<ConfigChanges, NotTaken> {
        let config = (source.load)()?;
        self.put_in_force(config).map_err(source.explain)
    }

    fn put_in_force(&self, config: Configuration) -> anyhow::Result<ConfigChanges> {
        let core = &self.core;
        let before = core.current.get();
        let changes = changes(&before.config, &config);
        let prepared = ActiveConfig::prepare(core, config, Asked::NOTHING, &before)?;
        if let Err(failure) = self.watch(&prepared, &before) {
            prepared.abandon(core, &before);
            return Err(failure);
        }
        let stopped = self.stopped.lock();
        if *stopped {
            prepared.abandon(core, &before);
        } else {
            prepared.put_in_force(core, &before);
        }
        Ok(changes)
    }

    /// Watches the directories of new roots.
    fn watch(&self, prepared: &ActiveConfig, before: &ActiveConfig) -> anyhow::Result<()> {
        let fresh = prepared.fresh_roots(before);
        let watching = self.core.root_threads.start(&fresh)?;
        let mut watched = 0;
        while watched < fresh.len() && !self.is_stopped() {
            match watching.recv_timeout(STOP_POLL) {
                Ok(result) => {
                    result?;
                    watched += 1;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(disconnected) => return Err(disconnected).context("a directory cannot be watched"),
            }
        }
        Ok(())
    }

    /// Logs the outcome and has `status` show it.
    fn note(&self, outcome: Result<ConfigChanges, NotTaken>) -> Reloaded {
        let now = self.core.clock.now();
        let mut status = self.core.current.status();
        let changes = match outcome {
            Ok(changes) => {
                info!("configuration read again: {changes}");
                status.loaded_at = Some(now);
                status.error = None;
                changes
            }
            Err(NotTaken { message, hint, config }) => {
                error!("the configuration was not taken, the old one stays in force: {message}");
                hint.iter().for_each(|hint| warn!("hint: {hint}"));
                status.error = Some(ConfigError { message, hint, config, at: Some(now) });
                ConfigChanges::default()
            }
        };
        Reloaded { config: status.clone(), changes }
    }
}

/// How `new` differs from `old`, in numbers.
fn changes(old: &Configuration, new: &Configuration) -> ConfigChanges {
    // Plugins are compared by themselves, without the indices of their roots.
    let plugins = |config: &Configuration| config.plugins.iter().map(|of| of.plugin.clone()).collect::<Vec<_>>();
    let fail_logs = |config: &Configuration| config.fail_logs.iter().map(|of| of.path.clone()).collect::<Vec<_>>();
    ConfigChanges {
        roots: tally(&roots(old), &roots(new)),
        targets: tally(&targets(old), &targets(new)),
        others: plugins(old) != plugins(new) || fail_logs(old) != fail_logs(new),
    }
}

/// The roots without their targets, by path. Several files may have the same root.
fn roots(config: &Configuration) -> BTreeMap<&Path, Vec<RootOptions>> {
    let mut roots: BTreeMap<&Path, Vec<RootOptions>> = BTreeMap::new();
    for options in &config.roots {
        let mut alone = options.clone();
        alone.root.targets.clear();
        roots.entry(&options.root.path).or_default().push(alone);
    }
    roots
}

fn targets(config: &Configuration) -> BTreeMap<(&Path, String), &Target> {
    let mut targets = BTreeMap::new();
    for RootOptions { root, .. } in &config.roots {
        targets.extend(root.targets.iter().map(|target| ((root.path.as_path(), target.name()), target)));
    }
    targets
}

fn tally<K: Ord, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Tally {
    let count = |keys: BTreeSet<&K>| keys.len() as u64;
    let (before, after): (BTreeSet<&K>, BTreeSet<&K>) = (old.keys().collect(), new.keys().collect());
    let is_changed = |key: &&K| old.get(*key).zip(new.get(*key)).is_some_and(|(old, new)| old != new);
    Tally {
        added: count(&after - &before),
        changed: count(before.intersection(&after).copied().filter(|key| is_changed(key)).collect()),
        removed: count(&before - &after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Destination, EventSwitches, Root, Settings, TransferOptions};

    fn config(roots: &[(&str, &[&str])]) -> Configuration {
        let target =
            |name: &&str| Target { destination: Destination::Local(name.into()), options: TransferOptions::default() };
        let root = |(path, targets): &(&str, &[&str])| RootOptions {
            root: Root {
                path: path.into(),
                targets: targets.iter().map(target).collect(),
                events: EventSwitches::default(),
                excludes: Vec::new(),
                legacy_hidden: false,
                schedule: None,
            },
            settings: Settings::default(),
        };
        Configuration { roots: roots.iter().map(root).collect(), ..Configuration::default() }
    }

    #[test]
    fn what_changed_is_counted_however_it_is_ordered() {
        let old = config(&[("/a", &["x", "y"]), ("/b", &["x"])]);
        let said = |new: &Configuration| changes(&old, new).to_string();
        assert_eq!(said(&old), "nothing changed");
        assert_eq!(said(&config(&[("/b", &["x"]), ("/a", &["y", "x"])])), "nothing changed");
        assert_eq!(said(&config(&[("/a", &["x", "y", "z"]), ("/b", &["x"])])), "1 target added");
        let other = config(&[("/a", &["x"]), ("/c", &["x"])]);
        assert_eq!(said(&other), "1 directory added, 1 directory removed, 1 target added, 2 targets removed");
        let mut changed = old.clone();
        changed.roots[0].root.excludes.push("x".to_owned());
        changed.roots[1].root.targets[0].options.delete = false;
        assert_eq!(said(&changed), "1 directory changed, 1 target changed");
        let mut same_twice = old.clone();
        same_twice.roots.push(config(&[("/a", &["w"])]).roots.remove(0));
        assert_eq!(said(&same_twice), "1 directory changed, 1 target added");
    }
}
