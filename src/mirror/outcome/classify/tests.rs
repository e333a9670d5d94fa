//! Tables of (exit code, standard error) as rsync 3.5.0 wrote them.

mod attributed;

use std::path::Path;

use super::*;
use crate::mirror::plan::run::{Entry, RunKind};
use crate::mirror::plan::source::Presence;
use crate::mirror::rsync::capture::Capture;
use crate::mirror::rsync::ended::Cut;
use crate::model::{Destination, Origin};
use TroubleClass::{Busy, Misconfigured, Source, Unavailable};

fn flat(names: &[&str]) -> Run {
    run(RunKind::Flat, names)
}

fn run(kind: RunKind, names: &[&str]) -> Run {
    let entry = |name: &&str| Entry {
        path: RelPath::new(name.as_bytes()).unwrap(),
        presence: Presence::File { size: 1 },
        orphan: false,
        jobs: Vec::new(),
    };
    Run::new(kind, Origin::Scan, names.iter().map(entry).collect())
}

fn read(code: i32, stderr: &str, run: &Run) -> Outcome {
    let mut kept = Capture::of_errors();
    kept.push(stderr.as_bytes());
    let module = Destination::Daemon { host: "h".into(), module: "m/sub".into() };
    let prefixes = Prefixes::new(&[Path::new("/data/www")], &module);
    classify(
        &Ended { end: End::Exit(code), stderr: kept, stdout: Capture::default(), blocked: None, cut: Cut::No },
        run,
        &prefixes,
        &Noise::default(),
    )
}

