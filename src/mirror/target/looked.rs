//! What was found when a target was looked at, and how long that holds. How one is looked at is said in `top` and
//! `unvouched`.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::filter::{Filter, Kind};
use crate::model::RelPath;

/// How long a look holds while something is being sent, and how soon another is taken that had nothing to remember.
const HOLDS_FOR: Duration = Duration::from_secs(60);
const EMPTY_FOR: Duration = Duration::from_secs(10);

/// When the target was looked at.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    at: Option<Instant>,
    /// Something has happened since that makes it uncertain.
    in_doubt: bool,
}

impl Looked {
    pub fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// Whether to look before the next run.
    pub fn is_due(&self) -> bool {
        self.at.is_none() || self.in_doubt
    }

    /// Whether to look after a run. `is_known`: there is something to go by.
    pub fn is_stale(&self, is_known: bool, now: Instant) -> bool {
        let holds_for = if is_known { HOLDS_FOR } else { EMPTY_FOR };
        self.at.is_none_or(|at| now.duration_since(at) >= holds_for)
    }

    pub fn note(&mut self, now: Instant) {
        *self = Self { at: Some(now), in_doubt: false };
    }
}

/// What is known of what a target holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Equal size and time mean equal content, unless a job says otherwise.
    Vouched,
    /// They may not.
    Unvouched,
}

/// What stands at the top of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Nothing,
    /// Names, but none that the source has as well.
    Others,
    /// What the source has as well, or nobody knows what.
    Shared,
}

impl Holds {
    /// `names`: whether the source has each of them as well.
    pub(crate) fn by(names: impl Iterator<Item = bool>) -> Self {
        names.fold(
            Self::Nothing,
            |holds, is_shared| if is_shared || holds == Self::Shared { Self::Shared } else { Self::Others },
        )
    }
}

/// Whether the source has that name at its top, and it is mirrored.
pub(crate) fn is_shared(root: &Path, filter: &Filter, name: &[u8]) -> bool {
    let Ok(path) = RelPath::new(name) else { return false };
    match std::fs::symlink_metadata(path.under(root)) {
        Ok(found) if found.is_dir() => !filter.excludes(&path, Kind::Directory),
        Ok(_) => !filter.excludes(&path, Kind::File),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
