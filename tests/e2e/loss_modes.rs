//! The rest of the list of sersync's losses, beside the themes in the other files. Each test's name begins with its row in that
//! list: `cargo test --test e2e l8` runs all tests of row L8.

use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::Signal;

use crate::harness::world::soon;
use crate::harness::{
    Conf, Daemon, Rsyncd, World, append, is_root, make_dir, outward, patterned, secs, set_mtime, skipped, wait_for,
    wait_until, write,
};

const HEAL: Duration = Duration::from_secs(150);

fn chmod(path: impl AsRef<std::path::Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("cannot chmod");
}

/// In sersync both retries and whole-tree runs wait for a minute without any failure.
#[test]
fn l8_a_file_that_fails_for_ever_holds_up_neither_retries_nor_whole_tree_runs() {
    if !is_root() {
        return skipped("needs a daemon of another user");
    }
    let mut world = World::new();
    world.conf.schedule = Some("*/2 * * * * *".to_owned());
    world.conf.syncq = "<backoff base=\"1s\" cap=\"3s\"/>".to_owned();
    for name in ["never", "later", "stays"] {
        write(world.src.join(name), name);
    }
    world.become_nobody();
    for name in ["never", "later"] {
        chmod(world.src.join(name), 0o000);
    }
    world.start();
    wait_for(soon(), "both files to be listed as failing", || {
        let jobs = world.cli.list();
        let failing = |name: &str| jobs.iter().any(|job| job["path"] == name && job["attempts"].as_u64() >= Some(1));
        if failing("never") && failing("later") { Ok(()) } else { Err(format!("{jobs:?}")) }
    });
    // The source shows nothing of this damage; only a whole-tree run can find it.
    for dst in &world.dsts {
        fs::remove_file(dst.join("stays")).expect("cannot remove a file of the target");
    }
    chmod(world.src.join("later"), 0o644);
    let mut touched = 0;
    wait_until(secs(60), "the whole-tree run and the retry", || {
        touched += 1;
        append(world.src.join("never"), "touched");
        (0..2).all(|n| world.arrived(n, "stays") && world.arrived(n, "later"))
    });
    assert!(touched > 0 && !world.dsts[0].join("never").exists(), "the file that must fail has not");
}

/// In sersync each daemon truncates the other's list.
#[test]
fn l8c_two_configurations_with_one_fail_log_keep_their_jobs_apart() {
    let mut world = World::new();
    let second = world.side("second");
    let target = world.side("m3");
    world.rsyncd.module("m3", &target);
    let mut other = Conf::new(world.base(), "other.xml", world.rsyncd.port);
    other.root(&second, &[("127.0.0.1", "m3")]);
    other.fail_log.clone_from(&world.conf.fail_log);
    let mut cli = world.cli.clone();
    cli.state = world.base().join("state2");
    cli.home = world.side("home2");
    // No server runs yet, so every job waits.
    world.start_daemon(&[]);
    let args = ["run".into(), "-o".into(), other.save().into_os_string(), "--state-dir".into()];
    let mut daemon = Daemon::start(&cli, args.into_iter().chain([cli.state.clone().into_os_string()]));
    for n in 0..30 {
        write(world.src.join(format!("{n}")), "first");
        write(second.join(format!("{n}")), "second");
    }
    wait_until(soon(), "both to have jobs that wait", || {
        [&world.cli, &cli].iter().all(|cli| cli.try_status().is_ok_and(|status| !status.is_idle()))
    });
    world.daemon().kill9();
    daemon.kill9();
    world.daemon().restart();
    daemon.restart();
    world.rsyncd.start();
    world.converges(HEAL);
    wait_until(HEAL, "the second tree", || {
        crate::harness::tree::differences(&second, &target, world.compare).is_empty()
    });
    daemon.stop();
}

#[test]
fn l8e_a_fail_log_in_a_missing_directory_costs_nothing() {
    let mut world = World::new();
    world.conf.fail_log = world.base().join("no such directory/rsync_fail_log.sh");
    write(world.src.join("before"), "before");
    world.start_daemon(&[]);
    write(world.src.join("during"), "no server yet");
    wait_for(soon(), "the targets' trouble", || {
        let status = world.cli.try_status()?;
        if status.targets.iter().all(|target| target.reason.is_some()) { Ok(()) } else { Err(status.json.to_string()) }
    });
    world.rsyncd.start();
    world.converges(HEAL);
}

/// With and without the switch that makes sersync follow symbolic links in circles.
#[test]
fn l14_the_xfs_switch_neither_hides_directories_nor_follows_links() {
    for xfs in [false, true] {
        let mut world = World::new();
        world.conf.xfs = xfs;
        for n in 0..5 {
            make_dir(world.src.join(format!("d{n}/e")));
            for (name, target) in [("up", ".."), ("self", "."), ("root", outward("/")), ("next", "../../d0")] {
                symlink(target, world.src.join(format!("d{n}/e/{name}"))).expect("cannot create a symlink");
            }
        }
        world.start();
        write(world.src.join("d4/e/file"), "watched");
        world.converges(soon());
        // Watches for the root, five directories and one directory in each: no link was followed.
        assert_eq!(world.cli.status().json["watches"]["used"], 11);
    }
}

