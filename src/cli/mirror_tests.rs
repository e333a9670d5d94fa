//! How `syncq mirror` reads its arguments, and which it refuses.

use clap::Parser;

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::cli::exit::Exit;

#[derive(Debug, Parser)]
struct Alone {
    #[command(flatten)]
    mirror: MirrorArgs,
}

fn parse(args: &[&str]) -> MirrorArgs {
    Alone::try_parse_from(std::iter::once("mirror").chain(args.iter().copied())).expect("a command line").mirror
}

fn root_of(args: &[&str]) -> Result<Root, CliError> {
    root(&parse(args), Path::new("/srv/www"), Path::new("/here"), &mut Vec::new())
}

#[test]
fn arguments_become_a_root() {
    let args = ["/srv/www", "/backup", "u@h:/x", "rsync://b:99/m", "c::m", "--port", "22", "--rsync-arg=-H"];
    let root = root_of(&args).expect("a root");
    let ports: Vec<_> = root.targets.iter().map(|target| target.options.port).collect();
    assert_eq!(ports, [None, Some(22), Some(99), Some(22)]);
    assert!(root.targets.iter().all(|target| target.options.params == ["-a", "-H"] && target.options.delete));
    assert!(root.events.attrib && root.events.delete);

    let root = root_of(&["/srv/www", "a", "--delete=false", "--attrib=false", "--rsync-arg", "--bwlimit=9"]);
    let root = root.expect("a root");
    assert!(!root.events.attrib && !root.events.delete);
    let target = root.targets.first().expect("a target");
    assert_eq!(target.destination, Destination::Local("/here/a".into()));
    assert!(!target.options.delete && target.options.params == ["-a", "--bwlimit=9"]);
}

#[test]
fn a_source_that_is_no_directory_is_a_configuration_error() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), "").expect("a file");
    for name in ["file", "none"] {
        let error = checked_source(&dir.path().join(name), Path::new("/")).expect_err("refused");
        assert!(error.exit == Exit::Config && error.hint.is_some(), "{error}");
    }
    let (source, link) = (dir.path().join("src"), dir.path().join("link"));
    std::fs::create_dir(&source).expect("a directory");
    std::os::unix::fs::symlink(&source, &link).expect("a link");
    // The link itself is kept, so that a switch of the link is noticed.
    assert_eq!(checked_source(&link, Path::new("/")).expect("a source"), link);
    assert_eq!(checked_source(&link.join("../src"), Path::new("/")).expect("a source"), real_path(&source));
}

#[test]
fn passwords_go_to_daemons_only_and_stay_private() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("my pass");
    std::fs::write(&file, "secret").expect("a file");
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("a mode");
    let given = format!("--password-file={}", file.display());
    mode(0o644);
    let error = root_of(&["/srv/www", "b::m", &given]).expect_err("refused");
    assert!(error.to_string().ends_with("my pass'\n") && error.exit == Exit::Config, "{error}");
    mode(0o600);
    let root = root_of(&["/srv/www", "b::m", "h:/x", &given]).expect("a root");
    let set: Vec<_> = root.targets.iter().map(|target| target.options.password_file.is_some()).collect();
    assert_eq!(set, [true, false]);
    assert_eq!(root_of(&["/srv/www", "h:/x", &given]).expect_err("refused").exit, Exit::Usage);
}

#[test]
fn a_destination_is_given_once_and_a_port_makes_no_other_of_it() {
    for (destinations, by_port) in [
        (["b::m", "rsync://b/m"], false),
        (["rsync://b:99/m", "rsync://b:99/m"], false),
        (["rsync://b:98/m", "rsync://b:99/m"], true),
    ] {
        let root = root_of(&[&["/srv/www"][..], &destinations].concat()).expect("a root");
        let refused = apart::refused([&root], Path::new("/state"));
        let error = refused.first().expect("refused").error.to_string();
        assert!(error.contains("the destination b::m is given twice"), "{error}");
        assert_eq!(error.contains("a target's name has no port"), by_port, "{error}");
    }
}

/// Arguments that a configuration refuses or drops were passed on to rsync unchanged.
#[test]
fn arguments_for_rsync_are_read_as_params_of_a_configuration_are() {
    for (arguments, words) in [
        (&["--remove-source-files"][..], "it empties the source"),
        (&["-n"], "rsync would send nothing"),
        (&["-avn"], "rsync would send nothing"),
        (&["--delete-excluded"], "cannot be used"),
        (&["nodash"], "rsync would take nodash for a path"),
        (&["—delete"], "plain hyphens: --delete"),
        (&["--bwlimit"], "--bwlimit has no value"),
        (&["--port=70000"], "no port from 1 to 65535"),
        (&["--port", "x"], "no port from 1 to 65535"),
    ] {
        let given: Vec<String> = arguments.iter().map(|argument| format!("--rsync-arg={argument}")).collect();
        let mut line = vec!["/srv/www", "/backup"];
        line.extend(given.iter().map(String::as_str));
        let error = root_of(&line).expect_err("refused");
        assert!(error.exit == Exit::Config && error.to_string().contains(words), "{error}");
    }
    let args = parse(&["/srv/www", "b::m", "--rsync-arg=-uz", "--rsync-arg=--size-only", "--rsync-arg=--port=99"]);
    let mut notices = Vec::new();
    let root = root(&args, Path::new("/srv/www"), Path::new("/here"), &mut notices).expect("a root");
    let options = &root.targets.first().expect("a target").options;
    assert!(options.params == ["-a", "-z", "--size-only"] && options.port == Some(99), "{options:?}");
    assert!(notices.len() == 2 && notices.iter().any(|notice| notice.contains("-u is dropped")), "{notices:?}");
}
