//! A TCP proxy that can stop forwarding, refuse connections, and cut existing ones. It can also hold the data that clients
//! send, and deliver it long after they are dead. Meanwhile nothing on the client's side shows that such data exists.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
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
    /// A client's bytes beyond this number are taken from the client and kept, until [`Proxy::release`].
    Hold(usize),
}

#[derive(Debug)]
struct Shared {
    address: String,
    port: u16,
    upstream_port: u16,
    mode: Mutex<Mode>,
    pairs: Mutex<Vec<Weak<Connection>>>,
    listening: AtomicBool,
    over: AtomicBool,
}

/// Listens on `address:port`, and forwards to the same address on another port. Dropping it ends the proxy.
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

    /// Changes the mode, and returns once it is in effect. `Refuse` also cuts open connections.
    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().expect("the mode") = mode;
        wait_until(secs(10), "the proxy to open or close its port", || {
            self.shared.listening.load(Ordering::SeqCst) == (mode != Mode::Refuse)
        });
        if mode == Mode::Refuse {
            self.cut();
        }
    }

    /// Ends all connections, whatever they are doing.
    pub fn cut(&self) {
        let pairs = self.shared.pairs.lock().expect("the connections");
        pairs.iter().filter_map(Weak::upgrade).for_each(|pair| pair.cut());
    }

    /// How many connections are held.
    pub fn held(&self) -> usize {
        let pairs = self.shared.pairs.lock().expect("the connections");
        pairs.iter().filter_map(Weak::upgrade).filter(|pair| pair.is(HELD)).count()
    }

    /// Delivers the data of all held connections.
    pub fn release(&self) {
        let pairs = self.shared.pairs.lock().expect("the connections");
        pairs.iter().filter_map(Weak::upgrade).filter(|pair| pair.is(HELD)).for_each(|pair| pair.set(RELEASED));
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

/// The state of a connection's data from the client. A connection is held at most once.
const PASSING: u8 = 0;
const HELD: u8 = 1;
const RELEASED: u8 = 2;

/// A forwarded connection with both its ends.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    holding: AtomicU8,
}

impl Connection {
    fn is(&self, state: u8) -> bool {
        self.holding.load(Ordering::SeqCst) == state
    }

    fn set(&self, state: u8) {
        self.holding.store(state, Ordering::SeqCst);
    }

    fn cut(&self) {
        self.set(RELEASED);
        for stream in [&self.client, &self.server] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Connects to the server. If there is none, the client's connection is closed at once.
fn connect(shared: &Arc<Shared>, client: TcpStream) {
    let Ok(server) = TcpStream::connect((shared.address.as_str(), shared.upstream_port)) else { return };
    for stream in [&client, &server] {
        stream.set_nonblocking(false).expect("a stream that blocks");
        stream.set_nodelay(true).expect("a stream without delay");
        stream.set_read_timeout(Some(POLL * 4)).expect("a stream with a timeout");
    }
    let pair = Arc::new(Connection { client, server, holding: AtomicU8::new(PASSING) });
    let mut pairs = shared.pairs.lock().expect("the connections");
    pairs.retain(|pair| pair.strong_count() > 0);
    pairs.push(Arc::downgrade(&pair));
    drop(pairs);
    for pump in [upwards, downwards] {
        let (shared, pair) = (Arc::clone(shared), Arc::clone(&pair));
        std::thread::spawn(move || {
            pump(&shared, &pair);
        });
    }
}

/// The result of one read.
enum Came {
    Bytes(usize),
    Nothing,
    End,
    Broken,
}

fn read(mut from: &TcpStream, buffer: &mut [u8]) -> Came {
    match from.read(buffer) {
        Ok(0) => Came::End,
        Ok(len) => Came::Bytes(len),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Came::Nothing,
        Err(_) => Came::Broken,
    }
}

/// Forwards from the client to the server. Held data stays in memory and outlives the client.
fn upwards(shared: &Shared, pair: &Connection) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut kept, mut passed, mut has_ended) = (Vec::new(), 0, false);
    while !shared.is_over() {
        if shared.mode() == Mode::Stall || has_ended {
            std::thread::sleep(POLL);
        }
        if shared.mode() == Mode::Stall {
            continue;
        }
        if !has_ended {
            match read(&pair.client, &mut buffer) {
                Came::Bytes(len) => {
                    kept.extend_from_slice(&buffer[..len]);
                    passed += len;
                }
                Came::Nothing => {}
                Came::End => has_ended = true,
                Came::Broken if pair.is(HELD) => has_ended = true,
                Came::Broken => return pair.cut(),
            }
        }
        if let Mode::Hold(after) = shared.mode()
            && pair.is(PASSING)
            && passed > after
        {
            pair.set(HELD);
        }
        if pair.is(HELD) {
            continue;
        }
        if (&pair.server).write_all(&kept).is_err() {
            return pair.cut();
        }
        kept.clear();
        if has_ended {
            let _ = pair.server.shutdown(Shutdown::Write);
            return;
        }
    }
    pair.cut();
}

/// Forwards from the server to the client. An answer to a dead client is dropped, as long as data is still to be delivered.
fn downwards(shared: &Shared, pair: &Connection) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while !shared.is_over() {
        if shared.mode() == Mode::Stall {
            std::thread::sleep(POLL);
            continue;
        }
        match read(&pair.server, &mut buffer) {
            Came::End => {
                let _ = pair.client.shutdown(Shutdown::Write);
                return;
            }
            Came::Bytes(len) if (&pair.client).write_all(&buffer[..len]).is_ok() || !pair.is(PASSING) => {}
            Came::Nothing => {}
            Came::Bytes(_) | Came::Broken => break,
        }
    }
    pair.cut();
}
