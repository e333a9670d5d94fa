//! What operators ask and tell a running daemon: HTTP with JSON over a Unix socket in the state directory.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/jobs?…` ([`JobFilter`]) | one [`JobRow`] a line |
//! | `POST /v1/jobs` (some [`NewJob`]) | one answer each: `null`, or why it was left out |
//! | `POST /v1/jobs/retry`, `/v1/jobs/purge` ([`JobsRequest`]) | one [`JobRow`] a line, as the job was; on disk when it is shown |
//! | `POST /v1/pause` ([`PauseRequest`]) | [`Paused`] |
//! | `GET /v1/store`, `POST /v1/store/compact` | [`StoreReport`] |
//! | `POST /v1/accept-deletions` ([`AcceptRequest`]) | [`Accepted`] |
//! | `POST /v1/accept-target` ([`AcceptRequest`]) | [`Accepted`] |
//! | `POST /v1/reconcile` ([`ReconcileRequest`]) | [`Reconciled`] |
//! | `POST /v1/survey` ([`ReconcileRequest`]) | one [`DifferenceRow`] a line: what that would change; empty lines while it takes |
//! | `POST /v1/verify` ([`VerifyRequest`]) | one [`VerifyLine`] a line: what differs, and how each target ended |
//! | `POST /v1/wait` ([`WaitRequest`]) | one [`Waiting`] a line; the last one tells how it ended |
//! | `POST /v1/reload` | [`Reloaded`], once it is done; empty lines while it takes |
//! | `GET /v1/explain?path=…` ([`PathArg`]) | [`Explanation`] |
//! | `GET /v1/events` | server-sent events: `status` ([`Status`]), and what happens ([`Event`]) |
//!
//! A refusal is answered by a status above 399 and `{"error": …, "hint": …}`; a list that breaks off ends in such a line.
//!
//! These types are the one set that server, client and every printer share. The daemon implements [`Operate`];
//! [`ControlServer`] serves it, [`Client`] asks it; [`TcpServer`] serves it on TCP to those who ask for that.
//!
//! Invariant: this module knows the model and nothing else of syncq. It never sees the queue or its store.

mod answer;
mod client;
mod event;
mod events;
mod filter;
mod inspect;
mod json;
mod refusal;
mod reload;
mod requests;
mod routes;
mod server;
mod stall;
mod strict;
mod tcp;
mod types;

pub use client::{Client, ClientError};
pub use event::{Dropped, Event, Recovered, Sent, Trouble};
pub use filter::{FilterError, GlobError, JobFilter, Matcher};
pub use inspect::{Inspect, ListPage, Listed, Listen, Operate, Place, Wait, each_job};
pub use json::write_json;
pub use refusal::{Refusal, RefusalKind};
pub use reload::{ConfigChanges, ConfigError, ConfigStatus, Reloaded, Tally};
pub use requests::{
    AcceptRequest, Accepted, DifferenceKind, DifferenceRow, Differing, DifferingKind, ExplainQuery, Explanation,
    JobsRequest, Missing, PathArg, PauseRequest, Paused, PausedTarget, ReconcileJob, ReconcileRequest, Reconciled,
    TargetExplanation, Verified, VerifyLine, VerifyRequest, WaitRequest, Waiting,
};
pub use server::{ControlError, ControlServer};
pub use tcp::{TcpOptions, TcpServer, Token};
pub use types::{
    ContentsStatus, DaemonState, JobRow, KeptStore, NewJob, PluginStatus, RootState, RootStatus, RunStatus, Status,
    StoreReport, StoreState, StoreStatus, TargetState, TargetStatus, WatchStatus, seconds, word,
};

use std::path::{Path, PathBuf};

/// The socket's name in the state directory.
const SOCKET_NAME: &str = "control.sock";

/// The longest socket path that the kernel accepts: `sun_path` has 108 bytes, the last of which is a NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The control socket's path for a state directory.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join(SOCKET_NAME)
}
