//! Targets that hang hold up no other target: short runs, long runs and probes each have a share of the runs at a time.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::harness::world::soon;
use crate::harness::{Daemon, World, secs, wait_until, write};

/// A server that accepts rsync and then is silent until the test ends. Returns its port.
fn hole() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let mut held: Vec<TcpStream> = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let Ok(reading) = stream.try_clone() else { continue };
            let mut lines = BufReader::new(reading).lines();
            let let_in = stream.write_all(b"@RSYNCD: 31.0\n").is_ok()
                && lines.by_ref().take(2).all(|line| line.is_ok())
                && stream.write_all(b"@RSYNCD: OK\n").is_ok();
            if let_in {
                held.push(stream);
            }
        }
    });
    port
}

/// How many rsyncs the daemon has started that still run. Only the leaders of process groups count, not their children.
fn rsyncs(daemon: i32) -> usize {
    let children = std::fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{daemon}/task")).into_iter().flatten().flatten();
    let of_threads = threads.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let all: std::collections::BTreeSet<i32> = of_threads
        .chain([children])
        .flat_map(|pids| pids.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .collect();
    let is_rsync = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "rsync\n");
    all.iter().filter(|pid| is_rsync(pid)).count()
}

/// Mirrors to `holes` targets that hang, and to one target that works.
fn beside_holes(world: &mut World, holes: usize, runs_max: usize) {
    let mut args = vec!["mirror".into(), world.src.clone().into_os_string()];
    args.extend((0..holes).map(|n| format!("rsync://127.0.0.1:{}/h{n}", hole()).into()));
    args.extend([world.dsts[0].clone().into_os_string(), "-n".into(), runs_max.to_string().into()]);
    args.extend(["--state-dir".into(), world.cli.state.clone().into_os_string()]);
    world.daemon = Some(Daemon::start(&world.cli, args));
}

fn arrives(world: &World, file: &str, within: Duration) {
    write(world.src.join(file), file);
    wait_until(within, file, || is_there(&world.dsts[0].join(file)));
}

fn is_there(path: &Path) -> bool {
    path.exists()
}

/// If as many targets hung as runs were allowed, no other target had a run for twenty minutes.
#[test]
fn targets_that_hang_leave_a_run_for_those_that_are_well() {
    for (holes, runs_max) in [(4, 3), (4, 10), (2, 1)] {
        let mut world = World::new();
        write(world.src.join("first"), "first");
        beside_holes(&mut world, holes, runs_max);
        arrives(&world, "second", soon());
        wait_until(secs(60), "the first comparison", || is_there(&world.dsts[0].join("first")));
        if runs_max >= 3 {
            // By now the hung targets have been found out, or have no more than their share.
            for n in 0..8 {
                arrives(&world, &format!("file{n}"), secs(10));
                let pid = world.daemon().pid();
                assert!(rsyncs(pid) <= runs_max, "{} rsyncs at a time, allowed {runs_max}", rsyncs(pid));
            }
        }
        world.stop();
    }
}
