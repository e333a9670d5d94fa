//! Shortcuts for bursts: fewer words in a run's list, and fewer runs.
//!
//! - A directory whose entries are nearly all listed is listed as `./dir/` without them, and rsync finds the entries by
//!   itself. rsync reads its list byte by byte, with two system calls for each byte, and looks at each path and its parents
//!   from the start. Where a burst has filled directories, which is where lists are long, that is most of what a run costs
//!   on this side.
//! - New directories, one level each, and single entries go in one run. Each run costs a connection, which is most of what
//!   a short list costs.
//!
//! A shortcut says the same as the full list. An unlisted entry of a directory (older, of another batch, or still being
//! written) is excluded by name. Nothing is deleted by name where rsync deletes by itself. A shortcut that fails is
//! followed by the runs that it replaced, and their results count. A file that appears between the planning and rsync's own
//! look is sent a moment early; its own job follows.
//!
//! Deliberately absent: deletions, which go by name.

use std::collections::{BTreeMap, HashSet};

use super::session::{Execution, Flow};
use crate::mirror::outcome::classify::{Outcome, Paths};
use crate::mirror::plan::arguments::Pass;
use crate::mirror::plan::planner::content_bytes;
use crate::mirror::plan::run::{Entry, Run, RunKind};
use crate::mirror::plan::source::{Presence, Source};
use crate::model::{Origin, RelPath};

/// With fewer listed entries a directory is not worth a look at the source.
const ENTRIES_MIN: usize = 32;

/// The limit of excluded names in one run: rsync matches each name that it finds against all of them.
const EXCLUDED_MAX: usize = 16;

/// A longer list is better sent over a connection of its own, where it can be shortened.
const ALONG_ENTRIES_MAX: usize = 1_000;

/// Runs `run` with a short list. `Ok(false)`: there is no short list, or its run failed, and nothing is settled.
pub(super) fn attempt(batch: &mut Execution<'_>, run: &Run) -> Result<bool, Flow> {
    if run.kind != RunKind::Flat || run.entries.len() < ENTRIES_MIN || !may_shorten(batch) {
        return Ok(false);
    }
    let source = Source::new(&batch.ctx.root);
    let short = folded(run, |directory, is_listed, max| source.others(directory, is_listed, max));
    short.map_or(Ok(false), |short| run_instead(batch, &short, &[run]))
}

/// Sends single entries along with new directories, if both are in `runs`, and takes the runs that are done by that out of
/// `runs`.
pub(super) fn attempt_together(batch: &mut Execution<'_>, runs: &mut Vec<Run>) -> Result<(), Flow> {
    if !may_shorten(batch) {
        return Ok(());
    }
    let Some(mut joint) = joined(runs) else { return Ok(()) };
    joint.max_delete = batch.first_limit(&joint);
    let (along, others): (Vec<Run>, Vec<Run>) = std::mem::take(runs).into_iter().partition(goes_along);
    if !run_instead(batch, &joint, &along.iter().collect::<Vec<_>>())? {
        runs.extend(along);
    }
    runs.extend(others);
    Ok(())
}

/// Whether rsync, left to itself, finds in a directory exactly what the full list would name.
fn may_shorten(batch: &Execution<'_>) -> bool {
    !batch.ctx.filter.has_expressions() && !batch.selects()
}

