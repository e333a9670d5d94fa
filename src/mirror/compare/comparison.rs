//! Compares a target with the source without changing anything, and tells what differs and how.
//!
//! One dry run over a path finds what differs. The result is kept on disk, since it may be very large. Any of these paths
//! may have changed meanwhile, so single paths can be looked at again. `daemon` knows for which of them there are jobs.
//!
//! Deliberately absent: the limit on deletions, since nothing is deleted, and waiting for jobs.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::difference::{Difference, Differs, read};
use super::spool::{Lines, Spool};
use crate::filter::{Filter, Kind};
use crate::mirror::outcome::classify::{Outcome, Paths, Undone, classify};
use crate::mirror::outcome::diagnosis::trouble;
use crate::mirror::plan::arguments::{Mode, Pass, arguments, list};
use crate::mirror::plan::narrow;
use crate::mirror::plan::planner::{Limits, plan, topmost};
use crate::mirror::plan::run::{Deletion, Run};
use crate::mirror::plan::shell_line::pasteable;
use crate::mirror::plan::source::{Presence, Source};
use crate::mirror::rsync::itemize::skips_deletions;
use crate::mirror::rsync::messages::Extent;
use crate::mirror::rsync::process::run_in_background;
use crate::mirror::rsync::read_limit::ReadLimit;
use crate::mirror::rsync::stop::StopSignal;
use crate::mirror::rsync::supervision::Background;
use crate::mirror::target::context::TargetContext;
use crate::model::{
    ClaimedJob, Generation, JobError, Lane, Origin, RelPath, Scope, TargetTrouble, Timestamp, TroubleClass,
};

/// The error for a place that cannot be compared.
fn not_mounted() -> JobError {
    JobError::new(None, "the file system that is mounted there as a rule is not, so nothing there was compared")
}

/// How a comparison looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Compare contents, instead of trusting size and modification time.
    pub checksum: bool,
    /// How many bytes a second are read on average, at most, on this machine. `None`: no limit.
    pub bytes_per_s: Option<u64>,
}

/// How often a question is repeated: the other side may turn out to lack an option, and rsync breaks off if a file that it
/// compares vanishes.
const ROUNDS_MAX: u32 = 8;

/// How often, and after which pause, a server that has no connection left is asked again.
const BUSY_PAUSES: u32 = 240;
const BUSY_PAUSE: Duration = Duration::from_millis(250);

/// A comparison with one target.
pub struct Comparison<'a> {
    ctx: &'a TargetContext,
    checksum: bool,
    limit: ReadLimit,
    stop: &'a StopSignal,
    is_wanted: &'a dyn Fn() -> bool,
    /// Why the last run broke off, if any did, and how many have broken off.
    broken: Option<TargetTrouble>,
    breaks: u32,
}

impl fmt::Debug for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ctx, checksum, limit, stop: _, is_wanted: _, broken: _, breaks: _ } = self;
        f.debug_struct("Comparison")
            .field("ctx", ctx)
            .field("checksum", checksum)
            .field("limit", limit)
            .finish_non_exhaustive()
    }
}

impl<'a> Comparison<'a> {
    /// A comparison that ends early when `is_wanted` returns false.
    pub(crate) fn new(
        ctx: &'a TargetContext,
        look: Look,
        stop: &'a StopSignal,
        is_wanted: &'a dyn Fn() -> bool,
    ) -> Self {
        Self {
            ctx,
            checksum: look.checksum,
            limit: ReadLimit::new(look.bytes_per_s),
            stop,
            is_wanted,
            broken: None,
            breaks: 0,
        }
    }

