//! The parts from which the scenarios are built. Knows syncq only from outside: its command line, its JSON, its exit codes.

pub mod churn;
pub mod config;
pub mod daemon;
pub mod files;
pub mod inotify;
pub mod netns;
pub mod sshd;
#[path = "../../support/mod.rs"]
mod support;
pub mod tree;
pub mod world;

pub use config::Conf;
pub use daemon::{Daemon, Ended};
pub use files::{append, make_dir, outward, overwrite_quietly, patterned, set_mtime, touch, write};
pub use support::port::free_port;
pub use support::rsyncd::Rsyncd;
pub use support::{is_root, processes, rsync, wait};
pub use tree::Compare;
pub use wait::{secs, wait_for, wait_until};
pub use world::World;

/// Prints why a scenario did nothing. Shown with `--nocapture`.
pub fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}
