//! Mirrors what was moved within the tree without sending its data again. The data is taken from what the target still has
//! under the old name, in a run of its own, before the batch's other runs and before the old name is deleted.
//!
//! - A directory: rsync is rooted in the new directory and may hard-link from the old one (`--link-dest`) where its quick
//!   check finds files equal. The quick check can be trusted here, since the queue passes on where a directory came from
//!   only if nothing else was going on in either place. Both names would then share their files, so the old one is deleted
//!   next. If the deletion fails, the normal run of the new name, which distrusts everything, makes new files of its own.
//! - A large file under the same name in another directory: rsync compares it with the old file (`--link-dest` and
//!   `--ignore-times`: nothing is linked, nothing trusted).
//! - A large file under another name in the same directory: `--fuzzy` finds the old file.
//!
//! Such a run begins in a directory of the target that rsync enters by name, following links. So another run, which begins
//! at the root like all others, first makes sure that this name is a directory.
//!
//! If anything goes wrong, the batch goes on as if nothing had been tried: the job is still to be done. Only a run that was
//! cut off ends the batch, since its receiver may still be writing.
//!
//! Not handled: a single file that changes its directory and its name in one move, since neither `--link-dest` nor
//! `--fuzzy` would find the old copy; and targets on which nothing is deleted.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{Metadata, ReadDir};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::session::{Execution, Flow};
use crate::filter::{Filter, Kind};
use crate::mirror::outcome::classify::{Outcome, Paths};
use crate::mirror::outcome::diagnosis::Fallback;
use crate::mirror::plan::arguments::{Mode, Pass, arguments, connection, exactness, is_plain, joined, list};
use crate::mirror::plan::run::{Deletion, Entry, Run, RunKind};
use crate::mirror::plan::source::{Presence, Source};
use crate::mirror::rsync::ended::{End, Ended};
use crate::mirror::target::observer::{Changed, Operation};
use crate::model::{ClaimedJob, Destination, Origin, RelPath, Scope, Target, TroubleClass, Verdict};

/// Less data than this is sent sooner than taken over. Each file of a directory counts with its size plus
/// `FILE_COSTS_BYTES`, what a file costs whatever its size.
const BYTES_MIN: u64 = 1 << 20;
const FILE_COSTS_BYTES: u64 = 256;

/// How many moves of a batch are taken over: each costs a run or two. Further moves go the normal way, many in one run.
const MOVED_MAX: usize = 8;

/// How the content of a new name is taken over from the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A directory, by hard links.
    Tree,
    /// A file of the same name in another directory, by comparison with the old file.
    SameName,
    /// A file of another name in the same directory, by comparison with the old file.
    SameDirectory,
}

/// A path that was moved, and how its content can be taken over.
pub(super) struct Moved<'a> {
    way: Way,
    /// The jobs of the new and the old name, each with its index in the batch.
    new: (usize, &'a ClaimedJob),
    old: (usize, &'a ClaimedJob),
}

/// The moves in a batch that are worth taking over. Empty unless a run has made sure that rsync may enter their
/// directories.
pub(super) fn find<'a>(batch: &mut Execution<'a>) -> Result<Vec<Moved<'a>>, Flow> {
    let jobs = batch.jobs;
    let moved: Vec<(usize, usize)> = jobs
        .iter()
        .enumerate()
        .filter_map(|(at, job)| {
            let old = job.moved_from.as_ref()?;
            Some((at, jobs.iter().position(|job| job.path == *old)?))
        })
        .collect();
    if moved.is_empty() || !batch.vouches() || !is_possible(batch) {
        return Ok(Vec::new());
    }
    let root = &batch.ctx.root;
    let mut source = Source::new(root);
    let worthy = moved.into_iter().take(MOVED_MAX).filter_map(|(new, old)| {
        let (new_job, old_job) = (jobs.get(new)?, jobs.get(old)?);
        let way = way(new_job, &old_job.path, &mut source)?;
        let is_worth_it = way != Way::Tree || holds_much(root, &new_job.path, &batch.ctx.filter);
        is_worth_it.then_some(Moved { way, new: (new, new_job), old: (old, old_job) })
    });
    let worthy: Vec<Moved<'_>> = worthy.collect();
    let places = worthy.iter().flat_map(|moved| entered(moved.way, &moved.new.1.path, &moved.old.1.path));
    Ok(if make_sure(batch, places.collect())? { worthy } else { Vec::new() })
}

