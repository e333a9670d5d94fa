//! The shared harness of unit tests, end-to-end tests and tools: an rsync daemon (`rsyncd`), ports that nobody else is given
//! (`port`), the rsync of each side (`rsync`), the end of whole families of processes (`processes`), and waiting for a
//! condition with a deadline (`wait`). There is one harness, so that a race or a leak is repaired once.
//!
//! Each user includes this file by `#[path]`: the library's own tests, the end-to-end tests (through their harness),
//! `tools/chaos` (through the same harness) and `tools/workloads`. A crate of its own would need a workspace for five files. A
//! module of the library would have to be public to be visible to the other three.
//!
//! Deliberately absent: any knowledge of syncq. `tests/e2e/harness` starts syncq and asks it.

// Each user needs another part of the harness. Like tests, it prints, reads real clocks, and fails by panicking.
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
