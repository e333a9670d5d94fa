//! What a daemon is started with. Plain values: whoever starts it has read and checked the configuration.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::fail_log::FailLogOptions;
use super::plugins::PluginOptions;
use crate::control::{Inspect, TcpOptions};
use crate::model::{Root, Settings};
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

/// Everything that `daemon::run` needs to know.
pub struct Options {
    pub roots: Vec<RootOptions>,
    /// At most this many rsyncs at a time, over all targets.
    pub threads: usize,
    /// Have every target compared in full, whatever is known of it.
    pub reconcile: bool,
    /// Take a root as it is, even if it is another directory than the last time, or empty now.
    pub accept_root: bool,
    /// Let the first comparison of each target delete as much as it likes.
    pub accept_deletions: bool,
    /// Created if it is missing, and locked.
    pub state_dir: PathBuf,
    /// Where the control API is on TCP too, if anywhere.
    pub listen: Option<TcpOptions>,
    /// The configuration files that `roots` come from, for `status`. Empty with `syncq mirror`.
    pub sources: Vec<PathBuf>,
    pub plugins: Vec<PluginOptions>,
    /// No root has a target: plugins are told of what the watchers see.
    pub plugin_only: bool,
    pub fail_logs: Vec<FailLogOptions>,
    pub on_ready: Option<OnReady>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("roots", &self.roots)
            .field("threads", &self.threads)
            .field("reconcile", &self.reconcile)
            .field("accept_root", &self.accept_root)
            .field("accept_deletions", &self.accept_deletions)
            .field("state_dir", &self.state_dir)
            .field("listen", &self.listen)
            .field("sources", &self.sources)
            .field("plugins", &self.plugins)
            .field("plugin_only", &self.plugin_only)
            .field("fail_logs", &self.fail_logs)
            .finish_non_exhaustive()
    }
}
