//! Remembers for a moment which paths were sent, to notice those that change again and again (a log file). Pure; bounded
//! by what can be sent within one interval.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::{RelPath, Timestamp};

/// After this many runs without a pause a path counts as hot. A person who saves a file a few times in a row waits for
/// nothing.
const HOT_AFTER_RUNS: u32 = 4;
/// Below this many paths nothing is forgotten, so that the walk over all paths is rare.
const PRUNE_LEN_MIN: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Timestamp,
    /// Runs in a row, each within two intervals of the one before.
    runs: u32,
    interval: Duration,
}

/// For how long, and for how many paths, it is remembered that the last run of a path found nothing to send.
const ECHO_WITHIN: Duration = Duration::from_secs(600);
const ECHOES_MAX: usize = 4_096;
/// How long such a path rests after a change, in addition to the interval of a path that changes again and again.
const ECHO_REST: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub struct SentLog {
    paths: HashMap<RelPath, Sent>,
    prune_at: usize,
    /// When a path was last found equal.
    echoes: HashMap<RelPath, Timestamp>,
}

impl SentLog {
    /// Notes that a path was sent, and returns until when it should now rest if it is hot.
    pub fn note(&mut self, path: &RelPath, interval: Duration, now: Timestamp) -> Option<Timestamp> {
        if self.paths.len() >= self.prune_at.max(PRUNE_LEN_MIN) {
            self.paths.retain(|_, sent| now.since(sent.at) < sent.interval * 2);
            self.prune_at = self.paths.len() * 2;
        }
        let runs = match self.paths.get(path) {
            Some(sent) if now.since(sent.at) < sent.interval * 2 => sent.runs.saturating_add(1),
            _ => 1,
        };
        self.paths.insert(path.clone(), Sent { at: now, runs, interval });
        (runs >= HOT_AFTER_RUNS).then(|| now.after(interval))
    }

    /// Notes that a run found nothing to send at a path, or that it did.
    pub fn note_echo(&mut self, path: &RelPath, is_equal: bool, now: Timestamp) {
        if !is_equal {
            self.echoes.remove(path);
            return;
        }
        if self.echoes.len() >= ECHOES_MAX {
            self.echoes.retain(|_, at| now.since(*at) < ECHO_WITHIN);
        }
        if self.echoes.len() < ECHOES_MAX {
            self.echoes.insert(path.clone(), now);
        }
    }

    /// How long a change should rest at a path whose last change was no news to the target. Such a change comes from the
    /// target, by a mirror in the other direction. If it were sent at once, it might set back a newer version that is
    /// there and on its way here; after the rest that version has arrived.
    pub fn rest(&self, path: &RelPath, interval: Duration, now: Timestamp) -> Option<Duration> {
        let at = self.echoes.get(path)?;
        (now.since(*at) < ECHO_WITHIN).then(|| interval + ECHO_REST)
    }

    /// Until when a path that changes now should rest, if it is hot.
    pub fn hot_until(&self, path: &RelPath, now: Timestamp) -> Option<Timestamp> {
        let sent = self.paths.get(path).filter(|sent| sent.runs >= HOT_AFTER_RUNS)?;
        let until = sent.at.after(sent.interval);
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_fourth_send_in_a_row_makes_a_path_rest() {
        let mut log = SentLog::default();
        let path = RelPath::new(b"log").unwrap();
        for at in [0, 100, 200] {
            assert_eq!(log.note(&path, SECOND, Timestamp(at)), None);
            assert_eq!(log.hot_until(&path, Timestamp(at)), None);
        }
        assert_eq!(log.note(&path, SECOND, Timestamp(300)), Some(Timestamp(1_300)));
        assert_eq!(log.hot_until(&path, Timestamp(400)), Some(Timestamp(1_300)));
        assert_eq!(log.hot_until(&path, Timestamp(1_300)), None);
        assert_eq!(log.note(&path, SECOND, Timestamp(1_330)), Some(Timestamp(2_330)), "still hot");
        assert_eq!(log.note(&path, SECOND, Timestamp(9_000)), None, "a pause cools it");
    }

    #[test]
    fn what_was_no_news_to_the_target_rests_until_something_is() {
        let mut log = SentLog::default();
        let path = RelPath::new(b"f").unwrap();
        assert_eq!(log.rest(&path, SECOND, Timestamp(0)), None);
        log.note_echo(&path, true, Timestamp(0));
        assert_eq!(log.rest(&path, SECOND, Timestamp(599_999)), Some(Duration::from_millis(1_500)));
        assert_eq!(log.rest(&path, SECOND, Timestamp(600_000)), None);
        log.note_echo(&path, false, Timestamp(1_000));
        assert_eq!(log.rest(&path, SECOND, Timestamp(1_000)), None);
        for n in 0..10_000u64 {
            log.note_echo(&RelPath::new(n.to_string().as_bytes()).unwrap(), true, Timestamp(0));
        }
        assert_eq!(log.echoes.len(), ECHOES_MAX);
    }

    #[test]
    fn forgets_what_was_sent_long_ago() {
        let mut log = SentLog::default();
        for n in 0..20_000u64 {
            log.note(&RelPath::new(n.to_string().as_bytes()).unwrap(), SECOND, Timestamp(n * 10));
        }
        assert!(log.paths.len() <= PRUNE_LEN_MIN, "{}", log.paths.len());
    }
}
