//! How many jobs are done in a second, over the last minute. Pure.

use crate::model::Timestamp;

/// The minute is counted in this many parts of `PART_MS` each.
const PARTS: usize = 12;
const PART_MS: u64 = 5_000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Throughput {
    /// The number of a part, which is its time divided by `PART_MS`, and the jobs done in it. The index is the number
    /// modulo `PARTS`.
    parts: [(u64, u64); PARTS],
    /// The number of the part in which counting began.
    begun: Option<u64>,
}

impl Throughput {
    /// Notes that a job is done.
    pub fn note(&mut self, now: Timestamp) {
        let number = now.0 / PART_MS;
        self.begun.get_or_insert(number);
        if let Some(part) = self.parts.get_mut((number % PARTS as u64) as usize) {
            *part = (number, if part.0 == number { part.1 + 1 } else { 1 });
        }
    }

    pub fn per_second(&self, now: Timestamp) -> f64 {
        let number = now.0 / PART_MS;
        let oldest = (number + 1).saturating_sub(PARTS as u64);
        let done: u64 = self.parts.iter().filter(|(n, _)| (oldest..=number).contains(n)).map(|(_, done)| done).sum();
        let begun = self.begun.map_or(oldest, |begun| begun.max(oldest));
        let passed_ms = now.0.saturating_sub(begun * PART_MS).max(PART_MS);
        done as f64 * 1_000.0 / passed_ms as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_pace_is_seen_and_forgotten() {
        let mut throughput = Throughput::default();
        assert_eq!(throughput.per_second(Timestamp(1_000_000)), 0.0);
        for second in 0..100 {
            (0..20).for_each(|_| throughput.note(Timestamp(1_000_000 + second * 1_000)));
        }
        let rate = throughput.per_second(Timestamp(1_099_999));
        assert!((19.0..=21.0).contains(&rate), "{rate}");
        let later = throughput.per_second(Timestamp(1_130_000));
        assert!((5.0..15.0).contains(&later), "{later}");
        assert_eq!(throughput.per_second(Timestamp(1_200_000)), 0.0);
        assert_eq!(throughput.per_second(Timestamp(0)), 0.0, "the clock was set back");
    }

    #[test]
    fn a_burst_is_no_pace_for_ever() {
        let mut throughput = Throughput::default();
        (0..100).for_each(|_| throughput.note(Timestamp(10_000)));
        assert_eq!(throughput.per_second(Timestamp(10_000)), 20.0);
        assert_eq!(throughput.per_second(Timestamp(30_000)), 5.0);
    }
}
