//! Refuses destinations that collide: with the source, with the state directory, or with each other. Everything is checked
//! before anything is written.
//!
//! A destination lies on this machine if it is a local directory, is reached through ssh to this machine, or is a module of
//! this machine's rsync daemon (`own_rsyncd`). Two directories are the same if their paths are, with links resolved, or if the
//! file system says so, which a bind mount does not hide.
//!
//! Deliberately absent: whether another machine's module or directory is usable, which the target itself reports; and the
//! targets of other daemons, which `neighbours` finds.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::bounded;

use super::exit::CliError;
use super::own_rsyncd::{self, is_this_machine};
use super::state_dir::real_path;
use crate::mirror::{own_variable, redirects};
use crate::model::{Destination, Host, Root, Target};

const SSH_PORT: u16 = 22;
const RSYNCD_PORT: u16 = 873;
/// How long the name service may take; a slower answer is not waited for.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);
/// Directories are not followed upwards beyond this depth; no real directory lies deeper.
const DEPTH_MAX: usize = 2_048;

/// A destination that is refused.
#[derive(Debug)]
pub struct Refused {
    pub target: String,
    pub error: CliError,
}

/// All refused destinations of `roots`, for a daemon with the state directory `state_dir`.
pub fn refused<'a>(roots: impl IntoIterator<Item = &'a Root>, state_dir: &Path) -> Vec<Refused> {
    let mut refused = Vec::new();
    for root in roots {
        let places: Vec<Placed<'_>> = root.targets.iter().map(Placed::new).collect();
        for (at, placed) in places.iter().enumerate() {
            let target = placed.target;
            let alone = placed.place.as_deref().map_or(Ok(()), |place| check_alone(root, target, place, state_dir));
            let checked = alone.and_then(|()| places.iter().take(at).try_for_each(|other| check_pair(placed, other)));
            refused.extend(checked.err().map(|error| Refused { target: target.name(), error }));
        }
    }
    refused
}

/// The directory of this machine that a target leads to, if it is known to lead to one.
fn on_this_machine(target: &Target) -> Option<PathBuf> {
    let options = &target.options;
    match &target.destination {
        Destination::Local(path) => Some(path.clone()),
        // Another port, or a remote shell of the user's own, may lead to another machine. A relative path begins in the home
        // directory.
        Destination::Ssh { host, path } => {
            let is_plain = options.port.is_none_or(|port| port == SSH_PORT) && options.params.remote_shell().is_none();
            (is_plain && path.is_absolute() && is_this_machine(&name_of(host))).then(|| path.clone())
        }
        Destination::Daemon { host, module } => {
            let is_direct = options.params.remote_shell().is_none() && !redirects(&own_variable);
            let name = name_of(host);
            let is_direct = is_direct && is_this_machine(&name);
            is_direct.then(|| own_rsyncd::directory(&name, options.port, module.as_bytes())).flatten()
        }
    }
}

fn name_of(host: &str) -> String {
    Host::parse(host).map_or_else(|_| host.to_owned(), |host| host.name)
}

fn check_alone(root: &Root, target: &Target, place: &Path, state_dir: &Path) -> Result<(), CliError> {
    let is_local = matches!(target.destination, Destination::Local(_));
    if is_local {
        // Directories reached through ssh or an rsync daemon are checked by the other side.
        check_directory(place)?;
    }
    let leads = if is_local { String::new() } else { format!(" ({} here)", seen_there(place).display()) };
    let refuse = |reason: &str, hint: &str| {
        let message = format!("cannot mirror {} to {}{leads}: {reason}", root.path.display(), target.name());
        Err(CliError::config(anyhow::Error::msg(message)).hint(hint))
    };
    let beside = "choose a destination beside the source";
    match relation(place, &root.path) {
        Relation::Same => return refuse("they are the same directory", beside),
        Relation::Inside => {
            return refuse("the destination lies inside the source, so every copy would be a change to copy", beside);
        }
        Relation::Around => {
            return refuse("the source lies inside the destination and would be deleted by its own mirror", beside);
        }
        Relation::Apart => {}
    }
    match relation(place, state_dir) {
        Relation::Same | Relation::Around => {
            let reason = format!(
                "the state directory {} lies inside the destination, and the mirror would delete it",
                state_dir.display()
            );
            refuse(&reason, "choose one outside: --state-dir DIR")
        }
        Relation::Inside | Relation::Apart => Ok(()),
    }
}

