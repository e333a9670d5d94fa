//! The connections to hosts that are reached through ssh: one for each host, shared by all runs to it, so that a small
//! change does not pay for a handshake.
//!
//! Before a run [`Connection::drive`] looks whether the host's connection stands and opens it if not, by an ssh of its own
//! that goes into the background (ssh's multiplexing: `ControlMaster`). rsync's ssh then goes through that connection's
//! socket. The connection is opened apart from rsync for three reasons: ssh's messages about the host are not mixed with
//! rsync's, the process in the background does not sit in the source's directory, and two runs never open a connection at
//! once.
//!
//! A connection is ended when nobody wants it any more ([`Master`]); at a stop all are ended. An unused connection ends by
//! itself after some minutes, also when syncq was killed. The next start ends those that a killed daemon has left. A broken
//! connection says nothing of the host: the run is begun again over a fresh one. Where a host refuses one session more
//! (`MaxSessions`), rsync's ssh connects by itself. If an option of the user's names a file by a relative path, nothing is
//! shared: such a path means the source's directory, and the process in the background would have to stay there.
//!
//! `ssh_command` says how ssh is called, `ssh_sockets` where the connections' sockets are.
//!
//! Deliberately absent: ssh's own settings. The user's options, in the params or in the configuration of ssh, win, and a
//! user who shares connections already goes on doing so.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use log::{debug, info};
use parking_lot::{Mutex, MutexGuard};

use super::ssh_sockets::{POLL, Sockets, control_path, end, listens};
use crate::mirror::rsync::ssh_command::{
    Settings, append, base, blames_host, blames_sharing, destination, names_relative_path, shares, words,
};

use crate::clock::monotonic;
use crate::mirror::rsync::capture::Capture;
use crate::mirror::rsync::ended::{End, Ended};
use crate::mirror::rsync::orphans::end_with_argument;
use crate::mirror::rsync::process::{Priority, run};
use crate::mirror::rsync::program::Program;
use crate::mirror::rsync::stop::StopSignal;
use crate::model::{Destination, Target};

/// The option by which ssh becomes the master of a connection that others share.
const MASTER: &str = "ControlMaster=yes";

/// How long a connection outlives its last use.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);

/// For how long a connection takes new runs. Afterwards the host's address or the configuration of ssh may have changed.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// An ssh that connects and moves no byte for this long hangs. Longer than ssh's own `ConnectTimeout`.
const OPEN_STALL_LIMIT: Duration = Duration::from_secs(60);

/// How long the master of a broken connection may take to be gone.
const GONE_WITHIN: Duration = Duration::from_millis(500);

/// How many bytes of the output of `ssh -G` are read.
const SETTINGS_BYTES_MAX: usize = 64 << 10;

/// The connections of one daemon.
#[derive(Debug)]
pub struct Connections {
    sockets: Arc<Sockets>,
    known: Mutex<HashMap<Reach, Weak<Connection>>>,
}

/// How a host is reached. Targets that are reached alike may share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reach {
    /// ssh with the user's options.
    base: OsString,
    /// `[user@]host`.
    host: String,
    timeout: Option<Duration>,
    share: bool,
    /// The directory in which ssh is asked for its settings.
    dir: PathBuf,
}

impl Connections {
    /// The connections of the daemon with the state directory `owner`. Ends those that an earlier daemon has left.
    pub fn new(owner: &Path) -> Self {
        let sockets = Arc::new(Sockets::new(owner));
        sockets.clear();
        Self { sockets, known: Mutex::default() }
    }

    /// How runs for the root at `root` reach `target`. `None` unless ssh leads there. Targets that are reached alike share
    /// a connection, unless `share` is off.
    pub fn of(&self, root: &Path, target: &Target, share: bool) -> Option<Arc<Connection>> {
        let Destination::Ssh { host, .. } = &target.destination else { return None };
        let base = base(target.options.params.remote_shell(), target.options.port)?;
        let own = words(&base)?;
        // A relative path counts from the source's directory, where each rsync runs. The master of a shared connection must
        // not stay there, since it would keep the source's file system busy.
        let is_relative = names_relative_path(&own);
        let share = share && !shares(&own) && !is_relative;
        let dir = if is_relative { root } else { Path::new("/") }.to_owned();
        let reach = Reach { base, host: host.clone(), timeout: target.options.timeout, share, dir };
        let mut known = self.known.lock();
        known.retain(|_, connection| connection.strong_count() > 0);
        if let Some(connection) = known.get(&reach).and_then(Weak::upgrade) {
            return Some(connection);
        }
        if share && !self.sockets.have_place() {
            info!("{host}: ssh connects anew for each run: the state directory's path is too long for a socket");
        }
        let connection =
            Arc::new(Connection { reach: reach.clone(), sockets: Arc::clone(&self.sockets), state: Mutex::default() });
        known.insert(reach, Arc::downgrade(&connection));
        Some(connection)
    }

