//! `syncq wait` ends when every earlier change is mirrored: never earlier, and not silently.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use syncq::control::{Client, WaitRequest};

use super::{done, equal_now, mirrored, put, syncq, target};
use crate::harness::world::soon;
use crate::harness::{make_dir, patterned, secs, skipped, wait_for, wait_until};

/// `SYNCQ_WAITS=1000` makes that many rounds. The wait is requested over the socket, because by the time a command has started
/// the watcher has seen everything anyway.
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

/// A subtree is being compared all the time, and files that are written meanwhile are waited for as well.
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
    // The wait is about a path in which nothing changed.
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

/// A wait for a target that never comes back, without a time limit, printed nothing at all.
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
