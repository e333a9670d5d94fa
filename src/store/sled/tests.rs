//! The store on a real sled in a temporary directory: every rung of the ladder, kills, failing disks, old stores.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::migrations::{RawChange, RawStore, SCHEMA, SchemaRecord};
use super::*;
use crate::model::{BootId, Job, JobError, JobId, JobState, Moment, Origin, RelPath, Scope, TargetId};
use crate::store::tests::job;
use crate::store::{DirectoryRecord, RootRecord, TargetRecord};

mod census;
mod compaction;
mod lost;
mod power_cut;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn root() -> RootRecord {
    RootRecord { id: RootId(1), path: b"/srv/www".to_vec(), mark: None, watermark: None, scheduled_run: None }
}

fn target(id: u32) -> TargetRecord {
    TargetRecord {
        id: TargetId(id),
        root: RootId(1),
        destination: format!("mirror{id}::www"),
        complete_under: None,
        paused_since: None,
    }
}

fn directory(inode: u64, parent: u64, name: &[u8]) -> DirectoryRecord {
    let id = |inode| DirectoryId { inode, born_ns: Some(1_000 + inode) };
    DirectoryRecord { root: RootId(1), id: id(inode), parent: id(parent), name: name.to_vec() }
}

/// What makes a target known.
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

/// The same, left as a kill leaves it: sled's closing writes are missing.
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

/// A root's number may be given away again: what belonged to it must not turn up below another one.
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
    // One that changes its name and its place stays one record.
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

fn refuses_newer(dir: &Path) {
    for error in [SledStore::open(dir, NOW).map(drop), SledStore::open_existing(dir).map(drop)] {
        let error = error.expect_err("newer");
        assert!(matches!(error, StoreError::NewerSchema { found: 99, supported: SCHEMA, .. }), "{error}");
        assert!(error.to_string().contains("has schema 99, written by syncq 9.9"), "{error}");
    }
}

#[test]
fn a_newer_store_is_refused_and_not_touched() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 3);
    let all = |dir: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("readable").path());
        let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), fs::read(path).expect("readable"))).collect()
    };
    let identity = Identity::read(&temp.path().join("identity")).expect("readable").expect("there");
    let newer = Identity { schema: 99, writer: "9.9".into(), ..identity };
    newer.write(&temp.path().join("identity")).expect("writes");
    let before = all(&temp.path().join("store"));
    refuses_newer(temp.path());
    assert_eq!(all(&temp.path().join("store")), before);
    assert_eq!(Identity::read(&temp.path().join("identity")).expect("readable"), Some(newer));
}

#[test]
fn a_newer_store_is_refused_without_its_identity_too() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 3);
    let (store, _) = open(temp.path());
    let record = SchemaRecord { schema: 99, writer: "9.9".into() };
    store.tree.as_ref().expect("open").write(vec![record.put()]).expect("writes");
    drop(store);
    fs::remove_file(temp.path().join("identity")).expect("removes");
    refuses_newer(temp.path());
    assert!(!temp.path().join("identity").exists());
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

/// A later schema.
const NEXT: u32 = SCHEMA + 1;

/// The step to it, as a later syncq would have it: each target's key gets a note.
fn next_step(store: &dyn RawStore, writer: &str) -> io::Result<()> {
    let mut changes = Vec::new();
    store.scan(b"\x01", &mut |key, _| {
        changes.push(([b"\x00note", key].concat(), Some(b"seen".to_vec())));
        Ok(())
    })?;
    changes.push(SchemaRecord { schema: NEXT, writer: writer.to_owned() }.put());
    store.apply(changes)
}

