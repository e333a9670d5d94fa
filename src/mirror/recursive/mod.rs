//! The executor that `batch` replaces, kept for one commit: in it each way to carry out a run calls the others.
//! `tests/chance` holds both to the same runs and verdicts. Only tests see it.

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
