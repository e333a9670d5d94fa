//! Where the sockets of shared connections are, and how the master that listens on one is ended.
//!
//! The sockets are in a directory that is this user's alone: whoever could write there could take the place of a
//! connection. Each opening takes a new name, so an older master that ends late removes its own socket and no other.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::monotonic;
use crate::mirror::rsync::orphans::end_with_argument;
use crate::mirror::rsync::ssh_command::SSH;

/// How long a master may take to end when it is told to.
const EXIT_WITHIN: Duration = Duration::from_secs(2);

pub(crate) const POLL: Duration = Duration::from_millis(10);

/// A socket's address holds 107 bytes on Linux, and ssh makes it under a longer name first.
const SOCKET_PATH_BYTES_MAX: usize = 107 - ".0123456789abcdef".len();

/// The sockets of one daemon.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(crate) owner: OsString,
    /// `None`: no directory with a name short enough was found.
    dir: Option<PathBuf>,
    next: AtomicU64,
}

impl Sockets {
    /// The sockets of the daemon with the state directory `owner`.
    pub(crate) fn new(owner: &Path) -> Self {
        let dir = candidates(owner, std::env::var_os("XDG_RUNTIME_DIR")).find(|dir| fits(dir));
        Self { owner: owner.as_os_str().to_owned(), dir, next: AtomicU64::new(0) }
    }

    /// Whether there is a directory for sockets.
    pub(super) fn have_place(&self) -> bool {
        self.dir.is_some()
    }

    /// The name of a new socket. Makes the directory if it is missing. The error: there is no directory, or it is not
    /// private.
    pub(crate) fn fresh(&self) -> io::Result<PathBuf> {
        let dir = self.dir.as_ref().ok_or(io::ErrorKind::NotFound)?;
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_private(dir)?,
            made => made?,
        }
        let socket = dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(socket),
        }
    }

    /// Ends the master behind each socket, and removes the sockets and their directory.
    pub(crate) fn clear(&self) {
        let Some(dir) = self.dir.as_ref().filter(|dir| check_private(dir).is_ok()) else { return };
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
                end(&self.owner, &entry.path());
            }
        }
        // A file that is not syncq's keeps the directory.
        let _ = fs::remove_dir(dir);
    }
}

/// Directories where the sockets may be, best first. The number, a hash of the state directory, keeps daemons apart.
fn candidates(owner: &Path, runtime: Option<OsString>) -> impl Iterator<Item = PathBuf> {
    let mut hasher = DefaultHasher::new();
    owner.hash(&mut hasher);
    let name = format!("syncq-{:016x}", hasher.finish());
    let runtime = runtime.map(PathBuf::from).filter(|dir| dir.is_absolute());
    let system = rustix::process::geteuid().is_root().then(|| PathBuf::from("/run"));
    let elsewhere = [runtime, system].into_iter().flatten().map(move |dir| dir.join(&name));
    [owner.join("ssh")].into_iter().chain(elsewhere)
}

/// Whether sockets in `dir` can be bound, and their names need no quotes.
fn fits(dir: &Path) -> bool {
    let bytes = dir.as_os_str().as_bytes();
    let plain = bytes.iter().all(|&b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    plain
        && bytes.len() + "/18446744073709551615".len() <= SOCKET_PATH_BYTES_MAX
        && dir.parent().is_some_and(Path::is_dir)
}

/// The error: not only this user may write in the directory. Whoever may could take the place of a connection.
fn check_private(dir: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(dir)?;
    let ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if ours { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

pub(crate) fn listens(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Ends the master behind a socket, and whatever goes through its connection. The socket is gone afterwards.
pub(crate) fn end(owner: &OsStr, socket: &Path) {
    if !listens(socket) || !exits(socket) {
        // The master hangs, or its socket was removed. It is found by this word among its arguments.
        end_with_argument(owner, &control_path(socket));
    }
    let _ = fs::remove_file(socket);
}

pub(super) fn control_path(socket: &Path) -> OsString {
    let mut option = OsString::from("ControlPath=");
    option.push(socket);
    option
}

/// Tells the master behind a socket to end, and returns whether it has.
fn exits(socket: &Path) -> bool {
    let mut command = Command::new(SSH);
    // ssh wants the name of a host here but does not look at it.
    command.args(["-F", "none", "-O", "exit", "-o"]).arg(control_path(socket)).arg("syncq");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = monotonic();
    let Ok(mut child) = command.spawn() else { return false };
    let mut has_asked = false;
    while begun.elapsed() < EXIT_WITHIN {
        has_asked = has_asked || child.try_wait().is_ok_and(|status| status.is_some());
        if has_asked && !listens(socket) {
            return true;
        }
        std::thread::sleep(POLL);
    }
    if !has_asked {
        let _ = child.kill();
        let _ = child.wait();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_where_their_names_fit_and_nobody_else_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let short = dir.path().join("state");
        let long = dir.path().join("x".repeat(100));
        let runtime = dir.path().join("run");
        for made in [&short, &long, &runtime] {
            fs::create_dir(made).unwrap();
        }
        let found = |owner: &Path| candidates(owner, Some(runtime.clone().into())).find(|dir| fits(dir)).unwrap();
        assert_eq!(found(&short), short.join("ssh"));
        let elsewhere = found(&long);
        assert!(elsewhere.starts_with(&runtime), "{elsewhere:?}");
        assert_ne!(elsewhere, found(&long.join("other")));
        assert!(!fits(Path::new("/with blank/ssh")) && !fits(Path::new("/nonexistent/ssh")));

        let sockets = Sockets { owner: "x".into(), dir: Some(short.join("ssh")), next: AtomicU64::new(0) };
        assert_eq!(sockets.fresh().unwrap(), short.join("ssh/0"));
        assert_eq!(sockets.fresh().unwrap(), short.join("ssh/1"));
        fs::set_permissions(short.join("ssh"), std::os::unix::fs::PermissionsExt::from_mode(0o770)).unwrap();
        assert!(sockets.fresh().is_err());
    }

    #[test]
    fn what_a_dead_master_has_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("ssh");
        DirBuilder::new().mode(0o700).create(&ours).unwrap();
        drop(std::os::unix::net::UnixListener::bind(ours.join("3")).unwrap());
        assert!(!listens(&ours.join("3")));
        Sockets::new(dir.path()).clear();
        assert!(!ours.exists());
    }
}
