//! Values that pass between the queue and the executor: claimed jobs one way, verdicts the other. Pure.

use serde::{Deserialize, Serialize};

use super::{Generation, JobError, Origin, RelPath, Scope, Timestamp};

/// The queues-within-a-queue of one target: large work never makes small work wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    Small,
    /// Files above the large-file limit, and subtrees.
    Large,
}

/// The directory beside a large file, on the target, in which rsync keeps the part of the file that it has when a run is
/// cut off, for the next attempt.
pub const PARTIAL_DIR: &str = ".rsync-partial";

/// Where the part of the file at `path` is kept.
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
    /// When the oldest change that the job stands for was seen.
    pub since: Timestamp,
    /// The path from which the content of this job was moved. That path's job is part of the same batch, and the target
    /// may still hold the content there.
    pub moved_from: Option<RelPath>,
    /// The number of the file, if other jobs may stand for other names of it and all these jobs have to go in one run.
    pub several_names: Option<u64>,
    /// The path is a file that came into being under a free name and was not sent since.
    pub is_new: bool,
    /// The job is done and looks again, since a run of it was cut off.
    pub is_safety_rerun: bool,
}

/// Whether a receiver of a run that was cut off may still have been writing when its work was begun again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CutOff {
    /// No run was cut off.
    #[default]
    No,
    /// The other side had closed the connection by then. Only something between both sides may have kept data back.
    Closed,
    /// The receiver may still have been writing, as far as is known.
    Open,
}

/// Whether data of a run that was cut off may still arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lingers {
    /// No data may arrive, as far as can be seen.
    #[default]
    No,
    /// It is too early to know whether data may arrive.
    Perhaps,
    /// The other side has not come to its end.
    Surely,
}

/// The outcome of one claimed job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The target has what the source had. The job leaves the queue unless its path changed meanwhile.
    Done,
    /// The job failed for a reason of its own: an attempt is counted and the job backs off.
    Failed(JobError),
    /// The job was not tried, or is not at fault (the target was down, the daemon stops, the batch was too big): ready
    /// again, no attempt counted.
    Released,
    /// The job belongs into the large lane. No attempt counted.
    Large,
    /// At this path above the job's own stands something that is no directory, or nothing. So there is nothing to send at
    /// the job's path. The work becomes that of a job at the path above, which other runs keep clear of.
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
    /// What the run left undone at the path.
    pub scope: Scope,
    /// How little the quick check may be trusted at the path.
    pub origin: Origin,
    /// When the oldest change that the run stood for was seen. `None`: no earlier than the failure.
    pub since: Option<Timestamp>,
}

impl Found {
    /// The failure of a path alone. Nobody knows whether the content of the path was looked at.
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
