//! Directories that move, appear, vanish and overflow the kernel's queue; roots that are not the directory that they were.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::harness::world::soon;
use crate::harness::{Compare, World, make_dir, outward, secs, set_mtime, wait_for, wait_until, write};

/// Content and links alike: a file is equal under all of its names.
#[test]
fn files_with_several_names_stay_equal_under_all_of_them() {
    for keeps_links in [false, true] {
        let mut world = World::new();
        for dir in ["d1", "d2/deep", "d3"] {
            make_dir(world.src.join(dir));
        }
        write(world.src.join("d1/a"), "one");
        fs::hard_link(world.src.join("d1/a"), world.src.join("d2/deep/b")).expect("linked");
        if keeps_links {
            world.conf.params.push_str(" -H");
        }
        world.start();
        world.converges(soon());
        let links = |n: usize, name: &str| fs::metadata(world.dsts[n].join(name)).expect("a file").nlink();
        // Runs in the first seconds are made twice, which would hide a missing name.
        let begun = std::time::Instant::now();
        wait_until(secs(30), "the first seconds to be over", || begun.elapsed() > Duration::from_secs(7));
        world.converges(soon());
        for (round, name) in ["d1/a", "d2/deep/b", "d3/c", "d1/a"].into_iter().enumerate() {
            if name == "d3/c" {
                fs::hard_link(world.src.join("d1/a"), world.src.join(name)).expect("linked");
                world.converges(soon());
            }
            let mut file = fs::File::options().append(true).open(world.src.join(name)).expect("opened");
            writeln!(file, "round {round}").expect("written");
            drop(file);
            world.converges(soon());
            if keeps_links {
                let expected = if round < 2 { 2 } else { 3 };
                assert_eq!([links(0, name), links(1, name)], [expected; 2], "{name}, round {round}");
            }
        }
    }
}

/// Large files go one per run, and batches have an end. With `-H`, names that were sent in two runs became two files on the
/// target.
#[test]
fn names_of_one_file_are_sent_together_however_large_or_many() {
    let mut world = World::new();
    world.conf.params.push_str(" -H");
    world.conf.syncq = "<transfer largeFile=\"64KiB\"/>".to_owned();
    make_dir(world.src.join("d"));
    world.start();
    world.converges(soon());
    let link = |from: &str, to: &str| fs::hard_link(world.src.join(from), world.src.join(to)).expect("linked");
    write(world.src.join("large"), vec![1; 200_000]);
    link("large", "d/large too");
    link("large", "d/and this");
    let names: Vec<(String, String)> = (0..1_500).map(|n| (format!("a{n}"), format!("d/z{n}"))).collect();
    names.iter().for_each(|(name, _)| write(world.src.join(name), "shared"));
    names.iter().for_each(|(name, other)| link(name, other));
    let is_linked = |dst: &Path, names: &[&str], count: u64| {
        names.iter().all(|name| fs::metadata(dst.join(name)).is_ok_and(|found| found.nlink() == count))
    };
    let are_linked = || {
        world.dsts.iter().all(|dst| {
            is_linked(dst, &["large", "d/large too", "d/and this"], 3)
                && names.iter().all(|(name, other)| is_linked(dst, &[name, other], 2))
        })
    };
    wait_until(soon(), "the names to be linked", are_linked);
    fs::write(world.src.join("d/and this"), vec![2; 300_000]).expect("written");
    world.converges(soon());
    wait_until(soon(), "the names to be linked again", are_linked);
}

/// The names are shorter than the root's path, which kills sersync.
#[test]
fn l1_events_of_a_directory_renamed_while_nobody_read_them() {
    for (old, new) in [("d1", "d3"), ("a", "much-longer-than-the-other-name")] {
        let mut world = World::new();
        make_dir(world.src.join(old).join("sub"));
        write(world.src.join(old).join("before"), "before");
        world.start();
        world.converges(soon());
        world.daemon().signal(Signal::STOP);
        fs::rename(world.src.join(old), world.src.join(new)).expect("cannot rename");
        write(world.src.join(new).join("f"), "1");
        write(world.src.join(new).join("sub/g"), "2");
        world.daemon().signal(Signal::CONT);
        world.converges(soon());
        write(world.src.join(new).join("sub/later"), "3");
        world.converges(soon());
    }
}

#[test]
fn directories_moved_in_with_old_times_arrive_and_are_watched() {
    let mut world = World::new();
    write(world.src.join("stays"), "here");
    world.start();
    world.converges(soon());
    let outside = world.side("outside");
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for n in 0..20 {
        let dir = outside.join(format!("moved{n}/sub/deep"));
        make_dir(&dir);
        for path in [format!("moved{n}/f"), format!("moved{n}/sub/deep/g")] {
            write(outside.join(&path), "old content");
            set_mtime(outside.join(&path), old);
        }
        for path in [format!("moved{n}/sub/deep"), format!("moved{n}/sub"), format!("moved{n}")] {
            set_mtime(outside.join(path), old);
        }
        let name = format!("moved{n}");
        fs::rename(outside.join(&name), world.src.join(&name)).expect("cannot move in");
    }
    world.converges(soon());
    write(world.src.join("moved3/sub/deep/new"), "watched");
    fs::remove_file(world.src.join("moved4/sub/deep/g")).expect("cannot remove a file");
    world.converges(soon());
}

