//! Asks one target everything that can be asked before there is anything to send, for `syncq check`.
//!
//! The questions are mirroring's own argument lists, so whatever stands in the way of a real run stands in the way of a
//! question. First come the arguments of a file that was written or deleted, then those of a whole tree. Both are dry runs.
//! A server refuses a write to a read-only module and a forbidden option before it looks at the work, so a dry run finds
//! both. No dry run tells whether the other side's user may write in the directory. For that, and only if asked to, a small
//! file of an unused name is sent and deleted again. If source and target agreed on the directory's times before, they do
//! so again afterwards.
//!
//! Deliberately absent: the words for a finding. Only a trouble has words, the same as in `status`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::monotonic;
use crate::filter::Filter;
use crate::mirror::outcome::attribution::Prefixes;
use crate::mirror::outcome::classify::{Outcome, classify};
use crate::mirror::outcome::diagnosis::{Fallback, cannot_start, first_words, lacking_option, trouble};
use crate::mirror::outcome::noise::Noise;
use crate::mirror::plan::arguments::{Mode, Pass, arguments, list};
use crate::mirror::plan::planner::deletion_refused;
use crate::mirror::plan::run::{Deletion, Entry, Run, RunKind};
use crate::mirror::plan::shell_line::pasteable;
use crate::mirror::plan::source::Presence;
use crate::mirror::rsync::ended::{End, Ended};
use crate::mirror::rsync::installed::RSYNC;
use crate::mirror::rsync::itemize::difference;
use crate::mirror::rsync::program::{Confine, Program};
use crate::mirror::rsync::ssh_command;
use crate::mirror::rsync::version::{program, read_version, within};
use crate::mirror::target::capabilities::Capabilities;
use crate::mirror::transport::confine::{Places, is_careful};
use crate::model::{JobError, Lane, MaxDelete, Origin, RelPath, Target, TargetTrouble, TroubleClass};

/// How often a question is repeated because the other side turns out to lack an option. A side that lacks more options is
/// reported as lacking a needed one.
const ROUNDS_MAX: u32 = 5;
/// How long to wait for a connection: a server that allows few takes a moment to notice that the last one has ended.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// The content of the file that is written and deleted.
const CONTENT: &[u8] = b"written by syncq check, and to be deleted at once\n";

/// How far the inspection goes.
#[derive(Debug, Clone, Copy)]
pub struct ProbeOptions {
    /// Also write a file on the target and delete it again.
    pub writes: bool,
    /// How long each rsync may take.
    pub limit: Duration,
}

/// A fact about a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The target can be reached, lets this machine in, and takes the arguments of every kind of run.
    Answers {
        /// The protocol that the target's rsync speaks, if it said so.
        protocol: Option<u32>,
    },
    /// The target's rsync is of this version, which follows links that are swapped in.
    FollowsLinks { version: String },
    /// The destination's directory does not exist yet; the first run makes it.
    NotYetThere,
    /// Deletions by name are refused: they are made by comparing directories instead.
    DeletesByLevel,
    /// Every deletion is refused. Holds the error of each deletion job.
    DeletesNothing(JobError),
    /// Times may be compared by whole seconds only.
    ComparesSeconds,
    /// A file was written and deleted again.
    Writable,
    /// No attempt was made to write.
    NotTried(NotTried),
    /// The file that was written could not be deleted.
    LeftBehind { name: String, said: String },
    /// Why nothing at all, or nothing new, can be sent.
    Trouble(TargetTrouble),
}

/// Why no file was written as a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTried {
    /// The caller did not ask for it.
    Unwanted,
    /// The file could not have been deleted again.
    NoDeletion,
    /// The deletion would have left a backup copy.
    KeepsBackups,
    /// The user's own parameters keep the file from being sent.
    Excluded,
}

/// Asks `target`, on behalf of the root at `root`, which need not exist. `max_delete` is how many deletions the
/// configuration allows a comparison. The findings come in the order of the questions, a trouble last.
pub fn inspect(
    root: &Path,
    target: &Target,
    filter: &Filter,
    max_delete: MaxDelete,
    options: ProbeOptions,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    match Inspection::new(root, target, filter, options) {
        Ok(mut inspection) => {
            let ended = inspection.ask_all(max_delete);
            findings = inspection.findings;
            let named = |found: TargetTrouble| TargetTrouble {
                hint: found.hint.map(|hint| crate::mirror::rsync::ssh_command::by_hand(target, &hint)),
                ..found
            };
            findings.extend(ended.err().map(named).map(Finding::Trouble));
        }
        Err(error) => {
            let meaning = "there is no room for a temporary directory";
            let hint = "make room there, or set TMPDIR";
            findings.push(Finding::Trouble(trouble(
                TroubleClass::Source,
                None,
                meaning,
                &format!("{}: {error}", std::env::temp_dir().display()),
                hint,
            )));
        }
    }
    findings
}

