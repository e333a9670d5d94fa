//! Carries one run through: reads how it ended and settles its jobs. Where that is not enough, it verifies, or tells which
//! other work the jobs need.
//!
//! Deliberately absent: which runs a batch needs and in which order they come (`execute`), and how many deletions a run may
//! make (`deletions`).

use std::collections::{BTreeMap, BTreeSet};

use super::session::{Execution, Flow};
use super::short_list;
use super::work::{Next, Work};
use crate::mirror::outcome::classify::{Outcome, Paths, Undone};
use crate::mirror::plan::arguments::{Pass, is_too_long};
use crate::mirror::plan::contents;
use crate::mirror::plan::narrow;
use crate::mirror::plan::run::{Deletion, Entry, Run, RunKind};
use crate::mirror::plan::source::{Presence, Source};
use crate::mirror::rsync::blocked;
use crate::mirror::rsync::ended::{Cut, End, Ended};
use crate::mirror::rsync::itemize::{self, difference, full_directory, to_path};
use crate::mirror::rsync::messages::Extent;
use crate::mirror::target::launch::probe;
use crate::model::{Found, JobError, Origin, RelPath, TargetTrouble, Verdict};

/// A file larger than this may fail for lack of room while the target still takes others.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// At most this many large files are left out of one comparison, one after the other; with more the target counts as full.
const LEFT_OUT_MAX: usize = 16;

