//! What the scenarios are told with. Knows syncq only from outside: its command line, its JSON, its exit codes.

pub mod churn;
pub mod config;
pub mod daemon;
pub mod files;
pub mod inotify;
pub mod netns;
pub mod processes;
pub mod rsync;
pub mod rsyncd;
pub mod sshd;
pub mod tree;
pub mod wait;
pub mod world;

pub use config::Conf;
pub use daemon::{Daemon, Ended};
pub use files::{append, make_dir, overwrite_quietly, patterned, set_mtime, touch, write};
pub use rsyncd::Rsyncd;
pub use tree::Compare;
pub use wait::{secs, wait_for, wait_until};
pub use world::World;

/// Whether the tests run as root, which some scenarios need.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says why a scenario did nothing. Shown with `--nocapture`.
pub fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}
