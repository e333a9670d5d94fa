//! When a target has a standby, for how long, and what is learned from a standby's end. Pure: time is a parameter.

use std::time::{Duration, Instant};

/// A standby is exchanged at this age, unless its target is known to end idle connections sooner.
const AGE_MAX: Duration = Duration::from_secs(50);

/// A target that ends idle connections sooner than this gets no standby for a while.
const AGE_MIN: Duration = Duration::from_secs(5);

/// How long a learned age limit holds. The target's daemon may just have been restarted.
const LEARNED_FOR: Duration = Duration::from_secs(60 * 60);

/// A target to which nothing was sent for this long has no standby: idle is idle.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);

/// How long a target goes without a standby that was short of connections, or that ends idle ones too soon.
const REST_BUSY: Duration = Duration::from_secs(10 * 60);
const REST_DEAD: Duration = Duration::from_secs(60);
/// The same where the source is away. When the source is back, a comparison comes first anyway.
const REST_AWAY: Duration = Duration::from_secs(5);

/// A run over a connection younger than this needs no confirmation. See the documentation of `standby`.
const TRUST_MAX: Duration = Duration::from_secs(2);

/// The known facts about a target's standbys.
#[derive(Debug, Clone)]
pub struct Lifetime {
    /// The age limit by the target's own timeout.
    age_max: Duration,
    /// A shorter age limit that was learned, and when.
    learned_age_max: Option<(Duration, Instant)>,
    resting_until: Option<Instant>,
    used_at: Option<Instant>,
}

/// Why a standby ended that was not told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The server had no connection left for it.
    Busy,
    /// The server did not let it in, or its connection broke.
    Dead,
    /// The source was not in its place, so the standby was not started.
    Away,
}

impl Lifetime {
    /// `timeout` is the silence after which the target's runs end, if one is set.
    pub fn new(timeout: Option<Duration>) -> Self {
        let age_max = timeout.map_or(AGE_MAX, |timeout| AGE_MAX.min(timeout / 2));
        Self { age_max, learned_age_max: None, resting_until: None, used_at: None }
    }

    /// Notes that something was sent to the target.
    pub fn used(&mut self, now: Instant) {
        self.used_at = Some(now);
    }

    /// Whether the target is to have a standby.
    pub fn wants(&self, now: Instant) -> bool {
        self.used_at.is_some_and(|used| now.duration_since(used) < IDLE_MAX)
            && self.resting_until.is_none_or(|until| until <= now)
            && self.age_limit(now) >= AGE_MIN.min(AGE_MAX)
    }

    /// When a standby started at `born` is to be exchanged or ended.
    pub fn ends_at(&self, born: Instant, now: Instant) -> Instant {
        let old = born + self.age_limit(now);
        self.used_at.map_or(old, |used| old.min(used + IDLE_MAX))
    }

    /// Whether a standby started at `born` may still be used.
    pub fn is_usable(&self, born: Instant, now: Instant) -> bool {
        now.duration_since(born) <= self.age_limit(now)
    }

    /// Whether a run over a connection made at `born` needs no confirmation.
    pub fn is_trusted(born: Instant, now: Instant) -> bool {
        now.duration_since(born) < TRUST_MAX
    }

    /// A standby started at `born` is lost. Whoever ended it at this age may do so again: half of that age is the limit
    /// from now on.
    pub fn lost(&mut self, loss: Loss, born: Instant, now: Instant) {
        let half = now.duration_since(born) / 2;
        match loss {
            Loss::Busy => self.resting_until = Some(now + REST_BUSY),
            Loss::Away => self.resting_until = Some(now + REST_AWAY),
            Loss::Dead if half < AGE_MIN => self.resting_until = Some(now + REST_DEAD),
            Loss::Dead => self.learned_age_max = Some((half, now)),
        }
    }

    fn age_limit(&self, now: Instant) -> Duration {
        let learned_age_max = self.learned_age_max.filter(|(_, at)| now.duration_since(*at) < LEARNED_FOR);
        learned_age_max.map_or(self.age_max, |(limit, _)| limit.min(self.age_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_a_target_in_use_has_one() {
        let start = monotonic();
        let mut lifetime = Lifetime::new(None);
        assert!(!lifetime.wants(start), "nothing was sent yet");
        lifetime.used(start);
        for (after, wants) in [(0, true), (599, true), (600, false), (86_400, false)] {
            assert_eq!(lifetime.wants(start + s(after)), wants, "{after} s");
        }
        assert_eq!(lifetime.ends_at(start + s(580), start + s(580)), start + s(600), "it goes with the use");
    }

    #[test]
    fn it_is_exchanged_before_any_timeout() {
        let start = monotonic();
        for (timeout, age) in [(None, 50), (Some(600), 50), (Some(60), 30), (Some(10), 5)] {
            let mut lifetime = Lifetime::new(timeout.map(s));
            lifetime.used(start);
            assert!(lifetime.wants(start), "{timeout:?}");
            assert_eq!(lifetime.ends_at(start, start), start + s(age), "{timeout:?}");
            assert!(lifetime.is_usable(start, start + s(age)) && !lifetime.is_usable(start, start + s(age + 1)));
        }
        let mut hasty = Lifetime::new(Some(s(8)));
        hasty.used(start);
        assert!(!hasty.wants(start), "it would have to be exchanged all the time");
    }

    #[test]
    fn the_target_teaches_its_patience() {
        let start = monotonic();
        let mut lifetime = Lifetime::new(None);
        lifetime.used(start + s(31));
        lifetime.lost(Loss::Dead, start, start + s(30));
        assert!(lifetime.wants(start + s(31)));
        assert_eq!(lifetime.ends_at(start + s(31), start + s(31)), start + s(46));
        lifetime.lost(Loss::Dead, start + s(31), start + s(45));
        let later = start + s(46);
        assert_eq!(lifetime.ends_at(later, later), later + s(7));
        let forgotten = start + s(45 + 3600);
        assert_eq!(lifetime.ends_at(forgotten, forgotten), start + s(31 + 600));
        lifetime.used(forgotten);
        assert_eq!(lifetime.ends_at(forgotten, forgotten), forgotten + s(50));
    }

    #[test]
    fn a_target_that_refuses_is_left_alone() {
        let start = monotonic();
        for (loss, after, rest) in
            [(Loss::Dead, 0, 60), (Loss::Dead, 9, 60), (Loss::Busy, 0, 600), (Loss::Busy, 49, 600)]
        {
            let mut lifetime = Lifetime::new(None);
            let ended = start + s(after);
            lifetime.lost(loss, start, ended);
            lifetime.used(ended + s(rest));
            assert!(!lifetime.wants(ended + s(rest - 1)), "{loss:?} after {after} s");
            assert!(lifetime.wants(ended + s(rest)), "{loss:?} after {after} s");
        }
    }

    #[test]
    fn an_older_connection_is_not_trusted() {
        let start = monotonic();
        assert!(Lifetime::is_trusted(start, start + Duration::from_millis(1_999)));
        assert!(!Lifetime::is_trusted(start, start + s(2)));
    }
}
