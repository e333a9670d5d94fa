//! Finds the directory of a module of an rsync daemon on this machine: to mirror into that module is to mirror into that
//! directory.
//!
//! The daemon is the process that listens on the port; its configuration follows from its command line. If no such process can
//! be seen (it may belong to another user), `/etc/rsyncd.conf` counts, provided that it names the same port. If another program
//! listens (a proxy), or the configuration has variables, nothing is concluded.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// The defaults of an rsync daemon.
const CONFIG: &str = "/etc/rsyncd.conf";
const PORT: u16 = 873;
/// A longer configuration, or deeper includes, make the result unknown.
const BYTES_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 8;
/// Programs that listen on behalf of others.
const SUPER_SERVERS: [&str; 4] = ["systemd", "xinetd", "inetd", "init"];

/// Whether a host's name or address certainly means this machine. Asks no name service.
pub fn is_this_machine(name: &str) -> bool {
    let name = name.trim_matches(['[', ']']);
    let is_own_name = || {
        let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        own.trim().eq_ignore_ascii_case(name)
    };
    name.eq_ignore_ascii_case("localhost") || address(name).is_some_and(is_own_address) || is_own_name()
}

/// The address in `name` itself, or its address in `/etc/hosts`.
pub fn address(name: &str) -> Option<IpAddr> {
    let name = name.trim_matches(['[', ']']);
    let own = name.eq_ignore_ascii_case("localhost").then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    name.parse().ok().or(own).or_else(|| of_hosts(&fs::read_to_string("/etc/hosts").ok()?, name))
}

fn of_hosts(hosts: &str, name: &str) -> Option<IpAddr> {
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|known| known.eq_ignore_ascii_case(name)).then_some(address)
    })
}

/// Whether packets to the address would leave from the same address, which is then this machine's. Sends nothing.
fn is_own_address(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let from = || {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((address, PORT)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    address.is_loopback() || from() == Some(address)
}

/// The directory behind `module[/path]` of the rsync daemon that listens at `host` on `port` of this machine.
pub fn directory(host: &str, port: Option<u16>, module: &[u8]) -> Option<PathBuf> {
    let address = address(host);
    let port = port.unwrap_or(PORT);
    let (name, below) = match module.iter().position(|&b| b == b'/') {
        Some(at) => (module.get(..at)?, module.get(at + 1..).unwrap_or_default()),
        None => (module, &b""[..]),
    };
    let (root, config) = match listener(address, port) {
        Listener::Rsync { root, config } => (root, config),
        Listener::Unknown => (PathBuf::from("/"), PathBuf::from(CONFIG)),
        Listener::Other => return None,
    };
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let settings = Settings::read(&inside(&config), &inside)?;
    if settings.port.unwrap_or(PORT) != port && root == Path::new("/") {
        return None;
    }
    let path = settings.path_of(name)?;
    Some(inside(&path).join(PathBuf::from(OsString::from_vec(below.to_vec()))))
}

enum Listener {
    /// An rsync, or a super-server that starts one. `root` is the root directory of the process.
    Rsync { root: PathBuf, config: PathBuf },
    /// No listener, or one whose process cannot be inspected.
    Unknown,
    /// Another program.
    Other,
}

fn listener(address: Option<IpAddr>, port: u16) -> Listener {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, address, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return Listener::Unknown;
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let holds = |process: &PathBuf| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        open.filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|to| sockets.iter().any(|socket| to.as_os_str() == socket.as_str()))
    };
    let mut found = Listener::Unknown;
    for process in processes.filter(holds) {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        match name.trim() {
            "rsync" => return started(&process),
            name if SUPER_SERVERS.contains(&name) => {
                found = Listener::Rsync { root: process.join("root"), config: CONFIG.into() };
            }
            _ if matches!(found, Listener::Unknown) => found = Listener::Other,
            _ => {}
        }
    }
    found
}

/// Reads how an rsync daemon was started.
fn started(process: &Path) -> Listener {
    let words = fs::read(process.join("cmdline")).unwrap_or_default();
    let config = config_of(&words).unwrap_or_else(|| CONFIG.into());
    // A relative path was resolved in the directory where the daemon was started, which most likely is still its working
    // directory.
    let config = match config.is_relative() {
        true => fs::read_link(process.join("cwd")).unwrap_or_default().join(config),
        false => config,
    };
    Listener::Rsync { root: process.join("root"), config }
}

