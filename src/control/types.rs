//! The answers as they go over the wire. The names of the JSON keys are a promise to scripts: keys may be added, and no key is
//! ever renamed, dropped or given another meaning.
//!
//! Times are RFC 3339 in UTC. Durations are seconds, and their keys end in `_s`. Paths are text here: a path that is not UTF-8
//! is escaped, and a job's path is then given in base64 as well.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::ConfigStatus;
use crate::model::{Job, JobState, Origin, RelPath, Scope, Timestamp};

/// Everything `syncq status` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the syncq that answers.
    pub version: String,
    pub state: DaemonState,
    pub pid: u32,
    #[serde(with = "rfc3339_option")]
    pub started_at: Option<Timestamp>,
    /// The configuration files in use; none with `syncq mirror`.
    pub configs: Vec<String>,
    /// The outcome of the last reading of the files. `null` with `syncq mirror`, and without a daemon.
    #[serde(default)]
    pub config: Option<ConfigStatus>,
    pub roots: Vec<RootStatus>,
    pub targets: Vec<TargetStatus>,
    pub store: StoreStatus,
    pub watches: WatchStatus,
    /// The plugins that are switched on.
    #[serde(default)]
    pub plugins: Vec<PluginStatus>,
}

/// The activity of the daemon as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DaemonState {
    /// Watches are being set, and changes are being looked for that nobody watched.
    Starting,
    Running,
    Stopping,
    /// There is no daemon: the answer comes from its store.
    Offline,
    /// A state that this client does not know yet.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootStatus {
    pub path: String,
    pub state: RootState,
    /// Why not every change is seen.
    pub reason: Option<String>,
    /// What an operator can do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// The names of the root's targets.
    pub targets: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootState {
    /// The tree is being walked to look for changes.
    Scanning,
    /// Every change is seen.
    Watching,
    /// Some directories cannot be watched and are looked through now and then.
    Polling,
    /// The directory is missing, replaced or emptied: nothing is sent or deleted until it is back.
    Suspended,
    /// There is no daemon.
    Offline,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetStatus {
    pub name: String,
    /// The port of the target's rsync daemon or sshd, if one is set.
    #[serde(default)]
    pub port: Option<u16>,
    pub root: String,
    pub state: TargetState,
    /// Jobs that are due to run.
    pub pending: u64,
    pub running: u64,
    /// Jobs that back off, or whose file has to settle first.
    pub waiting: u64,
    /// Jobs given up until their path changes, a full comparison comes, or an operator retries them.
    pub failed: u64,
    /// Seconds: the age of the oldest change that the target does not have yet; 0 if it has them all. While nothing of the
    /// source is seen, at least the time since then.
    pub lag_s: f64,
    /// Jobs done per second, over the last minute.
    #[serde(default)]
    pub jobs_per_s: f64,
    /// In how many seconds all jobs but the failing ones will be done at that pace, if any are being done. A single job may be
    /// a whole tree.
    #[serde(default)]
    pub eta_s: Option<f64>,
    /// The path that was sent or tried last.
    pub last_path: Option<String>,
    /// When a run or a comparison last succeeded, since the start.
    #[serde(default, with = "rfc3339_option")]
    pub last_success_at: Option<Timestamp>,
    /// Since when the target is paused, if it is.
    #[serde(default, with = "rfc3339_option")]
    pub paused_since: Option<Timestamp>,
    /// Why nothing can be sent, why something fails, or why not every change is seen.
    pub reason: Option<String>,
    /// What an operator can do about it.
    pub hint: Option<String>,
    /// The command line of the failing run, quoted for a shell.
    pub command: Option<String>,
    /// When the target is tried again.
    #[serde(with = "rfc3339_option")]
    pub retry_at: Option<Timestamp>,
    /// The comparison by content in progress, if there is one.
    #[serde(default)]
    pub contents: Option<ContentsStatus>,
    /// The runs in progress, if one of them takes its time.
    #[serde(default)]
    pub run: Option<RunStatus>,
}

/// The runs to a target, of which at least one has lasted for a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    /// Seconds since the oldest of these runs began.
    pub elapsed_s: f64,
    /// Bytes that all these runs have sent over the wire.
    pub sent_bytes: u64,
    /// Seconds since the last byte was sent.
    pub still_s: f64,
    /// No run has a connection yet.
    pub connecting: bool,
}

/// A comparison by content of the files that a target held when nobody vouched for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentsStatus {
    /// Since when nothing vouches for the target's content.
    #[serde(with = "rfc3339")]
    pub since: Timestamp,
    /// The path up to which the content has been compared, in the order of the tree; empty at first.
    pub up_to: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// Equal to the source: every change of the source is seen, and none is left to be sent.
    Idle,
    /// No known change is left to be sent, but not every change is seen. The root says why.
    Scanning,
    Syncing,
    /// Everything is sent except paths that fail; they are tried again, or were given up.
    Failing,
    /// An operator has paused the target; changes are noted and wait.
    Paused,
    /// The target is out of reach, and is tried again without an operator.
    BackingOff,
    /// An operator has to act: wrong password, unknown module and the like.
    Misconfigured,
    /// The server has no free connection; the target is tried again soon.
    Busy,
    /// The source directory is not what it was, or cannot be watched: nothing is sent or deleted.
    SourceGone,
    /// The target directory is not what it was: nothing is sent until the right one is back, or an operator accepts the new
    /// one.
    TargetGone,
    /// A comparison would delete more than maxDelete allows, and an operator has to agree. Everything else is sent.
    NeedsApproval,
    /// By size and time nothing is left to be sent; contents are being compared in the background.
    Comparing,
    /// There is no daemon.
    Offline,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    pub state: StoreState,
    /// The store's size on disk.
    pub bytes: u64,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreState {
    Ok,
    /// The store cannot be written: mirroring goes on from memory, and a restart has to compare the trees.
    Degraded,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchStatus {
    pub used: u64,
    /// Directories that could not be watched and are polled.
    pub unwatched: u64,
    /// What to do about directories without a watch.
    pub hint: Option<String>,
    /// `fs.inotify.max_user_watches`.
    pub limit: u64,
    /// How often the kernel's event queue was full since the start.
    pub overflows: u64,
}

/// Counts of the notices to a plugin since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginStatus {
    pub name: String,
    /// Notices that are not delivered yet.
    pub waiting: u64,
    pub delivered: u64,
    /// Notices that were refused or given up.
    pub failed: u64,
    /// Notices that were not tried, since too many were waiting.
    pub dropped: u64,
    /// Why nothing can be delivered at present, or why the notice that ended last was given up.
    pub reason: Option<String>,
}

