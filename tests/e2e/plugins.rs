//! Plugins of a running daemon: what they are told of, when, and that nothing of theirs holds up a mirror.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::harness::world::soon;
use crate::harness::{Conf, Daemon, Rsyncd, World, is_root, make_dir, secs, skipped, wait_for, wait_until, write};

/// A command plugin that appends what it is told to a file, NUL-separated: operation, kind, path, told path.
struct Recorder {
    log: PathBuf,
}

impl Recorder {
    fn install(world: &mut World, more: &str) -> Self {
        let dir = world.side("recorder");
        let (script, log) = (dir.join("tell me"), dir.join("log"));
        write(&log, "");
        let text = format!(
            "#!/bin/sh\n{more}\nexec 9>>'{0}.lock'; flock 9\n\
             printf '%s\\0%s\\0%s\\0%s\\0' \"$SYNCQ_OPERATION\" \"$SYNCQ_KIND\" \"$SYNCQ_PATH\" \"$1\" >> '{0}'\n",
            log.display()
        );
        write(&script, text);
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("cannot chmod");
        world.conf.plugin = Some("command".to_owned());
        world.conf.plugin_sections = format!(
            "<plugin name=\"command\"><param prefix=\"'{}'\" suffix=\"\" ignoreError=\"true\"/></plugin>",
            script.display()
        );
        Self { log }
    }

    /// Operation, kind, path, and the path as it was told.
    fn told(&self) -> Vec<[Vec<u8>; 4]> {
        let bytes = fs::read(&self.log).expect("the recorder's log");
        let mut fields = bytes.split(|&b| b == 0).map(<[u8]>::to_vec);
        std::iter::from_fn(|| Some([fields.next()?, fields.next()?, fields.next()?, fields.next()?])).collect()
    }

    /// `update file a/b`, once each.
    fn lines(&self) -> BTreeSet<String> {
        let line =
            |told: &[Vec<u8>; 4]| told[..3].iter().map(|f| String::from_utf8_lossy(f)).collect::<Vec<_>>().join(" ");
        self.told().iter().map(line).collect()
    }

    #[track_caller]
    fn wait_told(&self, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|&line| line.to_owned()).collect();
        wait_for(soon(), "the plugin to be told", || {
            let missing: Vec<String> = expected.difference(&self.lines()).cloned().collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("missing {missing:#?} in {:#?}", self.lines())) }
        });
    }

    fn forget(&self) {
        write(&self.log, "");
    }
}

/// Writes a file and the directories above it.
fn put(path: impl AsRef<Path>, content: &str) {
    make_dir(path.as_ref().parent().expect("a file is in a directory"));
    write(path, content);
}

