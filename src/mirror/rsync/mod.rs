//! The program rsync and its language: how a run is started, watched and ended, and how its lines are read.
//!
//! `installed` finds the program, `version` asks which one it is, `environment` sees to its variables, `program` says what
//! is run and for whom. `process` runs one rsync, `supervision` watches it meanwhile, and `ended` is its result. `capture`
//! keeps its output, `stop` ends it, `blocked` sees it hang in a file, `under_way` how far it has come, `read_limit` how
//! fast it may read. `lingering` knows which data of a dead run is still on its way, `orphans` which processes a dead
//! daemon has left running. `messages`, `itemize` and `stats` read its words, `ssh_command` writes the line of its remote
//! shell.
//!
//! Deliberately absent: jobs, plans, and the meaning of a run's end for either.

pub(super) mod blocked;
pub(super) mod capture;
pub(super) mod ended;
pub(super) mod environment;
pub(super) mod installed;
pub(super) mod itemize;
pub(super) mod lingering;
pub(super) mod messages;
pub(super) mod orphans;
pub(super) mod process;
pub(super) mod program;
pub(super) mod read_limit;
pub(super) mod ssh_command;
pub(super) mod stats;
pub(super) mod stop;
pub(super) mod supervision;
pub(super) mod under_way;
pub(super) mod version;
