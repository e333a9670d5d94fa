//! The connections to hosts that are reached through ssh: one for each host, shared by all runs to it, so that a small
//! change does not pay for a handshake.
//!
//! Before a run [`Connection::drive`] looks whether the host's connection stands and opens it if not, by an ssh of its
//! own that goes into the background (ssh's multiplexing: `ControlMaster`). rsync's ssh then goes through its socket.
//! Opening it apart from rsync has three reasons: what ssh says of the host is not mixed with what rsync makes of it,
//! the process in the background does not sit in the source's directory, and two runs never open one at once.
//!
//! A connection is ended when nobody wants it any more ([`Master`]), and all are at a stop. Unused it ends by itself after
//! some minutes, also when syncq was killed, and what a killed daemon has left is ended at the next start. One that broke
//! says nothing of the host: the run is begun again over a fresh one. Where ssh refuses a session more (`MaxSessions`), it
//! connects by itself.
//!
//! Each opening takes a new name for its socket: an older master that ends late removes its own and no other.
//!
//! Deliberately absent: ssh's own settings. What the user has said, in the params or in the configuration of ssh, wins,
//! and a user who shares connections already goes on doing it his way.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use log::{debug, info};

use super::capture::Capture;
use super::command::{remote_shell, with_remote_shell};
use super::context::TargetContext;
use super::program::{Program, end_with_argument};
use super::run::{End, Ended, run};
use super::stop::StopSignal;
use crate::clock::monotonic;
use crate::model::{Destination, Target};

/// The program, found through PATH.
const SSH: &str = "ssh";

/// How ssh behaves unless the user has said otherwise: a host that does not answer within half a minute is down, and a
/// connection that is silent for three times a quarter of a minute is dead.
const DEFAULTS: [(&str, &str); 3] =
    [("ConnectTimeout", "30"), ("ServerAliveInterval", "15"), ("ServerAliveCountMax", "3")];

/// How long a connection outlives its last use.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);

/// A connection takes new runs for so long. The host's address or the configuration of ssh may have changed since.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// An ssh that connects and moves no byte for so long hangs. Above its own `ConnectTimeout`.
const OPEN_STALL_LIMIT: Duration = Duration::from_secs(60);

/// How long the master of a connection that broke may take to be gone.
const GONE_WITHIN: Duration = Duration::from_millis(500);

/// How long a master may take to end when told to.
const EXIT_WITHIN: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(10);

/// A socket's address holds 107 bytes on Linux, and ssh makes it under a longer name first.
const SOCKET_PATH_BYTES_MAX: usize = 107 - ".0123456789abcdef".len();

/// As much of what `ssh -G` prints is read.
const SETTINGS_BYTES_MAX: usize = 64 << 10;

/// The remote shell for a target as rsync takes it, if it is ssh: the user's own, or the plain one, with what keeps it
/// from asking and hanging. `own` is the user's; where an option is given twice ssh takes the first.
pub fn line(own: Option<&OsStr>, port: Option<u16>, timeout: Option<Duration>) -> Option<OsString> {
    let mut line = base(own, port)?;
    append(&mut line, ["BatchMode=yes".to_owned()]);
    append(&mut line, DEFAULTS.iter().map(|(name, value)| format!("{name}={}", limited(name, value, timeout))));
    Some(line)
}

/// The remote shell with the user's options alone. `None`: it is not ssh.
fn base(own: Option<&OsStr>, port: Option<u16>) -> Option<OsString> {
    let mut line = own.unwrap_or(OsStr::new(SSH)).to_owned();
    let words = words(&line)?;
    if Path::new(words.first()?).file_name()? != SSH {
        return None;
    }
    if let Some(port) = port {
        line.push(format!(" -p {port}"));
    }
    Some(line)
}

fn append(line: &mut OsString, options: impl IntoIterator<Item = String>) {
    for option in options {
        line.push(" -o ");
        line.push(option);
    }
}

/// A user who lets rsync wait for less than half a minute means the connection too.
fn limited(name: &str, value: &str, timeout: Option<Duration>) -> String {
    match (timeout, value.parse::<u64>()) {
        (Some(timeout), Ok(limit)) if name == "ConnectTimeout" => timeout.as_secs().clamp(1, limit).to_string(),
        _ => value.to_owned(),
    }
}

