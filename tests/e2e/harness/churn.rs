//! Seeded random operations on a tree. The same seed makes the same operations.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat};

/// The number of entries above which a tree only shrinks.
const ENTRIES_MAX: usize = 400;
const DEPTH_MAX: usize = 6;
const FILE_BYTES_MAX: usize = 40_000;
/// Few names, so that the same name is created, deleted and turned into something else again and again. Some names look like
/// rsync's messages about another name.
const NAMES: [&[u8]; 20] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"dir",
    b"e f",
    b"g",
    b".h",
    b"[x]",
    b"*",
    b"-n",
    b"#k",
    b"l'm",
    b"\xff\xfe",
    b"n\nl",
    b"log",
    b"a\" (in m1) failed: No space left on device (28)",
    b"\"b\": Permission denied (13)",
    b"file has vanished: \"c\"",
    b"%n\\#012",
];

#[derive(Debug)]
pub struct Churn {
    rng: Rng,
    root: PathBuf,
    /// A directory beside the tree, on the same file system, for moves out of the tree and back into it.
    outside: PathBuf,
    /// The operations so far, for the report of a failure.
    pub history: Vec<String>,
    /// Whether some writes keep size and time.
    pub twins: bool,
    /// Whether everybody may read every entry.
    pub open: bool,
    /// Whether directories are closed now and then to everybody but root, until [`Churn::reopen`].
    pub closes: bool,
}

impl Churn {
    pub fn new(seed: u64, root: &Path, outside: &Path) -> Self {
        let (root, outside) = (root.to_owned(), outside.to_owned());
        Self { rng: Rng::with_seed(seed), root, outside, history: Vec::new(), twins: true, open: false, closes: false }
    }

    /// Performs one operation. An operation that the state of the tree does not allow does nothing.
    pub fn step(&mut self) {
        let shrink = super::tree::count(&self.root) > ENTRIES_MAX;
        let path = self.path();
        let kinds = if self.closes { 27 } else { 23 };
        let what = if shrink { 9 + self.rng.u32(0..2) } else { self.rng.u32(0..kinds) };
        let (name, result) = match what {
            0..=3 => ("write", self.write(&path)),
            4 => ("append", self.append(&path)),
            5 => ("overwrite", self.overwrite(&path)),
            6 => ("truncate", self.truncate(&path)),
            7 | 8 => ("rename", self.rename(&path)),
            9 => ("remove", remove_file(&path)),
            10 => ("remove tree", self.remove_tree(&path)),
            11 | 12 => ("mkdir", fs::create_dir_all(&path)),
            13 => ("move directory", self.move_directory(&path)),
            14 => ("symlink", self.symlink(&path)),
            15 => ("hard link", self.hard_link(&path)),
            16 => ("chmod", self.chmod(&path)),
            17 => ("swap kind", self.swap(&path)),
            18 => ("move out or in", self.through_the_door(&path)),
            19 => ("exchange", self.exchange(&path)),
            20 => ("swap for a pipe", self.pipe(&path)),
            21 => ("move below what was a link", self.move_below_link(&path)),
            23..=25 => ("close", close(&path)),
            26 => ("open", reopen(&path)),
            _ => ("save as editors do", self.save(&path)),
        };
        let outcome = result.map_or_else(|e| e.to_string(), |()| "ok".to_owned());
        self.history.push(format!("{name} {}: {outcome}", path.display()));
    }

    /// Opens every closed directory.
    pub fn reopen(&mut self) {
        let result = reopen(&self.root.clone());
        self.history.push(format!("open all: {}", result.map_or_else(|e| e.to_string(), |()| "ok".to_owned())));
    }

    /// Lets time pass, so that transfers meet the tree in many states. No test relies on the pause.
    pub fn pause(&mut self) {
        if self.rng.u32(0..4) == 0 {
            std::thread::sleep(std::time::Duration::from_millis(self.rng.u64(0..20)));
        }
    }

    fn name(&mut self) -> OsString {
        OsStr::from_bytes(NAMES[self.rng.usize(0..NAMES.len())]).to_owned()
    }

