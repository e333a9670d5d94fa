//! Reads a mirror's destination the way rsync does. Pure: relative paths are resolved against a given directory, and nothing is
//! looked up.
//!
//! A colon before the first slash makes a destination remote: `host:path` goes through ssh, `host::module` and `rsync://` to an
//! rsync daemon. A local name with a colon is therefore written `./a:b`. Forms that rsync would accept but that nobody means
//! are refused: a URL of another kind, a word that belongs to an option, a `~` that no shell has expanded. A password is never
//! repeated.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use memchr::memmem;

use crate::model::{Destination, Host, HostError};

/// A parsed destination, with the port of `rsync://host:port/` if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    pub destination: Destination,
    pub port: Option<u16>,
}

/// Why a destination is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    #[error("it is empty")]
    Empty,
    #[error("{0}")]
    Host(HostError),
    #[error("the module is missing")]
    NoModule,
    #[error("the port is no number from 1 to 65535")]
    BadPort,
    #[error("syncq speaks rsync:// and host:/path, not {0}://")]
    Scheme(String),
    #[error("behind rsync: come two slashes")]
    OneSlash,
    #[error("a ~ that no shell has seen is no home directory")]
    Tilde,
    #[error("it belongs to an option")]
    Value,
    #[error("it has no path, and no module")]
    NoPath,
}

impl DestinationError {
    /// The text to write instead of `given`.
    pub fn hint(&self, given: &OsStr) -> String {
        let given = given.to_string_lossy();
        match self {
            Self::Host(HostError::Password) => {
                "leave the password out: --password-file FILE for an rsync daemon, a key for ssh; a path with an @ is written \
                 host:./a@b"
                    .to_owned()
            }
            Self::Tilde => format!("write the path in full, or ./{given} for a directory of that name"),
            Self::Value => format!("write --delete={given} or --attrib={given}, or ./{given} for a directory of that name"),
            Self::NoPath => format!("write {given}:/path or {given}::module, or ./{given} for a directory of that name"),
            Self::Scheme(scheme) if scheme == "ssh" || scheme == "sftp" || scheme == "scp" => {
                "write [user@]host:/path, and the port as --port N".to_owned()
            }
            _ => "write /path, [user@]host:/path, [user@]host::module or rsync://host/module".to_owned(),
        }
    }
}

/// `given` for a message. The text between a colon and an @ may be a password, and is hidden.
pub fn shown(given: &OsStr) -> String {
    let text = given.to_string_lossy();
    let begin = text.find("://").map_or(0, |at| at + "://".len());
    let (colon, at) = (text.get(begin..).and_then(|rest| rest.find(':')).map(|at| begin + at), text.rfind('@'));
    match (colon, at) {
        (Some(colon), Some(at)) if colon < at => {
            let (before, behind) = (text.get(..=colon), text.get(at..));
            format!("{}***{}", before.unwrap_or_default(), behind.unwrap_or_default())
        }
        _ => text.into_owned(),
    }
}

/// Reads `given`; a relative local path is resolved against `here`.
pub fn parse(given: &OsStr, here: &Path) -> Result<Parsed, DestinationError> {
    let bytes = given.as_bytes();
    if bytes.is_empty() {
        return Err(DestinationError::Empty);
    }
    if let Some((scheme, rest)) = scheme(bytes) {
        return if scheme.eq_ignore_ascii_case("rsync") { url(rest) } else { Err(DestinationError::Scheme(scheme)) };
    }
    let Some((host, rest)) = split_host(bytes) else {
        let path = local(given)?;
        return Ok(Parsed { destination: Destination::Local(absolute(path, here)), port: None });
    };
    if hides_password(rest) {
        return Err(DestinationError::Host(HostError::Password));
    }
    if host.eq_ignore_ascii_case(b"rsync") && rest.starts_with(b"/") {
        return Err(DestinationError::OneSlash);
    }
    let host = checked_host(host)?;
    let destination = match rest.strip_prefix(b":") {
        Some(module) => Destination::Daemon { host, module: checked_module(module)? },
        None => Destination::Ssh { host, path: remote_path(rest) },
    };
    Ok(Parsed { destination, port: None })
}

