//! Everything that runs under one configuration, in one piece: roots, targets, plugins, schedules. A reload replaces the piece
//! as a whole.
//!
//! A new configuration is prepared beside the active one, from which it takes over every root that is watched by the same
//! rules. Preparing does all that can fail, and changes nothing of what runs. [`ActiveConfig::put_in_force`] cannot fail. The
//! first configuration of a daemon goes the same way: its predecessor is an empty one.
//!
//! [`Core`] is no part of a configuration and stays: the queue with all jobs, also of targets that are no longer configured,
//! and the threads that run rsync.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use log::{info, warn};
use parking_lot::{Mutex, MutexGuard};

use super::fail_log::{FailLog, Lists};
use super::named_target::NamedTarget;
use super::options::{Configuration, RootOptions};
use super::plugins::Plugins;
use super::root::{Fingerprint, RootRuntime, Rules, StartOptions, fingerprint};
use super::root_threads::RootThreads;
use super::witness::Witness;
use crate::clock::Clock;
use crate::control::ConfigStatus;
use crate::dispatch::{Contexts, Executor};
use crate::filter::Filter;
use crate::mirror::{Confinement, Connections, Guard, Limits, Place, Places, RootIdentity, Standbys, TargetContext};
use crate::model::{
    AtFirst, Destination, DirectoryId, RelPath, Scope, Target, TargetId, Timestamp, TroubleClass, counted,
};
use crate::mounts::Mounts;
use crate::plugin::Follower;
use crate::queue::Queue;
use crate::schedule::Scheduler;

/// A directory to watch that does not exist and that the store has never known: more likely misspelt than not mounted.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {}", .path.display())]
pub struct UnknownRoot {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// The parts of a daemon that stay whatever the configuration says.
pub(super) struct Core {
    pub queue: Arc<Queue>,
    pub executor: Arc<Executor>,
    pub clock: Arc<dyn Clock>,
    pub connections: Connections,
    pub standbys: Standbys,
    pub fail_log: Option<FailLog>,
    pub root_threads: RootThreads,
    /// The state directory, absolute.
    pub owner: PathBuf,
    /// With `-m` no root has a target, and the follower tells plugins what the watchers see.
    pub follower: Option<Arc<Follower>>,
    /// The store holds all that was ever written to it.
    pub store_is_whole: bool,
    pub witness: Mutex<Witness>,
    pub current: Current,
}

impl Core {
    pub fn witness(&self) -> MutexGuard<'_, Witness> {
        self.witness.lock()
    }
}

/// The configuration that is in force, and how the last reading of the configuration files went.
#[derive(Default)]
pub(super) struct Current {
    active: Mutex<Arc<ActiveConfig>>,
    status: Mutex<ConfigStatus>,
}

impl Current {
    pub fn get(&self) -> Arc<ActiveConfig> {
        Arc::clone(&self.active.lock())
    }

    pub fn set(&self, active: ActiveConfig) {
        *self.active.lock() = Arc::new(active);
    }

    pub fn status(&self) -> MutexGuard<'_, ConfigStatus> {
        self.status.lock()
    }
}

/// The wishes an operator gave when starting the daemon. They hold for the first configuration alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub reconcile: bool,
    pub accept_root: bool,
    pub accept_deletions: bool,
    pub at_first: AtFirst,
}

