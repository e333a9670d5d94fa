//! Argument lists for each kind of destination, run and parameter.

use super::*;
use crate::mirror::plan::source::Presence;
use crate::model::{RelPath, TransferOptions};

fn target(destination: Destination, params: &[&str]) -> Target {
    let params = params.iter().map(OsString::from).collect();
    Target { destination, options: TransferOptions { params, ..TransferOptions::default() } }
}

fn run(kind: RunKind, origin: Origin, names: &[&[u8]]) -> Run {
    let entry = |name: &&[u8]| Entry {
        path: RelPath::new(name).unwrap(),
        presence: Presence::Directory,
        orphan: false,
        jobs: Vec::new(),
    };
    Run::new(kind, origin, names.iter().map(entry).collect())
}

fn line(target: &Target, run: &Run, deletion: Deletion, lane: Lane) -> String {
    let rules = [OsString::from("- *~")];
    let args = arguments(target, run, Mode { rules: &rules, ..Mode::new(lane, deletion, Pass::Real) });
    args.join(OsStr::new(" ")).into_string().unwrap()
}

#[test]
fn a_flat_run_to_each_kind_of_destination() {
    let flat = run(RunKind::Flat, Origin::Write, &[b"a"]);
    let common = "--no-r --dirs -R --files-from=- --from0 --modify-window=-1 --delete-missing-args --force --checksum";
    let local = target(Destination::Local("/mnt/b".into()), &["-artz"]);
    assert_eq!(line(&local, &flat, Deletion::ByName, Lane::Small), format!("-artz {common} ./ /mnt/b/"));
    let mut ssh = target(Destination::Ssh { host: "u@h".into(), path: "/x y".into() }, &["-a"]);
    ssh.options.port = Some(2222);
    assert_eq!(
        line(&ssh, &flat, Deletion::ByName, Lane::Large),
        format!(
            "-a {common} --partial-dir=.rsync-partial -e ssh -p 2222 -o BatchMode=yes -o ConnectTimeout=30 \
             -o ServerAliveInterval=15 -o ServerAliveCountMax=3 -s ./ u@h:/x y/"
        )
    );
    ssh.options.params.extend(["-ze", "ssh -i /key"]);
    assert!(line(&ssh, &flat, Deletion::ByName, Lane::Small).contains("-e ssh -i /key -p 2222 -o BatchMode=yes "));
    ssh.options.params.extend(["--rsh=rsh -x"]);
    assert!(!line(&ssh, &flat, Deletion::ByName, Lane::Small).contains("BatchMode"));
    ssh.destination = Destination::Ssh { host: "h".into(), path: "~/www".into() };
    assert!(line(&ssh, &flat, Deletion::ByName, Lane::Small).ends_with(" ./ h:~/www/"));
    let mut daemon = target(Destination::Daemon { host: "u@h".into(), module: "m".into() }, &["-a", "--partial"]);
    daemon.options.port = Some(874);
    daemon.options.password_file = Some("/etc/p".into());
    daemon.options.timeout = Some(Duration::from_secs(100));
    assert_eq!(
        line(&daemon, &flat, Deletion::ByName, Lane::Large),
        format!(
            "-a --partial {common} --timeout=100 --sockopts=TCP_NODELAY --contimeout=30 --port=874 \
             --password-file=/etc/p ./ u@h::m/"
        )
    );
}

/// rsync followed a link of the target that stood in a directory's place.
#[test]
fn what_leads_to_a_path_is_always_listed() {
    for (params, listed) in [(&["-a"][..], false), (&["-a", "--no-implied-dirs"], true), (&["--no-i-d"], true)] {
        let target = target(Destination::Local("/b".into()), params);
        let text = line(&target, &run(RunKind::Flat, Origin::Write, &[b"a/b"]), Deletion::ByName, Lane::Small);
        assert_eq!(text.contains(" --implied-dirs "), listed, "{text}");
    }
}

#[test]
fn a_run_goes_through_the_remote_shell_that_it_is_given() {
    let ssh = target(Destination::Ssh { host: "h".into(), path: "/x".into() }, &["-ae", "ssh -4"]);
    let flat = run(RunKind::Flat, Origin::Write, &[b"a"]);
    let mode = Mode::new(Lane::Small, Deletion::Off, Pass::Real);
    let args = with_remote_shell(&arguments(&ssh, &flat, mode), OsStr::new("ssh -S /s"));
    assert_eq!(args[args.len() - 4..], ["-e", "ssh -S /s", "./", "h:/x/"]);
    let local = arguments(&target(Destination::Local("/b".into()), &["-a"]), &flat, mode);
    assert_eq!(with_remote_shell(&local, OsStr::new("ssh")), local);
}

