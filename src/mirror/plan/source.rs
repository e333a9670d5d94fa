//! Looks at the source: what stands at a path now. The only part of planning that performs I/O.
//!
//! Each path and each of its ancestors is looked at once per batch and never through a symbolic link: below the root
//! a link is an entry of its own, whatever it points to.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::model::{Params, RelPath};

/// What stands at a path of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Missing,
    Directory,
    File {
        size: u64,
    },
    /// A symbolic link, fifo, socket or device; also what has too long a path to be looked at, so that rsync meets the same
    /// obstacle and names it.
    Other,
    /// It could not be looked at, for this reason. There or not: nothing may be concluded from it, and nothing be sent.
    Unknown(Errno),
}

/// Remembers what it has seen, so that a batch is planned on one picture of the tree.
#[derive(Debug)]
pub struct Source {
    root: PathBuf,
    /// Whether what a link points to stands in its place.
    follows: bool,
    seen: HashMap<RelPath, Presence>,
}

impl Source {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), follows: false, seen: HashMap::new() }
    }

    /// What rsync names when it has looked for itself: behind links too, if the user's options follow them.
    pub(in crate::mirror) fn as_rsync_finds_it(root: &Path, params: &Params) -> Self {
        Self { follows: params.follows_links(), ..Self::new(root) }
    }

    /// Tells what stands at `path`. Below anything that is not a directory nothing stands.
    pub fn look(&mut self, path: &RelPath) -> Presence {
        if let Some(presence) = self.seen.get(path) {
            return *presence;
        }
        let presence = match path.parent() {
            // The root is the operator's to choose, a link included; its identity is checked elsewhere.
            None => Presence::Directory,
            Some(parent) => match self.look(&parent) {
                Presence::Directory => present(&path.under(&self.root), self.follows),
                Presence::Missing | Presence::File { .. } | Presence::Other => Presence::Missing,
                // Without asking again: a directory that has just been opened would let a path be taken for looked at whose
                // ancestors were not.
                Presence::Unknown(errno) => Presence::Unknown(errno),
            },
        };
        self.seen.insert(path.clone(), presence);
        presence
    }

    /// What else there is in a directory beside what `is_listed`. `None`: more than `max`, or it cannot be read.
    pub fn others(&self, directory: &RelPath, is_listed: &dyn Fn(&[u8]) -> bool, max: usize) -> Option<Vec<RelPath>> {
        let mut others = Vec::new();
        for entry in std::fs::read_dir(directory.under(&self.root)).ok()? {
            let name = entry.ok()?.file_name();
            if !is_listed(name.as_bytes()) {
                others.push(directory.join(name.as_bytes()));
            }
            if others.len() > max {
                return None;
            }
        }
        Some(others)
    }
}

fn present(path: &Path, follows: bool) -> Presence {
    let behind = if follows { std::fs::metadata(path).ok() } else { None };
    match behind.map_or_else(|| std::fs::symlink_metadata(path), Ok) {
        Ok(found) if found.is_dir() => Presence::Directory,
        Ok(found) if found.is_file() => Presence::File { size: found.len() },
        Ok(_) => Presence::Other,
        Err(error) => match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
            Errno::NOENT | Errno::NOTDIR => Presence::Missing,
            Errno::NAMETOOLONG => Presence::Other,
            errno => Presence::Unknown(errno),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn nothing_stands_behind_a_symlink() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("real/sub")).unwrap();
        std::fs::write(dir.path().join("real/f"), b"12345").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let mut source = Source::new(dir.path());
        for (name, expected) in [
            ("", Presence::Directory),
            ("real", Presence::Directory),
            ("real/f", Presence::File { size: 5 }),
            ("real/f/x", Presence::Missing),
            ("link", Presence::Other),
            ("link/f", Presence::Missing),
            ("gone/deep/er", Presence::Missing),
        ] {
            assert_eq!(source.look(&path(name)), expected, "{name}");
        }
    }
}
