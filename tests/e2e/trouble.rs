//! One target is in trouble while another is well: the healthy target is not delayed. The sick target's trouble is explained,
//! the target is left in peace, and it catches up by itself. Two loopback addresses with one port stand for two hosts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::tree::differences;
use crate::harness::world::{RsyncCount, soon};
use crate::harness::{Rsyncd, World, is_root, make_dir, patterned, secs, skipped, wait_for, wait_until, write};

const SICK: &str = "127.0.0.2::m2";
const HEAL: Duration = Duration::from_secs(150);

/// `m1` on 127.0.0.1 stays well; `m2` is served by the second rsyncd, on 127.0.0.2.
fn two_hosts() -> (World, Rsyncd) {
    let mut world = World::new();
    let mut sick = Rsyncd::at(&world.base().join("rsyncd-sick"), "127.0.0.2", world.rsyncd.port);
    sick.module("m2", &world.dsts[1]);
    world.conf.local_paths.clear();
    let src = world.src.clone();
    world.conf.root(&src, &[("127.0.0.1", "m1"), ("127.0.0.2", "m2")]);
    (world, sick)
}

/// Whether a job belongs to the sick target, whose name may begin with a user.
fn sick(job: &Value) -> bool {
    job["target"].as_str().is_some_and(|target| target.ends_with(SICK))
}

struct Outage<'a> {
    /// One of these words, in lower case, must stand in the reason.
    words: &'a [&'a str],
    /// Whether the fault is the target's, so that no job's attempts may be counted.
    spares_attempts: bool,
}

impl Outage<'_> {
    /// Checks all that is promised while the trouble lasts.
    fn endure(&self, world: &World, count: &RsyncCount) {
        let began = Instant::now();
        let before = count.naming(SICK);
        for n in 0..10 {
            let name = format!("during{n}");
            write(world.src.join(&name), patterned(n, 2_000));
            wait_until(soon(), "a change on the healthy target", || world.arrived(0, &name));
        }
        wait_for(soon(), "the reason and a hint for the sick target", || {
            let status = world.cli.try_status()?;
            let target = status.target(SICK);
            let reason = target.reason.clone().unwrap_or_default().to_lowercase();
            let explained = self.words.iter().any(|word| reason.contains(word)) && target.hint.is_some();
            let differs = target.state != status.target("m1").state;
            if explained && differs { Ok(()) } else { Err(format!("{target:#?}")) }
        });
        for n in 10..20 {
            let name = format!("during{n}");
            write(world.src.join(&name), patterned(n, 2_000));
            wait_until(soon(), "a change on the healthy target", || world.arrived(0, &name));
        }
        assert!(differences(&world.src, &world.dsts[0], world.compare).is_empty() || !world.cli.status().is_idle());
        let jobs: Vec<_> = world.cli.list().into_iter().filter(sick).collect();
        assert!(!jobs.is_empty(), "the sick target has no jobs in the list");
        if self.spares_attempts {
            let counted: Vec<_> = jobs.iter().filter(|job| job["attempts"] != 0).collect();
            assert!(counted.is_empty(), "the target's fault is counted against jobs: {counted:?}");
        }
        let started = count.naming(SICK) - before;
        let bound = 15 + 3 * usize::try_from(began.elapsed().as_secs()).expect("seconds");
        assert!(started <= bound, "{started} rsync starts towards a sick target in {:?}", began.elapsed());
    }
}

fn seeded(world: &World) {
    for n in 0..10 {
        write(world.src.join(format!("before{n}")), patterned(n, 1_000));
    }
}

#[test]
fn l25_l8b_an_rsyncd_that_is_gone_delays_nobody_and_catches_up() {
    let (mut world, mut sick) = two_hosts();
    let count = world.count_rsyncs();
    seeded(&world);
    sick.start();
    world.start();
    world.converges(soon());
    sick.stop();
    Outage { words: &["refused", "(111)", "connect", "(104)", "closed"], spares_attempts: true }.endure(&world, &count);
    sick.start();
    world.converges(HEAL);
}

