//! What happens to the store's files under a running syncq: removed, replaced, damaged.

use super::*;

fn lost(result: Result<(), StoreError>) -> String {
    match result {
        Err(StoreError::Lost { reason, .. }) => reason,
        other => panic!("not lost: {other:?}"),
    }
}

fn remove_store(dir: &Path) {
    fs::remove_dir_all(dir.join("store")).expect("removes");
}

fn remove_all(dir: &Path) {
    fs::remove_dir_all(dir).expect("removes");
}

fn move_store(dir: &Path) {
    fs::rename(dir.join("store"), dir.join("elsewhere")).expect("moves");
}

fn put_an_older_one_back(dir: &Path) {
    remove_store(dir);
    let backup = dir.parent().expect("a parent").join("backup/store");
    disk::copy_dir(&backup, &dir.join("store")).expect("copies");
}

type Loss = (&'static str, fn(&Path));

const LOSSES: [Loss; 4] = [
    ("store removed", remove_store),
    ("state directory removed", remove_all),
    ("store moved", move_store),
    ("store replaced", put_an_older_one_back),
];

/// Jobs were acknowledged into a file that had been removed by mistake, and were gone at the next start.
#[test]
fn a_store_that_is_gone_acknowledges_nothing_and_is_made_anew() {
    for (case, lose) in LOSSES {
        for maintained in [false, true] {
            let temp = tempfile::tempdir().expect("a directory");
            filled(&temp.path().join("backup"), 3);
            let dir = temp.path().join("state");
            disk::copy_dir(&temp.path().join("backup"), &dir).expect("copies");
            let (mut store, _) = open(&dir);
            let acknowledged: Vec<_> = (0..5).map(|id| Op::PutJob(job(id, 1, format!("{id}").as_bytes()))).collect();
            for op in &acknowledged {
                store.commit(std::slice::from_ref(op)).expect("commits");
            }
            lose(&dir);
            let reason = if maintained { lost(store.maintain()) } else { lost(store.commit(&acknowledged)) };
            assert!(reason.contains("removed or replaced"), "{case}: {reason}");
            store.maintain().expect("is maintained");
            // The caller writes again what it knows.
            store.commit(&known(1)).expect("commits");
            store.commit(&acknowledged).expect("commits");
            assert!(
                matches!(SledStore::open(&dir, NOW), Err(StoreError::Locked { .. })),
                "{case}: another could use it"
            );
            // The directory as a kill leaves it.
            let after = temp.path().join("after");
            disk::copy_dir(&dir, &after).expect("copies");
            let (mut reopened, opened) = open(&after);
            assert!(!opened.may_lack_jobs(), "{case}: {opened:?}");
            assert_eq!(reopened.load().expect("loads").jobs.len(), 5, "{case}");
            drop(store);
            assert!(open(&dir).1.clean, "{case}");
        }
    }
}

/// Stores that are kept for whoever wants to look must not fill the disk.
#[test]
fn of_stores_that_are_replaced_again_and_again_one_is_kept() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("state");
    filled(&temp.path().join("backup"), 3);
    filled(&dir, 3);
    let (mut store, _) = open(&dir);
    for _ in 0..3 {
        put_an_older_one_back(&dir);
        lost(store.maintain());
    }
    let kept = fs::read_dir(&dir).expect("a directory").flatten();
    let kept = kept.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"store.damaged")).count();
    assert_eq!(kept, 1);
}

/// If syncq is killed before anything was written again, the loss is still reported.
#[test]
fn a_store_that_was_made_anew_and_holds_nothing_says_so() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 3);
    let (mut store, _) = open(temp.path());
    remove_store(temp.path());
    lost(store.maintain());
    drop(store);
    assert!(open(temp.path()).1.may_lack_jobs());
}

#[test]
fn a_removed_lock_is_taken_again_and_costs_nothing() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 3);
    let (mut store, _) = open(temp.path());
    for name in ["lock", "progress"] {
        fs::remove_file(temp.path().join(name)).expect("removes");
    }
    store.maintain().expect("is maintained");
    assert!(matches!(SledStore::open(temp.path(), NOW), Err(StoreError::Locked { .. })));
    store.commit(&[Op::PutJob(job(9, 1, b"more"))]).expect("commits");
    drop(store);
    let (mut store, opened) = open(temp.path());
    assert!(!opened.may_lack_jobs(), "{opened:?}");
    assert_eq!(store.load().expect("loads").jobs.len(), 4);
}

/// A command that looks into a store does not start new ones.
#[test]
fn a_command_reports_the_loss_and_makes_nothing() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 3);
    let mut store = SledStore::open_existing(temp.path()).expect("opens");
    remove_store(temp.path());
    assert!(matches!(store.maintain(), Err(StoreError::Damaged { .. })));
    assert!(matches!(store.commit(&[Op::PutNextJobId(9)]), Err(StoreError::Damaged { .. })));
    drop(store);
    assert!(!temp.path().join("store/db").exists());
}

/// While another syncq has taken the directory over, nothing is acknowledged and nothing of the other's is touched.
#[test]
fn a_directory_that_another_syncq_uses_by_now_is_left_to_it() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("state");
    filled(&dir, 3);
    let (mut store, _) = open(&dir);
    remove_all(&dir);
    let (mut other, _) = open(&dir);
    other.commit(&known(1)).expect("commits");
    for _ in 0..3 {
        assert!(matches!(store.commit(&[Op::PutNextJobId(9)]), Err(StoreError::Locked { .. })));
    }
    other.commit(&[Op::PutJob(job(1, 1, b"a"))]).expect("commits");
    drop(other);
    lost(store.commit(&[Op::PutNextJobId(9)]));
    store.commit(&[Op::PutNextJobId(9)]).expect("commits");
}
