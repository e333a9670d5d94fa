//! Tells whether data that a cut off run had sent may still arrive, over newer data.
//!
//! Three witnesses, from the best to the poorest:
//! - The connection itself. Before a run is ended, its connection is duplicated into this process, so that the connection
//!   outlives the run's process; so are the connections of runs that an earlier daemon has left. Such a connection is
//!   closed for writing only, and read until the server closes its side. Then the last process there has ended, and none of
//!   its data comes any more. A proxy passes that end on.
//! - `/proc/net/tcp`. For a dead process this machine's kernel goes on sending until the other side has acknowledged
//!   everything, or for a minute and a half if there is no answer. For a minute more it remembers that the other side has
//!   not closed. A connection that closes within a second is the usual end of a successful run.
//! - Time, where neither is to be had: an rsync that somebody else killed, one behind ssh, one whose descriptors may not be
//!   taken (ptrace is forbidden). Data of such a run may arrive for [`BLIND_FOR`].
//!
//! Deliberately absent: which work is repeated then, and when (`queue`). Nothing is known of a run that was killed together
//! with the daemon and whose connection was reset. For such runs the queue compares again later, which nobody waits for.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use log::{debug, warn};
use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::environment;
use crate::clock::monotonic;
use crate::model::{Destination, Lingers, Target};

const DAEMON_PORT: u16 = 873;
const SSH_PORT: u16 = 22;

/// States of a connection whose end is not acknowledged (FIN-WAIT-1, CLOSING, LAST-ACK), or not answered (FIN-WAIT-2).
const OPEN: [&str; 4] = ["04", "0B", "09", "05"];

/// How long after the client of a successful run the server may take to close, and how often this is looked for.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
const END_TICK: Duration = Duration::from_millis(20);
/// The most connections in [`STANDING`]; if there are more, none is remembered.
const STANDING_MAX: usize = 10_000;
/// How long data may arrive of a run about whose connection nothing is known.
pub(in crate::mirror) const BLIND_FOR: Duration = Duration::from_secs(60);
/// How long one read of a held connection may wait, so that the end of the patience with a server is noticed.
const CLOSED_TICK: Duration = Duration::from_millis(50);
/// How long a connection is held that the server does not close.
const HELD_MAX: Duration = Duration::from_secs(600);
/// After this long without an acknowledgement a connection counts as dead, as it does for the kernel if it has no owner.
const UNANSWERED_MAX_MS: u32 = 100_000;

/// The connection of a process that was ended. It is held, or nothing is known but that it existed.
#[derive(Debug)]
struct Severed {
    id: u64,
    /// `None`: the connection may lead to any address.
    peer: Option<SocketAddr>,
    is_held: bool,
    until: Instant,
}

/// All severed connections known to this process, with the next id. Shared by all targets, as the kernel's table is.
static SEVERED: Mutex<(u64, Vec<Severed>)> = Mutex::new((0, Vec::new()));

fn severed() -> MutexGuard<'static, (u64, Vec<Severed>)> {
    SEVERED.lock()
}

fn note(peer: Option<SocketAddr>, is_held: bool, lasts: Duration) -> u64 {
    let (last, all) = &mut *severed();
    *last += 1;
    all.push(Severed { id: *last, peer, is_held, until: monotonic() + lasts });
    *last
}

/// The connection of a process, duplicated into this one.
#[derive(Debug)]
pub(in crate::mirror) struct Line {
    stream: TcpStream,
    peer: SocketAddr,
}

/// The connections of the process behind `pidfd`, whose directory in `/proc` is `dir`. The error: they may not be taken.
pub(super) fn lines_of(pidfd: impl AsFd, dir: &Path) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(dir.join("fd"))? {
        let entry = entry?;
        let is_socket =
            std::fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|_| is_socket) else { continue };
        let stream = match pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()) {
            Ok(held) => TcpStream::from(held),
            // The descriptor was closed meanwhile, or the process has ended.
            Err(Errno::BADF | Errno::SRCH) => continue,
            Err(errno) => return Err(errno.into()),
        };
        // A socket of another kind has no peer, and a connection that was reset is over.
        if let Ok(peer) = stream.peer_addr() {
            lines.push(Line { stream, peer });
        }
    }
    Ok(lines)
}

