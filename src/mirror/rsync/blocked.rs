//! Detects that a process hangs while it opens or reads a file, in which file, and why.
//!
//! A file that becomes a pipe after rsync has listed it holds up whoever opens it until somebody else opens the other end,
//! so possibly for ever. A lease on a file holds it up for as long as the kernel gives the lease's holder to answer. Any
//! user who may write in the tree can bring that about, and rsync's own `--timeout` does not help there. The kernel says
//! which system call a process waits in, and with which arguments; the file's name is in the process's memory. A run that
//! waits for its target waits in another call, however long, and is none of this module's business.
//!
//! Where the kernel does not tell the call (an rsync that is not readable or has capabilities, Yama's `ptrace_scope` of 2
//! and more), it still counts how often a process was woken. An rsync that waits for its target wakes once a minute to look
//! at its own `--timeout`, whatever its value. An rsync that hangs in a file sleeps on. To see this takes longer, and the
//! name of the file is not known.
//!
//! No file that the process has named is opened here, so nothing is read that belongs to others. Deliberately absent:
//! processors whose call numbers are not listed here, and processes that cannot be seen at all (`hidepid` and an rsync of
//! another user).

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::process::Pid;

use super::installed::RSYNC;

/// How often a process is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// How long a process is seen waiting in a pipe: short, since only a swapped name brings rsync there.
const PIPE_LIMIT: Duration = Duration::from_millis(200);
/// A holder of a lease that answers does so within this time.
const LEASE_LIMIT: Duration = Duration::from_secs(2);
/// How long anything else that keeps a file from opening (a scanner, a slow file system) may take.
const OTHER_LIMIT: Duration = Duration::from_secs(30);

/// An rsync that was not woken for this long hangs: it is more than two of the minutes after which rsync wakes by itself.
const SLEEP_LIMIT: Duration = Duration::from_secs(150);

/// The kernel's functions in which the opening of a pipe waits.
const PIPE_WAITS: [&str; 2] = ["wait_for_partner", "fifo_open"];

const PATH_BYTES_MAX: usize = 4096;

/// Why a process hangs in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The file is a pipe or a device by now.
    NoFile,
    /// Another process holds a lease on the file.
    Lease,
    Unknown,
    /// Neither the file nor the reason is known, since the process may not be looked into.
    Unseen,
}

/// A file in which a process hangs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Unknown if, and only if, the cause is [`Cause::Unseen`].
    pub path: Option<PathBuf>,
    pub cause: Cause,
}

impl Blocked {
    /// The fate of the file, in a line.
    pub fn message(&self) -> &'static str {
        match self.cause {
            Cause::NoFile => {
                "it became a pipe or device while it was read, and rsync hung in it; whoever writes there should not swap files for pipes"
            }
            Cause::Lease => {
                "another process holds a lease on it, and rsync hung in opening it; see /proc/locks for the process"
            }
            Cause::Unknown => "opening it does not return; check its file system and what scans files there",
            Cause::Unseen => {
                "rsync hung in a file, and which one the kernel does not let this user see (ptrace_scope, or an rsync with capabilities)"
            }
        }
    }

    /// The file in which a run hangs at this moment, in words.
    fn holds_up(&self, root: &Path) -> String {
        let why = match self.cause {
            Cause::NoFile => "it became a pipe or device",
            Cause::Lease => "another process holds a lease on it",
            Cause::Unknown | Cause::Unseen => "opening it does not return",
        };
        let path = self.path.as_deref().unwrap_or(Path::new("a file"));
        format!("a run is held up by {}: {why}", path.strip_prefix(root).unwrap_or(path).display())
    }
}

/// The files in which runs hang at this moment, by process. A run may go on by itself, or be ended.
#[derive(Debug, Default)]
pub struct Hangs(Mutex<BTreeMap<i32, Blocked>>);

impl Hangs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Blocked>> {
        self.0.lock()
    }

    /// Notes the file in which the process `run` hangs. `None`: it does not hang.
    pub(crate) fn note(&self, run: Pid, hang: Option<Blocked>) {
        let run = run.as_raw_nonzero().get();
        match hang {
            Some(hang) => drop(self.lock().insert(run, hang)),
            None => drop(self.lock().remove(&run)),
        }
    }

    /// One of the hangs in words. A path below `root` is shown relative to it.
    pub fn shown(&self, root: &Path) -> Option<String> {
        self.lock().values().next().map(|hang| hang.holds_up(root))
    }
}

