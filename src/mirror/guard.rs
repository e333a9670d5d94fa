//! Asks before much is deleted: a run that makes directories equal takes whatever the source lacks for deleted, be it a
//! disk that is not mounted, a restore that is not finished, or the wrong module.
//!
//! Such a run starts with `--max-delete=0`: it sends everything and deletes nothing, and rsync tells how many deletions
//! it held back. None, as a rule, and that was it. A few go through in a second run. For more a dry run lists what would
//! go and counts what there is, and the limit decides. A run over the limit fails its job, which is tried again
//! with the usual backoff: the source may be complete again by then. All other jobs go on. So fails a run whose deletions
//! were held back and then not listed: whatever the reason, nobody knows what would go.
//!
//! What `--max-delete` counts, and how it tells (rsync 3.2.3 to 3.5.1): everything that one process deletes, be it in excess,
//! missing from the source by name, or in a directory that has to make way, but neither the entry that makes way
//! itself nor a directory that is not empty because of the limit. A negative number means 0. A dry run lists exactly what
//! would go, but its statistics have no deletions where the other side is a daemon before 3.5: the lines are counted.
//! The exit code is 25 on this machine, 0 towards a daemon, and 23 or 24 if something else failed as well; only the
//! warning on standard error is always there.
//!
//! The first comparison with a target may delete less ([`AtFirst`]), or nothing.
//!
//! An empty source directory deletes nothing at all in such a run, however little the target holds.
//!
//! Deliberately not guarded: what goes by name (a deletion that was seen as it happened), and what has to make room for
//! an entry of another kind in a flat run.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::info;

use super::command::Pass;
use super::execute::{Batch, Flow};
use super::expand;
use super::line::{About, lines};
use super::outcome::Outcome;
use super::plan::{Deletion, Run, RunKind};
use super::run::{End, Ended};
use super::stats::{Statistics, Survey, deletions, held_back};
use crate::model::{AtFirst, JobError, MaxDelete, Params, Scope, Verdict};

/// One part in so many of what may go in any case goes uncounted. rsync does not count directories among what it holds
/// back; ten to each file that it does count are not to be expected.
const UNCOUNTED: u64 = 10;

/// What may be deleted on one target, and whether an operator has agreed to more.
#[derive(Debug, Default)]
pub struct Guard {
    limit: Limit,
    at_first: AtFirst,
    consent: Arc<Consent>,
}

/// From so many on the first comparison asks.
const FEW_MAX: u64 = 1_000;
/// So many are no tenth worth asking about, however little there is.
const FEW_IN_ANY_CASE: u64 = 5;

/// What an operator has agreed to.
#[derive(Debug, Default)]
struct Consent {
    /// The target has been equal since, or was empty.
    was_equal: AtomicBool,
    /// Somebody knows of that.
    is_told: AtomicBool,
    /// The whole tree has been compared since the start.
    was_compared: AtomicBool,
    all: AtomicBool,
    /// The source may be empty; the limit holds all the same.
    empty: AtomicBool,
}

/// The lower of the two that a user can set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limit {
    configured: MaxDelete,
    /// `--max-delete` in the params.
    params: Option<u64>,
    at_first: AtFirst,
}

impl Guard {
    /// `accepted` lets everything through until the first run over the whole tree is done, `empty_accepted` what an empty
    /// source directory deletes, up to the limit.
    pub fn new(configured: MaxDelete, accepted: bool, empty_accepted: bool) -> Self {
        Self {
            limit: Limit { configured, ..Limit::default() },
            at_first: AtFirst::Usual,
            consent: Arc::new(Consent {
                was_equal: AtomicBool::new(false),
                is_told: AtomicBool::new(false),
                was_compared: AtomicBool::new(false),
                all: AtomicBool::new(accepted),
                empty: AtomicBool::new(empty_accepted),
            }),
        }
    }

    /// Until the target is equal for the first time no more may go than that.
    pub fn at_first(self, at_first: AtFirst) -> Self {
        Self { at_first, ..self }
    }

    /// Shares what an operator has agreed to with the guard that this one replaces, of which a run may still be under way.
    pub(super) fn succeed(&mut self, before: &Self) {
        self.consent = Arc::clone(&before.consent);
    }

    pub(super) fn has_limit_of(&self, other: &Self) -> bool {
        self.limit == other.limit
    }

    /// Lets everything through, also what an empty source directory deletes, until the next run over the whole tree is done.
    pub fn accept(&self) {
        self.consent.all.store(true, Ordering::Relaxed);
        self.consent.empty.store(true, Ordering::Relaxed);
    }

