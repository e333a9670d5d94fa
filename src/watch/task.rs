//! Work that the tracker does between two reads of the kernel's queue, as values: what is to be listed or searched, and how
//! a directory is looked into. Nothing is looked at here.

use super::table::Wd;
use crate::model::Timestamp;

/// Work that is done between reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Task {
    /// List a directory, watch what is found and look into it in turn.
    List { wd: Wd, walk: Walk },
    /// Look for further names of files in a directory, and then in those below it.
    Seek { wd: Wd },
    /// The search for names is done for the whole tree.
    Sought,
    /// Report the whole tree at a directory. This task lies below the listing of that tree on the stack, so it is done
    /// after the listing.
    Report { wd: Wd, fresh: bool },
    /// The whole tree is watched for the first time.
    Started,
}

/// How a directory is looked into. The default looks only into directories that are not known: they are watched, and
/// looked into in turn, and nothing is reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Walk {
    /// Also look into directories that are known already.
    pub deep: bool,
    /// Report new directories one by one.
    pub report: bool,
    /// Report the whole of each directory that is not known.
    pub report_whole: bool,
    /// Report what changed from this time on by its `ctime`, and all of each directory that was not known.
    pub since: Option<Timestamp>,
    /// Only with `since`: the directory was not in the stored table, so all of it is reported whatever its `ctime` says.
    pub is_unknown: bool,
    /// Only with `since`: all of the directory, or of one above, is reported, but for changes that the quick check cannot
    /// see.
    pub is_reported: bool,
    /// Only with `since`: also report the other names of changed files, since the walk does not come to all of the tree.
    pub names: bool,
    /// Leave it to rsync's quick check to find out which of the changed files are on the targets already.
    pub quick: bool,
}

impl Walk {
    pub const DEEP: Self = Self {
        deep: true,
        report: false,
        report_whole: false,
        since: None,
        is_unknown: false,
        is_reported: false,
        names: false,
        quick: false,
    };
}

impl Walk {
    /// A walk through a tree that is reported as a whole, for changes since `since` that the quick check may not see.
    pub fn reported(since: Option<Timestamp>) -> Self {
        Self { since, is_reported: true, names: true, ..Self::DEEP }
    }
}

/// The place of a directory under a name, by the kernel and the table together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// The directory was there already.
    Known(Wd),
    New(Wd),
    /// The directory was known under another name.
    Moved(Wd),
    /// The directory is not there any more, or is one that cannot have two places in the table.
    Not,
}

impl Placed {
    pub fn wd(self) -> Option<Wd> {
        match self {
            Self::Known(wd) | Self::New(wd) | Self::Moved(wd) => Some(wd),
            Self::Not => None,
        }
    }
}
