//! The receiving end of all peers: one rsync daemon on the loopback interface with a module for each target, and what
//! its log tells.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::Process;

/// A free port can be taken by somebody else between our look and rsync's bind.
const PORT_TRIES: u32 = 5;
const START_WAIT: Duration = Duration::from_secs(5);

pub struct Rsyncd {
    process: Process,
    log: PathBuf,
    pub port: u16,
    /// One for each target: m1, m2 and so on.
    pub modules: Vec<String>,
    /// The directories of the modules.
    pub targets: Vec<PathBuf>,
}

/// What the daemon's log has so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    pub connections: u64,
    /// Connections that were turned away by `max connections`.
    pub refused: u64,
    pub bytes_received: u64,
}

impl Traffic {
    pub fn since(self, earlier: Self) -> Self {
        Self {
            connections: self.connections - earlier.connections,
            refused: self.refused - earlier.refused,
            bytes_received: self.bytes_received - earlier.bytes_received,
        }
    }
}

impl Rsyncd {
    /// Starts a daemon with so many `targets` whose files are in `dir`, and at most `max_connections` per module (0: as
    /// many as there are).
    pub fn start(dir: &Path, targets: usize, max_connections: u32) -> Result<Self> {
        let modules: Vec<String> = (1..=targets).map(|n| format!("m{n}")).collect();
        let targets: Vec<PathBuf> = modules.iter().map(|module| dir.join(module)).collect();
        for target in &targets {
            fs::create_dir_all(target)?;
        }
        let conf = dir.join("rsyncd.conf");
        fs::write(&conf, configuration(dir, &modules, &targets, max_connections)?)?;
        let log = dir.join("rsyncd.log");
        for _ in 0..PORT_TRIES {
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            let mut command = Command::new("rsync");
            command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]).arg(format!("--port={port}"));
            command.arg(format!("--config={}", conf.display()));
            let mut process = Process::start(command, &dir.join("rsyncd.out"))?;
            let deadline = Instant::now() + START_WAIT;
            while Instant::now() < deadline && process.ended().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Ok(Self { process, log, port, modules, targets });
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        bail!("rsync --daemon does not start; see {}", log.display())
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A module's address as an rsync destination.
    pub fn url(&self, module: &str) -> String {
        format!("rsync://127.0.0.1:{}/{module}/", self.port)
    }

    /// Counts what the log has. A transfer counts its bytes once it has ended.
    pub fn traffic(&self) -> Result<Traffic> {
        let text = fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        let mut traffic = Traffic::default();
        for line in String::from_utf8_lossy(&text).lines() {
            if line.contains("] rsync to ") {
                traffic.connections += 1;
            } else if line.contains("] max connections ") {
                traffic.refused += 1;
            } else if let Some((_, rest)) = line.split_once(" bytes  received ") {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                traffic.bytes_received += digits.parse::<u64>().unwrap_or(0);
            }
        }
        Ok(traffic)
    }
}

/// What conf/rsyncd.conf recommends, without authentication. Only root can chroot; a module without chroot rewrites
/// symbolic links, so there their values are not compared.
fn configuration(dir: &Path, modules: &[String], targets: &[PathBuf], max_connections: u32) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "log file = {}", dir.join("rsyncd.log").display())?;
    writeln!(text, "socket options = TCP_NODELAY\nreverse lookup = no\nread only = no\nlist = no\ntimeout = 600")?;
    writeln!(text, "max connections = {max_connections}")?;
    if is_root() {
        writeln!(text, "uid = root\ngid = root\nuse chroot = yes")?;
    } else {
        writeln!(text, "use chroot = no\nmunge symlinks = no")?;
    }
    for (module, target) in modules.iter().zip(targets) {
        writeln!(text, "[{module}]\npath = {}", target.display())?;
        // Modules that share a lock file share its connections too; two targets are two servers elsewhere.
        writeln!(text, "lock file = {}", dir.join(format!("{module}.lock")).display())?;
    }
    Ok(text)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
