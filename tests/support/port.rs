//! Ports for servers of tests: below those that the kernel gives to clients, so that a server that stops finds its port free
//! again, and each given to one process alone, so that two programs of tests that run at once do not meet.
//!
//! A process claims ports by the block, and holds a block by an abstract Unix socket that bears its name. Such a socket is
//! known within one network namespace, as ports are; it leaves no file, and ends with its process however that ends.
//! A port is given once in a process. Programs that know nothing of the blocks are seen by trying to listen.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use parking_lot::Mutex;

const FIRST: u16 = 10_000;
const END: u16 = 32_000;
/// So many processes that the range is enough for 220 at once, and so many ports that most need one block.
const BLOCK: usize = 100;

/// The blocks that this process holds, and the rest of the newest.
struct Claimed {
    held: Vec<UnixListener>,
    rest: std::ops::Range<u16>,
}

static CLAIMED: Mutex<Claimed> = Mutex::new(Claimed { held: Vec::new(), rest: 0..0 });

/// A port free on 127.0.0.1 and 127.0.0.2.
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
