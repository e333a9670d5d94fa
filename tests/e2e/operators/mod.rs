//! The deeds of operators on a running daemon, and on the store of a stopped one: they list, retry and purge jobs and pause
//! targets (`jobs`), compare (`comparing`), wait (`waiting`), accept what was held back (`accepting`), and ask for reasons
//! (`asking`).

mod accepting;
mod asking;
mod comparing;
mod jobs;
mod waiting;

use std::path::PathBuf;

use serde_json::Value;

use crate::harness::tree::differences;
use crate::harness::world::soon;
use crate::harness::{Ended, World, make_dir, write};

/// Runs a command on the world's state directory.
pub fn syncq(world: &World, args: &[&str]) -> Ended {
    let state = world.cli.state.display().to_string();
    world.cli.run(args.iter().copied().chain(["--state-dir", state.as_str()]))
}

/// Like [`syncq`], for a command that has to succeed.
#[track_caller]
pub fn done(world: &World, args: &[&str]) {
    drop(syncq(world, args).ok());
}

/// The lines of JSON in a command's output.
pub fn json_lines(ended: &Ended) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON: {e}\n{line}"));
    ended.stdout.lines().map(parse).collect()
}

/// The name of the target whose module is `module`.
pub fn target(world: &World, module: &str) -> String {
    world.cli.status().target(module).name.clone()
}

pub fn mirrored() -> World {
    let mut world = World::new();
    make_dir(world.src.join("d"));
    write(world.src.join("d/before"), "before");
    world.start();
    world.converges(soon());
    world
}

/// Writes a file, and makes its directory if that is missing.
fn put(path: PathBuf, content: impl AsRef<[u8]>) {
    make_dir(path.parent().expect("a directory"));
    write(path, content);
}

/// Compares two trees right after a wait. Does not wait for anything itself.
#[track_caller]
pub fn equal_now(world: &World, round: u64) {
    for dst in &world.dsts {
        let found = differences(&world.src, dst, world.compare);
        assert!(found.is_empty(), "round {round}: the wait was over too early\n  {}", found.join("\n  "));
    }
}
