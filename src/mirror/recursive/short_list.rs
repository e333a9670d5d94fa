//! Shortcuts for bursts: fewer words in a run's list, and fewer runs.
//!
//! - A directory of which nearly everything is listed anyway is listed as `./dir/`, without the rest, and rsync finds by
//!   itself what is in it. rsync reads its list byte by byte, with two system calls for each byte, and looks at each path
//!   and its parents from the start. Where a burst has filled directories, which is where lists are long, that is most of
//!   what a run costs on this side.
//! - New directories, one level each, and single entries go in one run. Each run costs a connection, which is most of what
//!   a short list costs.
//!
//! A shortcut only ever says the same in another way: what is unlisted in a directory (older, of another batch, or still
//! being written) is excluded by name, nothing is deleted by name where rsync deletes by itself, and one that ends in any
//! way but well is followed by the runs it stood for, which tell whose fault it was. What comes into being between our
//! look and rsync's is sent a moment early; its own job follows.
//!
//! Deliberately absent: deletions, which go by name.

use std::collections::{BTreeMap, HashSet};

use super::session::{Batch, Flow};
use crate::mirror::outcome::classify::{Outcome, Paths};
use crate::mirror::plan::arguments::Pass;
use crate::mirror::plan::planner::content_bytes;
use crate::mirror::plan::run::{Entry, Run, RunKind};
use crate::mirror::plan::source::{Presence, Source};
use crate::model::{Origin, RelPath};

/// With fewer entries, a list is too short for its directory to be worth a look.
const ENTRIES_MIN: usize = 32;

/// rsync matches each name that it finds against each that is excluded.
const EXCLUDED_MAX: usize = 16;

/// A longer list is sooner sent with a connection of its own, where it can be shortened.
const ALONG_ENTRIES_MAX: usize = 1_000;

/// Runs `run` with a short list. `None`: it has none, or that did not go well, and nothing is settled.
pub(crate) fn attempt(batch: &mut Batch<'_>, run: &Run) -> Option<Flow> {
    if run.kind != RunKind::Flat || run.entries.len() < ENTRIES_MIN || !may_shorten(batch) {
        return None;
    }
    let source = Source::new(&batch.ctx.root);
    let short = folded(run, |directory, is_listed, max| source.others(directory, is_listed, max))?;
    run_instead(batch, &short, &[run])
}

/// Sends single entries along with new directories, if both are in `runs`, and takes out what has been done by that.
pub(super) fn attempt_together(batch: &mut Batch<'_>, runs: &mut Vec<Run>) -> Flow {
    if !may_shorten(batch) {
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

/// Whether what rsync finds in a directory is what the list would say.
fn may_shorten(batch: &Batch<'_>) -> bool {
    !batch.ctx.filter.has_expressions() && !batch.selects()
}

/// Runs `shortcut` for `runs`. `None`: that did not go well, and nothing is settled.
fn run_instead(batch: &mut Batch<'_>, shortcut: &Run, runs: &[&Run]) -> Option<Flow> {
    let Some((ended, command)) = batch.start(shortcut, Pass::Real) else { return Some(Flow::Halt) };
    let outcome = batch.meaning(shortcut, &ended);
    let is_over = matches!(outcome, Outcome::Done | Outcome::Target(_) | Outcome::Void);
    if is_over || shortcut.origin < Origin::Write || batch.ctx.capabilities.compares_contents() {
        // Otherwise the runs that follow send all of it again, and tell of it.
        batch.note_changed(shortcut, &ended, &outcome);
    }
    match outcome {
        Outcome::Done => {
            runs.iter().for_each(|run| batch.settle_rest(run, &Paths::default()));
            Some(Flow::Continue)
        }
        Outcome::Void if batch.is_stopped() => Some(Flow::Halt),
        Outcome::Target(trouble) => Some(batch.halt(trouble, command)),
        Outcome::Split(_) | Outcome::Blocked(..) => {
            batch.note_cut(ended.cut);
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

/// The same run with fewer entries, if there is such a one. `others` tells what is in a directory of the source beside
/// what is listed, or `None` if that is more than a number.
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
        // Gone when it was looked at, and there again.
        if others.iter().any(|other| run.entries.iter().any(|entry| entry.path == *other)) {
            return false;
        }
        // What has listed paths below it goes with them.
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
    // Few words, but as much to be read as before.
    let content_bytes = Some(run.entries.iter().map(content_bytes).fold(0, u64::saturating_add));
    Some(Run { entries: entries.into_values().collect(), with_contents, skip, content_bytes, ..run.clone() })
}