    /// Finds what differs at `path` and below, in rsync's order. The error: the target cannot be compared at present.
    pub fn below(&mut self, path: &RelPath) -> Result<Found<'a>, TargetTrouble> {
        let spool_dir = Path::new(&self.ctx.program.owner);
        let absent = self.ctx.mounts.missing();
        let absent = absent.iter().filter(|place| place.covers(path) || path.covers(place));
        let mut unreadable: BTreeMap<RelPath, JobError> = absent.map(|place| (place.clone(), not_mounted())).collect();
        let mut skip = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let mut spool = Spool::in_dir(spool_dir).map_err(|error| cannot_keep(spool_dir, &error))?;
            // There is no run at all if the path is gone and deletions are not mirrored.
            let runs = self.plan(std::slice::from_ref(path), Scope::Subtree, Origin::Reconcile);
            let mut again = false;
            for run in runs {
                let run = Run { skip: skip.clone(), ..run };
                match self.ask(&run, &[], &mut |bytes| spool.push(bytes))? {
                    Asked::Told(more) => unreadable.extend(more),
                    Asked::Without(paths) => {
                        skip = paths.to_skip(&run).unwrap_or_default();
                        unreadable.extend(errors(paths.found));
                        again = true;
                    }
                    Asked::Blocked(path, error) => {
                        skip.push(path.clone());
                        unreadable.insert(path, error);
                        again = true;
                    }
                    Asked::Again => again = true,
                }
            }
            if again {
                continue;
            }
            let is_cut = spool.is_cut();
            let filter = self.ctx.filter.has_expressions().then(|| Filtered::new(self.ctx));
            let lines = spool.lines().map_err(|error| cannot_keep(spool_dir, &error))?;
            let found = Found { lines, unreadable: unreadable.into_iter(), filter, is_cut };
            return found.prepared().map_err(|error| cannot_keep(spool_dir, &error));
        }
        Err(self.gave_up())
    }

    /// Looks at single paths again, without what is below them. Returns those that still differ, by path.
    pub fn again(&mut self, paths: &[RelPath]) -> Result<BTreeMap<RelPath, Differs>, TargetTrouble> {
        for _ in 0..ROUNDS_MAX {
            if let Some(found) = self.flat(paths)? {
                return Ok(found);
            }
        }
        Err(self.gave_up())
    }

    /// Whether the contents of a directory cannot be read: the directory is closed to syncq, or its file system is not
    /// mounted.
    pub fn is_out_of_reach(&self, directory: &RelPath) -> bool {
        let is_absent = || self.ctx.mounts.missing().iter().any(|place| place.covers(directory));
        let is_closed =
            |error: io::Error| !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        is_absent() || std::fs::read_dir(directory.under(&self.ctx.root)).is_err_and(is_closed)
    }

    /// The bytes that rsync has read on this machine.
    pub fn bytes_read(&self) -> u64 {
        self.limit.read()
    }

    fn flat(&mut self, paths: &[RelPath]) -> Result<Option<BTreeMap<RelPath, Differs>>, TargetTrouble> {
        let asked: BTreeSet<&RelPath> = paths.iter().collect();
        let mut found = BTreeMap::new();
        let runs = self.plan(paths, Scope::Entry, Origin::Scan);
        for run in &runs {
            let mut take = Cut::new(|line| {
                if let Some(difference) = read(line).filter(|difference| asked.contains(&difference.path)) {
                    found.insert(difference.path, difference.what);
                }
            });
            match self.ask(run, &[], &mut |bytes| take.push(bytes))? {
                Asked::Again | Asked::Without(_) | Asked::Blocked(..) => return Ok(None),
                Asked::Told(unreadable) => {
                    let differs = unreadable.into_iter().filter(|(path, _)| asked.contains(path));
                    found.extend(differs.map(|(path, error)| (path, Differs::Unreadable(error))));
                }
            }
        }
        // rsync shows a thing that replaces one of another kind as new. With --existing rsync still shows those things, but
        // no paths that the target lacks.
        let is_new = |what: &Differs| *what == Differs::Missing;
        let missing: Vec<RelPath> =
            found.iter().filter(|(_, what)| is_new(what)).map(|(path, _)| path.clone()).collect();
        let runs = self.plan(&missing, Scope::Entry, Origin::Scan);
        for run in &runs {
            let mut take = Cut::new(|line| {
                let Some(Difference { path, what: Differs::Missing }) = read(line) else { return };
                found.entry(path).and_modify(|what| *what = Differs::Type);
            });
            if matches!(self.ask(run, &["--existing"], &mut |bytes| take.push(bytes))?, Asked::Again) {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    fn plan(&self, paths: &[RelPath], scope: Scope, origin: Origin) -> Vec<Run> {
        let mut source = Source::new(&self.ctx.root);
        let tops: BTreeSet<RelPath> = paths.iter().map(|path| topmost(path, &mut |path| source.look(path)).0).collect();
        let job = |path: RelPath| ClaimedJob {
            path,
            scope,
            origin,
            generation: Generation::FIRST,
            since: Timestamp::ZERO,
            moved_from: None,
            several_names: None,
            is_new: false,
            is_safety_rerun: false,
        };
        let jobs: Vec<ClaimedJob> = tops.into_iter().map(job).collect();
        let all: Vec<usize> = (0..jobs.len()).collect();
        let limits = Limits { large_file_bytes: u64::MAX, bytes_max: u64::MAX };
        let looks = self.ctx.target.options.params.selects();
        let deletion = match self.ctx.capabilities.deletion(self.ctx.target.options.delete) {
            Deletion::ByLevel if looks => Deletion::ByName,
            deletion => deletion,
        };
        let runs = plan(&jobs, &all, Lane::Large, limits, deletion, &mut |path| source.look(path)).runs;
        runs.into_iter().flat_map(|run| narrow::pieces(Run { looks, ..run })).collect()
    }

    /// Has rsync tell what `run` would do.
    fn ask(
        &mut self,
        run: &Run,
        more: &[&str],
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Asked, TargetTrouble> {
        let Self { ctx, stop, is_wanted, .. } = *self;
        ctx.check()?;
        let run = &*narrow::prepared(run, &ctx.root);
        let rules = ctx.filter.rsync_rules();
        let mode = Mode { contents: true, ..ctx.mode(Lane::Large, Pass::Show, &rules) };
        // A place whose file system is not mounted cannot be compared.
        let skip = run.skip.iter().cloned().chain(ctx.mounts.missing()).collect();
        let run = &Run { skip, ..run.clone() };
        let mut args = arguments(&ctx.target, run, mode);
        // Further options go in front of source and destination.
        let end = args.len().saturating_sub(2);
        let checksum = self.checksum.then_some("--checksum");
        args.splice(end..end, more.iter().copied().chain(checksum).map(Into::into));
        let command = pasteable(&ctx.root, &args, run);
        log::debug!("execute command: {command}");
        let mut pauses = BUSY_PAUSES;
        let deletions_skipped = Cell::new(false);
        let mut words = Cut::new(|line| deletions_skipped.set(deletions_skipped.get() || skips_deletions(line)));
        let each = &mut |bytes: &[u8]| words.push(bytes).and_then(|()| each(bytes));
        let outcome = loop {
            let background = Background { limit: &mut self.limit, is_wanted };
            let ended = run_in_background(&ctx.program, &ctx.root, &args, &list(run), each, stop, background)
                .map_err(|error| could_not(ctx, &error.to_string()))?;
            match classify(&ended, run, &ctx.prefixes, &ctx.noise) {
                // The server's connections are for mirroring first.
                Outcome::Target(TargetTrouble { class: TroubleClass::Busy, .. }) if pauses > 0 && is_wanted() => {
                    pauses -= 1;
                    if let Some(standby) = &ctx.standby {
                        standby.make_room();
                    }
                    stop.rest(BUSY_PAUSE);
                }
                outcome => break outcome,
            }
        };
        match outcome {
            Outcome::Done => Ok(Asked::Told(BTreeMap::new())),
            Outcome::Paths(mut paths) => {
                let failed =
                    paths.failed.iter().filter_map(|(at, error)| Some((run.entries.get(*at)?.path.clone(), error)));
                let undone = |error: &JobError| Undone { error: error.clone(), extent: Extent::Below };
                paths.found.extend(failed.map(|(path, error)| (path, undone(error))).collect::<Vec<_>>());
                paths.deletions_skipped |= deletions_skipped.get();
                if paths.to_skip(run).is_some() {
                    return Ok(Asked::Without(paths));
                }
                if let Some(error) = paths.unattributed {
                    return Err(TargetTrouble { command: Some(command), ..could_not(ctx, &error.message) });
                }
                Ok(Asked::Told(errors(paths.found).collect()))
            }
            Outcome::Fallback(fallback) if ctx.capabilities.learn(fallback) => Ok(Asked::Again),
            Outcome::Fallback(_) => Err(self.gave_up()),
            Outcome::Split(found) => {
                self.broken = Some(TargetTrouble { command: Some(command), ..found });
                // Each pause is longer than the one before, so that a storm of changes may pass.
                self.breaks += 1;
                stop.rest(BUSY_PAUSE * self.breaks.min(ROUNDS_MAX));
                Ok(Asked::Again)
            }
            Outcome::Target(found) | Outcome::NoRoom { trouble: found, .. } => {
                Err(TargetTrouble { command: Some(command), ..found })
            }
            Outcome::Blocked(Some(path), error) if !run.skip.contains(&path) => Ok(Asked::Blocked(path, error)),
            Outcome::Blocked(_, error) => {
                Err(TargetTrouble { command: Some(command), ..could_not(ctx, &error.message) })
            }
            Outcome::Void => Err(could_not(ctx, "it was broken off")),
        }
    }

    fn gave_up(&self) -> TargetTrouble {
        let broken = self.broken.clone();
        broken.unwrap_or_else(|| could_not(self.ctx, "the target lacks an option that is needed"))
    }
}

fn errors(found: BTreeMap<RelPath, Undone>) -> impl Iterator<Item = (RelPath, JobError)> {
    found.into_iter().map(|(path, undone)| (path, undone.error))
}

/// The answer to a question.
enum Asked {
    /// Everything was told, except for these paths, which cannot be read.
    Told(BTreeMap<RelPath, JobError>),
    /// Paths that only the target has were not told, because some paths at the source cannot be read.
    Without(Paths),
    /// A read of this path does not return. The question can be repeated without the path.
    Blocked(RelPath, JobError),
    /// The question can be repeated as it is: the target lacks an option, which is now known, or the run broke off.
    Again,
}

/// The result of a comparison.
#[derive(Debug)]
pub struct Found<'a> {
    lines: Lines,
    unreadable: std::collections::btree_map::IntoIter<RelPath, JobError>,
    filter: Option<Filtered<'a>>,
    is_cut: bool,
}

impl Found<'_> {
    /// Whether more differs than could be kept.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The next differences, at most `limit`; empty at the end.
    pub fn next(&mut self, limit: usize) -> Result<Vec<Difference>, TargetTrouble> {
        let mut chunk = Vec::new();
        let mut line = Vec::new();
        if let Some(filter) = &mut self.filter {
            // Forget what the source was seen to hold for the chunk before.
            filter.source = filter.ctx.source_as_rsync_finds_it();
        }
        while chunk.len() < limit {
            if !self.lines.next_into(&mut line).map_err(|error| cannot_keep(Path::new("the spool"), &error))? {
                let rest = self.unreadable.by_ref().take(limit - chunk.len());
                chunk.extend(rest.map(|(path, error)| Difference { path, what: Differs::Unreadable(error) }));
                break;
            }
            let is_directory = line.ends_with(b"/");
            let Some(difference) = read(&line) else { continue };
            if self.filter.as_mut().is_none_or(|filter| filter.mirrors(&difference, is_directory)) {
                chunk.push(difference);
            }
        }
        Ok(chunk)
    }

    /// Finds the directories on the target that stay because they hold something excluded.
    fn prepared(mut self) -> io::Result<Self> {
        let Some(filter) = &mut self.filter else { return Ok(self) };
        let mut line = Vec::new();
        while self.lines.next_into(&mut line)? {
            let kind = if line.ends_with(b"/") { Kind::Directory } else { Kind::File };
            let extra = read(&line).filter(|difference| difference.what == Differs::Extra);
            if let Some(kept) = extra.filter(|difference| filter.filter.spares(&difference.path, kind)) {
                filter.staying.extend(kept.path.ancestors());
            }
        }
        self.lines.rewind()?;
        Ok(self)
    }
}

/// Applies the user's expressions, which rsync does not know.
#[derive(Debug)]
struct Filtered<'a> {
    ctx: &'a TargetContext,
    filter: &'a Filter,
    source: Source,
    /// Directories on the target that hold something excluded.
    staying: BTreeSet<RelPath>,
}

