//! Runs in which rsync looks for itself, cut down to what has changed.
//!
//! Some of the user's own options choose what rsync finds, follows or spares (`--exclude`, `-x`, `-L`, …; all of
//! `Params::selects`). They work only where rsync comes to a path from the root on: rsync takes a path in a list as it is,
//! and knows nothing of its ancestors. So a run of this kind has no list. It compares the whole tree, except for what is
//! not one of its entries: every such path is excluded in front of the user's own rules, so that rsync neither reads nor
//! deletes it. How the user's rules judge the entries is then up to rsync, as in a comparison.
//!
//! rsync's rules know no "all but these": the names beside the chosen ones are excluded by how they differ, byte by byte.
//!
//! Such a run also deletes where a path by name cannot: rsync makes a directory without `w` writable only where it
//! compares.
//!
//! Deliberately absent: the meaning of the user's rules. Nothing here reads one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::run::{Run, RunKind};
use super::source::Presence;
use crate::model::RelPath;

/// The rules of one run, at most: rsync compares each name with each rule, and the argument list has a limit.
const RULES_BYTES_MAX: usize = 128 << 10;

/// The run as it is started: with the rules that narrow it, if rsync looks for itself.
pub(crate) fn prepared<'a>(run: &'a Run, root: &Path) -> Cow<'a, Run> {
    if run.looks { Cow::Owned(Run { narrowing: patterns(run, root), ..run.clone() }) } else { Cow::Borrowed(run) }
}

/// The run, divided into as many pieces as keep each piece's rules within their limit.
pub(crate) fn pieces(run: Run) -> Vec<Run> {
    if !run.looks {
        return vec![run];
    }
    let mut bytes = 0;
    let mut pieces: Vec<Run> = Vec::new();
    let empty = Run { entries: Vec::new(), ..run.clone() };
    for entry in run.entries {
        // There are up to two rules for each byte of a name, each with the whole path before that byte.
        let rules = 2 * entry.path.name().len() * (entry.path.as_bytes().len() + 8);
        bytes += rules;
        match pieces.last_mut().filter(|_| bytes <= RULES_BYTES_MAX) {
            Some(last) => last.entries.push(entry),
            None => {
                bytes = rules;
                pieces.push(Run { entries: vec![entry], ..empty.clone() });
            }
        }
    }
    pieces
}

/// How much of a directory belongs to a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// The names in it that are chosen.
    #[default]
    Chosen,
    /// All names in it; of a subdirectory its attributes but not its contents.
    Level,
    Everything,
}

#[derive(Debug, Default)]
struct Place {
    reach: Reach,
    chosen: BTreeMap<Vec<u8>, Place>,
}

/// The patterns to exclude so that nothing but the run's entries is left of the tree.
fn patterns(run: &Run, root: &Path) -> Vec<OsString> {
    let mut top = Place::default();
    for entry in &run.entries {
        let reach = match (run.kind, entry.presence) {
            (RunKind::RootOnly, _) | (RunKind::Flat, Presence::Directory) => Reach::Chosen,
            (RunKind::Level, _) => Reach::Level,
            (RunKind::Tree | RunKind::Removal | RunKind::Flat, _) => Reach::Everything,
        };
        let mut place = &mut top;
        for name in entry.path.components() {
            place = place.chosen.entry(name.to_vec()).or_default();
        }
        place.reach = place.reach.max(reach);
    }
    let mut patterns = Vec::new();
    close(&top, &RelPath::root(), root, &mut patterns);
    patterns
}

fn close(place: &Place, path: &RelPath, root: &Path, patterns: &mut Vec<OsString>) {
    match place.reach {
        Reach::Everything => return,
        Reach::Chosen => {
            let names: Vec<&[u8]> = place.chosen.keys().map(Vec::as_slice).collect();
            others(&names, 0, path, patterns);
        }
        Reach::Level => {
            // A directory that cannot be read is skipped here; rsync reports it.
            for entry in std::fs::read_dir(path.under(root)).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let is_directory = entry.file_type().is_ok_and(|found| found.is_dir());
                if is_directory && !place.chosen.contains_key(name.as_bytes()) {
                    patterns.push(pattern(&path.join(name.as_bytes()), b"/*"));
                }
            }
        }
    }
    for (name, below) in &place.chosen {
        close(below, &path.join(name), root, patterns);
    }
}

/// Excludes every name in `directory` but `names`, which are sorted, distinct, and alike in their first `length` bytes.
fn others(names: &[&[u8]], length: usize, directory: &RelPath, patterns: &mut Vec<OsString>) {
    let alike = names.first().and_then(|name| name.get(..length)).unwrap_or_default();
    // A name that ends at this length stands in front of the longer ones.
    let ends = names.first().is_some_and(|name| name.len() == length);
    let longer = names.get(usize::from(ends)..).unwrap_or_default();
    if !ends && length > 0 {
        patterns.push(pattern(&directory.join(alike), b""));
    }
    let mut rest = Vec::new();
    if longer.is_empty() {
        rest.extend_from_slice(if length > 0 { b"?*" } else { b"*" });
    } else {
        rest.extend_from_slice(b"[!");
        for one in longer.chunk_by(|one, next| one.get(length) == next.get(length)) {
            rest.push(b'\\');
            rest.extend(one.first().and_then(|name| name.get(length)));
        }
        rest.extend_from_slice(b"]*");
    }
    let mut wild = vec![b'/'];
    escape(directory.as_bytes(), &mut wild);
    if !directory.is_root() {
        wild.push(b'/');
    }
    escape(alike, &mut wild);
    wild.extend(rest);
    patterns.push(OsString::from_vec(wild));
    for one in longer.chunk_by(|one, next| one.get(length) == next.get(length)) {
        others(one, length + 1, directory, patterns);
    }
}