/// Splits `scheme://rest`.
fn scheme(bytes: &[u8]) -> Option<(String, &[u8])> {
    let at = memmem::find(bytes, b"://")?;
    let scheme = std::str::from_utf8(bytes.get(..at)?).ok()?;
    let is_one = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_one.then(|| (scheme.to_owned(), bytes.get(at + 3..).unwrap_or_default()))
}

/// Whether the text behind the first colon is a password, with the real host behind it: `secret@host::m`, `secret@host:/x`.
fn hides_password(rest: &[u8]) -> bool {
    let is_host = |name: &[u8]| !name.is_empty() && !name.iter().any(|&b| b"/@".contains(&b));
    let mut ats = rest.iter().enumerate().filter(|(_, b)| **b == b'@').map(|(at, _)| at);
    let slash = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
    // `host::module` contains no password, whatever its path is called.
    !rest.starts_with(b":")
        && ats.any(|at| {
            let behind = rest.get(at + 1..).unwrap_or_default();
            let module = memmem::find(behind, b"::");
            at < slash || module.and_then(|module| behind.get(..module)).is_some_and(is_host)
        })
}

/// Takes a name without a colon as a directory, unless it certainly is not one.
fn local(given: &OsStr) -> Result<&OsStr, DestinationError> {
    let Some(text) = given.to_str() else { return Ok(given) };
    let first = text.split('/').next().unwrap_or_default();
    if first.starts_with('~') {
        return Err(DestinationError::Tilde);
    }
    if ["true", "false", "yes", "no", "on", "off", "0", "1"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Err(DestinationError::Value);
    }
    let is_address = text.parse::<IpAddr>().is_ok() || text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if !text.contains('/') && (is_address || text.contains('@')) {
        return Err(DestinationError::NoPath);
    }
    Ok(given)
}

/// Reads `[user@]host[:port]/module[/path]`, the part behind `rsync://`.
fn url(rest: &[u8]) -> Result<Parsed, DestinationError> {
    let password = DestinationError::Host(HostError::Password);
    let slash = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
    let (authority, module) = rest.split_at(slash);
    let (user, host) = match authority.iter().rposition(|&b| b == b'@') {
        Some(at) => (authority.get(..at), authority.get(at + 1..).unwrap_or_default()),
        None => (None, authority),
    };
    if user.is_some_and(|user| user.contains(&b':')) {
        return Err(password);
    }
    let (host, port) = match split_host(host) {
        Some((host, digits)) => (host, Some(digits)),
        None => (host, None),
    };
    let port = match port {
        None | Some(b"") => None,
        Some(digits) => {
            let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
            // A wrong port with an @ behind it comes from `rsync://user:pass/word@host/module`, so hide the text.
            let wrong = if user.is_none() && module.contains(&b'@') { password } else { DestinationError::BadPort };
            Some(number.filter(|&port: &u16| port != 0).ok_or(wrong)?)
        }
    };
    let module = checked_module(module.strip_prefix(b"/").unwrap_or_default())?;
    let host = match user {
        Some(user) => [user, b"@", host].concat(),
        None => host.to_vec(),
    };
    Ok(Parsed { destination: Destination::Daemon { host: checked_host(&host)?, module }, port })
}

/// Splits at the colon that ends the host, if one stands before the first slash. The colons of an IPv6 address in brackets do
/// not count.
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
    let text = std::str::from_utf8(host).map_err(|_| HostError::Unreadable);
    text.and_then(Host::parse).map(|host| host.to_string()).map_err(DestinationError::Host)
}

fn checked_module(module: &[u8]) -> Result<OsString, DestinationError> {
    let module = without_slashes_behind(module);
    if module.is_empty() || module.starts_with(b"/") {
        return Err(DestinationError::NoModule);
    }
    Ok(OsString::from_vec(module.to_vec()))
}

