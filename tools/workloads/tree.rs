//! The content of a directory tree, and its comparison with a mirror.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use walkdir::WalkDir;

use crate::support::is_root;

/// The properties that have to be equal on both sides. Times of directories are left out, since not every peer promises them.
/// Content is compared separately, because reading it would cost too much during a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    mode: u32,
    size: u64,
    mtime_ns: i128,
    link: Option<PathBuf>,
}

impl Entry {
    /// Looks at one path; `None` if nothing is there.
    pub fn at(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().map(|metadata| Self::of(path, &metadata))
    }

    fn of(path: &Path, metadata: &Metadata) -> Self {
        let is_file = metadata.is_file();
        let link = (metadata.is_symlink() && is_root()).then(|| fs::read_link(path).unwrap_or_default());
        Self {
            mode: metadata.mode(),
            size: if is_file { metadata.size() } else { 0 },
            mtime_ns: if is_file {
                i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
            } else {
                0
            },
            link,
        }
    }

    fn is_file(&self) -> bool {
        rustix::fs::FileType::from_raw_mode(self.mode).is_file()
    }
}

/// The entries of a tree by their path below its root, without the root itself.
pub type Tree = BTreeMap<PathBuf, Entry>;

/// Walks the tree at `root`. Entries that vanish meanwhile are left out.
pub fn read(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    for found in WalkDir::new(root).min_depth(1) {
        let Ok(found) = found else { continue };
        let Ok(metadata) = found.metadata() else { continue };
        let path = found.path().strip_prefix(root).context("the walk left its root")?;
        tree.insert(path.to_path_buf(), Entry::of(found.path(), &metadata));
    }
    Ok(tree)
}

/// The first difference between the tree at `source`, known as `expected`, and the mirror at `target`, in words.
pub fn difference(source: &Path, expected: &Tree, target: &Path) -> Result<Option<String>> {
    let actual = read(target)?;
    if let Some(path) = actual.keys().find(|path| !expected.contains_key(*path)) {
        return Ok(Some(format!("{} should not be there", target.join(path).display())));
    }
    for (path, entry) in expected {
        let copy = target.join(path);
        match actual.get(path) {
            None => return Ok(Some(format!("{} is missing", copy.display()))),
            Some(other) if other != entry => return Ok(Some(format!("{} has other attributes", copy.display()))),
            Some(_) if entry.is_file() && entry.size > 0 && !same_content(&source.join(path), &copy) => {
                return Ok(Some(format!("{} has other content", copy.display())));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

/// Whether two files can be read and hold the same bytes.
fn same_content(a: &Path, b: &Path) -> bool {
    let compare = || -> std::io::Result<bool> {
        const CHUNK_BYTES: u64 = 1 << 20;
        let (mut a, mut b) = (File::open(a)?, File::open(b)?);
        let (mut left, mut right) = (Vec::new(), Vec::new());
        loop {
            left.clear();
            right.clear();
            a.by_ref().take(CHUNK_BYTES).read_to_end(&mut left)?;
            b.by_ref().take(CHUNK_BYTES).read_to_end(&mut right)?;
            if left != right || left.is_empty() {
                return Ok(left == right);
            }
        }
    };
    compare().unwrap_or(false)
}
