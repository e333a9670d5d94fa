//! Asks before much is deleted. A run that makes directories equal takes whatever the source lacks for deleted, be it
//! because a disk is not mounted, a restore is not finished, or the wrong module is named.
//!
//! Such a run starts with `--max-delete=0`: it sends everything and deletes nothing, and rsync tells how many deletions it
//! held back. Usually nothing was held back and the job is done. If at most a tenth of the deletions that are always
//! allowed were held back, a second run makes them without counting. For more, a dry run lists what would go and counts
//! what there is, and the limit decides. A run over the limit fails its job, which is tried again with the usual backoff:
//! the source may be complete again by then. All other jobs go on. A run whose deletions were held back but then not listed
//! fails in the same way, since nobody knows what would go.
//!
//! Facts about `--max-delete` (rsync 3.2.3 to 3.5.1). The limit counts everything that one process deletes, be it in
//! excess, missing from the source by name, or in a directory that has to make way. It counts neither the entry that makes
//! way itself nor a directory that is not empty because of the limit. A negative number means 0. A dry run lists exactly
//! what would go, but its statistics have no deletions where the other side is a daemon before 3.5: there the lines are
//! counted. The exit code is 25 on this machine, 0 towards a daemon, and 23 or 24 if something else failed as well; only
//! the warning on standard error is always there.
//!
//! The first comparison with a target may delete less ([`AtFirst`]), or nothing.
//!
//! An empty source directory deletes nothing at all in a run over the whole tree, however little the target holds.
//!
//! Deliberately not guarded: what goes by name (a deletion that was seen as it happened), and what has to make room for
//! an entry of another kind in a flat run.

use log::info;

use super::deletion_judge::{self, First, HeldBack, Judgement, after_counting, before_counting};
use super::session::{Execution, Flow};
use super::work::Work;
use crate::mirror::plan::arguments::Pass;
use crate::mirror::plan::run::{Deletion, Run, RunKind};
use crate::mirror::rsync::ended::{End, Ended};
use crate::mirror::rsync::messages::{About, lines};
use crate::mirror::rsync::stats::{DeletionCount, Statistics, deletions, held_back};
use crate::mirror::target::deletion_limit::Limit;
use crate::model::{AtFirst, JobError, Scope, Verdict};

