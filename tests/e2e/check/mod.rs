//! `syncq check` against real servers: each fault is named with its way out (`servers`, `this_machine`), and nothing is changed
//! (`nothing_changed`).

mod nothing_changed;
mod servers;
mod this_machine;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{World, write};

/// The output of `check --json`.
struct Checked {
    code: Option<i32>,
    lines: Vec<Value>,
    text: String,
}

impl Checked {
    /// The findings about a target, a file or a directory whose name ends in `subject`.
    fn of(&self, subject: &str) -> Vec<&Value> {
        let is = |line: &&Value| line["subject"].as_str().is_some_and(|found| found.ends_with(subject));
        self.lines.iter().filter(is).collect()
    }

    /// A finding about `subject` with that level and these words.
    #[track_caller]
    fn has(&self, subject: &str, level: &str, words: &str) -> &Value {
        let says = |line: &&&Value| {
            line["level"] == level && line["message"].as_str().is_some_and(|message| message.contains(words))
        };
        let found = self.of(subject);
        found.iter().find(says).unwrap_or_else(|| panic!("no {level} of {subject} with '{words}':\n{}", self.text))
    }

    /// Checks that such a finding is a failure, with a hint and with exit code 1.
    #[track_caller]
    fn fails(&self, subject: &str, words: &str) {
        let found = self.has(subject, "fail", words);
        assert!(found["hint"].is_string(), "no hint: {found}");
        assert_eq!(self.code, Some(1), "{}", self.text);
    }
}

fn check(world: &World, more: &[&str]) -> Checked {
    let conf = world.conf.save();
    let mut args = vec!["check", "--json", "-o", conf.to_str().expect("a UTF-8 path")];
    args.extend(["--state-dir", world.cli.state.to_str().expect("a UTF-8 path")]);
    args.extend(more);
    let ended = world.cli.run(&args);
    let json = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON: {e}\n{}", ended.text()));
    Checked { code: ended.code, lines: ended.stdout.lines().map(json).collect(), text: ended.text() }
}

/// Mode, size and times of every path below `dir`, and of `dir` itself.
fn picture(dir: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, i64)> {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|entry| {
            let entry = entry.expect("an entry");
            let meta = entry.metadata().expect("its metadata");
            (entry.path().to_owned(), (meta.mode(), meta.len(), meta.mtime(), meta.mtime_nsec()))
        })
        .collect()
}

/// The paths alone.
fn names(dir: &Path) -> Vec<PathBuf> {
    picture(dir).into_keys().collect()
}

/// A world whose only target is one module with the given options.
fn with_module(options: &[(&str, &str)]) -> World {
    let mut world = World::new();
    for (key, value) in options {
        world.rsyncd.module_option("m1", key, value);
    }
    only_m1(&mut world);
    write(world.src.join("a"), "a");
    world
}

fn only_m1(world: &mut World) {
    world.conf.local_paths.clear();
    let src = world.src.clone();
    world.conf.root(&src, &[("127.0.0.1", "m1")]);
}

impl World {
    fn converges_only_m1(&self) {
        self.equal_within(&self.src, &[&self.dsts[0]], crate::harness::world::soon());
    }
}

/// Puts a script with that name first in `PATH`.
fn program(world: &mut World, name: &str, script: &str) {
    let bin = world.side("bin");
    let file = bin.join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("a script");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("chmod");
    world.cli.bin = Some(bin);
}