#[test]
fn a_removal_lists_what_is_above_and_rules_out_the_rest() {
    let entry = |name: &[u8]| Entry {
        path: RelPath::new(name).unwrap(),
        presence: Presence::Missing,
        orphan: false,
        jobs: vec![0],
    };
    let entries = [&b"x"[..], b"d[/e\\/y*", b"gone/z"].map(entry).to_vec();
    let is_there = |path: &RelPath| path.as_bytes() != b"gone";
    let run = Run::deletion(Deletion::ByLevel, entries.clone(), &mut |path| match is_there(path) {
        true => Presence::Directory,
        false => Presence::Missing,
    });
    assert_eq!(list(&run), b"./\0./d[/e\\/\0");
    let text = line(&target(Destination::Local("/b".into()), &["-a"]), &run, Deletion::ByLevel, Lane::Small);
    let rules: Vec<&str> = text.split(" --filter=").skip(1).collect();
    assert_eq!(
        rules,
        [
            r"+ /d\[/",
            r"+ /d\[/e\\/",
            "+ /gone/",
            "+ /x",
            "+ /x/**",
            r"+ /d\[/e\\/y\*",
            r"+ /d\[/e\\/y\*/**",
            "+ /gone/z",
            "+ /gone/z/**",
            "- * ./ /b/"
        ],
        "{text}"
    );
    let by_name = Run::deletion(Deletion::ByName, entries, &mut |_| Presence::Directory);
    assert_eq!((by_name.kind, list(&by_name)), (RunKind::Flat, b"./x\0./d[/e\\/y*\0./gone/z\0".to_vec()));
}

#[test]
fn deletion_reaches_no_further_than_asked() {
    let user = target(Destination::Local("/b".into()), &["-a", "--delete", "--delete-excluded"]);
    for (kind, deletion, delete, missing, force) in [
        (RunKind::Flat, Deletion::ByName, false, true, true),
        (RunKind::Flat, Deletion::ByLevel, false, false, true),
        (RunKind::Removal, Deletion::ByLevel, true, false, true),
        (RunKind::RootOnly, Deletion::ByName, false, true, true),
        (RunKind::Level, Deletion::ByName, true, true, true),
        (RunKind::Level, Deletion::ByLevel, true, false, true),
        (RunKind::Tree, Deletion::ByName, true, true, true),
        (RunKind::Tree, Deletion::Refused, false, false, true),
        (RunKind::Tree, Deletion::Off, false, false, false),
    ] {
        let text = line(&user, &run(kind, Origin::Scan, &[b"a"]), deletion, Lane::Small) + " ";
        assert_eq!(text.contains(" --delete "), delete, "{text}");
        let excluded = delete && kind != RunKind::Removal;
        assert_eq!(text.contains(" --delete-excluded "), excluded, "{text}");
        assert_eq!(text.contains(" --delete-missing-args "), missing, "{text}");
        assert_eq!(text.contains(" --force "), force, "{text}");
        assert_eq!(text.contains("--filter=- *~"), matches!(kind, RunKind::Level | RunKind::Tree), "{text}");
    }
}

#[test]
fn runs_whose_words_count_are_never_quiet() {
    let target = target(Destination::Local("/b".into()), &["-aqz", "--quiet", "-q", "-qeq", "-a"]);
    let mode = Mode::new(Lane::Small, Deletion::ByName, Pass::Show);
    let args = arguments(&target, &run(RunKind::Flat, Origin::Write, &[]), mode);
    assert_eq!(args[..3], ["-az", "-eq", "-a"]);
    assert!(
        args.contains(&"--checksum".into()) && args.contains(&"-n".into()) && !args.contains(&"--ignore-times".into())
    );
    let mode = |pass| Mode::new(Lane::Small, Deletion::ByName, pass);
    for (kind, first) in [(RunKind::Tree, "-az"), (RunKind::Level, "-az"), (RunKind::Flat, "-aqz")] {
        assert_eq!(arguments(&target, &run(kind, Origin::Scan, &[]), mode(Pass::Real))[0], first, "{kind:?}");
    }
}

#[test]
fn only_a_reconcile_knows_its_excludes_and_the_filters_rules_come_last() {
    let mut target = target(Destination::Local("/b".into()), &["-a"]);
    target.options.reconcile_excludes = vec!["*.php".into()];
    let reconcile = line(&target, &run(RunKind::Tree, Origin::Reconcile, &[b""]), Deletion::ByName, Lane::Large);
    assert!(reconcile.contains("--exclude=*.php --filter=- *~ ./"), "{reconcile}");
    assert!(!line(&target, &run(RunKind::Tree, Origin::Scan, &[b""]), Deletion::ByName, Lane::Large).contains("php"));
}

#[test]
fn lists_are_nul_separated_and_say_where_to_look() {
    for (kind, expected) in [
        (RunKind::Flat, &b"./#a\0./b c\0"[..]),
        (RunKind::Level, b"./\0./#a/\0./b c/\0"),
        (RunKind::Tree, b"./\0./#a/\0./b c/\0"),
    ] {
        assert_eq!(list(&run(kind, Origin::Scan, &[b"", b"#a", b"b c"])), expected);
    }
    assert_eq!(list(&run(RunKind::RootOnly, Origin::Scan, &[b""])), b"./\0");
}