    /// Ends all connections, whoever uses them. For the end of the daemon.
    pub fn close(&self) {
        self.sockets.clear();
        // Also ends the masters whose sockets somebody has removed.
        end_with_argument(&self.sockets.owner, OsStr::new(MASTER));
    }
}

/// The way to one host.
#[derive(Debug)]
pub struct Connection {
    reach: Reach,
    sockets: Arc<Sockets>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    /// When the last attempt to open a connection failed and how, for runs that waited for that attempt.
    failed: Option<(Instant, Ended)>,
}

/// A connection that stood at the last look.
#[derive(Debug)]
struct Open {
    master: Arc<Master>,
    opened: Instant,
    /// The remote shell that goes through this connection.
    line: OsString,
}

/// The ssh in the background that holds a connection. It ends when the last holder of this value drops it: the last run
/// through the connection has ended, and no further one is to go through it.
#[derive(Debug)]
struct Master {
    owner: OsString,
    socket: PathBuf,
}

impl Drop for Master {
    fn drop(&mut self) {
        end(&self.owner, &self.socket);
    }
}

/// How a run gets to the host.
enum Way {
    /// Through this remote shell, and over the shared connection of `master` if there is one.
    Line {
        line: OsString,
        master: Option<Arc<Master>>,
        /// The connection stood before this run.
        kept: bool,
    },
    /// The host cannot be reached: how ssh ended.
    Barred(Box<Ended>),
}

impl Way {
    /// The way of a run that connects by itself.
    fn alone(line: OsString) -> Self {
        Self::Line { line, master: None, kept: false }
    }
}

impl Connection {
    /// Whether runs share the connection, as far as syncq decides that.
    pub fn is_shared(&self) -> bool {
        self.reach.share
    }

    /// Calls `start` with the remote shell to use, and once more if a connection that stood already turns out to be dead.
    pub(in crate::mirror) fn drive(
        &self,
        stop: &StopSignal,
        mut start: impl FnMut(&OsStr) -> io::Result<Ended>,
    ) -> io::Result<Ended> {
        let (line, master, kept) = match self.way(stop) {
            Way::Line { line, master, kept } => (line, master, kept),
            Way::Barred(ended) => return Ok(*ended),
        };
        let first = start(&line)?;
        // An ssh that lost its master while it asked for a session has connected by itself. If that failed, the host is to
        // blame.
        let retry = kept && !stop.is_raised() && !blames_host(&first.stderr.bytes());
        let Some(master) = master.filter(|master| retry && is_lost(&master.socket, first.end)) else {
            return Ok(first);
        };
        debug!("{}: the shared ssh connection broke, a fresh one is opened", self.reach.host);
        self.state().open.take_if(|open| Arc::ptr_eq(&open.master, &master));
        drop(master);
        let mut again = match self.way(stop) {
            Way::Line { line, master, .. } => {
                let ended = start(&line)?;
                drop(master);
                ended
            }
            Way::Barred(ended) => *ended,
        };
        // rsync does not name again what the broken run had changed, so both outputs are joined.
        let mut stdout = first.stdout;
        stdout.push(&again.stdout.bytes());
        again.stdout = stdout;
        Ok(again)
    }