/// As process 1 of a container syncq is the parent of whoever has lost his own.
#[test]
fn as_process_1_no_zombie_stays_and_signals_arrive() {
    if !is_root() {
        return skipped("only root may make a process namespace");
    }
    let mut world = World::new();
    world.cli.wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"].map(OsString::from).to_vec();
    // Each leaves an orphan that ends a moment later.
    let recorder = Recorder::install(&mut world, "(sleep 0.2 &)");
    world.start();
    for n in 0..5 {
        write(world.src.join(format!("f{n}")), "content");
    }
    world.converges(soon());
    recorder.wait_told(&["update file f0", "update file f1", "update file f2", "update file f3", "update file f4"]);
    let init = children_of(world.daemon().pid())[0];
    wait_for(soon(), "the orphans to be gone", || {
        let left = children_of(init).into_iter().filter(|&pid| comm_of(pid) != "syncq").collect::<Vec<_>>();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // What is sent to process 1 means the mirror, which ends in order.
    crate::harness::processes::signal(init, rustix::process::Signal::TERM);
    let status = wait_for(soon(), "the end", || world.daemon().exited().ok_or_else(String::new));
    let log = world.daemon().log_text();
    assert!(status.code() == Some(0) && log.contains("stopped"), "{status}\n{log}");
    assert!(!log.contains("ended in a panic") && !log.contains("No child"), "{log}");
}

fn children_of(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn comm_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn plugin_status(world: &World) -> serde_json::Value {
    world.cli.status().json["plugins"][0].clone()
}

#[test]
fn a_command_is_told_of_each_file_that_changed_and_of_nothing_else() {
    told_of_each_file(&[]);
}

/// With expressions, whole directories go another way to rsync.
#[test]
fn with_a_filter_a_command_is_told_of_what_is_mirrored() {
    told_of_each_file(&["(.*)\\.left-out"]);
}

fn told_of_each_file(excludes: &[&str]) {
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "");
    world.conf.excludes = excludes.iter().map(|&exclude| exclude.to_owned()).collect();
    for name in ["old/f", "old/deep/g", "kept", "quiet/h"] {
        put(world.src.join(name), "before");
    }
    world.start();
    world.converges(soon());
    // Filling a new target changes nothing in the source.
    assert_eq!(recorder.lines(), BTreeSet::new());
    write(world.src.join("kept"), "changed");
    write(world.src.join("quiet/new"), "new");
    make_dir(world.src.join("dir/sub"));
    write(world.src.join("dir/sub/f"), "content");
    fs::remove_dir_all(world.src.join("old")).expect("cannot remove");
    world.converges(soon());
    let expected = [
        "update file kept",
        "update file quiet/new",
        "update directory dir",
        "update directory dir/sub",
        "update file dir/sub/f",
        "delete file old/f",
        "delete file old/deep/g",
        "delete directory old/deep",
        "delete directory old",
    ];
    recorder.wait_told(&expected);
    // Neither quiet nor the root: only their times changed.
    assert_eq!(recorder.lines(), expected.into_iter().map(str::to_owned).collect());
    // Both targets were waited for; the same path was not told of for each.
    let kept = recorder.told().iter().filter(|told| told[2] == b"kept").count();
    assert_eq!(kept, 1, "{:?}", recorder.lines());
    recorder.forget();
    // What is moved in is told of file by file.
    let outside = world.side("outside");
    put(outside.join("in/a"), "a");
    put(outside.join("in/b/c"), "c");
    if !excludes.is_empty() {
        put(outside.join("in/b/x.left-out"), "x");
    }
    fs::rename(outside.join("in"), world.src.join("in")).expect("cannot rename");
    let expected = ["update directory in", "update file in/a", "update directory in/b", "update file in/b/c"];
    recorder.wait_told(&expected);
    assert_eq!(recorder.lines(), expected.into_iter().map(str::to_owned).collect());
    assert_eq!(plugin_status(&world)["dropped"], 0);
    world.stop();
}

/// What changed while no daemon ran is told of at the next start, as far as a target had it.
#[test]
fn what_a_start_finds_changed_is_told_of() {
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "");
    write(world.src.join("changed"), "before");
    write(world.src.join("gone"), "before");
    world.start();
    world.converges(soon());
    world.stop();
    write(world.src.join("changed"), "while no daemon ran");
    fs::remove_file(world.src.join("gone")).expect("cannot remove");
    world.daemon().restart();
    world.converges(soon());
    recorder.wait_told(&["update file changed", "delete file gone"]);
}

/// S2: sersync ran the path as part of a shell line. The doubled slash is what published scripts cut at.
#[test]
fn s2_no_name_runs_and_a_slash_at_the_end_shows() {
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "");
    world.conf.local_paths[0].watch.push('/');
    world.start();
    world.converges(soon());
    let trap = world.base().join("PWNED");
    let shown = trap.display();
    let names: Vec<OsString> = [
        "a b".to_owned(),
        "$(touch PWNED)".to_owned(),
        "`touch PWNED`".to_owned(),
        ";touch PWNED;".to_owned(),
        "|touch PWNED".to_owned(),
        "\"'; touch PWNED; '\"".to_owned(),
        format!("x;touch {};", shown.to_string().replace('/', "$(printf '\\057')")),
        "line\nbreak".to_owned(),
        "--help".to_owned(),
        "back\\".to_owned(),
    ]
    .map(OsString::from)
    .into_iter()
    .chain([OsString::from_vec(b"caf\xe9".to_vec())])
    .collect();
    for name in &names {
        write(world.src.join(name), "content");
    }
    world.converges(soon());
    wait_for(soon(), "all names", || {
        let told: BTreeSet<Vec<u8>> = recorder.told().into_iter().map(|[_, _, path, _]| path).collect();
        let missing: Vec<_> = names.iter().filter(|name| !told.contains(name.as_bytes())).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });
    for [_, _, path, told] in recorder.told() {
        assert_eq!(told, [world.src.as_os_str().as_bytes(), b"//", &path].concat());
    }
    let found = Command::new("find").arg(world.base()).args(["-name", "PWNED"]).output().expect("find");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

/// A program that hangs for ever delays neither a mirror nor a stop, and is ended with the daemon.
#[test]
fn a_hanging_command_delays_no_mirror_and_no_stop() {
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "sleep 1000 & wait");
    world.start();
    world.converges(soon());
    for n in 0..50 {
        write(world.src.join(format!("f{n}")), "content");
    }
    world.converges(soon());
    wait_for(soon(), "notices that wait", || {
        let plugin = plugin_status(&world);
        if plugin["waiting"] == 50 { Ok(()) } else { Err(plugin.to_string()) }
    });
    assert!(recorder.lines().is_empty());
    let begun = Instant::now();
    // Fails if a process is left behind.
    world.stop();
    assert!(begun.elapsed() < secs(15), "the stop took {:?}", begun.elapsed());
    let log = world.daemon().log_text();
    assert!(log.contains("50 notices were not delivered before the stop"), "{log}");
}

