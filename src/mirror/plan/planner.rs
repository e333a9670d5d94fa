//! Turns claimed jobs and what stands at their paths into the fewest rsync runs. Pure.
//!
//! Every list entry remembers the jobs it stands for, so that what rsync says about a name finds its way back.
//! Deliberately absent: argv (`arguments`), the file system (`source` answers through a closure), and the user's filter
//! expressions (`filtered` rewrites the runs that they touch).

use std::collections::{BTreeMap, HashMap, HashSet};

use rustix::io::Errno;

use super::run::{Deletion, Entry, Run, RunKind};
use super::source::Presence;
use crate::model::{ClaimedJob, JobError, Lane, Origin, RelPath, Scope, Verdict};

/// Bounds of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files above this size belong into the large lane.
    pub large_file_bytes: u64,
    /// A batch of the small lane takes files up to this sum; what is left over is released. The first file always goes.
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

/// What a job comes to, given the present source.
enum Step {
    List(RunKind, RelPath, Presence),
    Settle(Verdict),
}

/// Plans the jobs at `indices`, in their order as far as the size limit goes.
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
    // Names of one file go in one run, and what of it is sent is sent once.
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
            // What the large lane has put together is only looked at again, and hardly anything of it is sent.
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
        // Only a write asks for --ignore-times, and only a whole-tree run knows the reconcile's own excludes.
        let origin = match (origin, kind) {
            (Origin::Reconcile, RunKind::Flat | RunKind::RootOnly | RunKind::Level) => Origin::Scan,
            (Origin::Replaced, RunKind::Flat | RunKind::RootOnly | RunKind::Level) => Origin::Write,
            // There is nothing to be sent whose content could be missed.
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

/// Whether all that the run names, directories aside, has just been made.
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
        // Another run may be sending what is below that path, as a directory.
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

/// Why a job waits whose path may be there or not.
fn out_of_reach(path: &RelPath, errno: Errno) -> JobError {
    let error = std::io::Error::from(errno);
    JobError::new(None, format!("{path} cannot be looked at ({error}); give the user that syncq runs as access to it"))
}

/// The path itself, or the first ancestor from the root down that is no directory: a missing one takes everything
/// below with it, and through any other (a file, a link) nothing may be sent.
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

/// So much that may trust the quick check goes along in a run that must not.
const ALONG_ENTRIES_MAX: usize = 1_000;
const ALONG_BYTES_MAX: u64 = 1 << 20;

pub(crate) fn content_bytes(entry: &Entry) -> u64 {
    if let Presence::File { size } = entry.presence { size } else { 0 }
}

/// By kind and origin, the entries of each path.
type Runs = BTreeMap<(RunKind, Origin), BTreeMap<RelPath, Entry>>;

/// Puts entries that need no run of their own into one that is there anyway. A level run sends the files of its
/// directories without being told.
fn share_runs(mut runs: Runs) -> Runs {
    // Directories by themselves and deletions have no content that the quick check could miss, and a few small files are
    // sooner looked into than given a connection of their own.
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
                    // Neither a subdirectory's attributes nor its content are the level's.
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

/// Every rsync with a list sends the root's attributes too, so that a run for them alone is needed only if there is
/// no flat one. (In a level or tree run the root would be an entry with all that such an entry means.)
fn place_root(runs: Vec<Run>) -> Vec<Run> {
    let (roots, mut others): (Vec<Run>, Vec<Run>) = runs.into_iter().partition(|run| run.kind == RunKind::RootOnly);
    // At most one for each origin; the root has no content that an origin could distrust.
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

/// What a deletion job is told when the server forbids all deletions.
pub fn deletion_refused() -> JobError {
    JobError::new(
        Some(4),
        "the rsync server refuses deletions; allow them there (refuse options) or set <delete start=\"false\"/>",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Generation, Timestamp};

    const FILE: Presence = Presence::File { size: 10 };

    /// A tree as a function: `d` and what starts with it are directories, `f` files, `l` links; whether `?` is there nobody may see; the
    /// rest is missing.
    fn look(path: &RelPath) -> Presence {
        let mut presence = Presence::Directory;
        for name in path.components() {
            presence = match (presence, name.first()) {
                (Presence::Directory, Some(b'd')) => Presence::Directory,
                (Presence::Directory, Some(b'f')) => FILE,
                (Presence::Directory, Some(b'F')) => Presence::File { size: 1000 },
                (Presence::Directory, Some(b'l')) => Presence::Other,
                (Presence::Directory, Some(b'?')) | (Presence::Unknown(_), _) => Presence::Unknown(Errno::ACCESS),
                _ => Presence::Missing,
            };
        }
        presence
    }

    fn planned(jobs: &[(&str, Scope, Origin)], deletion: Deletion) -> Plan {
        let jobs: Vec<ClaimedJob> = jobs
            .iter()
            .map(|&(path, scope, origin)| ClaimedJob {
                path: RelPath::new(path.as_bytes()).unwrap(),
                scope,
                origin,
                generation: Generation::FIRST,
                since: Timestamp::ZERO,
                moved_from: None,
                several_names: None,
                is_new: false,
                repeats: false,
            })
            .collect();
        let indices: Vec<usize> = (0..jobs.len()).collect();
        let limits = Limits { large_file_bytes: 100, bytes_max: 25 };
        plan(&jobs, &indices, Lane::Small, limits, deletion, &mut |path| look(path))
    }

    fn named(path: &str, origin: Origin, file: Option<u64>) -> ClaimedJob {
        ClaimedJob {
            path: RelPath::new(path.as_bytes()).unwrap(),
            scope: Scope::Entry,
            origin,
            generation: Generation::FIRST,
            since: Timestamp::ZERO,
            moved_from: None,
            several_names: file,
            is_new: false,
            repeats: false,
        }
    }

    /// In two runs, or with one of them released, they were two files on the target.
    #[test]
    fn names_of_one_file_share_a_run_and_count_once() {
        // Ten bytes each, and a batch takes 25.
        let jobs = [
            named("f1", Origin::Scan, Some(1)),
            named("d/f2", Origin::Write, Some(1)),
            named("f3", Origin::Scan, Some(1)),
            named("f4", Origin::Scan, None),
            named("f5", Origin::Scan, Some(2)),
            named("f6", Origin::Scan, Some(2)),
        ];
        let limits = Limits { large_file_bytes: 100, bytes_max: 25 };
        let all: Vec<usize> = (0..jobs.len()).collect();
        let planned = plan(&jobs, &all, Lane::Small, limits, Deletion::ByName, &mut |path| look(path));
        let listed: Vec<_> = shown(&planned).into_iter().map(|(_, origin, path, _)| (origin, path)).collect();
        let expected = ["d/f2", "f1", "f3", "f4"].map(|path| (Origin::Write, path.to_owned()));
        assert_eq!(listed, expected);
        assert_eq!(planned.settled, [(4, Verdict::Released), (5, Verdict::Released)]);
    }

    /// Each went in a run of its own, and seemed to have left a part of itself on the target.
    #[test]
    fn large_files_that_are_looked_at_again_share_a_run() {
        let jobs = ["f1", "f2", "f3"].map(|path| named(path, Origin::Scan, None));
        let limits = Limits { large_file_bytes: 1, bytes_max: 15 };
        let planned = plan(&jobs, &[0, 1, 2], Lane::Large, limits, Deletion::ByName, &mut |path| look(path));
        assert_eq!((planned.runs.len(), planned.settled.len()), (1, 0));
    }

    #[test]
    fn a_run_is_new_if_all_of_its_files_are() {
        let job = |path: &str, is_new| ClaimedJob {
            path: RelPath::new(path.as_bytes()).unwrap(),
            scope: Scope::Entry,
            origin: if path == "d" { Origin::Scan } else { Origin::Write },
            generation: Generation::FIRST,
            since: Timestamp::ZERO,
            moved_from: None,
            several_names: None,
            is_new,
            repeats: false,
        };
        for (jobs, expected) in [
            (&[job("d", false), job("d/f", true), job("f", true)][..], true),
            (&[job("f", true), job("f2", false)], false),
            (&[job("gone", false), job("f", true)], true),
        ] {
            let all: Vec<usize> = (0..jobs.len()).collect();
            let limits = Limits::default();
            let planned = plan(jobs, &all, Lane::Small, limits, Deletion::ByName, &mut |path| look(path));
            let new: Vec<bool> = planned.runs.iter().map(|run| run.are_new).collect();
            assert_eq!(new, [expected], "{jobs:?}");
        }
    }

    /// Kind, path and jobs of each entry of each run.
    fn shown(plan: &Plan) -> Vec<(RunKind, Origin, String, Vec<usize>)> {
        let all = plan.runs.iter().flat_map(|run| run.entries.iter().map(move |entry| (run, entry)));
        all.map(|(run, entry)| (run.kind, run.origin, entry.path.to_string(), entry.jobs.clone())).collect()
    }

    /// "May not look" was read as "is not there": what lay below was settled by a run on its ancestor.
    #[test]
    fn what_cannot_be_looked_at_is_neither_sent_nor_deleted() {
        let at = |path, scope| (path, scope, Origin::Write);
        let jobs =
            [at("d/?", Scope::Entry), at("d/?/d", Scope::Subtree), at("d/?/f/x", Scope::Entry), at("f", Scope::Entry)];
        let planned = planned(&jobs, Deletion::ByName);
        let listed: Vec<_> =
            planned.runs.iter().flat_map(|run| &run.entries).map(|entry| entry.path.to_string()).collect();
        assert_eq!(listed, ["f"]);
        let settled: Vec<_> = planned.settled.iter().map(|(job, verdict)| (*job, verdict)).collect();
        assert!(
            matches!(settled[..], [(0, Verdict::Failed(_)), (1, Verdict::Failed(_)), (2, Verdict::Failed(_))]),
            "{settled:?}"
        );
    }

    #[test]
    fn one_job_each() {
        use Deletion::{ByLevel, ByName};
        use Origin::{Reconcile, Scan, Write};
        use RunKind::{Flat, Level, Removal, RootOnly, Tree};
        use Scope::{Children, Entry, Subtree};
        for ((path, scope, origin), deletion, (kind, run_origin, listed)) in [
            (("d1/f", Entry, Write), ByName, (Flat, Write, "d1/f")),
            (("d1", Entry, Scan), ByName, (Flat, Scan, "d1")),
            (("d1", Children, Scan), ByName, (Level, Scan, "d1")),
            (("d1", Subtree, Reconcile), ByName, (Tree, Reconcile, "d1")),
            (("", Entry, Write), ByName, (RootOnly, Write, ".")),
            (("", Children, Reconcile), ByName, (Level, Scan, ".")),
            (("", Subtree, Reconcile), ByName, (Tree, Reconcile, ".")),
            // On what is no directory every scope is the entry itself.
            (("f", Children, Scan), ByName, (Flat, Scan, "f")),
            (("l", Subtree, Reconcile), ByName, (Flat, Scan, "l")),
            (("x", Subtree, Write), ByName, (Flat, Write, "x")),
            (("d1/x", Entry, Scan), ByLevel, (Removal, Scan, "d1/x")),
            (("x", Entry, Write), ByLevel, (Removal, Scan, "x")),
        ] {
            let plan = planned(&[(path, scope, origin)], deletion);
            assert_eq!(shown(&plan), [(kind, run_origin, listed.to_owned(), vec![0])], "{path} {scope}");
            assert!(plan.settled.is_empty());
        }
    }

    /// A run sent a link in the place of a directory below which another run was writing: the receiver followed it.
    #[test]
    fn what_stands_above_a_path_is_the_work_of_a_job_of_its_own() {
        for (name, above) in [("d1/x/y/z", "d1/x"), ("d1/f/y", "d1/f"), ("l/f", "l")] {
            for deletion in [Deletion::ByName, Deletion::ByLevel] {
                let plan = planned(&[(name, Scope::Subtree, Origin::Scan)], deletion);
                let above = RelPath::new(above.as_bytes()).unwrap();
                assert_eq!((plan.runs, plan.settled), (vec![], vec![(0, Verdict::Above(above))]), "{name}");
            }
        }
        assert_eq!(planned(&[("x/y", Scope::Entry, Origin::Scan)], Deletion::Off).settled, [(0, Verdict::Done)]);
        // Together with that job it goes at once.
        let plan = planned(&[("l/f", Scope::Entry, Origin::Scan), ("l", Scope::Entry, Origin::Scan)], Deletion::ByName);
        assert_eq!(shown(&plan), [(RunKind::Flat, Origin::Scan, "l".to_owned(), vec![0, 1])]);
    }

    #[test]
    fn several_jobs_share_entries_and_runs() {
        let plan = planned(
            &[
                ("x/2", Scope::Entry, Origin::Scan),
                ("d", Scope::Subtree, Origin::Scan),
                ("f", Scope::Entry, Origin::Scan),
                ("x/1", Scope::Subtree, Origin::Scan),
                ("", Scope::Entry, Origin::Write),
                ("f2", Scope::Entry, Origin::Write),
                ("x", Scope::Entry, Origin::Scan),
            ],
            Deletion::ByName,
        );
        let expected = [
            (RunKind::Flat, Origin::Write, ".", vec![4]),
            // Sooner looked into than given a connection of its own.
            (RunKind::Flat, Origin::Write, "f", vec![2]),
            (RunKind::Flat, Origin::Write, "f2", vec![5]),
            // A deletion does not care for the quick check.
            (RunKind::Flat, Origin::Write, "x", vec![0, 3, 6]),
            (RunKind::Tree, Origin::Scan, "d", vec![1]),
        ];
        assert_eq!(shown(&plan), expected.map(|(kind, origin, path, jobs)| (kind, origin, path.to_owned(), jobs)));
        assert_eq!(plan.runs.len(), 2);
    }

    #[test]
    fn much_that_may_trust_the_quick_check_has_a_run_of_its_own() {
        for (count, size, runs) in [(1_000, 1, 1), (1_001, 1, 2), (8, 1 << 17, 1), (9, 1 << 17, 2)] {
            let entry = |name: String| {
                let path = RelPath::new(name.as_bytes()).unwrap();
                Entry { path, presence: Presence::File { size }, orphan: false, jobs: vec![0] }
            };
            let entries = |names: Vec<String>| names.into_iter().map(entry).map(|entry| (entry.path.clone(), entry));
            let scans = entries((0..count).map(|n| format!("f{n}")).collect()).collect();
            let writes = entries(vec!["w".to_owned()]).collect();
            let all = [((RunKind::Flat, Origin::Scan), scans), ((RunKind::Flat, Origin::Write), writes)];
            let shared = share_runs(all.into_iter().collect());
            assert_eq!(
                (shared.len(), shared.values().map(BTreeMap::len).sum::<usize>()),
                (runs, count + 1),
                "{count} {size}"
            );
        }
    }

    #[test]
    fn what_needs_no_run() {
        let entry = |path| (path, Scope::Entry, Origin::Scan);
        let jobs = [entry("F"), entry("f1"), entry("f2"), entry("f3"), entry("x")];
        let plan = planned(&jobs, Deletion::Off);
        assert_eq!(plan.settled, [(0, Verdict::Large), (3, Verdict::Released), (4, Verdict::Done)]);
        assert_eq!(shown(&plan).len(), 2);
        assert_eq!(planned(&jobs[4..], Deletion::Refused).settled, [(0, Verdict::Failed(deletion_refused()))]);
    }

    #[test]
    fn half_a_flat_list_never_is_the_root_alone_as_an_entry() {
        let jobs = [("", Scope::Entry, Origin::Scan), ("f", Scope::Entry, Origin::Scan)];
        let plan = planned(&jobs, Deletion::ByName);
        let (first, second) = plan.runs.into_iter().next().unwrap().halves();
        assert_eq!((first.kind, second.kind), (RunKind::RootOnly, RunKind::Flat));
    }
}
