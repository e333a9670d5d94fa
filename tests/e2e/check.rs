//! `syncq check` against real servers: what is wrong is named with what to do about it, and nothing is changed.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::rsync::{Side, rsync};
use crate::harness::{World, is_root, make_dir, patterned, skipped, write};

/// What `check --json` found.
struct Checked {
    code: Option<i32>,
    lines: Vec<Value>,
    text: String,
}

impl Checked {
    /// The findings on a target, a file or a directory whose name ends like this.
    fn of(&self, subject: &str) -> Vec<&Value> {
        let is = |line: &&Value| line["subject"].as_str().is_some_and(|found| found.ends_with(subject));
        self.lines.iter().filter(is).collect()
    }

    /// A finding on `subject` of that level with these words in it.
    #[track_caller]
    fn has(&self, subject: &str, level: &str, words: &str) -> &Value {
        let says = |line: &&&Value| {
            line["level"] == level && line["message"].as_str().is_some_and(|message| message.contains(words))
        };
        let found = self.of(subject);
        found.iter().find(says).unwrap_or_else(|| panic!("no {level} of {subject} with '{words}':\n{}", self.text))
    }

    /// That finding is a failure, with a hint and with exit code 1.
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

/// Names, modes, sizes and times of everything below, the directory itself included.
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

/// Names alone.
fn names(dir: &Path) -> Vec<PathBuf> {
    picture(dir).into_keys().collect()
}

/// A world whose only target is one module with these options.
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
    // For people, the same in lines.
    let conf = world.conf.save();
    let text = world.cli.run(["check".as_ref(), "-o".as_ref(), conf.as_os_str()]).ok().stdout;
    assert!(text.contains("ok    target    127.0.0.1::m1: answers") && text.contains("    root "), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("0 failures, ")), "{text}");
}

/// A target that is not equal has its directory's time changed, as by anything that is written there, but no entry.
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
    // Offline, nobody is asked.
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
    // The form that belongs on the server.
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
    // Slower, and no failure.
    let mut world = with_module(&[("refuse options", "delete-missing-args")]);
    world.rsyncd.start();
    let found = check(&world, &[]);
    assert_eq!(found.code, Some(0), "{}", found.text);
    found.has("::m1", "warn", "deletions by name are refused");
    found.has("::m1", "ok", "writable");
    // What nobody will ask for may be refused.
    let mut world = with_module(&[("refuse options", "max-delete")]);
    world.conf.syncq = "<guard maxDelete=\"off\"/>".to_owned();
    world.rsyncd.start();
    assert_eq!(check(&world, &[]).code, Some(0));
}

/// Where deletions by name are refused nobody tried whether the target can be written.
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
            // The directory's own time is that of what was written.
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
fn an_rsync_that_is_older_than_any_tested_is_said_to_be_and_not_refused() {
    const OLD: &str =
        "case $1 in --version) echo 'rsync  version 3.1.3  protocol version 31'; exit;; esac\nexec REAL \"$@\"";
    let mut world = with_module(&[]);
    let real = rsync(Side::Client);
    program(&mut world, "rsync", &OLD.replace("REAL", real.to_str().expect("UTF-8")));
    world.rsyncd.start();
    let found = check(&world, &[]);
    assert_eq!(found.code, Some(0), "{}", found.text);
    let old = found.has("/rsync", "warn", "older than 3.2.3, the oldest that syncq is tested with");
    assert!(old["hint"].as_str().is_some_and(|hint| hint.contains("3.2.3 or newer")), "{old}");
    world.start_daemon(&[]);
    world.converges_only_m1();
    let log = world.daemon().log_text();
    assert!(log.contains("older than 3.2.3, the oldest that syncq is tested with"), "{log}");
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
    // No dry run can tell.
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
    // A connection that has named its module holds it until it closes.
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
    // One connection is enough, for one after the other.
    let found = check(&world, &[]);
    assert_eq!(found.code, Some(0), "{}", found.text);
    found.has("::m1", "ok", "writable");
}

#[test]
fn a_host_that_is_silent_holds_the_check_up_for_no_longer_than_its_timeout() {
    let mut world = World::new();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a socket");
    world.conf.port = silent.local_addr().expect("its address").port();
    // Both wait at the same time, and the harness gives up after a minute.
    check(&world, &["--timeout", "2s"]).fails("::m2", "no answer within 2 s");
}

#[test]
fn what_is_wrong_on_this_machine_is_found() {
    let mut world = World::new();
    let (src, gone) = (world.src.clone(), world.base().join("gone"));
    make_dir(src.join("inner"));
    world.conf.local_paths.clear();
    world.conf.root(&gone, &[("127.0.0.1", "m1")]);
    world.conf.root(&src, &[("127.0.0.1", "m1")]);
    world.conf.root(&src.join("inner"), &[("127.0.0.1", "m2")]);
    world.conf.fail_log = world.base().join("nowhere/list");
    world.rsyncd.start();
    let found = check(&world, &[]);
    found.fails("/gone", "there is no such directory");
    found.has("/src/inner", "warn", "lies inside");
    found.has("nowhere/list", "warn", "list of failures cannot be written");
    // Its target can be asked all the same.
    found.has("::m1", "ok", "writable");
    assert!(!gone.exists());
    // No rsync at all.
    let empty = world.side("empty");
    world.cli.path = Some(empty.into_os_string());
    let found = check(&world, &[]);
    found.fails("rsync", "there is no rsync in PATH");
}