#[test]
fn the_targets_own_troubles() {
    let run = flat(&["a", "b"]);
    for (code, stderr, class, meaning) in [
        (
            1,
            "ERROR: module is read only\nrsync error: syntax or usage error (code 1) at main.c(1185) [Receiver=3.5.0]\nrsync: [sender] read error: Connection reset by peer (104)",
            Misconfigured,
            "the module is read only",
        ),
        (
            1,
            "rsync: [sender] could not open password file x: No such file or directory (2)",
            Misconfigured,
            "the password file cannot",
        ),
        (1, "ERROR: password file must not be other-accessible", Misconfigured, "the password file is readable"),
        (1, "rsync: --frobnicate: unknown option", Misconfigured, "rsync does not know"),
        (1, "rsync: --mkpath: unknown option", Misconfigured, "the destination's parent"),
        (2, "protocol version mismatch -- is your shell clean?", Misconfigured, "the remote shell prints"),
        (
            3,
            "rsync: [sender] change_dir \"/data/www\" failed: No such file or directory (2)",
            Source,
            "the source directory",
        ),
        (
            3,
            "rsync: [sender] change_dir \"/data/www\" failed: Permission denied (13)",
            Source,
            "the source directory cannot be entered",
        ),
        // A target that was a file, or closed to rsync, was reported as having lost its source.
        (
            3,
            "rsync: [Receiver] ERROR: cannot stat destination \"file/\" (in n): Not a directory (20)",
            Misconfigured,
            "the target is no directory",
        ),
        (
            3,
            "ERROR: destination must be a directory when copying more than 1 file",
            Misconfigured,
            "the target is no directory",
        ),
        (
            11,
            "rsync: [Receiver] mkdir \"file/\" (in n) failed: File exists (17)",
            Misconfigured,
            "the target is no directory",
        ),
        (
            11,
            "rsync: [Receiver] mkdir \"/b/new/x/\" failed: Permission denied (13)",
            Misconfigured,
            "the target's directory is closed",
        ),
        (
            3,
            "rsync: [Receiver] ERROR: cannot stat destination \"/b/in/\": Permission denied (13)",
            Misconfigured,
            "the target's directory is closed",
        ),
        (3, "rsync: [Receiver] change_dir#1 \"/b\" failed: No such file or directory (2)", Unavailable, "the target's"),
        (3, "something else", Unavailable, "rsync cannot use its source or"),
        (
            3,
            "rsync: [Receiver] change_dir#3 \"/b\" failed: Permission denied (13)",
            Misconfigured,
            "the target's directory is closed",
        ),
        (
            4,
            "rsync: The server is configured to refuse --compress",
            Misconfigured,
            "the rsync server refuses an option",
        ),
        (4, "pre-xfer exec returned failure (256)", Unavailable, "the server's `pre-xfer exec`"),
        (5, "@ERROR: max connections (1) reached -- try again later", Busy, "the rsync server has no connection"),
        (5, "@ERROR: auth failed on module auth", Misconfigured, "the rsync server refuses user"),
        (5, "@ERROR: Unknown module 'nope'", Misconfigured, "the rsync server has no module"),
        (
            5,
            "@ERROR: access denied to deny from localhost (127.0.0.1)",
            Misconfigured,
            "the rsync server does not admit",
        ),
        (5, "@ERROR: chdir failed", Unavailable, "the module's directory"),
        (5, "@ERROR: early exec failed", Unavailable, "the server's `early exec`"),
        (
            10,
            "rsync: [sender] failed to connect to h (127.0.0.1): Connection refused (111)",
            Unavailable,
            "nothing listens",
        ),
        (
            10,
            "rsync: [sender] failed to connect to h (10.0.0.9): No route to host (113)",
            Unavailable,
            "the host cannot be reached",
        ),
        (10, "rsync: getaddrinfo: nohost 873: Name or service not known", Unavailable, "the host name is unknown"),
        (
            12,
            "Host key verification failed.\nrsync: connection unexpectedly closed (0 bytes received so far) [sender]",
            Misconfigured,
            "ssh does not know",
        ),
        (
            12,
            "bash: line 1: rsync: command not found\nrsync: connection unexpectedly closed",
            Misconfigured,
            "there is no rsync",
        ),
        (
            12,
            "rsync: [sender] Failed to exec nossh: No such file or directory (2)",
            Misconfigured,
            "the remote shell program",
        ),
        (255, "u@h: Permission denied (publickey,password).", Misconfigured, "ssh is not let in"),
        (255, "ssh: connect to host h port 22: Connection refused", Unavailable, "nothing listens"),
        (
            255,
            "@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.",
            Misconfigured,
            "the host's ssh key has changed",
        ),
        (
            255,
            "@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\nu@h: Permission denied (publickey).",
            Misconfigured,
            "ssh does not use a private key that others may read",
        ),
        (
            255,
            "Warning: Identity file /k not accessible: No such file or directory.\nu@h: Permission denied (publickey).",
            Misconfigured,
            "the private key that ssh is to use is not there",
        ),
        (255, "kex_exchange_identification: Connection closed by remote host", Unavailable, "sshd hangs up before"),
        (255, "Timeout, server 10.0.0.2 not responding.", Unavailable, "the host does not answer any more"),
        (255, "ssh: connect to host h port 22: Connection timed out", Unavailable, "the host does not answer"),
        (127, "sh: 1: rsync: not found", Misconfigured, "there is no rsync on the host"),
        (127, "bash: line 1: /opt/rsync: No such file or directory", Misconfigured, "there is no rsync on the host"),
        (255, "", Unavailable, "ssh failed"),
        (20, "rsync error: received SIGINT, SIGTERM, or SIGHUP (code 20)", Unavailable, "somebody ended rsync"),
        (30, "rsync error: timeout in data send/receive (code 30) at io.c(201)", Unavailable, "the line was silent"),
        (35, "rsync error: timeout waiting for daemon connection (code 35)", Unavailable, "the host does not answer"),
        (
            23,
            "rsync: [receiver] mkstemp \"/sub/.a.kHgAv8\" (in m) failed: No space left on device (28)",
            Unavailable,
            "the target is full",
        ),
        (
            23,
            "rsync: [receiver] mkstemp \"/sub/.a.kHgAv8\" (in m) failed: Read-only file system (30)",
            Unavailable,
            "the target's file system is read-only",
        ),
    ] {
        match read(code, stderr, &run) {
            Outcome::Target(trouble) => {
                assert_eq!(trouble.class, class, "{stderr}");
                assert!(trouble.message.starts_with(meaning), "{}", trouble.message);
                assert!(!trouble.message.contains('\n') && trouble.code == Some(code));
            }
            other => panic!("{stderr}: {other:?}"),
        }
    }
}

