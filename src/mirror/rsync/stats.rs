//! Reads how much a run deletes or held back, and how much there is on the other side. Pure. What of that may be deleted is
//! not said here.

use super::itemize::DELETING;
use super::messages::{About, lines};

/// How many deletions `--max-delete` has held back, if any. Directories with something in them are not counted.
pub fn held_back(stderr: &[u8]) -> Option<u64> {
    let line = lines(stderr).find(|line| line.about == About::DeletionsLimited)?;
    let text = line.text();
    let count = text.rsplit_once('(').and_then(|(_, count)| count.split_once(' ')?.0.parse().ok());
    // In words that are not known it is at least one.
    Some(count.unwrap_or(1))
}

/// How many lines tell of a deletion.
pub fn deletions(output: &[u8]) -> u64 {
    output.split(|&b| b == b'\n').filter(|line| line.starts_with(DELETING)).count() as u64
}

/// What a comparison would delete, and of how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletionCount {
    pub deleted: u64,
    /// What the other side holds now: what it shares with this one, and what is to be deleted.
    pub held: u64,
}

/// What a dry run with `--stats` says of both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Nothing if the other side does not say: a daemon before rsync 3.5 counts none in a dry run.
    pub deleted: u64,
    /// What both sides have.
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
        // The root is in every list, and no entry of its own.
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