#[test]
fn a_bad_configuration_ends_with_78_and_names_its_place() {
    let world = World::new();
    let conf = world.conf.save();
    let good = fs::read_to_string(&conf).expect("the file");
    for (text, message, line) in [
        (good.replacen("</filter>", "", 1), "</head> where </filter>", None),
        (good.replacen("params=\"-artuz\"", "params=\"-n\"", 1), "cannot be used", Some(24)),
    ] {
        fs::write(&conf, &text).expect("a file");
        let ended = world.cli.run(["check".as_ref(), "--json".as_ref(), "-o".as_ref(), conf.as_os_str()]);
        assert_eq!(ended.code, Some(78), "{}", ended.text());
        let found: Value = serde_json::from_str(ended.stdout.lines().next().expect("a line")).expect("JSON");
        assert!(found["level"] == "fail" && found["check"] == "config" && found["hint"].is_string(), "{found}");
        assert!(found["message"].as_str().is_some_and(|said| said.contains(message)), "{found}");
        assert!(found["line"].as_u64().is_some_and(|at| line.is_none_or(|line| at == line)), "{found}");
    }
    let ended = world.cli.run(["check", "-o", "/nonexistent.xml"]);
    assert_eq!(ended.code, Some(78), "{}", ended.text());
    assert!(ended.stdout.contains("cannot read /nonexistent.xml"), "{}", ended.text());
    // Two that are fine, and make no sense together.
    fs::write(&conf, &good).expect("a file");
    let twice = world.base().join("twice.xml");
    fs::write(&twice, &good).expect("a file");
    let args =
        ["check".as_ref(), "--offline".as_ref(), "-o".as_ref(), conf.as_os_str(), "-o".as_ref(), twice.as_os_str()];
    let ended = world.cli.run(args);
    assert_eq!(ended.code, Some(78), "{}", ended.text());
    assert!(ended.stdout.contains("by two configuration files"), "{}", ended.text());
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

impl World {
    fn converges_only_m1(&self) {
        self.equal_within(&self.src, &[&self.dsts[0]], crate::harness::world::soon());
    }
}

/// The connection breaks right after the file has been written: it has to go all the same, and where it cannot, its name is
/// told.
#[test]
fn a_run_that_breaks_off_leaves_no_file_behind_unnoticed() {
    // The first run that writes is made and reported as broken; the second is the deletion.
    const BREAKS: &str = "case \"$*\" in *--omit-dir-times*) ;; *) exec REAL \"$@\";; esac\n\
        if [ ! -e MARK ]; then touch MARK; REAL \"$@\"; FIRST; else SECOND; fi";
    const BROKEN: &str = "echo 'rsync: connection unexpectedly closed' >&2; exit 12";
    for (first, second, left) in [(BROKEN, "exec REAL \"$@\"", 0), ("exit 0", BROKEN, 1), (BROKEN, BROKEN, 1)] {
        let mut world = with_module(&[]);
        write(world.dsts[0].join("other"), "other");
        // Another mode than the source's, so that both runs are made from elsewhere.
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

/// A script of that name, first in `PATH`.
fn program(world: &mut World, name: &str, script: &str) {
    let bin = world.side("bin");
    let file = bin.join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("a script");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("chmod");
    world.cli.bin = Some(bin);
}

#[test]
fn a_target_behind_ssh_is_asked_through_ssh() {
    // A program named ssh: its options, then the host, then the command that it is to run.
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

#[test]
fn a_target_that_would_keep_a_copy_is_not_written_to() {
    let mut world = with_module(&[]);
    world.conf.params = "-arzb".to_owned();
    world.rsyncd.start();
    let found = check(&world, &[]);
    found.has("::m1", "ok", "the params keep a backup");
    assert_eq!(names(&world.dsts[0]).len(), 1);
    // Excluded, so that it cannot be sent.
    world.conf.params = "-arz --exclude=.*".to_owned();
    let found = check(&world, &[]);
    found.has("::m1", "ok", "the params keep the file for that from being sent");
    assert_eq!(names(&world.dsts[0]).len(), 1);
}

#[test]
fn from_sersync_compares_line_by_line_and_asks_nobody() {
    let mut world = World::new();
    world.conf.plugin_sections =
        "<!-- passwd=\"S3cret\" --> note passwd=S3cret <plugin name=\"refreshCDN\"><localpath watch=\"/w\">\
         <cdninfo domainname=\"h\" port=\"80\" username=\"u\" passwd=\"S3cret\"/></localpath></plugin>"
            .to_owned();
    let count = world.count_rsyncs();
    let conf = world.conf.save();
    let run = |more: &[&str]| {
        let mut args = vec!["check", "--from-sersync", conf.to_str().expect("UTF-8")];
        args.extend(more);
        world.cli.run(&args)
    };
    let text = run(&[]).ok().stdout;
    for words in
        ["-u is dropped", "differs  sersync/failLog path", "same     sersync/rsync/ssh start", "a comment", "note"]
    {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    let json = run(&["--json"]).ok().stdout;
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let params = lines.iter().find(|line| line["attribute"] == "params").expect("the params");
    assert_eq!((&params["element"], &params["verdict"]), (&"sersync/rsync/commonParams".into(), &"differs".into()));
    let source = fs::read_to_string(&conf).expect("the file");
    let line = usize::try_from(params["line"].as_u64().expect("a line")).expect("small");
    assert!(source.lines().nth(line - 1).is_some_and(|line| line.contains("commonParams")), "{params}");
    assert!(!text.contains("S3cret") && !json.contains("S3cret"));
    assert_eq!(count.naming("rsync") + count.naming("::"), 0);
    // Asked to, it goes on with everything else.
    let ended = run(&["--online", "--timeout", "2s"]);
    assert!(ended.code == Some(1) && ended.stdout.contains("nothing listens"), "{}", ended.text());
    fs::write(&conf, source.replacen("</filter>", "", 1)).expect("a file");
    assert_eq!(run(&[]).code, Some(78));
}
