//! What a daemon is started with. Plain values: whoever starts it has read and checked the configuration.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Plugin;
use crate::control::{Inspect, TcpOptions};
use crate::model::{AtFirst, Root, Settings};
use crate::queue::Policy;

/// Called once, when watches are set, live changes flow and the control socket answers. The start-up scan may still
/// be running.
pub type OnReady = Box<dyn FnOnce(Arc<dyn Inspect>) + Send>;

/// A root and how it is treated.
#[derive(Debug, Clone, PartialEq)]
pub struct RootOptions {
    pub root: Root,
    pub settings: Settings,
}

impl RootOptions {
    /// What the queue needs to know of the settings.
    pub fn policy(&self) -> Policy {
        Policy {
            backoff: self.settings.backoff,
            attempts_max: self.settings.max_attempts,
            hot_interval: self.settings.hot_interval,
        }
    }
}

/// Where a list goes, and the roots that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailLogOptions {
    pub path: PathBuf,
    /// Indices among the roots of the daemon.
    pub roots: Vec<usize>,
}

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

/// What configuration files say, together; it may be replaced while the daemon runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configuration {
    pub roots: Vec<RootOptions>,
    pub plugins: Vec<PluginOptions>,
    pub fail_logs: Vec<FailLogOptions>,
}

/// Why a configuration is not taken, in words for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTaken {
    pub message: String,
    pub hint: Option<String>,
    /// The configuration is wrong; otherwise this machine is short of something.
    pub config: bool,
}

/// Where a running daemon gets its configuration anew. Whoever starts the daemon knows where that is, and finds the words
/// for what is wrong with it.
pub struct ConfigSource {
    /// The configuration files, for `status`.
    pub files: Vec<PathBuf>,
    /// Reads and checks them.
    pub load: Box<dyn Fn() -> Result<Configuration, NotTaken> + Send>,
    /// Says what it means that the daemon could not do what it has read.
    pub explain: fn(anyhow::Error) -> NotTaken,
}

/// Everything that `daemon::run` needs to know.
pub struct Options {
    pub config: Configuration,
    /// At most this many rsyncs at a time, over all targets.
    pub threads: usize,
    /// Have every target compared in full, whatever is known of it.
    pub reconcile: bool,
    /// Take a root as it is, even if it is another directory than the last time, or empty now.
    pub accept_root: bool,
    /// Let the first comparison of each target delete as much as it likes.
    pub accept_deletions: bool,
    /// What the first comparison with a target may delete that was never complete, if it is a target from the start on.
    pub at_first: AtFirst,
    /// Created if it is missing, and locked.
    pub state_dir: PathBuf,
    /// Where the control API is on TCP too, if anywhere.
    pub listen: Option<TcpOptions>,
    /// Where `config` comes from; `None` with `syncq mirror`.
    pub source: Option<ConfigSource>,
    /// No root has a target: plugins are told of what the watchers see.
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
