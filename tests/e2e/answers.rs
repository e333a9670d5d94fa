//! The answers of syncq are true: about a source that is away, a name that never existed, and an excluded path.

use std::fs;

use serde_json::Value;

use crate::harness::world::soon;
use crate::harness::{Daemon, World, make_dir, wait_for, wait_until, write};
use crate::operators::{done, mirrored, syncq};

/// The first target and the first root of the status.
fn status(world: &World) -> (Value, Value) {
    let json = world.cli.status().json;
    (json["targets"][0].clone(), json["roots"][0].clone())
}

/// `status` said `idle` and lag 0 while the source was gone or another directory stood in its place. The way out stood only in
/// the README.
#[test]
fn no_target_of_a_source_that_is_away_or_another_is_idle() {
    let mut world = mirrored();
    wait_until(soon(), "rest", || status(&world).0["state"] == "idle");
    let away = world.base().join("away");
    fs::rename(&world.src, &away).expect("renames");
    for (place, hint) in [("missing", "goes on by itself"), ("another directory", "--accept-root")] {
        if place == "another directory" {
            fs::create_dir(&world.src).expect("creates");
            write(world.src.join("other"), "other");
            write(away.join("later"), "later");
        }
        wait_for(soon(), place, || {
            let (target, root) = status(&world);
            let says = |value: &Value, words: &str| value.as_str().is_some_and(|said| said.contains(words));
            let is_told = [&target, &root].iter().all(|it| says(&it["reason"], place) && says(&it["hint"], hint));
            let is_late = target["lag_s"].as_f64() > Some(0.0);
            let states = (target["state"].as_str(), root["state"].as_str());
            let is_true = states == (Some("source_gone"), Some("suspended")) && is_told && is_late;
            if is_true { Ok(()) } else { Err(format!("{target}\n{root}")) }
        });
        let table = syncq(&world, &["status"]).ok();
        assert!(!table.stdout.contains("idle"), "{}", table.stdout);
        let late = syncq(&world, &["wait", "--timeout", "100ms"]);
        assert!(late.code == Some(1) && late.stderr.contains(place), "{}", late.text());
        let said = syncq(&world, &["explain", &world.src.join("d/before").display().to_string()]).ok();
        assert!(said.stdout.contains("job: none is known: ") && said.stdout.contains(place), "{}", said.stdout);
    }
    fs::remove_dir_all(&world.src).expect("removes");
    fs::rename(&away, &world.src).expect("renames");
    world.converges(soon());
    wait_until(soon(), "rest", || status(&world).0["state"] == "idle");
    world.stop();
}

/// `syncq wait --path relaese && ./announce` announced at once, because the misspelt name has no job.
#[test]
fn a_name_that_never_was_is_refused_and_one_that_is_gone_is_not() {
    let mut world = mirrored();
    make_dir(world.src.join("old/below"));
    write(world.src.join("old/below/f"), "old");
    write(world.src.join("moved"), "moved");
    world.converges(soon());
    // Without a minute of memory: nothing but what the daemon knows.
    for gone in ["old", "moved"] {
        done(&world, &["wait", "--path", gone]);
    }
    fs::remove_dir_all(world.src.join("old")).expect("removes");
    fs::rename(world.src.join("moved"), world.src.join("d/here")).expect("renames");
    done(&world, &["wait"]);
    let full = |name: &str| world.src.join(name).display().to_string();
    for name in ["old", "old/below", "old/below/f", "moved", "d", "d/before", "d/here", "."] {
        for name in [full(name), name.to_owned()] {
            done(&world, &["wait", "--path", &name]);
            done(&world, &["verify", "--path", &name]);
        }
    }
    for name in ["dd", "d/befoer", "d/before/x", "moved2"] {
        for command in [["wait", "--path"], ["verify", "--path"]] {
            for name in [full(name), name.to_owned()] {
                let said = syncq(&world, &[command[0], command[1], &name]);
                let is_told = said.stderr.contains("nothing is there") && said.stderr.contains(&full(""));
                assert!(said.code == Some(1) && is_told, "{command:?} {name}: {}", said.text());
            }
        }
    }
    // A job that is not sent is not done, from whatever directory the wait is asked for.
    done(&world, &["pause", "--all"]);
    write(world.src.join("d/new"), "new");
    let mut inside = world.cli.clone();
    inside.cwd = world.src.join("d");
    let state = world.cli.state.display().to_string();
    for name in ["new", "../d/new", "../d"] {
        let late = inside.run(["wait", "--timeout", "100ms", "--state-dir", &state, "--path", name]);
        assert!(late.code == Some(1) && late.stderr.contains("paused"), "{name}: {}", late.text());
    }
    world.stop();
}