/// The directories on the target that a run for a move enters by name, following links, instead of reaching them by its
/// list.
fn entered(way: Way, new: &RelPath, old: &RelPath) -> Vec<RelPath> {
    let places = match way {
        Way::Tree => [Some(new.clone()), old.parent()],
        Way::SameName => [new.parent(), old.parent()],
        // A run with `--fuzzy` begins at the root.
        Way::SameDirectory => [None, None],
    };
    places.into_iter().flatten().filter(|place| !place.is_root()).collect()
}

/// Makes sure that `places` and all above them are directories on the target. A run that begins at a link would write and
/// delete where the link leads. `Ok(false)`: this could not be made sure.
///
/// On this machine a look at the target tells. Elsewhere a run from the root lists the places and so makes them directories
/// like at the source, at the price of a connection. The queue lets no other run in flight change the places meanwhile.
fn make_sure(batch: &mut Execution<'_>, places: BTreeSet<RelPath>) -> Result<bool, Flow> {
    if places.is_empty() {
        return Ok(true);
    }
    if let Destination::Local(root) = &batch.ctx.target.destination {
        return Ok(places.iter().all(|place| is_directory_all_the_way(root, place)));
    }
    let entry = |path: RelPath| Entry { path, presence: Presence::Directory, orphan: false, jobs: Vec::new() };
    let run = Run::new(RunKind::Flat, Origin::Scan, places.into_iter().map(entry).collect());
    let (ended, command) = batch.start(&run, Pass::Real).ok_or(Flow::Halt)?;
    match batch.meaning(&run, &ended) {
        Outcome::Done => Ok(true),
        Outcome::Void => Err(Flow::Halt),
        Outcome::Target(found) => Err(batch.halt(found, command)),
        Outcome::Split(_) | Outcome::Blocked(..) => {
            batch.note_cut(ended.cut);
            Ok(false)
        }
        Outcome::Paths(_) | Outcome::NoRoom { .. } | Outcome::Fallback(_) => Ok(false),
    }
}

/// Whether neither a link nor a file stands at `path` below `root`, nor above it. rsync makes directories that are missing.
fn is_directory_all_the_way(root: &Path, path: &RelPath) -> bool {
    let mut all = path.ancestors().chain([path.clone()]).filter(|path| !path.is_root());
    all.all(|path| match std::fs::symlink_metadata(path.under(root)) {
        Ok(found) => found.is_dir(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    })
}

/// Whether the target and its parameters allow taking over: the old name is deleted, no option of the user's means
/// something else in a run that begins below the root, and none has rsync write into files that may have two names.
fn is_possible(batch: &Execution<'_>) -> bool {
    let ctx = batch.ctx;
    matches!(batch.deletion(), Deletion::ByName | Deletion::ByLevel)
        && !ctx.filter.has_expressions()
        && ctx.target.options.params.are_same_elsewhere()
}

/// How the content of the job's path can be taken over, judged by what stands at both paths. `None`: not at all.
fn way(job: &ClaimedJob, old: &RelPath, source: &mut Source) -> Option<Way> {
    let new = &job.path;
    match (job.scope, source.look(new)) {
        (Scope::Subtree, Presence::Directory) => {
            // If something new has come to the old name, it may not share files with the new name.
            let is_gone = source.look(old) == Presence::Missing;
            let is_topmost = old.parent().is_some_and(|parent| source.look(&parent) == Presence::Directory);
            (is_gone && is_topmost).then_some(Way::Tree)
        }
        (Scope::Entry, Presence::File { size }) if size >= BYTES_MIN => {
            if new.parent() == old.parent() {
                Some(Way::SameDirectory)
            } else {
                (new.name() == old.name()).then_some(Way::SameName)
            }
        }
        _ => None,
    }
}

/// Whether taking over the files below a directory saves more than it costs. Reads no further than needed to know.
fn holds_much(root: &Path, dir: &RelPath, filter: &Filter) -> bool {
    let mut bytes: u64 = 0;
    below(root, dir, filter).any(|(_, found)| {
        bytes += FILE_COSTS_BYTES + if found.is_file() { found.len() } else { 0 };
        bytes >= BYTES_MIN
    })
}

/// The mirrored paths below a directory of the source.
fn below<'a>(root: &Path, dir: &RelPath, filter: &'a Filter) -> impl Iterator<Item = (RelPath, Metadata)> + 'a {
    let root = root.to_path_buf();
    let mut left = vec![dir.clone()];
    let mut listing: Option<(RelPath, ReadDir)> = None;
    std::iter::from_fn(move || {
        loop {
            let Some((dir, entries)) = &mut listing else {
                let dir = left.pop()?;
                // A directory that cannot be read is skipped here; rsync reports it.
                listing = std::fs::read_dir(dir.under(&root)).ok().map(|entries| (dir, entries));
                continue;
            };
            let Some(entry) = entries.next() else {
                listing = None;
                continue;
            };
            let Some((entry, found)) = entry.ok().and_then(|entry| entry.metadata().ok().map(|found| (entry, found)))
            else {
                continue;
            };
            let path = dir.join(entry.file_name().as_bytes());
            let kind = if found.is_dir() { Kind::Directory } else { Kind::File };
            if filter.excludes(&path, kind) {
                continue;
            }
            if found.is_dir() {
                left.push(path.clone());
            }
            return Some((path, found));
        }
    })
}

