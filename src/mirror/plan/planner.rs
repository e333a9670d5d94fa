//! Turns claimed jobs and what stands at their paths into the fewest rsync runs. Pure.
//!
//! Every list entry remembers the jobs that it stands for, so that rsync's message about a name leads back to its jobs.
//! Deliberately absent: argument lists (`arguments`), the file system (`source` answers through a closure), and the user's
//! filter expressions (`filtered` rewrites the runs that they touch).

use std::collections::{BTreeMap, HashMap, HashSet};

use rustix::io::Errno;

use super::run::{Deletion, Entry, Run, RunKind};
use super::source::Presence;
use crate::model::{ClaimedJob, JobError, Lane, Origin, RelPath, Scope, Verdict};

/// Bounds of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files above this size belong in the large lane.
    pub large_file_bytes: u64,
    /// A batch of the small lane takes files up to this sum; the remaining jobs are released. The first file always goes.
    pub bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { large_file_bytes: 8 << 20, bytes_max: 64 << 20 }
    }
}

/// The runs of a batch, and the verdicts that need no run (by job index).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub runs: Vec<Run>,
    pub settled: Vec<(usize, Verdict)>,
}

/// The work for one job, given the present source.
enum Step {
    List(RunKind, RelPath, Presence),
    Settle(Verdict),
}

/// Plans the jobs at `indices`, in that order, until the size limit of the lane is reached.
pub fn plan(
    jobs: &[ClaimedJob],
    indices: &[usize],
    lane: Lane,
    limits: Limits,
    deletion: Deletion,
    look: &mut dyn FnMut(&RelPath) -> Presence,
) -> Plan {
    let mut settled = Vec::new();
    let mut runs = Runs::new();
    let mut bytes: u64 = 0;
    let mut full = false;
    let claimed: HashSet<&RelPath> = jobs.iter().map(|job| &job.path).collect();
    let is_claimed = |path: &RelPath| claimed.contains(path);
    // Names of one file (hard links) go in one run, and the file's content is sent once.
    let mut origins: HashMap<u64, Origin> = HashMap::new();
    for job in indices.iter().filter_map(|&index| jobs.get(index)) {
        let known = job.several_names.map(|file| origins.entry(file).or_insert(job.origin));
        known.into_iter().for_each(|known| *known = job.origin.max(*known));
    }
    let mut admitted: HashMap<u64, bool> = HashMap::new();
    for &index in indices {
        let Some(job) = jobs.get(index) else { continue };
        let (kind, path, presence) = match step(job, deletion, &is_claimed, look) {
            Step::List(kind, path, presence) => (kind, path, presence),
            Step::Settle(verdict) => {
                settled.push((index, verdict));
                continue;
            }
        };
        if let Presence::File { size } = presence {
            if lane == Lane::Small && size > limits.large_file_bytes {
                settled.push((index, Verdict::Large));
                continue;
            }
            let before = job.several_names.and_then(|file| admitted.get(&file).copied());
            let has_room = || !full && (bytes == 0 || bytes.saturating_add(size) <= limits.bytes_max);
            // The large lane puts several jobs together only to look at them again, and such a look sends hardly any data.
            let is_admitted = before.unwrap_or_else(|| lane == Lane::Large || has_room());
            admitted.extend(job.several_names.map(|file| (file, is_admitted)));
            if !is_admitted {
                full = true;
                settled.push((index, Verdict::Released));
                continue;
            }
            if before.is_none() {
                bytes = bytes.saturating_add(size);
            }
        }
        let origin = job.several_names.and_then(|file| origins.get(&file).copied()).unwrap_or(job.origin);
        // Outside whole-tree runs `Reconcile` behaves like `Scan` (crontabfilter does not apply) and `Replaced` like
        // `Write` (both need --ignore-times), so they may share a run.
        let origin = match (origin, kind) {
            (Origin::Reconcile, RunKind::Flat | RunKind::RootOnly | RunKind::Level) => Origin::Scan,
            (Origin::Replaced, RunKind::Flat | RunKind::RootOnly | RunKind::Level) => Origin::Write,
            // A removal sends no content that the quick check could miss.
            (_, RunKind::Removal) => Origin::Scan,
            (origin, _) => origin,
        };
        let entry = runs.entry((kind, origin)).or_default().entry(path.clone());
        entry.or_insert_with(|| Entry { path, presence, orphan: false, jobs: Vec::new() }).jobs.push(index);
    }
    let runs = share_runs(runs)
        .into_iter()
        .map(|((kind, origin), entries)| (kind, origin, entries.into_values().collect()))
        .map(|(kind, origin, entries)| match kind {
            RunKind::Removal => Run::deletion(deletion, entries, look),
            _ => Run::new(kind, origin, entries),
        })
        .map(|run| Run { are_new: are_new(&run, jobs), ..run })
        .collect();
    Plan { runs: place_root(runs), settled }
}

/// Whether all entries of the run, directories and deletions aside, have just been made.
fn are_new(run: &Run, jobs: &[ClaimedJob]) -> bool {
    let is_new = |entry: &Entry| match entry.presence {
        Presence::Directory | Presence::Missing => true,
        _ => entry.jobs.iter().all(|&job| jobs.get(job).is_some_and(|job| job.is_new)),
    };
    (run.kind, run.origin) == (RunKind::Flat, Origin::Write) && run.entries.iter().all(is_new)
}