/// Serves connections one after the other and hands on what each sent.
fn listener(delay: Duration) -> (u16, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("cannot listen");
    let port = listener.local_addr().expect("an address").port();
    let (send, receive) = channel();
    // Ends with the test's process.
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

/// In sersync the plugin's directory took the place of the mirrored one.
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

/// Two configurations in one process: each has its own plugin, which is told of its own directory only, and both share
/// the list of failures that both name.
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

/// A listener that is down loses nothing, and the log says so once.
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

/// A web server that answers each request as `answer` says, or never, and hands on what it was asked.
fn web_server(answer: fn(usize) -> Option<&'static str>) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("cannot listen");
    let port = listener.local_addr().expect("an address").port();
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut silent: Vec<TcpStream> = Vec::new();
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.expect("a connection");
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                request.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            let _ = stream.read_exact(&mut body);
            match answer(n) {
                Some(answer) => drop(stream.write_all(answer.as_bytes())),
                None => silent.push(stream),
            }
            if send.send(text + &String::from_utf8_lossy(&body)).is_err() {
                return;
            }
        }
    });
    (port, receive)
}

const PASSWORD: &str = "S3cr3tPassw0rd";

/// S4: the CDN's request, its encoding, and that its password is in nothing but that request.
#[test]
fn s4_a_cdn_is_told_and_its_password_stays_secret() {
    let mut world = World::new();
    let (port, got) = web_server(|n| {
        Some(if n == 0 {
            "HTTP/1.0 503 Busy\r\n\r\n"
        } else {
            "HTTP/1.0 200 OK\r\nwhatsup: content=\"succeed\"\r\n\r\n"
        })
    });
    world.conf.debug = true;
    world.conf.plugin = Some("refreshCDN".to_owned());
    world.conf.plugin_sections = format!(
        "<plugin name=\"refreshCDN\"><localpath watch=\"{}\">\
         <cdninfo domainname=\"127.0.0.1\" port=\"{port}\" username=\"user\" passwd=\" {PASSWORD}\"/>\
         <sendurl base=\"http://pic.example.com/cms\"/></localpath></plugin>",
        world.src.display()
    );
    world.start();
    world.converges(soon());
    let name = "a b&x=1\r\nHost: evil.png";
    write(world.src.join(name), "content");
    world.converges(soon());
    let url = "http://pic.example.com/cms/a%20b%26x%3D1%0D%0AHost%3A%20evil.png";
    let request =
        format!("HEAD /index.jsp?user=user&pswd={PASSWORD}&ok=ok&urls={url} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
    // Once for the server that is busy, and once more.
    assert_eq!(got.recv_timeout(secs(60)).expect("a request"), request);
    assert_eq!(got.recv_timeout(secs(60)).expect("a request"), request);
    make_dir(world.src.join("dir"));
    let directory = got.recv_timeout(secs(60)).expect("a request");
    assert!(directory.contains("&dirs=http://pic.example.com/cms/dir/ HTTP/1.0\r\n"), "{directory}");
    let pid = world.daemon().pid();
    let argv = fs::read(format!("/proc/{pid}/cmdline")).expect("the command line");
    let state = world.cli.state.clone();
    let args = [OsStr::new("status"), "--state-dir".as_ref(), state.as_ref()];
    let status = world.cli.run(args).ok().text() + &world.cli.status().json.to_string();
    world.stop();
    let log = world.daemon().log_text();
    assert!(log.contains("HTTP 503") && log.contains("works again"), "{log}");
    for (what, text) in [("argv", String::from_utf8_lossy(&argv).into_owned()), ("status", status), ("log", log)] {
        assert!(!text.contains(PASSWORD), "the password is in {what}:\n{text}");
    }
}

#[test]
fn a_web_server_gets_a_form_and_its_password_stays_secret() {
    let mut world = World::new();
    let (port, got) = web_server(|n| (n > 0).then_some("HTTP/1.1 204 No Content\r\n\r\n"));
    world.conf.plugin = Some("http".to_owned());
    world.conf.plugin_sections = format!(
        "<plugin name=\"http\"><localpath watch=\"{}\">\
         <deshost url=\"http://user:{PASSWORD}@127.0.0.1:{port}/hook?token={PASSWORD}\"/></localpath></plugin>",
        world.src.display()
    );
    world.start();
    world.converges(soon());
    // The server never answers the first one. That holds up neither the others nor a mirror, and it comes again.
    write(world.src.join("first"), "content");
    let first = got.recv_timeout(secs(60)).expect("a request");
    assert!(first.starts_with(&format!("POST /hook?token={PASSWORD} HTTP/1.1\r\n")), "{first}");
    assert!(first.contains("Authorization: Basic dXNlcjpTM2NyM3RQYXNzdzByZA==\r\n"), "{first}");
    let body = format!("watchroot={0}&isdir=0&inotifyPath={0}/first&mask=8", world.src.display());
    assert!(first.ends_with(&body), "{first}");
    write(world.src.join("second"), "content");
    world.converges(soon());
    assert!(got.recv_timeout(secs(60)).expect("a request").contains("/second&"));
    assert!(got.recv_timeout(secs(60)).expect("a request").contains("/first&"));
    fs::remove_file(world.src.join("second")).expect("cannot remove");
    assert!(got.recv_timeout(secs(60)).expect("a request").ends_with("/second&mask=512"));
    let status = world.cli.status().json.to_string();
    world.stop();
    let log = world.daemon().log_text();
    assert!(log.contains("does not answer within 10 s"), "{log}");
    assert!(!log.contains(PASSWORD) && !status.contains(PASSWORD), "{log}\n{status}");
}

/// A target that is down is not waited for; when it is back and gets the file, the plugin hears of it again.
#[test]
fn a_target_that_is_down_delays_no_notice() {
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "");
    let late = world.side("m3");
    let mut second = Rsyncd::at(&world.side("rsyncd2"), "127.0.0.2", world.rsyncd.port);
    second.module("m3", &late);
    world.conf.local_paths[0].remotes.push(("127.0.0.2".to_owned(), "m3".to_owned()));
    world.start();
    write(world.src.join("file"), "first");
    let begun = Instant::now();
    recorder.wait_told(&["update file file"]);
    assert!(begun.elapsed() < secs(25), "{:?}", begun.elapsed());
    recorder.forget();
    second.start();
    let src = world.src.clone();
    world.equal_within(&src, &[&late], soon());
    recorder.wait_told(&["update file file"]);
    world.stop();
}

