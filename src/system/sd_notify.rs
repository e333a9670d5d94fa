//! Tells the service manager the daemon's state: ready, reloading, alive, stopping. Does nothing where there is no manager.
//!
//! The protocol is systemd's: `NAME=VALUE` lines in a datagram to the socket that `NOTIFY_SOCKET` names, and
//! `WATCHDOG_USEC` for how often a sign of life is expected. The protocol is public, stable, and small enough to be spoken
//! without a library.
//!
//! A reload ends with `READY` whether the new configuration was taken or refused: the daemon serves either way. The status
//! line tells which of the two happened.
//!
//! Invariant: a manager that does not listen never holds up the daemon for long, and never stops it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::{Duration, Instant};

use super::LOG_TARGET;
use crate::clock::{monotonic, monotonic_us};
use crate::model::is_misleading;

/// How long a message waits for a manager whose socket is full.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far a message moves the manager's time limit for the start. Far above the pause between two such messages.
const START_EXTENSION: Duration = Duration::from_secs(60);

const RELOADING: &str = "reading the configuration again";

/// How many characters a status line has; `systemctl status` shows one line.
const STATUS_CHARS_MAX: usize = 300;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Watchdog>,
    /// The status line that the manager was told last.
    told: String,
}

#[derive(Debug)]
struct Watchdog {
    /// Half of the silence that the manager tolerates, as systemd recommends.
    interval: Duration,
    last: Option<Instant>,
}

impl Manager {
    /// The manager that the environment names.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name)).unwrap_or_else(|error| {
            log::warn!(target: LOG_TARGET, error:%; "cannot reach the service manager, it will not learn that syncq is ready");
            Self::default()
        })
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Self> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(Self::default()) };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        // The variables are inherited: a watchdog may be somebody else's.
        let is_ours = variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
        let tolerated = number("WATCHDOG_USEC").filter(|&micros| is_ours && micros > 0).map(Duration::from_micros);
        let watchdog = tolerated.map(|tolerated| Watchdog { interval: tolerated / 2, last: None });
        Ok(Self { socket: Some((socket, address(&name)?)), watchdog, told: String::new() })
    }

    /// Whether there is a manager to tell.
    pub fn listens(&self) -> bool {
        self.socket.is_some()
    }

    /// How long the daemon may pause between two signs of life. `None`: no watchdog waits for them.
    pub fn interval(&self) -> Option<Duration> {
        self.watchdog.as_ref().map(|watchdog| watchdog.interval)
    }

    /// Tells that the start proceeds, and that it may take its time.
    pub fn starting(&mut self, status: &str) {
        let extension = format!("EXTEND_TIMEOUT_USEC={}", START_EXTENSION.as_micros());
        self.tell(&[extension.as_str()], status);
    }

    /// Tells that the start or a reload is over.
    pub fn ready(&mut self, status: &str) {
        self.tell(&["READY=1"], status);
        self.alive(status);
    }

    /// Tells that a reload has begun. By the moment in it the manager knows that this is the reload that it asked for.
    pub fn reloading(&mut self) {
        let moment = format!("MONOTONIC_USEC={}", monotonic_us());
        self.tell(&["RELOADING=1", moment.as_str()], RELOADING);
    }

    /// Tells that the reload proceeds, and that it may take its time.
    pub fn still_reloading(&mut self) {
        self.starting(RELOADING);
    }

    /// Sends a sign of life if one is due, or a changed status line.
    pub fn alive(&mut self, status: &str) {
        let now = monotonic();
        let due = match &mut self.watchdog {
            // The sign is sent a little early rather than a tick too late.
            Some(Watchdog { interval, last })
                if last.is_none_or(|last| now.duration_since(last) >= *interval * 9 / 10) =>
            {
                *last = Some(now);
                true
            }
            _ => false,
        };
        if due {
            self.tell(&["WATCHDOG=1"], status);
        } else if one_line(status) != self.told {
            self.tell(&[], status);
        }
    }

    /// Tells that the stop has begun.
    pub fn stopping(&mut self) {
        self.tell(&["STOPPING=1"], "stopping");
    }

    fn tell(&mut self, lines: &[&str], status: &str) {
        let Some((socket, address)) = &self.socket else { return };
        self.told = one_line(status);
        let mut message: String = lines.iter().map(|line| format!("{line}\n")).collect();
        message.push_str(&format!("STATUS={}\n", self.told));
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            log::debug!(target: LOG_TARGET, error:%; "the service manager does not listen");
        }
    }
}

