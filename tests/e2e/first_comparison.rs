//! If nothing vouches for the content of a target, size and time prove nothing: a restored file has both.

use std::fs;
use std::path::Path;

use syncq::clock::Clock as _;
use syncq::clock::SystemClock;
use syncq::store::sled::SledStore;
use syncq::store::{Op, Store as _};

use crate::guard::says;
use crate::harness::world::soon;
use crate::harness::{World, make_dir, overwrite_quietly, secs, wait_for, wait_until, write};
use crate::operators::{done, target};

const NEW: &str = "CONTENT";

/// A world with a few files, whose targets hold files of the same look; one of these has other content.
fn stale_world() -> World {
    let world = World::new();
    make_dir(world.src.join("d"));
    for n in 0..5 {
        write(world.src.join(format!("d/f{n}")), "content");
    }
    for dst in &world.dsts {
        make_dir(dst.join("d"));
        for n in 0..5 {
            let file = dst.join(format!("d/f{n}"));
            write(&file, if n == 3 { "another" } else { "content" });
            let time = fs::metadata(world.src.join(format!("d/f{n}"))).and_then(|found| found.modified());
            crate::harness::set_mtime(&file, time.expect("a time"));
        }
    }
    world
}

/// Replaces the content of a file by other content of the same size and time, as a restore does.
fn restore(world: &World) {
    overwrite_quietly(world.src.join("d/f3"), NEW);
}

#[test]
fn a_first_start_finds_what_looks_the_same_on_the_target_and_is_not() {
    let mut world = stale_world();
    world.start();
    world.converges(soon());
}

/// If rsync's own rules cannot express a filter, the compared files are sent by name.
#[test]
fn a_first_start_under_a_filter_of_expressions_finds_it_too() {
    let mut world = stale_world();
    world.conf.excludes = vec!["(.*)\\.log$".to_owned(), "^x(y|z)+w$".to_owned()];
    world.start();
    world.converges(soon());
}

/// There was no watermark yet, so the next start compared by size and time.
#[test]
fn a_kill_in_the_first_seconds_leaves_something_that_tells_what_changed() {
    let mut world = World::new();
    make_dir(world.src.join("d"));
    for n in 0..5 {
        write(world.src.join(format!("d/f{n}")), "content");
    }
    world.start();
    world.converges(soon());
    world.daemon().kill9();
    restore(&world);
    world.start_daemon(&[]);
    world.converges(soon());

    // Killed at once: the targets have nothing, or everything, or a part.
    for _ in 0..3 {
        fs::remove_dir_all(&world.cli.state).expect("cannot remove the state directory");
        world.start_daemon(&[]);
        world.daemon().kill9();
        let content = fs::read(world.src.join("d/f3")).expect("the file is there");
        overwrite_quietly(world.src.join("d/f3"), if content == NEW.as_bytes() { "content" } else { NEW });
        world.start_daemon(&[]);
        world.converges(soon());
        world.stop();
    }
}

/// The promise is that a lost queue costs time, not files.
#[test]
fn a_start_with_a_lost_store_compares_contents() {
    let mut world = World::new();
    make_dir(world.src.join("d"));
    for n in 0..5 {
        write(world.src.join(format!("d/f{n}")), "content");
    }
    world.start();
    world.converges(soon());
    world.rsyncd.stop();
    restore(&world);
    world.stop();
    fs::remove_dir_all(&world.cli.state).expect("cannot remove the state directory");
    world.rsyncd.start();
    world.start_daemon(&[]);
    world.converges(soon());
}

/// A source that was away may have been changed on another machine.
#[test]
fn a_source_that_was_away_is_compared_by_content() {
    let mut world = World::new();
    make_dir(world.src.join("d"));
    for n in 0..5 {
        write(world.src.join(format!("d/f{n}")), "content");
    }
    world.start();
    world.converges(soon());
    let away = world.base().join("away");
    fs::rename(&world.src, &away).expect("cannot rename the root");
    wait_until(soon(), "the root to be missed", || world.cli.status().json["roots"][0]["state"] == "suspended");
    overwrite_quietly(away.join("d/f3"), NEW);
    fs::rename(&away, &world.src).expect("cannot rename the root back");
    world.converges(soon());
}

