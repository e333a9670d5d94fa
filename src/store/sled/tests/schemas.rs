//! Stores of older and newer schemas.

use super::*;

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

/// A later schema.
const NEXT: u32 = SCHEMA + 1;

/// The step to that schema, as a later syncq would have it: each target's key gets a note.
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

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stores")
}

/// The contents with which the golden store of `schema` was filled when that schema was new.
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
