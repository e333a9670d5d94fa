//! Checks whether inotify's limits suffice for the trees: counts the directories, and reads the kernel's limits for this user.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::note::{Check, Note};
use crate::clock::monotonic;
use crate::filter::{Filter, Kind};
use crate::model::{RelPath, Root};
use crate::system::inotify_limits::{InotifyLimits, InotifySysctl, QUEUED_EVENTS};

/// The count stops at this number or after this time: this is a check, not a scan.
const DIRECTORIES_MAX: u64 = 5_000_000;
const COUNTING_MAX: Duration = Duration::from_secs(20);

/// Other programs of the user share the watches. If less than one part in this many is free, a warning is due.
const SPARE: u64 = 5;

/// The length of the kernel's event queue where nobody has raised it.
const QUEUED_EVENTS_STOCK: u64 = 16_384;

/// How many directories need a watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Directories {
    pub count: u64,
    /// The count was stopped; there are more directories.
    pub is_cut: bool,
}

/// The rights of the user who runs the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Root: syncq raises the limits itself when they are used up.
    Root,
    /// Root in a container, from where the limits cannot be changed.
    RootOfContainer,
    Ordinary,
}

/// Counts the directories below `roots`, and compares them with the kernel's limits.
pub fn check(roots: &[&Root]) -> Vec<Note> {
    let sysctl = InotifySysctl::default();
    let limits = match sysctl.read() {
        Ok(limits) => limits,
        Err(error) => {
            return vec![
                Note::fail(Check::Limits, "inotify", format!("the limits cannot be read: {error}"))
                    .hint("syncq needs a Linux kernel with inotify, and /proc"),
            ];
        }
    };
    let rights = match (rustix::process::geteuid().is_root(), sysctl.may_write()) {
        (true, true) => Rights::Root,
        (true, false) => Rights::RootOfContainer,
        (false, _) => Rights::Ordinary,
    };
    let mut needed = Directories::default();
    let begun = monotonic();
    for root in roots {
        // The filter was compiled once already when the file was read, so an error is not expected.
        let filter = Filter::new(&root.excludes, root.legacy_hidden).ok();
        count(&root.path, filter.as_ref(), &mut needed, &|| begun.elapsed() > COUNTING_MAX);
    }
    let mut notes = judge(&limits, needed, rights);
    notes.extend(instances(&limits, roots.len(), rights));
    notes
}

/// Judges the numbers. Pure.
pub fn judge(limits: &InotifyLimits, needed: Directories, rights: Rights) -> Vec<Note> {
    let at_least = if needed.is_cut { "at least " } else { "" };
    let count = needed.count;
    let directories = if count == 1 { "directory" } else { "directories" };
    let message = format!("{at_least}{count} {directories} to watch, and max_user_watches is {}", limits.watches);
    let raised = needed.count.saturating_mul(2).max(524_288);
    let fits = needed.count <= limits.watches - limits.watches / SPARE && !needed.is_cut;
    let watches = match rights {
        _ if fits => Note::ok(Check::Limits, "watches", message),
        Rights::Root => {
            Note::ok(Check::Limits, "watches", format!("{message}; syncq raises it itself, since it runs as root"))
        }
        Rights::RootOfContainer | Rights::Ordinary => {
            let rest = if count > limits.watches {
                "what is left over is only looked through every 10 s"
            } else {
                "that is tight"
            };
            Note::warn(Check::Limits, "watches", format!("{message}: {rest}")).hint(raise(
                "max_user_watches",
                raised,
                rights,
            ))
        }
    };
    let events = limits.queued_events;
    let message = format!("max_queued_events is {events}");
    let events = match rights {
        _ if events >= QUEUED_EVENTS => Note::ok(Check::Limits, "events", message),
        Rights::Root => {
            Note::ok(Check::Limits, "events", format!("{message}; syncq raises it to {QUEUED_EVENTS} at its start"))
        }
        Rights::RootOfContainer | Rights::Ordinary if events >= QUEUED_EVENTS_STOCK => {
            Note::ok(Check::Limits, "events", format!("{message}; bursts of more changes cost a look through the tree"))
                .hint(raise("max_queued_events", QUEUED_EVENTS, rights))
        }
        Rights::RootOfContainer | Rights::Ordinary => {
            Note::warn(Check::Limits, "events", format!("{message}: bursts of changes cost a look through the tree"))
                .hint(raise("max_queued_events", QUEUED_EVENTS, rights))
        }
    };
    vec![watches, events]
}

