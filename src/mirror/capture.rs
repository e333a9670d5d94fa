//! A bounded memory of what a process says: its first and its last words. Pure.

/// rsync names each failed path on a line of its own; this holds some five thousand of them.
const ERRORS_HEAD_BYTES_MAX: usize = 1 << 20;

/// rsync names the cause of its end in its last words.
const ERRORS_TAIL_BYTES_MAX: usize = 64 << 10;

/// Keeps the first `head_max` and the last `tail_max` bytes; what lies between is dropped, and that is known.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    head: Vec<u8>,
    tail: Vec<u8>,
    head_max: usize,
    tail_max: usize,
    cut: bool,
}

impl Capture {
    pub fn new(head_max: usize, tail_max: usize) -> Self {
        Self { head_max, tail_max, ..Self::default() }
    }

    pub fn of_errors() -> Self {
        Self::new(ERRORS_HEAD_BYTES_MAX, ERRORS_TAIL_BYTES_MAX)
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let room = self.head_max.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        self.tail.extend_from_slice(rest);
        // Twice the bound before anything is moved, so that each byte is moved about once.
        if self.tail.len() > 2 * self.tail_max {
            self.trim();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty()
    }

    /// Whether something was dropped.
    pub fn is_cut(&self) -> bool {
        self.cut || self.tail.len() > self.tail_max
    }

    /// What was kept. A cut is shown as a line break, so that two halves of lines never read as one.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        let skipped = self.tail.len().saturating_sub(self.tail_max);
        if self.is_cut() && self.tail_max > 0 {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(self.tail.get(skipped..).unwrap_or_default());
        bytes
    }

    fn trim(&mut self) {
        let skipped = self.tail.len().saturating_sub(self.tail_max);
        self.tail.drain(..skipped);
        self.cut = self.cut || skipped > 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_both_ends() {
        let mut capture = Capture::new(4, 3);
        for chunk in [&b"abc"[..], b"defg", b"h"] {
            capture.push(chunk);
        }
        assert!(capture.is_cut());
        assert_eq!(capture.bytes(), b"abcd\nfgh");
        let mut whole = Capture::new(4, 3);
        whole.push(b"abcdef");
        assert!(!whole.is_cut());
        assert_eq!(whole.bytes(), b"abcdef");
    }

    #[test]
    fn is_bounded_whatever_comes() {
        let mut capture = Capture::new(10, 10);
        for _ in 0..1000 {
            capture.push(&[b'x'; 7]);
        }
        assert!(capture.is_cut() && capture.tail.len() <= 27 && capture.bytes().len() == 21);
    }
}
