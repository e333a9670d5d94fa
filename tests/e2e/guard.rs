//! The deletions that a comparison may make, those it may not, and how an operator agrees.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use crate::harness::tree::count;
use crate::harness::world::soon;
use crate::harness::{World, make_dir, secs, set_mtime, wait_for, wait_until, write};

fn fill(dir: &std::path::Path, files: usize) {
    for n in 0..files {
        let below = dir.join(format!("d{}", n / 500));
        if n % 500 == 0 {
            make_dir(&below);
        }
        write(below.join(format!("f{n}")), "content");
    }
}

/// Waits until the reason of each of these targets contains all of these words.
pub fn says(world: &World, targets: &[&str], words: &[&str]) {
    wait_for(soon(), &format!("{words:?} in the status"), || {
        let status = world.cli.try_status()?;
        let said = |target: &&str| {
            let reason = status.target(target).reason.clone().unwrap_or_default();
            words.iter().all(|word| reason.contains(word))
        };
        if targets.iter().all(said) { Ok(()) } else { Err(format!("{:#?}", status.targets)) }
    });
}

/// Waits until the root's reason says that the root is empty.
fn says_empty(world: &World) {
    wait_for(soon(), "the empty source to be reported", || {
        let json = world.cli.try_status()?.json;
        let reason = json["roots"][0]["reason"].as_str().unwrap_or_default();
        if reason.contains("is empty") { Ok(()) } else { Err(json.to_string()) }
    });
}

/// A target is the wrong module: its content stays, while the other target and all live changes go on.
#[test]
fn a_wrong_module_is_not_wiped_until_its_operator_agrees() {
    let mut world = World::new();
    fill(&world.dsts[0], 1_500);
    write(world.src.join("ours"), "ours");
    make_dir(world.src.join("dir"));
    write(world.src.join("dir/goes"), "ours");
    let count_of = world.count_rsyncs();
    world.start();
    says(&world, &["m1"], &["1503 of the 1506 entries", "none was", "syncq accept-deletions"]);
    wait_until(soon(), "the other target", || world.arrived(1, "ours"));
    assert!(world.arrived(0, "ours"), "what is new is sent all the same");
    // Live changes go on, deletions too.
    write(world.src.join("dir/live"), "live");
    fs::remove_file(world.src.join("dir/goes")).expect("cannot remove a file");
    wait_until(soon(), "live changes", || {
        let gone = world.dsts.iter().all(|dst| !dst.join("dir/goes").exists());
        gone && world.arrived(0, "dir/live") && world.arrived(1, "dir/live")
    });
    assert_eq!(count(&world.dsts[0]), 1_506);
    let listed = world.cli.list();
    let stopped = listed.iter().find(|job| job["target"].as_str().is_some_and(|name| name.contains("m1")));
    let stopped = stopped.unwrap_or_else(|| panic!("no job in {listed:?}"));
    assert!(stopped["path"] == "" && stopped["scope"] == "subtree" && stopped["error"].is_string(), "{stopped}");
    // No tight loop: attempts come after 1, 2, 4 and 8 s.
    let before = count_of.naming("::m1");
    let until = std::time::Instant::now() + Duration::from_secs(6);
    wait_until(secs(30), "six seconds to pass", || std::time::Instant::now() >= until);
    let tries = count_of.naming("::m1") - before;
    assert!(tries <= 10, "{tries} rsyncs in six seconds");
    assert_eq!(count(&world.dsts[0]), 1_506);

    world.stop();
    world.start_daemon(&["--accept-deletions"]);
    world.converges(soon());
}

#[test]
fn a_mirror_without_a_configuration_asks_as_well() {
    let mut world = World::new();
    fill(&world.dsts[0], 1_500);
    write(world.src.join("ours"), "ours");
    world.start_mirror(&[]);
    says(&world, &["m1"], &["1503 of the 1504 entries", "syncq accept-deletions"]);
    assert_eq!(count(&world.dsts[0]), 1_504);
    world.stop();
    world.rsyncd.stop();
    world.start_mirror(&["--accept-deletions"]);
    world.converges(soon());
}