/// Splits a remote shell's line as rsync does: at blanks, unless quoted; a doubled quote within quotes is one. `None`
/// for an open quote.
fn words(line: &OsStr) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = line.as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match quote {
            Some(open) if byte == open => match bytes.next_if_eq(&open) {
                Some(_) => word.get_or_insert_default().push(open),
                None => quote = None,
            },
            Some(_) => word.get_or_insert_default().push(byte),
            None if byte == b' ' => words.extend(word.take().map(OsString::from_vec)),
            None if byte == b'\'' || byte == b'"' => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            None => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word.map(OsString::from_vec));
    quote.is_none().then_some(words)
}

/// Whether the user's words say themselves whether and where connections are shared.
fn shares(words: &[OsString]) -> bool {
    words.iter().skip(1).any(|word| {
        let word = word.as_bytes();
        word.starts_with(b"-S")
            || word.starts_with(b"-M")
            || word.to_ascii_lowercase().windows(b"control".len()).any(|part| part == b"control")
    })
}

/// The connections of one daemon.
#[derive(Debug)]
pub struct Connections {
    sockets: Arc<Sockets>,
    known: Mutex<HashMap<Reach, Weak<Connection>>>,
}

/// How a host is reached. What is reached alike may share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reach {
    /// ssh with the user's options.
    base: OsString,
    /// `[user@]host`.
    host: String,
    timeout: Option<Duration>,
    share: bool,
}

/// Where their sockets are.
#[derive(Debug)]
struct Sockets {
    owner: OsString,
    /// `None`: no name short enough could be found.
    dir: Option<PathBuf>,
    next: AtomicU64,
}

impl Connections {
    /// The connections of the daemon with the state directory `owner`. Ends those that an earlier one has left.
    pub fn new(owner: &Path) -> Self {
        let dir = candidates(owner, std::env::var_os("XDG_RUNTIME_DIR")).find(|dir| fits(dir));
        let sockets = Arc::new(Sockets { owner: owner.as_os_str().to_owned(), dir, next: AtomicU64::new(0) });
        sockets.clear();
        Self { sockets, known: Mutex::default() }
    }

    /// How runs reach `target`: `None` unless that is through ssh. Targets that are reached alike share a connection,
    /// unless `share` is off.
    pub fn of(&self, target: &Target, share: bool) -> Option<Arc<Connection>> {
        let Destination::Ssh { host, .. } = &target.destination else { return None };
        let base = base(remote_shell(&target.options.params), target.options.port)?;
        let share = share && !shares(&words(&base)?);
        let reach = Reach { base, host: host.clone(), timeout: target.options.timeout, share };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, connection| connection.strong_count() > 0);
        if let Some(connection) = known.get(&reach).and_then(Weak::upgrade) {
            return Some(connection);
        }
        if share && self.sockets.dir.is_none() {
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
    }
}

impl Sockets {
    /// The name of a new socket. The directory is made if it is missing.
    fn fresh(&self) -> io::Result<PathBuf> {
        let dir = self.dir.as_ref().ok_or(io::ErrorKind::NotFound)?;
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_private(dir)?,
            made => made?,
        }
        let socket = dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(socket),
        }
    }

    /// Ends what listens there and removes it all.
    fn clear(&self) {
        let Some(dir) = self.dir.as_ref().filter(|dir| check_private(dir).is_ok()) else { return };
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
                end(&self.owner, &entry.path());
            }
        }
        // Something that is not ours keeps it.
        let _ = fs::remove_dir(dir);
    }
}

/// Where the sockets may be, best first. The number keeps daemons apart.
fn candidates(owner: &Path, runtime: Option<OsString>) -> impl Iterator<Item = PathBuf> {
    let mut hasher = DefaultHasher::new();
    owner.hash(&mut hasher);
    let name = format!("syncq-{:016x}", hasher.finish());
    let runtime = runtime.map(PathBuf::from).filter(|dir| dir.is_absolute());
    let system = rustix::process::geteuid().is_root().then(|| PathBuf::from("/run"));
    let elsewhere = [runtime, system].into_iter().flatten().map(move |dir| dir.join(&name));
    [owner.join("ssh")].into_iter().chain(elsewhere)
}

