//! What operators ask a running daemon: HTTP with JSON over a Unix socket in the state directory.
//!
//! [`Status`] and [`JobRow`] are the one set of types that server, client and every printer share. The daemon
//! implements [`Inspect`]; [`ControlServer`] serves it, [`Client`] asks it. The only thing
//! that changes the queue is adding jobs to it: a path too many costs one comparison.
//!
//! Invariant: this module knows the model and nothing else of syncq. It never sees the queue or its store.

mod client;
mod inspect;
mod server;
mod types;

pub use client::{Client, ClientError};
pub use inspect::{AddError, Inspect, JobFilter, ListPage, each_job};
pub use server::{ControlError, ControlServer};
pub use types::{
    DaemonState, JobRow, NewJob, PluginStatus, RootState, RootStatus, Status, StoreState, StoreStatus, TargetState,
    TargetStatus, WatchStatus, seconds, word,
};

use std::path::{Path, PathBuf};

/// The socket's name in the state directory.
const SOCKET_NAME: &str = "control.sock";

/// The longest socket path that the kernel takes: `sun_path` has 108 bytes, the last one is a NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Where the daemon of a state directory listens.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join(SOCKET_NAME)
}
