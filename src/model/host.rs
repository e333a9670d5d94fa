//! `[user@]host`, fit to stand before `:` or `::` in an argument of rsync, and of ssh behind it. Pure.

use std::fmt;
use std::net::Ipv6Addr;

/// A host, and the user who is asked for there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub user: Option<String>,
    /// An IPv6 address is in brackets.
    pub name: String,
}

/// Why a text is no host. None of these errors repeats the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the host is missing")]
    Missing,
    #[error("there is a password in it")]
    Password,
    #[error("the host starts with '-' or is no readable text")]
    Unreadable,
}

impl Host {
    pub fn parse(given: &str) -> Result<Self, HostError> {
        let (user, name) = match given.rsplit_once('@') {
            Some((user, name)) => (Some(user), name),
            None => (None, given),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(HostError::Password);
        }
        if name.is_empty() {
            return Err(HostError::Missing);
        }
        if user.is_some_and(|user| !is_plain(user)) {
            return Err(HostError::Unreadable);
        }
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = match address.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            // An address with an interface behind it: `[fe80::1%eth0]`.
            Err(_)
                if is_plain(name) && (!name.contains(':') || (address.len() < name.len() && address.contains('%'))) =>
            {
                name.to_owned()
            }
            Err(_) => return Err(HostError::Unreadable),
        };
        Ok(Self { user: user.map(str::to_owned), name })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => write!(f, "{user}@{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Whether rsync and ssh take `name` for a host: not for an option, a path, or several arguments.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_and_without_users() {
        for (given, expected) in [
            ("h", Ok("h")),
            ("u@h.example", Ok("u@h.example")),
            ("u@example.org@h", Ok("u@example.org@h")),
            ("fe80::1", Ok("[fe80::1]")),
            ("u@[::1]", Ok("u@[::1]")),
            ("[fe80::1%eth0]", Ok("[fe80::1%eth0]")),
            ("", Err(HostError::Missing)),
            ("u@", Err(HostError::Missing)),
            ("u:secret@h", Err(HostError::Password)),
            ("u:se@cret@h", Err(HostError::Password)),
            ("h:8730", Err(HostError::Unreadable)),
            ("-oProxyCommand=x", Err(HostError::Unreadable)),
            ("u@-x", Err(HostError::Unreadable)),
            ("-u@x", Err(HostError::Unreadable)),
            ("a b", Err(HostError::Unreadable)),
            ("http://h", Err(HostError::Unreadable)),
        ] {
            let read = Host::parse(given).map(|host| host.to_string());
            assert_eq!(read.as_deref(), expected.as_deref(), "{given}");
        }
    }
}
