//! The measured programs: how each is started, told of a finished write, and asked for its cost.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::process::{Cpu, Process, Usage};
use crate::ready::Start;
use crate::receiver::Receiver;

/// The most bare rsyncs at a time: two for each CPU of a small machine.
const PUSHES_MAX: usize = 4;

/// The loop that users write: every event starts a run over the whole tree, one target after the other. One run comes before
/// the loop, since the watches report only later changes.
const LOOP: &str = r#"
shopt -s lastpipe   # the loop runs in this shell and not in a child, so its rsyncs are counted as its
push() { for url; do rsync -az --delete ./ "$url" </dev/null; done }
push "$@"
inotifywait -mrq -e modify,attrib,close_write,create,delete,move . | while read -r _; do push "$@"; done
"#;

/// The options with which rsync sends exactly the paths on a list.
const LISTED: [&str; 6] = ["--no-r", "--dirs", "-R", "--files-from=-", "--from0", "--ignore-times"];

/// The kernel dates changes by a clock that lags by up to one tick.
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The lower bound: everything is written first, then one rsync sends the whole tree to each target, at most `PUSHES_MAX`
    /// at once.
    Bare,
    /// The lower bound for programs that send only changed paths: like `Bare`, but with a list of the changes instead of the
    /// whole tree. rsync reads such a list byte by byte.
    Listed,
    /// A loop in a shell, as users write it.
    Inotifywait,
    LsyncdOneSecond,
    LsyncdNoDelay,
    Syncq,
}

impl Peer {
    pub const ALL: [Self; 6] =
        [Self::Bare, Self::Listed, Self::Inotifywait, Self::LsyncdOneSecond, Self::LsyncdNoDelay, Self::Syncq];

    /// The name on the command line and in the JSON result.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Listed => "listed",
            Self::Inotifywait => "inotifywait",
            Self::LsyncdOneSecond => "lsyncd-1",
            Self::LsyncdNoDelay => "lsyncd-0",
            Self::Syncq => "syncq",
        }
    }

    /// The heading in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Bare => "bare rsync",
            Self::Listed => "rsync with a list",
            Self::Inotifywait => "inotifywait loop",
            Self::LsyncdOneSecond => "lsyncd, delay 1",
            Self::LsyncdNoDelay => "lsyncd, delay 0",
            Self::Syncq => "syncq",
        }
    }

    /// The program that the peer needs, if not every run needs that program anyway.
    pub fn needs(self) -> Option<&'static str> {
        match self {
            Self::Bare | Self::Listed | Self::Syncq => None,
            Self::Inotifywait => Some("inotifywait"),
            Self::LsyncdOneSecond | Self::LsyncdNoDelay => Some("lsyncd"),
        }
    }

    /// Whether the peer is part of `--quick`. Peers that wait a second or make a run for each of some thirty events are not.
    pub fn is_quick(self) -> bool {
        !matches!(self, Self::Listed | Self::Inotifywait | Self::LsyncdOneSecond)
    }

    /// Whether the peer can make the targets of a workload equal. `deletes`: the workload deletes files.
    pub fn masters(self, deletes: bool) -> bool {
        self != Self::Listed || !deletes
    }

    /// Whether the peer is no daemon, but is started when everything is written.
    pub fn is_bare(self) -> bool {
        matches!(self, Self::Bare | Self::Listed)
    }

    /// Whether the peer promises not to lose a change. The loop does not: a change between its first run and the first watch
    /// waits for the next event.
    pub fn promises(self) -> bool {
        self != Self::Inotifywait
    }
}

/// A peer at work on one source and the modules of one rsyncd.
pub struct Running {
    peer: Peer,
    syncq: PathBuf,
    dir: PathBuf,
    source: PathBuf,
    urls: Vec<String>,
    daemon: Option<Process>,
    /// One for each start of the daemon.
    starts: Vec<Start>,
    /// The usage of daemons that were stopped, and of bare runs.
    past: Usage,
    pushes: Vec<Child>,
    /// CPU time of this program's children before the first of `pushes`.
    before_pushes: Cpu,
    push_failed: Option<ExitStatus>,
    /// Changes before this moment have been sent by `Listed`.
    pushed: SystemTime,
}