    /// Ends the connection, once the runs that use it have ended. The next run opens another one.
    pub fn hang_up(&self) {
        // If a run is just opening the connection, it is not waited for: that connection ends by itself later.
        let open = self.state.try_lock().and_then(|mut state| state.open.take());
        drop(open);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The way that a run is to take. Opens the connection if there is none.
    fn way(&self, stop: &StopSignal) -> Way {
        let asked = monotonic();
        let mut state = self.state();
        if let Some(Open { master, opened, line }) = &state.open {
            if opened.elapsed() < AGE_MAX && listens(&master.socket) {
                return Way::Line { line: line.clone(), master: Some(Arc::clone(master)), kept: true };
            }
            state.open = None;
        }
        if let Some((_, ended)) = state.failed.as_ref().filter(|(at, _)| *at > asked) {
            return Way::Barred(Box::new(ended.clone()));
        }
        state.failed = None;
        let words = words(&self.reach.base).unwrap_or_default();
        let Some((program, own)) = words.split_first() else { return Way::alone(self.reach.base.clone()) };
        let ssh = Program {
            path: program.clone(),
            owner: self.sockets.owner.clone(),
            stall_limit: OPEN_STALL_LIMIT,
            places: None,
            hangs: Arc::default(),
            under_way: Arc::default(),
        };
        let settings = self.settings(&ssh, own, stop);
        let mut line = self.reach.base.clone();
        append(&mut line, ["BatchMode=yes".to_owned()]);
        append(&mut line, settings.defaults.clone());
        let shares = self.reach.share && !settings.shares;
        let Some(socket) = shares.then(|| self.sockets.fresh().ok()).flatten() else {
            return Way::alone(line);
        };

        let mut args = own.to_vec();
        let persist = format!("ControlPersist={}", IDLE_MAX.as_secs());
        let master = ["BatchMode=yes", MASTER, &persist, "ClearAllForwardings=yes"];
        for option in settings.defaults.iter().map(String::as_str).chain(master) {
            args.extend(["-o".into(), option.into()]);
        }
        args.extend(["-o".into(), control_path(&socket)]);
        args.extend(["-a", "-x", "-T", "-N", "-f"].map(OsString::from));
        args.extend(self.destination());
        // If there is no ssh at all, rsync's own message says so.
        let Ok(mut ended) = run(&ssh, Path::new("/"), &args, b"", None, Priority::Usual, stop) else {
            return Way::alone(line);
        };
        if ended.end == End::Stalled {
            // The exit code and words of an ssh that timed out by itself.
            ended.end = End::Exit(255);
            ended.stderr.push(b"ssh: Connection timed out\n");
        }
        match ended.end {
            End::Exit(0) if listens(&socket) => {
                append(&mut line, ["ControlMaster=no".to_owned(), format!("ControlPath={}", socket.display())]);
                let master = Arc::new(Master { owner: self.sockets.owner.clone(), socket });
                state.open = Some(Open { master: Arc::clone(&master), opened: monotonic(), line: line.clone() });
                Way::Line { line, master: Some(master), kept: false }
            }
            // The host is not to blame: ssh is old, or no socket can be made in the directory.
            End::Exit(code) if code == 0 || blames_sharing(&ended.stderr.bytes()) => {
                info!("{}: ssh cannot share a connection, each run connects by itself", self.reach.host);
                Way::alone(line)
            }
            _ => {
                state.failed = Some((monotonic(), ended.clone()));
                Way::Barred(Box::new(ended))
            }
        }
    }

    fn destination(&self) -> Vec<OsString> {
        destination(&self.reach.host)
    }

    /// The settings for the host in ssh's configuration. Empty if ssh cannot be asked: opening the connection will show why.
    fn settings(&self, ssh: &Program, own: &[OsString], stop: &StopSignal) -> Settings {
        let mut args = own.to_vec();
        args.push("-G".into());
        args.extend(self.destination());
        let stdout = Some(Capture::new(SETTINGS_BYTES_MAX, 0));
        let asked = run(ssh, &self.reach.dir, &args, b"", stdout, Priority::Usual, stop);
        let said = asked.map(|ended| ended.stdout.bytes()).unwrap_or_default();
        Settings::read(&String::from_utf8_lossy(&said), self.reach.timeout)
    }
}

/// Whether a run ended because its connection was lost. rsync reports a lost connection by one of several codes. Where a
/// connection fell silent, its master may still be there.
fn is_lost(socket: &Path, end: End) -> bool {
    match end {
        End::Stalled | End::Exit(30) => true,
        End::Exit(10 | 12 | 255) => {
            let begun = monotonic();
            while listens(socket) {
                if begun.elapsed() >= GONE_WITHIN {
                    return false;
                }
                std::thread::sleep(POLL);
            }
            true
        }
        _ => false,
    }
}
