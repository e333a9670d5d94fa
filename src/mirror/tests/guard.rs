//! The limits of deletions, against a directory of this machine and against a daemon, whose answers differ.

use super::*;

const WHOLE: fn() -> [ClaimedJob; 1] = || [job("", Scope::Subtree, Origin::Reconcile)];

/// Puts `count` files on the target that the source lacks, in directories of a hundred.
fn foreign(stage: &Stage, below: &str, count: usize) {
    for n in 0..count {
        write(&stage.dst(below).join(format!("x{}/f{n}", n / 100)), "foreign");
    }
}

fn left(stage: &Stage) -> usize {
    walkdir::WalkDir::new(stage.dst("")).into_iter().filter(|entry| entry.as_ref().unwrap().path().is_file()).count()
}

#[track_caller]
fn refused(report: &BatchReport, name: &str, words: &str) {
    let Verdict::Failed(error) = verdict(report, name) else { panic!("{report:#?}") };
    assert!(error.code == Some(25) && error.message.contains(words), "{error:?}");
    assert_eq!(report.trouble, None);
}

#[test]
fn the_wrong_module_is_not_wiped() {
    let stage = Stage::with_daemon("", "");
    foreign(&stage, "", 1_500);
    for name in ["a", "d/b", "d/c"] {
        stage.write(name, name);
    }
    for ctx in [stage.local(), stage.module("m")] {
        refused(&go(&ctx, &WHOLE()), "", "1515 of the 1519 entries");
        assert_eq!(left(&stage), 1_503, "what is new is sent, nothing is deleted");
        refused(&go(&ctx, &[job("", Scope::Subtree, Origin::Scan)]), "", "1515 of the 1519 entries");
    }
    // A level run deletes directories with everything in them.
    refused(&go(&stage.module("m"), &[job("", Scope::Children, Origin::Scan)]), "", "1515 of the ");
    let report = go(&stage.module_with("m", |options| options.params.extend(["-qvh"])), &WHOLE());
    refused(&report, "", "1515 of the 1519 entries");
    assert_eq!(left(&stage), 1_503);
    // Few deletions of a small mirror are no disaster.
    std::fs::remove_dir_all(stage.dst("")).unwrap();
    foreign(&stage, "", 900);
    all_done(&go(&stage.module("m"), &WHOLE()));
    assert_eq!(stage.difference(), None);
}

#[test]
fn a_usual_number_of_deletions_goes_through() {
    let stage = Stage::with_daemon("", "");
    for n in 0..4_000 {
        stage.write(&format!("d{}/f{n}", n % 40), "x");
    }
    let ctx = stage.module("m");
    all_done(&go(&ctx, &WHOLE()));
    for n in 0..1_200 {
        std::fs::remove_file(stage.src(&format!("d{}/f{n}", n % 40))).unwrap();
    }
    let report = go(&ctx, &WHOLE());
    all_done(&report);
    assert_eq!((report.runs, left(&stage)), (3, 2_800), "one that sends, one that counts, one that deletes");
    assert_eq!(stage.difference(), None);
    assert_eq!(go(&ctx, &WHOLE()).runs, 1, "with nothing to delete there is one run");
}

#[test]
fn each_path_has_a_limit_of_its_own() {
    for daemon in [false, true] {
        let stage = Stage::with_daemon("", "");
        let ctx = if daemon { stage.module("m") } else { stage.local() };
        for name in ["a", "b", "c"] {
            stage.write(&format!("{name}/stays"), name);
        }
        foreign(&stage, "a", 600);
        foreign(&stage, "b", 1_500);
        foreign(&stage, "c", 600);
        let report = go(&ctx, &["a", "b", "c"].map(|name| job(name, Scope::Subtree, Origin::Scan)));
        assert_eq!((verdict(&report, "a"), verdict(&report, "c")), (&Verdict::Done, &Verdict::Done), "{report:#?}");
        refused(&report, "b", "1515 of the ");
        assert_eq!(left(&stage), 1_503);
    }
}

