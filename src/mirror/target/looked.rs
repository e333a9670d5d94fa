//! The result of a look at a target, and how long it holds. `top` and `unvouched` know how a look is taken.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::filter::{Filter, Kind};
use crate::model::RelPath;

/// How long a look holds while something is being sent; the second, if the look found nothing to remember.
const HOLDS_FOR: Duration = Duration::from_secs(60);
const EMPTY_FOR: Duration = Duration::from_secs(10);

/// When a target was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    at: Option<Instant>,
    /// Something has happened since the look that makes its result uncertain.
    in_doubt: bool,
}

impl Looked {
    pub fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// Whether a look is due before the next run.
    pub fn is_due(&self) -> bool {
        self.at.is_none() || self.in_doubt
    }

    /// Whether a look is due after a run. `is_known`: names are remembered by which the target can be told.
    pub fn is_stale(&self, is_known: bool, now: Instant) -> bool {
        let holds_for = if is_known { HOLDS_FOR } else { EMPTY_FOR };
        self.at.is_none_or(|at| now.duration_since(at) >= holds_for)
    }

    pub fn note(&mut self, now: Instant) {
        *self = Self { at: Some(now), in_doubt: false };
    }
}

/// Whether a target's contents can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Equal size and time mean equal content, unless a job says otherwise.
    Vouched,
    /// Equal size and time do not mean equal content.
    Unvouched,
}

/// The names at the top of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Nothing,
    /// Names, none of which the source has as well.
    Others,
    /// At least one name that the source has as well, or nobody knows which names.
    Shared,
}

impl Holds {
    /// `names` tells of each name whether the source has it as well.
    pub(crate) fn by(names: impl Iterator<Item = bool>) -> Self {
        names.fold(
            Self::Nothing,
            |holds, is_shared| if is_shared || holds == Self::Shared { Self::Shared } else { Self::Others },
        )
    }
}

/// Whether the source has this name at its top, and mirrors it.
pub(crate) fn is_shared(root: &Path, filter: &Filter, name: &[u8]) -> bool {
    let Ok(path) = RelPath::new(name) else { return false };
    match std::fs::symlink_metadata(path.under(root)) {
        Ok(found) if found.is_dir() => !filter.excludes(&path, Kind::Directory),
        Ok(_) => !filter.excludes(&path, Kind::File),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
