//! Opens and checks the files that syncq writes or believes, in places where others may have been before it.
//!
//! Whoever may write into a state directory, or has prepared one, could have a symbolic link there lead a syncq that runs
//! as root to any file of the machine, or put other jobs into its queue. So a state directory and the files that syncq
//! keeps in it belong to syncq's own user (or to root) and are written by nobody else. A link is never followed there,
//! and a file that is no regular one is not waited for. One look at the start ([`check_state`]) covers the files that
//! sled opens by itself; each file that syncq opens itself is looked at again through its descriptor ([`open`]).
//!
//! A file that a person names, such as a configuration, may be reached through links: they are how Kubernetes and
//! `/etc/alternatives` put files in place. [`open_given`] only sees to it that the file is a regular one, so that a FIFO
//! holds up nothing.
//!
//! Deliberately not here: the directories above. Whoever may rename those can take any file's place. A state directory
//! below another user's home is that user's to replace; then its owner is another one, and the next start refuses it.

use std::fs::{self, DirEntry, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// The fixed names under which syncq keeps files in a state directory. Anything else there is not syncq's and is not
/// looked at.
pub const STATE_FILES: [&str; 13] = [
    "lock",
    "identity",
    "identity.new",
    "progress",
    "ballast",
    "store",
    "store.compact",
    "store.compact.partial",
    "store.old",
    "syncq.pid",
    "syncq.log",
    "control.sock",
    "ssh",
];

/// The mode bits by which others may write a file.
const WRITABLE: u32 = 0o022;
const WRITABLE_BY_ALL: u32 = 0o002;
/// The mode bits by which others may read a file, where it holds a secret.
const READABLE: u32 = 0o044;
/// The mode bits by which others may enter a directory. Without them they reach nothing in it, whatever the modes there.
const ENTERABLE: u32 = 0o011;

/// Why a file or directory is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {why}", .path.display())]
pub struct Untrusted {
    pub path: PathBuf,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("is a symbolic link")]
    Link,
    #[error("is no regular file")]
    NoFile,
    #[error("is no directory")]
    NoDirectory,
    #[error("belongs to user {0}")]
    Owner(u32),
    #[error("may be written by others (mode {:03o})", .0 & 0o777)]
    Writable(u32),
    #[error("may be read by others (mode {:03o})", .0 & 0o777)]
    Readable(u32),
    /// Another name of the same file may lie where others reach it.
    #[error("has a second name (a hard link)")]
    Linked,
}

impl Untrusted {
    /// What an operator can do about the refusal.
    pub fn hint(&self) -> String {
        let shown = self.path.display();
        match self.why {
            Why::Owner(_) => {
                format!("choose a directory of your own (--state-dir DIR), or look what is in it and chown {shown}")
            }
            Why::Writable(_) => format!("look what is in it, then: chmod go-w {shown}"),
            Why::Readable(_) => format!("chmod 600 {shown}"),
            Why::Link | Why::NoFile | Why::NoDirectory | Why::Linked => {
                format!("look who put it there, and remove it: ls -l {shown}")
            }
        }
    }

    /// The refusal in an error, if there is one.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Untrusted> for io::Error {
    fn from(untrusted: Untrusted) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, untrusted)
    }
}

/// Whether that user may decide what syncq does: syncq's own user, or root.
fn is_ours(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw() || uid == 0
}

/// Checks a state directory and the files that syncq keeps in it. A directory that is not there belongs to nobody else.
///
/// Nobody else can change the directory afterwards, so the files that sled opens there by itself need no further look.
pub fn check_state(dir: &Path) -> io::Result<()> {
    check_dir(dir)?;
    check_entries(dir, closed_in(dir))
}

/// The mode bits that are refused in a directory: none, if others do not get into it.
fn closed_in(dir: &Path) -> u32 {
    let is_closed = fs::metadata(dir).is_ok_and(|found| found.mode() & ENTERABLE == 0);
    if is_closed { 0 } else { WRITABLE }
}

/// Checks that a directory is ours and written by us alone. A link to a directory is followed if the link is ours, too.
pub fn check_dir(dir: &Path) -> io::Result<()> {
    let refuse = |why| Err(Untrusted { path: dir.to_owned(), why }.into());
    let named = match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        named => named?,
    };
    if !is_ours(named.uid()) {
        return refuse(Why::Owner(named.uid()));
    }
    let found = if named.is_symlink() { fs::metadata(dir)? } else { named };
    if !found.is_dir() {
        return refuse(Why::NoDirectory);
    }
    if !is_ours(found.uid()) {
        return refuse(Why::Owner(found.uid()));
    }
    if found.mode() & WRITABLE != 0 {
        return refuse(Why::Writable(found.mode()));
    }
    Ok(())
}

