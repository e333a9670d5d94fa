use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const FILE: Kind = Kind::File;

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("a valid path")
}

fn filter(excludes: &[&str]) -> Filter {
    let excludes: Vec<_> = excludes.iter().map(|&e| e.to_owned()).collect();
    Filter::new(&excludes, false).expect("valid expressions")
}

#[test]
fn expressions_keep_the_verdicts_of_sersync() {
    use Kind::Directory as Dir;
    for (expression, subject, kind, excluded) in [
        (r"(.*)\.gz", "x.gz", FILE, true),
        (r"(.*)\.gz", "a/b/x.gz", FILE, true),
        (r"(.*)\.gz", "a/x.gzip", FILE, false),
        (r"(.*)\.svn", ".svn", Dir, true),
        (r"(.*)\.svn", ".svn/entries", FILE, true),
        (r"(.*)\.svn", "a/.svn/props/x", FILE, true),
        (r"(.*)\.svn", "a.svnx/x", FILE, false),
        ("^info/*", "info", Dir, true),
        ("^info/*", "info", FILE, true),
        ("^info/*", "info/a/b", FILE, true),
        ("^info/*", "sub/info", Dir, false),
        ("^info/*", "information", FILE, false),
        ("^info/.*", "info", Dir, true),
        ("^info/.*", "info", FILE, false),
        ("^info/.*", "info/a", FILE, true),
        ("^sub/info/*", "sub/info", Dir, true),
        ("^sub/info/*", "sub/info/x", FILE, true),
        ("^sub/info/*", "sub/info", FILE, false),
        ("/sub/info", "sub/info", FILE, true),
        ("^test/test.txt", "test/test.txt", FILE, false),
        (r"/test/test\.txt", "test/test.txt", FILE, true),
        (r"/test/test\.txt", "test.txt", FILE, false),
        // A file that is gone has no start-up form, a directory of that name has.
        ("^old/*", "a/old", FILE, false),
        // Any byte is a character, a newline too.
        ("a.c", "a\nc", FILE, true),
        ("中.", "中x", FILE, true),
        ("[中]文", "中文", FILE, false),
    ] {
        assert_eq!(filter(&[expression]).excludes(&path(subject), kind), excluded, "{expression} on {subject}");
    }
}

#[test]
fn bytes_that_are_no_text_are_matched_by_escapes() {
    let name = RelPath::new(b"caf\xe9.txt").expect("a valid path");
    assert!(filter(&[r"caf\xe9\.txt"]).excludes(&name, FILE));
    assert!(filter(&[r"caf.\.txt"]).excludes(&name, FILE));
}

#[test]
fn what_cannot_be_compiled_is_said_in_one_line() {
    for (expression, reason) in [
        ("*.php", "repetition operator missing expression"),
        ("(((a{999}){999}){999})", "it compiles to more than 4 MiB"),
    ] {
        assert_eq!(check(expression).expect_err(expression).to_string(), reason);
    }
    // Closing our group early would undo the anchoring.
    check("a)|(?:b").expect_err("unbalanced");
    check("(?!x)a)|(?:b").expect_err("unbalanced");
    for expression in [r"(a)\2", "(?<=a*", r"(?!a)(?<n"] {
        let said = check(expression).expect_err(expression).to_string();
        assert!(!said.is_empty() && said.lines().count() == 1, "{said}");
    }
}

/// Such expressions were ignored with a warning, and the files that they kept out were mirrored.
#[test]
fn expressions_with_look_around_filter_as_all_others() {
    let excludes = filter(&[r"(.*)\.tmp", r"(?!keep).*\.log", r"(.*)/(.+)/\2"]);
    for (subject, number) in [
        ("a.tmp", Some(0)),
        ("a.log", Some(1)),
        ("keep.log", None),
        ("d/x/x", Some(2)),
        ("d/x/y", None),
        // An excluded path takes everything below along.
        ("d/x/x/deep/er", Some(2)),
    ] {
        let found = excludes.exclusion(&path(subject), FILE);
        assert_eq!(found, number.map(Exclusion::Expression), "{subject}");
        assert_eq!(excludes.excludes(&path(subject), FILE), number.is_some(), "{subject}");
    }
}