/// L3: where no process can be started, jobs and notices are delayed and come again.
#[test]
fn l3_without_processes_everything_waits_and_comes_again() {
    if !is_root() {
        return skipped("only root can run as nobody");
    }
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "");
    world.become_nobody();
    world.start();
    write(world.src.join("before"), "content");
    world.converges(soon());
    recorder.wait_told(&["update file before"]);
    let pid = world.daemon().pid().to_string();
    let hard = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let hard = hard.lines().find(|line| line.starts_with("Max processes")).expect("a limit of processes");
    let hard = hard.split_whitespace().nth(3).expect("a hard limit").to_owned();
    // As the same user: that needs no capability.
    let limit = |soft: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "prlimit", "--pid", &pid]);
        assert!(command.arg(format!("--nproc={soft}:{hard}")).status().expect("prlimit").success());
    };
    limit("1");
    let mut writes = 0;
    wait_for(soon(), "the trouble", || {
        // The first may go through an rsync that has been started already.
        writes += 1;
        write(world.src.join("file"), format!("content {writes}"));
        let status = world.cli.try_status()?;
        let reasons: Vec<_> = status.targets.iter().filter_map(|target| target.reason.clone()).collect();
        let known = reasons.len() == 2 && reasons.iter().all(|reason| reason.contains("cannot be started"));
        if known { Ok(()) } else { Err(format!("{reasons:?}")) }
    });
    limit(&hard);
    world.converges(soon());
    recorder.wait_told(&["update file file"]);
    world.stop();
}

