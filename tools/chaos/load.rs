//! Changes of the source: the tests' random churn, and changes that are hard on a mirror that was not looking: trees moved in
//! with old times, rewrites that keep size and time, files held open for long, links that trade places with directories.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use fastrand::Rng;

use crate::harness::churn::{Churn, regular};
use crate::journal::Journal;

/// The most files that are held open at a time.
const HELD_MAX: usize = 4;
/// 2020-01-01, long before any watermark of a mirror.
const LONG_AGO: Duration = Duration::from_secs(1_577_836_800);

#[derive(Debug)]
pub struct Load {
    churn: Churn,
    rng: Rng,
    root: PathBuf,
    /// A directory beside the root, on the same file system.
    outside: PathBuf,
    held: Vec<(PathBuf, File)>,
    /// Whether files and trees are replaced by others of the same sizes and times.
    twins: bool,
    made: u64,
    journal: Journal,
}

/// A load that runs on a thread of its own until it is called back.
#[derive(Debug)]
pub struct Running {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Load>,
}

impl Load {
    /// Makes a load. With `open`, everybody may read every entry.
    pub fn new(seed: u64, root: &Path, outside: &Path, twins: bool, open: bool, journal: Journal) -> Self {
        let mut churn = Churn::new(seed, root, outside);
        (churn.twins, churn.open) = (twins, open);
        let rng = Rng::with_seed(seed ^ 0x5eed);
        let (root, outside) = (root.to_owned(), outside.to_owned());
        Self { churn, rng, root, outside, held: Vec::new(), twins, made: 0, journal }
    }

