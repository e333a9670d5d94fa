//! Reads a mirror's destination the way rsync does. Pure: relative paths are resolved against a directory given, and
//! nothing is looked up.
//!
//! A colon before the first slash makes it remote: `host:path` goes through ssh, `host::module` and `rsync://` to an
//! rsync daemon. A local name with a colon is therefore written `./a:b`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use crate::model::Destination;

/// What a destination says: where, and for `rsync://host:port/` the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    pub destination: Destination,
    pub port: Option<u16>,
}

/// Why a destination makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    #[error("it is empty")]
    Empty,
    #[error("the host is missing")]
    NoHost,
    #[error("the host starts with '-' or is no readable text")]
    BadHost,
    #[error("the module is missing")]
    NoModule,
    #[error("the port is no number from 1 to 65535")]
    BadPort,
}

/// Reads `given`; a relative local path is meant from `here`.
pub fn parse(given: &OsStr, here: &Path) -> Result<Parsed, DestinationError> {
    let bytes = given.as_bytes();
    if bytes.is_empty() {
        return Err(DestinationError::Empty);
    }
    if let Some((scheme, rest)) = bytes.split_at_checked(b"rsync://".len())
        && scheme.eq_ignore_ascii_case(b"rsync://")
    {
        return url(rest);
    }
    let Some((host, rest)) = split_host(bytes) else {
        return Ok(Parsed { destination: Destination::Local(absolute(given, here)), port: None });
    };
    let host = checked_host(host)?;
    let destination = match rest.strip_prefix(b":") {
        Some(module) => Destination::Daemon { host, module: checked_module(module)? },
        None => Destination::Ssh { host, path: remote_path(rest) },
    };
    Ok(Parsed { destination, port: None })
}

/// `[user@]host[:port]/module[/path]`, what follows `rsync://`.
fn url(rest: &[u8]) -> Result<Parsed, DestinationError> {
    let slash = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
    let (authority, module) = rest.split_at(slash);
    let (host, port) = match split_host(authority) {
        Some((host, digits)) => (host, Some(digits)),
        None => (authority, None),
    };
    let port = match port {
        None | Some(b"") => None,
        Some(digits) => {
            let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
            Some(number.filter(|&port: &u16| port != 0).ok_or(DestinationError::BadPort)?)
        }
    };
    let module = checked_module(module.strip_prefix(b"/").unwrap_or_default())?;
    Ok(Parsed { destination: Destination::Daemon { host: checked_host(host)?, module }, port })
}

/// Splits at the colon that ends the host, if there is one before the first slash. The colons of an IPv6 address in
/// brackets do not count.
fn split_host(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut bracketed = false;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'[' => bracketed = true,
            b']' => bracketed = false,
            b'/' => return None,
            b':' if !bracketed => {
                let (host, rest) = bytes.split_at(at);
                return Some((host, rest.get(1..).unwrap_or_default()));
            }
            _ => {}
        }
    }
    None
}

fn checked_host(host: &[u8]) -> Result<String, DestinationError> {
    let name = host.rsplit(|&b| b == b'@').next().unwrap_or_default();
    if name.is_empty() {
        return Err(DestinationError::NoHost);
    }
    let text = std::str::from_utf8(host).map_err(|_| DestinationError::BadHost)?;
    // A leading dash would be an option to rsync or ssh.
    if text.starts_with('-') || name.starts_with(b"-") || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(DestinationError::BadHost);
    }
    Ok(text.to_owned())
}

fn checked_module(module: &[u8]) -> Result<OsString, DestinationError> {
    let module = without_slashes_behind(module);
    if module.is_empty() || module.starts_with(b"/") {
        return Err(DestinationError::NoModule);
    }
    Ok(OsString::from_vec(module.to_vec()))
}