const TEMPORARIES: &[&str] = &[
    ".a.txt.swp",
    ".a.swo",
    ".a.swn",
    ".a.swx",
    ".a.swpx",
    "..swp",
    "a~",
    "~",
    ".a~",
    ".#lock",
    "#auto#",
    "##",
    ".env.aB1cde",
    ".photo.jpg.x0cdeF",
    ".a.AB1CDE",
    ".goutputstream-AB12CD",
    ".goutputstream-a.bcd1",
    ".nfs0123456789abcdef",
    ".nfs0123456789ABCDEF00000012",
];

const REAL: &[&str] = &[
    "a.swp",
    ".swp",
    ".a.swpy",
    ".env",
    ".env.sample",
    ".log.202401",
    ".env.prod01",
    ".env.Sample",
    ".env.README",
    "env.aB1cde",
    ".aB1cde",
    "..aB1cde",
    ".a.aB1cd",
    ".a.aB1cde7",
    ".a.aB1c_e",
    "#",
    "#a",
    "a#",
    "a.#b",
    "~a",
    ".goutputstream-AB12C",
    ".goutputstream-AB12CDE",
    ".nfs0123456789abcde",
    ".nfs0123456789abcdefg",
    ".nfs0123456789abcdef.txt",
    ".nfsrc",
    "a.tmp",
    "a.bak",
    "a.part",
    "4913",
    ".htaccess",
];

#[test]
fn temporaries_are_skipped_and_their_look_alikes_are_not() {
    let plain = filter(&[]);
    for name in TEMPORARIES {
        assert!(plain.excludes(&path(name), FILE), "{name}");
        assert!(plain.excludes(&path(&format!("d/{name}")), FILE), "{name}");
        assert!(!plain.excludes(&path(name), Kind::Directory), "{name}/");
        assert!(!plain.excludes(&path(&format!("{name}/x")), FILE), "{name}/x");
    }
    for name in REAL {
        assert!(!plain.excludes(&path(name), FILE), "{name}");
    }
    assert!(!plain.excludes(&RelPath::root(), Kind::Directory));
    assert!(!filter(&[".*"]).excludes(&RelPath::root(), Kind::Directory));
}

#[test]
fn the_rule_that_excludes_is_named() {
    let filter = Filter::new(&["a/(.*)".to_owned(), r"(.*)\.log".to_owned()], true).unwrap();
    for (name, expected) in [
        ("x", None),
        ("x.log", Some(Exclusion::Expression(1))),
        ("a/x.log", Some(Exclusion::Expression(0))),
        ("x~", Some(Exclusion::Temporary)),
        (".x", Some(Exclusion::Hidden)),
    ] {
        assert_eq!(filter.exclusion(&path(name), FILE), expected, "{name}");
    }
}

#[test]
fn legacy_hidden_skips_what_sersync_skipped() {
    let legacy = Filter::new(&[], true).expect("no expressions");
    for name in [".htaccess", "a/.env", "4913"] {
        assert!(legacy.excludes(&path(name), FILE), "{name}");
    }
    assert!(!legacy.excludes(&path(".git"), Kind::Directory));
    assert!(!legacy.excludes(&path(".git/HEAD"), FILE));
}

/// Names near the edges of the patterns.
fn look_alikes() -> BTreeSet<String> {
    const PIECES: &[&str] = &[
        ".",
        ".",
        "a",
        "Z",
        "9",
        "_",
        "~",
        "#",
        ".swp",
        ".nfs",
        "0123456789abcdef",
        "ABCDEF",
        "aB1cde",
        "abcdef",
        ".goutputstream-",
        "4913",
    ];
    let mut random = fastrand::Rng::with_seed(4913);
    (0..80)
        .map(|_| (0..random.usize(1..5)).map(|_| PIECES[random.usize(..PIECES.len())]).collect::<String>())
        .filter(|name| name != "." && name != "..")
        .collect()
}