/// The target is down from the very beginning and across a restart: no job is forgotten.
#[test]
fn l7_l8d_what_waits_for_a_dead_target_survives_a_restart() {
    let (mut world, mut sick) = two_hosts();
    let count = world.count_rsyncs();
    seeded(&world);
    world.start();
    Outage { words: &["refused", "(111)", "connect"], spares_attempts: true }.endure(&world, &count);
    fs::remove_file(world.src.join("before3")).expect("cannot remove a file");
    world.stop();
    world.daemon().restart();
    write(world.src.join("bad\""), "an unbalanced quote");
    wait_until(soon(), "the healthy target", || world.arrived(0, "bad\"") && !world.dsts[0].join("before3").exists());
    sick.start();
    world.converges(HEAL);
}

#[test]
fn an_unknown_module_is_explained_and_heals_when_it_is_added() {
    let (mut world, sick) = two_hosts();
    drop(sick);
    let mut other = Rsyncd::at(&world.base().join("rsyncd-other"), "127.0.0.2", world.rsyncd.port);
    other.module("another", &world.side("another"));
    let count = world.count_rsyncs();
    seeded(&world);
    other.start();
    world.start();
    Outage { words: &["unknown module"], spares_attempts: true }.endure(&world, &count);
    other.module("m2", &world.dsts[1]);
    other.write_conf();
    world.converges(HEAL);
}

#[test]
fn a_wrong_password_is_explained_and_heals_when_it_is_put_right() {
    let (mut world, mut sick) = two_hosts();
    let count = world.count_rsyncs();
    let password = world.base().join("rsync.pas");
    write(&password, "secret\n");
    fs::set_permissions(&password, Permissions::from_mode(0o600)).expect("cannot chmod");
    world.conf.auth = Some(("backup".to_owned(), password));
    world.rsyncd.global("auth users", "backup").secret("backup", "secret");
    sick.global("auth users", "backup").secret("backup", "other");
    seeded(&world);
    sick.start();
    world.start();
    Outage { words: &["auth failed", "password", "authentication"], spares_attempts: true }.endure(&world, &count);
    sick.secret("backup", "secret").write_conf();
    world.converges(HEAL);
    let shown = world.daemon().log_text();
    assert!(!shown.contains("secret\n") && !shown.contains("=secret"), "the password is in the log");
}

#[test]
fn a_read_only_module_is_explained_and_heals() {
    let (mut world, mut sick) = two_hosts();
    let count = world.count_rsyncs();
    sick.module_option("m2", "read only", "yes");
    seeded(&world);
    sick.start();
    world.start();
    Outage { words: &["read only", "read-only"], spares_attempts: true }.endure(&world, &count);
    sick.module_option("m2", "read only", "no");
    sick.write_conf();
    world.converges(HEAL);
}

#[test]
fn a_module_whose_directory_is_missing_is_explained_and_heals() {
    let (mut world, mut sick) = two_hosts();
    let count = world.count_rsyncs();
    fs::remove_dir(&world.dsts[1]).expect("cannot remove the module's directory");
    seeded(&world);
    sick.start();
    world.start();
    Outage { words: &["chdir", "chroot", "directory"], spares_attempts: true }.endure(&world, &count);
    make_dir(&world.dsts[1]);
    world.converges(HEAL);
}

/// The server accepts connections and never says a word.
#[test]
fn l25_a_target_that_hangs_delays_nobody() {
    let (mut world, mut sick) = two_hosts();
    world.conf.timeout_s = Some(5);
    let listener = std::net::TcpListener::bind(("127.0.0.2", world.rsyncd.port)).expect("cannot listen");
    seeded(&world);
    world.start();
    for n in 0..20 {
        let name = format!("during{n}");
        write(world.src.join(&name), patterned(n, 2_000));
        wait_until(soon(), "a change on the healthy target", || world.arrived(0, &name));
    }
    wait_for(secs(60), "the reason for the silent target", || {
        let status = world.cli.try_status()?;
        if status.target(SICK).reason.is_some() { Ok(()) } else { Err(format!("{:#?}", status.targets)) }
    });
    drop(listener);
    sick.start();
    world.converges(HEAL);
}

