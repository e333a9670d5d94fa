//! What `syncq mirror` makes of its arguments, and what it refuses.

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
    root(&parse(args), Path::new("/srv/www"), Path::new("/here"))
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
fn a_mirror_into_itself_is_refused_through_links_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let (src, link) = (dir.path().join("src"), dir.path().join("link"));
    std::fs::create_dir_all(src.join("in")).expect("a directory");
    std::os::unix::fs::symlink(&src, &link).expect("a link");
    for (to, message) in [
        (src.clone(), "the same directory"),
        (src.join("in"), "inside the source"),
        (src.join("not/yet"), "inside the source"),
        (link.join("deep/er"), "inside the source"),
        (dir.path().to_owned(), "inside the destination"),
    ] {
        let error = check_apart(&src, &to).expect_err("refused");
        assert!(error.exit == Exit::Config && error.to_string().contains(message), "{error}");
    }
    assert!(check_apart(&src, &dir.path().join("src2")).is_ok());
}

#[test]
fn a_source_that_is_no_directory_is_a_configuration_error() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), "").expect("a file");
    for name in ["file", "none"] {
        let error = checked_source(&dir.path().join(name)).expect_err("refused");
        assert!(error.exit == Exit::Config && error.hint.is_some(), "{error}");
    }
    assert!(checked_source(dir.path()).is_ok());
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
    assert_eq!(root_of(&["/srv/www", "h:/x", "h:/x/"]).expect_err("refused").exit, Exit::Usage);
}

#[test]
fn a_destination_is_given_once_and_a_port_makes_no_other_of_it() {
    for (destinations, by_port) in [
        (["b::m", "rsync://b/m"], false),
        (["rsync://b:99/m", "rsync://b:99/m"], false),
        (["rsync://b:98/m", "rsync://b:99/m"], true),
    ] {
        let error = root_of(&[&["/srv/www"][..], &destinations].concat()).expect_err("refused").to_string();
        assert!(error.contains("the destination b::m is given twice"), "{error}");
        assert_eq!(error.contains("a target's name has no port"), by_port, "{error}");
    }
}
