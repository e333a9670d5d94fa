//! The kinds of fault. Each is made and undone by one call, while the load runs. Faults at single places of the trees are in
//! `places`.

use std::fs::OpenOptions;
use std::io::Write;

use clap::ValueEnum;
use fastrand::Rng;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::processes::signal;
use crate::places;
use crate::proxy::Mode;
use crate::stage::{Shown, Stage, TARGETS, rest};

/// The events of a storm: several times as many as a small queue holds.
const STORM_EVENTS: u32 = 6_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// kill -9 of the daemon, and a start without -r
    Kill,
    /// SIGTERM to the daemon, and a start without -r
    Term,
    /// The state is lost between two daemons, and the next ones die young
    Lost,
    /// The daemon stands still for a while
    Freeze,
    /// kill -9 of the daemon's rsyncs
    Rsyncs,
    /// A server and its connections are killed and started again
    Server,
    /// A server stands still for a while
    ServerFreeze,
    /// A target's port is closed
    Refuse,
    /// A target's connections stay open and nothing goes through
    Stall,
    /// A target's connections are cut
    Cut,
    /// The disk of the state directory is full
    Disk,
    /// More events than the kernel's queue holds
    Overflow,
    /// The source is unmounted, and mounted again
    Unmount,
    /// SIGHUP with other configurations, and in the end with the one of before
    Reload,
    /// Directories of the source are closed to the daemon's user, while things move in and out of them
    Closed,
    /// Another process holds leases on files
    Lease,
    /// Files trade places with pipes
    Pipes,
    /// What is on a target may not be changed
    Immutable,
    /// A file system is mounted below the source, or goes
    Mount,
    /// A directory of the source is mounted at a second place of it, or no more
    Bind,
    /// What was sent by those who are dead arrives late
    Late,
}

impl Kind {
    pub const ALL: [Self; 21] = [
        Self::Kill,
        Self::Term,
        Self::Lost,
        Self::Freeze,
        Self::Rsyncs,
        Self::Server,
        Self::ServerFreeze,
        Self::Refuse,
        Self::Stall,
        Self::Cut,
        Self::Disk,
        Self::Overflow,
        Self::Unmount,
        Self::Reload,
        Self::Closed,
        Self::Lease,
        Self::Pipes,
        Self::Immutable,
        Self::Mount,
        Self::Bind,
        Self::Late,
    ];

    pub fn needs_mounts(self) -> bool {
        matches!(self, Self::Disk | Self::Overflow | Self::Unmount | Self::Mount | Self::Bind)
    }

    /// Only root can close files to other users' daemons, and only root can make entries immutable.
    pub fn needs_root(self) -> bool {
        matches!(self, Self::Closed | Self::Immutable)
    }

    /// Whether the fault takes half a minute or more, since the daemon has to find something out by waiting.
    pub fn takes_long(self) -> bool {
        matches!(self, Self::Lease | Self::Pipes | Self::Late)
    }

    /// Whether the fault may last while others come and go.
    pub fn may_last(self) -> bool {
        matches!(self, Self::Refuse | Self::Stall)
    }

    /// Makes the fault and undoes it.
    pub fn strike(self, stage: &mut Stage, rng: &mut Rng) {
        stage.note(format!("fault: {self:?}"));
        let n = rng.usize(0..stage.servers.len());
        let mut hit = true;
        match self {
            Self::Kill => {
                stage.kill9();
                down_for_a_while(stage, rng);
            }
            Self::Term => {
                stage.note("SIGTERM to the daemon");
                stage.world.stop();
                down_for_a_while(stage, rng);
            }
            Self::Lost => {
                stage.kill9();
                stage.lose_state();
                for _ in 0..rng.u32(0..3) {
                    stage.restart();
                    rest(rng, 1_000);
                    stage.kill9();
                }
                down_for_a_while(stage, rng);
            }
            Self::Freeze => {
                stage.signal_daemon(Signal::STOP);
                rest(rng, 1_500);
                stage.signal_daemon(Signal::CONT);
            }
            Self::Rsyncs => {
                for _ in 0..rng.u32(1..6) {
                    let rsyncs = stage.world.daemon().rsyncs();
                    stage.note(format!("kill -9 {rsyncs:?}"));
                    rsyncs.into_iter().for_each(|pid| signal(pid, Signal::KILL));
                    rest(rng, 200);
                }
            }
            Self::Server => {
                stage.servers[n].stop();
                rest(rng, 1_000);
                stage.servers[n].start();
            }
            Self::ServerFreeze => {
                stage.servers[n].signal(Signal::STOP);
                rest(rng, 2_000);
                stage.servers[n].signal(Signal::CONT);
            }
            Self::Refuse | Self::Stall => {
                self.begin(stage, n);
                rest(rng, 2_000);
                stage.heal();
            }
            Self::Cut => {
                for _ in 0..rng.u32(1..6) {
                    stage.proxies[n].cut();
                    rest(rng, 200);
                }
            }
            Self::Disk => hit = full_disk(stage, rng),
            Self::Overflow => hit = overflow(stage),
            Self::Unmount => hit = unmount(stage, rng),
            Self::Reload => hit = reload(stage, rng),
            Self::Closed => hit = places::closed(stage, rng),
            Self::Lease => hit = places::lease(stage, rng),
            Self::Pipes => hit = places::pipes(stage, rng),
            Self::Immutable => hit = places::immutable(stage, rng),
            Self::Mount => hit = places::mounts(stage, rng, Shown::Disk),
            Self::Bind => hit = places::mounts(stage, rng, Shown::Twin),
            Self::Late => hit = places::late(stage, rng),
        }
        stage.count(&format!("{self:?}").to_lowercase(), hit);
        stage.note(format!("over: {self:?}"));
    }

