//! A TCP proxy that can stop forwarding, refuse connections, and cut those there are.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::harness::{secs, wait_until};

const POLL: Duration = Duration::from_millis(5);
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Connections are accepted and stay open, and nothing goes through.
    Stall,
    /// The port is closed.
    Refuse,
}

#[derive(Debug)]
struct Shared {
    address: String,
    port: u16,
    upstream_port: u16,
    mode: Mutex<Mode>,
    pairs: Mutex<Vec<Weak<Pair>>>,
    listening: AtomicBool,
    over: AtomicBool,
}

/// Listens on `address:port` and forwards to the same address on another port. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(address: &str, port: u16, upstream_port: u16) -> Self {
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            port,
            upstream_port,
            mode: Mutex::new(Mode::Pass),
            pairs: Mutex::default(),
            listening: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&shared)
        });
        let proxy = Self { shared, thread: Some(thread) };
        proxy.set(Mode::Pass);
        proxy
    }

    /// Changes the mode and returns when it holds. Refusing also cuts what is open.
    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().expect("the mode") = mode;
        wait_until(secs(10), "the proxy to open or close its port", || {
            self.shared.listening.load(Ordering::SeqCst) == (mode != Mode::Refuse)
        });
        if mode == Mode::Refuse {
            self.cut();
        }
    }

    /// Ends all connections in the middle of what they do.
    pub fn cut(&self) {
        let pairs = self.shared.pairs.lock().expect("the connections");
        pairs.iter().filter_map(Weak::upgrade).for_each(|pair| cut(&pair));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.cut();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().expect("the mode")
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

fn accept(shared: &Arc<Shared>) {
    let mut listener: Option<TcpListener> = None;
    while !shared.is_over() {
        if shared.mode() == Mode::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind((shared.address.as_str(), shared.port)).ok();
            if let Some(listener) = &listener {
                listener.set_nonblocking(true).expect("a listener that does not block");
            }
        }
        shared.listening.store(listener.is_some(), Ordering::SeqCst);
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((client, _))) => connect(shared, client),
            _ => std::thread::sleep(POLL),
        }
    }
}

/// The two ends of a connection that goes through.
type Pair = (TcpStream, TcpStream);

/// Connects to the server; without one the client's connection is closed at once.
fn connect(shared: &Arc<Shared>, client: TcpStream) {
    let Ok(server) = TcpStream::connect((shared.address.as_str(), shared.upstream_port)) else { return };
    for stream in [&client, &server] {
        stream.set_nonblocking(false).expect("a stream that blocks");
        stream.set_nodelay(true).expect("a stream without delay");
        stream.set_read_timeout(Some(POLL * 4)).expect("a stream with a timeout");
    }
    let pair = Arc::new((client, server));
    let mut pairs = shared.pairs.lock().expect("the connections");
    pairs.retain(|pair| pair.strong_count() > 0);
    pairs.push(Arc::downgrade(&pair));
    drop(pairs);
    for upwards in [true, false] {
        let (shared, pair) = (Arc::clone(shared), Arc::clone(&pair));
        std::thread::spawn(move || pump(&shared, &pair, upwards));
    }
}

fn pump(shared: &Shared, pair: &Pair, upwards: bool) {
    let (mut from, mut to) = if upwards { (&pair.0, &pair.1) } else { (&pair.1, &pair.0) };
    let mut buffer = vec![0; BUFFER_BYTES];
    while !shared.is_over() {
        if shared.mode() == Mode::Stall {
            std::thread::sleep(POLL);
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(len) if to.write_all(&buffer[..len]).is_ok() => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
    }
    cut(pair);
}

fn cut(pair: &Pair) {
    let _ = pair.0.shutdown(Shutdown::Both);
    let _ = pair.1.shutdown(Shutdown::Both);
}
