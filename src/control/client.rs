//! Sends questions and orders to a daemon over its control socket. Blocking calls on top of hyper: every question has a
//! connection of its own and a time limit, and lists are handed on row by row.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::answer::BODY_BYTES_MAX;
use super::{
    AcceptRequest, Accepted, DifferenceRow, Explanation, JobFilter, JobRow, JobsRequest, NewJob, PathArg, PauseRequest,
    Paused, ReconcileRequest, Reconciled, Reloaded, Status, StoreReport, VerifyLine, VerifyRequest, WaitRequest,
    Waiting, socket_path,
};
use crate::model::JobAction;

/// How long a daemon may take for the head of an answer, or for the next piece of it.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The most bytes of an answer that is one object. A status grows with its targets; this is enough for some ten thousand.
const STATUS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most bytes of one row: two paths of 4 KiB, escaped and in base64, with room to spare.
const ROW_BYTES_MAX: usize = 256 * 1024;

/// The most jobs in one request.
const JOBS_AT_ONCE: usize = 200;

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon is running in {}", .state_dir.display())]
    NoDaemon { state_dir: PathBuf },
    #[error("the daemon in {} belongs to another user", .state_dir.display())]
    Denied { state_dir: PathBuf },
    #[error("cannot connect to {}", .socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the daemon has not answered for {} seconds", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the connection to the daemon broke")]
    Broken { source: hyper::Error },
    #[error("{message}")]
    Refused { message: String, hint: Option<String> },
    #[error("the daemon has stopped before it was done")]
    Ended,
    #[error("the daemon's answer makes no sense")]
    Answer { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot prepare the connection")]
    Runtime { source: io::Error },
}

