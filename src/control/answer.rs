//! The parts that answers are made of: what every handler gets, how a request is read, how a refusal and a long answer are
//! written. Which address gives which answer is said in `routes` and `events`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc};

use super::inspect::Operate;
use super::refusal::{Refusal, RefusalKind};
use super::strict::Object;

/// Larger bodies get 413. A client with more jobs to add sends several requests.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
/// The pause between two looks at a long affair is this many times the duration of a look.
pub(super) const LOOK_SHARE: u32 = 20;
/// How often a waiting client gets a line. Writing the line also finds out whether the client has gone.
pub(super) const WORD: Duration = Duration::from_secs(5);

/// The time limits of the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// A connection whose request head is incomplete after this time is closed.
    pub(super) header: Duration,
    /// A body that is incomplete after this time gets 408.
    pub(super) body: Duration,
    /// A client that reads no byte of its answer for this time is given up.
    pub(super) stall: Duration,
}

/// Set when the server is about to stop, so that endless answers end.
pub(super) type Stopping = Arc<AtomicBool>;

/// The state that every handler gets.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) operate: Arc<dyn Operate>,
    pub(super) patience: Patience,
    pub(super) waits: Arc<Semaphore>,
    pub(super) surveys: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) stopping: Stopping,
}

impl Served {
    /// Asks the daemon on a helper thread.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Operate) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let operate = Arc::clone(&self.operate);
        match tokio::task::spawn_blocking(move || question(operate.as_ref())).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal {
                kind: RefusalKind::Unavailable,
                message: "the daemon could not answer".to_owned(),
                hint: Some("please report it with the daemon's log".to_owned()),
            }),
        }
    }

    /// Reads a request's body as JSON. An empty body stands for `{}`.
    pub(super) async fn read<T: DeserializeOwned>(&self, request: Request) -> Result<T, Response> {
        let body = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX);
        let Ok(body) = tokio::time::timeout(self.patience.body, body).await else {
            return Err(problem(StatusCode::REQUEST_TIMEOUT, "the body of the request did not come"));
        };
        let Ok(body) = body else {
            return Err(problem(StatusCode::PAYLOAD_TOO_LARGE, "the body of the request is too large or broken"));
        };
        let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(body).map_err(|error| problem(StatusCode::BAD_REQUEST, &error.to_string()))
    }

    /// Reads a request, asks the daemon, and answers with JSON.
    pub(super) async fn answer<Q, A>(
        &self,
        request: Request,
        question: fn(&dyn Operate, &Q) -> Result<A, Refusal>,
    ) -> Response
    where
        Q: DeserializeOwned + Send + 'static,
        A: serde::Serialize + Send + 'static,
    {
        let Object(query) = match self.read::<Object<Q>>(request).await {
            Ok(query) => query,
            Err(response) => return response,
        };
        match self.ask(move |operate| question(operate, &query)).await {
            Ok(answer) => axum::Json(answer).into_response(),
            Err(refusal) => refused(&refusal),
        }
    }
}

pub(super) fn problem(code: StatusCode, message: &str) -> Response {
    (code, axum::Json(serde_json::json!({ "error": message }))).into_response()
}

pub(super) fn refused(refusal: &Refusal) -> Response {
    let code = match refusal.kind {
        RefusalKind::Wrong => StatusCode::BAD_REQUEST,
        RefusalKind::Unknown => StatusCode::NOT_FOUND,
        RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, axum::Json(refusal_json(refusal))).into_response()
}

pub(super) fn refusal_json(refusal: &Refusal) -> serde_json::Value {
    serde_json::json!({ "error": refusal.message, "hint": refusal.hint })
}

/// A body whose pieces are made while it is being sent.
pub(super) struct Pages(pub(super) mpsc::Receiver<Result<Bytes, io::Error>>);

impl hyper::body::Body for Pages {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map(|page| page.map(|page| page.map(Frame::data)))
    }
}