struct Inspection<'a> {
    target: &'a Target,
    options: ProbeOptions,
    program: Program,
    prefixes: Prefixes,
    rules: Vec<OsString>,
    capabilities: Capabilities,
    /// The directory where the dry runs start: the root, or the scratch directory if the root is missing.
    root: PathBuf,
    /// An empty directory of this inspection.
    scratch: Scratch,
    findings: Vec<Finding>,
}

/// The facts in the output of a dry run.
struct Answer {
    /// The destination's directory does not exist.
    is_missing: bool,
    /// Source and target agree on the attributes of the directory.
    root_is_equal: bool,
    protocol: Option<u32>,
}

impl<'a> Inspection<'a> {
    fn new(root: &Path, target: &'a Target, filter: &Filter, options: ProbeOptions) -> io::Result<Self> {
        let scratch = Scratch::new()?;
        let prefixes = Prefixes::new(&[root, &scratch.0], &target.destination);
        let places: Arc<dyn Confine> = Arc::new(Places::new(root, target).and(&scratch.0));
        let root = if root.is_dir() { root.to_owned() } else { scratch.0.clone() };
        Ok(Self {
            target,
            options,
            program: Program { places: Some(places), ..program(RSYNC) },
            prefixes,
            rules: filter.rsync_rules(),
            capabilities: Capabilities::default(),
            root,
            scratch,
            findings: Vec::new(),
        })
    }

    fn ask_all(&mut self, max_delete: MaxDelete) -> Result<(), TargetTrouble> {
        let name = unused_name();
        let answer = self.ask(&flat(&name), self.target.options.delete)?;
        // The list is empty, since a look at the whole tree could take hours.
        let tree = Run::new(RunKind::Tree, Origin::Reconcile, Vec::new());
        let tree = Run { max_delete: max_delete.unseen().map(|_| 0), ..tree };
        self.ask(&tree, self.target.options.delete)?;
        self.findings.insert(0, Finding::Answers { protocol: answer.protocol });
        self.findings.extend(self.follows_links_there());
        if answer.is_missing {
            self.findings.push(Finding::NotYetThere);
            return Ok(());
        }
        match self.way_back(&name) {
            Err(reason) => self.findings.push(Finding::NotTried(reason)),
            Ok(deletion) => self.write(&name, deletion, answer.root_is_equal)?,
        }
        Ok(())
    }

    /// Starts `run` as a dry run: with the arguments of the real run, and those that make it dry. Returns what it tells.
    fn ask(&mut self, planned: &Run, deletes: bool) -> Result<Answer, TargetTrouble> {
        let mut last = String::new();
        for _ in 0..ROUNDS_MAX {
            let args =
                self.arguments(planned, Lane::Large, self.capabilities.deletion(deletes), &["-n", "--debug=PROTO"]);
            let ended = self.start(&self.root, &args, planned)?;
            match classify(&ended, planned, &self.prefixes, &Noise::default()) {
                Outcome::Fallback(fallback) => {
                    last = first_words(&ended.stderr.bytes());
                    if !self.capabilities.learn(fallback) {
                        break;
                    }
                    // If nothing is to be deleted on this target, only the test file asks for deletions, and the user need
                    // not know.
                    let is_told = self.target.options.delete;
                    match fallback {
                        Fallback::DeleteByLevel if is_told => self.findings.push(Finding::DeletesByLevel),
                        Fallback::DeleteNothing if is_told => {
                            self.findings.push(Finding::DeletesNothing(deletion_refused()));
                        }
                        Fallback::Seconds => self.findings.push(Finding::ComparesSeconds),
                        _ => {}
                    }
                }
                Outcome::Target(found) | Outcome::Split(found) | Outcome::NoRoom { trouble: found, .. } => {
                    return Err(self.with_command(found, &args, planned));
                }
                // A single path may fail where others do not; these runs have no path whose failure would tell about the
                // target.
                Outcome::Done | Outcome::Paths(_) | Outcome::Blocked(..) | Outcome::Void => {
                    return Ok(Answer::read(&ended));
                }
            }
        }
        Err(lacking_option(&last))
    }

