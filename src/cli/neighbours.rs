//! Finds pairs of mirrors on this machine that meet: a root of this syncq with another syncq, or two roots of this one. Two
//! mirrors that feed one destination from different directories undo each other. Two that feed it from the same directory do
//! everything twice. Two that mirror in opposite directions answer each other for ever.
//!
//! Other syncqs are found by their listening sockets, wherever their state directories are, and asked what they mirror. Two
//! destinations are compared as those of one configuration are (`apart`): by directory, address and port.
//!
//! A daemon looks for others only once it listens itself. Of two daemons that start at the same time, at a boot for example, at
//! least the later one finds the other.
//!
//! Deliberately absent: any refusal. One root may be mirrored by two daemons on purpose. Daemons of other machines and in other
//! containers are not seen. Daemons of other users are named but cannot be asked. A target that is fed by strangers shows in
//! the results of comparisons. There is no lock on the source: such a lock would hinder programs that lock it for their own
//! ends. And there is no mark on the target: a syncq that does not know the mark would delete it as an extra file, and a copy
//! of the disk would contain it. So neither its absence nor its presence would prove anything. Files that others have put on a
//! target are asked about before the first comparison deletes them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{info, warn};

use super::apart::{Placed, Relation};
use super::destination::{self, Parsed};
use super::state_dir::{self, real_path};
use crate::control::{Client, ClientError, Status, socket_path};
use crate::model::{Root, Target, TransferOptions};

/// A place that is touched by a mirror of this syncq and by another mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// The root or target of this syncq.
    pub subject: String,
    pub message: String,
    pub hint: Option<String>,
    /// Whether one mirror undoes or repeats the work of the other.
    pub harms: bool,
}

/// Another daemon with its mirrors.
struct Neighbour {
    /// The description by which a person finds the daemon.
    shown: String,
    pid: u32,
    mirrors: Vec<Mirror>,
}

/// One target of another daemon, as its status names it.
struct Mirror {
    from: PathBuf,
    name: String,
    /// `None`: the target's name is not one that a command line accepts.
    to: Option<Target>,
}

/// How often, and how many times, a daemon checks whether it listens itself. Loading a long queue takes time; after ten minutes
/// the others are asked in any case.
const LISTENS_EVERY: Duration = Duration::from_millis(100);
const LISTENS_LOOKS_MAX: usize = 6_000;

/// Logs where a daemon that is about to start meets others. Asking may take long, so it is done on a thread of its own.
pub fn warn_of_meetings(own: &Path, roots: &[Root]) {
    let (own, roots) = (own.to_owned(), roots.to_vec());
    let asked = std::thread::Builder::new().name("neighbours".to_owned()).spawn(move || {
        own_meetings(&roots).iter().for_each(tell);
        let listens = || Client::connect(&own).is_ok();
        for _ in (0..LISTENS_LOOKS_MAX).take_while(|_| !listens()) {
            std::thread::sleep(LISTENS_EVERY);
        }
        meetings(&own, &roots).iter().for_each(tell);
    });
    if let Err(error) = asked {
        warn!("cannot look for other syncqs on this machine: {error}");
    }
}

fn tell(Meeting { subject, message, hint, harms }: &Meeting) {
    let hint = hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    match harms {
        true => warn!("{subject}: {message}{hint}"),
        false => info!("{subject}: {message}{hint}"),
    }
}