/// The address of the manager's socket: a path, or with a leading `@` a name in the kernel's own name space.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name),
        Some((b'/', _)) => SocketAddr::from_pathname(Path::new(name)),
        _ => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("NOTIFY_SOCKET={}: no such socket", name.display())))
        }
    }
}

/// Makes a status one line, so that no part of it reads as a line of the protocol.
fn one_line(status: &str) -> String {
    status.chars().take(STATUS_CHARS_MAX).map(|c| if is_misleading(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn manager(variables: &[(&str, String)]) -> io::Result<Manager> {
        let variables: BTreeMap<_, _> = variables.iter().cloned().collect();
        Manager::from_variables(|name| variables.get(name).map(OsString::from))
    }

    fn received(socket: &UnixDatagram) -> Option<String> {
        socket.set_nonblocking(true).expect("a socket");
        let mut buffer = [0; 4_096];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let mut nobody = manager(&[]).expect("nobody");
        assert!(!nobody.listens() && nobody.interval().is_none());
        nobody.ready("ready");
        assert!(manager(&[("NOTIFY_SOCKET", "relative".to_owned())]).is_err());
        let mut gone = manager(&[("NOTIFY_SOCKET", "/nonexistent/socket".to_owned())]).expect("somebody");
        gone.ready("ready");
    }

    #[test]
    fn it_speaks_to_paths_and_abstract_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let name = format!("syncq-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).expect("a name");
        for (socket, named) in [
            (UnixDatagram::bind(&path).expect("a socket"), path.display().to_string()),
            (UnixDatagram::bind_addr(&abstract_name).expect("a socket"), format!("@{name}")),
        ] {
            let mut manager = manager(&[("NOTIFY_SOCKET", named)]).expect("a manager");
            manager.ready("all\nREADY=0");
            assert_eq!(received(&socket).as_deref(), Some("READY=1\nSTATUS=all READY=0\n"));
            assert_eq!(received(&socket), None, "no watchdog was asked for");
            manager.alive("other");
            assert_eq!(received(&socket).as_deref(), Some("STATUS=other\n"));
            manager.reloading();
            let said = received(&socket).expect("a message");
            let moment = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.split('\n').next());
            let moment: u64 = moment.and_then(|digits| digits.parse().ok()).expect("a moment");
            assert!(moment > 0 && moment <= monotonic_us());
            manager.stopping();
            assert_eq!(received(&socket).as_deref(), Some("STOPPING=1\nSTATUS=stopping\n"));
        }
    }

    #[test]
    fn a_watchdog_hears_from_us_twice_as_often_as_it_has_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let named = |pid: u32| {
            let variables = [
                ("NOTIFY_SOCKET", path.display().to_string()),
                ("WATCHDOG_USEC", "120000000".to_owned()),
                ("WATCHDOG_PID", pid.to_string()),
            ];
            manager(&variables).expect("a manager")
        };
        assert_eq!(named(1).interval(), None, "somebody else's");
        let mut ours = named(std::process::id());
        assert_eq!(ours.interval(), Some(Duration::from_secs(60)));
        ours.alive("fine");
        ours.alive("fine");
        assert_eq!(received(&socket).as_deref(), Some("WATCHDOG=1\nSTATUS=fine\n"));
        assert_eq!(received(&socket), None, "not due yet");
    }
}
