//! Listeners on sockets get a notice of every change, however slow they are and however long they were away.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::plugin_status;
use crate::harness::world::soon;
use crate::harness::{Conf, World, make_dir, secs, wait_for, write};

/// Serves connections one after the other, and passes on the bytes of each.
fn listener(delay: Duration) -> (u16, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("cannot listen");
    let port = listener.local_addr().expect("an address").port();
    let (send, receive) = channel();
    // The thread ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::sleep(delay);
            let mut bytes = Vec::new();
            let read = stream.expect("a connection").read_to_end(&mut bytes);
            if read.is_err() || send.send(bytes).is_err() {
                return;
            }
        }
    });
    (port, receive)
}

fn use_socket(world: &mut World, watch: &Path, port: u16) {
    world.conf.plugin = Some("socket".to_owned());
    world.conf.plugin_sections = format!(
        "<plugin name=\"socket\"><localpath watch=\"{}\"><deshost ip=\"127.0.0.1\" port=\"{port}\"/></localpath></plugin>",
        watch.display()
    );
}

/// L31: sersync dropped notices silently once its listener had been slow for 100 ms in all.
#[test]
fn l31_a_slow_listener_is_told_of_all_hundred_changes() {
    let mut world = World::new();
    let (port, got) = listener(Duration::from_millis(10));
    let src = world.src.clone();
    use_socket(&mut world, &src, port);
    world.start();
    world.converges(soon());
    for n in 0..100 {
        write(world.src.join(format!("f{n}")), "content");
    }
    world.converges(soon());
    let mut told = BTreeSet::new();
    while told.len() < 100 {
        told.insert(got.recv_timeout(secs(60)).expect("a notice"));
    }
    let expected = (0..100).map(|n| world.src.join(format!("f{n}")).into_os_string().into_vec()).collect();
    assert_eq!(told, expected);
    wait_for(soon(), "the count", || {
        let plugin = plugin_status(&world);
        if plugin["waiting"] == 0 { Ok(plugin) } else { Err(plugin.to_string()) }
    });
    assert_eq!(plugin_status(&world)["dropped"], 0);
}

/// In sersync the plugin's directory replaced the mirrored one.
#[test]
fn a_plugins_watch_says_what_it_is_told_of_and_takes_nothing_over() {
    let mut world = World::new();
    let (port, got) = listener(Duration::ZERO);
    make_dir(world.src.join("img"));
    let watch = world.src.join("img/");
    use_socket(&mut world, &watch, port);
    world.start();
    world.converges(soon());
    write(world.src.join("other"), "not told");
    write(world.src.join("img/a"), "told");
    world.converges(soon());
    let told = got.recv_timeout(secs(60)).expect("a notice");
    assert_eq!(told, [watch.as_os_str().as_bytes(), b"/a"].concat());
    write(world.src.join("img/b"), "told");
    assert!(got.recv_timeout(secs(60)).expect("a notice").ends_with(b"//b"));
    let log = world.daemon().log_text();
    assert!(log.contains("plugin socket is told of what changes below"), "{log}");
    world.stop();
    use_socket(&mut world, Path::new("/opt/tongbu"), port);
    world.start_daemon(&[]);
    write(world.src.join("img/c"), "not told");
    world.converges(soon());
    let log = world.daemon().log_text();
    assert!(
        log.contains("plugin socket is told of nothing: its watch /opt/tongbu lies in no mirrored directory"),
        "{log}"
    );
}

/// Two configurations in one process: each has its own plugin, which is told only of its own directory. Both share the list of
/// failures that both name.
#[test]
fn two_configurations_in_one_process_have_a_plugin_each() {
    let mut world = World::new();
    let (second, target) = (world.side("second"), world.side("m3"));
    world.rsyncd.module("m3", &target);
    let ((port, got), (other_port, other_got)) = (listener(Duration::ZERO), listener(Duration::ZERO));
    let src = world.src.clone();
    use_socket(&mut world, &src, port);
    let mut other = Conf::new(world.base(), "other.xml", world.rsyncd.port);
    other.root(&second, &[("127.0.0.1", "m3")]);
    other.fail_log.clone_from(&world.conf.fail_log);
    other.plugin = Some("socket".to_owned());
    other.plugin_sections = format!(
        "<plugin name=\"socket\"><localpath><deshost ip=\"127.0.0.1\" port=\"{other_port}\"/></localpath></plugin>"
    );
    let other = other.save();
    world.start_daemon(&["-o", other.to_str().expect("a UTF-8 path")]);
    let list = world.conf.fail_log.clone();
    wait_for(soon(), "the list", || {
        let text = fs::read_to_string(&list).map_err(|e| e.to_string())?;
        let all =
            ["::m1: nothing can be sent", "::m2: nothing", "::m3: nothing"].iter().all(|part| text.contains(part));
        if all { Ok(()) } else { Err(text) }
    });
    world.rsyncd.start();
    world.converges(soon());
    world.equal_within(&second, &[&target], soon());
    write(src.join("a"), "content");
    write(second.join("b"), "content");
    assert_eq!(got.recv_timeout(secs(60)).expect("a notice"), src.join("a").as_os_str().as_bytes());
    assert_eq!(other_got.recv_timeout(secs(60)).expect("a notice"), second.join("b").as_os_str().as_bytes());
    world.converges(soon());
    world.equal_within(&second, &[&target], soon());
    assert!(got.try_recv().is_err() && other_got.try_recv().is_err());
    world.stop();
}

/// A listener that is down loses no notice, and the log reports it once.
#[test]
fn a_dead_listener_is_told_of_everything_when_it_is_back() {
    let mut world = World::new();
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let src = world.src.clone();
    use_socket(&mut world, &src, port);
    world.start();
    world.converges(soon());
    for n in 0..20 {
        write(world.src.join(format!("f{n}")), "content");
    }
    world.converges(soon());
    wait_for(soon(), "the reason", || {
        let plugin = plugin_status(&world);
        let known = plugin["reason"].as_str().is_some_and(|reason| reason.contains("refused"));
        if known && plugin["waiting"] == 20 { Ok(()) } else { Err(plugin.to_string()) }
    });
    let back = TcpListener::bind(("127.0.0.1", port)).expect("the port again");
    let mut told = BTreeSet::new();
    while told.len() < 20 {
        let (mut stream, _) = back.accept().expect("a connection");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a path");
        told.insert(bytes);
    }
    let log = world.daemon().log_text();
    assert_eq!(log.matches("cannot connect to 127.0.0.1").count(), 1, "{log}");
}