#[test]
fn what_is_tried_another_way() {
    let run = flat(&["a", "zz"]);
    assert_eq!(
        read(2, "invalid file mode 00 for zz [Receiver]\nrsync error: protocol incompatibility (code 2)", &run),
        Outcome::Fallback(Fallback::DeleteByLevel)
    );
    assert_eq!(
        read(4, "rsync: The server is configured to refuse --delete", &run),
        Outcome::Fallback(Fallback::DeleteNothing)
    );
    assert_eq!(
        read(11, "rsync: [Receiver] mkdir \"x/y\" (in m) failed: No such file or directory (2)", &run),
        Outcome::Fallback(Fallback::MakePath)
    );
    assert!(matches!(
        read(12, "rsync: connection unexpectedly closed (0 bytes received so far) [sender]", &run),
        Outcome::Split(_)
    ));
    for said in ["[sender] read error: Connection reset by peer (104)", "[sender] write error: Broken pipe (32)"] {
        let said = format!("rsync: {said}\nrsync error: error in socket IO (code 10) at io.c(806) [sender=3.5.0]");
        assert!(matches!(read(10, &said, &run), Outcome::Split(_)), "{said}");
    }
    assert!(matches!(
        read(10, "rsync: failed to connect to h (h): Connection refused (111)", &run),
        Outcome::Target(_)
    ));
    assert!(matches!(read(22, "rsync error: error allocating core memory buffers (code 22)", &run), Outcome::Split(_)));
    let full = "rsync: [receiver] write failed on \"/sub/zz\" (in m): No space left on device (28)";
    assert!(matches!(read(11, full, &run), Outcome::NoRoom { entry: Some(1), below: None, .. }));
    let compared = Run { kind: RunKind::Tree, ..run };
    let full = "rsync: [receiver] write failed on \"/sub/zz/deep/large\" (in m): No space left on device (28)";
    let Outcome::NoRoom { entry: None, below: Some(below), .. } = read(11, full, &compared) else { panic!("{full}") };
    assert_eq!(below.to_string(), "zz/deep/large");
}

/// rsync 3.2.3 exits as if such a run had succeeded.
#[test]
fn deletions_that_the_other_side_takes_for_odd_files_are_made_another_way() {
    let missing = |kind| {
        let mut run = run(kind, &["a", "d/gone"]);
        for entry in run.entries.iter_mut().skip(1) {
            entry.presence = Presence::Missing;
        }
        run
    };
    let read = |code, stdout: &[u8], stderr: &[u8], run: &Run| {
        let errors = Capture::of_errors();
        let mut ended = Ended {
            end: End::Exit(code),
            stderr: errors,
            stdout: Capture::new(1 << 10, 0),
            blocked: None,
            cut: Cut::No,
        };
        ended.stdout.push(stdout);
        ended.stderr.push(stderr);
        classify(&ended, run, &Prefixes::default(), &Noise::default())
    };
    let skipped = |name: &str| format!("skipping non-regular file \"{name}\"\n").into_bytes();
    let aborting = b"ABORTING due to invalid path from sender: d/gone\nrsync: [sender] read error: Connection reset";
    let flat = missing(RunKind::Flat);
    assert_eq!(read(0, &skipped("d/gone"), b"", &flat), Outcome::Fallback(Fallback::DeleteByLevel));
    assert_eq!(read(2, b"", aborting, &flat), Outcome::Fallback(Fallback::DeleteByLevel));
    assert_eq!(read(0, &skipped("a"), b"", &flat), Outcome::Done);
    assert_eq!(read(0, b"", b"", &flat), Outcome::Done);
}

#[test]
fn a_directory_above_what_is_removed_may_stay_and_what_is_removed_may_not() {
    let removal = run(RunKind::Removal, &["d/sub/gone"]);
    assert_eq!(read(0, "cannot delete non-empty directory: d/sub", &removal), Outcome::Done);
    for failure in ["d/sub/gone", "d/sub/gone/below"] {
        let Outcome::Paths(paths) = read(0, &format!("cannot delete non-empty directory: {failure}"), &removal) else {
            panic!("{failure}")
        };
        assert_eq!(paths.failed.len(), 1, "{failure}");
    }
}

#[test]
fn success_that_is_none() {
    let run = flat(&["mx", "b"]);
    let Outcome::Paths(paths) = read(0, "cannot delete non-empty directory: mx", &run) else { panic!() };
    assert_eq!(paths.failed.keys().collect::<Vec<_>>(), [&0]);
    let Outcome::Paths(paths) = read(0, "Deletions stopped due to --max-delete limit (2 skipped)", &run) else {
        panic!()
    };
    assert!(paths.unattributed.is_some() && paths.failed.is_empty());
    assert_eq!(read(0, "Warning: Permanently added 'h' (ED25519) to the list of known hosts.", &run), Outcome::Done);
    assert_eq!(read(0, "", &run), Outcome::Done);
}