/// The inodes of the sockets that listen on `port`, at `address` or at all addresses, from a table in `/proc/net`.
fn listening(table: &str, address: Option<IpAddr>, port: u16) -> Vec<String> {
    let row = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let ((bound, own), state) = (words.nth(1)?.rsplit_once(':')?, words.nth(1)?);
        let inode = words.nth(5)?;
        let own = u16::from_str_radix(own, 16).ok()?;
        let bound = bound_to(bound)?;
        let serves = bound.is_unspecified() || address.is_none_or(|address| bound == address);
        (own == port && state == "0A" && serves).then(|| inode.to_owned())
    };
    table.lines().filter_map(row).collect()
}

/// Reads an address in the form of `/proc/net`: groups of four bytes, each in this machine's byte order.
fn bound_to(hex: &str) -> Option<IpAddr> {
    let groups = (0..hex.len()).step_by(8).map(|at| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok());
    let bytes: Vec<u8> = groups.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    match (<[u8; 4]>::try_from(bytes.as_slice()), <[u8; 16]>::try_from(bytes.as_slice())) {
        (Ok(bytes), _) => Some(bytes.into()),
        (_, Ok(bytes)) => Some(IpAddr::from(bytes).to_canonical()),
        _ => None,
    }
}

/// The value of `--config` in a command line in the form of `/proc`.
fn config_of(words: &[u8]) -> Option<PathBuf> {
    let mut words = words.split(|&b| b == 0);
    while let Some(word) = words.next() {
        let value = word.strip_prefix(b"--config=").or_else(|| (word == b"--config").then(|| words.next()).flatten());
        if let Some(value) = value {
            return Some(OsString::from_vec(value.to_vec()).into());
        }
    }
    None
}

