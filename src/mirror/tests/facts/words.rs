//! Exit codes and sentences.

use super::*;

/// `diagnosis`: the words of a daemon that lets nobody in, or refuses an option.
#[test]
fn a_daemons_refusals() {
    let cases: [(&str, &[&str], &str, &[i32]); 11] = [
        ("read only = yes", &[], "ERROR: module is read only", &[1]),
        ("hosts allow = 10.99.0.1", &[], "@ERROR: access denied", &[5]),
        ("auth users = joe\nsecrets file = /nonexistent", &[], "@ERROR: auth failed on module", &[5]),
        ("path = @DIR@/gone", &[], "@ERROR: chdir failed", &[5]),
        ("use chroot = yes\npath = @DIR@/gone", &[], "@ERROR: ch", &[5]),
        ("pre-xfer exec = /bin/false", &[], "pre-xfer exec returned failure", &[1, 4, 5]),
        ("refuse options = delete", &["--delete"], "configured to refuse --delete", &[4]),
        ("refuse options = max-delete", &["--delete", "--max-delete=0"], "configured to refuse --max-delete", &[4]),
        ("refuse options = link-dest", &["--link-dest=/x"], "configured to refuse --link-dest", &[4]),
        ("refuse options = fuzzy", &["--fuzzy"], "configured to refuse --fuzzy", &[4]),
        ("refuse options = checksum", &["--checksum"], "configured to refuse --checksum", &[4]),
    ];
    for (settings, args, words, codes) in cases {
        if settings.contains("chroot") && !rustix::process::geteuid().is_root() {
            continue;
        }
        let pair = Pair::with(Way::Daemon, settings);
        pair.stage.write("f", "x");
        let said = pair.run(&[&BY_NAME[..], args].concat(), b"./f\0");
        // An older daemon hangs up before its words have arrived.
        let is_lost = pair.receiver() < vec![3, 2, 0] && said.code == 10 && said.err.contains("Connection reset");
        assert!(is_lost || (said.err.contains(words) && codes.contains(&said.code)), "{settings}: {said:#?}");
        assert!(!pair.has("f"));
    }
}

/// `diagnosis`: the words about a host or directory that does not exist or cannot be reached.
#[test]
fn words_of_what_cannot_be_reached() {
    let pair = Pair::new(Way::Daemon);
    let to = |words: &[&str]| {
        let args: Vec<OsString> = BY_NAME.iter().chain(words).map(OsString::from).collect();
        pair.start(&args, b"./f\0")
    };
    let port = format!("--port={}", pair.stage.daemon.as_ref().unwrap().port);
    for (words, expected, codes) in [
        (&[&port[..], "./", "127.0.0.1::nope/"][..], "@ERROR: Unknown module", &[5][..]),
        (&["--port=1", "./", "127.0.0.1::m/"], "Connection refused (111)", &[10]),
        (&["-e", "/nonexistent/ssh", "./", "h:/x/"], "Failed to exec /nonexistent/ssh", &[12, 14]),
        (&["--no-such-option", "./", "/x/"], "unknown option", &[1]),
        (&["/nonexistent/", "/x/"], "change_dir", &[3, 23]),
    ] {
        let said = to(words);
        assert!(said.err.contains(expected) && codes.contains(&said.code), "{words:?}: {said:#?}");
    }
}

/// `diagnosis::of_destination`, `Fallback::MakePath`: a parent of the destination is missing.
#[test]
fn a_missing_parent_of_the_destination() {
    for pair in Pair::all() {
        pair.stage.write("f", "x");
        let said = pair.run_to("no/where/", &BY_NAME, b"./f\0");
        assert!(said.code == 11, "{:?} {said:#?}", pair.way);
        assert!(said.err.contains("mkdir \"") && said.err.contains("No such file or directory (2)"), "{said:#?}");
        let said = pair.run_to("no/where/", &[&BY_NAME[..], &["--mkpath"]].concat(), b"./f\0");
        if pair.both_from([3, 2, 3]) {
            said.well();
            assert!(pair.has("no/where/f"), "{:?}", pair.way);
        } else {
            assert!(said.err.contains("--mkpath: unknown option"), "{said:#?}");
        }
    }
}

/// `inspect`: a dry run shows a destination that it would make as new, and some versions also say so in words. The run
/// tells whether source and target agree on the directory, and which protocol is spoken.
#[test]
fn what_a_dry_run_tells_of_the_destination() {
    for pair in Pair::all() {
        pair.stage.write("f", "x");
        let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        std::fs::File::open(pair.stage.src("")).unwrap().set_modified(long_ago).unwrap();
        let args = [&BY_NAME[..], &["-n", "--debug=PROTO", "--out-format=%i %n"]].concat();
        let said = pair.run_to("new/", &args, b"./f\0");
        let makes = |line: &str| line == "cd+++++++++ ./";
        assert!(said.out.lines().any(makes), "{:?} {said:#?}", pair.way);
        let spoken =
            said.out.lines().find_map(|line| line.split_once("remote=")?.1.split(',').next()?.parse::<u32>().ok());
        assert!(pair.way == Way::Local || matches!(spoken, Some(31..=33)), "{:?} {said:#?}", pair.way);
        let said = pair.run(&args, b"./f\0");
        assert!(said.code == 0 && !said.out.lines().any(makes), "{said:#?}");
        assert!(said.out.lines().any(|line| line.ends_with(" ./")), "the times differ: {said:#?}");
    }
}