/// A power cut may undo recent writes on a target of this machine, and on the source.
#[test]
fn after_a_boot_the_last_minutes_are_compared_by_content() {
    let mut world = World::new();
    make_dir(world.src.join("d"));
    write(world.src.join("d/f3"), NEW);
    world.start();
    world.converges(soon());
    world.ages();
    world.stop();
    for dst in &world.dsts {
        overwrite_quietly(dst.join("d/f3"), "content");
    }
    let (mut store, _) = SledStore::open(&world.cli.state, SystemClock.now()).expect("the store opens");
    let mut roots = store.load().expect("the store is read").roots;
    roots[0].watermark.as_mut().expect("a watermark").boot.0[0] ^= 1;
    store.commit(&[Op::PutRoot(roots.remove(0))]).expect("the store is written");
    drop(store);
    world.start_daemon(&[]);
    world.converges(soon());
}

/// A comparison by content would read the source twice, and a first fill takes long anyway.
#[test]
fn what_is_filled_for_the_first_time_is_not_compared_by_content() {
    let mut world = World::new();
    make_dir(world.dsts[0].join("lost+found"));
    for n in 0..5 {
        write(world.src.join(format!("f{n}")), "content");
    }
    let count = world.count_rsyncs();
    world.start();
    world.converges(soon());
    for target in ["::m1/", "::m2/"] {
        assert_eq!(count.naming_both("--max-delete=0", "--checksum"), 0, "{target} is compared by content");
        assert!(count.naming(target) >= 2);
    }
    assert!(world.cli.status().json["targets"][0]["contents"].is_null());
}

/// A large tree is soon usable, and its content is compared in the background, also over restarts; `status` and `wait` say so.
#[test]
fn a_large_tree_is_compared_by_content_in_the_background() {
    const FILES: usize = 10_150;
    let mut world = World::new();
    world.conf.local_paths.clear();
    let (src, dst) = (world.src.clone(), world.dsts[0].clone());
    world.conf.root(&src, &[("127.0.0.1", "m1")]);
    world.dsts.truncate(1);
    for d in 0..50 {
        make_dir(src.join(format!("d{d}")));
    }
    for n in 0..FILES {
        write(src.join(format!("d{}/f{n}", n % 50)), "content");
    }
    let copied = std::process::Command::new("cp").arg("-aT").arg(&src).arg(&dst).status().expect("cannot start cp");
    assert!(copied.success());
    let stale = [dst.join("d0/f0"), dst.join("d49/f10149")];
    for file in &stale {
        overwrite_quietly(file, "another");
    }
    let is_stale = |file: &Path| fs::read(file).expect("it is there") == b"another";
    world.start();
    let waited =
        world.cli.run(["wait", "--state-dir", world.cli.state.to_str().expect("text"), "--timeout", "60s"]).ok();
    if is_stale(&stale[1]) {
        assert!(waited.stderr.contains("contents still being compared"), "{}", waited.text());
    }
    // Stop in the middle of the comparison.
    wait_for(soon(), "the comparison to be under way", || {
        let json = world.cli.status().json;
        let contents = &json["targets"][0]["contents"];
        if contents["up_to"].as_str().is_some_and(|up_to| !up_to.is_empty()) { Ok(()) } else { Err(json.to_string()) }
    });
    world.daemon().kill9();
    world.start_daemon(&[]);
    let target = |world: &World| world.cli.status().json["targets"][0].clone();
    wait_until(secs(120), "all contents to be compared", || target(&world)["contents"].is_null());
    world.cli.wait_idle(soon());
    assert!(!stale.iter().any(|file| is_stale(file)), "an old file has stayed");
    assert_eq!(target(&world)["state"], "idle");
}

/// A world whose targets have `extra` entries that the source lacks, beside 40 that both have.
fn world_with_extras(extra: usize) -> World {
    let world = World::new();
    for dir in [&world.src, &world.dsts[0], &world.dsts[1]] {
        for n in 0..40 {
            write(dir.join(format!("f{n}")), "content");
        }
    }
    for dst in &world.dsts {
        for n in 0..extra {
            write(dst.join(format!("only-here-{n}")), "mine");
        }
    }
    world
}

