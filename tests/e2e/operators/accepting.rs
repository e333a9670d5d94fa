//! Deletions and sources that were held back go on once an operator accepts them, without a restart.

use std::fs;

use super::{done, equal_now, mirrored, put, syncq};
use crate::harness::world::soon;
use crate::harness::{World, wait_until, write};

/// One of two targets holds files of somebody else: its comparison waits for an operator, and everything else goes on.
#[test]
fn deletions_that_are_held_back_show_and_are_accepted_without_a_restart() {
    let mut world = World::new();
    (0..1_200).for_each(|n| put(world.dsts[0].join(format!("theirs/f{n}")), "content"));
    write(world.src.join("ours"), "ours");
    world.start();
    wait_until(soon(), "the state", || world.cli.status().target("m1").state == "needs_approval");
    wait_until(soon(), "the other target to be equal", || world.cli.status().target("m2").state == "idle");
    let m1 = world.cli.status().target("m1").clone();
    assert_eq!(m1.hint.as_deref(), Some(format!("if that is right: syncq accept-deletions {}", m1.name).as_str()));
    let late = syncq(&world, &["wait", "--timeout", "1s"]);
    assert!(late.code == Some(1) && late.stderr.contains("1201 of the 1202 entries"), "{}", late.text());
    write(world.src.join("live"), "live");
    wait_until(soon(), "what is new", || world.arrived(0, "live"));
    wait_until(soon(), "the state", || world.cli.status().target("m1").state == "needs_approval");
    done(&world, &["accept-deletions", &m1.name]);
    done(&world, &["wait", "--timeout", "60s"]);
    equal_now(&world, 0);
    wait_until(soon(), "the state", || world.cli.status().target("m1").state == "idle");
    // The acceptance holds once: the next time, the target asks again.
    (0..1_200).for_each(|n| put(world.dsts[0].join(format!("theirs/f{n}")), "content"));
    done(&world, &["reconcile"]);
    wait_until(soon(), "the state", || world.cli.status().target("m1").state == "needs_approval");
}

#[test]
fn a_source_found_empty_is_accepted_without_a_restart() {
    let mut world = mirrored();
    world.stop();
    fs::remove_dir_all(world.src.join("d")).expect("cannot empty the source");
    world.daemon().restart();
    wait_until(soon(), "the root to be suspended", || world.cli.status().json["roots"][0]["state"] == "suspended");
    let late = syncq(&world, &["wait", "--timeout", "1s"]);
    assert!(late.code == Some(1) && late.stderr.contains("is empty"), "{}", late.text());
    assert!(world.dsts.iter().all(|dst| dst.join("d/before").exists()));
    done(&world, &["accept-deletions", "--all"]);
    done(&world, &["wait", "--timeout", "60s"]);
    equal_now(&world, 0);
}