/// `messages`: a failure names the path, the speaker, and the system error.
#[test]
fn failures_of_paths_name_them() {
    for pair in Pair::all() {
        pair.stage.write("f", "x");
        std::os::unix::fs::symlink("nowhere", pair.stage.src("dangling")).unwrap();
        let said = pair.run(&BY_NAME, b"./f\0./d\0");
        let line = said.err.lines().find(|line| line.contains("link_stat \"")).unwrap_or_else(|| panic!("{said:#?}"));
        let read = messages::Line::read(line.as_bytes());
        assert!(said.code == 23 && read.is_senders() && read.errno == Some(2), "{:?} {said:#?}", pair.way);
        assert!(pair.has("f"), "the rest is done");
        // A link without a target fails as a listed path in other words than as one that rsync finds by itself.
        let said = pair.run(&[&BY_TREE[..], &["-L"]].concat(), b"./\0");
        assert!(said.code == 23 && said.err.contains("symlink has no referent: \""), "{:?} {said:#?}", pair.way);
    }
}

/// `messages`: if the receiver may not make a file or directory, the message names the target's path, or its temporary.
#[test]
fn a_receiver_that_may_not_write_names_the_file() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let pair = Pair::with(Way::Daemon, "uid = nobody");
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    open(pair.stage.dir.path(), 0o755);
    pair.stage.write("d/f", "x");
    std::fs::create_dir(pair.stage.dst("d")).unwrap();
    write(&pair.stage.dst("d/gone"), "x");
    std::fs::create_dir(pair.stage.src("d/sub")).unwrap();
    let said = pair.run(&[&["-rl"][..], &BY_NAME[1..]].concat(), b"./d/f\0./d/sub\0");
    assert_eq!(said.code, 23, "{said:#?}");
    for begins in ["mkstemp \"", "recv_generator: mkdir \""] {
        let line = said.err.lines().find(|line| line.contains(begins)).unwrap_or_else(|| panic!("{begins}: {said:#?}"));
        let read = messages::Line::read(line.as_bytes());
        assert!(!read.is_senders() && read.errno == Some(13) && read.about == messages::About::Failure, "{line}");
    }
    let said = pair.run(&[&["-rl"][..], &BY_NAME[1..], &["--delete", "--force"]].concat(), b"./d/\0");
    let line = said.err.lines().find(|line| line.contains("delete_file: unlink(d/gone) failed"));
    assert!(line.is_some() && said.code == 23, "{said:#?}");
}

/// `messages` (`About::Refused`): a module's own exclude refuses a path, and the message names the path.
#[test]
fn a_modules_own_exclude_refuses_by_name() {
    let pair = Pair::with(Way::Daemon, "exclude = /private");
    pair.stage.write("private/f", "x");
    pair.stage.write("f", "x");
    let said = pair.run(&BY_NAME, b"./private/f\0./f\0");
    let lines: Vec<messages::Line<'_>> = said.err.lines().map(|line| messages::Line::read(line.as_bytes())).collect();
    assert!(lines.iter().any(|line| line.about == messages::About::Refused), "{said:#?}");
    assert!(pair.has("f") && !pair.has("private/f"), "{said:#?}");
}

/// `messages`: an attribute that the target cannot hold names the path.
#[test]
fn an_extended_attribute_that_cannot_be_set_names_the_path() {
    for (line, name) in [
        (
            "rsync: [receiver] rsync_xal_set: lsetxattr(\"/d/f\" (in m),\"user.x\") failed: Operation not supported (95)",
            "/d/f",
        ),
        ("rsync: [generator] rsync_xal_set: lsetxattr(\"d/f\",\"user.x\") failed: Permission denied (13)", "d/f"),
        ("rsync: [generator] rsync_xal_set: lremovexattr(\"d/f\",\"user.x\") failed: Permission denied (13)", "d/f"),
        ("rsync: [receiver] set_acl: sys_acl_set_file(d/f, ACL_TYPE_ACCESS): Operation not supported (95)", "d/f"),
        ("rsync: [receiver] set_acl: acl_set_file_at(a, b, ACL_TYPE_DEFAULT): Operation not supported (95)", "a, b"),
    ] {
        let read = messages::Line::read(line.as_bytes());
        let names = read.names();
        assert_eq!(
            (read.about, names.names, names.sure),
            (messages::About::Attributes, vec![name.into()], true),
            "{line}"
        );
    }
}

/// `process`, `program`: rsync tells its version in its first line, and has these words for a missing working directory.
#[test]
fn the_version_and_a_directory_that_is_gone() {
    for side in [Side::Client, Side::Server] {
        assert!(version(side) >= vec![3, 1, 3], "{side:?}");
    }
    let pair = Pair::new(Way::Local);
    let gone = pair.stage.dir.path().join("gone");
    let script = "mkdir \"$0\" && cd \"$0\" && rmdir \"$0\" && exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(&gone).arg(rsync(Side::Client)).args(BY_NAME).args(["./", "/x/"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && text.contains("getcwd()"), "{:?} {text}", output.status);
}
