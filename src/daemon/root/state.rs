//! The values of a root that change while it is watched: its watcher, its suspension, and the progress of its watermark.
//!
//! Values only, behind the runtime's lock. The code that changes them stands in `watermark`, `suspension` and `catch_up`.

use std::time::Instant;

use crossbeam_channel::Receiver;

use super::sight::Suspension;
use crate::model::{DirectoryChange, Moment};
use crate::watch::Watcher;

/// The state of a root's watcher.
#[derive(Debug, Default)]
pub(super) enum Watching {
    /// Watches are being set.
    #[default]
    Starting,
    On(Watcher),
    /// The tree cannot be watched. Holds the reason.
    Off(Suspension),
}

/// What is known of the changes that nobody watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// Nothing: contents have to be compared.
    Nothing,
    /// The times of changes, by a clock that may have been set meanwhile.
    Dates,
    /// All changes.
    Changes,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) watching: Watching,
    /// Why nothing is sent or deleted, if that is so.
    pub(super) suspended: Option<Suspension>,
    /// The store has recorded the identity of this directory.
    pub(super) remembered: bool,
    /// The tree has been watched at some time since the start.
    pub(super) was_watched: bool,
    /// An operator has agreed to the directory's being empty.
    pub(super) accepts_empty: bool,
    pub(super) checkpoint: Checkpoint,
    /// This runtime may write to the store's record of the tree: no other runtime of the same tree still owns that record.
    pub(super) in_charge: bool,
    /// This runtime has ended for good. A watcher that is still being started is given up.
    pub(super) over: bool,
}

/// The progress of the next move of the watermark.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    /// The watcher has been asked to pass on everything up to this moment.
    pub(super) asked: Option<(Moment, Receiver<Vec<DirectoryChange>>)>,
    /// The watcher has passed on everything up to this moment; the jobs still have to become durable.
    pub(super) reached: Option<Moment>,
    /// Directories that came with the watcher's answer.
    pub(super) directories: Vec<DirectoryChange>,
    /// When the watermark last moved, and how many events had been read when that move began.
    pub(super) last: Option<Instant>,
    pub(super) events: Option<u64>,
}
