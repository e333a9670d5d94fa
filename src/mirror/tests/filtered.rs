//! Runs under the user's expressions, which rsync cannot apply itself.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn filtered(stage: &Stage, excludes: &[&str]) -> TargetContext {
    stage.context_filtered(Destination::Local(stage.dst("")), TransferOptions::default(), excludes)
}

#[test]
fn a_tree_is_made_equal_but_for_what_is_excluded() {
    for by_name in [true, false] {
        let stage = Stage::with_daemon(if by_name { "" } else { "refuse options = delete-missing-args" }, "");
        make_a_tree_equal(&stage, if by_name { filtered } else { filtered_module });
    }
}

/// Debian 12's rsync refuses deletions by name to any target. Under a filter nothing was ever deleted on such a target.
fn filtered_module(stage: &Stage, excludes: &[&str]) -> TargetContext {
    let options = TransferOptions { port: stage.daemon.as_ref().map(|daemon| daemon.port), ..Default::default() };
    let module = Destination::Daemon { host: "127.0.0.1".into(), module: "m".into() };
    stage.context_filtered(module, options, excludes)
}

fn make_a_tree_equal(stage: &Stage, filtered: fn(&Stage, &[&str]) -> TargetContext) {
    for name in ["a.php", "a.log", "d/b.php", "d/b.log", "cache/x", "d/e/c.php", "d/.f.swp"] {
        stage.write(name, name);
    }
    for extra in
        ["gone.php", "gone.log", "gone/x.php", "half/x.php", "half/x.log", "cache/old", "d/old.php", "d/old/y.php"]
    {
        write(&stage.dst(extra), "extra");
    }
    let ctx = filtered(stage, &[r"(.*)\.log", "cache"]);
    all_done(&go(&ctx, &[job("", Scope::Subtree, Origin::Reconcile)]));
    for (name, stands) in [
        ("a.php", true),
        ("d/b.php", true),
        ("d/e/c.php", true),
        // Excluded paths are neither sent nor deleted.
        ("a.log", false),
        ("d/b.log", false),
        ("cache/x", false),
        ("d/.f.swp", false),
        ("gone.log", true),
        ("cache/old", true),
        ("half/x.log", true),
        ("gone.php", false),
        ("gone", false),
        ("half/x.php", false),
        ("d/old.php", false),
        ("d/old", false),
    ] {
        assert_eq!(stage.dst(name).exists(), stands, "{name}");
    }
}

#[test]
fn a_level_stays_a_level() {
    let stage = Stage::new();
    for name in ["d/a.php", "d/a.log", "d/deep/b.php"] {
        stage.write(name, name);
    }
    for extra in ["d/old.php", "d/old.log", "d/deep/old.php", "beside.php"] {
        write(&stage.dst(extra), "extra");
    }
    let ctx = filtered(&stage, &[r"(.*)\.log"]);
    all_done(&go(&ctx, &[job("d", Scope::Children, Origin::Scan)]));
    for (name, stands) in [
        ("d/a.php", true),
        ("d/a.log", false),
        ("d/deep", true),
        ("d/deep/b.php", false),
        ("d/deep/old.php", true),
        ("d/old.php", false),
        ("d/old.log", true),
        ("beside.php", true),
    ] {
        assert_eq!(stage.dst(name).exists(), stands, "{name}");
    }
}

#[test]
fn a_reconcile_leaves_out_its_own_excludes_too() {
    for excludes in [&[][..], &[r"(.*)\.log"]] {
        let stage = Stage::new();
        for name in ["a.php", "d/b.php", "d/c.txt", "info/x.txt", "info/sub/y.txt", "left"] {
            stage.write(name, name);
        }
        write(&stage.dst("gone.php"), "extra");
        let mut ctx = filtered(&stage, excludes);
        ctx.target.options.reconcile_excludes = vec!["*.php".into(), "info/*".into()];
        all_done(&go(&ctx, &[job("", Scope::Subtree, Origin::Reconcile)]));
        for (name, stands) in [
            ("a.php", false),
            ("d/b.php", false),
            ("d/c.txt", true),
            ("info/x.txt", false),
            ("info/sub/y.txt", false),
            ("left", true),
            ("gone.php", true),
        ] {
            assert_eq!(stage.dst(name).exists(), stands, "{name} {excludes:?}");
        }
    }
}

