//! Finds and ends the processes that a test started, by id.
//!
//! A process belongs to a family if its environment has the family's mark, or if it is in the process group of the family's
//! leader. The environment is kept when a process changes its parent or becomes a daemon. The process group is kept when a
//! program overwrites its environment for its title.

use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{secs, try_for, wait_for};

const MARK: &str = "SYNCQ_E2E_FAMILY";

/// All processes that descend from one start.
#[derive(Debug, Clone)]
pub struct Family {
    mark: String,
    group: Option<i32>,
}

impl Family {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { mark: format!("{MARK}={}.{number}", std::process::id()), group: None }
    }

    /// Marks a command, so that the processes that it starts are found again.
    pub fn mark(&self, command: &mut Command) {
        let (name, value) = self.mark.split_once('=').expect("a mark is NAME=VALUE");
        command.env(name, value);
    }

    /// Counts the members of `leader`'s process group as members, as long as `leader` has not been reaped.
    pub fn lead(&mut self, leader: Option<&Child>) {
        self.group = leader.map(|child| i32::try_from(child.id()).expect("a pid fits i32"));
    }

    /// The living members, zombies excluded.
    pub fn members(&self) -> Vec<i32> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|&pid| self.has(pid))
            .collect()
    }

    fn has(&self, pid: i32) -> bool {
        let Some((state, group)) = state_and_group(pid) else { return false };
        if state == b'Z' || state == b'X' {
            return false;
        }
        if self.group == Some(group) {
            return true;
        }
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|&b| b == 0).any(|variable| variable == self.mark.as_bytes())
    }

    /// Kills the living members until none is left.
    pub fn end(&self) {
        let gone = try_for(secs(10), || {
            let members = self.members();
            for &pid in &members {
                signal(pid, Signal::KILL);
            }
            if members.is_empty() { Ok(()) } else { Err(format!("{members:?}")) }
        });
        if let Err(left) = gone {
            eprintln!("processes outlived SIGKILL: {left}");
        }
    }
}

/// State letter and process group of a process.
fn state_and_group(pid: i32) -> Option<(u8, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain any character.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let group = fields.nth(1)?.parse().ok()?;
    Some((state, group))
}

/// Sends a signal to one process; one that is gone already is no error.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

pub fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("a pid fits i32")
}

/// Waits for the end of a child of this process.
pub fn reap(child: &mut Child, deadline: Duration, what: &str) -> ExitStatus {
    wait_for(deadline, what, || match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Err(format!("process {} still runs", child.id())),
        Err(error) => Err(format!("cannot wait for process {}: {error}", child.id())),
    })
}
