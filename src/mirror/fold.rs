//! Shortens the list of a flat run. A directory of which everything is listed anyway is listed as `./dir/`, and rsync finds
//! by itself what is in it.
//!
//! rsync reads its list byte by byte, with two system calls for each byte, and looks at each path and its parents from the
//! start. Where a burst has filled whole directories, which is where lists are long, that is most of what a run costs on
//! this side.
//!
//! A short list only ever says the same in fewer words: directories with anything unlisted in them (of another batch, still
//! being written, or filtered) stay as they are, and a run of it that ends in any way but well is run again with the long
//! one, which tells whose fault it was. What comes into being between our look and rsync's is sent a moment early; its own
//! job follows.
//!
//! Deliberately absent: the root, and deletions, which go by name.

use std::collections::{BTreeMap, HashSet};

use super::command::Pass;
use super::execute::{Batch, Flow};
use super::look::{Presence, Source};
use super::outcome::{Outcome, Paths, classify};
use super::plan::{Entry, Run, RunKind};
use crate::model::{Origin, RelPath};

/// With fewer entries, a list is too short for its directory to be worth a look.
const ENTRIES_MIN: usize = 32;

/// Runs `run` with a short list. `None`: it has none, or that did not go well, and nothing is settled.
pub(super) fn attempt(batch: &mut Batch<'_>, run: &Run) -> Option<Flow> {
    if run.kind != RunKind::Flat || run.entries.len() < ENTRIES_MIN || batch.ctx.filter.has_expressions() {
        return None;
    }
    let source = Source::new(&batch.ctx.root);
    let short = folded(run, |directory, is_listed| source.holds_only(directory, is_listed))?;
    let Some((ended, command)) = batch.start(&short, Pass::Real) else { return Some(Flow::Halt) };
    let outcome = classify(&ended, &short, &batch.ctx.prefixes);
    let is_over = matches!(outcome, Outcome::Done | Outcome::Target(_) | Outcome::Void);
    if is_over || run.origin < Origin::Write {
        // Otherwise the long one sends all of it again, and tells of it.
        batch.note_changed(&short, &ended, &outcome);
    }
    match outcome {
        Outcome::Done => {
            batch.settle_rest(run, &Paths::default());
            Some(Flow::Continue)
        }
        Outcome::Target(_) | Outcome::Void if batch.is_stopped() => Some(Flow::Halt),
        Outcome::Target(trouble) => Some(batch.halt(trouble, command)),
        Outcome::Split(_) => {
            batch.note_cut();
            None
        }
        _ => None,
    }
}

/// The same run with fewer entries, if there is such a one. `holds_only` tells whether all names in a directory of the
/// source are listed.
fn folded(run: &Run, holds_only: impl Fn(&RelPath, &dyn Fn(&[u8]) -> bool) -> bool) -> Option<Run> {
    let mut listed: BTreeMap<RelPath, HashSet<&[u8]>> = BTreeMap::new();
    for entry in run.entries.iter().filter(|entry| entry.presence != Presence::Missing) {
        if let Some(parent) = entry.path.parent().filter(|parent| !parent.is_root()) {
            listed.entry(parent).or_default().insert(entry.path.name());
        }
    }
    listed.retain(|directory, names| names.len() >= ENTRIES_MIN && holds_only(directory, &|name| names.contains(name)));
    if listed.is_empty() {
        return None;
    }
    let is_folded = |entry: &Entry| {
        matches!(entry.presence, Presence::File { .. } | Presence::Other)
            && entry.path.parent().is_some_and(|parent| listed.contains_key(&parent))
    };
    let kept = run.entries.iter().filter(|entry| !is_folded(entry));
    let mut entries: BTreeMap<RelPath, Entry> = kept.map(|entry| (entry.path.clone(), entry.clone())).collect();
    for directory in listed.keys() {
        let entry =
            || Entry { path: directory.clone(), presence: Presence::Directory, orphan: false, jobs: Vec::new() };
        entries.entry(directory.clone()).or_insert_with(entry);
    }
    let with_contents = listed.into_keys().collect();
    Some(Run { entries: entries.into_values().collect(), with_contents, ..run.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn entry(text: String, presence: Presence) -> Entry {
        Entry { path: path(&text), presence, orphan: false, jobs: vec![0] }
    }

    fn run(names: impl IntoIterator<Item = (String, Presence)>) -> Run {
        let mut entries: Vec<Entry> = names.into_iter().map(|(name, presence)| entry(name, presence)).collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Run::new(RunKind::Flat, Origin::Write, entries)
    }

    const FILE: Presence = Presence::File { size: 10 };

    fn files(directory: &str, count: usize) -> Vec<(String, Presence)> {
        (0..count).map(|n| (format!("{directory}/f{n}"), FILE)).collect()
    }

    #[test]
    fn directories_that_are_listed_in_full_are_listed_by_name() {
        let mut names = files("full", 40);
        names.extend(files("full/deep", 50));
        names.extend(files("few", 31));
        names.extend(files("more", 40));
        names.push(("full/gone".to_owned(), Presence::Missing));
        names.push(("full/deep".to_owned(), Presence::Directory));
        names.extend((0..40).map(|n| (format!("top{n}"), FILE)));
        let all = run(names);
        // What stands in the directories: those of the list, and in `more` one besides.
        let holds_only = |directory: &RelPath, is_listed: &dyn Fn(&[u8]) -> bool| {
            let listed = all.entries.iter().filter(|entry| entry.path.parent().as_ref() == Some(directory));
            let present = listed.filter(|entry| entry.presence != Presence::Missing);
            present.into_iter().all(|entry| is_listed(entry.path.name()))
                && (*directory != path("more") || is_listed(b"unlisted"))
        };
        let short = folded(&all, holds_only).unwrap();
        assert!(short.with_contents.iter().eq([&path("full"), &path("full/deep")]));
        let others: Vec<&RelPath> = short.entries.iter().map(|entry| &entry.path).collect();
        assert!(others.is_sorted() && others.len() == 3 + 31 + 40 + 40, "{others:?}");
        assert!(["full", "full/deep", "full/gone"].iter().all(|name| others.contains(&&path(name))));
        assert!(others.iter().all(|path| !path.as_bytes().starts_with(b"full/f")));
        assert_eq!(folded(&run(files("few", 31)), |_, _| true), None);
    }
}
