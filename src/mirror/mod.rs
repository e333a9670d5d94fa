//! Turns jobs into the fewest rsync runs, and what rsync says into verdicts.
//!
//! The rooms, each of which uses only those above it:
//!
//! | room | what it is about |
//! |---|---|
//! | `rsync` | the program and its language: one process from its start to its end, and what its words are |
//! | `plan` | what one rsync is to do: the runs of a batch and their argument lists |
//! | `outcome` | what an ended run means |
//! | `transport` | how a run gets to its target: ssh, standbys, confinement |
//! | `target` | what is known of one target between batches |
//! | `batch` | one batch, carried out: its order, its deletions, renames, fallbacks and verdicts |
//! | `compare` | what differs on a target, without changing it |
//! | `check` | questions in advance |
//!
//! [`execute`] takes a batch through them. [`Comparison`] and [`inspect`] are the other two ways in.
//!
//! Invariant: only this module starts rsync, and it knows nothing of the queue or the store: jobs come in as values, verdicts
//! go out as values. What hands claimed jobs to workers and their verdicts back is [`crate::dispatch`].

mod batch;
mod check;
mod compare;
mod outcome;
mod plan;
mod rsync;
mod target;
mod transport;

pub use batch::execute::execute;
pub use batch::report::{BatchReport, FailedCommand};
pub(crate) use check::admit;
pub use check::inspect::{Finding, NotTried, ProbeOptions, inspect};
pub use compare::comparison::{Comparison, Found, Look};
pub use compare::difference::{Difference, Differs};
pub use compare::portions::Portions;
pub use plan::planner::Limits;
pub use plan::source::{Presence, Source};
pub use rsync::environment::{Adopted, adopt, own as own_variable, redirects};
pub use rsync::installed::{NoRsync, OLDEST_RSYNC, find_rsync};
pub(crate) use rsync::lingering;
pub use rsync::orphans::end_leftovers;
pub use rsync::read_limit::{can_count, moved};
pub use rsync::ssh_command::by_hand;
pub use rsync::stop::StopSignal;
pub use rsync::under_way::Course;
pub use rsync::version::rsync_version;
pub use target::capabilities::Capabilities;
pub use target::context::TargetContext;
pub use target::deletion_limit::Guard;
pub use target::launch::{command_line, probe};
pub use target::looked::Contents;
pub use target::observer::{Changed, Observer, Operation, Ran};
pub use target::place::Place;
pub(crate) use target::{top, unvouched};
pub use transport::address::{Led, addresses, host_name, led};
pub use transport::confine::{Confinement, Missing, Places, confinement};
pub use transport::root_identity::RootIdentity;
pub use transport::ssh::{Connection, Connections};
pub use transport::standby::{Next, STANDBYS_MAX, Standby, Standbys};

/// For `tools/micro`, which times the parts one by one; of no use to anybody else.
#[doc(hidden)]
pub mod parts {
    pub use super::plan::planner::{Plan, plan};
    pub use super::plan::run::{Deletion, Entry, Run, RunKind};
}

#[cfg(test)]
mod tests;
