//! The work of one rsync.
//!
//! `source` looks what stands at a path, `walk` finds what changed below a path, and `planner` makes the fewest runs of a
//! batch. Each run is a value of `run`. `arguments` writes a run's argument list and list of names, and `shell_line` the
//! line that a person may paste. `narrow` cuts a run in which rsync looks for itself down to what has changed, `contents`
//! decides whether contents are compared or sent. Pure, except for the files that look at the source.
//!
//! Deliberately absent: processes. Nothing here starts one.

pub(super) mod arguments;
pub(super) mod contents;
pub(super) mod narrow;
pub(super) mod planner;
pub(super) mod run;
pub(super) mod shell_line;
pub(super) mod source;
pub(super) mod walk;
