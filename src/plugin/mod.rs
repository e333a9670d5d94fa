//! Tells others of changes: a program, a TCP listener, a CDN, an HTTP server, in sersync's own forms.
//!
//! Theory of operation. An [`Announcer`] decides when to tell of a path: as soon as every target has it that can have it.
//! Without targets (`-m`) a [`Follower`] decides, from the watcher's changes. Both hand a [`Notice`] to an [`Engine`], one
//! per configuration file. The engine keeps the notice in a bounded line, has a few threads deliver it through a
//! `Delivery`, and tries again when the other side cannot be reached.
//!
//! Notices are kept in memory. While syncq runs, each notice is delivered at least once; a newer notice of the same path
//! takes the place of one that has not been delivered yet. A stop waits a moment for the remaining notices and logs how
//! many are lost; a crash loses them silently.
//!
//! Invariant: nothing here ever makes a mirror wait, and no name of a file is ever seen by a shell.

mod announce;
mod cdn;
mod command;
mod delivery;
mod engine;
mod exchange;
mod follow;
mod http;
mod line;
mod log_limiter;
mod notice;
mod socket;

use std::sync::Arc;

pub use announce::Announcer;
pub use delivery::PluginError;
pub use engine::{Engine, EngineStats, Limits};
pub use follow::{FollowedRoot, Follower};
pub use notice::{Notice, Source};

use delivery::{Delivery, Failure};

use crate::config::Plugin;

/// Starts the threads of a plugin.
pub fn start(plugin: &Plugin) -> Result<Arc<Engine>, PluginError> {
    let delivery: Box<dyn Delivery> = match plugin {
        Plugin::Command(config) => Box::new(command::Command::new(config)?),
        Plugin::Socket(config) => Box::new(socket::Socket::new(config)),
        Plugin::RefreshCdn(config) => Box::new(cdn::RefreshCdn::new(config)?),
        Plugin::Http(config) => Box::new(http::Http::new(config)),
    };
    Ok(Engine::start(plugin.kind().as_str(), delivery, Limits::default())?)
}

#[cfg(test)]
mod tests;