/// No excluded path is ever sent, but a wait for one was over at once, and `verify` called it equal.
#[test]
fn what_is_left_out_is_neither_waited_for_nor_equal() {
    let mut world = World::new();
    world.conf.excludes = vec!["^private/.*".to_owned()];
    for file in ["private/f", "public/f"] {
        make_dir(world.src.join(file).parent().expect("a parent"));
        write(world.src.join(file), "content");
    }
    world.start();
    done(&world, &["wait"]);
    for command in [["wait", "--path"], ["verify", "--path"]] {
        let said = syncq(&world, &[command[0], command[1], "private/f"]);
        assert!(said.code == Some(1) && said.stderr.contains(": excluded by"), "{}", said.text());
        done(&world, &[command[0], command[1], "public/f"]);
    }
    world.stop();
}

/// Of paths that rsync's own options exclude, `explain` said that they are to be mirrored, and `wait` that they were.
#[test]
fn what_rsyncs_own_options_leave_out_is_known_to_be_left_out() {
    let mut world = World::new();
    world.conf.params = "-artz --exclude=/private --max-size=10k -C".to_owned();
    for file in ["private/deep/f", "d/f", "d/x.o", "large"] {
        make_dir(world.src.join(file).parent().expect("a parent"));
        write(world.src.join(file), "content");
    }
    write(world.src.join("large"), "x".repeat(20_000));
    world.start();
    done(&world, &["wait"]);
    for (name, why) in [
        ("private", "/private"),
        ("private/deep/f", "/private"),
        ("d/x.o", "*.o"),
        ("large", "--max-size"),
        ("d/f", ""),
        ("d", ""),
    ] {
        let said = syncq(&world, &["explain", name]).ok().stdout;
        let asked = ["wait", "verify"].map(|command| syncq(&world, &[command, "--path", name]));
        if why.is_empty() {
            assert!(said.contains("to be mirrored: yes\n"), "{said}");
            asked.into_iter().for_each(|ended| drop(ended.ok()));
            continue;
        }
        let no = said.lines().find(|line| line.contains("to be mirrored: no, rsync's own options leave it out"));
        assert!(no.is_some_and(|line| line.contains(why)) && said.contains("job: none; nothing is sent"), "{said}");
        for ended in asked {
            assert!(ended.code == Some(1) && ended.stderr.contains("is not mirrored to"), "{}", ended.text());
        }
    }
    world.stop();
}

/// A first fill was shown as `syncing` and nothing else for as long as it took, and so was a host whose server never answered.
#[test]
fn a_run_that_takes_its_time_says_how_far_it_has_come_and_a_silent_host_that_it_is_connecting() {
    let world = World::new();
    fs::write(world.src.join("large"), vec![7; 8 << 20]).expect("writes");
    // The socket's queue of connections is full, so the kernel drops further ones.
    let silent =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).expect("a socket");
    let any = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0);
    rustix::net::bind(&silent, &any).expect("a port");
    rustix::net::listen(&silent, 0).expect("listens");
    let silent = std::net::TcpListener::from(silent);
    let at = silent.local_addr().expect("an address");
    let _filled: Vec<_> =
        (0..4).map(|_| std::net::TcpStream::connect_timeout(&at, std::time::Duration::from_millis(200))).collect();

    let (src, slow) = (world.src.display().to_string(), world.side("slow").display().to_string());
    let hole = format!("rsync://127.0.0.1:{}/hole", at.port());
    let state = world.cli.state.display().to_string();
    let daemon =
        Daemon::start(&world.cli, ["mirror", &src, &slow, &hole, "--rsync-arg=--bwlimit=1000", "--state-dir", &state]);
    wait_for(soon(), "both to be told", || {
        let status = daemon.cli.status().json;
        let (slow, hole) = (&status["targets"][0]["run"], &status["targets"][1]["run"]);
        let sends = slow["sent_bytes"].as_u64() > Some(100_000) && slow["connecting"] == false;
        if sends && hole["connecting"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    wait_until(soon(), "the word", || {
        daemon.log_text().contains("/slow: the whole tree has been compared, and what differed is there")
    });
    wait_until(soon(), "its end", || daemon.cli.status().json["targets"][0]["run"].is_null());
}
