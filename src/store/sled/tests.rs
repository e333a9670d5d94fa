//! The store on a real sled in a temporary directory: every rung of the ladder by which it opens, and what the modules
//! below share.

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::migrations::{RawChange, RawStore, SCHEMA, SchemaRecord};
use super::*;
use crate::model::{BootId, Job, JobError, JobId, JobState, Moment, Origin, RelPath, Scope, TargetId};
use crate::store::tests::job;
use crate::store::{DirectoryRecord, RootRecord, TargetRecord};

mod census;
mod compaction;
mod full_disk;
mod kills;
mod look;
mod lost;
mod power_cut;
mod schemas;

pub(crate) use self::full_disk::Tmpfs;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn root() -> RootRecord {
    RootRecord {
        id: RootId(1),
        path: b"/srv/www".to_vec(),
        mark: None,
        watermark: None,
        scheduled_run: None,
        mounts: Vec::new(),
    }
}

fn target(id: u32) -> TargetRecord {
    TargetRecord::new(TargetId(id), RootId(1), format!("mirror{id}::www"))
}

fn directory(inode: u64, parent: u64, name: &[u8]) -> DirectoryRecord {
    let id = |inode| DirectoryId { inode, born_ns: Some(1_000 + inode) };
    DirectoryRecord { root: RootId(1), id: id(inode), parent: id(parent), name: name.to_vec() }
}

/// The operations that make a target known.
fn known(id: u32) -> [Op; 2] {
    [Op::PutRoot(root()), Op::PutTarget(target(id))]
}

fn open(dir: &Path) -> (SledStore, Opened) {
    SledStore::open(dir, NOW).expect("the store opens")
}

fn contents(dir: &Path) -> Contents {
    open(dir).0.load().expect("the store loads")
}

/// A store with one target and `jobs` jobs, closed in order.
fn filled(dir: &Path, jobs: u64) {
    let (mut store, _) = open(dir);
    store.commit(&known(1)).expect("commits");
    let ids: Vec<u64> = (1..=jobs).collect();
    for ids in ids.chunks(COMMIT_OPS_MAX) {
        let ops: Vec<_> = ids.iter().map(|&id| Op::PutJob(job(id, 1, format!("file {id}").as_bytes()))).collect();
        store.commit(&ops).expect("commits");
    }
}

/// Like [`filled`], left as a kill leaves it: sled's closing writes are missing.
fn filled_and_killed(dir: &Path, jobs: u64) {
    let original = tempfile::tempdir().expect("a directory");
    filled(original.path(), jobs);
    let (mut store, _) = open(original.path());
    store.commit(&[Op::PutJob(job(0, 1, b"last"))]).expect("commits");
    disk::copy_dir(original.path(), dir).expect("copies");
}

fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("store")).expect("a store").map(|entry| entry.expect("readable").path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"snap."))).collect()
}

#[test]
fn a_new_store_says_so_until_it_knows_a_target() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("state/of/mine");
    for _ in 0..2 {
        let (mut store, opened) = open(&dir);
        assert_eq!(opened, Opened { fresh: Some(FreshReason::New), recovered: false, rolled_back: false, clean: true });
        assert_eq!(store.load().expect("loads"), Contents::default());
    }
    for private in [dir.clone(), dir.join("store")] {
        assert_eq!(fs::metadata(&private).expect("created").permissions().mode() & 0o777, 0o700, "{private:?}");
    }
    filled(&dir, 1);
    let (_, opened) = open(&dir);
    assert_eq!(opened, Opened { fresh: None, recovered: false, rolled_back: false, clean: true });
}

