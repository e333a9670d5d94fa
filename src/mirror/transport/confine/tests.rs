//! Which access is confined for which target, and that the kernel enforces it.

use super::*;
use crate::model::TransferOptions;

fn args_of(args: &[&str]) -> Vec<OsString> {
    args.iter().map(OsString::from).collect()
}

#[test]
fn files_that_the_arguments_name() {
    let args =
        args_of(&["-a", "--exclude-from", "/x/list", "--filter=merge /x/rules", "--filter=- /private", "--exclude=/y"]);
    assert_eq!(named(&args, &READS), [PathBuf::from("/x/list"), PathBuf::from("/x/rules")]);
    assert_eq!(named(&args_of(&["--temp-dir=/t", "--backup-dir=in"]), &WRITES), [PathBuf::from("/t")]);
}

#[test]
fn what_is_held_goes_by_target_and_params() {
    let all = AccessFs::from_all(RIGHTS);
    let local = Destination::Local("/t".into());
    let daemon = Destination::Daemon { host: "h".into(), module: "m".into() };
    let ssh = Destination::Ssh { host: "h".into(), path: "/t".into() };
    let nothing = BitFlags::empty();
    for (destination, params, expected) in [
        (&local, &["-artz"][..], all),
        (&local, &["-aL"], all & !(read() | AccessFs::Execute)),
        (&local, &["-rk"], all & !(read() | AccessFs::Execute)),
        (&local, &["-aK"], nothing),
        (&daemon, &["-a", "-e", "ssh -K"], read()),
        (&daemon, &["-aK"], all),
        (&daemon, &["--copy-links"], nothing),
        (&ssh, &["-a", "-e", "ssh -o ControlMaster=no -o ControlPath=/s/1"], read()),
        (&ssh, &["-a", "-e", "/opt/tunnel"], nothing),
        (&ssh, &["-aL"], nothing),
    ] {
        let options = TransferOptions { params: params.iter().collect(), ..TransferOptions::default() };
        let target = Target { destination: destination.clone(), options };
        let held = Places::new(Path::new("/r"), &target).held(&args_of(params));
        assert_eq!(held, expected, "{destination:?} {params:?}");
    }
}

/// A destination two levels below an existing directory could not be made, so nothing was sent.
#[test]
fn a_run_may_make_its_destination_and_a_look_makes_none() {
    if !is_available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p/q/r");
    let target = Target { destination: Destination::Local(path.clone()), options: TransferOptions::default() };
    let places = Places::new(dir.path(), &target);
    for (args, is_made) in [(&["-n", "--mkpath"][..], false), (&["-a"], false), (&["-a", "--mkpath"], true)] {
        places.rules(Path::new("/usr/bin/rsync"), &args_of(args), places.held(&args_of(args))).unwrap();
        assert_eq!(path.exists(), is_made, "{args:?}");
    }
}

/// An rsync that followed a swapped link sent root's files, and wrote and deleted outside of the destination.
#[test]
fn what_is_confined_reaches_the_source_and_the_target_alone() {
    if !is_available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["src", "dst", "secret"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("f"), name).unwrap();
    }
    let target =
        Target { destination: Destination::Local(dir.path().join("dst")), options: TransferOptions::default() };
    let places = Places::new(&dir.path().join("src"), &target);
    for (script, allowed) in [
        ("cat src/f", true),
        ("cat dst/f && echo x > dst/g && mkdir dst/d && ln dst/g dst/d/h && mv dst/d/h dst/h && rm dst/f", true),
        ("cat /etc/passwd && echo x > /dev/null", true),
        ("cat secret/f", false),
        ("ls secret", false),
        ("echo x > secret/f", false),
        ("rm secret/f", false),
        ("echo x > src/f", false),
        ("ln -s ../secret dst/l && cat dst/l/f", false),
        ("cat /etc/shadow", false),
    ] {
        let rules = places.rules(Path::new("/usr/bin/rsync"), &[], places.held(&[])).unwrap();
        let at = dir.path().to_owned();
        let started = std::thread::spawn(move || {
            confine(rules).unwrap();
            let mut command = Command::new("sh");
            let quiet = std::process::Stdio::null;
            command.args(["-c", script]).current_dir(at).stdout(quiet()).stderr(quiet()).status().unwrap()
        });
        assert_eq!(started.join().unwrap().success(), allowed, "{script}");
    }
    assert_eq!(std::fs::read(dir.path().join("secret/f")).unwrap(), b"secret", "and this process is as free as before");
}
