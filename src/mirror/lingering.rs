//! Whether what a run that has ended had sent may still be on its way: this machine's kernel goes on for a dead process until
//! the other side has acknowledged all of it, for a minute and a half where that does not answer.
//!
//! Seen in `/proc/net/tcp`: a connection to the server without an owner that has not been acknowledged to its end. Nothing
//! there tells what a server has received and not yet read, or what a proxy holds: those are looked for by comparing again
//! (`queue`). Nor does an ssh connection that several runs share show the end of one of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use crate::model::{Destination, Target};

const DAEMON_PORT: u16 = 873;
const SSH_PORT: u16 = 22;

/// States of a connection whose end is not acknowledged: FIN-WAIT-1, CLOSING, LAST-ACK.
const UNACKNOWLEDGED: [&str; 3] = ["04", "0B", "09"];

/// Whether data of a dead process may still be on its way to `target`.
pub(super) fn to(target: &Target) -> bool {
    let (host, port) = match &target.destination {
        Destination::Local(_) => return false,
        Destination::Daemon { host, .. } => (host, target.options.port.unwrap_or(DAEMON_PORT)),
        Destination::Ssh { host, .. } => (host, target.options.port.unwrap_or(SSH_PORT)),
    };
    let peers: Vec<IpAddr> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| peers(&table, port))
        .collect();
    if peers.is_empty() {
        return false;
    }
    let host = host.rsplit_once('@').map_or(host.as_str(), |(_, host)| host);
    // One whose address is not known now may be any of them.
    let Ok(addresses) = (host.trim_matches(['[', ']']), port).to_socket_addrs() else { return true };
    addresses.map(|address| address.ip().to_canonical()).any(|address| peers.contains(&address))
}

/// The other ends, at `port`, of connections without an owner whose end is not acknowledged.
fn peers(table: &str, port: u16) -> Vec<IpAddr> {
    let peer = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (&remote, &state, &inode) = (fields.get(2)?, fields.get(3)?, fields.get(9)?);
        let (address, at) = remote.split_once(':')?;
        let is_one = UNACKNOWLEDGED.contains(&state) && inode == "0" && u16::from_str_radix(at, 16).ok()? == port;
        is_one.then(|| address_of(address)).flatten()
    };
    table.lines().skip(1).filter_map(peer).collect()
}

/// Words of 32 bits in hexadecimal, each in this machine's order of bytes.
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
    use std::net::{TcpListener, TcpStream};

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
        assert_eq!(peers(table, 873), [IpAddr::from([127, 0, 0, 2])]);
        assert_eq!(peers(table, 22), [IpAddr::from([127, 0, 0, 5])]);
        assert_eq!(peers(table, 80), Vec::<IpAddr>::new());
        let mapped = address_of("0000000000000000FFFF00000100007F").unwrap();
        assert_eq!(mapped, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(address_of("00000000000000000000000001000000"), Some(Ipv6Addr::LOCALHOST.into()));
    }

    /// What a server that does not read had been sent was written minutes later, over what a newer run had sent.
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
        assert!(!to(&target), "it has an owner");
        drop(client);
        // A process that another test starts holds a copy for a moment.
        let begun = monotonic();
        while !to(&target) {
            assert!(begun.elapsed().as_secs() < 10, "it is not seen");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        // A reset ends it at once; a server that has read to the end takes longer.
        drop(server);
        let begun = monotonic();
        while to(&target) {
            assert!(begun.elapsed().as_secs() < 10, "it is still there");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
