//! Looks at the source: what stands at a path now. The only part of planning that performs I/O.
//!
//! Each path and each of its ancestors is looked at once per batch and never through a symbolic link: below the root
//! a link is an entry of its own, whatever it points to.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::model::{Params, RelPath};

/// The kind of thing that stands at a path of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Missing,
    Directory,
    File {
        size: u64,
    },
    /// A symbolic link, fifo, socket or device. Also a path too long to be looked at, so that rsync meets the same obstacle
    /// and names it.
    Other,
    /// The path could not be looked at, for this reason. It may exist or not, so nothing is concluded, sent or deleted.
    Unknown(Errno),
}

/// Remembers the presence of every path that it was asked about, so that a batch is planned on one picture of the tree.
#[derive(Debug)]
pub struct Source {
    root: PathBuf,
    /// Whether a link counts as what it points to.
    follows: bool,
    seen: HashMap<RelPath, Presence>,
}

impl Source {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), follows: false, seen: HashMap::new() }
    }

    /// The source as rsync sees it when it looks for itself: behind links too, if the user's options follow them.
    pub(in crate::mirror) fn as_rsync_finds_it(root: &Path, params: &Params) -> Self {
        Self { follows: params.follows_links(), ..Self::new(root) }
    }

    /// Tells what stands at `path`. Below anything that is not a directory nothing stands.
    pub fn look(&mut self, path: &RelPath) -> Presence {
        if let Some(presence) = self.seen.get(path) {
            return *presence;
        }
        let presence = match path.parent() {
            // The root is the operator's choice, even a link; its identity is checked elsewhere.
            None => Presence::Directory,
            Some(parent) => match self.look(&parent) {
                Presence::Directory => present(&path.under(&self.root), self.follows),
                Presence::Missing | Presence::File { .. } | Presence::Other => Presence::Missing,
                // The path is not looked at itself. If its parent has become readable just now, the path would count as
                // looked at although its ancestors do not.
                Presence::Unknown(errno) => Presence::Unknown(errno),
            },
        };
        self.seen.insert(path.clone(), presence);
        presence
    }

    /// The entries of a directory that are not `is_listed`. `None`: there are more than `max`, or the directory cannot be
    /// read.
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
