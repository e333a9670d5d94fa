//! What a process owes the machine that it runs on.
//!
//! `detach` sends it into the background, `logging` writes its log, `sd_notify` tells the service manager how it is,
//! `signals` turns signals into calls, `inotify_limits` raises what the kernel grants, and `vital_threads` notices the death
//! of a thread that it cannot do without.
//!
//! Invariant: nothing here knows what the process does. Whoever starts it says what a signal means, and in which words it
//! is.

pub mod detach;
pub mod inotify_limits;
pub mod logging;
pub mod sd_notify;
pub mod signals;
pub mod vital_threads;

/// Who reads a log takes the process for the daemon that it is, so its messages are of the area `daemon`.
const LOG_TARGET: &str = "syncq::daemon";