#[test]
fn what_is_committed_is_there_after_reopening() {
    let temp = tempfile::tempdir().expect("a directory");
    let (mut store, _) = open(temp.path());
    let mut failed = job(12, 1, b"dir/\xff\n");
    failed.state = JobState::Failed;
    failed.attempts = 9;
    failed.last_error = Some(JobError::new(Some(23), "denied"));
    let mut running = job(13, 1, b"");
    running.state = JobState::Running;
    let ops = [
        Op::PutTarget(target(1)),
        Op::PutTarget(target(2)),
        Op::PutRoot(root()),
        Op::PutJob(failed.clone()),
        Op::PutJob(running.clone()),
        Op::PutJob(job(14, 2, b"gone")),
        Op::DeleteJob { target: TargetId(2), path: RelPath::new(b"gone").expect("a valid path") },
        Op::DeleteJob { target: TargetId(2), path: RelPath::new(b"never there").expect("a valid path") },
        Op::PutNextJobId(100),
        Op::PutNextJobId(40),
    ];
    store.commit(&ops).expect("commits");
    store.commit(&[Op::PutNextJobId(50)]).expect("commits");
    store.commit(&[]).expect("commits nothing");
    assert!(store.stats().bytes > 0);
    let expected = Contents {
        roots: vec![root()],
        directories: vec![],
        targets: vec![target(1), target(2)],
        jobs: vec![Job { state: JobState::Ready, ..running }, failed],
        next_job_id: 100,
        damaged_records: 0,
    };
    assert_eq!(store.load().expect("loads"), expected);
    drop(store);
    assert_eq!(contents(temp.path()), expected);
}

#[test]
fn a_thousand_operations_fit_and_one_more_does_not() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 2_500);
    let loaded = contents(temp.path());
    assert_eq!((loaded.jobs.len(), loaded.next_job_id), (2_500, 2_501));
    let ops = vec![Op::PutNextJobId(1); COMMIT_OPS_MAX + 1];
    let (mut store, _) = open(temp.path());
    assert!(matches!(store.commit(&ops), Err(StoreError::TooManyOps { given: 1_001, max: 1_000 })));
    store.commit(&ops[1..]).expect("commits");
}

#[test]
fn a_target_that_is_too_large_is_refused_and_the_store_goes_on() {
    let temp = tempfile::tempdir().expect("a directory");
    let (mut store, _) = open(temp.path());
    let large = TargetRecord { destination: "x".repeat(3_000), ..target(1) };
    assert!(matches!(store.commit(&[Op::PutTarget(large)]), Err(StoreError::RecordTooLarge { .. })));
    store.commit(&known(1)).expect("commits");
}

#[test]
fn a_second_open_names_the_holder() {
    let temp = tempfile::tempdir().expect("a directory");
    let (store, _) = open(temp.path());
    let me = std::process::id();
    for second in [SledStore::open(temp.path(), NOW).map(drop), SledStore::open_existing(temp.path()).map(drop)] {
        assert!(matches!(&second, Err(StoreError::Locked { pid: Some(pid), .. }) if *pid == me), "{second:?}");
    }
    drop(store);
    open(temp.path());
}

#[test]
fn a_child_does_not_inherit_the_lock() {
    let temp = tempfile::tempdir().expect("a directory");
    let (store, _) = open(temp.path());
    let mut child = Command::new("sleep").arg("60").spawn().expect("sleep starts");
    drop(store);
    let reopened = SledStore::open(temp.path(), NOW).map(drop);
    child.kill().and_then(|()| child.wait()).expect("the child ends");
    reopened.expect("opens beside the child");
}

#[test]
fn a_half_written_snapshot_costs_nothing() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("state");
    filled_and_killed(&dir, 100);
    fs::write(dir.join("store/snap.FFFFFFFFFFFFFFFF.generating"), b"half").expect("writes");
    let (mut store, opened) = open(&dir);
    assert_eq!(opened, Opened { fresh: None, recovered: false, rolled_back: false, clean: false });
    assert_eq!(store.load().expect("loads").jobs.len(), 101);
}

#[test]
fn a_damaged_snapshot_costs_nothing() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("state");
    filled_and_killed(&dir, 100);
    assert!(!snapshots(&dir).is_empty());
    for path in snapshots(&dir) {
        fs::write(path, b"not a snapshot at all").expect("writes");
    }
    let (mut store, opened) = open(&dir);
    assert_eq!(opened, Opened { fresh: None, recovered: true, rolled_back: false, clean: false });
    assert_eq!(store.load().expect("loads").jobs.len(), 101);
}

#[test]
fn a_damaged_conf_costs_nothing() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 10);
    fs::write(temp.path().join("store/conf"), b"no such line, none at all").expect("writes");
    let (mut store, opened) = open(temp.path());
    assert!(opened.fresh.is_none() && opened.recovered);
    assert_eq!(store.load().expect("loads").jobs.len(), 10);
}

