//! Decides what an ended run means, from its exit code and its words together. Pure.
//!
//! A run is successful only if nothing contradicts it: standard error is read at exit code 0 too. A failure that names its
//! paths fails only those. A failure that names none is reported as such, and the batch searches for the guilty path.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;

use super::attribution::{Concerned, Prefixes, concerned, reached};
use super::diagnosis::{Fallback, Remedy, first_words, printable, remedy, trouble, unknown};
use super::noise::Noise;
use crate::mirror::plan::run::{Run, RunKind};
use crate::mirror::plan::source::Presence;
use crate::mirror::rsync::capture::Capture;
use crate::mirror::rsync::ended::{End, Ended};
use crate::mirror::rsync::itemize::{skips_deletions, unescape};
use crate::mirror::rsync::messages::{About, Extent, Line, lines};
use crate::model::{JobError, RelPath, TargetTrouble, TroubleClass};

/// The result of a run. Entries are indices into the run's list.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Paths(Paths),
    /// The target is at fault; nothing is known of any path.
    Target(TargetTrouble),
    /// The whole run died, perhaps of one path. If the target itself is well, running halves tells which path.
    Split(TargetTrouble),
    /// The target had no room for this entry, or for the path `below` a compared entry. If neither is named, nobody knows
    /// for which.
    NoRoom {
        entry: Option<usize>,
        below: Option<RelPath>,
        trouble: TargetTrouble,
    },
    Fallback(Fallback),
    /// The run hung in a file of the source and was ended. Holds the file's path, if that is one of the mirror's.
    Blocked(Option<RelPath>, JobError),
    /// This process ended the run itself, so its end means nothing.
    Void,
}

/// The result of a run that left work undone. An entry that is not mentioned is done, unless `unattributed` holds a failure
/// whose path is not known.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Paths {
    pub failed: BTreeMap<usize, JobError>,
    /// Those of `failed` for which the other side lacks the permission.
    pub denied: BTreeSet<usize>,
    pub vanished: BTreeSet<usize>,
    pub unattributed: Option<JobError>,
    /// `unattributed` comes from a message of no known kind.
    pub unknown_words: bool,
    /// rsync gave up deleting: whatever a level or tree run was to delete is still there.
    pub deletions_skipped: bool,
    /// Failures below an entry of a level or tree run, at paths of their own.
    pub found: BTreeMap<RelPath, Undone>,
    /// Those of `found` that could not be read at the source, which keeps rsync from deleting.
    pub unreadable: BTreeSet<RelPath>,
    /// Paths that the server's own configuration leaves out, as far as the server named them.
    pub refused: BTreeSet<RelPath>,
}

/// A failure below a level or a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    pub error: JobError,
    pub extent: Extent,
}

/// How many unreadable paths are left out of a tree; with more, nothing is deleted there.
const SKIPPED_MAX: usize = 1_000;

impl Paths {
    /// Whether the server's own configuration leaves out `path`, or a directory that holds it.
    pub fn refuses(&self, path: &RelPath) -> bool {
        self.refused.contains(path) || path.ancestors().any(|above| self.refused.contains(&above))
    }

    /// The paths that `run` has to leave out so that rsync makes its deletions. `None` if there are no further ones, or too
    /// many.
    pub fn to_skip(&self, run: &Run) -> Option<Vec<RelPath>> {
        let is_more = self.unreadable.iter().any(|path| !run.skip.contains(path));
        let helps = self.deletions_skipped && run.skip.len() < SKIPPED_MAX && is_more;
        helps.then(|| run.skip.iter().chain(&self.unreadable).take(SKIPPED_MAX).cloned().collect())
    }
}

/// Reads how `run` ended.
pub fn classify(ended: &Ended, run: &Run, prefixes: &Prefixes, noise: &Noise) -> Outcome {
    let stderr = ended.stderr.bytes();
    let code = match ended.end {
        End::Stopped => return Outcome::Void,
        End::Blocked => return blocked(ended, prefixes),
        End::Signal(_) | End::Stalled => return Outcome::Target(unknown(ended.end, &stderr)),
        End::Exit(code) => code,
    };
    if let Some(trouble) = target_wide(code, &stderr) {
        return Outcome::Target(trouble);
    }
    match code {
        _ if mistakes_missing(ended, run, prefixes) => Outcome::Fallback(Fallback::DeleteByLevel),
        0 | 23 | 24 | 25 => {
            let mut paths = paths(code, &stderr, ended.stderr.is_cut(), run, prefixes, noise);
            paths.deletions_skipped |= run.looks_around() && skips_deletions_on(&ended.stdout, &stderr);
            if paths == Paths::default() { Outcome::Done } else { Outcome::Paths(paths) }
        }
        _ => whole(code, &stderr, run, prefixes),
    }
}

