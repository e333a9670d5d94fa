//! Data of a run that was cut off may arrive late, and overwrite data that was sent later. Until that risk is over, nothing is
//! called done. (L19.)

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::processes::signal;
use crate::harness::world::soon;
use crate::harness::{World, patterned, secs, wait_until, write};

const FILES: usize = 200;

/// Longer than a repetition and its cause take where nothing is late.
const STALL: &str = "14s";

fn name(n: usize) -> String {
    format!("file{n}")
}

/// Leaves a run in flight whose data is with a server that was stopped, while the source has newer content. Returns the
/// server's processes.
fn stalled(world: &mut World) -> Vec<i32> {
    write(world.src.join("stays"), "stays");
    world.start();
    world.converges(soon());
    let begun = |world: &World| (0..FILES).any(|n| world.arrived(0, name(n)));
    // A first run over a standby is too quick to be caught in the middle.
    (0..FILES).for_each(|n| write(world.src.join(name(n)), patterned(n as u64, 3_000)));
    wait_until(soon(), "a few files", || begun(world));
    let stopped = world.rsyncd.connections();
    stopped.iter().for_each(|&pid| signal(pid, Signal::STOP));
    // After a second everything that the run sends is on its way.
    std::thread::sleep(Duration::from_secs(1));
    (0..FILES).for_each(|n| write(world.src.join(name(n)), patterned(n as u64 + 1_000, 2_000)));
    stopped
}

/// A wait fails while the server stands still, and its result is true after the server has gone on.
fn nothing_is_done_before(world: &mut World, stopped: &[i32]) {
    let state = world.cli.state.display().to_string();
    let began = Instant::now();
    let waited = world.cli.run(["wait", "--timeout", STALL, "--state-dir", &state]);
    assert!(
        !waited.status.success(),
        "done after {:?}, and the server holds old data:\n{}",
        began.elapsed(),
        waited.text()
    );
    assert!(world.cli.status().targets.iter().any(|target| target.state != "idle"));
    stopped.iter().for_each(|&pid| signal(pid, Signal::CONT));
    world.answers_are_true(secs(90));
}

#[test]
fn l19_nothing_is_done_while_a_server_holds_what_a_killed_rsync_sent() {
    let mut world = World::new();
    let stopped = stalled(&mut world);
    world.daemon().rsyncs().into_iter().for_each(|pid| signal(pid, Signal::KILL));
    nothing_is_done_before(&mut world, &stopped);
}

#[test]
fn l19_nothing_is_done_while_a_server_holds_what_a_killed_daemon_sent() {
    let mut world = World::new();
    let stopped = stalled(&mut world);
    world.daemon().kill9();
    world.daemon().restart();
    nothing_is_done_before(&mut world, &stopped);
}

/// If nothing is late, a kill costs no more than a repetition.
#[test]
fn l19_a_killed_daemon_is_made_good_within_seconds() {
    let mut world = World::new();
    world.start();
    for n in 0..FILES {
        write(world.src.join(name(n)), patterned(n as u64, 3_000));
    }
    world.daemon().kill9();
    world.daemon().restart();
    let began = Instant::now();
    world.answers_are_true(secs(90));
    assert!(began.elapsed() < secs(25), "it took {:?}", began.elapsed());
}
