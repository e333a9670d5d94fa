//! Serves [`Inspect`] on a Unix socket, from one thread with its own small runtime.
//!
//! Bounds: so many connections, so long for a request's header, so much body, one request a connection, one page of a
//! list in memory. Questions to the daemon run on a helper thread, so a busy lock delays answers and never the
//! runtime. Only root and the daemon's own user are answered. Mirroring never waits for anything here.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Json, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Frame;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Inspect, JobFilter, ListPage, NewJob, SOCKET_PATH_BYTES_MAX, socket_path};
use crate::model::JobState;

/// Further ones wait in the socket's backlog.
const CONNECTIONS_MAX: u32 = 64;
/// A connection that has not sent its whole request head by then is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Larger bodies get 413. Who has more jobs to add asks several times.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
/// What may still be answered after a stop; the rest is cut off.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
/// Threads for questions to the daemon. More would only wait for the same locks.
const HELPERS_MAX: usize = 4;

/// Why the control socket could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the control socket's path {} has {bytes} bytes, at most {SOCKET_PATH_BYTES_MAX} are possible", .path.display())]
    PathTooLong { path: PathBuf, bytes: usize },
    #[error("cannot listen on {}", .path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("cannot start the control thread")]
    Start { source: io::Error },
}

/// The running server. Dropping it stops it.
#[derive(Debug)]
pub struct ControlServer {
    socket: PathBuf,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    /// Dropping it is the signal to stop.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ControlServer {
    /// Listens on the control socket of `state_dir`. A socket file that is already there is taken for a dead daemon's
    /// and replaced, so the caller must hold the lock of the state directory.
    pub fn start(state_dir: &Path, inspect: Arc<dyn Inspect>) -> Result<Self, ControlError> {
        Self::start_with(state_dir, inspect, HEADER_TIMEOUT)
    }

    fn start_with(state_dir: &Path, inspect: Arc<dyn Inspect>, header_timeout: Duration) -> Result<Self, ControlError> {
        let socket = socket_path(state_dir);
        let listener = listen(&socket)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(HELPERS_MAX)
            .build()
            .map_err(|source| ControlError::Start { source })?;
        let listener = {
            let _entered = runtime.enter();
            UnixListener::from_std(listener).map_err(|source| ControlError::Start { source })?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || serve(runtime, listener, router(inspect), header_timeout, stopped))
            .map_err(|source| ControlError::Start { source })?;
        Ok(Self { socket, running: Mutex::new(Some(Running { stop, thread })) })
    }

    /// Whether the socket still has its name; somebody may have removed the state directory.
    pub fn is_reachable(&self) -> bool {
        self.socket.exists()
    }

    /// Ends the server: no new connections, a moment for answers under way, then the socket is gone. Further calls
    /// do nothing.
    pub fn stop(&self) {
        if !self.end() {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.socket) {
            log::debug!(path:% = self.socket.display(), error:%; "the control socket was gone already");
        }
    }

    /// Ends the server and leaves the socket's name to whoever has it by now.
    pub fn abandon(self) {
        self.end();
    }

    fn end(&self) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { stop, thread }) = running else { return false };
        drop(stop);
        if thread.join().is_err() {
            log::error!("the control thread panicked");
        }
        true
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn listen(socket: &Path) -> Result<std::os::unix::net::UnixListener, ControlError> {
    let bytes = socket.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        return Err(ControlError::PathTooLong { path: socket.to_owned(), bytes });
    }
    let set_up = || {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(socket)?;
        // Who connects before this line, under a careless umask, is still asked for his user id.
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    set_up().map_err(|source| ControlError::Listen { path: socket.to_owned(), source })
}

fn serve(
    runtime: tokio::runtime::Runtime,
    listener: UnixListener,
    router: Router,
    header_timeout: Duration,
    stopped: oneshot::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    runtime.block_on(async {
        let accepting = tokio::spawn(accept(listener, router, header_timeout, Arc::clone(&places)));
        // The sender never sends: it is dropped.
        let _ = stopped.await;
        accepting.abort();
        let _ = accepting.await;
        // Every connection holds one place.
        if tokio::time::timeout(STOP_DEADLINE, places.acquire_many(CONNECTIONS_MAX)).await.is_err() {
            log::debug!("control connections were cut off at the stop");
        }
    });
    // A helper that hangs in the daemon must not hold up its stop.
    runtime.shutdown_timeout(Duration::from_millis(100));
}

