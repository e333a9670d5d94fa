//! The plugins of a running daemon: which roots each plugin is told of, and how. Wiring only.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use log::{info, warn};

use crate::clock::Clock;
use crate::config::Plugin;
use crate::control::PluginStatus;
use crate::dispatch::Contexts;
use crate::mirror::Observer;
use crate::model::{Target, TargetId};
use crate::plugin::{Announcer, Engine, FollowedRoot, Follower, Source};
use crate::queue::Queue;

use super::options::{Configuration, PluginOptions};
use super::root::{Fingerprint, RootRuntime};

/// A plugin that runs.
#[derive(Debug, Clone)]
pub(super) struct Running {
    plugin: Plugin,
    engine: Arc<Engine>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    /// In the order of the configuration.
    running: Vec<Running>,
    announcers: Vec<Arc<Announcer>>,
    /// The announcer that is told of the runs to a target.
    observers: BTreeMap<TargetId, Arc<Announcer>>,
    /// With `-m`: the roots whose watchers tell the plugins.
    followed: Vec<FollowedRoot>,
}

impl Plugins {
    /// Starts the plugins' threads. A plugin that is among those of `before` goes on, with all undelivered messages.
    pub(super) fn start_engines(plugins: &[PluginOptions], before: &Self) -> Result<Vec<Running>> {
        let mut running: Vec<Running> = Vec::new();
        for PluginOptions { plugin, .. } in plugins {
            let is_free = |old: &&Running| {
                old.plugin == *plugin && !running.iter().any(|taken| Arc::ptr_eq(&taken.engine, &old.engine))
            };
            if let Some(old) = before.running.iter().find(is_free) {
                running.push(old.clone());
                continue;
            }
            let name = plugin.kind().as_str();
            match crate::plugin::start(plugin).with_context(|| format!("cannot start the plugin {name}")) {
                Ok(engine) => running.push(Running { plugin: plugin.clone(), engine }),
                Err(failure) => {
                    Self { running, ..Self::default() }.abandon(before);
                    return Err(failure);
                }
            }
        }
        Ok(running)
    }

    /// Connects the plugins to the runs of their targets, or, for roots without targets, to the watchers. Nothing is told
    /// before [`observe`](Self::observe) and [`replace`](Self::replace). `roots` are those of the configuration. `follows`: a
    /// follower passes on what the watchers tell.
    pub(super) fn new(
        queue: &Arc<Queue>,
        clock: &Arc<dyn Clock>,
        follows: bool,
        config: &Configuration,
        roots: &[(Arc<RootRuntime>, Vec<Fingerprint>)],
        running: Vec<Running>,
        before: &Self,
    ) -> Self {
        let mut plugins = Self { running, ..Self::default() };
        for (PluginOptions { plugin, roots: told_of }, running) in config.plugins.iter().zip(&plugins.running) {
            let engine = &running.engine;
            for told in told_of {
                let Some((options, (root, prints))) = config.roots.get(told.index).zip(roots.get(told.index)) else {
                    continue;
                };
                let ids: Vec<TargetId> = prints.iter().map(|(id, _)| *id).collect();
                let source = Source {
                    path: options.root.path.clone(),
                    spelled: told.spelled.clone(),
                    targets: options.root.targets.iter().map(Target::name).collect(),
                };
                if follows {
                    let (filter, policy, engine) = (Arc::clone(&root.filter), options.policy(), Arc::clone(engine));
                    plugins.followed.push(FollowedRoot { source: Arc::new(source), filter, policy, engine });
                    continue;
                }
                let old = before.announcers.iter().find(|old| old.is_for(engine, &source, &ids)).cloned();
                let announcer = old.unwrap_or_else(|| {
                    info!("plugin {}: told of what changes in {}", plugin.kind().as_str(), source.path.display());
                    let (queue, clock) = (Arc::clone(queue), Arc::clone(clock));
                    Arc::new(Announcer::new(Arc::clone(engine), Arc::new(source), ids.clone(), queue, clock))
                });
                plugins.observers.extend(ids.into_iter().map(|id| (id, Arc::clone(&announcer))));
                plugins.announcers.push(announcer);
            }
        }
        plugins
    }

    /// Has the runs of these contexts reported to the plugins from now on.
    pub(super) fn observe(&self, contexts: &Contexts) {
        for (target, context) in contexts {
            let observer = self.observers.get(target).map(|announcer| Arc::clone(announcer) as Arc<dyn Observer>);
            context.set_observer(observer);
        }
    }

    /// Takes the place of `before`. Announcers and plugins that only `before` has deliver their last messages and end.
    pub(super) fn replace(&self, follower: Option<&Follower>, before: &Self) {
        if let Some(follower) = follower {
            follower.follow(self.followed.clone());
        }
        for old in &before.announcers {
            if !self.announcers.iter().any(|kept| Arc::ptr_eq(kept, old)) {
                old.finish();
            }
        }
        before.end_all_but(self);
    }

    /// Ends the plugins that were started for a configuration that does not come into force.
    pub(super) fn abandon(&self, before: &Self) {
        self.end_all_but(before);
    }

    /// Ends the plugins that `other` does not have, on threads of their own, since ending may take a moment.
    fn end_all_but(&self, other: &Self) {
        for Running { plugin, engine } in &self.running {
            if other.running.iter().any(|kept| Arc::ptr_eq(&kept.engine, engine)) {
                continue;
            }
            info!("plugin {}: switched off", plugin.kind().as_str());
            let engine = Arc::clone(engine);
            let end = std::thread::Builder::new().name("plugin-end".into()).spawn(move || engine.stop());
            if let Err(failure) = end {
                warn!("a plugin cannot be ended: {failure}");
            }
        }
    }

    /// Has to be called once a second while it returns true, which means that a message waits for time to pass, and once after
    /// each run.
    pub(super) fn tick(&self) -> bool {
        self.announcers.iter().for_each(|announcer| announcer.tick());
        self.announcers.iter().any(|announcer| announcer.is_waiting())
    }

    pub(super) fn status(&self) -> Vec<PluginStatus> {
        let status = |engine: &Arc<Engine>| {
            let stats = engine.stats();
            PluginStatus {
                name: engine.name().to_owned(),
                waiting: stats.waiting + stats.in_flight,
                delivered: stats.delivered,
                failed: stats.failed,
                dropped: stats.dropped,
                reason: stats.reason,
            }
        };
        self.running.iter().map(|running| status(&running.engine)).collect()
    }

    /// Delivers the remaining messages, for a moment at most. Call it after the last run.
    pub(super) fn stop(&self) {
        self.announcers.iter().for_each(|announcer| announcer.finish());
        self.running.iter().for_each(|running| running.engine.stop());
    }
}