/// Tells the observer what it would have heard if all content had been sent.
fn tell(batch: &mut Execution<'_>, path: &RelPath, way: Way) {
    let ctx = batch.ctx;
    if ctx.observer().is_none() {
        return;
    }
    let changed = |path, directory| Changed { path, operation: Operation::Update, directory };
    batch.note_taken_over(std::iter::once(changed(path.clone(), way == Way::Tree)));
    if way == Way::Tree {
        let below = below(&ctx.root, path, &ctx.filter);
        batch.note_taken_over(below.map(|(path, found)| changed(path, found.is_dir())));
    }
}

/// Takes the content over from the old name. Returns the old name's entry, which is to be deleted before [`taken_over`] is
/// called. `None`: nothing is to be deleted.
pub(super) fn take_over(batch: &mut Execution<'_>, moved: &Moved<'_>) -> Result<Option<(Sent, Entry)>, Flow> {
    // The source may have changed during the runs before this one.
    if !moved.is_as_before(batch) {
        return Ok(None);
    }
    let run = moved.run();
    let sent = send(batch, moved.way, &run, &moved.new.1.path, &moved.old.1.path)?;
    if moved.way == Way::Tree {
        return Ok((sent != Sent::Nothing).then(|| (sent, entry(moved.old, Presence::Missing))));
    }
    if sent == Sent::All {
        settle(batch, moved);
    }
    Ok(None)
}

/// Settles the move of a directory, if the deletion of its old name went through.
pub(super) fn taken_over(batch: &mut Execution<'_>, moved: &Moved<'_>, sent: Sent) {
    if !batch.is_done(moved.old.0) || !moved.is_as_before(batch) {
        return;
    }
    match sent {
        Sent::All => settle(batch, moved),
        // The observer is told only of what has arrived. After a partial run only one that distrusts everything names those
        // paths.
        Sent::Partly if batch.ctx.observer().is_some() => {}
        Sent::Partly | Sent::Nothing => batch.trust(moved.new.0),
    }
}

fn settle(batch: &mut Execution<'_>, moved: &Moved<'_>) {
    batch.settle_rest(&moved.run(), &Paths::default());
    tell(batch, &moved.new.1.path, moved.way);
}

fn entry((at, job): (usize, &ClaimedJob), presence: Presence) -> Entry {
    Entry { path: job.path.clone(), presence, orphan: false, jobs: vec![at] }
}

