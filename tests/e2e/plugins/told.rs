//! The notices to a command: each file that changed, once, under its own name, and nothing else.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Command;

use super::{Recorder, plugin_status, put};
use crate::harness::world::soon;
use crate::harness::{Daemon, World, make_dir, wait_for, write};

#[test]
fn a_command_is_told_of_each_file_that_changed_and_of_nothing_else() {
    told_of_each_file(&[]);
}

/// With expressions, whole directories are passed to rsync in another way.
#[test]
fn with_a_filter_a_command_is_told_of_what_is_mirrored() {
    told_of_each_file(&["(.*)\\.left-out"]);
}

fn told_of_each_file(excludes: &[&str]) {
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "");
    world.conf.excludes = excludes.iter().map(|&exclude| exclude.to_owned()).collect();
    for name in ["old/f", "old/deep/g", "kept", "quiet/h"] {
        put(world.src.join(name), "before");
    }
    world.start();
    world.converges(soon());
    // The first fill of a target changes nothing in the source, so there is no notice.
    assert_eq!(recorder.lines(), BTreeSet::new());
    write(world.src.join("kept"), "changed");
    write(world.src.join("quiet/new"), "new");
    make_dir(world.src.join("dir/sub"));
    write(world.src.join("dir/sub/f"), "content");
    fs::remove_dir_all(world.src.join("old")).expect("cannot remove");
    world.converges(soon());
    let expected = [
        "update file kept",
        "update file quiet/new",
        "update directory dir",
        "update directory dir/sub",
        "update file dir/sub/f",
        "delete file old/f",
        "delete file old/deep/g",
        "delete directory old/deep",
        "delete directory old",
    ];
    recorder.wait_told(&expected);
    // Neither quiet nor the root is told of: only their times changed.
    assert_eq!(recorder.lines(), expected.into_iter().map(str::to_owned).collect());
    // The notice waits for both targets, and is not repeated for each.
    let kept = recorder.told().iter().filter(|told| told[2] == b"kept").count();
    assert_eq!(kept, 1, "{:?}", recorder.lines());
    recorder.forget();
    // For a directory that is moved in, each file is told of.
    let outside = world.side("outside");
    put(outside.join("in/a"), "a");
    put(outside.join("in/b/c"), "c");
    if !excludes.is_empty() {
        put(outside.join("in/b/x.left-out"), "x");
    }
    fs::rename(outside.join("in"), world.src.join("in")).expect("cannot rename");
    let expected = ["update directory in", "update file in/a", "update directory in/b", "update file in/b/c"];
    recorder.wait_told(&expected);
    assert_eq!(recorder.lines(), expected.into_iter().map(str::to_owned).collect());
    assert_eq!(plugin_status(&world)["dropped"], 0);
    world.stop();
}

/// Changes that were made while no daemon ran are told of at the next start, if a target had the path.
#[test]
fn what_a_start_finds_changed_is_told_of() {
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "");
    write(world.src.join("changed"), "before");
    write(world.src.join("gone"), "before");
    world.start();
    world.converges(soon());
    world.stop();
    write(world.src.join("changed"), "while no daemon ran");
    fs::remove_file(world.src.join("gone")).expect("cannot remove");
    world.daemon().restart();
    world.converges(soon());
    recorder.wait_told(&["update file changed", "delete file gone"]);
}

/// S2: sersync ran the path as part of a shell line. The doubled slash is the place at which published scripts cut.
#[test]
fn s2_no_name_runs_and_a_slash_at_the_end_shows() {
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "");
    world.conf.local_paths[0].watch.push('/');
    world.start();
    world.converges(soon());
    let trap = world.base().join("PWNED");
    let shown = trap.display();
    let names: Vec<OsString> = [
        "a b".to_owned(),
        "$(touch PWNED)".to_owned(),
        "`touch PWNED`".to_owned(),
        ";touch PWNED;".to_owned(),
        "|touch PWNED".to_owned(),
        "\"'; touch PWNED; '\"".to_owned(),
        format!("x;touch {};", shown.to_string().replace('/', "$(printf '\\057')")),
        "line\nbreak".to_owned(),
        "--help".to_owned(),
        "back\\".to_owned(),
    ]
    .map(OsString::from)
    .into_iter()
    .chain([OsString::from_vec(b"caf\xe9".to_vec())])
    .collect();
    for name in &names {
        write(world.src.join(name), "content");
    }
    world.converges(soon());
    wait_for(soon(), "all names", || {
        let told: BTreeSet<Vec<u8>> = recorder.told().into_iter().map(|[_, _, path, _]| path).collect();
        let missing: Vec<_> = names.iter().filter(|name| !told.contains(name.as_bytes())).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });
    for [_, _, path, told] in recorder.told() {
        assert_eq!(told, [world.src.as_os_str().as_bytes(), b"//", &path].concat());
    }
    let found = Command::new("find").arg(world.base()).args(["-name", "PWNED"]).output().expect("find");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

/// `-m`: no rsync runs, only the plugin.
#[test]
fn m_runs_the_plugin_alone() {
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "");
    world.conf.plugin = None;
    let rsyncs = world.count_rsyncs();
    put(world.src.join("old/f"), "before");
    let conf = world.conf.save();
    let state = world.cli.state.clone();
    let args =
        [OsStr::new("-m"), "command".as_ref(), "-o".as_ref(), conf.as_ref(), "--state-dir".as_ref(), state.as_ref()];
    world.daemon = Some(Daemon::start(&world.cli, args));
    wait_for(soon(), "the watches", || {
        let state = world.cli.status().json["state"].clone();
        if state == "running" { Ok(()) } else { Err(state.to_string()) }
    });
    write(world.src.join("file"), "content");
    make_dir(world.src.join("dir/sub"));
    write(world.src.join("dir/sub/f"), "content");
    recorder.wait_told(&[
        "update file file",
        "update directory dir",
        "update directory dir/sub",
        "update file dir/sub/f",
    ]);
    recorder.forget();
    let outside = world.side("outside");
    put(outside.join("in/a"), "a");
    put(outside.join("in/b/c"), "c");
    fs::rename(outside.join("in"), world.src.join("in")).expect("cannot rename");
    fs::remove_file(world.src.join("old/f")).expect("cannot remove");
    recorder.wait_told(&["update directory in", "update file in/a", "update file in/b/c", "delete file old/f"]);
    assert!(!recorder.lines().contains("update directory old"), "{:?}", recorder.lines());
    recorder.forget();
    // A CDN needs another request for a directory than for a file, and a deleted path no longer shows its kind.
    fs::remove_dir_all(world.src.join("dir")).expect("cannot remove");
    fs::rename(world.src.join("in"), outside.join("out")).expect("cannot rename");
    recorder.wait_told(&["delete directory dir", "delete directory in"]);
    world.stop();
    assert_eq!(rsyncs.naming(""), 0);
    assert!(fs::read_dir(&world.dsts[0]).expect("the target").next().is_none());
}
