//! Runs under the user's expressions, which rsync cannot apply itself.

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

/// Debian 12's rsync refuses deletions by name to any target, and under a filter nothing was ever deleted there.
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
        // Excluded: neither sent nor deleted.
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
