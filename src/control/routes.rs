//! The addresses of the control API: takes a request apart, asks [`Operate`], and writes the answer, either one object or lines
//! that may come for hours. `server` and `tcp` bring the connections.
//!
//! Bounds: size and duration of a body, one page of a list in memory, the number of clients that wait, one comparison at a
//! time. Questions to the daemon run on a helper thread, so a busy lock delays answers and never the runtime.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use crossbeam_channel::TryRecvError;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc};

use super::answer::{LOOK_SHARE, Pages, Patience, Served, Stopping, WORD, problem, refusal_json, refused};
use super::events;
use super::strict::{self, Object};
use super::{
    AcceptRequest, ExplainQuery, JobFilter, JobsRequest, ListPage, Listed, Matcher, NewJob, Operate, PauseRequest,
    ReconcileRequest, Refusal, VerifyRequest, Wait, WaitRequest, Waiting,
};
use crate::clock::{Clock, SystemClock, monotonic};
use crate::model::JobAction;

/// The most clients that wait for the mirror at a time. They hold their places for long, and the rest is for other requests.
pub(super) const WAITS_MAX: usize = 32;
/// The least and the greatest pause between two looks at a wait. In between it is a multiple of the time that a look takes.
const LOOK_MIN: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_secs(1);
/// The most rows of a comparison that wait for a slow client.
const SURVEY_ROWS_AHEAD: usize = 64;
/// How often the end of a reload is checked for.
const RELOAD_POLL: Duration = Duration::from_millis(20);

/// The addresses and their handlers.
pub(super) fn router(operate: Arc<dyn Operate>, patience: Patience, stopping: Stopping) -> Router {
    let places = |count| Arc::new(Semaphore::new(count));
    let (waits, surveys, streams) = (places(WAITS_MAX), places(1), places(events::STREAMS_MAX));
    let served = Served { operate, patience, waits, surveys, streams, stopping };
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/jobs", get(jobs).post(add))
        .route("/v1/jobs/retry", post(async |State(served), request| change(served, request, JobAction::Retry).await))
        .route("/v1/jobs/purge", post(async |State(served), request| change(served, request, JobAction::Purge).await))
        .route("/v1/pause", post(pause))
        .route("/v1/store", get(store))
        .route("/v1/store/compact", post(compact_store))
        .route("/v1/accept-deletions", post(accept_deletions))
        .route("/v1/accept-target", post(accept_target))
        .route("/v1/reconcile", post(reconcile))
        .route("/v1/survey", post(survey))
        .route("/v1/verify", post(verify))
        .route("/v1/wait", post(wait))
        .route("/v1/reload", post(reload))
        .route("/v1/explain", get(explain))
        .route("/v1/events", get(events::events))
        .fallback(async || problem(StatusCode::NOT_FOUND, "no such thing here; see /v1/status and /v1/jobs"))
        .method_not_allowed_fallback(async || {
            problem(StatusCode::METHOD_NOT_ALLOWED, "what asks is GET, what changes something is POST")
        })
        .with_state(served)
}

