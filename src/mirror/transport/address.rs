//! Which servers a target's host name leads to: where it leads to others than before, those may lack what was sent.
//!
//! Names are looked up apart from runs, which rsync makes by itself, and now and then. A name with several addresses is
//! taken for the same servers as long as one of them stays. What cannot be looked up says nothing.
//!
//! Deliberately absent: targets through ssh. Host keys are what tells servers apart there, and ssh refuses another one; its
//! names may be aliases of its own configuration.

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs as _};

use crate::model::{Destination, Target};

/// Any: only addresses are asked for.
const PORT: u16 = 873;

/// What a look tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Led {
    /// To those known, or nobody knows.
    AsBefore,
    /// To some of those known, or it was not known before; and to which now.
    On(BTreeSet<IpAddr>),
    /// To none of those known.
    Elsewhere(BTreeSet<IpAddr>),
}

/// The name of the host that a target's rsync daemon runs on, unless it is an address.
pub fn host_name(target: &Target) -> Option<&str> {
    let Destination::Daemon { host, .. } = &target.destination else { return None };
    let name = host.rsplit_once('@').map_or(host.as_str(), |(_, name)| name);
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    (!is_address).then_some(name)
}

/// Looks up the name. May take as long as the system's resolver does.
pub fn addresses(name: &str) -> BTreeSet<IpAddr> {
    (name, PORT).to_socket_addrs().into_iter().flatten().map(|found| found.ip()).collect()
}

/// What it means that a name leads to `now` that led to `before`.
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

    /// A name that led to another server had only new changes sent there.
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
