//! The effect of a list on rsync, and rsync's reports of differences.

use super::*;

/// `arguments::list`: names go as `./name`, NUL after each, and may hold anything.
#[test]
fn any_name_may_stand_in_a_list() {
    let names: [&[u8]; 9] =
        [b"#x", b";x", b"-x", b"new\nline", b"latin\xe9\xff", b" blank ", b"a*b", b"quote\"'`$(x)", b"back\\slash"];
    for pair in Pair::all() {
        let mut list = Vec::new();
        for name in names {
            let name = std::ffi::OsStr::from_bytes(name);
            std::fs::write(pair.stage.src("").join(name), "x").unwrap();
            list.extend([b"./", name.as_bytes(), b"\0"].concat());
        }
        pair.run(&BY_NAME, &list).well();
        assert_eq!(pair.stage.difference(), None, "{:?}", pair.way);
    }
}

/// `arguments::probe_arguments`, `noise`, `standby`: with an empty list rsync succeeds and does nothing.
#[test]
fn an_empty_list_ends_well_and_changes_nothing() {
    for pair in Pair::all() {
        pair.stage.write("a", "a");
        write(&pair.stage.dst("b"), "b");
        pair.run(&[&BY_NAME[..], &["--delete-missing-args", "--force"]].concat(), b"").well();
        assert_eq!(pair.target_names(), ["b"]);
    }
}

/// `planner`: a directory without a slash is the directory itself; with a slash it is one level of contents.
#[test]
fn a_slash_has_rsync_look_into_a_directory() {
    for pair in Pair::all() {
        for name in ["d/f", "d/sub/g", "e/f"] {
            pair.stage.write(name, "x");
        }
        pair.run(&BY_NAME, b"./d\0").well();
        assert_eq!(pair.target_names(), ["d"]);
        pair.run(&BY_NAME, b"./d/\0./e\0").well();
        assert_eq!(pair.target_names(), ["d", "d/f", "d/sub", "e"]);
        pair.run(&BY_TREE, b"./d/\0").well();
        assert_eq!(pair.target_names(), ["d", "d/f", "d/sub", "d/sub/g", "e"]);
    }
}

/// `planner`, "Directory mtimes" in ARCHITECTURE.md: the directories above a path are sent along, with their times.
#[test]
fn parents_come_along_with_their_attributes() {
    for pair in Pair::all() {
        pair.stage.write("d/e/f", "x");
        std::fs::File::open(pair.stage.src("d")).unwrap().set_modified(NOW.to_system()).unwrap();
        pair.run(&BY_NAME, b"./d/e/f\0").well();
        assert_eq!(pair.stage.dst("d").metadata().unwrap().modified().unwrap(), NOW.to_system(), "{:?}", pair.way);
    }
}

/// `arguments` (`--implied-dirs`), `rename`: a link of the target in place of a directory above makes way, and nothing is
/// written where the link leads.
#[test]
fn a_link_of_the_target_above_a_listed_path_makes_way() {
    for pair in Pair::all() {
        pair.stage.write("d/f", "x");
        let outside = pair.stage.dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, pair.stage.dst("d")).unwrap();
        pair.run(&[&BY_NAME[..], &["--force"]].concat(), b"./d/f\0").well();
        assert!(!pair.stage.dst("d").is_symlink() && pair.has("d/f"), "{:?}", pair.way);
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
}

/// `arguments`: nanoseconds count. `contents`, `sweep`: the quick check sees nothing but size and time.
#[test]
fn the_quick_check_goes_by_size_and_nanoseconds() {
    for pair in Pair::all() {
        pair.stage.write("f", "one");
        set_time(&pair.stage.src("f"), 1_000_000_000, 5_000);
        pair.run(&BY_NAME, b"./f\0").well();
        let target = || std::fs::read_to_string(pair.stage.dst("f")).unwrap();
        pair.stage.write("f", "two");
        set_time(&pair.stage.src("f"), 1_000_000_000, 5_000);
        pair.run(&BY_NAME, b"./f\0").well();
        assert_eq!(target(), "one");
        set_time(&pair.stage.src("f"), 1_000_000_000, 6_000);
        pair.run(&BY_NAME, b"./f\0").well();
        assert_eq!(target(), "two", "{:?}", pair.way);
    }
}

/// `contents`: with `--checksum` other content of the same size and time is sent, and equal files stay untouched; with
/// `--ignore-times` everything is written anew.
#[test]
fn contents_are_compared_or_sent_again() {
    for pair in Pair::all() {
        for name in ["equal", "other"] {
            pair.stage.write(name, "one");
            set_time(&pair.stage.src(name), 1_000_000_000, 0);
        }
        let list = b"./equal\0./other\0";
        pair.run(&BY_NAME, list).well();
        pair.stage.write("other", "two");
        set_time(&pair.stage.src("other"), 1_000_000_000, 0);
        let before = inode(&pair.stage.dst("equal"));
        let said = pair.run(&[&BY_NAME[..], &["--checksum", "--out-format=%i %n"]].concat(), list).well();
        assert!(said.out.contains(" other") && !said.out.contains("equal"), "{said:?}");
        assert_eq!((inode(&pair.stage.dst("equal")), pair.stage.difference()), (before, None));
        pair.run(&[&BY_NAME[..], &["--ignore-times"]].concat(), list).well();
        assert_ne!(inode(&pair.stage.dst("equal")), before, "{:?}", pair.way);
    }
}

