//! Finds out how exactly a target keeps the times of files. Some file systems keep whole seconds (ext4 with small inodes,
//! HFS+) or even ones (FAT). A file sent with a fraction of a second then differs for ever, and each comparison would send
//! it again.
//!
//! Before the first whole-tree run a dry run asks for a few quiet files of the source whose times have fractions. If all of
//! them that the target has differ in nothing but their times, one is sent. If that file still differs, its fraction was
//! not kept, and from then on times are compared as exactly as the target keeps them. A target that keeps them costs one
//! dry run.
//!
//! Deliberately absent: changes within one such second. A written path is compared by content anyway, and `verify
//! --checksum` finds the rest.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use log::info;

use super::session::Execution;
use crate::filter::Kind;
use crate::mirror::outcome::classify::Outcome;
use crate::mirror::outcome::diagnosis::Fallback;
use crate::mirror::plan::arguments::Pass;
use crate::mirror::plan::run::{Entry, Run, RunKind};
use crate::mirror::plan::source::Presence;
use crate::mirror::rsync::itemize::{difference_of, equal};
use crate::model::{Origin, RelPath, Scope, Timestamp};

/// How many files the dry run asks for at most.
const FILES_MAX: usize = 8;
/// How many entries of the source are looked at in search of such files.
const ENTRIES_MAX: usize = 2_000;
/// How long a file must have been left alone: one that changes meanwhile would differ anyway.
const QUIET: Duration = Duration::from_secs(60);
/// The largest file asked for, since one of them may be sent.
const BYTES_MAX: u64 = 1 << 20;

/// The answer of a dry run about one file's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Same,
    /// Only the time differs.
    Other,
    /// The target does not have the file, or more of it differs.
    Nothing,
}

/// Finds out how exactly the target keeps times, if this batch compares the whole tree and the target has not been asked
/// yet.
pub fn look(batch: &mut Execution<'_>, now: Timestamp) {
    let compares_all = batch.jobs.iter().any(|job| job.path.is_root() && job.scope == Scope::Subtree);
    let params = &batch.ctx.target.options.params;
    let is_given = params.has_any(&["modify-window", "size-only", "ignore-times", "checksum"]);
    let capabilities = &batch.ctx.capabilities;
    if !compares_all || is_given || capabilities.knows_times() || capabilities.lacks(Fallback::Seconds) {
        return;
    }
    let files = quiet_files(batch, now);
    if files.is_empty() {
        return;
    }
    let Some(told) = ask(batch, &files) else { return };
    if told.contains(&Told::Same) {
        batch.ctx.capabilities.note_times();
        return;
    }
    let Some((file, _)) = files.iter().zip(&told).find(|(_, told)| **told == Told::Other) else { return };
    if keeps(batch, file) == Some(false) {
        learn(batch, file);
    }
}

/// Sends `file` and asks again whether its time was kept. `None`: the answer is not certain.
fn keeps(batch: &mut Execution<'_>, file: &RelPath) -> Option<bool> {
    let before = still(batch, file)?;
    let run = run(std::slice::from_ref(file));
    let (ended, _) = batch.start(&run, Pass::Real)?;
    if batch.understood(&run, &ended) != Outcome::Done {
        return None;
    }
    let told = *ask(batch, std::slice::from_ref(file))?.first()?;
    let is_quiet = still(batch, file)? == before;
    match told {
        Told::Same => {
            batch.ctx.capabilities.note_times();
            Some(true)
        }
        Told::Other if is_quiet => Some(false),
        Told::Other | Told::Nothing => None,
    }
}

/// Tries coarser comparisons of times until one of them finds `file`, which the target has, equal.
fn learn(batch: &mut Execution<'_>, file: &RelPath) {
    let (ctx, name) = (batch.ctx, batch.ctx.target.name());
    for (fallback, kept) in [(Fallback::Seconds, "whole seconds"), (Fallback::EvenSeconds, "even seconds")] {
        ctx.capabilities.learn(fallback);
        if ask(batch, std::slice::from_ref(file)).is_some_and(|told| told == [Told::Same]) {
            ctx.capabilities.note_times();
            info!("{name}: its file system keeps {kept}: times are compared no more exactly than that");
            return;
        }
    }
    ctx.capabilities.unlearn(Fallback::Seconds);
    ctx.capabilities.unlearn(Fallback::EvenSeconds);
    ctx.capabilities.note_times();
}

