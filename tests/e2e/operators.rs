//! What operators do with a running daemon and with the store of a stopped one: select, retry and purge jobs, pause
//! targets, compare, wait, ask why.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use syncq::control::{Client, WaitRequest};

use crate::harness::tree::differences;
use crate::harness::world::{give_to_nobody, soon};
use crate::harness::{Ended, World, is_root, make_dir, patterned, secs, skipped, wait_for, wait_until, write};

/// Runs a command on the world's state directory.
pub fn syncq(world: &World, args: &[&str]) -> Ended {
    let state = world.cli.state.display().to_string();
    world.cli.run(args.iter().copied().chain(["--state-dir", state.as_str()]))
}

/// As [`syncq`], and it has to succeed.
#[track_caller]
pub fn done(world: &World, args: &[&str]) {
    drop(syncq(world, args).ok());
}

/// The lines of JSON that a command printed.
pub fn json_lines(ended: &Ended) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON: {e}\n{line}"));
    ended.stdout.lines().map(parse).collect()
}

fn paths(jobs: &[Value]) -> Vec<&str> {
    jobs.iter().map(|job| job["path"].as_str().expect("a path")).collect()
}

/// The name of the target whose module is `module`.
pub fn target(world: &World, module: &str) -> String {
    world.cli.status().target(module).name.clone()
}

pub fn mirrored() -> World {
    let mut world = World::new();
    make_dir(world.src.join("d"));
    write(world.src.join("d/before"), "before");
    world.start();
    world.converges(soon());
    world
}

/// A fails-safe pause: changes made meanwhile are listed, survive a restart and arrive after the end of it.
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

/// A store can be paused, and its daemon starts that way.
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
    // What was done is said, also if a number is wrong.
    write(world.src.join("d/other"), "new");
    wait_until(soon(), "the job", || world.cli.list().iter().any(|job| job["path"] == "d/other"));
    let id = world.cli.list().iter().find(|job| job["path"] == "d/other").expect("the job")["id"].to_string();
    let half = syncq(&world, &["purge", &id, "999999", "--yes"]);
    assert!(half.code == Some(1) && half.stderr.starts_with("1 job purged; "), "{}", half.text());
    assert!(half.stderr.contains("\nsyncq: no job of these numbers"), "{}", half.text());
    done(&world, &["resume", "--all"]);
    world.cli.wait_idle(soon());
    assert!(!world.dsts[0].join("d/purged").exists());
    // And the next change of the path, or a comparison, makes it equal.
    write(world.src.join("d/purged"), "newer");
    write(world.src.join("d/other"), "newer");
    world.converges(soon());
}

/// Given up after two failures; healed on the target, which nobody notices but an operator.
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
    // The directory's own job is given up as well, and sometimes sooner.
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