impl Asked {
    /// The wishes of a reload: none.
    pub const NOTHING: Self =
        Self { reconcile: false, accept_root: false, accept_deletions: false, at_first: AtFirst::Nothing };
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct ActiveConfig {
    pub config: Configuration,
    /// In the order of the configuration, each root with the targets that it is to have.
    roots: Vec<(Arc<RootRuntime>, Vec<Fingerprint>)>,
    pub targets: Vec<NamedTarget>,
    pub plugins: Plugins,
    scheduler: Mutex<Scheduler>,
    contexts: Contexts,
    /// Directories that an operator has accepted in place of the recorded ones, with their identities.
    accepted: Vec<(PathBuf, DirectoryId)>,
}

/// A root that has passed every check that could refuse it.
struct Checked {
    rules: Rules,
    kept: Option<Arc<RootRuntime>>,
    filter: Arc<Filter>,
    identity: RootIdentity,
}

impl ActiveConfig {
    /// Prepares what `config` describes, to follow `before`. Changes nothing of `before`, not even on an error. New roots are
    /// not watched yet.
    pub fn prepare(core: &Core, config: Configuration, asked: Asked, before: &Self) -> Result<Self> {
        let mut prepared = Self::default();
        let mut checked: Vec<Checked> = Vec::new();
        for (index, options) in config.roots.iter().enumerate() {
            let sharing = config.roots.iter().filter(|other| other.root.path == options.root.path).count();
            let rules = Rules::new(options, sharing == 1);
            let is_kept = |root: &&Arc<RootRuntime>| {
                root.rules == rules
                    && !checked.iter().filter_map(|other| other.kept.as_ref()).any(|kept| Arc::ptr_eq(kept, root))
            };
            let kept = before.roots().find(is_kept).cloned();
            checked.push(match kept {
                Some(kept) => {
                    let (filter, identity) = (Arc::clone(&kept.filter), kept.identity);
                    Checked { rules, kept: Some(kept), filter, identity }
                }
                None => {
                    let filter = Arc::new(Filter::new(&rules.excludes, rules.legacy_hidden)?);
                    let identity = prepared.identify(core, &rules, asked)?;
                    Checked { rules, kept: None, filter, identity }
                }
            });
            if let Some(schedule) = &options.root.schedule {
                // A scheduled comparison that was missed while no daemon ran is made up for.
                let last = core.queue.root_record(&options.root.path).and_then(|record| record.scheduled_run);
                let now = core.clock.now();
                prepared.scheduler().add(index, schedule, last.unwrap_or(now), now)?;
            }
        }
        let engines = Plugins::start_engines(&config.plugins, &before.plugins)?;
        // Nothing fails from here on.
        for (options, checked) in config.roots.iter().zip(checked) {
            prepared.add_root(core, options, checked, asked, before);
        }
        let follows = core.follower.is_some();
        let roots = &prepared.roots;
        prepared.plugins = Plugins::new(&core.queue, &core.clock, follows, &config, roots, engines, &before.plugins);
        prepared.config = config;
        Ok(prepared)
    }

    /// Which directory a new root is, if it may be mirrored.
    fn identify(&mut self, core: &Core, rules: &Rules, asked: Asked) -> Result<RootIdentity, UnknownRoot> {
        match (RootIdentity::of(&rules.path), core.queue.root_mark(&rules.path)) {
            (Ok(seen), Some(mark)) if mark == seen.mark() => Ok(seen),
            (Ok(seen), None) => Ok(seen),
            (Ok(seen), Some(_)) if asked.accept_root => {
                self.accepted.push((rules.path.clone(), seen.mark()));
                Ok(seen)
            }
            // The directory is missing or another one is in its place, most likely because a disk is not mounted: wait for it.
            (_, Some(mark)) => Ok(RootIdentity::remembered(mark)),
            (Err(source), None) => Err(UnknownRoot { path: rules.path.clone(), source }),
        }
    }