/// `host:` means the home directory on the host. An empty path would become `host:/` as soon as a slash is added.
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
            ("./false", "local /here/false/", None),
            ("./u@h", "local /here/u@h/", None),
            ("a/~", "local /here/a/~/", None),
            ("./http://h", "local /here/http:/h/", None),
            ("host:./a@b:c", "ssh host:./a@b:c/", None),
            ("host:/mail/joe@example.org:x", "ssh host:/mail/joe@example.org:x/", None),
            ("b::m/joe@example.org:x", "daemon b::m/joe@example.org:x/", None),
            ("u@example.org@b::m", "daemon u@example.org@b::m/", None),
        ] {
            assert_eq!(read(given), Ok((expected.to_owned(), port)), "{given}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for (given, expected) in [
            ("", DestinationError::Empty),
            (":/srv", DestinationError::Host(HostError::Missing)),
            ("u@:/srv", DestinationError::Host(HostError::Missing)),
            ("::www", DestinationError::Host(HostError::Missing)),
            ("b::", DestinationError::NoModule),
            ("b::/", DestinationError::NoModule),
            ("rsync://b", DestinationError::NoModule),
            ("rsync://b/", DestinationError::NoModule),
            ("rsync:///www", DestinationError::Host(HostError::Missing)),
            ("rsync://b:0/www", DestinationError::BadPort),
            ("rsync://b:x/www", DestinationError::BadPort),
            ("-oProxyCommand=x:/srv", DestinationError::Host(HostError::Unreadable)),
            ("u@-x:/srv", DestinationError::Host(HostError::Unreadable)),
            ("a b:/srv", DestinationError::Host(HostError::Unreadable)),
            ("http://h/x", DestinationError::Scheme("http".into())),
            ("ssh://u@h/x", DestinationError::Scheme("ssh".into())),
            ("rsync+ssh://h/x", DestinationError::Scheme("rsync+ssh".into())),
            ("rsync:/h/m", DestinationError::OneSlash),
            ("u:p@h::m", DestinationError::Host(HostError::Password)),
            ("u:p@h:/x", DestinationError::Host(HostError::Password)),
            ("u:p@h/m", DestinationError::Host(HostError::Password)),
            ("u:p/w@h::m", DestinationError::Host(HostError::Password)),
            ("u:p:w@h::m", DestinationError::Host(HostError::Password)),
            ("rsync://u:p@h/m", DestinationError::Host(HostError::Password)),
            ("rsync://u:p@h:77/m", DestinationError::Host(HostError::Password)),
            ("rsync://u:p/w@h/m", DestinationError::Host(HostError::Password)),
            ("~", DestinationError::Tilde),
            ("~/x", DestinationError::Tilde),
            ("~joe/x", DestinationError::Tilde),
            ("false", DestinationError::Value),
            ("No", DestinationError::Value),
            ("u@h", DestinationError::NoPath),
            ("192.0.2.7", DestinationError::NoPath),
            ("[::1]", DestinationError::NoPath),
        ] {
            assert_eq!(read(given), Err(expected), "{given}");
        }
        let latin = OsStr::from_bytes(b"h\xe9::www");
        assert_eq!(parse(latin, Path::new("/")), Err(DestinationError::Host(HostError::Unreadable)));
    }

    #[test]
    fn a_module_may_be_any_bytes() {
        let parsed = parse(OsStr::from_bytes(b"b::caf\xe9/"), Path::new("/")).expect("a destination");
        assert_eq!(parsed.destination.to_arg().as_encoded_bytes(), b"b::caf\xe9/");
    }

    /// `user:password@host::m` was taken for an ssh host `user`, and the password appeared in the log and in `status`.
    #[test]
    fn a_password_is_never_repeated() {
        for given in
            ["u:s3cret@h::m", "rsync://u:s3cret@h/m", "http://u:s3cret@h:80/m", "u:s3c/s3cret@h::m", "u:s3cret@h"]
        {
            let given = OsStr::new(given);
            let error = parse(given, Path::new("/here")).expect_err("refused");
            for text in [shown(given), error.to_string()] {
                assert!(!text.contains("s3c"), "{text}");
            }
            assert!(!error.hint(given).contains("s3c"), "{}", error.hint(given));
        }
        assert_eq!(shown(OsStr::new("rsync://h:8730/m")), "rsync://h:8730/m");
    }
}
