//! Runs that list directories, under a filter that rsync's own rules cannot express.
//!
//! A dry run finds what differs. The filter decides which of these paths are mirrored, and they are sent and deleted by
//! name. A name that exists again by the time of its deletion is copied instead, so a stale survey does no harm.
//!
//! Single entries come here too, where a directory that is not empty has to go from the target, or to make way: an excluded
//! file in the directory stays, and keeps the directory. A run by name leaves such a directory alone and says so
//! (`Mode::empties`), so all other runs by name need no survey.

use std::collections::{BTreeMap, BTreeSet};

use super::session::{Execution, Flow};
use super::work::{Next, Work};
use crate::filter::{Filter, Kind};
use crate::mirror::outcome::classify::Outcome;
use crate::mirror::plan::arguments::Pass;
use crate::mirror::plan::run::{Deletion, Entry, Run, RunKind};
use crate::mirror::plan::source::{Presence, Source};
use crate::mirror::rsync::itemize::{difference, to_path};
use crate::mirror::rsync::stats::DeletionCount;
use crate::model::{JobError, RelPath, Scope, Verdict};

/// How many paths go into one list. If more differ, they are sent in several runs.
const LIST_PATHS_MAX: usize = 10_000;

/// Finds what differs in the levels or trees of `run`, and returns the work that sends and deletes what the filter lets
/// through.
pub(super) fn survey(batch: &mut Execution<'_>, run: &Run) -> Next {
    let (ended, command) = batch.start(run, Pass::Show).ok_or(Flow::Halt)?;
    let mut paths = match batch.meaning(run, &ended) {
        Outcome::Blocked(path, error) => {
            // A dry run leaves nothing behind that could still write.
            let rest = batch.blocked(run.clone(), ended.cut, path, error, command);
            return Ok(rest.into_iter().map(Work::Survey).collect());
        }
        outcome => batch.told(outcome, command.clone(), &ended)?,
    };
    batch.found(run, std::mem::take(&mut paths.found));
    if let Some(skip) = paths.to_skip(run) {
        return Ok(vec![Work::Survey(Run { skip, ..run.clone() })]);
    }
    if let Some(error) = paths.unattributed.take() {
        batch.note(command, error.message.clone());
        for at in 0..run.entries.len() {
            paths.failed.entry(at).or_insert_with(|| error.clone());
        }
    }
    batch.settle_rest(run, &paths);
    let mut output = ended.stdout.bytes();
    if ended.stdout.is_cut() {
        // The output limit may have cut the last line within a name. The jobs look again, so the paths that were cut off
        // come next time.
        output.truncate(output.iter().rposition(|&b| b == b'\n').unwrap_or(0));
        for &job in run.entries.iter().flat_map(|entry| &entry.jobs) {
            let scope = batch.jobs.get(job).map_or(Scope::Entry, |job| job.scope);
            batch.settle(job, Verdict::LookAgain(scope));
        }
    }
    let mut source = batch.ctx.source_as_rsync_finds_it();
    let (present, mut extraneous) = sorted(&output, &batch.ctx.filter, &mut source);
    // Where the source has no directory, the target may have one in its place. In a comparison, something listed for
    // deletion below the path shows this. A run by name gets here only if such a directory was in its way, or it would have
    // gone through.
    let above: BTreeSet<RelPath> = extraneous.iter().flat_map(|(path, _)| path.ancestors()).collect();
    let is_replaced = |path: &RelPath| !run.compares() || above.contains(path);
    let replaced = present.iter().filter(|(path, presence)| **presence != Presence::Directory && is_replaced(path));
    let replaced: BTreeSet<RelPath> = replaced.map(|(path, _)| path.clone()).collect();
    extraneous.extend(replaced.iter().map(|path| (path.clone(), true)));
    let mut going = deletable(&batch.ctx.filter, &extraneous);
    let mut may_go = matches!(batch.deletion(), Deletion::ByName | Deletion::ByLevel) && !going.is_empty();
    if may_go
        && run.compares()
        && let Some(limit) = batch.ctx.guard.limit()
    {
        let covered = |path: &RelPath| going.contains(path) || path.ancestors().any(|above| going.contains(&above));
        let deleted = extraneous.iter().filter(|(path, _)| covered(path) && !replaced.contains(path)).count() as u64;
        let mut survey = DeletionCount { deleted, held: 0 };
        if !limit.allows(survey) {
            survey.held = batch.count(run)?.held;
            survey = batch.in_depth(run, survey, limit)?;
        }
        if let Some(error) = batch.refused(run, survey, limit) {
            if run.entries.len() > 1 {
                // Each path has a limit of its own, so the halves are judged apart.
                let (first, second) = run.clone().halves();
                for job in run.jobs() {
                    batch.reopen(job);
                }
                return Ok(vec![Work::Survey(first), Work::Survey(second)]);
            }
            for job in run.jobs() {
                batch.settle(job, Verdict::Failed(error.clone()));
            }
            may_go = false;
        }
    }
    let mut entries = present;
    let mut judged = BTreeMap::new();
    for path in replaced {
        let Some(presence) = entries.remove(&path) else { continue };
        if may_go && going.remove(&path) {
            judged.insert(path, presence);
            continue;
        }
        let error =
            JobError::new(Some(23), "a directory with something excluded in it stands in its place on the target");
        let over = run.entries.iter().filter(|entry| run.reaches(entry, &path));
        for &job in over.flat_map(|entry| &entry.jobs) {
            batch.settle(job, Verdict::Failed(error.clone()));
        }
    }
    if may_go {
        judged.extend(going.into_iter().map(|path| (path, Presence::Missing)));
    }
    let send = |entries, is_judged| Work::Send { run: run.clone(), entries, is_judged };
    Ok(vec![send(judged, true), send(entries, false)])
}