/// The paths below `dir`, directories with a slash.
fn tree(dir: &Path) -> BTreeSet<Vec<u8>> {
    walkdir::WalkDir::new(dir)
        .min_depth(1)
        .into_iter()
        .map(|entry| {
            let entry = entry.expect("a readable tree");
            let mut name = entry.path().strip_prefix(dir).expect("below").as_os_str().as_bytes().to_vec();
            if entry.file_type().is_dir() {
                name.push(b'/');
            }
            name
        })
        .collect()
}

/// A temporary that only our live filter knew would be sent, or deleted on the target, by every whole-tree run.
#[test]
fn rsync_comes_to_the_same_verdict_on_both_sides() {
    for legacy_hidden in [false, true] {
        let filter = Filter::new(&[], legacy_hidden).expect("no expressions");
        let place = tempfile::tempdir().expect("a temporary directory");
        let (source, target) = (place.path().join("source"), place.path().join("target"));
        let mut expected = BTreeSet::new();
        for name in TEMPORARIES.iter().chain(REAL).map(|&name| name.to_owned()).chain(look_alikes()) {
            fs::create_dir_all(source.join("files")).expect("created");
            fs::write(source.join("files").join(&name), b"new").expect("written");
            fs::create_dir_all(source.join("dirs").join(&name)).expect("created");
            fs::write(source.join("dirs").join(&name).join("inside"), b"new").expect("written");
            fs::create_dir_all(target.join("files")).expect("created");
            fs::write(target.join("files").join(format!("{name}.extra")), b"old").expect("written");
            // Only on the target: a temporary there is not ours to delete, anything else is.
            fs::create_dir_all(target.join("stale")).expect("created");
            fs::create_dir_all(source.join("stale")).expect("created");
            fs::write(target.join("stale").join(&name), b"old").expect("written");
            // A directory that is gone from the source goes with all that it holds.
            fs::create_dir_all(target.join("gone")).expect("created");
            fs::write(target.join("gone").join(&name), b"old").expect("written");

            expected.extend([format!("dirs/{name}/").into_bytes(), format!("dirs/{name}/inside").into_bytes()]);
            let excluded = filter.excludes(&path(&format!("files/{name}")), FILE);
            let kept = if excluded { format!("stale/{name}") } else { format!("files/{name}") };
            expected.insert(kept.into_bytes());
            let extra = format!("files/{name}.extra");
            if filter.excludes(&path(&extra), FILE) {
                expected.insert(extra.into_bytes());
            }
        }
        expected.extend([&b"files/"[..], b"dirs/", b"stale/"].map(<[u8]>::to_vec));

        let output = Command::new("rsync")
            .current_dir(&source)
            .args(["-r", "--delete"])
            .args(filter.rsync_rules().iter().flat_map(|rule| ["--filter".into(), rule.clone()]))
            .args(["./".as_ref(), target.as_os_str()])
            .output()
            .expect("rsync runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let show =
            |set: &BTreeSet<Vec<u8>>| set.iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect::<Vec<_>>();
        assert_eq!(show(&tree(&target)), show(&expected), "legacy_hidden: {legacy_hidden}");
    }
}

proptest! {
    #[test]
    fn what_lies_below_an_excluded_directory_is_excluded(
        dir in "[ab.]{1,2}x(/[abx]{1,3}){0,3}",
        below in "[abx~]{1,3}(/[abx]{1,3}){0,2}",
        expression in "[/abx.*()|]{1,6}",
    ) {
        prop_assume!(check(&expression).is_ok());
        let filter = filter(&[&expression]);
        let (dir, below) = (path(&dir), path(&format!("{dir}/{below}")));
        if filter.excludes(&dir, Kind::Directory) {
            for kind in [Kind::Directory, FILE, Kind::File] {
                prop_assert!(filter.excludes(&below, kind));
            }
        }
    }

    #[test]
    fn any_name_has_a_verdict(name in proptest::collection::vec(1u8..=255, 1..40)) {
        if let Ok(path) = RelPath::new(&name) {
            let filter = Filter::new(&[r"(.*)\.(gz|svn)".to_owned()], true).expect("valid");
            for kind in [Kind::Directory, FILE] {
                prop_assert_eq!(filter.excludes(&path, kind), filter.exclusion(&path, kind).is_some());
            }
        }
    }
}
