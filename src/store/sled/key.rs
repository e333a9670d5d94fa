//! The layout of keys: one tree, told apart by the first byte. Pure.
//!
//! ```text
//! 00 name            meta
//! 01 target          a target
//! 02 target path     a job
//! ```
//!
//! `target` is a u32, big-endian, so that byte order is target by target; `path` is the path's own bytes to the end of
//! the key, so jobs of one directory lie together.

use crate::model::{RelPath, TargetId};

const META: u8 = 0;
const TARGET: u8 = 1;
const JOB: u8 = 2;

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
}

pub fn target(id: TargetId) -> Vec<u8> {
    let mut key = vec![TARGET];
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

pub fn job(target: TargetId, path: &RelPath) -> Vec<u8> {
    let mut key = Vec::with_capacity(5 + path.as_bytes().len());
    key.push(JOB);
    key.extend_from_slice(&target.0.to_be_bytes());
    key.extend_from_slice(path.as_bytes());
    key
}

/// Takes `key` apart; `None` if it is none of ours.
pub fn parse(key: &[u8]) -> Option<Key> {
    let (&prefix, rest) = key.split_first()?;
    if prefix == META {
        return Some(Key::Meta);
    }
    let (id, path) = rest.split_first_chunk::<4>()?;
    let id = TargetId(u32::from_be_bytes(*id));
    match prefix {
        TARGET if path.is_empty() => Some(Key::Target(id)),
        JOB => Some(Key::Job(id, RelPath::new(path).ok()?)),
        _ => None,
    }
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
    }

    #[test]
    fn foreign_keys_are_none() {
        for key in
            [&b""[..], b"\x01\0\0", b"\x01\0\0\0\x01x", b"\x02\0\0\0\x01/etc", b"\x02\0\0\0\x01a/../b", b"\x7f\0\0\0\0"]
        {
            assert_eq!(parse(key), None, "{key:?}");
        }
    }
}