/// The command that raises a limit now, and the command that makes the limit last.
fn raise(name: &str, to: u64, rights: Rights) -> String {
    let who = match rights {
        Rights::Root => "",
        Rights::RootOfContainer => "on the host of this container: ",
        Rights::Ordinary => "as root: ",
    };
    let line = format!("fs.inotify.{name}={to}");
    format!("{who}sysctl -w {line}; for the next boot: echo {line} > /etc/sysctl.d/60-{name}.conf")
}

/// Checks whether the user has enough inotify instances left: each root needs one.
fn instances(limits: &InotifyLimits, needed: usize, rights: Rights) -> Option<Note> {
    let opened: Result<Vec<_>, _> = (0..needed).map(|_| inotify::Inotify::init()).collect();
    let allowed = limits.instances;
    Some(match opened {
        Ok(_) => Note::ok(
            Check::Limits,
            "instances",
            format!("{needed} needed and to be had; max_user_instances is {allowed}"),
        ),
        Err(_) if rights == Rights::Root => Note::ok(
            Check::Limits,
            "instances",
            format!(
                "{needed} needed; max_user_instances is {allowed}, and syncq raises it itself, since it runs as root"
            ),
        ),
        Err(error) => Note::fail(
            Check::Limits,
            "instances",
            format!("{needed} needed, and not to be had: {error}; max_user_instances is {allowed}"),
        )
        .hint(raise("max_user_instances", allowed.saturating_mul(4).max(1_024), Rights::Ordinary)),
    })
}

/// Counts the mirrored directories at and below `root`. Directories that cannot be read are left for the daemon to report.
fn count(root: &Path, filter: Option<&Filter>, found: &mut Directories, is_over: &dyn Fn() -> bool) {
    let mut pending: Vec<(PathBuf, RelPath)> = vec![(root.to_owned(), RelPath::root())];
    while let Some((dir, path)) = pending.pop() {
        if found.count >= DIRECTORIES_MAX || is_over() {
            found.is_cut = true;
            return;
        }
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        found.count += 1;
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let path = path.join(entry.file_name().as_encoded_bytes());
            if !filter.is_some_and(|filter| filter.excludes(&path, Kind::Directory)) {
                pending.push((entry.path(), path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::Level;
    use super::*;

    #[test]
    fn numbers_that_are_too_small_are_named_with_the_line_to_type() {
        let limits = |watches, queued_events| InotifyLimits { watches, queued_events, instances: 128 };
        let exactly = |count| Directories { count, is_cut: false };
        for (limits, needed, rights, levels, words) in [
            (limits(8_192, 16_384), exactly(100), Rights::Ordinary, [Level::Ok, Level::Ok], ""),
            (
                limits(8_192, 400_000),
                exactly(7_000),
                Rights::Ordinary,
                [Level::Warn, Level::Ok],
                "max_user_watches=524288",
            ),
            (
                limits(8_192, 16_384),
                exactly(300_000),
                Rights::Ordinary,
                [Level::Warn, Level::Ok],
                "max_user_watches=600000",
            ),
            (limits(8_192, 16_384), exactly(300_000), Rights::Root, [Level::Ok, Level::Ok], "raises it itself"),
            (limits(8_192, 100), exactly(9_000), Rights::RootOfContainer, [Level::Warn, Level::Warn], "on the host"),
            (limits(8_192, 100), exactly(1), Rights::Ordinary, [Level::Ok, Level::Warn], "max_queued_events=327679"),
            (
                limits(1 << 30, 400_000),
                Directories { count: 5, is_cut: true },
                Rights::Ordinary,
                [Level::Warn, Level::Ok],
                "at least 5",
            ),
        ] {
            let notes = judge(&limits, needed, rights);
            assert_eq!(notes.iter().map(|note| note.level).collect::<Vec<_>>(), levels, "{notes:#?}");
            let said: String = notes
                .iter()
                .map(|note| format!("{} {}\n", note.message, note.hint.as_deref().unwrap_or_default()))
                .collect();
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn directories_are_counted_as_far_as_they_are_mirrored() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in ["a/b", "c", "skip/d/e"] {
            std::fs::create_dir_all(dir.path().join(path)).expect("a directory");
        }
        std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).expect("a link");
        let filter = Filter::new(&["^skip/*".to_owned()], false).expect("a filter");
        for (filter, expected) in [(None, 7), (Some(&filter), 4)] {
            let mut found = Directories::default();
            count(dir.path(), filter, &mut found, &|| false);
            assert_eq!(found, Directories { count: expected, is_cut: false });
        }
        let mut found = Directories::default();
        count(dir.path(), None, &mut found, &|| true);
        assert!(found.is_cut);
    }
}
