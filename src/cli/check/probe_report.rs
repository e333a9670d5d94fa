//! Asks the targets, several at once, and puts the findings into words.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::note::{Check, Note};
use crate::config::Config;
use crate::filter::Filter;
use crate::mirror::{Finding, NotTried, OLDEST_RSYNC, ProbeOptions, inspect};
use crate::model::{MaxDelete, Root, Target};

/// How many targets are asked at a time.
const AT_ONCE: usize = 16;

/// One target of a configuration.
struct Asked<'a> {
    root: &'a Root,
    target: &'a Target,
    max_delete: MaxDelete,
}

/// Asks all targets of `configs`, and returns the findings in the order of the files.
pub fn check(configs: &[Config], options: ProbeOptions) -> Vec<Note> {
    let mut targets = Vec::new();
    for config in configs {
        let max_delete = config.settings.max_delete;
        for root in &config.roots {
            targets.extend(root.targets.iter().map(|target| Asked { root, target, max_delete }));
        }
    }
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, Vec<Note>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..targets.len().min(AT_ONCE) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(asked) = targets.get(at) else { return };
                    let notes = ask(asked, options);
                    found.lock().push((at, notes));
                }
            });
        }
    });
    let mut found = found.into_inner();
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().flat_map(|(_, notes)| notes).collect()
}

fn ask(asked: &Asked<'_>, options: ProbeOptions) -> Vec<Note> {
    let Asked { root, target, max_delete } = asked;
    let name = target.name();
    let Ok(filter) = Filter::new(&root.excludes, root.legacy_hidden) else { return Vec::new() };
    let shown = root.path.display().to_string();
    inspect(&root.path, target, &filter, *max_delete, options)
        .iter()
        .map(|finding| Note { root: Some(shown.clone()), ..note(&name, finding) })
        .collect()
}

/// Puts a finding into words.
fn note(name: &str, finding: &Finding) -> Note {
    match finding {
        Finding::Answers { protocol: Some(protocol) } => answers(name, *protocol),
        Finding::Answers { protocol: None } => {
            Note::ok(Check::Target, name, "answers, and takes all that rsync will ask for")
        }
        Finding::FollowsLinks { version } => Note::warn(
            Check::Target,
            name,
            format!(
                "its rsync is {version}, older than 3.5.0: who may write in the mirrored tree, here or there, can have it write outside of \
                 the target, by swapping a directory for a link"
            ),
        )
        .hint("install rsync 3.5.0 or newer there, or let it run as a user who may write nothing else"),
        Finding::NotYetThere => Note::ok(Check::Target, name, "its directory is not there yet; the first run makes it"),
        Finding::DeletesByLevel => Note::warn(
            Check::Target,
            name,
            "deletions by name are refused: they are made by looking through their directories, which is slower",
        )
        .hint("update rsync there (Debian 12's 3.2.7 and 3.4.3 refuse them), and take delete-missing-args out of `refuse options`"),
        Finding::DeletesNothing(error) => Note::fail(Check::Target, name, error.message.clone())
            .hint("until then, what is gone from the source stays on the target"),
        Finding::ComparesSeconds => Note::ok(
            Check::Target,
            name,
            "compares times by whole seconds: what is replaced within the second and seen by no event is found by `verify --checksum`",
        ),
        Finding::Writable => Note::ok(Check::Target, name, "writable: a small file was sent and deleted again"),
        Finding::NotTried(reason) => {
            let reason = match reason {
                NotTried::Unwanted => "that was not asked for",
                NotTried::NoDeletion => "the file could not be deleted again",
                NotTried::KeepsBackups => "the params keep a backup of whatever is deleted",
                NotTried::Excluded => "the params keep the file for that from being sent",
            };
            Note::ok(Check::Target, name, format!("whether its directory can be written was not tried: {reason}"))
        }
        Finding::LeftBehind { name: file, said } => {
            Note::warn(Check::Target, name, format!("the file {file} was sent and could not be deleted again: {said}"))
                .hint(format!("delete {file} there by hand; a whole-tree run does so after a day"))
        }
        Finding::Trouble(found) => Note::trouble(name, found),
    }
}

/// Describes an answering target. rsync's protocol number tells versions apart, as far as it can.
fn answers(name: &str, protocol: u32) -> Note {
    let versions = match protocol {
        ..30 => "older than 3.0",
        30 => "3.0",
        31 => "3.1 to 3.3",
        // Distributions have backported the fixes of this protocol to older versions.
        _ => "3.4 or newer, or an older one with its repairs",
    };
    let message = format!("answers; its rsync speaks protocol {protocol} (version {versions})");
    if protocol < 31 {
        Note::fail(Check::Target, name, message).hint(format!("install rsync {OLDEST_RSYNC} or newer there"))
    } else {
        Note::ok(Check::Target, name, message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::Level;
    use super::*;

    #[test]
    fn protocols_tell_versions_apart() {
        for (protocol, level, words) in
            [(29, Level::Fail, "older than 3.0"), (31, Level::Ok, "3.1 to 3.3"), (32, Level::Ok, "3.4 or newer")]
        {
            let note = answers("h::m", protocol);
            assert!(note.level == level && note.message.contains(words), "{note:?}");
        }
    }
}