#[test]
fn an_older_store_is_copied_and_then_migrated() {
    let temp = tempfile::tempdir().expect("a directory");
    filled(temp.path(), 5);
    let steps = [STEPS, &[Step { number: NEXT, name: "notes", run: next_step }]].concat();
    let (mut store, opened) = SledStore::open_with_steps(temp.path(), NOW, &steps).expect("migrates");
    assert_eq!(opened.fresh, None);
    assert_eq!(store.load().expect("loads").jobs.len(), 5);
    let note = store.tree.as_ref().expect("open").read(b"\x00note\x01\0\0\0\x01").expect("readable");
    assert_eq!(note.as_deref(), Some(&b"seen"[..]));
    drop(store);
    let error = SledStore::open(temp.path(), NOW).map(drop).expect_err("newer now");
    assert!(matches!(error, StoreError::NewerSchema { found: NEXT, supported: SCHEMA, .. }), "{error}");

    // The way back that the README of the migrations tells.
    let copy = temp.path().join(format!("store.schema-{SCHEMA}-2023-11-14T221320.000Z"));
    fs::remove_dir_all(temp.path().join("store")).expect("removes");
    fs::rename(copy, temp.path().join("store")).expect("moves");
    fs::remove_file(temp.path().join("identity")).expect("removes");
    assert_eq!(contents(temp.path()).jobs.len(), 5);
}

#[test]
fn an_empty_older_store_is_not_copied() {
    let temp = tempfile::tempdir().expect("a directory");
    open(temp.path());
    let steps = [STEPS, &[Step { number: NEXT, name: "notes", run: next_step }]].concat();
    SledStore::open_with_steps(temp.path(), NOW, &steps).map(drop).expect("migrates");
    let copies = fs::read_dir(temp.path()).expect("a directory").flatten();
    assert_eq!(copies.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"store.")).count(), 0);
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

/// After a full disk sled refuses everything for ever, also with space back: the store has to open it again.
#[test]
fn a_full_disk_fails_commits_until_there_is_room() {
    let temp = tempfile::tempdir().expect("a directory");
    let Some(_mounted) = Tmpfs::mount(temp.path(), "6m") else { return };
    let dir = temp.path().join("state");
    let (mut store, _) = open(&dir);
    store.commit(&known(1)).expect("commits");
    let batch = |n: u64| -> Vec<Op> {
        (n * 500..(n + 1) * 500).map(|id| Op::PutJob(job(id, 1, format!("{id:0200}").as_bytes()))).collect()
    };
    fs::write(temp.path().join("ballast"), vec![1; 3 << 20]).expect("fits");
    let mut acknowledged = 0;
    let error = loop {
        match store.commit(&batch(acknowledged)) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100, "the disk never gets full");
    };
    assert!(matches!(error, StoreError::Write { .. }), "{error:?}");
    for _ in 0..3 {
        assert!(store.commit(&batch(acknowledged)).is_err());
    }
    fs::remove_file(temp.path().join("ballast")).expect("removes");
    store.commit(&batch(acknowledged)).expect("there is room again");
    acknowledged += 1;
    drop(store);
    let (mut store, opened) = open(&dir);
    assert_eq!(opened.fresh, None);
    assert!(store.load().expect("loads").jobs.len() as u64 >= acknowledged * 500);
}

/// With the disk full at the start nothing is set aside: the store is whole.
#[test]
fn a_full_disk_at_the_start_leaves_the_store_alone() {
    let temp = tempfile::tempdir().expect("a directory");
    let Some(_mounted) = Tmpfs::mount(temp.path(), "6m") else { return };
    let dir = temp.path().join("state");
    filled_and_killed(&dir, 500);
    let ballast = temp.path().join("filler");
    fill(&ballast);
    let error = SledStore::open(&dir, NOW).map(drop).expect_err("there is no room");
    assert!(error.is_full_disk(), "{error:?}");
    fs::remove_file(&ballast).expect("removes");
    let (mut store, opened) = open(&dir);
    assert_eq!(opened.fresh, None);
    assert_eq!(store.load().expect("loads").jobs.len(), 501);
}

/// Fills the disk to the last page with a file.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).expect("creates");
    for bytes in [1 << 20, 4_096, 1] {
        while file.write_all(&vec![1; bytes]).is_ok() {}
    }
}

