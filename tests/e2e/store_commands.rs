//! `syncq store`: the operator's commands on the store, with a daemon and without.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::harness::world::soon;
use crate::harness::{Ended, World, make_dir, wait_until, write};

/// Runs a command on the world's state directory.
fn syncq(world: &World, args: &[&str]) -> Ended {
    let state = world.cli.state.display().to_string();
    world.cli.run(args.iter().copied().chain(["--state-dir", state.as_str()]))
}

/// The report of a command with `--json`.
fn report(world: &World, command: &str) -> Value {
    let ended = syncq(world, &["store", command, "--json"]).ok();
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("no JSON: {error}\n{}", ended.text()))
}

/// A world whose targets are paused, with jobs for a file, a directory and a name that is not UTF-8.
fn with_jobs() -> World {
    let mut world = World::new();
    make_dir(world.src.join("d"));
    write(world.src.join("d/f"), "before");
    world.start();
    world.converges(soon());
    drop(syncq(&world, &["pause", "--all"]).ok());
    write(world.src.join("d/f"), "after!");
    write(world.src.join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "new");
    make_dir(world.src.join("new/below"));
    write(world.src.join("new/below/g"), "new");
    wait_until(soon(), "the jobs", || ["d/f", "new"].iter().all(|path| pending(&world, path) == 2));
    world
}

fn pending(world: &World, path: &str) -> usize {
    world.cli.list().iter().filter(|job| job["path"] == path).count()
}

#[test]
fn the_store_is_counted_checked_and_compacted_with_and_without_a_daemon() {
    let mut world = with_jobs();
    for running in [true, false] {
        if !running {
            world.stop();
        }
        let jobs = world.cli.list().len() as u64;
        let stats = report(&world, "stats");
        assert!(jobs > 0 && stats["damaged"] == 0, "{stats}");
        assert_eq!((stats["roots"].as_u64(), stats["targets"].as_u64()), (Some(1), Some(2)), "{stats}");
        wait_until(soon(), "all jobs to be written", || report(&world, "stats")["jobs"] == jobs);
        assert_eq!(report(&world, "check")["damaged"], 0);
        let compacted = report(&world, "compact");
        assert!(compacted["bytes_before"].is_u64() && compacted["jobs"] == jobs, "{compacted}");
        assert_eq!(world.cli.list().len() as u64, jobs);
        let text = syncq(&world, &["store", "stats"]).ok();
        assert!(text.stdout.contains(&format!("jobs\t{jobs}\n")), "{}", text.text());
    }
    world.daemon().restart();
    drop(syncq(&world, &["resume", "--all"]).ok());
    world.converges(soon());
}

/// The jobs were purged by mistake, or move to another state directory.
#[test]
fn an_export_brings_purged_jobs_back_with_and_without_a_daemon() {
    let mut world = with_jobs();
    let file = world.base().join("jobs.jsonl").display().to_string();
    for running in [true, false] {
        if !running {
            world.stop();
        }
        let before = world.cli.list();
        let exported = syncq(&world, &["store", "export", &file]).ok();
        assert_eq!(exported.stderr, format!("{} jobs exported to {file}\n", before.len()));
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        let again = syncq(&world, &["store", "export", &file]);
        assert!(again.code == Some(1) && again.stderr.contains(&file), "{}", again.text());
        drop(syncq(&world, &["purge", "--all", "--yes"]).ok());
        assert_eq!(world.cli.list().len(), 0);
        let imported = syncq(&world, &["store", "import", &file]).ok();
        assert_eq!(imported.stdout, format!("queued: {}, skipped: 0\n", before.len()));
        let what = |jobs: &[Value]| {
            let keys = ["root", "target", "path", "path_b64", "scope", "origin"];
            jobs.iter().map(|job| keys.map(|key| job[key].clone())).collect::<Vec<_>>()
        };
        assert_eq!(what(&world.cli.list()), what(&before));
        fs::remove_file(&file).expect("cannot remove a file");
    }
    world.daemon().restart();
    drop(syncq(&world, &["resume", "--all"]).ok());
    world.converges(soon());
}

#[test]
fn what_is_no_export_is_refused_and_what_is_unknown_is_told() {
    let world = with_jobs();
    let file = world.base().join("jobs.jsonl");
    let import = |text: &str| {
        write(&file, text);
        syncq(&world, &["store", "import", &file.display().to_string()])
    };
    let no_export = import("rsync -az\n");
    assert!(no_export.code == Some(2) && no_export.stderr.contains("hint: write one"), "{}", no_export.text());
    let export = syncq(&world, &["store", "export"]).ok().stdout;
    let cut = import(&export.lines().take(2).map(|line| format!("{line}\n")).collect::<String>());
    assert!(cut.code == Some(1) && cut.stdout == "queued: 1, skipped: 0\n", "{}", cut.text());
    assert!(cut.stderr.contains("cut short"), "{}", cut.text());
    let elsewhere = import(&export.replace("::m1", "::unknown"));
    assert!(elsewhere.code == Some(1) && elsewhere.stdout.contains(":2: skipped: "), "{}", elsewhere.text());
    let missing = syncq(&world, &["store", "import", "/nowhere/jobs"]);
    assert!(missing.code == Some(1) && missing.stderr.contains("/nowhere/jobs"), "{}", missing.text());
}

#[test]
fn a_damaged_store_is_told_by_a_check_and_left_to_the_next_start() {
    let mut world = with_jobs();
    world.stop();
    let db = world.cli.state.join("store/db");
    let mut bytes = fs::read(&db).expect("a store");
    bytes.fill(0xff);
    fs::write(&db, &bytes).expect("cannot damage the store");
    let checked = syncq(&world, &["store", "check"]);
    assert!(checked.code == Some(1) && checked.stderr.contains("hint: "), "{}", checked.text());
    assert!(!checked.stderr.contains("panicked"), "{}", checked.text());
    world.daemon().restart();
    drop(syncq(&world, &["resume", "--all"]).ok());
    world.converges(soon());
    assert_eq!(report(&world, "check")["kept"].as_array().map(Vec::len), Some(1));
}
