//! Each plugin against a real server on loopback: one that listens, one that is slow, one that is dead.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::notice::tests::notice;
use super::*;
use crate::clock::monotonic;
use crate::model::Backoff;

/// The section of a plugin as it stands in a configuration.
pub(crate) fn plugin(name: &str, section: &str) -> Plugin {
    let xml = format!(
        "<head><sersync><localpath watch='/d'><remote ip='h' name='m'/></localpath>\
         <plugin start='true' name='{name}'/></sersync><plugin name='{name}'>{section}</plugin></head>"
    );
    let (config, _) = crate::config::parse(Path::new("c.xml"), xml.as_bytes()).unwrap();
    config.plugin.unwrap()
}

fn limits() -> Limits {
    let backoff = Backoff { base: Duration::from_millis(10), factor: 2.0, cap: Duration::from_millis(50) };
    Limits { backoff, stop_grace: Duration::from_millis(200), ..Limits::default() }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begun = monotonic();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn socket(port: u16) -> Box<dyn Delivery> {
    let section = format!("<localpath watch='/d'><deshost ip='127.0.0.1' port='{port}'/></localpath>");
    match plugin("socket", &section) {
        Plugin::Socket(config) => Box::new(socket::Socket::new(&config)),
        other => panic!("{other:?}"),
    }
}

fn read_all(listener: &TcpListener) -> Vec<u8> {
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// sersync dropped notices once it had waited 100 ms in all.
#[test]
fn l31_a_slow_listener_gets_every_notice() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let engine = Engine::start("socket", socket(listener.local_addr().unwrap().port()), limits()).unwrap();
    for n in 0..100 {
        engine.notify(notice("/d", format!("f{n}").as_bytes()));
    }
    let mut got: Vec<Vec<u8>> = (0..100)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            read_all(&listener)
        })
        .collect();
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 100);
    wait_until("the count", || engine.stats().delivered == 100);
    let EngineStats { failed, dropped, .. } = engine.stats();
    assert_eq!((failed, dropped), (0, 0));
    engine.stop();
}

/// sersync copied the path into a buffer of 2048 bytes on the stack.
#[test]
fn s5_a_path_of_any_length_arrives_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let engine = Engine::start("socket", socket(listener.local_addr().unwrap().port()), limits()).unwrap();
    let path = vec![b"d".repeat(200); 20].join(&b'/');
    engine.notify(notice("/d", &path));
    assert_eq!(read_all(&listener), [b"/d/", path.as_slice()].concat());
    engine.stop();
}

#[test]
fn a_dead_listener_loses_nothing_until_it_is_back() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let engine = Engine::start("socket", socket(port), limits()).unwrap();
    for n in 0..20 {
        engine.notify(notice("/d", format!("f{n}").as_bytes()));
    }
    wait_until("the trouble", || engine.stats().reason.is_some());
    let stats = engine.stats();
    assert_eq!((stats.delivered, stats.waiting + stats.in_flight), (0, 20));
    assert!(stats.reason.unwrap().contains("Connection refused"));
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut got: Vec<_> = (0..20).map(|_| read_all(&listener)).collect();
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 20);
    wait_until("the recovery", || engine.stats().reason.is_none());
    engine.stop();
}

/// Holds every delivery until it is opened, and fails as many of the first ones as it is told to.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    stopped: AtomicBool,
    tries: AtomicU32,
    failures: Mutex<Vec<Failure>>,
}

struct Gated(Arc<Gate>);

impl Delivery for Gated {
    fn wants(&self, notice: &Notice) -> bool {
        !notice.path.as_bytes().starts_with(b"no")
    }

    fn deliver(&self, notice: &Notice) -> Result<(), Failure> {
        self.0.tries.fetch_add(1, Ordering::SeqCst);
        let mut open = self.0.open.lock();
        while !*open && !self.0.stopped.load(Ordering::SeqCst) {
            self.0.opened.wait(&mut open);
        }
        if self.0.stopped.load(Ordering::SeqCst) {
            return Err(Failure::Stopped);
        }
        if notice.path.as_bytes() == b"poison" {
            return Err(Failure::Again("HTTP 500".into()));
        }
        self.0.failures.lock().pop().map_or(Ok(()), Err)
    }

    fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        self.0.opened.notify_all();
    }
}

impl Gate {
    fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }
}

/// Records each notice in words.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<String>>>);

impl Delivery for Recorder {
    fn wants(&self, _: &Notice) -> bool {
        true
    }

    fn deliver(&self, notice: &Notice) -> Result<(), Failure> {
        self.0.lock().push(notice.path.to_string());
        Ok(())
    }

    fn stop(&self) {}
}

