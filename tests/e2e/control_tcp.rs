//! The control API on TCP: who may do what, what the event stream says, and that the mirror goes on meanwhile.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::config::Conf;
use crate::harness::world::soon;
use crate::harness::{World, make_dir, secs, wait_for, wait_until, write};
use crate::operators::{done, target};

const SECRET: &str = "0123456789abcdef-of-this-test";

/// A mirror whose API listens on a free TCP port, and that port.
fn listening(with_token: bool) -> (World, u16) {
    let mut world = World::new();
    make_dir(world.src.join("d"));
    write(world.src.join("d/before"), "before");
    let token = token_file(&world, 0o600).display().to_string();
    let more: &[&str] = if with_token { &["--token-file", &token] } else { &[] };
    world.start_with(&[&["--listen", "127.0.0.1:0"], more].concat());
    let port = port_of(&mut world);
    (world, port)
}

/// The port on which the daemon listens since its last start.
fn port_of(world: &mut World) -> u16 {
    let log = world.daemon().log_text();
    assert!(!log.contains(SECRET), "the token is in the log");
    let (_, rest) = log.rsplit_once("listening on 127.0.0.1:").unwrap_or_else(|| panic!("no port in the log\n{log}"));
    rest.split(',').next().and_then(|port| port.parse().ok()).expect("a port")
}

fn token_file(world: &World, mode: u32) -> PathBuf {
    let file = world.base().join(format!("token.{mode:o}"));
    write(&file, format!("{SECRET}\n"));
    fs::set_permissions(&file, Permissions::from_mode(mode)).expect("cannot chmod");
    file
}

fn send(port: u16, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(secs(30))).expect("a timeout");
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = head.replace('\n', "\r\n");
    stream.write_all(format!("{head}\r\n{length}\r\n{body}").as_bytes()).expect("a request");
    stream
}