impl Running {
    /// Starts `peer`; its own files go to `dir`.
    pub fn start(peer: Peer, syncq: &Path, dir: &Path, source: &Path, receiver: &Receiver) -> Result<Self> {
        match peer {
            Peer::Bare | Peer::Listed | Peer::Inotifywait => {}
            Peer::LsyncdOneSecond => fs::write(dir.join(LSYNCD_CONF), lsyncd_conf(1, source, receiver))?,
            Peer::LsyncdNoDelay => fs::write(dir.join(LSYNCD_CONF), lsyncd_conf(0, source, receiver))?,
            Peer::Syncq => fs::write(dir.join(SYNCQ_CONF), syncq_conf(source, receiver))?,
        }
        let mut running = Self {
            peer,
            syncq: syncq.to_path_buf(),
            dir: dir.to_path_buf(),
            source: source.to_path_buf(),
            urls: receiver.modules.iter().map(|module| receiver.url(module)).collect(),
            daemon: None,
            starts: Vec::new(),
            past: Usage::default(),
            pushes: Vec::new(),
            before_pushes: Cpu::default(),
            push_failed: None,
            pushed: SystemTime::UNIX_EPOCH,
        };
        running.start_daemon()?;
        Ok(running)
    }

    /// Starts the daemon, for the first time or after `stop_daemon`. Bare rsync has no daemon.
    pub fn start_daemon(&mut self) -> Result<()> {
        let mut command = match self.peer {
            Peer::Bare | Peer::Listed => return Ok(()),
            Peer::Inotifywait => {
                let mut command = Command::new("bash");
                command.args(["-c", LOOP, "loop"]).args(&self.urls).current_dir(&self.source);
                command
            }
            Peer::LsyncdOneSecond | Peer::LsyncdNoDelay => {
                let mut command = Command::new("lsyncd");
                command.arg(self.dir.join(LSYNCD_CONF));
                command
            }
            Peer::Syncq => {
                let mut command = Command::new(&self.syncq);
                command.arg("run").arg("-o").arg(self.dir.join(SYNCQ_CONF));
                command.arg("--state-dir").arg(self.dir.join("state"));
                command
            }
        };
        let socket = self.dir.join(format!("notify-{}", self.starts.len()));
        self.starts.push(Start::listen(&socket)?);
        command.env("NOTIFY_SOCKET", &socket);
        self.daemon = Some(Process::start(command, &self.dir.join("peer.log"))?);
        Ok(())
    }

    /// Waits until the daemon has finished the work of its start, if it can tell.
    pub fn wait_idle(&self, timeout: Duration) -> Result<()> {
        if self.peer != Peer::Syncq {
            return Ok(());
        }
        let mut command = Command::new(&self.syncq);
        command.arg("wait").arg("--state-dir").arg(self.dir.join("state"));
        command.arg("--timeout").arg(format!("{}s", timeout.as_secs())).stdout(Stdio::null());
        match command.status().context("cannot run syncq wait")? {
            status if status.success() => Ok(()),
            status => bail!("syncq wait: {status}"),
        }
    }