/// The needed parts of an `rsyncd.conf`.
#[derive(Debug, Default)]
struct Settings {
    port: Option<u16>,
    /// The global `path`, which holds for every module without one.
    path: Option<Vec<u8>>,
    modules: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Settings {
    /// Reads a configuration. `inside` turns a path of the daemon's into one that this process can open.
    fn read(file: &Path, inside: &dyn Fn(&Path) -> PathBuf) -> Option<Self> {
        let mut settings = Self::default();
        settings.add(file, inside, 0)?;
        Some(settings)
    }

    fn add(&mut self, file: &Path, inside: &dyn Fn(&Path) -> PathBuf, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        if file.is_dir() {
            let mut files: Vec<_> = fs::read_dir(file).ok()?.flatten().map(|entry| entry.path()).collect();
            files.retain(|file| file.extension().is_some_and(|kind| kind == "conf" || kind == "inc"));
            files.sort();
            return files.iter().try_for_each(|file| self.add(file, inside, depth + 1));
        }
        let bytes = fs::read(file).ok().filter(|bytes| bytes.len() <= BYTES_MAX)?;
        for line in joined_lines(&bytes) {
            let line = line.trim_ascii();
            match line {
                [] | [b'#' | b';', ..] => {}
                [b'[', rest @ ..] => {
                    let end = rest.iter().position(|&b| b == b']').unwrap_or(rest.len());
                    self.modules.push((rest.get(..end).unwrap_or_default().trim_ascii().to_vec(), None));
                }
                [b'&', rest @ ..] => {
                    let rest = rest.strip_prefix(b"include").or_else(|| rest.strip_prefix(b"merge"))?;
                    let named = PathBuf::from(OsString::from_vec(rest.trim_ascii().to_vec()));
                    self.add(&inside(&named), inside, depth + 1)?;
                }
                _ => self.set(line),
            }
        }
        Some(())
    }

    fn set(&mut self, line: &[u8]) {
        let Some(at) = line.iter().position(|&b| b == b'=') else { return };
        let (key, value) = line.split_at(at);
        let key: Vec<u8> = key.iter().filter(|b| !b.is_ascii_whitespace()).map(u8::to_ascii_lowercase).collect();
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        // rsync takes module names literally; `[global]` is not a module.
        let module = self.modules.last_mut().filter(|(name, _)| !name.eq_ignore_ascii_case(b"global"));
        match (key.as_slice(), module) {
            (b"path", Some((_, path))) => *path = Some(value.to_vec()),
            (b"path", None) => self.path = Some(value.to_vec()),
            (b"port", None) => self.port = std::str::from_utf8(value).ok().and_then(|port| port.parse().ok()),
            _ => {}
        }
    }

    /// The path of a module, unless it depends on the connection or the environment.
    fn path_of(&self, name: &[u8]) -> Option<PathBuf> {
        let (_, path) = self.modules.iter().find(|(known, _)| known == name)?;
        let path = path.as_ref().or(self.path.as_ref())?;
        (path.starts_with(b"/") && !path.contains(&b'%')).then(|| {
            // `/./` only marks the end of the chroot, and `components` drops it.
            Path::new(std::ffi::OsStr::from_bytes(path)).components().collect()
        })
    }
}

/// The lines of a file. A line that ends in a backslash is joined with the next.
fn joined_lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut continues = false;
    for line in bytes.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (line, more) = match line.strip_suffix(b"\\") {
            Some(line) => (line, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| continues) {
            Some(last) => last.extend_from_slice(line),
            None => lines.push(line.to_vec()),
        }
        continues = more;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_usual_names() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost", true),
            ("127.0.0.1", true),
            ("127.8.9.1", true),
            ("[::1]", true),
            ("192.0.2.7", false),
            ("host.example.net", false),
        ] {
            assert_eq!(is_this_machine(host), expected, "{host}");
        }
        let hosts = "# comment\n127.0.1.1 box box.example # me\n192.0.2.7\tweb2\n";
        assert_eq!(of_hosts(hosts, "BOX.example"), Some([127, 0, 1, 1].into()));
        assert_eq!(of_hosts(hosts, "web2"), Some([192, 0, 2, 7].into()));
        assert_eq!(of_hosts(hosts, "me"), None);
    }

    #[test]
    fn a_module_is_found_in_all_forms_of_a_configuration() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(&path, text).expect("a file");
            path
        };
        file("more/a.conf", "[more]\npath = /srv/more\n");
        let main = file(
            "rsyncd.conf",
            "uid = root\nPort = 8730\npath=/srv/all\n[one]\n  # path = /no\n  P a th =  /srv/\\\none \n[none]\n[var]\n\
             path = /srv/%RSYNC_USER_NAME%\n[chroot]\npath = /srv/./x\n&include /more\n",
        );
        let inside = |path: &Path| dir.path().join(path.strip_prefix("/").unwrap_or(path));
        let settings = Settings::read(&main, &inside).expect("readable");
        assert_eq!(settings.port, Some(8730));
        for (module, expected) in [
            ("one", Some("/srv/one")),
            ("none", Some("/srv/all")),
            ("var", None),
            ("chroot", Some("/srv/x")),
            ("more", Some("/srv/more")),
            ("absent", None),
        ] {
            assert_eq!(settings.path_of(module.as_bytes()), expected.map(PathBuf::from), "{module}");
        }
        assert!(Settings::read(&dir.path().join("absent"), &inside).is_none());
    }

    #[test]
    fn who_listens_and_how_it_was_started_is_read_from_proc() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:221A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n   \
                     1: 0100007F:221A 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n";
        let at = |last: u8| Some(IpAddr::from([127, 0, 0, last]));
        assert_eq!(listening(table, at(1), 8730), ["4711"]);
        assert!(listening(table, at(1), 873).is_empty() && listening(table, at(2), 8730).is_empty());
        assert_eq!(bound_to("00000000000000000000000001000000"), Some([0_u16, 0, 0, 0, 0, 0, 0, 1].into()));
        assert_eq!(bound_to("0000000000000000FFFF00000100007F"), at(1));
        for (words, expected) in [
            (&b"rsync\0--daemon\0--config=/x y\0"[..], Some("/x y")),
            (b"rsync\0--daemon\0--config\0rel.conf\0", Some("rel.conf")),
            (b"rsync\0--daemon\0", None),
        ] {
            assert_eq!(config_of(words), expected.map(PathBuf::from));
        }
    }
}
