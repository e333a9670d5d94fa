//! The answers that a daemon may give: refusals, limits, and single paths that fail.

use super::*;
use crate::mirror::target::launch::probe;
use crate::model::TroubleClass::{self, Busy, Misconfigured, Unavailable};
use std::os::unix::fs::PermissionsExt;

fn private(path: &Path, content: &str) {
    write(path, content);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn refusals_are_the_targets_trouble_and_burn_no_job() {
    let stage = Stage::with_daemon(
        "",
        "[auth]\nauth users = joe\nsecrets file = @DIR@/secrets\n[ro]\nread only = yes\n[gone]\npath = @DIR@/gone\n\
         [deny]\nhosts allow = 10.99.0.1\n[pre]\npre-xfer exec = /bin/false\n",
    );
    let at = |name: &str| stage.dir.path().join(name);
    private(&at("secrets"), "joe:secret\n");
    private(&at("good"), "secret\n");
    private(&at("bad"), "wrong\n");
    write(&at("open"), "secret\n");
    stage.write("f", "f");
    let password = |module: &str, file: &str| stage.module_with(module, |o| o.password_file = Some(at(file)));
    let nothing_there = stage.module_with("m", |options| options.port = Some(1));
    let cases: [(TargetContext, TroubleClass, &str); 11] = [
        (stage.module("joe@auth"), Misconfigured, "user or password"),
        (stage.module("auth"), Misconfigured, "user or password"),
        (password("joe@auth", "bad"), Misconfigured, "user or password"),
        (password("joe@auth", "open"), Misconfigured, "readable by others"),
        (password("joe@auth", "none"), Misconfigured, "password file cannot be read"),
        (stage.module("nope"), Misconfigured, "no module of that name"),
        (stage.module("ro"), Misconfigured, "read only"),
        (stage.module("gone"), Unavailable, "directory is missing"),
        (stage.module("deny"), Misconfigured, "does not admit"),
        (stage.module("pre"), Unavailable, "pre-xfer"),
        (nothing_there, Unavailable, "nothing listens"),
    ];
    for (ctx, class, words) in cases {
        let report = go(&ctx, &entries(&["f", "missing"]));
        let trouble = report.trouble.unwrap_or_else(|| panic!("{words}: no trouble"));
        assert!(trouble.class == class && trouble.message.contains(words), "{words}: {trouble:#?}");
        assert!(trouble.hint.is_some() && trouble.command.is_some(), "{trouble:#?}");
        assert!(report.verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Released));
        assert_eq!(report.runs, 1);
        assert_eq!(probe(&ctx, &StopSignal::new().unwrap()).unwrap_err().class, class, "{words}");
    }
    all_done(&go(&password("joe@auth", "good"), &entries(&["f"])));
}

