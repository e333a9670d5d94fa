//! Remembers for a moment what was sent, to notice paths that change again and again (a log file). Pure; bounded by
//! what can be sent within one interval.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::{RelPath, Timestamp};

/// How often a path is sent without a pause before it counts as hot: a person saving a file a few times in a row waits
/// for nothing.
const HOT_AFTER_RUNS: u32 = 4;
/// Below this many paths nothing is forgotten.
const PRUNE_LEN_MIN: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Timestamp,
    /// Runs in a row, each within two intervals of the one before.
    runs: u32,
    interval: Duration,
}

#[derive(Debug, Default)]
pub struct SentLog {
    paths: HashMap<RelPath, Sent>,
    prune_at: usize,
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
    fn forgets_what_was_sent_long_ago() {
        let mut log = SentLog::default();
        for n in 0..20_000u64 {
            log.note(&RelPath::new(n.to_string().as_bytes()).unwrap(), SECOND, Timestamp(n * 10));
        }
        assert!(log.paths.len() <= PRUNE_LEN_MIN, "{}", log.paths.len());
    }
}