#[test]
fn a_limit_in_the_configuration_is_the_other_way_to_agree() {
    let mut world = World::new();
    fill(&world.dsts[0], 30);
    write(world.src.join("ours"), "ours");
    world.conf.syncq = "<guard maxDelete=\"29\"/>".to_owned();
    world.rsyncd.start();
    world.start_daemon(&["-r"]);
    says(&world, &["m1"], &["31 of the 32 entries", "more than maxDelete 29 allows"]);
    world.stop();
    world.conf.syncq = "<guard maxDelete=\"31\"/>".to_owned();
    world.start_daemon(&["-r"]);
    world.converges(soon());
    fs::remove_file(world.src.join("ours")).expect("cannot remove a file");
    world.converges(soon());
}

/// The source lost its content in place while the daemon was down; its directory is the same.
fn emptied(more: &[&str], schedule: Option<&str>, accept: &str) {
    let mut world = World::new();
    fill(&world.src, 20);
    world.start();
    world.converges(soon());
    world.stop();
    fs::remove_dir_all(world.src.join("d0")).expect("cannot empty the source");
    world.conf.schedule = schedule.map(str::to_owned);
    world.start_daemon(more);
    says_empty(&world);
    if schedule.is_some() {
        says(&world, &["m1", "m2"], &["the source directory is empty, and 21 entries", "syncq accept-deletions"]);
        let runs = || world.daemon.as_ref().expect("started").log_text().matches("scheduled comparison").count();
        wait_until(soon(), "three scheduled runs", || runs() >= 3);
    }
    assert!(world.dsts.iter().all(|dst| count(dst) == 21), "the mirror has lost entries");
    world.stop();
    let accepting: Vec<&str> = more.iter().copied().chain([accept]).collect();
    world.start_daemon(&accepting);
    world.converges(soon());
    assert!(world.dsts.iter().all(|dst| count(dst) == 0));
}

#[test]
fn l26_a_source_emptied_while_down_deletes_nothing() {
    emptied(&[], None, "--accept-deletions");
}

#[test]
fn l26_a_source_emptied_while_down_deletes_nothing_with_r() {
    emptied(&["-r"], None, "--accept-root");
}

#[test]
fn l26_a_source_emptied_while_down_deletes_nothing_by_schedule() {
    emptied(&[], Some("* * * * * *"), "--accept-deletions");
}

/// Once its content is back, the source is mirrored without an operator.
#[test]
fn an_emptied_source_that_is_restored_is_mirrored_again() {
    let mut world = World::new();
    fill(&world.src, 20);
    world.start();
    world.converges(soon());
    world.stop();
    let away = world.side("away").join("d0");
    fs::rename(world.src.join("d0"), &away).expect("cannot empty the source");
    world.start_daemon(&[]);
    says_empty(&world);
    fs::rename(&away, world.src.join("d0")).expect("cannot restore the source");
    write(world.src.join("d0/new"), "new");
    world.converges(secs(120));
}

#[test]
fn deletions_in_a_usual_number_go_through() {
    let mut world = World::new();
    fill(&world.src, 10_000);
    world.start();
    world.converges(soon());
    world.stop();
    for n in 0..1_200 {
        fs::remove_file(world.src.join(format!("d{}/f{n}", n / 500))).expect("cannot remove a file");
    }
    world.start_daemon(&[]);
    world.converges(soon());
}