impl Line {
    /// Keeps the connection of an ended process until the server closes its side. Returns whether the server did within
    /// `patience`.
    pub(in crate::mirror) fn hold(self, patience: Duration) -> bool {
        let Self { stream, peer } = self;
        // The write side and the blocking mode were the process's, which has no more use for them.
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.set_nonblocking(patience.is_zero());
        let is_bounded = patience.is_zero() || stream.set_read_timeout(Some(patience.min(CLOSED_TICK))).is_ok();
        if is_bounded && is_over_within(&stream, patience) {
            return true;
        }
        let _ = stream.set_nonblocking(false);
        let _ = set_tcp_user_timeout(&stream, UNANSWERED_MAX_MS);
        // The peer is a proxy, so the target's address is not known.
        let peer = (!environment::redirects(&environment::own)).then_some(peer);
        let id = note(peer, true, HELD_MAX);
        let waited = std::thread::Builder::new().name("severed".into()).spawn(move || await_end(&stream, id));
        if let Err(error) = waited {
            warn!("no thread to wait for the end of a connection that was cut off: {error}");
        }
        false
    }

    pub(in crate::mirror) fn peer(&self) -> SocketAddr {
        self.peer
    }
}

/// Reads and drops the server's data. Returns whether the server has closed the connection, or the connection is broken.
fn is_over(mut stream: &TcpStream) -> bool {
    let mut chunk = [0; 16 * 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return false,
                _ => return true,
            },
        }
    }
}

/// The same as [`is_over`], repeated until `patience` is over, for a stream whose reads do not wait for long.
fn is_over_within(stream: &TcpStream, patience: Duration) -> bool {
    let begun = monotonic();
    while !is_over(stream) {
        if begun.elapsed() >= patience {
            return false;
        }
    }
    true
}

fn await_end(stream: &TcpStream, id: u64) {
    let begun = monotonic();
    let is_bounded = stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok();
    while is_bounded && !is_over(stream) && begun.elapsed() < HELD_MAX {}
    severed().1.retain(|severed| severed.id != id);
    debug!("a connection that was cut off is over after {} ms", begun.elapsed().as_millis());
}

/// Notes that a run to `peer` (`None`: to any address) was cut off, and that nothing will tell when its data has arrived.
pub(super) fn note_blind(peer: Option<SocketAddr>) {
    note(peer, false, BLIND_FOR);
}

/// Whether any severed connection is known.
pub(crate) fn is_any() -> bool {
    let now = monotonic();
    let all = &mut severed().1;
    all.retain(|severed| severed.until > now);
    !all.is_empty()
}

/// Whether data of a dead process may still be on its way to the target, as far as connections are known. The target's
/// context knows of runs whose connection is not known ([`BLIND_FOR`]).
pub(in crate::mirror) fn known_to(target: &Target) -> Lingers {
    let (host, port) = match &target.destination {
        Destination::Local(_) => return Lingers::No,
        Destination::Daemon { host, .. } => (host, target.options.port.unwrap_or(DAEMON_PORT)),
        Destination::Ssh { host, .. } => (host, target.options.port.unwrap_or(SSH_PORT)),
    };
    let unclosed = left_open(port);
    let unclosed = unclosed.into_iter().map(|Unclosed { peer, .. }| (Some(peer), true));
    let peers: Vec<(Option<IpAddr>, bool)> = {
        let now = monotonic();
        let known = severed();
        let at_port =
            known.1.iter().filter(|severed| severed.until > now && severed.peer.is_none_or(|peer| peer.port() == port));
        let at_port = at_port.map(|severed| (severed.peer.map(|peer| peer.ip().to_canonical()), severed.is_held));
        at_port.chain(unclosed).collect()
    };
    let surely = |is_sure: bool| if is_sure { Lingers::Surely } else { Lingers::Perhaps };
    if peers.is_empty() {
        return Lingers::No;
    }
    let host = host.rsplit_once('@').map_or(host.as_str(), |(_, host)| host);
    let addresses: Option<Vec<IpAddr>> = (host.trim_matches(['[', ']']), port)
        .to_socket_addrs()
        .ok()
        .map(|addresses| addresses.map(|address| address.ip().to_canonical()).collect());
    // A connection whose address is not known may lead to any target.
    let is_one = |peer: &Option<IpAddr>| match (peer, &addresses) {
        (Some(peer), Some(addresses)) => addresses.contains(peer),
        (None, _) | (_, None) => true,
    };
    peers.iter().filter(|(peer, _)| is_one(peer)).map(|(_, is_sure)| surely(*is_sure)).max().unwrap_or(Lingers::No)
}

/// A connection without an owner that the other side has not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Unclosed {
    peer: IpAddr,
    own_port: u16,
}

