//! Each fault of this machine is named: programs, limits, configuration.

use std::fs::{self};

use serde_json::Value;

use super::{check, program, with_module};
use crate::harness::rsync::{Side, rsync};
use crate::harness::{World, make_dir};

#[test]
fn an_rsync_that_is_older_than_any_tested_is_said_to_be_and_not_refused() {
    const OLD: &str =
        "case $1 in --version) echo 'rsync  version 3.1.3  protocol version 31'; exit;; esac\nexec REAL \"$@\"";
    let mut world = with_module(&[]);
    let real = rsync(Side::Client);
    program(&mut world, "rsync", &OLD.replace("REAL", real.to_str().expect("UTF-8")));
    world.rsyncd.start();
    let found = check(&world, &[]);
    assert_eq!(found.code, Some(0), "{}", found.text);
    let old = found.has("/rsync", "warn", "older than 3.2.3, the oldest that syncq is tested with");
    assert!(old["hint"].as_str().is_some_and(|hint| hint.contains("3.2.3 or newer")), "{old}");
    world.start_daemon(&[]);
    world.converges_only_m1();
    let log = world.daemon().log_text();
    assert!(log.contains("older than 3.2.3, the oldest that syncq is tested with"), "{log}");
}

#[test]
fn what_is_wrong_on_this_machine_is_found() {
    let mut world = World::new();
    let (src, gone) = (world.src.clone(), world.base().join("gone"));
    make_dir(src.join("inner"));
    world.conf.local_paths.clear();
    world.conf.root(&gone, &[("127.0.0.1", "m1")]);
    world.conf.root(&src, &[("127.0.0.1", "m1")]);
    world.conf.root(&src.join("inner"), &[("127.0.0.1", "m2")]);
    world.conf.fail_log = world.base().join("nowhere/list");
    world.rsyncd.start();
    let found = check(&world, &[]);
    found.fails("/gone", "there is no such directory");
    found.has("/src/inner", "warn", "lies inside");
    found.has("nowhere/list", "warn", "list of failures cannot be written");
    // The target of that root can be asked all the same.
    found.has("::m1", "ok", "writable");
    assert!(!gone.exists());
    // No rsync is installed.
    let empty = world.side("empty");
    world.cli.path = Some(empty.into_os_string());
    let found = check(&world, &[]);
    found.fails("rsync", "there is no rsync in PATH");
}

#[test]
fn a_bad_configuration_ends_with_78_and_names_its_place() {
    let world = World::new();
    let conf = world.conf.save();
    let good = fs::read_to_string(&conf).expect("the file");
    for (text, message, line) in [
        (good.replacen("</filter>", "", 1), "</head> where </filter>", None),
        (good.replacen("params=\"-artuz\"", "params=\"-n\"", 1), "cannot be used", Some(24)),
    ] {
        fs::write(&conf, &text).expect("a file");
        let ended = world.cli.run(["check".as_ref(), "--json".as_ref(), "-o".as_ref(), conf.as_os_str()]);
        assert_eq!(ended.code, Some(78), "{}", ended.text());
        let found: Value = serde_json::from_str(ended.stdout.lines().next().expect("a line")).expect("JSON");
        assert!(found["level"] == "fail" && found["check"] == "config" && found["hint"].is_string(), "{found}");
        assert!(found["message"].as_str().is_some_and(|said| said.contains(message)), "{found}");
        assert!(found["line"].as_u64().is_some_and(|at| line.is_none_or(|line| at == line)), "{found}");
    }
    let ended = world.cli.run(["check", "-o", "/nonexistent.xml"]);
    assert_eq!(ended.code, Some(78), "{}", ended.text());
    assert!(ended.stdout.contains("cannot read /nonexistent.xml"), "{}", ended.text());
    // Two files that are valid, and contradict each other.
    fs::write(&conf, &good).expect("a file");
    let twice = world.base().join("twice.xml");
    fs::write(&twice, &good).expect("a file");
    let args =
        ["check".as_ref(), "--offline".as_ref(), "-o".as_ref(), conf.as_os_str(), "-o".as_ref(), twice.as_os_str()];
    let ended = world.cli.run(args);
    assert_eq!(ended.code, Some(78), "{}", ended.text());
    assert!(ended.stdout.contains("by two configuration files"), "{}", ended.text());
}

#[test]
fn from_sersync_compares_line_by_line_and_asks_nobody() {
    let mut world = World::new();
    world.conf.plugin_sections =
        "<!-- passwd=\"S3cret\" --> note passwd=S3cret <plugin name=\"refreshCDN\"><localpath watch=\"/w\">\
         <cdninfo domainname=\"h\" port=\"80\" username=\"u\" passwd=\"S3cret\"/></localpath></plugin>"
            .to_owned();
    let count = world.count_rsyncs();
    let conf = world.conf.save();
    let run = |more: &[&str]| {
        let mut args = vec!["check", "--from-sersync", conf.to_str().expect("UTF-8")];
        args.extend(more);
        world.cli.run(&args)
    };
    let text = run(&[]).ok().stdout;
    for words in
        ["-u is dropped", "differs  sersync/failLog path", "same     sersync/rsync/ssh start", "a comment", "note"]
    {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    let json = run(&["--json"]).ok().stdout;
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let params = lines.iter().find(|line| line["attribute"] == "params").expect("the params");
    assert_eq!((&params["element"], &params["verdict"]), (&"sersync/rsync/commonParams".into(), &"differs".into()));
    let source = fs::read_to_string(&conf).expect("the file");
    let line = usize::try_from(params["line"].as_u64().expect("a line")).expect("small");
    assert!(source.lines().nth(line - 1).is_some_and(|line| line.contains("commonParams")), "{params}");
    assert!(!text.contains("S3cret") && !json.contains("S3cret"));
    assert_eq!(count.naming("rsync") + count.naming("::"), 0);
    // With --online it goes on with all other checks.
    let ended = run(&["--online", "--timeout", "2s"]);
    assert!(ended.code == Some(1) && ended.stdout.contains("nothing listens"), "{}", ended.text());
    fs::write(&conf, source.replacen("</filter>", "", 1)).expect("a file");
    assert_eq!(run(&[]).code, Some(78));
}