impl Execution<'_> {
    /// Begins a run: with a short list if the run has one, else in as many pieces as its rules ask for.
    pub(super) fn begin(&mut self, run: Run) -> Next {
        if short_list::attempt(self, &run)? {
            return Ok(Vec::new());
        }
        let pieces = narrow::pieces(Run { looks: run.looks || self.selects(), ..run });
        self.allow_more(pieces.len().saturating_sub(1));
        Ok(pieces.into_iter().map(Work::Piece).collect())
    }

    /// Runs one rsync for `run` and settles its jobs, or tells which other work they need: both halves of the run, where
    /// one path makes all of it fail.
    pub(super) fn carry_through(&mut self, mut run: Run) -> Next {
        if run.entries.is_empty() {
            return Ok(Vec::new());
        }
        if is_too_long(&run) {
            self.allow_more(1);
            return Ok(Work::halves(run));
        }
        let (ended, command) = self.start(&run, Pass::Real).ok_or(Flow::Halt)?;
        let mut outcome = self.understood(&run, &ended);
        self.note_changed(&run, &ended, &outcome);
        if let Some(more) = self.go_on(&run, &ended)? {
            return Ok(more);
        }
        let stuck = self.take_stuck(&mut run, &ended, &mut outcome);
        let more = match outcome {
            Outcome::Done => {
                self.note_equal(&run, &ended);
                self.settle_rest(&run, &Paths::default());
                Vec::new()
            }
            Outcome::Paths(paths) => self.partial(run, paths, command)?,
            Outcome::Target(found) => return Err(self.halt(found, command)),
            Outcome::Split(found) => self.split(run, ended.cut, found, command)?,
            Outcome::NoRoom { entry, below, trouble } => {
                let other = self.sparing(&run).or_else(|| self.without(&run, &below?, &trouble, &command));
                let Some(other) = other else { return Err(self.no_room(&run, entry, trouble, command)) };
                self.allow_more(1);
                vec![Work::Piece(other)]
            }
            Outcome::Fallback(fallback) => return Err(self.fall_back(fallback, command, &ended)),
            Outcome::Blocked(path, error) => {
                self.blocked(run, ended.cut, path, error, command).into_iter().map(Work::Piece).collect()
            }
            Outcome::Void => return Err(Flow::Halt),
        };
        let first = match stuck {
            Some(run) if run.is_judged || !self.ctx.filter.has_expressions() => {
                vec![Work::Run(Run { looks: true, ..run })]
            }
            Some(run) => Work::filtered(run),
            None => Vec::new(),
        };
        Ok(first.into_iter().chain(more).collect())
    }

    /// Moves the deletions that a successful run could not make out of `run` and into a run of their own.
    ///
    /// Under the filter's expressions a directory with something in it stays until the expressions have been asked about
    /// its contents. A directory without write permission is made writable by rsync only in a run that compares.
    fn take_stuck(&self, run: &mut Run, ended: &Ended, outcome: &mut Outcome) -> Option<Run> {
        let none = Paths::default();
        let failed = match &*outcome {
            Outcome::Done => &none,
            Outcome::Paths(paths) => paths,
            _ => return None,
        };
        let empties = self.empties(run);
        let (full, unsure) = if empties { (BTreeSet::new(), false) } else { full_directories(ended) };
        let is_stuck = |at: usize| {
            run.entries.get(at).is_some_and(|entry| match entry.presence {
                Presence::Directory | Presence::Unknown(_) => false,
                Presence::Missing => {
                    full.contains(&entry.path) || unsure || (failed.denied.contains(&at) && (!empties || !run.looks))
                }
                Presence::File { .. } | Presence::Other => full.contains(&entry.path),
            })
        };
        let stuck: BTreeSet<usize> = (0..run.entries.len()).filter(|&at| is_stuck(at)).collect();
        let deletes = matches!(self.deletion(), Deletion::ByName | Deletion::ByLevel);
        if stuck.is_empty() || run.compares() || !deletes {
            return None;
        }
        if let Outcome::Paths(paths) = outcome {
            paths.failed.retain(|at, _| !stuck.contains(at));
            paths.denied.retain(|at| !stuck.contains(at));
            if *paths == none {
                *outcome = Outcome::Done;
            }
        }
        let (apart, _) = run.clone().parted(|at| stuck.contains(&at));
        let apart = Run { kind: RunKind::Flat, with_contents: BTreeSet::new(), ..apart };
        for (_, entry) in run.entries.iter_mut().enumerate().filter(|(at, _)| stuck.contains(at)) {
            entry.jobs.clear();
        }
        Some(apart)
    }

    /// Some paths failed. The rest is done, if rsync said enough to tell which.
    fn partial(&mut self, run: Run, mut paths: Paths, command: String) -> Next {
        let below = paths.found.values().map(|undone| &undone.error);
        let failures = paths.failed.values().chain(below).chain(paths.unattributed.as_ref());
        let message = failures.map(|error| error.message.clone()).next();
        if let Some(message) = message {
            self.note(command, message);
        }
        self.ctx.note_refused(&paths.refused);
        if let Some(error) = paths.unattributed.take() {
            // Messages with exit code 0 are no failure yet.
            if run.entries.len() == 1 && error.code != Some(0) {
                paths.failed.entry(0).or_insert(error);
            } else {
                match self.verify(&run)? {
                    Some(differing) => {
                        for at in differing {
                            paths.failed.entry(at).or_insert_with(|| error.clone());
                        }
                    }
                    None if run.entries.len() == 1 => {
                        paths.failed.entry(0).or_insert(error);
                    }
                    None => return Ok(Work::halves(run)),
                }
            }
        }
        self.found(&run, std::mem::take(&mut paths.found));
        if let Some(skip) = paths.to_skip(&run) {
            return Ok(vec![Work::Piece(Run { skip, ..run })]);
        }
        if paths.deletions_skipped && !paths.failed.is_empty() && paths.failed.len() < run.entries.len() {
            // rsync skips all deletions if it cannot read one listed path. A run without that path makes the deletions for
            // the others.
            let (guilty, others) = run.parted(|at| paths.failed.contains_key(&at));
            let failed = paths.failed.into_values().enumerate().collect();
            self.settle_rest(&guilty, &Paths { failed, ..Paths::default() });
            return Ok(vec![Work::Piece(others)]);
        }
        self.settle_rest(&run, &paths);
        Ok(Vec::new())
    }

    /// Asks rsync which entries still differ. `Ok(None)`: rsync cannot tell.
    fn verify(&mut self, run: &Run) -> Result<Option<BTreeSet<usize>>, Flow> {
        // A path that rsync skips without a message is not named as a difference either. So a run of single entries is
        // asked to name the entries that are equal, and an entry that is not named counts as differing.
        let pass = if run.lists() { Pass::Show } else { Pass::Confirm };
        let (ended, _) = self.start(run, pass).ok_or(Flow::Halt)?;
        if ended.end == End::Stopped {
            return Err(Flow::Halt);
        }
        let said = match self.understood(run, &ended) {
            Outcome::Done => Paths::default(),
            Outcome::Paths(paths) => paths,
            _ => return Ok(None),
        };
        let cannot_tell = ended.stdout.is_cut() || !said.found.is_empty();
        if cannot_tell || (said.unattributed.is_some() && run.lists()) {
            return Ok(None);
        }
        let output = ended.stdout.bytes();
        let names = |of: fn(&[u8]) -> Option<Vec<u8>>| -> BTreeSet<RelPath> {
            let names = output.split(|&b| b == b'\n').filter_map(of);
            names.filter_map(|name| to_path(&name)).collect()
        };
        let differing = names(|line| difference(line).map(|(name, _)| name));
        let equal = names(itemize::equal);
        let differs = |at: &usize| {
            let Some(entry) = run.entries.get(*at) else { return false };
            let is_there = matches!(entry.presence, Presence::File { .. } | Presence::Directory);
            let is_unnamed = said.unattributed.is_some() && is_there && !equal.contains(&entry.path);
            said.failed.contains_key(at)
                || said.vanished.contains(at)
                || (is_unnamed && !said.refuses(&entry.path))
                || differing.iter().any(|path| run.reaches(entry, path))
        };
        let differing: BTreeSet<usize> = (0..run.entries.len()).filter(differs).collect();
        if differing.is_empty() && said.unknown_words {
            // All entries are equal although the run printed a message, so the message is noise of this target.
            self.ctx.noise.learn(&ended.stderr.bytes());
        }
        Ok(Some(differing))
    }

    /// Settles a run that hung in a file: that file fails alone. Returns what is left to be run: all other entries, or both
    /// halves of the run if it is not known in which path it hung.
    pub(crate) fn blocked(
        &mut self,
        run: Run,
        cut: Cut,
        path: Option<RelPath>,
        error: JobError,
        command: String,
    ) -> Vec<Run> {
        // The receiver of the run may still be writing what the connection held.
        self.note_cut(cut);
        self.note(command, error.message.clone());
        let is_suspect = |entry: &Entry| blocked::suspicion(&entry.path.under(&self.ctx.root)).is_some();
        let named = match &path {
            Some(path) => run.entries.iter().position(|entry| entry.path == *path),
            None if run.entries.len() > 1 => run.entries.iter().position(is_suspect),
            None => None,
        };
        let is_within = |path: &RelPath| run.entries.iter().any(|entry| run.reaches(entry, path));
        match (named, path) {
            (Some(at), _) => {
                let (guilty, others) = run.parted(|entry| entry == at);
                self.settle_rest(&guilty, &Paths { failed: BTreeMap::from([(0, error)]), ..Paths::default() });
                vec![others]
            }
            (None, Some(path)) if is_within(&path) && !run.skip.contains(&path) => {
                self.report.found.push(Found::entry(path.clone(), error));
                let skip = run.skip.iter().cloned().chain([path]).collect();
                vec![Run { skip, ..run }]
            }
            (None, _) if run.entries.len() > 1 => {
                let (first, second) = run.halves();
                vec![first, second]
            }
            (None, _) => {
                let failed = (0..run.entries.len()).map(|at| (at, error.clone())).collect();
                self.settle_rest(&run, &Paths { failed, ..Paths::default() });
                Vec::new()
            }
        }
    }

    /// The run died. If a probe finds the target well, one path is to blame: a single path fails, among several the guilty
    /// one is searched for by halving.
    fn split(&mut self, run: Run, cut: Cut, found: TargetTrouble, command: String) -> Next {
        self.report.runs += 1;
        if let Err(trouble) = probe(self.ctx, self.stop) {
            return Err(self.halt(trouble, command));
        }
        if self.is_stopped() {
            // The probe was ended by the stop, so its end says nothing about the target.
            return Err(Flow::Halt);
        }
        // The receiver of the run may still be writing what the connection held.
        self.note_cut(cut);
        self.note(command, found.message.clone());
        if let [only] = run.entries.as_slice() {
            let error = JobError::new(found.code, found.message);
            for &job in &only.jobs {
                self.settle(job, Verdict::Failed(error.clone()));
            }
            if only.jobs.is_empty() {
                self.found_entry(only, error);
            }
            return Ok(Vec::new());
        }
        Ok(Work::halves(run))
    }

    /// A run that sends everything needs room for a copy of each file, also of those that are equal. This is the same run
    /// with contents compared, which needs room only for files that differ.
    fn sparing(&self, run: &Run) -> Option<Run> {
        let sends_all = run.origin >= Origin::Write
            && self.ctx.capabilities.compares_contents()
            && !contents::are_few(&self.ctx.root, run);
        sends_all.then(|| Run { by_content: true, ..run.clone() })
    }

    /// The comparison `run` without the file `large`, for which the target has no room. The file becomes a failure of its
    /// own. If it were the target's trouble, the next try would end at the same file, and nothing else in its directory
    /// would ever arrive or be deleted.
    fn without(&mut self, run: &Run, large: &RelPath, trouble: &TargetTrouble, command: &str) -> Option<Run> {
        let presence = Source::new(&self.ctx.root).look(large);
        let is_large = matches!(presence, Presence::File { size } if size > SMALL_BYTES_MAX);
        if !is_large || run.skip.len() >= LEFT_OUT_MAX || run.skip.contains(large) {
            return None;
        }
        let error = JobError::new(trouble.code, trouble.message.clone());
        self.note(command.to_owned(), trouble.message.clone());
        self.found(run, BTreeMap::from([(large.clone(), Undone { error, extent: Extent::Alone })]));
        let skip = run.skip.iter().chain([large]).cloned().collect();
        Some(Run { skip, ..run.clone() })
    }

    /// A large file may be too large for a target that has room for others. If a small file does not fit, the target is
    /// full.
    fn no_room(&mut self, run: &Run, entry: Option<usize>, trouble: TargetTrouble, command: String) -> Flow {
        let guilty = match (entry, run.entries.as_slice()) {
            (None, [only]) => Some(only),
            (Some(at), entries) => entries.get(at),
            (None, _) => None,
        };
        let Some(guilty) =
            guilty.filter(|entry| matches!(entry.presence, Presence::File { size } if size > SMALL_BYTES_MAX && !entry.jobs.is_empty()))
        else {
            return self.halt(trouble, command);
        };
        for &job in &guilty.jobs {
            self.settle(job, Verdict::Failed(JobError::new(trouble.code, trouble.message.clone())));
        }
        self.note(command, trouble.message);
        Flow::Halt
    }

    /// The run that deletes `entries`, which are missing in the source and about which the filter has been asked.
    pub(crate) fn removal(&self, entries: Vec<Entry>) -> Run {
        let mut source = Source::new(&self.ctx.root);
        let deletion = if self.selects() { Deletion::ByName } else { self.deletion() };
        let run = Run::deletion(deletion, entries, &mut |path| source.look(path));
        Run { is_judged: true, ..run }
    }
}

/// The directories that a run has left alone because they are not empty, and whether there may be more of them.
fn full_directories(ended: &Ended) -> (BTreeSet<RelPath>, bool) {
    let said = [ended.stdout.bytes(), ended.stderr.bytes()];
    let names = said.iter().flat_map(|said| said.split(|&b| b == b'\n')).filter_map(full_directory);
    (names.filter_map(|name| to_path(&name)).collect(), ended.stdout.is_cut())
}