/// Why the opening of a file may have hung a moment ago, judged by what the file is now.
pub(crate) fn suspicion(path: &Path) -> Option<Cause> {
    Some(cause(path)).filter(|cause| matches!(cause, Cause::NoFile | Cause::Lease))
}

/// Remembers where one process and its children were found waiting, from one look at them to the next.
#[derive(Debug)]
pub(crate) struct Look {
    pid: Pid,
    waiting: Vec<Waiting>,
}

/// A process that was found waiting.
#[derive(Debug)]
struct Waiting {
    pid: Pid,
    /// The kernel's figures of the process, which change if the process does anything at all between two looks.
    state: String,
    since: Instant,
    within: Blocked,
}

impl Look {
    pub(crate) fn new(pid: Pid) -> Self {
        Self { pid, waiting: Vec::new() }
    }

    /// The file in which the process or a child of it has hung for too long. `None`: there is no such file.
    pub(crate) fn blocked(&mut self, now: Instant) -> Option<Blocked> {
        let before = std::mem::take(&mut self.waiting);
        let mut left = vec![self.pid];
        while let Some(pid) = left.pop() {
            left.extend(children(pid));
            let Some((state, within)) = waits(pid) else { continue };
            let earlier = before.iter().find(|earlier| earlier.pid == pid && earlier.state == state);
            let since = earlier.map_or(now, |earlier| earlier.since);
            let limit = match within.cause {
                Cause::NoFile => PIPE_LIMIT,
                Cause::Lease => LEASE_LIMIT,
                Cause::Unknown => OTHER_LIMIT,
                Cause::Unseen => SLEEP_LIMIT,
            };
            if earlier.is_some() && now.duration_since(since) >= limit {
                return Some(within);
            }
            self.waiting.push(Waiting { pid, state, since, within });
        }
        None
    }

    /// The file in which a process was found at two looks. The process may yet come out of it.
    pub(crate) fn hang(&self, now: Instant) -> Option<&Blocked> {
        let stays = |waiting: &&Waiting| waiting.since < now && waiting.within.cause != Cause::Unseen;
        self.waiting.iter().find(stays).map(|waiting| &waiting.within)
    }
}

/// The state in which a process waits for a file, as far as it can be seen, and the file. `None`: it does not wait for one.
fn waits(pid: Pid) -> Option<(String, Blocked)> {
    match std::fs::read_to_string(proc(pid).join("syscall")) {
        Ok(call) => {
            let path = Call::read(&call)?.file(pid)?;
            let cause = match cause(&path) {
                // The name may lead to a file again, but the process still waits in the pipe that the name led to before.
                Cause::Unknown if waits_for_pipe(pid) => Cause::NoFile,
                cause => cause,
            };
            Some((call, Blocked { path: Some(path), cause }))
        }
        Err(_) => {
            // Other programs among the children, such as ssh, may sleep as long as they like.
            let is_rsync = std::fs::read_to_string(proc(pid).join("comm")).ok()?.trim_end() == RSYNC;
            let state = sleep(&std::fs::read_to_string(proc(pid).join("status")).ok()?)?;
            is_rsync.then_some((state, Blocked { path: None, cause: Cause::Unseen }))
        }
    }
}

/// Whether the process waits for the other end of a pipe, as far as the kernel names the function that it waits in.
fn waits_for_pipe(pid: Pid) -> bool {
    std::fs::read_to_string(proc(pid).join("wchan")).is_ok_and(|place| PIPE_WAITS.contains(&place.trim_end()))
}

/// How often a process was woken, from the text of `/proc/PID/status`. `None` for a process that does not sleep, or waits
/// for a disk.
fn sleep(status: &str) -> Option<String> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    field("State:")?.starts_with('S').then_some(())?;
    Some(format!("{} {}", field("voluntary_ctxt_switches:")?, field("nonvoluntary_ctxt_switches:")?))
}

