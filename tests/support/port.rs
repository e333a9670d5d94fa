//! Ports for the servers of tests. They lie below the ports that the kernel gives to clients, so that a server that stops finds
//! its port free again. Each port is given to one process only, so that two test programs that run at once do not meet.
//!
//! A process claims ports in blocks. It holds a block by an abstract Unix socket whose name is the block's. Such a socket is
//! known within one network namespace, as ports are. It leaves no file, and ends with its process however that ends. Within a
//! process each port is given once. Ports of programs that know nothing of the blocks are found by trying to listen.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use parking_lot::Mutex;

const FIRST: u16 = 10_000;
const END: u16 = 32_000;
/// Small enough that the range serves 220 processes at once, and large enough that most processes need one block.
const BLOCK: usize = 100;

/// The blocks that this process holds, and the unused ports of the newest block.
struct Claimed {
    held: Vec<UnixListener>,
    rest: std::ops::Range<u16>,
}

static CLAIMED: Mutex<Claimed> = Mutex::new(Claimed { held: Vec::new(), rest: 0..0 });

/// A port that is free on 127.0.0.1 and on 127.0.0.2.
pub fn free_port() -> u16 {
    let mut claimed = CLAIMED.lock();
    loop {
        let Some(port) = claimed.rest.next() else {
            claimed.claim();
            continue;
        };
        if ["127.0.0.1", "127.0.0.2"].iter().all(|&address| TcpListener::bind((address, port)).is_ok()) {
            return port;
        }
    }
}

impl Claimed {
    /// Takes the first block that no process holds.
    fn claim(&mut self) {
        let mut blocks = (FIRST..END).step_by(BLOCK);
        let claim = |first: u16| {
            let name = SocketAddr::from_abstract_name(format!("syncq-test-ports-{first}")).expect("a short name");
            Some((first, UnixListener::bind_addr(&name).ok()?))
        };
        let (first, holder) = blocks.find_map(claim).expect("ports that no other program of tests holds");
        self.held.push(holder);
        self.rest = first..END.min(first + u16::try_from(BLOCK).expect("a block is small"));
    }
}
