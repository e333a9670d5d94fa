//! A CDN and a web server get notices in sersync's forms, and no password becomes visible.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use crate::harness::world::soon;
use crate::harness::{World, make_dir, secs, write};

/// A web server that answers each request as `answer` says, or never, and passes on the requests.
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

/// S4: the CDN's request, its encoding, and that its password appears in that request only.
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
    // The first request is answered as busy, and the second is its repetition.
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
    // The server never answers the first request. That delays neither other notices nor a mirror, and the request comes again.
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