/// Inode, size and time of a file.
fn still(batch: &Execution<'_>, file: &RelPath) -> Option<(u64, u64, i64, i64)> {
    let found = std::fs::symlink_metadata(file.under(&batch.ctx.root)).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

/// The dry run's answer for each of `files`.
fn ask(batch: &mut Execution<'_>, files: &[RelPath]) -> Option<Vec<Told>> {
    let run = run(files);
    let (ended, _) = batch.start(&run, Pass::Confirm)?;
    if batch.understood(&run, &ended) != Outcome::Done {
        return None;
    }
    let output = ended.stdout.bytes();
    let told = |file: &RelPath| {
        let lines = output.split(|&b| b == b'\n');
        lines.filter_map(told_of).find(|(name, _)| name == file.as_bytes()).map_or(Told::Nothing, |(_, told)| told)
    };
    Some(files.iter().map(told).collect())
}

/// The name in an itemized line, and the answer about that name. Pure.
fn told_of(line: &[u8]) -> Option<(Vec<u8>, Told)> {
    if let Some(name) = equal(line) {
        return Some((name, Told::Same));
    }
    let difference = difference_of(line)?;
    let told = match difference.attributes {
        // The columns are checksum, size, time and further attributes. A capital T is a time that is not to be kept.
        [b'.' | b' ', b'.' | b' ', b't', ..] => Told::Other,
        [_, _, b'.' | b' ', ..] => Told::Same,
        _ => Told::Nothing,
    };
    Some((difference.name, told))
}

fn run(files: &[RelPath]) -> Run {
    let entry = |path: &RelPath| Entry {
        path: path.clone(),
        presence: Presence::File { size: BYTES_MAX },
        orphan: false,
        jobs: Vec::new(),
    };
    Run::new(RunKind::Flat, Origin::Scan, files.iter().map(entry).collect())
}

/// A few files of the source whose times have fractions of a second and which have been left alone for [`QUIET`].
fn quiet_files(batch: &Execution<'_>, now: Timestamp) -> Vec<RelPath> {
    let (root, filter) = (&batch.ctx.root, &batch.ctx.filter);
    let (mut files, mut left, mut entries) = (Vec::new(), vec![RelPath::root()], 0);
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory.under(root)).into_iter().flatten().flatten() {
            entries += 1;
            if entries > ENTRIES_MAX || files.len() >= FILES_MAX {
                return files;
            }
            let path = directory.join(entry.file_name().as_encoded_bytes());
            let Ok(found) = std::fs::symlink_metadata(path.under(root)) else { continue };
            if found.is_dir() && !filter.excludes(&path, Kind::Directory) {
                left.push(path);
            } else if is_quiet(&found, now) && !filter.excludes(&path, Kind::File) {
                files.push(path);
            }
        }
    }
    files
}

fn is_quiet(found: &Metadata, now: Timestamp) -> bool {
    let is_old = found.modified().is_ok_and(|then| Timestamp::from_system(then) < now.before(QUIET));
    found.is_file() && found.mtime_nsec() != 0 && found.size() <= BYTES_MAX && is_old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_alone_is_told_from_all_else() {
        for (line, told) in [
            (".f          a", Some(Told::Same)),
            ("<f..t...... a", Some(Told::Other)),
            (".f..t...... a", Some(Told::Other)),
            (".f..t.og... a", Some(Told::Other)),
            (".f...p..... a", Some(Told::Same)),
            ("<f.st...... a", Some(Told::Nothing)),
            ("<fcst...... a", Some(Told::Nothing)),
            ("<f..T...... a", Some(Told::Nothing)),
            ("<f+++++++++ a", Some(Told::Nothing)),
            ("sending incremental file list", None),
        ] {
            assert_eq!(told_of(line.as_bytes()), told.map(|told| (b"a".to_vec(), told)), "{line}");
        }
    }
}