fn check_entries(dir: &Path, closed: u32) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if STATE_FILES.iter().any(|&known| entry.file_name() == known) {
            check_entry(&entry, closed)?;
        }
    }
    Ok(())
}

/// Checks one entry of a directory, and all below it.
fn check_entry(entry: &DirEntry, closed: u32) -> io::Result<()> {
    let path = entry.path();
    let found = match entry.metadata() {
        // sled removes old snapshots on its own threads.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let kind = found.file_type();
    if kind.is_dir() {
        judge(&path, &found, closed)?;
        let closed = if found.mode() & ENTERABLE == 0 { 0 } else { closed };
        for below in fs::read_dir(&path)? {
            check_entry(&below?, closed)?;
        }
        return Ok(());
    }
    // A socket is replaced, never opened as a file.
    if std::os::unix::fs::FileTypeExt::is_socket(&kind) {
        return judge(&path, &found, 0);
    }
    judge_kind(&path, &found)?;
    judge(&path, &found, closed)
}

fn judge_kind(path: &Path, found: &Metadata) -> io::Result<()> {
    let refuse = |why| Err(Untrusted { path: path.to_owned(), why }.into());
    if found.is_symlink() {
        return refuse(Why::Link);
    }
    if !found.is_file() {
        return refuse(Why::NoFile);
    }
    if found.nlink() > 1 {
        return refuse(Why::Linked);
    }
    Ok(())
}

fn judge(path: &Path, found: &Metadata, closed: u32) -> io::Result<()> {
    let refuse = |why| Err(Untrusted { path: path.to_owned(), why }.into());
    if !is_ours(found.uid()) {
        return refuse(Why::Owner(found.uid()));
    }
    match found.mode() & closed {
        0 => Ok(()),
        open if open & WRITABLE != 0 => refuse(Why::Writable(found.mode())),
        _ => refuse(Why::Readable(found.mode())),
    }
}

/// Opens a file of our own in the way that `options` say. No link is followed, anything but a regular file is opened only
/// for as long as it takes to see that, and the file has to be ours alone. A file that is made gets the mode of
/// `options`.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = open_unjudged(path, options)?;
    let found = file.metadata()?;
    judge_kind(path, &found)?;
    judge(path, &found, WRITABLE)?;
    Ok(file)
}

/// Like [`open`], for a file that has been looked at with its directory, or is in another user's: only its kind is judged,
/// not its owner and mode.
pub fn open_plain(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = open_unjudged(path, options)?;
    judge_kind(path, &file.metadata()?)?;
    Ok(file)
}

fn open_unjudged(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Without NONBLOCK the opening of a FIFO waits for whoever has its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let refuse = |why| Untrusted { path: path.to_owned(), why }.into();
    options.custom_flags(flags.bits().cast_signed()).open(path).map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => refuse(Why::Link),
        // A FIFO that nobody reads, or a socket.
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => refuse(Why::NoFile),
        _ => error,
    })
}

/// Makes a new file in the place of whatever has that name. The old file, or the one that a link leads to, is not written
/// to.
pub fn make_anew(path: &Path, mode: u32) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Opens a file that a person has named, for reading. Links are followed; the file has to be a regular one.
pub fn open_given(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let refuse = || Untrusted { path: path.to_owned(), why: Why::NoFile }.into();
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => refuse(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(refuse()) }
}

/// Like [`open_given`], for a file that holds a secret: the file is ours, and nobody else reads or writes it.
pub fn open_secret(path: &Path) -> io::Result<File> {
    let file = open_given(path)?;
    judge(path, &file.metadata()?, READABLE | WRITABLE)?;
    Ok(file)
}

/// Whether users other than ours, root and a group that somebody has chosen decide the content of a file that a person
/// has named, and by what means.
pub fn others_hand(path: &Path) -> Option<Why> {
    let found = fs::metadata(path).ok()?;
    let judged = judge(path, &found, WRITABLE_BY_ALL);
    judged.err().and_then(|error| Untrusted::of(&error).map(|untrusted| untrusted.why))
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
