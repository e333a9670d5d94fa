//! No plugin delays a mirror or a stop, and no target delays a notice. A notice that failed comes again, and processes that a
//! plugin's program leaves behind do not stay.

use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::time::Instant;

use super::{Recorder, plugin_status};
use crate::harness::world::soon;
use crate::harness::{Rsyncd, World, is_root, secs, skipped, wait_for, write};

/// As process 1 of a container, syncq becomes the parent of every process that has lost its own.
#[test]
fn as_process_1_no_zombie_stays_and_signals_arrive() {
    if !is_root() {
        return skipped("only root may make a process namespace");
    }
    let mut world = World::new();
    world.cli.wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"].map(OsString::from).to_vec();
    // Each call of the plugin leaves an orphan that ends a moment later.
    let recorder = Recorder::install(&mut world, "(sleep 0.2 &)");
    world.start();
    for n in 0..5 {
        write(world.src.join(format!("f{n}")), "content");
    }
    world.converges(soon());
    recorder.wait_told(&["update file f0", "update file f1", "update file f2", "update file f3", "update file f4"]);
    let init = children_of(world.daemon().pid())[0];
    wait_for(soon(), "the orphans to be gone", || {
        let left = children_of(init).into_iter().filter(|&pid| comm_of(pid) != "syncq").collect::<Vec<_>>();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // A signal to process 1 is meant for the mirror, which ends in order.
    crate::harness::processes::signal(init, rustix::process::Signal::TERM);
    let status = wait_for(soon(), "the end", || world.daemon().exited().ok_or_else(String::new));
    let log = world.daemon().log_text();
    assert!(status.code() == Some(0) && log.contains("stopped"), "{status}\n{log}");
    assert!(!log.contains("ended in a panic") && !log.contains("No child"), "{log}");
}

fn children_of(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn comm_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// A program that hangs for ever delays neither a mirror nor a stop, and is ended with the daemon.
#[test]
fn a_hanging_command_delays_no_mirror_and_no_stop() {
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "sleep 1000 & wait");
    world.start();
    world.converges(soon());
    for n in 0..50 {
        write(world.src.join(format!("f{n}")), "content");
    }
    world.converges(soon());
    wait_for(soon(), "notices that wait", || {
        let plugin = plugin_status(&world);
        if plugin["waiting"] == 50 { Ok(()) } else { Err(plugin.to_string()) }
    });
    assert!(recorder.lines().is_empty());
    let begun = Instant::now();
    // Fails if a process is left behind.
    world.stop();
    assert!(begun.elapsed() < secs(15), "the stop took {:?}", begun.elapsed());
    let log = world.daemon().log_text();
    assert!(log.contains("50 notices were not delivered before the stop"), "{log}");
}

/// A notice does not wait for a target that is down. When that target is back and gets the file, the plugin is told again.
#[test]
fn a_target_that_is_down_delays_no_notice() {
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "");
    let late = world.side("m3");
    let mut second = Rsyncd::at(&world.side("rsyncd2"), "127.0.0.2", world.rsyncd.port);
    second.module("m3", &late);
    world.conf.local_paths[0].remotes.push(("127.0.0.2".to_owned(), "m3".to_owned()));
    world.start();
    write(world.src.join("file"), "first");
    let begun = Instant::now();
    recorder.wait_told(&["update file file"]);
    assert!(begun.elapsed() < secs(25), "{:?}", begun.elapsed());
    recorder.forget();
    second.start();
    let src = world.src.clone();
    world.equal_within(&src, &[&late], soon());
    recorder.wait_told(&["update file file"]);
    world.stop();
}

/// L3: if no process can be started, jobs and notices are delayed and come again.
#[test]
fn l3_without_processes_everything_waits_and_comes_again() {
    if !is_root() {
        return skipped("only root can run as nobody");
    }
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "");
    world.become_nobody();
    world.start();
    write(world.src.join("before"), "content");
    world.converges(soon());
    recorder.wait_told(&["update file before"]);
    let pid = world.daemon().pid().to_string();
    let hard = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let hard = hard.lines().find(|line| line.starts_with("Max processes")).expect("a limit of processes");
    let hard = hard.split_whitespace().nth(3).expect("a hard limit").to_owned();
    // Run prlimit as the same user, which needs no capability.
    let limit = |soft: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "prlimit", "--pid", &pid]);
        assert!(command.arg(format!("--nproc={soft}:{hard}")).status().expect("prlimit").success());
    };
    limit("1");
    let mut writes = 0;
    wait_for(soon(), "the trouble", || {
        // The first write may go through an rsync that was started earlier.
        writes += 1;
        write(world.src.join("file"), format!("content {writes}"));
        let status = world.cli.try_status()?;
        let reasons: Vec<_> = status.targets.iter().filter_map(|target| target.reason.clone()).collect();
        let known = reasons.len() == 2 && reasons.iter().all(|reason| reason.contains("cannot be started"));
        if known { Ok(()) } else { Err(format!("{reasons:?}")) }
    });
    limit(&hard);
    world.converges(soon());
    recorder.wait_told(&["update file file"]);
    world.stop();
}