#[test]
fn what_cannot_be_assigned_is_said() {
    let run = flat(&["a", "b"]);
    for (code, stderr) in [
        (23, "rsync error: some files/attrs were not transferred (see previous errors) (code 23)"),
        (23, "rsync: [receiver] mkstemp \"/elsewhere/.x.aaaaaa\" failed: Permission denied (13)"),
        (25, "rsync error: the --max-delete limit stopped deletions (code 25)"),
    ] {
        let Outcome::Paths(paths) = read(code, stderr, &run) else { panic!("{stderr}") };
        assert!(paths.unattributed.is_some(), "{stderr}");
    }
}

#[test]
fn what_vanished_is_looked_at_again() {
    let run = flat(&["a", "no/such", "d\nx"]);
    let Outcome::Paths(paths) = read(
        24,
        "file has vanished: \"/data/www/no\"\nWARNING: parent dir is absent in the file list: no\n\
         file has vanished: \"/data/www/d\\#012x\"",
        &run,
    ) else {
        panic!()
    };
    assert_eq!(paths.vanished.iter().collect::<Vec<_>>(), [&1, &2]);
    assert!(paths.failed.is_empty() && paths.unattributed.is_none());
    let tree = self::run(RunKind::Tree, &["t", "u"]);
    let stderr = "rsync: [sender] opendir \"/data/www/t/x\" failed: Permission denied (13)\n\
                  IO error encountered -- skipping file deletion";
    let Outcome::Paths(paths) = read(23, stderr, &tree) else { panic!() };
    assert!(paths.deletions_skipped && paths.vanished.is_empty());
    assert!(paths.unreadable.iter().eq([&path("t/x")]));
}