    /// Begins a fault that [`Stage::heal`] ends.
    pub fn begin(self, stage: &Stage, target: usize) {
        stage.note(format!("{self:?} of target {target}"));
        stage.proxies[target].set(if self == Self::Refuse { Mode::Refuse } else { Mode::Stall });
    }
}

/// Passes the time between the end of a daemon and the next start. Half of the time nothing changes afterwards.
fn down_for_a_while(stage: &mut Stage, rng: &mut Rng) {
    rest(rng, 150);
    if rng.bool() {
        stage.load_off();
    }
    stage.restart();
    if rng.bool() {
        stage.load_on();
    }
}

/// Fills the disk of the state directory. Returns whether the daemon has noticed.
fn full_disk(stage: &mut Stage, rng: &mut Rng) -> bool {
    let filler = stage.world.cli.state.join("filler");
    let mut file = OpenOptions::new().create(true).append(true).open(&filler).expect("cannot create the filler");
    let mut bytes: u64 = 0;
    // The blocks get smaller, so that the disk is full to the last page.
    for size in [1 << 20, 1 << 16, 1 << 12] {
        let block = vec![b'x'; size];
        while let Ok(written) = file.write(&block) {
            bytes += written as u64;
        }
    }
    stage.note(format!("the state's disk is full ({bytes} bytes)"));
    stage.load_on();
    let felt = stage.says(|status| !status["store"]["error"].is_null());
    rest(rng, 1_500);
    drop(file);
    std::fs::remove_file(&filler).expect("cannot remove the filler");
    felt
}

fn overflow(stage: &mut Stage) -> bool {
    let overflows = |status: &Value| status["watches"]["overflows"].as_u64();
    let mut before = None;
    stage.says(|status| {
        before = overflows(status);
        before.is_some()
    });
    stage.load_off();
    stage.signal_daemon(Signal::STOP);
    stage.load().storm(STORM_EVENTS);
    stage.signal_daemon(Signal::CONT);
    stage.load_on();
    stage.says(|status| overflows(status) > before)
}

/// Unmounts the source while the load goes on in the tree itself. Half of the time the mount point has files in it.
fn unmount(stage: &mut Stage, rng: &mut Rng) -> bool {
    let (src, tree) = (stage.world.src.clone(), stage.tree.clone());
    stage.unmount(&src);
    if rng.bool() {
        crate::harness::write(src.join("stray"), "in the mount point");
    } else {
        let _ = std::fs::remove_file(src.join("stray"));
    }
    // The daemon looks once a second, so a shorter fault goes unnoticed.
    let felt = stage.says(|status| status["roots"][0]["state"] == "suspended");
    rest(rng, 1_500);
    stage.load_off();
    // --rbind includes the mounts below the tree.
    stage.mount(&["--rbind".as_ref(), &tree, &src]);
    stage.watching_again();
    stage.load_on();
    felt
}

/// Reloads configurations in which a target goes and comes back, and in which params and watch rules change. Some reloads
/// follow each other closely, and some daemons are killed meanwhile. Except for that target, no configuration leaves out
/// anything that the previous one mirrors. Returns whether the daemon has accepted the last one.
fn reload(stage: &mut Stage, rng: &mut Rng) -> bool {
    let before = stage.world.conf.clone();
    for _ in 0..rng.u32(1..5) {
        let mut conf = before.clone();
        for _ in 0..rng.u32(1..3) {
            match rng.u32(0..5) {
                0 => drop(conf.local_paths[0].remotes.remove(rng.usize(0..TARGETS.len()))),
                // No file has such a name, but an option that lets rsync choose changes the kind of all runs.
                1 => {
                    let more = ["", " --exclude=never-made", " -F --filter='- never-made'"];
                    conf.params = format!("-artz{}", more[rng.usize(0..more.len())]);
                }
                // The rules change, so another watcher takes over. With an expression every target is also compared in full.
                2 => conf.excludes = vec![r"never-(.*)\.made".to_owned()],
                3 => conf.syncq = conf.syncq.replace("quietPeriod=\"1s\"", "quietPeriod=\"2s\""),
                _ => conf.delete = !conf.delete,
            }
            if conf.local_paths[0].remotes.len() < TARGETS.len() {
                break;
            }
        }
        stage.reload(conf);
        rest(rng, 800);
        // Kill the daemon in the middle of the reload or after it.
        if rng.u32(0..4) == 0 {
            stage.kill9();
            stage.restart();
        }
    }
    stage.reload(before);
    stage.has_read_its_configuration()
}
