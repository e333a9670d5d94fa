//! Small file operations that name the path when they fail.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

/// Writes a file as programs do: open, write, close.
#[track_caller]
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::write(path, content).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}

#[track_caller]
pub fn append(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap_or_else(|e| panic!("cannot append to {}: {e}", path.display()));
    file.write_all(content.as_ref()).unwrap_or_else(|e| panic!("cannot append to {}: {e}", path.display()));
}

#[track_caller]
pub fn touch(path: impl AsRef<Path>) {
    append(path, b"");
}

#[track_caller]
pub fn make_dir(path: impl AsRef<Path>) {
    let path = path.as_ref();
    fs::create_dir_all(path).unwrap_or_else(|e| panic!("cannot create {}: {e}", path.display()));
}

/// The destination of a link that is meant to lead out of the tree. An rsync daemon that is not root cannot use chroot, and
/// rewrites such links. For that daemon the destination stays within the tree.
pub fn outward(target: &str) -> &str {
    if super::is_root() { target } else { "within" }
}

/// Sets access and modification time, leaving the change time to the kernel.
#[track_caller]
pub fn set_mtime(path: impl AsRef<Path>, time: SystemTime) {
    let path = path.as_ref();
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).expect("a time after the epoch");
    let time = rustix::fs::Timespec::try_from(since_epoch).expect("a time in range");
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    // By path and not by descriptor: a file may be closed to its owner.
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty())
        .unwrap_or_else(|e| panic!("cannot set the times of {}: {e}", path.display()));
}

/// Overwrites a file in place and restores its time, as a restore does: only the `ctime` shows the change.
pub fn overwrite_quietly(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let (path, content) = (path.as_ref(), content.as_ref());
    let before = std::fs::metadata(path).unwrap_or_else(|e| panic!("cannot stat {}: {e}", path.display()));
    assert_eq!(before.len(), content.len() as u64, "{} is of another size", path.display());
    let file = File::options().write(true).open(path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, content))
        .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    set_mtime(path, before.modified().expect("a time"));
}

/// Content that differs for each seed and hardly compresses.
pub fn patterned(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}
