//! Destinations that are refused before anything is written, and destinations whose server has oddities.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::harness::{Daemon, Ended, World, is_root, make_dir, secs, skipped, wait_until, write};

fn mirror(world: &World, arguments: &[&str]) -> Ended {
    let mut line = vec!["mirror".to_owned(), world.src.display().to_string()];
    line.extend(arguments.iter().map(|&argument| argument.to_owned()));
    line.extend(["--state-dir".to_owned(), world.cli.state.display().to_string()]);
    world.cli.run(line)
}

fn started(world: &World, source: &Path, destination: &str) -> Daemon {
    let state = world.cli.state.display().to_string();
    Daemon::start(&world.cli, ["mirror", &source.display().to_string(), destination, "--state-dir", &state])
}

/// Such destinations were accepted, and the mirror's deletions removed the queue or the source.
#[test]
fn what_would_delete_its_own_is_refused_and_nothing_is_written() {
    let mut world = World::new();
    let inside = world.src.join("inside");
    make_dir(&inside);
    write(world.src.join("a"), "1");
    world.rsyncd.module("inside", &inside);
    let base = world.base().to_owned();
    world.rsyncd.module("base", &base);
    world.rsyncd.write_conf();
    world.rsyncd.start();
    let port = world.rsyncd.port;
    let dst = world.base().join("dst");
    let url = |module: &str| format!("rsync://127.0.0.1:{port}/{module}");
    let (nested, base) = (url("inside/deep"), url("base"));
    let (dst, own_state) = (dst.display().to_string(), world.cli.state.display().to_string());
    for (destinations, words) in [
        (&[nested.as_str()][..], "inside the source"),
        (&[base.as_str()], "inside the destination"),
        (&[dst.as_str(), dst.as_str()], "given twice"),
        (&[own_state.as_str()], "state directory"),
        (&[dst.as_str(), "--delete", "false"], "--delete=false"),
        (&["u:S3cret@127.0.0.1::m"], "password"),
        (&["~/mirror"], "home directory"),
    ] {
        let ended = mirror(&world, destinations);
        let text = ended.text();
        assert!(matches!(ended.code, Some(2 | 78)), "{destinations:?}: {text}");
        assert!(
            text.contains(words) && text.contains("hint: ") && !text.contains("S3cret"),
            "{destinations:?}: {text}"
        );
        assert!(!Path::new(&dst).exists() && !inside.join("deep").exists(), "{destinations:?}: {text}");
    }
}

/// A source that is a symbolic link was resolved at the start only, so a later switch of the link was never seen.
#[test]
fn a_source_that_is_switched_to_another_directory_is_noticed() {
    let world = World::new();
    let (one, other, link) = (world.base().join("one"), world.base().join("other"), world.base().join("current"));
    make_dir(&one);
    make_dir(&other);
    write(one.join("a"), "one");
    write(other.join("b"), "other");
    symlink(&one, &link).expect("a link");
    let dst = world.base().join("dst");
    let mut daemon = started(&world, &link, &dst.display().to_string());
    wait_until(secs(20), "the first file to arrive", || dst.join("a").exists());
    assert!(daemon.log_text().contains("through a link"), "{}", daemon.log_text());
    let new = world.base().join("new");
    symlink(&other, &new).expect("a link");
    fs::rename(&new, &link).expect("renamed");
    wait_until(secs(40), "the other directory to be noticed", || {
        daemon.log_text().contains("another directory has taken the place of the source")
    });
    assert!(dst.join("a").exists() && !dst.join("b").exists());
    daemon.stop();
}

/// If the target stores whole seconds only, each comparison sent all files again.
#[test]
fn whole_seconds_are_found_out_and_compared_as_such() {
    if !is_root() {
        return skipped("mounting takes root");
    }
    let mut world = World::new();
    let dst = world.base().join("coarse");
    let image = world.base().join("image");
    make_dir(&dst);
    let script = format!(
        "dd if=/dev/zero of={0} bs=1M count=20 status=none && mkfs.ext4 -q -I 128 -F {0} && mount -o loop {0} {1}",
        image.display(),
        dst.display()
    );
    if !Command::new("sh").args(["-c", &script]).output().is_ok_and(|made| made.status.success()) {
        return skipped("no file system with whole seconds can be mounted");
    }
    struct Mounted(std::path::PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _mounted = Mounted(dst.clone());
    world.rsyncd.module("coarse", &dst);
    world.rsyncd.write_conf();
    world.rsyncd.start();
    for name in ["a", "b", "c", "d"] {
        write(world.src.join(name), name);
        let made =
            Command::new("touch").args(["-d", "2025-03-01 10:00:00.123456789"]).arg(world.src.join(name)).status();
        assert!(made.is_ok_and(|made| made.success()));
    }
    let url = format!("rsync://127.0.0.1:{}/coarse", world.rsyncd.port);
    let mut daemon = started(&world, &world.src, &url);
    world.cli.wait_idle(secs(30));
    drop(world.cli.run(["reconcile", "--wait", "--state-dir", &world.cli.state.display().to_string()]).ok());
    world.cli.wait_idle(secs(30));
    assert!(daemon.log_text().contains("keeps whole seconds"), "{}", daemon.log_text());
    let verified = world.cli.run(["verify", "--state-dir", &world.cli.state.display().to_string()]);
    assert_eq!(verified.code, Some(0), "{}", verified.text());
    daemon.stop();
}

/// rsync took its own variables from the environment, and nothing was said.
#[test]
fn a_password_in_the_environment_is_used_and_said() {
    let mut world = World::new();
    world.rsyncd.module_option("m1", "auth users", "u").secret("u", "S3cret");
    world.rsyncd.write_conf();
    world.rsyncd.start();
    world.cli.env.push(("RSYNC_PASSWORD".into(), "S3cret".into()));
    write(world.src.join("a"), "1");
    let url = format!("rsync://u@127.0.0.1:{}/m1", world.rsyncd.port);
    let mut daemon = started(&world, &world.src, &url);
    wait_until(secs(20), "the file to arrive", || world.dsts[0].join("a").exists());
    let log = daemon.log_text();
    assert!(log.matches("RSYNC_PASSWORD is used").count() == 1 && !log.contains("S3cret"), "{log}");
    daemon.stop();
}
