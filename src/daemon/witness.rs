//! Remembers which targets were equal once, for a start that finds its store gone.
//!
//! The first comparison with a target deletes nothing unasked, and the store records which targets have had one. If a daemon is
//! killed and its state directory is lost too, the next start would take old mirrors for new ones. So the running daemon also
//! keeps the list in the runtime directory (`$XDG_RUNTIME_DIR`, or root's `/run`), which lives as long as the machine runs. The
//! file is named after the state directory. An orderly stop removes the file: an operator who removes the state directory after
//! a stop begins anew, and is asked.
//!
//! Deliberately absent: marks in the source or on the target, which are not ours to write into. Without a runtime directory
//! nothing is kept, and the next start asks.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use log::debug;

use crate::model::DirectoryId;
use crate::trust;

/// The most bytes of such a list; a longer file was not written by syncq.
const BYTES_MAX: u64 = 4 << 20;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Witness {
    file: Option<PathBuf>,
    /// The list that a killed daemon has left.
    found: BTreeSet<String>,
    written: BTreeSet<String>,
}

impl Witness {
    /// Reads what the last daemon of this state directory has left, if it was killed.
    pub fn open(state_dir: &Path) -> Self {
        Self::open_in(runtime_dir(std::env::var_os("XDG_RUNTIME_DIR")), state_dir)
    }

    fn open_in(runtime_dir: Option<PathBuf>, state_dir: &Path) -> Self {
        let name = format!("syncq-equal-{:08x}", crc32fast::hash(state_dir.as_os_str().as_bytes()));
        let file = runtime_dir.map(|dir| dir.join(name));
        let read = |file: &PathBuf| {
            let mut text = String::new();
            trust::open(file, OpenOptions::new().read(true))?.take(BYTES_MAX).read_to_string(&mut text)?;
            Ok::<_, io::Error>(text)
        };
        let text = file.as_ref().map(read).and_then(|read| match read {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                debug!("what the last syncq knew of its targets cannot be read: {error}");
                None
            }
            read => read.ok(),
        });
        let found = text.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
        Self { file, found, written: BTreeSet::new() }
    }

    /// Whether the previous daemon knew the target as a copy of its source.
    pub fn knows(&self, source: DirectoryId, target: &str, port: Option<u16>) -> bool {
        self.found.contains(&line(source, target, port))
    }

    /// Keeps exactly these targets, each with its source.
    pub fn keep<'a>(&mut self, targets: impl Iterator<Item = (DirectoryId, &'a str, Option<u16>)>) {
        let lines: BTreeSet<String> = targets.map(|(source, target, port)| line(source, target, port)).collect();
        let Some(file) = self.file.as_ref().filter(|_| lines != self.written) else { return };
        if let Err(error) = write(file, &lines) {
            debug!("what is known of targets is kept in the store alone: {}: {error}", file.display());
            self.file = None;
        }
        self.written = lines;
    }

    /// Removes the list at an orderly stop, when the store has all of it.
    pub fn remove(&mut self) {
        if let Some(file) = self.file.take() {
            // The file may never have existed.
            let _ = fs::remove_file(file);
        }
    }
}

fn runtime_dir(user: Option<OsString>) -> Option<PathBuf> {
    let user = user.map(PathBuf::from).filter(|dir| dir.is_absolute() && dir.is_dir());
    let system = || rustix::process::geteuid().is_root().then(|| PathBuf::from("/run"));
    user.or_else(system)
}

/// One line of the list. The target's name is quoted, since it may contain anything.
fn line(source: DirectoryId, target: &str, port: Option<u16>) -> String {
    let DirectoryId { inode, born_ns } = source;
    format!("{inode} {} {} {target:?}", born_ns.unwrap_or(0), port.unwrap_or(0))
}

/// Writes the list so that at every moment either the old or the new one is there.
fn write(file: &Path, lines: &BTreeSet<String>) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    trust::make_anew(&fresh, 0o600)?.write_all(text.as_bytes())?;
    fs::rename(fresh, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: DirectoryId = DirectoryId { inode: 7, born_ns: Some(1) };

    fn witness(dir: &Path) -> Witness {
        Witness::open_in(Some(dir.to_owned()), Path::new("/var/lib/syncq"))
    }

    #[test]
    fn what_a_killed_daemon_knew_is_found_until_an_orderly_stop() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = witness(dir.path());
        assert!(!first.knows(SOURCE, "host::a", None));
        let targets = [(SOURCE, "host::a", None), (SOURCE, "host::\n7 1 0 b", Some(874))];
        first.keep(targets.into_iter());
        drop(first);
        let mut second = witness(dir.path());
        assert!(second.knows(SOURCE, "host::a", None));
        let others = [
            second.knows(SOURCE, "host::a", Some(874)),
            second.knows(SOURCE, "b", None),
            second.knows(DirectoryId { inode: 8, ..SOURCE }, "host::a", None),
            Witness::open_in(Some(dir.path().to_owned()), Path::new("/other")).knows(SOURCE, "host::a", None),
        ];
        assert_eq!(others, [false; 4]);
        second.keep([(SOURCE, "host::c", None)].into_iter());
        second.remove();
        assert!(!witness(dir.path()).knows(SOURCE, "host::c", None));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_a_runtime_directory_nothing_is_kept_and_nothing_fails() {
        let mut witness = Witness::open_in(None, Path::new("/var/lib/syncq"));
        witness.keep([(SOURCE, "host::a", None)].into_iter());
        let mut unwritable = Witness::open_in(Some(PathBuf::from("/proc")), Path::new("/var/lib/syncq"));
        unwritable.keep([(SOURCE, "host::a", None)].into_iter());
        assert!(!unwritable.knows(SOURCE, "host::a", None));
        assert_eq!(runtime_dir(Some("relative".into())).filter(|dir| dir.is_relative()), None);
    }
}
