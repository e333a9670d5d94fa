//! The settings of a configuration that is read again are in force: targets, roots, params, filters.

use std::fs;

use super::{log, one_target, reload, second, taken, walks};
use crate::harness::config::LocalPath;
use crate::harness::world::soon;
use crate::harness::{Rsyncd, World, make_dir, wait_until, write};

#[test]
fn a_target_that_is_added_gets_everything_and_what_did_not_change_is_left_alone() {
    let mut world = one_target();
    let started = log(&world).matches("rsync-").count();
    world.conf.local_paths[0].remotes.push(second());
    let changes = taken(&world)["changes"].clone();
    assert_eq!((&changes["targets"]["added"], &changes["roots"]["changed"]), (&1.into(), &0.into()), "{changes}");
    write(world.src.join("d0/after"), "after");
    world.converges(soon());
    assert_eq!(walks(&world, &world.src), 1, "the tree was walked again");
    assert!(log(&world).contains("configuration read again: 1 target added\n"), "{started}");

    let again = taken(&world)["changes"].clone();
    assert_eq!(again["targets"]["added"], 0, "{again}");
    assert!(log(&world).contains("configuration read again: nothing changed\n"));
    let text = world.cli.run(["reload".as_ref(), "--state-dir".as_ref(), world.cli.state.as_os_str()]).ok();
    assert_eq!(text.stdout, "nothing changed\n");
    world.stop();
}

#[test]
fn other_params_have_a_target_compared_in_full() {
    let mut world = one_target();
    world.conf.local_paths[0].remotes.push(second());
    let _ = taken(&world);
    world.converges(soon());
    for dst in &world.dsts {
        write(dst.join("d0/f0"), "damaged behind syncq's back");
    }
    world.conf.params = "-artz --checksum".to_owned();
    let changes = taken(&world)["changes"].clone();
    assert_eq!(changes["targets"]["changed"], 2, "{changes}");
    world.converges(soon());
    assert_eq!(walks(&world, &world.src), 1);
    world.stop();
}

/// Another server of the same name was taken for the one that was equal.
#[test]
fn another_port_is_another_server_and_has_everything_compared() {
    let mut world = one_target();
    let elsewhere = world.side("elsewhere");
    let mut server = Rsyncd::at(&world.base().join("rsyncd2"), "127.0.0.1", crate::harness::free_port());
    server.module("m1", &elsewhere);
    server.start();
    let (src, first, old_port) = (world.src.clone(), world.dsts[0].clone(), world.conf.port);
    world.conf.port = server.port;
    assert_eq!(taken(&world)["changes"]["targets"]["changed"], 1);
    world.equal_within(&src, &[&elsewhere], soon());
    write(src.join("d0/f0"), "while the other one is the target");
    world.equal_within(&src, &[&elsewhere], soon());
    // The same change over a restart.
    world.stop();
    world.conf.port = old_port;
    world.start_daemon(&[]);
    world.equal_within(&src, &[&first], soon());
    world.stop();
    server.stop();
}

/// A run under the old params that ends last would overwrite the result of the comparison under the new ones.
#[test]
fn a_run_under_the_old_params_does_not_have_the_last_word() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut world = World::new();
    world.conf.local_paths[0].remotes.truncate(1);
    world.conf.params = "-art --bwlimit=200".to_owned();
    make_dir(world.src.join("d"));
    world.start();
    // The run must not be part of the first comparison, which the reload would repeat anyway.
    let (src, dst) = (world.src.clone(), world.dsts[0].clone());
    world.equal_within(&src, &[&dst], soon());
    write(world.src.join("d/slow"), crate::harness::patterned(1, 1_600_000));
    wait_until(soon(), "the slow run", || world.cli.status().target("m1").running > 0);
    world.conf.params = "-art --chmod=F600".to_owned();
    assert_eq!(taken(&world)["changes"]["targets"]["changed"], 1);
    let slow = world.dsts[0].join("d/slow");
    wait_until(soon(), "the fast run", || {
        fs::metadata(&slow).is_ok_and(|found| found.permissions().mode() & 0o777 == 0o600)
    });
    assert!(world.cli.status().target("m1").running > 0, "the slow run has ended already, and proves nothing");
    world.cli.wait_idle(soon());
    assert!(world.arrived(0, "d/slow"));
    let mode = fs::metadata(&slow).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the old run has had the last word");
    world.stop();
}