fn proc(pid: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()))
}

fn children(pid: Pid) -> Vec<Pid> {
    let listed = proc(pid).join("task").join(pid.as_raw_nonzero().to_string()).join("children");
    let text = std::fs::read_to_string(listed).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// The system call in which a process waits.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    /// Opens a file whose name stands in the process's memory, relative to a descriptor.
    Open {
        dir: Option<i32>,
        name_at: u64,
    },
    Read {
        file: i32,
    },
}

/// The kernel's numbers of the calls that open files: by name; by name from a directory, both kinds. Then the numbers of
/// the calls that read.
#[cfg(target_arch = "x86_64")]
const CALLS: Calls = Calls { open: Some(2), open_at: [257, 437], read: [0, 17] };
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
const CALLS: Calls = Calls { open: None, open_at: [56, 437], read: [63, 67] };
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const CALLS: Calls = Calls { open: None, open_at: [-2, -2], read: [-2, -2] };

struct Calls {
    open: Option<i64>,
    open_at: [i64; 2],
    read: [i64; 2],
}

impl Call {
    /// Reads the text of `/proc/PID/syscall`: the number, then the arguments. `None` for any other call, and for a process
    /// that does not wait.
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let number: i64 = words.next()?.parse().ok()?;
        let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        // A descriptor is the lower half of an argument, and negative if it stands for the working directory.
        let descriptor = |value: u64| i32::from_ne_bytes(u32::try_from(value & 0xffff_ffff).unwrap_or(0).to_ne_bytes());
        if CALLS.open == Some(number) {
            return Some(Self::Open { dir: None, name_at: argument()? });
        }
        if CALLS.open_at.contains(&number) {
            let dir = descriptor(argument()?);
            return Some(Self::Open { dir: (dir >= 0).then_some(dir), name_at: argument()? });
        }
        CALLS.read.contains(&number).then_some(())?;
        Some(Self::Read { file: descriptor(argument()?) })
    }

    /// The file that the call is about. A read counts only if the descriptor is of a pipe or a device with a name.
    fn file(&self, pid: Pid) -> Option<PathBuf> {
        let proc = proc(pid);
        match self {
            Self::Open { dir, name_at } => {
                let name = name_in_memory(&proc, *name_at)?;
                let start = match dir {
                    Some(dir) => proc.join("fd").join(dir.to_string()),
                    None => proc.join("cwd"),
                };
                Some(std::fs::read_link(start).ok()?.join(name))
            }
            Self::Read { file } => {
                let path = std::fs::read_link(proc.join("fd").join(file.to_string())).ok()?;
                // A pipe without a name, or a socket, has no path.
                (path.is_absolute() && cause(&path) == Cause::NoFile).then_some(path)
            }
        }
    }
}

fn name_in_memory(proc: &Path, at: u64) -> Option<PathBuf> {
    let memory = File::open(proc.join("mem")).ok()?;
    let mut bytes = vec![0; PATH_BYTES_MAX];
    let read = memory.read_at(&mut bytes, at).ok()?;
    bytes.truncate(bytes.get(..read)?.iter().position(|&b| b == 0)?);
    Some(std::ffi::OsString::from_vec(bytes).into())
}

/// Why the file may not open, judged by what the file is now.
fn cause(path: &Path) -> Cause {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Cause::Unknown };
    let kind = found.file_type();
    if kind.is_fifo() || kind.is_char_device() || kind.is_block_device() {
        return Cause::NoFile;
    }
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    if is_leased(&locks, found.ino()) { Cause::Lease } else { Cause::Unknown }
}

