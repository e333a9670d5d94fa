//! What an ended run means.
//!
//! `classify` reads exit code and words together, `attribution` finds the entries that a message is about, `diagnosis` knows
//! rsync's sentences and says what to do about each, and `noise` what a target's runs say in any case. Pure.
//!
//! Deliberately absent: what a meaning does to a job.

pub(super) mod attribution;
pub(super) mod classify;
pub(super) mod diagnosis;
pub(super) mod noise;
