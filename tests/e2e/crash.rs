//! Kill, stop and restart under load: pending work is done after the next start. (L19: sersync keeps nothing.)

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::churn::{Report, seeds};
use crate::harness::churn::Churn;
use crate::harness::processes::signal;
use crate::harness::tree::is_leftover;
use crate::harness::world::soon;
use crate::harness::{World, make_dir, patterned, secs, skipped, wait_until, write};

fn load(world: &World, round: u64) {
    for n in 0..400 {
        write(world.src.join(format!("r{round}f{n}")), patterned(n, 3_000));
    }
    let tree = world.src.join(format!("tree{round}"));
    make_dir(tree.join("a/b"));
    write(tree.join("a/b/c"), "deep");
    if round > 0 {
        fs::remove_dir_all(world.src.join(format!("tree{}", round - 1))).expect("cannot remove a tree");
        for n in 0..100 {
            fs::remove_file(world.src.join(format!("r{}f{n}", round - 1))).expect("cannot remove a file");
        }
    }
}

#[test]
fn l19_kill_9_under_load_loses_nothing() {
    let mut world = World::new();
    world.conf.params = "-art --bwlimit=3000".to_owned();
    world.start();
    for round in 0..3 {
        load(&world, round);
        world.daemon().kill9();
        // Changes that are made while no daemon runs.
        write(world.src.join(format!("while down {round}")), "unseen");
        world.daemon().restart();
    }
    world.converges(secs(120));
}

/// The receivers of a killed run still got the data in their connections. On a busy machine they wrote files that the next run
/// had just deleted.
#[test]
fn l19_what_receivers_of_a_killed_run_write_late_is_made_good() {
    const FILES: usize = 300;
    let mut world = World::new();
    // An empty source would suspend the root.
    write(world.src.join("stays"), "stays");
    world.start();
    world.converges(soon());
    for round in 0..10 {
        let name = |n: usize| format!("r{round}f{n}");
        let standing = |world: &World| {
            let there = |dst: &std::path::PathBuf| (0..FILES).filter(|&n| dst.join(name(n)).exists()).count();
            world.dsts.iter().map(there).collect::<Vec<_>>()
        };
        (0..FILES).for_each(|n| write(world.src.join(name(n)), patterned(n as u64, 3_000)));
        wait_until(soon(), "a few files", || standing(&world).iter().any(|count| *count > 0));
        let stopped = world.rsyncd.connections();
        stopped.iter().for_each(|&pid| signal(pid, Signal::STOP));
        world.daemon().kill9();
        (0..FILES).for_each(|n| fs::remove_file(world.src.join(name(n))).expect("cannot remove a file"));
        let began = Instant::now();
        world.daemon().restart();
        wait_until(soon(), "the files to go", || standing(&world).iter().all(|count| *count == 0));
        stopped.iter().for_each(|&pid| signal(pid, Signal::CONT));
        let in_time = began.elapsed() < Duration::from_secs(4);
        wait_until(soon(), "the late receivers to end", || {
            world.rsyncd.connections().iter().all(|pid| !stopped.contains(pid))
        });
        let came_back = standing(&world).iter().any(|count| *count > 0);
        if in_time {
            world.converges(soon());
        } else {
            // No run waits for receivers that long.
            drop(world.cli.run(["reconcile".as_ref(), "--state-dir".as_ref(), world.cli.state.as_os_str()]).ok());
        }
        if in_time && came_back {
            return;
        }
    }
    skipped("no receiver wrote anything late");
}

#[test]
fn l19_term_under_load_loses_nothing_and_counts_no_attempt() {
    let mut world = World::new();
    world.conf.params = "-art --bwlimit=2000".to_owned();
    world.start();
    for round in 0..2 {
        load(&world, round);
        write(world.src.join(format!("large{round}")), patterned(round, 12 << 20));
        wait_until(soon(), "a running transfer", || world.cli.status().targets.iter().any(|t| t.running > 0));
        world.stop();
        let jobs = world.cli.list();
        assert!(!jobs.is_empty(), "the stop came too late to interrupt anything");
        let counted: Vec<_> = jobs.iter().filter(|job| job["attempts"] != 0).collect();
        assert!(counted.is_empty(), "a stop has been counted as an attempt: {counted:?}");
        world.daemon().restart();
    }
    world.converges(secs(120));
}

