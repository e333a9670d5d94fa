//! What the params ask for, option by option.

use proptest::prelude::*;

use super::*;

fn params(words: &[&str]) -> Params {
    words.iter().collect()
}

#[test]
fn options_are_read_as_rsync_reads_them() {
    for (words, expected) in [
        (&["-artz"][..], &["archive", "recursive", "times", "compress"][..]),
        (&["-ae", "ssh -x", "-v"], &["archive", "rsh=ssh -x", "verbose"]),
        (&["-aessh -x"], &["archive", "rsh=ssh -x"]),
        (&["-f", "- -x"], &["filter=- -x"]),
        (&["--exclude", "--delete", "--delete"], &["exclude=--delete", "delete"]),
        (&["--exclude=-x"], &["exclude=-x"]),
        (&["--no-whole-file", "--no-W", "--no-motd"], &["!whole-file", "!whole-file", "!motd"]),
        (&["-CFx"], &["cvs-exclude", "F", "one-file-system"]),
        (&["--max-delete", "-1"], &["max-delete=-1"]),
    ] {
        let given = params(words);
        let shown: Vec<String> = given
            .given()
            .iter()
            .map(|given| {
                let value = given.value.as_ref().map(|value| format!("={}", value.display())).unwrap_or_default();
                format!("{}{}{value}", if given.is_off { "!" } else { "" }, given.name)
            })
            .collect();
        assert_eq!(shown, expected, "{words:?}");
    }
}

#[test]
fn what_is_dropped_takes_its_value_along_and_nothing_else() {
    let rows: [(&[&str], &str, &[&str]); 8] = [
        (&["-aruz"], "update", &["-arz"]),
        (&["-u", "-a"], "update", &["-a"]),
        (&["-ue", "ssh"], "update", &["-e", "ssh"]),
        (&["-ae", "ssh -u", "-v"], "rsh", &["-a", "-v"]),
        (&["-aessh", "-v"], "rsh", &["-a", "-v"]),
        (&["--max-delete", "7", "--max-delete=8", "-a"], "max-delete", &["-a"]),
        (&["-f", "-u x", "-u"], "update", &["-f", "-u x"]),
        (&["--delete", "--exclude", "--delete"], "delete", &["--exclude", "--delete"]),
    ];
    for (words, dropped, expected) in rows {
        let left = params(words).without(|given| given.is(dropped));
        assert_eq!(left.iter().collect::<Vec<_>>(), expected, "{words:?}");
    }
}

/// Live changes were sent past `--exclude`, `-x`, `-C` and the like, which held in comparisons alone.
#[test]
fn whatever_lets_rsync_choose_is_known_to_do_so() {
    for chosen in [
        "--exclude=x",
        "--include=x",
        "--filter=x",
        "-fx",
        "-F",
        "-C",
        "--cvs-exclude",
        "--exclude-from=/x",
        "--include-from=/x",
        "-x",
        "--one-file-system",
        "-L",
        "-k",
        "--copy-links",
        "--copy-dirlinks",
        "--copy-unsafe-links",
        "-K",
        "-b",
        "--backup-dir=/x",
        "--an-option-of-tomorrow",
        "-arLt",
    ] {
        assert!(params(&["-a", chosen]).selects(), "{chosen}");
    }
    for same in ["-artuzvHAXP", "--delete", "--max-size=1m", "--bwlimit=1", "--no-owner", "--no-g", "-e ssh"] {
        assert!(!params(&["-a", same]).selects(), "{same}");
    }
}

#[test]
fn files_that_hold_rules_are_known() {
    for (words, files) in [
        (&["-aF"][..], &[".rsync-filter"][..]),
        (&["-aC", "-f", ": /.rules"], &[".cvsignore", ".rules"]),
        (&["--filter=dir-merge,n- .mine", "--filter=:n- .other", "--filter=- x"], &[".mine", ".other"]),
        (&["--filter=merge /etc/rules"], &[]),
    ] {
        assert_eq!(params(words).rule_files(), files, "{words:?}");
    }
}

#[test]
fn limits_and_shells_are_found_in_every_form() {
    assert_eq!(params(&["--max-delete", "7", "--max-delete=-1"]).max_delete(), Some(0));
    assert_eq!(params(&["--max-delete"]).max_delete(), None);
    for (words, shell) in [
        (&["-e", "ssh -p 1"][..], Some("ssh -p 1")),
        (&["-avzessh"], Some("ssh")),
        (&["-e=ssh", "--rsh=rsh"], Some("rsh")),
        (&["--rsh", "x"], Some("x")),
        (&["-fe ssh"], None),
    ] {
        assert_eq!(params(words).remote_shell(), shell.map(OsStr::new), "{words:?}");
    }
    assert!(params(&["-ab"]).keeps_backups() && !params(&["-e", "b"]).keeps_backups());
    assert!(params(&["-artuz", "--no-whole-file", "-e", "ssh"]).are_same_elsewhere());
    assert!(!params(&["-artuz", "--inplace"]).are_same_elsewhere());
}

proptest! {
    #[test]
    fn dropping_nothing_changes_nothing(words in prop::collection::vec("(-{0,2}[aefuxM=n]{0,3}|--(exclude|delete|max-delete)(=x)?)", 0..8)) {
        let given: Params = words.iter().collect();
        let same = given.without(|_| false);
        prop_assert_eq!(same.iter().collect::<Vec<_>>(), given.iter().collect::<Vec<_>>());
    }
}
