//! How a run gets to its target, and what it may touch on the way.
//!
//! `ssh` keeps a connection to each host for all runs, through the sockets of `ssh_sockets`. `standby` has a connection to
//! an rsync daemon ready before a run needs it, for as long as `standby_lifetime` allows. `address` asks where a host's
//! name leads. `confine` keeps an rsync that follows links within source and target, and `shell_files` says what a remote
//! shell has to read. `root_identity` is which directory the source is.
//!
//! Deliberately absent: what a run is to do.

pub(super) mod address;
pub(super) mod confine;
pub(super) mod root_identity;
pub(super) mod shell_files;
pub(super) mod ssh;
pub(super) mod ssh_sockets;
pub(super) mod standby;
pub(super) mod standby_lifetime;
