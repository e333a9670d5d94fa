//! A user who may write in the source swaps directories for links, so that root's rsync reads or writes behind them. No file of
//! root's may be sent, overwritten or deleted, with any version of rsync and any way to the target.
//!
//! The links belong to an ordinary user, like an attacker's own; the swapping is done by the test itself. If the machine's
//! rsync is newer than 3.5.0, one of `tools/rsyncs` is used instead, if it is there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};

use crate::harness::rsync::Side;
use crate::harness::world::soon;
use crate::harness::{Daemon, World, is_root, make_dir, skipped, write};
use crate::ssh;

const NOBODY: u32 = 65_534;
/// Enough pairs that none is swapped so often in a row that syncq lets its path rest.
const PAIRS: usize = 100;
const FILES: usize = 20;
const KEPT: &[u8] = b"ROOT KEEPS THIS";
const GOES_ON: Duration = Duration::from_secs(12);

/// Whether the attack can be made here. Puts an older rsync first in `PATH`.
fn prepared(world: &mut World) -> bool {
    if !is_root() {
        skipped("root");
        return false;
    }
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/rsyncs/bookworm/bin");
    if std::env::var_os(Side::Client.variable()).is_none() && old.join("rsync").exists() {
        world.cli.bin = Some(old);
    }
    true
}

/// Root's directory, in which nothing may change.
fn secret(world: &World) -> PathBuf {
    let secret = world.side("secret");
    for n in 0..FILES {
        write(secret.join(format!("k{n}")), KEPT);
        fs::set_permissions(secret.join(format!("k{n}")), fs::Permissions::from_mode(0o600)).expect("cannot chmod");
    }
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).expect("cannot chmod");
    secret
}

/// The content of root's directory.
fn listed(secret: &Path) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    let entries = fs::read_dir(secret).expect("cannot list root's directory").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let inode = entry.metadata().expect("an entry").ino();
            (entry.path(), (inode, fs::read(entry.path()).expect("cannot read root's file")))
        })
        .collect()
}

/// Swaps the pairs in turn, one of each being a directory and the other a link to root's directory. Writes and deletes files
/// with the names of root's files, until told to end.
fn swap(src: &Path, ends: &AtomicBool) {
    let mut rng = fastrand::Rng::with_seed(7);
    for n in (0..PAIRS).cycle() {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        let (one, other) = (src.join(format!("a{n}")), src.join(format!("b{n}")));
        let real = if one.is_symlink() { &other } else { &one };
        let name = real.join(format!("k{}", rng.usize(..FILES)));
        File::create(&name).expect("cannot make a file of the user's");
        std::thread::sleep(Duration::from_millis(rng.u64(..15)));
        renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).expect("cannot exchange");
        std::thread::sleep(Duration::from_millis(rng.u64(..10)));
        let real = if one.is_symlink() { &other } else { &one };
        // Never follow the link: this process is root.
        let dir = openat(CWD, real, OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).expect("the directory");
        let _ = unlinkat(&dir, name.file_name().expect("a name"), AtFlags::empty());
    }
}

fn pairs(src: &Path, secret: &Path) {
    for n in 0..PAIRS {
        make_dir(src.join(format!("a{n}")));
        lchown(src.join(format!("a{n}")), Some(NOBODY), Some(NOBODY)).expect("cannot chown");
        symlink(secret, src.join(format!("b{n}"))).expect("cannot link");
        lchown(src.join(format!("b{n}")), Some(NOBODY), Some(NOBODY)).expect("cannot chown");
    }
    lchown(src, Some(NOBODY), Some(NOBODY)).expect("cannot chown");
}

/// Finds a file of root's at a target. Follows no link: the destination of a mirrored link was not sent.
fn leaked(dst: &Path) -> Option<PathBuf> {
    let open = |dir: &OwnedFd, name: &[u8], flags| openat(dir, name, flags | OFlags::NOFOLLOW, Mode::empty()).ok();
    let top = openat(CWD, dst, OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    for name in (0..PAIRS).flat_map(|n| [format!("a{n}"), format!("b{n}")]) {
        let Some(dir) = open(&top, name.as_bytes(), OFlags::DIRECTORY) else { continue };
        let Ok(entries) = Dir::read_from(&dir) else { continue };
        for entry in entries.flatten().map(|entry| entry.file_name().to_owned()) {
            let Some(file) = open(&dir, entry.to_bytes(), OFlags::NONBLOCK) else { continue };
            let mut content = Vec::new();
            if File::from(file).read_to_end(&mut content).is_ok() && content.starts_with(KEPT) {
                return Some(dst.join(name).join(std::ffi::OsStr::from_bytes(entry.to_bytes())));
            }
        }
    }
    None
}

/// Attacks a running mirror, and keeps looking at its targets and at root's directory. If `changes` is false, the look at
/// root's directory is left out: a receiver on another machine may follow links there, which this side cannot prevent.
fn attack(world: &mut World, dsts: &[PathBuf], secret: &Path, changes: bool) {
    let (ends, before) = (AtomicBool::new(false), listed(secret));
    let src = world.src.clone();
    let is_changed = || changes && listed(secret) != before;
    let found = std::thread::scope(|scope| {
        scope.spawn(|| swap(&src, &ends));
        let begun = Instant::now();
        let mut found = None;
        while begun.elapsed() < GOES_ON && found.is_none() {
            found = dsts.iter().find_map(|dst| leaked(dst)).map(|path| format!("{} was sent", path.display()));
            found = found.or_else(|| is_changed().then(|| "root's files were changed".to_owned()));
            std::thread::sleep(Duration::from_millis(2));
        }
        ends.store(true, Ordering::Relaxed);
        found
    });
    assert_eq!(found, None, "through a link that was swapped in");
    let dsts: Vec<&Path> = dsts.iter().map(PathBuf::as_path).collect();
    world.equal_within(&world.src, &dsts, soon());
    assert!(!is_changed(), "root's files were changed at last");
}

#[test]
fn nothing_of_roots_is_sent_to_a_daemon() {
    let mut world = World::new();
    if !prepared(&mut world) {
        return;
    }
    let secret = secret(&world);
    pairs(&world.src, &secret);
    world.start();
    let dsts = world.dsts.clone();
    attack(&mut world, &dsts, &secret, true);
    world.stop();
}

#[test]
fn nothing_of_roots_is_sent_to_or_changed_behind_a_local_target() {
    let mut world = World::new();
    if !prepared(&mut world) {
        return;
    }
    let secret = secret(&world);
    pairs(&world.src, &secret);
    let local = world.side("local");
    let words = ["mirror".into(), world.src.clone().into(), local.clone().into_os_string(), "--state-dir".into()];
    let args: Vec<std::ffi::OsString> = words.into_iter().chain([world.cli.state.clone().into()]).collect();
    world.daemon = Some(Daemon::start(&world.cli, args));
    attack(&mut world, &[local], &secret, true);
    world.stop();
}

/// An ssh that connects for each run was not confined.
#[test]
fn nothing_of_roots_is_sent_through_ssh() {
    for share in [true, false] {
        let Some((mut world, _sshd)) = ssh::world() else { return };
        if !prepared(&mut world) {
            return;
        }
        let secret = secret(&world);
        pairs(&world.src, &secret);
        world.conf.syncq = format!("<ssh share=\"{share}\"/>");
        world.start_daemon(&[]);
        let dsts = world.dsts.clone();
        let told = world.daemon().log_text();
        assert!(!told.contains("any file of this user"), "{told}");
        attack(&mut world, &dsts, &secret, false);
        world.stop();
    }
}
