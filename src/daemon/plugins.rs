//! The plugins of a running daemon: which roots each is told of, and how. Wiring only.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use log::info;

use crate::clock::Clock;
use crate::config::Plugin;
use crate::control::PluginStatus;
use crate::mirror::{Observer, TargetContext};
use crate::model::TargetId;
use crate::plugin::{Announcer, Engine, FollowedRoot, Follower, Source};
use crate::queue::Queue;

use super::options::Options;
use super::root::RootRuntime;

/// A plugin and what it is told of.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginOptions {
    pub plugin: Plugin,
    pub roots: Vec<PluginRoot>,
}

/// A root that a plugin is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginRoot {
    /// Among the roots of the daemon.
    pub index: usize,
    /// The directory as the configuration spells it.
    pub spelled: PathBuf,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    engines: Vec<Arc<Engine>>,
    announcers: Vec<Arc<Announcer>>,
    follower: Option<Arc<Follower>>,
}

impl Plugins {
    /// Starts the plugins' threads and has them told: by the runs to the targets, or where there are none by the roots'
    /// watchers.
    pub(super) fn start(
        options: &Options,
        roots: &[Arc<RootRuntime>],
        contexts: &mut BTreeMap<TargetId, TargetContext>,
        queue: &Arc<Queue>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        let mut plugins = Self::default();
        let mut followed = Vec::new();
        for PluginOptions { plugin, roots: told_of } in &options.plugins {
            let name = plugin.kind().as_str();
            let engine = crate::plugin::start(plugin).with_context(|| format!("cannot start the plugin {name}"))?;
            for told in told_of {
                let Some((root, of)) = roots.get(told.index).zip(options.roots.get(told.index)) else { continue };
                let source = Arc::new(Source {
                    path: root.path().to_path_buf(),
                    spelled: told.spelled.clone(),
                    targets: root.config.targets.iter().map(crate::model::Target::name).collect(),
                });
                info!("plugin {name}: told of what changes in {}", root.path().display());
                if options.plugin_only {
                    let (filter, policy, engine) = (Arc::clone(&root.filter), of.policy(), Arc::clone(&engine));
                    followed.push(FollowedRoot { source, filter, policy, engine });
                    continue;
                }
                let (queue, clock) = (Arc::clone(queue), Arc::clone(clock));
                let announcer = Announcer::new(Arc::clone(&engine), source, root.targets.clone(), queue, clock);
                let announcer = Arc::new(announcer);
                for target in &root.targets {
                    if let Some(context) = contexts.get_mut(target) {
                        context.observer = Some(Arc::clone(&announcer) as Arc<dyn Observer>);
                    }
                }
                plugins.announcers.push(announcer);
            }
            plugins.engines.push(engine);
        }
        if !followed.is_empty() {
            let follower = Follower::start(followed, Arc::clone(clock)).context("cannot follow changes")?;
            let follower = Arc::new(follower);
            roots.iter().for_each(|root| root.follow(Arc::clone(&follower)));
            plugins.follower = Some(follower);
        }
        Ok(plugins)
    }

    /// To be called once a second.
    pub(super) fn tick(&self) {
        self.announcers.iter().for_each(|announcer| announcer.tick());
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
        self.engines.iter().map(status).collect()
    }

    /// Tells what is left, for a moment. After the last run.
    pub(super) fn stop(&self) {
        if let Some(follower) = &self.follower {
            follower.stop();
        }
        self.announcers.iter().for_each(|announcer| announcer.finish());
        self.engines.iter().for_each(|engine| engine.stop());
    }
}