#[test]
fn what_is_accepted_is_deleted_once() {
    let stage = Stage::with_daemon("", "");
    let accepting = |stage: &Stage| {
        let mut ctx = stage.module("m");
        ctx.guard = Guard::new(MaxDelete::default(), true, false);
        ctx
    };
    foreign(&stage, "", 1_500);
    stage.write("a", "a");
    let ctx = accepting(&stage);
    all_done(&go(&ctx, &WHOLE()));
    assert_eq!(stage.difference(), None);
    foreign(&stage, "", 1_500);
    refused(&go(&ctx, &WHOLE()), "", "1515 of the ");
    // An empty source is refused as well.
    std::fs::remove_file(stage.src("a")).unwrap();
    refused(&go(&ctx, &WHOLE()), "", "the source directory is empty, and 1516 entries");
    all_done(&go(&accepting(&stage), &WHOLE()));
    assert_eq!(left(&stage), 0);
}

#[test]
fn limits_of_the_configuration_and_of_the_params() {
    let stage = Stage::with_daemon("", "");
    stage.write("a", "a");
    foreign(&stage, "", 20);
    let ctx = |configured, params: &[&str]| {
        let mut ctx = stage.module_with("m", |options| options.params.extend(params));
        ctx.guard = Guard::new(configured, false, false).with_params(&ctx.target.options.params);
        ctx
    };
    let report = go(&ctx(MaxDelete::Entries(20), &[]), &WHOLE());
    refused(&report, "", "21 of the 22 entries on the target would be deleted, more than maxDelete 20 allows");
    let report = go(&ctx(MaxDelete::Unlimited, &["--max-delete", "5", "--delete-after"]), &WHOLE());
    refused(&report, "", "more than --max-delete=5 in the params allows");
    assert_eq!(left(&stage), 21);
    all_done(&go(&ctx(MaxDelete::Entries(21), &[]), &WHOLE()));
    assert_eq!(stage.difference(), None);
    std::fs::remove_file(stage.src("a")).unwrap();
    let report = go(&ctx(MaxDelete::Unlimited, &[]), &WHOLE());
    all_done(&report);
    assert_eq!((report.runs, left(&stage)), (2, 0), "the one run, and a look for leftovers");
}

#[test]
fn under_expressions_too() {
    let stage = Stage::new();
    let filtered =
        || stage.context_filtered(Destination::Local(stage.dst("")), TransferOptions::default(), &[r"(.*)\.log"]);
    foreign(&stage, "", 1_500);
    write(&stage.dst("kept.log"), "excluded");
    stage.write("a", "a");
    stage.write("b/c", "c");
    refused(&go(&filtered(), &WHOLE()), "", "1515 of the 1516 entries");
    assert_eq!(left(&stage), 1_503, "what is new is sent, nothing is deleted");
    let report = go(&filtered(), &["b", "x0", "x1"].map(|name| job(name, Scope::Subtree, Origin::Scan)));
    all_done(&report);
    let mut ctx = filtered();
    ctx.guard = Guard::new(MaxDelete::default(), true, false);
    all_done(&go(&ctx, &WHOLE()));
    assert_eq!(left(&stage), 3);
    for name in ["a", "b"] {
        let path = stage.src(name);
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }
    refused(&go(&filtered(), &WHOLE()), "", "the source directory is empty");
    assert_eq!(left(&stage), 3);
}

#[test]
fn deletions_that_were_seen_are_not_held_back() {
    for settings in ["", "refuse options = delete-missing-args"] {
        let stage = Stage::with_daemon(settings, "");
        foreign(&stage, "", 1_500);
        stage.write("stays", "here");
        let jobs: Vec<ClaimedJob> = (0..15).map(|n| job(&format!("x{n}"), Scope::Entry, Origin::Scan)).collect();
        all_done(&go(&stage.module("m"), &jobs));
        assert!((0..15).all(|n| !stage.dst(&format!("x{n}")).exists()), "{settings}");
    }
}