/// `-m`: no rsync at all, the plugin alone.
#[test]
fn m_runs_the_plugin_alone() {
    let mut world = World::new();
    let recorder = Recorder::install(&mut world, "");
    world.conf.plugin = None;
    let rsyncs = world.count_rsyncs();
    put(world.src.join("old/f"), "before");
    let conf = world.conf.save();
    let state = world.cli.state.clone();
    let args =
        [OsStr::new("-m"), "command".as_ref(), "-o".as_ref(), conf.as_ref(), "--state-dir".as_ref(), state.as_ref()];
    world.daemon = Some(Daemon::start(&world.cli, args));
    wait_for(soon(), "the watches", || {
        let state = world.cli.status().json["state"].clone();
        if state == "running" { Ok(()) } else { Err(state.to_string()) }
    });
    write(world.src.join("file"), "content");
    make_dir(world.src.join("dir/sub"));
    write(world.src.join("dir/sub/f"), "content");
    recorder.wait_told(&[
        "update file file",
        "update directory dir",
        "update directory dir/sub",
        "update file dir/sub/f",
    ]);
    recorder.forget();
    let outside = world.side("outside");
    put(outside.join("in/a"), "a");
    put(outside.join("in/b/c"), "c");
    fs::rename(outside.join("in"), world.src.join("in")).expect("cannot rename");
    fs::remove_file(world.src.join("old/f")).expect("cannot remove");
    recorder.wait_told(&["update directory in", "update file in/a", "update file in/b/c", "delete file old/f"]);
    assert!(!recorder.lines().contains("update directory old"), "{:?}", recorder.lines());
    recorder.forget();
    // A CDN is asked for something else than of a file, and what is gone does not say what it was.
    fs::remove_dir_all(world.src.join("dir")).expect("cannot remove");
    fs::rename(world.src.join("in"), outside.join("out")).expect("cannot rename");
    recorder.wait_told(&["delete directory dir", "delete directory in"]);
    world.stop();
    assert_eq!(rsyncs.naming(""), 0);
    assert!(fs::read_dir(&world.dsts[0]).expect("the target").next().is_none());
}

