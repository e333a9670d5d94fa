//! The bodies of requests, and their answers except status and jobs. The names in both are a promise, as in `types`. An unknown
//! key is refused: if a misspelt key were ignored, the request would mean everything.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::strict;
use super::types::rfc3339_option;
use super::{JobFilter, JobRow, TargetState};
use crate::model::{RelPath, Timestamp};

/// `POST /v1/jobs/retry` and `POST /v1/jobs/purge`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobsRequest {
    #[serde(default, deserialize_with = "strict::object")]
    pub filter: JobFilter,
    /// Required for a purge without a filter.
    #[serde(default)]
    pub all: bool,
    /// Only list the jobs that would be changed.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/pause`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// The name of a target, as `status` shows it.
    #[serde(default)]
    pub target: Option<String>,
    /// All targets of this directory.
    #[serde(default)]
    pub root: Option<String>,
    /// All targets.
    #[serde(default)]
    pub all: bool,
    /// `true` pauses the targets, `false` resumes them.
    pub paused: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    pub targets: Vec<PausedTarget>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedTarget {
    pub name: String,
    pub root: String,
    pub paused: bool,
    /// Whether this request changed it.
    pub changed: bool,
}

/// `POST /v1/accept-deletions` and `/v1/accept-target`. Targets are named as for a pause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptRequest {
    #[serde(default)]
    pub target: Option<String>,
    #[serde(default)]
    pub root: Option<String>,
    #[serde(default)]
    pub all: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The names of the targets.
    pub targets: Vec<String>,
}

/// A path as an operator names it: absolute, relative to a working directory, or as `list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathArg {
    pub path: String,
    /// The path's bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// The operator's working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
}

impl PathArg {
    pub fn new(path: &Path, cwd: Option<PathBuf>) -> Self {
        let path_b64 = path.to_str().is_none().then(|| STANDARD.encode(path.as_os_str().as_bytes()));
        Self { path: path.display().to_string(), path_b64, cwd: cwd.filter(|cwd| cwd.to_str().is_some()) }
    }

    /// The path as the operator gave it; `None` if `path_b64` is not base64.
    pub fn given(&self) -> Option<PathBuf> {
        match &self.path_b64 {
            None => Some(PathBuf::from(&self.path)),
            Some(text) => Some(PathBuf::from(OsString::from_vec(STANDARD.decode(text).ok()?))),
        }
    }
}

/// `POST /v1/reconcile`. An empty request means every tree with every target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconcileRequest {
    #[serde(default)]
    pub target: Option<String>,
    /// Only this path and everything below it.
    #[serde(default, deserialize_with = "strict::object_option")]
    pub path: Option<PathArg>,
}

/// A line of the answer to `POST /v1/survey` (a [`ReconcileRequest`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceRow {
    pub target: String,
    pub root: String,
    /// The path below the root.
    pub path: String,
    /// The path's bytes, only if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    pub change: DifferenceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The path or its attributes would be sent.
    Send,
    /// The path would be deleted from the target.
    Delete,
}

impl DifferenceRow {
    pub fn new(path: &RelPath, change: DifferenceKind, root: &Path, target: &str) -> Self {
        let (path, path_b64) = shown(path);
        Self { target: target.to_owned(), root: root.display().to_string(), path, path_b64, change }
    }
}

/// `POST /v1/verify`. An empty request means every tree with every target, by size and modification time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    #[serde(default)]
    pub target: Option<String>,
    /// Only this path and everything below it.
    #[serde(default, deserialize_with = "strict::object_option")]
    pub path: Option<PathArg>,
    /// Compare contents.
    #[serde(default)]
    pub checksum: bool,
    /// Queue the paths that differ.
    #[serde(default)]
    pub repair: bool,
    /// The most megabytes per second that rsync may read on this machine, on average.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::given")]
    pub budget_mb_s: Option<f64>,
}

/// A line of the answer to `POST /v1/verify`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum VerifyLine {
    Difference(Differing),
    /// The path changed at each look, or its job did not end in time. So nothing is known about it.
    Busy(Differing),
    /// The last line about a target.
    Target(Verified),
}

/// A path and its difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differing {
    pub target: String,
    pub root: String,
    /// The path below the root; empty for the root itself.
    pub path: String,
    /// The path's bytes, only if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    pub kind: DifferingKind,
    /// Why the path cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferingKind {
    /// The target lacks the path.
    Missing,
    /// Only the target has the path.
    Extra,
    /// The target has something else there, such as a file in place of a directory.
    Type,
    Size,
    /// Same size, other content. For a symbolic link: another destination.
    Content,
    /// Modification time. Without `checksum` the content may differ too.
    Time,
    /// Mode, owner, group and the like.
    Attributes,
    /// The path could not be compared.
    Unreadable,
    #[serde(other)]
    Unknown,
}