/// `host:` is the home directory there. Left empty it would become `host:/` as soon as a slash is added.
fn remote_path(path: &[u8]) -> PathBuf {
    let shorter = without_slashes_behind(path);
    let path: &[u8] = match (path, shorter) {
        (b"", _) => b".",
        (_, b"") => b"/",
        _ => shorter,
    };
    PathBuf::from(OsStr::from_bytes(path))
}

fn without_slashes_behind(mut path: &[u8]) -> &[u8] {
    while let Some(shorter) = path.strip_suffix(b"/") {
        path = shorter;
    }
    path
}

/// Makes a path absolute and drops `.` and trailing slashes, but keeps `..`, which only the file system can resolve.
pub fn absolute(path: &OsStr, here: &Path) -> PathBuf {
    here.join(path).components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &str) -> Result<(String, Option<u16>), DestinationError> {
        let parsed = parse(OsStr::new(given), Path::new("/here"))?;
        let kind = match parsed.destination {
            Destination::Local(_) => "local",
            Destination::Ssh { .. } => "ssh",
            Destination::Daemon { .. } => "daemon",
        };
        let arg = parsed.destination.to_arg().into_string().expect("text");
        Ok((format!("{kind} {arg}"), parsed.port))
    }

    #[test]
    fn destinations_mean_what_they_mean_to_rsync() {
        for (given, expected, port) in [
            ("/backup/www", "local /backup/www/", None),
            ("/backup//www/", "local /backup/www/", None),
            ("/", "local /", None),
            ("mirror", "local /here/mirror/", None),
            ("./a:b", "local /here/a:b/", None),
            ("d/a:b", "local /here/d/a:b/", None),
            ("../up", "local /here/../up/", None),
            ("host:/srv/www/", "ssh host:/srv/www/", None),
            ("u@host:www", "ssh u@host:www/", None),
            ("host:~/www", "ssh host:~/www/", None),
            ("host:", "ssh host:./", None),
            ("host:/", "ssh host:/", None),
            ("C:\\www", "ssh C:\\www/", None),
            ("[::1]:/srv", "ssh [::1]:/srv/", None),
            ("b::www", "daemon b::www/", None),
            ("u@b::www/sub/", "daemon u@b::www/sub/", None),
            ("u@[fe80::1]::www", "daemon u@[fe80::1]::www/", None),
            ("b::a:b", "daemon b::a:b/", None),
            ("rsync://b/www", "daemon b::www/", None),
            ("rsync://u@b:8730/www/sub", "daemon u@b::www/sub/", Some(8730)),
            ("RSYNC://[::1]:8730/www", "daemon [::1]::www/", Some(8730)),
            ("rsync://b:/www", "daemon b::www/", None),
        ] {
            assert_eq!(read(given), Ok((expected.to_owned(), port)), "{given}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for (given, expected) in [
            ("", DestinationError::Empty),
            (":/srv", DestinationError::NoHost),
            ("u@:/srv", DestinationError::NoHost),
            ("::www", DestinationError::NoHost),
            ("b::", DestinationError::NoModule),
            ("b::/", DestinationError::NoModule),
            ("rsync://b", DestinationError::NoModule),
            ("rsync://b/", DestinationError::NoModule),
            ("rsync:///www", DestinationError::NoHost),
            ("rsync://b:0/www", DestinationError::BadPort),
            ("rsync://b:x/www", DestinationError::BadPort),
            ("-oProxyCommand=x:/srv", DestinationError::BadHost),
            ("u@-x:/srv", DestinationError::BadHost),
            ("a b:/srv", DestinationError::BadHost),
        ] {
            assert_eq!(read(given), Err(expected), "{given}");
        }
        let latin = OsStr::from_bytes(b"h\xe9::www");
        assert_eq!(parse(latin, Path::new("/")), Err(DestinationError::BadHost));
    }

    #[test]
    fn a_module_may_be_any_bytes() {
        let parsed = parse(OsStr::from_bytes(b"b::caf\xe9/"), Path::new("/")).expect("a destination");
        assert_eq!(parsed.destination.to_arg().as_encoded_bytes(), b"b::caf\xe9/");
    }
}