    /// Asks the daemon to end and waits for it.
    pub fn stop_daemon(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            self.past = self.past.then(daemon.usage());
        }
    }

    /// Tells the peer that a piece of writing is finished. A daemon has noticed the writes by itself; bare rsync starts now.
    pub fn push(&mut self) -> Result<()> {
        if !self.peer.is_bare() {
            return Ok(());
        }
        self.settle()?;
        self.before_pushes = Cpu::of(std::process::id());
        let list = self.dir.join("list");
        if self.peer == Peer::Listed {
            fs::write(&list, changed_since(&self.source, self.pushed)?)?;
            self.pushed = SystemTime::now();
        }
        for url in self.urls.clone() {
            if self.pushes.len() >= PUSHES_MAX {
                self.reap_push()?;
            }
            let mut command = Command::new("rsync");
            // Without TCP_NODELAY rsync loses 40 ms twice per run, and the lower bound would be too high.
            command.args(["-az", "--sockopts=TCP_NODELAY"]).current_dir(&self.source);
            if self.peer == Peer::Listed {
                command.args(LISTED).stdin(fs::File::open(&list)?);
            } else {
                command.arg("--delete").stdin(Stdio::null());
            }
            command.args(["./", &url]).stdout(Stdio::null());
            self.pushes.push(command.spawn().context("cannot start rsync")?);
        }
        Ok(())
    }

    /// Waits for the runs that `push` started.
    pub fn settle(&mut self) -> Result<()> {
        if self.pushes.is_empty() {
            return Ok(());
        }
        while !self.pushes.is_empty() {
            self.reap_push()?;
        }
        self.past.cpu.children_s += Cpu::of(std::process::id()).since(self.before_pushes).children_s;
        match self.push_failed.take() {
            Some(status) => bail!("bare rsync: {status}"),
            None => Ok(()),
        }
    }

    /// Waits until at least one of the bare runs has ended.
    fn reap_push(&mut self) -> Result<()> {
        const POLL: Duration = Duration::from_micros(500);
        let running = self.pushes.len();
        loop {
            let failed = &mut self.push_failed;
            let mut error = None;
            self.pushes.retain_mut(|push| match push.try_wait() {
                Ok(None) => true,
                Ok(Some(status)) => {
                    if !status.success() {
                        *failed = Some(status);
                    }
                    false
                }
                Err(trouble) => {
                    error = Some(trouble);
                    true
                }
            });
            match error {
                Some(trouble) => return Err(trouble).context("cannot wait for rsync"),
                None if self.pushes.len() < running => return Ok(()),
                None => std::thread::sleep(POLL),
            }
        }
    }

    /// Fails if the peer has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        match self.daemon.as_mut().and_then(Process::ended) {
            Some(words) => bail!("ended by itself: {words}"),
            None => Ok(()),
        }
    }

    /// The usage of the peer so far: of a daemon and its rsyncs, or of the bare runs.
    pub fn usage(&self) -> Usage {
        self.daemon.as_ref().map_or(self.past, |daemon| self.past.then(daemon.usage()))
    }

    /// Seconds from each start until the daemon reported that it was ready. Starts without such a report are left out.
    pub fn ready_s(&self) -> Vec<f64> {
        self.starts.iter().filter_map(Start::ready_s).collect()
    }

    pub fn last_lines(&self) -> String {
        self.daemon.as_ref().map(Process::last_lines).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for push in &mut self.pushes {
            // Reached only if a measurement was given up. An rsync that has ended already causes a harmless error.
            let _ = push.kill();
            let _ = push.wait();
        }
    }
}

/// The paths in the tree at `source` that are new or have changed since `since`, each followed by a NUL.
fn changed_since(source: &Path, since: SystemTime) -> Result<Vec<u8>> {
    let since = since.checked_sub(TICK).unwrap_or(since).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut list = Vec::new();
    for entry in walkdir::WalkDir::new(source).min_depth(1) {
        let entry = entry?;
        let found = entry.metadata()?;
        let changed = Duration::new(found.ctime().unsigned_abs(), found.ctime_nsec().unsigned_abs() as u32);
        if changed >= since {
            list.extend_from_slice(b"./");
            list.extend_from_slice(entry.path().strip_prefix(source)?.as_os_str().as_bytes());
            list.push(0);
        }
    }
    Ok(list)
}

const SYNCQ_CONF: &str = "syncq.xml";
const LSYNCD_CONF: &str = "lsyncd.lua";

/// syncq in the form of a service: with a configuration, so that a restart looks only for changes. Either all peers compress or
/// none does, and all follow attributes.
fn syncq_conf(source: &Path, receiver: &Receiver) -> String {
    let remotes: Vec<String> =
        receiver.modules.iter().map(|module| format!("<remote ip=\"127.0.0.1\" name=\"{module}\"/>")).collect();
    format!(
        r#"<head version="2.5">
<inotify><attrib start="true"/></inotify>
<sersync>
    <localpath watch="{}">{}</localpath>
    <rsync><commonParams params="-az"/><userDefinedPort start="true" port="{}"/></rsync>
</sersync>
</head>
"#,
        source.display(),
        remotes.concat(),
        receiver.port(),
    )
}

/// lsyncd in the form of its manual: one `default.rsync` per target, with archive and compression on as for the others.
fn lsyncd_conf(delay_s: u32, source: &Path, receiver: &Receiver) -> String {
    let mut text = "settings { nodaemon = true, insist = true }\n".to_owned();
    for module in &receiver.modules {
        text += &format!(
            "sync {{ default.rsync, source = \"{}\", target = \"{}\", delay = {delay_s},\n       \
             rsync = {{ archive = true, compress = true }} }}\n",
            source.display(),
            receiver.url(module),
        );
    }
    text
}
