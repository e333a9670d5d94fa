//! Lines that a target prints in every run, whatever is in its list: a banner, a warning of a login script, of `sudo`, of
//! ssh. A run with an empty list is about no path, so its words are noise.
//!
//! Noise is learned only from such runs, or from a run that found everything equal. An unknown line keeps jobs waiting
//! (`outcome`).

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};

/// How many lines are remembered; the oldest are forgotten first.
const LINES_MAX: usize = 64;
/// How much of a longer line is compared.
const LINE_BYTES_MAX: usize = 512;

/// The noise of one target.
#[derive(Debug, Default)]
pub struct Noise(Mutex<VecDeque<Vec<u8>>>);

impl Noise {
    /// Remembers the lines of `stderr`. Returns whether there was a new one.
    pub fn learn(&self, stderr: &[u8]) -> bool {
        let mut known = self.lock();
        let mut is_new = false;
        for line in stderr.split(|&b| b == b'\n').map(essence).filter(|line| !line.is_empty()) {
            if !known.contains(&line) {
                known.push_back(line);
                is_new = true;
            }
        }
        while known.len() > LINES_MAX {
            known.pop_front();
        }
        is_new
    }

    pub fn is_known(&self, line: &[u8]) -> bool {
        let known = self.lock();
        !known.is_empty() && known.contains(&essence(line))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.0.lock()
    }
}

/// A line without its numbers: a banner may hold the time, or count.
fn essence(line: &[u8]) -> Vec<u8> {
    let line = line.trim_ascii();
    let line = line.get(..LINE_BYTES_MAX).unwrap_or(line);
    let mut essence = Vec::with_capacity(line.len());
    for &byte in line {
        match byte {
            b'0'..=b'9' if essence.last() == Some(&b'#') => {}
            b'0'..=b'9' => essence.push(b'#'),
            byte => essence.push(byte),
        }
    }
    essence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banner_with_the_time_is_known_again() {
        let noise = Noise::default();
        assert!(!noise.is_known(b"Last login: 12:01"));
        assert!(noise.learn(b"Last login: 12:01\n\n** welcome **\r\n"));
        assert!(noise.is_known(b"Last login: 9:59") && noise.is_known(b"** welcome **"));
        assert!(!noise.is_known(b"Last login: never") && !noise.learn(b"** welcome **"));
        for n in 0..200u32 {
            noise.learn(&[b'x'].repeat(n as usize));
        }
        assert!(noise.lock().len() <= LINES_MAX);
    }
}