fn step(
    job: &ClaimedJob,
    deletion: Deletion,
    is_claimed: &dyn Fn(&RelPath) -> bool,
    look: &mut dyn FnMut(&RelPath) -> Presence,
) -> Step {
    let (path, presence) = topmost(&job.path, look);
    if let Presence::Unknown(errno) = presence {
        return Step::Settle(Verdict::Failed(out_of_reach(&path, errno)));
    }
    let needs_run = presence != Presence::Missing || matches!(deletion, Deletion::ByName | Deletion::ByLevel);
    if path != job.path && needs_run && !is_claimed(&path) {
        // Another run may be sending paths below this one, as it was when it was a directory.
        return Step::Settle(Verdict::Above(path));
    }
    if presence == Presence::Missing {
        return match deletion {
            Deletion::Off => Step::Settle(Verdict::Done),
            Deletion::ByName => Step::List(RunKind::Flat, path, presence),
            Deletion::ByLevel => Step::List(RunKind::Removal, path, presence),
            Deletion::Refused => Step::Settle(Verdict::Failed(deletion_refused())),
        };
    }
    if presence != Presence::Directory || path != job.path {
        return Step::List(RunKind::Flat, path, presence);
    }
    let kind = match job.scope {
        Scope::Entry if path.is_root() => RunKind::RootOnly,
        Scope::Entry => RunKind::Flat,
        Scope::Children => RunKind::Level,
        Scope::Subtree => RunKind::Tree,
    };
    Step::List(kind, path, presence)
}

/// The error of a job at a path that cannot be looked at, so that nobody knows whether it exists.
fn out_of_reach(path: &RelPath, errno: Errno) -> JobError {
    let error = std::io::Error::from(errno);
    JobError::new(None, format!("{path} cannot be looked at ({error}); give the user that syncq runs as access to it"))
}

/// The path itself, or the first ancestor from the root down that is no directory. A missing ancestor takes everything
/// below with it, and through any other ancestor (a file, a link) nothing may be sent.
pub(crate) fn topmost(path: &RelPath, look: &mut dyn FnMut(&RelPath) -> Presence) -> (RelPath, Presence) {
    let mut ancestors: Vec<RelPath> = path.ancestors().collect();
    while let Some(ancestor) = ancestors.pop() {
        let presence = look(&ancestor);
        if presence != Presence::Directory {
            return (ancestor, presence);
        }
    }
    (path.clone(), look(path))
}

/// How many entries and bytes that may trust the quick check go along in a run that must not trust it.
const ALONG_ENTRIES_MAX: usize = 1_000;
const ALONG_BYTES_MAX: u64 = 1 << 20;

pub(crate) fn content_bytes(entry: &Entry) -> u64 {
    if let Presence::File { size } = entry.presence { size } else { 0 }
}

/// The entries by path, for each kind and origin.
type Runs = BTreeMap<(RunKind, Origin), BTreeMap<RelPath, Entry>>;

/// Moves entries that need no run of their own into a run that there is anyway. A level run sends the files of its
/// directories without listing them.
fn share_runs(mut runs: Runs) -> Runs {
    // Directories by themselves and deletions have no content that the quick check could miss. A few small files are
    // compared by content sooner than given a connection of their own.
    if runs.contains_key(&(RunKind::Flat, Origin::Write))
        && let Some(mut scans) = runs.remove(&(RunKind::Flat, Origin::Scan))
    {
        let writes = runs.entry((RunKind::Flat, Origin::Write)).or_default();
        let are_few =
            scans.len() <= ALONG_ENTRIES_MAX && scans.values().map(content_bytes).sum::<u64>() <= ALONG_BYTES_MAX;
        scans.retain(|path, entry| {
            let has_content = matches!(entry.presence, Presence::File { .. } | Presence::Other);
            let goes_along = are_few || !has_content;
            if goes_along {
                let known = writes.entry(path.clone());
                known.or_insert_with(|| Entry { jobs: Vec::new(), ..entry.clone() }).jobs.append(&mut entry.jobs);
            }
            !goes_along
        });
        if !scans.is_empty() {
            runs.insert((RunKind::Flat, Origin::Scan), scans);
        }
    }
    for origin in [Origin::Scan, Origin::Write] {
        let Some(mut flat) = runs.remove(&(RunKind::Flat, origin)) else { continue };
        if let Some(levels) = runs.get_mut(&(RunKind::Level, origin)) {
            flat.retain(|path, entry| {
                let level = match levels.get_mut(path) {
                    Some(level) => Some(level),
                    // A subdirectory's attributes and content are not part of the level above it.
                    None if entry.presence == Presence::Directory => None,
                    None => path.parent().and_then(|parent| levels.get_mut(&parent)),
                };
                level.map(|level| level.jobs.append(&mut entry.jobs)).is_none()
            });
        }
        if !flat.is_empty() {
            runs.insert((RunKind::Flat, origin), flat);
        }
    }
    runs
}

/// Every rsync with a list sends the root's attributes too, so a run for them alone is needed only if there is no flat run.
/// (In a level or tree run the root would be an entry with all that such an entry means.)
fn place_root(runs: Vec<Run>) -> Vec<Run> {
    let (roots, mut others): (Vec<Run>, Vec<Run>) = runs.into_iter().partition(|run| run.kind == RunKind::RootOnly);
    // There is at most one such run for each origin, and the root has no content that an origin could distrust.
    let mut roots = roots.into_iter();
    let Some(mut root) = roots.next() else { return others };
    for (kept, more) in root.entries.iter_mut().zip(roots.flat_map(|run| run.entries)) {
        kept.jobs.extend(more.jobs);
    }
    match others.iter_mut().find(|run| run.kind == RunKind::Flat) {
        Some(flat) => drop(flat.entries.splice(0..0, root.entries)),
        None => others.insert(0, root),
    }
    others
}

/// The error of a deletion job if the server forbids all deletions.
pub fn deletion_refused() -> JobError {
    JobError::new(
        Some(4),
        "the rsync server refuses deletions; allow them there (refuse options) or set <delete start=\"false\"/>",
    )
}

#[cfg(test)]
mod tests;
