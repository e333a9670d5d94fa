//! Which entries a message takes down: tables of what rsync 3.5.0 wrote.

use super::*;

#[test]
fn failures_that_name_their_paths() {
    let run = flat(&["d/f", "d/q\"x", "e", "g", &"n".repeat(255)]);
    let long =
        format!("rsync: [receiver] mkstemp \"/sub/.{}.abcDEF\" (in m) failed: Permission denied (13)", "n".repeat(247));
    for (stderr, entry, words) in [
        (
            "rsync: [sender] send_files failed to open \"/data/www/d/f\": Permission denied (13)",
            0,
            "may not read it at the source",
        ),
        (
            "rsync: [receiver] mkstemp \"/sub/d/.f.kHgAv8\" (in m) failed: Permission denied (13)",
            0,
            "may not be written on the target",
        ),
        (
            "rsync: [receiver] mkstemp \"/home/u/sub/d/.f.kHgAv8\" failed: Permission denied (13)",
            0,
            "may not be written",
        ),
        (
            "rsync: [receiver] mkstemp \"/sub/d/.q\"x.kHgAv8\" (in m) failed: Permission denied (13)",
            1,
            "may not be written",
        ),
        (
            "rsync: [receiver] rename \"/sub/.e.10107\" -> \"\"/sub/e\"\" failed: Operation not permitted (1)",
            2,
            "may not be written",
        ),
        ("rsync: [generator] delete_file: unlink(g) failed: Permission denied (13)", 3, "may not be written"),
        (
            "could not make way for new regular file: e\ncannot delete non-empty directory: e",
            2,
            "something else stands in its place",
        ),
        (
            "rsync: [generator] failed to set times on \"/sub/g\" (in m): Operation not permitted (1)",
            3,
            "may not be written",
        ),
        ("ERROR: g failed verification -- update discarded.", 3, "failed verification"),
        (&long, 4, "may not be written"),
    ] {
        let Outcome::Paths(paths) = read(23, stderr, &run) else { panic!("{stderr}") };
        assert_eq!(paths.failed.keys().collect::<Vec<_>>(), [&entry], "{stderr}");
        assert!(paths.failed[&entry].message.contains(words), "{}", paths.failed[&entry]);
        assert_eq!(paths.unattributed, None, "{stderr}");
    }
}

#[test]
fn parents_take_down_what_is_below_unless_only_their_times_failed() {
    let run = flat(&["d/f", "d/g", "e"]);
    let Outcome::Paths(paths) = read(
        23,
        "rsync: [generator] recv_generator: mkdir \"/sub/d\" (in m) failed: Permission denied (13)\n\
         *** Skipping any contents from this failed directory ***",
        &run,
    ) else {
        panic!()
    };
    assert_eq!(paths.failed.keys().collect::<Vec<_>>(), [&0, &1]);
    let times = "rsync: [generator] failed to set times on \"/sub/.\" (in m): Operation not permitted (1)";
    assert_eq!(read(23, times, &run), Outcome::Done);
    let Outcome::Paths(paths) = read(23, times, &self::run(RunKind::RootOnly, &[""])) else { panic!() };
    assert_eq!(paths.failed.len(), 1);
}

/// One unreadable file in a tree of a million made the whole tree fail and be compared again, for ever.
#[test]
fn below_a_tree_only_the_paths_that_fail_are_blamed() {
    let tree = self::run(RunKind::Tree, &["t"]);
    let stderr = "rsync: [sender] send_files failed to open \"/data/www/t/d/f\": Permission denied (13)\n\
                  rsync: [receiver] mkstemp \"/sub/t/.g.aB3dEf\" (in m) failed: Operation not permitted (1)\n\
                  file has vanished: \"/data/www/t/gone\"";
    let Outcome::Paths(paths) = read(23, stderr, &tree) else { panic!() };
    assert!(paths.found.keys().eq([&path("t/d/f"), &path("t/g")]), "{:?}", paths.found);
    assert!(paths.found.values().all(|undone| undone.extent == Extent::Alone));
    assert!(paths.failed.is_empty() && paths.vanished.is_empty() && paths.unattributed.is_none());
}

