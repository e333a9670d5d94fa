//! A check changes nothing and leaves nothing behind, on targets that are equal, different, missing or busy.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::{check, names, picture, program, with_module};
use crate::harness::rsync::{Side, rsync};
use crate::harness::{World, make_dir, patterned, write};

#[test]
fn all_is_well_and_equal_targets_stay_as_they_are() {
    let mut world = World::new();
    make_dir(world.src.join("d"));
    write(world.src.join("d/f"), patterned(1, 10_000));
    world.rsyncd.start();
    let mut trees = vec![world.src.clone()];
    trees.extend(world.dsts.clone());
    for dst in &world.dsts {
        let copied = Command::new("rsync")
            .args(["-a", "--modify-window=-1"])
            .arg(format!("{}/", world.src.display()))
            .arg(dst)
            .status();
        assert!(copied.expect("rsync").success());
    }
    let before: Vec<_> = trees.iter().map(|tree| picture(tree)).collect();
    let found = check(&world, &[]);
    assert_eq!(found.code, Some(0), "{}", found.text);
    for target in ["::m1", "::m2"] {
        found.has(target, "ok", "answers; its rsync speaks protocol");
        found.has(target, "ok", "writable: a small file was sent and deleted again");
    }
    found.has("rsync", "ok", "version 3.");
    assert!(found.lines.iter().all(|line| line["level"] != "fail"), "{}", found.text);
    let after: Vec<_> = trees.iter().map(|tree| picture(tree)).collect();
    assert_eq!(before, after);
    assert!(!world.cli.state.exists(), "the state directory was made");
    assert_eq!(names(&world.cli.home).len(), 1, "{:?}", names(&world.cli.home));
    // The same findings in lines for people.
    let conf = world.conf.save();
    let text = world.cli.run(["check".as_ref(), "-o".as_ref(), conf.as_os_str()]).ok().stdout;
    assert!(text.contains("ok    target    127.0.0.1::m1: answers") && text.contains("    root "), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("0 failures, ")), "{text}");
}

/// A target that differs has its directory's time changed, as by any write into the directory, but no entry.
#[test]
fn nothing_is_left_on_a_target_that_differs() {
    for delete in [true, false] {
        let mut world = with_module(&[]);
        world.conf.delete = delete;
        write(world.dsts[0].join("other"), "other");
        world.rsyncd.start();
        let (src, dst) = (picture(&world.src), names(&world.dsts[0]));
        let found = check(&world, &[]);
        found.has("::m1", "ok", "writable");
        assert_eq!((src, dst), (picture(&world.src), names(&world.dsts[0])));
        assert_eq!(fs::read(world.dsts[0].join("other")).expect("the file"), b"other");
    }
}

#[test]
fn without_the_write_probe_only_dry_runs_are_made() {
    let mut world = with_module(&[]);
    let count = world.count_rsyncs();
    world.rsyncd.start();
    let before = picture(&world.dsts[0]);
    let found = check(&world, &["--no-write-probe"]);
    assert_eq!(found.code, Some(0), "{}", found.text);
    found.has("::m1", "ok", "was not tried: that was not asked for");
    assert_eq!(picture(&world.dsts[0]), before);
    assert!(count.naming("::m1") >= 2 && count.naming("::m1") == count.naming(" -n "), "more than dry runs");
    // With --offline no server is asked.
    let asked = count.naming("::m1");
    let found = check(&world, &["--offline"]);
    assert!(found.code == Some(0) && found.of("::m1").is_empty(), "{}", found.text);
    assert_eq!(count.naming("::m1"), asked);
}

#[test]
fn a_destination_that_is_not_there_yet_is_not_made() {
    let mut world = with_module(&[]);
    world.conf.local_paths.clear();
    let src = world.src.clone();
    world.conf.root(&src, &[("127.0.0.1", "m1/not"), ("127.0.0.1", "m1/new/yet")]);
    world.rsyncd.start();
    let found = check(&world, &[]);
    assert_eq!(found.code, Some(0), "{}", found.text);
    found.has("::m1/not", "ok", "not there yet");
    found.has("::m1/new/yet", "ok", "not there yet");
    assert_eq!(names(&world.dsts[0]).len(), 1);
}

#[test]
fn a_daemon_at_work_is_noticed_and_not_disturbed() {
    let mut world = with_module(&[]);
    world.start();
    world.converges_only_m1();
    let found = check(&world, &[]);
    assert_eq!(found.code, Some(0), "{}", found.text);
    let pid = world.daemon().pid();
    found.has("/state", "ok", &format!("a daemon is running here, pid {pid}"));
    write(world.src.join("b"), "b");
    world.converges_only_m1();
}

/// The connection breaks right after the probe file has been written. The file has to be removed all the same. Where it cannot
/// be removed, its name is told.
#[test]
fn a_run_that_breaks_off_leaves_no_file_behind_unnoticed() {
    // The first run that writes succeeds and is reported as broken; the second run is the deletion.
    const BREAKS: &str = "case \"$*\" in *--omit-dir-times*) ;; *) exec REAL \"$@\";; esac\n\
        if [ ! -e MARK ]; then touch MARK; REAL \"$@\"; FIRST; else SECOND; fi";
    const BROKEN: &str = "echo 'rsync: connection unexpectedly closed' >&2; exit 12";
    for (first, second, left) in [(BROKEN, "exec REAL \"$@\"", 0), ("exit 0", BROKEN, 1), (BROKEN, BROKEN, 1)] {
        let mut world = with_module(&[]);
        write(world.dsts[0].join("other"), "other");
        // A mode other than the source's, so that both runs start in another directory.
        fs::set_permissions(&world.dsts[0], Permissions::from_mode(0o777)).expect("chmod");
        let real = rsync(Side::Client);
        let mark = world.base().join("mark");
        let script = BREAKS.replace("FIRST", first).replace("SECOND", second);
        let script =
            script.replace("REAL", real.to_str().expect("UTF-8")).replace("MARK", mark.to_str().expect("UTF-8"));
        program(&mut world, "rsync", &script);
        world.rsyncd.start();
        let found = check(&world, &[]);
        let there = names(&world.dsts[0]);
        assert_eq!(there.len(), 2 + left, "{there:?}\n{}", found.text);
        if first == BROKEN {
            found.fails("::m1", "the connection broke");
        }
        if left > 0 {
            let line = found.has("::m1", "warn", "could not be deleted again");
            let is_named = |path: &&PathBuf| {
                let name = path.file_name().expect("a name").to_str().expect("UTF-8");
                name.starts_with(".syncq-check.") && line["message"].as_str().is_some_and(|said| said.contains(name))
            };
            assert!(there.iter().any(|path| is_named(&path)), "{line}");
        }
    }
}

#[test]
fn a_target_that_would_keep_a_copy_is_not_written_to() {
    let mut world = with_module(&[]);
    world.conf.params = "-arzb".to_owned();
    world.rsyncd.start();
    let found = check(&world, &[]);
    found.has("::m1", "ok", "the params keep a backup");
    assert_eq!(names(&world.dsts[0]).len(), 1);
    // Exclude the probe file's name, so that the file cannot be sent.
    world.conf.params = "-arz --exclude=.*".to_owned();
    let found = check(&world, &[]);
    found.has("::m1", "ok", "the params keep the file for that from being sent");
    assert_eq!(names(&world.dsts[0]).len(), 1);
}