/// With `-u` among the params, rsync skips files that are newer on the target.
#[test]
fn l22_files_unpacked_with_old_times_replace_newer_ones() {
    let mut world = World::new();
    world.conf.params = "-artuz".to_owned();
    let packed = world.side("packed");
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    make_dir(packed.join("dir"));
    for name in ["file", "dir/inside"] {
        write(packed.join(name), "from the archive");
        set_mtime(packed.join(name), old);
    }
    make_dir(world.src.join("dir"));
    for name in ["file", "dir/inside", "other"] {
        write(world.src.join(name), "the newer one");
    }
    world.start();
    world.converges(soon());
    let archive = world.base().join("archive.tar");
    let tar = |args: &[&std::ffi::OsStr]| Command::new("tar").args(args).status().is_ok_and(|status| status.success());
    let made =
        tar(&["-cf".as_ref(), archive.as_ref(), "-C".as_ref(), packed.as_ref(), "file".as_ref(), "dir".as_ref()]);
    if !made || !tar(&["-xf".as_ref(), archive.as_ref(), "-C".as_ref(), world.src.as_ref()]) {
        return skipped("no tar");
    }
    // tar sets a directory's time last of all, which only attrib reports.
    world.compare.dir_times = false;
    world.converges(soon());
    assert_eq!(fs::read(world.dsts[0].join("dir/inside")).expect("a file"), b"from the archive");
}

/// A host whose packets vanish: nothing refuses and nothing answers. In this test the server's queue of connections is full.
#[test]
fn l25_a_target_behind_a_black_hole_delays_nobody() {
    let mut world = World::new();
    let port = world.rsyncd.port;
    let mut sick = Rsyncd::at(&world.base().join("rsyncd-sick"), "127.0.0.2", port);
    sick.module("m2", &world.dsts[1]);
    world.conf.local_paths.clear();
    world.conf.timeout_s = Some(5);
    let src = world.src.clone();
    world.conf.root(&src, &[("127.0.0.1", "m1"), ("127.0.0.2", "m2")]);
    let address = SocketAddrV4::new([127, 0, 0, 2].into(), port);
    let hole = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    rustix::net::sockopt::set_socket_reuseaddr(&hole, true).expect("an address to use again");
    bind(&hole, &address).expect("cannot bind");
    listen(&hole, 0).expect("cannot listen");
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address.into(), Duration::from_millis(300)) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the server's queue does not fill");
    }
    write(world.src.join("before"), "before");
    world.start();
    for n in 0..20 {
        let name = format!("during{n}");
        write(world.src.join(&name), patterned(n, 2_000));
        wait_until(soon(), "a change on the healthy target", || world.arrived(0, &name));
    }
    wait_for(secs(90), "the reason for the silent target", || {
        let status = world.cli.try_status()?;
        if status.target("m2").reason.is_some() { Ok(()) } else { Err(status.json.to_string()) }
    });
    assert!(world.cli.status().target("m1").reason.is_none());
    drop((waiting, hole));
    sick.start();
    world.converges(HEAL);
}

/// The server's machine is up but its processes are stopped: connections are accepted, and nothing is said.
#[test]
fn l25_a_server_that_stands_still_delays_nobody() {
    let mut world = World::new();
    let mut sick = Rsyncd::at(&world.base().join("rsyncd-sick"), "127.0.0.2", world.rsyncd.port);
    sick.module("m2", &world.dsts[1]);
    world.conf.local_paths.clear();
    world.conf.timeout_s = Some(5);
    let src = world.src.clone();
    world.conf.root(&src, &[("127.0.0.1", "m1"), ("127.0.0.2", "m2")]);
    write(world.src.join("before"), "before");
    sick.start();
    world.start();
    world.converges(soon());
    sick.signal(Signal::STOP);
    for n in 0..20 {
        let name = format!("during{n}");
        write(world.src.join(&name), patterned(n, 2_000));
        wait_until(soon(), "a change on the healthy target", || world.arrived(0, &name));
    }
    wait_for(secs(90), "the reason for the silent target", || {
        let status = world.cli.try_status()?;
        if status.target("m2").reason.is_some() { Ok(()) } else { Err(status.json.to_string()) }
    });
    sick.signal(Signal::CONT);
    world.converges(HEAL);
}

#[test]
fn l28_odd_characters_in_the_password_file_and_the_fail_log_work() {
    let mut world = World::new();
    let dir = world.side("a b;touch PWNED;'$(touch PWNED)");
    let password = dir.join("rsync `touch PWNED`.pas");
    write(&password, "secret\n");
    chmod(&password, 0o600);
    world.conf.auth = Some(("backup".to_owned(), password));
    world.conf.fail_log = dir.join("fail log & touch PWNED");
    world.rsyncd.global("auth users", "backup").secret("backup", "secret");
    write(world.src.join("file"), "content");
    world.start();
    world.converges(soon());
    write(world.src.join("file"), "changed content");
    world.converges(soon());
    for place in [world.base(), &dir, &world.src, &world.cli.home, &world.cli.state] {
        assert!(!place.join("PWNED").exists(), "a path was run as a command in {}", place.display());
    }
}

