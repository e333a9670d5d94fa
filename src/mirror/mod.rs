//! Turns jobs into the fewest rsync runs, and what rsync says into verdicts.
//!
//! The way of a batch: `look` sees what stands at its paths, `plan` makes runs of it, `command` writes their
//! argument lists, `run` starts rsync, `outcome` reads what became of it, and [`execute`] carries the batch
//! through. In that `session` starts the runs, `engine` falls back, verifies and halves where rsync's answer is not enough,
//! and `verdicts` keeps what that means for each job. `deletions` asks before much is deleted, `leftovers` removes what killed receivers have left, `ssh` keeps connections to hosts open between runs, `standby`
//! has one to an rsync daemon ready before it is needed. `narrow` has rsync look for itself where a list of names would
//! say something else than the user's own options.
//! [`inspect`] asks a target in advance, `admit` asks rsync what the user's own options leave out.
//!
//! Invariant: only this module starts rsync, and it knows nothing of the queue or the store: jobs come in as values, verdicts
//! go out as values. What hands claimed jobs to workers and their verdicts back is [`crate::dispatch`].

mod address;
pub(crate) mod admit;
mod blocked;
mod capture;
mod changed;
mod command;
mod confine;
mod contents;
mod context;
mod deletion_limit;
mod deletions;
mod engine;
mod environment;
mod execute;
mod expand;
mod fold;
mod identity;
mod installed;
mod itemized;
mod launch;
mod leftovers;
mod line;
pub(crate) mod lingering;
mod look;
mod looked;
mod narrow;
mod noise;
mod outcome;
mod pace;
mod place;
mod plan;
mod portions;
mod probe;
mod program;
mod recent;
mod rename;
mod report;
mod run;
mod says;
mod session;
mod spool;
mod ssh;
mod standby;
mod stats;
mod stop;
mod survey;
mod times;
pub(crate) mod top;
mod trouble;
mod under_way;
pub(crate) mod unvouched;
mod verdicts;
mod version;
mod walk;

pub use address::{Led, addresses, host_name, led};
pub use changed::{Changed, Observer, Operation, Ran};
pub use context::{Capabilities, TargetContext};
pub use deletion_limit::Guard;
pub use environment::{Adopted, adopt, own as own_variable, redirects};
pub use execute::execute;
pub use identity::RootIdentity;
pub use installed::{NoRsync, OLDEST_RSYNC, find_rsync};
pub use launch::{command_line, probe};
pub use look::{Presence, Source};
pub use looked::Contents;
pub use pace::{can_count, moved};
pub use place::Place;
pub use plan::Limits;
pub use under_way::Course;
/// For `tools/micro`, which times the parts one by one; of no use to anybody else.
#[doc(hidden)]
pub mod parts {
    pub use super::plan::{Deletion, Entry, Plan, Run, RunKind, plan};
}
pub use confine::{Confinement, Missing, Places, confinement};
pub use portions::Portions;
pub use probe::{Finding, NotTried, ProbeOptions, inspect};
pub use program::end_leftovers;
pub use report::{BatchReport, FailedCommand};
pub use ssh::{Connection, Connections, by_hand};
pub use standby::{Next, STANDBYS_MAX, Standby, Standbys};
pub use stop::StopSignal;
pub use survey::{Comparison, Difference, Differs, Found, Look};
pub use version::{RsyncVersion, Untested, rsync_version};

#[cfg(test)]
mod tests;
