//! A root that is deleted, replaced or unmounted while it is watched (L15): nothing is deleted on the targets, the status gives
//! the reason, no thread spins, and the mirror goes on once the root is back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::world::soon;
use crate::harness::{World, is_root, make_dir, secs, skipped, wait_for, write};
use crate::limits::does_not_spin;

fn filled(world: &mut World) {
    for n in 0..30 {
        make_dir(world.src.join(format!("d{}", n % 3)));
        write(world.src.join(format!("d{}/f{n}", n % 3)), "content");
    }
    world.start();
    world.converges(soon());
}

fn suspended(world: &World) {
    wait_for(soon(), "the root to be called suspended", || {
        let json = world.cli.try_status()?.json;
        let root = &json["roots"][0];
        if root["state"] == "suspended" && root["reason"].is_string() { Ok(()) } else { Err(json.to_string()) }
    });
    for dst in &world.dsts {
        assert_eq!(crate::harness::tree::count(dst), 33, "the mirror has lost entries while its source was away");
    }
}

/// The successor of a deleted root is another directory, which an operator has to accept.
#[test]
fn l15_a_deleted_root_deletes_nothing_and_its_successor_waits_for_consent() {
    let mut world = World::new();
    filled(&mut world);
    fs::remove_dir_all(&world.src).expect("cannot remove the root");
    // Deletions before the root's own were mirrored, rightly. Only the root's end is visible in the status.
    wait_for(soon(), "the root to be called suspended", || {
        let json = world.cli.try_status()?.json;
        if json["roots"][0]["state"] == "suspended" { Ok(()) } else { Err(json.to_string()) }
    });
    does_not_spin(&mut world, |world| {
        make_dir(&world.src);
        write(world.src.join("restored"), "content");
    });
    let status = world.cli.status();
    assert_eq!(status.json["roots"][0]["state"], "suspended", "{}", status.json);
    assert!(world.dsts.iter().all(|dst| !dst.join("restored").exists()), "another directory has been mirrored");
    world.stop();
    world.start_daemon(&["--accept-root"]);
    world.converges(soon());
}

/// A bind mount of one directory on another, unmounted at the end.
struct Bound(PathBuf);

impl Bound {
    fn mount(from: &Path, to: &Path) -> Option<Self> {
        let mounted = Command::new("mount").arg("--bind").args([from, to]).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(to.to_owned()))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn l15_an_unmounted_root_deletes_nothing_and_resumes() {
    if !is_root() {
        return skipped("only root may mount");
    }
    let mut world = World::new();
    let disk = world.side("disk");
    let Some(mount) = Bound::mount(&disk, &world.src) else { return skipped("cannot mount") };
    filled(&mut world);
    drop(mount);
    does_not_spin(&mut world, |world| suspended(world));
    // A file in the mount point is no sign that the source is back.
    write(world.src.join("stray"), "in the mount point");
    suspended(&world);
    let src = world.src.clone();
    let mount = Bound::mount(&disk, &src).expect("cannot mount again");
    write(world.src.join("d1/after"), "back again");
    fs::remove_file(world.src.join("d0/f0")).expect("cannot remove a file");
    world.converges(secs(120));
    world.daemon().stop();
    drop(mount);
}

#[test]
fn l15_a_root_that_is_away_costs_no_processor_time() {
    let mut world = World::new();
    filled(&mut world);
    let away = world.base().join("away");
    fs::rename(&world.src, &away).expect("cannot rename the root");
    does_not_spin(&mut world, |world| suspended(world));
    fs::rename(&away, &world.src).expect("cannot rename the root back");
    write(world.src.join("d0/after"), "back again");
    world.converges(secs(120));
}

/// The root is away for less time than passes between two looks. Events arrive all the same, about directories that cannot be
/// found.
#[test]
fn l15_what_happens_while_the_root_is_away_for_a_moment_arrives() {
    let mut world = World::new();
    filled(&mut world);
    let away = world.base().join("away");
    for round in 0..4 {
        fs::rename(&world.src, &away).expect("cannot rename the root");
        let tree = away.join(format!("new{round}/sub/deep"));
        make_dir(&tree);
        write(tree.join("file"), "made while the root was away");
        std::thread::sleep(std::time::Duration::from_millis(100));
        fs::rename(&away, &world.src).expect("cannot rename the root back");
        world.converges(soon());
    }
}

#[test]
fn l15_what_happens_while_the_root_is_unmounted_for_a_moment_arrives() {
    if !is_root() {
        return skipped("only root may mount");
    }
    let mut world = World::new();
    let disk = world.side("disk");
    let Some(mut mount) = Bound::mount(&disk, &world.src) else { return skipped("cannot mount") };
    filled(&mut world);
    for round in 0..4 {
        drop(mount);
        let tree = disk.join(format!("new{round}/sub/deep"));
        make_dir(&tree);
        write(tree.join("file"), "made while the root was away");
        std::thread::sleep(std::time::Duration::from_millis(100));
        mount = Bound::mount(&disk, &world.src).expect("cannot mount again");
        world.converges(soon());
    }
    world.daemon().stop();
    drop(mount);
}
