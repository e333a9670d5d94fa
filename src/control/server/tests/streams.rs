//! TCP and event streams: who may read, and what becomes of a reader that stops reading.

use super::*;

impl Fake {
    fn tell(&self, paths: u64) {
        let sent = || Sent { target: TARGET.to_owned(), root: "/srv".to_owned(), paths, took_s: 0.1 };
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.upgrade().map(|listener| listener.hear(Event::Sent(sent()))).is_some());
    }

    fn listeners(&self) -> usize {
        self.listeners.lock().iter().filter(|listener| listener.strong_count() > 0).count()
    }
}

/// A raw connection on which the request line was sent.
fn asked(address: std::net::SocketAddr, request: &str) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).expect("a request");
    stream
}

/// Reads until the text contains `mark`.
fn until(stream: &mut std::net::TcpStream, mark: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&text).ends_with(mark) {
        match stream.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            other => panic!("{other:?} before {mark:?}:\n{}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8(text).expect("text")
}

fn on_tcp(operate: &Arc<Fake>, token: Option<&str>, patience: Patience) -> TcpServer {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let options = TcpOptions { address, token: token.map(|token| Token::new(token).expect("a token")) };
    TcpServer::start_with(options, Arc::<Fake>::clone(operate), patience).expect("a server")
}

const FOLLOW: &str = "GET /v1/events HTTP/1.1\nHost: localhost\n\n";

#[test]
fn tcp_is_guarded_and_answers_as_the_socket_does() {
    let server = on_tcp(&Arc::new(Fake::with(3)), Some("0123456789abcdef"), PATIENCE);
    let code = |request: &str| {
        let mut stream = asked(server.address(), request);
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        assert!(text.starts_with("HTTP/1.1 200") || text.contains(r#""hint":""#), "{text}");
        assert!(!text.contains("0123456789abcdef"), "{text}");
        text.split(' ').nth(1).map(str::to_owned)
    };
    let purge = "POST /v1/jobs/purge HTTP/1.1\nContent-Length: 12\nHost: 127.0.0.1\n";
    let right = "Authorization: Bearer 0123456789abcdef\n";
    for (request, expected) in [
        ("GET /v1/status HTTP/1.1\nHost: 127.0.0.1\n\n".to_owned(), "200"),
        ("GET /v1/jobs HTTP/1.1\nHost: [::1]:80\n\n".to_owned(), "200"),
        ("GET /v1/status HTTP/1.1\nHost: evil.example\n\n".to_owned(), "403"),
        ("GET /nothing HTTP/1.1\nHost: evil.example\n\n".to_owned(), "403"),
        (format!("{purge}\n{{\"all\":true}}"), "401"),
        (format!("{purge}Authorization: Bearer fedcba9876543210\n\n{{\"all\":true}}"), "401"),
        (format!("{purge}{right}Origin: null\n\n{{\"all\":true}}"), "403"),
        (format!("{purge}{right}\n{{\"all\":true}}"), "200"),
    ] {
        assert_eq!(code(&request).as_deref(), Some(expected), "{request}");
    }
    server.stop();
    assert!(std::net::TcpStream::connect(server.address()).is_err());
}

#[test]
fn events_begin_with_a_status_and_tell_what_happens() {
    let fake = Arc::new(Fake::with(3));
    let server = on_tcp(&fake, None, PATIENCE);
    let mut stream = asked(server.address(), FOLLOW);
    let head = until(&mut stream, "event: status");
    assert!(head.contains("text/event-stream"), "{head}");
    assert!(until(&mut stream, "}\n\n").contains(r#""pid":1,"#));
    fake.tell(7);
    let text = until(&mut stream, "}\n\n");
    assert!(text.contains("event: sent\ndata: ") && text.contains(r#""paths":7"#), "{text}");
    // A status comes again only when it differs.
    fake.purged.lock().insert(5);
    let text = until(&mut stream, "}\n\n");
    assert!(text.contains("event: status\ndata: ") && text.contains(r#""pid":2,"#), "{text}");
    drop(stream);
    let begun = monotonic();
    while fake.listeners() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "a reader that has gone is still told");
        fake.tell(1);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_reader_that_does_not_read_costs_a_bounded_memory_and_is_told_what_it_missed() {
    let fake = Arc::new(Fake::with(3));
    let server = on_tcp(&fake, None, PATIENCE);
    let mut stream = asked(server.address(), FOLLOW);
    until(&mut stream, "}\n\n");
    // Far more events than all buffers hold.
    for _ in 0..400 {
        for _ in 0..1_000 {
            fake.tell(1);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let text = until(&mut stream, "event: dropped\ndata: {\"events\":");
    assert!(text.contains("event: sent"), "{text}");
    server.stop();
}

#[test]
fn streams_have_places_of_their_own_and_end_with_the_server() {
    let fake = Arc::new(Fake::with(3));
    let server = on_tcp(&fake, None, PATIENCE);
    let mut streams: Vec<_> = (0..events::STREAMS_MAX).map(|_| asked(server.address(), FOLLOW)).collect();
    for stream in &mut streams {
        assert!(until(stream, "}\n\n").starts_with("HTTP/1.1 200"));
    }
    assert!(until(&mut asked(server.address(), FOLLOW), "\r\n").contains("503"));
    let mut status = asked(server.address(), "GET /v1/status HTTP/1.1\nHost: localhost\n\n");
    assert!(until(&mut status, "\r\n").contains("200"));
    let begun = monotonic();
    server.stop();
    assert!(begun.elapsed() < STOP_DEADLINE, "the streams end by themselves");
    for mut stream in streams {
        stream.read_to_end(&mut Vec::new()).expect("the end of the stream");
    }
}