#[test]
fn an_emptied_store_is_noticed() {
    let temp = tempfile::tempdir().expect("a directory");
    let empty_db = |dir: &Path| fs::write(dir.join("store/db"), b"").expect("writes");
    let no_store = |dir: &Path| fs::remove_dir_all(dir.join("store")).expect("removes");
    for (case, empty) in [&no_store as &dyn Fn(&Path), &empty_db].into_iter().enumerate() {
        let dir = temp.path().join(case.to_string());
        filled(&dir, 10);
        empty(&dir);
        let by_command = SledStore::open_existing(&dir).map(drop).expect_err("emptied");
        assert!(matches!(by_command, StoreError::Damaged { .. } | StoreError::Directory { .. }), "{by_command:?}");
        let (mut store, opened) = open(&dir);
        assert!(
            matches!(opened.fresh, Some(FreshReason::Emptied | FreshReason::SetAside { .. })),
            "case {case}: {opened:?}"
        );
        assert_eq!(store.load().expect("loads"), Contents::default());
        store.commit(&known(1)).expect("commits");
        drop(store);
        assert_eq!(open(&dir).1.fresh, None);
    }
}

#[test]
fn garbage_is_set_aside_and_a_new_store_started() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("state");
    for round in 1..=2 {
        filled_and_killed(&dir, 100);
        let db = dir.join("store/db");
        let length = fs::metadata(&db).expect("a db").len();
        let mut random = fastrand::Rng::with_seed(round);
        let garbage: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        fs::write(&db, &garbage).expect("writes");

        assert!(matches!(SledStore::open_existing(&dir), Err(StoreError::Damaged { .. })));
        fs::write(&db, &garbage).expect("writes");
        let (mut store, opened) = open(&dir);
        let Some(FreshReason::SetAside { path, reason }) = opened.fresh else { panic!("{opened:?}") };
        assert!(path.starts_with(&dir) && path.join("db").exists() && !reason.is_empty(), "{path:?} {reason}");
        assert!(path.to_string_lossy().contains("store.damaged-2023-11-14T221320.000Z"), "{path:?}");
        store.commit(&[known(1).as_slice(), &[Op::PutJob(job(1, 1, b"a"))]].concat()).expect("commits");
        drop(store);
        assert_eq!(contents(&dir).jobs.len(), 1);
        fs::remove_dir_all(&dir).expect("removes");
    }
}

#[test]
fn a_flipped_bit_is_harmless_or_reported_and_the_store_goes_on() {
    let temp = tempfile::tempdir().expect("a directory");
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..12 {
        let dir = temp.path().join(round.to_string());
        filled_and_killed(&dir, 200);
        let db = dir.join("store/db");
        let mut bytes = fs::read(&db).expect("readable");
        let used = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
        bytes[random.usize(..=used)] ^= 1 << random.u32(..8);
        fs::write(&db, bytes).expect("writes");
        let (mut store, opened) = open(&dir);
        let loaded = store.load().expect("loads");
        let all_there = loaded.damaged_records == 0 && loaded.jobs.len() == 201;
        assert!(all_there || opened.may_lack_jobs() || loaded.damaged_records > 0, "round {round}: {opened:?}");
        store.commit(&[known(1).as_slice(), &[Op::PutJob(job(900, 1, b"new"))]].concat()).expect("commits");
        drop(store);
        assert!(!open(&dir).1.may_lack_jobs(), "round {round}: reported again after a commit");
    }
}

/// After damage at the end of its log sled opened at an older state without a word, and the jobs since then were lost.
#[test]
fn a_store_that_lost_its_latest_commits_says_so_until_something_is_committed() {
    let temp = tempfile::tempdir().expect("a directory");
    let (old, dir) = (temp.path().join("old"), temp.path().join("state"));
    filled(&dir, 5);
    disk::copy_dir(&dir, &old).expect("copies");
    let (mut store, _) = open(&dir);
    store.commit(&[Op::PutJob(job(6, 1, b"late"))]).expect("commits");
    drop(store);
    fs::remove_dir_all(dir.join("store")).expect("removes");
    disk::copy_dir(&old.join("store"), &dir.join("store")).expect("copies");

    for _ in 0..2 {
        let (_, opened) = open(&dir);
        assert!(opened.rolled_back && opened.fresh.is_none() && opened.may_lack_jobs());
    }
    let (mut store, _) = open(&dir);
    store.commit(&[Op::PutJob(job(7, 1, b"compare"))]).expect("commits");
    drop(store);
    assert!(!open(&dir).1.may_lack_jobs());
}