fn blocked(ended: &Ended, prefixes: &Prefixes) -> Outcome {
    let Some(found) = &ended.blocked else {
        return Outcome::Blocked(None, JobError::new(None, "rsync hung in a file"));
    };
    let Some(file) = &found.path else {
        return Outcome::Blocked(None, JobError::new(None, found.message()));
    };
    let name = file.as_os_str().as_bytes();
    let path = prefixes.strip(name);
    let message = match &path {
        Some(_) => found.message().to_owned(),
        None => format!("{}: {}", printable(&String::from_utf8_lossy(name)), found.message()),
    };
    Outcome::Blocked(path, JobError::new(None, message))
}

/// A failure of a single path that is the target's fault: no other path would fare better there.
fn target_wide(code: i32, stderr: &[u8]) -> Option<TargetTrouble> {
    for line in lines(stderr).filter(|line| line.about == About::Failure && !line.is_senders()) {
        let (meaning, hint) = match line.errno {
            // A write (11) may have been too large for the room that is left; a new name is never too large.
            Some(28) if code != 11 => ("the target is full", "make room on the target (check `df -i` too)"),
            Some(122) if code != 11 => ("the target's quota is used up", "make room on the target or raise the quota"),
            Some(30) => ("the target's file system is read-only", "remount it writable, and look for disk errors"),
            _ => continue,
        };
        return Some(trouble(TroubleClass::Unavailable, Some(code), meaning, &printable(&line.text()), hint));
    }
    None
}

/// The outcome of a run that failed as a whole.
fn whole(code: i32, stderr: &[u8], run: &Run, prefixes: &Prefixes) -> Outcome {
    if code == 11
        && let Some(line) = lines(stderr).find(|line| matches!(line.errno, Some(28 | 122)))
    {
        let (entry, below) = match concerned(&line, run, prefixes) {
            Concerned::Entries(hits) => (hits.first().copied(), None),
            Concerned::Below(below) => (None, below.into_iter().next()),
            Concerned::Unknown => (None, None),
        };
        let hint = "make room on the target";
        let said = printable(&line.text());
        let trouble = trouble(TroubleClass::Unavailable, Some(code), "the target is full", &said, hint);
        return Outcome::NoRoom { entry, below, trouble };
    }
    match remedy(code, stderr) {
        Some((Remedy::Fallback(fallback), _)) => Outcome::Fallback(fallback),
        // A stream may break because one path crashed the other side.
        Some((Remedy::Trouble(TroubleClass::Unavailable), Some(trouble))) if is_broken_stream(code, stderr) => {
            Outcome::Split(trouble)
        }
        Some((Remedy::Trouble(_), Some(trouble))) => Outcome::Target(trouble),
        // rsync also exits with 2 if another run deletes a file on the target while it is being compared.
        _ if matches!(code, 2 | 11) || is_broken_stream(code, stderr) => {
            Outcome::Split(unknown(End::Exit(code), stderr))
        }
        _ => Outcome::Target(unknown(End::Exit(code), stderr)),
    }
}

/// Whether the other side went away in the middle of a stream. The usual code is 12. If the other side had not read
/// everything that was sent, the kernel reports a reset, and the code is 10.
fn is_broken_stream(code: i32, stderr: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stderr);
    let is_stream = |line: &&str| line.contains("read error:") || line.contains("write error:");
    let is_gone = |line: &str| line.contains("Connection reset") || line.contains("Broken pipe");
    matches!(code, 12 | 22) || (code == 10 && text.lines().filter(is_stream).any(is_gone))
}

/// Whether rsync has printed that it makes no more deletions. If a part of the output was cut, any failure to read at the
/// source is taken as the reason for such a line.
fn skips_deletions_on(stdout: &Capture, stderr: &[u8]) -> bool {
    let said = stdout.bytes().split(|&b| b == b'\n').any(skips_deletions);
    said || (stdout.is_cut() && lines(stderr).any(|line| line.about == About::Failure && line.is_senders()))
}

