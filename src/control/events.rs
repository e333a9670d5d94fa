//! `GET /v1/events`: a stream of server-sent events, for views that stay up to date by themselves.
//!
//! The first event is a `status`, at once. Another status follows when something but the age of changes differs, twice a second
//! at most and less often if a look takes long. Between them come the events of the daemon, as they happen. Up to
//! `EVENTS_AHEAD` events wait for a slow reader; further ones are dropped, and an event says how many. Nothing runs while
//! nobody listens.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, mpsc};

use super::answer::{LOOK_SHARE, Pages, Served, WORD, problem, refused};
use super::event::{Dropped, Event};
use super::{Listen, Status};
use crate::clock::monotonic;

/// The most streams at a time.
pub(super) const STREAMS_MAX: usize = 16;
/// The most events that wait for a slow reader.
const EVENTS_AHEAD: usize = 256;
/// The least and the greatest pause between two looks at the status.
const STATUS_MIN: Duration = Duration::from_millis(500);
const STATUS_MAX: Duration = Duration::from_secs(10);

/// Events that were not sent yet, and the number of dropped ones.
#[derive(Default)]
struct Backlog {
    events: Mutex<(VecDeque<Event>, u64)>,
    wake: Notify,
}

impl Listen for Backlog {
    fn hear(&self, event: Event) {
        let mut events = self.events.lock();
        let (waiting, dropped) = &mut *events;
        if waiting.len() < EVENTS_AHEAD {
            waiting.push_back(event)
        } else {
            *dropped += 1
        }
        drop(events);
        self.wake.notify_one();
    }
}

impl Backlog {
    /// Takes all events in the form of the stream; empty if there are none.
    fn take(&self) -> Vec<u8> {
        let (waiting, events) = std::mem::take(&mut *self.events.lock());
        let dropped = (events > 0).then_some(Event::Dropped(Dropped { events }));
        waiting.iter().chain(&dropped).flat_map(|event| frame(event.name(), event)).collect()
    }
}

/// One event in the form of the stream. JSON contains no line breaks.
fn frame(name: &str, data: &impl Serialize) -> Vec<u8> {
    let json = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {json}\n\n").into_bytes()
}

pub(super) async fn events(State(served): State<Served>) -> Response {
    let Ok(place) = Arc::clone(&served.streams).try_acquire_owned() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many clients follow the events already");
    };
    let backlog = Arc::new(Backlog::default());
    let listener = Arc::clone(&backlog);
    let followed = served.ask(move |operate| {
        operate.follow(listener);
        Ok(())
    });
    if let Err(refusal) = followed.await {
        return refused(&refusal);
    }
    let (frames, body) = mpsc::channel(1);
    tokio::spawn(async move {
        send(served, &backlog, frames).await;
        drop(place);
    });
    let head = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (head, Body::new(Pages(body))).into_response()
}

/// Sends frames until the reader or the daemon is gone.
async fn send(served: Served, backlog: &Backlog, frames: mpsc::Sender<Result<Bytes, io::Error>>) {
    let mut shown: Option<Status> = None;
    let mut sent_at = monotonic();
    while !served.stopping.load(Ordering::Relaxed) && !frames.is_closed() {
        let looked_at = monotonic();
        let Ok(status) = served.ask(|operate| Ok(operate.status())).await else { return };
        let next_look = looked_at + (looked_at.elapsed() * LOOK_SHARE).clamp(STATUS_MIN, STATUS_MAX);
        let mut pieces = Vec::new();
        if shown.as_ref().is_none_or(|shown| *shown != timeless(&status)) {
            pieces = frame("status", &status);
            shown = Some(timeless(&status));
        } else if sent_at.elapsed() >= WORD {
            // A comment as a sign of life. Sending it finds out whether the reader has gone.
            pieces = b":\n\n".to_vec();
        }
        loop {
            if !pieces.is_empty() {
                sent_at = monotonic();
                if frames.send(Ok(pieces.into())).await.is_err() {
                    return;
                }
            }
            let left = next_look.saturating_duration_since(monotonic());
            if tokio::time::timeout(left, backlog.wake.notified()).await.is_err() {
                break;
            }
            pieces = backlog.take();
        }
    }
}

/// The status without the figures that change by themselves while nothing happens.
fn timeless(status: &Status) -> Status {
    let mut status = status.clone();
    for target in &mut status.targets {
        (target.lag_s, target.eta_s) = (0.0, None);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::event::{Recovered, Sent, Trouble};
    use crate::model::Timestamp;

    fn sent(paths: u64) -> Event {
        Event::Sent(Sent { target: "b::m".to_owned(), root: "/srv".to_owned(), paths, took_s: 0.5 })
    }

    /// Scripts rely on this form.
    #[test]
    fn events_have_the_promised_form() {
        let names = || ("b::m".to_owned(), "/a\nb".to_owned());
        let ((target, root), (again, there)) = (names(), names());
        let trouble = Trouble { target, root, reason: "away".to_owned(), hint: None, retry_at: Timestamp(0) };
        let recovered = Recovered { target: again, root: there, after_s: 2.0 };
        for (event, text) in [
            (sent(3), "event: sent\ndata: {\"target\":\"b::m\",\"root\":\"/srv\",\"paths\":3,\"took_s\":0.5}\n\n"),
            (
                Event::Trouble(trouble),
                "event: trouble\ndata: {\"target\":\"b::m\",\"root\":\"/a\\nb\",\"reason\":\"away\",\"hint\":null,\
                 \"retry_at\":\"1970-01-01T00:00:00.000Z\"}\n\n",
            ),
            (
                Event::Recovered(recovered),
                "event: recovered\ndata: {\"target\":\"b::m\",\"root\":\"/a\\nb\",\"after_s\":2.0}\n\n",
            ),
            (Event::Dropped(Dropped { events: 7 }), "event: dropped\ndata: {\"events\":7}\n\n"),
        ] {
            assert_eq!(String::from_utf8(frame(event.name(), &event)).expect("text"), text);
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let backlog = Backlog::default();
        for n in 0..EVENTS_AHEAD as u64 + 5 {
            backlog.hear(sent(n));
        }
        let text = String::from_utf8(backlog.take()).expect("text");
        assert_eq!(text.matches("event: sent\n").count(), EVENTS_AHEAD);
        assert!(text.ends_with("event: dropped\ndata: {\"events\":5}\n\n"), "{text}");
        assert!(backlog.take().is_empty());
    }
}
