//! What operators ask, answered: a file for each kind of question.
//!
//! [`view`] is the running daemon as the control socket asks it. Each request is a method there. Requests that take more than a
//! look go on to `jobs` (`list`, `retry`, `purge`, `pause`, `reconcile`), `explain`, `verify` and `wait`. `paths` finds the
//! root that a path belongs to, `status` puts a target's figures into words, and `summary` puts all figures into one line.
//! [`offline`] answers without a daemon, from the store alone.
//!
//! Deliberately absent: sockets and HTTP, which are `control`'s.

mod explain;
mod jobs;
pub mod offline;
mod paths;
mod status;
pub(super) mod summary;
pub(super) mod verify;
pub(super) mod view;
mod wait;
