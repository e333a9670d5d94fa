//! Shortcuts for bursts: fewer words in a run's list, and fewer runs.
//!
//! - A directory of which everything is listed anyway is listed as `./dir/`, and rsync finds by itself what is in it. rsync
//!   reads its list byte by byte, with two system calls for each byte, and looks at each path and its parents from the
//!   start. Where a burst has filled whole directories, which is where lists are long, that is most of what a run costs on
//!   this side.
//! - New directories, one level each, and single entries go in one run. Each run costs a connection, which is most of what
//!   a short list costs.
//!
//! A shortcut only ever says the same in another way: directories with anything unlisted in them (of another batch, still
//! being written, or filtered) stay as they are, nothing is deleted by name where rsync deletes by itself, and one that ends
//! in any way but well is followed by the runs it stood for, which tell whose fault it was. What comes into being between
//! our look and rsync's is sent a moment early; its own job follows.
//!
//! Deliberately absent: deletions, which go by name.

use std::collections::{BTreeMap, HashSet};

use super::command::Pass;
use super::execute::{Batch, Flow};
use super::look::{Presence, Source};
use super::outcome::{Outcome, Paths, classify};
use super::plan::{Entry, Run, RunKind};
use crate::model::{Origin, RelPath};

/// With fewer entries, a list is too short for its directory to be worth a look.
const ENTRIES_MIN: usize = 32;

/// A longer list is sooner sent with a connection of its own, where it can be shortened.
const ALONG_ENTRIES_MAX: usize = 1_000;

/// Runs `run` with a short list. `None`: it has none, or that did not go well, and nothing is settled.
pub(super) fn attempt(batch: &mut Batch<'_>, run: &Run) -> Option<Flow> {
    if run.kind != RunKind::Flat || run.entries.len() < ENTRIES_MIN || batch.ctx.filter.has_expressions() {
        return None;
    }
    let source = Source::new(&batch.ctx.root);
    let short = folded(run, |directory, is_listed| source.holds_only(directory, is_listed))?;
    run_instead(batch, &short, &[run])
}

/// Sends single entries along with new directories, if both are in `runs`, and takes out what has been done by that.
pub(super) fn attempt_together(batch: &mut Batch<'_>, runs: &mut Vec<Run>) -> Flow {
    if batch.ctx.filter.has_expressions() {
        return Flow::Continue;
    }
    let Some(mut joint) = joined(runs) else { return Flow::Continue };
    joint.max_delete = batch.first_limit(&joint);
    let (along, others): (Vec<Run>, Vec<Run>) = std::mem::take(runs).into_iter().partition(goes_along);
    match run_instead(batch, &joint, &along.iter().collect::<Vec<_>>()) {
        Some(flow) => {
            *runs = others;
            flow
        }
        None => {
            runs.extend(along);
            runs.extend(others);
            Flow::Continue
        }
    }
}

/// Runs `shortcut` for `runs`. `None`: that did not go well, and nothing is settled.
fn run_instead(batch: &mut Batch<'_>, shortcut: &Run, runs: &[&Run]) -> Option<Flow> {
    let Some((ended, command)) = batch.start(shortcut, Pass::Real) else { return Some(Flow::Halt) };
    let outcome = classify(&ended, shortcut, &batch.ctx.prefixes);
    let is_over = matches!(outcome, Outcome::Done | Outcome::Target(_) | Outcome::Void);
    if is_over || shortcut.origin < Origin::Write {
        // Otherwise the runs that follow send all of it again, and tell of it.
        batch.note_changed(shortcut, &ended, &outcome);
    }
    match outcome {
        Outcome::Done => {
            runs.iter().for_each(|run| batch.settle_rest(run, &Paths::default()));
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

/// Whether a run may become part of a joint one. The root's own attributes go with every list.
fn goes_along(run: &Run) -> bool {
    match run.kind {
        RunKind::RootOnly => true,
        RunKind::Level => run.origin == Origin::Write,
        RunKind::Flat => {
            run.origin == Origin::Write
                && run.entries.len() <= ALONG_ENTRIES_MAX
                && run.entries.iter().all(|entry| entry.presence != Presence::Missing)
        }
        RunKind::Tree => false,
    }
}

/// One run for the levels and the single entries among `runs`, if there are both.
fn joined(runs: &[Run]) -> Option<Run> {
    let along: Vec<&Run> = runs.iter().filter(|run| goes_along(run)).collect();
    let level = along.iter().find(|run| run.kind == RunKind::Level).filter(|_| along.len() > 1)?;
    let with_contents = level.entries.iter().map(|entry| entry.path.clone()).collect();
    let mut entries: BTreeMap<RelPath, Entry> = BTreeMap::new();
    for entry in level.entries.iter().chain(along.iter().flat_map(|run| &run.entries)) {
        entries.entry(entry.path.clone()).or_insert_with(|| entry.clone());
    }
    Some(Run { entries: entries.into_values().collect(), with_contents, ..(*level).clone() })
}

/// The same run with fewer entries, if there is such a one. `holds_only` tells whether all names in a directory of the
/// source are listed.
fn folded(run: &Run, holds_only: impl Fn(&RelPath, &dyn Fn(&[u8]) -> bool) -> bool) -> Option<Run> {
    let mut listed: BTreeMap<RelPath, HashSet<&[u8]>> = BTreeMap::new();
    for entry in run.entries.iter().filter(|entry| entry.presence != Presence::Missing) {
        if let Some(parent) = entry.path.parent() {
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
        assert!(short.with_contents.iter().eq([&RelPath::root(), &path("full"), &path("full/deep")]));
        let others: Vec<&RelPath> = short.entries.iter().map(|entry| &entry.path).collect();
        assert!(others.is_sorted() && others.len() == 4 + 31 + 40, "{others:?}");
        assert!(["", "full", "full/deep", "full/gone"].iter().all(|name| others.contains(&&path(name))));
        assert!(others.iter().all(|path| !path.as_bytes().starts_with(b"full/f")));
        assert_eq!(folded(&run(files("few", 31)), |_, _| true), None);
    }
}