/// Whether there is a lease on a file with this inode number, on any file system.
fn is_leased(locks: &str, inode: u64) -> bool {
    let leases = locks.lines().filter(|line| line.contains(" LEASE "));
    let mut files = leases.flat_map(|line| line.split_ascii_whitespace().filter_map(|word| word.rsplit_once(':')));
    files.any(|(_, number)| number.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_a_process_waits_in() {
        for (text, expected) in [
            ("257 0xffffff9c 0x7ffd1 0x0 0x0 0x0 0x0 0x7ff 0x7f", Some(Call::Open { dir: None, name_at: 0x7ffd1 })),
            ("437 0x5 0x10 0x20 0x18 0x0 0x0 0x7ff 0x7f", Some(Call::Open { dir: Some(5), name_at: 0x10 })),
            ("2 0x10 0x0 0x0 0x0 0x0 0x0 0x7ff 0x7f", Some(Call::Open { dir: None, name_at: 0x10 })),
            ("0 0x3 0x10 0x20 0x0 0x0 0x0 0x7ff 0x7f", Some(Call::Read { file: 3 })),
            // The call of a run that waits for its target.
            ("270 0x4 0x7ffd1 0x7ffd2 0x0 0x7ff 0x0 0x7ff 0x7f", None),
            ("-1 0x7ff 0x7f", None),
            ("running\n", None),
            ("", None),
        ] {
            assert_eq!(Call::read(text), expected, "{text}");
        }
    }

    #[test]
    fn leases_are_found_among_the_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 71 00:1a:77 0 EOF\n2: LEASE  BREAKING  READ  82 fd:01:1234 0 EOF\n";
        assert!(is_leased(locks, 1234));
        assert!(!is_leased(locks, 77) && !is_leased(locks, 123) && !is_leased("", 0));
    }

    #[test]
    fn who_is_woken_or_waits_for_a_disk_does_not_hang() {
        let status = |state: &str, woken: &str| {
            format!(
                "Name:\trsync\nState:\t{state}\nvoluntary_ctxt_switches:\t{woken}\nnonvoluntary_ctxt_switches:\t7\n"
            )
        };
        let asleep = sleep(&status("S (sleeping)", "41"));
        assert!(asleep.is_some() && asleep != sleep(&status("S (sleeping)", "42")));
        for state in ["R (running)", "D (disk sleep)", "T (stopped)", "Z (zombie)"] {
            assert_eq!(sleep(&status(state, "41")), None, "{state}");
        }
        assert_eq!(sleep("State:\tS (sleeping)\n"), None, "a kernel that does not count");
    }

    fn seen(child: &mut Child) -> Option<Blocked> {
        let mut look = Look::new(Pid::from_child(child));
        let begun = crate::clock::monotonic();
        let mut found = None;
        while found.is_none() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
            found = look.blocked(crate::clock::monotonic());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        found
    }

    /// One swap of a file for a pipe stopped a target for twenty minutes.
    #[test]
    fn the_pipe_in_which_a_process_hangs_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().canonicalize().unwrap().join("p");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // A child of the watched process opens the pipe, with a relative name.
        for script in ["exec cat p", "cat p; true"] {
            let mut child = Command::new("sh").args(["-c", script]).current_dir(dir.path()).spawn().unwrap();
            assert_eq!(seen(&mut child), Some(Blocked { path: Some(pipe.clone()), cause: Cause::NoFile }), "{script}");
            // Opens the other end of the pipe, so that a child of the shell can end.
            let _ = rustix::fs::open(
                &pipe,
                rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK,
                rustix::fs::Mode::empty(),
            );
        }
    }

    /// A pipe whose name led to a file again was given as much time as a slow file system.
    #[test]
    fn a_pipe_that_was_swapped_back_is_known_by_where_the_process_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, away) = (dir.path().canonicalize().unwrap().join("p"), dir.path().join("away"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut child = Command::new("cat").arg(&pipe).spawn().unwrap();
        let begun = crate::clock::monotonic();
        while !waits_for_pipe(Pid::from_child(&child)) {
            if begun.elapsed() > Duration::from_secs(10) {
                // This kernel does not tell where processes wait.
                child.kill().unwrap();
                child.wait().unwrap();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::rename(&pipe, away).unwrap();
        std::fs::write(&pipe, "a file again").unwrap();
        assert_eq!(seen(&mut child), Some(Blocked { path: Some(pipe), cause: Cause::NoFile }));
    }

    #[test]
    fn who_waits_for_another_process_hangs_in_no_file() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut look = Look::new(Pid::from_child(&child));
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(look.blocked(crate::clock::monotonic() + Duration::from_secs(100)), None);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