/// A connection to a running daemon.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    state_dir: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Finds the daemon of a state directory.
    pub fn connect(state_dir: &Path) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| ClientError::Runtime { source })?;
        let client = Self { socket: socket_path(state_dir), state_dir: state_dir.to_owned(), runtime };
        std::os::unix::net::UnixStream::connect(&client.socket).map_err(|error| client.explain_io(error))?;
        Ok(client)
    }

    /// The state directory of the daemon.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    pub fn status(&self) -> Result<Status, ClientError> {
        self.question(Method::GET, "/v1/status", None)
    }

    /// Hands every matching job to `each`, until it breaks off.
    pub fn jobs(&self, filter: &JobFilter, each: &mut dyn FnMut(JobRow) -> ControlFlow<()>) -> Result<(), ClientError> {
        self.lines(Method::GET, &jobs_query(filter), None, each)
    }

    /// Applies `action` to all jobs of the request, and hands each job to `each` as it was before.
    pub fn change(
        &self,
        action: JobAction,
        request: &JobsRequest,
        each: &mut dyn FnMut(JobRow) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let path = match action {
            JobAction::List => return self.jobs(&request.filter, each),
            JobAction::Retry => "/v1/jobs/retry",
            JobAction::Purge => "/v1/jobs/purge",
        };
        self.lines(Method::POST, path, Some(json(request)), each)
    }

    pub fn pause(&self, request: &PauseRequest) -> Result<Paused, ClientError> {
        self.question(Method::POST, "/v1/pause", Some(json(request)))
    }

    /// Counts the store's records. With `compact` the store is first made as small as its records allow.
    pub fn store(&self, compact: bool) -> Result<StoreReport, ClientError> {
        match compact {
            false => self.question(Method::GET, "/v1/store", None),
            true => self.question(Method::POST, "/v1/store/compact", None),
        }
    }

    pub fn accept_deletions(&self, request: &AcceptRequest) -> Result<Accepted, ClientError> {
        self.question(Method::POST, "/v1/accept-deletions", Some(json(request)))
    }

    pub fn accept_target(&self, request: &AcceptRequest) -> Result<Accepted, ClientError> {
        self.question(Method::POST, "/v1/accept-target", Some(json(request)))
    }

    pub fn reconcile(&self, request: &ReconcileRequest) -> Result<Reconciled, ClientError> {
        self.question(Method::POST, "/v1/reconcile", Some(json(request)))
    }

    /// Hands `each` the differences that the reconcile would remove.
    pub fn survey(
        &self,
        request: &ReconcileRequest,
        each: &mut dyn FnMut(DifferenceRow) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.lines(Method::POST, "/v1/survey", Some(json(request)), each)
    }

    /// Hands `each` the differences, and the result for each target.
    pub fn verify(
        &self,
        request: &VerifyRequest,
        each: &mut dyn FnMut(VerifyLine) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.lines(Method::POST, "/v1/verify", Some(json(request)), each)
    }

    /// Waits until everything is mirrored or the request's time limit is over. Returns the daemon's last line.
    pub fn wait(&self, request: &WaitRequest) -> Result<Waiting, ClientError> {
        let mut last = Waiting::default();
        let each = &mut |word: Waiting| {
            last = word;
            ControlFlow::Continue(())
        };
        match self.lines(Method::POST, "/v1/wait", Some(json(request)), each) {
            Ok(()) | Err(ClientError::Broken { .. }) => {}
            Err(error) => return Err(error),
        }
        if last.done || last.timed_out { Ok(last) } else { Err(ClientError::Ended) }
    }

    /// Has the daemon read its configuration again, and returns the outcome.
    pub fn reload(&self) -> Result<Reloaded, ClientError> {
        let mut outcome = None;
        let each = &mut |reloaded: Reloaded| {
            outcome = Some(reloaded);
            ControlFlow::Break(())
        };
        match self.lines(Method::POST, "/v1/reload", None, each) {
            Ok(()) | Err(ClientError::Broken { .. }) => {}
            Err(error) => return Err(error),
        }
        outcome.ok_or(ClientError::Ended)
    }

    pub fn explain(&self, path: &PathArg) -> Result<Explanation, ClientError> {
        let mut query = Query::new("/v1/explain");
        query.add("path", &path.path);
        path.path_b64.iter().for_each(|bytes| query.add("path_b64", bytes));
        path.cwd.iter().filter_map(|cwd| cwd.to_str()).for_each(|cwd| query.add("cwd", cwd));
        self.question(Method::GET, &query.text, None)
    }

    fn question<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        self.runtime.block_on(async {
            let answer = self.ask(method, path, body).await?;
            let body = limited("answer", Limited::new(answer.into_body(), STATUS_BYTES_MAX).collect()).await?;
            serde_json::from_slice(&body.to_bytes()).map_err(|error| ClientError::Answer { source: error.into() })
        })
    }

    fn lines<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        each: &mut dyn FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let mut body = self.ask(method, path, body).await?.into_body();
            let mut lines = Lines::default();
            while let Some(frame) = in_time(body.frame()).await? {
                let frame = frame.map_err(|source| ClientError::Broken { source })?;
                let Ok(data) = frame.into_data() else { continue };
                if lines.take(&data, each)?.is_break() {
                    return Ok(());
                }
            }
            lines.end()
        })
    }

    /// Queues jobs, in as many requests as necessary. Returns one answer per job: `None`, or why the job was left out.
    pub fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, ClientError> {
        let unusable = |error: serde_json::Error| ClientError::Answer { source: error.into() };
        let mut answers: Vec<Option<String>> = Vec::with_capacity(jobs.len());
        let mut left = jobs;
        while !left.is_empty() {
            // The number of jobs is halved until the body fits; a single job always does.
            let mut count = left.len().min(JOBS_AT_ONCE);
            let body = loop {
                let (now, _) = left.split_at_checked(count).unwrap_or((left, &[]));
                let body = serde_json::to_vec(now).map_err(unusable)?;
                if body.len() <= BODY_BYTES_MAX || count <= 1 {
                    break body;
                }
                count /= 2;
            };
            let taken: Vec<Option<String>> = self.question(Method::POST, "/v1/jobs", Some(body))?;
            if taken.len() != count {
                return Err(ClientError::Answer { source: "not one answer for each job".into() });
            }
            answers.extend(taken);
            left = left.get(count..).unwrap_or_default();
        }
        Ok(answers)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response<Incoming>, ClientError> {
        let stream = tokio::net::UnixStream::connect(&self.socket).await.map_err(|error| self.explain_io(error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ClientError::Broken { source })?;
        // The task ends with the answer. Its errors also reach the reader of the answer's body.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "syncq")
            .body(Full::<Bytes>::from(body.unwrap_or_default()))
            .map_err(|error| ClientError::Answer { source: error.into() })?;
        let answer = in_time(sender.send_request(request)).await?.map_err(|source| ClientError::Broken { source })?;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let code = answer.status().as_u16();
        let body = limited("refusal", Limited::new(answer.into_body(), ROW_BYTES_MAX).collect()).await?;
        let problem = serde_json::from_slice(&body.to_bytes())
            .unwrap_or_else(|_| Problem { error: format!("no reason given (HTTP {code})"), hint: None });
        Err(problem.into())
    }

    fn explain_io(&self, error: io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoDaemon { state_dir: self.state_dir.clone() }
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied { state_dir: self.state_dir.clone() },
            // The path is too long for a socket, so nothing can listen there.
            io::ErrorKind::InvalidInput => ClientError::NoDaemon { state_dir: self.state_dir.clone() },
            _ => ClientError::Connect { socket: self.socket.clone(), source: error },
        }
    }
}

