//! The ways to request a reload, and its reports: by signal, by command, to the service manager, and of errors.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use super::{log, one_target, reloads, second, walks};
use crate::harness::world::soon;
use crate::harness::{World, make_dir, secs, wait_for, wait_until, write};

fn config_error(world: &World) -> Option<String> {
    world.cli.status().json["config"]["error"]["message"].as_str().map(str::to_owned)
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
    // A request by signal works too, and the log reports the outcome.
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
    // The configuration that was written before the last signal is in force, however many reloads are in progress.
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
