//! Runs that list directories, under a filter that rsync's own rules cannot express.
//!
//! What is there is listed by us and sent by name; what is gone is found by a dry run and, where the filter lets it,
//! deleted by name. A name that exists again by then is copied instead, so that a stale dry run deletes nothing.

use std::collections::BTreeMap;

use super::execute::{Batch, Flow};
use super::look::Presence;
use super::plan::{Deletion, Entry, Run, RunKind, deletion_refused};
use super::run::End;
use super::says::difference;
use crate::filter::{Filter, Kind};
use crate::model::{JobError, Origin, RelPath, Verdict};

/// So many paths go into one list. A larger tree is sent in several runs.
const LIST_PATHS_MAX: usize = 10_000;

/// Makes the levels or trees of `run` equal as far as the filter lets them.
pub(super) fn drive(batch: &mut Batch<'_>, run: &Run) -> Flow {
    let flow = present(batch, run);
    let flow = if flow == Flow::Continue { gone(batch, run) } else { flow };
    if flow != Flow::Continue {
        // Chunks that went through are no more than a part of their jobs.
        for &job in run.entries.iter().flat_map(|entry| &entry.jobs) {
            batch.reopen(job);
        }
    }
    flow
}

/// Sends what the source holds, in chunks.
fn present(batch: &mut Batch<'_>, run: &Run) -> Flow {
    // A path may lie in several trees of the run: one entry stands for all of their jobs.
    let mut entries: BTreeMap<RelPath, Entry> = BTreeMap::new();
    for tree in &run.entries {
        let depth = if run.kind == RunKind::Level { 1 } else { usize::MAX };
        let root = tree.path.under(&batch.ctx.root);
        let filter = batch.ctx.filter.clone();
        let included = |found: &walkdir::DirEntry| {
            found.depth() == 0 || inside(&tree.path, found, &root).is_some_and(|path| includes(&filter, &path, found))
        };
        for found in walkdir::WalkDir::new(&root).max_depth(depth).into_iter().filter_entry(included) {
            match found {
                Ok(found) => {
                    let Some(path) = inside(&tree.path, &found, &root) else { continue };
                    let presence = presence(&found);
                    let entry = Entry { path: path.clone(), presence, jobs: Vec::new() };
                    entries.entry(path).or_insert(entry).jobs.extend(&tree.jobs);
                }
                // Gone meanwhile: the second pass deletes it.
                Err(error) if error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound) => {}
                Err(error) => {
                    let message = format!("syncq cannot read the source: {error}");
                    for &job in &tree.jobs {
                        batch.settle(job, Verdict::Failed(JobError::new(None, message.clone())));
                    }
                }
            }
            if entries.len() >= LIST_PATHS_MAX {
                let flow = send(batch, run.origin, std::mem::take(&mut entries));
                if flow != Flow::Continue {
                    return flow;
                }
            }
        }
    }
    send(batch, run.origin, entries)
}

fn send(batch: &mut Batch<'_>, origin: Origin, entries: BTreeMap<RelPath, Entry>) -> Flow {
    let entries: Vec<Entry> = entries.into_values().collect();
    let root_alone = entries.iter().all(|entry| entry.path.is_root());
    let kind = if root_alone { RunKind::RootOnly } else { RunKind::Flat };
    batch.attempt(Run { kind, origin, entries })
}

/// Deletes what the source no longer holds.
fn gone(batch: &mut Batch<'_>, run: &Run) -> Flow {
    let jobs = || run.entries.iter().flat_map(|entry| entry.jobs.iter().copied());
    match batch.deletion() {
        Deletion::Off => return Flow::Continue,
        Deletion::ByName => {}
        Deletion::ByLevel | Deletion::Refused => {
            for job in jobs() {
                batch.settle(job, Verdict::Failed(deletion_refused()));
            }
            return Flow::Continue;
        }
    }
    // The quick check is enough to find what is extraneous.
    let question = Run { origin: Origin::Scan.min(run.origin), ..run.clone() };
    let Some((ended, command)) = batch.start(&question, true) else { return Flow::Halt };
    if ended.end == End::Stopped {
        return Flow::Halt;
    }
    let stderr = ended.stderr.bytes();
    if !matches!(ended.end, End::Exit(0 | 23 | 24)) || ended.stdout.is_cut() {
        let message = format!("cannot find what is to be deleted: {}", super::trouble::first_words(&stderr));
        batch.note(command, message.clone());
        for job in jobs() {
            batch.settle(job, Verdict::Failed(JobError::new(None, message.clone())));
        }
        return Flow::Continue;
    }
    let output = ended.stdout.bytes();
    let extraneous = output.split(|&b| b == b'\n').filter_map(difference).filter(|&(_, deletes)| deletes);
    let extraneous: Vec<(RelPath, bool)> =
        extraneous.filter_map(|(name, _)| Some((to_path(&name)?, name.ends_with(b"/")))).collect();
    let entries: Vec<Entry> = deletable(&batch.ctx.filter, &extraneous)
        .into_iter()
        .map(|path| {
            let over = run.entries.iter().filter(|entry| run.reaches(entry, &path));
            let jobs = over.flat_map(|entry| entry.jobs.iter().copied()).collect();
            Entry { path, presence: Presence::Missing, jobs }
        })
        .collect();
    batch.attempt(Run { kind: RunKind::Flat, origin: Origin::Scan, entries })
}

/// Of what the target has in excess, what may go: the topmost directories without anything excluded in them, and
/// single entries beside what is excluded.
fn deletable(filter: &Filter, extraneous: &[(RelPath, bool)]) -> Vec<RelPath> {
    let kind = |directory: bool| if directory { Kind::Directory } else { Kind::GoneFile };
    let (kept, going): (Vec<_>, Vec<_>) =
        extraneous.iter().partition(|(path, directory)| filter.excludes(path, kind(*directory)));
    // A directory stays if anything in it stays.
    let staying: std::collections::BTreeSet<RelPath> = kept.iter().flat_map(|(path, _)| path.ancestors()).collect();
    let mut going: Vec<RelPath> =
        going.into_iter().map(|(path, _)| path.clone()).filter(|path| !staying.contains(path)).collect();
    going.sort();
    let all: std::collections::BTreeSet<RelPath> = going.iter().cloned().collect();
    going.retain(|path| !path.ancestors().any(|ancestor| all.contains(&ancestor)));
    going
}

fn includes(filter: &Filter, path: &RelPath, found: &walkdir::DirEntry) -> bool {
    let kind = match presence(found) {
        Presence::Directory => Kind::Directory,
        Presence::File { size } => Kind::File { size },
        Presence::Other | Presence::Missing => Kind::File { size: 0 },
    };
    !filter.excludes(path, kind)
}

fn presence(found: &walkdir::DirEntry) -> Presence {
    let kind = found.file_type();
    if kind.is_dir() {
        return Presence::Directory;
    }
    match found.metadata() {
        Ok(metadata) if kind.is_file() => Presence::File { size: metadata.len() },
        Ok(_) | Err(_) => Presence::Other,
    }
}

fn inside(tree: &RelPath, found: &walkdir::DirEntry, root: &std::path::Path) -> Option<RelPath> {
    use std::os::unix::ffi::OsStrExt;
    let below = found.path().strip_prefix(root).ok()?;
    Some(below.components().fold(tree.clone(), |path, name| path.join(name.as_os_str().as_bytes())))
}

/// A name of rsync's output as a path: without `./` and the slash of directories.
pub(super) fn to_path(name: &[u8]) -> Option<RelPath> {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    RelPath::new(name.strip_suffix(b"/").unwrap_or(name)).ok()
}
