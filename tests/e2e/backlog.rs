//! A target is away for longer than its changes can be remembered one by one. The backlog stays within its bound, the other
//! target notices nothing, and in the end nothing is missing, not even changes that rsync's quick check cannot see.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::world::soon;
use crate::harness::{Rsyncd, World, make_dir, patterned, secs, set_mtime, wait_for, wait_until, write};

const AWAY: &str = "127.0.0.2::m2";
const DIRS: u64 = 200;
const FILES: u64 = 100;
const PENDING_MAX: u64 = 3_000;

struct Away {
    world: World,
    rsyncd: Rsyncd,
    markers: u64,
}

impl Away {
    /// `m1` on 127.0.0.1 stays up; `m2` is served by the second rsyncd, on 127.0.0.2.
    fn new() -> Self {
        let mut world = World::new();
        let mut rsyncd = Rsyncd::at(&world.base().join("rsyncd-away"), "127.0.0.2", world.rsyncd.port);
        rsyncd.module("m2", &world.dsts[1]);
        world.conf.local_paths.clear();
        let src = world.src.clone();
        world.conf.root(&src, &[("127.0.0.1", "m1"), ("127.0.0.2", "m2")]);
        world.conf.syncq = format!("<transfer maxPending=\"{PENDING_MAX}\"/>");
        Self { world, rsyncd, markers: 0 }
    }

    fn path(&self, dir: u64, file: u64) -> PathBuf {
        self.world.src.join(format!("site{}/dir{dir}/file{file}", dir % 7))
    }

    /// Changes the content and no property that rsync's quick check looks at.
    fn rewrite(&self, dir: u64, file: u64, seed: u64) {
        let path = self.path(dir, file);
        let before = fs::metadata(&path).expect("the file is there");
        write(&path, patterned(seed, usize::try_from(before.len()).expect("a small file")));
        set_mtime(&path, before.modified().expect("a modification time"));
    }

    /// Whether nothing has been committed for a second, many times as long as the longest pause between commits.
    fn store_rests(&self) -> bool {
        let written = fs::metadata(self.world.cli.state.join("store/db")).and_then(|found| found.modified());
        written.is_ok_and(|written| written.elapsed().is_ok_and(|rest| rest > Duration::from_secs(1)))
    }

    /// Checks that a change soon reaches the target that is up, and that the backlog of the other is within its bound.
    fn check(&mut self) {
        self.markers += 1;
        let name = format!("marker{}", self.markers);
        write(self.world.src.join(&name), &name);
        wait_until(soon(), "a marker on the target that stays", || self.world.arrived(0, &name));
        let status = self.world.cli.status();
        let away = status.target(AWAY);
        let jobs = away.pending + away.running + away.waiting + away.failed;
        assert!(jobs <= PENDING_MAX, "{jobs} jobs wait for the target that is away");
    }
}

#[test]
fn a_backlog_above_its_bound_collapses_and_loses_nothing() {
    let mut away = Away::new();
    for dir in 0..DIRS {
        make_dir(away.path(dir, 0).parent().expect("a directory"));
        for file in 0..FILES {
            write(away.path(dir, file), patterned(dir * FILES + file, 300));
        }
    }
    away.rsyncd.start();
    away.world.start();
    away.world.converges(secs(180));
    away.rsyncd.stop();
    write(away.world.src.join("notice"), "the absence");
    wait_for(soon(), "the absence of the target", || {
        let target = away.world.cli.try_status()?.target(AWAY).clone();
        if target.reason.is_some() { Ok(()) } else { Err(format!("{target:?}")) }
    });
    for dir in 0..DIRS {
        for file in 0..FILES {
            match (dir + file) % 10 {
                0 => fs::remove_file(away.path(dir, file)).expect("cannot remove a file"),
                1 => write(away.path(dir, FILES + file), patterned(file, 500)),
                2 => write(away.path(dir, file), patterned(file, 700)),
                _ => away.rewrite(dir, file, 1_000_000 + dir * FILES + file),
            }
        }
        if dir % 20 == 19 {
            fs::remove_dir_all(away.path(dir, 0).parent().expect("a directory")).expect("cannot remove a directory");
            away.check();
        }
        if dir == DIRS / 2 - 1 {
            // The comparison at the start cannot see changes whose jobs are not on disk, so wait for the commit.
            wait_until(soon(), "a store at rest", || away.store_rests());
            away.world.daemon().kill9();
            away.world.daemon().restart();
            away.check();
        }
    }
    let of_trees = away.world.cli.list().iter().filter(|job| job["scope"] == "subtree").count();
    assert!(of_trees > 1, "the backlog has not collapsed: {of_trees} jobs stand for trees");
    away.rsyncd.start();
    away.world.converges(secs(180));
}
