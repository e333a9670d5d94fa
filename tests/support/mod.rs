//! What unit tests, end-to-end tests and tools start servers with: an rsync daemon (`rsyncd`), ports that nobody else is
//! given (`port`), the rsync of each side (`rsync`), the end of whole families of processes (`processes`), and waiting for a
//! condition with a deadline (`wait`). One harness, so that a race or a leak is repaired once.
//!
//! Whoever needs it includes this file by `#[path]`: the library's own tests, the end-to-end tests (through their harness),
//! `tools/chaos` (through the same) and `tools/workloads`. A crate of its own would need a workspace for five files, and a
//! module of the library would have to be public to be seen from the other three.
//!
//! Deliberately absent: any knowledge of syncq. What starts and asks syncq is `tests/e2e/harness`.

// Each of those who include it needs another part. As tests do it prints, reads real clocks, and fails by panicking.
#![allow(
    dead_code,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod port;
pub mod processes;
pub mod rsync;
pub mod rsyncd;
pub mod wait;

/// Whether the tests run as root, which some scenarios need.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