/// The failed and vanished entries of a run that came to its end.
fn paths(code: i32, stderr: &[u8], cut: bool, run: &Run, prefixes: &Prefixes, noise: &Noise) -> Paths {
    let mut paths = Paths::default();
    let mut vanished_below = false;
    let mut explained = false;
    for line in lines(stderr).filter(|line| line.about != About::Noise && !noise.is_known(line.bytes())) {
        explained = true;
        let error = || JobError::new(Some(code), explanation(&line));
        let concerned = concerned(&line, run, prefixes);
        match line.about {
            About::Noise => {}
            About::Failure if stays_for_others(&line, run, prefixes) => {}
            About::DeletionsSkipped => paths.deletions_skipped = true,
            About::DeletionsLimited => {
                let message = format!("--max-delete in the params stopped the deletion: {}", printable(&line.text()));
                paths.unattributed = Some(JobError::new(Some(code), message));
            }
            About::Refused => {
                let names = line.names().names;
                paths.refused.extend(names.iter().find_map(|name| prefixes.relative(name, false)));
            }
            About::Vanished => match concerned {
                // Whoever removed the path has caused an event of its own.
                Concerned::Below(_) => vanished_below = true,
                Concerned::Entries(hits) => paths.vanished.extend(hits),
                Concerned::Unknown => paths.unattributed = Some(error()),
            },
            // The path vanished or appeared on the target while rsync worked on it. Another run did that, and this entry's
            // job is simply done again.
            About::Failure
                if matches!(line.errno, Some(2 | 17))
                    && !line.is_senders()
                    && let Concerned::Entries(hits) = &concerned =>
            {
                paths.vanished.extend(hits);
            }
            About::Failure | About::Attributes | About::Unknown => match concerned {
                Concerned::Below(below) => {
                    for path in below {
                        if line.is_senders() {
                            paths.unreadable.insert(path.clone());
                        }
                        // Another run may have undone what this one has just begun there. The path gets a job of its own,
                        // which finds out.
                        let undone = || Undone { error: error(), extent: line.extent() };
                        let known = paths.found.entry(path).or_insert_with(undone);
                        if line.extent() == Extent::Below {
                            known.extent = Extent::Below;
                        }
                    }
                }
                Concerned::Entries(hits) => {
                    // A name that the target cannot have needs no deletion there.
                    let is_gone = |at: &usize| run.entries.get(*at).is_some_and(|e| e.presence == Presence::Missing);
                    if matches!(line.errno, Some(1 | 13)) && !line.is_senders() {
                        paths.denied.extend(hits.iter().copied());
                    }
                    for hit in hits.into_iter().filter(|at| !(line.is_about_a_name() && is_gone(at))) {
                        paths.failed.entry(hit).or_insert_with(error);
                    }
                }
                Concerned::Unknown => {
                    paths.unattributed.get_or_insert_with(error);
                    paths.unknown_words = true;
                }
            },
        }
    }
    if cut || (code == 23 && !explained) || (code == 25 && paths.unattributed.is_none()) {
        paths.unattributed.get_or_insert_with(|| JobError::new(Some(code), first_words(stderr)));
    }
    if code == 24 && !vanished_below && paths.vanished.is_empty() && paths.unattributed.is_none() {
        // Some path vanished but its name was lost, so all entries are looked at again.
        paths.vanished.extend(0..run.entries.len());
    }
    paths
}

/// Whether a removal reports that a directory above its entries still holds something else. Such a directory is to go
/// only if it is empty.
fn stays_for_others(line: &Line<'_>, run: &Run, prefixes: &Prefixes) -> bool {
    let names = line.names().names;
    let mut known = names.iter().filter_map(|name| prefixes.relative(name, false));
    let is_above = |path: RelPath| {
        reached(run, &path).is_empty() && run.entries.iter().any(|entry| path.is_ancestor_of(&entry.path))
    };
    run.kind == RunKind::Removal
        && line.text().starts_with("cannot delete non-empty directory: ")
        && known.any(is_above)
}

/// Whether the other side knows nothing of deletions by name, without an error message. If rsync 3.2.3 refuses the
/// option, it takes a missing path for a file of an unknown kind. It says so on standard output only, and exits with 0
/// unless the entry's directory is missing as well.
fn mistakes_missing(ended: &Ended, run: &Run, prefixes: &Prefixes) -> bool {
    let mistaken = |line: &[u8]| {
        let name = line.strip_prefix(b"skipping non-regular file \"").and_then(|rest| rest.strip_suffix(b"\""));
        let name = name.or_else(|| line.strip_prefix(b"ABORTING due to invalid path from sender: "))?;
        let path = prefixes.relative(&unescape(name), false)?;
        run.entries.iter().find(|entry| entry.presence == Presence::Missing && entry.path == path)
    };
    let said = [ended.stdout.bytes(), ended.stderr.bytes()];
    run.kind == RunKind::Flat
        && said.iter().any(|said| said.split(|&b| b == b'\n').any(|line| mistaken(line).is_some()))
}

/// A path's failure in plain words, followed by rsync's own words.
fn explanation(line: &Line<'_>) -> String {
    let said = printable(&line.text());
    let ours = line.is_senders();
    let meaning = match line.errno {
        Some(1 | 13) if ours => "syncq may not read it at the source",
        Some(1 | 13) => "it may not be written on the target",
        Some(5) if ours => "the source's disk cannot read it",
        Some(5) => "the target's disk fails",
        _ if said.starts_with("cannot convert filename: ") => "the name cannot be said in the target's character set",
        _ if said.starts_with("symlink has no referent: ") => {
            "the link leads nowhere, and the params have links followed"
        }
        Some(36) => "the name is too long for the target",
        Some(22 | 84 | 92) => "the target's file system cannot hold such a name or attribute",
        Some(27) => "the file is too large for the target's file system",
        _ if said.starts_with("could not make way") || said.starts_with("cannot delete non-empty") => {
            "something else stands in its place on the target"
        }
        _ => return said,
    };
    format!("{meaning}: {said}")
}

#[cfg(test)]
mod tests;
