//! Changes as the watcher and the scan report them: a path of a root may differ from its mirrors. Pure values.

use std::time::Duration;

use super::{Origin, RelPath, Scope};

/// When a changed path should be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// The change is complete.
    Now,
    /// More may come: send once nothing has been reported for this long. Each further report begins the wait anew.
    Quiet(Duration),
    /// More may come, but the target should follow: send this long after the first report.
    Within(Duration),
}

/// One path that may differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub path: RelPath,
    pub scope: Scope,
    pub origin: Origin,
    pub settle: Settle,
    /// The path is a directory that has just come into being under this name. If work for an older thing of that name, or
    /// for anything below it, is still pending or running, the target may hold remains of the older thing: the queue then
    /// widens the job to a subtree.
    pub fresh: bool,
    /// The path is a file that has just been made under a free name: the target has nothing to compare the file with.
    pub is_new: bool,
    /// The path from which the content here has just been moved. The hint saves sending the content again: nothing but
    /// cost depends on it. For a directory it also says that nothing else is known to have changed in either place.
    pub moved_from: Option<RelPath>,
    /// The number of the file at the path, if the file has several names and a target is to have them as names of one
    /// file. Then all of these names have to go in one run.
    pub several_names: Option<u64>,
    /// A directory was at the path and is gone. This is for those who tell others of changes; mirroring looks for itself.
    pub gone_directory: bool,
}

impl Change {
    /// A finished change of the path itself whose content may be new.
    pub fn write(path: RelPath) -> Self {
        Self {
            path,
            scope: Scope::Entry,
            origin: Origin::Write,
            settle: Settle::Now,
            fresh: false,
            moved_from: None,
            several_names: None,
            is_new: false,
            gone_directory: false,
        }
    }

    /// A change that rsync's quick check can see: a deletion, an attribute, something a walk found.
    pub fn scan(path: RelPath, scope: Scope) -> Self {
        Self { scope, origin: Origin::Scan, ..Self::write(path) }
    }

    /// The whole tree is to be compared.
    pub fn whole_tree() -> Self {
        Self { origin: Origin::Reconcile, ..Self::scan(RelPath::root(), Scope::Subtree) }
    }
}
