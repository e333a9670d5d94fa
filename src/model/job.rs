//! Jobs: what may differ between the source and a target, and how far the repair has come. Pure values.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{RelPath, TargetId, Timestamp};

/// How much of the tree at its path a job makes equal. Ordered: a later scope does all that an earlier one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The path itself: a file with its content, a directory with its attributes only. Gone from the source means
    /// gone from the target, with everything below.
    Entry,
    /// A directory and the one level in it: its files are sent, its subdirectories are created, what the source does
    /// not have at that level is deleted. Deeper levels are not looked at.
    Children,
    /// The path and everything below it.
    Subtree,
}

/// What made a job, in rising order of how little rsync's quick check (same size and time means same content) can be
/// trusted. Merging two jobs keeps the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A full-tree run, scheduled or asked for. The only one to which `crontabfilter` applies.
    Reconcile,
    /// A walk of the tree, or an event that cannot have changed content.
    Scan,
    /// A write was seen: size and modification time may be the same as before while the content is not
    /// (`cp -p`, a restore, two writes within one clock tick), so rsync compares contents. For a subtree: writes
    /// were seen below, and which files they concern shows in change times.
    Write,
    /// A directory came to its name from elsewhere: no time below it says anything about what the target has in its
    /// place, so all of it runs with `--ignore-times`. Where the target has nothing yet, that costs nothing.
    Replaced,
}

/// Counts the changes of a path. A run that ends removes its job only if no newer change arrived meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl Generation {
    pub const FIRST: Self = Self(1);

    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The number by which operators name a job. Local to one store and never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u64);

/// Where a job stands.
///
/// ```text
///            enqueue                claim                 complete
///   (none) ───────────▶ ready ───────────────▶ running ───────────────▶ (none)
///                        ▲ ▲                    │  │ │
///      due, newer change │ │ released, crash,   │  │ │ failed, attempts left
///           or operator  │ └ newer change ──────┘  │ └────────▶ waiting
///                        │                         └ failed for the last time
///                        └──────── waiting                 │
///                        └──────── failed ◀────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// May run now. The executor moves it to `running`.
    Ready,
    /// Part of a batch that rsync works on. The end of that batch moves it; after a crash the next start makes it
    /// `ready`. Never stored: the store keeps the state to which a crash returns.
    Running,
    /// Waits until `due_at`. There are four reasons: the job failed and backs off, its file is still being written and
    /// has to settle, its path was sent or looked at too often of late, or the job is done and runs once more, since an
    /// earlier run of it was cut off. Time moves it to `ready`; a newer change or an operator may do so earlier.
    Waiting,
    /// Dead letter: it failed `max_attempts` times for a reason of its own. Only an operator, a newer change of the
    /// path, or the next reconcile moves it to `ready`.
    Failed,
}

/// A deed of an operator on jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAction {
    /// Looks at the jobs.
    List,
    /// Has jobs that failed tried again now: `failed` ones with a clean record, waiting ones without the wait.
    Retry,
    /// Forgets the jobs, but for those that are being sent.
    Purge,
}

impl JobState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        }
    }
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Children => "children",
            Self::Subtree => "subtree",
        }
    }

    /// Whether a job of this scope at `path` makes `other` equal as well.
    pub fn reaches(self, path: &RelPath, other: &RelPath) -> bool {
        match self {
            Self::Entry => path == other,
            Self::Children => path == other || other.parent().as_ref() == Some(path),
            Self::Subtree => path.covers(other),
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why the last attempt of a job failed: rsync's exit code, if rsync ran, and one line for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    #[serde(default)]
    pub code: Option<i32>,
    pub message: String,
}

impl JobError {
    /// Longest message kept, in bytes. A stored value stays far under 2 KiB, above which sled may move a page into a
    /// file that it never syncs.
    pub const MESSAGE_BYTES_MAX: usize = 512;

    /// rsync's exit code for deletions that were held back, and the code of a job that is refused for the same reason.
    pub const DELETES_TOO_MUCH: i32 = 25;

    /// Whether an operator has to agree to what the job would delete.
    pub fn asks_for_approval(&self) -> bool {
        self.code == Some(Self::DELETES_TOO_MUCH)
    }

    /// Keeps the tail of a message that is too long: rsync names the cause in its last words.
    pub fn new(code: Option<i32>, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > Self::MESSAGE_BYTES_MAX {
            let mut cut = message.len() - Self::MESSAGE_BYTES_MAX;
            while !message.is_char_boundary(cut) {
                cut += 1;
            }
            message.drain(..cut);
        }
        Self { code, message }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            // The message says what an operator is asked, whether rsync stopped there or a check before it did.
            Some(Self::DELETES_TOO_MUCH) | None => f.write_str(&self.message),
            Some(code) => write!(f, "{} (rsync exit {code})", self.message),
        }
    }
}

/// "Make `path` on `target` equal to the source": there, send it; gone, delete it. At most one exists per target and
/// path, so jobs are idempotent, free of order, and coalesce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub id: JobId,
    pub target: TargetId,
    pub path: RelPath,
    pub scope: Scope,
    pub origin: Origin,
    pub state: JobState,
    pub generation: Generation,
    /// When the job came into being.
    pub queued_at: Timestamp,
    /// When the newest change that the job stands for was seen.
    pub changed_at: Timestamp,
    /// Failed runs since the path last succeeded. Failures that were the target's fault do not count.
    pub attempts: u32,
    /// The job does not run before this time; meaningful while `waiting`.
    pub due_at: Timestamp,
    /// A run that sent the path as a large file may have been cut off, and have left a part of the file (`partial_of`).
    pub partial: bool,
    pub last_error: Option<JobError>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_the_wider_scope_and_the_less_trusting_origin() {
        assert!(Scope::Entry < Scope::Children && Scope::Children < Scope::Subtree);
        assert!(Origin::Reconcile < Origin::Scan && Origin::Scan < Origin::Write && Origin::Write < Origin::Replaced);
    }

    #[test]
    fn a_directory_with_its_one_level_reaches_what_lies_in_it() {
        let path = |text: &str| RelPath::new(text.as_bytes()).expect("a path");
        for (at, scope, other, expected) in [
            ("d", Scope::Entry, "d", true),
            ("d", Scope::Entry, "d/a", false),
            ("d", Scope::Children, "d", true),
            ("d", Scope::Children, "d/a", true),
            ("d", Scope::Children, "d/e/a", false),
            ("", Scope::Children, "a", true),
            ("d", Scope::Subtree, "d/e/a", true),
            ("d", Scope::Subtree, "da", false),
            ("d/a", Scope::Subtree, "d", false),
        ] {
            assert_eq!(scope.reaches(&path(at), &path(other)), expected, "{at} {scope} {other}");
        }
    }

    #[test]
    fn a_long_message_keeps_its_tail_and_its_characters() {
        let error = JobError::new(Some(23), "é".repeat(1000) + "cause");
        assert!(error.message.len() <= JobError::MESSAGE_BYTES_MAX);
        assert!(error.message.ends_with("cause"));
    }
}