impl Moved<'_> {
    /// The run for the new name.
    fn run(&self) -> Run {
        let (kind, presence) = match self.way {
            Way::Tree => (RunKind::Tree, Presence::Directory),
            Way::SameName | Way::SameDirectory => (RunKind::Flat, Presence::File { size: 0 }),
        };
        Run::new(kind, Origin::Write, vec![entry(self.new, presence)])
    }

    /// Whether the source still is as it was when the way was chosen.
    fn is_as_before(&self, batch: &Execution<'_>) -> bool {
        let mut source = Source::new(&batch.ctx.root);
        way(self.new.1, &self.old.1.path, &mut source) == Some(self.way)
    }
}

/// How much of the content has been taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    All,
    /// Some paths failed, or deletions are to be judged. The normal run finds out which.
    Partly,
    Nothing,
}

fn send(batch: &mut Execution<'_>, way: Way, run: &Run, new: &RelPath, old: &RelPath) -> Result<Sent, Flow> {
    for mkpath in [batch.ctx.capabilities.makes_path(), true] {
        // The file is large and not on the target yet, so there is nothing to compare contents with.
        let mode = Mode { mkpath, contents: false, ..batch.mode(Pass::Real) };
        let is_guarded = batch.ctx.guard.limit().is_some();
        let Some((args, list)) = command(&batch.ctx.target, way, run, (new, old), mode, is_guarded) else { break };
        let needed = if way == Way::SameDirectory { Fallback::Fuzzy } else { Fallback::LinkDest };
        if batch.ctx.capabilities.lacks(needed) {
            break;
        }
        let ended = batch.launch(&args, &list).ok_or(Flow::Halt)?;
        log::debug!("{new} was moved from {old}: {:?}", ended.end);
        match batch.meaning(run, &ended) {
            Outcome::Done => return Ok(Sent::All),
            Outcome::Paths(_) => return Ok(Sent::Partly),
            // The directory above the new name is not there yet, since another run sends it. Try again with --mkpath.
            Outcome::Fallback(Fallback::MakePath) if !mkpath => continue,
            Outcome::Fallback(
                lacking @ (Fallback::LinkDest | Fallback::Fuzzy | Fallback::Seconds | Fallback::IgnoreTimes),
            ) => {
                batch.ctx.capabilities.learn(lacking);
            }
            Outcome::Void => return Err(Flow::Halt),
            // The normal run names the file that hung. The job is done once more later, since this receiver may still be
            // writing.
            Outcome::Blocked(..) => batch.note_cut(ended.cut),
            Outcome::Target(found) | Outcome::Split(found)
                if matches!(found.class, TroubleClass::Unavailable | TroubleClass::Busy) && !is_orderly(&ended) =>
            {
                if !never_began(&ended)
                    && let Some(&job) = run.entries.iter().flat_map(|entry| &entry.jobs).next()
                {
                    // The job looks again, and the next batch sends it without taking over.
                    let scope = batch.jobs.get(job).map_or(Scope::Entry, |job| job.scope);
                    batch.settle(job, Verdict::LookAgain(scope));
                }
                return Err(batch.halt(found, crate::mirror::plan::shell_line::pasteable(&batch.ctx.root, &args, run)));
            }
            Outcome::Target(_) | Outcome::Split(_) | Outcome::NoRoom { .. } | Outcome::Fallback(_) => {}
        }
        break;
    }
    Ok(Sent::Nothing)
}

/// Whether the exit code is one that rsync sets when both sides know of the end, so that no receiver is still writing.
fn is_orderly(ended: &Ended) -> bool {
    matches!(ended.end, End::Exit(1..=4 | 11 | 13 | 14 | 21..=25))
}

/// Whether the run ended before there was a connection that could have been cut off.
fn never_began(ended: &Ended) -> bool {
    matches!(ended.end, End::Exit(5 | 10 | 35 | 255))
}

