//! Which runs a batch of jobs is turned into.

use super::*;
use crate::model::{Generation, Timestamp};

const FILE: Presence = Presence::File { size: 10 };

/// A tree as a function of names. Names that start with `d` are directories, with `f` files, with `l` links. A name that
/// starts with `?` may not be looked at. All other names are missing.
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
            is_safety_rerun: false,
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
        is_safety_rerun: false,
    }
}

/// Names of one file became two files on the target if they went in two runs, or one of them was released.
#[test]
fn names_of_one_file_share_a_run_and_count_once() {
    // Each file has ten bytes, and a batch takes 25.
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

/// Each file went in a run of its own, and seemed to have left a part of itself on the target.
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
        is_safety_rerun: false,
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

/// A path that may not be looked at was read as missing: the jobs below were settled by a run on its ancestor.
#[test]
fn what_cannot_be_looked_at_is_neither_sent_nor_deleted() {
    let at = |path, scope| (path, scope, Origin::Write);
    let jobs =
        [at("d/?", Scope::Entry), at("d/?/d", Scope::Subtree), at("d/?/f/x", Scope::Entry), at("f", Scope::Entry)];
    let planned = planned(&jobs, Deletion::ByName);
    let listed: Vec<_> = planned.runs.iter().flat_map(|run| &run.entries).map(|entry| entry.path.to_string()).collect();
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
        // At a path that is no directory every scope means the entry itself.
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

/// A run sent a link in place of a directory below which another run was writing, and the receiver followed the link.
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
    // Together with the job of the path above, the job goes at once.
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
        // A small scan is compared by content sooner than given a connection of its own.
        (RunKind::Flat, Origin::Write, "f", vec![2]),
        (RunKind::Flat, Origin::Write, "f2", vec![5]),
        // The quick check does not matter to a deletion.
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