    /// Whether the rsync of a host behind ssh follows swapped links. `None`: unknown, or it does not. A daemon tells no
    /// version.
    fn follows_links_there(&self) -> Option<Finding> {
        let (shell, args) = ssh_command::command(self.target, "--version")?;
        let program = Program { path: shell, ..program(RSYNC) };
        let ended = within(self.options.limit, &program, &self.root, &args, b"").ok()?;
        // An account that allows only one command gives no answer.
        let found = read_version(&String::from_utf8_lossy(&ended.stdout.bytes()))?;
        (!is_careful(&found.numbers())).then_some(Finding::FollowsLinks { version: found.version })
    }

    /// How a test file can be deleted again, or why no file is to be written.
    fn way_back(&mut self, name: &RelPath) -> Result<Deletion, NotTried> {
        if !self.options.writes {
            return Err(NotTried::Unwanted);
        }
        if self.target.options.params.keeps_backups() {
            return Err(NotTried::KeepsBackups);
        }
        if !self.target.options.delete {
            // Where deletions are not mirrored, the question about them has not been asked yet.
            self.ask(&flat(name), true).map_err(|_| NotTried::NoDeletion)?;
        }
        if self.capabilities.deletion(true) == Deletion::ByLevel {
            self.ask(&gone(name, Deletion::ByLevel), true).map_err(|_| NotTried::NoDeletion)?;
        }
        match self.capabilities.deletion(true) {
            deletion @ (Deletion::ByName | Deletion::ByLevel) => Ok(deletion),
            Deletion::Off | Deletion::Refused => Err(NotTried::NoDeletion),
        }
    }

    /// Writes a file of that name and deletes it, whatever the first run says: a run that broke off may have written it.
    fn write(&mut self, name: &RelPath, deletion: Deletion, root_is_equal: bool) -> Result<(), TargetTrouble> {
        // The scratch directory stands for the source's directory, but its attributes must not reach the target.
        const ALONE: [&str; 2] = ["--no-implied-dirs", "--omit-dir-times"];
        // A removal lists the directory itself.
        const ALONE_LISTED: [&str; 6] =
            ["--omit-dir-times", "--no-perms", "--no-owner", "--no-group", "--no-acls", "--no-xattrs"];
        let file = self.scratch.0.join(OsStr::new(&name.to_string()));
        std::fs::write(&file, CONTENT).map_err(|error| cannot_start(&error))?;
        let planned = flat(name);
        let args = self.arguments(&planned, Lane::Small, deletion, &ALONE);
        let sent = self.start(&self.scratch.0, &args, &planned);
        std::fs::remove_file(&file).map_err(|error| cannot_start(&error))?;
        // A run from the source's own directory gives the target's directory the times back that it had.
        let removal = gone(name, deletion);
        let (dir, more) = match (root_is_equal, removal.kind) {
            (true, _) => (&self.root, &[][..]),
            (false, RunKind::Removal) => (&self.scratch.0, &ALONE_LISTED[..]),
            (false, _) => (&self.scratch.0, &ALONE[..]),
        };
        let args_gone = self.arguments(&removal, Lane::Small, deletion, more);
        let deleted = self.start(dir, &args_gone, &removal);

        let names = |ended: &Ended, deletion: bool| {
            let output = ended.stdout.bytes();
            let mut found = output.split(|&b| b == b'\n').filter_map(difference);
            found.any(|(found, deletes)| deletes == deletion && found == name.as_bytes())
        };
        let is_deleted = deleted.as_ref().is_ok_and(|ended| names(ended, true));
        let was_offered = sent.as_ref().map_or(true, |ended| names(ended, false));
        let may_be_there = !deleted.as_ref().is_ok_and(|ended| ended.end == End::Exit(0));
        let is_left = was_offered && !is_deleted && may_be_there;
        if is_left {
            let said = match deleted {
                Ok(ended) => first_words(&ended.stderr.bytes()),
                Err(found) => found.message,
            };
            self.findings.push(Finding::LeftBehind { name: name.to_string(), said });
        }
        let failure = match sent.map(|ended| classify(&ended, &planned, &self.prefixes, &Noise::default()))? {
            Outcome::Target(found) | Outcome::Split(found) | Outcome::NoRoom { trouble: found, .. } => {
                return Err(self.with_command(found, &args, &planned));
            }
            // Messages of a successful run are a banner, as far as can be told here.
            Outcome::Paths(paths) => {
                let unattributed = paths.unattributed.filter(|error| error.code != Some(0));
                paths.failed.into_values().next().or(unattributed)
            }
            Outcome::Blocked(_, error) => Some(error),
            Outcome::Done | Outcome::Fallback(_) | Outcome::Void => None,
        };
        match failure {
            // The error holds no command: a person would have no such file to send.
            Some(failure) => Err(unwritable(&failure, is_deleted)),
            None => {
                let written = if was_offered { Finding::Writable } else { Finding::NotTried(NotTried::Excluded) };
                self.findings.extend((!is_left).then_some(written));
                Ok(())
            }
        }
    }