/// Found by the first change only, in the log, hours later.
#[test]
fn a_program_that_is_missing_and_a_password_for_all_to_read_are_found_before_the_start() {
    let mut world = World::new();
    let check = |world: &World| {
        let conf = world.conf.save();
        (world.cli.run(["check".as_ref(), "--offline".as_ref(), "-o".as_ref(), conf.as_os_str()]), conf)
    };
    world.conf.plugin = Some("command".to_owned());
    for (prefix, missing) in
        [("sh -c :", false), ("/bin/sh", false), ("no-such-program x", true), ("/etc/passwd", true)]
    {
        world.conf.plugin_sections = format!("<plugin name=\"command\"><param prefix=\"{prefix}\"/></plugin>");
        let (ended, _) = check(&world);
        assert_eq!(ended.text().contains("there is no such program"), missing, "{prefix}: {}", ended.text());
    }
    world.conf.plugin = Some("http".to_owned());
    world.conf.plugin_sections =
        "<plugin name=\"http\"><localpath><deshost url=\"http://u:S3cret@h/\"/></localpath></plugin>".to_owned();
    let (ended, conf) = check(&world);
    assert!(ended.text().contains("other users can read it") && ended.text().contains("chmod 600"), "{}", ended.text());
    assert!(!ended.text().contains("S3cret"), "{}", ended.text());
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).expect("cannot chmod");
    let ended = world.cli.run(["check".as_ref(), "--offline".as_ref(), "-o".as_ref(), conf.as_os_str()]);
    assert!(!ended.text().contains("other users can read it"), "{}", ended.text());
}

#[test]
fn m_says_what_is_wrong() {
    let mut world = World::new();
    world.conf.plugin_sections = "<plugin name=\"refreshCDN\"><localpath watch=\"/d\"><cdninfo domainname=\"h\" port=\"80\" \
        username=\"u\" passwd=\"p\"/><sendurl base=\"http://x\"/><regexurl regex=\"true\" match=\"(a\"/></localpath></plugin>"
        .to_owned();
    let conf = world.conf.save();
    let run = |name: &str| {
        let args = [OsStr::new("-m"), name.as_ref(), "-o".as_ref(), conf.as_ref()];
        world.cli.run(args)
    };
    let ended = run("rsync");
    assert_eq!(ended.code, Some(2), "{}", ended.text());
    assert!(ended.text().contains("one of command, socket, refreshCDN, http"), "{}", ended.text());
    let ended = run("socket");
    assert_eq!(ended.code, Some(78), "{}", ended.text());
    assert!(ended.text().contains("no usable <plugin name=\"socket\">"), "{}", ended.text());
    let ended = run("refreshCDN");
    assert_eq!(ended.code, Some(78), "{}", ended.text());
    assert!(ended.text().contains("match cannot be used: unclosed group"), "{}", ended.text());
}

/// L3: sersync died of a bad expression at the first event.
#[test]
fn l3_a_bad_expression_is_reported_at_the_start() {
    let mut world = World::new();
    world.conf.plugin = Some("refreshCDN".to_owned());
    world.conf.plugin_sections = "<plugin name=\"refreshCDN\"><localpath watch=\"/d\"><cdninfo domainname=\"h\" port=\"80\" \
        username=\"u\" passwd=\"p\"/><sendurl base=\"http://x\"/>\n<regexurl regex=\"true\" match=\"(a\"/></localpath></plugin>"
        .to_owned();
    let conf = world.conf.save();
    let ended = world.cli.run([OsStr::new("-d"), "-o".as_ref(), conf.as_ref()]);
    assert_eq!(ended.code, Some(78), "{}", ended.text());
    assert!(ended.text().contains(":1: plugin refreshCDN: match cannot be used: unclosed group"), "{}", ended.text());
    wait_until(secs(1), "no daemon", || world.cli.try_status().is_err());
}
