//! A path that differs, and how. Read from rsync's output. Pure.
//!
//! Deliberately absent: why the path differs, and what follows from that.

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
    /// The target lacks the path.
    Missing,
    /// The target has something of another type there: a file for a directory, say.
    Type,
    /// The target has other content of the same size, or a link that leads elsewhere.
    Content,
    Size,
    /// The modification time differs, so rsync takes the content for different unless it compares contents.
    Time,
    /// Mode, owner, group, or another attribute that the parameters have rsync preserve.
    Attributes,
    /// Only the target has the path.
    Extra,
    /// The path cannot be read at the source or on the target, so nothing is known of it.
    Unreadable(JobError),
}

/// The difference in a line of `--out-format='%i %n'`. The partial file of a transfer that broke off is no part of the
/// mirror; a comparison of the whole tree deletes it.
pub(super) fn read(line: &[u8]) -> Option<Difference> {
    let found = difference_of(line)?;
    let path = to_path(&found.name)?;
    // The columns are `cstpoguax`: content, size, time, and then attributes. A blank column means no difference.
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