/// A tree run with deletions may remove the temporary file of a transfer beside it.
#[test]
fn a_temporary_file_that_another_run_deleted_costs_no_attempt() {
    let stderr = "rsync: [receiver] stat \".a.e5tzr8\" (in m) failed: No such file or directory (2)";
    let Outcome::Paths(paths) = read(23, stderr, &flat(&["a", "b"])) else { panic!() };
    assert!(paths.vanished.iter().eq([&0]) && paths.failed.is_empty());
}

/// A directory that could not be made or opened came back as a single entry, and the files in it never arrived.
#[test]
fn a_directory_that_failed_below_a_tree_stands_for_what_is_in_it() {
    let tree = self::run(RunKind::Tree, &["t"]);
    let stderr = "rsync: [sender] opendir \"/data/www/t/d\" failed: Permission denied (13)\n\
                  rsync: [generator] recv_generator: mkdir \"/sub/t/e\" (in m) failed: Operation not permitted (1)\n\
                  *** Skipping any contents from this failed directory ***\n\
                  rsync: [generator] failed to set times on \"/sub/t/g\" (in m): Operation not permitted (1)";
    let Outcome::Paths(paths) = read(23, stderr, &tree) else { panic!() };
    let found: Vec<_> = paths.found.iter().map(|(path, undone)| (path.to_string(), undone.extent)).collect();
    let expected = [("t/d", Extent::Below), ("t/e", Extent::Below), ("t/g", Extent::Alone)];
    assert_eq!(found, expected.map(|(path, extent)| (path.to_owned(), extent)));
    assert!(paths.unreadable.iter().eq([&path("t/d")]));
}

/// A target's own tree may hold a path that reads like the source's root.
#[test]
fn each_side_names_its_own_places() {
    let run = flat(&["f", "data/www/f"]);
    for (said, at) in [
        ("rsync: [sender] send_files failed to open \"/data/www/f\": Permission denied (13)", 0),
        ("rsync: [generator] chown \"/data/www/f\" (in m) failed: Operation not permitted (1)", 1),
        ("rsync: [generator] chown \"/sub/f\" (in m) failed: Operation not permitted (1)", 0),
    ] {
        let Outcome::Paths(paths) = read(23, said, &run) else { panic!("{said}") };
        assert!(paths.failed.keys().eq([&at]), "{said}: {:?}", paths.failed);
    }
}

/// A file named like a temporary one was taken for one, and its failure was given to another file.
#[test]
fn a_listed_name_may_look_like_a_temporary_file() {
    let run = flat(&["a", ".a.abc123"]);
    for (said, failed) in [
        ("rsync: [generator] delete_file: unlink(.a.abc123) failed: Operation not permitted (1)", &[1][..]),
        ("rsync: [receiver] mkstemp \"/sub/.a.abc123\" (in m) failed: Permission denied (13)", &[0]),
        ("rsync: [receiver] failed to set times on \"/sub/.a.abc123\" (in m): Permission denied (13)", &[0, 1]),
    ] {
        let Outcome::Paths(paths) = read(23, said, &run) else { panic!("{said}") };
        assert!(paths.failed.keys().eq(failed), "{said}: {:?}", paths.failed);
    }
    let long = "n".repeat(245);
    let said = format!("rsync: [receiver] mkstemp \"/sub/t/.{long}.abcdef\" (in m) failed: Permission denied (13)");
    let Outcome::Paths(paths) = read(23, &said, &self::run(RunKind::Tree, &["t"])) else { panic!() };
    assert!(paths.found.is_empty() && paths.failed.keys().eq([&0]), "a shortened name is nobody's");
}