/// The arguments and the list of the run that takes content over. `None`: the server could misread these names.
fn command(
    target: &Target,
    way: Way,
    run: &Run,
    (new, old): (&RelPath, &RelPath),
    mode: Mode<'_>,
    is_guarded: bool,
) -> Option<(Vec<OsString>, Vec<u8>)> {
    if way == Way::SameDirectory {
        let mut args = arguments(target, run, mode);
        args.insert(0, "--fuzzy".into());
        return Some((args, list(run)));
    }
    let (root, basis) = match way {
        Way::Tree => (new.clone(), old.clone()),
        Way::SameName | Way::SameDirectory => (new.parent()?, old.parent()?),
    };
    if !is_unmistakable(&root) || !is_unmistakable(&basis) {
        return None;
    }
    let params = target.options.params.without(|given| given.is("max-delete") || given.deletes());
    let mut args: Vec<OsString> = params.to_vec();
    args.extend(exactness(&params, mode.withheld));
    match way {
        Way::Tree => {
            args.push("-r".into());
            args.push("--delete".into());
            if is_guarded {
                args.push("--max-delete=0".into());
            }
        }
        Way::SameName | Way::SameDirectory => {
            args.extend(["--no-r", "--dirs", "--files-from=-", "--from0", "--ignore-times"].map(OsString::from));
        }
    }
    if mode.mkpath {
        args.push("--mkpath".into());
    }
    args.push(joined("--link-dest=", &link_dest(&target.destination, &root, &basis)));
    if way == Way::Tree {
        args.extend(mode.rules.iter().map(|rule| joined("--filter=", rule)));
    }
    let inside = Target { destination: within(&target.destination, &root), options: target.options.clone() };
    connection(&inside, &mut args);
    // Without `-s` a shell would read the name, or an rsync since 3.2.4 escapes it for a shell. A daemon up to 3.2.7 takes
    // the escapes for part of the name, finds nothing there, and all content is sent.
    let is_remote = !matches!(inside.destination, Destination::Local(_));
    if is_remote && !args.iter().any(|arg| arg == "-s") && !basis.as_bytes().iter().all(|&b| is_plain(b)) {
        args.push("-s".into());
    }
    let slash: &[u8] = if root.is_root() { b"" } else { b"/" };
    args.push(OsString::from_vec([b"./", root.as_bytes(), slash].concat()));
    args.push(inside.destination.to_arg());
    let list = match way {
        Way::Tree => Vec::new(),
        Way::SameName | Way::SameDirectory => [b"./", new.name(), b"\0"].concat(),
    };
    Some((args, list))
}

/// Whether the other side takes a name in its arguments literally. A server expands wildcards there, but gives no meaning
/// to the shell's other signs.
fn is_unmistakable(path: &RelPath) -> bool {
    !path.as_bytes().iter().any(|b| b.is_ascii_control() || b"*?[]\\".contains(b))
}

/// The address of the directory `dir` below a destination.
fn within(destination: &Destination, dir: &RelPath) -> Destination {
    match destination {
        Destination::Local(path) => Destination::Local(dir.under(path)),
        Destination::Ssh { host, path } => Destination::Ssh { host: host.clone(), path: dir.under(path) },
        Destination::Daemon { host, module } => {
            let module = dir.under(Path::new(module)).into_os_string();
            Destination::Daemon { host: host.clone(), module }
        }
    }
}

/// The path of the directory `basis` for `--link-dest` in a run that is rooted in the directory `root`. A daemon resolves
/// it from the module's top, any other server from the directory that it writes to.
fn link_dest(destination: &Destination, root: &RelPath, basis: &RelPath) -> OsString {
    let mut path = match destination {
        Destination::Daemon { module, .. } => {
            let inside = module.as_bytes().splitn(2, |&b| b == b'/').nth(1).unwrap_or_default();
            let inside = inside.strip_suffix(b"/").unwrap_or(inside);
            if inside.is_empty() { b"/".to_vec() } else { [b"/", inside, b"/"].concat() }
        }
        Destination::Local(_) | Destination::Ssh { .. } => b"../".repeat(root.components().count()),
    };
    path.extend_from_slice(basis.as_bytes());
    if path.is_empty() {
        path.push(b'.');
    }
    OsString::from_vec(path)
}

#[cfg(test)]
mod tests;