#[test]
fn a_store_from_elsewhere_is_set_aside() {
    let temp = tempfile::tempdir().expect("a directory");
    let (here, there) = (temp.path().join("here"), temp.path().join("there"));
    filled(&here, 1);
    filled(&there, 1);
    fs::remove_dir_all(here.join("store")).expect("removes");
    disk::copy_dir(&there.join("store"), &here.join("store")).expect("copies");
    let (_, opened) = open(&here);
    assert!(matches!(opened.fresh, Some(FreshReason::SetAside { .. })), "{opened:?}");
}

#[test]
fn a_lost_identity_is_made_anew_from_the_store() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 3);
    for text in [None, Some("gibberish")] {
        match text {
            Some(text) => fs::write(temp.path().join("identity"), text).expect("writes"),
            None => fs::remove_file(temp.path().join("identity")).expect("removes"),
        }
        let (mut store, opened) = open(temp.path());
        assert_eq!(opened, Opened { fresh: None, recovered: false, rolled_back: false, clean: false });
        assert_eq!(store.load().expect("loads").jobs.len(), 3);
    }
}

#[test]
fn damaged_records_are_counted_and_go_with_the_first_commit() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 4);
    let path = |text: &str| RelPath::new(text.as_bytes()).expect("a valid path");
    let at = |text: &str| key::job(TargetId(1), &path(text));
    let (store, _) = open(temp.path());
    let mut value = store.tree.as_ref().expect("open").read(&at("file 2")).expect("readable").expect("there");
    value[10] ^= 1;
    let changes: Vec<RawChange> = vec![
        (at("file 2"), Some(value.clone())),
        (at("file 3"), Some(value)),
        (b"\x7fwhat".to_vec(), Some(b"is this".to_vec())),
        (key::job(TargetId(8), &path("orphan")), Some(record::encode_job(b"", &job(1, 8, b"orphan")).expect("fits"))),
    ];
    store.tree.as_ref().expect("open").write(changes).expect("writes");
    drop(store);

    for _ in 0..2 {
        let loaded = contents(temp.path());
        assert_eq!((loaded.damaged_records, loaded.jobs.len(), loaded.next_job_id), (4, 2, 5));
    }
    let (mut store, _) = open(temp.path());
    store.load().expect("loads");
    store.commit(&[Op::PutJob(job(7, 1, b"file 3"))]).expect("commits");
    drop(store);
    let loaded = contents(temp.path());
    assert_eq!((loaded.damaged_records, loaded.jobs.len()), (0, 3));
}

/// A root's number may be given away again: records that belonged to it must not turn up below another root.
#[test]
fn what_belongs_to_a_damaged_root_goes_with_it() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 3);
    let (mut store, _) = open(temp.path());
    let other = RootRecord { id: RootId(2), path: b"/other".to_vec(), ..root() };
    let kept = TargetRecord { root: RootId(2), ..target(2) };
    let ops = [
        Op::PutDirectory(directory(7, 2, b"a")),
        Op::PutDirectory(directory(8, 7, b"b")),
        Op::PutRoot(other.clone()),
        Op::PutTarget(kept.clone()),
        Op::PutDirectory(DirectoryRecord { root: RootId(2), ..directory(7, 2, b"a") }),
    ];
    store.commit(&ops).expect("commits");
    let tree = store.tree.as_ref().expect("open");
    tree.write(vec![(key::root(RootId(1)), Some(b"no record".to_vec()))]).expect("writes");
    drop(store);
    let (mut store, _) = open(temp.path());
    let loaded = store.load().expect("loads");
    assert_eq!((loaded.roots, loaded.targets), (vec![other], vec![kept]));
    assert_eq!((loaded.directories.len(), loaded.jobs.len()), (1, 0));
    assert_eq!(loaded.damaged_records, 1 + 1 + 2 + 3);
    store.commit(&[Op::PutNextJobId(1)]).expect("commits");
    drop(store);
    assert_eq!(contents(temp.path()).damaged_records, 0);
}

