//! A comparison on request repairs differences. An operator can stop waiting for it, and can have a dry run.

use serde_json::Value;

use super::{done, equal_now, json_lines, mirrored, put, syncq, target};
use crate::harness::{World, write};

/// A comparison of a path finds files that were damaged on a target, and files whose jobs were purged.
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

/// The wait hung as long as one target was down.
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

/// With and without expressions, for which rsync has no equivalent.
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
