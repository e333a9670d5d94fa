//! Each fault of a server, or on the way to it, is named with its way out.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::{check, names, picture, program, with_module};
use crate::harness::rsync::{Side, rsync};
use crate::harness::{World, is_root, make_dir, skipped, write};

#[test]
fn a_wrong_password_is_named_and_never_shown() {
    let mut world = with_module(&[("auth users", "joe")]);
    world.rsyncd.secret("joe", "S3cret-right");
    let file = world.base().join("password");
    write(&file, "S3cret-wrong\n");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("chmod");
    world.conf.auth = Some(("joe".to_owned(), file.clone()));
    world.rsyncd.start();
    let found = check(&world, &[]);
    found.fails("joe@127.0.0.1::m1", "refuses user or password");
    found.has("/password", "ok", "readable");
    assert!(!found.text.contains("S3cret"), "{}", found.text);
    // The form of password files on the server.
    write(&file, "joe:S3cret-right\n");
    let found = check(&world, &[]);
    found.has("/password", "warn", "user:password");
    assert!(!found.text.contains("S3cret"), "{}", found.text);
    write(&file, "S3cret-right\n");
    assert_eq!(check(&world, &[]).code, Some(0));
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("chmod");
    let found = check(&world, &[]);
    found.fails("/password", "others may use it");
    found.fails("joe@127.0.0.1::m1", "readable by others");
}

#[test]
fn what_a_server_refuses_is_named_with_its_remedy() {
    for (options, words) in [
        (&[("read only", "yes")][..], "read only"),
        (&[("refuse options", "delete")], "the rsync server refuses deletions"),
        (&[("refuse options", "compress")], "refuses an option"),
        (&[("refuse options", "max-delete")], "refuses --max-delete"),
        (&[("hosts allow", "10.99.0.1")], "does not admit this host"),
        (&[("path", "/nonexistent/syncq")], "directory is missing on the server"),
    ] {
        let mut world = with_module(options);
        write(world.dsts[0].join("kept"), "kept");
        world.rsyncd.start();
        let before = picture(&world.dsts[0]);
        check(&world, &[]).fails("::m1", words);
        assert_eq!(picture(&world.dsts[0]), before, "{options:?}");
    }
    // The refused option makes syncq slower, and is no failure.
    let mut world = with_module(&[("refuse options", "delete-missing-args")]);
    world.rsyncd.start();
    let found = check(&world, &[]);
    assert_eq!(found.code, Some(0), "{}", found.text);
    found.has("::m1", "warn", "deletions by name are refused");
    found.has("::m1", "ok", "writable");
    // An option that no run will use may be refused.
    let mut world = with_module(&[("refuse options", "max-delete")]);
    world.conf.syncq = "<guard maxDelete=\"off\"/>".to_owned();
    world.rsyncd.start();
    assert_eq!(check(&world, &[]).code, Some(0));
}

/// If a server refused deletions by name, the check did not try whether the target can be written.
#[test]
fn where_deletions_by_name_are_refused_writing_is_tried_all_the_same() {
    for (delete, differs) in [(true, false), (true, true), (false, true)] {
        let mut world = with_module(&[("refuse options", "delete-missing-args")]);
        world.conf.delete = delete;
        if differs {
            make_dir(world.dsts[0].join("other"));
            write(world.dsts[0].join("other/file"), "other");
            fs::set_permissions(&world.dsts[0], Permissions::from_mode(0o777)).expect("chmod");
        } else {
            let to = format!("{}/", world.src.display());
            let copied =
                Command::new(rsync(Side::Client)).args(["-a", "--modify-window=-1", &to]).arg(&world.dsts[0]).status();
            assert!(copied.expect("rsync").success());
        }
        world.rsyncd.start();
        let (src, dst) = (picture(&world.src), picture(&world.dsts[0]));
        let found = check(&world, &[]);
        assert_eq!(found.code, Some(0), "{}", found.text);
        found.has("::m1", "ok", "writable: a small file was sent and deleted again");
        let is_told = found.of("::m1").iter().any(|line| line["level"] == "warn");
        assert_eq!(is_told, delete, "{}", found.text);
        let mut after = picture(&world.dsts[0]);
        if differs {
            // The directory's time is that of the probe file's write, so only mode and size are compared.
            let (mode, size, ..) = dst[&world.dsts[0]];
            let found = after.get_mut(&world.dsts[0]).expect("the directory");
            assert_eq!((found.0, found.1), (mode, size));
            *found = dst[&world.dsts[0]];
        }
        assert_eq!((src, dst), (picture(&world.src), after));
    }
    if !is_root() {
        return skipped("needs root, to give a directory away");
    }
    let mut world = with_module(&[("refuse options", "delete-missing-args"), ("uid", "nobody"), ("gid", "nogroup")]);
    fs::set_permissions(&world.dsts[0], Permissions::from_mode(0o755)).expect("chmod");
    world.rsyncd.start();
    check(&world, &[]).fails("::m1", "nothing can be written in the target's directory");
    assert_eq!(names(&world.dsts[0]).len(), 1);
}

