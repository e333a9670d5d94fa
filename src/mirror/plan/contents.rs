//! Whether a run that may not trust the quick check has contents compared, or sends all content again.
//!
//! To compare costs both sides a reading. Equal files then stay untouched: nothing is written, nobody who watches the
//! target is woken, and two mirrors in opposite directions come to an end. But rsync reads everything that it is to compare
//! before it prints a word, and a peer with a `timeout` takes a long silence for a dead line, in each new attempt. So there
//! is a limit to how much is compared. Above the limit nothing is lost: everything is sent, block by block where the target
//! has similar content.
//!
//! The size of a tree is found by walking the tree, as far as the limits go.
//!
//! Many files that have just been made are sent without a comparison: the sender would read each of them twice. To send
//! 1,000 of them costs it 15 ms of processor time a target, and 16 bytes each on the wire.

use std::path::{Path, PathBuf};

use super::run::{Run, RunKind};
use super::source::Presence;
use crate::model::{Origin, RelPath};

/// The most bytes that are compared: they are read in seconds, even from a slow disk.
const BYTES_MAX: u64 = 256 << 20;
/// How many entries of directories are looked at to find out how much the directories hold.
const FILES_MAX: usize = 2_000;

/// Whether the contents of `run` are few enough to be compared.
pub(crate) fn are_few(root: &Path, run: &Run) -> bool {
    let size = |presence: Presence| if let Presence::File { size } = presence { size } else { 0 };
    let listed = || run.entries.iter().map(|entry| size(entry.presence)).fold(0, u64::saturating_add);
    // The tree has been found to be small already.
    if run.by_content {
        return true;
    }
    match (run.kind, run.content_bytes) {
        // The quick check decides which files are read.
        (RunKind::Tree, _) if run.origin < Origin::Write => true,
        (RunKind::Tree, _) => few_in(root, run.entries.iter().map(|entry| &entry.path), true, BYTES_MAX),
        // These runs send no content.
        (RunKind::RootOnly | RunKind::Removal, _) => true,
        (_, Some(bytes)) => bytes <= BYTES_MAX,
        (RunKind::Flat, None) if run.with_contents.is_empty() => listed() <= BYTES_MAX,
        (RunKind::Flat | RunKind::Level, None) => {
            let is_read = |path: &RelPath| run.with_contents.is_empty() || run.with_contents.contains(path);
            let directories = run.entries.iter().map(|entry| &entry.path).filter(|path| is_read(path));
            few_in(root, directories, false, BYTES_MAX.saturating_sub(listed()))
        }
    }
}

fn few_in<'a>(
    root: &Path,
    directories: impl Iterator<Item = &'a RelPath>,
    with_all_below: bool,
    mut bytes_left: u64,
) -> bool {
    let mut files_left = FILES_MAX;
    let mut left: Vec<PathBuf> = directories.map(|directory| directory.under(root)).collect();
    while let Some(directory) = left.pop() {
        // A directory that cannot be read is skipped here; rsync reports it.
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        for (path, found) in entries.flatten().filter_map(|entry| Some((entry.path(), entry.metadata().ok()?))) {
            let size = if found.is_file() { found.len() } else { 0 };
            if found.is_dir() && with_all_below {
                left.push(path);
            } else if !found.is_file() {
                continue;
            }
            let (Some(files), Some(bytes)) = (files_left.checked_sub(1), bytes_left.checked_sub(size)) else {
                return false;
            };
            (files_left, bytes_left) = (files, bytes);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::plan::run::Entry;

    fn run(kind: RunKind, entries: &[(&str, Presence)]) -> Run {
        let entry = |&(path, presence): &(&str, Presence)| Entry {
            path: RelPath::new(path.as_bytes()).unwrap(),
            presence,
            orphan: false,
            jobs: Vec::new(),
        };
        Run::new(kind, Origin::Write, entries.iter().map(entry).collect())
    }

    /// While rsync reads it prints nothing, and a server with a `timeout` broke off every attempt.
    #[test]
    fn much_is_sent_rather_than_compared() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("d/deeper")).unwrap();
        std::fs::write(dir.path().join("d/small"), "x").unwrap();
        let file = |size| Presence::File { size };
        let few = |run: &Run| are_few(dir.path(), run);
        assert!(few(&run(RunKind::Flat, &[("a", file(BYTES_MAX)), ("gone", Presence::Missing)])));
        assert!(!few(&run(RunKind::Flat, &[("a", file(BYTES_MAX)), ("b", file(1))])));
        let level = run(RunKind::Level, &[("d", Presence::Directory)]);
        assert!(few(&level));
        std::fs::File::create(dir.path().join("d/deeper/large")).unwrap().set_len(BYTES_MAX + 1).unwrap();
        assert!(few(&level));
        std::fs::File::create(dir.path().join("d/large")).unwrap().set_len(BYTES_MAX).unwrap();
        assert!(!few(&level));
        assert!(few(&Run { content_bytes: Some(7), ..level }));
        let tree = run(RunKind::Tree, &[("d", Presence::Directory)]);
        assert!(!few(&tree));
        std::fs::remove_file(dir.path().join("d/large")).unwrap();
        assert!(!few(&tree), "what is deeper counts");
        std::fs::remove_file(dir.path().join("d/deeper/large")).unwrap();
        assert!(few(&tree));
    }
}