impl Recorder {
    pub(crate) fn engine(&self) -> Arc<Engine> {
        Engine::start("recorder", Box::new(self.clone()), Limits { threads: 1, ..limits() }).unwrap()
    }

    /// Everything that the engine has delivered so far.
    pub(crate) fn told(&self, engine: &Engine) -> Vec<String> {
        wait_until("all deliveries", || engine.stats().waiting + engine.stats().in_flight == 0);
        self.0.lock().clone()
    }
}

#[test]
fn a_hanging_plugin_keeps_a_bounded_line_and_counts_what_it_drops() {
    let gate = Arc::new(Gate::default());
    let limits = Limits { notices_max: 10, threads: 1, ..limits() };
    let engine = Engine::start("command", Box::new(Gated(Arc::clone(&gate))), limits).unwrap();
    engine.notify(notice("/d", b"first"));
    wait_until("the first delivery", || gate.tries.load(Ordering::SeqCst) == 1);
    for n in 0..25 {
        engine.notify(notice("/d", format!("f{n}").as_bytes()));
        engine.notify(notice("/d", b"not wanted"));
    }
    // Of the notices of one path only the newest is kept, however full the line is.
    engine.notify(notice("/d", b"f3"));
    assert_eq!(engine.stats(), EngineStats { waiting: 10, in_flight: 1, dropped: 15, ..EngineStats::default() });
    gate.open();
    wait_until("the rest", || engine.stats().delivered == 11);
    engine.stop();
}

#[test]
fn a_stop_does_not_wait_for_a_hanging_plugin() {
    let gate = Arc::new(Gate::default());
    let engine = Engine::start("command", Box::new(Gated(Arc::clone(&gate))), limits()).unwrap();
    for n in 0..25 {
        engine.notify(notice("/d", format!("f{n}").as_bytes()));
    }
    let begun = monotonic();
    engine.stop();
    engine.stop();
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_notice_that_never_goes_through_is_given_up_while_others_do() {
    let gate = Arc::new(Gate::default());
    gate.open();
    let engine = Engine::start("http", Box::new(Gated(Arc::clone(&gate))), limits()).unwrap();
    engine.notify(notice("/d", b"poison"));
    // While no other notice goes through, this one is not to blame.
    wait_until("several tries", || gate.tries.load(Ordering::SeqCst) > limits().tries_max + 2);
    assert_eq!(engine.stats().failed, 0);
    let mut n = 0;
    while engine.stats().failed == 0 {
        n += 1;
        assert!(n < 1000, "never given up");
        engine.notify(notice("/d", format!("f{n}").as_bytes()));
        let tries = gate.tries.load(Ordering::SeqCst);
        wait_until("a try", || gate.tries.load(Ordering::SeqCst) > tries || engine.stats().failed > 0);
    }
    wait_until("the others", || engine.stats().delivered == n);
    engine.stop();
}

/// Thirteen deliveries had failed and nothing said why: the log may be long gone.
#[test]
fn why_a_notice_was_given_up_can_be_asked_until_another_gets_through() {
    let gate = Arc::new(Gate::default());
    gate.open();
    gate.failures.lock().push(Failure::Refused("no such user".into()));
    let engine = Engine::start("http", Box::new(Gated(Arc::clone(&gate))), limits()).unwrap();
    engine.notify(notice("/d", b"f"));
    wait_until("the failure", || engine.stats().failed == 1);
    assert_eq!(engine.stats().reason.as_deref(), Some("f: no such user"));
    engine.notify(notice("/d", b"g"));
    wait_until("the delivery", || engine.stats().delivered == 1);
    assert_eq!(engine.stats().reason, None);
    engine.stop();
}

/// L3: when no process can be started, the notice is delayed and comes again.
#[test]
fn l3_what_cannot_be_started_now_is_started_later() {
    let gate = Arc::new(Gate::default());
    gate.open();
    let failed = || Failure::Unreachable("cannot start /bin/sh: Resource temporarily unavailable".into());
    gate.failures.lock().extend([failed(), failed(), failed()]);
    let engine = Engine::start("command", Box::new(Gated(Arc::clone(&gate))), limits()).unwrap();
    engine.notify(notice("/d", b"f"));
    wait_until("the delivery", || engine.stats().delivered == 1);
    assert_eq!(gate.tries.load(Ordering::SeqCst), 4);
    engine.stop();
}

/// The requests that a server got, and the connections that the server left open.
type Served = std::thread::JoinHandle<(Vec<String>, Vec<TcpStream>)>;

/// Answers each request in turn with a piece of text. `None` keeps the connection open without an answer.
fn server(answers: Vec<Option<Vec<u8>>>) -> (u16, Served) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move || {
        let mut requests = Vec::new();
        let mut silent: Vec<TcpStream> = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            let text = String::from_utf8(request).unwrap();
            let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).unwrap();
            requests.push(text + std::str::from_utf8(&body).unwrap());
            match answer {
                Some(answer) => drop(stream.write_all(&answer)),
                None => silent.push(stream),
            }
        }
        (requests, silent)
    };
    (port, std::thread::spawn(serve))
}

