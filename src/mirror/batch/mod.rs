//! One batch, carried out.
//!
//! `execute` takes a batch from its jobs to its verdicts and decides the order. It alone takes pieces of `work` from a
//! stack, and no file here calls back into one that has called it. `session` starts the runs, `engine` carries one through
//! with fallbacks, verifying and halving, `verdicts` settles the jobs, `deletions` sees to what is deleted, as
//! `deletion_judge` judges it, `itemized` keeps what changed, and `report` is the result of a batch. Four files know other ways than one run by its own list:
//! `short_list`, `filtered` (under a filter that rsync's rules cannot say), `sweep`, `rename`. `stale_temporaries` removes
//! what killed receivers have left, `times` finds out how exactly a target keeps times.
//!
//! Deliberately absent: which batch is next, and what a verdict does to a job.

mod deletion_judge;
pub(super) mod deletions;
pub(super) mod engine;
pub(super) mod execute;
pub(super) mod filtered;
pub(super) mod itemized;
pub(super) mod rename;
pub(super) mod report;
pub(super) mod session;
pub(super) mod short_list;
pub(super) mod stale_temporaries;
pub(super) mod sweep;
pub(super) mod times;
pub(super) mod verdicts;
pub(super) mod work;