impl Differing {
    pub fn new(path: &RelPath, kind: DifferingKind, root: &Path, target: &str) -> Self {
        let (path, path_b64) = shown(path);
        Self { target: target.to_owned(), root: root.display().to_string(), path, path_b64, kind, error: None }
    }
}

/// How the comparison with a target ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    pub target: String,
    pub root: String,
    pub differences: u64,
    /// Paths about which nothing is known, since they kept changing.
    pub busy: u64,
    /// Paths that differed and were queued.
    pub repaired: u64,
    /// The bytes that rsync has read on this machine, and the duration.
    pub bytes_read: u64,
    pub elapsed_s: f64,
    /// Why the comparison was broken off.
    pub error: Option<String>,
    pub hint: Option<String>,
}

/// A path as text, and its bytes in base64 if they are not UTF-8.
fn shown(path: &RelPath) -> (String, Option<String>) {
    if path.is_root() {
        return (String::new(), None);
    }
    match std::str::from_utf8(path.as_bytes()) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (path.to_string(), Some(STANDARD.encode(path.as_bytes()))),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// The jobs that make the comparison, one per target.
    pub jobs: Vec<ReconcileJob>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileJob {
    pub target: String,
    pub root: String,
    /// The path below the root; empty for the whole tree.
    pub path: String,
}

/// `POST /v1/wait`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitRequest {
    /// Only changes of this path and of everything below it.
    #[serde(default, deserialize_with = "strict::object_option")]
    pub path: Option<PathArg>,
    /// Only this target.
    #[serde(default)]
    pub target: Option<String>,
    /// Wait until this many targets of each root have everything; `None` for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::given")]
    pub targets: Option<u32>,
    /// Give up after this many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::given")]
    pub timeout_s: Option<f64>,
}

/// A line of the answer to a wait; the last line gives the result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Everything has arrived.
    pub done: bool,
    /// The time limit is over.
    #[serde(default)]
    pub timed_out: bool,
    /// The targets that still lack changes.
    pub missing: Vec<Missing>,
    /// Targets that are equal by size and time, and whose content is still being compared.
    #[serde(default)]
    pub comparing: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub root: String,
    /// `None`: the root itself is in trouble.
    pub target: Option<String>,
    /// The reason for the delay, if it is known.
    pub reason: Option<String>,
    /// Some of the jobs that are waited for.
    pub jobs: Vec<JobRow>,
}

/// The query of `GET /v1/explain`.
pub type ExplainQuery = PathArg;