    pub(super) fn with_params(mut self, params: &Params) -> Self {
        self.limit.params = params.max_delete();
        self
    }

    /// `None`: anything may go.
    pub(super) fn limit(&self) -> Option<Limit> {
        let at_first = if self.is_usual() { AtFirst::Usual } else { self.at_first };
        let limit = Limit { at_first, ..self.limit };
        (limit.of(0).is_some() && !self.consent.all.load(Ordering::Relaxed)).then_some(limit)
    }

    /// The target holds nothing yet, so that whatever is there later was sent from here.
    pub(super) fn note_empty(&self) {
        self.consent.was_equal.store(true, Ordering::Relaxed);
    }

    /// Whether the target was equal or empty since the start, and this was not asked before.
    pub(super) fn has_become_known(&self) -> bool {
        let consent = &self.consent;
        consent.was_equal.load(Ordering::Relaxed) && !consent.is_told.swap(true, Ordering::Relaxed)
    }

    /// Whether the first comparison may delete what any other may.
    fn is_usual(&self) -> bool {
        self.at_first == AtFirst::Usual || self.consent.was_equal.load(Ordering::Relaxed)
    }

    /// The whole tree is equal: what had been accepted has happened. Returns whether that is so for the first time since the start.
    pub(super) fn whole_tree_done(&self) -> bool {
        self.consent.was_equal.store(true, Ordering::Relaxed);
        self.consent.all.store(false, Ordering::Relaxed);
        self.consent.empty.store(false, Ordering::Relaxed);
        !self.consent.was_compared.swap(true, Ordering::Relaxed)
    }
}

impl Limit {
    /// How many may go where the target holds `held`.
    fn of(self, held: u64) -> Option<u64> {
        let at_first = match self.at_first {
            AtFirst::Usual => None,
            AtFirst::Few => Some((held.saturating_sub(1) / 10).clamp(FEW_IN_ANY_CASE, FEW_MAX - 1)),
            AtFirst::Nothing => Some(0),
        };
        [self.configured.of(held), self.params, at_first].into_iter().flatten().min()
    }

    /// How many may go whatever it holds.
    fn unseen(self) -> u64 {
        self.of(0).unwrap_or(u64::MAX)
    }

    pub(super) fn allows(self, survey: Survey) -> bool {
        self.of(survey.held).is_none_or(|limit| survey.deleted <= limit)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.params, self.configured) {
            (Some(params), configured) if self.unseen() == params && configured.of(0) != Some(params) => {
                write!(f, "--max-delete={params} in the params")
            }
            (_, configured @ MaxDelete::Percent(_)) => {
                write!(f, "maxDelete {configured} (at least {})", MaxDelete::FEW)
            }
            (_, configured) => write!(f, "maxDelete {configured}"),
        }
    }
}

/// What a job is told whose run would delete too much.
fn refusal(survey: Survey, limit: Limit) -> JobError {
    let Survey { deleted, held } = survey;
    if limit.at_first != AtFirst::Usual {
        let agree = match limit.at_first {
            AtFirst::Nothing => "syncq accept-deletions, or a start with -r",
            _ => "syncq accept-deletions",
        };
        return JobError::new(
            Some(JobError::DELETES_TOO_MUCH),
            format!(
                "{deleted} of the {held} entries on the target are not in the source, and this is the first comparison with it, so \
                 none was deleted: see them with syncq reconcile --dry-run; if they are to go: {agree}"
            ),
        );
    }
    JobError::new(
        Some(JobError::DELETES_TOO_MUCH),
        format!(
            "{deleted} of the {held} entries on the target would be deleted, more than {limit} allows; none was: \
             check source and target; if it is right: syncq accept-deletions, or raise maxDelete"
        ),
    )
}

/// What a job is told of whose deletions nobody knows how many they are.
fn uncounted(held_back: u64) -> JobError {
    JobError::new(
        Some(JobError::DELETES_TOO_MUCH),
        format!(
            "rsync held back {held_back} deletions, and then lists none of them; none was made: they are looked for \
             again; if it is right that the target loses them: syncq accept-deletions"
        ),
    )
}

/// What a job is told that would empty its target.
fn emptied(survey: Survey) -> JobError {
    JobError::new(
        Some(JobError::DELETES_TOO_MUCH),
        format!(
            "the source directory is empty, and {} entries on the target would be deleted; none was: mount or restore \
             the source; if it is meant to be empty: syncq accept-deletions",
            survey.deleted
        ),
    )
}