/// A restart on a full disk ended the mirroring of everything until somebody had cleaned up.
#[test]
fn with_ballast_a_start_on_a_full_disk_succeeds_and_it_is_made_again_when_there_is_room() {
    let temp = tempfile::tempdir().expect("a directory");
    let Some(_mounted) = Tmpfs::mount(temp.path(), "200m") else { return };
    let (dir, filler) = (temp.path().join("state"), temp.path().join("filler"));
    let ballast = || fs::metadata(dir.join("ballast")).map_or(0, |ballast| disk_bytes(&ballast));
    filled(&dir, 500);
    assert_eq!(ballast(), 0);
    let (mut store, _) = open(&dir);
    store.tend().expect("tends");
    assert_eq!(ballast(), 16 << 20);
    drop(store);
    fill(&filler);
    let looked = SledStore::open_existing(&dir).map(drop);
    assert!(looked.is_err() && ballast() > 0, "a command gives up nothing: {looked:?}");
    let (mut store, opened) = open(&dir);
    assert_eq!((opened.fresh, ballast()), (None, 0));
    assert_eq!(store.load().expect("loads").jobs.len(), 500);
    store.commit(&[Op::PutJob(job(501, 1, b"on a full disk"))]).expect("commits");
    store.tend().expect("tends");
    assert_eq!(ballast(), 0, "it is not what fills the disk again");
    fs::remove_file(&filler).expect("removes");
    store.tend().expect("tends");
    assert_eq!(ballast(), 16 << 20);
}

fn disk_bytes(file: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(file) * 512
}

