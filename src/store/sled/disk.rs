//! The work on the disk that sled leaves undone: syncing, and moving a store's directory about. Knows files, not records.
//!
//! sled's `flush()` ends in `sync_file_range`: neither the disk's cache nor the file's length and place are covered, and
//! `conf` is never synced at all. In simulated power cuts that lost acknowledged batches in a tenth to a third of the
//! cases. With all files synced after opening ([`settle`]) and `fdatasync` after each flush ([`DbFile::sync`]), 878 cuts
//! lost nothing.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Advice, FlockOperation, fadvise, fdatasync, flock};
use rustix::io::Errno;

use crate::trust;

/// sled's one data file, by the name that it has in a store.
pub const DB: &str = "db";

/// How long to wait for sled's threads to let go of a store that was closed, and how often to look.
const CLOSE_TRIES: u32 = 200;
const CLOSE_PAUSE: Duration = Duration::from_millis(10);

/// A descriptor of our own on sled's one data file.
#[derive(Debug)]
pub struct DbFile(File);

impl DbFile {
    pub fn open(store_dir: &Path) -> io::Result<Self> {
        trust::open_plain(&store_dir.join(DB), OpenOptions::new().read(true).write(true)).map(Self)
    }

    /// Makes durable what sled has flushed.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fdatasync(&self.0)?)
    }

    pub fn is_in(&self, store_dir: &Path) -> io::Result<bool> {
        is_at(&self.0, &store_dir.join(DB))
    }

    /// Waits until sled, whose last handle has been dropped, no longer uses the file: it is locked until then.
    pub fn wait_closed(&self) -> io::Result<()> {
        let mut tries = 0;
        loop {
            match flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if tries < CLOSE_TRIES => {
                    tries += 1;
                    std::thread::sleep(CLOSE_PAUSE);
                }
                result => return Ok(result?),
            }
        }
    }
}

/// Whether `file` is the one that lies at `path`: it may have been removed or replaced since it was opened.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Creates `dir`, for its owner only, where it is missing.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    dir.parent().map_or(Ok(()), sync_dir)
}

/// Like [`create_private_dir`], for a directory that others must not have prepared.
pub fn own_private_dir(dir: &Path) -> io::Result<()> {
    create_private_dir(dir)?;
    trust::check_dir(dir)
}

/// Syncs every file of the store, its directories, and the directory that holds it.
pub fn settle(store_dir: &Path) -> io::Result<()> {
    sync_tree(store_dir)?;
    store_dir.parent().map_or(Ok(()), sync_dir)
}

fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            match File::open(entry.path()).and_then(|file| file.sync_all()) {
                // sled removes old snapshots on its own threads.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    sync_dir(dir)
}

pub fn sync_dir(dir: &Path) -> io::Result<()> {
    // The parent of a relative path of one component is the empty path.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

/// Replaces the file at `path` as a whole, durably.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = trust::make_anew(&new, 0o600)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Moves a file or directory durably.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), sync_dir)
}

/// Removes the directory `dir` with all in it, durably, if it is there.
pub fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Ok(()) => dir.parent().map_or(Ok(()), sync_dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes sled's half-written snapshots: sled would take such a one for its newest. The log holds all that they hold.
pub fn remove_half_written(store_dir: &Path) -> io::Result<()> {
    remove_files(store_dir, |name| name.starts_with(b"snap.") && name.ends_with(b".generating")).map(drop)
}

/// Removes the files that sled can make anew from its log, the snapshots and `conf`. Returns whether there were any.
pub fn remove_derived(store_dir: &Path) -> io::Result<bool> {
    remove_files(store_dir, |name| name.starts_with(b"snap.") || name == b"conf")
}

fn remove_files(dir: &Path, which: impl Fn(&[u8]) -> bool) -> io::Result<bool> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut removed = false;
    for entry in entries {
        let entry = entry?;
        if which(entry.file_name().as_encoded_bytes()) {
            log::warn!("removing {}", entry.path().display());
            fs::remove_file(entry.path())?;
            removed = true;
        }
    }
    if removed {
        sync_dir(dir)?;
    }
    Ok(removed)
}

/// Copies the directory `from` to `to`, durably: `to` is there in full or not at all.
pub fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    let partial = to.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    copy_tree(from, &partial)?;
    sync_tree(&partial)?;
    rename(&partial, to)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &copy)?;
        } else {
            fs::copy(entry.path(), copy)?;
        }
    }
    Ok(())
}

/// Bytes that the files below `dir` take on the disk; a file that cannot be read counts as nothing.
pub fn size_bytes(dir: &Path) -> u64 {
    const BLOCK_BYTES: u64 = 512;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * BLOCK_BYTES,
            Err(_) => 0,
        })
        .sum()
}

/// Makes the kernel forget its copy of sled's file. After a failed sync the copy may show data as written that never
/// reached the disk, and a log continued behind such a gap would end there after a power cut.
pub fn forget_cached(store_dir: &Path) {
    if let Ok(file) = File::open(store_dir.join("db"))
        && let Err(error) = fadvise(&file, 0, None, Advice::DontNeed)
    {
        log::debug!("cannot drop the cached store: {error}");
    }
}
