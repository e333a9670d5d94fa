//! The faults of a plugin are reported at the start, and not when the first change comes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{World, secs, wait_until};

/// Such faults showed only at the first change, in the log, hours later.
#[test]
fn a_program_that_is_missing_and_a_password_for_all_to_read_are_found_before_the_start() {
    let mut world = World::new();
    let check = |world: &World| {
        let conf = world.conf.save();
        (world.cli.run(["check".as_ref(), "--offline".as_ref(), "-o".as_ref(), conf.as_os_str()]), conf)
    };
    world.conf.plugin = Some("command".to_owned());
    for (prefix, missing) in
        [("sh -c :", false), ("/bin/sh", false), ("no-such-program x", true), ("/etc/passwd", true)]
    {
        world.conf.plugin_sections = format!("<plugin name=\"command\"><param prefix=\"{prefix}\"/></plugin>");
        let (ended, _) = check(&world);
        assert_eq!(ended.text().contains("there is no such program"), missing, "{prefix}: {}", ended.text());
    }
    world.conf.plugin = Some("http".to_owned());
    world.conf.plugin_sections =
        "<plugin name=\"http\"><localpath><deshost url=\"http://u:S3cret@h/\"/></localpath></plugin>".to_owned();
    let (ended, conf) = check(&world);
    assert!(ended.text().contains("other users can read it") && ended.text().contains("chmod 600"), "{}", ended.text());
    assert!(!ended.text().contains("S3cret"), "{}", ended.text());
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).expect("cannot chmod");
    let ended = world.cli.run(["check".as_ref(), "--offline".as_ref(), "-o".as_ref(), conf.as_os_str()]);
    assert!(!ended.text().contains("other users can read it"), "{}", ended.text());
}

#[test]
fn m_says_what_is_wrong() {
    let mut world = World::new();
    world.conf.plugin_sections = "<plugin name=\"refreshCDN\"><localpath watch=\"/d\"><cdninfo domainname=\"h\" port=\"80\" \
        username=\"u\" passwd=\"p\"/><sendurl base=\"http://x\"/><regexurl regex=\"true\" match=\"(a\"/></localpath></plugin>"
        .to_owned();
    let conf = world.conf.save();
    let run = |name: &str| {
        let args = [OsStr::new("-m"), name.as_ref(), "-o".as_ref(), conf.as_ref()];
        world.cli.run(args)
    };
    let ended = run("rsync");
    assert_eq!(ended.code, Some(2), "{}", ended.text());
    assert!(ended.text().contains("one of command, socket, refreshCDN, http"), "{}", ended.text());
    let ended = run("socket");
    assert_eq!(ended.code, Some(78), "{}", ended.text());
    assert!(ended.text().contains("no usable <plugin name=\"socket\">"), "{}", ended.text());
    let ended = run("refreshCDN");
    assert_eq!(ended.code, Some(78), "{}", ended.text());
    assert!(ended.text().contains("match cannot be used: unclosed group"), "{}", ended.text());
}

/// L3: sersync died of a bad expression at the first event.
#[test]
fn l3_a_bad_expression_is_reported_at_the_start() {
    let mut world = World::new();
    world.conf.plugin = Some("refreshCDN".to_owned());
    world.conf.plugin_sections = "<plugin name=\"refreshCDN\"><localpath watch=\"/d\"><cdninfo domainname=\"h\" port=\"80\" \
        username=\"u\" passwd=\"p\"/><sendurl base=\"http://x\"/>\n<regexurl regex=\"true\" match=\"(a\"/></localpath></plugin>"
        .to_owned();
    let conf = world.conf.save();
    let ended = world.cli.run([OsStr::new("-d"), "-o".as_ref(), conf.as_ref()]);
    assert_eq!(ended.code, Some(78), "{}", ended.text());
    assert!(ended.text().contains(":1: plugin refreshCDN: match cannot be used: unclosed group"), "{}", ended.text());
    wait_until(secs(1), "no daemon", || world.cli.try_status().is_err());
}