impl<'a> Filtered<'a> {
    fn new(ctx: &'a TargetContext) -> Self {
        Self { ctx, filter: &ctx.filter, source: ctx.source_as_rsync_finds_it(), staying: BTreeSet::new() }
    }

    fn mirrors(&mut self, difference: &Difference, is_directory: bool) -> bool {
        let path = &difference.path;
        if difference.what == Differs::Extra {
            let kind = if is_directory { Kind::Directory } else { Kind::File };
            return !self.filter.excludes(path, kind) && !self.staying.contains(path);
        }
        let kind = match self.source.look(path) {
            Presence::Directory => Kind::Directory,
            Presence::File { .. } | Presence::Other | Presence::Unknown(_) => Kind::File,
            // The path has gone since the dry run; the watcher gets an event for that.
            Presence::Missing => return false,
        };
        !self.filter.excludes(path, kind)
    }
}

/// Divides output into lines.
struct Cut<F> {
    rest: Vec<u8>,
    each: F,
}

impl<F: FnMut(&[u8])> Cut<F> {
    fn new(each: F) -> Self {
        Self { rest: Vec::new(), each }
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            self.rest.extend_from_slice(piece);
            if let Some(line) = self.rest.strip_suffix(b"\n") {
                (self.each)(line);
                self.rest.clear();
            }
        }
        Ok(())
    }
}

fn could_not(ctx: &TargetContext, why: &str) -> TargetTrouble {
    let what = format!("rsync could not compare {}", ctx.root.display());
    trouble(TroubleClass::Unavailable, None, &what, why, "look at the daemon's log, and try again")
}

fn cannot_keep(dir: &Path, error: &io::Error) -> TargetTrouble {
    let what = "what differs cannot be kept on disk";
    let said = format!("{}: {error}", dir.display());
    trouble(TroubleClass::Unavailable, None, what, &said, "make room in the state directory")
}

#[cfg(test)]
mod tests;