/// Status code and body.
fn ask(port: u16, head: &str, body: &str) -> (u16, String) {
    let mut text = String::new();
    send(port, head, body).read_to_string(&mut text).expect("an answer");
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no code: {text}"));
    (code, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn is_mirrored(world: &World, name: &str) {
    write(world.src.join(name), name);
    wait_until(soon(), "a change while the API is busy", || world.arrived(0, name) && world.arrived(1, name));
}

const STATUS: &str = "GET /v1/status HTTP/1.1\nHost: 127.0.0.1";
const PAUSE: &str = "POST /v1/pause HTTP/1.1\nHost: 127.0.0.1";

#[test]
fn without_a_token_it_is_read_only() {
    let (world, port) = listening(false);
    let (code, body) = ask(port, STATUS, "");
    let status: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((code, status["targets"].as_array().map(Vec::len)), (200, Some(2)));
    for path in ["pause", "verify", "survey", "wait", "reconcile", "jobs", "jobs/purge", "store/compact"] {
        let head = format!("POST /v1/{path} HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer {SECRET}");
        let (code, body) = ask(port, &head, r#"{"all":true,"paused":true}"#);
        assert!(code == 403 && body.contains("read-only") && body.contains("--token-file"), "{path}: {code} {body}");
    }
    assert!(world.cli.status().targets.iter().all(|target| target.state != "paused"));
    is_mirrored(&world, "d/after");
}

#[test]
fn with_the_token_and_from_no_page_things_change() {
    let (world, port) = listening(true);
    let right = format!("{PAUSE}\nAuthorization: Bearer {SECRET}");
    let body = r#"{"all":true,"paused":true}"#;
    for (head, expected) in [
        (PAUSE.to_owned(), 401),
        (format!("{PAUSE}\nAuthorization: Bearer {SECRET}x"), 401),
        (format!("{PAUSE}\nAuthorization: Basic {SECRET}"), 401),
        (format!("{right}\nOrigin: http://127.0.0.1:{port}"), 403),
        (right.replace("Host: 127.0.0.1", "Host: rebound.example"), 403),
        (STATUS.replace("Host: 127.0.0.1", &format!("Host: rebound.example:{port}")), 403),
    ] {
        let (code, answer) = ask(port, &head, body);
        assert!(code == expected && answer.contains("\"hint\":"), "{head}\n{code} {answer}");
    }
    assert!(world.cli.status().targets.iter().all(|target| target.state != "paused"));
    assert_eq!(ask(port, &right, body).0, 200);
    assert!(world.cli.status().targets.iter().all(|target| target.state == "paused"));
    assert_eq!(ask(port, &right, r#"{"all":true,"paused":false}"#).0, 200);
    is_mirrored(&world, "d/after");
    // Over TCP a verification is requested in the same way as by the command.
    let verify = right.replace("/v1/pause", "/v1/verify");
    let (code, lines) = ask(port, &verify, r#"{"checksum":true}"#);
    assert!(code == 200 && lines.contains(r#""type":"target""#), "{code} {lines}");
    let m1 = target(&world, "m1");
    assert!(lines.contains(&m1), "{lines}");
}

#[test]
fn what_is_unsafe_is_refused_before_the_start() {
    let mut world = World::new();
    let conf = world.conf.save().display().to_string();
    let (open, private) = (token_file(&world, 0o644), token_file(&world, 0o600));
    let state = world.cli.state.display().to_string();
    let run = |more: &[&str]| world.cli.run([&["run", "-o", &conf, "--state-dir", &state][..], more].concat());
    let (open, private) = (open.display().to_string(), private.display().to_string());
    for (args, code, says) in [
        (&["--listen", "0.0.0.0:0"][..], 2, "hint: add --token-file"),
        (&["--listen", "0.0.0.0:0", "--token-file", &open], 78, "hint: chmod 600"),
        (&["--listen", "nowhere:1"], 2, "give a port"),
        (&["--token-file", &private], 2, "--listen"),
    ] {
        let ended = run(args);
        assert!(ended.code == Some(code) && ended.stderr.contains(says), "{args:?}: {}", ended.text());
        assert!(!ended.text().contains(SECRET));
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let ended = run(&["--listen", &taken.local_addr().expect("an address").to_string()]);
    assert!(ended.code == Some(1) && ended.stderr.contains("cannot listen on 127.0.0.1:"), "{}", ended.text());
    // On an address that others can reach, reading needs the token too, and the log warns.
    world.start_with(&["--listen", "0.0.0.0:0", "--token-file", &private]);
    let log = world.daemon().log_text();
    assert!(log.contains("there is no TLS") && !log.contains(SECRET), "{log}");
    let (_, rest) = log.split_once("listening on 0.0.0.0:").expect("the port");
    let port = rest.split(',').next().and_then(|port| port.parse().ok()).expect("a port");
    assert_eq!(ask(port, STATUS, "").0, 401);
    assert_eq!(ask(port, &format!("{STATUS}\nAuthorization: Bearer {SECRET}"), "").0, 200);
}

#[test]
fn the_configuration_says_where_to_listen_until_the_next_start() {
    let mut world = World::new();
    make_dir(world.src.join("d"));
    let (open, private) = (token_file(&world, 0o644), token_file(&world, 0o600));
    let control =
        |listen: &str, token: &Path| format!("<control listen=\"{listen}\" tokenFile=\"{}\"/>", token.display());
    let state = world.cli.state.display().to_string();
    let mut other = world.conf.clone();
    other.file = world.base().join("other.xml");
    other.syncq = control("127.0.0.1:1", &private);
    world.conf.syncq = control("127.0.0.1:0", &open);
    let files = [world.conf.save(), other.save()].map(|file| file.display().to_string());
    let run =
        |command: &str, conf: &[&str]| world.cli.run([&[command, "--state-dir", &state, "-o"][..], conf].concat());
    // A fault of one file, and a contradiction between two files: each is told with its place.
    let ended = run("run", &[&files[0]]);
    assert!(ended.code == Some(78) && ended.stderr.contains("hint: chmod 600"), "{}", ended.text());
    let place = |conf: &Conf| {
        let line = conf.xml().lines().position(|line| line.contains("<control ")).expect("it is there") + 1;
        format!("{}:{line}:", conf.file.display())
    };
    let ended = run("check", &[&files[0], "-o", &files[1], "--offline"]);
    assert!(ended.code == Some(78) && ended.stdout.contains(&place(&other)), "{}", ended.text());
    assert!(
        ended.stdout.contains("control on 127.0.0.1:1, token file ") && ended.stdout.contains("may be read by others")
    );
    let ended = run("run", &[&files[0], "-o", &files[1]]);
    let said = [place(&other), place(&world.conf)].iter().all(|place| ended.stderr.contains(place));
    assert!(ended.code == Some(78) && said, "{}", ended.text());

    world.conf.syncq = control("127.0.0.1:0", &private);
    world.start();
    let port = port_of(&mut world);
    assert_eq!((ask(port, STATUS, "").0, ask(port, PAUSE, r#"{"all":true,"paused":true}"#).0), (200, 401));
    let authorized = format!("{PAUSE}\nAuthorization: Bearer {SECRET}");
    assert_eq!(ask(port, &authorized, r#"{"all":true,"paused":false}"#).0, 200);
    world.conf.syncq = control("127.0.0.1:1", &private);
    world.conf.save();
    let ended = world.cli.run(["reload", "--state-dir", &state]).ok();
    assert!(ended.stdout.contains("nothing changed"), "{}", ended.text());
    assert!(world.daemon().log_text().contains("it takes effect at the next start"));
    assert_eq!(ask(port, STATUS, "").0, 200);
    // The command line wins over the files.
    world.stop();
    world.start_daemon(&["--listen", "127.0.0.1:0"]);
    let port = port_of(&mut world);
    assert_eq!((ask(port, STATUS, "").0, ask(port, &authorized, r#"{"all":true,"paused":true}"#).0), (200, 403));
    is_mirrored(&world, "d/after");
}

#[test]
fn garbage_and_hundreds_of_clients_hold_up_neither_mirror_nor_socket() {
    let (world, port) = listening(false);
    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let mut held = Vec::new();
    for n in 0..200 {
        let mut stream = connect();
        let said: &[u8] = match n % 4 {
            0 => b"\x16\x03\x01\0\xff garbage\r\n\r\n",
            1 => b"GET /v1/status HTTP/1.1\r\nHost:",
            2 => b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
            _ => b"",
        };
        // A write to a connection that the server has given up already may fail.
        let _ = stream.write_all(said);
        held.push(stream);
    }
    // The Unix socket has places of its own.
    assert_eq!(world.cli.status().json["state"], "running");
    is_mirrored(&world, "d/meanwhile");
    wait_for(soon(), "a place on TCP", || {
        let mut stream = connect();
        stream.set_read_timeout(Some(secs(1))).expect("a timeout");
        stream.write_all(b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n").map_err(|e| e.to_string())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).map_err(|e| e.to_string())?;
        if head.ends_with(b"200") { Ok(()) } else { Err(String::from_utf8_lossy(&head).into_owned()) }
    });
    drop(held);
}

/// One client reads its stream, the other does not.
#[test]
fn the_stream_shows_changes_and_troubles_as_they_happen() {
    let (mut world, port) = listening(false);
    world.converges(soon());
    let follow = || send(port, "GET /v1/events HTTP/1.1\nHost: 127.0.0.1", "");
    let slow = follow();
    let stream = follow();
    let seen = world.base().join("events");
    let mut file = fs::File::create(&seen).expect("a file");
    // The thread ends with the daemon. If the test fails, nobody waits for it.
    let reader = std::thread::spawn(move || std::io::copy(&mut &stream, &mut file).map(drop));
    let events = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(&seen).unwrap_or_default();
        let blocks = text.split("\n\n").filter_map(|block| block.split_once(&format!("event: {name}\ndata: ")));
        blocks.filter_map(|(_, data)| serde_json::from_str(data.lines().next()?).ok()).collect()
    };
    wait_until(soon(), "the first status", || !events("status").is_empty());
    write(world.src.join("d/new"), "new");
    wait_until(soon(), "what was sent", || {
        let sent = events("sent");
        ["m1", "m2"].iter().all(|module| {
            let of = |event: &&Value| event["target"].as_str().is_some_and(|target| target.ends_with(module));
            sent.iter().filter(of).any(|event| event["paths"].as_u64() > Some(0) && event["took_s"].is_f64())
        })
    });
    wait_until(soon(), "a status that shows it", || {
        events("status").iter().any(|status| status["targets"][0]["last_path"] == "d/new")
    });
    world.rsyncd.stop();
    write(world.src.join("d/late"), "late");
    wait_until(soon(), "the trouble", || {
        events("trouble").iter().any(|event| event["reason"].is_string() && event["retry_at"].is_string())
    });
    wait_until(soon(), "a status with the trouble", || {
        events("status").iter().any(|status| status["targets"][1]["state"] == "backing_off")
    });
    world.rsyncd.start();
    done(&world, &["retry"]);
    wait_until(soon(), "the recovery", || events("recovered").iter().any(|event| event["after_s"].is_f64()));
    world.converges(soon());
    world.stop();
    wait_until(soon(), "the end of the stream", || reader.is_finished());
    drop(slow);
}