#[test]
fn a_full_house_is_busy() {
    let stage = Stage::with_daemon("max connections = 1", "");
    stage.write("f", "f");
    let port = stage.daemon.as_ref().unwrap().port;
    // A connection that has named its module holds it until it closes.
    let mut holder = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    holder.write_all(b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\nm\n").unwrap();
    let mut greeting = [0; 8];
    std::io::Read::read_exact(&mut holder, &mut greeting).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let report = go(&stage.module("m"), &entries(&["f"]));
    assert_eq!(report.trouble.unwrap().class, Busy);
}

#[test]
fn a_refused_deletion_by_name_takes_away_that_and_nothing_else() {
    let gone = ["d/gone", "d/tree", "a*b", "d/[x", "d/y\\", "d/z\\?", "d/ q\"\n", "deep/er/still/gone", "d/-x ", "#h"];
    let stay = ["d/f", "d/gone2", "d/tree2/x", "axb", "d/x", "d/z?", "deep/f", "deep/er/f", "other/f", "f"];
    for params in [&["-a"][..], &["-am", "--delete-excluded"]] {
        let stage = Stage::with_daemon("refuse options = delete-missing-args", "");
        for name in ["d/f", "deep/er/still/here", "d/unsent", "again"] {
            stage.write(name, "source");
        }
        for name in gone.into_iter().chain(stay) {
            let name = if name == "d/tree" { "d/tree/with/gone" } else { name };
            write(&stage.dst(name), "x");
        }
        let ctx = stage.module_with("m", |options| options.params = params.iter().collect());
        let mut jobs = entries(&gone);
        jobs.extend(entries(&["d/f", "again"]));
        all_done(&go(&ctx, &jobs));
        for name in gone {
            assert!(!stage.dst(name).exists(), "{name} {params:?}");
        }
        for name in stay.into_iter().chain(["again"]) {
            assert!(stage.dst(name).exists(), "{name} {params:?}");
        }
        assert!(!stage.dst("d/unsent").exists(), "a deletion sends nothing");
        assert_eq!(std::fs::read(stage.dst("d/f")).unwrap(), b"source");
    }
}

/// More names than fit into one command line.
#[test]
fn many_refused_deletions_go_in_several_runs() {
    let stage = Stage::with_daemon("refuse options = delete-missing-args", "");
    let names: Vec<String> = (0..1_500).map(|n| format!("d/{n:0>200}")).collect();
    names.iter().for_each(|name| write(&stage.dst(name), "x"));
    stage.write("d/stays", "x");
    write(&stage.dst("d/more"), "x");
    all_done(&go(&stage.module("m"), &entries(&names.iter().map(String::as_str).collect::<Vec<_>>())));
    assert_eq!(std::fs::read_dir(stage.dst("d")).unwrap().count(), 1);
}

#[test]
fn a_server_that_refuses_all_deletions_fails_only_these() {
    for refused in ["delete-*", "delete"] {
        let stage = Stage::with_daemon(&format!("refuse options = {refused}"), "");
        stage.write("f", "f");
        write(&stage.dst("gone"), "x");
        let report = go(&stage.module("m"), &entries(&["f", "gone"]));
        assert_eq!(*verdict(&report, "f"), Verdict::Done, "{refused}: {report:#?}");
        let Verdict::Failed(error) = verdict(&report, "gone") else { panic!("{refused}: {report:#?}") };
        assert!(error.message.contains("refuses deletions"), "{error}");
        assert!(stage.dst("f").exists() && stage.dst("gone").exists());
    }
}

#[test]
fn what_may_not_be_written_fails_alone() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let stage = Stage::with_daemon("uid = nobody", "[sub]\npath = @DIR@\nuid = nobody\n");
    let mode = |path: PathBuf, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(stage.dir.path().to_path_buf(), 0o755);
    for name in ["dst/locked/sub", "dst/open"] {
        std::fs::create_dir_all(stage.dir.path().join(name)).unwrap();
    }
    write(&stage.dst("locked/old"), "x");
    for name in ["locked/new", "locked/\"q\" (in m)\nx", "locked/sub/new", "open/new", "other"] {
        stage.write(name, name);
    }
    let odd = "locked/\"q\" (in m)\nx";
    mode(stage.dst(""), 0o777);
    mode(stage.dst("open"), 0o777);
    let jobs = entries(&["locked/new", odd, "locked/sub/new", "locked/old", "open/new", "other"]);
    for module in ["m", "sub/dst"] {
        let ctx = stage.module_with(module, |options| options.params = ["-rl"].into_iter().collect());
        let report = go(&ctx, &jobs);
        for name in ["locked/new", odd, "locked/sub/new", "locked/old"] {
            let Verdict::Failed(error) = verdict(&report, name) else { panic!("{name}: {report:#?}") };
            assert!(error.message.contains("may not be written") && error.code == Some(23), "{error}");
        }
        assert_eq!(*verdict(&report, "open/new"), Verdict::Done, "{report:#?}");
        assert_eq!(*verdict(&report, "other"), Verdict::Done);
        assert_eq!(report.trouble, None);
        // A file that cannot be deleted by name is tried by a comparison.
        assert_eq!(report.runs, 2 + refusals(&ctx), "every failure was named");
    }
}

#[test]
fn a_batch_that_meets_a_dead_server_does_not_halve() {
    let stage = Stage::with_daemon("", "");
    for name in ["a", "b", "c"] {
        stage.write(name, name);
    }
    let ctx = stage.module("m");
    drop(stage.daemon);
    let report =
        execute(&ctx, Lane::Small, &entries(&["a", "b", "c"]), Contents::Vouched, NOW, &StopSignal::new().unwrap());
    assert_eq!(report.runs, 1);
    assert_eq!(report.trouble.unwrap().class, Unavailable);
}
