//! A day in the life of an operator, in one piece. The daemon is started as its unit starts it. A target breaks, is examined,
//! repaired and verified. Dead letters are dealt with. A target is added without a restart.

use std::ffi::OsString;
use std::os::unix::fs::chown;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::daemon::Daemon;
use crate::harness::world::{give_to_nobody, soon};
use crate::harness::{Ended, World, is_root, make_dir, patterned, skipped, wait_for, wait_until, write};

const UNIT: &str = include_str!("../../conf/syncq@.service");

/// The unit's arguments for syncq, with the paths of the world.
fn unit_arguments(world: &World) -> Vec<OsString> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command line");
    let (program, arguments) = line.split_once(' ').expect("arguments");
    assert_eq!(program, "/usr/bin/syncq");
    let ours = |word: &str| match word {
        "/etc/syncq/%i.xml" => world.conf.file.clone().into(),
        "/var/lib/syncq/%i" => world.cli.state.clone().into(),
        word => OsString::from(word),
    };
    arguments.split(' ').map(ours).collect()
}

fn syncq(world: &World, args: &[&str]) -> Ended {
    let state = world.cli.state.display().to_string();
    world.cli.run(args.iter().copied().chain(["--state-dir", state.as_str()]))
}

#[track_caller]
fn done(world: &World, args: &[&str]) -> String {
    syncq(world, args).ok().stdout
}

/// The paths of the jobs of one target that `list` shows with these arguments.
fn jobs(world: &World, target: &str, args: &[&str]) -> Vec<String> {
    let listed = done(world, &[&["list", "--json", "--target", target], args].concat());
    let path = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["path"].as_str().map(str::to_owned);
    listed.lines().filter_map(path).collect()
}

#[test]
fn a_day_in_an_operators_life() {
    if !is_root() {
        return skipped("needs a receiver of another user");
    }
    // Eight o'clock: the service starts.
    let mut world = World::new();
    world.conf.syncq = r#"<backoff maxAttempts="2"/>"#.to_owned();
    world.rsyncd.module_option("m2", "uid", "nobody").module_option("m2", "gid", "nogroup");
    give_to_nobody(&world.dsts[1]);
    for n in 0..20 {
        make_dir(world.src.join(format!("d{n}")));
        write(world.src.join(format!("d{n}/f")), patterned(n, 1_000));
    }
    world.rsyncd.start();
    world.conf.save();
    world.daemon = Some(Daemon::start(&world.cli, unit_arguments(&world)));
    world.converges(soon());
    let (m1, m2) = (world.cli.status().target("m1").name.clone(), world.cli.status().target("m2").name.clone());

    // A target breaks. Status names the fault and the way out.
    world.rsyncd.stop();
    write(world.src.join("d0/during"), "during");
    wait_for(soon(), "the trouble to show", || {
        let target = world.cli.try_status()?.target("m1").clone();
        let told = target.state == "backing_off" && target.reason.is_some() && target.hint.is_some();
        if told && target.pending > 0 { Ok(()) } else { Err(format!("{target:?}")) }
    });
    assert!(jobs(&world, &m1, &["--path", "d0/during"]) == ["d0/during"]);
    let during = world.src.join("d0/during").display().to_string();
    let why = done(&world, &["explain", &during]);
    assert!(why.contains("waits for: the target: ") && why.contains("command: cd "), "{why}");

    // The target is paused while somebody repairs it, and then resumed.
    done(&world, &["pause", &m1]);
    world.rsyncd.start();
    write(world.src.join("d1/while"), "paused");
    done(&world, &["retry", "--target", &m2]);
    wait_until(soon(), "the other target", || world.arrived(1, "d0/during") && world.arrived(1, "d1/while"));
    assert!(!world.dsts[0].join("d0/during").exists());
    done(&world, &["resume", &m1]);
    done(&world, &["retry", "--target", &m1]);
    done(&world, &["wait", "--timeout", "60s"]);
    assert!(world.arrived(0, "d0/during") && world.arrived(0, "d1/while"));
    done(&world, &["verify", "--checksum"]);

    // Noon: two files that the target refuses are given up.
    for dir in ["d2", "d3"] {
        chown(world.dsts[1].join(dir), Some(0), Some(0)).expect("cannot chown");
        write(world.src.join(dir).join("refused"), "new");
    }
    let refused = ["d2/refused", "d3/refused"];
    wait_until(soon(), "the jobs to be given up", || {
        let failed = jobs(&world, &m2, &["--state", "failed"]);
        refused.iter().all(|path| failed.iter().any(|failed| failed == path))
    });
    // One path is repaired on the target and retried; the other is not wanted on the target.
    give_to_nobody(&world.dsts[1].join("d2"));
    done(&world, &["retry", "--path", "d2/**"]);
    done(&world, &["retry", "--path", "d2"]);
    wait_until(soon(), "the retried file", || world.arrived(1, "d2/refused"));
    let purged = syncq(&world, &["purge", "--path", "d3/refused", "--yes"]).ok();
    assert!(purged.stderr.contains("may stay different"), "{}", purged.stderr);
    let differs = syncq(&world, &["verify", "--target", &m2, "--json"]);
    assert!(differs.code == Some(1) && differs.stdout.contains("d3/refused"), "{}", differs.text());
    give_to_nobody(&world.dsts[1].join("d3"));
    let repaired = syncq(&world, &["verify", "--repair"]);
    assert!(repaired.stdout.contains("d3/refused"), "{}", repaired.text());
    done(&world, &["retry"]);
    done(&world, &["wait", "--timeout", "60s"]);
    done(&world, &["verify"]);

    // Evening: a target is added. It gets everything; the others go on.
    let third = world.side("m3");
    world.rsyncd.module("m3", &third);
    world.rsyncd.write_conf();
    world.conf.local_paths[0].remotes.push(("127.0.0.1".to_owned(), "m3".to_owned()));
    world.conf.save();
    world.daemon().signal(Signal::HUP);
    wait_until(soon(), "the new target", || {
        world.cli.status().targets.iter().any(|target| target.name.ends_with("m3"))
    });
    write(world.src.join("d4/evening"), "evening");
    world.dsts.push(third);
    world.converges(soon());
    done(&world, &["verify", "--checksum"]);
    world.stop();
}
