//! `-d`: leaves the terminal, but only once the daemon is up.
//!
//! The program starts itself again with a hidden flag. The child opens a session of its own, logs to a file, and reports on
//! its stdout when it is ready; until then the parent relays its stderr. So the parent can return 0 for a daemon that runs,
//! and the child's own exit code for a daemon that could not start.
//!
//! The working directory stays the same: sersync did so, and plugin commands may be relative to it.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::umask;

use super::logging;
use crate::trust;

/// The hidden flag by which the program knows that it is the child.
pub const CHILD_FLAG: &str = "detached";

const READY: &str = "ready";

/// How long the last start-up lines may take to arrive after the daemon is ready.
const RELAY_REST: Duration = Duration::from_secs(1);

/// Starts `args` (without the program's name) as a daemon and waits until it is ready or has failed. Returns its exit
/// code; a failed daemon has already said why.
pub fn launch(args: &[OsString]) -> io::Result<u8> {
    let mut child = without_inherited(&own_program()?)?
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let relayed = relay(&mut child);
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // A child that dies closes its stdout, which reads as an empty line.
        BufReader::new(stdout).take(64).read_line(&mut line)?;
    }
    if line.trim_end() == READY {
        let _ = relayed.recv_timeout(RELAY_REST);
        return Ok(0);
    }
    let status = child.wait()?;
    let _ = relayed.recv_timeout(RELAY_REST);
    if let Some(signal) = status.signal() {
        return Err(io::Error::other(format!("the daemon was killed by signal {signal} while starting")));
    }
    // A child that ended with 0 before it was ready is no success either.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).filter(|&code| code != 0).unwrap_or(1))
}

/// A command for `program` without the descriptors that this process's caller left open: a lock taken by `flock 9` would
/// otherwise be held for as long as the daemon lives. Rust can close a descriptor by its number only in unsafe code, a
/// shell does so in a word. The script contains only numbers. `program` and the command's further arguments pass through
/// untouched.
fn without_inherited(program: &Path) -> io::Result<Command> {
    // A plain sh knows no descriptors above 9 in a redirection.
    let bash = Path::new("/bin/bash");
    let (shell, highest) = if bash.exists() { (bash, u32::MAX) } else { (Path::new("/bin/sh"), 9) };
    let mut script = String::from(r#"exec "$0" "$@""#);
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        // Descriptors of this process are among them. They do not survive exec anyway, and the shell may close one twice.
        if let Some(number) = number.filter(|number| (3..=highest).contains(number)) {
            script.push_str(&format!(" {number}>&-"));
        }
    }
    let mut command = Command::new(shell);
    command.arg("-c").arg(script).arg(program);
    Ok(command)
}

/// Copies the child's stderr to this process's. The receiver wakes up when the child closes its stderr.
fn relay(child: &mut Child) -> mpsc::Receiver<()> {
    let (done, relayed) = mpsc::channel::<()>();
    if let Some(mut stderr) = child.stderr.take() {
        std::thread::spawn(move || {
            let _ = io::copy(&mut stderr, &mut io::stderr());
            drop(done);
        });
    }
    relayed
}

/// Makes this process, the child, the leader of a session of its own. To be called before anything is opened or started.
pub fn begin() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Keeps files made from now on from being writable by others, whatever the caller's umask. A stricter umask stays.
pub fn tighten_umask() {
    let others = Mode::WGRP | Mode::WOTH;
    let before = umask(others);
    umask(before | others);
}

/// Tells the waiting parent that the daemon is up, and lets go of the parent's terminal.
pub fn ready() {
    // The write fails if the parent was interrupted, which does not matter any more.
    let _ = writeln!(io::stdout(), "{READY}");
    let _ = io::stdout().flush();
    logging::leave_terminal();
}

/// The file to execute. If the name by which syncq was called leads to this program, that name is kept: people look for
/// `sersync2` in the process list.
fn own_program() -> io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let Some(name) = std::env::args_os().next() else { return Ok(exe) };
    let candidates: Vec<PathBuf> = if name.as_bytes().contains(&b'/') {
        vec![PathBuf::from(name)]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(&name)).collect()
    };
    Ok(candidates.into_iter().find(|candidate| same_file(candidate, &exe)).unwrap_or(exe))
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// The file with the process id of the daemon of `state_dir`, for scripts. Its writer holds the lock of the directory, so a
/// file that an earlier daemon left is simply replaced. Removed on drop.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// A process id file that is not written yet.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("syncq.pid") }
    }

    pub fn write(&self) -> io::Result<()> {
        trust::make_anew(&self.path, 0o644)?.write_all(format!("{}\n", std::process::id()).as_bytes())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn arguments_pass_untouched_and_inherited_descriptors_do_not() {
        let dir = tempfile::tempdir().expect("a directory");
        // A descriptor without close-on-exec, as a careless caller leaves it open.
        let open = std::fs::File::create(dir.path().join("lock")).expect("a file");
        rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).expect("an open descriptor");
        let odd = "a b;$(touch x)`\"'\\";
        let list = "for fd in /proc/self/fd/*; do readlink \"$fd\"; done; printf %s \"$1\"";
        let output = without_inherited(Path::new("/bin/sh"))
            .expect("a command")
            .args(["-c", list, "sh", odd])
            .current_dir(dir.path())
            .output()
            .expect("a shell");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.ends_with(odd), "{text}");
        // Without bash only descriptors with one digit can be closed.
        let closable = Path::new("/bin/bash").exists() || open.as_raw_fd() <= 9;
        assert!(!closable || !text.contains("/lock"), "{text}");
        assert!(!dir.path().join("x").exists());
    }

    #[test]
    fn the_pid_file_goes_with_its_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        let pid_file = PidFile::new(dir.path());
        pid_file.write().expect("a pid file");
        let text = std::fs::read_to_string(dir.path().join("syncq.pid")).expect("the pid");
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(pid_file);
        assert!(!dir.path().join("syncq.pid").exists());
    }
}
