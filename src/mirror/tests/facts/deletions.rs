//! Which entries rsync deletes, which it spares, and what it says and counts.

use super::*;

const DELETES: [&str; 2] = ["--delete-missing-args", "--force"];

fn by_name(args: &[&'static str]) -> Vec<&'static str> {
    [&BY_NAME[..], &DELETES, args].concat()
}

/// Whether the receiver refuses deletions by name. Debian's 3.2.7 does and the original does not, with one version number.
fn refuses(pair: &Pair) -> bool {
    pair.stage.write("probe", "x");
    let said = pair.run(&by_name(&["-n"]), b"./not-there\0");
    let refuses = said.code == 2;
    let expected = match pair.receiver()[..] {
        [3, 2, 7] => refuses,
        [3, 4, 3] => true,
        _ => false,
    };
    assert_eq!(refuses, expected, "{:?} {said:#?}", pair.way);
    std::fs::remove_file(pair.stage.src("probe")).unwrap();
    refuses
}

/// `planner`, `classify`: by name a file and a whole tree are deleted. A refusal has these words, and comes before any
/// deletion.
#[test]
fn a_deletion_by_name_takes_all_or_is_refused_in_known_words() {
    for pair in Pair::all() {
        let refused = refuses(&pair);
        for name in ["f", "d/sub/g", "stays"] {
            write(&pair.stage.dst(name), "x");
        }
        pair.stage.write("stays", "x");
        let said = pair.run(&by_name(&[]), b"./d\0./f\0");
        if refused {
            let words = said.all();
            assert!(words.lines().any(|line| line.starts_with("invalid file mode 00 for ")), "{words}");
            assert_eq!(pair.target_names().len(), 5, "{said:#?}");
        } else {
            said.well();
            assert_eq!(pair.target_names(), ["stays"]);
        }
    }
}

/// `planner`: an entry that exists again is sent and not deleted.
#[test]
fn what_is_there_again_is_sent() {
    for pair in Pair::all() {
        pair.stage.write("f", "new");
        write(&pair.stage.dst("f"), "x");
        pair.run(&by_name(&[]), b"./f\0").well();
        assert_eq!(std::fs::read(pair.stage.dst("f")).unwrap(), b"new");
    }
}

/// `classify` (24 is looked at again), `planner::topmost`: a path whose directory is gone as well is deleted, and reported
/// as vanished.
#[test]
fn a_missing_path_below_a_missing_directory_is_told_as_vanished() {
    for pair in Pair::all().filter(|pair| !refuses(pair)) {
        write(&pair.stage.dst("d/f"), "x");
        let said = pair.run(&by_name(&[]), b"./d/f\0");
        if pair.receiver() < vec![3, 2, 0] {
            // `classify::mistakes_missing`
            assert!(
                said.code == 2 && said.all().contains("ABORTING due to invalid path from sender: d/f"),
                "{said:#?}"
            );
            continue;
        }
        assert!(!pair.has("d/f"), "{said:#?}");
        let is_told = said.err.contains("WARNING: parent dir is absent in the file list: d");
        assert!(said.code == 24 && is_told, "{:?} {said:#?}", pair.way);
    }
}

/// `Mode::empties`, `itemize::full_directory`: without `--force` a directory that is not empty stays, and rsync says so.
#[test]
fn a_directory_with_something_in_it_stays_without_force() {
    for pair in Pair::all().filter(|pair| !refuses(pair)) {
        write(&pair.stage.dst("d/f"), "x");
        let said = pair.run(&[&BY_NAME[..], &["--delete-missing-args"]].concat(), b"./d\0");
        assert!(pair.has("d/f"), "{said:#?}");
        let is_told = said.all().lines().any(|line| line == "cannot delete non-empty directory: d");
        assert!(said.code == 0 && is_told, "{:?} {said:#?}", pair.way);
    }
}

/// `classify` ("could not make way"): only with `--force` does a directory that is not empty make way for a file.
#[test]
fn a_full_directory_makes_way_with_force_alone() {
    for pair in Pair::all() {
        pair.stage.write("f", "a file");
        write(&pair.stage.dst("f/x"), "x");
        let said = pair.run(&BY_NAME, b"./f\0");
        assert!(said.code == 23 && said.all().contains("could not make way for new regular file: f"), "{said:#?}");
        assert!(pair.has("f/x"));
        pair.run(&[&BY_NAME[..], &["--force"]].concat(), b"./f\0").well();
        assert_eq!(pair.stage.difference(), None, "{:?}", pair.way);
    }
}

/// `RunKind::Level`: one level is made equal. Entries below it that both sides have do not change, and other directories in
/// the list lose nothing.
#[test]
fn a_level_is_made_equal_and_nothing_below_it() {
    for pair in Pair::all() {
        for name in ["d/f", "d/both/f", "e/f"] {
            pair.stage.write(name, "x");
        }
        for name in ["d/gone", "d/tree/gone", "d/both/stays", "e/stays", "stays"] {
            write(&pair.stage.dst(name), "x");
        }
        pair.run(&[&BY_NAME[..], &["--delete", "--force"]].concat(), b"./d/\0./e\0").well();
        assert_eq!(pair.target_names(), ["d", "d/both", "d/both/stays", "d/f", "e", "e/stays", "stays"]);
    }
}

/// `deletions`: nothing is deleted, and standard error tells how many files were held back. The exit code is 25 or 0.
#[test]
fn max_delete_holds_back_and_counts() {
    for pair in Pair::all() {
        pair.stage.write("stays", "x");
        for name in ["f", "d/g", "d/h"] {
            write(&pair.stage.dst(name), "x");
        }
        let said = pair.run(&[&BY_TREE[..], &["--delete", "--force", "--max-delete=0"]].concat(), b"./\0");
        assert!(["stays", "f", "d/g", "d/h"].iter().all(|name| pair.has(name)), "{said:#?}");
        assert_eq!(stats::held_back(said.err.as_bytes()), Some(3), "{:?} {said:#?}", pair.way);
        assert!(matches!(said.code, 0 | 25), "{said:#?}");
        // A limit that suffices is not mentioned.
        let said = pair.run(&[&BY_TREE[..], &["--delete", "--force", "--max-delete=4"]].concat(), b"./\0").well();
        assert_eq!((stats::held_back(said.err.as_bytes()), pair.target_names()), (None, vec!["stays".to_owned()]));
    }
}

/// `deletions`, `filtered`, `comparison`: a dry run lists each entry that would be deleted, also within directories,
/// whether its statistics count these entries or not.
#[test]
fn a_dry_run_lists_all_that_would_go() {
    for pair in Pair::all() {
        pair.stage.write("stays", "x");
        for name in ["f", "d/g", "d/e/h"] {
            write(&pair.stage.dst(name), "x");
        }
        for kind in [&BY_TREE[..], &BY_NAME[..]] {
            let args = ["--delete", "--force", "-n", "--no-h", "--info=stats2", "--out-format=%i %n"];
            let said = pair.run(&[kind, &args].concat(), b"./\0").well();
            assert_eq!(stats::deletions(said.out.as_bytes()), 5, "{:?} {said:#?}", pair.way);
            assert!(said.has_line("*deleting   d/e/h") && said.has_line("*deleting   d/"), "{said:#?}");
            let counted = stats::Statistics::read(said.out.as_bytes()).unwrap().deleted;
            let counts = pair.way == Way::Local || pair.receiver() >= vec![3, 4, 4];
            // Through a remote shell some earlier versions count, and some do not.
            assert!(counted == 5 || (!counts && counted == 0) || pair.way == Way::Shell, "{:?} {said:#?}", pair.way);
        }
        assert_eq!(pair.target_names().len(), 5);
    }
}

/// `planner`, `Params::selects`: an excluded entry stays on the target, and so does its directory. A perishable one (`-p`)
/// goes with its directory.
#[test]
fn what_is_excluded_is_spared_and_what_is_perishable_is_not() {
    for pair in Pair::all() {
        pair.stage.write("stays", "x");
        for name in ["kept.log", "d/kept.log", "d/gone", "e/x~", "x~"] {
            write(&pair.stage.dst(name), "x");
        }
        let rules = ["--delete", "--force", "--exclude=*.log", "--filter=-p *~"];
        let said = pair.run(&[&BY_TREE[..], &rules].concat(), b"./\0");
        assert_eq!(said.code, 0, "{said:#?}");
        assert_eq!(pair.target_names(), ["d", "d/kept.log", "kept.log", "stays", "x~"], "{:?} {said:#?}", pair.way);
        assert!(said.all().contains("cannot delete non-empty directory: d"), "{said:#?}");
    }
}

/// `classify`, `Paths::to_skip`: once rsync meets a directory of the source that cannot be read, it makes no more
/// deletions, and says so on its output; earlier deletions stand. A missing path in the list keeps rsync from no deletion.
#[test]
fn an_unreadable_directory_ends_deletions() {
    for pair in [Way::Local, Way::Daemon].map(Pair::new) {
        for name in ["d/f", "d/closed/f"] {
            pair.stage.write(name, "x");
        }
        write(&pair.stage.dst("d/gone"), "x");
        let said = pair.run(&[&BY_NAME[..], &["--delete", "--force"]].concat(), b"./d/\0./missing\0");
        assert!(!pair.has("d/gone") && said.code == 23 && said.err.contains("link_stat \""), "{said:#?}");

        write(&pair.stage.dst("d/gone"), "x");
        pair.close("d/closed");
        let said = pair.run_as_nobody(&[&["-rt"][..], &BY_TREE[1..], &["--delete", "--force"]].concat(), b"./d/\0");
        pair.open("d/closed");
        assert!(said.all().lines().any(|line| itemize::skips_deletions(line.as_bytes())), "{:?} {said:#?}", pair.way);
        let line = said.err.lines().find(|line| line.contains("opendir \"")).unwrap_or_else(|| panic!("{said:#?}"));
        assert!(said.code == 23 && messages::Line::read(line.as_bytes()).is_senders(), "{line}");
    }
}

/// `classify::mistakes_missing`: a daemon that refuses the option says so in one of these ways, and deletes nothing.
#[test]
fn a_server_that_refuses_deletions_by_name_is_understood() {
    let pair = Pair::with(Way::Daemon, "refuse options = delete-missing-args");
    for name in ["f", "d/g"] {
        write(&pair.stage.dst(name), "x");
    }
    std::fs::create_dir(pair.stage.src("d")).unwrap();
    let said = pair.run(&by_name(&[]), b"./d/g\0./f\0");
    assert!(pair.has("f") && pair.has("d/g"), "{said:#?}");
    let known =
        ["invalid file mode 00 for ", "skipping non-regular file \"", "ABORTING due to invalid path from sender: "];
    assert!(said.all().lines().any(|line| known.iter().any(|words| line.starts_with(words))), "{said:#?}");
}