/// One job as `list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    pub id: u64,
    pub root: String,
    pub target: String,
    /// The path as it is if it is UTF-8, otherwise escaped for people.
    pub path: String,
    /// The path's bytes, only if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    pub scope: Scope,
    /// The origin of the job: it decides how far rsync's check of sizes and times can be trusted.
    pub origin: Origin,
    pub state: JobState,
    pub attempts: u32,
    #[serde(with = "rfc3339")]
    pub queued_at: Timestamp,
    /// Since when, or from when on, the job may run.
    #[serde(with = "rfc3339")]
    pub due_at: Timestamp,
    pub error: Option<String>,
}

impl JobRow {
    pub fn new(job: &Job, root: &Path, target: &str) -> Self {
        let (path, path_b64) = match std::str::from_utf8(job.path.as_bytes()) {
            Ok(text) => (text.to_owned(), None),
            Err(_) => (job.path.to_string(), Some(STANDARD.encode(job.path.as_bytes()))),
        };
        Self {
            id: job.id.0,
            root: root.display().to_string(),
            target: target.to_owned(),
            path,
            path_b64,
            scope: job.scope,
            origin: job.origin,
            state: job.state,
            attempts: job.attempts,
            queued_at: job.queued_at,
            due_at: job.due_at.max(job.queued_at),
            error: job.last_error.as_ref().map(ToString::to_string),
        }
    }

    /// The path, if the row holds a valid one.
    pub fn rel_path(&self) -> Option<RelPath> {
        match &self.path_b64 {
            None => RelPath::new(self.path.as_bytes()).ok(),
            Some(bytes) => RelPath::new(&STANDARD.decode(bytes).ok()?).ok(),
        }
    }

    /// The path for people: nothing in it can break a line or steer a terminal.
    pub fn shown_path(&self) -> String {
        if self.path_b64.is_some() {
            return self.path.clone();
        }
        match RelPath::new(self.path.as_bytes()) {
            Ok(path) => path.to_string(),
            Err(_) => self.path.escape_default().to_string(),
        }
    }
}

/// A job to be queued: a path that may differ on a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewJob {
    /// The directory, as `status` shows it.
    pub root: String,
    /// The target's name, as `status` shows it.
    pub target: String,
    pub path_b64: String,
    /// How much of the path; at least as much as the source's entry needs. `None`: just that.
    #[serde(default)]
    pub scope: Option<Scope>,
    /// How the path is compared. `None`: a file in full, a directory by sizes and times.
    #[serde(default)]
    pub origin: Option<Origin>,
}

impl NewJob {
    pub fn new(root: &Path, target: &str, path: &RelPath, scope: Option<Scope>) -> Self {
        let (root, target) = (root.display().to_string(), target.to_owned());
        Self { root, target, path_b64: STANDARD.encode(path.as_bytes()), scope, origin: None }
    }

    /// The path, if `path_b64` holds a valid one.
    pub fn path(&self) -> Option<RelPath> {
        RelPath::new(&STANDARD.decode(&self.path_b64).ok()?).ok()
    }
}

/// The size and the records of the store: the answer to `GET /v1/store` and `POST /v1/store/compact`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    pub schema: u32,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes of keys and values among them.
    pub live_bytes: u64,
    /// The value of `bytes` before the store was compacted, if it just was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_before: Option<u64>,
    pub roots: u64,
    pub targets: u64,
    pub directories: u64,
    pub jobs: u64,
    /// Records that cannot be decoded. The next start drops them and compares every target in full.
    pub damaged: u64,
    /// The store lacks its latest changes. The next start compares every target in full.
    pub rolled_back: bool,
    /// Earlier stores that were kept beside this one: damaged stores, and those from before a change of schema.
    pub kept: Vec<KeptStore>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptStore {
    pub path: String,
    pub bytes: u64,
}

/// A duration in the form of the answers: seconds, rounded to the millisecond.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// The name of a state in JSON.
pub fn word(state: impl Serialize) -> String {
    serde_json::to_value(state).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(super) mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::model::Timestamp;

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        parse(&String::deserialize(deserializer)?)
    }

    pub fn parse<E: Error>(text: &str) -> Result<Timestamp, E> {
        humantime::parse_rfc3339(text).map(Timestamp::from_system).map_err(E::custom)
    }
}

pub(super) mod rfc3339_option {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::Timestamp;

    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.collect_str(time),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        match Option::<String>::deserialize(deserializer)? {
            Some(text) => super::rfc3339::parse(&text).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