    fn add_root(&mut self, core: &Core, options: &RootOptions, checked: Checked, asked: Asked, before: &Self) {
        let RootOptions { root, settings } = options;
        let Checked { rules, kept, filter, identity } = checked;
        let known = kept.iter().chain(before.roots().filter(|old| old.path() == root.path)).next();
        let mounts = known.map(|known| Arc::clone(&known.mounts)).unwrap_or_else(|| {
            let record = core.queue.root_record(&root.path);
            Arc::new(Mounts::new(&root.path, record.map(|record| record.mounts).unwrap_or_default()))
        });
        if asked.accept_root || asked.accept_deletions {
            mounts.accept_missing();
        }
        let limits = Limits { large_file_bytes: settings.large_file_bytes, ..Limits::default() };
        let mut fingerprints = Vec::new();
        for target in &root.targets {
            let named = NamedTarget {
                id: before.id_of(core, options, target),
                name: target.name(),
                port: target.options.port,
                root: root.path.clone(),
            };
            let was_known = || core.witness().knows(identity.mark(), &named.name, named.port);
            if asked.at_first == AtFirst::Usual || was_known() {
                // Either the operator agreed to the target, or the target was known before the store was damaged or lost. Note
                // it now, so that it counts for the next start too, even if this start fails.
                core.queue.note_known_target(named.id);
            }
            let is_new = core.queue.target_record(named.id).is_some_and(|record| record.is_new);
            let at_first = if is_new { asked.at_first } else { AtFirst::Usual };
            let mut context = TargetContext::new(
                root.path.clone(),
                identity,
                target.clone(),
                Arc::clone(&filter),
                limits,
                Guard::new(settings.max_delete, asked.accept_deletions, asked.accept_root).at_first(at_first),
                &core.owner,
            );
            context.mounts = Arc::clone(&mounts);
            context.connection = core.connections.of(root.path(), target, settings.ssh_share);
            context.standby = core.standbys.of(target, settings.standby && settings.connections_max > 1);
            if let Destination::Local(path) = &target.destination {
                let mark = core.queue.target_record(named.id).and_then(|record| record.mark);
                context.place = Some(Arc::new(Place::new(root.path.join(path), target, mark)));
            }
            let context = match before.contexts.get(&named.id) {
                Some(old) if old.runs_like(&context) => Arc::clone(old),
                Some(old) => {
                    context.succeed(old);
                    tell_confinement(&context);
                    Arc::new(context)
                }
                None => {
                    tell_confinement(&context);
                    Arc::new(context)
                }
            };
            self.contexts.insert(named.id, context);
            fingerprints.push((named.id, fingerprint(root, target)));
            self.targets.push(named);
        }
        let runtime = kept.unwrap_or_else(|| {
            let predecessors: Vec<_> = before.roots().filter(|old| old.path() == root.path).collect();
            let beside = !predecessors.is_empty();
            let start = StartOptions {
                // Accepted deletions are to happen now, not at some later comparison.
                reconcile: asked.reconcile || asked.accept_deletions,
                // For a new runtime beside an old one, `accept_root` only matters for an empty directory. A root that was
                // watched all along may be empty: the events told how it became so.
                accept_root: asked.accept_root
                    || asked.accept_deletions
                    || (beside && predecessors.iter().all(|old| old.was_watched())),
                store_is_whole: core.store_is_whole,
                beside,
            };
            let queue = Arc::clone(&core.queue);
            let runtime =
                Arc::new(RootRuntime::new(rules, filter, identity, mounts, start, fingerprints.clone(), queue));
            core.follower.iter().for_each(|follower| runtime.follow(Arc::clone(follower)));
            runtime
        });
        self.roots.push((runtime, fingerprints));
    }

    /// Returns the number of a target. A target that is served already keeps its policy until the new configuration is in
    /// force.
    fn id_of(&self, core: &Core, options: &RootOptions, target: &Target) -> TargetId {
        let name = target.name();
        let served = self.targets.iter().find(|known| known.name == name && known.root == options.root.path);
        match served {
            Some(known) => known.id,
            None => core.queue.register(&options.root.path, &target.destination, options.policy()).0,
        }
    }

    /// Keeps a list outside the store of the targets that were equal to their source once.
    pub fn bear_witness(&self, core: &Core) {
        let sources: HashMap<&Path, DirectoryId> =
            self.roots().map(|root| (root.path(), root.identity.mark())).collect();
        let is_known = |target: &&NamedTarget| core.queue.target_record(target.id).is_some_and(|record| !record.is_new);
        let known = self.targets.iter().filter(is_known);
        let known = known.filter_map(|target| Some((*sources.get(&*target.root)?, &*target.name, target.port)));
        core.witness().keep(known);
    }