#[test]
fn l10_directories_moved_in_while_stopped_arrive_though_their_files_look_old() {
    let mut world = World::new();
    write(world.src.join("stays"), "here");
    let outside = world.side("outside");
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    make_dir(outside.join("moved/sub"));
    write(outside.join("moved/sub/f"), "old content");
    for path in ["moved/sub/f", "moved/sub", "moved"] {
        set_mtime(outside.join(path), old);
    }
    world.start();
    world.converges(soon());
    world.stop();
    fs::rename(outside.join("moved"), world.src.join("moved")).expect("cannot move in");
    world.daemon().restart();
    world.converges(soon());
}

#[test]
fn what_is_moved_out_goes_and_is_no_longer_followed() {
    let mut world = World::new();
    let outside = world.side("outside");
    write(world.src.join("stays"), "here");
    for n in 0..10 {
        make_dir(world.src.join(format!("d{n}/sub")));
        write(world.src.join(format!("d{n}/sub/f")), "content");
    }
    write(world.src.join("file"), "content");
    world.start();
    world.converges(soon());
    for name in ["file", "d0", "d1", "d2/sub"] {
        fs::rename(world.src.join(name), outside.join(name.replace('/', "-"))).expect("cannot move out");
    }
    // The files are written outside of the tree, so they are no longer mirrored.
    write(outside.join("d0/sub/f"), "elsewhere");
    make_dir(outside.join("d0/sub/new"));
    world.converges(soon());
    fs::rename(outside.join("d0"), world.src.join("d3/back")).expect("cannot move back");
    write(world.src.join("d3/back/sub/new/file"), "followed again");
    world.converges(soon());
}

#[test]
fn l14_symlink_loops_are_not_walked() {
    let mut world = World::new();
    for n in 0..5 {
        make_dir(world.src.join(format!("d{n}/e")));
        for (name, target) in [("up", ".."), ("self", "."), ("root", outward("/")), ("src", outward("../../src"))] {
            symlink(target, world.src.join(format!("d{n}/e/{name}"))).expect("cannot create a symlink");
        }
    }
    world.start();
    write(world.src.join("d0/e/file"), "content");
    world.converges(soon());
}

#[test]
fn l16_without_create_folder_new_trees_are_watched_all_the_same() {
    let mut world = World::new();
    world.conf.create_folder = false;
    write(world.src.join("stays"), "here");
    world.compare = Compare::content();
    world.start();
    world.converges(soon());
    make_dir(world.src.join("new/sub"));
    // The marker arrives once the directory has been watched for a while.
    write(world.src.join("marker"), "1");
    wait_until(soon(), "the marker", || world.arrived(0, "marker"));
    write(world.src.join("new/sub/file"), "content");
    wait_until(soon(), "the file", || world.arrived(0, "new/sub/file") && world.arrived(1, "new/sub/file"));
}

#[test]
fn l16_without_move_from_changes_below_a_renamed_directory_arrive_under_its_new_name() {
    let mut world = World::new();
    world.conf.move_from = false;
    make_dir(world.src.join("old/sub"));
    write(world.src.join("old/sub/before"), "before");
    world.start();
    world.converges(soon());
    fs::rename(world.src.join("old"), world.src.join("new")).expect("cannot rename");
    write(world.src.join("new/sub/after"), "after");
    for file in ["new/sub/before", "new/sub/after"] {
        wait_until(soon(), file, || world.arrived(0, file) && world.arrived(1, file));
    }
    let status = world.cli.wait_idle(soon());
    assert!(status.targets.iter().all(|target| target.failed == 0), "{:#?}", status.targets);
}

#[test]
fn without_delete_nothing_is_deleted() {
    let mut world = World::new();
    world.conf.delete = false;
    make_dir(world.src.join("dir"));
    for name in ["file", "dir/inside", "stays"] {
        write(world.src.join(name), name);
    }
    world.start();
    world.converges(soon());
    fs::remove_file(world.src.join("file")).expect("cannot remove a file");
    fs::remove_dir_all(world.src.join("dir")).expect("cannot remove a directory");
    write(world.src.join("stays"), "changed");
    wait_until(soon(), "the change", || world.arrived(0, "stays") && world.arrived(1, "stays"));
    world.cli.wait_idle(soon());
    world.stop();
    world.daemon().restart();
    world.cli.wait_idle(soon());
    for dst in &world.dsts {
        assert!(dst.join("file").exists() && dst.join("dir/inside").exists(), "delete=false has deleted");
    }
}

#[test]
fn without_close_write_only_what_is_moved_in_is_sent() {
    let mut world = World::new();
    world.conf.close_write = false;
    world.start();
    world.converges(soon());
    write(world.src.join("written"), "content");
    let outside = world.side("outside");
    write(outside.join("whole"), "content");
    fs::rename(outside.join("whole"), world.src.join("whole")).expect("cannot rename");
    wait_until(soon(), "the moved file", || world.arrived(0, "whole") && world.arrived(1, "whole"));
    world.cli.wait_idle(soon());
    assert!(world.dsts.iter().all(|dst| !dst.join("written").exists()), "closeWrite=false has sent a written file");
}

