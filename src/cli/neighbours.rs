//! Other syncqs on this machine that mirror what this one does: two that feed one destination from different directories
//! undo each other, two that feed it from the same one do everything twice, and two that mirror in opposite directions
//! answer each other.
//!
//! They are found by the sockets on which they listen, wherever their state directories are, and asked what they mirror.
//! What is compared are names: local directories without links, other destinations as they are written.
//!
//! A daemon looks once it listens itself: of two that start at the same time, at a boot say, at least the later one finds the
//! other.
//!
//! Deliberately not here: refusing anything. One root may be mirrored by two daemons on purpose. Daemons of other
//! machines, in containers of their own, and destinations that have two names are not seen; a target that is fed by
//! strangers shows in what comparisons find. There is no lock on the source: it would stand in the way of programs that
//! lock it for their own ends. And no mark at the target: whoever does not know of it deletes it as something that only the
//! target has, and takes it along in a copy of the disk, so that neither its lack nor its presence would say anything. What
//! others have put there is asked about before the first comparison deletes it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{info, warn};

use super::state_dir::{self, real_path};
use crate::control::{Client, ClientError, Status, socket_path};
use crate::model::Root;

/// Something that this syncq and another one both have their hands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// The root or target of this one.
    pub subject: String,
    pub message: String,
    pub hint: Option<String>,
    /// One of the two undoes or repeats what the other does.
    pub harms: bool,
}

/// Another daemon and what it mirrors.
struct Neighbour {
    /// How a person finds it.
    shown: String,
    pid: u32,
    mirrors: Vec<Mirror>,
}

/// One target of another daemon, as its status names it.
struct Mirror {
    from: PathBuf,
    name: String,
    to: Place,
}

/// A destination in a form that tells what lies in what.
#[derive(PartialEq, Eq)]
struct Place {
    /// A local directory without links, or `HOST::MODULE/PATH` and the like, of which the same is true.
    path: PathBuf,
    port: Option<u16>,
}

/// How often, and how many times, a daemon looks whether it listens. Opening a long queue takes its time; after ten minutes
/// the others are asked in any case.
const LISTENS_EVERY: Duration = Duration::from_millis(100);
const LISTENS_LOOKS_MAX: usize = 6_000;

/// Logs where a daemon that is about to start meets others. Asking them takes as long as it takes, so it is done beside.
pub fn warn_of_meetings(own: &Path, roots: &[Root]) {
    let (own, roots) = (own.to_owned(), roots.to_vec());
    let asked = std::thread::Builder::new().name("neighbours".to_owned()).spawn(move || {
        let listens = || Client::connect(&own).is_ok();
        for _ in (0..LISTENS_LOOKS_MAX).take_while(|_| !listens()) {
            std::thread::sleep(LISTENS_EVERY);
        }
        for Meeting { subject, message, hint, harms } in meetings(&own, &roots) {
            let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            match harms {
                true => warn!("{subject}: {message}{hint}"),
                false => info!("{subject}: {message}{hint}"),
            }
        }
    });
    if let Err(error) = asked {
        warn!("cannot look for other syncqs on this machine: {error}");
    }
}

/// Where the daemon of the state directory `own`, which need not run, meets others.
pub fn meetings(own: &Path, roots: &[Root]) -> Vec<Meeting> {
    let own = real_path(own);
    let mut found = Vec::new();
    for state_dir in running().into_iter().filter(|dir| *dir != own) {
        match Client::connect(&state_dir).and_then(|client| client.status()) {
            Ok(status) => found.extend(compare(roots, &Neighbour::new(&state_dir, &status))),
            // It has stopped meanwhile.
            Err(ClientError::NoDaemon { .. }) => {}
            Err(error) => found.push(Meeting {
                subject: state_dir.display().to_string(),
                message: format!("another syncq runs here, and cannot be asked what it mirrors: {error}"),
                hint: None,
                harms: false,
            }),
        }
    }
    found
}

/// The state directories of all daemons that can be found, without links.
fn running() -> BTreeSet<PathBuf> {
    let listening = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut dirs: BTreeSet<PathBuf> = listening.lines().filter_map(state_dir_of).map(|dir| real_path(&dir)).collect();
    // Those of another network namespace are not in the list.
    dirs.extend(state_dir::daemons_of_user().iter().map(|dir| real_path(dir)));
    dirs
}

