//! Asks a daemon over its control socket. A blocking face on hyper: every question has a connection of its own and a
//! time limit, and lists are handed on row by row.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::request::Builder;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::server::BODY_BYTES_MAX;
use super::{JobFilter, JobRow, NewJob, Status, socket_path};

/// How long a daemon may take for the head of an answer, or for the next piece of it.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A status grows with its targets; this is some ten thousand of them.
const STATUS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// One row: two paths of 4 KiB, escaped and in base64, with room to spare.
const ROW_BYTES_MAX: usize = 256 * 1024;

/// Jobs in one request at the most.
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
    #[error("the daemon refused: {message} (HTTP {code})")]
    Refused { code: u16, message: String },
    #[error("the daemon's answer makes no sense")]
    Answer { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot prepare the connection")]
    Runtime { source: io::Error },
}

/// A way to a running daemon.
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
        std::os::unix::net::UnixStream::connect(&client.socket).map_err(|error| client.explain(error))?;
        Ok(client)
    }

    pub fn status(&self) -> Result<Status, ClientError> {
        self.runtime.block_on(async {
            let answer = self.ask("/v1/status").await?;
            let body = limited("status", Limited::new(answer.into_body(), STATUS_BYTES_MAX).collect()).await?;
            serde_json::from_slice(&body.to_bytes()).map_err(|error| ClientError::Answer { source: error.into() })
        })
    }

    /// Hands every matching job to `each`, at most `limit` of them, until it breaks off.
    pub fn jobs(
        &self,
        filter: &JobFilter,
        limit: Option<u64>,
        each: &mut dyn FnMut(JobRow) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let mut body = self.ask(&jobs_query(filter, limit)).await?.into_body();
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

    /// Queues jobs, in as many requests as it takes. One answer each: why it was left out, if so.
    pub fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, ClientError> {
        let unusable = |error: serde_json::Error| ClientError::Answer { source: error.into() };
        let mut answers: Vec<Option<String>> = Vec::with_capacity(jobs.len());
        let mut left = jobs;
        while !left.is_empty() {
            // Halved until it fits; a single job always does.
            let mut count = left.len().min(JOBS_AT_ONCE);
            let body = loop {
                let (now, _) = left.split_at_checked(count).unwrap_or((left, &[]));
                let body = serde_json::to_vec(now).map_err(unusable)?;
                if body.len() <= BODY_BYTES_MAX || count <= 1 {
                    break body;
                }
                count /= 2;
            };
            let taken = self.runtime.block_on(async {
                let request = Request::post("/v1/jobs").header(CONTENT_TYPE, "application/json");
                let answer = self.send(request, Full::new(body.into())).await?;
                let body = limited("answers", Limited::new(answer.into_body(), STATUS_BYTES_MAX).collect()).await?;
                serde_json::from_slice::<Vec<Option<String>>>(&body.to_bytes()).map_err(unusable)
            })?;
            if taken.len() != count {
                return Err(ClientError::Answer { source: "not one answer for each job".into() });
            }
            answers.extend(taken);
            left = left.get(count..).unwrap_or_default();
        }
        Ok(answers)
    }

    async fn ask(&self, path: &str) -> Result<Response<Incoming>, ClientError> {
        self.send(Request::get(path), Full::default()).await
    }

    async fn send(&self, request: Builder, body: Full<Bytes>) -> Result<Response<Incoming>, ClientError> {
        let stream = tokio::net::UnixStream::connect(&self.socket).await.map_err(|error| self.explain(error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ClientError::Broken { source })?;
        // Ends with the answer; what goes wrong in it is reported to the one who reads that.
        tokio::spawn(connection);
        let request =
            request.header(HOST, "syncq").body(body).map_err(|error| ClientError::Answer { source: error.into() })?;
        let answer = in_time(sender.send_request(request)).await?.map_err(|source| ClientError::Broken { source })?;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let code = answer.status().as_u16();
        let body = limited("refusal", Limited::new(answer.into_body(), ROW_BYTES_MAX).collect()).await?;
        let said: Option<serde_json::Value> = serde_json::from_slice(&body.to_bytes()).ok();
        let message = said.as_ref().and_then(|said| said.get("error")?.as_str()).unwrap_or("no reason given");
        Err(ClientError::Refused { code, message: message.to_owned() })
    }

    fn explain(&self, error: io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoDaemon { state_dir: self.state_dir.clone() }
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied { state_dir: self.state_dir.clone() },
            // Too long for a socket, so nothing can listen there.
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

fn jobs_query(filter: &JobFilter, limit: Option<u64>) -> String {
    let mut query = String::from("/v1/jobs?");
    if let Some(state) = filter.state {
        query.push_str(&format!("state={state}&"));
    }
    if let Some(target) = &filter.target {
        query.push_str("target=");
        for byte in target.bytes() {
            if byte.is_ascii_alphanumeric() {
                query.push(char::from(byte))
            } else {
                query.push_str(&format!("%{byte:02X}"))
            }
        }
        query.push('&');
    }
    if let Some(limit) = limit {
        query.push_str(&format!("limit={limit}&"));
    }
    query.pop();
    query
}

/// Cuts a stream of bytes into rows.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn take(
        &mut self,
        data: &[u8],
        each: &mut dyn FnMut(JobRow) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ClientError> {
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.len() > ROW_BYTES_MAX {
                return Err(ClientError::Answer { source: "a row without an end".into() });
            }
            if self.rest.last() != Some(&b'\n') {
                continue;
            }
            let row =
                serde_json::from_slice(&self.rest).map_err(|error| ClientError::Answer { source: error.into() })?;
            self.rest.clear();
            if each(row).is_break() {
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
        let filter = JobFilter { state: Some(JobState::Failed), target: Some("u@h::a b&c=%".to_owned()) };
        assert_eq!(jobs_query(&filter, Some(5)), "/v1/jobs?state=failed&target=u%40h%3A%3Aa%20b%26c%3D%25&limit=5");
        assert_eq!(jobs_query(&JobFilter::default(), None), "/v1/jobs");
    }

    #[test]
    fn a_directory_without_a_socket_has_no_daemon() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(Client::connect(dir.path()), Err(ClientError::NoDaemon { .. })));
        // A socket file whose owner died.
        drop(std::os::unix::net::UnixListener::bind(socket_path(dir.path())).expect("a socket"));
        assert!(matches!(Client::connect(dir.path()), Err(ClientError::NoDaemon { .. })));
    }
}
