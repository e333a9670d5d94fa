//! A mirror in memory, to which reported changes are applied as an executor would: by the source's present state.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::path;
use crate::model::{Change, RelPath, Scope};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Directory,
    File(Vec<u8>),
    Link(Vec<u8>),
}

pub type Tree = BTreeMap<RelPath, Item>;

/// All that is below `root`, and the root itself.
pub fn read(root: &Path) -> Tree {
    walkdir::WalkDir::new(root)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = path(entry.path().strip_prefix(root).unwrap().as_os_str().as_bytes());
            let kind = entry.file_type();
            let item = if kind.is_dir() {
                Item::Directory
            } else if kind.is_symlink() {
                Item::Link(std::fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().to_vec())
            } else if kind.is_file() {
                Item::File(std::fs::read(entry.path()).unwrap())
            } else {
                Item::File(Vec::new())
            };
            (name, item)
        })
        .collect()
}

pub fn directories(root: &Path) -> Vec<RelPath> {
    read(root).into_iter().filter(|(_, item)| *item == Item::Directory).map(|(path, _)| path).collect()
}

/// Makes the mirror equal to the source as far as the changes say. A fresh directory under whose name something is
/// pending is widened to its subtree, as the queue does.
pub fn apply(mirror: &mut Tree, changes: &[Change], source: &Tree) {
    for (place, change) in changes.iter().enumerate() {
        let pending = changes.iter().take(place).any(|earlier| change.path.covers(&earlier.path));
        let scope = if change.fresh && pending { Scope::Subtree } else { change.scope };
        apply_one(mirror, &change.path, scope, source);
    }
}

fn apply_one(mirror: &mut Tree, at: &RelPath, scope: Scope, source: &Tree) {
    let Some(item) = source.get(at) else {
        mirror.retain(|path, _| !at.covers(path));
        return;
    };
    for above in at.ancestors() {
        if source.contains_key(&above) {
            put(mirror, &above, &Item::Directory);
        }
    }
    put(mirror, at, item);
    if *item != Item::Directory || scope == Scope::Entry {
        return;
    }
    let wanted = |path: &RelPath| match scope {
        Scope::Children => path.parent().as_ref() == Some(at),
        _ => at.is_ancestor_of(path),
    };
    let extra: Vec<RelPath> = mirror.keys().filter(|p| wanted(p) && !source.contains_key(*p)).cloned().collect();
    for path in extra {
        mirror.retain(|p, _| !path.covers(p));
    }
    for (path, item) in source.iter().filter(|(path, _)| wanted(path)) {
        put(mirror, path, item);
    }
}

fn put(mirror: &mut Tree, at: &RelPath, item: &Item) {
    if *item != Item::Directory {
        mirror.retain(|path, _| !at.is_ancestor_of(path));
    }
    mirror.insert(at.clone(), item.clone());
}
