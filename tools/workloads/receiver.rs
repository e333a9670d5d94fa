//! The receiving side of all peers: one rsync daemon on the loopback interface with a module for each target, and the figures
//! in its log.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};

use crate::support::rsyncd::Rsyncd;

pub struct Receiver {
    server: Rsyncd,
    /// One module for each target: m1, m2 and so on.
    pub modules: Vec<String>,
    /// The directories of the modules.
    pub targets: Vec<PathBuf>,
}

/// The figures in the daemon's log so far.
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

impl Receiver {
    /// Starts a daemon with `targets` modules whose files are in `dir`, and at most `max_connections` connections per module
    /// (0: unlimited). Its settings are those that conf/rsyncd.conf recommends, without authentication. Only root can chroot,
    /// and a module without chroot rewrites symbolic links, so the links' destinations are not compared there.
    pub fn start(dir: &Path, targets: usize, max_connections: u32) -> Result<Self> {
        let modules: Vec<String> = (1..=targets).map(|n| format!("m{n}")).collect();
        let targets: Vec<PathBuf> = modules.iter().map(|module| dir.join(module)).collect();
        let mut server = Rsyncd::new(&dir.join("rsyncd"));
        server.global("reverse lookup", "no").global("list", "no").global("timeout", "600");
        server.global("max connections", &max_connections.to_string());
        for (module, target) in modules.iter().zip(&targets) {
            fs::create_dir_all(target)?;
            // Modules that share a lock file share its connections too, but two targets stand for two servers.
            let lock = dir.join(format!("{module}.lock")).display().to_string();
            server.module(module, target).module_option(module, "lock file", &lock);
        }
        let started = server.try_start().map_err(Error::msg);
        started.with_context(|| format!("rsync --daemon does not start; see {}", server.log().display()))?;
        Ok(Self { server, modules, targets })
    }

    /// The daemon's process; 0 if it has ended.
    pub fn pid(&self) -> u32 {
        self.server.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0)
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// A module's address as an rsync destination.
    pub fn url(&self, module: &str) -> String {
        format!("rsync://127.0.0.1:{}/{module}/", self.port())
    }

    /// Counts the entries of the log. The bytes of a transfer count once it has ended.
    pub fn traffic(&self) -> Result<Traffic> {
        let log = self.server.log();
        let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let text = String::from_utf8_lossy(&text);
        let lines = |words: &str| text.lines().filter(|line| line.contains(words)).count() as u64;
        Ok(Traffic {
            connections: lines("] rsync to "),
            refused: lines("] max connections "),
            bytes_received: self.server.received_bytes(),
        })
    }
}