fn exchange_peer(port: u16) -> exchange::Peer {
    let timeouts = exchange::Timeouts { connect: Duration::from_secs(5), step: Duration::from_millis(100) };
    exchange::Peer::new("127.0.0.1", port, timeouts)
}

/// sersync read an answer into a buffer without a limit, and did not wait for the end of one.
#[test]
fn s5_no_answer_can_hang_or_flood_a_plugin() {
    let endless = [b"HTTP/1.0 200 OK\r\n".to_vec(), b"x".repeat(1 << 20)].concat();
    let nonsense = b"y".repeat(1 << 20);
    let (port, served) = server(vec![Some(endless), Some(nonsense), Some(Vec::new()), None]);
    let peer = exchange_peer(port);
    let answer = peer.ask(b"HEAD / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((answer.status, answer.head.len()), (200, 4096));
    for expected in ["the answer is no HTTP", "hangs up without an answer", "does not answer within"] {
        match peer.ask(b"HEAD / HTTP/1.0\r\n\r\n") {
            Err(Failure::Again(reason)) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(served.join().unwrap().0.len(), 4);
}

/// An answer that trickles in has the same time limit as one that does not come at all.
#[test]
fn s5_a_trickling_answer_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let trickle = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let begun = monotonic();
    assert!(matches!(exchange_peer(port).ask(b"HEAD / HTTP/1.0\r\n\r\n"), Err(Failure::Again(_))));
    assert!(begun.elapsed() < Duration::from_secs(10));
    trickle.join().unwrap();
}

#[test]
fn a_cdn_and_a_web_server_are_told() {
    let ok = || Some(b"HTTP/1.0 200 OK\r\nwhatsup: content=\"succeed\"\r\n\r\n".to_vec());
    let busy = || Some(b"HTTP/1.0 503 Busy\r\n\r\n".to_vec());
    let (port, served) = server(vec![busy(), ok()]);
    let section = format!(
        "<localpath watch='/d'><cdninfo domainname='127.0.0.1' port='{port}' username='u' passwd='p'/>\
         <sendurl base='http://pic.example.com/cms'/></localpath>"
    );
    let Plugin::RefreshCdn(config) = plugin("refreshCDN", &section) else { panic!() };
    let engine = Engine::start("refreshCDN", Box::new(cdn::RefreshCdn::new(&config).unwrap()), limits()).unwrap();
    engine.notify(notice("/d", b"a.jpg"));
    let request = "HEAD /index.jsp?user=u&pswd=p&ok=ok&urls=http://pic.example.com/cms/a.jpg HTTP/1.0\r\n\
                   Host: 127.0.0.1\r\n\r\n";
    assert_eq!(served.join().unwrap().0, [request, request]);
    wait_until("the count", || engine.stats().delivered == 1);
    engine.stop();

    let (port, served) = server(vec![ok(), Some(b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec())]);
    let section = format!("<localpath><deshost url='http://127.0.0.1:{port}/hook'/></localpath>");
    let Plugin::Http(config) = plugin("http", &section) else { panic!() };
    let engine = Engine::start("http", Box::new(http::Http::new(&config)), Limits { threads: 1, ..limits() }).unwrap();
    engine.notify(notice("/d", b"a"));
    engine.notify(notice("/d", b"b"));
    wait_until("the counts", || (engine.stats().delivered, engine.stats().failed) == (1, 1));
    let (requests, _) = served.join().unwrap();
    assert!(requests[0].starts_with("POST /hook HTTP/1.1\r\n") && requests[0].ends_with("inotifyPath=/d/a&mask=8"));
    engine.stop();
}

/// A command that records how it was called.
fn recorder(dir: &Path) -> std::path::PathBuf {
    let script = dir.join("record me");
    let text = "#!/bin/sh\nfor arg; do printf '%s\\0' \"$arg\"; done > \"$OUT.new\"\n\
                printf '%s|%s|%s|%s|%s' \"$SYNCQ_OPERATION\" \"$SYNCQ_KIND\" \"$SYNCQ_PATH\" \"$SYNCQ_ROOT\" \
                \"$SYNCQ_TARGETS\" >> \"$OUT.new\"\nmv \"$OUT.new\" \"$OUT\"\n";
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    script
}

fn command(prefix: &str, suffix: &str, ignore: bool, filter: &str) -> command::Command {
    let section = format!("<param prefix=\"{prefix}\" suffix=\"{suffix}\" ignoreError=\"{ignore}\"/>{filter}");
    match plugin("command", &section) {
        Plugin::Command(config) => command::Command::new(&config).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// sersync put the path into a command line for a shell.
#[test]
fn s2_a_path_is_one_argument_and_nothing_else_runs() {
    let dir = tempfile::tempdir().unwrap();
    let script = recorder(dir.path());
    let out = dir.path().join("out");
    let prefix = format!("env 'OUT={}' '{}' -x", out.display(), script.display());
    let command = command(&prefix, "'a b' c", true, "");
    for name in [
        &b"plain"[..],
        b"a b;touch PWNED",
        b"$(touch PWNED)",
        b"`touch PWNED`",
        b"a|touch PWNED",
        b"\"quote'",
        b"new\nline",
        b"trailing\\",
        b"-rf",
        b"\xff\xfe",
        b"*",
    ] {
        command.deliver(&notice("/d/", name)).unwrap();
        let told = [b"/d//", name].concat();
        let expected = [b"-x\0", told.as_slice(), b"\0a b\0c\0update|file|", name, b"|/d|h::m"].concat();
        assert_eq!(std::fs::read(&out).unwrap(), expected, "{}", String::from_utf8_lossy(name));
        std::fs::remove_file(&out).unwrap();
    }
    assert!(!Path::new("PWNED").exists() && !dir.path().join("PWNED").exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn only_included_paths_are_told() {
    let on = |includes: &str| format!("<filter start='true'>{includes}</filter>");
    let php = command("true", "", true, &on("<include expression='/d/(.*)\\.php'/><include expression='.*\\.sh'/>"));
    let none = command("true", "", true, &on(""));
    let off = command("true", "", true, "<filter start='false'><include expression='x'/></filter>");
    for (path, told) in [(&b"a.php"[..], true), (b"a.phps", false), (b"x/a.sh", true), (b"a", false)] {
        assert_eq!(php.wants(&notice("/d/", path)), told, "{path:?}");
        assert!(!none.wants(&notice("/d", path)) && off.wants(&notice("/d", path)));
    }
}

#[test]
fn a_command_that_does_not_end_is_ended_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script = format!("sh -c 'sleep 600 &amp; echo $! $$ > {}; wait'", pids.display());
    let hanging = command(&script, "", false, "").with_time_limit(Duration::from_millis(500));
    match hanging.deliver(&notice("/d", b"f")) {
        Err(Failure::Refused(reason)) => assert!(reason.contains("was ended"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let gone = |pids: &str| {
        pids.split_whitespace().all(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
    };
    let first = std::fs::read_to_string(&pids).unwrap();
    wait_until("the end of the group", || gone(&first));
    std::fs::remove_file(&pids).unwrap();

    // A stop ends the whole group as well.
    let engine = Engine::start("command", Box::new(command(&script, "", false, "")), limits()).unwrap();
    engine.notify(notice("/d", b"f"));
    wait_until("the start", || std::fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n')));
    let begun: Instant = monotonic();
    engine.stop();
    assert!(begun.elapsed() < Duration::from_secs(5));
    let second = std::fs::read_to_string(&pids).unwrap();
    wait_until("the end of the group", || gone(&second));
}

#[test]
fn a_failing_command_is_reported_unless_that_is_unwanted() {
    let fail = |ignore| command("sh -c 'echo said; exit 3'", "", ignore, "").deliver(&notice("/d", b"f"));
    assert_eq!(fail(true), Ok(()));
    assert_eq!(fail(false), Err(Failure::Refused("the command ended with exit status: 3".into())));
    let missing = command("/nonexistent/program", "", false, "").deliver(&notice("/d", b"f"));
    assert!(
        matches!(missing, Err(Failure::Unreachable(reason)) if reason.contains("cannot start /nonexistent/program"))
    );
}

/// More output than a pipe holds, a closed pipe, and a grandchild that keeps the pipe open: none of them delays the end.
#[test]
fn output_never_blocks_a_command() {
    let flood = command("sh -c 'head -c 3000000 /dev/zero; sleep 3 &amp; exit 0'", "", false, "");
    let begun = monotonic();
    assert_eq!(flood.deliver(&notice("/d", b"f")), Ok(()));
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// Passwords must not show in debug output of a configuration.
#[test]
fn no_debug_output_shows_a_password() {
    let section = "<localpath watch='/d'><cdninfo domainname='h' port='80' username='u' passwd='S3cret'/>\
                   <sendurl base='http://x'/></localpath>";
    let url = "<localpath watch='/d'><deshost url='http://u:S3cret@h/x?token=S3cret'/></localpath>";
    for plugin in [plugin("refreshCDN", section), plugin("http", url)] {
        let shown = format!("{plugin:?} {plugin:#?}");
        assert!(!shown.contains("S3cret"), "{shown}");
    }
}
