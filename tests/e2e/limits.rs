//! Resources of the machine run out: watches, instances, events, processes. Each shortage is seen, and nothing is lost for
//! good.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::inotify::{EventQueueLimit, SYSCTL, with_limit, without_raising};
use crate::harness::world::soon;
use crate::harness::{Daemon, World, is_root, make_dir, secs, skipped, wait_for, wait_until, write};
use crate::operators::done;

const HEAL: Duration = Duration::from_secs(150);

/// Overflows the event queue of a stopped daemon: files are made, changed and deleted, directories come and go.
fn overflowed(world: &mut World, events: usize) {
    for n in 0..50 {
        write(world.src.join(format!("old{n}")), "old");
    }
    make_dir(world.src.join("gone/sub"));
    world.converges(soon());
    world.daemon().signal(Signal::STOP);
    // Each write causes at least two events.
    for n in 0..events / 2 + 1_000 {
        write(world.src.join(format!("f{}", n % 4_000)), format!("{n}"));
    }
    fs::remove_dir_all(world.src.join("gone")).expect("cannot remove a directory");
    fs::remove_file(world.src.join("old7")).expect("cannot remove a file");
    make_dir(world.src.join("born/sub"));
    write(world.src.join("born/sub/file"), "late");
    world.daemon().signal(Signal::CONT);
    world.converges(secs(120));
    write(world.src.join("born/sub/file"), "watched");
    world.converges(soon());
}

fn overflows(world: &World) -> u64 {
    world.cli.status().json["watches"]["overflows"].as_u64().expect("a count of overflows")
}

#[test]
fn l9_an_overflow_of_a_small_kernel_queue_is_made_up_for() {
    const EVENTS: u32 = 1_024;
    if !is_root() {
        return skipped("only root may make the kernel's queue small");
    }
    let Some(wrapper) = without_raising() else { return skipped("no mount namespace to hide the limit in") };
    // The limit is the machine's: a daemon of another test that starts at the same moment raises it, so try several times.
    for _ in 0..5 {
        let mut world = World::new();
        world.cli.wrapper.clone_from(&wrapper);
        let Some(small) = EventQueueLimit::set(SYSCTL.as_ref(), EVENTS) else {
            return skipped("max_queued_events cannot be written");
        };
        world.start();
        drop(small);
        overflowed(&mut world, EVENTS as usize);
        if overflows(&world) > 0 {
            assert!(world.daemon().log_text().contains("overflow"), "an overflow has not been logged");
            return;
        }
    }
    panic!("the queue has never overflowed");
}

/// Slow if syncq has raised the limit: the queue then holds hundreds of thousands of events.
#[test]
fn l9_an_overflow_of_the_kernel_queue_as_it_is_is_made_up_for() {
    let mut world = World::new();
    world.start();
    let limit = fs::read_to_string(format!("{SYSCTL}/max_queued_events")).expect("the limit");
    let limit: usize = limit.trim().parse().expect("a number");
    if limit > 40_000 && (limit > 500_000 || std::env::var_os("SYNCQ_E2E_SLOW").is_none()) {
        return skipped("max_queued_events is large, and there is no SYNCQ_E2E_SLOW to allow for slow tests");
    }
    overflowed(&mut world, limit);
    assert!(overflows(&world) > 0, "the queue has not overflowed");
}

/// A world in a user namespace, whose own limits nobody can raise from within.
fn limited(name: &str, value: u32) -> Option<World> {
    let Some(wrapper) = with_limit(name, value) else {
        skipped("no user namespace to make a limit in");
        return None;
    };
    let mut world = World::new();
    world.cli.wrapper = wrapper;
    Some(world)
}

/// Both commands waited for a watch that never came, although the paths that they wait for are found without a watch.
#[test]
fn waiting_ends_where_directories_cannot_be_watched_and_finds_what_changed_in_them() {
    let Some(mut world) = limited("max_inotify_watches", 20) else { return };
    for dir in 0..30 {
        make_dir(world.src.join(format!("d{dir}/sub")));
        write(world.src.join(format!("d{dir}/sub/file")), "before");
    }
    world.become_nobody();
    world.start();
    done(&world, &["wait", "--timeout", "60s"]);
    assert!(world.cli.status().json["watches"]["unwatched"].as_u64() > Some(0), "everything is watched");
    for dir in 0..30 {
        let file = format!("d{dir}/sub/file");
        write(world.src.join(&file), format!("after {dir}"));
        if dir % 10 == 0 {
            done(&world, &["wait", "--timeout", "60s"]);
            for target in 0..2 {
                assert!(world.arrived(target, &file), "{file} is said to be on target {target}");
            }
        }
    }
    done(&world, &["reconcile", "--wait"]);
    world.converges(soon());
}

