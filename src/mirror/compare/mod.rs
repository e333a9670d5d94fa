//! Finds the differences between a target and the source, without changing anything.
//!
//! `comparison` has rsync look and reads its listing, `difference` is one line of the listing, `spool` keeps differences on
//! disk, and `portions` is the tree's files in an order in which a broken off comparison can go on.
//!
//! Deliberately absent: jobs. The caller decides what becomes of a difference.

pub(super) mod comparison;
pub(super) mod difference;
pub(super) mod portions;
pub(super) mod spool;
