//! A path that differs, and how rsync says so. Pure.
//!
//! Deliberately absent: why, and what becomes of it.

use crate::mirror::rsync::itemize::{difference_of, to_path};
use crate::model::{JobError, PARTIAL_DIR, RelPath};

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub path: RelPath,
    pub what: Differs,
}

/// How the target differs at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Differs {
    /// The target lacks it.
    Missing,
    /// It is something else there: a file for a directory, say.
    Type,
    /// It has other content of the same size, or a link leads elsewhere.
    Content,
    Size,
    /// Its modification time, by which rsync takes its content for another one unless it compares contents.
    Time,
    /// Mode, owner, group, or what else the parameters have rsync carry over.
    Attributes,
    /// It is on the target alone.
    Extra,
    /// It cannot be read here or there, so that nothing is known of it.
    Unreadable(JobError),
}

/// A line of `--out-format='%i %n'` as what differs. What a transfer that broke off has left to go on from is no part of
/// the mirror; a comparison of the whole tree deletes it.
pub(super) fn read(line: &[u8]) -> Option<Difference> {
    let found = difference_of(line)?;
    let path = to_path(&found.name)?;
    // `cstpoguax`: content, size, time, and then what is an attribute to everybody. A blank column is none.
    let has = |at: usize| found.attributes.get(at).is_some_and(|column| !b". ".contains(column));
    let what = match () {
        () if found.deletes => Differs::Extra,
        () if found.attributes.starts_with(b"+") => Differs::Missing,
        () if has(1) => Differs::Size,
        () if has(0) => Differs::Content,
        () if has(2) => Differs::Time,
        () => Differs::Attributes,
    };
    let is_ours =
        what == Differs::Extra && path.as_bytes().split(|&b| b == b'/').any(|name| name == PARTIAL_DIR.as_bytes());
    (!is_ours).then_some(Difference { path, what })
}