/// rsync reports this on standard output, which nobody read, so files gone from the source stayed on the target for ever.
#[test]
fn deletions_that_did_not_happen_are_seen_where_rsync_tells_of_them() {
    let unread = "rsync: [sender] opendir \"/data/www/t/x\" failed: Permission denied (13)";
    let refused = "rsync: [receiver] mkstemp \"/sub/t/.g.aB3dEf\" (in m) failed: Operation not permitted (1)";
    let word = "IO error encountered -- skipping file deletion\n";
    for (kind, stdout, keeps, stderr, skipped) in [
        (RunKind::Tree, word, 100, unread, true),
        (RunKind::Level, word, 100, unread, true),
        (RunKind::Tree, "t/IO error encountered -- skipping file deletion\n", 100, unread, false),
        (RunKind::Tree, "", 100, unread, false),
        // The part of the output that was cut may have said it.
        (RunKind::Tree, "many names\n", 4, unread, true),
        (RunKind::Tree, "many names\n", 4, refused, false),
        (RunKind::Flat, word, 100, unread, false),
    ] {
        let run = self::run(kind, &["t"]);
        let (mut said, mut printed) = (Capture::of_errors(), Capture::new(keeps, 0));
        said.push(stderr.as_bytes());
        printed.push(stdout.as_bytes());
        let ended = Ended { end: End::Exit(23), stderr: said, stdout: printed, blocked: None, cut: Cut::No };
        let module = Destination::Daemon { host: "h".into(), module: "m/sub".into() };
        let outcome = classify(&ended, &run, &Prefixes::new(&[Path::new("/data/www")], &module), &Noise::default());
        let Outcome::Paths(paths) = outcome else { panic!("{outcome:?}") };
        assert_eq!(paths.deletions_skipped, skipped, "{kind:?} {stdout} {stderr}");
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

/// A name that rsync could not convert was skipped with exit code 0 and counted as done.
#[test]
fn words_decide_at_exit_code_0_as_well() {
    let run = flat(&["a", "b"]);
    let said = "[Receiver] cannot convert filename: b (Invalid or incomplete multibyte or wide character)";
    let Outcome::Paths(paths) = read(0, said, &run) else { panic!() };
    assert!(paths.failed.keys().eq([&1]) && paths.unattributed.is_none());
    let tree = self::run(RunKind::Tree, &["t"]);
    let said = "[Receiver] cannot convert filename: t/x/b (Invalid or incomplete multibyte or wide character)";
    let Outcome::Paths(paths) = read(0, said, &tree) else { panic!() };
    assert!(paths.found.keys().eq([&path("t/x/b")]));
    for said in ["Something is as nobody expected it", "rsync: [sender] some new trouble: Permission denied (13)"] {
        for code in [0, 23, 24] {
            let Outcome::Paths(paths) = read(code, said, &run) else { panic!("{said}") };
            assert!(paths.unattributed.is_some() && paths.unknown_words && paths.failed.is_empty(), "{said} {code}");
        }
    }
    let Outcome::Paths(paths) = read(0, "a new sentence about b.", &run) else { panic!() };
    assert!(paths.failed.keys().eq([&1]) && paths.unattributed.is_none());
}

#[test]
fn what_the_server_leaves_out_fails_nothing() {
    let run = flat(&["a", "x.tmp"]);
    let Outcome::Paths(paths) = read(23, "ERROR: daemon refused to receive file \"x.tmp\"", &run) else { panic!() };
    let refused = BTreeSet::from([path("x.tmp")]);
    assert_eq!(paths, Paths { refused, ..Paths::default() });
    let directory =
        "ERROR: daemon refused to receive directory \"d\"\n*** Skipping any contents from this failed directory ***";
    let Outcome::Paths(paths) = read(23, directory, &flat(&["d", "d/f"])) else { panic!() };
    assert!(paths.failed.is_empty() && paths.unattributed.is_none() && paths.refuses(&path("d/f")));
}

/// A file named like a message about the target put the target in trouble.
#[test]
fn names_are_no_words_about_the_target() {
    let run = flat(&["@ERROR: max connections (1) reached -- try again later", "b"]);
    let said =
        "rsync: [receiver] write failed on \"/sub/@ERROR: max connections (1) reached\" (in m): Input/output error (5)";
    assert!(matches!(read(11, said, &run), Outcome::Split(_)));
    let said = "cannot delete non-empty directory: b: No space left on device (28)";
    let Outcome::Paths(paths) = read(0, said, &run) else { panic!() };
    assert!(paths.unattributed.is_some());
}

proptest::proptest! {
    /// Whatever a file is called, no other path is taken for it and it does not count as done.
    #[test]
    fn the_named_path_fails_and_no_other(
        name in "[a-c\"\\\\#0-3 .():>-]{1,12}",
        other in "[a-c\"\\\\#0-3 .():>-]{1,12}",
        way in 0..6usize,
    ) {
        let (Ok(guilty), Ok(innocent)) = (RelPath::new(name.as_bytes()), RelPath::new(other.as_bytes())) else {
            return Ok(());
        };
        let is_temporary = |name: &str| name.rsplit_once('.').is_some_and(|(_, end)| (4..=8).contains(&end.len()));
        let is_apart = !guilty.covers(&innocent) && !is_temporary(&name) && !is_temporary(&other);
        if !is_apart || name.starts_with(' ') || name.ends_with(' ') || other.ends_with(' ') {
            return Ok(());
        }
        let run = flat(&[&name, &other]);
        let shown = name.replace("\\#", "\\#134#");
        let said = match way {
            0 => format!("rsync: [sender] send_files failed to open \"/data/www/{shown}\": Permission denied (13)"),
            1 => format!("rsync: [receiver] mkstemp \"/sub/.{shown}.aB3dEf\" (in m) failed: Permission denied (13)"),
            2 => format!("rsync: [generator] recv_generator: mkdir \"/sub/{shown}\" (in m) failed: Permission denied (13)"),
            3 => format!("rsync: [generator] delete_file: unlink({shown}) failed: Permission denied (13)"),
            4 => format!("rsync: [receiver] rename \"/sub/.{shown}.aB3dEf\" (in m) -> \"{shown}\": Permission denied (13)"),
            _ => format!("[sender] cannot convert filename: {shown} (Invalid argument)"),
        };
        let Outcome::Paths(paths) = read(23, &said, &run) else { panic!("{said}") };
        proptest::prop_assert!(paths.failed.keys().eq([&0]), "{}: {:?}", said, paths);
    }
}
