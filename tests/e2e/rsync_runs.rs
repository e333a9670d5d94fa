//! How often rsync is started: changes gather into batches, and an idle daemon starts none.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::harness::world::soon;
use crate::harness::{World, append, patterned, secs, set_mtime, wait_until, write};

/// Appends for about three seconds. A file that keeps changing is sent once a second, which is well below the bound.
#[test]
fn a_file_appended_to_three_thousand_times_costs_few_runs() {
    const RUNS_MAX: usize = 20;
    let mut world = World::new();
    let count = world.count_rsyncs();
    write(world.src.join("stays"), "here");
    world.start();
    world.converges(soon());
    let before = [count.naming("::m1"), count.naming("::m2")];
    for line in 0..3_000 {
        append(world.src.join("log"), format!("line {line}\n"));
        std::thread::sleep(Duration::from_micros(900));
    }
    world.converges(soon());
    for (n, module) in ["::m1", "::m2"].iter().enumerate() {
        let runs = count.naming(module) - before[n];
        assert!(runs <= RUNS_MAX, "{runs} rsync runs for one hot file on {module}");
    }
}

/// sersync starts one rsync per file and target.
#[test]
fn l29_a_burst_of_small_files_costs_few_runs() {
    const RUNS_MAX: usize = 150;
    let mut world = World::new();
    let count = world.count_rsyncs();
    write(world.src.join("stays"), "here");
    world.start();
    world.converges(soon());
    let before = count.naming("::m1");
    for n in 0..3_000 {
        write(world.src.join(format!("{n}")), "small");
    }
    world.converges(secs(90));
    let runs = count.naming("::m1") - before;
    assert!(runs <= RUNS_MAX, "{runs} rsync runs for 3000 files");
}

/// To rename a file over another is a deletion and a creation. Neither the file nor its neighbours cost a run each.
#[test]
fn l29_saving_like_sed_does_costs_few_runs() {
    const RUNS_MAX: usize = 60;
    let mut world = World::new();
    let count = world.count_rsyncs();
    write(world.src.join("page"), "0");
    world.start();
    world.converges(soon());
    let before = count.naming("::m1");
    for n in 0..500 {
        write(world.src.join("sedAbc12D"), format!("{n}"));
        std::fs::rename(world.src.join("sedAbc12D"), world.src.join("page")).expect("cannot rename");
    }
    world.converges(soon());
    let runs = count.naming("::m1") - before;
    assert!(runs <= RUNS_MAX, "{runs} rsync runs for 500 saves of one file");
}

/// With -d, sersync loses the results of rsyncs that have succeeded, and runs them again.
#[test]
fn l5_each_file_of_a_burst_is_transferred_about_once() {
    for background in [false, true] {
        let mut world = World::new();
        let count = world.count_rsyncs();
        world.rsyncd.module_option("m1", "transfer logging", "yes");
        world.rsyncd.module_option("m1", "log format", "SENT %o %f");
        write(world.src.join("stays"), "here");
        if background {
            world.rsyncd.start();
            let conf = world.conf.save().into_os_string();
            let state = world.cli.state.clone().into_os_string();
            let _ = world.cli.run(["-d".into(), "-o".into(), conf, "--state-dir".into(), state]).ok();
        } else {
            world.start();
        }
        world.converges(soon());
        for n in 0..1_000 {
            write(world.src.join(format!("file{n}")), patterned(n, 500));
        }
        world.converges(secs(90));
        let log = std::fs::read_to_string(world.base().join("rsyncd/rsyncd.log")).expect("cannot read rsyncd's log");
        let transfers = log.lines().filter(|line| line.contains("SENT recv") && line.contains("file")).count();
        assert!((1_000..=1_200).contains(&transfers), "{transfers} transfers for 1000 files");
        assert!(count.naming("::m1") < 200, "{} runs", count.naming("::m1"));
        assert!(world.cli.list().is_empty(), "jobs are left: {:?}", world.cli.list());
    }
}

/// Without work no rsync is started, apart from a standby that is renewed now and then.
#[test]
fn an_idle_daemon_starts_no_rsync() {
    let mut world = World::new();
    let count = world.count_rsyncs();
    write(world.src.join("file"), "content");
    world.start();
    world.converges(soon());
    let before = count.naming("::m");
    let began = std::time::Instant::now();
    wait_until(secs(10), "three idle seconds", || began.elapsed() >= Duration::from_secs(3));
    let started = count.naming("::m") - before;
    assert!(started <= 4, "{started} rsync starts while idle");
}

/// A file that was rewritten with the same content, or touched, was replaced on the target all the same. Two mirrors in
/// opposite directions replaced it for ever.
#[test]
fn an_equal_file_rests() {
    let mut world = World::new();
    write(world.src.join("f"), "as it is");
    world.start();
    world.converges(soon());
    let inode = || std::fs::metadata(world.dsts[0].join("f")).map(|found| found.ino()).unwrap_or_default();
    let before = inode();
    for n in 0..3 {
        write(world.src.join("f"), "as it is");
        write(world.src.join("marker"), format!("{n}"));
        world.converges(soon());
        assert_eq!(inode(), before, "the target's file was replaced");
    }
    // Equal size and time, other content.
    let time = std::fs::metadata(world.src.join("f")).and_then(|found| found.modified()).expect("it is there");
    write(world.src.join("f"), "as it IS");
    set_mtime(world.src.join("f"), time);
    world.converges(soon());
    assert_ne!(inode(), before);
}

/// A server may refuse to compare contents; then everything is sent as before.
#[test]
fn a_server_that_refuses_checksums_is_sent_everything() {
    let mut world = World::new();
    world.rsyncd.module_option("m1", "refuse options", "checksum");
    write(world.src.join("f"), "first");
    world.start();
    world.converges(soon());
    let time = std::fs::metadata(world.src.join("f")).and_then(|found| found.modified()).expect("it is there");
    write(world.src.join("f"), "other");
    set_mtime(world.src.join("f"), time);
    world.converges(soon());
    write(world.src.join("g"), "more");
    world.converges(soon());
}