/// The state directory whose control socket a line of `/proc/net/unix` is about (proc(5): Num, RefCount, Protocol, Flags,
/// Type, St, Inode, Path; the flag `__SO_ACCEPTCON` is on where somebody listens).
fn state_dir_of(line: &str) -> Option<PathBuf> {
    const LISTENS: u32 = 0x1_0000;
    let mut rest = line;
    let mut field = || {
        let (word, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        Some(word)
    };
    let flags = (0..4).map(|_| field()).last()??;
    let _type_state_inode: Vec<_> = (0..3).map(|_| field()).collect();
    if u32::from_str_radix(flags, 16).ok()? & LISTENS == 0 {
        return None;
    }
    // The path is what is left, with any blanks that it has.
    let socket = Path::new(rest.strip_prefix(' ').unwrap_or(rest));
    let dir = socket.parent().filter(|dir| dir.is_absolute())?;
    (socket_path(dir) == socket).then(|| dir.to_owned())
}

impl Neighbour {
    fn new(state_dir: &Path, status: &Status) -> Self {
        let mirrors = status.targets.iter().map(|target| Mirror {
            from: real_path(Path::new(&target.root)),
            name: target.name.clone(),
            to: Place::new(&target.name, target.port),
        });
        Self {
            shown: format!("the syncq of {} (process {})", state_dir.display(), status.pid),
            pid: status.pid,
            mirrors: mirrors.collect(),
        }
    }
}

impl Place {
    fn new(name: &str, port: Option<u16>) -> Self {
        const RSYNC: u16 = 873;
        let path = Path::new(name);
        let is_local = path.is_absolute();
        Self {
            path: if is_local { real_path(path) } else { path.to_owned() },
            port: port.filter(|&port| !(is_local || name.contains("::") && port == RSYNC)),
        }
    }

    fn lies_in(&self, outer: &Self) -> bool {
        self.port == outer.port && self.path.starts_with(&outer.path)
    }
}

fn compare(roots: &[Root], neighbour: &Neighbour) -> Vec<Meeting> {
    roots.iter().flat_map(|root| meetings_of(root, neighbour)).collect()
}

fn meetings_of(root: &Root, Neighbour { shown, pid, mirrors }: &Neighbour) -> Vec<Meeting> {
    let from = real_path(&root.path);
    let mut found = Vec::new();
    for target in &root.targets {
        let subject = target.name();
        let to = Place::new(&subject, target.options.port);
        for theirs in mirrors {
            let (their_root, their_name) = (theirs.from.display(), &theirs.name);
            let is_shared = to.lies_in(&theirs.to) || theirs.to.lies_in(&to);
            let message = if to == theirs.to && from == theirs.from {
                format!("{shown} mirrors {their_root} there too: all is sent twice; stop one of them")
            } else if is_shared {
                let there = if to == theirs.to { "there".to_owned() } else { format!("to {their_name}") };
                format!(
                    "{shown} mirrors {their_root} {there}: each deletes what the other sends; give each its own place"
                )
            } else if to.path == theirs.from && theirs.to.path == from {
                format!("{shown} mirrors it back to {their_name}: each answers the other's changes; stop one of them")
            } else {
                continue;
            };
            found.push(Meeting { subject: subject.clone(), message, hint: Some(format!("kill {pid}")), harms: true });
        }
    }
    let names: BTreeSet<_> =
        mirrors.iter().filter(|theirs| theirs.from == from).map(|theirs| theirs.name.as_str()).collect();
    if found.is_empty() && !names.is_empty() {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        found.push(Meeting {
            subject: root.path.display().to_string(),
            message: format!("{shown} mirrors it too, to {names}"),
            hint: None,
            harms: false,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Destination, EventSwitches, Target, TransferOptions};

    #[test]
    fn listening_control_sockets_are_found_among_all_sockets() {
        let name = socket_path(Path::new("/var/lib/syncq/a b"));
        for (line, expected) in [
            (format!("0000: 00000002 00000000 00010000 0001 01 12345 {}", name.display()), Some("/var/lib/syncq/a b")),
            (format!("0000: 00000002 00000000 00010000 0001 01   345 {}", name.display()), Some("/var/lib/syncq/a b")),
            // A connection.
            (format!("0000: 00000003 00000000 00000000 0001 03 12345 {}", name.display()), None),
            ("0000: 00000002 00000000 00010000 0001 01 12345 /run/other.sock".to_owned(), None),
            ("0000: 00000002 00000000 00010000 0001 01 12345 @abstract".to_owned(), None),
            ("0000: 00000002 00000000 00010000 0001 01 12345".to_owned(), None),
            ("Num       RefCount Protocol Flags    Type St Inode Path".to_owned(), None),
        ] {
            assert_eq!(state_dir_of(&line), expected.map(PathBuf::from), "{line}");
        }
    }

    /// Two rsync daemons of one machine are two places.
    #[test]
    fn each_way_to_meet_is_told_in_its_own_words() {
        let root = |path: &str, destination: Destination| Root {
            path: path.into(),
            targets: vec![Target {
                destination,
                options: TransferOptions { port: Some(873), ..TransferOptions::default() },
            }],
            events: EventSwitches::default(),
            excludes: Vec::new(),
            legacy_hidden: false,
            schedule: None,
        };
        let local = |path: &str| Destination::Local(path.into());
        let daemon = |module: &str| Destination::Daemon { host: "h".to_owned(), module: module.into() };
        for (from, to, their_from, their_to, their_port, word, harms) in [
            ("/no/a", daemon("m"), "/no/a", "h::m", None, "all is sent twice", true),
            ("/no/a", daemon("m"), "/no/a", "h::m", Some(8_730), "mirrors it too, to h::m", false),
            ("/no/a", daemon("m"), "/no/b", "h::m", None, "each deletes what the other sends", true),
            ("/no/a", daemon("m"), "/no/b", "h::m", Some(8_730), "", false),
            ("/no/a", daemon("m/x"), "/no/b", "h::m", None, "mirrors /no/b to h::m: each deletes", true),
            ("/no/a", local("/no/t"), "/no/b", "/no/t/in", None, "mirrors /no/b to /no/t/in: each deletes", true),
            ("/no/a", local("/no/b"), "/no/b", "/no/a", None, "each answers", true),
            ("/no/a", daemon("m"), "/no/a", "h::n", None, "mirrors it too, to h::n", false),
            ("/no/a", daemon("m"), "/no/b", "h::m2", None, "", false),
            // The next tier of a relay.
            ("/no/a", local("/no/b"), "/no/b", "h::m", None, "", false),
        ] {
            let to_place = Place::new(their_to, their_port);
            let mirrors = vec![Mirror { from: their_from.into(), name: their_to.to_owned(), to: to_place }];
            let neighbour = Neighbour { shown: "another".to_owned(), pid: 7, mirrors };
            let found = compare(&[root(from, to)], &neighbour);
            assert_eq!(found.len(), usize::from(!word.is_empty()), "{found:?}");
            for meeting in found {
                assert!(meeting.message.contains(word) && meeting.harms == harms, "{meeting:?}");
                assert_eq!(meeting.hint.is_some(), harms);
            }
        }
    }
}