/// `itemize::difference`, `observer`, `standby`: a line of eleven columns for each difference, and none for equal paths.
#[test]
fn differences_are_itemized() {
    for pair in Pair::all() {
        for name in ["changed", "equal", "mode", "d/new", "odd\nname"] {
            pair.stage.write(name, "x");
        }
        std::os::unix::fs::symlink("to", pair.stage.src("link")).unwrap();
        let list = b"./changed\0./equal\0./mode\0";
        pair.run(&BY_NAME, list).well();
        pair.stage.write("changed", "longer");
        let chmod = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(pair.stage.src("mode"), chmod(0o751)).unwrap();
        let all = [&list[..], b"./d/new\0./link\0./odd\nname\0"].concat();
        for pass in [&["-n", "--out-format=%i %n"][..], &["--out-format=%i %n"]] {
            let said = pair.run(&[&BY_NAME[..], pass].concat(), &all).well();
            let sent = if pair.way == Way::Local { '>' } else { '<' };
            for line in [
                format!("{sent}f+++++++++ d/new"),
                "cd+++++++++ d/".to_owned(),
                "cL+++++++++ link".to_owned(),
                format!("{sent}f+++++++++ odd\\#012name"),
                ".f...p..... mode".to_owned(),
            ] {
                // None of syncq's formats shows what a link leads to.
                assert!(said.has_line(&line), "{line}: {said:#?}");
            }
            let changed = format!("{sent}f.s");
            assert!(said.out.lines().any(|line| line.starts_with(&changed) && line.ends_with(" changed")), "{said:#?}");
            assert!(!said.out.contains("equal"), "{said:#?}");
        }
        // An older receiver does not keep times exactly.
        assert!(pair.receiver() < vec![3, 2, 0] || pair.stage.difference().is_none(), "{:?}", pair.way);
    }
}

/// `itemize::equal`: if asked to, rsync names equal paths too.
#[test]
fn equal_paths_are_named_if_asked_for() {
    for pair in Pair::all() {
        pair.stage.write("d/f", "x");
        pair.run(&BY_NAME, b"./d/f\0").well();
        let said = pair.run(&[&BY_NAME[..], &["-n", "-ii", "--out-format=%i %n"]].concat(), b"./d/f\0").well();
        assert!(said.has_line(".f          d/f") && said.has_line(".d          d/"), "{:?} {said:#?}", pair.way);
    }
}

/// `stats::Statistics`, `deletions`: a count gives figures of both sides.
#[test]
fn a_count_tells_of_both_sides() {
    for pair in Pair::all() {
        for name in ["a", "d/b", "d/c"] {
            pair.stage.write(name, "x");
        }
        pair.run(&BY_TREE, b"./a\0").well();
        let args = [&BY_TREE[..], &["-n", "--no-h", "--info=stats2", "--out-format=%i %n"]].concat();
        let said = pair.run(&args, b"./\0").well();
        let found = stats::Statistics::read(said.out.as_bytes());
        assert_eq!(found, Some(stats::Statistics { deleted: 0, shared: 1 }), "{:?} {said:#?}", pair.way);
        assert!(said.out.contains("Number of created files: 3 "), "{said:#?}");
    }
}

/// `stale_temporaries`, `top`: a line has mode, size, time in UTC, name, and only with `-l` what a link leads to. The
/// listing of a target that does not exist ends with 23 and `(2)`.
#[test]
fn a_target_can_be_listed() {
    for pair in Pair::all() {
        write(&pair.stage.dst("d/f g"), "12345");
        write(&pair.stage.dst("odd\nname"), "");
        set_time(&pair.stage.dst("d/f g"), 1_795_348_800, 0);
        std::os::unix::fs::symlink("to", pair.stage.dst("link")).unwrap();
        let list = |below: &str, args: &[&str]| {
            let mut words: Vec<OsString> = args.iter().map(OsString::from).collect();
            words.extend(pair.target(below));
            pair.start(&words, b"")
        };
        let said = list("", &["-r", "--list-only", "--no-h"]).well();
        // Versions differ in the width of the size.
        let is_file = |line: &str| line.starts_with("-rw-r--r-- ") && line.ends_with(" 5 2026/11/22 12:00:00 d/f g");
        assert!(said.out.lines().any(is_file), "{:?} {said:#?}", pair.way);
        assert!(said.out.lines().any(|line| line.starts_with('l') && line.ends_with(" link")), "{said:#?}");
        assert!(said.out.lines().any(|line| line.ends_with(" odd\\#012name")), "{said:#?}");
        let level = list("", &["--no-r", "--dirs", "--list-only", "--no-h"]).well();
        assert!(level.out.contains(" d\n") && !level.out.contains("f g"), "{level:#?}");
        let missing = list("gone/", &["--no-r", "--dirs", "--list-only", "--no-h"]);
        let at_all = missing.code == 23 && missing.err.contains("(2)");
        // A daemon enters the missing directory before it lists, and ends with 5.
        assert!(at_all || (pair.way == Way::Daemon && missing.code == 5), "{:?} {missing:#?}", pair.way);
    }
}