async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, ClientError> {
    tokio::time::timeout(SILENCE_MAX, answer).await.map_err(|_| ClientError::Silent)
}

async fn limited<T>(
    what: &str,
    body: impl Future<Output = Result<T, Box<dyn std::error::Error + Send + Sync>>>,
) -> Result<T, ClientError> {
    in_time(body).await?.map_err(|source| {
        log::debug!(what, error:% = source; "unusable answer");
        ClientError::Answer { source }
    })
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// A path with its query, under construction.
struct Query {
    text: String,
}

impl Query {
    fn new(path: &str) -> Self {
        Self { text: path.to_owned() }
    }

    fn add(&mut self, key: &str, value: &str) {
        self.text.push(if self.text.contains('?') { '&' } else { '?' });
        self.text.push_str(key);
        self.text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() {
                self.text.push(char::from(byte))
            } else {
                self.text.push_str(&format!("%{byte:02X}"))
            }
        }
    }
}

fn jobs_query(filter: &JobFilter) -> String {
    let JobFilter { ids: _, state, target, root, path, older_than_s, error, scope, limit } = filter;
    let mut query = Query::new("/v1/jobs");
    let given = [
        ("state", state.map(|state| state.to_string())),
        ("target", target.clone()),
        ("root", root.clone()),
        ("path", path.clone()),
        ("older_than_s", older_than_s.map(|age| age.to_string())),
        ("error", error.clone()),
        ("scope", scope.map(|scope| scope.to_string())),
        ("limit", limit.map(|limit| limit.to_string())),
    ];
    for (key, value) in given {
        value.iter().for_each(|value| query.add(key, value));
    }
    query.text
}

/// The daemon's answer to a request that it refuses, and the last line of a list that breaks off.
#[derive(Debug, Deserialize)]
struct Problem {
    error: String,
    #[serde(default)]
    hint: Option<String>,
}

impl From<Problem> for ClientError {
    fn from(Problem { error, hint }: Problem) -> Self {
        Self::Refused { message: error, hint }
    }
}

/// Splits a stream of bytes into values, one per line.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn take<T: DeserializeOwned>(
        &mut self,
        data: &[u8],
        each: &mut dyn FnMut(T) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ClientError> {
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.len() > ROW_BYTES_MAX {
                return Err(ClientError::Answer { source: "a row without an end".into() });
            }
            if self.rest.last() != Some(&b'\n') {
                continue;
            }
            // An empty line is a sign of life.
            if self.rest == b"\n" {
                self.rest.clear();
                continue;
            }
            let value = match serde_json::from_slice(&self.rest) {
                Ok(value) => value,
                Err(error) => {
                    let problem: Option<Problem> = serde_json::from_slice(&self.rest).ok();
                    return Err(problem.map_or(ClientError::Answer { source: error.into() }, ClientError::from));
                }
            };
            self.rest.clear();
            if each(value).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn end(&self) -> Result<(), ClientError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ClientError::Answer { source: "half a row".into() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::JobState;

    #[test]
    fn a_targets_name_survives_the_query() {
        let target = Some("u@h::a b&c=%".to_owned());
        let filter = JobFilter { state: Some(JobState::Failed), target, limit: Some(5), ..JobFilter::default() };
        assert_eq!(jobs_query(&filter), "/v1/jobs?state=failed&target=u%40h%3A%3Aa%20b%26c%3D%25&limit=5");
        assert_eq!(jobs_query(&JobFilter::default()), "/v1/jobs");
    }

    #[test]
    fn a_directory_without_a_socket_has_no_daemon() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(Client::connect(dir.path()), Err(ClientError::NoDaemon { .. })));
        // A socket file whose daemon has died.
        drop(std::os::unix::net::UnixListener::bind(socket_path(dir.path())).expect("a socket"));
        assert!(matches!(Client::connect(dir.path()), Err(ClientError::NoDaemon { .. })));
    }
}
