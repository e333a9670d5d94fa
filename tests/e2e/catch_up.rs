//! Changes that were made while no daemon ran are found at the start by looking at the source alone, and nothing else is sent.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use syncq::clock::Clock as _;
use syncq::clock::SystemClock;
use syncq::ctime;
use syncq::model::Timestamp;
use syncq::store::sled::SledStore;
use syncq::store::{Op, RootRecord, Store as _};

use crate::harness::world::soon;
use crate::harness::{World, make_dir, secs, set_mtime, wait_for, wait_until, write};

/// A world with two directories of files, mirrored so long ago that only a new change of them is found.
fn aged_world() -> World {
    let mut world = World::new();
    for name in ["same", "touched/deep", "emptied"] {
        make_dir(world.src.join(name));
        for n in 0..5 {
            write(world.src.join(name).join(format!("f{n}")), "content");
        }
    }
    world.start();
    world.converges(soon());
    let filled = SystemTime::now();
    let aged = || filled.elapsed().is_ok_and(|age| age > ctime::MARGIN * 11 / 10);
    wait_until(secs(60), "the files to be older than what a start looks at again", aged);
    // The watermark moves only when something happens.
    write(world.src.join("touched/sign of life"), "");
    world.converges(soon());
    world.stop();
    world
}

/// Makes the mirrors differ where the source did not change: only a full comparison repairs that.
fn damage(world: &World) {
    for dst in &world.dsts {
        write(dst.join("same/f0"), "damaged behind syncq's back");
    }
}

fn is_damaged(world: &World) -> bool {
    let damaged = |dst: &std::path::PathBuf| fs::read(dst.join("same/f0")).is_ok_and(|now| now.starts_with(b"damaged"));
    let all: Vec<bool> = world.dsts.iter().map(damaged).collect();
    assert!(all.iter().all(|one| *one == all[0]), "the mirrors were treated differently: {all:?}");
    all[0]
}

#[test]
fn a_start_sends_what_changed_while_no_daemon_ran_and_nothing_else() {
    let mut world = aged_world();
    damage(&world);
    let outside = world.side("outside/moved-in/deep");
    write(outside.join("old"), "from before");
    set_mtime(outside.join("old"), SystemTime::UNIX_EPOCH + secs(1_600_000_000));
    fs::rename(world.base().join("outside/moved-in"), world.src.join("moved-in")).expect("cannot move a directory in");
    write(world.src.join("touched/f1"), "changed");
    // The same size and time as before: only the file's ctime shows the change.
    let before = fs::metadata(world.src.join("touched/deep/f2")).and_then(|m| m.modified()).expect("cannot stat");
    write(world.src.join("touched/deep/f2"), "CONTENT");
    set_mtime(world.src.join("touched/deep/f2"), before);
    for n in 0..5 {
        fs::remove_file(world.src.join(format!("emptied/f{n}"))).expect("cannot remove a file");
    }
    world.start_daemon(&[]);
    world.cli.wait_idle(soon());
    assert!(is_damaged(&world), "what did not change was compared");
    for dst in &world.dsts {
        write(dst.join("same/f0"), "content");
        let time = fs::metadata(world.src.join("same/f0")).and_then(|m| m.modified()).expect("cannot stat");
        set_mtime(dst.join("same/f0"), time);
    }
    world.converges(soon());

    world.stop();
    damage(&world);
    world.start_daemon(&["-r"]);
    world.converges(soon());
}

/// The time of a file's change says nothing about a filter that was added or removed.
#[test]
fn other_settings_have_the_targets_compared_in_full() {
    let mut world = aged_world();
    damage(&world);
    world.conf.excludes = vec!["(.*)\\.log".to_owned()];
    world.start_daemon(&[]);
    world.converges(soon());
}