#[test]
fn a_failure_in_an_expanded_tree_is_its_jobs() {
    let stage = Stage::with_daemon("refuse options = delete", "");
    stage.write("d/f", "f");
    let ctx = {
        let port = stage.daemon.as_ref().unwrap().port;
        let options = TransferOptions { port: Some(port), ..TransferOptions::default() };
        stage.context_filtered(Destination::Daemon { host: "127.0.0.1".into(), module: "m".into() }, options, &["x"])
    };
    let report = go(&ctx, &[job("d", Scope::Subtree, Origin::Scan)]);
    assert!(matches!(verdict(&report, "d"), Verdict::Failed(_)), "{report:#?}");
    assert!(stage.dst("d/f").exists());
}

/// A comparison spares an excluded entry and its directory, but a live deletion took away both.
#[test]
fn what_is_excluded_outlives_its_directory_when_that_is_deleted_live() {
    let stage = Stage::new();
    let with_params =
        |params: &[&str]| TransferOptions { params: params.iter().collect(), ..TransferOptions::default() };
    let here = || Destination::Local(stage.dst(""));
    for ctx in [
        stage.context_filtered(here(), TransferOptions::default(), &["(.*)/uploads"]),
        stage.context(here(), with_params(&["-a", "--exclude=uploads"])),
        stage.context_filtered(here(), with_params(&["-a", "--exclude=uploads"]), &["other"]),
    ] {
        for name in
            ["app/index", "app/sub/x", "app/uploads/p.jpg", "replaced/uploads/p.jpg", "replaced/x", "plain/x/y", "file"]
        {
            write(&stage.dst(name), "x");
        }
        stage.write("replaced", "no directory any more");
        let report = go(&ctx, &entries(&["app", "replaced", "plain", "file"]));
        let done = |name| *verdict(&report, name) == Verdict::Done;
        assert!(done("app") && done("plain") && done("file") && !done("replaced"), "{report:#?}");
        for (name, stands) in [
            ("app/index", false),
            ("app/sub", false),
            ("app/uploads/p.jpg", true),
            ("replaced/uploads/p.jpg", true),
            ("plain", false),
            ("file", false),
        ] {
            assert_eq!(stage.dst(name).exists(), stands, "{name} {:?}", ctx.target.options.params);
        }
    }
}

/// With any expression, the temporary of a killed receiver kept a deleted directory on the target for ever.
#[test]
fn a_temporary_goes_with_its_directory() {
    for jobs in [entries(&["x"]), vec![job("", Scope::Subtree, Origin::Reconcile)]] {
        let stage = Stage::new();
        for name in ["x/s2/.f.tAbcDe", "x/y~", ".g.tAbcDe"] {
            write(&stage.dst(name), "half");
        }
        stage.write("stays", "s");
        all_done(&go(&filtered(&stage, &[r"(.*)\.skip"]), &jobs));
        assert!(!stage.dst("x").exists() && stage.dst(".g.tAbcDe").exists());
    }
}

#[test]
fn nothing_excluded_is_sent_for_an_old_job() {
    let stage = Stage::new();
    stage.write("cache/x", "x");
    stage.write("a", "a");
    write(&stage.dst("cache/y"), "y");
    let ctx = filtered(&stage, &["cache"]);
    all_done(&go(
        &ctx,
        &[
            job("cache", Scope::Subtree, Origin::Write),
            job("cache/y", Scope::Entry, Origin::Write),
            job("a", Scope::Entry, Origin::Write),
        ],
    ));
    assert!(stage.dst("a").exists() && !stage.dst("cache/x").exists() && stage.dst("cache/y").exists());
}

