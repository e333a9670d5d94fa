//! One TCP connection for one question: connect, write, read the head of the answer.
//!
//! The code is by hand and not with an HTTP library: the CDN's request has to be exactly sersync's, two header lines in
//! HTTP/1.0, and only the status of an answer matters. Every step has a time limit, and the amount that is read is bounded.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memchr::memmem;

use super::Failure;
use crate::clock::monotonic;

/// How long each step may take. sersync's listeners and CDN answer in far less; the kernel alone would wait for minutes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    /// The time to send a request, and again to receive the head of its answer, however slowly the head trickles in.
    pub(super) step: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), step: Duration::from_secs(10) }
    }
}

/// How many bytes of an answer are read at most.
const HEAD_BYTES_MAX: usize = 4096;

/// The host that is asked.
#[derive(Debug)]
pub(super) struct Peer {
    host: String,
    port: u16,
    timeouts: Timeouts,
    stopped: AtomicBool,
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: Vec<u8>,
}

impl Peer {
    pub(super) fn new(host: &str, port: u16, timeouts: Timeouts) -> Self {
        Self { host: host.to_owned(), port, timeouts, stopped: AtomicBool::new(false) }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    pub(super) fn connect(&self) -> Result<TcpStream, Failure> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(Failure::Stopped);
        }
        let unreachable = |failure: &io::Error| {
            Failure::Unreachable(format!("cannot connect to {}:{}: {failure}", self.host, self.port))
        };
        let addresses = (self.host.as_str(), self.port).to_socket_addrs().map_err(|failure| unreachable(&failure))?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match TcpStream::connect_timeout(&address, self.timeouts.connect) {
                Ok(stream) => {
                    let limit = Some(self.timeouts.step);
                    let set = stream.set_write_timeout(limit).and_then(|()| stream.set_nodelay(true));
                    return set.map(|()| stream).map_err(|failure| unreachable(&failure));
                }
                Err(failure) => last = failure,
            }
        }
        Err(unreachable(&last))
    }

    /// Why a connection broke that had been made.
    pub(super) fn broken(&self, failure: &io::Error) -> Failure {
        if self.stopped.load(Ordering::SeqCst) {
            return Failure::Stopped;
        }
        let reason = match failure.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("does not answer within {} s", self.timeouts.step.as_secs_f32())
            }
            _ => format!("the connection broke: {failure}"),
        };
        Failure::Again(format!("{}:{}: {reason}", self.host, self.port))
    }

    /// Sends a request and returns the head of the answer.
    pub(super) fn ask(&self, request: &[u8]) -> Result<Answer, Failure> {
        let mut stream = self.connect()?;
        stream.write_all(request).map_err(|failure| self.broken(&failure))?;
        let head = self.read_head(&mut stream).map_err(|failure| self.broken(&failure))?;
        let no_http = || {
            let what = if head.is_empty() { "it hangs up without an answer" } else { "the answer is no HTTP" };
            Failure::Again(format!("{}:{}: {what}", self.host, self.port))
        };
        let status = status_of(&head).ok_or_else(no_http)?;
        Ok(Answer { status, head })
    }

    /// The meaning of an answer's status for a notice: 2xx delivers it, 408, 429 and 5xx may pass, and all others,
    /// redirections included, refuse it.
    pub(super) fn judge(&self, answer: &Answer) -> Result<(), Failure> {
        let what = match answer.status {
            200..=299 => return Ok(()),
            300..=399 => "; it sends elsewhere, which is not followed: name the right address",
            401 | 403 | 407 => "; user or password may be wrong",
            404 => "; the address may be wrong",
            _ => "",
        };
        let reason = format!("{}:{}: the answer was HTTP {}{what}", self.host, self.port, answer.status);
        match answer.status {
            408 | 429 | 500..=599 => Err(Failure::Again(reason)),
            _ => Err(Failure::Refused(reason)),
        }
    }

    fn read_head(&self, stream: &mut TcpStream) -> io::Result<Vec<u8>> {
        let begun = monotonic();
        let mut head = Vec::new();
        let mut chunk = [0; 1024];
        while head.len() < HEAD_BYTES_MAX && memmem::find(&head, b"\r\n\r\n").is_none() {
            let left = self.timeouts.step.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => head.extend_from_slice(chunk.get(..read).unwrap_or_default()),
                Err(failure) if failure.kind() == io::ErrorKind::Interrupted => {}
                // A complete status line is an answer, however the connection ends.
                Err(_) if status_of(&head).is_some() => break,
                Err(failure) => return Err(failure),
            }
        }
        head.truncate(HEAD_BYTES_MAX);
        Ok(head)
    }
}

/// The number in `HTTP/1.0 200 OK`.
fn status_of(head: &[u8]) -> Option<u16> {
    let line = head.split(|&b| b == b'\n').next()?;
    let rest = str::from_utf8(line).ok()?.strip_prefix("HTTP/")?;
    let status = rest.split_ascii_whitespace().nth(1)?;
    status.parse().ok().filter(|status| (100..1000).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_decides() {
        for (head, status) in [
            (&b"HTTP/1.0 200 OK\r\nwhatsup: content=\"succeed\"\r\n\r\n"[..], Some(200)),
            (b"HTTP/1.1 503\r\n", Some(503)),
            (b"HTTP/1.1 20", None),
            (b"SSH-2.0-OpenSSH\r\n", None),
            (b"HTTP/1.1 \xff\r\n", None),
            (b"", None),
        ] {
            assert_eq!(status_of(head), status, "{head:?}");
        }
        let peer = Peer::new("h", 81, Timeouts::default());
        let judged = |status| peer.judge(&Answer { status, head: Vec::new() });
        assert_eq!(judged(204), Ok(()));
        assert!(matches!(judged(503), Err(Failure::Again(_))) && matches!(judged(403), Err(Failure::Refused(_))));
    }

    #[test]
    fn a_refusal_says_who_refuses_and_what_may_be_wrong() {
        let peer = Peer::new("h", 81, Timeouts::default());
        for (status, says) in [
            (301, "h:81: the answer was HTTP 301; it sends elsewhere, which is not followed: name the right address"),
            (403, "h:81: the answer was HTTP 403; user or password may be wrong"),
            (404, "h:81: the answer was HTTP 404; the address may be wrong"),
            (410, "h:81: the answer was HTTP 410"),
        ] {
            assert_eq!(peer.judge(&Answer { status, head: Vec::new() }), Err(Failure::Refused(says.to_owned())));
        }
    }
}
