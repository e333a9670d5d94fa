//! Trees into a directory of this machine and into a daemon's module.

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::model::TroubleClass;

#[test]
fn directories_that_are_sent_in_full_arrive_in_full() {
    let stage = Stage::with_daemon("", "");
    let mut names: Vec<String> =
        ["d", "d/sub", "[x]", "partly"].iter().flat_map(|dir| (0..40).map(move |n| format!("{dir}/f*{n}"))).collect();
    names.iter().for_each(|name| stage.write(name, name));
    names.push("d/sub".to_owned());
    names.push("d/gone".to_owned());
    let jobs = entries(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for ctx in [stage.local(), stage.module("m")] {
        stage.write("partly/unasked", "x");
        write(&stage.dst("d/gone"), "to be deleted");
        write(&stage.dst("d/stays"), "nobody has asked");
        all_done(&go(&ctx, &jobs));
        assert!(
            !stage.dst("d/gone").exists() && stage.dst("d/stays").exists() && !stage.dst("partly/unasked").exists()
        );
        std::fs::remove_file(stage.dst("d/stays")).unwrap();
        std::fs::remove_file(stage.src("partly/unasked")).unwrap();
        all_done(&go(&ctx, &jobs));
        assert_eq!(stage.difference(), None);
        // The file changes but keeps its size and time: a write is never left to the quick check.
        let (changed, dst) = (stage.src("[x]/f*7"), stage.dst("[x]/f*7"));
        let time = std::fs::metadata(&changed).unwrap().modified().unwrap();
        std::fs::write(&changed, "[X]/F*7").unwrap();
        std::fs::File::options().write(true).open(&changed).unwrap().set_modified(time).unwrap();
        all_done(&go(&ctx, &jobs));
        assert_eq!(std::fs::read(dst).unwrap(), b"[X]/F*7");
        std::fs::remove_dir_all(stage.dst("")).unwrap();
        std::fs::create_dir(stage.dst("")).unwrap();
    }
}

/// With one other file in the directory a burst of a thousand was listed name by name, and took half as long again.
#[test]
fn what_else_is_in_a_directory_that_is_sent_by_name_stays_as_it_is() {
    let stage = Stage::with_daemon("", "");
    let dirs = ["", "d/", "[x]/"];
    let mut names: Vec<String> = dirs.iter().flat_map(|dir| (0..40).map(move |n| format!("{dir}f{n}"))).collect();
    names.extend(dirs.map(|dir| format!("{dir}deep/er/f")));
    let unasked = dirs.iter().flat_map(|dir| ["o[t]h*r", "o\\ther", "sub/f", " "].map(|name| format!("{dir}{name}")));
    let unasked: Vec<String> = unasked.collect();
    let jobs = entries(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for ctx in [stage.local(), stage.module("m")] {
        names.iter().chain(&unasked).for_each(|name| stage.write(name, name));
        // The target has an older version of one of these files already.
        write(&stage.dst("d/o[t]h*r"), "older");
        let report = go(&ctx, &jobs);
        all_done(&report);
        assert_eq!(report.runs, 1, "{report:#?}");
        for name in &names {
            assert_eq!(std::fs::read_to_string(stage.dst(name)).unwrap(), *name);
        }
        for name in &unasked {
            let there = std::fs::read_to_string(stage.dst(name)).ok();
            assert_eq!(there.as_deref(), (name == "d/o[t]h*r").then_some("older"), "{name}");
        }
        assert!(!stage.dst("sub").exists() && !stage.dst("d/sub").exists());
        std::fs::remove_dir_all(stage.dst("")).unwrap();
        std::fs::create_dir(stage.dst("")).unwrap();
    }
}

/// Each of the two runs cost a connection, again and again in a burst.
#[test]
fn new_directories_and_single_entries_share_a_run_that_deletes_only_in_the_directories() {
    let stage = Stage::with_daemon("", "");
    let jobs = [
        job("", Scope::Entry, Origin::Scan),
        job("old", Scope::Entry, Origin::Scan),
        job("old/deep/new", Scope::Children, Origin::Write),
        job("old/f", Scope::Entry, Origin::Write),
        job("new", Scope::Children, Origin::Write),
        job("new/sub", Scope::Entry, Origin::Scan),
        job("f", Scope::Entry, Origin::Write),
    ];
    for ctx in [stage.local(), stage.module("m")] {
        for name in ["old/f", "old/deep/new/f", "new/a", "new/b", "new/sub/unasked", "f", "unasked"] {
            stage.write(name, name);
        }
        let stays = ["extra", "old/extra", "old/deep/extra", "new/sub/extra"];
        stays.iter().for_each(|name| write(&stage.dst(name), "nobody has asked"));
        ["new/extra", "old/deep/new/extra/f"].iter().for_each(|name| write(&stage.dst(name), "goes with the level"));
        all_done(&go(&ctx, &jobs));
        assert!(stays.iter().all(|name| stage.dst(name).exists()));
        assert!(!stage.dst("unasked").exists() && !stage.dst("new/sub/unasked").exists());
        stays.iter().for_each(|name| std::fs::remove_file(stage.dst(name)).unwrap());
        std::fs::remove_file(stage.src("unasked")).unwrap();
        std::fs::remove_file(stage.src("new/sub/unasked")).unwrap();
        let report = go(&ctx, &jobs);
        all_done(&report);
        assert_eq!(report.runs, 1);
        assert_eq!(stage.difference(), None);
        std::fs::remove_dir_all(stage.dst("")).unwrap();
        std::fs::create_dir(stage.dst("")).unwrap();
        let report = go(&ctx, &jobs);
        all_done(&report);
        assert_eq!(report.runs, 1);
        // Only the time of a directory that no job names may differ.
        let deep = [job("old/deep", Scope::Entry, Origin::Scan)];
        all_done(&go(&ctx, &deep));
        assert_eq!(stage.difference(), None);
        std::fs::remove_dir_all(stage.dst("")).unwrap();
        std::fs::create_dir(stage.dst("")).unwrap();
    }
}

#[test]
fn odd_names_arrive_and_go_byte_for_byte() {
    use std::ffi::OsStr;
    let stage = Stage::with_daemon("", "");
    let names: Vec<&[u8]> = vec![
        b"a`touch PWNED`.txt",
        b"b\";touch PWNED;\".txt",
        b"$(touch PWNED)",
        b"tail\\",
        b"new\nline",
        b"-rf",
        b"#x",
        b";x",
        b"*",
        b"?",
        b"[a].txt",
        b"a\\*b",
        b"d[1]/f",
        b"\xff\xfe",
        b"--exclude=zzz",
        b" ",
        b"it's",
        b"\\#012",
        b"a\tb",
        "博客".as_bytes(),
        b"x:y",
        b"a b;c/d e",
    ];
    let jobs: Vec<ClaimedJob> = names
        .iter()
        .map(|name| ClaimedJob {
            path: RelPath::new(name).unwrap(),
            scope: Scope::Entry,
            origin: Origin::Write,
            generation: Generation::FIRST,
            since: Timestamp::ZERO,
            moved_from: None,
            several_names: None,
            is_new: false,
            is_safety_rerun: false,
        })
        .chain([job("", Scope::Entry, Origin::Scan)])
        .collect();
    for name in &names {
        write(&stage.dir.path().join("src").join(OsStr::from_bytes(name)), "odd");
    }
    for ctx in [stage.local(), stage.module("m")] {
        all_done(&go(&ctx, &jobs));
        assert_eq!(stage.difference(), None);
        std::fs::remove_dir_all(stage.dst("")).unwrap();
        std::fs::create_dir(stage.dst("")).unwrap();
    }
    let ctx = stage.module("m");
    all_done(&go(&ctx, &jobs));
    for name in &names {
        std::fs::remove_file(stage.dir.path().join("src").join(OsStr::from_bytes(name))).unwrap();
    }
    stage.write("left", "so that the root is not empty");
    all_done(&go(&ctx, &[jobs, entries(&["left"])].concat()));
    assert_eq!(stage.difference(), None);
}

#[test]
fn a_tree_goes_with_its_topmost_directory_and_times_stay_right() {
    let stage = Stage::with_daemon("", "");
    for name in ["a/b/c/f", "a/b/g", "keep/f", "keep/g"] {
        stage.write(name, name);
    }
    let ctx = stage.module("m");
    all_done(&go(&ctx, &[job("", Scope::Subtree, Origin::Scan)]));
    assert_eq!(stage.difference(), None);
    std::fs::remove_dir_all(stage.src("a")).unwrap();
    std::fs::remove_file(stage.src("keep/g")).unwrap();
    let report = go(&ctx, &entries(&["a/b/c/f", "a/b/c", "a/b/g", "a/b", "a", "keep/g", "keep"]));
    all_done(&report);
    assert_eq!(report.runs, 1 + refusals(&ctx));
    assert_eq!(stage.difference(), None);
}

#[test]
fn files_directories_and_links_take_each_others_place() {
    let stage = Stage::with_daemon("", "");
    for name in ["dir/in/f", "file", "other/f"] {
        stage.write(name, name);
    }
    std::os::unix::fs::symlink("other", stage.src("link")).unwrap();
    let ctx = stage.module("m");
    all_done(&go(&ctx, &[job("", Scope::Subtree, Origin::Reconcile)]));
    std::fs::remove_dir_all(stage.src("dir")).unwrap();
    stage.write("dir", "now a file");
    std::fs::remove_file(stage.src("file")).unwrap();
    stage.write("file/in/f", "now a directory");
    std::fs::remove_file(stage.src("link")).unwrap();
    stage.write("link/f", "now a directory");
    std::fs::remove_dir_all(stage.src("other")).unwrap();
    std::os::unix::fs::symlink("link", stage.src("other")).unwrap();
    // `other/f` would be reached through the new link: the link itself is sent.
    all_done(&go(
        &ctx,
        &entries(&["dir", "dir/in/f", "file", "file/in", "file/in/f", "link", "link/f", "other", "other/f", ""]),
    ));
    assert_eq!(stage.difference(), None);
}

#[test]
fn a_write_of_equal_size_and_time_arrives() {
    let stage = Stage::new();
    let ctx = stage.local();
    stage.write("f", "old");
    all_done(&go(&ctx, &entries(&["f"])));
    let time = std::fs::metadata(stage.src("f")).unwrap().modified().unwrap();
    stage.write("f", "new");
    std::fs::File::options().write(true).open(stage.src("f")).unwrap().set_modified(time).unwrap();
    all_done(&go(&ctx, &[job("f", Scope::Entry, Origin::Scan)]));
    assert_eq!(std::fs::read(stage.dst("f")).unwrap(), b"old", "the quick check cannot see it");
    all_done(&go(&ctx, &entries(&["f"])));
    assert_eq!(std::fs::read(stage.dst("f")).unwrap(), b"new");
}

/// Nobody remembers which files were written, and neither size nor time tells.
#[test]
fn a_sweep_finds_writes_of_equal_size_and_time() {
    let stage = Stage::with_daemon("", "");
    let Target { destination, options } = stage.module("m").target;
    let ctx = stage.context_filtered(destination, options, &["(.*)skip"]);
    for name in ["d/f", "d/deep/g", "d/old", "d/skip/h", "beside"] {
        stage.write(name, "old");
    }
    write(&stage.dst("d/extra"), "extra");
    all_done(&go(&ctx, &[job("", Scope::Subtree, Origin::Scan)]));
    let rewrite = |name: &str| {
        let time = std::fs::metadata(stage.src(name)).unwrap().modified().unwrap();
        stage.write(name, "new");
        std::fs::File::options().write(true).open(stage.src(name)).unwrap().set_modified(time).unwrap();
    };
    for name in ["d/f", "d/deep/g", "d/skip/h", "beside"] {
        rewrite(name);
    }
    stage.write("d/more", "more");
    let read = |name: &str| std::fs::read_to_string(stage.dst(name)).ok();
    let now = SystemClock.now();
    if crate::ctime::is_trusted(&ctx.root) {
        // This time is so long after the writes that none of them counts as recent.
        let since = now.after(Duration::from_secs(3_600));
        all_done(&go(&ctx, &[ClaimedJob { since, ..job("d", Scope::Subtree, Origin::Write) }]));
        assert_eq!((read("d/f"), read("d/more")), (Some("old".into()), Some("more".into())));
    }
    all_done(&go(&ctx, &[ClaimedJob { since: now, ..job("d", Scope::Subtree, Origin::Write) }]));
    for (name, content) in [
        ("d/f", Some("new")),
        ("d/deep/g", Some("new")),
        ("d/old", Some("old")),
        ("d/more", Some("more")),
        ("beside", Some("old")),
        ("d/skip/h", None),
        ("d/extra", None),
    ] {
        assert_eq!(read(name).as_deref(), content, "{name}");
    }
}

#[test]
fn levels_and_trees_delete_only_where_they_look() {
    let stage = Stage::with_daemon("", "");
    for name in ["t/a", "t/deep/b", "u/c", "l/d", "l/deep/e", "f/deep/g"] {
        stage.write(name, name);
        write(&stage.dst(name).with_file_name("extra"), "extra");
    }
    let jobs = [
        job("t", Scope::Subtree, Origin::Scan),
        job("u", Scope::Subtree, Origin::Scan),
        job("l", Scope::Children, Origin::Scan),
        job("f", Scope::Entry, Origin::Scan),
        job("gone", Scope::Subtree, Origin::Scan),
    ];
    let ctx = stage.module_with("m", |options| options.params.extend(["--delete"]));
    let report = go(&ctx, &jobs);
    all_done(&report);
    assert_eq!(report.runs, 5 + refusals(&ctx), "one flat run, and two each for level and tree, since they delete");
    for (extra, stays) in [
        ("t/extra", false),
        ("t/deep/extra", false),
        ("u/extra", false),
        ("l/extra", false),
        ("l/deep/extra", true),
        ("f/deep/extra", true),
    ] {
        assert_eq!(stage.dst(extra).exists(), stays, "{extra}");
    }
    assert!(stage.dst("t/deep/b").exists() && stage.dst("l/d").exists() && !stage.dst("l/deep/e").exists());
}

#[test]
fn without_delete_nothing_is_deleted() {
    let stage = Stage::new();
    let ctx = stage.context(
        Destination::Local(stage.dst("")),
        TransferOptions {
            delete: false,
            params: ["-a", "--delete"].into_iter().collect(),
            ..TransferOptions::default()
        },
    );
    stage.write("d/f", "f");
    write(&stage.dst("d/extra"), "extra");
    write(&stage.dst("gone"), "gone");
    let jobs = [
        job("d", Scope::Children, Origin::Scan),
        job("gone", Scope::Entry, Origin::Scan),
        job("", Scope::Subtree, Origin::Scan),
    ];
    all_done(&go(&ctx, &jobs));
    assert!(stage.dst("d/extra").exists() && stage.dst("gone").exists() && stage.dst("d/f").exists());
}

#[test]
fn large_files_change_the_lane_and_a_batch_has_a_size() {
    let stage = Stage::new();
    let mut ctx = stage.local();
    ctx.limits = Limits { large_file_bytes: 100, bytes_max: 120 };
    for (name, size) in [("a", 90), ("b", 90), ("big", 101), ("c", 10)] {
        stage.write(name, &"x".repeat(size));
    }
    let jobs = entries(&["a", "b", "big", "c"]);
    let report = go(&ctx, &jobs);
    let verdicts: Vec<&Verdict> = report.verdicts.iter().map(|(_, verdict)| verdict).collect();
    assert_eq!(verdicts, [&Verdict::Done, &Verdict::Released, &Verdict::Large, &Verdict::Released]);
    let large = execute(&ctx, Lane::Large, &jobs[2..3], Contents::Vouched, NOW, &StopSignal::new().unwrap());
    all_done(&large);
    assert!(stage.dst("big").exists());
}

#[test]
fn a_lost_or_emptied_root_deletes_nothing() {
    let stage = Stage::new();
    let ctx = stage.local();
    stage.write("a/f", "f");
    all_done(&go(&ctx, &[job("", Scope::Subtree, Origin::Scan)]));
    let whole = [job("", Scope::Subtree, Origin::Reconcile)];
    std::fs::rename(stage.src("a"), stage.dir.path().join("aside")).unwrap();
    for jobs in [&whole, &[job("", Scope::Children, Origin::Scan)]] {
        let report = go(&ctx, jobs);
        let Verdict::Failed(error) = verdict(&report, "") else { panic!("{report:#?}") };
        assert!(error.message.starts_with("the source directory is empty, and 2 entries"), "{error:?}");
        assert_eq!(report.trouble, None);
    }
    std::fs::rename(stage.src(""), stage.dir.path().join("old")).unwrap();
    assert_eq!(go(&ctx, &entries(&["a/f"])).trouble.unwrap().class, TroubleClass::Source);
    std::fs::create_dir(stage.src("")).unwrap();
    let report = go(&ctx, &entries(&["a/f"]));
    assert_eq!((report.runs, report.trouble.unwrap().class), (0, TroubleClass::Source));
    assert!(stage.dst("a/f").exists());
}

#[test]
fn hard_links_survive_a_batch() {
    use std::os::unix::fs::MetadataExt;
    let stage = Stage::with_daemon("", "");
    stage.write("one", "1");
    std::fs::hard_link(stage.src("one"), stage.src("two")).unwrap();
    let ctx = stage.module_with("m", |options| options.params = ["-aH"].into_iter().collect());
    all_done(&go(&ctx, &entries(&["one", "two"])));
    let inode = |name| std::fs::metadata(stage.dst(name)).unwrap().ino();
    assert_eq!(inode("one"), inode("two"));
}

#[test]
fn a_missing_destination_is_made() {
    let stage = Stage::with_daemon("", "");
    stage.write("f", "f");
    all_done(&go(&stage.module("m/not/yet"), &entries(&["f"])));
    assert!(stage.dst("not/yet/f").exists());
    let local = stage.context(Destination::Local(stage.dst("p/q/r")), TransferOptions::default());
    all_done(&go(&local, &entries(&["f"])));
    assert!(stage.dst("p/q/r/f").exists());
}

#[test]
fn a_stopped_run_releases_its_jobs() {
    let stage = Stage::with_daemon("", "");
    stage.write("f", &"x".repeat(3 << 20));
    let ctx = stage.module_with("m", |options| options.params = ["-a", "--bwlimit=100"].into_iter().collect());
    let stop = StopSignal::new().unwrap();
    let report = std::thread::scope(|scope| {
        let running = scope.spawn(|| execute(&ctx, Lane::Small, &entries(&["f"]), Contents::Vouched, NOW, &stop));
        let begun = crate::clock::monotonic();
        let temporary = || std::fs::read_dir(stage.dst("")).unwrap().count() > 0;
        while !temporary() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.raise();
        running.join().unwrap()
    });
    assert_eq!(report.verdicts[0].1, Verdict::Released);
    assert_eq!(report.trouble, None);
    assert!(!stage.dst("f").exists());
}
