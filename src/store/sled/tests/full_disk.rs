//! A disk that is full, under a store that is open and at the start.

use super::*;

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
