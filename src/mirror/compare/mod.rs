//! What differs between a target and the source, found without changing anything.
//!
//! `comparison` has rsync look and reads what it lists, `difference` is one line of that, `spool` keeps differences on disk, and `portions` is the tree's
//! files in an order that can be gone on with.
//!
//! Deliberately absent: jobs. Whoever compares decides what becomes of a difference.

pub(super) mod comparison;
pub(super) mod difference;
pub(super) mod portions;
pub(super) mod spool;
