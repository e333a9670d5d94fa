//! Many changes at once: everything arrives, nothing fails, and large files do not hold up small ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::world::soon;
use crate::harness::{Compare, World, make_dir, patterned, secs, skipped, touch, wait_for, write};

/// The test at the end of published notes on sersync, in which 809 of 1000 files arrived.
fn a_thousand_files_in_a_loop(world: &mut World) {
    touch(world.src.join("test"));
    world.start();
    for n in 1..=1000 {
        write(world.src.join(format!("{n}.txt")), "aaaa\n");
    }
    world.converges(secs(90));
}

#[test]
fn l9_a_thousand_files_in_a_loop_arrive_complete() {
    a_thousand_files_in_a_loop(&mut World::new());
}

#[test]
fn l8f_a_thousand_files_arrive_through_two_connections() {
    let mut world = World::new();
    world.rsyncd.module_option("m1", "max connections", "2");
    world.rsyncd.module_option("m2", "max connections", "2");
    a_thousand_files_in_a_loop(&mut world);
}

/// Both modules count against one lock file, so that one connection serves two targets.
#[test]
fn l8f_one_connection_for_both_targets_is_enough() {
    let mut world = World::new();
    world.rsyncd.global("max connections", "1");
    world.start();
    for n in 0..50 {
        write(world.src.join(format!("{n}.txt")), patterned(n, 2_000));
    }
    world.converges(secs(120));
}

#[test]
fn ten_thousand_files_in_a_hundred_new_directories_arrive() {
    let mut world = World::new();
    world.start();
    for dir in 0..100 {
        let dir = world.src.join(format!("dir{dir}"));
        make_dir(&dir);
        for file in 0..100 {
            write(dir.join(format!("file{file}")), format!("{file} of {}", dir.display()));
        }
    }
    world.converges(secs(120));
}

#[test]
fn files_in_deep_chains_of_new_directories_arrive() {
    let mut world = World::new();
    world.start();
    for n in 0..200 {
        let dir = world.src.join(format!("a{n}/b/c/d/e"));
        make_dir(&dir);
        write(dir.join("file"), format!("{n}"));
    }
    world.converges(secs(90));
}

/// A subtree of real files with some thousand entries, links among them.
fn real_tree() -> Option<PathBuf> {
    ["/usr/share/doc", "/usr/share/vim", "/usr/share/perl", "/usr/share/zoneinfo", "/usr/lib/python3"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_dir())
}

fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg("--").arg(from).arg(to).status().expect("cannot start cp");
    assert!(status.success(), "cp -a ended with {status}");
}

#[test]
fn a_copied_real_tree_arrives() {
    let Some(tree) = real_tree() else { return skipped("no directory of real files found") };
    let mut world = World::new();
    // cp sets the times of a directory after its last entry, which only IN_ATTRIB reports.
    world.compare = Compare { file_times: true, ..Compare::content() };
    world.start();
    copy_tree(&tree, &world.src.join("copy"));
    world.converges(secs(120));
}

#[test]
fn a_copied_real_tree_arrives_with_all_metadata_where_attrib_is_on() {
    let Some(tree) = real_tree() else { return skipped("no directory of real files found") };
    let mut world = World::new();
    world.conf.attrib = true;
    world.start();
    copy_tree(&tree, &world.src.join("copy"));
    world.converges(secs(120));
}

#[test]
fn a_directory_of_five_thousand_files_is_renamed() {
    let mut world = World::new();
    let old = world.src.join("old");
    make_dir(&old);
    for n in 0..5_000 {
        write(old.join(format!("{n}")), format!("content of {n}"));
    }
    world.start();
    world.converges(secs(90));
    fs::rename(&old, world.src.join("new")).expect("cannot rename");
    world.converges(secs(90));
    assert!(!world.dsts[0].join("old").exists(), "the old name is still there");
}

#[test]
fn a_tree_of_ten_thousand_is_deleted() {
    let mut world = World::new();
    write(world.src.join("stays"), "here");
    let tree = world.src.join("tree");
    for dir in 0..100 {
        let dir = tree.join(format!("{}/{dir}", dir % 10));
        make_dir(&dir);
        for file in 0..100 {
            touch(dir.join(format!("{file}")));
        }
    }
    world.start();
    world.converges(secs(120));
    fs::remove_dir_all(&tree).expect("cannot remove the tree");
    world.converges(secs(120));
}

#[test]
fn large_files_do_not_hold_up_small_ones() {
    const LARGE_BYTES: usize = 64 << 20;
    let mut world = World::new();
    // Slow enough that the large files are still being sent when the small ones have been written, however busy the disk is.
    world.conf.params = "-art --bwlimit=20000".to_owned();
    world.start();
    let content = patterned(1, LARGE_BYTES);
    let large: Vec<_> = (0..8).map(|n| format!("large{n}")).collect();
    let small: Vec<_> = (0..200).map(|n| format!("small{n}")).collect();
    large.iter().for_each(|name| write(world.src.join(name), &content));
    small.iter().for_each(|name| write(world.src.join(name), name));
    let complete = |names: &[String], bytes: Option<u64>| {
        let there = |path: PathBuf| fs::metadata(path).is_ok_and(|meta| bytes.is_none_or(|len| meta.len() == len));
        world.dsts.iter().all(|dst| names.iter().all(|name| there(dst.join(name))))
    };
    wait_for(secs(120), "the small files", || {
        // Check in this order: a large file that completes in between must not count against the small ones.
        let all_large = complete(&large, Some(LARGE_BYTES as u64));
        if complete(&small, None) {
            return Ok(());
        }
        assert!(!all_large, "all large files have arrived before the small ones");
        Err("some are missing".to_owned())
    });
    world.converges(secs(180));
}

/// Prints how long one change takes on an idle system. No limit is checked: that is a matter for the benchmark.
#[test]
fn a_single_change_on_an_idle_system_arrives() {
    let mut world = World::new();
    write(world.src.join("file"), "before");
    world.start();
    world.converges(soon());
    for round in 0..5 {
        let began = std::time::Instant::now();
        // Another file each time: a file that changes again and again is held back for a moment.
        let name = format!("file{round}");
        write(world.src.join(&name), "a small change");
        wait_for(soon(), "the change on both targets", || {
            if world.arrived(0, &name) && world.arrived(1, &name) { Ok(()) } else { Err(String::new()) }
        });
        eprintln!("latency of one small change, polled every 5 ms: {} ms", began.elapsed().as_millis());
        world.converges(soon());
    }
}
