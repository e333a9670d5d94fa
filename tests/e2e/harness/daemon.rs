//! Runs the real syncq in a sealed environment: one-shot commands, and the daemon with its start, stop and kill.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::processes::{Family, pid_of, reap, signal};
use super::rsync::{Side, path_with};
use super::wait::{secs, try_for, wait_for};

/// How many log lines are printed of a daemon whose test failed.
const LOG_LINES_SHOWN: usize = 120;

/// How syncq is called in one world: with which state directory and home, and as which user.
#[derive(Debug, Clone)]
pub struct Cli {
    pub binary: PathBuf,
    pub state: PathBuf,
    pub home: PathBuf,
    /// A directory that comes first in `PATH`, for a wrapper named rsync. `None` leaves only the system's directories.
    pub bin: Option<PathBuf>,
    /// Replaces the whole `PATH`.
    pub path: Option<OsString>,
    /// Whether syncq runs as `nobody`.
    pub as_nobody: bool,
    pub cwd: PathBuf,
    pub env: Vec<(String, OsString)>,
    /// Words in front of a daemon's command line, which execute the rest: `unshare` and the like.
    pub wrapper: Vec<OsString>,
    family: Family,
}

/// How a command ended.
#[derive(Debug)]
#[must_use]
pub struct Ended {
    pub code: Option<i32>,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// All output of the command.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Fails unless the command succeeded, and shows its output.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "the command failed:\n{}", self.text());
        self
    }
}

/// One target in the output of `status`.
#[derive(Debug, Clone)]
pub struct TargetStatus {
    pub name: String,
    pub state: String,
    pub pending: u64,
    pub running: u64,
    pub waiting: u64,
    pub failed: u64,
    pub reason: Option<String>,
    pub hint: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Status {
    pub json: Value,
    pub targets: Vec<TargetStatus>,
}

impl Status {
    fn parse(text: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|e| format!("status is no JSON: {e}\n{text}"))?;
        let list = json["targets"].as_array().ok_or_else(|| format!("status has no targets: {json}"))?;
        let targets = list.iter().map(target_status).collect::<Result<_, _>>()?;
        Ok(Self { json, targets })
    }

    /// The target whose name contains `part`.
    #[track_caller]
    pub fn target(&self, part: &str) -> &TargetStatus {
        let found = self.targets.iter().find(|target| target.name.contains(part));
        found.unwrap_or_else(|| panic!("no target {part} in {}", self.json))
    }

    pub fn is_idle(&self) -> bool {
        self.targets.iter().all(TargetStatus::is_idle)
    }
}

impl TargetStatus {
    pub fn is_idle(&self) -> bool {
        self.pending + self.running + self.waiting == 0
    }
}

fn target_status(json: &Value) -> Result<TargetStatus, String> {
    let text = |key: &str| json[key].as_str().map(str::to_owned);
    let number = |key: &str| json[key].as_u64().ok_or_else(|| format!("target has no number {key}: {json}"));
    Ok(TargetStatus {
        name: text("name").ok_or_else(|| format!("target has no name: {json}"))?,
        state: text("state").ok_or_else(|| format!("target has no state: {json}"))?,
        pending: number("pending")?,
        running: number("running")?,
        waiting: number("waiting")?,
        failed: number("failed")?,
        reason: text("reason"),
        hint: text("hint"),
    })
}

impl Cli {
    /// `home` is for everything that syncq may write outside of its state directory.
    pub fn new(home: &Path, state: &Path) -> Self {
        Self {
            binary: std::env::var_os("SYNCQ_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_syncq").into()).into(),
            state: state.to_owned(),
            home: home.to_owned(),
            bin: None,
            path: None,
            as_nobody: false,
            cwd: home.to_owned(),
            env: Vec::new(),
            wrapper: Vec::new(),
            family: Family::new(),
        }
    }

    /// A command without the caller's environment.
    pub fn command(&self) -> Command {
        self.command_within(&[])
    }

    /// Like [`Cli::command`], executed by the words of `wrapper`.
    fn command_within(&self, wrapper: &[OsString]) -> Command {
        let as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"].map(OsString::from);
        let user = if self.as_nobody && super::is_root() { &as_nobody[..] } else { &[] };
        let binary = [self.binary.clone().into_os_string()];
        let mut words = user.iter().chain(wrapper).chain(&binary);
        let mut command = Command::new(words.next().expect("at least the binary"));
        command.args(words);
        let mut path = OsString::new();
        if let Some(bin) = &self.bin {
            path.push(bin);
            path.push(":");
        }
        path.push(path_with(Side::Client));
        command
            .env_clear()
            .env("PATH", self.path.as_ref().unwrap_or(&path))
            .env("HOME", &self.home)
            .env("TMPDIR", &self.home)
            .env("XDG_RUNTIME_DIR", &self.home)
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .env("COLUMNS", "100")
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .current_dir(&self.cwd)
            .stdin(Stdio::null())
            .process_group(0);
        self.family.mark(&mut command);
        command
    }

    /// Runs `syncq ARGS` to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Files, not pipes: a daemon left behind would hold a pipe open.
        let files = ["out", "err"].map(|kind| self.home.join(format!(".run{number}.{kind}")));
        let create = |path: &PathBuf| File::create(path).expect("cannot create an output file");
        let mut command = self.command();
        command.args(args).stdout(create(&files[0])).stderr(create(&files[1]));
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let ended = try_for(secs(180), || child.try_wait().map_err(|e| e.to_string())?.ok_or_else(String::new));
        let [stdout, stderr] = files.each_ref().map(|path| {
            let bytes = fs::read(path).unwrap_or_default();
            let _ = fs::remove_file(path);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let Ok(status) = ended else {
            signal(pid_of(&child), Signal::KILL);
            let _ = child.wait();
            panic!("{command:?} does not end\n{stdout}{stderr}");
        };
        Ended { code: status.code(), status, stdout, stderr }
    }

    pub fn try_status(&self) -> Result<Status, String> {
        let ended = self.run([OsStr::new("status"), "--json".as_ref(), "--state-dir".as_ref(), self.state.as_ref()]);
        if ended.code != Some(0) {
            return Err(format!("status ended with {}: {}", ended.status, ended.text()));
        }
        Status::parse(&ended.stdout)
    }

    #[track_caller]
    pub fn status(&self) -> Status {
        self.try_status().unwrap_or_else(|e| panic!("{e}"))
    }

    /// Whether a daemon holds a socket in the state directory.
    fn is_listening(&self) -> bool {
        let Ok(entries) = fs::read_dir(&self.state) else { return false };
        entries.filter_map(Result::ok).any(|entry| {
            entry.file_type().is_ok_and(|kind| kind.is_socket()) && UnixStream::connect(entry.path()).is_ok()
        })
    }

    /// The jobs in the queue.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        let ended = self.run([OsStr::new("list"), "--json".as_ref(), "--state-dir".as_ref(), self.state.as_ref()]).ok();
        let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("list is no JSON: {e}\n{line}"));
        ended.stdout.lines().map(line).collect()
    }

    /// Waits until no target has anything to do except jobs that failed for good.
    #[track_caller]
    pub fn wait_idle(&self, deadline: Duration) -> Status {
        wait_for(deadline, "an empty queue", || {
            let status = self.try_status()?;
            if status.is_idle() { Ok(status) } else { Err(format!("{:#?}", status.targets)) }
        })
    }

    /// Ends every process that was started through this value and still runs.
    pub fn end_all(&self) {
        self.family.end();
    }
}