#[test]
fn directories_are_found_by_their_root() {
    let temp = tempfile::tempdir().expect("a directory");
    let (mut store, _) = open(temp.path());
    let other = RootRecord { id: RootId(2), path: b"/other".to_vec(), ..root() };
    let mut ops = vec![Op::PutRoot(root()), Op::PutRoot(other)];
    ops.extend((10..50).map(|inode| Op::PutDirectory(directory(inode, 9, b"a"))));
    ops.push(Op::PutDirectory(DirectoryRecord { root: RootId(2), ..directory(7, 2, b"a") }));
    // A directory that changes its name and its place stays one record.
    ops.push(Op::PutDirectory(directory(10, 11, b"renamed")));
    store.commit(&ops).expect("commits");
    let inodes = |store: &mut SledStore, limit| -> Vec<u64> {
        store.directories(RootId(1), limit).expect("readable").iter().map(|id| id.inode).collect()
    };
    assert_eq!(inodes(&mut store, 1_000), (10..50).collect::<Vec<_>>());
    assert_eq!(inodes(&mut store, 3), [10, 11, 12]);
    let deletions: Vec<_> = (10..30).map(|inode| (RootId(1), directory(inode, 0, b"").id)).collect();
    let deletions: Vec<_> = deletions.into_iter().map(|(root, id)| Op::DeleteDirectory { root, id }).collect();
    store.commit(&deletions).expect("commits");
    assert_eq!(inodes(&mut store, 1_000), (30..50).collect::<Vec<_>>());
    assert_eq!(contents_of(store, temp.path()).directories.len(), 21);
}

fn contents_of(store: SledStore, dir: &Path) -> Contents {
    drop(store);
    contents(dir)
}

#[test]
fn a_command_creates_nothing_and_does_not_hide_a_crash() {
    let temp = tempfile::tempdir().expect("a directory");
    let missing = temp.path().join("missing");
    let error = SledStore::open_existing(&missing).map(drop).expect_err("there is none");
    assert!(
        matches!(&error, StoreError::Directory { source, .. } if source.kind() == io::ErrorKind::NotFound),
        "{error}"
    );
    assert!(!missing.exists());

    let dir = temp.path().join("state");
    filled_and_killed(&dir, 3);
    let mut store = SledStore::open_existing(&dir).expect("opens");
    assert_eq!(store.load().expect("loads").jobs.len(), 4);
    store.commit(&[Op::PutJob(job(9, 1, b"more"))]).expect("commits");
    drop(store);
    assert!(!open(&dir).1.clean);
    assert!(open(&dir).1.clean);
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error_with_its_name() {
    let temp = tempfile::tempdir().expect("a directory");
    let in_the_way = temp.path().join("file");
    fs::write(&in_the_way, b"").expect("writes");
    // Root may write anywhere, so a file stands in the way instead of a missing permission.
    for dir in [in_the_way.clone(), in_the_way.join("below")] {
        let error = SledStore::open(&dir, NOW).map(drop).expect_err("a file is in the way");
        assert!(matches!(error, StoreError::Directory { .. }), "{error:?}");
        assert!(error.to_string().contains(&dir.display().to_string()));
    }
    fs::create_dir(temp.path().join("state")).expect("creates");
    fs::write(temp.path().join("state/store"), b"").expect("writes");
    let error = SledStore::open(&temp.path().join("state"), NOW).map(drop).expect_err("a file is in the way");
    assert!(matches!(error, StoreError::Directory { .. }), "{error:?}");
    assert!(temp.path().join("state/store").is_file());
}

/// With a second version of that crate, the memory that sled leaves there would have no turn, and 200,000 jobs would take
/// 50 MB more.
#[test]
fn the_collector_that_gets_its_turns_is_the_one_that_sled_uses() {
    let lock = include_str!("../../../Cargo.lock");
    assert_eq!(lock.matches("name = \"crossbeam-epoch\"").count(), 1);
}
