//! A configuration that is read again by a running daemon: what it says is in force, nothing that is mirrored is lost, and
//! what did not change is left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::config::LocalPath;
use crate::harness::tree::differences;
use crate::harness::world::soon;
use crate::harness::{Ended, Rsyncd, World, make_dir, secs, set_mtime, wait_for, wait_until, write};

fn reload(world: &World) -> Ended {
    world.conf.save();
    let state = world.cli.state.as_os_str();
    world.cli.run(["reload".as_ref(), "--json".as_ref(), "--state-dir".as_ref(), state])
}

/// Has a configuration taken, and returns what it changed.
#[track_caller]
fn taken(world: &World) -> Value {
    let ended = reload(world).ok();
    serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("no JSON: {e}\n{}", ended.text()))
}

fn log(world: &World) -> String {
    world.daemon.as_ref().expect("it runs").log_text()
}

/// How often the tree at `root` has been walked to be watched.
fn walks(world: &World, root: &Path) -> usize {
    let line = format!("watch path is: {} (", root.display());
    log(world).matches(&line).count()
}

fn reloads(world: &World) -> usize {
    log(world).matches("configuration read again: ").count()
}

fn config_error(world: &World) -> Option<String> {
    world.cli.status().json["config"]["error"]["message"].as_str().map(str::to_owned)
}

/// A world with one of its two targets configured.
fn one_target() -> World {
    let mut world = World::new();
    world.conf.local_paths[0].remotes.truncate(1);
    for n in 0..20 {
        make_dir(world.src.join(format!("d{}", n % 3)));
        write(world.src.join(format!("d{}/f{n}", n % 3)), format!("content {n}"));
    }
    world.start();
    let (src, dst) = (world.src.clone(), world.dsts[0].clone());
    world.equal_within(&src, &[&dst], soon());
    world
}

fn second() -> (String, String) {
    ("127.0.0.1".to_owned(), "m2".to_owned())
}

fn named(job: &Value, part: &str) -> bool {
    job["target"].as_str().is_some_and(|target| target.contains(part))
}

/// The jobs that the store holds, of all targets that it knows, as `list` shows them without a daemon.
fn stored_paths(world: &mut World, part: &str) -> Vec<String> {
    world.stop();
    let jobs = world.cli.list();
    jobs.iter().filter(|job| named(job, part)).filter_map(|job| job["path"].as_str().map(str::to_owned)).collect()
}

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
    // It was warned of at each start for ever, with no word of how to be rid of it.
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

