//! Several syncqs on one machine that work on the same directories.

use crate::harness::world::soon;
use crate::harness::{Conf, Daemon, World, make_dir, wait_until, write};

/// Two configurations that fed one module undid each other's work, and nothing was said.
#[test]
fn a_second_mirror_of_another_directory_to_one_module_is_told_at_its_start_and_by_check() {
    let mut world = World::new();
    write(world.src.join("a"), "a");
    world.start();
    world.converges(soon());

    let other = world.side("other-source");
    write(other.join("b"), "b");
    let state = world.side("other-state");
    let told = "each deletes what the other sends";
    let mut conf = Conf::new(world.base(), "other.xml", world.rsyncd.port);
    conf.root(&other, &[("127.0.0.1", "m1/sub")]);
    make_dir(world.dsts[0].join("sub"));
    let conf = conf.save();
    let args = ["-o".as_ref(), conf.as_os_str(), "--state-dir".as_ref(), state.as_os_str()];
    let checked = world.cli.run(["check".as_ref(), "--offline".as_ref()].into_iter().chain(args));
    assert!(checked.text().contains(told) && checked.text().contains("::m1/sub"), "{}", checked.text());

    let second = Daemon::spawn(&world.cli, ["run".as_ref()].into_iter().chain(args));
    wait_until(soon(), "the warning", || second.log_text().contains(told));
    let log = second.log_text();
    assert!(log.contains(&format!("process {}", world.daemon().pid())), "{log}");
    drop(second);

    // A directory that is mirrored elsewhere too does no harm, but check mentions it.
    let mut conf = Conf::new(world.base(), "same.xml", world.rsyncd.port);
    let elsewhere = world.side("elsewhere");
    world.rsyncd.module("m3", &elsewhere);
    conf.root(&world.src, &[("127.0.0.1", "m3")]);
    let conf = conf.save();
    let args = ["check".as_ref(), "--offline".as_ref(), "-o".as_ref(), conf.as_os_str(), "--state-dir".as_ref()];
    let checked = world.cli.run(args.into_iter().chain([state.as_os_str()]));
    assert!(checked.text().contains("mirrors it too") && !checked.text().contains(told), "{}", checked.text());
}

/// Two daemons that a boot started at the same time looked for others before either could be found.
#[test]
fn of_two_mirrors_of_one_directory_to_one_target_that_start_together_one_tells() {
    let world = World::new();
    write(world.src.join("a"), "a");
    let (src, dst) = (world.src.display().to_string(), world.side("one-target").display().to_string());
    let start = |state: &str| {
        let state = world.side(state).display().to_string();
        Daemon::spawn(&world.cli, ["mirror", &src, &dst, "--state-dir", &state])
    };
    let both = ["state-a", "state-b"].map(start);
    wait_until(soon(), "the warning", || both[0].log_text().contains("all is sent twice"));

    // A daemon that mirrors the same directory elsewhere does no harm, and is named.
    let other = world.side("another-target").display().to_string();
    let state = world.side("state-c").display().to_string();
    let third = Daemon::spawn(&world.cli, ["mirror", &src, &other, "--state-dir", &state]);
    // All three daemons write to one log.
    let is_word = |line: &str| line.contains(" INFO ") && line.contains("mirrors it too");
    wait_until(soon(), "the word", || third.log_text().lines().any(is_word));
}