async fn status(State(served): State<Served>) -> Response {
    match served.ask(|operate| Ok(operate.status())).await {
        Ok(status) => axum::Json(status).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn store(State(served): State<Served>) -> Response {
    match served.ask(|operate| operate.store()).await {
        Ok(report) => axum::Json(report).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn compact_store(State(served): State<Served>) -> Response {
    match served.ask(|operate| operate.compact_store()).await {
        Ok(report) => axum::Json(report).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn add(State(served): State<Served>, request: Request) -> Response {
    let jobs: Vec<NewJob> = match served.read::<Vec<Object<NewJob>>>(request).await {
        Ok(jobs) => jobs.into_iter().map(|Object(job)| job).collect(),
        Err(response) => return response,
    };
    match served.ask(move |operate| operate.add(&jobs)).await {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn jobs(State(served): State<Served>, query: Result<Query<JobFilter>, QueryRejection>) -> Response {
    match query {
        Ok(Query(filter)) => stream(served, &filter, false, |operate, page| operate.list(page)),
        Err(rejection) => problem(StatusCode::BAD_REQUEST, &rejection.body_text()),
    }
}

async fn change(served: Served, request: Request, action: JobAction) -> Response {
    let Object(JobsRequest { filter, all, dry_run }) = match served.read(request).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    if action == JobAction::Purge && !all && filter == JobFilter::default() {
        return problem(StatusCode::BAD_REQUEST, "say which jobs to purge, or \"all\": true");
    }
    stream(served, &filter, dry_run, move |operate, page| operate.change(action, page))
}

async fn pause(State(served): State<Served>, request: Request) -> Response {
    served.answer(request, |operate, request: &PauseRequest| operate.pause(request)).await
}

async fn accept_deletions(State(served): State<Served>, request: Request) -> Response {
    served.answer(request, |operate, request: &AcceptRequest| operate.accept_deletions(request)).await
}

async fn accept_target(State(served): State<Served>, request: Request) -> Response {
    served.answer(request, |operate, request: &AcceptRequest| operate.accept_target(request)).await
}

async fn reconcile(State(served): State<Served>, request: Request) -> Response {
    served.answer(request, |operate, request: &ReconcileRequest| operate.reconcile(request)).await
}

async fn explain(State(served): State<Served>, query: Result<Query<ExplainQuery>, QueryRejection>) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return problem(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    match served.ask(move |operate| operate.explain(&query)).await {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// Answers with lines that are made while the answer is being sent.
fn lines(body: mpsc::Receiver<Result<Bytes, io::Error>>) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(Pages(body))).into_response()
}

fn line(value: &impl serde::Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// Fetches page after page and sends the rows.
fn stream(
    served: Served,
    filter: &JobFilter,
    dry_run: bool,
    ask: impl Fn(&dyn Operate, &ListPage) -> Result<Listed, Refusal> + Copy + Send + 'static,
) -> Response {
    let matcher = match Matcher::new(filter, SystemClock.now()) {
        Ok(matcher) => matcher,
        Err(error) => return refused(&error.into()),
    };
    let page = ListPage { dry_run, ..ListPage::first(matcher) };
    // Capacity one: the next page is made while this one is being sent, and no page beyond it.
    let (pages, body) = mpsc::channel(1);
    tokio::spawn(send_pages(served, page, ask, pages));
    lines(body)
}

async fn send_pages(
    served: Served,
    mut page: ListPage,
    ask: impl Fn(&dyn Operate, &ListPage) -> Result<Listed, Refusal> + Copy + Send + 'static,
    pages: mpsc::Sender<Result<Bytes, io::Error>>,
) {
    let mut left = page.wanted.filter.limit.unwrap_or(u64::MAX);
    while left > 0 {
        page.limit = usize::try_from(left).unwrap_or(usize::MAX).min(ListPage::ROWS);
        let asked = page.clone();
        let made = served.ask(move |operate| {
            let listed = ask(operate, &asked)?;
            let mut lines = Vec::with_capacity(listed.rows.len() * 256);
            for row in &listed.rows {
                lines.extend_from_slice(&line(row));
            }
            Ok((listed.rows.len() as u64, listed, lines))
        });
        let (count, listed, lines) = match made.await {
            Ok(made) => made,
            Err(refusal) => {
                let _ = pages.send(Ok(line(&refusal_json(&refusal)))).await;
                return;
            }
        };
        left = left.saturating_sub(count);
        let more = page.advance(&listed);
        if (!lines.is_empty() && pages.send(Ok(lines.into())).await.is_err()) || pages.is_closed() || !more {
            return;
        }
    }
}

async fn survey(State(served): State<Served>, request: Request) -> Response {
    compare(served, request, |operate, request: &ReconcileRequest, rows: &Rows| {
        operate.survey(request, &mut |row| rows.send(&row), &|| rows.are_wanted())
    })
    .await
}

async fn verify(State(served): State<Served>, request: Request) -> Response {
    compare(served, request, |operate, request: &VerifyRequest, rows: &Rows| {
        operate.verify(request, &mut |row| rows.send(&row), &|| rows.are_wanted())
    })
    .await
}

/// The rows of a comparison on their way to the client.
struct Rows(mpsc::Sender<Result<Bytes, io::Error>>);

impl Rows {
    /// Sends a row, and waits for a slow client.
    fn send(&self, row: &impl serde::Serialize) -> ControlFlow<()> {
        match self.0.blocking_send(Ok(line(row))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// Whether the client is still there.
    fn are_wanted(&self) -> bool {
        !self.0.is_closed()
    }
}

/// Compares on a thread of its own, one comparison at a time. A comparison may take hours, and the helper threads are for short
/// questions.
async fn compare<Q: DeserializeOwned + Send + 'static>(
    served: Served,
    request: Request,
    ask: fn(&dyn Operate, &Q, &Rows) -> Result<(), Refusal>,
) -> Response {
    let Object(request): Object<Q> = match served.read(request).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let Ok(place) = Arc::clone(&served.surveys).try_acquire_owned() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "another comparison for looking only is under way");
    };
    let (rows, body) = mpsc::channel(SURVEY_ROWS_AHEAD);
    let operate = Arc::clone(&served.operate);
    let alive = rows.clone();
    let compare = move || {
        let rows = Rows(rows);
        if let Err(refusal) = ask(operate.as_ref(), &request, &rows) {
            let _ = rows.send(&refusal_json(&refusal));
        }
        drop(place);
    };
    if let Err(error) = std::thread::Builder::new().name("survey".to_owned()).spawn(compare) {
        return problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
    }
    tokio::spawn(async move {
        // Signs of life for as long as the comparison holds the other sender.
        while alive.strong_count() > 1 {
            let _ = alive.try_send(Ok(Bytes::from_static(b"\n")));
            for _ in 0..(WORD.as_millis() / LOOK_MAX.as_millis() * 10) {
                tokio::time::sleep(LOOK_MAX / 10).await;
                if alive.strong_count() <= 1 {
                    return;
                }
            }
        }
    });
    lines(body)
}

async fn wait(State(served): State<Served>, request: Request) -> Response {
    let Object(request): Object<WaitRequest> = match served.read(request).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let Ok(place) = Arc::clone(&served.waits).try_acquire_owned() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many clients are waiting already");
    };
    let timeout = match request.timeout_s.map(strict::duration).transpose() {
        Ok(timeout) => timeout,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("timeout_s: {error}")),
    };
    let wait = match served.ask(move |operate| operate.wait(&request)).await {
        Ok(wait) => wait,
        Err(refusal) => return refused(&refusal),
    };
    let (words, body) = mpsc::channel(1);
    tokio::spawn(async move {
        send_words(served, wait, timeout, words).await;
        drop(place);
    });
    lines(body)
}

async fn reload(State(served): State<Served>) -> Response {
    let outcome = match served.ask(|operate| operate.reload()).await {
        Ok(outcome) => outcome,
        Err(refusal) => return refused(&refusal),
    };
    let (words, body) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut told = monotonic();
        loop {
            match outcome.try_recv() {
                Ok(reloaded) => return drop(words.send(Ok(line(&reloaded))).await),
                // The daemon stops. The client notices that the line is missing.
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => tokio::time::sleep(RELOAD_POLL).await,
            }
            if told.elapsed() >= WORD {
                told = monotonic();
                if words.send(Ok(Bytes::from_static(b"\n"))).await.is_err() {
                    return;
                }
            }
        }
    });
    lines(body)
}

/// Looks at a wait until it is over, and sends a line now and then.
async fn send_words(
    served: Served,
    mut wait: Box<dyn Wait>,
    timeout: Option<Duration>,
    words: mpsc::Sender<Result<Bytes, io::Error>>,
) {
    let begun = monotonic();
    let mut told = begun;
    loop {
        let looked_at = monotonic();
        let looked = served.ask(move |_| {
            let waiting = wait.look()?;
            Ok((wait, waiting))
        });
        let waiting;
        (wait, waiting) = match looked.await {
            Ok(looked) => looked,
            Err(refusal) => {
                let _ = words.send(Ok(line(&refusal_json(&refusal)))).await;
                return;
            }
        };
        let timed_out = !waiting.done && timeout.is_some_and(|timeout| begun.elapsed() >= timeout);
        let is_last = waiting.done || timed_out;
        if is_last || told.elapsed() >= WORD {
            told = monotonic();
            if words.send(Ok(line(&Waiting { timed_out, ..waiting }))).await.is_err() || is_last {
                return;
            }
        }
        let rest = (looked_at.elapsed() * LOOK_SHARE).clamp(LOOK_MIN, LOOK_MAX);
        let left = timeout.map_or(rest, |timeout| timeout.saturating_sub(begun.elapsed()));
        tokio::time::sleep(rest.min(left.max(Duration::from_millis(1)))).await;
    }
}
