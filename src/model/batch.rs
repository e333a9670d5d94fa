//! What passes between the queue and the executor: claimed jobs one way, verdicts the other. Pure values.

use serde::{Deserialize, Serialize};

use super::{Generation, JobError, Origin, RelPath, Scope, Timestamp};

/// The queues-within-a-queue of one target: what is large never makes what is small wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    Small,
    /// Files above the large-file limit, and subtrees.
    Large,
}

/// The directory beside a large file, on the target, in which rsync keeps what it has of it when a run is cut off, for the
/// next attempt.
pub const PARTIAL_DIR: &str = ".rsync-partial";

/// Where that is kept of the file at `path`.
pub fn partial_of(path: &RelPath) -> RelPath {
    path.parent().unwrap_or_else(RelPath::root).join(PARTIAL_DIR.as_bytes()).join(path.name())
}

/// A job as the executor gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedJob {
    pub path: RelPath,
    pub scope: Scope,
    pub origin: Origin,
    pub generation: Generation,
    /// When the oldest change that it stands for was seen.
    pub since: Timestamp,
    /// What it is to send was moved here from that path, whose job is part of the same batch. The target may still hold
    /// the content there.
    pub moved_from: Option<RelPath>,
    /// The number of the file, if other jobs may stand for other names of it and all of them have to go in one run.
    pub several_names: Option<u64>,
    /// A file that has come into being under a name that had none, and that was not sent since.
    pub is_new: bool,
    /// It is done, and looks again since a run of it had been cut off.
    pub is_safety_rerun: bool,
}

/// Whether a receiver of a run that was cut off may still have been writing when its work was begun again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CutOff {
    /// No run was cut off.
    #[default]
    No,
    /// The other side had closed the connection by then. Only what stands between may have kept something back.
    Closed,
    /// As far as is known.
    Open,
}

/// Whether what a run that was cut off has left may still arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lingers {
    /// Not as far as can be seen.
    #[default]
    No,
    /// It is too early to know.
    Perhaps,
    /// The other side has not come to its end.
    Surely,
}

/// What became of one claimed job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The target has what the source had. The job leaves the queue unless its path changed meanwhile.
    Done,
    /// It failed for a reason of its own: an attempt is counted and it backs off.
    Failed(JobError),
    /// Not tried, or not its fault (the target was down, the daemon stops, the batch was too big): ready again, no
    /// attempt counted.
    Released,
    /// Belongs into the large lane. No attempt counted.
    Large,
    /// At this path above the job's own stands something that is no directory, or nothing. So there is nothing to send at
    /// the job's path, and what there is to do is the work of a job at that one, which other runs keep clear of.
    Above(RelPath),
    /// The source changed under the run (a file vanished, its parent is gone too): ready again at once, under the
    /// scope given. Counts as an attempt only if it keeps happening.
    LookAgain(Scope),
}

/// A failure at a path that no job of the batch named: below a level or a subtree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub path: RelPath,
    pub error: JobError,
    /// What it left undone.
    pub scope: Scope,
    /// How little the quick check may be trusted there.
    pub origin: Origin,
    /// When the oldest change was seen that the run stood for. `None`: as old as the failure.
    pub since: Option<Timestamp>,
}

impl Found {
    /// The failure of a path alone, of which nobody knows whether its content was looked at.
    pub fn entry(path: RelPath, error: JobError) -> Self {
        Self { path, error, scope: Scope::Entry, origin: Origin::Write, since: None }
    }
}

/// Why nothing can be sent to a target at present, whatever the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetTrouble {
    pub class: TroubleClass,
    /// rsync's exit code, if rsync ran.
    pub code: Option<i32>,
    /// One line: what rsync said.
    pub message: String,
    /// One line: what an operator can do.
    pub hint: Option<String>,
    /// The command line of the failing run, quoted for a shell.
    pub command: Option<String>,
}

/// How a target's trouble is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleClass {
    /// Down, hung, out of reach, out of space: comes back by itself, probed with exponential backoff.
    Unavailable,
    /// Out of connections: tried again soon, with fewer at a time.
    Busy,
    /// Wrong password, unknown module, refused option, no rsync: a person has to act; probed rarely.
    Misconfigured,
    /// The source directory is not what it was: nothing runs until it is back.
    Source,
    /// The target is not what it was: most likely its disk is not mounted, and nothing is sent into the mount point.
    Target,
}
