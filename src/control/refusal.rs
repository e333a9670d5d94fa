//! The reasons why a request is refused. `answer` turns them into HTTP statuses.

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
    /// What an operator can do about it.
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request makes no sense.
    Wrong,
    /// There is no such target, root or path.
    Unknown,
    /// Not possible at present.
    Unavailable,
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: Some(hint.into()) }
    }

    pub(super) fn needs_daemon() -> Self {
        Self::new(RefusalKind::Unavailable, "this needs a running daemon", "start it: syncq run -o FILE")
    }
}
