//! What operators are told of the store, and what they can have done to it.

use super::*;

/// Puts bytes under a key without encoding a record.
fn put_raw(store: &SledStore, key: &[u8], value: &[u8]) {
    let tree = store.tree.as_ref().expect("open");
    tree.write(vec![(key.to_vec(), Some(value.to_vec()))]).expect("writes");
}

#[test]
fn a_census_counts_what_is_there_and_what_is_damaged() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 10);
    let (mut store, _) = open(temp.path());
    store.commit(&[Op::PutDirectory(directory(7, 1, b"d")), Op::PutTarget(target(2))]).expect("commits");
    let census = store.census().expect("counts");
    let counts = (census.roots, census.targets, census.directories, census.jobs, census.damaged);
    assert_eq!(counts, (1, 2, 1, 10, 0));
    assert_eq!(census.schema, SCHEMA);
    assert!(census.live_bytes > 10 * 100 && census.bytes > census.live_bytes, "{census:?}");

    put_raw(&store, b"?", b"not ours");
    put_raw(&store, &key::job(TargetId(1), &RelPath::new(b"file 1").expect("a path")), b"damaged");
    put_raw(&store, &key::target(TargetId(2)), b"damaged");
    store.commit(&[Op::PutJob(job(20, 2, b"of a target that cannot be read"))]).expect("commits");
    let census = store.census().expect("counts");
    assert_eq!((census.targets, census.jobs, census.damaged), (1, 9, 4));
    drop(store);
    assert_eq!(contents(temp.path()).damaged_records, 4, "the next start says the same");
}

#[test]
fn a_census_names_the_stores_that_were_kept() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 1);
    let (mut store, _) = open(temp.path());
    assert_eq!(store.census().expect("counts").kept, []);
    for name in ["store.damaged-x", "store.schema-1", "something else"] {
        fs::create_dir(temp.path().join(name)).expect("a directory");
        fs::write(temp.path().join(name).join("db"), [0; 1_000]).expect("a file");
    }
    let kept = store.census().expect("counts").kept;
    assert_eq!(kept.iter().map(|kept| kept.bytes >= 1_000).collect::<Vec<_>>(), [true, true]);
    assert!(kept.iter().map(|kept| &kept.path).eq(&["store.damaged-x", "store.schema-1"].map(|n| temp.path().join(n))));
}

/// A daemon does so, and a command without one.
#[test]
fn a_store_is_compacted_when_asked_to() {
    for by_daemon in [false, true] {
        let temp = tempfile::tempdir().expect("a directory");
        let mut store = open(temp.path()).0;
        compaction::backlog(&mut store, 10_000);
        if !by_daemon {
            drop(store);
            store = SledStore::open_existing(temp.path()).expect("the store opens");
        }
        let (before, expected) = (store.census().expect("counts"), store.load().expect("loads"));
        assert_eq!(before.jobs, compaction::KEPT);
        store.compact().expect("compacts");
        let after = store.census().expect("counts");
        assert!(after.bytes < before.bytes, "{} bytes before, {} after", before.bytes, after.bytes);
        assert_eq!(Census { bytes: 0, ..after }, Census { bytes: 0, ..before });
        drop(store);
        assert_eq!(contents(temp.path()), expected);
    }
}
