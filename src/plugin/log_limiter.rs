//! Keeps a log readable: logs a few lines a minute, then counts the lines that are left out. Pure.

use std::time::{Duration, Instant};

/// How many lines of one kind are logged in one window; the others are counted.
const LINES_MAX: u64 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// The decision about one more line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) is_logged: bool,
    /// How many lines of the window before were left out.
    pub(super) left_out: u64,
}

#[derive(Debug, Default)]
pub(super) struct LogLimiter {
    window: Option<Instant>,
    lines: u64,
}

impl LogLimiter {
    pub(super) fn note(&mut self, now: Instant) -> Decision {
        let mut left_out = 0;
        if self.window.is_none_or(|window| now.duration_since(window) >= WINDOW) {
            left_out = self.left_out();
            self.window = Some(now);
            self.lines = 0;
        }
        self.lines += 1;
        Decision { is_logged: self.lines <= LINES_MAX, left_out }
    }

    /// How many lines of this window were left out so far. For the end.
    pub(super) fn left_out(&self) -> u64 {
        self.lines.saturating_sub(LINES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_count() {
        let mut limiter = LogLimiter::default();
        let begun = crate::clock::monotonic();
        let said = (0..100).filter(|_| limiter.note(begun).is_logged).count();
        assert_eq!((said, limiter.left_out()), (10, 90));
        assert_eq!(limiter.note(begun + WINDOW), Decision { is_logged: true, left_out: 90 });
        assert_eq!(limiter.note(begun + WINDOW), Decision { is_logged: true, left_out: 0 });
    }
}