/// A running `syncq run` or `syncq mirror` in the foreground.
#[derive(Debug)]
pub struct Daemon {
    pub cli: Cli,
    args: Vec<OsString>,
    pub log: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// Starts `syncq ARGS` without waiting for anything. Its output is appended to a log file.
    pub fn spawn<S: AsRef<OsStr>>(cli: &Cli, args: impl IntoIterator<Item = S>) -> Self {
        let mut daemon = Self {
            cli: Cli { family: Family::new(), ..cli.clone() },
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            log: cli.home.join("syncq.log"),
            child: None,
        };
        daemon.launch();
        daemon
    }

    /// Like [`Daemon::spawn`], then waits until the daemon answers.
    pub fn start<S: AsRef<OsStr>>(cli: &Cli, args: impl IntoIterator<Item = S>) -> Self {
        let mut daemon = Self::spawn(cli, args);
        daemon.wait_ready();
        daemon
    }

    fn launch(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("cannot open the daemon's log");
        let mut command = self.cli.command_within(&self.cli.wrapper);
        command.args(&self.args).stdout(log.try_clone().expect("cannot clone a file")).stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}")));
        self.cli.family.lead(self.child.as_ref());
    }

    pub fn wait_ready(&mut self) {
        wait_for(secs(30), "the daemon to answer", || {
            if let Some(status) = self.exited() {
                panic!("the daemon ended with {status} instead of starting:\n{}", self.log_text());
            }
            // `status` is not asked: if no daemon answers, `status` opens the store, which the starting daemon needs.
            if !self.cli.is_listening() {
                return Err("nothing listens on a socket in the state directory".to_owned());
            }
            let state = self.cli.try_status()?.json["state"].clone();
            if state == "offline" { Err("status answers from the store".to_owned()) } else { Ok(()) }
        });
    }

    /// Starts the daemon again on the same state directory.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "the daemon still runs");
        self.launch();
        self.wait_ready();
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("cannot wait for the daemon")
    }

    pub fn pid(&self) -> i32 {
        pid_of(self.child.as_ref().expect("the daemon runs"))
    }

    pub fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    /// The daemon's rsyncs, running or standing by.
    pub fn rsyncs(&self) -> Vec<i32> {
        let mut members = self.cli.family.members();
        members.retain(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "rsync"));
        members
    }

    /// Sends SIGTERM. The daemon must end with 0 and leave no process behind.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("the daemon runs");
        let status = reap(&mut child, secs(30), "the daemon to end after SIGTERM");
        self.cli.family.lead(None);
        assert_eq!(status.code(), Some(0), "SIGTERM must end the daemon with 0, not {status}");
        let left = try_for(secs(5), || {
            let members = self.cli.family.members();
            if members.is_empty() { Ok(()) } else { Err(format!("{members:?}")) }
        });
        assert_eq!(left, Ok(()), "processes outlived the daemon");
    }

    /// Sends SIGKILL to the daemon alone. The rsyncs that it started live on or end by themselves, as after a crash.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        let mut child = self.child.take().expect("the daemon runs");
        reap(&mut child, secs(10), "the daemon to end after SIGKILL");
        self.cli.family.lead(None);
    }

    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.cli.family.end();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log_text();
            let lines: Vec<_> = log.lines().collect();
            let skipped = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("--- the daemon's log, {skipped} lines left out ---");
            lines[skipped..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}
