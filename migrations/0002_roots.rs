//! Schema 2: roots have records of their own, and directories are remembered.
//!
//! ```text
//! 01 target             record {root_id, destination, complete_under}
//! 03 root               record {path, mark, watermark: {wall, boot, uptime_ms}, scheduled_run}
//! 04 root inode born    record {parent: {inode, born_ns}, name}
//! ```
//!
//! The rest is as in schema 1. `root` is a u32, `inode` and `born` are u64, all big-endian; `born` is missing where the
//! file system does not tell. A target of schema 1 repeated its root's path in `root`, and `root_mark` beside it, which
//! is the root's `mark` now.
//!
//! The step gives each path a number, in the order of the targets, and writes a root before or together with what
//! names it. Killed in between, it goes on from the roots that are there. A target that cannot be read stays as it is.

use std::collections::BTreeMap;
use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{CHANGES_MAX, RawStore, SchemaRecord, Step};

pub const STEP: Step = Step { number: 2, name: "roots have records of their own", run };

const TARGET: u8 = 1;
const ROOT: u8 = 3;
const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Mark {
    inode: u64,
    #[serde(default)]
    born_ns: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OldTarget {
    #[serde(with = "serde_bytes")]
    root: Vec<u8>,
    destination: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root_mark: Option<Mark>,
}

#[derive(Debug, Serialize, Deserialize)]
struct NewTarget {
    root_id: u32,
    destination: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct NewRoot {
    #[serde(with = "serde_bytes")]
    path: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<Mark>,
}

fn run(store: &dyn RawStore, writer: &str) -> io::Result<()> {
    // Path to number.
    let mut roots: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    store.scan(&[ROOT], &mut |key, value| {
        if let (Some((&ROOT, id)), Some(root)) = (key.split_first(), decode::<NewRoot>(key, value))
            && let Ok(id) = id.try_into()
        {
            roots.insert(root.path, u32::from_be_bytes(id));
        }
        Ok(())
    })?;
    let mut old: Vec<(Vec<u8>, OldTarget)> = Vec::new();
    store.scan(&[TARGET], &mut |key, value| {
        // One that was rewritten already does not have the old form.
        old.extend(decode::<OldTarget>(key, value).map(|target| (key.to_vec(), target)));
        Ok(())
    })?;

    let mut next = roots.values().max().map_or(1, |last| last + 1);
    let mut new_roots: Vec<NewRoot> = Vec::new();
    for (_, target) in &old {
        let known = new_roots.iter_mut().find(|root| root.path == target.root);
        match known {
            Some(root) => root.mark = root.mark.or(target.root_mark),
            None if roots.contains_key(&target.root) => {}
            None => new_roots.push(NewRoot { path: target.root.clone(), mark: target.root_mark }),
        }
    }
    let mut changes = Vec::new();
    for root in new_roots {
        let key = [&[ROOT][..], &u32::to_be_bytes(next)].concat();
        changes.push((key.clone(), Some(encode(&key, &root)?)));
        roots.insert(root.path, next);
        next += 1;
    }
    for (key, OldTarget { root, destination, .. }) in old {
        let Some(&root_id) = roots.get(&root) else { continue };
        let value = encode(&key, &NewTarget { root_id, destination })?;
        changes.push((key, Some(value)));
    }
    changes.push(SchemaRecord { schema: STEP.number, writer: writer.to_owned() }.put());
    for batch in changes.chunks(CHANGES_MAX) {
        store.apply(batch.to_vec())?;
    }
    Ok(())
}

/// CRC-32 of key and rest, a version byte, a map with named fields.
fn encode(key: &[u8], record: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut body = vec![VERSION];
    rmp_serde::encode::write_named(&mut body, record).map_err(io::Error::other)?;
    let mut value = checksum(key, &body).to_be_bytes().to_vec();
    value.append(&mut body);
    Ok(value)
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Option<T> {
    let (sum, body) = value.split_first_chunk::<4>()?;
    let (&version, mut rest) = body.split_first()?;
    if checksum(key, body) != u32::from_be_bytes(*sum) || version != VERSION {
        return None;
    }
    let record = rmp_serde::from_read(&mut rest).ok()?;
    rest.is_empty().then_some(record)
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::Visit;
    use super::super::tests::Memory;
    use super::*;

    /// As schema 1 had it, key and value.
    const OLD: [(&[u8], &[u8]); 4] = [
        (b"\x01\0\0\0\x02", b"\x100\x8a\x1c\x01\x82\xa4root\xc4\x06/srv/\xff\xabdestination\xa9host::www"),
        (b"\x01\0\0\0\x03", b"damaged"),
        (b"\x02\0\0\0\x02a", b"a job stays as it is"),
        (b"\x00store_id", b"as does this"),
    ];

    fn filled() -> Memory {
        let store = Memory::default();
        for (key, value) in OLD {
            store.0.borrow_mut().insert(key.to_vec(), value.to_vec());
        }
        let marked = |id: u8, root: &[u8], inode| {
            let key = vec![TARGET, 0, 0, 0, id];
            let root_mark = Some(Mark { inode, born_ns: Some(9) });
            let target = OldTarget { root: root.to_vec(), destination: format!("host{id}::www"), root_mark };
            let value = encode(&key, &target).expect("encodes");
            (key, value)
        };
        // A second target of the same root, which alone knows the mark, and one of another root.
        store.0.borrow_mut().extend([marked(4, b"/srv/\xff", 7), marked(5, b"/home", 8)]);
        store
    }

    fn migrated() -> Memory {
        let store = filled();
        run(&store, "0.2").expect("memory does not fail");
        store
    }

    #[test]
    fn the_paths_of_targets_become_roots() {
        let store = migrated();
        let store = store.0.borrow();
        for (key, value) in &OLD[1..] {
            assert_eq!(store.get(*key).map(Vec::as_slice), Some(*value), "{}", key.escape_ascii());
        }
        let root = |id: u8| decode::<NewRoot>(&[ROOT, 0, 0, 0, id], &store[&[ROOT, 0, 0, 0, id][..]]).expect("a root");
        assert_eq!((root(1).path, root(1).mark.map(|mark| mark.inode)), (b"/srv/\xff".to_vec(), Some(7)));
        assert_eq!((root(2).path, root(2).mark.map(|mark| mark.inode)), (b"/home".to_vec(), Some(8)));
        for (id, root, destination) in [(2, 1, "host::www"), (4, 1, "host4::www"), (5, 2, "host5::www")] {
            let key = [TARGET, 0, 0, 0, id];
            let target: NewTarget = decode(&key, &store[&key[..]]).expect("a target");
            assert_eq!((target.root_id, target.destination.as_str()), (root, destination));
        }
        // The bytes that every later syncq has to read.
        let target = store[&b"\x01\0\0\0\x02"[..]].escape_ascii().to_string();
        assert_eq!(target, r"8\xa9Qn\x01\x82\xa7root_id\x01\xabdestination\xa9host::www");
    }

    /// Fails once so many changes have been made.
    struct Killed<'a>(&'a Memory, Cell<usize>);

    impl RawStore for Killed<'_> {
        fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
            self.0.get(key)
        }

        fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
            self.0.scan(prefix, visit)
        }

        fn apply(&self, changes: Vec<super::super::RawChange>) -> io::Result<()> {
            for change in changes {
                self.1.set(self.1.get().checked_sub(1).ok_or(io::ErrorKind::Interrupted)?);
                self.0.apply(vec![change])?;
            }
            Ok(())
        }
    }

    /// Harsher than the engine, which makes a batch as a whole or not at all.
    #[test]
    fn killed_after_any_change_and_run_again_it_comes_to_the_same() {
        let expected = migrated();
        for changes in 0..6 {
            let store = filled();
            assert!(run(&Killed(&store, Cell::new(changes)), "0.2").is_err(), "{changes} changes are not all");
            run(&store, "0.2").expect("memory does not fail");
            assert_eq!(*store.0.borrow(), *expected.0.borrow(), "killed after {changes}");
            run(&store, "0.2").expect("memory does not fail");
            assert_eq!(*store.0.borrow(), *expected.0.borrow(), "run again");
        }
    }
}