/// The probe of a target that is down for long comes seldom; whoever repaired it need not wait.
#[test]
fn a_retry_of_a_whole_target_hurries_its_probe() {
    let mut world = World::new();
    write(world.src.join("before"), "before");
    world.start();
    world.converges(soon());
    world.rsyncd.stop();
    write(world.src.join("during"), "during");
    // Of both targets: one that is asked again just now is back by itself.
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
    // It said that nothing was tried.
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

/// Writes a file whose directory may not be there yet.
fn put(path: PathBuf, content: impl AsRef<[u8]>) {
    make_dir(path.parent().expect("a directory"));
    write(path, content);
}

/// Compares two trees right after a wait, without any patience.
#[track_caller]
pub fn equal_now(world: &World, round: u64) {
    for dst in &world.dsts {
        let found = differences(&world.src, dst, world.compare);
        assert!(found.is_empty(), "round {round}: the wait was over too early\n  {}", found.join("\n  "));
    }
}

/// `SYNCQ_WAITS=1000` makes so many rounds. The wait is asked for over the socket: until a command has started, the watcher
/// has seen everything in any case.
#[test]
fn a_wait_never_ends_too_early() {
    let world = mirrored();
    let client = Client::connect(&world.cli.state).expect("a daemon");
    let request = WaitRequest { timeout_s: Some(60.0), ..WaitRequest::default() };
    let rounds = std::env::var("SYNCQ_WAITS").ok().and_then(|count| count.parse().ok()).unwrap_or(300);
    for round in 0..rounds {
        let dir = world.src.join(format!("r{}", round % 7));
        match round % 6 {
            0 => put(dir.join("deep/er/f"), patterned(round, 5_000)),
            1 => (0..20).for_each(|n| put(dir.join(format!("f{n}")), patterned(round + n, 300))),
            2 => put(world.src.join("d/hot"), format!("{round}")),
            3 => drop(fs::remove_dir_all(&dir)),
            4 => {
                let _ = fs::remove_dir_all(world.src.join("moved"));
                make_dir(dir.join("sub"));
                put(dir.join("sub/f"), patterned(round, 70_000));
                fs::rename(&dir, world.src.join("moved")).expect("cannot rename");
            }
            _ => {
                put(dir.join("a"), "a");
                let _ = fs::remove_file(dir.join("a"));
                put(dir.join("a"), format!("b{round}"));
            }
        }
        let waiting = client.wait(&request).expect("an answer");
        assert!(waiting.done, "round {round}: {waiting:?}");
        equal_now(&world, round);
    }
}

/// A subtree is under way all the time, and what is written meanwhile is waited for as well.
#[test]
fn a_wait_during_comparisons_and_writes_waits_for_what_was_there() {
    let world = mirrored();
    for round in 0..20 {
        for n in 0..50 {
            put(world.src.join(format!("big{}/f{n}", round % 3)), patterned(round * n, 2_000));
        }
        done(&world, &["reconcile"]);
        put(world.src.join("d/marked"), format!("{round}"));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    put(world.src.join("d/restless"), format!("{n}"));
                }
            });
            let ended = syncq(&world, &["wait", "--timeout", "60s"]);
            stop.store(true, Ordering::Relaxed);
            drop(ended.ok());
        });
        for (n, dst) in world.dsts.iter().enumerate() {
            assert!(world.arrived(n, "d/marked"), "round {round}: {}", dst.display());
            assert!((0..50).all(|f| world.arrived(n, format!("big{}/f{f}", round % 3))), "round {round}");
        }
    }
}

#[test]
fn a_wait_says_what_is_missing_and_can_do_with_fewer_targets() {
    let world = mirrored();
    let m2 = target(&world, "m2");
    done(&world, &["pause", &m2]);
    put(world.src.join("d/waited"), "new");
    let late = syncq(&world, &["wait", "--timeout", "1s", "--json"]);
    let said = format!("{m2} lacks ");
    assert!(late.code == Some(1) && late.stderr.contains(&said) && late.stderr.contains("paused"), "{}", late.text());
    assert!(late.stderr.contains("d/waited") && late.stderr.contains("hint: "), "{}", late.text());
    let word: Value = serde_json::from_str(&late.stdout).expect("JSON");
    assert!(word["timed_out"] == true && word["missing"][0]["target"] == m2.as_str(), "{word}");
    done(&world, &["wait", "--targets", "1", "--timeout", "60s"]);
    assert!(world.arrived(0, "d/waited"));
    // Nothing changed there.
    put(world.src.join("other/f"), "new");
    done(&world, &["wait", "--targets", "1"]);
    let elsewhere = world.src.join("d/before").display().to_string();
    done(&world, &["wait", "--path", &elsewhere, "--timeout", "5s", "--target", &target(&world, "m1")]);
    for args in [&["wait", "--targets", "3"][..], &["wait", "--path", "/nowhere"]] {
        let refused = syncq(&world, args);
        assert!(refused.code == Some(1) && refused.stderr.contains("hint: "), "{}", refused.text());
    }
    done(&world, &["resume", &m2]);
    done(&world, &["wait", "--timeout", "60s"]);
    equal_now(&world, 0);
}

#[test]
fn a_wait_ends_with_its_daemon() {
    let mut world = mirrored();
    done(&world, &["pause", "--all"]);
    put(world.src.join("d/f"), "new");
    let state = world.cli.state.display().to_string();
    let mut waiting = world.cli.command().args(["wait", "--state-dir", &state]).spawn().expect("cannot start syncq");
    wait_until(soon(), "the job", || !world.cli.list().is_empty());
    world.stop();
    let ended = wait_for(secs(20), "the wait to end", || {
        waiting.try_wait().map_err(|e| e.to_string())?.ok_or_else(|| "still waiting".to_owned())
    });
    assert!(matches!(ended.code(), Some(1 | 3)), "{ended}");
    assert_eq!(syncq(&world, &["wait"]).code, Some(3));
    assert_eq!(syncq(&world, &["reconcile"]).code, Some(3));
}

