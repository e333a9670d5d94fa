//! The surroundings of a workload's act: the source, a peer that mirrors it, and functions to write and to wait. How a
//! measurement begins, and what becomes of its times, is decided elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::peers::Running;
use crate::process::Usage;
use crate::sizes::Sizes;
use crate::track::Tracker;
use crate::tree::{self, Entry, Tree};

/// Set by SIGINT and SIGTERM: every wait then ends, and so does every process that was started.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The surroundings of a workload's act.
pub struct Scene<'a> {
    pub source: &'a Path,
    pub sizes: &'a Sizes,
    pub targets: &'a [PathBuf],
    pub running: &'a mut Running,
    pub tracker: Tracker,
    pub latencies_s: Vec<f64>,
    pub timeout: Duration,
    /// The peer's usage when the measurement began.
    pub used_before: Usage,
    /// The tree that source and targets have at the beginning.
    pub before: &'a Tree,
    /// The tree that the targets have to have in the end, if the act has read it.
    pub goal: Option<Goal>,
    pub idle: Option<Usage>,
}

impl Scene<'_> {
    /// Writes one file and waits until all targets have it.
    pub fn write_and_wait(&mut self, path: &Path, content: &[u8]) -> Result<()> {
        const POLL: Duration = Duration::from_micros(200);
        let file = self.source.join(path);
        fs::write(&file, content)?;
        let written = Instant::now();
        let expected = Entry::at(&file);
        self.running.push()?;
        for target in self.targets {
            while Entry::at(&target.join(path)) != expected {
                if written.elapsed() > self.timeout {
                    bail!("{} did not arrive in {:?}", path.display(), self.timeout);
                }
                check_interrupted()?;
                std::thread::sleep(POLL);
            }
        }
        self.latencies_s.push(written.elapsed().as_secs_f64());
        self.running.settle()
    }

    /// Writes one file without waiting. The tracker takes the latency.
    pub fn write_and_track(&mut self, path: &Path, content: &[u8]) -> Result<()> {
        fs::write(self.source.join(path), content)?;
        self.tracker.written(path);
        Ok(())
    }

    /// Stops the peer, has `change` change the source, and starts the peer again. The measured costs begin with that start.
    pub fn while_down(&mut self, change: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.running.stop_daemon();
        change(self.source)?;
        // Read the tree now: a walk of a million files would take processor time from the peer.
        self.goal = Some(Goal::new(self.before, tree::read(self.source)?));
        self.used_before = self.running.usage();
        self.running.start_daemon()
    }

    /// Writes nothing for `time`.
    pub fn stay_idle(&mut self, time: Duration) -> Result<()> {
        const LOOK: Duration = Duration::from_millis(100);
        let before = self.running.usage();
        let began = Instant::now();
        while began.elapsed() < time {
            self.running.check()?;
            check_interrupted()?;
            std::thread::sleep(LOOK.min(time.saturating_sub(began.elapsed())));
        }
        self.idle = Some(self.running.usage().since(before));
        Ok(())
    }
}

/// The tree that all targets have to have in the end.
pub struct Goal {
    pub expected: Tree,
    /// The differences from the tree at the beginning; `None` for an entry that has to go.
    pub coming: Vec<(PathBuf, Option<Entry>)>,
}

impl Goal {
    pub fn new(before: &Tree, expected: Tree) -> Self {
        let new = expected.iter().filter(|(path, entry)| before.get(*path) != Some(*entry));
        let new = new.map(|(path, entry)| (path.clone(), Some(entry.clone())));
        let gone = before.keys().filter(|path| !expected.contains_key(*path)).map(|path| (path.clone(), None));
        let coming = new.chain(gone).collect();
        Self { expected, coming }
    }
}

/// Returns an error once a signal has asked for the end.
pub fn check_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