/// A first start in the usual form of sersync's users deleted files that sersync had left alone for years.
#[test]
fn a_first_start_without_r_deletes_nothing_and_says_what_it_would() {
    let mut world = world_with_extras(2);
    world.start();
    says(&world, &["m1", "m2"], &["2 of the 4", "first comparison", "syncq accept-deletions"]);
    // The log asks once, however often the comparison is tried.
    let is_tried = || world.cli.list().iter().all(|job| job["attempts"].as_u64() >= Some(3));
    wait_until(soon(), "a third try", is_tried);
    let log = world.daemon().log_text();
    assert_eq!(log.lines().filter(|line| line.contains("2 of the 4")).count(), 2, "{log}");
    // Live changes arrive, deletions too, and a restart does not change the verdict.
    write(world.src.join("new"), "new");
    fs::remove_file(world.src.join("f0")).expect("cannot remove");
    let is_live = |n| world.arrived(n, "new") && !world.dsts[n].join("f0").exists();
    wait_until(soon(), "live changes", || is_live(0) && is_live(1));
    world.stop();
    world.start_daemon(&[]);
    says(&world, &["m1", "m2"], &["first comparison"]);
    assert!(world.dsts.iter().all(|dst| dst.join("only-here-1").exists()));
    for name in ["m1", "m2"] {
        done(&world, &["accept-deletions", target(&world, name).as_str()]);
    }
    world.converges(soon());
    // From now on the target is a mirror.
    write(world.dsts[0].join("only-here-0"), "mine");
    done(&world, &["reconcile"]);
    world.converges(soon());
}

#[test]
fn a_first_start_with_r_deletes_as_sersyncs_did() {
    let mut world = world_with_extras(2);
    world.rsyncd.start();
    world.start_daemon(&["-r"]);
    world.converges(soon());
}

/// A user of `mirror` wants equal trees, but may have named the wrong directory.
#[test]
fn a_first_mirror_asks_before_it_deletes_a_tenth() {
    let mut world = world_with_extras(8);
    world.start_mirror(&[]);
    says(&world, &["m1", "m2"], &["8 of the 4", "first comparison", "syncq accept-deletions"]);
    assert!(world.dsts.iter().all(|dst| dst.join("only-here-7").exists()));
    world.stop();
    for n in 3..8 {
        for dst in &world.dsts {
            fs::remove_file(dst.join(format!("only-here-{n}"))).expect("cannot remove");
        }
    }
    world.rsyncd.stop();
    world.start_mirror(&[]);
    world.converges(soon());
    let log = world.daemon().log_text();
    assert!(log.contains("3 of the 4") && log.contains("are not in the source, and are deleted"), "{log}");
}

/// Targets that only a lost store does not know go on as before.
#[test]
fn a_start_with_a_lost_store_is_no_first_one() {
    let mut world = world_with_extras(0);
    world.start();
    world.converges(soon());
    world.stop();
    fs::remove_dir_all(world.cli.state.join("store")).expect("cannot remove the store");
    fs::remove_file(world.src.join("f1")).expect("cannot remove");
    world.start_daemon(&[]);
    world.converges(soon());
}

/// After a kill in which the state directory was lost too, the next start asked about deletions as at a first start.
#[test]
fn a_lost_state_directory_is_no_first_start_unless_syncq_was_stopped() {
    for is_killed in [true, false] {
        let mut world = World::new();
        for name in ["stays", "goes"] {
            write(world.src.join(name), name);
        }
        world.start();
        world.converges(soon());
        let home = world.cli.home.clone();
        let kept = || -> Vec<std::path::PathBuf> {
            let entries = fs::read_dir(&home).expect("a directory").flatten();
            let is_one = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b"syncq-equal-");
            entries.filter(is_one).map(|entry| entry.path()).collect()
        };
        let lines =
            || kept().iter().map(|file| fs::read_to_string(file).unwrap_or_default().lines().count()).sum::<usize>();
        wait_until(soon(), "both targets to be known outside the store", || lines() == 2);
        if is_killed {
            world.daemon().kill9();
        } else {
            world.stop();
            assert_eq!(kept(), [] as [std::path::PathBuf; 0], "an orderly stop leaves nothing");
        }
        fs::remove_dir_all(&world.cli.state).expect("cannot remove the state directory");
        fs::remove_file(world.src.join("goes")).expect("cannot remove a file");
        world.start_daemon(&[]);
        if is_killed {
            world.converges(soon());
        } else {
            let asks = || world.cli.status().targets.iter().all(|target| target.state == "needs_approval");
            wait_until(soon(), "to be asked", asks);
            assert!(world.dsts.iter().all(|dst| dst.join("goes").exists()), "deleted unasked");
        }
    }
}
