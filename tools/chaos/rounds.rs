//! The orders in which faults come, and the conditions that have to hold after each.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::fault::Kind;
use crate::harness::{Daemon, World, make_dir, secs, wait_until};
use crate::journal::Journal;
use crate::load::Load;
use crate::proxy::Mode;
use crate::stage::{HEAL, Setting, Stage, rest};

/// Set when a signal has asked for the end.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Events in a small queue, which a storm overflows.
const QUEUE_EVENTS: u32 = 1_024;
/// Rounds between two lines of progress.
const PROGRESS: u32 = 25;

#[derive(Debug)]
pub struct Settings {
    pub seed: u64,
    pub kinds: Vec<Kind>,
    pub twins: bool,
    /// Whether this process is in a mount namespace of its own.
    pub inside: bool,
}

impl Settings {
    pub fn stage(&self, salt: u64, journal: &Journal) -> Stage {
        let queue = (self.inside && self.kinds.contains(&Kind::Overflow)).then_some(QUEUE_EVENTS);
        let seed = self.seed.wrapping_add(salt);
        let ordinary = self.kinds.contains(&Kind::Closed) && (self.kinds.len() == 1 || self.seed % 2 == 1);
        Stage::set(
            Setting {
                seed,
                twins: self.twins,
                mounts: self.inside,
                queue,
                ordinary,
                late: self.kinds.contains(&Kind::Late),
            },
            journal,
        )
    }
}

/// The end of random rounds.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Rounds(u32),
    Time(Instant),
}

impl Until {
    pub fn after(time: Duration) -> Self {
        Self::Time(Instant::now() + time)
    }

    fn reached(self, rounds: u32) -> bool {
        let enough = match self {
            Self::Rounds(count) => rounds >= count,
            Self::Time(end) => Instant::now() >= end,
        };
        enough || INTERRUPTED.load(Ordering::Relaxed)
    }
}

pub fn said(what: &str, rounds: u32, began: Instant) {
    println!("faults: {rounds} rounds of {what}: equal every time ({:.1} s)", began.elapsed().as_secs_f64());
}

/// Makes a few faults one after the other, often while a target is away all the time. Then everything is repaired.
pub fn random(settings: &Settings, journal: &Journal, until: Until) {
    let began = Instant::now();
    if settings.kinds.is_empty() {
        return println!("faults: no kind of fault is left");
    }
    let mut rng = Rng::with_seed(settings.seed);
    let mut stage = settings.stage(1, journal);
    // Directories cannot be closed to a daemon of root.
    let kinds: Vec<Kind> =
        settings.kinds.iter().copied().filter(|kind| *kind != Kind::Closed || stage.is_ordinary()).collect();
    let mut rounds = 0;
    while !until.reached(rounds) {
        rounds += 1;
        stage.note(format!("--- random round {rounds} ---"));
        stage.load_on();
        let lasting: Vec<Kind> = kinds.iter().copied().filter(|kind| kind.may_last()).collect();
        if !lasting.is_empty() && rng.u32(0..3) == 0 {
            let target = rng.usize(0..stage.proxies.len());
            lasting[rng.usize(0..lasting.len())].begin(&stage, target);
        }
        for _ in 0..rng.u32(1..4) {
            rest(&mut rng, 300);
            let kind = kinds[rng.usize(0..kinds.len())];
            kind.strike(&mut stage, &mut rng);
        }
        stage.heal();
        stage.load_off();
        // An open file must arrive too, once it is quiet; that takes a while, so most rounds close all files.
        if rng.u32(0..4) > 0 {
            stage.load().close_all();
        }
        stage.equal();
    }
    said("random faults", rounds, began);
    println!("faults: {}; {}", stage.counted(), stage.starts());
}

/// Kills the daemon with SIGKILL and starts it without -r. Changes come before, in between, or until after the start. Nothing
/// else tells the daemon which changes it has missed.
pub fn kills(settings: &Settings, journal: &Journal, count: u32) {
    let began = Instant::now();
    let mut rng = Rng::with_seed(settings.seed ^ 0x0009);
    let mut stage = settings.stage(2, journal);
    for round in 1..=count {
        stage.note(format!("--- kill round {round} ---"));
        let steps = rng.usize(1..80);
        match rng.u32(0..4) {
            // Changes only while no daemon runs.
            0 => {
                stage.kill9();
                stage.load().steps(steps);
                stage.restart();
            }
            // Changes only before the kill.
            1 => {
                stage.load().steps(steps);
                stage.kill9();
                stage.restart();
            }
            // Changes before the kill and in between; open files are closed in between.
            2 => {
                stage.load_on();
                rest(&mut rng, 300);
                stage.kill9();
                rest(&mut rng, 100);
                stage.load_off();
                stage.load().close_all();
                stage.restart();
            }
            // Changes all the time, and the next daemon is killed early.
            _ => {
                stage.load_on();
                rest(&mut rng, 300);
                stage.kill9();
                stage.restart();
                rest(&mut rng, 60);
                stage.kill9();
                rest(&mut rng, 60);
                stage.restart();
                rest(&mut rng, 200);
                stage.load_off();
            }
        }
        if rng.u32(0..4) > 0 {
            stage.load().close_all();
        }
        stage.equal();
        if round % PROGRESS == 0 {
            println!("faults: {round} of {count} rounds of kill -9, {:.0} s", began.elapsed().as_secs_f64());
        }
        if INTERRUPTED.load(Ordering::Relaxed) {
            return;
        }
    }
    said("kill -9", count, began);
    println!("faults: {}", stage.starts());
}