/// Whether sockets in `dir` can be bound, and named without quotes.
fn fits(dir: &Path) -> bool {
    let bytes = dir.as_os_str().as_bytes();
    let plain = bytes.iter().all(|&b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    plain
        && bytes.len() + "/18446744073709551615".len() <= SOCKET_PATH_BYTES_MAX
        && dir.parent().is_some_and(Path::is_dir)
}

/// Whoever may write there could take the place of a connection.
fn check_private(dir: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(dir)?;
    let ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if ours { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
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
    /// The last attempt to open one, if it failed: for those who waited for it.
    failed: Option<(Instant, Ended)>,
}

/// A connection that stood when it was last looked at.
#[derive(Debug)]
struct Open {
    master: Arc<Master>,
    opened: Instant,
    /// The remote shell that goes through it.
    line: OsString,
}

/// The ssh in the background that holds a connection. It is ended when the last run through it has ended and no further
/// one is to go through it.
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
    /// Through this remote shell, and so over this connection if one is shared.
    Line {
        line: OsString,
        master: Option<Arc<Master>>,
        /// It was there already.
        kept: bool,
    },
    /// Not at all: how ssh ended.
    Barred(Ended),
}

impl Way {
    /// Each run connects by itself.
    fn alone(line: OsString) -> Self {
        Self::Line { line, master: None, kept: false }
    }
}

/// Runs rsync for a target, over the connection to its host if it has one.
pub(super) fn run_rsync(
    ctx: &TargetContext,
    args: &[OsString],
    list: &[u8],
    stdout: &dyn Fn() -> Option<Capture>,
    stop: &StopSignal,
) -> io::Result<Ended> {
    let start = |args: &[OsString]| run(&ctx.program, &ctx.root, args, list, stdout(), stop);
    match &ctx.connection {
        Some(connection) => connection.drive(stop, |line| start(&with_remote_shell(args, line))),
        None => start(args),
    }
}

impl Connection {
    /// Calls `start` with the remote shell to use. Once more if a connection that was there already turns out to be dead.
    fn drive(&self, stop: &StopSignal, mut start: impl FnMut(&OsStr) -> io::Result<Ended>) -> io::Result<Ended> {
        let (line, master, kept) = match self.way(stop) {
            Way::Line { line, master, kept } => (line, master, kept),
            Way::Barred(ended) => return Ok(ended),
        };
        let first = start(&line)?;
        let Some(master) = master.filter(|master| kept && !stop.is_raised() && is_lost(&master.socket, first.end))
        else {
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
            Way::Barred(ended) => ended,
        };
        // What the broken run had changed is not named a second time.
        let mut stdout = first.stdout;
        stdout.push(&again.stdout.bytes());
        again.stdout = stdout;
        Ok(again)
    }

    /// Ends the connection, once the runs that use it have ended. The next run opens another one.
    pub fn hang_up(&self) {
        // One that is just being opened may take its time, and ends by itself later.
        let open = self.state.try_lock().ok().and_then(|mut state| state.open.take());
        drop(open);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
            return Way::Barred(ended.clone());
        }
        state.failed = None;
        let words = words(&self.reach.base).unwrap_or_default();
        let Some((program, own)) = words.split_first() else { return Way::alone(self.reach.base.clone()) };
        let ssh = Program { path: program.clone(), owner: self.sockets.owner.clone(), stall_limit: OPEN_STALL_LIMIT };
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
        let master = ["BatchMode=yes", "ControlMaster=yes", &persist, "ClearAllForwardings=yes"];
        for option in settings.defaults.iter().map(String::as_str).chain(master) {
            args.extend(["-o".into(), option.into()]);
        }
        args.extend(["-o".into(), control_path(&socket)]);
        args.extend(["-a", "-x", "-T", "-N", "-f"].map(OsString::from));
        args.extend(self.destination());
        // Where there is no ssh at all, rsync says so.
        let Ok(mut ended) = run(&ssh, Path::new("/"), &args, b"", None, stop) else { return Way::alone(line) };
        if ended.end == End::Stalled {
            // As ssh would have put it.
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
            // Not the host's fault: an old ssh, or a directory in which no socket can be made.
            End::Exit(code) if code == 0 || blames_sharing(&ended.stderr.bytes()) => {
                info!("{}: ssh cannot share a connection, each run connects by itself", self.reach.host);
                Way::alone(line)
            }
            _ => {
                state.failed = Some((monotonic(), ended.clone()));
                Way::Barred(ended)
            }
        }
    }

    /// The host as ssh takes it.
    fn destination(&self) -> Vec<OsString> {
        let (user, host) = match self.reach.host.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, self.reach.host.as_str()),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let user = user.map(|user| ["-l".into(), user.into()]);
        user.into_iter().flatten().chain([host.into()]).collect()
    }

    /// What ssh's configuration says of the host. Nothing, if it cannot be asked: the connection will tell.
    fn settings(&self, ssh: &Program, own: &[OsString], stop: &StopSignal) -> Settings {
        let mut args = own.to_vec();
        args.push("-G".into());
        args.extend(self.destination());
        let stdout = Some(Capture::new(SETTINGS_BYTES_MAX, 0));
        let asked = run(ssh, Path::new("/"), &args, b"", stdout, stop);
        let said = asked.map(|ended| ended.stdout.bytes()).unwrap_or_default();
        Settings::read(&String::from_utf8_lossy(&said), self.reach.timeout)
    }
}

