//! Which servers a target's host name leads to. If the name leads to other servers than before, those may lack what was
//! sent.
//!
//! Names are looked up now and then, apart from runs, in which rsync looks them up by itself. A name with several addresses
//! is taken for the same servers as long as one address stays. A name that cannot be looked up says nothing.
//!
//! Deliberately absent: targets through ssh. Host keys tell servers apart there, and ssh refuses a changed key. Its host
//! names may be aliases of its own configuration.

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs as _};

use crate::model::{Destination, Target};

/// The resolver wants a port; any would do, since only addresses are used.
const PORT: u16 = 873;

/// The result of comparing a name's addresses with the known ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Led {
    /// The known addresses, or the lookup failed.
    AsBefore,
    /// Some of the known addresses, or none was known before. Holds the present addresses.
    On(BTreeSet<IpAddr>),
    /// None of the known addresses. Holds the present addresses.
    Elsewhere(BTreeSet<IpAddr>),
}

/// The name of the host on which a target's rsync daemon runs. `None` if the host is given by address, or there is no
/// daemon.
pub fn host_name(target: &Target) -> Option<&str> {
    let Destination::Daemon { host, .. } = &target.destination else { return None };
    let name = host.rsplit_once('@').map_or(host.as_str(), |(_, name)| name);
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    (!is_address).then_some(name)
}

/// Looks up the name; empty if that fails. May take as long as the system's resolver does.
pub fn addresses(name: &str) -> BTreeSet<IpAddr> {
    (name, PORT).to_socket_addrs().into_iter().flatten().map(|found| found.ip()).collect()
}

/// Compares the addresses `now` of a name with those known `before`.
pub fn led(before: &BTreeSet<IpAddr>, now: BTreeSet<IpAddr>) -> Led {
    match () {
        () if now.is_empty() || now == *before => Led::AsBefore,
        () if before.is_empty() || !now.is_disjoint(before) => Led::On(now),
        () => Led::Elsewhere(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TransferOptions;

    #[test]
    fn only_names_of_daemons_are_looked_up() {
        let daemon = |host: &str| Destination::Daemon { host: host.to_owned(), module: "www".into() };
        for (destination, expected) in [
            (daemon("host-b"), Some("host-b")),
            (daemon("backup@host-b.example"), Some("host-b.example")),
            (daemon("backup@192.0.2.7"), None),
            (daemon("[2001:db8::7]"), None),
            (Destination::Ssh { host: "host-b".to_owned(), path: "/srv".into() }, None),
            (Destination::Local("/srv".into()), None),
        ] {
            let target = Target { destination, options: TransferOptions::default() };
            assert_eq!(host_name(&target), expected, "{target:?}");
        }
    }

    /// When a name came to lead to another server, that server was sent only new changes.
    #[test]
    fn a_name_leads_elsewhere_if_no_address_stays() {
        let set = |last: &[u8]| last.iter().map(|&last| IpAddr::from([192, 0, 2, last])).collect::<BTreeSet<_>>();
        for (before, now, expected) in [
            (&[][..], &[1][..], Led::On(set(&[1]))),
            (&[1], &[1], Led::AsBefore),
            (&[1], &[], Led::AsBefore),
            (&[1, 2], &[2, 3], Led::On(set(&[2, 3]))),
            (&[1, 2], &[3], Led::Elsewhere(set(&[3]))),
        ] {
            assert_eq!(led(&set(before), set(now)), expected, "{before:?} {now:?}");
        }
    }
}