/// The received part of a large file was kept for the next run. It stayed in `.rsync-partial` if no such run came, because the
/// file had another name by then.
#[test]
fn what_is_kept_of_a_large_file_goes_when_that_is_renamed() {
    for kills_daemon in [false, true] {
        let mut world = World::new();
        world.conf.params = "-art --bwlimit=2000".to_owned();
        make_dir(world.src.join("d"));
        world.start();
        world.converges(soon());
        let is_under_way = |dst: &std::path::PathBuf| {
            let entries = fs::read_dir(dst.join("d")).into_iter().flatten().flatten();
            entries
                .filter(|e| is_leftover(e.file_name().as_encoded_bytes()))
                .any(|e| e.metadata().is_ok_and(|m| m.len() > 0))
        };
        let is_kept = |dst: &std::path::PathBuf| dst.join("d/.rsync-partial/large").exists();
        write(world.src.join("d/large"), patterned(1, 12 << 20));
        wait_until(soon(), "two transfers", || world.dsts.iter().all(is_under_way));
        if kills_daemon {
            world.daemon().kill9();
            world.daemon().restart();
        } else {
            world.daemon().rsyncs().into_iter().for_each(|pid| signal(pid, Signal::KILL));
        }
        wait_until(soon(), "receivers to keep what they have", || world.dsts.iter().all(is_kept));
        fs::rename(world.src.join("d/large"), world.src.join("d/renamed")).expect("cannot rename a file");
        let _ = world.cli.run(["wait", "--state-dir", world.cli.state.to_str().expect("a UTF-8 path")]).ok();
        let left: Vec<_> = world.dsts.iter().filter(|dst| dst.join("d/.rsync-partial").exists()).collect();
        assert!(left.is_empty(), "killed: {kills_daemon}: left in {left:?}");
        world.converges(secs(60));
    }
}

#[test]
fn l10_changes_while_stopped_arrive_after_the_start() {
    let mut world = World::new();
    for n in 0..50 {
        make_dir(world.src.join(format!("d{}", n % 5)));
        write(world.src.join(format!("d{}/f{n}", n % 5)), patterned(n, 1_000));
    }
    world.start();
    world.converges(soon());
    world.stop();
    write(world.src.join("d0/new"), "new");
    write(world.src.join("d1/f1"), "changed");
    fs::remove_file(world.src.join("d2/f2")).expect("cannot remove a file");
    fs::remove_dir_all(world.src.join("d3")).expect("cannot remove a directory");
    fs::rename(world.src.join("d4"), world.src.join("d0/moved")).expect("cannot rename a directory");
    make_dir(world.src.join("fresh/deep"));
    write(world.src.join("fresh/deep/file"), "deep");
    world.daemon().restart();
    world.converges(soon());
}

#[test]
fn l10_changes_during_the_first_run_arrive() {
    let mut world = World::new();
    for n in 0..2_000 {
        let dir = world.src.join(format!("d{}", n % 40));
        make_dir(&dir);
        write(dir.join(format!("{n}")), patterned(n, 500));
    }
    world.rsyncd.start();
    let conf = world.conf.save();
    let args = ["run", "-r", "-o"].iter().map(Into::into).chain([
        conf.into_os_string(),
        "--state-dir".into(),
        world.cli.state.clone().into_os_string(),
    ]);
    // The start is not waited for: the changes meet it at every stage.
    world.daemon = Some(crate::harness::Daemon::spawn(&world.cli, args.collect::<Vec<std::ffi::OsString>>()));
    for n in 0..300 {
        write(world.src.join(format!("d{}/late{n}", n % 40)), "late");
        let _ = fs::remove_file(world.src.join(format!("d{}/{n}", n % 40)));
        make_dir(world.src.join(format!("new{n}/sub")));
        write(world.src.join(format!("new{n}/sub/file")), "late");
    }
    world.daemon().wait_ready();
    world.converges(secs(90));
}

/// rsync and rsyncd are killed in the middle of transfers; the daemon lives on.
#[test]
fn l19_killed_rsyncs_and_a_restarted_rsyncd_lose_nothing() {
    let mut world = World::new();
    world.compare.leftovers = false;
    world.conf.params = "-art --bwlimit=4000".to_owned();
    world.start();
    for round in 0..3 {
        load(&world, round);
        let running = |world: &World| {
            world.cli.status().targets.iter().any(|target| target.running > 0 && target.reason.is_none())
        };
        wait_until(soon(), "a running transfer", || running(&world));
        for pid in world.daemon().rsyncs() {
            signal(pid, Signal::KILL);
        }
        wait_until(soon(), "another transfer", || running(&world));
        world.rsyncd.stop();
        world.rsyncd.start();
    }
    world.converges(secs(120));
}

