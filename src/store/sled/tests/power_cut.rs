//! What a power cut leaves of the store, at many moments of its life.
//!
//! A child process opens, commits, compacts and closes a store under strace, which records every system call that changes
//! a file, in order, with all bytes. From the record, [`disk`] works out what a disk may hold at a moment. A file holds
//! what a completed fsync or fdatasync covered, and every page changed later is in any state that it had since. Of the
//! directories' entries those that were synced are there, and any number of the next ones, in order, as a journal keeps
//! them. That disk is opened as a store. Everything that the child had acknowledged before the moment has to be there, or
//! the store has to say that the trees must be compared.
//!
//! No real power is cut, and disks that say that they have written what they have not are not looked at. The test is
//! skipped where there is no strace or it may not trace. `SYNCQ_TEST_POWER_CUTS=n` looks at n moments, `SYNCQ_SEED=n` at
//! others.

mod disk;
mod trace;

use std::path::Path;
use std::process::Command;

use super::kills::{acknowledgements, holds_numbered, numbered};
use super::*;
use disk::Disk;

const CHILD: &str = "SYNCQ_TEST_STORE_TRACED_CHILD";
const LIVES: u64 = 3;
const COMMITS_A_LIFE: u64 = 40;

/// Not a test: the process that is traced. It goes through several lives of a store: new, closed, opened again, compacted
/// in between.
#[test]
fn child_that_is_traced() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let mut acknowledge = acknowledgements();
    for life in 0..LIVES {
        let (mut store, _) = open(Path::new(&dir));
        for n in life * COMMITS_A_LIFE..(life + 1) * COMMITS_A_LIFE {
            store.commit(&numbered(n)).expect("commits");
            acknowledge(n);
            if n % 16 == 15 {
                store.compact().expect("compacts");
            }
        }
    }
}

fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

/// Acknowledged jobs were lost in a tenth to a third of the power cuts, and some stores could not be opened, as long as
/// sled's `flush` alone was trusted.
#[test]
#[expect(clippy::print_stderr, reason = "a test that did nothing has to say so")]
fn a_power_cut_loses_nothing_acknowledged() {
    let temp = tempfile::tempdir().expect("a directory");
    let state = temp.path().join("state");
    fs::create_dir(&state).expect("creates");
    let record = temp.path().join("trace");
    let status = Command::new("strace")
        .args(trace::STRACE_ARGS)
        .arg(&record)
        .arg(std::env::current_exe().expect("a test binary"))
        .args(["--exact", "store::sled::tests::power_cut::child_that_is_traced", "--nocapture"])
        .env(CHILD, &state)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match &status {
        Err(error) => return eprintln!("skipped, cannot run strace: {error}"),
        Ok(_) if fs::metadata(&record).map_or(0, |metadata| metadata.len()) == 0 => {
            return eprintln!("skipped, strace may not trace here");
        }
        Ok(status) => assert!(status.success(), "the child failed under strace: {status}"),
    }
    let calls = trace::parse(&fs::read_to_string(&record).expect("a record"), &state);
    let acknowledged = calls.iter().filter(|call| matches!(call.what, trace::What::Acknowledged(_))).count() as u64;
    assert_eq!(acknowledged, LIVES * COMMITS_A_LIFE, "the record is not complete");
    disk::replays_to_what_is_there(&calls, &state);

    let moments = from_env("SYNCQ_TEST_POWER_CUTS", 100);
    let seed = from_env("SYNCQ_SEED", 1);
    let mut random = fastrand::Rng::with_seed(seed);
    let lines = calls.last().map_or(0, |call| call.end);
    let mut reported = 0;
    for moment in 0..moments {
        let line = random.usize(0..=lines + 1);
        let disk = Disk::at(&calls, line);
        let dir = temp.path().join(format!("cut{moment}"));
        disk.write_to(&dir, &mut random);
        let case = format!("seed {seed}, moment {moment}, line {line}");
        let (mut store, opened) =
            SledStore::open(&dir, NOW).unwrap_or_else(|error| panic!("{case}: {}", error.with_causes()));
        let loaded = store.load().expect("loads");
        if opened.may_lack_jobs() || loaded.damaged_records > 0 {
            if disk.acknowledged.is_some() {
                eprintln!("{case}: {opened:?}, {} damaged", loaded.damaged_records);
                reported += 1;
            }
        } else {
            holds_numbered(&loaded, disk.acknowledged, &case);
        }
        drop(store);
        fs::remove_dir_all(&dir).expect("removes");
    }
    eprintln!("{moments} power cuts: {reported} reported that jobs may be missing, the others lost none");
    assert!(reported * 20 <= moments, "{reported} of {moments} stores were of no use");
}
