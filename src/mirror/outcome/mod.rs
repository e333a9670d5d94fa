//! The meaning of an ended run.
//!
//! `classify` reads exit code and words together, `attribution` finds the entries that a message is about, `diagnosis`
//! knows rsync's sentences and says what to do about each, and `noise` knows the lines that a target prints in every run.
//! Pure.
//!
//! Deliberately absent: what follows for a job.

pub(super) mod attribution;
pub(super) mod classify;
pub(super) mod diagnosis;
pub(super) mod noise;