/// A monitoring program may ask at any moment, also while a daemon starts.
#[test]
fn status_in_a_loop_does_not_keep_a_daemon_from_starting() {
    let mut world = World::new();
    write(world.src.join("file"), "content");
    world.start();
    world.converges(soon());
    world.stop();
    let cli = world.cli.clone();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking = {
        let over = std::sync::Arc::clone(&over);
        std::thread::spawn(move || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = cli.try_status();
            }
        })
    };
    let restarts = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..8 {
            world.daemon().restart();
            world.stop();
        }
    }));
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    asking.join().expect("the asking thread failed");
    assert!(restarts.is_ok(), "a daemon could not start while its status was asked for");
}

#[test]
fn l19_random_changes_with_kill_9_end_equal() {
    for seed in seeds(3) {
        let mut world = World::new();
        world.compare.leftovers = false;
        world.conf.attrib = true;
        let outside = world.side("outside");
        world.start();
        let mut report = Report(Churn::new(3_000 + seed, &world.src, &outside), seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..4 {
            for _ in 0..rng.usize(20..120) {
                report.0.step();
                report.0.pause();
            }
            world.daemon().kill9();
            for _ in 0..rng.usize(0..40) {
                report.0.step();
            }
            world.daemon().restart();
        }
        write(world.src.join("last"), "one");
        world.converges(secs(90));
    }
}

/// A killed daemon leaves its lock, socket and pid file; the next start must not stumble over them.
#[test]
fn l19_a_start_after_kill_9_takes_over_what_is_left() {
    let mut world = World::new();
    world.start();
    for n in 0..3 {
        world.daemon().kill9();
        world.daemon().restart();
        write(world.src.join("file"), format!("after start {n}"));
        world.converges(soon());
    }
    world.stop();
}

/// Ctrl-C in a terminal ends the daemon like SIGTERM.
#[test]
fn sigint_stops_cleanly_too() {
    let mut world = World::new();
    write(world.src.join("file"), "content");
    world.start();
    world.converges(soon());
    let pid = world.daemon().pid();
    signal(pid, Signal::INT);
    let daemon = world.daemon();
    crate::harness::wait_for(secs(30), "the end after SIGINT", || match daemon.exited() {
        Some(status) if status.code() == Some(0) => Ok(()),
        Some(status) => panic!("SIGINT ended the daemon with {status}"),
        None => Err("still running".to_owned()),
    });
}

/// An open file causes an event when it is closed. If it is closed while no daemon runs, no event tells, and the time of the
/// last change is older than the watermark.
#[test]
fn l19_a_file_written_before_a_kill_and_closed_while_down_arrives() {
    for rest in [Duration::ZERO, Duration::from_millis(1_200), secs(6)] {
        let mut world = World::new();
        world.conf.syncq = "<transfer quietPeriod=\"1h\"/>".to_owned();
        let path = world.src.join("log");
        write(&path, "first line\n");
        world.start();
        world.converges(soon());
        let mut file = OpenOptions::new().append(true).open(&path).expect("cannot open a file");
        file.write_all(b"written before the kill\n").expect("cannot write");
        // The kill comes right after the write, or long after it, when the store has noted the write.
        let began = Instant::now();
        wait_until(secs(20), "some time to pass", || began.elapsed() >= rest);
        assert!(!world.arrived(0, "log"), "the file has been sent before it was closed");
        world.daemon().kill9();
        drop(file);
        world.daemon().restart();
        world.converges(soon());
    }
}

/// Files that stay open across the kill, and are written and closed while no daemon runs.
#[test]
fn l19_files_held_open_across_a_kill_arrive_whole() {
    let mut world = World::new();
    let names: Vec<String> = (0..20).map(|n| format!("log{n}")).collect();
    for name in &names {
        write(world.src.join(name), "first line\n");
    }
    world.start();
    world.converges(soon());
    let open = |name: &String| OpenOptions::new().append(true).open(world.src.join(name)).expect("cannot open a file");
    let mut files: Vec<_> = names.iter().map(open).collect();
    files.iter_mut().for_each(|file| file.write_all(b"before the kill\n").expect("cannot write"));
    world.daemon().kill9();
    for (n, mut file) in files.into_iter().enumerate() {
        if n % 2 == 0 {
            file.write_all(b"while down\n").expect("cannot write");
        }
    }
    world.daemon().restart();
    world.converges(soon());
}