/// Longer than the time before the watermark that a start looks through again.
const OLD: Duration = Duration::from_secs(18);

/// Pending jobs for a dead target survive a kill, although no later change hints at them. Every third time the jobs are so old
/// that a start no longer looks at their paths by itself.
pub fn pending(settings: &Settings, journal: &Journal, count: u32) {
    let began = Instant::now();
    let mut rng = Rng::with_seed(settings.seed ^ 0x0b0b);
    let mut stage = settings.stage(3, journal);
    for round in 1..=count {
        stage.note(format!("--- pending round {round} ---"));
        let away = rng.usize(0..stage.proxies.len());
        stage.note(format!("target {away} is away"));
        stage.proxies[away].set(Mode::Refuse);
        let steps = rng.usize(20..120);
        stage.load().steps(steps);
        stage.load().close_all();
        stage.has_pending(["m1", "m2"][away]);
        if round % 3 == 0 {
            stage.note("what waits grows old");
            let end = Instant::now() + OLD;
            while Instant::now() < end {
                // The watermark moves only when something changes.
                crate::harness::write(stage.tree.join("clock"), format!("{:?}", end - Instant::now()));
                rest(&mut rng, 800);
            }
        }
        for _ in 0..rng.u32(1..3) {
            stage.kill9();
            stage.restart();
            rest(&mut rng, 500);
        }
        stage.note("the target returns");
        stage.heal();
        stage.equal();
        if INTERRUPTED.load(Ordering::Relaxed) {
            return;
        }
    }
    said("jobs for a dead target", count, began);
    println!("faults: {}", stage.starts());
}

/// Unmounts and mounts a local target's disk under a load, while daemons are killed. The mount point may be empty, or have a
/// directory with the target's name; nothing may be written there.
pub fn local(settings: &Settings, journal: &Journal, count: u32) {
    if !settings.inside {
        return println!("faults: a local target is left out: it needs root and a mount namespace");
    }
    let began = Instant::now();
    let mut rng = Rng::with_seed(settings.seed ^ 0x10ca);
    let mut world = World::new();
    world.keep = true;
    journal.keep_in(world.base());
    let (disk, place, outside) = (world.side("disk"), world.side("place"), world.side("outside"));
    mounted(&["-t", "tmpfs", "tmpfs"], &disk);
    mounted(&["--bind", disk.to_str().expect("text")], &place);
    let target = place.join("www");
    crate::harness::write(world.src.join("stays"), "here");
    let mut args = vec!["mirror".into(), world.src.clone().into_os_string(), target.clone().into_os_string()];
    args.extend(["--state-dir".into(), world.cli.state.clone().into_os_string()]);
    world.daemon = Some(Daemon::start(&world.cli, args));
    world.equal_within(&world.src, &[&target], HEAL);
    let mut load = Load::new(settings.seed, &world.src, &outside, settings.twins, false, journal.clone());
    for round in 1..=count {
        journal.note(format!("--- local round {round} ---"));
        let running = load.run();
        rest(&mut rng, 500);
        // Running processes keep the disk busy, as in real life.
        ran("umount", &["--lazy"], &place);
        journal.note("unmounted");
        let stray = rng.bool();
        if stray {
            make_dir(&target);
        }
        // Runs that were just beginning may still come to the mount point; they count for nothing.
        wait_until(secs(30), "the target to be missed", || {
            let is_missed = |json: &serde_json::Value| json["state"] == "target_gone" && json["running"] == 0;
            world.cli.try_status().is_ok_and(|status| is_missed(&status.json["targets"][0]))
        });
        let strewn = crate::harness::tree::count(&place);
        for _ in 0..rng.u32(0..3) {
            rest(&mut rng, 700);
            world.daemon().kill9();
            world.daemon().restart();
            journal.note("killed, and started");
        }
        rest(&mut rng, 2_000);
        assert_eq!(crate::harness::tree::count(&place), strewn, "the mount point was filled");
        if target.exists() {
            fs::remove_dir_all(&target).expect("cannot remove what is in the mount point");
        }
        mounted(&["--bind", disk.to_str().expect("text")], &place);
        journal.note("mounted");
        rest(&mut rng, 500);
        load = running.call_back();
        load.close_all();
        world.equal_within(&world.src, &[&target], HEAL);
        if INTERRUPTED.load(Ordering::Relaxed) {
            break;
        }
    }
    drop(world.daemon.take());
    ran("umount", &["--lazy"], &place);
    ran("umount", &["--lazy"], &disk);
    said("a local target without its disk", count, began);
}

fn mounted(args: &[&str], place: &Path) {
    ran("mount", args, place);
}

fn ran(program: &str, args: &[&str], place: &Path) {
    let output = Command::new(program).args(args).arg(place).output().expect("it can be started");
    assert!(output.status.success(), "{program} {}: {}", place.display(), String::from_utf8_lossy(&output.stderr));
}