/// Unclosed connections that have been waited for already.
static STANDING: Mutex<BTreeSet<Unclosed>> = Mutex::new(BTreeSet::new());

/// The unclosed connections to `port` that stay so for longer than a server takes to close after a successful run. Where
/// many runs are made, there is a younger one at any time.
fn left_open(port: u16) -> BTreeSet<Unclosed> {
    let mut open = unclosed(port);
    let standing = || STANDING.lock();
    let is_new = |open: &BTreeSet<Unclosed>| !open.is_subset(&standing());
    let begun = monotonic();
    while is_new(&open) && begun.elapsed() < ENDS_WITHIN {
        std::thread::sleep(END_TICK);
        let now = unclosed(port);
        open.retain(|one| now.contains(one));
    }
    let mut standing = standing();
    if standing.len() > STANDING_MAX {
        standing.clear();
    }
    standing.extend(&open);
    open
}

fn unclosed(port: u16) -> BTreeSet<Unclosed> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| unclosed_in(table, port)).collect()
}

fn unclosed_in(table: &str, port: u16) -> Vec<Unclosed> {
    let one = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (&local, &remote, &state, &inode) = (fields.get(1)?, fields.get(2)?, fields.get(3)?, fields.get(9)?);
        let ((_, own_port), (address, at)) = (local.split_once(':')?, remote.split_once(':')?);
        let [own_port, at] = [own_port, at].map(|port| u16::from_str_radix(port, 16).ok());
        let is_one = OPEN.contains(&state) && inode == "0" && at? == port;
        is_one.then_some(Unclosed { peer: address_of(address)?, own_port: own_port? })
    };
    table.lines().skip(1).filter_map(one).collect()
}

/// An address in hexadecimal words of 32 bits, each in this machine's byte order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let words = hex.as_bytes().chunks(8).map(|word| u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let address = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::clock::monotonic;
    use crate::model::TransferOptions;

    #[test]
    #[cfg(target_endian = "little")]
    fn tables_as_the_kernel_writes_them() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:A6C6 0200007F:0369 04 00002000:00000000 01:00000014 00000003     0        0 0 4 0000000000000000\n\
            1: 0100007F:A6C7 0300007F:0369 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000\n\
            2: 0100007F:A6C8 0400007F:0369 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000000000000\n\
            3: 0100007F:A6C9 0500007F:0016 0B 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000000000000\n";
        let peers = |port| unclosed_in(table, port).iter().map(|one| (one.peer, one.own_port)).collect::<Vec<_>>();
        assert_eq!(peers(873), [(IpAddr::from([127, 0, 0, 2]), 0xa6c6)]);
        assert_eq!(peers(22), [(IpAddr::from([127, 0, 0, 5]), 0xa6c9)]);
        assert_eq!(peers(80), []);
        let mapped = address_of("0000000000000000FFFF00000100007F").unwrap();
        assert_eq!(mapped, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(address_of("00000000000000000000000001000000"), Some(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_server_that_closes_in_time_leaves_nothing_to_be_waited_for() {
        for closes in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let peer = stream.peer_addr().unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let waits = std::thread::spawn(move || Line { stream, peer }.hold(Duration::from_millis(500)));
            // The server sees the end of the connection.
            assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
            if closes {
                drop(server);
            }
            assert_eq!(waits.join().unwrap(), closes);
            let is_noted = severed().1.iter().any(|severed| severed.peer == Some(peer));
            assert_eq!(is_noted, !closes);
        }
    }

    /// A server that did not read its connection wrote the data in it minutes later, over what a newer run had sent.
    #[test]
    fn a_closed_connection_that_is_not_read_is_seen_until_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let destination = Destination::Daemon { host: "u@127.0.0.1".into(), module: "m".into() };
        let options = TransferOptions { port: Some(port), ..TransferOptions::default() };
        let target = Target { destination, options };
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        while client.write(&[0; 65_536]).is_ok() {}
        assert_eq!(known_to(&target), Lingers::No, "it has an owner");
        drop(client);
        // A process that another test starts holds a copy of the socket for a moment.
        let begun = monotonic();
        while known_to(&target) != Lingers::Surely {
            assert!(begun.elapsed().as_secs() < 10, "it is not seen");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        // A reset ends the connection at once; a server that reads to the end takes longer.
        drop(server);
        let begun = monotonic();
        while known_to(&target) != Lingers::No {
            assert!(begun.elapsed().as_secs() < 10, "it is still there");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
