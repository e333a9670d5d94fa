//! Looking at a store that no daemon uses: it answers, and nothing in the state directory is touched.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::store::KeptStore;

/// Everything below a directory with all that a change of it would change, except for the time of the look.
fn prints(dir: &Path) -> Vec<String> {
    let mut prints = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        let found = fs::symlink_metadata(&path).expect("readable");
        if found.is_dir() {
            open.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
        }
        let owner = (found.uid(), found.gid(), found.mode());
        let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
        prints.push(format!("{} {} {} {owner:?} {times:?}", path.display(), found.ino(), found.len()));
    }
    prints.sort();
    prints
}

/// Whoever looked left files of sled's, a process id and an identity of his own: after a look by root, the daemon of
/// another user did not start any more.
#[test]
fn a_look_touches_nothing_whatever_state_the_store_is_in() {
    let temp = tempfile::tempdir().expect("a directory");
    let killed = temp.path().join("killed");
    filled_and_killed(&killed, 3);
    type Cut = fn(&Path);
    let cuts: [(&str, Cut); 6] = [
        ("as a kill leaves it", |_| {}),
        ("closed in order", |dir| drop(open(dir))),
        ("without a lock", |dir| fs::remove_file(dir.join("lock")).expect("removes")),
        ("with a half-written snapshot", |dir| {
            fs::write(dir.join("store/snap.00000000000000FF.generating"), b"half").expect("writes");
        }),
        ("without its identity", |dir| fs::remove_file(dir.join("identity")).expect("removes")),
        ("in the middle of a swap", |dir| {
            fs::rename(dir.join("store"), dir.join("store.old")).expect("moves");
        }),
    ];
    for (case, cut) in cuts {
        let dir = temp.path().join(case);
        disk::copy_dir(&killed, &dir).expect("copies");
        cut(&dir);
        fs::create_dir(dir.join("store.damaged-x")).expect("creates");
        let before = prints(&dir);
        {
            let looked = Looked::at(&dir).expect(case);
            assert_eq!(looked.known().expect("reads").1, [target(1)], "{case}");
            let mut jobs = 0;
            let mut count = |_| {
                jobs += 1;
                ControlFlow::Continue(())
            };
            looked.jobs(TargetId(1), None, &mut count).expect("reads");
            let census = looked.census().expect("counts");
            assert_eq!((jobs, census.jobs, census.rolled_back), (4, 4, false), "{case}");
            assert_eq!(census.kept, [KeptStore { path: dir.join("store.damaged-x"), bytes: 0 }], "{case}");
            // A daemon need not wait for the end of a look.
            drop(lock::Lock::share(&dir, &dir.join("lock")).expect("nobody holds it alone"));
        }
        assert_eq!(prints(&dir), before, "{case}");
        assert_eq!(contents(&dir).jobs.len(), 4, "{case}");
    }
}

#[test]
fn a_look_at_what_is_in_use_damaged_or_missing_says_so_and_touches_nothing() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("state");
    let missing = Looked::at(&dir).map(drop).expect_err("there is none");
    assert!(matches!(&missing, StoreError::Directory { source, .. } if source.kind() == io::ErrorKind::NotFound));
    assert!(!dir.exists());
    filled(&dir, 3);
    let (store, _) = open(&dir);
    assert!(matches!(Looked::at(&dir), Err(StoreError::Locked { pid: Some(_), .. })));
    drop(store);
    fs::write(dir.join("store/db"), vec![7; 1_000]).expect("writes");
    snapshots(&dir).iter().for_each(|snapshot| fs::write(snapshot, b"nonsense").expect("writes"));
    let before = prints(&dir);
    assert!(matches!(Looked::at(&dir), Err(StoreError::Damaged { .. })));
    assert_eq!(prints(&dir), before);
}

/// Files that a syncq of another user creates cannot be opened by the owner of the store.
#[test]
fn a_store_is_changed_by_its_owner_alone() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 3);
    for entry in walkdir::WalkDir::new(temp.path()) {
        std::os::unix::fs::chown(entry.expect("readable").path(), Some(65_534), Some(65_534)).expect("gives away");
    }
    let before = prints(temp.path());
    assert!(matches!(SledStore::open_existing(temp.path()), Err(StoreError::OfAnother { owner: 65_534, .. })));
    assert_eq!(Looked::at(temp.path()).expect("looks").census().expect("counts").jobs, 3);
    assert_eq!(prints(temp.path()), before);
}