/// The path as the rsync daemon sees it: without the `/proc/PID/root` through which this process reaches it.
fn seen_there(place: &Path) -> PathBuf {
    let mut parts = place.components();
    let is_proc = |part: Option<Component<'_>>, name: &str| part == Some(Component::Normal(name.as_ref()));
    let is_behind = parts.next() == Some(Component::RootDir)
        && is_proc(parts.next(), "proc")
        && parts.next().is_some()
        && is_proc(parts.next(), "root");
    if is_behind { Path::new("/").join(parts.as_path()) } else { place.to_owned() }
}

/// Refuses a local destination in which rsync could make no directory.
fn check_directory(path: &Path) -> Result<(), CliError> {
    let shown = path.display();
    let refuse = |reason: String, hint: &str| Err(CliError::config(anyhow::Error::msg(reason)).hint(hint));
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => refuse(format!("cannot mirror to {shown}: it is a file"), "name a directory, or one to be made"),
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => refuse(
            format!("cannot mirror to {shown}: it is a link that leads nowhere"),
            "mount or make what it leads to",
        ),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            let file = path.ancestors().find(|above| above.exists()).unwrap_or(path).display();
            refuse(format!("cannot mirror to {shown}: {file} is a file"), "name a directory, or one to be made")
        }
        // The directory does not exist yet or cannot be looked at: rsync creates it, or reports the fault.
        Err(_) => Ok(()),
    }
}

/// Refuses two destinations of one source that are the same directory, or of which one mirror would delete the other.
fn check_pair(placed: &Placed<'_>, other_placed: &Placed<'_>) -> Result<(), CliError> {
    let (one, other) = (placed.target, other_placed.target);
    let (name, other_name) = (one.name(), other.name());
    let hint = "name each place once, by one name";
    if one.destination == other.destination {
        // Another port leads to another daemon, but the target's name stays the same.
        let error = CliError::usage(format!("the destination {name} is given twice")).hint(hint);
        let differs = one.options.port != other.options.port;
        let by_port = "a target's name has no port: give the modules of the two rsync daemons different names";
        return Err(if differs { error.hint(by_port) } else { error });
    }
    let refuse = |reason: String| Err(CliError::config(anyhow::Error::msg(reason)).hint(hint));
    match placed.relation(other_placed) {
        Relation::Same => refuse(format!("{name} and {other_name} are one destination under two names")),
        Relation::Inside if other.options.delete => {
            refuse(format!("{name} lies inside {other_name}, whose mirror would delete it"))
        }
        Relation::Around if one.options.delete => {
            refuse(format!("{other_name} lies inside {name}, whose mirror would delete it"))
        }
        _ => Ok(()),
    }
}

/// How one directory lies in relation to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Same,
    Inside,
    Around,
    Apart,
}

/// A destination, with its directory on this machine if it has one.
#[derive(Debug)]
pub struct Placed<'t> {
    pub target: &'t Target,
    place: Option<PathBuf>,
    remote: Option<Remote>,
}

impl<'t> Placed<'t> {
    pub fn new(target: &'t Target) -> Self {
        Self { place: on_this_machine(target), remote: Remote::of(target), target }
    }

    /// How this destination lies in relation to another, as far as that is known.
    pub fn relation(&self, other: &Placed<'_>) -> Relation {
        match (&self.place, &other.place, &self.remote, &other.remote) {
            (Some(place), Some(there), ..) => relation(place, there),
            (.., Some(remote), Some(other)) => remote_relation(remote, other),
            _ => Relation::Apart,
        }
    }

    /// Whether the destination is that directory of this machine.
    pub fn is(&self, directory: &Path) -> bool {
        self.place.as_deref().is_some_and(|place| relation(place, directory) == Relation::Same)
    }
}

