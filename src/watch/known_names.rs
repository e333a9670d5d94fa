//! The state of files with several names: the names, which files are searched for, and since when. How names are found
//! and reported is in `links`.

use std::collections::HashMap;
use std::time::Instant;

use super::table::Wd;
use crate::model::{Moment, Origin, Settle};

/// The most names that are remembered, about 200 bytes each. Above that all are forgotten, and searched for again if need
/// be.
const NAMES_MAX: usize = 65_536;

/// The known names of an inode. Inodes of several file systems may have the same number, so each use looks at the file.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) names: Vec<(Wd, Box<[u8]>)>,
    /// The whole tree was searched for the inode, and each name that has come since was learnt.
    pub(super) is_complete: bool,
}

/// How a file that is searched for has changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) origin: Origin,
    pub(super) settle: Settle,
}

/// The names of all files that are known to have several.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) known: HashMap<u64, Known>,
    /// The inode of each known name.
    pub(super) inodes: HashMap<(Wd, Box<[u8]>), u64>,
    /// Names in closed directories through which something was written.
    pub(super) unseen: Vec<(Wd, Box<[u8]>, Wanted)>,
    /// When the first of these writes was.
    pub(super) unseen_since: Option<Moment>,
    pub(super) wanted: HashMap<u64, Wanted>,
    /// The inodes that the search under way is for; `begun` says since when it runs.
    pub(super) sought: HashMap<u64, Wanted>,
    pub(super) begun: Option<Instant>,
    pub(super) not_before: Option<Instant>,
}

impl Links {
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.sought.is_empty()
    }

    /// Whether one more name can be remembered without forgetting others.
    pub(super) fn has_room(&self) -> bool {
        self.inodes.len() < NAMES_MAX
    }

    pub(super) fn learn(&mut self, inode: u64, dir: Wd, name: &[u8]) {
        if !self.has_room() {
            self.known.clear();
            self.inodes.clear();
        }
        let known = self.known.entry(inode).or_default();
        if !known.names.iter().any(|(at, called)| *at == dir && **called == *name) {
            known.names.push((dir, name.into()));
        }
        self.inodes.insert((dir, name.into()), inode);
    }
}