#[test]
fn a_directory_that_the_server_may_not_write_is_found() {
    if !is_root() {
        return skipped("needs root, to give a directory away");
    }
    let mut world = with_module(&[("uid", "nobody"), ("gid", "nogroup")]);
    fs::set_permissions(&world.dsts[0], Permissions::from_mode(0o755)).expect("chmod");
    world.rsyncd.start();
    let found = check(&world, &[]);
    found.fails("::m1", "nothing can be written in the target's directory");
    assert_eq!(names(&world.dsts[0]).len(), 1);
    // A dry run cannot find this fault.
    assert_eq!(check(&world, &["--no-write-probe"]).code, Some(0));
}

#[test]
fn an_unknown_module_and_a_dead_port_are_told_apart_and_spoil_no_other_target() {
    let mut world = World::new();
    let src = world.src.clone();
    world.conf.local_paths.clear();
    world.conf.root(&src, &[("127.0.0.1", "nope"), ("127.0.0.1", "m1"), ("127.0.0.2", "m2")]);
    world.rsyncd.start();
    let found = check(&world, &[]);
    found.fails("::nope", "no module of that name");
    found.fails("127.0.0.2::m2", "nothing listens on that port");
    found.has("::m1", "ok", "writable");
}

#[test]
fn a_server_without_a_connection_left_is_named() {
    let mut world = with_module(&[("max connections", "1")]);
    world.rsyncd.start();
    // A connection that has named its module holds the module's only place until it closes.
    let mut holder = TcpStream::connect(("127.0.0.1", world.rsyncd.port)).expect("a connection");
    holder.write_all(b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\nm1\n").expect("a greeting");
    let mut answer = String::new();
    while !answer.contains("OK") {
        let mut byte = [0; 1];
        holder.read_exact(&mut byte).expect("an answer");
        answer.push(char::from(byte[0]));
    }
    check(&world, &[]).fails("::m1", "no connection left");
    drop(holder);
    // One connection is enough if runs follow each other.
    let found = check(&world, &[]);
    assert_eq!(found.code, Some(0), "{}", found.text);
    found.has("::m1", "ok", "writable");
}

#[test]
fn a_host_that_is_silent_holds_the_check_up_for_no_longer_than_its_timeout() {
    let mut world = World::new();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a socket");
    world.conf.port = silent.local_addr().expect("its address").port();
    // Both targets wait at the same time. The harness gives up after a minute.
    check(&world, &["--timeout", "2s"]).fails("::m2", "no answer within 2 s");
}

#[test]
fn a_target_behind_ssh_is_asked_through_ssh() {
    // The body of a program named ssh: it drops its options and the host, and runs the command.
    const RUNS: &str =
        "while [ $# -gt 0 ]; do case $1 in -o|-p|-l) shift 2;; -*) shift;; *) break;; esac; done; shift; eval \"$*\"";
    for (script, level, words) in [
        (RUNS, "ok", "writable"),
        ("echo 'Host key verification failed.' >&2; exit 255", "fail", "does not know the host's key"),
        ("echo 'joe@h: Permission denied (publickey).' >&2; exit 255", "fail", "ssh is not let in"),
        ("echo 'sh: rsync: command not found' >&2; exit 127", "fail", "there is no rsync on the host"),
        ("echo Welcome; sleep 1", "fail", "the remote shell prints something of its own"),
    ] {
        let mut world = with_module(&[]);
        program(&mut world, "ssh", script);
        let dst = world.dsts[0].to_str().expect("UTF-8").to_owned();
        let src = world.src.clone();
        world.conf.local_paths.clear();
        world.conf.root(&src, &[("192.0.2.7", &dst)]);
        let xml = world.conf.xml().replace("<ssh start=\"false\"/>", "<ssh start=\"true\"/>");
        let xml = xml.replace("<userDefinedPort start=\"true\"", "<userDefinedPort start=\"false\"");
        let conf = world.base().join("ssh.xml");
        fs::write(&conf, xml).expect("a file");
        let args = ["check".as_ref(), "--json".as_ref(), "--timeout=5s".as_ref(), "-o".as_ref(), conf.as_os_str()];
        let ended = world.cli.run(args);
        let says = |line: &str| line.contains(&format!("\"level\":\"{level}\"")) && line.contains(words);
        assert!(ended.stdout.lines().any(says), "{words}:\n{}", ended.text());
        assert_eq!(ended.code, Some(i32::from(level == "fail")), "{words}:\n{}", ended.text());
        assert_eq!(names(&world.dsts[0]).len(), 1, "{words}");
    }
}