/// What the user's configuration of ssh leaves to us.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    /// Ours where the user has none, as `Name=value`.
    defaults: Vec<String>,
    /// The user has a `ControlPath`.
    shares: bool,
}

impl Settings {
    /// Reads what `ssh -G` prints: a name in lower case and its value on each line, those included that nobody has set.
    fn read(printed: &str, timeout: Option<Duration>) -> Self {
        const UNSET: [(&str, &str); 3] =
            [("connecttimeout", "none"), ("serveraliveinterval", "0"), ("serveralivecountmax", "3")];
        let value = |name: &str| printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let is_set = |name: &str| {
            let name = name.to_ascii_lowercase();
            value(&name).is_some_and(|found| !UNSET.contains(&(name.as_str(), found)))
        };
        let ours = DEFAULTS.iter().filter(|(name, _)| !is_set(name));
        Self {
            defaults: ours.map(|(name, value)| format!("{name}={}", limited(name, value, timeout))).collect(),
            shares: value("controlpath").is_some_and(|path| path != "none"),
        }
    }
}

/// Whether a run's end is that of the connection it used. rsync tells the loss of its line by one code or another; one
/// that fell silent may hang on in its master.
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

fn listens(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Whether ssh failed at the sharing and not at the host.
fn blames_sharing(stderr: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stderr);
    ["unix_listener", "ControlPath", "ControlSocket", "ControlPersist"].iter().any(|word| text.contains(word))
}

/// Ends the master behind a socket, and whatever goes through it. The socket is gone afterwards.
fn end(owner: &OsStr, socket: &Path) {
    if listens(socket) && !exits(socket) {
        // It hangs. It was started with this word.
        end_with_argument(owner, &control_path(socket));
    }
    let _ = fs::remove_file(socket);
}

fn control_path(socket: &Path) -> OsString {
    let mut option = OsString::from("ControlPath=");
    option.push(socket);
    option
}

