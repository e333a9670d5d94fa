//! Judges deletions that rsync held back: whether a run may make them, how it goes on, or why it may not. Pure; what is
//! asked of the file systems and of rsync comes in as numbers.
//!
//! Deliberately absent: how the facts are found out and the judgement carried out (`deletions`), and how much a target may
//! lose (`deletion_limit`).

use crate::mirror::rsync::stats::DeletionCount;
use crate::mirror::target::deletion_limit::{Limit, emptied, refusal, uncounted};
use crate::model::JobError;

/// A held-back count of at most this fraction (one tenth) of what may go in any case is allowed without a dry run. rsync
/// does not count directories among what it holds back; more than ten directories to each counted file are not to be
/// expected.
const UNCOUNTED: u64 = 10;

/// What is known of a run from which something was held back.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldBack {
    /// So many deletions the run was allowed.
    pub allowed: u64,
    /// So many rsync says that it held back. `None`: it says nothing, and the target has no room left, which deletions could
    /// make.
    pub by_rsync: Option<u64>,
    /// A file system is mounted below what the run compares.
    pub holds_mount: bool,
    /// The run is over the whole tree, and the source is empty.
    pub is_emptied: bool,
    /// So many paths the run compares.
    pub paths: usize,
}

/// How a run goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The deletions are listed, and made by name.
    ByName,
    /// The run is made once more and may delete so many entries; `None`: as many as there are.
    Again(Option<u64>),
    /// Each half is judged by itself, since each path has a limit of its own.
    Halves,
    /// The run's jobs fail.
    Refuse(JobError),
}

/// What rsync's own words come to.
#[derive(Debug)]
pub(super) enum First {
    Judged(Judgement),
    /// A dry run has to count what would go, for this limit to decide.
    CountFor(Limit),
}

/// The judgement by what rsync said by itself. `limit` is `None` where the target may lose everything.
pub(super) fn before_counting(held: HeldBack, limit: Option<Limit>) -> First {
    if held.allowed == 0 && held.holds_mount {
        return First::Judged(Judgement::ByName);
    }
    let Some(limit) = limit else { return First::Judged(Judgement::Again(None)) };
    let are_few = held.by_rsync.is_some_and(|count| count <= limit.unseen() / UNCOUNTED);
    if held.allowed == 0 && are_few && !held.is_emptied {
        return First::Judged(Judgement::Again(Some(limit.unseen())));
    }
    First::CountFor(limit)
}

/// The judgement after a dry run that listed `listed` deletions. `survey` is what would go, and what the target holds.
pub(super) fn after_counting(held: HeldBack, limit: Limit, listed: u64, survey: DeletionCount) -> Judgement {
    let refused = match held.by_rsync {
        Some(by_rsync) if listed == 0 => Some(uncounted(by_rsync)),
        _ => refused(held.is_emptied, survey, limit),
    };
    let next = limit.of(survey.held).unwrap_or(u64::MAX);
    match refused {
        None if next > held.allowed => Judgement::Again(Some(next)),
        _ if held.paths > 1 && !held.is_emptied => Judgement::Halves,
        refused => Judgement::Refuse(refused.unwrap_or_else(|| refusal(survey, limit))),
    }
}

/// Why as many deletions as `survey` counts may not be made. `None`: they may.
pub(super) fn refused(is_emptied: bool, survey: DeletionCount, limit: Limit) -> Option<JobError> {
    if survey.deleted > 0 && is_emptied {
        return Some(emptied(survey));
    }
    (!limit.allows(survey)).then(|| refusal(survey, limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::Guard;
    use crate::model::MaxDelete;

    /// Half of what a target holds may go, and 1,000 entries in any case.
    fn limit() -> Limit {
        Guard::new(MaxDelete::default(), false, false).limit().unwrap()
    }

    const HELD: HeldBack = HeldBack { allowed: 0, by_rsync: Some(50), holds_mount: false, is_emptied: false, paths: 1 };

    #[test]
    fn what_is_decided_without_counting() {
        for (held, limit, judged) in [
            (HELD, Some(limit()), Some(Judgement::Again(Some(1_000)))),
            (HeldBack { by_rsync: Some(101), ..HELD }, Some(limit()), None),
            (HeldBack { by_rsync: None, ..HELD }, Some(limit()), None),
            (HeldBack { is_emptied: true, ..HELD }, Some(limit()), None),
            (HeldBack { allowed: 1_000, ..HELD }, Some(limit()), None),
            (HeldBack { holds_mount: true, ..HELD }, Some(limit()), Some(Judgement::ByName)),
            (HeldBack { holds_mount: true, ..HELD }, None, Some(Judgement::ByName)),
            (HELD, None, Some(Judgement::Again(None))),
        ] {
            let found = match before_counting(held, limit) {
                First::Judged(judgement) => Some(judgement),
                First::CountFor(_) => None,
            };
            assert_eq!(found, judged, "{held:?}");
        }
    }

    #[test]
    fn what_is_decided_by_the_count() {
        let survey = |deleted, held| DeletionCount { deleted, held };
        let many = HeldBack { by_rsync: Some(3_000), ..HELD };
        let refuses = |error: JobError| Judgement::Refuse(error);
        for (held, listed, survey, judged) in [
            (many, 3_000, survey(3_000, 10_000), Judgement::Again(Some(5_000))),
            (many, 6_000, survey(6_000, 10_000), refuses(refusal(survey(6_000, 10_000), limit()))),
            // rsync held something back, and the dry run lists nothing: nobody knows what would go.
            (many, 0, survey(3_000, 10_000), refuses(uncounted(3_000))),
            (HeldBack { is_emptied: true, ..many }, 1, survey(1, 10_000), refuses(emptied(survey(1, 10_000)))),
            // A second attempt that may delete no more than the first would come to the same.
            (HeldBack { allowed: 5_000, ..many }, 9, survey(9, 10_000), refuses(refusal(survey(9, 10_000), limit()))),
            (HeldBack { paths: 2, ..many }, 6_000, survey(6_000, 10_000), Judgement::Halves),
            (HeldBack { paths: 2, is_emptied: true, ..many }, 1, survey(1, 9), refuses(emptied(survey(1, 9)))),
        ] {
            assert_eq!(after_counting(held, limit(), listed, survey), judged, "{held:?}, {survey:?}");
        }
    }
}