    /// Makes changes with short pauses until called back.
    pub fn run(mut self) -> Running {
        let over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let over = Arc::clone(&over);
            move || {
                while !over.load(Ordering::SeqCst) {
                    self.step();
                    std::thread::sleep(Duration::from_micros(self.rng.u64(0..4_000)));
                }
                self
            }
        });
        Running { over, thread }
    }

    pub fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }

    /// Makes one change. A change that the state of the tree does not allow does nothing.
    pub fn step(&mut self) {
        let path = self.churn.path();
        let (name, done) = match self.rng.u32(0..30) {
            0 => ("move in, old", self.move_in(&path)),
            1 if self.twins => ("rewrite, same size and time", twin(&path)),
            2 if self.twins => ("replace, same size and time", self.twin_over(&path)),
            3 => ("hold open", self.hold(&path)),
            4 => ("write to a held file", self.write_held()),
            5 => ("close a held file", self.close_one()),
            6 => ("link for directory", self.link_for_directory(&path)),
            7 => ("directory for link", directory_for_link(&path)),
            8 => ("out and back", self.out_and_back(&path)),
            9 => ("put old", put_old(&path)),
            _ => {
                self.churn.step();
                let last = self.churn.history.pop().unwrap_or_default();
                if last.ends_with(": ok") {
                    let last = last.replace(&format!("{}/", self.root.display()), "");
                    self.journal.note(format!("  {}", last.escape_debug()));
                }
                return;
            }
        };
        if done.is_ok() {
            let shown = path.strip_prefix(&self.root).unwrap_or(&path).as_os_str().as_bytes();
            self.journal.note(format!("  {name} {}", shown.escape_ascii()));
        }
    }

    /// Closes all files that are held open.
    pub fn close_all(&mut self) {
        for (path, _) in self.held.drain(..) {
            self.journal.note(format!("  close {}", path.display()));
        }
    }

    /// Causes more events than a small queue holds, with few files.
    pub fn storm(&mut self, events: u32) {
        let dir = self.root.join("storm");
        fs::create_dir_all(&dir).expect("cannot create a directory");
        for n in 0..events / 2 {
            fs::write(dir.join(format!("f{}", n % 60)), self.rng.u64(..).to_string()).expect("cannot write");
        }
        for n in 0..20 {
            let _ = fs::remove_file(dir.join(format!("f{}", self.rng.u32(0..60))));
            let born = dir.join(format!("d{}/sub", n % 5));
            fs::create_dir_all(&born).expect("cannot create a directory");
            fs::write(born.join("file"), self.rng.u64(..).to_string()).expect("cannot write");
        }
        let _ = fs::remove_dir_all(dir.join(format!("d{}", self.rng.u32(0..5))));
    }

    fn next_aside(&mut self, what: &str) -> PathBuf {
        self.made += 1;
        self.outside.join(format!("{what}{}", self.made))
    }

    /// Moves in a tree that was made beside the root and dated long ago, so that no time in it is recent.
    fn move_in(&mut self, path: &Path) -> io::Result<()> {
        if path.symlink_metadata().is_ok() {
            return Err(io::Error::other("occupied"));
        }
        let made = self.next_aside("tree");
        fs::create_dir_all(made.join("sub/deep"))?;
        // Without twins no two of these trees have files of the same size.
        let more = if self.twins { 0 } else { self.made };
        for name in ["a", "sub/b", "sub/deep/c"] {
            let content = format!("{:08} {:020}", self.made, self.rng.u64(..));
            fs::write(made.join(name), content + &"x".repeat(usize::try_from(more).expect("a number of trees")))?;
        }
        symlink("sub/b", made.join("link"))?;
        for name in ["a", "sub/b", "sub/deep/c", "sub/deep", "sub", ""] {
            age(&made.join(name))?;
        }
        fs::rename(&made, path)
    }

    /// Replaces a file as `cp -p` beside it and a rename over it would: only the inode and the content differ.
    fn twin_over(&mut self, path: &Path) -> io::Result<()> {
        regular(path)?;
        let meta = fs::metadata(path)?;
        let made = self.next_aside("twin");
        fs::write(&made, inverted(path)?)?;
        fs::set_permissions(&made, meta.permissions())?;
        File::open(&made)?.set_times(FileTimes::new().set_modified(meta.modified()?))?;
        fs::rename(&made, path)
    }

    fn hold(&mut self, path: &Path) -> io::Result<()> {
        if self.held.len() >= HELD_MAX {
            return Err(io::Error::other("enough are held"));
        }
        if path.symlink_metadata().is_ok() {
            regular(path)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        writeln!(file, "held {}", self.rng.u32(..))?;
        self.held.push((path.to_owned(), file));
        Ok(())
    }

    fn write_held(&mut self) -> io::Result<()> {
        let Some(n) = self.any_held() else { return Err(io::Error::other("none is held")) };
        let (_, file) = &mut self.held[n];
        if file.metadata()?.nlink() != 1 {
            // The name under which the file was opened may be outside of the tree by now, and the other name inside.
            self.held.swap_remove(n);
            return Ok(());
        }
        writeln!(file, "more {}", self.rng.u32(..))
    }

    fn close_one(&mut self) -> io::Result<()> {
        let Some(n) = self.any_held() else { return Err(io::Error::other("none is held")) };
        self.held.swap_remove(n);
        Ok(())
    }

    fn any_held(&mut self) -> Option<usize> {
        if self.held.is_empty() { None } else { Some(self.rng.usize(0..self.held.len())) }
    }

    /// Moves a directory aside, and gives its name to a link to it.
    fn link_for_directory(&mut self, path: &Path) -> io::Result<()> {
        if path.is_symlink() || !path.is_dir() {
            return Err(io::Error::other("no directory"));
        }
        self.made += 1;
        let beside = path.with_file_name(format!("was{}", self.made % 10));
        if beside.symlink_metadata().is_ok() {
            return Err(io::Error::other("occupied"));
        }
        fs::rename(path, &beside)?;
        symlink(beside.file_name().expect("a name"), path)
    }

    fn out_and_back(&mut self, path: &Path) -> io::Result<()> {
        let door = self.next_aside("door");
        fs::rename(path, &door)?;
        std::thread::sleep(Duration::from_millis(self.rng.u64(0..15)));
        fs::rename(&door, path)
    }
}

impl Running {
    /// Ends the thread and returns the load, with its open files.
    pub fn call_back(self) -> Load {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().expect("the load failed")
    }
}

fn age(path: &Path) -> io::Result<()> {
    let time = SystemTime::UNIX_EPOCH + LONG_AGO;
    File::open(path)?.set_times(FileTimes::new().set_accessed(time).set_modified(time))
}

fn inverted(path: &Path) -> io::Result<Vec<u8>> {
    let bytes: Vec<u8> = fs::read(path)?.into_iter().map(|byte| !byte).collect();
    if bytes.is_empty() { Err(io::Error::other("empty")) } else { Ok(bytes) }
}

/// Rewrites a file in place, and restores its time before the close.
fn twin(path: &Path) -> io::Result<()> {
    regular(path)?;
    let (bytes, time) = (inverted(path)?, fs::metadata(path)?.modified()?);
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&bytes, 0)?;
    file.set_modified(time)
}

fn directory_for_link(path: &Path) -> io::Result<()> {
    if !path.is_symlink() {
        return Err(io::Error::other("no link"));
    }
    fs::remove_file(path)?;
    fs::create_dir(path)?;
    fs::write(path.join("a"), "was a link")
}

/// Makes a new file with an old time, as `tar -x` and `cp -p` do.
fn put_old(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        regular(path)?;
    }
    let mut file = File::create(path)?;
    file.write_all(b"from the archive")?;
    file.set_modified(SystemTime::UNIX_EPOCH + LONG_AGO)
}
