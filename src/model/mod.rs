//! The nouns of syncq as pure values: paths, jobs, targets, changes, times.
//!
//! Invariant: nothing here performs I/O, reads a clock, or knows another module of syncq.

mod backoff;
mod batch;
mod change;
mod directory;
mod endpoint;
mod host;
mod job;
mod params;
mod path;
mod plain;
mod settings;
mod target;
mod time;

pub use backoff::Backoff;
pub use batch::{
    ClaimedJob, CutOff, Found, Lane, Lingers, PARTIAL_DIR, TargetTrouble, TroubleClass, Verdict, partial_of,
};
pub use change::{Change, Settle};
pub use directory::{BootId, DirectoryChange, DirectoryId, Moment, Mounted, changed_since, dated_since};
pub use endpoint::Endpoint;
pub use host::{Host, HostError};
pub use job::{Generation, Job, JobAction, JobError, JobId, JobState, Origin, Scope};
pub use params::{Effect, Given, Params, Refused, Usable, Why};
pub use path::{PathError, RelPath, below_range};
pub use plain::{Plain, counted, is_misleading, plain};
pub use settings::{AtFirst, MaxDelete, Settings};
pub use target::{
    Destination, EventSwitches, Root, RootId, Schedule, Target, TargetId, Top, TransferOptions, Unvouched,
};
pub use time::Timestamp;
