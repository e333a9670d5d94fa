//! An rsync that is connected before the next change makes transfers faster, and never causes a change to be lost or late.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::processes::signal;
use crate::harness::world::soon;
use crate::harness::{World, make_dir, secs, wait_for, wait_until, write};

/// The processes that stand by for a target. No other rsync may run.
fn standbys(world: &mut World, module: &str) -> Vec<i32> {
    let named = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&format!("::{module}/"))
    };
    world.daemon().rsyncs().into_iter().filter(named).collect()
}

/// Waits until one rsync stands by at each target. The server has let each in, and none of them is in `before`.
fn ready(world: &mut World, before: &[i32]) -> Vec<i32> {
    let modules: Vec<String> = world.conf.local_paths[0].remotes.iter().map(|(_, module)| module.clone()).collect();
    wait_for(soon(), "a standby at each target", || {
        world.cli.wait_idle(soon());
        let found: Vec<Vec<i32>> = modules.iter().map(|module| standbys(world, module)).collect();
        let connected = world.rsyncd.connections().len();
        let is_ready = found.iter().all(|of| of.len() == 1 && !before.contains(&of[0])) && connected >= found.len();
        if is_ready { Ok(found.concat()) } else { Err(format!("{found:?}, {connected} connections")) }
    })
}

fn none(world: &mut World) {
    wait_until(soon(), "no standby", || world.daemon().rsyncs().is_empty());
}

/// Waits until the standbys are too old to be trusted.
fn grown_old() {
    let begun = Instant::now();
    wait_until(secs(20), "an older connection", || begun.elapsed() > Duration::from_millis(2_500));
}

fn start(world: &mut World) {
    world.conf.debug = true;
    world.conf.params = "-artz".to_owned();
    write(world.src.join("stays"), "stays");
    world.start();
    world.converges(soon());
}

fn started() -> World {
    let mut world = World::new();
    start(&mut world);
    world
}

fn log(world: &mut World) -> String {
    world.daemon().log_text()
}

/// Checks that the log has no complaint at the level that people see.
#[track_caller]
fn no_complaint(world: &mut World) {
    let log = log(world);
    let loud: Vec<_> = log.lines().filter(|line| line.contains("Z WARN ") || line.contains("Z ERROR ")).collect();
    assert!(loud.is_empty(), "{loud:#?}");
}

#[test]
fn changes_go_through_it_and_another_takes_its_place() {
    let mut world = World::new();
    world.rsyncd.secret("joe", "secret");
    for module in ["m1", "m2"] {
        world.rsyncd.module_option(module, "auth users", "joe");
    }
    let file = world.base().join("password");
    write(&file, "secret\n");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("cannot chmod");
    world.conf.auth = Some(("joe".to_owned(), file));
    make_dir(world.src.join("dir"));
    start(&mut world);
    let mut before = ready(&mut world, &[]);
    let change: [&dyn Fn(&World); 4] = [
        &|world| write(world.src.join("new"), "content"),
        &|world| write(world.src.join("dir/new"), "content"),
        &|world| write(world.src.join("new"), "other"),
        &|world| fs::remove_dir_all(world.src.join("dir")).expect("cannot remove"),
    ];
    for (n, change) in change.into_iter().enumerate() {
        if n >= 2 {
            grown_old();
        }
        let sent = log(&mut world).matches("sent by the standby").count();
        change(&world);
        world.converges(soon());
        // Some versions of rsync refuse deletions by name, and a standby with them.
        if n == 3 && log(&mut world).contains(" --ignore-missing-args ") {
            break;
        }
        before = ready(&mut world, &before);
        assert!(log(&mut world).matches("sent by the standby").count() >= sent + 2, "change {n}: {}", log(&mut world));
    }
    no_complaint(&mut world);
}

#[test]
fn what_is_written_after_a_target_directory_was_replaced_arrives_in_the_new_one() {
    let mut world = started();
    ready(&mut world, &[]);
    grown_old();
    for dst in &world.dsts {
        fs::rename(dst, dst.with_extension("away")).expect("cannot rename");
        make_dir(dst);
    }
    write(world.src.join("new"), "content");
    wait_until(soon(), "the file in the new directories", || (0..2).all(|n| world.arrived(n, "new")));
    world.cli.wait_idle(soon());
    no_complaint(&mut world);
}

#[test]
fn one_that_has_died_costs_nothing_but_its_speed() {
    let mut world = started();
    let before = ready(&mut world, &[]);
    // As when a server is restarted, or ends idle connections.
    for pid in world.rsyncd.connections() {
        signal(pid, Signal::KILL);
    }
    write(world.src.join("after the server's end"), "content");
    world.converges(soon());
    // The ended standbys were too young for others to follow at once, so the next changes go without.
    wait_until(soon(), "the ends of the standbys", || {
        let left = world.daemon().rsyncs();
        !before.iter().any(|pid| left.contains(pid))
    });
    write(world.src.join("without"), "content");
    world.converges(soon());
    no_complaint(&mut world);

    let mut world = started();
    for pid in ready(&mut world, &[]) {
        signal(pid, Signal::KILL);
    }
    write(world.src.join("after their own end"), "content");
    world.converges(soon());
    no_complaint(&mut world);
}

