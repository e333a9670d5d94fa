//! The reading of rsync's lines.

use super::*;

fn name(line: &str) -> (String, bool) {
    let Names { names, sure, .. } = Line::read(line.as_bytes()).names();
    (String::from_utf8(names.into_iter().next().unwrap_or_default()).unwrap(), sure)
}

#[test]
fn names_of_every_form() {
    for (line, expected) in [
        (r#"rsync: [sender] send_files failed to open "/src/a": Permission denied (13)"#, "/src/a"),
        (r#"rsync: [sender] readdir("/src/a"): Input/output error (5)"#, "/src/a"),
        (r#"rsync: [receiver] mkstemp "/sub/.x.3XRano" (in m) failed: Permission denied (13)"#, "/sub/.x.3XRano"),
        (r#"rsync: [receiver] mkstemp "a"b"c" failed: Permission denied (13)"#, r#"a"b"c"#),
        (r#"rsync: [generator] delete_file: unlink(ro/g) failed) failed: Permission denied (13)"#, "ro/g) failed"),
        (r#"rsync: [generator] rename "/d/.z.10107" -> ""/d/z"" failed: Operation not permitted (1)"#, "/d/z"),
        (r#"rsync: [receiver] rename "/d/.z.abcdef" (in m) -> "d/z": Operation not permitted (1)"#, "d/z"),
        (r#"rsync: [generator] symlink "/d/l" -> "t" failed: Permission denied (13)"#, "/d/l"),
        (r#"rsync: [generator] symlink "/l5" (in m) -> "a"b" failed: File exists (17)"#, "/l5"),
        ("could not make way for new regular file: a", "a"),
        ("could not make way for new directory: z: y", "z: y"),
        ("cannot delete non-empty directory: mx", "mx"),
        ("file has vanished: \"/src/no\"", "/src/no"),
        ("ERROR: d/f failed verification -- update discarded.", "d/f"),
        ("ERROR: d/f failed verification -- update put into partial-dir.", "d/f"),
        ("WARNING: parent dir is absent in the file list: no", "no"),
        ("[sender] cannot convert filename: a (b) (Invalid or incomplete multibyte character)", "a (b)"),
        (r#"[sender] cannot convert symlink data for: "/s/l" (Invalid argument)"#, "/s/l"),
        (r#"symlink has no referent: "/src/l""#, "/src/l"),
        (r#"ERROR: daemon refused to receive file "a"b""#, r#"a"b"#),
        (r#"recv_files: "/d/x" (in m) is a directory"#, "/d/x"),
        ("filename overflows max-path len by 7: a/b: c/d", "a/b: c/d"),
        ("Time value of x truncated on receiver. truncated on receiver.", "x truncated on receiver."),
    ] {
        assert_eq!(name(line), (expected.to_owned(), true), "{line}");
    }
}

/// A name that contains the end of a message was cut there, and the failure was given to another path.
#[test]
fn a_name_may_read_like_a_message() {
    const NAMES: [&str; 12] = [
        r#"q" failed: Operation not permitted (1)"#,
        r#"q" (in t0) failed: Operation not permitted (1)"#,
        r#"q": Permission denied (13)"#,
        r#"q" (in t0)"#,
        r#"file has vanished: "q""#,
        r#"rsync: [receiver] mkstemp "q" (in t0) failed: Operation not permitted (1)"#,
        r#"""#,
        r#"q) failed: Directory not empty (39)"#,
        r#"a" -> "b"#,
        r#"q (1)"#,
        r#"failed to set times on "q""#,
        r#"skipping non-regular file "q""#,
    ];
    for name in NAMES {
        for (line, expected) in [
            (format!("rsync: [sender] send_files failed to open \"/s/{name}\": Permission denied (13)"), "/s/"),
            (format!("rsync: [generator] recv_generator: mkdir \"/{name}\" (in m) failed: File exists (17)"), "/"),
            (format!("rsync: [receiver] mkstemp \"/b/{name}\" failed: Permission denied (13)"), "/b/"),
            (format!("rsync: [generator] failed to set times on \"/{name}\" (in m): Permission denied (13)"), "/"),
            (format!("rsync: [generator] delete_file: unlink(d/{name}) failed: Permission denied (13)"), "d/"),
            (format!("rsync: [receiver] rename \"/d/.{name}.abcdef\" (in m) -> \"d/{name}\": No space (28)"), "d/"),
            (format!("cannot delete non-empty directory: d/{name}"), "d/"),
            (format!("ERROR: daemon refused to receive file \"{name}\""), ""),
        ] {
            assert_eq!(self::name(&line), (format!("{expected}{name}"), true), "{line}");
            assert!(Line::read(line.as_bytes()).about != About::Unknown, "{line}");
        }
        let link = format!("rsync: [generator] symlink \"/{name}\" (in m) -> \"t\" failed: File exists (17)");
        assert!(Line::read(link.as_bytes()).names().names.contains(&format!("/{name}").into_bytes()), "{link}");
    }
}

#[test]
fn what_a_line_is_about() {
    for (line, about) in [
        ("rsync: [sender] read error: Connection reset by peer (104)", About::Noise),
        (
            "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1394) [sender=3.5.0]",
            About::Noise,
        ),
        ("*** Skipping any contents from this failed directory ***", About::Noise),
        ("rsync: [generator] failed to set times on \".\" (in m): Operation not permitted (1)", About::Attributes),
        ("rsync: [generator] chown \"/d/f\" failed: Operation not permitted (1)", About::Attributes),
        ("rsync: [generator] failed to open \"/d/f\" (in m), continuing: Permission denied (13)", About::Noise),
        ("IO error encountered -- skipping file deletion", About::DeletionsSkipped),
        ("Deletions stopped due to --max-delete limit (2 skipped)", About::DeletionsLimited),
        ("Warning: Permanently added '10.0.0.1' to the list of known hosts.", About::Noise),
        ("WARNING: f failed verification -- update discarded (will try again).", About::Noise),
        ("rsync: [sender] opendir \"/s/d\" failed: Permission denied (13)", About::Failure),
        ("rsync: mkstemp \"/d/.f.abcdef\" failed: Permission denied (13)", About::Failure),
        ("rsync: [receiver] words of a later version \"/d/f\": Permission denied (13)", About::Failure),
        ("Authorized use only.", About::Unknown),
        ("ERROR: something new", About::Unknown),
    ] {
        assert_eq!(Line::read(line.as_bytes()).about, about, "{line}");
    }
}

/// The number at the end of a name was taken for a system error, and the target for full.
#[test]
fn only_a_system_error_is_one() {
    for (line, errno) in [
        ("rsync: [receiver] mkstemp \"/d/.f.abcdef\" failed: No space left on device (28)", Some(28)),
        ("cannot delete non-empty directory: a: b (28)", None),
        ("could not make way for new regular file: x: No space left on device (28)", None),
    ] {
        assert_eq!(Line::read(line.as_bytes()).errno, errno, "{line}");
    }
}

#[test]
fn a_directory_that_was_not_made_or_read_leaves_what_is_in_it() {
    for (line, extent) in [
        ("rsync: [generator] recv_generator: mkdir \"/d\" failed: Permission denied (13)", Extent::Below),
        ("rsync: [sender] opendir \"/s/d\" failed: Permission denied (13)", Extent::Below),
        ("rsync: [sender] readlink_stat(\"/s/d\") failed: Permission denied (13)", Extent::Below),
        ("could not make way for new directory: d", Extent::Below),
        ("rsync: [receiver] words of a later version \"/d/f\": Permission denied (13)", Extent::Below),
        ("rsync: [receiver] mkstemp \"/d/.f.abcdef\" failed: Permission denied (13)", Extent::Alone),
        ("rsync: [generator] failed to set times on \"/d\": Permission denied (13)", Extent::Alone),
    ] {
        assert_eq!(Line::read(line.as_bytes()).extent(), extent, "{line}");
    }
}
