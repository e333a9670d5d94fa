//! Questions to rsync in advance, for `check` and `explain`.
//!
//! `inspect` asks a target with mirroring's own argument lists, `admit` asks rsync what the user's own options leave out.
//!
//! Deliberately absent: anything that sends or deletes.

pub(super) mod admit;
pub(super) mod inspect;
