//! The endpoint of the control API on TCP.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where to listen, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// The file with the token that is needed to change anything. `None`: nothing can be changed.
    pub token_file: Option<PathBuf>,
}

impl Endpoint {
    /// An address as an operator gives it: a bare port means this machine alone.
    pub fn parse_address(text: &str) -> Option<SocketAddr> {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let port = text.strip_prefix("localhost:").unwrap_or(text);
        text.parse().ok().or_else(|| port.parse().ok().map(loopback))
    }

    /// Whether other machines could read without a token.
    pub fn is_open(&self) -> bool {
        self.token_file.is_none() && !self.address.ip().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_is_on_this_machine() {
        for (text, address, is_open) in [
            ("7878", Some("127.0.0.1:7878"), false),
            ("localhost:1", Some("127.0.0.1:1"), false),
            ("0.0.0.0:1", Some("0.0.0.0:1"), true),
            ("[::1]:1", Some("[::1]:1"), false),
            ("host:1", None, false),
            ("127.0.0.1", None, false),
            ("70000", None, false),
        ] {
            let found = Endpoint::parse_address(text);
            assert_eq!(found, address.and_then(|address| address.parse().ok()), "{text}");
            let open = |token_file| found.is_some_and(|address| Endpoint { address, token_file }.is_open());
            assert_eq!((open(None), open(Some("token".into()))), (is_open, false), "{text}");
        }
    }
}
