//! Everything known of one target between batches.
//!
//! `context` holds all parts. `capabilities` is what the other side was found to lack, `place` whether a local target is
//! what it was, `top` whether a target on another machine still holds what it held. `unvouched` and `looked` are about
//! targets for whose contents nobody vouches. `deletion_limit` is how much may be deleted, and `observer` who is told of
//! what changed. `launch` starts a run for a target outside of a batch.
//!
//! Deliberately absent: jobs and their verdicts.

pub(super) mod capabilities;
pub(super) mod context;
pub(super) mod deletion_limit;
pub(super) mod launch;
pub(super) mod looked;
pub(super) mod observer;
pub(super) mod place;
pub(super) mod top;
pub(super) mod unvouched;
