//! The removal of files that killed receivers have left on the target.

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn aged(path: &Path, age: Duration) {
    write(path, "leftover");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(NOW.to_system() - age).unwrap();
}

#[test]
fn old_temporaries_go_and_all_others_stay() {
    let stage = Stage::with_daemon("", "");
    for name in ["f.txt", "d/g", "d/.real.Ab12Cd"] {
        stage.write(name, name);
    }
    let files = [
        (".f.txt.Ab12Cd", DAY * 2, false),
        ("d/.g h\n.zY12Cd", DAY * 2, false),
        ("d/.real.Ab12Cd", DAY * 2, true),
        (".young.Ab12Cd", DAY / 2, true),
        (".f.swp", DAY * 2, true),
        ("kept/.x.Ab12Cd", DAY * 2, true),
        ("cron/.x.Ab12Cd", DAY * 2, true),
        ("by-params/.x.Ab12Cd", DAY * 2, true),
    ];
    for (name, age, _) in files {
        aged(&stage.dst(name), age);
    }
    for directory in ["kept", "cron", "by-params"] {
        stage.write(&format!("{directory}/here"), "so that the directory stays");
    }
    let ctx = |delete: bool| {
        let port = stage.daemon.as_ref().unwrap().port;
        let options = TransferOptions {
            port: Some(port),
            delete,
            params: ["-a", "--exclude=/by-params/"].into_iter().collect(),
            reconcile_excludes: vec!["/cron/".into()],
            ..TransferOptions::default()
        };
        let destination = Destination::Daemon { host: "127.0.0.1".into(), module: "m".into() };
        stage.context_filtered(destination, options, &["kept"])
    };
    let whole = [job("", Scope::Subtree, Origin::Reconcile)];
    all_done(&go(&ctx(false), &whole));
    assert!(files.iter().all(|(name, ..)| stage.dst(name).exists()), "with delete off nothing goes");
    let ctx = ctx(true);
    all_done(&go(&ctx, &whole));
    for (name, _, stays) in files {
        assert_eq!(stage.dst(name).exists(), stays, "{name}");
    }
    // The target is not listed again on the same day.
    aged(&stage.dst(".f.txt.Ab12Cd"), DAY * 2);
    let stop = StopSignal::new().unwrap();
    all_done(&execute(&ctx, Lane::Large, &whole, Contents::Vouched, NOW.after(DAY - Duration::from_secs(1)), &stop));
    assert!(stage.dst(".f.txt.Ab12Cd").exists());
    all_done(&execute(&ctx, Lane::Large, &whole, Contents::Vouched, NOW.after(DAY), &stop));
    assert!(!stage.dst(".f.txt.Ab12Cd").exists());
}

#[test]
fn removing_leftovers_leaves_the_times_of_directories_right() {
    let stage = Stage::new();
    stage.write("d/g", "g");
    let ctx = stage.local();
    all_done(&go(&stage.local(), &[job("", Scope::Subtree, Origin::Reconcile)]));
    aged(&stage.dst("d/.g.Ab12Cd"), DAY * 2);
    all_done(&go(&ctx, &[job("", Scope::Subtree, Origin::Reconcile)]));
    assert_eq!(stage.difference(), None);
}

#[test]
fn a_target_that_cannot_be_listed_is_mirrored_all_the_same() {
    let stage = Stage::with_daemon("write only = yes", "");
    stage.write("f", "f");
    aged(&stage.dst(".f.Ab12Cd"), DAY * 2);
    all_done(&go(&stage.module("m"), &[job("", Scope::Subtree, Origin::Reconcile)]));
    assert!(stage.dst("f").exists() && stage.dst(".f.Ab12Cd").exists());
}

#[test]
fn too_many_are_asked_about() {
    let stage = Stage::new();
    stage.write("f", "f");
    for n in 0..30 {
        aged(&stage.dst(&format!(".f{n}.Ab12Cd")), DAY * 2);
    }
    let mut ctx = stage.local();
    ctx.guard = Guard::new(MaxDelete::Entries(29), false, false);
    let report = go(&ctx, &[job("", Scope::Subtree, Origin::Reconcile)]);
    let Verdict::Failed(error) = verdict(&report, "") else { panic!("{report:#?}") };
    assert!(error.message.starts_with("30 files named like") && stage.dst(".f0.Ab12Cd").exists(), "{error:?}");
    ctx.guard = Guard::new(MaxDelete::Entries(29), true, false);
    all_done(&go(&ctx, &[job("", Scope::Subtree, Origin::Reconcile)]));
    assert!(!stage.dst(".f0.Ab12Cd").exists());
}

/// A listing keeps the params about the way to the target and those that exclude, and none that could change the target.
#[test]
fn a_listing_takes_few_of_the_params() {
    let params = ["-aCze", "ssh -p 2", "--delete", "--exclude=x", "--bwlimit", "5", "--rsh", "x y", "-essh", "-Tt"];
    let options = TransferOptions { params: params.into_iter().collect(), ..TransferOptions::default() };
    let target = Target { destination: Destination::Ssh { host: "h".into(), path: "/p".into() }, options };
    let args = plan::arguments::list_arguments(&target, &["- *".into()]);
    let (taken, own) = args.split_at(6);
    assert_eq!(taken, ["-Ce", "ssh -p 2", "--exclude=x", "--rsh", "x y", "-essh"]);
    assert_eq!(own[..6], ["-r", "--list-only", "--no-h", "--prune-empty-dirs", "--filter=- *", "-e"]);
    assert!(own[6].to_str().unwrap().starts_with("ssh -o BatchMode=yes ") && own[7] == "h:/p/", "{own:?}");
}