/// Tells the master behind a socket to end, and returns whether it has.
fn exits(socket: &Path) -> bool {
    let mut command = Command::new(SSH);
    // The name of the host has to be there and is not looked at.
    command.args(["-F", "none", "-O", "exit", "-o"]).arg(control_path(socket)).arg("syncq");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = monotonic();
    let Ok(mut child) = command.spawn() else { return false };
    let mut has_asked = false;
    while begun.elapsed() < EXIT_WITHIN {
        has_asked = has_asked || child.try_wait().is_ok_and(|status| status.is_some());
        if has_asked && !listens(socket) {
            return true;
        }
        std::thread::sleep(POLL);
    }
    if !has_asked {
        let _ = child.kill();
        let _ = child.wait();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Option<Vec<String>> {
        let words = words(OsStr::new(line))?;
        Some(words.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn a_remote_shell_is_split_as_rsync_splits_it() {
        for (line, expected) in [
            ("ssh", Some(vec!["ssh"])),
            ("  ssh  -p 2 ", Some(vec!["ssh", "-p", "2"])),
            ("ssh -i '/k y'", Some(vec!["ssh", "-i", "/k y"])),
            (r#"ssh -i "/k'y" ''"#, Some(vec!["ssh", "-i", "/k'y", ""])),
            ("ssh -i 'it''s'", Some(vec!["ssh", "-i", "it's"])),
            ("ssh -i 'open", None),
        ] {
            assert_eq!(split(line), expected.map(|words| words.into_iter().map(str::to_owned).collect()), "{line}");
        }
    }

    #[test]
    fn what_the_user_says_stands_first_and_other_shells_are_left_alone() {
        let said = |own: Option<&str>, port, timeout: Option<u64>| {
            line(own.map(OsStr::new), port, timeout.map(Duration::from_secs)).map(|line| line.into_string().unwrap())
        };
        let ours = "-o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=3";
        assert_eq!(said(None, None, None), Some(format!("ssh {ours}")));
        assert_eq!(said(None, Some(2222), Some(100)), Some(format!("ssh -p 2222 {ours}")));
        assert_eq!(said(None, None, Some(5)), Some(format!("ssh {}", ours.replace("30", "5"))));
        assert_eq!(said(Some("/usr/bin/ssh -i /k"), Some(22), None), Some(format!("/usr/bin/ssh -i /k -p 22 {ours}")));
        for other in ["rsh", "/opt/sshwrap -x", "ssh 'open", ""] {
            assert_eq!(said(Some(other), None, None), None, "{other}");
        }
    }

    #[test]
    fn a_user_who_shares_connections_goes_on_doing_it_his_way() {
        for (line, expected) in [
            ("ssh -i /k -p 2", false),
            ("ssh -S /tmp/s", true),
            ("ssh -M", true),
            ("ssh -o ControlPath=none", true),
            ("ssh -ocontrolmaster=auto", true),
        ] {
            assert_eq!(shares(&words(OsStr::new(line)).unwrap()), expected, "{line}");
        }
    }

    #[test]
    fn the_configuration_of_ssh_wins_over_our_defaults() {
        let unset = "connecttimeout none\nserveraliveinterval 0\nserveralivecountmax 3\ncontrolmaster false\n";
        let all = ["ConnectTimeout=30", "ServerAliveInterval=15", "ServerAliveCountMax=3"];
        assert_eq!(Settings::read(unset, None), Settings { defaults: all.map(str::to_owned).into(), shares: false });
        assert_eq!(Settings::read("", None).defaults, all);
        let set = "connecttimeout 5\nserveraliveinterval 60\nserveralivecountmax 3\ncontrolpath /home/me/.ssh/c\n";
        let read = Settings::read(set, None);
        assert_eq!((read.defaults, read.shares), (vec!["ServerAliveCountMax=3".to_owned()], true));
    }

    #[test]
    fn sockets_are_where_their_names_fit_and_nobody_else_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let short = dir.path().join("state");
        let long = dir.path().join("x".repeat(100));
        let runtime = dir.path().join("run");
        for made in [&short, &long, &runtime] {
            fs::create_dir(made).unwrap();
        }
        let found = |owner: &Path| candidates(owner, Some(runtime.clone().into())).find(|dir| fits(dir)).unwrap();
        assert_eq!(found(&short), short.join("ssh"));
        let elsewhere = found(&long);
        assert!(elsewhere.starts_with(&runtime), "{elsewhere:?}");
        assert_ne!(elsewhere, found(&long.join("other")));
        assert!(!fits(Path::new("/with blank/ssh")) && !fits(Path::new("/nonexistent/ssh")));

        let sockets = Sockets { owner: "x".into(), dir: Some(short.join("ssh")), next: AtomicU64::new(0) };
        assert_eq!(sockets.fresh().unwrap(), short.join("ssh/0"));
        assert_eq!(sockets.fresh().unwrap(), short.join("ssh/1"));
        fs::set_permissions(short.join("ssh"), std::os::unix::fs::PermissionsExt::from_mode(0o770)).unwrap();
        assert!(sockets.fresh().is_err());
    }

    #[test]
    fn what_a_dead_master_has_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("ssh");
        DirBuilder::new().mode(0o700).create(&ours).unwrap();
        drop(std::os::unix::net::UnixListener::bind(ours.join("3")).unwrap());
        assert!(!listens(&ours.join("3")));
        let connections = Connections::new(dir.path());
        assert!(!ours.exists());
        connections.close();
    }
}