/// What changes while a target is not configured is not noted for it, and the watermark moves on.
#[test]
fn a_target_that_was_left_out_over_restarts_lacks_nothing_once_it_is_back() {
    for by_restart in [true, false] {
        let mut world = World::new();
        make_dir(world.src.join("deep"));
        write(world.src.join("deep/changed"), "before");
        world.start();
        world.converges(soon());
        // It is complete from here on, as far as the store knows.
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
        // Old enough not to be looked at again for being young.
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
    // The same over a restart.
    world.stop();
    world.conf.port = old_port;
    world.start_daemon(&[]);
    world.equal_within(&src, &[&first], soon());
    world.stop();
    server.stop();
}

/// A run under the old params that ends last would put its version over the one that was compared.
#[test]
fn a_run_under_the_old_params_does_not_have_the_last_word() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut world = World::new();
    world.conf.local_paths[0].remotes.truncate(1);
    world.conf.params = "-art --bwlimit=200".to_owned();
    make_dir(world.src.join("d"));
    world.start();
    // Not by the first comparison, which the reload would have run again anyway.
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
fn an_error_keeps_the_old_configuration_and_shows_until_it_is_mended() {
    let mut world = one_target();
    let good = fs::read_to_string(&world.conf.file).expect("a configuration");
    let state = world.cli.state.clone().into_os_string();
    let ask = |world: &World| world.cli.run(["reload".as_ref(), "--state-dir".as_ref(), state.as_os_str()]);
    let missing = world.base().join("never there");
    let watched = |watch: &Path| {
        good.replace(&format!("watch=\"{}\"", world.src.display()), &format!("watch=\"{}\"", watch.display()))
    };
    let pass = world.base().join("no such file.pas");
    for (bad, words) in [
        (good.replace("</sersync>", "</sersnyc>"), "confxml.xml:"),
        (watched(&missing), "cannot watch"),
        (
            good.replace(
                "<auth start=\"false\" users=\"root\" passwordfile=\"/etc/rsync.pas\"/>",
                &format!("<auth start=\"true\" users=\"u\" passwordfile=\"{}\"/>", pass.display()),
            ),
            "no such file.pas",
        ),
        (watched(&world.cli.state.join("..")), "lies inside"),
    ] {
        assert_ne!(bad, good, "{words}: nothing was replaced");
        write(&world.conf.file, &bad);
        let ended = ask(&world);
        assert_eq!(ended.code, Some(78), "{words}: {}", ended.text());
        assert!(
            ended.stderr.contains(words) && ended.stderr.contains("old configuration"),
            "{words}: {}",
            ended.text()
        );
        assert!(ended.stderr.contains("hint: "), "{words}: {}", ended.text());
        assert!(config_error(&world).is_some_and(|error| error.contains(words)), "{words}");
        write(world.src.join("during"), words);
        wait_until(soon(), "a change under the old configuration", || world.arrived(0, "during"));
    }
    // By a signal, too; and the log says it.
    write(&world.conf.file, "<head>");
    let before = log(&world).matches("the configuration was not taken").count();
    world.daemon().signal(Signal::HUP);
    wait_until(soon(), "the refusal", || log(&world).matches("the configuration was not taken").count() > before);
    write(&world.conf.file, &good);
    world.daemon().signal(Signal::HUP);
    wait_until(soon(), "the recovery", || config_error(&world).is_none());
    assert!(world.cli.status().json["config"]["loaded_at"].is_string());
    assert_eq!(walks(&world, &world.src), 1);
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

    // A setting that says nothing about contents: watched anew, and nothing is compared.
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

/// Makes files until it is dropped.
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
        // Different in everything that a reload treats differently, in all combinations.
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
    // Another server on the same port, which can be stopped alone.
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
    // The server that stood for the other host goes before the world does.
    world.stop();
    drop(other);
}

/// A `syncq wait` that runs beside the test.
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
    // Its root is watched anew, by other rules; its target gets other params, is taken out, and comes back.
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

#[test]
fn signals_in_quick_succession_and_during_the_start_all_count() {
    let mut world = World::new();
    for n in 0..1_500 {
        make_dir(world.src.join(format!("{}/{n}", n % 30)));
    }
    world.rsyncd.start();
    world.conf.local_paths[0].remotes.truncate(1);
    let conf = world.conf.save();
    let args = ["run".as_ref(), "-o".as_ref(), conf.as_os_str(), "--state-dir".as_ref(), world.cli.state.as_os_str()];
    world.daemon = Some(crate::harness::Daemon::spawn(&world.cli, args));
    wait_until(soon(), "the signals to be handled", || handles_hup(world.daemon.as_ref().expect("it runs").pid()));
    world.conf.local_paths[0].remotes.push(second());
    world.conf.save();
    for _ in 0..5 {
        world.daemon().signal(Signal::HUP);
    }
    world.daemon().wait_ready();
    wait_until(soon(), "the reload", || reloads(&world) > 0);
    world.converges(secs(120));
    // What was written before the last signal is in force, however many are under way.
    for n in 0..10 {
        world.conf.local_paths[0].remotes.truncate(1 + n % 2);
        if world.conf.local_paths[0].remotes.len() < 1 + n % 2 {
            world.conf.local_paths[0].remotes.push(second());
        }
        world.conf.save();
        world.daemon().signal(Signal::HUP);
    }
    wait_until(soon(), "the last configuration", || world.cli.status().targets.len() == 2);
    world.converges(soon());
    assert_eq!(walks(&world, &world.src), 1);
    world.stop();
}

fn handles_hup(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & 1 != 0)
}

#[test]
fn a_mirror_without_a_configuration_says_so_and_goes_on() {
    let mut world = World::new();
    write(world.src.join("f"), "f");
    world.start_mirror(&[]);
    world.converges(soon());
    let ended = world.cli.run(["reload".as_ref(), "--state-dir".as_ref(), world.cli.state.as_os_str()]);
    assert!(ended.code == Some(1) && ended.stderr.contains("no configuration files"), "{}", ended.text());
    assert!(world.cli.status().json["config"].is_null());
    world.daemon().signal(Signal::HUP);
    wait_until(soon(), "the log", || log(&world).contains("log file reopened"));
    write(world.src.join("g"), "g");
    world.converges(soon());
    assert_eq!(reloads(&world), 0);
    world.stop();
    let ended = world.cli.run(["reload".as_ref(), "--state-dir".as_ref(), world.cli.state.as_os_str()]);
    assert_eq!(ended.code, Some(3), "{}", ended.text());
}

/// A plugin that stays goes on with what it has to tell; one that is new is told of what comes.
#[test]
fn plugins_follow_the_configuration() {
    let mut world = World::new();
    let (old, new) = (world.base().join("old"), world.base().join("new"));
    let section = |file: &Path| {
        format!(
            "<plugin name=\"command\"><param prefix=\"sh -c 'echo &quot;$1&quot; >> {}' -\" suffix=\"\" \
             ignoreError=\"true\"/><filter start=\"false\"/></plugin>",
            file.display()
        )
    };
    let told = |file: &Path, path: &str| fs::read_to_string(file).is_ok_and(|text| text.contains(path));
    world.conf.plugin = Some("command".to_owned());
    world.conf.plugin_sections = section(&old);
    world.start();
    write(world.src.join("one"), "1");
    wait_until(soon(), "the first notice", || told(&old, "/one"));
    // Another target: the plugin itself is the same.
    world.conf.local_paths[0].remotes.truncate(1);
    let _ = taken(&world);
    write(world.src.join("two"), "2");
    wait_until(soon(), "the second notice", || told(&old, "/two"));
    world.conf.plugin_sections = section(&new);
    assert_eq!(taken(&world)["changes"]["others"], true);
    write(world.src.join("three"), "3");
    wait_until(soon(), "the third notice", || told(&new, "/three"));
    assert!(!told(&old, "/three"));
    world.conf.plugin = None;
    let _ = taken(&world);
    let status = world.cli.status().json;
    assert_eq!(status["plugins"], serde_json::json!([]));
    world.stop();
}