impl Batch<'_> {
    /// How many deletions a run may make at first.
    pub(super) fn first_limit(&self, run: &Run) -> Option<u64> {
        let deletes = matches!(self.deletion(), Deletion::ByName | Deletion::ByLevel);
        let compares = |&job: &usize| self.jobs.get(job).is_some_and(|job| job.scope > Scope::Entry);
        let compares = run.entries.iter().flat_map(|entry| &entry.jobs).any(compares);
        let is_judged = self.ctx.guard.limit().is_some() || self.holds_mount(run);
        (run.compares() && deletes && compares && is_judged).then_some(0)
    }

    /// Whether a file system is mounted below what the run compares. If that goes while rsync reads, it looks emptied: so
    /// what is to be deleted is listed first, and deleted by name if all is still in its place.
    fn holds_mount(&self, run: &Run) -> bool {
        run.kind == RunKind::Tree && run.entries.iter().any(|entry| self.ctx.mounts.expects_any(&entry.path))
    }

    /// Why this much may not be deleted, if so. `run` is the one that would.
    pub(super) fn refused(&self, run: &Run, survey: Survey, limit: Limit) -> Option<JobError> {
        if survey.deleted > 0 && self.is_emptied(run) {
            return Some(emptied(survey));
        }
        (!limit.allows(survey)).then(|| refusal(survey, limit))
    }

    /// Whether a run over the whole tree would find nothing at the source.
    fn is_emptied(&self, run: &Run) -> bool {
        run.entries.iter().any(|entry| entry.path.is_root())
            && !self.ctx.guard.consent.empty.load(Ordering::Relaxed)
            && std::fs::read_dir(&self.ctx.root).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// Decides how a run that was not allowed to delete everything goes on: `more` gets what is to be run next. `None`:
    /// nothing was held back.
    pub(super) fn go_on(&mut self, run: &Run, ended: &Ended, more: &mut Vec<Run>) -> Option<Flow> {
        let allowed = run.max_delete?;
        if !matches!(ended.end, End::Exit(_)) {
            return None;
        }
        let stderr = ended.stderr.bytes();
        let held_back = held_back(&stderr);
        // What it may not delete may be in the way of what it sends.
        let full = allowed == 0 && lines(&stderr).any(|line| is_full(line.about, line.errno) && !line.is_senders());
        if held_back.is_none() && !full {
            return None;
        }
        if allowed == 0 && self.holds_mount(run) {
            return Some(expand::drive(self, &Run { max_delete: None, ..run.clone() }));
        }
        let Some(limit) = self.ctx.guard.limit() else {
            more.push(Run { max_delete: None, ..run.clone() });
            return Some(Flow::Continue);
        };
        let few = held_back.is_some_and(|count| count <= limit.unseen() / UNCOUNTED);
        if allowed == 0 && few && !self.is_emptied(run) {
            more.push(Run { max_delete: Some(limit.unseen()), ..run.clone() });
            return Some(Flow::Continue);
        }
        let counted = match self.count(run) {
            Ok(counted) => counted,
            Err(flow) => return Some(flow),
        };
        if counted.deleted == 0 && held_back.is_none() {
            return None;
        }
        // What was held back would go, whatever is listed.
        let survey = Survey { deleted: counted.deleted.max(held_back.unwrap_or(0)), ..counted };
        let survey = match self.in_depth(run, survey, limit) {
            Ok(survey) => survey,
            Err(flow) => return Some(flow),
        };
        let next = limit.of(survey.held).unwrap_or(u64::MAX);
        let refused = match held_back {
            Some(held_back) if counted.deleted == 0 => Some(uncounted(held_back)),
            _ => self.refused(run, survey, limit),
        };
        if refused.is_none() && next > allowed {
            if limit.at_first == AtFirst::Few {
                let (name, Survey { deleted, held }) = (self.ctx.target.name(), survey);
                info!("{name}: {deleted} of the {held} entries there are not in the source, and are deleted");
            }
            more.push(Run { max_delete: Some(next), ..run.clone() });
        } else if run.entries.len() > 1 && !self.is_emptied(run) {
            // Each path has a limit of its own.
            let (first, second) = Run { max_delete: Some(0), ..run.clone() }.halves();
            more.extend([second, first]);
        } else {
            let error = refused.unwrap_or_else(|| refusal(survey, limit));
            for &job in run.entries.iter().flat_map(|entry| &entry.jobs) {
                self.settle(job, Verdict::Failed(error.clone()));
            }
        }
        Some(Flow::Continue)
    }

    /// A level run that deletes a directory deletes all that is in it, but has counted of the others only their names: if
    /// that decides, everything below is counted.
    pub(super) fn in_depth(&mut self, run: &Run, survey: Survey, limit: Limit) -> Result<Survey, Flow> {
        if run.kind != RunKind::Level || limit.allows(survey) {
            return Ok(survey);
        }
        let tree = self.count(&Run { kind: RunKind::Tree, ..run.clone() })?;
        Ok(Survey { held: tree.held, ..survey })
    }

    /// Has rsync count what a run would delete, and what there is. What it does not tell counts as none.
    pub(super) fn count(&mut self, run: &Run) -> Result<Survey, Flow> {
        let Some((ended, command)) = self.start(run, Pass::Count) else { return Err(Flow::Halt) };
        match self.meaning(run, &ended) {
            Outcome::Done | Outcome::Paths(_) => {}
            Outcome::Fallback(fallback) => return Err(self.fall_back(fallback, command, &ended)),
            Outcome::Target(found) | Outcome::Split(found) | Outcome::NoRoom { trouble: found, .. } => {
                return Err(self.halt(found, command));
            }
            // A count opens no file; it is made again with the next run.
            Outcome::Blocked(..) | Outcome::Void => return Err(Flow::Halt),
        }
        // Some options of the user's put all output on one of the two.
        let said = [ended.stdout.bytes(), ended.stderr.bytes()];
        let figures =
            said.iter().find_map(|said| Statistics::read(said)).unwrap_or(Statistics { deleted: 0, shared: 0 });
        let [_, stderr] = said;
        let deleted = figures.deleted.max(ended.stdout.count()).max(deletions(&stderr));
        Ok(Survey { deleted, held: figures.shared.saturating_add(deleted) })
    }
}

