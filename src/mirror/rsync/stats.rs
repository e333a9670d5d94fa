//! Reads how much a run deletes or held back, and how much the other side holds. Pure. Deliberately absent: how much may be
//! deleted (`deletion_limit`).

use super::itemize::DELETING;
use super::messages::{About, lines};

/// How many deletions `--max-delete` has held back. `None`: none. Directories that are not empty are not counted.
pub fn held_back(stderr: &[u8]) -> Option<u64> {
    let line = lines(stderr).find(|line| line.about == About::DeletionsLimited)?;
    let text = line.text();
    let count = text.rsplit_once('(').and_then(|(_, count)| count.split_once(' ')?.0.parse().ok());
    // If the line has unknown words instead of a number, at least one deletion was held back.
    Some(count.unwrap_or(1))
}

/// How many lines report a deletion.
pub fn deletions(output: &[u8]) -> u64 {
    output.split(|&b| b == b'\n').filter(|line| line.starts_with(DELETING)).count() as u64
}

/// How many deletions a comparison would make, and of how many entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletionCount {
    pub deleted: u64,
    /// The entries that the other side holds now: those that both sides have, and those to be deleted.
    pub held: u64,
}

/// The figures of a dry run with `--stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Zero if the other side does not say: a daemon before rsync 3.5 counts no deletions in a dry run.
    pub deleted: u64,
    /// How many entries both sides have.
    pub shared: u64,
}

impl Statistics {
    pub fn read(output: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(output);
        let number = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
            let digits: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
            digits.replace(',', "").parse::<u64>().ok()
        };
        // The root is in every list but does not count as an entry.
        let sent = number("Number of files")?.saturating_sub(1);
        let shared = sent.saturating_sub(number("Number of created files").unwrap_or(0));
        Some(Self { deleted: number("Number of deleted files").unwrap_or(0), shared })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_max_delete_held_back_and_what_there_is() {
        let stderr = b"Deletions stopped due to --max-delete limit (1234 skipped)\nrsync error: (code 25)\n";
        assert_eq!(held_back(stderr), Some(1234));
        assert_eq!(held_back(b"Deletions stopped due to --max-delete limit\n"), Some(1));
        assert_eq!(held_back(b"rsync: [sender] opendir \"/s/d\" failed: Permission denied (13)\n"), None);
        let stats = "\nNumber of files: 1,007 (reg: 3, dir: 4)\nNumber of created files: 4 (reg: 2, dir: 2)\n\
                     Number of deleted files: 57 (reg: 55, dir: 2)\n";
        assert_eq!(Statistics::read(stats.as_bytes()), Some(Statistics { deleted: 57, shared: 1_002 }));
        assert_eq!(Statistics::read(b"Number of files: 7\n"), Some(Statistics { deleted: 0, shared: 6 }));
        assert_eq!(Statistics::read(b"sent 95 bytes\n"), None);
        assert_eq!(deletions(b"*deleting   a\n<f+++++++++ *deleting   b\n*deleting   d/\nx\n"), 2);
    }
}