#[test]
fn l30_hard_links_and_holes_survive_where_params_ask_for_them() {
    const HOLE: u64 = 16 << 20;
    let mut world = World::new();
    world.conf.params = "-artHS".to_owned();
    world.compare.hard_links = true;
    let linked = |world: &World, name: &str| {
        write(world.src.join(name), name);
        fs::hard_link(world.src.join(name), world.src.join(format!("{name} too"))).expect("cannot link");
    };
    let sparse = |world: &World, name: &str| {
        let mut file = File::create(world.src.join(name)).expect("cannot create a file");
        file.seek(SeekFrom::Start(HOLE)).expect("cannot seek");
        file.write_all(b"after the hole").expect("cannot write");
    };
    linked(&world, "at the start");
    sparse(&world, "sparse at the start");
    if fs::metadata(world.src.join("sparse at the start")).expect("a file").blocks() * 512 > HOLE / 2 {
        return skipped("the file system knows no holes");
    }
    world.start();
    world.converges(soon());
    // Both names come in one move, as in a restore, and are sent together.
    let aside = world.side("aside");
    make_dir(aside.join("batch"));
    write(aside.join("batch/one"), "shared");
    fs::hard_link(aside.join("batch/one"), aside.join("batch/two")).expect("cannot link");
    fs::rename(aside.join("batch"), world.src.join("batch")).expect("cannot move in");
    sparse(&world, "sparse later");
    world.converges(soon());
    for dst in &world.dsts {
        for name in ["sparse at the start", "sparse later"] {
            let bytes = fs::metadata(dst.join(name)).expect("a file").blocks() * 512;
            assert!(bytes < HOLE / 2, "{name} takes {bytes} bytes on the target");
        }
    }
}

/// If the list is a symbolic link, sersync appends to, truncates and changes the mode of any file.
#[test]
fn s3_a_link_in_the_place_of_the_fail_log_is_not_followed() {
    let mut world = World::new();
    let victim = world.base().join("victim");
    write(&victim, "untouched");
    chmod(&victim, 0o600);
    symlink(&victim, &world.conf.fail_log).expect("cannot create a symlink");
    // No server runs yet, so that there is a failure to note.
    world.start_daemon(&[]);
    write(world.src.join("file"), "content");
    wait_for(soon(), "the targets' trouble", || {
        let status = world.cli.try_status()?;
        if status.targets.iter().all(|target| target.reason.is_some()) { Ok(()) } else { Err(status.json.to_string()) }
    });
    world.rsyncd.start();
    world.converges(HEAL);
    world.stop();
    assert_eq!(fs::read(&victim).expect("the victim"), b"untouched");
    assert_eq!(fs::metadata(&victim).expect("the victim").permissions().mode() & 0o777, 0o600);
}

#[test]
fn s6_nothing_that_a_daemon_makes_is_open_to_everybody() {
    let mut world = World::new();
    // The umask that sersync sets, and that a careless parent may set.
    world.cli.wrapper = ["sh", "-c", "umask 000 && exec \"$@\"", "sh"].map(Into::into).to_vec();
    write(world.src.join("file"), "content");
    world.start();
    world.converges(soon());
    let mut left = vec![world.cli.state.clone()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).expect("a file of the state directory");
        assert_eq!(meta.permissions().mode() & 0o022, 0, "{} is open to others", path.display());
        if meta.is_dir() {
            let entries = fs::read_dir(&path).expect("cannot list a directory");
            left.extend(entries.map(|entry| entry.expect("cannot list a directory").path()));
        }
    }
}

#[test]
fn s6_sysctls_are_never_lowered() {
    use crate::harness::inotify::{EventQueueLimit, SYSCTL};
    const HIGHER: u32 = 400_000;
    if !is_root() {
        return skipped("only root may write sysctls");
    }
    let watches = || fs::read_to_string(format!("{SYSCTL}/max_user_watches")).expect("a limit");
    let events = || fs::read_to_string(format!("{SYSCTL}/max_queued_events")).expect("a limit");
    let mut world = World::new();
    let Some(higher) = EventQueueLimit::set(SYSCTL.as_ref(), HIGHER) else {
        return skipped("max_queued_events cannot be written");
    };
    let before = watches();
    let _ = world.cli.run(["-h"]).ok();
    assert_eq!(events().trim(), HIGHER.to_string(), "-h has changed it");
    write(world.src.join("file"), "content");
    world.start();
    world.converges(soon());
    assert_eq!((events().trim(), watches()), (HIGHER.to_string().as_str(), before));
    drop(higher);
}
