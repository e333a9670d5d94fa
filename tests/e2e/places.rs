//! A local target is the same directory as before, or nothing is sent to it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::world::soon;
use crate::harness::{
    Daemon, Rsyncd, World, is_root, make_dir, overwrite_quietly, secs, skipped, tree, wait_for, wait_until, write,
};

/// Starts a mirror of the world's source whose only target is a local directory.
fn start(world: &mut World, local: &Path) {
    let mut args: Vec<OsString> = vec!["mirror".into(), world.src.clone().into_os_string(), local.into()];
    args.extend(["--state-dir".into(), world.cli.state.clone().into_os_string()]);
    world.daemon = Some(Daemon::start(&world.cli, args));
}

fn is_gone(world: &World) {
    wait_for(soon(), "the target to be missed", || {
        let json = world.cli.try_status()?.json;
        let target = &json["targets"][0];
        let told = target["state"] == "target_gone" && target["hint"].to_string().contains("syncq accept-target");
        if told { Ok(()) } else { Err(json.to_string()) }
    });
}

fn filled() -> (World, PathBuf) {
    let mut world = World::new();
    let local = world.side("disk").join("www");
    write(world.src.join("a"), "before");
    start(&mut world, &local);
    world.equal_within(&world.src, &[&local], soon());
    (world, local)
}

/// The target's disk is not mounted: the mount point was filled, and the files counted as delivered.
#[test]
fn a_local_target_that_is_missing_or_another_one_is_not_filled() {
    let (mut world, local) = filled();
    let away = world.base().join("away");
    fs::rename(world.base().join("disk"), &away).expect("cannot take the disk away");
    // The loss is noticed even while nothing is to be sent.
    is_gone(&world);
    make_dir(world.base().join("disk"));
    write(world.src.join("b"), "meanwhile");
    is_gone(&world);
    world.stop();
    start(&mut world, &local);
    is_gone(&world);
    assert!(!local.exists(), "the mount point was filled");
    // An empty directory, or a directory with other files, is no better.
    make_dir(&local);
    write(local.join("other"), "of somebody else");
    write(world.src.join("c"), "meanwhile");
    wait_until(soon(), "the other directory to be named", || {
        world.cli.status().json["targets"][0]["reason"].to_string().contains("another directory")
    });
    assert_eq!(tree::count(&local), 1, "another directory was filled");
    fs::remove_dir_all(world.base().join("disk")).expect("cannot remove the mount point");
    fs::rename(&away, world.base().join("disk")).expect("cannot put the disk back");
    world.equal_within(&world.src, &[&local], soon());
    assert_eq!(world.cli.status().json["targets"][0]["state"], "idle");
}

#[test]
fn another_directory_is_mirrored_to_once_an_operator_agrees() {
    let (mut world, local) = filled();
    fs::rename(&local, world.base().join("old")).expect("cannot rename the target");
    make_dir(&local);
    write(local.join("of the new disk"), "");
    is_gone(&world);
    let state = world.cli.state.to_str().expect("text").to_owned();
    let said = world.cli.run(["accept-target", local.to_str().expect("text"), "--state-dir", &state]).ok();
    assert!(said.stdout.contains(local.to_str().expect("text")), "{}", said.text());
    world.equal_within(&world.src, &[&local], soon());
    // From then on the accepted directory is the target.
    world.stop();
    start(&mut world, &local);
    write(world.src.join("d"), "live");
    world.equal_within(&world.src, &[&local], soon());
}