/// What was damaged on a target, and what was purged, is found by a comparison of that path.
#[test]
fn a_reconcile_repairs_a_path_or_a_target_or_everything() {
    let world = mirrored();
    put(world.src.join("e/kept"), "kept");
    done(&world, &["wait"]);
    let damage = || {
        for dst in &world.dsts {
            put(dst.join("d/before"), "damaged on the target");
            put(dst.join("d/excess"), "on the target alone");
            put(dst.join("e/kept"), "damaged on the target");
        }
    };
    damage();
    let below = world.src.join("d").display().to_string();
    let queued = syncq(&world, &["reconcile", "--path", &below, "--wait", "--json"]).ok();
    let queued: Value = serde_json::from_str(&queued.stdout).expect("JSON");
    assert_eq!((queued["jobs"][1]["path"].as_str(), queued["jobs"].as_array().map(Vec::len)), (Some("d"), Some(2)));
    for (n, dst) in world.dsts.iter().enumerate() {
        assert!(world.arrived(n, "d/before") && !dst.join("d/excess").exists() && !world.arrived(n, "e/kept"));
    }
    damage();
    done(&world, &["reconcile", &target(&world, "m1"), "--wait"]);
    assert!(world.arrived(0, "e/kept") && !world.arrived(1, "e/kept"));
    done(&world, &["reconcile", "--wait"]);
    equal_now(&world, 0);
}

/// It hung as long as one target was down.
#[test]
fn a_comparison_that_is_waited_for_can_be_given_up() {
    let world = mirrored();
    done(&world, &["pause", &target(&world, "m1")]);
    let late = syncq(&world, &["reconcile", "--wait", "--timeout", "100ms"]);
    assert!(late.code == Some(1) && late.text().contains("the time is over: "), "{}", late.text());
    let alone = syncq(&world, &["reconcile", "--timeout", "1s"]);
    assert_eq!(alone.code, Some(2), "{}", alone.text());
    done(&world, &["resume", &target(&world, "m1")]);
    done(&world, &["wait", "--timeout", "60s"]);
}

#[test]
fn a_path_is_explained_from_the_rule_to_the_command_line() {
    let mut world = World::new();
    world.conf.excludes = vec![r"(.*)\.log".to_owned(), "cache/(.*)".to_owned()];
    for name in ["d/f", "d/x.log", "cache/deep/f"] {
        put(world.src.join(name), "content");
    }
    world.start();
    done(&world, &["wait", "--timeout", "60s"]);
    let (cli, src, state) = (world.cli.clone(), world.src.clone(), world.cli.state.display().to_string());
    let explained = |path: &str| -> Value {
        let ended = cli.run(["explain", path, "--json", "--state-dir", &state]).ok();
        serde_json::from_str(&ended.stdout).expect("JSON")
    };
    let whole = |name: &str| src.join(name).display().to_string();
    let about = explained(&whole("d/x.log"));
    assert!(about["mirrored"] == false && about["rule"].as_str().expect("a rule").contains(r"(.*)\.log"), "{about}");
    let about = explained(&whole("cache/deep/f"));
    assert!(about["rule"].as_str().expect("a rule").contains("cache/"), "{about}");
    assert!(explained(&whole("d/.f.swp"))["rule"].as_str().expect("a rule").contains("temporary"));

    let about = explained("d/f");
    assert!(about["mirrored"] == true && about["source"] == "file" && about["path"] == "d/f", "{about}");
    assert_eq!(about["targets"].as_array().map(Vec::len), Some(2));
    assert!(about["targets"][0]["job"].is_null() && about["targets"][0]["waits_for"].is_null(), "{about}");
    assert!(about["targets"][0]["last_success_at"].is_string(), "{about}");
    // The line does what it says.
    let command = about["targets"][0]["command"].as_str().expect("a command").to_owned();
    for dst in &world.dsts {
        write(dst.join("d/f"), "damaged");
    }
    let ran = std::process::Command::new("bash").args(["-c", &command]).status().expect("cannot start bash");
    assert!(ran.success() && world.arrived(0, "d/f") && !world.arrived(1, "d/f"), "{command}");

    done(&world, &["pause", &target(&world, "m1")]);
    write(world.src.join("d/f"), "changed");
    wait_until(soon(), "the other target", || world.arrived(1, "d/f"));
    let about = explained(&whole("d/f"));
    let m1 = &about["targets"][0];
    assert!(m1["state"] == "paused" && m1["job"]["path"] == "d/f", "{about}");
    assert!(m1["waits_for"].as_str().expect("a reason").contains("syncq resume"), "{about}");
    assert!(explained(&whole("d/x.log"))["targets"][0]["command"].is_null(), "a command that nobody runs");
    let page = syncq(&world, &["explain", &whole("d/f")]).ok().stdout;
    assert!(page.contains("\n  waits for: an operator: the target is paused since "), "{page}");

    done(&world, &["resume", "--all"]);
    done(&world, &["wait", "--timeout", "60s"]);
    world.rsyncd.stop();
    fs::remove_file(world.src.join("d/f")).expect("cannot remove a file");
    wait_for(soon(), "the trouble to be explained", || {
        let about = explained(&whole("d/f"));
        let reason = about["targets"][1]["waits_for"].as_str().unwrap_or_default().to_owned();
        let knows = about["source"] == "nothing" && reason.starts_with("the target: ");
        if knows && about["targets"][1]["next_try"].is_string() { Ok(()) } else { Err(about.to_string()) }
    });
    world.stop();
    let about = explained(&whole("d/f"));
    let m2 = &about["targets"][1];
    assert!(about["mirrored"].is_null() && about["source"] == "nothing" && m2["state"] == "offline", "{about}");
    assert!(m2["job"]["path"] == "d/f" && m2["waits_for"].as_str().is_some_and(|on| on.contains("daemon")), "{about}");
    let nowhere = syncq(&world, &["explain", "/nowhere"]);
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("hint: "), "{}", nowhere.text());
}

