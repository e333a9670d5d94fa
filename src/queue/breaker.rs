//! One circuit breaker per target. A failure that is the target's fault stops all of its jobs at once and burns none of
//! their attempts. After that, one cheap run at a time probes the target. Pure: time and chance are parameters.

use std::time::Duration;

use crate::model::Backoff;
use crate::model::{TargetTrouble, Timestamp, TroubleClass};

/// Whether a target may be used.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    open: Option<Open>,
}

#[derive(Debug, Clone)]
struct Open {
    trouble: TargetTrouble,
    since: Timestamp,
    failures: u32,
    probe_at: Timestamp,
    probing: bool,
}

/// The runs that the breaker allows at a given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Everything.
    Closed,
    /// One small batch, to find out.
    Probe,
    /// Nothing until the given time; without a time, until the probe under way has ended.
    Open(Option<Timestamp>),
}

/// A target that does not answer is probed after 1, 2, 4 … 30 s: often enough to catch up soon after its return.
const UNAVAILABLE: Backoff = Backoff { base: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(30) };
/// The target is out of connections, which others hold for moments only.
const BUSY: Backoff = Backoff { base: Duration::from_millis(100), factor: 1.5, cap: Duration::from_secs(5) };
/// A person has to act, and usually watches while doing so: a probe a minute costs nothing and saves a restart.
const MISCONFIGURED: Backoff = Backoff { base: Duration::from_secs(2), factor: 2.0, cap: Duration::from_secs(60) };
/// A directory that is not what it was is looked at locally.
const NEARBY: Backoff = Backoff { base: Duration::from_secs(1), factor: 1.5, cap: Duration::from_secs(5) };

fn backoff(class: TroubleClass) -> Backoff {
    match class {
        TroubleClass::Unavailable => UNAVAILABLE,
        TroubleClass::Busy => BUSY,
        TroubleClass::Misconfigured => MISCONFIGURED,
        TroubleClass::Source | TroubleClass::Target => NEARBY,
    }
}

impl Breaker {
    pub fn gate(&self, now: Timestamp) -> Gate {
        match &self.open {
            None => Gate::Closed,
            Some(open) if open.probing => Gate::Open(None),
            Some(open) if open.probe_at <= now => Gate::Probe,
            Some(open) => Gate::Open(Some(open.probe_at)),
        }
    }

    /// Notes that the batch just claimed is the probe.
    pub fn probe_started(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = true;
        }
    }

    /// Opens the breaker, or keeps it open for longer. Returns whether this is news: the breaker was closed, or the
    /// reason is another one.
    ///
    /// Several batches may be under way when a target goes down. Only the first of them counts, and each probe.
    pub fn trip(&mut self, trouble: TargetTrouble, was_probe: bool, now: Timestamp, chance: f64) -> bool {
        let (failures, since, news) = match &self.open {
            None => (1, now, true),
            Some(open) => {
                let news = open.trouble.class != trouble.class || open.trouble.message != trouble.message;
                if !was_probe && !news {
                    return false;
                }
                (if news { 1 } else { open.failures.saturating_add(1) }, open.since, news)
            }
        };
        let probe_at = now.after(backoff(trouble.class).delay(failures, chance));
        let probing = !was_probe && self.open.as_ref().is_some_and(|open| open.probing);
        self.open = Some(Open { trouble, since, failures, probe_at, probing });
        news
    }

    /// Notes that the probe ended without telling anything of the target (it was cancelled): another may start.
    pub fn probe_void(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    /// Closes the breaker: the target answered. Returns the class of the trouble, and how long the breaker was open.
    pub fn close(&mut self, now: Timestamp) -> Option<(TroubleClass, Duration)> {
        self.open.take().map(|open| (open.trouble.class, now.since(open.since)))
    }

    /// Lets the next probe start now.
    pub fn probe_now(&mut self, now: Timestamp) {
        if let Some(open) = &mut self.open {
            open.probe_at = open.probe_at.min(now);
        }
    }

    pub fn trouble(&self) -> Option<&TargetTrouble> {
        self.open.as_ref().map(|open| &open.trouble)
    }

    /// Since when the breaker is open, and how often in a row the target has failed for its present reason.
    pub fn history(&self) -> Option<(Timestamp, u32)> {
        self.open.as_ref().map(|open| (open.since, open.failures))
    }

    /// When the next probe is due, if the breaker is open.
    pub fn probe_at(&self) -> Option<Timestamp> {
        self.open.as_ref().map(|open| open.probe_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(class: TroubleClass, message: &str) -> TargetTrouble {
        TargetTrouble { class, code: Some(10), message: message.into(), hint: None, command: None }
    }

    #[test]
    fn an_outage_is_probed_once_per_backoff_step() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.gate(Timestamp(0)), Gate::Closed);
        assert!(breaker.trip(trouble(TroubleClass::Unavailable, "refused"), false, Timestamp(0), 0.5));
        assert_eq!(breaker.gate(Timestamp(999)), Gate::Open(Some(Timestamp(1_000))));
        assert_eq!(breaker.gate(Timestamp(1_000)), Gate::Probe);
        breaker.probe_started();
        assert_eq!(breaker.gate(Timestamp(5_000)), Gate::Open(None), "one probe at a time");
        assert!(!breaker.trip(trouble(TroubleClass::Unavailable, "refused"), true, Timestamp(1_000), 0.5));
        assert_eq!(breaker.gate(Timestamp(1_001)), Gate::Open(Some(Timestamp(3_000))), "waits double");
        assert_eq!(breaker.close(Timestamp(4_000)), Some((TroubleClass::Unavailable, Duration::from_secs(4))));
        assert_eq!(breaker.gate(Timestamp(4_000)), Gate::Closed);
    }

    #[test]
    fn batches_that_were_under_way_count_once() {
        let mut breaker = Breaker::default();
        breaker.trip(trouble(TroubleClass::Unavailable, "refused"), false, Timestamp(0), 0.5);
        for _ in 0..10 {
            assert!(!breaker.trip(trouble(TroubleClass::Unavailable, "refused"), false, Timestamp(10), 0.5));
        }
        assert_eq!(breaker.probe_at(), Some(Timestamp(1_000)));
    }

    #[test]
    fn another_reason_is_news_and_starts_its_own_backoff() {
        let mut breaker = Breaker::default();
        breaker.trip(trouble(TroubleClass::Unavailable, "refused"), false, Timestamp(0), 0.5);
        breaker.probe_started();
        assert!(breaker.trip(trouble(TroubleClass::Misconfigured, "auth failed"), true, Timestamp(1_000), 0.5));
        assert_eq!(breaker.probe_at(), Some(Timestamp(3_000)));
    }
}
