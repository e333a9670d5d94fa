//! The options of a daemon, as plain values: the caller has read and checked the configuration.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Plugin;
use crate::control::{Inspect, TcpOptions};
use crate::model::{AtFirst, Root, Settings};
use crate::queue::Policy;

/// Called once, when watches are set, live changes flow and the control socket answers. The start-up scan may still be running.
pub type OnReady = Box<dyn FnOnce(Arc<dyn Inspect>) + Send>;

/// A root and its settings.
#[derive(Debug, Clone, PartialEq)]
pub struct RootOptions {
    pub root: Root,
    pub settings: Settings,
}

impl RootOptions {
    /// The part of the settings that the queue needs.
    pub fn policy(&self) -> Policy {
        Policy {
            backoff: self.settings.backoff,
            attempts_max: self.settings.max_attempts,
            hot_interval: self.settings.hot_interval,
        }
    }
}

/// The path of a failLog, and the roots that it lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailLogOptions {
    pub path: PathBuf,
    /// Indices into the roots of the configuration.
    pub roots: Vec<usize>,
}

/// A plugin and the roots that it is told of.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginOptions {
    pub plugin: Plugin,
    pub roots: Vec<PluginRoot>,
}

/// A root that a plugin is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginRoot {
    /// Index into the roots of the configuration.
    pub index: usize,
    /// The directory as the configuration spells it.
    pub spelled: PathBuf,
}

/// The content of all configuration files together; it may be replaced while the daemon runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configuration {
    pub roots: Vec<RootOptions>,
    pub plugins: Vec<PluginOptions>,
    pub fail_logs: Vec<FailLogOptions>,
}

/// Why a configuration is refused, in words for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTaken {
    pub message: String,
    pub hint: Option<String>,
    /// Whether the configuration is wrong; otherwise this machine lacks something.
    pub config: bool,
}

/// The source from which a running daemon reads its configuration again. The starter of the daemon knows the files, and finds
/// the words for what is wrong with them.
pub struct ConfigSource {
    /// The configuration files, for `status`.
    pub files: Vec<PathBuf>,
    /// Reads and checks the files.
    pub load: Box<dyn Fn() -> Result<Configuration, NotTaken> + Send>,
    /// Turns the daemon's failure to carry out a configuration into words for an operator.
    pub explain: fn(anyhow::Error) -> NotTaken,
}

/// Everything that `daemon::run` needs to know.
pub struct Options {
    pub config: Configuration,
    /// The most rsyncs at a time, over all targets.
    pub threads: usize,
    /// Have every target compared in full, whatever the store knows of it.
    pub reconcile: bool,
    /// Take each root as it is, even if it is another directory than the last time, or empty now.
    pub accept_root: bool,
    /// Let the first comparison of each target delete as much as it likes.
    pub accept_deletions: bool,
    /// What the first comparison may delete on a target that was never complete and is configured at the start of the daemon.
    pub at_first: AtFirst,
    /// The directory is created if it is missing, and locked.
    pub state_dir: PathBuf,
    /// The TCP address of the control API, if it has one.
    pub listen: Option<TcpOptions>,
    /// The source of `config`; `None` with `syncq mirror`.
    pub source: Option<ConfigSource>,
    /// With `-m`: no root has a target, and plugins are told what the watchers see.
    pub plugin_only: bool,
    pub on_ready: Option<OnReady>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("config", &self.config)
            .field("threads", &self.threads)
            .field("reconcile", &self.reconcile)
            .field("accept_root", &self.accept_root)
            .field("accept_deletions", &self.accept_deletions)
            .field("at_first", &self.at_first)
            .field("state_dir", &self.state_dir)
            .field("listen", &self.listen)
            .field("plugin_only", &self.plugin_only)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigSource").field("files", &self.files).finish_non_exhaustive()
    }
}
