//! Jobs are listed, retried and purged, and targets are paused, with a daemon and without.

use std::os::unix::fs::chown;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{done, json_lines, mirrored, syncq, target};
use crate::harness::world::{give_to_nobody, soon};
use crate::harness::{World, is_root, make_dir, patterned, secs, skipped, wait_for, wait_until, write};

fn paths(jobs: &[Value]) -> Vec<&str> {
    jobs.iter().map(|job| job["path"].as_str().expect("a path")).collect()
}

/// A pause: changes made meanwhile are listed, survive a restart, and arrive after the pause.
#[test]
fn a_paused_target_gets_nothing_across_a_restart_and_catches_up_when_resumed() {
    let mut world = mirrored();
    let m1 = target(&world, "m1");
    let json = syncq(&world, &["pause", &m1, "--json"]).ok();
    let paused: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(paused["targets"][0]["changed"], true);
    for n in 0..3 {
        write(world.src.join(format!("d/f{n}")), patterned(n, 1_000));
    }
    wait_until(soon(), "the other target", || (0..3).all(|n| world.arrived(1, format!("d/f{n}"))));
    let status = world.cli.status();
    assert_eq!((status.target("m1").state.as_str(), status.target("m2").state == "paused"), ("paused", false));
    assert!(status.target("m1").pending >= 3 && !world.dsts[0].join("d/f0").exists());

    world.stop();
    let offline = syncq(&world, &["status", "--json"]).ok();
    assert!(offline.stdout.contains(r#""state":"paused""#), "{}", offline.stdout);
    world.daemon().restart();
    write(world.src.join("d/after"), "after");
    wait_until(soon(), "the other target", || world.arrived(1, "d/after"));
    assert!(!world.dsts[0].join("d/f0").exists() && !world.dsts[0].join("d/after").exists());
    assert_eq!(world.cli.status().target("m1").state, "paused");

    done(&world, &["resume", "--all"]);
    world.converges(soon());
}

/// A pause can be set in a store, and the next daemon starts with it.
#[test]
fn a_stopped_daemon_can_be_paused_and_purged_through_its_store() {
    let mut world = mirrored();
    done(&world, &["pause", "--all"]);
    for n in 0..5 {
        write(world.src.join(format!("d/f{n}")), "new");
    }
    wait_until(soon(), "the jobs", || world.cli.status().targets.iter().all(|target| target.pending >= 5));
    world.stop();
    let retried = syncq(&world, &["retry"]).ok();
    assert_eq!(retried.stderr, "0 jobs are tried again now\n");
    let dry = syncq(&world, &["purge", "--path", "d/f[0-2]", "--dry-run", "--json"]).ok();
    assert_eq!(json_lines(&dry).len(), 6);
    let m1 = dry.stdout.lines().next().expect("a job").to_owned();
    let m1: Value = serde_json::from_str(&m1).expect("JSON");
    let purged = syncq(&world, &["purge", "--path", "d/f[0-2]", "--yes", "--json"]).ok();
    assert_eq!(json_lines(&purged), json_lines(&dry));
    let gone = syncq(&world, &["purge", &m1["id"].to_string(), "--yes"]);
    assert!(gone.code == Some(1) && gone.stderr.contains("hint: "), "{}", gone.text());
    done(&world, &["resume", "--all"]);
    assert!(world.cli.list().iter().all(|job| !job["path"].as_str().expect("a path").ends_with("f1")));
    let left = world.cli.list();
    assert!(paths(&left).contains(&"d/f3"), "{left:?}");
    world.daemon().restart();
    world.cli.wait_idle(soon());
    assert!(world.arrived(0, "d/f3") && world.arrived(1, "d/f4"));
}

#[test]
fn jobs_are_listed_by_every_filter_and_in_every_order() {
    let world = mirrored();
    let (m1, m2) = (target(&world, "m1"), target(&world, "m2"));
    done(&world, &["pause", "--root", &world.src.display().to_string()]);
    for name in ["d/one.jpg", "d/two.txt", "three.jpg"] {
        write(world.src.join(name), "new");
    }
    let listed = |args: &[&str]| {
        let ended = syncq(&world, &[&["list", "--json"], args].concat()).ok();
        json_lines(&ended)
    };
    wait_until(soon(), "the jobs of both targets", || listed(&["--path", "*.*"]).len() == 6);
    assert_eq!(paths(&listed(&["--path", "*.jpg", "--target", &m1])), ["d/one.jpg", "three.jpg"]);
    let below = listed(&["--path", "/d", "--target", &m2, "--state", "ready", "--scope", "entry"]);
    assert!(paths(&below).contains(&"d/two.txt") && !paths(&below).contains(&"three.jpg"), "{below:?}");
    assert_eq!(paths(&listed(&["--path", "d/*", "--limit", "1"])), ["d/one.jpg"]);
    assert!(listed(&["--older-than", "1h"]).is_empty() && listed(&["--error", "denied"]).is_empty());
    assert!(listed(&["--scope", "subtree"]).is_empty() && listed(&["--state", "failed"]).is_empty());
    let by_age = listed(&["--path", "*.*", "--sort", "age"]);
    let times: Vec<_> = by_age.iter().map(|job| job["queued_at"].as_str().expect("a time").to_owned()).collect();
    assert!(times.len() == 6 && times.is_sorted(), "{times:?}");
    assert_eq!(listed(&["--path", "*.*", "--sort", "attempts", "--limit", "4"]).len(), 4);
    let glob = syncq(&world, &["list", "--path", "["]);
    assert!(glob.stderr.contains("hint: patterns are as in .gitignore"), "{}", glob.text());
    for args in [&["list", "--target", "nobody::x"][..], &["list", "--root", "/nowhere"], &["list", "--path", "["]] {
        let refused = syncq(&world, args);
        assert!(refused.code == Some(1) && refused.stderr.starts_with("syncq: "), "{}", refused.text());
    }
    let nothing = syncq(&world, &["pause"]);
    assert!(nothing.code == Some(2) && nothing.stderr.contains("<TARGET|--root <DIR>|--all>"), "{}", nothing.text());
    let unknown = syncq(&world, &["pause", "nobody::x"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("hint: there are: "), "{}", unknown.text());
}

#[test]
fn a_purge_says_what_it_means_and_asks() {
    let world = mirrored();
    done(&world, &["pause", "--all"]);
    write(world.src.join("d/purged"), "new");
    wait_until(soon(), "the jobs", || world.cli.list().iter().filter(|job| job["path"] == "d/purged").count() == 2);
    for args in [&["purge"][..], &["purge", "--path", "d/purged"]] {
        let refused = syncq(&world, args);
        assert!(refused.code == Some(2) && refused.stderr.contains("hint: "), "{}", refused.text());
    }
    let dry = syncq(&world, &["purge", "--path", "d/purged", "--dry-run"]).ok();
    assert!(dry.stderr.contains("2 jobs would be purged; their paths may stay different"), "{}", dry.stderr);
    assert_eq!(world.cli.list().iter().filter(|job| job["path"] == "d/purged").count(), 2);
    let purged = syncq(&world, &["purge", "--path", "d/purged", "-y"]).ok();
    assert!(purged.stderr.contains("2 jobs purged; their paths may stay different"), "{}", purged.stderr);
    // Completed changes are printed, even if one of the ids is wrong.
    write(world.src.join("d/other"), "new");
    wait_until(soon(), "the job", || world.cli.list().iter().any(|job| job["path"] == "d/other"));
    let id = world.cli.list().iter().find(|job| job["path"] == "d/other").expect("the job")["id"].to_string();
    let half = syncq(&world, &["purge", &id, "999999", "--yes"]);
    assert!(half.code == Some(1) && half.stderr.starts_with("1 job purged; "), "{}", half.text());
    assert!(half.stderr.contains("\nsyncq: no job of these numbers"), "{}", half.text());
    done(&world, &["resume", "--all"]);
    world.cli.wait_idle(soon());
    assert!(!world.dsts[0].join("d/purged").exists());
    // The next change of the path, or a comparison, makes the path equal.
    write(world.src.join("d/purged"), "newer");
    write(world.src.join("d/other"), "newer");
    world.converges(soon());
}

/// A job is given up after two failures. Its cause is removed on the target, which only an operator knows.
#[test]
fn a_dead_letter_is_retried_by_its_error() {
    if !is_root() {
        return skipped("needs a receiver of another user");
    }
    let mut world = World::new();
    world.conf.syncq = r#"<backoff maxAttempts="2"/>"#.to_owned();
    world.rsyncd.module_option("m2", "uid", "nobody").module_option("m2", "gid", "nogroup");
    make_dir(world.src.join("locked"));
    write(world.src.join("locked/before"), "before");
    give_to_nobody(&world.dsts[1]);
    world.start();
    world.converges(soon());
    chown(world.dsts[1].join("locked"), Some(0), Some(0)).expect("cannot chown");
    write(world.src.join("locked/f"), "new");
    // The directory's own job is given up too, sometimes earlier.
    let given_up = |job: &Value| job["path"] == "locked/f" && job["state"] == "failed";
    wait_until(soon(), "the job to be given up", || world.cli.list().iter().any(given_up));
    give_to_nobody(&world.dsts[1].join("locked"));
    let id = world.cli.list().iter().find(|job| job["path"] == "locked/f").expect("the job")["id"].to_string();
    let shown = syncq(&world, &["list", "--state", "failed", "--error", "PERMISSION", "--json"]).ok();
    assert!(paths(&json_lines(&shown)).contains(&"locked/f"));
    let retried = syncq(&world, &["retry", &id, "999999"]);
    assert!(retried.code == Some(1) && retried.stderr.contains("999999"), "{}", retried.text());
    wait_until(soon(), "the retried file", || world.arrived(1, "locked/f"));
    done(&world, &["retry"]);
    world.converges(soon());
}

/// A target that is down for long is probed seldom; the operator who has repaired it need not wait.
#[test]
fn a_retry_of_a_whole_target_hurries_its_probe() {
    let mut world = World::new();
    write(world.src.join("before"), "before");
    world.start();
    world.converges(soon());
    world.rsyncd.stop();
    write(world.src.join("during"), "during");
    // Checked for both targets, since a target that was just probed may recover by itself.
    let next_probes = || {
        let json = world.cli.try_status()?.json;
        for target in json["targets"].as_array().ok_or("no targets")? {
            let at = target["retry_at"].as_str().map(str::to_owned).ok_or_else(|| json.to_string())?;
            let at = humantime::parse_rfc3339(&at).map_err(|e| e.to_string())?;
            let left = at.duration_since(std::time::SystemTime::now()).map_or(0.0, |left| left.as_secs_f64());
            if left <= 12.0 {
                return Err(format!("{left} s"));
            }
        }
        Ok(())
    };
    wait_for(secs(90), "probes that are far away", next_probes);
    world.rsyncd.start();
    let begun = Instant::now();
    let targets: Vec<String> = world.cli.status().targets.iter().map(|target| target.name.clone()).collect();
    // The dry run said that nothing would be tried.
    let dry = syncq(&world, &["retry", "--dry-run"]).ok();
    assert_eq!(dry.stderr, format!("{} would be tried again now\n", targets.join(", ")));
    for name in &targets {
        done(&world, &["retry", "--target", name]);
    }
    wait_until(secs(10), "the file", || world.arrived(0, "during") && world.arrived(1, "during"));
    assert!(begun.elapsed() < Duration::from_secs(10));
    world.converges(soon());
}

#[test]
fn without_a_daemon_or_a_store_commands_exit_with_3() {
    let world = World::new();
    for args in [&["list"][..], &["retry"], &["pause", "--all"], &["purge", "--all", "--yes"]] {
        let ended = syncq(&world, args);
        assert!(ended.code == Some(3) && ended.stderr.contains("hint: "), "{args:?}: {}", ended.text());
    }
}
