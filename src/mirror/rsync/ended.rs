//! How a run ended, and what it left. Values only: `outcome` decides what they mean.

use super::blocked::Blocked;
use super::capture::Capture;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    /// A signal ended the run that did not come from this process.
    Signal(i32),
    /// This process ended the run, as the stop signal asked.
    Stopped,
    /// This process ended the run, since no byte moved for the program's `stall_limit`.
    Stalled,
    /// This process ended the run, since the run hung in a file of the source.
    Blocked,
}

/// The end and the output of a run.
#[derive(Debug, Clone)]
pub struct Ended {
    pub end: End,
    pub stderr: Capture,
    /// Empty unless the caller asked for it.
    pub stdout: Capture,
    /// The file in which the run hung, if `end` is [`End::Blocked`].
    pub blocked: Option<Box<Blocked>>,
    pub cut: Cut,
}

/// The known state of the connection of a run that was cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cut {
    /// The run was not cut off, or had no connection yet.
    #[default]
    No,
    /// The connection was held, and the other side has closed it: none of its data is on its way any more, as far as the
    /// other side can know.
    Closed,
    /// The connection is held until the other side closes it.
    Held,
    /// The run had no connection of its own: it went through another program, if anywhere.
    Unseen,
    /// Whether the run had a connection cannot be known: the system refused a look.
    Refused,
}