/// Changes the store's record of the root, as a stopped daemon left it.
fn edit_root(world: &World, edit: impl FnOnce(&mut RootRecord)) {
    let (mut store, _) = SledStore::open(&world.cli.state, SystemClock.now()).expect("the store opens");
    let contents = store.load().expect("the store is read");
    let mut roots = contents.roots.into_iter();
    let mut root = roots.find(|root| root.path == world.src.as_os_str().as_bytes()).expect("the root is known");
    edit(&mut root);
    store.commit(&[Op::PutRoot(root)]).expect("the store is written");
}

/// A file that is written while the clock is an hour slow has a time from before the watermark.
#[test]
fn a_clock_that_was_set_back_or_another_boot_have_the_targets_compared_in_full() {
    type Edit = fn(&mut RootRecord);
    let edits: [(&str, Edit); 2] = [
        ("an hour back", |root| {
            let watermark = root.watermark.as_mut().expect("a watermark");
            watermark.wall = Timestamp(watermark.wall.0 + 3_600_000);
        }),
        ("another boot", |root| root.watermark.as_mut().expect("a watermark").boot.0[0] ^= 1),
    ];
    let mut world = aged_world();
    for (what, edit) in edits {
        damage(&world);
        edit_root(&world, edit);
        world.start_daemon(&[]);
        world.converges(soon());
        assert!(!is_damaged(&world), "{what}");
        world.stop();
    }
}

#[test]
fn a_target_that_is_new_is_compared_in_full_and_the_others_are_not() {
    let mut world = aged_world();
    damage(&world);
    let third = world.side("m3");
    world.rsyncd.stop();
    world.rsyncd.module("m3", &third);
    world.rsyncd.start();
    world.conf.local_paths[0].remotes.push(("127.0.0.1".to_owned(), "m3".to_owned()));
    world.start_daemon(&[]);
    world.cli.wait_idle(soon());
    world.equal_within(&world.src, &[&third], soon());
    assert!(is_damaged(&world), "the known targets were compared");
}

#[test]
fn l15_a_root_that_is_missing_at_the_start_is_waited_for() {
    let mut world = aged_world();
    let away = world.base().join("away");
    fs::rename(&world.src, &away).expect("cannot rename the root");
    write(away.join("same/meanwhile"), "elsewhere");
    for args in [&[][..], &["-r"]] {
        world.start_daemon(args);
        wait_for(soon(), "the root to be reported", || {
            let json = world.cli.try_status()?.json;
            let root = &json["roots"][0];
            let told = root["state"] == "suspended" && root["reason"].to_string().contains("missing");
            if told { Ok(()) } else { Err(json.to_string()) }
        });
        let left = world.dsts.iter().map(|dst| crate::harness::tree::count(dst));
        assert!(left.into_iter().all(|left| left > 15), "the mirror has lost entries while its source was away");
        if args.is_empty() {
            world.stop();
        }
    }
    fs::rename(&away, &world.src).expect("cannot rename the root back");
    world.converges(soon());
}

/// The root was emptied, or its disk is not mounted, and nobody saw which.
#[test]
fn l26_a_root_that_was_emptied_while_no_daemon_ran_wipes_nothing_until_it_is_accepted() {
    let mut world = aged_world();
    for name in ["same", "touched", "emptied"] {
        fs::rename(world.src.join(name), world.base().join(name)).expect("cannot move a directory out");
    }
    for args in [&[][..], &["-r"]] {
        world.start_daemon(args);
        wait_for(soon(), "the empty root to be reported", || {
            let json = world.cli.try_status()?.json;
            let told = json["roots"][0]["hint"].to_string().contains("syncq accept-deletions");
            if told { Ok(()) } else { Err(json.to_string()) }
        });
        let left = world.dsts.iter().map(|dst| crate::harness::tree::count(dst));
        assert!(left.into_iter().all(|left| left > 15), "the mirror was emptied");
        world.stop();
    }
    world.start_daemon(&["--accept-root"]);
    world.converges(soon());
}