/// An unfinished restore, or a disk of which a part is missing. Both the look for changes and a full comparison find it.
#[test]
fn most_of_a_source_that_is_gone_is_asked_about() {
    for more in [&[][..], &["-r"]] {
        let mut world = World::new();
        fill(&world.src, 3_000);
        write(world.src.join("stays"), "here");
        world.start();
        world.converges(soon());
        world.stop();
        for n in 0..5 {
            fs::remove_dir_all(world.src.join(format!("d{n}"))).expect("cannot remove a directory");
        }
        world.start_daemon(more);
        says(&world, &["m1", "m2"], &["2505 of the 3007 entries", "syncq accept-deletions"]);
        // A run in flight may have a temporary file there for a moment, but a lost file does not come back.
        wait_until(soon(), "a mirror that has lost nothing", || world.dsts.iter().all(|dst| count(dst) == 3_007));
        world.stop();
        world.start_daemon(&["--accept-deletions"]);
        world.converges(soon());
    }
}

#[test]
fn what_is_deleted_live_is_deleted_whatever_its_number() {
    let mut world = World::new();
    fill(&world.src, 3_000);
    write(world.src.join("stays"), "here");
    world.start();
    world.converges(soon());
    for n in 0..6 {
        fs::remove_dir_all(world.src.join(format!("d{n}"))).expect("cannot remove a directory");
    }
    world.converges(soon());
}

#[test]
fn what_killed_receivers_left_goes_after_a_day() {
    let mut world = World::new();
    write(world.src.join("f.txt"), "a file");
    write(world.src.join(".env.sample"), "a file of the source");
    write(world.src.join(".real.Ab12Cd"), "a file of the source that is named like a temporary");
    let two_days_ago = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    for dst in &world.dsts {
        for name in [".f.txt.Ab12Cd", ".real.Ab12Cd"] {
            write(dst.join(name), "part of a file");
            set_mtime(dst.join(name), two_days_ago);
        }
        write(dst.join(".f.txt.Zx98Yw"), "part of a file, just now");
    }
    world.rsyncd.start();
    world.start_daemon(&["-r"]);
    wait_until(soon(), "the old ones to go", || world.dsts.iter().all(|dst| !dst.join(".f.txt.Ab12Cd").exists()));
    world.cli.wait_idle(soon());
    for dst in &world.dsts {
        assert!(dst.join(".f.txt.Zx98Yw").exists(), "another run may be writing it");
        assert!(dst.join(".real.Ab12Cd").exists() && dst.join(".env.sample").exists());
    }
}

/// Runs are due every second and take two: one runs at a time, and at most one waits.
#[test]
fn scheduled_runs_never_overlap() {
    let mut world = World::new();
    write(world.src.join("file"), "content");
    world.conf.schedule = Some("* * * * * *".to_owned());
    world.conf.local_paths.clear();
    let src = world.src.clone();
    world.conf.root(&src, &[("127.0.0.1", "m1")]);
    let (bin, log) = (world.side("bin"), world.base().join("runs"));
    let (begun, running) = (log.display(), log.with_extension("running"));
    let running = running.display();
    let script = format!(
        "#!/bin/sh\nPATH=/usr/local/bin:/usr/bin:/bin\ncase \" $* \" in *' --list-only '*) exec rsync \"$@\";; \
         *' -r '*) ;; *) exec rsync \"$@\";; esac\n\
         mkdir '{running}' && echo alone >> '{begun}' || echo overlap >> '{begun}'\n\
         sleep 2; rsync \"$@\"; code=$?; rmdir '{running}'; exit $code\n"
    );
    write(&log, "");
    write(bin.join("rsync"), script);
    fs::set_permissions(bin.join("rsync"), Permissions::from_mode(0o755)).expect("cannot chmod the wrapper");
    world.cli.bin = Some(bin);
    world.start();
    let runs = || fs::read_to_string(&log).expect("the log of runs");
    wait_until(soon(), "four runs", || runs().lines().count() >= 4);
    assert!(!runs().contains("overlap"), "two runs at once");
    let status = world.cli.status();
    assert!(status.targets.iter().all(|target| target.pending + target.running <= 1), "{:#?}", status.targets);
}