    /// Has every tree compared whose schedule is due.
    pub fn run_due(&self, core: &Core) {
        for index in self.scheduler().due(core.clock.now()) {
            if let Some((root, _)) = self.roots.get(index) {
                info!("{}: scheduled comparison of the whole tree", root.path().display());
                root.reconcile();
                core.queue.set_scheduled_run(root.path(), core.clock.now());
            }
        }
    }

    /// When the next scheduled comparison of a tree is due, if there is any.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.scheduler().next_due()
    }

    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock()
    }

    pub fn roots(&self) -> impl Iterator<Item = &Arc<RootRuntime>> {
        self.roots.iter().map(|(root, _)| root)
    }

    fn keeps(&self, root: &Arc<RootRuntime>) -> bool {
        self.roots().any(|kept| Arc::ptr_eq(kept, root))
    }

    /// The roots that `before` does not have. They have to be started before the configuration is put in force, except at the
    /// start of the daemon.
    pub fn fresh_roots(&self, before: &Self) -> Vec<Arc<RootRuntime>> {
        self.roots().filter(|root| !before.keeps(root)).cloned().collect()
    }

    /// Gives up a configuration that was prepared and does not come into force.
    pub fn abandon(&self, core: &Core, before: &Self) {
        core.root_threads.end(|root| self.keeps(root) && !before.keeps(root));
        self.fresh_roots(before).iter().for_each(|root| root.abandon());
        self.plugins.abandon(&before.plugins);
    }

    /// Puts this configuration in the place of `before`. Runs in flight end as they were begun.
    pub fn put_in_force(self, core: &Core, before: &Self) {
        let Self { config, roots, contexts, .. } = &self;
        for options in &config.roots {
            let root = &options.root;
            for target in &root.targets {
                core.queue.register(&root.path, &target.destination, options.policy());
            }
            let unscheduled = |record: &crate::store::RootRecord| record.scheduled_run.is_none();
            if root.schedule.is_some() && core.queue.root_record(&root.path).as_ref().is_some_and(unscheduled) {
                core.queue.set_scheduled_run(&root.path, core.clock.now());
            }
        }
        for (path, mark) in &self.accepted {
            core.queue.forget_watermark(path);
            core.queue.set_root_mark(path, *mark);
        }
        let pending_max = config.roots.iter().map(|root| root.settings.pending_max).min().unwrap_or(u32::MAX);
        core.queue.set_pending_max(pending_max as usize);

        self.plugins.observe(contexts);
        // Before the roots are retargeted: the comparisons that they ask for have to run under the new settings.
        let connections_max = config.roots.iter().map(|root| root.settings.connections_max).max().unwrap_or(1);
        core.executor.serve(contexts.clone(), connections_max as usize);
        core.root_threads.end(|root| before.keeps(root) && !self.keeps(root));
        self.forget_tops(core, before);
        let left = before.fresh_roots(&self);
        for (root, fingerprints) in roots {
            let place = |&(id, _): &Fingerprint| Some((id, contexts.get(&id)?.place.clone()?));
            root.set_places(fingerprints.iter().filter_map(place).collect());
            if before.keeps(root) {
                root.retarget(fingerprints.clone());
            } else if before.roots().any(|old| old.path() == root.path()) {
                let predecessors: Vec<_> = left.iter().filter(|old| old.path() == root.path()).cloned().collect();
                root.succeed(&predecessors);
            }
        }
        left.iter().for_each(|root| root.stop());
        self.plugins.replace(core.follower.as_deref(), &before.plugins);
        if let Some(fail_log) = &core.fail_log {
            fail_log.keep(self.lists());
        }
        self.announce(core, before);
        core.current.set(self);
    }

    /// Forgets the recorded top of each target that is now reached in another way or has other settings: the record says
    /// nothing about such a target.
    fn forget_tops(&self, core: &Core, before: &Self) {
        let prints =
            |active: &Self| active.roots.iter().flat_map(|(_, prints)| prints.clone()).collect::<BTreeMap<_, _>>();
        let old = prints(before);
        for (id, print) in prints(self) {
            let complete_under = || core.queue.target_record(id)?.complete_under;
            if old.get(&id).copied().or_else(complete_under).is_some_and(|old| old != print) {
                core.queue.set_target_top(id, None);
            }
        }
    }

    /// Announces new and abandoned targets, and probes at once every target whose trouble the new configuration may have
    /// mended.
    fn announce(&self, core: &Core, before: &Self) {
        for target in &self.targets {
            let same = |(new, old)| Arc::ptr_eq(new, old);
            let is_same = self.contexts.get(&target.id).zip(before.contexts.get(&target.id)).is_some_and(same);
            let standing = core.queue.standing(target.id);
            if !is_same {
                if let Some(command) = core.executor.command_line(target.id, &RelPath::root(), Scope::Subtree) {
                    info!("execute command: {command}");
                }
                if let Some(since) = standing.paused_since {
                    warn!("{0}: paused since {since}, nothing is sent; to go on: syncq resume {0}", target.name);
                }
            }
            // The cause of a misconfiguration may lie in a file that the configuration only names, so an equal context proves
            // nothing.
            if !is_same || standing.trouble.is_some_and(|trouble| trouble.class == TroubleClass::Misconfigured) {
                core.queue.probe_now(&[target.id]);
            }
        }
        // At the start there is no predecessor, so every target in the store that is not configured counts as abandoned.
        let is_first = before.roots.is_empty();
        for record in core.queue.known_targets() {
            let was_served = is_first || before.targets.iter().any(|target| target.id == record.id);
            let jobs = core.queue.stats(record.id).map_or(0, |stats| stats.counts.total());
            if was_served && jobs > 0 && !self.contexts.contains_key(&record.id) {
                // Jobs of targets that are no longer configured are kept, since the configuration may come back.
                let jobs = counted(jobs as u64, "pending job");
                let (name, owner) = (&record.destination, core.owner.display());
                warn!(
                    "{name} is no longer configured; it keeps {jobs} in case it comes back. To forget them stop \
                     syncq, then: syncq purge --target {name} --state-dir {owner}"
                );
            }
        }
    }

    /// Each failLog with the targets that it lists.
    fn lists(&self) -> Lists {
        let mut lists: Lists = BTreeMap::new();
        for list in &self.config.fail_logs {
            let of_list = lists.entry(list.path.clone()).or_default();
            let prints = list.roots.iter().filter_map(|&index| self.roots.get(index)).flat_map(|(_, prints)| prints);
            of_list.extend(prints.filter_map(|(id, _)| self.targets.iter().find(|target| target.id == *id)).cloned());
        }
        lists
    }

    /// The root with that path that has all of these targets.
    pub fn root_of(&self, path: &std::path::Path, targets: &[NamedTarget]) -> Option<&Arc<RootRuntime>> {
        self.roots().find(|root| root.path() == path && targets.iter().all(|target| root.has(target.id)))
    }

    pub fn serves(&self, target: TargetId) -> bool {
        self.contexts.contains_key(&target)
    }
}

/// Logs a missing confinement: that nothing keeps rsync within this target and its source. What holds for all targets is logged
/// once, at the start.
fn tell_confinement(context: &TargetContext) {
    let shares = context.connection.as_ref().is_some_and(|connection| connection.is_shared());
    if let Confinement::Missing(missing) = Places::new(&context.root, &context.target).confinement(shares)
        && !missing.is_general()
    {
        warn!("{}: {}; hint: {}", context.target.name(), missing.message(), missing.hint());
    }
}