impl Execution<'_> {
    /// How many deletions the first attempt at a run may make. `None`: as many as there are.
    pub(super) fn first_limit(&self, run: &Run) -> Option<u64> {
        let deletes = matches!(self.deletion(), Deletion::ByName | Deletion::ByLevel);
        let compares = |&job: &usize| self.jobs.get(job).is_some_and(|job| job.scope > Scope::Entry);
        let compares = run.entries.iter().flat_map(|entry| &entry.jobs).any(compares);
        let is_judged = self.ctx.guard.limit().is_some() || self.holds_mount(run);
        (run.compares() && deletes && compares && is_judged).then_some(0)
    }

    /// Whether a file system is mounted below what the run compares. If the file system goes away while rsync reads, its
    /// mount point looks emptied. So the deletions are listed first, and made by name if everything is still mounted.
    fn holds_mount(&self, run: &Run) -> bool {
        run.kind == RunKind::Tree && run.entries.iter().any(|entry| self.ctx.mounts.expects_any(&entry.path))
    }

    /// Why `run` may not make as many deletions as `survey` counts. `None`: it may.
    pub(crate) fn refused(&self, run: &Run, survey: DeletionCount, limit: Limit) -> Option<JobError> {
        deletion_judge::refused(self.is_emptied(run), survey, limit)
    }

    /// Whether a run over the whole tree would find nothing at the source.
    fn is_emptied(&self, run: &Run) -> bool {
        run.entries.iter().any(|entry| entry.path.is_root())
            && !self.ctx.guard.lets_empty()
            && std::fs::read_dir(&self.ctx.root).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// Decides how a run that was not allowed to delete everything goes on. `Ok(None)`: nothing was held back.
    pub(super) fn go_on(&mut self, run: &Run, ended: &Ended) -> Result<Option<Vec<Work>>, Flow> {
        let Some(allowed) = run.max_delete else { return Ok(None) };
        if !matches!(ended.end, End::Exit(_)) {
            return Ok(None);
        }
        let with = |max_delete| Run { max_delete, ..run.clone() };
        let stderr = ended.stderr.bytes();
        let held_back = held_back(&stderr);
        // A target with no room left: what the run may not delete yet may take the room that the files need.
        let full = allowed == 0 && lines(&stderr).any(|line| is_full(line.about, line.errno) && !line.is_senders());
        if held_back.is_none() && !full {
            return Ok(None);
        }
        let held = HeldBack {
            allowed,
            by_rsync: held_back,
            holds_mount: self.holds_mount(run),
            is_emptied: self.is_emptied(run),
            paths: run.entries.len(),
        };
        let judged = match before_counting(held, self.ctx.guard.limit()) {
            First::Judged(judged) => Some(judged),
            First::CountFor(limit) => self.count_and_judge(run, held, limit)?,
        };
        Ok(judged.map(|judged| match judged {
            Judgement::ByName => Work::filtered(with(None)),
            Judgement::Again(max_delete) => vec![Work::Piece(with(max_delete))],
            Judgement::Halves => Work::halves(with(Some(0))),
            Judgement::Refuse(error) => {
                run.jobs().into_iter().for_each(|job| self.settle(job, Verdict::Failed(error.clone())));
                Vec::new()
            }
        }))
    }

    /// Counts what would go, and judges by that. `Ok(None)`: nothing was held back.
    fn count_and_judge(&mut self, run: &Run, held: HeldBack, limit: Limit) -> Result<Option<Judgement>, Flow> {
        let counted = self.count(run)?;
        if counted.deleted == 0 && held.by_rsync.is_none() {
            return Ok(None);
        }
        // rsync's own count of what it held back stands even where the dry run lists less.
        let survey = DeletionCount { deleted: counted.deleted.max(held.by_rsync.unwrap_or(0)), ..counted };
        let survey = self.in_depth(run, survey, limit)?;
        let judged = after_counting(held, limit, counted.deleted, survey);
        if matches!(judged, Judgement::Again(_)) && limit.at_first == AtFirst::Few {
            let (name, DeletionCount { deleted, held }) = (self.ctx.target.name(), survey);
            info!("{name}: {deleted} of the {held} entries there are not in the source, and are deleted");
        }
        Ok(Some(judged))
    }

    /// A level run that deletes a directory deletes all that is in it, but its count of what the target holds covers only
    /// the names at that level. If the limit refuses by that count, everything below is counted too.
    pub(super) fn in_depth(&mut self, run: &Run, survey: DeletionCount, limit: Limit) -> Result<DeletionCount, Flow> {
        if run.kind != RunKind::Level || limit.allows(survey) {
            return Ok(survey);
        }
        let tree = self.count(&Run { kind: RunKind::Tree, ..run.clone() })?;
        Ok(DeletionCount { held: tree.held, ..survey })
    }

    /// Has rsync count what a run would delete, and what the target holds. A figure that rsync does not print counts as
    /// zero.
    pub(crate) fn count(&mut self, run: &Run) -> Result<DeletionCount, Flow> {
        let (ended, command) = self.start(run, Pass::Count).ok_or(Flow::Halt)?;
        // A count opens no file that could block it. The next attempt at the run makes the count again.
        self.told(self.meaning(run, &ended), command, &ended)?;
        // Some options of the user's put all output on standard output, or all on standard error.
        let said = [ended.stdout.bytes(), ended.stderr.bytes()];
        let figures =
            said.iter().find_map(|said| Statistics::read(said)).unwrap_or(Statistics { deleted: 0, shared: 0 });
        let [_, stderr] = said;
        let deleted = figures.deleted.max(ended.stdout.count()).max(deletions(&stderr));
        Ok(DeletionCount { deleted, held: figures.shared.saturating_add(deleted) })
    }
}

fn is_full(about: About, errno: Option<i32>) -> bool {
    about == About::Failure && matches!(errno, Some(28 | 122))
}
