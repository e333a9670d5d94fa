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
//! [`execute`] takes a batch through these rooms. [`Comparison`] and [`inspect`] are the other two ways in.
//!
//! Invariant: only this module starts rsync, and it knows nothing of the queue or the store: jobs come in as values,
//! verdicts go out as values. [`crate::dispatch`] hands claimed jobs to workers and their verdicts back.

mod batch;
mod check;
mod compare;
mod outcome;
mod plan;
mod rsync;
mod target;
mod transport;

// The door: everything that other modules may use of these rooms. Whatever is not named here stays inside.

// One batch, from its jobs to its verdicts.
pub use batch::execute::execute;
// The result of a batch.
pub use batch::report::BatchReport;

// One target: everything known of it between batches. All runs for a target start from its context.
pub use target::context::TargetContext;
// How much may be deleted on a target, and what an operator has agreed to.
pub use target::deletion_limit::Guard;
// The directory of a target on this machine, and whether it still is what it was.
pub use target::place::Place;
// The directory that a source is, whatever its path leads to.
pub use transport::root_identity::RootIdentity;
// The limits of a batch.
pub use plan::planner::Limits;
// Whether somebody vouches for a target's contents, and how that is found out.
pub use target::looked::Contents;
pub(crate) use target::unvouched::contents as contents_of;
// Whether a target on another machine still holds what it held.
pub(crate) use target::top::look as top_of;
// Who is told of changes on a target, and of which.
pub use target::observer::{Changed, Observer, Operation, Ran};

// The differences on a target, by any kind of look, and which part of a tree is next.
pub use compare::comparison::{Comparison, Look};
pub use compare::difference::{Difference, Differs};
pub use compare::portions::Portions;
// Whether the bytes that a process reads can be counted, and how much a process has done so far.
pub use rsync::read_limit::{can_count, moved};

// Questions in advance, and their answers.
pub use check::inspect::{Finding, NotTried, ProbeOptions, inspect};
// Why the user's own options leave out a path.
pub(crate) use check::admit::left_out;
// The kind of thing at a path of the source.
pub use plan::source::{Presence, Source};
// Text that an operator can paste into a shell: the run for a path, and a hint with the way to the host.
pub use rsync::ssh_command::by_hand;
pub use target::launch::command_line;

// The connections that batches share: to hosts through ssh, and to rsync daemons ahead of need.
pub use transport::ssh::Connections;
pub use transport::standby::{Next, STANDBYS_MAX, Standby, Standbys};
// Whether a host's name leads to the same servers as before.
pub use transport::address::{Led, addresses, host_name, led};
// Whether rsync is confined to source and target, and which directories these are.
pub use transport::confine::{Confinement, Places, confinement};

// Which rsync is installed.
pub use rsync::installed::{NoRsync, OLDEST_RSYNC, find_rsync};
pub use rsync::version::rsync_version;
// The fate of the environment variables that rsync reads.
pub use rsync::environment::{Adopted, adopt, own as own_variable, redirects};
// Ends runs from outside.
pub use rsync::stop::StopSignal;
// How far a long run has come.
pub use rsync::under_way::Course;
// Whether data of a dead run may still be on its way, and how the processes that a dead daemon has left are ended.
pub(crate) use rsync::lingering::is_any as anything_lingers;
pub use rsync::orphans::end_leftovers;

/// For `tools/micro`, which times the parts one by one; nothing else uses this.
#[doc(hidden)]
pub mod parts {
    pub use super::plan::planner::{Plan, plan};
    pub use super::plan::run::{Deletion, Entry, Run, RunKind};
}

#[cfg(test)]
mod tests;
