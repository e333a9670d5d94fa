//! Child processes that are ended by their id, and the CPU time that the kernel charges to them.

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
const STOP_WAIT: Duration = Duration::from_secs(5);

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

/// CPU seconds of a process itself and of the children that it has waited for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    pub own_s: f64,
    pub children_s: f64,
}

impl Cpu {
    /// Reads the times of a living process; zero for one that is gone.
    pub fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The second field is the program's name in parentheses and may hold blanks.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<f64> = after_name.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        // utime, stime, cutime, cstime: fields 14 to 17 of proc(5), the first one here being field 3.
        let seconds = |index: usize| fields.get(index).copied().unwrap_or(0.0) / TICKS_PER_SECOND;
        Self { own_s: seconds(11) + seconds(12), children_s: seconds(13) + seconds(14) }
    }

    pub fn since(self, earlier: Self) -> Self {
        Self { own_s: self.own_s - earlier.own_s, children_s: self.children_s - earlier.children_s }
    }
}