/// Work that sends and deletes `entries` by name, in as many runs as it takes. `is_judged`: the filter has been asked about
/// everything below the entries.
pub(super) fn send(
    batch: &Execution<'_>,
    run: &Run,
    entries: BTreeMap<RelPath, Presence>,
    is_judged: bool,
) -> Vec<Work> {
    let mut source = Source::new(&batch.ctx.root);
    let entries: Vec<Entry> = entries
        .into_iter()
        .map(|(path, presence)| {
            let over = run.entries.iter().filter(|entry| run.reaches(entry, &path));
            let jobs = over.flat_map(|entry| entry.jobs.iter().copied()).collect();
            let orphan = path.parent().is_some_and(|parent| source.look(&parent) != Presence::Directory);
            Entry { path, presence, orphan, jobs }
        })
        .collect();
    let by_level = batch.deletion() == Deletion::ByLevel;
    let (missing, entries): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| by_level && entry.presence == Presence::Missing);
    let listed = entries.chunks(LIST_PATHS_MAX).map(|chunk| {
        let root_alone = chunk.iter().all(|entry| entry.path.is_root());
        let kind = if root_alone { RunKind::RootOnly } else { RunKind::Flat };
        Run { is_judged, by_content: run.by_content, ..Run::new(kind, run.origin, chunk.to_vec()) }
    });
    std::iter::once(batch.removal(missing)).chain(listed).map(Work::Run).collect()
}

/// Sorts the lines of a survey into paths that the source holds, the target lacks and the filter mirrors, and paths that
/// only the target holds, each of these with whether it is a directory.
fn sorted(output: &[u8], filter: &Filter, source: &mut Source) -> (BTreeMap<RelPath, Presence>, Vec<(RelPath, bool)>) {
    let mut present = BTreeMap::new();
    let mut extraneous = Vec::new();
    for (name, deletes) in output.split(|&b| b == b'\n').filter_map(difference) {
        let Some(path) = to_path(&name) else { continue };
        if deletes {
            extraneous.push((path, name.ends_with(b"/")));
            continue;
        }
        let presence = source.look(&path);
        let kind = match presence {
            Presence::Directory => Kind::Directory,
            Presence::File { .. } | Presence::Other | Presence::Unknown(_) => Kind::File,
            // The path has gone since the dry run; the watcher gets an event for that.
            Presence::Missing => continue,
        };
        if !filter.excludes(&path, kind) {
            present.insert(path, presence);
        }
    }
    (present, extraneous)
}

/// Chooses from what the target has in excess the paths that may be deleted: the topmost directories in which nothing is
/// spared, and single entries beside spared ones. A temporary of rsync's is deleted with its directory but not by itself.
fn deletable(filter: &Filter, extraneous: &[(RelPath, bool)]) -> BTreeSet<RelPath> {
    let kind = |directory: bool| if directory { Kind::Directory } else { Kind::File };
    let spared = extraneous.iter().filter(|(path, directory)| filter.spares(path, kind(*directory)));
    // A directory stays if anything in it is spared.
    let staying: BTreeSet<RelPath> = spared.flat_map(|(path, _)| path.ancestors()).collect();
    let going = extraneous.iter().filter(|(path, directory)| !filter.excludes(path, kind(*directory)));
    let going: BTreeSet<RelPath> = going.map(|(path, _)| path.clone()).filter(|path| !staying.contains(path)).collect();
    let topmost = |path: &&RelPath| !path.ancestors().any(|ancestor| going.contains(&ancestor));
    going.iter().filter(topmost).cloned().collect()
}
