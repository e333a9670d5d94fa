//! A disk that is full, under a store that is open and at the start.

use super::*;

/// After a full disk sled refuses everything for ever, even with space back: the store has to open sled again.
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

/// With the disk full at the start nothing is set aside, and all that is known is there: the store is read from a copy,
/// and taken up as soon as there is room. Without ballast this works as often as it takes.
#[test]
fn each_start_on_a_full_disk_knows_all_and_writes_it_when_there_is_room() {
    let temp = tempfile::tempdir().expect("a directory");
    let Some(_mounted) = Tmpfs::mount(temp.path(), "6m") else { return };
    let dir = temp.path().join("state");
    filled_and_killed(&dir, 500);
    let ballast = temp.path().join("filler");
    fill(&ballast);
    for _ in 0..3 {
        let (mut store, opened) = open(&dir);
        assert_eq!((opened.fresh, opened.rolled_back, opened.clean), (None, false, false));
        let contents = store.load().expect("loads");
        assert_eq!((contents.jobs.len(), contents.roots.len(), contents.targets.len()), (501, 1, 1));
        let error = store.commit(&[Op::PutJob(job(900, 1, b"on a full disk"))]).expect_err("there is no room");
        assert!(error.is_full_disk(), "{error:?}");
        // Killed: nothing is closed in order.
        std::mem::drop(store);
    }
    let (mut store, _) = open(&dir);
    fs::remove_file(&ballast).expect("removes");
    store.commit(&[Op::PutJob(job(901, 1, b"there is room"))]).expect("commits");
    drop(store);
    let (mut store, opened) = open(&dir);
    assert_eq!((opened.fresh, opened.rolled_back), (None, false));
    assert_eq!(store.load().expect("loads").jobs.len(), 502);
}

/// Nothing was ever stored: all that is known is stored as soon as there is room.
#[test]
fn the_first_start_on_a_full_disk_begins_with_nothing_and_is_made_up_for() {
    let temp = tempfile::tempdir().expect("a directory");
    let Some(_mounted) = Tmpfs::mount(temp.path(), "6m") else { return };
    let dir = temp.path().join("state");
    fs::create_dir(&dir).expect("a directory");
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("a mode");
    let ballast = temp.path().join("filler");
    fill(&ballast);
    for _ in 0..2 {
        let (mut store, opened) = open(&dir);
        assert!(opened.fresh.is_some());
        assert!(store.load().expect("loads").jobs.is_empty());
        assert!(store.commit(&known(1)).expect_err("there is no room").is_full_disk());
    }
    let (mut store, _) = open(&dir);
    fs::remove_file(&ballast).expect("removes");
    // Whatever the first commit says, it asks for all that the queue knows.
    let _ = store.commit(&known(1));
    store.commit(&known(1)).expect("commits");
    drop(store);
    let (mut store, opened) = open(&dir);
    assert_eq!(opened.fresh, None);
    assert_eq!(store.load().expect("loads").targets.len(), 1);
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
    store.maintain().expect("is maintained");
    assert_eq!(ballast(), 16 << 20);
    drop(store);
    fill(&filler);
    let looked = SledStore::open_existing(&dir).map(drop);
    assert!(looked.is_err() && ballast() > 0, "a command gives up nothing: {looked:?}");
    let (mut store, opened) = open(&dir);
    assert_eq!((opened.fresh, ballast()), (None, 0));
    assert_eq!(store.load().expect("loads").jobs.len(), 500);
    store.commit(&[Op::PutJob(job(501, 1, b"on a full disk"))]).expect("commits");
    store.maintain().expect("is maintained");
    assert_eq!(ballast(), 0, "it is not what fills the disk again");
    fs::remove_file(&filler).expect("removes");
    store.maintain().expect("is maintained");
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