/// Only later changes were sent to the other server, and everything counted as delivered.
#[test]
fn a_host_name_that_leads_to_another_server_has_the_target_compared_in_full() {
    if !is_root() {
        return skipped("another list of hosts needs root");
    }
    let mut world = World::new();
    let hosts = world.base().join("hosts");
    write(&hosts, "127.0.0.1 localhost mirror-of-ours\n");
    let mount = format!("mount --bind '{}' /etc/hosts && exec \"$@\"", hosts.display());
    world.cli.wrapper = ["unshare", "--mount", "--", "sh", "-c", &mount, "sh"].map(Into::into).to_vec();
    world.conf.local_paths.clear();
    let (src, first, second) = (world.src.clone(), world.dsts[0].clone(), world.dsts[1].clone());
    world.conf.root(&src, &[("mirror-of-ours", "m1")]);
    let mut other = Rsyncd::at(&world.side("other"), "127.0.0.2", world.rsyncd.port);
    other.module("m1", &second);
    other.start();
    write(src.join("old"), "content");
    write(src.join("older"), "content");
    world.start();
    world.equal_within(&src, &[&first], soon());
    world.dsts.truncate(1);
    world.ages();
    world.stop();
    // A file on the second server that has the same look and other content.
    let copied = std::process::Command::new("cp").arg("-a").arg(src.join("old")).arg(&second).status();
    assert!(copied.expect("cannot start cp").success());
    overwrite_quietly(second.join("old"), "another");
    write(&hosts, "127.0.0.2 localhost mirror-of-ours\n");
    world.start_daemon(&[]);
    wait_until(soon(), "the other server to have everything", || {
        let is_there = |name: &str| std::fs::read(second.join(name)).is_ok_and(|found| found == b"content");
        is_there("old") && is_there("older")
    });
    other.stop();
}

/// Takes the disk of `m1` away from the server, or puts it back.
fn swap(world: &World) {
    let (dst, spare) = (&world.dsts[0], world.base().join("spare"));
    let between = world.base().join("between");
    fs::rename(dst, &between).expect("cannot take the module away");
    if spare.exists() {
        fs::rename(&spare, dst).expect("cannot put the module back");
    } else {
        make_dir(dst);
    }
    fs::rename(&between, &spare).expect("cannot keep the module");
}

fn served() -> World {
    let mut world = World::new();
    for name in ["a", "b", "d/deep"] {
        make_dir(world.src.join(name).parent().expect("a parent"));
        write(world.src.join(name), "before");
    }
    world.start();
    world.converges(soon());
    world
}

/// The module's path existed and was empty, so the server's own disk was filled, and nothing was said.
#[test]
fn a_module_whose_disk_is_not_mounted_is_not_filled() {
    let mut world = served();
    world.stop();
    swap(&world);
    write(world.src.join("c"), "while it was down");
    world.daemon().restart();
    is_gone(&world);
    write(world.src.join("d/live"), "live");
    wait_until(soon(), "the other target to go on", || world.arrived(1, "d/live"));
    assert_eq!(tree::count(&world.dsts[0]), 0, "the mount point was filled");
    let said = world.cli.run(["wait", "--timeout", "1s", "--state-dir", world.cli.state.to_str().expect("text")]);
    assert!(!said.status.success() && said.text().contains("holds nothing of what it held"), "{}", said.text());
    swap(&world);
    world.converges(secs(120));
    // Whatever happens to the source, the target is the same.
    world.stop();
    for name in ["a", "b", "c", "d"] {
        fs::rename(world.src.join(name), world.src.join(format!("new {name}"))).expect("cannot rename");
    }
    world.daemon().restart();
    world.converges(soon());
}

/// The disk goes between two runs: before much is sent, the target's content is checked.
#[test]
fn a_module_whose_disk_goes_between_runs_is_filled_once_an_operator_agrees() {
    let mut world = served();
    swap(&world);
    let state = world.cli.state.to_str().expect("text").to_owned();
    drop(world.cli.run(["reconcile", "--state-dir", &state]).ok());
    is_gone(&world);
    assert_eq!(tree::count(&world.dsts[0]), 0, "the mount point was filled");
    let name = world.cli.status().target("m1").name.clone();
    drop(world.cli.run(["accept-target", &name, "--state-dir", &state]).ok());
    world.converges(soon());
    world.stop();
    world.daemon().restart();
    world.converges(soon());
}

/// All entries at the top were deleted and others were made by the source: nobody has taken a disk away.
#[test]
fn a_target_that_was_emptied_by_the_source_is_filled_again() {
    let mut world = served();
    for name in ["a", "b"] {
        fs::remove_file(world.src.join(name)).expect("cannot remove");
    }
    fs::remove_dir_all(world.src.join("d")).expect("cannot remove");
    write(world.src.join("other"), "the only one");
    world.converges(soon());
    fs::remove_file(world.src.join("other")).expect("cannot remove");
    world.stop();
    make_dir(world.src.join("a"));
    write(world.src.join("a/new"), "new");
    world.daemon().restart();
    world.converges(soon());
}
