//! What changes about a root while it is watched: its watcher, why nothing is sent, and how far the watermark has come.
//!
//! Values only, behind the runtime's lock. What moves them stands in `watermark`, `suspension` and `catch_up`.

use std::time::Instant;

use crossbeam_channel::Receiver;

use super::sight::Suspension;
use crate::model::{DirectoryChange, Moment};
use crate::watch::Watcher;

/// How the watcher of a root stands.
#[derive(Debug, Default)]
pub(super) enum Watching {
    /// Watches are being set.
    #[default]
    Starting,
    On(Watcher),
    /// The tree cannot be watched; why.
    Off(Suspension),
}

/// What is known of the changes while nobody watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// Nothing: contents have to be compared.
    Nothing,
    /// What the times of changes tell, by a clock that may have been another one meanwhile.
    Dates,
    /// All of them.
    Changes,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) watching: Watching,
    /// Why nothing is sent, if so.
    pub(super) suspended: Option<Suspension>,
    /// The store knows which directory this is.
    pub(super) remembered: bool,
    /// The tree has been watched since the start.
    pub(super) was_watched: bool,
    /// An operator has agreed to its being empty.
    pub(super) accepts_empty: bool,
    pub(super) checkpoint: Checkpoint,
    /// No other runtime of the same tree is to be asked before this one touches what the store knows of it.
    pub(super) in_charge: bool,
    /// Ended for good. A watcher that is still being started then is given up.
    pub(super) over: bool,
}

/// How far the next move of the watermark has come.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    /// The watcher has been asked to pass on everything up to this moment.
    pub(super) asked: Option<(Moment, Receiver<Vec<DirectoryChange>>)>,
    /// It has; the jobs have to be durable yet.
    pub(super) reached: Option<Moment>,
    /// Came with it.
    pub(super) directories: Vec<DirectoryChange>,
    /// When the watermark last moved, and how many events had been read when that was begun.
    pub(super) last: Option<Instant>,
    pub(super) events: Option<u64>,
}