#[test]
fn where_connections_are_short_there_is_none() {
    let mut world = World::new();
    world.conf.syncq = "<transfer connections=\"1\"/>".to_owned();
    let count = world.count_rsyncs();
    write(world.src.join("stays"), "stays");
    world.start();
    world.converges(soon());
    let before = count.naming("::m");
    write(world.src.join("new"), "content");
    world.converges(soon());
    none(&mut world);
    assert!(count.naming("::m") <= before + 6, "{} starts", count.naming("::m") - before);
}

/// A standby would keep out every run that cannot use it.
#[test]
fn a_server_with_one_connection_refuses_no_run_on_its_account() {
    let mut world = World::new();
    // One connection for both targets.
    for module in ["m1", "m2"] {
        world.rsyncd.module_option(module, "max connections", "1");
    }
    start(&mut world);
    for n in 0..5 {
        write(world.src.join(format!("small{n}")), "small");
        write(world.src.join(format!("large{n}")), vec![b'x'; 9 << 20]);
        make_dir(world.src.join(format!("tree{n}/a/b")));
        write(world.src.join(format!("tree{n}/a/b/c")), "deep");
        world.converges(soon());
    }
    none(&mut world);
    no_complaint(&mut world);
}

#[test]
fn it_goes_when_its_target_is_paused_in_trouble_or_configured_otherwise() {
    let mut world = started();
    ready(&mut world, &[]);
    let state = world.cli.state.clone().into_os_string();
    let all = |world: &World, what: &str| {
        let _ = world.cli.run([what.into(), "--all".into(), "--state-dir".into(), state.clone()]).ok();
    };
    all(&world, "pause");
    none(&mut world);
    all(&world, "resume");
    write(world.src.join("resumed"), "content");
    world.converges(soon());
    let before = ready(&mut world, &[]);

    let reload = |world: &World| {
        world.conf.save();
        let _ = world.cli.run(["reload".into(), "--state-dir".into(), state.clone()]).ok();
    };
    world.conf.timeout_s = Some(90);
    reload(&world);
    wait_until(soon(), "the end of what was started as the target was", || {
        let left = world.daemon().rsyncs();
        !before.iter().any(|pid| left.contains(pid))
    });
    write(world.src.join("reloaded"), "content");
    world.converges(soon());
    ready(&mut world, &before);

    world.conf.syncq = "<transfer standby=\"false\"/>".to_owned();
    reload(&world);
    none(&mut world);
    write(world.src.join("cold"), "content");
    world.converges(soon());
    none(&mut world);
    world.conf.syncq.clear();
    reload(&world);
    write(world.src.join("warm again"), "content");
    world.converges(soon());
    ready(&mut world, &[]);

    world.rsyncd.stop();
    write(world.src.join("target down"), "content");
    wait_until(soon(), "trouble", || world.cli.status().targets.iter().all(|target| target.reason.is_some()));
    none(&mut world);
    world.rsyncd.start();
    world.converges(soon());
}

/// The directory that was moved away has everything that was ever mirrored, and none of the later changes.
#[test]
fn it_is_not_used_for_another_source_directory() {
    let mut world = started();
    ready(&mut world, &[]);
    let away = world.base().join("away");
    fs::rename(&world.src, &away).expect("cannot rename");
    make_dir(&world.src);
    write(world.src.join("other"), "of another directory");
    wait_until(soon(), "the root to be suspended", || world.cli.status().json["roots"][0]["state"] == "suspended");
    fs::remove_dir_all(&world.src).expect("cannot remove");
    fs::rename(&away, &world.src).expect("cannot rename");
    write(world.src.join("after"), "content");
    world.converges(soon());
    assert!(world.dsts.iter().all(|dst| dst.join("stays").exists() && !dst.join("other").exists()));
}

#[test]
fn a_stop_waits_for_none_and_leaves_none() {
    let mut world = started();
    ready(&mut world, &[]);
    let begun = Instant::now();
    world.stop();
    assert!(begun.elapsed() < secs(5), "it took {} ms to stop", begun.elapsed().as_millis());
    world.daemon().restart();
    write(world.src.join("again"), "content");
    world.converges(soon());
    ready(&mut world, &[]);
    world.daemon().kill9();
    wait_until(soon(), "the end of what a killed daemon left", || world.daemon().rsyncs().is_empty());
    world.daemon().restart();
    world.converges(soon());
}