#[test]
fn without_move_to_a_new_name_waits_for_a_write() {
    let mut world = World::new();
    world.conf.move_to = false;
    write(world.src.join("old"), "content");
    world.start();
    world.converges(soon());
    fs::rename(world.src.join("old"), world.src.join("new")).expect("cannot rename");
    wait_until(soon(), "the end of the old name", || world.dsts.iter().all(|dst| !dst.join("old").exists()));
    world.cli.wait_idle(soon());
    assert!(world.dsts.iter().all(|dst| !dst.join("new").exists()), "moveTo=false has sent a new name");
    write(world.src.join("new"), "more content");
    world.converges(soon());
}

/// The trouble may be shown at the root or at each of its targets.
fn status_says(world: &World, words: &[&str]) {
    wait_for(soon(), &format!("one of {words:?} in the status"), || {
        let json = world.cli.try_status()?.json;
        let reasons = |part: &str| json[part].as_array().into_iter().flatten().map(|entry| entry["reason"].to_string());
        let said = reasons("roots").chain(reasons("targets")).collect::<String>().to_lowercase();
        if words.iter().any(|word| said.contains(word)) { Ok(()) } else { Err(json.to_string()) }
    });
}

const NOT_USABLE: &[&str] = &["suspend", "missing", "gone", "replaced", "empty", "not there", "another"];

fn filled() -> World {
    let mut world = World::new();
    for n in 0..30 {
        make_dir(world.src.join(format!("d{}", n % 3)));
        write(world.src.join(format!("d{}/f{n}", n % 3)), "content");
    }
    world.start();
    world.converges(soon());
    world
}

fn nothing_was_deleted(world: &World) {
    for dst in &world.dsts {
        let left = crate::harness::tree::count(dst);
        assert_eq!(left, 33, "the mirror has lost entries while its source was away");
    }
}

#[test]
fn l15_a_root_renamed_away_deletes_nothing_and_resumes() {
    let world = filled();
    let away = world.base().join("away");
    fs::rename(&world.src, &away).expect("cannot rename the root");
    status_says(&world, NOT_USABLE);
    nothing_was_deleted(&world);
    fs::rename(&away, &world.src).expect("cannot rename the root back");
    write(world.src.join("d0/after"), "back again");
    world.converges(secs(120));
}

#[test]
fn l26_a_root_that_is_empty_at_the_start_wipes_nothing() {
    let mut world = filled();
    world.stop();
    let away = world.base().join("away");
    fs::rename(&world.src, &away).expect("cannot rename the root");
    make_dir(&world.src);
    world.start_daemon(&["-r"]);
    status_says(&world, NOT_USABLE);
    nothing_was_deleted(&world);
    fs::remove_dir(&world.src).expect("cannot remove the stand-in");
    fs::rename(&away, &world.src).expect("cannot rename the root back");
    write(world.src.join("d1/after"), "back again");
    world.converges(secs(120));
}

/// A disk is not mounted, and its mount point has files in it.
#[test]
fn l26_a_root_that_is_another_one_at_the_start_wipes_nothing() {
    let mut world = filled();
    world.stop();
    let away = world.base().join("away");
    fs::rename(&world.src, &away).expect("cannot rename the root");
    make_dir(&world.src);
    write(world.src.join("stray"), "in the mount point");
    world.start_daemon(&["-r"]);
    wait_until(soon(), "the first run to end or to be refused", || {
        let status = world.cli.status();
        status.is_idle() || status.targets.iter().all(|target| target.reason.is_some())
    });
    nothing_was_deleted(&world);
    status_says(&world, NOT_USABLE);
    nothing_was_deleted(&world);
    fs::remove_dir_all(&world.src).expect("cannot remove the stand-in");
    fs::rename(&away, &world.src).expect("cannot rename the root back");
    write(world.src.join("d1/after"), "back again");
    world.converges(secs(120));
}

/// A source that was restored into a new directory is mirrored once its operator agrees.
#[test]
fn another_root_is_mirrored_once_it_is_accepted() {
    let mut world = filled();
    world.stop();
    fs::remove_dir_all(&world.src).expect("cannot remove the root");
    make_dir(&world.src);
    write(world.src.join("restored"), "content");
    world.start_daemon(&[]);
    status_says(&world, NOT_USABLE);
    nothing_was_deleted(&world);
    world.stop();
    world.start_daemon(&["--accept-root"]);
    world.converges(soon());
    world.stop();
    world.start_daemon(&[]);
    world.converges(soon());
}

/// Empty is suspicious only where there were files before.
#[test]
fn a_root_that_is_empty_from_the_first_is_no_trouble() {
    let mut world = World::new();
    world.start();
    world.converges(soon());
    let status = world.cli.status();
    assert!(status.targets.iter().all(|target| target.reason.is_none()), "{:#?}", status.targets);
    write(world.src.join("file"), "the first");
    world.converges(soon());
}
