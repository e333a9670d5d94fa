//! The programs that are measured: how each is started, told that something was written, and asked for its cost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::{Cpu, Process};
use crate::rsyncd::{MODULES, Rsyncd};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The limit: everything is written first, then one rsync over the whole tree for each target, all at once.
    Bare,
    LsyncdOneSecond,
    LsyncdNoDelay,
    Syncq,
}

impl Peer {
    pub const ALL: [Self; 4] = [Self::Bare, Self::LsyncdOneSecond, Self::LsyncdNoDelay, Self::Syncq];

    /// The name on the command line and in the JSON result.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::LsyncdOneSecond => "lsyncd-1",
            Self::LsyncdNoDelay => "lsyncd-0",
            Self::Syncq => "syncq",
        }
    }

    /// The heading in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Bare => "bare rsync",
            Self::LsyncdOneSecond => "lsyncd, delay 1",
            Self::LsyncdNoDelay => "lsyncd, delay 0",
            Self::Syncq => "syncq",
        }
    }

    /// The program it needs, if that is not part of every run anyway.
    pub fn needs(self) -> Option<&'static str> {
        matches!(self, Self::LsyncdOneSecond | Self::LsyncdNoDelay).then_some("lsyncd")
    }
}

/// A peer at work on one source and the two modules.
pub struct Running {
    daemon: Option<Process>,
    source: PathBuf,
    urls: Vec<String>,
    pushes: Vec<Child>,
    pushed: Cpu,
}

impl Running {
    /// Starts `peer`; its own files go to `dir`.
    pub fn start(peer: Peer, syncq: &Path, dir: &Path, source: &Path, rsyncd: &Rsyncd) -> Result<Self> {
        let command = match peer {
            Peer::Bare => None,
            Peer::LsyncdOneSecond => Some(lsyncd(1, dir, source, rsyncd)?),
            Peer::LsyncdNoDelay => Some(lsyncd(0, dir, source, rsyncd)?),
            Peer::Syncq => Some(syncq_mirror(syncq, dir, source, rsyncd)),
        };
        let daemon = command.map(|command| Process::start(command, &dir.join("peer.log"))).transpose()?;
        let urls = MODULES.iter().map(|module| rsyncd.url(module)).collect();
        Ok(Self { daemon, source: source.to_path_buf(), urls, pushes: Vec::new(), pushed: Cpu::default() })
    }

    /// Tells the peer that a piece of writing is done. A daemon has seen it by itself; bare rsync starts now.
    pub fn push(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            return Ok(());
        }
        self.settle()?;
        for url in &self.urls {
            let mut command = Command::new("rsync");
            // Without TCP_NODELAY rsync loses 40 ms twice a run; the limit shall be a real one.
            command.args(["-az", "--delete", "--sockopts=TCP_NODELAY", "./", url]).current_dir(&self.source);
            command.stdin(Stdio::null()).stdout(Stdio::null());
            self.pushes.push(command.spawn().context("cannot start rsync")?);
        }
        Ok(())
    }

    /// Waits for the runs that `push` started.
    pub fn settle(&mut self) -> Result<()> {
        if self.pushes.is_empty() {
            return Ok(());
        }
        let before = Cpu::of(std::process::id());
        let mut failed = None;
        for mut push in self.pushes.drain(..) {
            let status = push.wait()?;
            if !status.success() {
                failed = Some(status);
            }
        }
        self.pushed.children_s += Cpu::of(std::process::id()).since(before).children_s;
        match failed {
            Some(status) => bail!("bare rsync: {status}"),
            None => Ok(()),
        }
    }

    /// Fails if the peer has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        match self.daemon.as_mut().and_then(Process::ended) {
            Some(words) => bail!("ended by itself: {words}"),
            None => Ok(()),
        }
    }

    /// CPU time so far: a daemon's own and its rsyncs', or that of the bare runs.
    pub fn cpu(&self) -> Cpu {
        self.daemon.as_ref().map_or(self.pushed, |daemon| Cpu::of(daemon.id()))
    }

    pub fn last_lines(&self) -> String {
        self.daemon.as_ref().map(Process::last_lines).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for push in &mut self.pushes {
            // Reached only when a measurement was given up; an rsync that has ended already is fine.
            let _ = push.kill();
            let _ = push.wait();
        }
    }
}

fn syncq_mirror(syncq: &Path, dir: &Path, source: &Path, rsyncd: &Rsyncd) -> Command {
    let mut command = Command::new(syncq);
    command.arg("mirror").arg(source).args(MODULES.map(|module| format!("127.0.0.1::{module}")));
    command.arg("--port").arg(rsyncd.port.to_string()).arg("--state-dir").arg(dir.join("state"));
    // All peers compress, or none.
    command.arg("--rsync-arg=-z");
    command
}

/// lsyncd as its manual has it: one `default.rsync` per target, archive and compression on as for the others.
fn lsyncd(delay_s: u32, dir: &Path, source: &Path, rsyncd: &Rsyncd) -> Result<Command> {
    let mut text = "settings { nodaemon = true, insist = true }\n".to_owned();
    for module in MODULES {
        text += &format!(
            "sync {{ default.rsync, source = \"{}\", target = \"{}\", delay = {delay_s},\n       rsync = {{ archive = true, compress = true }} }}\n",
            source.display(),
            rsyncd.url(module),
        );
    }
    let conf = dir.join("lsyncd.lua");
    fs::write(&conf, text)?;
    let mut command = Command::new("lsyncd");
    command.arg(conf);
    Ok(command)
}
