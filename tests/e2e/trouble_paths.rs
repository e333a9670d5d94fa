//! A target refuses some paths: the others arrive, the refused paths are listed with their reason, and they heal (L6).

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::world::{give_to_nobody, soon};
use crate::harness::{World, is_root, make_dir, secs, skipped, wait_for, wait_until, write};

const HEAL: Duration = Duration::from_secs(150);

/// A directory that not even root may change, until this value is dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn make(path: &Path) -> Option<Self> {
        let done = Command::new("chattr").arg("+i").arg(path).output();
        done.is_ok_and(|output| output.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

/// Waits until the job of `path` for module `m2` is listed as waiting, with an attempt and an error.
fn listed_as_waiting(world: &World, path: &str) -> Value {
    wait_for(secs(60), &format!("{path} to be listed with its error"), || {
        let jobs = world.cli.list();
        let job = jobs.iter().find(|job| {
            let target = job["target"].as_str().unwrap_or_default();
            target.contains("m2") && job["path"].as_str().unwrap_or_default().starts_with(path)
        });
        match job {
            Some(job)
                if job["state"] == "waiting" && job["attempts"].as_u64() >= Some(1) && !job["error"].is_null() =>
            {
                Ok(job.clone())
            }
            _ => Err(format!("{jobs:#?}")),
        }
    })
}

/// Checks that everything but `locked` arrives on both targets, at once and later.
fn the_rest_arrives(world: &World) {
    for n in 0..20 {
        write(world.src.join(format!("open/f{n}")), format!("{n}"));
        write(world.src.join(format!("locked/f{n}")), format!("{n}"));
    }
    let all = |n: usize, dir: &str| (0..20).all(|file| world.arrived(n, format!("{dir}/f{file}")));
    wait_until(soon(), "all on the healthy target", || all(0, "open") && all(0, "locked"));
    wait_until(soon(), "the writable part on the other", || all(1, "open"));
    let job = listed_as_waiting(world, "locked");
    let error = job["error"].to_string().to_lowercase();
    let named = ["permitted", "permission denied", "(1)", "(13)"].iter().any(|word| error.contains(word));
    assert!(named, "the error does not name its cause: {error}");
    write(world.src.join("open/later"), "later");
    wait_until(soon(), "a later change", || world.arrived(0, "open/later") && world.arrived(1, "open/later"));
    let guilty: Vec<_> = world.cli.list().into_iter().filter(|job| job["attempts"].as_u64() > Some(0)).collect();
    for job in &guilty {
        let path = job["path"].as_str().unwrap_or_default();
        assert!(path.starts_with("locked"), "{path} is blamed for what is wrong in locked: {job}");
    }
}

fn with_both_parts() -> World {
    let world = World::new();
    for dir in ["open", "locked"] {
        make_dir(world.src.join(dir));
        write(world.src.join(dir).join("before"), "before");
    }
    world
}

#[test]
fn l6_an_immutable_directory_on_the_target_holds_up_only_itself() {
    if !is_root() {
        return skipped("only root may set the immutable flag");
    }
    let mut world = with_both_parts();
    world.start();
    world.converges(soon());
    let Some(lock) = Immutable::make(&world.dsts[1].join("locked")) else {
        return skipped("the file system has no immutable flag");
    };
    the_rest_arrives(&world);
    drop(lock);
    world.converges(HEAL);
}

#[test]
fn l6_a_directory_that_the_receiver_may_not_write_holds_up_only_itself() {
    if !is_root() {
        return skipped("needs a receiver of another user");
    }
    let mut world = with_both_parts();
    world.rsyncd.module_option("m2", "uid", "nobody").module_option("m2", "gid", "nogroup");
    give_to_nobody(&world.dsts[1]);
    world.start();
    world.converges(soon());
    chown(world.dsts[1].join("locked"), Some(0), Some(0)).expect("cannot chown");
    the_rest_arrives(&world);
    give_to_nobody(&world.dsts[1].join("locked"));
    world.converges(HEAL);
}

/// A deletion that the target refuses is a job like any other.
#[test]
fn l6_a_refused_deletion_is_listed_and_heals() {
    if !is_root() {
        return skipped("only root may set the immutable flag");
    }
    let mut world = with_both_parts();
    world.start();
    world.converges(soon());
    let Some(lock) = Immutable::make(&world.dsts[1].join("locked")) else {
        return skipped("the file system has no immutable flag");
    };
    fs::remove_file(world.src.join("locked/before")).expect("cannot remove a file");
    fs::remove_file(world.src.join("open/before")).expect("cannot remove a file");
    wait_until(soon(), "the deletions that are possible", || {
        !world.dsts[0].join("locked/before").exists() && world.dsts.iter().all(|dst| !dst.join("open/before").exists())
    });
    listed_as_waiting(&world, "locked");
    drop(lock);
    world.converges(HEAL);
}

/// rsync says "Skipping any contents from this failed directory". The directory came back alone, and `wait` said done although
/// its content was missing.
#[test]
fn a_directory_that_cannot_be_made_brings_what_is_in_it_when_it_can() {
    if !is_root() {
        return skipped("only root may set the immutable flag");
    }
    let mut world = World::new();
    make_dir(world.src.join("locked/deep/er"));
    write(world.src.join("locked/deep/er/f"), "in it");
    write(world.src.join("locked/deep/g"), "in it");
    for dst in &world.dsts {
        make_dir(dst.join("locked"));
    }
    let Some(lock) = Immutable::make(&world.dsts[1].join("locked")) else {
        return skipped("the file system knows no immutable flag");
    };
    world.start();
    let job = listed_as_waiting(&world, "locked/deep");
    assert_eq!(job["scope"], "subtree", "{job}");
    drop(lock);
    let state = world.cli.state.clone().into_os_string();
    let _ = world.cli.run(["retry".as_ref(), "--state-dir".as_ref(), state.as_os_str()]).ok();
    world.converges(HEAL);
}

/// A name that the target's character set lacks is skipped with exit code 0, and counted as done.
#[test]
fn a_name_that_cannot_be_converted_stays_listed() {
    let mut world = World::new();
    world.conf.params = "-artz --iconv=UTF-8".to_owned();
    world.rsyncd.module_option("m1", "charset", "UTF-8").module_option("m2", "charset", "ISO-8859-1");
    write(world.src.join("plain"), "fits");
    world.start();
    wait_until(soon(), "the first comparison", || world.arrived(0, "plain") && world.arrived(1, "plain"));
    write(world.src.join("euro\u{20ac}"), "does not fit");
    write(world.src.join("later"), "fits");
    let job = listed_as_waiting(&world, "euro");
    assert!(job["error"].to_string().contains("character set"), "{job}");
    wait_until(soon(), "the rest", || world.arrived(1, "later"));
    fs::remove_file(world.src.join("euro\u{20ac}")).unwrap();
    world.converges(soon());
}

/// A path that a module's own `exclude` refuses failed for ever, and so did each comparison of the whole tree.
#[test]
fn what_a_module_leaves_out_is_said_and_keeps_nothing_waiting() {
    let mut world = World::new();
    world.rsyncd.module_option("m2", "exclude", "*.tmp");
    write(world.src.join("a"), "taken");
    write(world.src.join("x.tmp"), "refused");
    write(world.dsts[1].join("stale"), "to be deleted");
    write(world.dsts[1].join("theirs.tmp"), "the server's own");
    world.rsyncd.start();
    world.start_daemon(&["-r"]);
    wait_until(soon(), "the first comparison", || world.arrived(1, "a") && !world.dsts[1].join("stale").exists());
    let status = world.cli.wait_idle(soon());
    let target = status.target("m2");
    assert!(target.reason.as_deref().is_some_and(|reason| reason.contains("x.tmp")), "{target:?}");
    write(world.src.join("y.tmp"), "refused as well");
    write(world.src.join("b"), "taken");
    wait_until(soon(), "the rest", || world.arrived(1, "b"));
    world.cli.wait_idle(soon());
    let state = world.cli.state.clone().into_os_string();
    let verified = world.cli.run(["verify".as_ref(), "--state-dir".as_ref(), state.as_os_str()]).ok();
    assert!(verified.text().contains("equal"), "{}", verified.text());
    assert!(world.dsts[1].join("theirs.tmp").exists() && !world.dsts[1].join("x.tmp").exists());
}