/// A small file system of its own, unmounted when dropped. `None`, with the reason printed, where that is not allowed.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    #[expect(clippy::print_stderr, reason = "a test that did nothing has to say so")]
    pub(crate) fn mount(dir: &Path, size: &str) -> Option<Self> {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(dir.to_owned())),
            Ok(output) => {
                eprintln!("skipped, cannot mount a tmpfs: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                eprintln!("skipped, cannot run mount: {error}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

const CHILD_DIR: &str = "SYNCQ_TEST_STORE_CHILD";
const CHILD_COMPACTS: &str = "SYNCQ_TEST_STORE_CHILD_COMPACTS";

/// With another version beside it, what sled leaves there would have no turn, and 200,000 jobs would take 50 MB more.
#[test]
fn the_collector_that_gets_its_turns_is_the_one_that_sled_uses() {
    let lock = include_str!("../../../Cargo.lock");
    assert_eq!(lock.matches("name = \"crossbeam-epoch\"").count(), 1);
}

/// Not a test: the process that `kill_9_loses_nothing_acknowledged` starts and kills. Commits for ever, adding and
/// removing, and prints the number of each commit once it is acknowledged.
#[test]
fn child_that_commits_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let (mut store, _) = open(Path::new(&dir));
    let start = store.load().expect("loads").next_job_id;
    let mut acknowledge = acknowledgements();
    for n in start.. {
        store.commit(&numbered(n)).expect("commits");
        acknowledge(n);
        if n % 8 == 0 && std::env::var_os(CHILD_COMPACTS).is_some() {
            store.compact().expect("compacts");
        }
    }
}

/// Prints numbers of commits straight to the descriptor: the test runner holds back what is printed.
fn acknowledgements() -> impl FnMut(u64) {
    use std::io::Write;
    let mut out = fs::OpenOptions::new().append(true).open("/proc/self/fd/1").expect("an output");
    // One write a line: of several, the kill may come between.
    move |n| out.write_all(format!("acknowledged {n}\n").as_bytes()).expect("the parent reads")
}

/// The commit of that number: adds and removes jobs so that [`holds_numbered`] knows which commits a store holds.
fn numbered(n: u64) -> Vec<Op> {
    let mut ops = vec![Op::PutRoot(root()), Op::PutTarget(target(1)), Op::PutNextJobId(n + 1)];
    ops.push(Op::PutJob(job(n, 1, format!("kept {n}").as_bytes())));
    ops.extend((0..20).map(|i| Op::PutJob(Job { id: JobId(n), ..job(n, 1, format!("torn {i}").as_bytes()) })));
    if n % 2 == 1 {
        let path = RelPath::new(format!("kept {}", n - 1).as_bytes()).expect("a valid path");
        ops.push(Op::DeleteJob { target: TargetId(1), path });
    }
    ops
}

/// Fails unless a store holds all commits from 0 to `acknowledged`, or one more, which may have been made without being
/// acknowledged, and none by halves.
fn holds_numbered(loaded: &Contents, acknowledged: Option<u64>, case: &str) {
    let made = loaded.next_job_id.checked_sub(1);
    let next = acknowledged.map_or(0, |last| last + 1);
    assert!(made == acknowledged || made == Some(next), "{case}: {acknowledged:?} acknowledged, {made:?} there");
    let Some(made) = made else { return };
    let (mut kept, mut whole) = (Vec::new(), Vec::new());
    for job in &loaded.jobs {
        if job.path.as_bytes().starts_with(b"kept ") { kept.push(job.id.0) } else { whole.push(job.id.0) }
    }
    kept.sort_unstable();
    let expected: Vec<u64> = (0..=made).filter(|n| n % 2 == 1 || *n == made).collect();
    assert_eq!(kept, expected, "{case}");
    assert_eq!(whole, [made; 20], "{case}: a commit is torn");
}

/// The promise of the store: a job that was acknowledged is there after a kill at any moment, one that was removed is
/// not, and no commit is there by halves.
#[test]
fn kill_9_loses_nothing_acknowledged() {
    kill_9(12, false);
}

/// The same while the store is being compacted most of the time.
#[test]
fn kill_9_during_compactions_loses_nothing_acknowledged() {
    kill_9(16, true);
}

fn kill_9(rounds: u64, compacts: bool) {
    let temp = tempfile::tempdir().expect("a directory");
    let mut random = fastrand::Rng::with_seed(9);
    for round in 0..rounds {
        let mut command = Command::new(std::env::current_exe().expect("a test binary"));
        command
            .args(["--exact", "store::sled::tests::child_that_commits_until_killed", "--nocapture"])
            .env(CHILD_DIR, temp.path())
            .stdout(Stdio::piped());
        if compacts {
            command.env(CHILD_COMPACTS, "yes");
        }
        let mut child = command.spawn().expect("the child starts");
        let reader = BufReader::new(child.stdout.take().expect("piped"));
        let patience = random.u64(1..150);
        // Every other round the kill falls among commits for certain, else anywhere from the start of the process on.
        let among_commits = round % 2 == 0;
        let (committing, wait) = std::sync::mpsc::channel();
        let killer = std::thread::spawn(move || {
            if among_commits {
                // An error means that the child is gone already.
                let _ = wait.recv();
            }
            std::thread::sleep(Duration::from_millis(patience));
            child.kill().and_then(|()| child.wait()).expect("the child ends");
        });
        let mut last = None;
        for line in reader.lines() {
            let line = line.expect("text");
            if let Some(number) = line.strip_prefix("acknowledged ") {
                last = Some(number.parse::<u64>().expect("a number"));
                let _ = committing.send(());
            }
        }
        drop(committing);
        killer.join().expect("killed");

        let (mut store, opened) = open(temp.path());
        let loaded = store.load().expect("loads");
        assert_eq!(loaded.damaged_records, 0, "round {round}");
        assert!(last.is_some() || !among_commits, "round {round}: the child committed nothing");
        let Some(last) = last else { continue };
        assert_eq!(opened.fresh, None, "round {round}");
        assert!(!opened.clean && !opened.may_lack_jobs(), "round {round}: {opened:?}");
        holds_numbered(&loaded, Some(last), &format!("round {round}"));
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stores")
}

/// What the golden store of `schema` was filled with when that was new.
fn golden_contents(schema: u32) -> Contents {
    let mut waiting = job(7, 2, "博客/日志.html".as_bytes());
    waiting.state = JobState::Waiting;
    waiting.attempts = 3;
    waiting.due_at = Timestamp(1_700_000_060_000);
    waiting.last_error = Some(JobError::new(Some(23), "send_files failed to open: Permission denied (13)"));
    let mut failed = job(8, 2, b"not\xffutf-8");
    failed.state = JobState::Failed;
    failed.origin = Origin::Scan;
    failed.last_error = Some(JobError::new(None, "killed"));
    let mut whole = job(9, 1, b"");
    whole.scope = Scope::Subtree;
    whole.origin = Origin::Reconcile;
    let mut children = job(10, 1, b"a/b");
    children.scope = Scope::Children;
    let mut jobs = vec![whole, children, failed, waiting];
    jobs.sort_by(|a, b| (a.target, &a.path).cmp(&(b.target, &b.path)));
    let first = Contents {
        roots: vec![root()],
        targets: vec![target(1), target(2)],
        directories: vec![],
        jobs,
        next_job_id: 42,
        damaged_records: 0,
    };
    if schema == 1 {
        return first;
    }
    let watermark = Moment { wall: NOW, boot: BootId([7; 16]), uptime_ms: 12_345 };
    let marked = RootRecord {
        mark: Some(DirectoryId { inode: 2, born_ns: None }),
        watermark: Some(watermark),
        scheduled_run: Some(Timestamp(1_700_000_000_500)),
        ..root()
    };
    let other = RootRecord { id: RootId(2), path: b"/home/\xff".to_vec(), ..root() };
    let inode_only = DirectoryRecord { id: DirectoryId { inode: 8, born_ns: None }, ..directory(8, 7, b"b\xff") };
    Contents {
        roots: vec![marked, other],
        targets: vec![TargetRecord { complete_under: Some(u64::MAX), ..target(1) }, target(2)],
        directories: vec![directory(7, 2, b"a"), inode_only, directory(8, 7, "博客".as_bytes())],
        ..first
    }
}

#[test]
fn every_golden_store_opens_and_holds_what_it_held() {
    let schemas: Vec<_> = fs::read_dir(fixtures())
        .expect("fixtures")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    assert_eq!(schemas.len(), STEPS.len());
    for golden in schemas {
        let name = golden.file_name().and_then(|name| name.to_str()).expect("a name");
        let schema = name.strip_prefix("schema-").and_then(|number| number.parse().ok()).expect("schema-N");
        let temp = tempfile::tempdir().expect("a directory");
        let dir = temp.path().join("state");
        disk::copy_dir(&golden, &dir).expect("copies");
        let (mut store, opened) = open(&dir);
        assert_eq!(opened, Opened { fresh: None, recovered: false, rolled_back: false, clean: true }, "{golden:?}");
        let copies = fs::read_dir(&dir).expect("a directory").flatten();
        let copies = copies.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"store.schema-")).count();
        assert_eq!(copies, usize::from(schema < SCHEMA), "an older store is copied, and no other");
        assert_eq!(store.load().expect("loads"), golden_contents(schema), "{golden:?}");
    }
}

/// Writes the golden store of a new schema; see the fixtures' README.
#[test]
#[ignore = "writes a fixture"]
fn make_golden_store() {
    let dir = fixtures().join(format!("schema-{SCHEMA}"));
    assert!(!dir.exists(), "a golden store is never made twice");
    let (mut store, _) = open(&dir);
    let Contents { roots, targets, directories, jobs, next_job_id, .. } = golden_contents(SCHEMA);
    let mut ops: Vec<_> = roots.into_iter().map(Op::PutRoot).collect();
    ops.extend(targets.into_iter().map(Op::PutTarget));
    ops.extend(directories.into_iter().map(Op::PutDirectory));
    ops.extend(jobs.into_iter().map(Op::PutJob));
    ops.push(Op::PutNextJobId(next_job_id));
    store.commit(&ops).expect("commits");
    drop(store);
    fs::remove_file(dir.join("lock")).expect("removes");
}
