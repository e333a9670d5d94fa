//! Child processes that are ended by their id, and the kernel's figures of their usage.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// The unit of times in `/proc/PID/stat`: 100 ticks per second on every architecture of Debian.
const TICKS_PER_SECOND: f64 = 100.0;
/// How long a process may take to end after SIGTERM before it gets SIGKILL.
const STOP_WAIT: Duration = Duration::from_secs(20);

/// A long-running child in a process group of its own. Dropping it ends the whole group.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output going to the file `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let err = out.try_clone()?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_path_buf() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status and the last lines of output, if the process has ended by itself.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("{status} {}", self.last_lines()).trim_end().to_owned())
    }

    /// The last lines of the process's output, joined to one line: programs name the cause there.
    pub fn last_lines(&self) -> String {
        const LINES: usize = 3;
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join(" | ")
    }

    /// The usage since the start, of every process in the group that is not an rsync: a loop in a shell has several processes.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if Stat::of(pid).is_some_and(|stat| stat.group == self.id() && stat.name != "rsync") {
                usage = usage.beside(Usage::of(pid));
            }
        }
        usage
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // An error means that the group has ended already, which is fine.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Asks the group to end, waits for its leader, and kills the remaining processes.
    pub fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let deadline = Instant::now() + STOP_WAIT;
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.signal(Signal::KILL);
        // Reaps the leader. Nothing can be done about an error here.
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The needed fields of `/proc/PID/stat`.
struct Stat {
    name: String,
    group: u32,
    cpu: Cpu,
}

impl Stat {
    /// `None` for a process that is gone.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, which may contain blanks.
        let (before, after) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let seconds = |index: usize| {
            let ticks: Option<f64> = fields.get(index).and_then(|field| field.parse().ok());
            ticks.unwrap_or(0.0) / TICKS_PER_SECOND
        };
        Some(Self {
            name: before.split_once('(')?.1.to_owned(),
            // pgrp, then utime, stime, cutime, cstime: fields 5 and 14 to 17 of proc(5), the first one here being 3.
            group: fields.get(2)?.parse().ok()?,
            cpu: Cpu { own_s: seconds(11) + seconds(12), children_s: seconds(13) + seconds(14) },
        })
    }
}

/// The CPU seconds of a process itself, and of the children that it has waited for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    pub own_s: f64,
    pub children_s: f64,
}

impl Cpu {
    /// Reads the times of a living process; zero for one that is gone.
    pub fn of(pid: u32) -> Self {
        Stat::of(pid).map(|stat| stat.cpu).unwrap_or_default()
    }

    pub fn since(self, earlier: Self) -> Self {
        Self { own_s: self.own_s - earlier.own_s, children_s: self.children_s - earlier.children_s }
    }

    pub fn plus(self, other: Self) -> Self {
        Self { own_s: self.own_s + other.own_s, children_s: self.children_s + other.children_s }
    }
}

/// The usage of a daemon.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub cpu: Cpu,
    /// How often a thread gave up its CPU to wait for something, which equals the number of wake-ups.
    pub wakeups: u64,
    /// The greatest memory use so far.
    pub peak_bytes: u64,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        Self {
            cpu: Cpu::of(pid),
            wakeups: threads.map(|thread| status(&thread.path().join("status"), "voluntary_ctxt_switches")).sum(),
            peak_bytes: status(Path::new(&format!("/proc/{pid}/status")), "VmHWM") * 1024,
        }
    }

    /// The usage of two processes that run at the same time.
    fn beside(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.plus(other.cpu),
            wakeups: self.wakeups + other.wakeups,
            peak_bytes: self.peak_bytes + other.peak_bytes,
        }
    }

    /// The usage of two processes that run one after the other.
    pub fn then(self, later: Self) -> Self {
        Self { peak_bytes: self.peak_bytes.max(later.peak_bytes), ..self.beside(later) }
    }

    /// The usage since an earlier moment. The peak is not a difference and stays as it is.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.since(earlier.cpu),
            // The count of a thread that has ended is lost.
            wakeups: self.wakeups.saturating_sub(earlier.wakeups),
            peak_bytes: self.peak_bytes,
        }
    }
}

/// The number after `name:` in a status file of proc(5); 0 if there is none.
fn status(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