/// A wait for what can never come, without a time limit, said nothing at all.
#[test]
fn a_wait_on_a_terminal_shows_what_it_waits_for() {
    if std::process::Command::new("script").arg("--version").output().is_err() {
        return skipped("needs script, for a terminal");
    }
    let world = mirrored();
    let m1 = target(&world, "m1");
    done(&world, &["pause", &m1]);
    put(world.src.join("d/waited"), "new");
    let line = format!("{} wait --timeout 3s --state-dir {}", env!("CARGO_BIN_EXE_syncq"), world.cli.state.display());
    let mut script = std::process::Command::new("script");
    let shown = script.args(["-qec", &line, "/dev/null"]).env("NO_COLOR", "1").stdin(Stdio::null()).output();
    let shown = String::from_utf8_lossy(&shown.expect("cannot start script").stdout).into_owned();
    assert!(shown.contains(&format!("{m1}  paused ")) && shown.contains("the time is over: "), "{shown}");
}

/// One target of two holds what is somebody else's: its comparison waits for an operator, and all else goes on.
#[test]
fn deletions_that_are_held_back_show_and_are_accepted_without_a_restart() {
    let mut world = World::new();
    (0..1_200).for_each(|n| put(world.dsts[0].join(format!("theirs/f{n}")), "content"));
    write(world.src.join("ours"), "ours");
    world.start();
    wait_until(soon(), "the state", || world.cli.status().target("m1").state == "needs_approval");
    wait_until(soon(), "the other target to be equal", || world.cli.status().target("m2").state == "idle");
    let m1 = world.cli.status().target("m1").clone();
    assert_eq!(m1.hint.as_deref(), Some(format!("if that is right: syncq accept-deletions {}", m1.name).as_str()));
    let late = syncq(&world, &["wait", "--timeout", "1s"]);
    assert!(late.code == Some(1) && late.stderr.contains("1201 of the 1202 entries"), "{}", late.text());
    write(world.src.join("live"), "live");
    wait_until(soon(), "what is new", || world.arrived(0, "live"));
    wait_until(soon(), "the state", || world.cli.status().target("m1").state == "needs_approval");
    done(&world, &["accept-deletions", &m1.name]);
    done(&world, &["wait", "--timeout", "60s"]);
    equal_now(&world, 0);
    wait_until(soon(), "the state", || world.cli.status().target("m1").state == "idle");
    // Once: the next time it asks again.
    (0..1_200).for_each(|n| put(world.dsts[0].join(format!("theirs/f{n}")), "content"));
    done(&world, &["reconcile"]);
    wait_until(soon(), "the state", || world.cli.status().target("m1").state == "needs_approval");
}