async fn accept(listener: UnixListener, router: Router, header_timeout: Duration, places: Arc<Semaphore>) {
    let own_uid = rustix::process::geteuid().as_raw();
    // Closed never: the semaphore lives as long as this task.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: without a pause this would spin.
                log::warn!(error:%; "cannot accept a control connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        if !stream.peer_cred().is_ok_and(|peer| may_ask(peer.uid(), own_uid)) {
            log::warn!("refused a control connection of another user");
            continue;
        }
        let router = router.clone();
        tokio::spawn(async move {
            answer(stream, router, header_timeout).await;
            drop(place);
        });
    }
}

/// Whether a peer of user `peer_uid` is answered by a daemon of user `own_uid`.
fn may_ask(peer_uid: u32, own_uid: u32) -> bool {
    peer_uid == 0 || peer_uid == own_uid
}

async fn answer(stream: UnixStream, router: Router, header_timeout: Duration) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        // One request each: an idle connection would hold its place for nothing.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        log::debug!(error:%; "a control connection ended early");
    }
}

fn router(inspect: Arc<dyn Inspect>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/jobs", get(jobs).post(add))
        .fallback(async || problem(StatusCode::NOT_FOUND, "no such thing here; see /v1/status and /v1/jobs"))
        .method_not_allowed_fallback(async || problem(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(inspect)
}

fn problem(code: StatusCode, message: &str) -> Response {
    (code, axum::Json(serde_json::json!({ "error": message }))).into_response()
}

async fn status(State(inspect): State<Arc<dyn Inspect>>) -> Response {
    match tokio::task::spawn_blocking(move || inspect.status()).await {
        Ok(status) => axum::Json(status).into_response(),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the daemon could not tell its status"),
    }
}

async fn add(State(inspect): State<Arc<dyn Inspect>>, body: Result<Json<Vec<NewJob>>, JsonRejection>) -> Response {
    let Json(jobs) = match body {
        Ok(jobs) => jobs,
        Err(rejection) => return problem(rejection.status(), &rejection.body_text()),
    };
    match tokio::task::spawn_blocking(move || inspect.add(&jobs)).await {
        Ok(Ok(answers)) => Json(answers).into_response(),
        Ok(Err(error)) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the daemon could not take the jobs"),
    }
}

/// The query of `/v1/jobs`.
#[derive(Debug, Deserialize)]
struct JobsQuery {
    state: Option<JobState>,
    target: Option<String>,
    limit: Option<u64>,
}

async fn jobs(
    State(inspect): State<Arc<dyn Inspect>>,
    query: Result<Query<JobsQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(rejection) => return problem(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let filter = JobFilter { state: query.state, target: query.target };
    // Room for one: a page is made while the one before it is being sent, and no further.
    let (pages, body) = mpsc::channel(1);
    tokio::spawn(send_pages(inspect, filter, query.limit.unwrap_or(u64::MAX), pages));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(Pages(body))).into_response()
}

async fn send_pages(
    inspect: Arc<dyn Inspect>,
    filter: JobFilter,
    limit: u64,
    pages: mpsc::Sender<Result<Bytes, io::Error>>,
) {
    let mut page = ListPage::first(filter);
    let mut left = limit;
    while left > 0 {
        page.limit = usize::try_from(left).unwrap_or(usize::MAX).min(ListPage::ROWS);
        let inspect = Arc::clone(&inspect);
        let made = tokio::task::spawn_blocking(move || {
            let rows = inspect.list(&page);
            let more = page.advance(&rows);
            let mut lines = Vec::with_capacity(rows.len() * 256);
            for row in &rows {
                serde_json::to_writer(&mut lines, row)?;
                lines.push(b'\n');
            }
            io::Result::Ok((page, rows.len() as u64, more, lines))
        })
        .await;
        let (next, count, more, lines) = match made.map_err(io::Error::other).and_then(|made| made) {
            Ok(made) => made,
            Err(error) => {
                // Without its end the answer is recognisably incomplete.
                let _ = pages.send(Err(error)).await;
                return;
            }
        };
        page = next;
        left = left.saturating_sub(count);
        if (!lines.is_empty() && pages.send(Ok(lines.into())).await.is_err()) || !more {
            return;
        }
    }
}

/// A body that is made while it is being sent.
struct Pages(mpsc::Receiver<Result<Bytes, io::Error>>);

impl hyper::body::Body for Pages {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map(|page| page.map(|page| page.map(Frame::data)))
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
