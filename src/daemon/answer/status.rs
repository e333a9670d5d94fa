//! The lines of `status` about a target and about the store, computed from figures. Pure.
//!
//! Deliberately absent: where the figures come from. The running daemon takes them from memory (`view`); without a daemon they
//! come from a copy of the store (`offline`).

use super::wait::may_change;
use crate::control::{ContentsStatus, StoreState, StoreStatus, TargetState, TargetStatus, seconds};
use crate::daemon::named_target::NamedTarget;
use crate::daemon::root::{Sight, Suspension};
use crate::model::{RelPath, TargetTrouble, Timestamp, TroubleClass, Unvouched};
use crate::queue::{StoreHealth, TargetStats};

pub(super) fn path_text(path: &RelPath) -> String {
    if path.is_root() { String::new() } else { path.to_string() }
}

pub(super) fn contents_status(unvouched: &Unvouched) -> ContentsStatus {
    ContentsStatus { since: unvouched.since, up_to: path_text(&unvouched.up_to) }
}

pub(super) fn store_status(health: StoreHealth) -> StoreStatus {
    let state = if health.error.is_some() { StoreState::Degraded } else { StoreState::Ok };
    StoreStatus { state, bytes: health.stats.bytes, error: health.error }
}

/// A target's figures in the form that `status` has. `sight` is that of its root, and has to be taken before the figures.
pub(super) fn target_status(
    target: &NamedTarget,
    stats: &TargetStats,
    sight: &Sight,
    last_path: Option<String>,
    now: Timestamp,
) -> TargetStatus {
    let counts = stats.counts;
    let suspended = match sight {
        Sight::Suspended(suspended) => Some(suspended),
        _ => None,
    };
    // Jobs that wait without having failed wait for moments only: until a file has settled, or until a file is sent again for
    // certainty.
    let open = (counts.ready + counts.running + counts.waiting).saturating_sub(stats.backing_off);
    let state = match (&stats.trouble, sight) {
        _ if stats.paused_since.is_some() => TargetState::Paused,
        (_, Sight::Suspended(_)) => TargetState::SourceGone,
        (Some(TargetTrouble { class, .. }), _) => match class {
            TroubleClass::Unavailable => TargetState::BackingOff,
            TroubleClass::Busy => TargetState::Busy,
            TroubleClass::Misconfigured => TargetState::Misconfigured,
            TroubleClass::Source => TargetState::SourceGone,
            TroubleClass::Target => TargetState::TargetGone,
        },
        _ if stats.refused.is_some() => TargetState::NeedsApproval,
        _ if open > 0 => TargetState::Syncing,
        _ if counts.total() > 0 => TargetState::Failing,
        (None, Sight::Behind(_) | Sight::Partial(..)) => TargetState::Scanning,
        (None, Sight::Whole) if stats.unvouched.is_some() => TargetState::Comparing,
        (None, Sight::Whole) => TargetState::Idle,
    };
    let contents = stats.unvouched.as_ref().map(contents_status);
    // A target without trouble of its own may still have failing jobs; one of them is shown.
    let failing = stats.refused.as_ref().or(stats.failing.as_ref());
    let advice = || match (&stats.refused, stats.backing_off) {
        (Some(_), _) => format!("if that is right: syncq accept-deletions {}", target.name),
        (None, 0) => "all that is given up: syncq list --state failed".to_owned(),
        (None, _) => "all failing paths: syncq list --state waiting".to_owned(),
    };
    let (reason, hint) = match (suspended, &stats.trouble, failing, sight) {
        // What an operator is asked about refused deletions says more than the suspension alone.
        (Some(Suspension { reason, hint, .. }), _, Some((path, error)), _) if stats.refused.is_some() => {
            (Some(format!("{reason}; {path}: {error}")), hint.clone())
        }
        (Some(Suspension { reason, hint, .. }), ..) => (Some(reason.clone()), hint.clone()),
        (None, Some(trouble), ..) => (Some(trouble.message.clone()), trouble.hint.clone()),
        (None, None, Some((path, error)), _) => (Some(format!("{path}: {error}")), Some(advice())),
        (None, None, None, Sight::Behind(reason)) => (Some(reason.clone()), None),
        (None, None, None, Sight::Partial(reason, hint)) => (Some(reason.clone()), hint.clone()),
        (None, None, None, _) => (stats.awaits_receivers.map(|jobs| may_change(jobs, now)), None),
    };
    let oldest = [stats.oldest, suspended.map(|suspended| suspended.since)].into_iter().flatten().min();
    let jobs_per_s = (stats.jobs_per_s * 10.0).round() / 10.0;
    // The past pace says nothing about a target that is held up.
    let eta_s = (state == TargetState::Syncing && jobs_per_s > 0.0).then(|| (open as f64 / jobs_per_s).round());
    TargetStatus {
        name: target.name.clone(),
        port: target.port,
        root: target.root.display().to_string(),
        state,
        pending: counts.ready as u64,
        running: counts.running as u64,
        waiting: counts.waiting as u64,
        failed: counts.failed as u64,
        lag_s: oldest.map_or(0.0, |oldest| seconds(now.since(oldest))),
        jobs_per_s,
        eta_s,
        last_path,
        last_success_at: stats.last_success,
        paused_since: stats.paused_since,
        reason,
        hint,
        command: stats.trouble.as_ref().filter(|_| suspended.is_none()).and_then(|trouble| trouble.command.clone()),
        retry_at: stats.retry_at.filter(|_| stats.paused_since.is_none() && suspended.is_none()),
        contents,
        run: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::JobError;
    use crate::model::TargetId;
    use crate::queue::Counts;

    const NOW: Timestamp = Timestamp(9_000);

    fn equal() -> TargetStats {
        TargetStats {
            counts: Counts::default(),
            oldest: None,
            trouble: None,
            trouble_since: None,
            trouble_failures: 0,
            retry_at: None,
            backing_off: 0,
            paused_since: None,
            refused: None,
            jobs_per_s: 0.0,
            last_success: None,
            failing: None,
            unvouched: None,
            awaits_receivers: None,
        }
    }

    fn trouble(class: TroubleClass) -> Option<TargetTrouble> {
        Some(TargetTrouble {
            class,
            code: Some(10),
            message: "refused".into(),
            hint: Some("see".into()),
            command: None,
        })
    }

    fn shown(stats: &TargetStats, sight: &Sight) -> TargetStatus {
        let target = NamedTarget { id: TargetId(1), name: "b::m".to_owned(), port: None, root: "/srv".into() };
        target_status(&target, stats, sight, None, NOW)
    }

    fn away() -> Sight {
        let hint = Some("restart syncq with --accept-root".to_owned());
        Sight::Suspended(Suspension { reason: "another directory".to_owned(), hint, since: Timestamp(4_000) })
    }

    /// `idle` was said of a target whose source was away, whose failed jobs were missing, or whose changes were not yet found.
    #[test]
    fn idle_is_said_of_a_target_that_is_equal_and_of_no_other() {
        use TargetState as State;
        let error = |message: &str| Some((RelPath::root(), JobError::new(Some(23), message)));
        let counted = |ready, running, waiting, failed| TargetStats {
            counts: Counts { ready, running, waiting, failed },
            ..equal()
        };
        let behind = Sight::Behind("walked".to_owned());
        let partial = Sight::Partial("3 directories".to_owned(), Some("sysctl".to_owned()));
        let backs_off = TargetStats { backing_off: 2, failing: error("denied"), ..counted(0, 0, 2, 0) };
        let given_up = TargetStats { failing: error("denied"), ..counted(0, 0, 0, 1) };
        let paused = TargetStats { paused_since: Some(Timestamp(1)), ..equal() };
        let in_trouble = |class| TargetStats { trouble: trouble(class), retry_at: Some(Timestamp(9_500)), ..equal() };
        let unvouched = Some(Unvouched { since: Timestamp(1), up_to: RelPath::root() });
        let compared = TargetStats { unvouched, ..equal() };
        for (stats, sight, state, reason, hint) in [
            (&equal(), &Sight::Whole, State::Idle, "", ""),
            (&compared, &Sight::Whole, State::Comparing, "", ""),
            (&compared, &behind, State::Scanning, "walked", ""),
            (&in_trouble(TroubleClass::Target), &Sight::Whole, State::TargetGone, "refused", "see"),
            (&equal(), &behind, State::Scanning, "walked", ""),
            (&equal(), &partial, State::Scanning, "3 directories", "sysctl"),
            (&equal(), &away(), State::SourceGone, "another directory", "--accept-root"),
            (&counted(1, 0, 0, 0), &away(), State::SourceGone, "another directory", "--accept-root"),
            (&in_trouble(TroubleClass::Unavailable), &away(), State::SourceGone, "another directory", "--accept-root"),
            (&paused, &away(), State::Paused, "another directory", "--accept-root"),
            (&paused, &Sight::Whole, State::Paused, "", ""),
            (&counted(1, 0, 0, 0), &behind, State::Syncing, "walked", ""),
            (&counted(0, 1, 0, 0), &Sight::Whole, State::Syncing, "", ""),
            // Waiting lasts until a file has settled, or until something that may have been undone is sent once more.
            (&counted(0, 0, 1, 0), &Sight::Whole, State::Syncing, "", ""),
            (&backs_off, &Sight::Whole, State::Failing, "denied", "--state waiting"),
            (
                &TargetStats { counts: Counts { waiting: 3, ..backs_off.counts }, ..backs_off.clone() },
                &Sight::Whole,
                State::Syncing,
                "denied",
                "--state waiting",
            ),
            (&given_up, &partial, State::Failing, "denied", "--state failed"),
            (
                &TargetStats { refused: error("too many"), ..backs_off.clone() },
                &Sight::Whole,
                State::NeedsApproval,
                "too many",
                "accept-deletions b::m",
            ),
            (&in_trouble(TroubleClass::Unavailable), &Sight::Whole, State::BackingOff, "refused", "see"),
            (&in_trouble(TroubleClass::Misconfigured), &Sight::Whole, State::Misconfigured, "refused", "see"),
            (&in_trouble(TroubleClass::Busy), &partial, State::Busy, "refused", "see"),
            (&in_trouble(TroubleClass::Source), &Sight::Whole, State::SourceGone, "refused", "see"),
        ] {
            let target = shown(stats, sight);
            assert_eq!(target.state, state, "{stats:?} {sight:?}");
            for (said, words) in [(&target.reason, reason), (&target.hint, hint)] {
                let said = said.as_deref();
                assert!(
                    if words.is_empty() { said.is_none() } else { said.is_some_and(|said| said.contains(words)) },
                    "{said:?} for {stats:?} {sight:?}"
                );
            }
            let is_held = matches!(sight, Sight::Suspended(_)) || stats.paused_since.is_some();
            assert_eq!(target.retry_at, stats.retry_at.filter(|_| !is_held));
        }
    }

    #[test]
    fn what_an_operator_is_asked_is_said_of_a_source_that_is_empty_too() {
        let refused = Some((RelPath::root(), JobError::new(None, "21 entries would be deleted")));
        let target = shown(&TargetStats { refused, ..equal() }, &away());
        assert_eq!(target.state, TargetState::SourceGone);
        assert_eq!(target.reason.as_deref(), Some("another directory; .: 21 entries would be deleted"));
    }

    /// The lag of a target whose source was away was shown as 0.
    #[test]
    fn the_lag_is_that_of_the_oldest_change_or_of_what_is_not_seen() {
        let lacks = TargetStats { oldest: Some(Timestamp(6_500)), ..equal() };
        let older = TargetStats { oldest: Some(Timestamp(1_000)), ..equal() };
        for (stats, sight, lag_s) in [
            (&equal(), &Sight::Whole, 0.0),
            (&lacks, &Sight::Whole, 2.5),
            (&equal(), &away(), 5.0),
            (&lacks, &away(), 5.0),
            (&older, &away(), 8.0),
        ] {
            assert_eq!(shown(stats, sight).lag_s, lag_s, "{stats:?} {sight:?}");
        }
    }

    /// A target that was paused, or had only failing jobs, was shown as "done in about 6s": its failing jobs were counted with
    /// the others.
    #[test]
    fn only_a_target_that_is_at_work_has_a_time_when_it_is_done() {
        let at_work = || TargetStats {
            counts: Counts { ready: 20, waiting: 10, ..Counts::default() },
            jobs_per_s: 10.0,
            ..equal()
        };
        let waiting = Counts { waiting: 3, ..Counts::default() };
        for (stats, expected) in [
            (at_work(), Some(3.0)),
            (TargetStats { backing_off: 10, ..at_work() }, Some(2.0)),
            (TargetStats { paused_since: Some(Timestamp(1)), ..at_work() }, None),
            (TargetStats { trouble: trouble(TroubleClass::Unavailable), ..at_work() }, None),
            (TargetStats { counts: waiting, backing_off: 3, ..at_work() }, None),
            (TargetStats { jobs_per_s: 0.04, ..at_work() }, None),
        ] {
            assert_eq!(shown(&stats, &Sight::Whole).eta_s, expected, "{stats:?}");
            assert_eq!(shown(&stats, &away()).eta_s, None, "{stats:?}");
        }
    }
}
