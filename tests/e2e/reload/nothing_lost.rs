//! A reload loses nothing: jobs of targets that are removed or away, changes made meanwhile, a crash right after.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use super::{log, named, one_target, reloads, second, taken, walks};
use crate::harness::config::LocalPath;
use crate::harness::tree::differences;
use crate::harness::world::soon;
use crate::harness::{Rsyncd, World, make_dir, secs, set_mtime, wait_until, write};

/// The jobs in the store, of all targets that it knows, as `list` shows them without a daemon.
fn stored_paths(world: &mut World, part: &str) -> Vec<String> {
    world.stop();
    let jobs = world.cli.list();
    jobs.iter().filter(|job| named(job, part)).filter_map(|job| job["path"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_target_that_is_left_out_keeps_its_jobs_and_is_equal_once_it_is_back() {
    let mut world = World::new();
    write(world.src.join("before"), "before");
    world.start();
    world.converges(soon());
    let state = world.cli.state.clone().into_os_string();
    let name = world.cli.status().target("m2").name.clone();
    let _ = world.cli.run(["pause".as_ref(), name.as_ref(), "--state-dir".as_ref(), state.as_os_str()]).ok();
    write(world.src.join("kept"), "kept");
    wait_until(soon(), "the job", || world.cli.list().iter().any(|job| job["path"] == "kept" && named(job, "m2")));

    let removed = world.conf.local_paths[0].remotes.pop().expect("two targets");
    assert_eq!(taken(&world)["changes"]["targets"]["removed"], 1);
    assert_eq!(world.cli.status().targets.len(), 1);
    assert!(!world.cli.list().iter().any(|job| named(job, "m2")), "it is listed as after a restart");
    assert!(log(&world).contains("::m2 is no longer configured; "));
    // The warning came at each start for ever, without the command that removes the jobs.
    assert!(log(&world).contains(&format!("syncq purge --target {name} --state-dir ")), "{}", log(&world));
    write(world.src.join("missed"), "missed");
    wait_until(soon(), "the other target", || world.arrived(0, "missed"));
    assert!(!world.dsts[1].join("missed").exists());

    world.conf.local_paths[0].remotes.push(removed);
    assert_eq!(taken(&world)["changes"]["targets"]["added"], 1);
    let status = world.cli.status();
    assert_eq!(status.target("m2").state, "paused", "an operator's word holds");
    assert!(world.cli.list().iter().any(|job| job["path"] == "kept" || job["scope"] == "subtree"));
    let _ = world.cli.run(["resume".as_ref(), name.as_ref(), "--state-dir".as_ref(), state.as_os_str()]).ok();
    world.converges(soon());
    assert_eq!(walks(&world, &world.src), 1);
    world.stop();
}

/// Changes that are made while a target is not configured are not noted for it, although the watermark moves on.
#[test]
fn a_target_that_was_left_out_over_restarts_lacks_nothing_once_it_is_back() {
    for by_restart in [true, false] {
        let mut world = World::new();
        make_dir(world.src.join("deep"));
        write(world.src.join("deep/changed"), "before");
        world.start();
        world.converges(soon());
        // From here on the store knows that the target is complete.
        world.stop();
        world.start_daemon(&[]);
        world.converges(soon());
        let removed = world.conf.local_paths[0].remotes.pop().expect("two targets");
        if by_restart {
            world.stop();
            world.start_daemon(&[]);
        } else {
            let _ = taken(&world);
        }
        write(world.src.join("deep/changed"), "while it was left out");
        write(world.src.join("deep/missed"), "missed");
        wait_until(soon(), "the other target", || world.arrived(0, "deep/missed") && world.arrived(0, "deep/changed"));
        // Wait until the change is so old that a start does not look at it merely because it is recent.
        let changed = std::time::SystemTime::now();
        wait_until(secs(60), "the change to be old", || {
            changed.elapsed().is_ok_and(|age| age > syncq::ctime::MARGIN * 11 / 10)
        });
        write(world.src.join("a later change moves the watermark"), "");
        wait_until(soon(), "the later change", || world.arrived(0, "a later change moves the watermark"));
        world.stop();
        world.conf.local_paths[0].remotes.push(removed);
        world.start_daemon(&[]);
        world.converges(soon());
        world.stop();
    }
}

/// Creates files until it is dropped.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Writer {
    fn start(dirs: Vec<PathBuf>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut made = 0;
            while !stopped.load(Ordering::SeqCst) {
                for dir in &dirs {
                    let sub = dir.join(format!("s{}", made % 7));
                    make_dir(&sub);
                    write(sub.join(format!("f{made}")), format!("content {made}"));
                    if made > 7 && made % 5 == 4 {
                        let _ = fs::remove_file(sub.join(format!("f{}", made - 7)));
                    }
                    if made % 40 == 39 {
                        let _ = fs::rename(&sub, dir.join(format!("renamed{made}")));
                    }
                }
                made += 1;
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
            made
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("it runs").join().expect("no panic")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn twenty_reloads_under_churn_lose_nothing() {
    let mut world = World::new();
    let (src2, dst2) = (world.side("src2"), world.side("n1"));
    world.rsyncd.module("n1", &dst2);
    let remotes = vec![("127.0.0.1".to_owned(), "n1".to_owned())];
    let other = LocalPath { watch: src2.display().to_string(), remotes };
    world.start();
    let writer = Writer::start(vec![world.src.clone(), src2.clone()]);
    for round in 0..20 {
        // The rounds combine all differences that a reload treats differently.
        world.conf.local_paths.truncate(1);
        world.conf.local_paths[0].remotes.truncate(1);
        if round % 2 == 0 {
            world.conf.local_paths[0].remotes.push(second());
        }
        if round % 3 != 0 {
            world.conf.local_paths.push(other.clone());
        }
        world.conf.excludes = if round % 4 == 1 { vec!["(.*)\\.log".to_owned()] } else { Vec::new() };
        world.conf.syncq = if round % 5 == 2 { "<transfer quietPeriod=\"7s\"/>".to_owned() } else { String::new() };
        if round % 2 == 0 {
            let _ = taken(&world);
        } else {
            let before = reloads(&world);
            world.conf.save();
            world.daemon().signal(Signal::HUP);
            wait_until(soon(), "the reload", || reloads(&world) > before);
        }
    }
    world.conf.local_paths.truncate(1);
    world.conf.local_paths[0].remotes = vec![("127.0.0.1".to_owned(), "m1".to_owned()), second()];
    world.conf.local_paths.push(other);
    let _ = taken(&world);
    let made = writer.end();
    assert!(made > 50, "only {made} files were made");
    world.converges(secs(120));
    world.equal_within(&src2, &[&dst2], secs(120));
    world.stop();
}

#[test]
fn a_dead_target_keeps_its_jobs_over_reloads() {
    let mut world = World::new();
    // A second server on the same port, which can be stopped alone.
    let (module, n1) = (world.base().join("rsyncd2"), world.side("n1"));
    let mut other = Rsyncd::at(&module, "127.0.0.2", world.rsyncd.port);
    other.module("n1", &n1);
    other.start();
    world.conf.local_paths[0].remotes[1] = ("127.0.0.2".to_owned(), "n1".to_owned());
    write(world.src.join("before"), "before");
    world.start();
    let (src, m1) = (world.src.clone(), world.dsts[0].clone());
    world.equal_within(&src, &[&m1, &n1], soon());
    other.stop();
    for n in 0..10 {
        write(world.src.join(format!("f{n}")), "f");
    }
    wait_until(soon(), "the trouble", || world.cli.status().target("n1").state == "backing_off");
    let jobs = |world: &World| world.cli.list().iter().filter(|job| named(job, "n1")).count();
    wait_until(soon(), "all jobs", || jobs(&world) >= 10);
    let (held, retry_at) = (jobs(&world), world.cli.status().json["targets"].clone());
    assert!(retry_at.as_array().is_some_and(|targets| targets.iter().any(|target| target["retry_at"].is_string())));
    for round in 0..3 {
        world.conf.local_paths[0].remotes.truncate(2);
        if round == 1 {
            world.conf.local_paths[0].remotes.push(second());
        }
        let _ = taken(&world);
        assert_eq!(world.cli.status().target("n1").state, "backing_off", "round {round}");
        assert!(jobs(&world) >= held, "round {round}");
    }
    other.start();
    world.equal_within(&src, &[&m1, &n1], secs(120));
    assert_eq!(walks(&world, &world.src), 1);
    // The server that stood for the second host ends before the world does.
    world.stop();
    drop(other);
}

/// Starts a `syncq wait` that runs beside the test.
fn wait_beside(world: &World) -> Child {
    let mut command: Command = world.cli.command();
    command.args(["wait", "--state-dir"]).arg(&world.cli.state).spawn().expect("cannot start syncq wait")
}

#[test]
fn a_wait_never_ends_early_because_of_a_reload() {
    let mut world = World::new();
    write(world.src.join("before"), "before");
    world.start();
    world.converges(soon());
    let name = world.cli.status().target("m2").name.clone();
    let state = world.cli.state.clone().into_os_string();
    let _ = world.cli.run(["pause".as_ref(), name.as_ref(), "--state-dir".as_ref(), state.as_os_str()]).ok();
    write(world.src.join("waited for"), "content");
    let mut wait = wait_beside(&world);
    let is_over = |wait: &mut Child| wait.try_wait().expect("it can be waited for").is_some();
    // In turn: its root is watched anew by other rules, its target gets other params, is removed, and comes back.
    let full = world.conf.clone();
    let mut steps = vec![full.clone(), full.clone(), full.clone(), full.clone()];
    steps[0].excludes = vec!["(.*)\\.log".to_owned()];
    steps[1].params = "-artuzc".to_owned();
    steps[2].local_paths[0].remotes.truncate(1);
    for (n, conf) in steps.into_iter().enumerate() {
        world.conf = conf;
        let _ = taken(&world);
        write(world.src.join(format!("later{n}")), "later");
        wait_until(soon(), "the other target", || world.arrived(0, format!("later{n}")));
        assert!(!is_over(&mut wait), "step {n}: the wait is over, and the target is paused");
    }
    let _ = world.cli.run(["resume".as_ref(), name.as_ref(), "--state-dir".as_ref(), state.as_os_str()]).ok();
    wait_until(soon(), "the end of the wait", || is_over(&mut wait));
    assert!(world.arrived(1, "waited for"));
    assert!(wait.wait().expect("it has ended").success());
    world.converges(soon());
    world.stop();
}

/// A start after a crash right after a reload finds the jobs of the added target.
#[test]
fn a_crash_after_a_reload_loses_nothing() {
    let mut world = one_target();
    world.conf.local_paths[0].remotes.push(second());
    let _ = taken(&world);
    world.daemon().kill9();
    world.daemon().restart();
    world.converges(soon());
    // The same for the removed target and its jobs.
    let paths = stored_paths(&mut world, "m2");
    assert!(paths.is_empty(), "{paths:?}");
    let time = std::time::SystemTime::UNIX_EPOCH + secs(1_600_000_000);
    set_mtime(world.src.join("d0/f0"), time);
    world.start_daemon(&[]);
    world.converges(soon());
    assert_eq!(differences(&world.src, &world.dsts[1], world.compare), [""; 0]);
    world.stop();
}
