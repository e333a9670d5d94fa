//! The harness against rsync alone. A comparison that misses differences, or a server that alters what it stores, would make
//! all other tests worthless.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use crate::harness::churn::Churn;
use crate::harness::processes::{Family, pid_of};
use crate::harness::tree::{count, differences};
use crate::harness::{Compare, Rsyncd, World, free_port, make_dir, set_mtime, wait_until, write};

fn push(world: &World, server: &Rsyncd, module: &str, more: &[&str]) -> Output {
    let mut command = Command::new("rsync");
    command.args(["-artz", "--delete", "--modify-window=-1", &format!("--port={}", server.port)]).args(more);
    command.arg("./").arg(server.remote(module)).current_dir(&world.src);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.output().expect("cannot start rsync")
}

fn pushed(world: &World) {
    let output = push(world, &world.rsyncd, "m1", &[]);
    assert!(output.status.success(), "rsync failed: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn rsyncd_stores_everything_as_it_is_and_the_comparison_agrees() {
    let mut world = World::new();
    world.rsyncd.start();
    make_dir(world.src.join("dir"));
    write(world.src.join("dir").join(OsStr::from_bytes(b"\xff\n")), "odd name");
    write(world.src.join("mode"), "mode");
    fs::set_permissions(world.src.join("mode"), Permissions::from_mode(0o604)).expect("cannot chmod");
    let mut links = vec!["dir", "nowhere"];
    if crate::harness::is_root() {
        // rsyncd without chroot rewrites such links.
        links.extend(["/absolute", "../../above"]);
    }
    for (n, target) in links.iter().enumerate() {
        symlink(target, world.src.join(format!("link{n}"))).expect("cannot create a symlink");
    }
    pushed(&world);
    assert_eq!(differences(&world.src, &world.dsts[0], world.compare), Vec::<String>::new());
    assert_eq!(count(&world.dsts[0]), count(&world.src));
}

#[test]
fn the_comparison_sees_each_kind_of_difference() {
    let mut world = World::new();
    world.rsyncd.start();
    let (src, dst) = (world.src.clone(), world.dsts[0].clone());
    type Change<'a> = (&'a str, &'a dyn Fn());
    let changes: &[Change] = &[
        ("missing: \"extra\"", &|| write(src.join("extra"), "")),
        ("in excess: \"theirs\"", &|| write(dst.join("theirs"), "")),
        ("content differs", &|| {
            let time = fs::metadata(dst.join("file")).and_then(|meta| meta.modified()).expect("a time");
            write(dst.join("file"), "CONTENT");
            set_mtime(dst.join("file"), time);
        }),
        ("bytes became", &|| write(dst.join("file"), "longer than before")),
        ("mtime", &|| set_mtime(dst.join("file"), SystemTime::UNIX_EPOCH + Duration::from_nanos(7))),
        ("mtime", &|| set_mtime(dst.join("dir"), SystemTime::UNIX_EPOCH)),
        ("mode", &|| fs::set_permissions(dst.join("dir"), Permissions::from_mode(0o700)).expect("cannot chmod")),
        ("Symlink", &|| {
            fs::remove_file(dst.join("link")).expect("cannot remove a symlink");
            symlink("other", dst.join("link")).expect("cannot create a symlink");
        }),
        ("File became Dir", &|| {
            fs::remove_file(dst.join("file")).expect("cannot remove a file");
            make_dir(dst.join("file"));
        }),
        ("(root): mode", &|| fs::set_permissions(&dst, Permissions::from_mode(0o700)).expect("cannot chmod")),
    ];
    for (seen, change) in changes {
        let _ = fs::remove_file(src.join("extra"));
        make_dir(src.join("dir"));
        write(src.join("file"), "content");
        if !src.join("link").is_symlink() {
            symlink("target", src.join("link")).expect("cannot create a symlink");
        }
        pushed(&world);
        assert_eq!(differences(&src, &dst, Compare::default()), Vec::<String>::new());
        change();
        let found = differences(&src, &dst, Compare::default()).join("\n");
        assert!(found.contains(seen), "{seen:?} has not been seen, but: {found}");
    }
}

#[test]
fn hard_links_are_compared_where_asked() {
    let mut world = World::new();
    world.rsyncd.start();
    write(world.src.join("one"), "shared");
    fs::hard_link(world.src.join("one"), world.src.join("two")).expect("cannot link");
    pushed(&world);
    let with_links = Compare { hard_links: true, ..Compare::default() };
    assert_eq!(differences(&world.src, &world.dsts[0], Compare::default()), Vec::<String>::new());
    assert!(!differences(&world.src, &world.dsts[0], with_links).is_empty());
    assert!(push(&world, &world.rsyncd, "m1", &["-H", "-I"]).status.success());
    assert_eq!(differences(&world.src, &world.dsts[0], with_links), Vec::<String>::new());
}

#[test]
fn rsyncd_comes_and_goes_on_its_port_and_takes_new_modules() {
    let mut world = World::new();
    world.rsyncd.start();
    pushed(&world);
    world.rsyncd.stop();
    let refused = push(&world, &world.rsyncd, "m1", &[]);
    assert_eq!(refused.status.code(), Some(10), "{refused:?}");
    world.rsyncd.start();
    pushed(&world);
    let unknown = push(&world, &world.rsyncd, "m3", &[]);
    assert_eq!(unknown.status.code(), Some(5), "{unknown:?}");
    let third = world.side("m3");
    world.rsyncd.module("m3", &third);
    world.rsyncd.write_conf();
    assert!(push(&world, &world.rsyncd, "m3", &[]).status.success());
}

#[test]
fn two_loopback_addresses_serve_one_port() {
    let mut world = World::new();
    let mut other = Rsyncd::at(&world.base().join("other"), "127.0.0.2", world.rsyncd.port);
    other.module("m2", &world.dsts[1]);
    world.rsyncd.start();
    other.start();
    write(world.src.join("file"), "content");
    assert!(push(&world, &other, "m2", &[]).status.success());
    other.stop();
    pushed(&world);
    assert_eq!(push(&world, &other, "m2", &[]).status.code(), Some(10));
}

#[test]
fn the_same_seed_makes_the_same_tree() {
    let worlds = [World::new(), World::new()];
    for world in &worlds {
        let outside = world.side("outside");
        let mut churn = Churn::new(7, &world.src, &outside);
        (0..500).for_each(|_| churn.step());
        assert!(churn.history.iter().filter(|line| line.ends_with(": ok")).count() > 100);
    }
    assert_eq!(differences(&worlds[0].src, &worlds[1].src, Compare::content()), Vec::<String>::new());
}

#[test]
fn the_harness_ends_what_it_started() {
    let family = Family::new();
    let mut command = Command::new("sleep");
    family.mark(command.arg("600"));
    let mut child = command.spawn().expect("cannot start sleep");
    wait_until(crate::harness::world::soon(), "the child to show its mark", || family.members() == [pid_of(&child)]);
    family.end();
    assert!(!child.wait().expect("cannot wait").success());
}

#[test]
fn a_port_is_given_once_and_to_one_process_alone() {
    const OTHER: &str = "SYNCQ_TEST_OTHER_PROCESS";
    // More ports than one block holds.
    let ports: Vec<String> = (0..150).map(|_| free_port().to_string()).collect();
    if std::env::var_os(OTHER).is_some() {
        eprintln!("ports: {}", ports.join(" "));
        return;
    }
    let mut other = Command::new(std::env::current_exe().expect("this program"));
    other.args(["--exact", "harness_check::a_port_is_given_once_and_to_one_process_alone", "--nocapture"]);
    let said = other.env(OTHER, "1").output().expect("this program starts").stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    let others = said.lines().find_map(|line| line.split_once("ports: ")).expect("ports").1;
    let all: BTreeSet<&str> = ports.iter().map(String::as_str).chain(others.split(' ')).collect();
    assert_eq!(all.len(), 300, "{ports:?} and {others}");
}