#[test]
fn what_stands_in_the_way_goes_in_the_second_run() {
    let stage = Stage::with_daemon("", "");
    foreign(&stage, "t", 50);
    stage.write("t", "a file where the target has a directory");
    stage.write("d/x", "x");
    write(&stage.dst("d"), "a file where the source has a directory");
    all_done(&go(&stage.module("m"), &WHOLE()));
    assert_eq!(stage.difference(), None);
}

/// A full target gets room only by the deletions that the first run holds back.
#[test]
fn a_full_target_is_given_room() {
    let stage = Stage::new();
    stage.write("a", "a");
    let full = "rsync: [receiver] mkstemp \"/.a.Ab12Cd\" (in m) failed: No space left on device (28)";
    let stats = "Number of files: 5000 (reg: 1)\nNumber of created files: 1\nNumber of deleted files: @\n";
    for (deleted, done) in [("2000", true), ("0", false), ("9000", false)] {
        let script = format!(
            "case \"$*\" in *--max-delete=0*) echo '{full}' >&2; exit 23;; *--max-delete=*) exit 0;; esac\n\
             [ \"$dry\" ] && printf '%s' '{}'\nexit 0",
            stats.replace('@', deleted)
        );
        let ctx = fake::scripted(&stage, &script);
        let report = go(&ctx, &WHOLE());
        assert_eq!(report.verdicts[0].1 == Verdict::Done, done, "{deleted}: {report:#?}");
        let trouble = report.trouble.as_ref().map(|trouble| trouble.message.clone()).unwrap_or_default();
        assert_eq!(trouble.contains("the target is full"), deleted == "0", "{trouble}");
    }
}

/// One of many directories went while no daemon ran. At its level the target has few entries, below them many.
#[test]
fn a_level_is_measured_by_all_that_is_below() {
    for excludes in [&[][..], &[r"(.*)\.log"]] {
        let stage = Stage::with_daemon("", "");
        for n in 0..6 {
            foreign(&stage, &format!("d{n}"), 1_100);
        }
        let status = Command::new("cp").arg("-a").arg(stage.dst(".")).arg(stage.src("")).status().unwrap();
        assert!(status.success());
        let ctx = || {
            let port = stage.daemon.as_ref().unwrap().port;
            let options = TransferOptions { port: Some(port), ..TransferOptions::default() };
            stage.context_filtered(
                Destination::Daemon { host: "127.0.0.1".into(), module: "m".into() },
                options,
                excludes,
            )
        };
        let level = [job("", Scope::Children, Origin::Scan)];
        std::fs::remove_dir_all(stage.src("d0")).unwrap();
        all_done(&go(&ctx(), &level));
        assert_eq!(left(&stage), 5_500);
        for n in 1..5 {
            std::fs::remove_dir_all(stage.src(&format!("d{n}"))).unwrap();
        }
        refused(&go(&ctx(), &level), "", "4448 of the 5560 entries");
        assert_eq!(left(&stage), 5_500);
    }
}

#[test]
fn a_server_that_refuses_the_limit_is_explained_and_can_do_without() {
    let stage = Stage::with_daemon("refuse options = max-delete", "");
    stage.write("a", "a");
    foreign(&stage, "", 3);
    let trouble = go(&stage.module("m"), &WHOLE()).trouble.expect("a trouble");
    assert!(trouble.message.contains("guarded") && trouble.hint.unwrap().contains("maxDelete"), "{}", trouble.message);
    assert_eq!(left(&stage), 3);
    let mut ctx = stage.module("m");
    ctx.guard = Guard::new(MaxDelete::Unlimited, false, false);
    all_done(&go(&ctx, &WHOLE()));
    assert_eq!(stage.difference(), None);
}