/// A small tmpfs on the module's directory, unmounted at the end.
pub struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    pub fn mount(path: &'a Path, size: &str) -> Option<Self> {
        let option = format!("size={size},mode=0755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(path).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(path))
    }

    fn grow(&self, size: &str) {
        let option = format!("remount,size={size}");
        let grown = Command::new("mount").args(["-o", &option]).arg(self.0).status().expect("cannot start mount");
        assert!(grown.success(), "cannot grow the tmpfs: {grown}");
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

/// The comparison of a directory ended at the same large file each time. Nothing else in the directory arrived or was deleted,
/// not even the files whose deletion would have made room.
#[test]
fn a_large_file_without_room_keeps_nothing_else_of_its_directory_from_being_compared() {
    if !is_root() {
        return skipped("only root may mount");
    }
    let (mut world, mut sick) = two_hosts();
    let path = world.dsts[1].clone();
    let Some(_disk) = SmallDisk::mount(&path, "4m") else { return skipped("cannot mount a tmpfs") };
    seeded(&world);
    sick.start();
    make_dir(world.src.join("d"));
    write(world.src.join("d/large"), patterned(1, 3 << 20));
    write(world.src.join("d/obsolete"), patterned(2, 1 << 19));
    world.start();
    world.converges(soon());
    world.stop();
    // A copy of the whole file has to fit beside the old one.
    write(world.src.join("d/large"), patterned(3, 3 << 20));
    fs::remove_file(world.src.join("d/obsolete")).expect("removed");
    for n in 0..20 {
        write(world.src.join(format!("d/small{n}")), "small");
    }
    // Remove the store, so that the start cannot know what has changed.
    fs::remove_dir_all(&world.cli.state).expect("removed");
    world.start_daemon(&["-r"]);
    wait_until(soon(), "what fits", || (0..20).all(|n| world.arrived(1, format!("d/small{n}"))));
    wait_until(soon(), "the deletion", || !path.join("d/obsolete").exists());
    wait_for(soon(), "the file to be named", || {
        let listed = world.cli.list();
        let is_named = |job: &serde_json::Value| job["path"] == "d/large" && job["error"].to_string().contains("full");
        if listed.iter().any(is_named) { Ok(()) } else { Err(format!("{listed:?}")) }
    });
    sick.stop();
}

#[test]
fn a_full_target_disk_is_explained_and_heals_when_there_is_room() {
    if !is_root() {
        return skipped("only root may mount");
    }
    let (mut world, mut sick) = two_hosts();
    let path = world.dsts[1].clone();
    let Some(disk) = SmallDisk::mount(&path, "2m") else { return skipped("cannot mount a tmpfs") };
    seeded(&world);
    sick.start();
    world.start();
    world.converges(soon());
    for n in 0..8 {
        write(world.src.join(format!("big{n}")), patterned(n, 1 << 20));
    }
    wait_until(soon(), "the healthy target", || (0..8).all(|n| world.arrived(0, format!("big{n}"))));
    wait_for(soon(), "the full disk to be named", || {
        let target = world.cli.try_status()?.target(SICK).clone();
        let errors: String = world.cli.list().iter().map(|job| job["error"].to_string()).collect();
        let said = format!("{target:?} {errors}").to_lowercase();
        if said.contains("no space") || said.contains("(28)") || said.contains("full") { Ok(()) } else { Err(said) }
    });
    write(world.src.join("during"), "while one disk is full");
    wait_until(soon(), "a change on the healthy target", || world.arrived(0, "during"));
    disk.grow("64m");
    world.converges(HEAL);
    sick.stop();
}