/// With `-m` there are no targets, and the watchers tell.
#[test]
fn a_plugin_that_runs_alone_follows_the_configuration() {
    let mut world = World::new();
    let (old, new, src2) = (world.base().join("old"), world.base().join("new"), world.side("src2"));
    let section = |file: &Path| {
        format!(
            "<plugin name=\"command\"><param prefix=\"sh -c 'echo &quot;$1&quot; >> {}' -\" suffix=\"\" \
             ignoreError=\"true\"/><filter start=\"false\"/></plugin>",
            file.display()
        )
    };
    let told = |file: &Path, path: &str| fs::read_to_string(file).is_ok_and(|text| text.contains(path));
    world.conf.plugin_sections = section(&old);
    world.start_with(&["-m", "command"]);
    write(world.src.join("one"), "1");
    wait_until(soon(), "the first notice", || told(&old, "/src/one"));
    world.conf.plugin_sections = section(&new);
    world.conf.local_paths.push(LocalPath { watch: src2.display().to_string(), remotes: vec![second()] });
    assert_eq!(taken(&world)["changes"]["roots"]["added"], 1);
    write(world.src.join("two"), "2");
    write(src2.join("three"), "3");
    wait_until(soon(), "the other notices", || told(&new, "/src/two") && told(&new, "/src2/three"));
    assert!(!told(&old, "/src/two"));
    assert_eq!(walks(&world, &world.src), 1);
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
    // One tree, one file: its watermark counts again.
    world.conf.local_paths[0].remotes = vec![("127.0.0.1".to_owned(), "m1".to_owned()), second()];
    let src2 = world.side("src2");
    other.local_paths[0].watch = src2.display().to_string();
    other.save();
    let _ = taken(&world);
    write(world.src.join("h"), "h");
    wait_until(soon(), "the last change", || world.arrived(0, "h") && world.arrived(1, "h"));
    world.stop();
}

#[test]
fn the_service_manager_hears_of_a_reload() {
    use std::os::unix::net::UnixDatagram;
    let mut world = World::new();
    let path = world.base().join("notify");
    let socket = UnixDatagram::bind(&path).expect("cannot bind a socket");
    socket.set_nonblocking(true).expect("cannot change a socket");
    world.cli.env.push(("NOTIFY_SOCKET".to_owned(), path.into_os_string()));
    world.start();
    let mut said: Vec<String> = Vec::new();
    let mut hear = |words: &[&str]| {
        wait_for(soon(), "the daemon's words", || {
            let mut buffer = [0; 4_096];
            while let Ok(length) = socket.recv(&mut buffer) {
                said.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
            }
            let mut rest = said.iter();
            let heard = words.iter().all(|word| rest.any(|line| line.starts_with(word)));
            if heard { Ok(()) } else { Err(format!("{said:#?}")) }
        });
    };
    hear(&["READY=1"]);
    world.daemon().signal(Signal::HUP);
    hear(&["READY=1", "RELOADING=1", "MONOTONIC_USEC=", "READY=1"]);
    write(&world.conf.file, "<head>");
    world.daemon().signal(Signal::HUP);
    hear(&["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1", "STATUS=the configuration was not taken"]);
    world.stop();
}

/// The list of a configuration that names another one says that it is no longer kept.
#[test]
fn fail_logs_follow_the_configuration() {
    let mut world = World::new();
    world.start();
    let (old, new) = (world.conf.fail_log.clone(), world.base().join("another list"));
    wait_until(soon(), "the list", || fs::read_to_string(&old).is_ok_and(|text| text.contains("Nothing is failing")));
    world.conf.fail_log = new.clone();
    let _ = taken(&world);
    wait_until(soon(), "the other list", || {
        fs::read_to_string(&new).is_ok_and(|text| text.contains("Nothing is failing"))
    });
    wait_until(soon(), "the last words", || fs::read_to_string(&old).is_ok_and(|text| text.contains("no longer kept")));
    world.stop();
}

/// A crash right after a reload finds the jobs of the target that it added.
#[test]
fn a_crash_after_a_reload_loses_nothing() {
    let mut world = one_target();
    world.conf.local_paths[0].remotes.push(second());
    let _ = taken(&world);
    world.daemon().kill9();
    world.daemon().restart();
    world.converges(soon());
    // The same for what is left out, and its jobs.
    let paths = stored_paths(&mut world, "m2");
    assert!(paths.is_empty(), "{paths:?}");
    let time = std::time::SystemTime::UNIX_EPOCH + secs(1_600_000_000);
    set_mtime(world.src.join("d0/f0"), time);
    world.start_daemon(&[]);
    world.converges(soon());
    assert_eq!(differences(&world.src, &world.dsts[1], world.compare), [""; 0]);
    world.stop();
}