#[test]
fn l13_a_watch_limit_is_shown_and_what_is_not_watched_is_covered_all_the_same() {
    const WATCHES: u32 = 50;
    let Some(mut world) = limited("max_inotify_watches", WATCHES) else { return };
    // Metadata of directories is outside the scope of this test.
    world.compare.dir_times = false;
    for dir in 0..80 {
        make_dir(world.src.join(format!("d{dir}/sub")));
        write(world.src.join(format!("d{dir}/sub/before")), "before");
    }
    world.become_nobody();
    world.start();
    world.converges(soon());
    let status = world.cli.status().json;
    assert!(status["watches"]["unwatched"].as_u64() > Some(0), "nothing is said to be unwatched: {status}");
    let log = world.daemon().log_text();
    assert!(log.contains("cannot watch") && log.contains("max_user_watches"), "no hint in the log:\n{log}");
    for dir in 0..80 {
        write(world.src.join(format!("d{dir}/sub/after")), "after");
        fs::remove_file(world.src.join(format!("d{dir}/sub/before"))).expect("cannot remove a file");
    }
    world.converges(HEAL);
}

/// sersync takes the error code for a descriptor, and spins.
#[test]
fn l15_without_an_inotify_instance_the_start_fails_with_a_hint() {
    let Some(mut world) = limited("max_inotify_instances", 0) else { return };
    write(world.src.join("file"), "content");
    world.become_nobody();
    world.rsyncd.start();
    let conf = world.conf.save().into_os_string();
    let state = world.cli.state.clone().into_os_string();
    let mut daemon = Daemon::spawn(&world.cli, ["run".into(), "-o".into(), conf, "--state-dir".into(), state]);
    let status = wait_for(secs(30), "the daemon to give up", || daemon.exited().ok_or_else(|| daemon.log_text()));
    assert_eq!(status.code(), Some(1), "{}", daemon.log_text());
    assert!(daemon.log_text().contains("max_user_instances"), "no hint:\n{}", daemon.log_text());
}

fn limit_processes(pid: i32, soft: &str) -> bool {
    // Run prlimit as the same user: even root may lack the right to change the limits of other users.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "prlimit", "--pid", &pid.to_string()]);
    let output = command.arg(format!("--nproc={soft}:")).output();
    output.is_ok_and(|output| output.status.success())
}

/// sersync starts a thread and a shell for each event, and dies if it cannot.
#[test]
fn l3_no_process_can_be_started_for_a_while() {
    if !is_root() {
        return skipped("the limit does not hold for the user that started the daemon");
    }
    let mut world = World::new();
    write(world.src.join("before"), "before");
    world.become_nobody();
    world.start();
    world.converges(soon());
    let pid = world.daemon().pid();
    if !limit_processes(pid, "1") {
        return skipped("no prlimit");
    }
    let mut names = 0..;
    wait_for(soon(), "the reason to be shown", || {
        // Several times: the first files may go through an rsync that is standing by.
        for n in names.by_ref().take(20) {
            write(world.src.join(format!("file{n}")), "cannot be sent yet");
        }
        let status = world.cli.try_status()?;
        let shown = status.targets.iter().all(|target| target.reason.is_some() && !target.is_idle());
        if shown { Ok(()) } else { Err(status.json.to_string()) }
    });
    assert!(limit_processes(pid, "4096"), "cannot take the limit back");
    world.converges(HEAL);
    assert_eq!(world.daemon().exited(), None);
}

/// Measures the processor time of the daemon while `meanwhile` runs: a daemon that waits must not use the processor.
pub fn does_not_spin(world: &mut World, meanwhile: impl FnOnce(&mut World)) {
    let pid = world.daemon().pid();
    let (before, began) = (processor_time(pid), Instant::now());
    meanwhile(world);
    wait_until(secs(10), "three seconds", || began.elapsed() >= Duration::from_secs(3));
    let used = processor_time(pid) - before;
    let share = used.as_secs_f64() / began.elapsed().as_secs_f64();
    assert!(share < 0.3, "the daemon took {share:.2} of a processor while there was nothing to do");
}

fn processor_time(pid: i32) -> Duration {
    const TICKS_PER_S: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the daemon runs");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_ascii_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_S)
}
