//! The duties of a process towards the machine that it runs on.
//!
//! `detach` sends the process into the background, `logging` writes its log, `sd_notify` tells the service manager its
//! state, `signals` turns signals into calls, `inotify_limits` raises the kernel's limits, and `vital_threads` notices the
//! death of a thread without which the process is of no use.
//!
//! Invariant: nothing here knows the purpose of the process. Its starter says what a signal means, and in which words the
//! state is told.

pub mod detach;
pub mod inotify_limits;
pub mod logging;
pub mod sd_notify;
pub mod signals;
pub mod vital_threads;

/// Readers of a log take the process for the daemon, so messages of these files are of the area `daemon`.
const LOG_TARGET: &str = "syncq::daemon";