/// Everything known about a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub root: String,
    /// The path below the root.
    pub path: String,
    /// The kind of the entry at the path: `directory`, `file`, `other` (a symbolic link, for example), `nothing`, or `out of
    /// reach` if the path cannot be looked at or the source is away.
    pub source: String,
    /// Whether the path is mirrored to at least one target. `None` without a daemon, since the filter is unknown then.
    pub mirrored: Option<bool>,
    /// The rule that excludes the path, if one does.
    pub rule: Option<String>,
    pub targets: Vec<TargetExplanation>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetExplanation {
    pub name: String,
    pub state: TargetState,
    /// The job of the path, or the job of a directory above that includes it. Without a job the target is equal at this path,
    /// as far as is known.
    pub job: Option<JobRow>,
    /// The reason for the job's wait.
    pub waits_for: Option<String>,
    /// Why the path is not mirrored to this target although no rule excludes it: rsync's own options, or the server's.
    #[serde(default)]
    pub left_out: Option<String>,
    /// The time of the next attempt, if it is known.
    #[serde(with = "rfc3339_option")]
    pub next_try: Option<Timestamp>,
    /// When a run to the target or a comparison with it last succeeded, since the start.
    #[serde(default, with = "rfc3339_option")]
    pub last_success_at: Option<Timestamp>,
    /// The command line that sends the path, quoted for a shell.
    pub command: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_no_text_survives() {
        for bytes in [&b"a b/c"[..], b"caf\xe9"] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let arg = PathArg::new(&path, Some(PathBuf::from("/srv")));
            let json = serde_json::to_string(&arg).expect("json");
            let back: PathArg = serde_json::from_str(&json).expect("a path");
            assert_eq!((back.given(), back.cwd), (Some(path), Some(PathBuf::from("/srv"))));
        }
        let broken = PathArg { path: "a".to_owned(), path_b64: Some("?".to_owned()), cwd: None };
        assert_eq!(broken.given(), None);
    }

    /// Scripts rely on these keys.
    #[test]
    fn answers_have_the_promised_keys() {
        let (root, target) = ("/srv".to_owned(), "b::www".to_owned());
        let path = RelPath::new(b"caf\xe9").expect("a path");
        let difference = DifferenceRow::new(&path, DifferenceKind::Delete, Path::new("/srv"), "b::www");
        let unreadable = Differing {
            error: Some("denied".to_owned()),
            ..Differing::new(&path, DifferingKind::Unreadable, Path::new("/srv"), "b::www")
        };
        let paused = PausedTarget { name: target.clone(), root: root.clone(), paused: true, changed: false };
        let job = ReconcileJob { target: target.clone(), root: root.clone(), path: "d".to_owned() };
        let missing = Missing { root: root.clone(), target: None, reason: None, jobs: Vec::new() };
        let on_target = TargetExplanation {
            name: target.clone(),
            state: TargetState::NeedsApproval,
            job: None,
            waits_for: None,
            left_out: None,
            next_try: Some(Timestamp(0)),
            last_success_at: None,
            command: None,
        };
        let explanation = Explanation {
            root,
            path: "d".to_owned(),
            source: "file".to_owned(),
            mirrored: Some(true),
            rule: None,
            targets: vec![on_target],
        };
        let json = |value: serde_json::Result<String>| value.expect("json");
        for (json, expected) in [
            (
                json(serde_json::to_string(&difference)),
                r#"{"target":"b::www","root":"/srv","path":"caf\\xe9","path_b64":"Y2Fm6Q==","change":"delete"}"#,
            ),
            (
                json(serde_json::to_string(&Paused { targets: vec![paused] })),
                r#"{"targets":[{"name":"b::www","root":"/srv","paused":true,"changed":false}]}"#,
            ),
            (
                json(serde_json::to_string(&VerifyLine::Difference(Differing::new(
                    &path,
                    DifferingKind::Content,
                    Path::new("/srv"),
                    "b::www",
                )))),
                concat!(
                    r#"{"type":"difference","target":"b::www","root":"/srv","path":"caf\\xe9","path_b64":"Y2Fm6Q==","#,
                    r#""kind":"content"}"#
                ),
            ),
            (
                json(serde_json::to_string(&VerifyLine::Busy(unreadable))),
                concat!(
                    r#"{"type":"busy","target":"b::www","root":"/srv","path":"caf\\xe9","path_b64":"Y2Fm6Q==","#,
                    r#""kind":"unreadable","error":"denied"}"#
                ),
            ),
            (
                json(serde_json::to_string(&VerifyLine::Target(Verified { busy: 1, ..Verified::default() }))),
                concat!(
                    r#"{"type":"target","target":"","root":"","differences":0,"busy":1,"repaired":0,"bytes_read":0,"#,
                    r#""elapsed_s":0.0,"error":null,"hint":null}"#
                ),
            ),
            (json(serde_json::to_string(&Accepted { targets: vec![target] })), r#"{"targets":["b::www"]}"#),
            (
                json(serde_json::to_string(&Reconciled { jobs: vec![job] })),
                r#"{"jobs":[{"target":"b::www","root":"/srv","path":"d"}]}"#,
            ),
            (
                json(serde_json::to_string(&Waiting {
                    done: false,
                    timed_out: true,
                    missing: vec![missing],
                    comparing: vec!["b::www".to_owned()],
                })),
                concat!(
                    r#"{"done":false,"timed_out":true,"missing":[{"root":"/srv","target":null,"reason":null,"jobs":[]}],"#,
                    r#""comparing":["b::www"]}"#
                ),
            ),
            (
                json(serde_json::to_string(&explanation)),
                concat!(
                    r#"{"root":"/srv","path":"d","source":"file","mirrored":true,"rule":null,"targets":[{"name":"b::www","#,
                    r#""state":"needs_approval","job":null,"waits_for":null,"left_out":null,"next_try":"1970-01-01T00:00:00.000Z","#,
                    r#""last_success_at":null,"command":null}]}"#
                ),
            ),
        ] {
            assert_eq!(json, expected);
        }
    }

    #[test]
    fn requests_are_as_short_as_they_can_be_and_unknown_keys_are_refused() {
        assert_eq!(serde_json::from_str::<JobsRequest>("{}").expect("a request"), JobsRequest::default());
        assert_eq!(serde_json::from_str::<WaitRequest>("{}").expect("a request"), WaitRequest::default());
        assert!(serde_json::from_str::<JobsRequest>(r#"{"dryrun":true}"#).is_err());
        assert!(serde_json::from_str::<PauseRequest>("{}").is_err(), "pause or resume?");
    }
}
