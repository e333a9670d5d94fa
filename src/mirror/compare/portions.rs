//! The files of a source in a fixed order, portion by portion, so that a comparison that takes days can go on after a
//! restart where it was.
//!
//! The order is that of the components of paths, compared as bytes. A file that comes into being or is renamed behind the
//! present place is not visited: events tell of it.
//! place is not visited: events tell of it.

use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::filter::{Filter, Kind};
use crate::model::RelPath;

/// An iterator over the files of a source; see the module's documentation.
#[derive(Debug)]
pub struct Portions {
    root: PathBuf,
    filter: Arc<Filter>,
    /// Directories from the root down, each with its names that are still to come, the next one last.
    stack: Vec<(RelPath, Vec<Vec<u8>>)>,
    /// Paths up to this one in the order were visited before; the root if none was.
    after: RelPath,
}

impl Portions {
    /// The mirrored files below `root` that come after the path `after`.
    pub fn new(root: PathBuf, filter: Arc<Filter>, after: RelPath) -> Self {
        let mut portions = Self { root, filter, stack: Vec::new(), after };
        portions.list(RelPath::root());
        portions
    }

    /// The next files: at most `files_max`, and no more once they hold `bytes_max`. Empty at the end.
    pub fn next(&mut self, files_max: usize, bytes_max: u64) -> Vec<RelPath> {
        let (mut paths, mut bytes) = (Vec::new(), 0_u64);
        while paths.len() < files_max && bytes < bytes_max {
            let Some((dir, names)) = self.stack.last_mut() else { break };
            let Some(name) = names.pop() else {
                self.stack.pop();
                continue;
            };
            let path = dir.join(&name);
            let is_next = self.after.is_root() || path.components().gt(self.after.components());
            if !is_next && !path.covers(&self.after) {
                continue;
            }
            let Ok(found) = std::fs::symlink_metadata(path.under(&self.root)) else { continue };
            if found.is_dir() && !self.filter.excludes(&path, Kind::Directory) {
                self.list(path);
            } else if is_next && found.is_file() && !self.filter.excludes(&path, Kind::File) {
                bytes = bytes.saturating_add(found.len());
                paths.push(path);
            }
        }
        paths
    }

    fn list(&mut self, dir: RelPath) {
        // A directory that cannot be read is skipped; comparisons of the tree report it.
        let Ok(entries) = std::fs::read_dir(dir.under(&self.root)) else { return };
        let mut names: Vec<Vec<u8>> = entries.flatten().map(|entry| entry.file_name().into_vec()).collect();
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.stack.push((dir, names));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A comparison that began anew with each restart would never end on a large tree.
    #[test]
    fn every_file_is_visited_once_wherever_it_was_broken_off() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a/x", "a/y/z", "a!", "a/b/c/d", "left/out", "z/.hidden"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "12345").unwrap();
        }
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let filter = Arc::new(Filter::new(&["^left".to_owned()], false).unwrap());
        let all = ["a/b/c/d", "a/x", "a/y/z", "a!", "b", "z/.hidden"];
        let portions = |after: &str| {
            let after = RelPath::new(after.as_bytes()).unwrap();
            Portions::new(dir.path().to_path_buf(), Arc::clone(&filter), after)
        };
        let names = |paths: Vec<RelPath>| paths.iter().map(RelPath::to_string).collect::<Vec<_>>();
        assert_eq!(names(portions("").next(9, 99)), all);
        for (at, last) in all.iter().enumerate() {
            let mut rest = portions(last);
            assert_eq!(names(rest.next(9, 99)), all[at + 1..], "after {last}");
            assert!(rest.next(9, 99).is_empty());
        }
        let mut by_size = portions("");
        assert_eq!(names(by_size.next(9, 6)), all[..2]);
        assert_eq!(names(by_size.next(1, 99)), all[2..3]);
        // The file that was visited last is gone meanwhile.
        assert_eq!(names(portions("a/y").next(9, 99)), all[2..]);
    }
}
