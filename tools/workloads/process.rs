//! Child processes that are ended by their id, and what the kernel says that they have used.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// The unit of the times in `/proc/PID/stat`: 100 a second on every architecture that Debian has.
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

    /// Its exit status and the last lines of its output if it has ended by itself.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("{status} {}", self.last_lines()).trim_end().to_owned())
    }

    /// The tail of its output, on one line: where programs name the cause.
    pub fn last_lines(&self) -> String {
        const LINES: usize = 3;
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join(" | ")
    }

    /// What it has used since its start, with all of its group that is not an rsync: a shell's loop has several
    /// processes.
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
            // A group that has ended already is as good as one that was ended.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Asks the group to end, waits for its leader, and kills what is left.
    pub fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let deadline = Instant::now() + STOP_WAIT;
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.signal(Signal::KILL);
        // Reaps the leader; there is nothing to do about an error here.
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The fields of `/proc/PID/stat` that are of use here.
struct Stat {
    name: String,
    group: u32,
    cpu: Cpu,
}

impl Stat {
    /// `None` for a process that is gone.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses and may hold blanks.
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

/// CPU seconds of a process itself and of the children that it has waited for.
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

/// What a daemon has used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub cpu: Cpu,
    /// How often a thread gave up its CPU to wait for something, which is how often it was woken.
    pub wakeups: u64,
    /// The most memory that it ever had at a time.
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

    /// Of both, running at the same time.
    fn beside(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.plus(other.cpu),
            wakeups: self.wakeups + other.wakeups,
            peak_bytes: self.peak_bytes + other.peak_bytes,
        }
    }

    /// Of both, one after the other.
    pub fn then(self, later: Self) -> Self {
        Self { peak_bytes: self.peak_bytes.max(later.peak_bytes), ..self.beside(later) }
    }

    /// A peak stays what it is.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.since(earlier.cpu),
            // A thread that ends takes its count along.
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