#[test]
fn a_source_found_empty_is_accepted_without_a_restart() {
    let mut world = mirrored();
    world.stop();
    fs::remove_dir_all(world.src.join("d")).expect("cannot empty the source");
    world.daemon().restart();
    wait_until(soon(), "the root to be suspended", || world.cli.status().json["roots"][0]["state"] == "suspended");
    let late = syncq(&world, &["wait", "--timeout", "1s"]);
    assert!(late.code == Some(1) && late.stderr.contains("is empty"), "{}", late.text());
    assert!(world.dsts.iter().all(|dst| dst.join("d/before").exists()));
    done(&world, &["accept-deletions", "--all"]);
    done(&world, &["wait", "--timeout", "60s"]);
    equal_now(&world, 0);
}

/// Through a stop and a start of the daemon.
#[test]
fn a_watched_status_follows_the_daemon() {
    let mut world = mirrored();
    let shown = world.base().join("watched");
    let mut command = world.cli.command();
    command.args(["status", "--watch=100ms", "--json", "--state-dir"]).arg(&world.cli.state);
    let mut watching =
        command.stdout(fs::File::create(&shown).expect("a file")).spawn().expect("cannot start syncq status");
    let last_is = |state: &str| {
        let text = fs::read_to_string(&shown).expect("the output");
        let last = text.lines().last().unwrap_or_default().to_owned();
        if last.contains(&format!(r#""state":"{state}""#)) { Ok(()) } else { Err(last) }
    };
    wait_for(soon(), "a running daemon", || last_is("running"));
    world.stop();
    wait_for(soon(), "a stopped daemon", || last_is("offline"));
    world.daemon().restart();
    wait_for(soon(), "the daemon again", || last_is("running"));
    watching.kill().expect("cannot end syncq status");
    watching.wait().expect("cannot wait for syncq status");
}

/// With and without expressions, which rsync cannot say.
#[test]
fn a_dry_run_tells_what_a_comparison_would_change_and_changes_nothing() {
    for excludes in [vec![], vec![r"(.*)\.log".to_owned()]] {
        let mut world = World::new();
        let filtered = !excludes.is_empty();
        world.conf.excludes = excludes;
        for name in ["d/same", "d/damaged", "e/elsewhere"] {
            put(world.src.join(name), name);
        }
        world.start();
        done(&world, &["wait", "--timeout", "60s"]);
        write(world.dsts[0].join("d/damaged"), "damaged on the target");
        put(world.dsts[0].join("d/excess"), "on the target alone");
        put(world.dsts[0].join("d/x.log"), "on the target alone");
        write(world.dsts[0].join("e/elsewhere"), "damaged on the target");
        let below = world.src.join("d").display().to_string();
        let shown = syncq(&world, &["reconcile", "--path", &below, "--dry-run", "--json"]).ok();
        let mut found: Vec<(String, String)> = json_lines(&shown)
            .iter()
            .map(|row| {
                assert!(row["target"].as_str().expect("a name").contains("m1"), "{row}");
                (row["path"].as_str().expect("a path").to_owned(), row["change"].as_str().expect("a word").to_owned())
            })
            .filter(|(path, _)| path != "d")
            .collect();
        found.sort();
        let pair = |path: &str, change: &str| (path.to_owned(), change.to_owned());
        let mut expected = vec![pair("d/damaged", "send"), pair("d/excess", "delete")];
        if !filtered {
            expected.push(pair("d/x.log", "delete"));
        }
        assert_eq!(found, expected);
        let deleted = if filtered { "1 path" } else { "2 paths" };
        assert!(shown.stderr.ends_with(&format!(" would be sent, {deleted} deleted\n")), "{}", shown.text());
        assert!(!world.arrived(0, "d/damaged") && world.dsts[0].join("d/excess").exists());
        world.rsyncd.stop();
        let away = syncq(&world, &["reconcile", "--dry-run"]);
        assert!(away.code == Some(1) && away.stderr.contains("hint: "), "{}", away.text());
    }
}