/// The meetings of the daemon in the state directory `own` with others. That daemon need not be running.
pub fn meetings(own: &Path, roots: &[Root]) -> Vec<Meeting> {
    let own = real_path(own);
    let mut found = Vec::new();
    for state_dir in running().into_iter().filter(|dir| *dir != own) {
        match Client::connect(&state_dir).and_then(|client| client.status()) {
            Ok(status) => found.extend(compare(roots, &Neighbour::new(&state_dir, &status))),
            // That daemon has stopped meanwhile.
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

/// The state directories of all daemons that can be found, with links resolved.
fn running() -> BTreeSet<PathBuf> {
    let listening = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut dirs: BTreeSet<PathBuf> = listening.lines().filter_map(state_dir_of).map(|dir| real_path(&dir)).collect();
    // Sockets of another network namespace are not in that table, so look at this user's state directories too.
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
    // The path is the rest of the line, including any blanks in it.
    let socket = Path::new(rest.strip_prefix(' ').unwrap_or(rest));
    let dir = socket.parent().filter(|dir| dir.is_absolute())?;
    (socket_path(dir) == socket).then(|| dir.to_owned())
}

impl Neighbour {
    fn new(state_dir: &Path, status: &Status) -> Self {
        let mirrors = status.targets.iter().map(|target| Mirror {
            from: real_path(Path::new(&target.root)),
            name: target.name.clone(),
            to: target_named(&target.name, target.port),
        });
        Self {
            shown: format!("the syncq of {} (process {})", state_dir.display(), status.pid),
            pid: status.pid,
            mirrors: mirrors.collect(),
        }
    }
}

/// The target of another daemon, reconstructed from its status.
fn target_named(name: &str, port: Option<u16>) -> Option<Target> {
    let Parsed { destination, port: named } = destination::parse(OsStr::new(name), Path::new("/")).ok()?;
    let options = TransferOptions { port: port.or(named), ..TransferOptions::default() };
    Some(Target { destination, options })
}

/// The meetings among the roots of one syncq. If one root lies in the other, their targets may do so too, and are not reported.
pub fn own_meetings(roots: &[Root]) -> Vec<Meeting> {
    let places: Vec<(PathBuf, Vec<Placed<'_>>)> =
        roots.iter().map(|root| (real_path(&root.path), root.targets.iter().map(Placed::new).collect())).collect();
    let mut found = Vec::new();
    for (at, (from, targets)) in places.iter().enumerate() {
        for (other_from, others) in places.iter().take(at) {
            if from.starts_with(other_from) || other_from.starts_with(from) {
                continue;
            }
            for (one, other) in targets.iter().flat_map(|one| others.iter().map(move |other| (one, other))) {
                let deletes = match one.relation(other) {
                    Relation::Same => one.target.options.delete || other.target.options.delete,
                    Relation::Inside => other.target.options.delete,
                    Relation::Around => one.target.options.delete,
                    Relation::Apart => false,
                };
                if deletes {
                    let (subject, name) = (one.target.name(), other.target.name());
                    let (from, other_from) = (from.display(), other_from.display());
                    let both = match subject == name {
                        true => format!("{from} and {other_from} are both mirrored there"),
                        false => format!("{from} is mirrored there, and {other_from} to {name}"),
                    };
                    found.push(Meeting {
                        subject,
                        message: format!("{both}: what one of them sends the other deletes"),
                        hint: Some("give each its own place".to_owned()),
                        harms: true,
                    });
                }
            }
        }
    }
    found
}

fn compare(roots: &[Root], neighbour: &Neighbour) -> Vec<Meeting> {
    roots.iter().flat_map(|root| meetings_of(root, neighbour)).collect()
}

fn meetings_of(root: &Root, Neighbour { shown, pid, mirrors }: &Neighbour) -> Vec<Meeting> {
    let from = real_path(&root.path);
    let mut found = Vec::new();
    for target in &root.targets {
        let subject = target.name();
        let to = Placed::new(target);
        for theirs in mirrors {
            let (their_root, their_name) = (theirs.from.display(), &theirs.name);
            let Some(their_place) = theirs.to.as_ref().map(Placed::new) else { continue };
            let there = if subject == *their_name { "there".to_owned() } else { format!("to {their_name}") };
            let message = match to.relation(&their_place) {
                Relation::Same if from == theirs.from => {
                    format!("{shown} mirrors {their_root} {there} too: all is sent twice; stop one of them")
                }
                Relation::Apart if to.is(&theirs.from) && their_place.is(&from) => format!(
                    "{shown} mirrors it back to {their_name}: each answers the other's changes; stop one of them"
                ),
                Relation::Apart => continue,
                _ => format!(
                    "{shown} mirrors {their_root} {there}: each deletes what the other sends; give each its own place"
                ),
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
    use crate::model::{Destination, EventSwitches};

    #[test]
    fn listening_control_sockets_are_found_among_all_sockets() {
        let name = socket_path(Path::new("/var/lib/syncq/a b"));
        for (line, expected) in [
            (format!("0000: 00000002 00000000 00010000 0001 01 12345 {}", name.display()), Some("/var/lib/syncq/a b")),
            (format!("0000: 00000002 00000000 00010000 0001 01   345 {}", name.display()), Some("/var/lib/syncq/a b")),
            // A connection, not a listening socket.
            (format!("0000: 00000003 00000000 00000000 0001 03 12345 {}", name.display()), None),
            ("0000: 00000002 00000000 00010000 0001 01 12345 /run/other.sock".to_owned(), None),
            ("0000: 00000002 00000000 00010000 0001 01 12345 @abstract".to_owned(), None),
            ("0000: 00000002 00000000 00010000 0001 01 12345".to_owned(), None),
            ("Num       RefCount Protocol Flags    Type St Inode Path".to_owned(), None),
        ] {
            assert_eq!(state_dir_of(&line), expected.map(PathBuf::from), "{line}");
        }
    }

    /// Two directories of one configuration were mirrored to one module. Each run deleted the files that the other had sent,
    /// and nothing was said.
    #[test]
    fn two_roots_of_one_configuration_that_feed_one_place_are_told() {
        let root = |path: &str, module: &str, delete: bool| Root {
            path: path.into(),
            targets: vec![Target {
                destination: Destination::Daemon { host: "h".to_owned(), module: module.into() },
                options: TransferOptions { delete, ..TransferOptions::default() },
            }],
            events: EventSwitches::default(),
            excludes: Vec::new(),
            legacy_hidden: false,
            schedule: None,
        };
        for (roots, told) in [
            ([root("/no/a", "m", true), root("/no/b", "m", true)], 1),
            ([root("/no/a", "m", true), root("/no/b", "m", false)], 1),
            // Without deletions both may keep their files there.
            ([root("/no/a", "m", false), root("/no/b", "m", false)], 0),
            ([root("/no/a", "m", true), root("/no/b", "m/b", true)], 1),
            ([root("/no/a", "m", false), root("/no/b", "m/b", true)], 0),
            ([root("/no/a", "m", true), root("/no/a/b", "m/b", true)], 0),
            ([root("/no/a", "m", true), root("/no/b", "n", true)], 0),
        ] {
            assert_eq!(own_meetings(&roots).len(), told, "{roots:?}");
        }
        let told = own_meetings(&[root("/no/a", "m", true), root("/no/b", "m", true)]);
        assert!(told[0].harms && told[0].message.contains("/no/b and /no/a are both mirrored there"), "{told:?}");
    }

    /// Two rsync daemons on one machine are two different places.
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
        for (from, destination, their_from, their_to, their_port, word, harms) in [
            ("/no/a", daemon("m"), "/no/a", "h::m", None, "all is sent twice", true),
            ("/no/a", daemon("m"), "/no/a", "h::m", Some(8_730), "mirrors it too, to h::m", false),
            ("/no/a", daemon("m"), "/no/b", "h::m", None, "each deletes what the other sends", true),
            ("/no/a", daemon("m"), "/no/b", "h::m", Some(8_730), "", false),
            // The same place under another name.
            ("/no/a", daemon("m"), "/no/a", "other@H::m", None, "to other@H::m too: all is sent twice", true),
            ("/no/a", daemon("m"), "/no/b", "rsync://h/m", None, "to rsync://h/m: each deletes", true),
            ("/no/a", daemon("m/x"), "/no/b", "h::m", None, "mirrors /no/b to h::m: each deletes", true),
            ("/no/a", local("/no/t"), "/no/b", "/no/t/in", None, "mirrors /no/b to /no/t/in: each deletes", true),
            ("/no/a", local("/no/b"), "/no/b", "/no/a", None, "each answers", true),
            ("/no/a", daemon("m"), "/no/a", "h::n", None, "mirrors it too, to h::n", false),
            ("/no/a", daemon("m"), "/no/b", "h::m2", None, "", false),
            // The next stage of a relay.
            ("/no/a", local("/no/b"), "/no/b", "h::m", None, "", false),
        ] {
            let to = target_named(their_to, their_port);
            assert!(to.is_some(), "{their_to}");
            let mirrors = vec![Mirror { from: their_from.into(), name: their_to.to_owned(), to }];
            let neighbour = Neighbour { shown: "another".to_owned(), pid: 7, mirrors };
            let found = compare(&[root(from, destination)], &neighbour);
            assert_eq!(found.len(), usize::from(!word.is_empty()), "{found:?}");
            for meeting in found {
                assert!(meeting.message.contains(word) && meeting.harms == harms, "{meeting:?}");
                assert_eq!(meeting.hint.is_some(), harms);
            }
        }
    }
}