fn relation(one: &Path, other: &Path) -> Relation {
    let (real, other_real) = (real_path(one), real_path(other));
    if real == other_real || (identity(one).is_some() && identity(one) == identity(other)) {
        Relation::Same
    } else if real.starts_with(&other_real) || lies_in(one, other) {
        Relation::Inside
    } else if other_real.starts_with(&real) || lies_in(other, one) {
        Relation::Around
    } else {
        Relation::Apart
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Whether `outer` is one of the directories above `inner`, by their identity in the file system.
fn lies_in(inner: &Path, outer: &Path) -> bool {
    let Some(wanted) = identity(outer) else { return false };
    let Some(there) = inner.ancestors().find(|path| path.exists()) else { return false };
    let mut at = there.to_owned();
    let mut last = None;
    for _ in 0..DEPTH_MAX {
        match identity(&at) {
            found if found == Some(wanted) => return true,
            None => return false,
            found if found == last => return false,
            found => last = found,
        }
        at.push("..");
    }
    false
}

/// How two directories of other machines lie in relation to each other, judged by their addresses and paths.
fn remote_relation(a: &Remote, b: &Remote) -> Relation {
    if a.is_ssh != b.is_ssh || a.port != b.port {
        return Relation::Apart;
    }
    let relation = match () {
        () if a.path == b.path => Relation::Same,
        () if a.path.starts_with(&b.path) => Relation::Inside,
        () if b.path.starts_with(&a.path) => Relation::Around,
        () => return Relation::Apart,
    };
    if a.is_on_same_host(b) { relation } else { Relation::Apart }
}

#[derive(Debug)]
struct Remote {
    is_ssh: bool,
    host: String,
    /// Looked up once: many targets may have the same host.
    addresses: OnceCell<BTreeSet<IpAddr>>,
    user: Option<String>,
    port: Option<u16>,
    path: PathBuf,
}

impl Remote {
    fn of(target: &Target) -> Option<Self> {
        let (is_ssh, host, path) = match &target.destination {
            Destination::Local(_) => return None,
            Destination::Ssh { host, path } => (true, host, path.clone()),
            Destination::Daemon { host, module } => (false, host, PathBuf::from(module)),
        };
        let Host { user, name } = Host::parse(host).ok()?;
        let usual = if is_ssh { SSH_PORT } else { RSYNCD_PORT };
        let is_home = |part: &Component<'_>| is_ssh && part.as_os_str() == "~";
        let parts = path.components().filter(|part| *part != Component::CurDir);
        let path = parts.skip_while(is_home).collect();
        Some(Self {
            is_ssh,
            host: name.to_ascii_lowercase(),
            addresses: OnceCell::new(),
            user,
            port: Some(target.options.port.unwrap_or(usual)),
            path,
        })
    }

    fn addresses(&self) -> &BTreeSet<IpAddr> {
        self.addresses.get_or_init(|| addresses(&self.host))
    }

    fn is_on_same_host(&self, other: &Self) -> bool {
        // A relative path begins in the home directory of the user, so other users have other directories.
        if self.is_ssh && self.path.is_relative() && self.user != other.user {
            return false;
        }
        // Addresses are compared for rsync daemons only: ssh resolves names by its own configuration, and tells hosts apart by
        // keys.
        self.host == other.host
            || !self.is_ssh && {
                let (ours, theirs) = (self.addresses(), other.addresses());
                !ours.is_empty() && ours == theirs
            }
    }
}

/// The addresses of a host, if the name service answers within `LOOKUP_LIMIT`.
fn addresses(name: &str) -> BTreeSet<IpAddr> {
    if let Some(address) = own_rsyncd::address(name) {
        return BTreeSet::from([address]);
    }
    let (found, is_found) = bounded(1);
    let name = name.to_owned();
    let look = move || {
        let addresses: BTreeSet<IpAddr> =
            (name.as_str(), RSYNCD_PORT).to_socket_addrs().into_iter().flatten().map(|found| found.ip()).collect();
        // An error means that the limit is over and nobody waits any more.
        let _ = found.send(addresses);
    };
    match std::thread::Builder::new().name("syncq-lookup".into()).spawn(look) {
        Ok(_) => is_found.recv_timeout(LOOKUP_LIMIT).unwrap_or_default(),
        Err(_) => BTreeSet::new(),
    }
}

/// The notice about a local destination that is about to be created and may have been meant as a host. `given` is the text as
/// typed.
pub fn is_made_notice(given: &OsString, path: &Path) -> Option<String> {
    let text = given.to_str()?;
    let is_bare = !text.starts_with(['/', '.']);
    (is_bare && !path.exists()).then(|| {
        let shown = path.display();
        match text.contains('/') {
            false => format!("{text} is a new directory, {shown}; a host is written {text}:/path or {text}::module"),
            true => format!("{text} is a new directory, {shown}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventSwitches, TransferOptions};

    fn target(destination: Destination) -> Target {
        Target { destination, options: TransferOptions::default() }
    }

    fn local(path: &Path) -> Target {
        target(Destination::Local(path.to_owned()))
    }

    fn said(source: &Path, targets: Vec<Target>, state: &Path) -> Vec<String> {
        let root = Root {
            path: source.to_owned(),
            targets,
            events: EventSwitches::default(),
            excludes: Vec::new(),
            legacy_hidden: false,
            schedule: None,
        };
        refused([&root], state).into_iter().map(|refused| refused.error.to_string()).collect()
    }

    #[test]
    fn what_would_mirror_into_itself_or_delete_its_own_is_refused_through_links_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        for name in ["src/in", "dst/state", "other"] {
            std::fs::create_dir_all(path(name)).expect("a directory");
        }
        for (to, link) in [("src", "link"), ("dst", "to-dst"), ("absent", "nowhere")] {
            std::os::unix::fs::symlink(path(to), path(link)).expect("a link");
        }
        std::fs::write(path("file"), "").expect("a file");
        let state = path("state");
        for (to, words) in [
            ("src", "the same directory"),
            ("link", "the same directory"),
            ("src/in", "inside the source"),
            ("src/not/yet", "inside the source"),
            ("link/deep/er", "inside the source"),
            ("", "inside the destination"),
            ("file", "it is a file"),
            ("file/below", "file is a file"),
            ("nowhere", "leads nowhere"),
            ("src2", ""),
            ("other", ""),
            ("not/yet", ""),
        ] {
            let said = said(&path("src"), vec![local(&path(to))], &state);
            assert_eq!(said.len(), usize::from(!words.is_empty()), "{to}: {said:?}");
            assert!(said.iter().all(|said| said.contains(words)), "{to}: {said:?}");
        }
        for (to, state, is_refused) in [
            ("dst", "dst/state", true),
            ("dst", "dst", true),
            ("dst", "dst/not/yet", true),
            ("to-dst", "dst/state", true),
            ("dst", "to-dst/state", true),
            ("dst", "dst2", false),
            ("dst/state/below", "dst/state", false),
        ] {
            let said = said(&path("src"), vec![local(&path(to))], &path(state));
            assert_eq!(said.len(), usize::from(is_refused), "{to} {state}: {said:?}");
            assert!(said.iter().all(|said| said.contains("the state directory")), "{said:?}");
        }
    }

    #[test]
    fn one_destination_under_two_names_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("dst/sub")).expect("a directory");
        std::os::unix::fs::symlink(path("dst"), path("link")).expect("a link");
        let ssh = |host: &str, path: &str| target(Destination::Ssh { host: host.into(), path: path.into() });
        let daemon = |host: &str, module: &str, port| {
            let mut target = target(Destination::Daemon { host: host.into(), module: module.into() });
            target.options.port = port;
            target
        };
        let rows = [
            (local(&path("dst")), local(&path("link")), "under two names"),
            (local(&path("dst")), local(&path("dst/sub")), "would delete it"),
            (local(&path("dst/new")), local(&path("link")), "would delete it"),
            (local(&path("dst")), local(&path("dst2")), ""),
            (ssh("h", "/x"), ssh("u@H", "/x"), "under two names"),
            (ssh("u@h", "x"), ssh("u@h", "~/x"), "under two names"),
            (ssh("u@h", "x"), ssh("v@h", "x"), ""),
            (ssh("h", "/x"), ssh("h", "/x/y"), "would delete it"),
            (ssh("h", "/x"), ssh("i", "/x"), ""),
            (daemon("h", "m", None), daemon("u@h", "m", Some(873)), "under two names"),
            (daemon("h", "m", Some(99)), daemon("u@h", "m", Some(873)), ""),
            (daemon("h", "m", None), daemon("h", "m/sub", None), "would delete it"),
            (daemon("h", "m", None), daemon("h", "m2", None), ""),
            (daemon("127.0.0.1", "m", Some(1)), daemon("localhost", "m", Some(1)), "under two names"),
            (daemon("192.0.2.7", "m", None), daemon("192.0.2.8", "m", None), ""),
            (daemon("127.0.0.2", "m", Some(1)), daemon("127.0.0.3", "m", Some(1)), ""),
            (daemon("h", "m", None), ssh("h", "m"), ""),
        ];
        for (one, other, words) in rows {
            let (name, other_name) = (one.name(), other.name());
            let said = said(&path("src"), vec![one, other], &path("state"));
            assert_eq!(said.len(), usize::from(!words.is_empty()), "{name} {other_name}: {said:?}");
            assert!(said.iter().all(|said| said.contains(words)), "{name} {other_name}: {said:?}");
        }
        let mut nested = vec![local(&path("dst")), local(&path("dst/sub"))];
        nested.iter_mut().for_each(|target| target.options.delete = false);
        assert!(said(&path("src"), nested, &path("state")).is_empty());
    }

    #[test]
    fn a_word_that_may_be_a_host_is_told_when_it_becomes_a_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        for (given, words) in [("web2", "web2::module"), ("web2/www", "new directory"), ("./web2", ""), ("/web2", "")] {
            let said = is_made_notice(&OsString::from(given), &dir.path().join("absent")).unwrap_or_default();
            assert!(said.contains(words) && said.is_empty() == words.is_empty(), "{given}: {said}");
        }
        assert_eq!(is_made_notice(&OsString::from("web2"), dir.path()), None);
    }
}