    /// A path whose parent exists.
    pub fn path(&mut self) -> PathBuf {
        let mut path = self.root.clone();
        for _ in 0..self.rng.usize(0..DEPTH_MAX) {
            let below = path.join(self.name());
            if !below.is_dir() || below.is_symlink() {
                break;
            }
            path = below;
        }
        let name = self.name();
        path.join(name)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.rng.usize(0..FILE_BYTES_MAX)];
        self.rng.fill(&mut bytes);
        bytes
    }

    fn write(&mut self, path: &Path) -> io::Result<()> {
        if path.symlink_metadata().is_ok() {
            regular(path)?;
        }
        fs::write(path, self.bytes())
    }

    fn append(&mut self, path: &Path) -> io::Result<()> {
        regular(path)?;
        let bytes = self.bytes();
        OpenOptions::new().append(true).open(path)?.write_all(&bytes)
    }

    /// Changes some bytes in the middle of a file and keeps its length, and sometimes its time as well.
    fn overwrite(&mut self, path: &Path) -> io::Result<()> {
        regular(path)?;
        let meta = fs::metadata(path)?;
        let mut file = OpenOptions::new().write(true).open(path)?;
        if meta.len() > 0 {
            file.seek(SeekFrom::Start(self.rng.u64(0..meta.len())))?;
            file.write_all(&[self.rng.u8(..)])?;
        }
        if self.rng.bool() && self.twins { file.set_modified(meta.modified()?) } else { Ok(()) }
    }

    fn truncate(&mut self, path: &Path) -> io::Result<()> {
        regular(path)?;
        OpenOptions::new().write(true).open(path)?.set_len(self.rng.u64(0..1_000))
    }

    fn rename(&mut self, path: &Path) -> io::Result<()> {
        let to = self.path();
        fs::rename(path, to)
    }

    fn exchange(&mut self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(CWD, path, CWD, self.path(), RenameFlags::EXCHANGE)?)
    }

    fn move_directory(&mut self, path: &Path) -> io::Result<()> {
        let from = self.path();
        if from.is_dir() && !from.is_symlink() { fs::rename(from, path) } else { Ok(()) }
    }

    fn remove_tree(&mut self, path: &Path) -> io::Result<()> {
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { remove_file(path) }
    }

    fn symlink(&mut self, path: &Path) -> io::Result<()> {
        // A server without chroot, as ordinary users run it, rewrites links that lead out of the module.
        let targets: [&[u8]; 5] = if super::is_root() {
            [b"a", b"../b", b"/nowhere/at all", b"dir", b"."]
        } else {
            [b"a", b"b", b"nowhere/at all", b"dir", b"."]
        };
        let target = targets[self.rng.usize(0..targets.len())];
        symlink(OsStr::from_bytes(target), path)
    }

    fn hard_link(&mut self, path: &Path) -> io::Result<()> {
        let from = self.path();
        if !from.symlink_metadata()?.is_file() {
            return Ok(());
        }
        fs::hard_link(from, path)
    }

    fn chmod(&mut self, path: &Path) -> io::Result<()> {
        if !path.is_dir() || path.is_symlink() {
            regular(path)?;
        }
        let modes = if self.open { [0o755, 0o775, 0o777] } else { [0o755, 0o750, 0o700] };
        let mode = modes[self.rng.usize(0..3)];
        let mode = if path.is_dir() { mode } else { mode & 0o666 };
        fs::set_permissions(path, Permissions::from_mode(mode))
    }

    /// Replaces an entry by one of another kind.
    fn swap(&mut self, path: &Path) -> io::Result<()> {
        let was_dir = path.is_dir() && !path.is_symlink();
        let was_link = path.is_symlink();
        self.remove_tree(path)?;
        match (was_dir, was_link) {
            (true, _) if self.rng.bool() => fs::write(path, self.bytes()),
            (_, true) => fs::write(path, self.bytes()),
            (true, _) => self.symlink(path),
            _ => {
                fs::create_dir(path)?;
                let inner = path.join(self.name());
                self.write(&inner)
            }
        }
    }

    /// Moves an entry out of the tree, or back into it under another name, with its old times.
    fn through_the_door(&mut self, path: &Path) -> io::Result<()> {
        let name = self.name();
        let door = self.outside.join(name);
        if path.symlink_metadata().is_ok() {
            if door.is_dir() && !door.is_symlink() {
                fs::remove_dir_all(&door)?;
            }
            fs::rename(path, door)
        } else {
            fs::rename(door, path)
        }
    }

    /// Swaps a file for a pipe, which hangs everyone who opens it, and sometimes back.
    fn pipe(&mut self, path: &Path) -> io::Result<()> {
        regular(path)?;
        let parent = path.parent().expect("a path of the tree has a parent");
        let (pipe, kept) = (parent.join("save-pipe"), parent.join("save-kept"));
        make_pipe(&pipe)?;
        fs::hard_link(path, &kept)?;
        fs::rename(&pipe, path)?;
        if self.rng.bool() { fs::rename(&kept, path) } else { fs::remove_file(&kept) }
    }

    /// Makes a directory in the place of a link, and moves another directory into it, before or after the target knows of the
    /// first.
    fn move_below_link(&mut self, path: &Path) -> io::Result<()> {
        let from = self.path();
        if !path.is_symlink() || from.is_symlink() || !from.is_dir() || path.starts_with(&from) {
            return Ok(());
        }
        fs::remove_file(path)?;
        fs::create_dir(path)?;
        self.pause();
        let name = self.name();
        fs::rename(from, path.join(name))
    }

    fn save(&mut self, path: &Path) -> io::Result<()> {
        let parent = path.parent().expect("a path of the tree has a parent");
        let temporary = parent.join(format!("save-{}", self.rng.u32(..)));
        fs::write(&temporary, self.bytes())?;
        let result = fs::rename(&temporary, path);
        if result.is_err() {
            fs::remove_file(&temporary)?;
        }
        result
    }
}

/// Refuses a path that is no regular file, since such an entry cannot be changed in place. A hard-linked file can be changed
/// under any of its names.
pub fn regular(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_file() { Ok(()) } else { Err(io::Error::other("no regular file")) }
}

pub fn make_pipe(path: &Path) -> io::Result<()> {
    Ok(mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0)?)
}

fn remove_file(path: &Path) -> io::Result<()> {
    if path.is_dir() && !path.is_symlink() { fs::remove_dir(path) } else { fs::remove_file(path) }
}

/// Closes a directory to everybody but root.
fn close(path: &Path) -> io::Result<()> {
    if path.is_dir() && !path.is_symlink() {
        fs::set_permissions(path, Permissions::from_mode(0o000))?;
    }
    Ok(())
}

/// Opens the closed directories at a path and below, from the top.
fn reopen(path: &Path) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(path).into_iter().flatten().filter(|entry| entry.file_type().is_dir()) {
        if entry.metadata()?.mode() & 0o777 == 0 {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}
