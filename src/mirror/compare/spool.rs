//! Keeps the output of a comparison in a file without a name, so that a million differences cost disk space and no memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The size at which the output is cut off: some ten million paths.
const SPOOL_BYTES_MAX: u64 = 1 << 30;

/// Lines that are being written to disk.
#[derive(Debug)]
pub struct Spool {
    out: BufWriter<File>,
    bytes: u64,
    cut: bool,
}

impl Spool {
    /// Opens a file in `dir` that has no name and is gone when it is closed. The error: no such file can be made there.
    pub fn in_dir(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self { out: BufWriter::new(file.into()), bytes: 0, cut: false })
    }

    /// Keeps more of the output, as far as there is room.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.cut |= self.bytes > SPOOL_BYTES_MAX;
        if self.cut { Ok(()) } else { self.out.write_all(bytes) }
    }

    /// Whether some of the output did not fit.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The lines from the first one on, without a last line that is not complete.
    pub fn lines(self) -> io::Result<Lines> {
        let mut file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Lines { reader: BufReader::new(file) })
    }
}

/// The lines that were kept.
#[derive(Debug)]
pub struct Lines {
    reader: BufReader<File>,
}

impl Lines {
    /// Reads the next line into `line`, without its line break. `false`: there are no more lines.
    pub fn next_into(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        self.reader.read_until(b'\n', line)?;
        // A line without a line break was cut off, perhaps within a name.
        Ok(line.pop() == Some(b'\n'))
    }

    /// Goes back to the first line.
    pub fn rewind(&mut self) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(0)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_come_back_and_the_file_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::in_dir(dir.path()).unwrap();
        for piece in [&b"one\ntw"[..], b"o\n\nha", b"lf"] {
            spool.push(piece).unwrap();
        }
        assert!(!spool.is_cut());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut lines = spool.lines().unwrap();
        for _ in 0..2 {
            let (mut line, mut all) = (Vec::new(), Vec::new());
            while lines.next_into(&mut line).unwrap() {
                all.push(line.clone());
            }
            assert_eq!(all, [&b"one"[..], b"two", b""]);
            lines.rewind().unwrap();
        }
    }
}