fn is_full(about: About, errno: Option<i32>) -> bool {
    about == About::Failure && matches!(errno, Some(28 | 122))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(configured: MaxDelete, params: &[&str]) -> Limit {
        Guard::new(configured, false, false).with_params(&params.iter().collect()).limit
    }

    #[test]
    fn the_lower_limit_holds_and_is_named() {
        for (configured, params, unseen, of_10_000, shown) in [
            (MaxDelete::default(), &["-a"][..], 1_000, Some(5_000), "maxDelete 50% (at least 1000)"),
            (MaxDelete::default(), &["--max-delete=7"], 7, Some(7), "--max-delete=7 in the params"),
            (MaxDelete::Entries(5), &["--max-delete", "7"], 5, Some(5), "maxDelete 5"),
            (MaxDelete::Unlimited, &["--max-delete=3", "--max-delete=-1"], 0, Some(0), "--max-delete=0 in the params"),
            (MaxDelete::Unlimited, &["-a"], u64::MAX, None, "maxDelete off"),
        ] {
            let limit = limit(configured, params);
            assert_eq!((limit.unseen(), limit.of(10_000), limit.to_string().as_str()), (unseen, of_10_000, shown));
        }
        assert!(Guard::new(MaxDelete::Unlimited, false, false).limit().is_none());
    }

    #[test]
    fn the_first_comparison_deletes_little_or_nothing() {
        for (at_first, held, allowed) in [
            (AtFirst::Nothing, 50_000, Some(0)),
            (AtFirst::Few, 50_000, Some(999)),
            (AtFirst::Few, 100, Some(9)),
            (AtFirst::Few, 10, Some(5)),
            (AtFirst::Few, 0, Some(5)),
            (AtFirst::Usual, 50_000, None),
        ] {
            let guard = Guard::new(MaxDelete::Unlimited, false, false).at_first(at_first);
            assert_eq!(guard.limit().and_then(|limit| limit.of(held)), allowed, "{at_first:?} {held}");
            assert!(guard.whole_tree_done() && !guard.whole_tree_done(), "it is told once");
            assert!(guard.limit().is_none(), "it was equal by then");
            let agreed = Guard::new(MaxDelete::Unlimited, true, false).at_first(at_first);
            assert!(agreed.limit().is_none());
        }
    }

    #[test]
    fn what_is_accepted_is_accepted_once() {
        let guard = Guard::new(MaxDelete::default(), true, false);
        assert!(guard.limit().is_none());
        assert!(guard.whole_tree_done());
        assert!(guard.limit().is_some());
    }

    #[test]
    fn a_refusal_fits_into_a_record() {
        let survey = Survey { deleted: u64::MAX, held: u64::MAX };
        for error in [refusal(survey, limit(MaxDelete::default(), &[])), emptied(survey), uncounted(u64::MAX)] {
            assert!(error.message.len() < JobError::MESSAGE_BYTES_MAX && !error.message.contains("  "), "{error:?}");
        }
    }
}