/// Runs `shortcut` in place of `runs`. `Ok(false)`: the shortcut failed, and nothing is settled.
fn run_instead(batch: &mut Execution<'_>, shortcut: &Run, runs: &[&Run]) -> Result<bool, Flow> {
    let (ended, command) = batch.start(shortcut, Pass::Real).ok_or(Flow::Halt)?;
    let outcome = batch.meaning(shortcut, &ended);
    let is_over = matches!(outcome, Outcome::Done | Outcome::Target(_) | Outcome::Void);
    if is_over || shortcut.origin < Origin::Write || batch.ctx.capabilities.compares_contents() {
        // In all other cases the following runs send everything again, and the observer hears of it from them.
        batch.note_changed(shortcut, &ended, &outcome);
    }
    match outcome {
        Outcome::Done => {
            runs.iter().for_each(|run| batch.settle_rest(run, &Paths::default()));
            Ok(true)
        }
        Outcome::Void if batch.is_stopped() => Err(Flow::Halt),
        Outcome::Target(trouble) => Err(batch.halt(trouble, command)),
        Outcome::Split(_) | Outcome::Blocked(..) => {
            batch.note_cut(ended.cut);
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// Whether a run may become part of a joint one. A run for the root's own attributes may: every list includes them.
fn goes_along(run: &Run) -> bool {
    match run.kind {
        RunKind::RootOnly => true,
        RunKind::Level => run.origin == Origin::Write,
        RunKind::Flat => {
            run.origin == Origin::Write
                && run.entries.len() <= ALONG_ENTRIES_MAX
                && run.entries.iter().all(|entry| entry.presence != Presence::Missing)
        }
        RunKind::Removal | RunKind::Tree => false,
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

/// The same run with fewer entries, if directories can be listed by name. `others` names what a directory of the source
/// holds beside the listed entries, or returns `None` if there are more than the given number.
fn folded(run: &Run, others: impl Fn(&RelPath, &dyn Fn(&[u8]) -> bool, usize) -> Option<Vec<RelPath>>) -> Option<Run> {
    let mut listed: BTreeMap<RelPath, HashSet<&[u8]>> = BTreeMap::new();
    for entry in run.entries.iter().filter(|entry| entry.presence != Presence::Missing) {
        if let Some(parent) = entry.path.parent() {
            listed.entry(parent).or_default().insert(entry.path.name());
        }
    }
    let mut skip = run.skip.clone();
    listed.retain(|directory, names| {
        let max = EXCLUDED_MAX.saturating_sub(skip.len());
        if names.len() < ENTRIES_MIN {
            return false;
        }
        let Some(mut others) = others(directory, &|name| names.contains(name), max) else { return false };
        // The plan saw this path as missing, so it is listed for deletion, but it exists again. Folding its directory would
        // send it and delete it in one run; leave the directory unfolded.
        if others.iter().any(|other| run.entries.iter().any(|entry| entry.path == *other)) {
            return false;
        }
        // A directory above listed paths is part of the run anyway.
        others.retain(|other| !run.entries.iter().any(|entry| other.is_ancestor_of(&entry.path)));
        skip.append(&mut others);
        true
    });
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
    // The list is shorter, but rsync reads as much content as before.
    let content_bytes = Some(run.entries.iter().map(content_bytes).fold(0, u64::saturating_add));
    Some(Run { entries: entries.into_values().collect(), with_contents, skip, content_bytes, ..run.clone() })
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

    /// `folded` on a source that holds the listed entries and, besides, `unlisted`.
    fn folded_beside(run: &Run, unlisted: &[&str]) -> Option<Run> {
        folded(run, |directory, is_listed, max| {
            let listed = run.entries.iter().filter(|entry| entry.presence != Presence::Missing);
            let present = listed.map(|entry| entry.path.clone()).chain(unlisted.iter().map(|text| path(text)));
            let others = present.filter(|path| path.parent().as_ref() == Some(directory) && !is_listed(path.name()));
            let others: Vec<RelPath> = others.collect();
            (others.len() <= max).then_some(others)
        })
    }

    #[test]
    fn directories_that_are_listed_in_full_are_listed_by_name() {
        let mut names = files("full", 40);
        names.extend(files("full/deep", 50));
        names.extend(files("few", 31));
        names.push(("full/gone".to_owned(), Presence::Missing));
        names.push(("full/deep".to_owned(), Presence::Directory));
        names.extend((0..40).map(|n| (format!("top{n}"), FILE)));
        // Nobody lists `full` and `few`, but both are sent on account of the files listed in them.
        let short = folded_beside(&run(names), &["full", "few"]).unwrap();
        assert!(short.with_contents.iter().eq([&RelPath::root(), &path("full"), &path("full/deep")]));
        assert_eq!(short.skip, []);
        let others: Vec<&RelPath> = short.entries.iter().map(|entry| &entry.path).collect();
        assert!(others.is_sorted() && others.len() == 4 + 31, "{others:?}");
        assert!(["", "full", "full/deep", "full/gone"].iter().all(|name| others.contains(&&path(name))));
        assert!(others.iter().all(|path| !path.as_bytes().starts_with(b"full/f")));
        assert_eq!(folded_beside(&run(files("few", 31)), &["few"]), None);
    }

    #[test]
    fn the_little_that_is_not_listed_is_left_out_and_much_is_not() {
        let mut names = files("a", 40);
        names.push(("a/sub/x".to_owned(), FILE));
        names.push(("a/old/gone".to_owned(), Presence::Missing));
        let all = run(names);
        let short = folded_beside(&all, &["a/[1]", "a/other", "a/sub", "a/old", "b/other"]).unwrap();
        assert_eq!(short.skip, [path("a/[1]"), path("a/other")]);
        assert!(short.with_contents.iter().eq([&path("a")]));

        let unlisted: Vec<String> = (0..=EXCLUDED_MAX).map(|n| format!("a/other{n}")).collect();
        let unlisted: Vec<&str> = unlisted.iter().map(String::as_str).collect();
        assert_eq!(folded_beside(&all, &unlisted), None);
        let mut two = files("a", 40);
        two.extend(files("b", 40));
        let share = ["b/1", "b/2"].iter().chain(&unlisted[..EXCLUDED_MAX - 1]).copied().collect::<Vec<_>>();
        let short = folded_beside(&run(two), &share).unwrap();
        assert!(short.with_contents.iter().eq([&path("a")]), "the number is the run's, not a directory's");
    }

    /// The file would have been sent and deleted in one run.
    #[test]
    fn what_is_listed_as_gone_and_there_again_keeps_its_directory_as_it_is() {
        let mut names = files("a", 40);
        names.push(("a/back".to_owned(), Presence::Missing));
        assert_eq!(folded_beside(&run(names), &["a/back"]), None);
    }
}
