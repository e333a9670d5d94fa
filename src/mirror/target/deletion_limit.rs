//! How much may be deleted on a target: the limit that a user sets, the lower one of the first comparison, and what an
//! operator has agreed to beyond them. Pure values; `deletions` finds out how much a run would delete, and compares that
//! with the limit.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::mirror::rsync::stats::DeletionCount;
use crate::model::{AtFirst, JobError, MaxDelete, Params};

/// The first comparison never makes this many deletions without asking.
const FEW_MAX: u64 = 1_000;
/// The first comparison makes this many deletions without asking, however little the target holds.
const FEW_IN_ANY_CASE: u64 = 5;

/// The limits of deletions on one target, and whether an operator has agreed to more.
#[derive(Debug, Default)]
pub struct Guard {
    limit: Limit,
    at_first: AtFirst,
    consent: Arc<Consent>,
}

impl Guard {
    /// `accepted` allows all deletions until the first run over the whole tree is done. `empty_accepted` lets an empty
    /// source directory delete, up to the limit.
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

    /// Until the target is equal for the first time, `at_first` limits what may be deleted.
    pub fn at_first(self, at_first: AtFirst) -> Self {
        Self { at_first, ..self }
    }

    /// Shares with the guard that this one replaces what an operator has agreed to: a run under the old guard may still be
    /// under way.
    pub(in crate::mirror) fn succeed(&mut self, before: &Self) {
        self.consent = Arc::clone(&before.consent);
    }

    pub(super) fn has_limit_of(&self, other: &Self) -> bool {
        self.limit == other.limit
    }

    /// Allows all deletions, also by an empty source directory, until the next run over the whole tree is done.
    pub fn accept(&self) {
        self.consent.all.store(true, Ordering::Relaxed);
        self.consent.empty.store(true, Ordering::Relaxed);
    }

    pub(in crate::mirror) fn with_params(mut self, params: &Params) -> Self {
        self.limit.params = params.max_delete();
        self
    }

    /// The limit in force. `None`: anything may be deleted.
    pub(in crate::mirror) fn limit(&self) -> Option<Limit> {
        let at_first = if self.is_usual() { AtFirst::Usual } else { self.at_first };
        let limit = Limit { at_first, ..self.limit };
        (limit.of(0).is_some() && !self.consent.all.load(Ordering::Relaxed)).then_some(limit)
    }

    /// Notes that the target holds nothing yet, so whatever is there later was sent from here.
    pub(super) fn note_empty(&self) {
        self.consent.was_equal.store(true, Ordering::Relaxed);
    }

    /// Whether the target was equal or empty since the start. True only once: later calls return false.
    pub(crate) fn has_become_known(&self) -> bool {
        let consent = &self.consent;
        consent.was_equal.load(Ordering::Relaxed) && !consent.is_told.swap(true, Ordering::Relaxed)
    }

    /// Whether an empty source directory may empty the target.
    pub(in crate::mirror) fn lets_empty(&self) -> bool {
        self.consent.empty.load(Ordering::Relaxed)
    }

    /// Whether the first comparison may delete what any other may.
    fn is_usual(&self) -> bool {
        self.at_first == AtFirst::Usual || self.consent.was_equal.load(Ordering::Relaxed)
    }

    /// Notes that the whole tree is equal, which ends what an operator has agreed to. Returns whether this is the first
    /// time since the start.
    pub(in crate::mirror) fn whole_tree_done(&self) -> bool {
        self.consent.was_equal.store(true, Ordering::Relaxed);
        self.consent.all.store(false, Ordering::Relaxed);
        self.consent.empty.store(false, Ordering::Relaxed);
        !self.consent.was_compared.swap(true, Ordering::Relaxed)
    }
}

/// The deletions that an operator has agreed to.
#[derive(Debug, Default)]
struct Consent {
    /// The target has been equal since the start, or was empty.
    was_equal: AtomicBool,
    /// `has_become_known` has told of `was_equal`.
    is_told: AtomicBool,
    /// The whole tree has been compared since the start.
    was_compared: AtomicBool,
    all: AtomicBool,
    /// An empty source may delete, but no more than the limit.
    empty: AtomicBool,
}

/// The lower one of the two limits that a user can set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::mirror) struct Limit {
    configured: MaxDelete,
    /// `--max-delete` in the params.
    params: Option<u64>,
    pub(in crate::mirror) at_first: AtFirst,
}

impl Limit {
    /// How many deletions may be made on a target that holds `held` entries. `None`: any number.
    pub(in crate::mirror) fn of(self, held: u64) -> Option<u64> {
        let at_first = match self.at_first {
            AtFirst::Usual => None,
            AtFirst::Few => Some((held.saturating_sub(1) / 10).clamp(FEW_IN_ANY_CASE, FEW_MAX - 1)),
            AtFirst::Nothing => Some(0),
        };
        [self.configured.of(held), self.params, at_first].into_iter().flatten().min()
    }

    /// How many deletions may be made however little the target holds.
    pub(in crate::mirror) fn unseen(self) -> u64 {
        self.of(0).unwrap_or(u64::MAX)
    }

    pub(in crate::mirror) fn allows(self, survey: DeletionCount) -> bool {
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

/// The error of a job whose run would delete too much.
pub(in crate::mirror) fn refusal(survey: DeletionCount, limit: Limit) -> JobError {
    let DeletionCount { deleted, held } = survey;
    if limit.at_first != AtFirst::Usual {
        let agree = match limit.at_first {
            AtFirst::Nothing => "syncq accept-deletions TARGET, or a start with -r",
            _ => "syncq accept-deletions TARGET",
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
             check source and target; if it is right: syncq accept-deletions TARGET, or raise maxDelete"
        ),
    )
}

/// The error of a job whose deletions cannot be counted.
pub(in crate::mirror) fn uncounted(held_back: u64) -> JobError {
    JobError::new(
        Some(JobError::DELETES_TOO_MUCH),
        format!(
            "rsync held back {held_back} deletions, and then lists none of them; none was made: they are looked for \
             again; if it is right that the target loses them: syncq accept-deletions TARGET"
        ),
    )
}

/// The error of a job that would empty its target.
pub(in crate::mirror) fn emptied(survey: DeletionCount) -> JobError {
    JobError::new(
        Some(JobError::DELETES_TOO_MUCH),
        format!(
            "the source directory is empty, and {} entries on the target would be deleted; none was: mount or restore \
             the source; if it is meant to be empty: syncq accept-deletions TARGET",
            survey.deleted
        ),
    )
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
        let survey = DeletionCount { deleted: u64::MAX, held: u64::MAX };
        for error in [refusal(survey, limit(MaxDelete::default(), &[])), emptied(survey), uncounted(u64::MAX)] {
            assert!(error.message.len() < JobError::MESSAGE_BYTES_MAX && !error.message.contains("  "), "{error:?}");
        }
    }
}