    /// The arguments of the real run, with `more` in front of the source, where these options win over the user's.
    fn arguments(&self, planned: &Run, lane: Lane, deletion: Deletion, more: &[&str]) -> Vec<OsString> {
        let mode = Mode {
            deletion,
            rules: &self.rules,
            ..self.capabilities.mode(lane, self.target.options.delete, Pass::Itemized)
        };
        let mut args = arguments(self.target, planned, mode);
        let at = args.len().saturating_sub(2);
        args.splice(at..at, more.iter().map(OsString::from));
        args
    }

    /// Runs rsync, and repeats it for a while if the server has no connection left. A run that takes too long is a trouble.
    fn start(&self, dir: &Path, args: &[OsString], planned: &Run) -> Result<Ended, TargetTrouble> {
        let begun = monotonic();
        loop {
            let ended = within(self.options.limit, &self.program, dir, args, &list(planned));
            let ended = ended.map_err(|found| self.with_command(found.into(), args, planned))?;
            let is_busy = matches!(
                classify(&ended, planned, &self.prefixes, &Noise::default()),
                Outcome::Target(TargetTrouble { class: TroubleClass::Busy, .. })
            );
            if !is_busy || begun.elapsed() > BUSY_PATIENCE {
                return Ok(ended);
            }
            std::thread::sleep(BUSY_PAUSE);
        }
    }

    fn with_command(&self, found: TargetTrouble, args: &[OsString], planned: &Run) -> TargetTrouble {
        TargetTrouble { command: Some(pasteable(&self.root, args, planned)), ..found }
    }
}

/// The trouble that a file could not be written properly. `is_there`: only its attributes could not be set.
fn unwritable(failure: &JobError, is_there: bool) -> TargetTrouble {
    let (meaning, hint) = if is_there {
        (
            "what is written there cannot be given its owner, mode or times",
            "let rsync run there as root, or take -o, -g, -p or -t out of the params",
        )
    } else {
        (
            "nothing can be written in the target's directory",
            "let the user that rsync runs as there write in it (`uid` in rsyncd.conf, owner and mode)",
        )
    };
    trouble(TroubleClass::Misconfigured, failure.code, meaning, &failure.message, hint)
}

impl Answer {
    fn read(ended: &Ended) -> Self {
        let output = String::from_utf8_lossy(&ended.stdout.bytes()).into_owned();
        // Some versions report a directory that they make; all versions show it as new.
        let makes = |line: &str| line.starts_with("created ") && line.contains("director");
        let is_missing = output.lines().any(|line| makes(line) || line == "cd+++++++++ ./");
        let root_is_equal = !output.lines().any(|line| line.ends_with(" ./"));
        let protocol = output.lines().find_map(|line| {
            let number = line.split_once("remote=")?.1;
            number.split(',').next()?.parse().ok()
        });
        Self { is_missing, root_is_equal, protocol }
    }
}

/// A directory of this inspection, removed with its content when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let dir = std::env::temp_dir().join(format!("syncq-check-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If this fails, an empty directory stays among other temporary ones.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A name that no file has, of the form of rsync's own temporary files. If the file is left on a target, a later run
/// removes it.
fn unused_name() -> RelPath {
    let mut name = b".syncq-check.".to_vec();
    name.extend((0..3).map(|_| fastrand::lowercase() as u8));
    name.extend((0..3).map(|_| fastrand::uppercase() as u8));
    RelPath::root().join(&name)
}

/// The run for a file that was written, or that is gone.
fn flat(name: &RelPath) -> Run {
    Run::new(RunKind::Flat, Origin::Write, vec![missing(name)])
}

/// The run for a file that is gone from the top of the tree.
fn gone(name: &RelPath, deletion: Deletion) -> Run {
    match deletion {
        Deletion::ByLevel => Run::deletion(deletion, vec![missing(name)], &mut |_| Presence::Directory),
        Deletion::ByName | Deletion::Off | Deletion::Refused => flat(name),
    }
}

fn missing(name: &RelPath) -> Entry {
    Entry { path: name.clone(), presence: Presence::Missing, orphan: false, jobs: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_would_be_swept_away_and_is_never_mirrored() {
        let filter = Filter::new(&[], false).unwrap();
        for _ in 0..100 {
            let name = unused_name();
            assert!(filter.is_leftover(&name) && filter.excludes(&name, crate::filter::Kind::File), "{name}");
        }
    }
}
