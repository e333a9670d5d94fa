//! The layout of keys: one tree, in which the first byte tells the kinds of records apart. Pure.
//!
//! ```text
//! 00 name            meta
//! 01 target          a target
//! 02 target path     a job
//! 03 root            a root
//! 04 root inode born a directory below a root
//! ```
//!
//! Numbers are big-endian, so that byte order is their order: `target` and `root` are u32, `inode` is u64, and so is
//! `born`, which is missing where the file system does not tell. `path` is the path's own bytes to the end of the key,
//! so jobs of one directory lie together.

use crate::model::{DirectoryId, RelPath, RootId, TargetId};

const META: u8 = 0;
const TARGET: u8 = 1;
const JOB: u8 = 2;
const ROOT: u8 = 3;
const DIRECTORY: u8 = 4;

pub const STORE_ID: &[u8] = b"\x00store_id";
/// The number of the last commit.
pub const COMMIT: &[u8] = b"\x00commit";
pub const NEXT_JOB_ID: &[u8] = b"\x00next_job_id";

/// A key, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    Meta,
    Target(TargetId),
    Job(TargetId, RelPath),
    Root(RootId),
    Directory(RootId, DirectoryId),
}

/// The beginning of the keys of all targets, and of all roots.
pub const TARGETS: &[u8] = &[TARGET];
pub const ROOTS: &[u8] = &[ROOT];

/// Whether `key` is one of the store's own notes.
pub fn is_meta(key: &[u8]) -> bool {
    key.first() == Some(&META)
}

pub fn target(id: TargetId) -> Vec<u8> {
    numbered(TARGET, id.0)
}

pub fn root(id: RootId) -> Vec<u8> {
    numbered(ROOT, id.0)
}

/// The beginning of the keys of all directories of a root.
pub fn directories(root: RootId) -> Vec<u8> {
    numbered(DIRECTORY, root.0)
}

pub fn directory(root: RootId, id: DirectoryId) -> Vec<u8> {
    let mut key = directories(root);
    key.extend_from_slice(&id.inode.to_be_bytes());
    if let Some(born_ns) = id.born_ns {
        key.extend_from_slice(&born_ns.to_be_bytes());
    }
    key
}

fn numbered(prefix: u8, id: u32) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend_from_slice(&id.to_be_bytes());
    key
}

/// The beginning of the keys of all jobs of a target.
pub fn jobs(target: TargetId) -> Vec<u8> {
    numbered(JOB, target.0)
}

pub fn job(target: TargetId, path: &RelPath) -> Vec<u8> {
    let mut key = jobs(target);
    key.extend_from_slice(path.as_bytes());
    key
}

/// Takes `key` apart; `None` if it is no key of this layout.
pub fn parse(key: &[u8]) -> Option<Key> {
    let (&prefix, rest) = key.split_first()?;
    if prefix == META {
        return Some(Key::Meta);
    }
    let (id, rest) = rest.split_first_chunk::<4>()?;
    let id = u32::from_be_bytes(*id);
    match prefix {
        TARGET if rest.is_empty() => Some(Key::Target(TargetId(id))),
        JOB => Some(Key::Job(TargetId(id), RelPath::new(rest).ok()?)),
        ROOT if rest.is_empty() => Some(Key::Root(RootId(id))),
        DIRECTORY => Some(Key::Directory(RootId(id), directory_id(rest)?)),
        _ => None,
    }
}

fn directory_id(bytes: &[u8]) -> Option<DirectoryId> {
    let (inode, born) = bytes.split_first_chunk::<8>()?;
    let born_ns = if born.is_empty() { None } else { Some(u64::from_be_bytes(born.try_into().ok()?)) };
    Some(DirectoryId { inode: u64::from_be_bytes(*inode), born_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_apart_as_they_were_made() {
        let path = RelPath::new(b"a/\xff b").expect("a valid path");
        assert_eq!(job(TargetId(258), &path), b"\x02\0\0\x01\x02a/\xff b");
        assert_eq!(parse(&job(TargetId(258), &path)), Some(Key::Job(TargetId(258), path)));
        assert_eq!(parse(&job(TargetId(1), &RelPath::root())), Some(Key::Job(TargetId(1), RelPath::root())));
        assert_eq!(parse(&target(TargetId(9))), Some(Key::Target(TargetId(9))));
        assert_eq!(parse(STORE_ID), Some(Key::Meta));
        assert_eq!(parse(&root(RootId(7))), Some(Key::Root(RootId(7))));
        for born_ns in [None, Some(0), Some(u64::MAX)] {
            let id = DirectoryId { inode: 1 << 40, born_ns };
            let key = directory(RootId(3), id);
            assert!(key.starts_with(&directories(RootId(3))));
            assert_eq!(parse(&key), Some(Key::Directory(RootId(3), id)));
        }
    }

    #[test]
    fn directories_lie_in_the_order_of_their_ids() {
        let ids = [(1, None), (1, Some(0)), (1, Some(300)), (2, None), (256, Some(1))];
        let ids: Vec<_> = ids.map(|(inode, born_ns)| DirectoryId { inode, born_ns }).into();
        let mut keys: Vec<_> = ids.iter().map(|&id| directory(RootId(1), id)).collect();
        assert!(ids.is_sorted());
        keys.sort();
        assert_eq!(keys, ids.iter().map(|&id| directory(RootId(1), id)).collect::<Vec<_>>());
    }

    #[test]
    fn foreign_keys_are_none() {
        for key in [
            &b""[..],
            b"\x01\0\0",
            b"\x01\0\0\0\x01x",
            b"\x02\0\0\0\x01/etc",
            b"\x02\0\0\0\x01a/../b",
            b"\x03\0\0\0\x01x",
            b"\x04\0\0\0\x01",
            b"\x04\0\0\0\x01seven b",
            b"\x04\0\0\0\x01inode 8+ten bytes.",
            b"\x7f\0\0\0\0",
        ] {
            assert_eq!(parse(key), None, "{key:?}");
        }
    }
}