/// A receiver that is not root deletes nothing by name in a directory without `w`. A comparison makes the directory
/// writable.
#[test]
fn a_read_only_directory_is_deleted_live() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for excludes in [&[][..], &[r"(.*)\.log"]] {
        let stage = Stage::with_daemon("uid = nobody\ngid = nogroup", "");
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(stage.dir.path(), 0o755);
        for name in ["gone/f", "gone/sub/g", "kept/f"] {
            write(&stage.dst(name), "x");
        }
        stage.write("kept/other", "x");
        let shell = "find . -type d ! -path . -exec chmod 555 {} + && chown -R nobody:nogroup .";
        assert!(Command::new("sh").args(["-c", shell]).current_dir(stage.dst("")).status().unwrap().success());
        let port = stage.daemon.as_ref().map(|daemon| daemon.port);
        let options = TransferOptions { port, params: ["-rlptz"].into_iter().collect(), ..TransferOptions::default() };
        let destination = Destination::Daemon { host: "127.0.0.1".into(), module: "m".into() };
        let ctx = stage.context_filtered(destination, options, excludes);
        all_done(&go(&ctx, &entries(&["gone", "kept/f"])));
        assert!(!stage.dst("gone").exists() && !stage.dst("kept/f").exists(), "{excludes:?}");
    }
}

/// `-x`, `-L` and the like work where rsync comes to a path from the root on, but a list begins at the path.
#[test]
fn options_that_let_rsync_choose_hold_for_live_changes() {
    let stage = Stage::new();
    stage.write("private/key", "k");
    stage.write("open/f", "f");
    stage.write("open/x.o", "o");
    write(&stage.dir.path().join("outside/f"), "f");
    std::os::unix::fs::symlink(stage.dir.path().join("outside"), stage.src("link")).unwrap();
    std::fs::write(stage.dir.path().join("rules"), "private\n").unwrap();
    let from = format!("--exclude-from={}", stage.dir.path().join("rules").display());
    let live = ["private/key", "open/f", "open/x.o", "link"];
    for (params, key, object, behind) in [
        (&["-a", "--exclude=/private"][..], false, true, false),
        (&["-a", "--filter=- /private/"], false, true, false),
        (&["-a", &from], false, true, false),
        (&["-aC"], true, false, false),
        (&["-aL"], true, true, true),
        (&["-ak"], true, true, true),
        (&["-a", "--copy-unsafe-links", "--exclude=*.o"], true, false, true),
    ] {
        let _ = std::fs::remove_dir_all(stage.dst(""));
        std::fs::create_dir(stage.dst("")).unwrap();
        let options = TransferOptions { params: params.iter().collect(), ..TransferOptions::default() };
        all_done(&go(&stage.context(Destination::Local(stage.dst("")), options), &entries(&live)));
        let stands = ["private/key", "open/x.o", "link/f", "open/f"].map(|name| {
            std::fs::symlink_metadata(stage.dst(name)).is_ok() && !stage.dst("link").is_symlink() | (name != "link/f")
        });
        assert_eq!(stands, [key, object, behind, true], "{params:?}");
    }
}

/// If an ordinary user's daemon could not open a directory, its files never arrived, and nothing was reported.
#[test]
fn a_directory_that_cannot_be_read_is_a_failure_under_expressions_too() {
    let stage = Stage::new();
    for name in ["a.php", "d/closed/b.php", "d/c.php"] {
        stage.write(name, name);
    }
    let rsync = stage.dir.path().join("rsync");
    let closed = stage.src("d/closed").display().to_string();
    program(
        &rsync,
        &format!(
            "#!/bin/sh\nfor arg; do [ \"$arg\" = -n ] && dry=1; done\n[ \"$dry\" ] || exit 0\ncat >/dev/null\n\
             echo '>f+++++++++ a.php'\n\
             echo 'rsync: [sender] opendir \"{closed}\" failed: Permission denied (13)' >&2\nexit 23\n"
        ),
    );
    let mut ctx = filtered(&stage, &[r"(.*)\.log"]);
    ctx.program.path = rsync.into();
    let report = go(&ctx, &[job("", Scope::Subtree, Origin::Scan)]);
    let [found] = report.found.as_slice() else { panic!("{report:#?}") };
    assert_eq!((&found.path, found.scope), (&path("d/closed"), Scope::Subtree));
}
