//! How a run ended, and what is left of it. Values only: what they mean is decided in `outcome`.

use super::blocked::Blocked;
use super::capture::Capture;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    /// Ended by a signal that we did not send.
    Signal(i32),
    /// We ended it, as the stop signal asked.
    Stopped,
    /// We ended it, since nothing moved for the program's `stall_limit`.
    Stalled,
    /// We ended it, since it hung in a file of the source.
    Blocked,
}

/// What is left of a run.
#[derive(Debug, Clone)]
pub struct Ended {
    pub end: End,
    pub stderr: Capture,
    /// Empty unless asked for.
    pub stdout: Capture,
    /// The file in which it hung, if that was its end.
    pub blocked: Option<Box<Blocked>>,
    pub cut: Cut,
}

/// What is known of the connection of a run that was cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cut {
    /// It was not cut off, or had no connection yet.
    #[default]
    No,
    /// It was held, and the other side has closed it: nothing of it is on its way any more, as far as that can know.
    Closed,
    /// It is held until the other side closes it.
    Held,
    /// It had none of its own: it went through another program, if anywhere.
    Unseen,
    /// Whether it had one may not be known.
    Refused,
}