#[test]
fn a_root_is_added_and_removed_and_comes_back() {
    let mut world = World::new();
    let (src2, dst2) = (world.side("src2/deep"), world.side("n1"));
    let src2 = src2.parent().expect("a parent").to_owned();
    world.rsyncd.module("n1", &dst2);
    write(src2.join("deep/f"), "f");
    world.start();
    world.converges(soon());
    let remotes = vec![("127.0.0.1".to_owned(), "n1".to_owned())];
    world.conf.local_paths.push(LocalPath { watch: src2.display().to_string(), remotes });
    let changes = taken(&world)["changes"].clone();
    assert_eq!((&changes["roots"]["added"], &changes["targets"]["added"]), (&1.into(), &1.into()), "{changes}");
    world.equal_within(&src2, &[&dst2], soon());
    write(src2.join("deep/live"), "live");
    world.equal_within(&src2, &[&dst2], soon());

    let root = world.conf.local_paths.pop().expect("two roots");
    assert_eq!(taken(&world)["changes"]["roots"]["removed"], 1);
    assert_eq!(world.cli.status().json["roots"].as_array().map(Vec::len), Some(1));
    fs::create_dir(src2.join("while away")).expect("cannot create a directory");
    write(src2.join("while away/g"), "g");
    fs::remove_file(src2.join("deep/f")).expect("cannot remove a file");
    write(world.src.join("meanwhile"), "meanwhile");
    world.converges(soon());
    assert!(!dst2.join("while away").exists(), "it is no longer mirrored");

    world.conf.local_paths.push(root);
    let _ = taken(&world);
    world.equal_within(&src2, &[&dst2], soon());
    assert_eq!((walks(&world, &world.src), walks(&world, &src2)), (1, 2));
    world.stop();
}

#[test]
fn what_a_filter_newly_lets_through_arrives_and_nothing_is_lost_on_the_way() {
    let mut world = World::new();
    world.conf.excludes = vec!["(.*)\\.log".to_owned()];
    write(world.src.join("a.log"), "left out");
    write(world.src.join("a.txt"), "sent");
    world.start();
    wait_until(soon(), "the other file", || world.arrived(0, "a.txt") && world.arrived(1, "a.txt"));
    world.cli.wait_idle(soon());
    assert!(!world.dsts[0].join("a.log").exists());
    world.conf.excludes = vec!["(.*)\\.txt".to_owned()];
    let changes = taken(&world)["changes"].clone();
    assert_eq!(changes["roots"]["changed"], 1, "{changes}");
    write(world.src.join("b.log"), "live");
    write(world.src.join("b.txt"), "left out now");
    wait_until(soon(), "what is let through", || {
        (0..2).all(|n| world.arrived(n, "a.log") && world.arrived(n, "b.log"))
    });
    world.cli.wait_idle(soon());
    assert!(world.dsts.iter().all(|dst| dst.join("a.txt").exists() && !dst.join("b.txt").exists()));

    // The setting does not concern contents: the root is watched anew, and nothing is compared.
    write(world.dsts[0].join("a.log"), "damaged behind syncq's back");
    world.conf.syncq = "<transfer quietPeriod=\"7s\"/>".to_owned();
    let ended = reload(&world);
    assert_eq!(ended.code, Some(0), "{}", ended.text());
    write(world.src.join("c.log"), "after");
    wait_until(soon(), "a change", || world.arrived(0, "c.log") && world.arrived(1, "c.log"));
    world.cli.wait_idle(soon());
    assert!(!world.arrived(0, "a.log"), "it was compared");
    assert!(log(&world).contains("nothing has to be compared again"));
    assert_eq!(walks(&world, &world.src), 3);
    world.stop();
}

#[test]
fn several_files_are_read_again_and_still_may_not_share_a_target() {
    let mut world = World::new();
    let mut other = world.conf.clone();
    other.file = world.base().join("other.xml");
    other.local_paths[0].remotes = vec![second()];
    world.conf.local_paths[0].remotes.truncate(1);
    let file = other.save();
    write(world.src.join("f"), "f");
    world.start_with(&["-o", file.to_str().expect("text")]);
    world.converges(soon());
    world.conf.local_paths[0].remotes.push(second());
    let ended = reload(&world);
    assert!(ended.code == Some(78) && ended.stderr.contains("by two configuration files"), "{}", ended.text());
    // The target moves from one file to the other.
    other.local_paths[0].remotes = vec![("127.0.0.1".to_owned(), "m1".to_owned())];
    world.conf.local_paths[0].remotes.remove(0);
    other.save();
    let _ = taken(&world);
    write(world.src.join("g"), "g");
    world.converges(soon());
    // One tree belongs to one file again, so its watermark counts again.
    world.conf.local_paths[0].remotes = vec![("127.0.0.1".to_owned(), "m1".to_owned()), second()];
    let src2 = world.side("src2");
    other.local_paths[0].watch = src2.display().to_string();
    other.save();
    let _ = taken(&world);
    write(world.src.join("h"), "h");
    wait_until(soon(), "the last change", || world.arrived(0, "h") && world.arrived(1, "h"));
    world.stop();
}
