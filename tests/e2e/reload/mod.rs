//! A configuration that is read again by a running daemon: its settings are in force (`in_force`, `plugins_and_lists`), nothing
//! mirrored is lost (`nothing_lost`), unchanged parts are left alone, and each requester is answered (`asked_for`).

mod asked_for;
mod in_force;
mod nothing_lost;
mod plugins_and_lists;

use std::path::Path;

use serde_json::Value;

use crate::harness::world::soon;
use crate::harness::{Ended, World, make_dir, write};

fn reload(world: &World) -> Ended {
    world.conf.save();
    let state = world.cli.state.as_os_str();
    world.cli.run(["reload".as_ref(), "--json".as_ref(), "--state-dir".as_ref(), state])
}

/// Has the daemon accept a configuration, and returns the changes.
#[track_caller]
fn taken(world: &World) -> Value {
    let ended = reload(world).ok();
    serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("no JSON: {e}\n{}", ended.text()))
}

fn log(world: &World) -> String {
    world.daemon.as_ref().expect("it runs").log_text()
}

/// How often the tree at `root` has been walked in order to be watched.
fn walks(world: &World, root: &Path) -> usize {
    let line = format!("watch path is: {} (", root.display());
    log(world).matches(&line).count()
}

fn reloads(world: &World) -> usize {
    log(world).matches("configuration read again: ").count()
}

/// A world with one of its two targets configured.
fn one_target() -> World {
    let mut world = World::new();
    world.conf.local_paths[0].remotes.truncate(1);
    for n in 0..20 {
        make_dir(world.src.join(format!("d{}", n % 3)));
        write(world.src.join(format!("d{}/f{n}", n % 3)), format!("content {n}"));
    }
    world.start();
    let (src, dst) = (world.src.clone(), world.dsts[0].clone());
    world.equal_within(&src, &[&dst], soon());
    world
}

fn second() -> (String, String) {
    ("127.0.0.1".to_owned(), "m2".to_owned())
}

fn named(job: &Value, part: &str) -> bool {
    job["target"].as_str().is_some_and(|target| target.contains(part))
}
