//! How many runs a target bears at once, and which lane the next may come from. Pure.
//!
//! The small lane has one run at a time: changes that come during a run gather and form the next batch, which makes a
//! burst cheap. The large lane may use all connections but one, so that it never keeps a small change waiting, unless the
//! target bears no more than one.

use std::time::Duration;

use crate::model::{Lane, Timestamp};

/// How long a target that ran out of connections keeps its lowered limit before one more is tried.
const RAISE_AFTER: Duration = Duration::from_secs(30);

/// The runs in flight to one target.
#[derive(Debug, Clone)]
pub struct Lanes {
    small: usize,
    large: usize,
    limit: usize,
    limit_max: usize,
    raise_at: Timestamp,
}

impl Lanes {
    pub fn new(connections_max: usize) -> Self {
        let limit_max = connections_max.max(1);
        Self { small: 0, large: 0, limit: limit_max, limit_max, raise_at: Timestamp::ZERO }
    }

    /// Sets how many runs the target bears from now on. Runs in flight stay.
    pub fn resize(&mut self, connections_max: usize) {
        if connections_max.max(1) != self.limit_max {
            self.limit_max = connections_max.max(1);
            self.limit = self.limit_max;
        }
    }

    /// Runs in flight.
    pub fn in_flight(&self) -> usize {
        self.small + self.large
    }

    /// Whether a run may start in `lane`.
    pub fn may_start(&self, lane: Lane) -> bool {
        let room = self.in_flight() < self.limit;
        match lane {
            Lane::Small => room && self.small == 0,
            Lane::Large => room && self.large < self.limit.saturating_sub(1).max(1),
        }
    }

    /// Whether the target bears a connection that only waits, beside its large runs and one small run.
    pub fn bears_standby(&self) -> bool {
        self.large + 2 <= self.limit
    }

    /// Whether nothing runs in the small lane.
    pub fn is_small_idle(&self) -> bool {
        self.small == 0
    }

    pub fn started(&mut self, lane: Lane) {
        *self.count(lane) += 1;
    }

    /// Notes the end of a run. `busy`: the target refused the run for want of connections. The runs beside it were not
    /// refused, so the limit falls to half of what was in flight.
    pub fn ended(&mut self, lane: Lane, busy: bool, now: Timestamp) {
        let in_flight = self.in_flight();
        let count = self.count(lane);
        *count = count.saturating_sub(1);
        if busy {
            self.limit = (in_flight.min(self.limit) / 2).max(1);
            self.raise_at = now.after(RAISE_AFTER);
        } else if self.limit < self.limit_max && now >= self.raise_at {
            self.limit += 1;
            self.raise_at = now.after(RAISE_AFTER);
        }
    }

    fn count(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Small => &mut self.small,
            Lane::Large => &mut self.large,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_runs_leave_a_connection_to_small_ones() {
        let mut lanes = Lanes::new(4);
        for _ in 0..3 {
            assert!(lanes.may_start(Lane::Large));
            lanes.started(Lane::Large);
        }
        assert!(!lanes.may_start(Lane::Large));
        assert!(lanes.may_start(Lane::Small));
        lanes.started(Lane::Small);
        assert!(!lanes.may_start(Lane::Small));
    }

    #[test]
    fn a_target_with_one_connection_is_served_by_turns() {
        let mut lanes = Lanes::new(1);
        lanes.started(Lane::Large);
        assert!(!lanes.may_start(Lane::Small));
        lanes.ended(Lane::Large, false, Timestamp(0));
        assert!(lanes.may_start(Lane::Small) && lanes.may_start(Lane::Large));
    }

    #[test]
    fn a_standby_is_the_first_to_go_when_connections_are_short() {
        for (limit, large, bears) in [(1, 0, false), (2, 0, true), (2, 1, false), (4, 2, true), (4, 3, false)] {
            let mut lanes = Lanes::new(limit);
            (0..large).for_each(|_| lanes.started(Lane::Large));
            assert_eq!(lanes.bears_standby(), bears, "{large} of {limit}");
            // The small run that the standby is ready for changes nothing.
            lanes.started(Lane::Small);
            assert_eq!(lanes.bears_standby(), bears, "{large} of {limit}, beside a small one");
        }
        let mut lanes = Lanes::new(4);
        lanes.started(Lane::Small);
        lanes.started(Lane::Large);
        lanes.ended(Lane::Large, true, Timestamp(0));
        assert!(!lanes.bears_standby(), "the target has refused a run");
    }

    #[test]
    fn another_size_holds_at_once_and_forgets_no_run() {
        let mut lanes = Lanes::new(1);
        lanes.started(Lane::Large);
        lanes.resize(3);
        assert!(lanes.may_start(Lane::Small) && lanes.may_start(Lane::Large) && lanes.in_flight() == 1);
        lanes.resize(1);
        assert!(!lanes.may_start(Lane::Small));
        lanes.ended(Lane::Large, false, Timestamp(0));
        assert!(lanes.may_start(Lane::Small));
    }

    #[test]
    fn a_refusal_halves_the_limit_and_time_raises_it_again() {
        let mut lanes = Lanes::new(4);
        lanes.started(Lane::Small);
        lanes.started(Lane::Large);
        lanes.ended(Lane::Large, true, Timestamp(0));
        assert!(!lanes.may_start(Lane::Large), "one connection is in use, and there is one");
        lanes.ended(Lane::Small, false, Timestamp(10));
        assert!(lanes.may_start(Lane::Small));
        for n in 1..=10u64 {
            lanes.started(Lane::Small);
            lanes.ended(Lane::Small, false, Timestamp(n * 30_000));
        }
        assert_eq!(lanes.limit, 4);
    }
}
