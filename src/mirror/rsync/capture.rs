//! A bounded memory of a process's output: its first and its last bytes. Pure.

/// rsync names each failed path on a line of its own; this holds some five thousand of them.
const ERRORS_HEAD_BYTES_MAX: usize = 1 << 20;

/// rsync names the cause of its end in its last words.
const ERRORS_TAIL_BYTES_MAX: usize = 64 << 10;

/// Keeps the first `head_max` and the last `tail_max` bytes. The bytes between are dropped, and [`Capture::is_cut`] tells
/// so.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    head: Vec<u8>,
    tail: Vec<u8>,
    head_max: usize,
    tail_max: usize,
    cut: bool,
    tally: Option<Tally>,
}

/// Counts the lines that begin with a mark, however many there are.
#[derive(Debug, Clone)]
struct Tally {
    mark: &'static [u8],
    /// How many bytes of the mark the current line has shown; `None` once it has shown something else.
    matched: Option<usize>,
    count: u64,
}

impl Tally {
    fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match self.matched {
                _ if byte == b'\n' => self.matched = Some(0),
                Some(at) if self.mark.get(at) == Some(&byte) => {
                    self.matched = Some(at + 1).filter(|&matched| matched < self.mark.len());
                    self.count += u64::from(self.matched.is_none());
                }
                Some(_) => self.matched = None,
                None => {
                    rest = after.iter().position(|&b| b == b'\n').and_then(|end| after.get(end..)).unwrap_or_default();
                    continue;
                }
            }
            rest = after;
        }
    }
}

impl Capture {
    pub fn new(head_max: usize, tail_max: usize) -> Self {
        Self { head_max, tail_max, ..Self::default() }
    }

    /// Also counts the lines that begin with `mark`, those that are dropped included. `mark` is not empty.
    pub fn counting(self, mark: &'static [u8]) -> Self {
        Self { tally: Some(Tally { mark, matched: Some(0), count: 0 }), ..self }
    }

    /// How many lines began with the mark.
    pub fn count(&self) -> u64 {
        self.tally.as_ref().map_or(0, |tally| tally.count)
    }

    pub fn of_errors() -> Self {
        Self::new(ERRORS_HEAD_BYTES_MAX, ERRORS_TAIL_BYTES_MAX)
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if let Some(tally) = &mut self.tally {
            tally.push(bytes);
        }
        let room = self.head_max.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        self.tail.extend_from_slice(rest);
        // The tail grows to twice its bound before it is trimmed, so that each byte is moved about once.
        if self.tail.len() > 2 * self.tail_max {
            self.trim();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty()
    }

    /// Whether any bytes were dropped.
    pub fn is_cut(&self) -> bool {
        self.cut || self.tail.len() > self.tail_max
    }

    /// The bytes that were kept. A line break stands for dropped ones, so that two halves of lines never read as one.
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
    fn counts_what_it_does_not_keep_however_it_is_cut() {
        let text = b"*del a\nx *del\n\n*de\n*del\n*del *del\n*dex\n**del\n*del";
        for size in 1..=text.len() {
            let mut capture = Capture::new(0, 4).counting(b"*del");
            text.chunks(size).for_each(|chunk| capture.push(chunk));
            assert_eq!((capture.count(), capture.bytes().ends_with(b"*del")), (4, true), "{size}");
        }
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
