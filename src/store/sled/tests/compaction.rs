//! A store that was large and holds little becomes small, and is whole wherever the compaction is interrupted.

use super::*;

/// Large enough that names are told apart and deletions leave room.
pub(super) const KEPT: u64 = 500;

pub(super) fn backlog(store: &mut SledStore, jobs: u64) {
    store.commit(&known(1)).expect("commits");
    let ids: Vec<u64> = (1..=jobs).collect();
    let path = |id: u64| format!("some/directory/{}/a file of some length {id}.html", id % 97);
    for ids in ids.chunks(COMMIT_OPS_MAX) {
        let ops: Vec<_> = ids.iter().map(|&id| Op::PutJob(job(id, 1, path(id).as_bytes()))).collect();
        store.commit(&ops).expect("commits");
    }
    let done: Vec<u64> = ids.into_iter().filter(|id| *id > KEPT).collect();
    for ids in done.chunks(COMMIT_OPS_MAX) {
        let at = |id: u64| RelPath::new(path(id).as_bytes()).expect("a valid path");
        let ops: Vec<_> = ids.iter().map(|&id| Op::DeleteJob { target: TargetId(1), path: at(id) }).collect();
        store.commit(&ops).expect("commits");
    }
}

/// A drained backlog of 500,000 jobs left 535 MB behind, for ever.
#[test]
#[expect(clippy::print_stderr, reason = "the figures are asked for")]
fn a_drained_backlog_gives_its_space_back() {
    let jobs = std::env::var("SYNCQ_TEST_BACKLOG").map_or(60_000, |jobs| jobs.parse().expect("a number"));
    let temp = tempfile::tempdir().expect("a directory");
    let (mut store, _) = open(temp.path());
    backlog(&mut store, jobs);
    let before = store.stats().bytes;
    let begun = crate::clock::monotonic();
    store.maintain().expect("is maintained");
    let (after, took) = (store.stats().bytes, begun.elapsed());
    eprintln!("{jobs} jobs drained to {KEPT}: {before} bytes before, {after} after, in {took:?}");
    assert!(before > 16 << 20, "{before} bytes are not worth it");
    assert!(after < 4 << 20, "{after} bytes are left of {before}");

    store.commit(&[Op::PutJob(job(jobs + 1, 1, b"later"))]).expect("commits");
    let live = store.load().expect("loads");
    assert_eq!((live.jobs.len() as u64, live.damaged_records), (KEPT + 1, 0));
    drop(store);
    let (mut store, opened) = open(temp.path());
    assert_eq!(opened, Opened { fresh: None, recovered: false, rolled_back: false, clean: true });
    assert_eq!(store.load().expect("loads"), live);
}

#[test]
fn what_is_live_is_not_copied_for_nothing() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 80_000);
    let (mut store, _) = open(temp.path());
    let before = fs::metadata(temp.path().join("store")).expect("a store");
    store.maintain().expect("is maintained");
    assert!(store.stats().bytes > 16 << 20, "{} bytes prove nothing", store.stats().bytes);
    let after = fs::metadata(temp.path().join("store")).expect("a store");
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&before), std::os::unix::fs::MetadataExt::ino(&after));
}

/// All states that a kill can leave, made by hand; `kill_9_during_compactions_loses_nothing_acknowledged` looks for them
/// live.
#[test]
fn an_interrupted_compaction_leaves_the_newest_store() {
    let temp = tempfile::tempdir().expect("a directory");
    let at = |dir: &Path, name: &str| dir.join(name);
    let before = temp.path().join("before");
    filled_and_killed(&before, 50);
    let (mut store, _) = open(&before);
    let expected = store.load().expect("loads");
    compact::copy(&store.layout, store.tree.as_ref().expect("open")).expect("copies");
    drop(store);
    type Cut = fn(&Path);
    let cuts: [(&str, Cut); 5] = [
        ("copying", |dir| fs::write(dir.join("store.compact/db"), b"half").expect("writes")),
        ("copied", |_| ()),
        ("store moved away", |dir| fs::rename(dir.join("store"), dir.join("store.old")).expect("moves")),
        ("copy moved in", |dir| {
            fs::rename(dir.join("store"), dir.join("store.old")).expect("moves");
            fs::rename(dir.join("store.compact"), dir.join("store")).expect("moves");
        }),
        ("old one half removed", |dir| {
            fs::rename(dir.join("store"), dir.join("store.old")).expect("moves");
            fs::rename(dir.join("store.compact"), dir.join("store")).expect("moves");
            fs::remove_file(dir.join("store.old/db")).expect("removes");
        }),
    ];
    for (case, cut) in cuts {
        for by_command in [false, true] {
            let dir = temp.path().join(format!("{case} {by_command}"));
            disk::copy_dir(&before, &dir).expect("copies");
            cut(&dir);
            let mut store = if by_command {
                SledStore::open_existing(&dir).expect("opens")
            } else {
                let (store, opened) = open(&dir);
                assert!(!opened.may_lack_jobs(), "{case}: {opened:?}");
                store
            };
            assert_eq!(store.load().expect("loads"), expected, "{case}");
            for leftover in ["store.compact", "store.old"] {
                assert!(!at(&dir, leftover).exists(), "{case}: {leftover} is left");
            }
        }
    }
}

#[test]
fn without_room_for_the_copy_the_store_goes_on() {
    let temp = tempfile::tempdir().expect("a directory");
    let Some(_mounted) = Tmpfs::mount(temp.path(), "24m") else { return };
    let dir = temp.path().join("state");
    let (mut store, _) = open(&dir);
    backlog(&mut store, 4_000);
    // Fill the disk but for a little; the error at the end is the point.
    let _ = fs::write(temp.path().join("ballast"), vec![1; 24 << 20]);
    assert!(matches!(store.compact(), Err(StoreError::NotCompacted { .. })));
    assert!(!dir.join("store.compact").exists());
    fs::remove_file(temp.path().join("ballast")).expect("removes");
    store.commit(&[Op::PutJob(job(1, 1, b"later"))]).expect("commits");
    store.compact().expect("compacts");
    assert_eq!(store.load().expect("loads").jobs.len() as u64, KEPT + 1);
}