/// A pattern that matches this path followed by `rest`, and nothing else. In a pattern without a wildcard rsync takes
/// backslashes literally.
pub(crate) fn pattern(path: &RelPath, rest: &[u8]) -> OsString {
    let bytes = path.as_bytes();
    let mut pattern = vec![b'/'];
    if bytes.iter().chain(rest).any(|b| b"*?[".contains(b)) {
        escape(bytes, &mut pattern);
    } else {
        pattern.extend_from_slice(bytes);
    }
    pattern.extend_from_slice(rest);
    OsString::from_vec(pattern)
}

fn escape(bytes: &[u8], pattern: &mut Vec<u8>) {
    for &byte in bytes {
        if b"*?[\\".contains(&byte) {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::mirror::plan::run::Entry;
    use crate::model::Origin;

    fn run(kind: RunKind, entries: &[(&str, Presence)]) -> Run {
        let entries = entries.iter().map(|&(path, presence)| {
            let path = RelPath::new(path.as_bytes()).unwrap();
            Entry { path, presence, orphan: false, jobs: vec![0] }
        });
        Run { looks: true, ..Run::new(kind, Origin::Scan, entries.collect()) }
    }

    fn shown(run: &Run, root: &Path) -> Vec<String> {
        patterns(run, root).iter().map(|pattern| pattern.display().to_string()).collect()
    }

    #[test]
    fn all_but_the_entries_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("d/sub")).unwrap();
        std::fs::write(dir.path().join("d/f"), "").unwrap();
        let missing = Presence::Missing;
        let directory = Presence::Directory;
        for (run, expected) in [
            (run(RunKind::Tree, &[("", directory)]), &[][..]),
            (run(RunKind::RootOnly, &[("", directory)]), &["/*"]),
            (run(RunKind::Flat, &[("a", missing)]), &[r"/[!\a]*", "/a?*"]),
            (run(RunKind::Flat, &[("a", directory)]), &[r"/[!\a]*", "/a?*", "/a/*"]),
            (run(RunKind::Flat, &[("ab", missing), ("a", missing)]), &[r"/[!\a]*", r"/a[!\b]*", "/ab?*"]),
            (run(RunKind::Flat, &[("d/x", missing)]), &[r"/[!\d]*", "/d?*", r"/d/[!\x]*", "/d/x?*"]),
            (run(RunKind::Level, &[("d", directory)]), &[r"/[!\d]*", "/d?*", "/d/sub/*"]),
            (run(RunKind::Tree, &[("d", directory)]), &[r"/[!\d]*", "/d?*"]),
        ] {
            assert_eq!(shown(&run, dir.path()), expected, "{run:?}");
        }
    }

    #[test]
    fn long_lists_are_cut_and_nothing_is_lost() {
        let names: Vec<String> = (0..2_000).map(|n| format!("directory/file-with-a-long-name-{n:08}")).collect();
        let entries: Vec<(&str, Presence)> = names.iter().map(|name| (name.as_str(), Presence::Missing)).collect();
        let pieces = pieces(run(RunKind::Flat, &entries));
        assert!(pieces.len() > 10, "{}", pieces.len());
        assert_eq!(pieces.iter().map(|piece| piece.entries.len()).sum::<usize>(), names.len());
        let bytes = |run: &Run| patterns(run, Path::new("/")).iter().map(|pattern| pattern.len()).sum::<usize>();
        assert!(pieces.iter().all(|piece| bytes(piece) < 2 * RULES_BYTES_MAX));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        /// A rule too many would leave out a change, a rule too few would delete a path that nobody has judged.
        #[test]
        fn rsync_finds_the_chosen_names_and_no_others(
            names in prop::collection::btree_set(r"[ab*?\[\]\\!^ ~.\-\u{e9}]{1,4}", 1..12),
            chosen in prop::collection::vec(any::<bool>(), 12),
        ) {
            let names: Vec<String> = names.into_iter().filter(|name| name != "." && name != "..").collect();
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("d[*")).unwrap();
            for name in &names {
                std::fs::write(dir.path().join("d[*").join(name), "").unwrap();
            }
            let listed: Vec<String> =
                names.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(name, _)| format!("d[*/{name}")).collect();
            let entries: Vec<(&str, Presence)> =
                listed.iter().map(|name| (name.as_str(), Presence::Other)).collect();
            let mut rsync = Command::new("rsync");
            rsync.args(["-rn8", "--out-format=%n"]).current_dir(dir.path());
            for pattern in patterns(&run(RunKind::Flat, &entries), dir.path()) {
                rsync.arg(crate::mirror::plan::arguments::joined("--exclude=", &pattern));
            }
            let output = rsync.args(["./", "/nonexistent/"]).stdin(Stdio::null()).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let mut found: Vec<String> =
                text.lines().filter(|line| !line.ends_with('/')).map(|line| line.replace("\\#134", "\\")).collect();
            found.sort();
            let mut listed = listed;
            listed.sort();
            prop_assert_eq!(found, listed);
        }
    }
}
