//! The router called in memory, and the server over its real socket.

mod streams;

use std::io::{Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream as StdStream;

use axum::body::Bytes;
use axum::http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::service::Service as _;

use super::*;
use crate::clock::monotonic;
use crate::control::answer::BODY_BYTES_MAX;
use crate::control::events;
use crate::control::routes::WAITS_MAX;
use crate::control::{
    Client, ClientError, DaemonState, Event, Inspect, JobFilter, JobRow, JobsRequest, ListPage, Listed, Listen,
    Matcher, NewJob, PauseRequest, Paused, Refusal, RefusalKind, Sent, Status, StoreReport, StoreState, StoreStatus,
    TcpOptions, TcpServer, Token, Wait, WaitRequest, Waiting, WatchStatus, each_job,
};
use crate::model::{Generation, Job, JobAction, JobId, JobState, Origin, RelPath, Scope, TargetId, Timestamp};

/// A daemon with `jobs` ready jobs of one target, without the purged ones.
#[derive(Default)]
struct Fake {
    jobs: u64,
    purged: Mutex<std::collections::BTreeSet<u64>>,
    /// After this many changes the store fails.
    breaks_after: Option<usize>,
    /// The listeners of the event stream.
    listeners: Mutex<Vec<std::sync::Weak<dyn Listen>>>,
}

const TARGET: &str = "u@h::m/a b";

impl Fake {
    fn with(jobs: u64) -> Self {
        Self { jobs, ..Self::default() }
    }
}

impl Inspect for Fake {
    fn status(&self) -> Status {
        Status {
            version: "0".to_owned(),
            state: DaemonState::Running,
            pid: 1 + self.purged.lock().len() as u32,
            started_at: Some(Timestamp(1_000)),
            configs: Vec::new(),
            config: None,
            roots: Vec::new(),
            targets: Vec::new(),
            store: StoreStatus { state: StoreState::Ok, bytes: 0, error: None },
            watches: WatchStatus::default(),
            plugins: Vec::new(),
        }
    }

    fn store(&self) -> Result<StoreReport, Refusal> {
        Ok(StoreReport { jobs: self.jobs, ..StoreReport::default() })
    }

    fn list(&self, page: &ListPage) -> Result<Listed, Refusal> {
        assert!(page.limit <= ListPage::ROWS, "a page stays small");
        if !page.wanted.wants_target(TARGET, Path::new("/srv")) {
            return Err(Refusal::new(RefusalKind::Unknown, "no such target", "look"));
        }
        let next = match &page.after {
            Some((_, path)) => path.to_string().trim_start_matches('f').parse::<u64>().expect("a place of ours") + 1,
            None => 0,
        };
        let purged = self.purged.lock();
        let jobs: Vec<Job> = (next..self.jobs)
            .filter(|n| !purged.contains(n))
            .map(|n| job(n, &format!("f{n:06}")))
            .filter(|job| page.wanted.wants(job))
            .take(page.limit)
            .collect();
        let next = jobs.last().filter(|_| jobs.len() == page.limit).map(|job| (job.target, job.path.clone()));
        Ok(Listed { rows: jobs.iter().map(|job| JobRow::new(job, Path::new("/srv"), TARGET)).collect(), next })
    }
}

impl Operate for Fake {
    /// Accepts the jobs of the one known target.
    fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, Refusal> {
        let refused = |job: &NewJob| (job.target != "h::m").then(|| format!("no {}", job.target));
        Ok(jobs.iter().map(refused).collect())
    }

    fn change(&self, action: JobAction, page: &ListPage) -> Result<Listed, Refusal> {
        let listed = self.list(page)?;
        let mut purged = self.purged.lock();
        if action == JobAction::Purge && !page.dry_run {
            if self.breaks_after.is_some_and(|most| purged.len() >= most) {
                return Err(Refusal::new(RefusalKind::Unavailable, "the store is full", "make room"));
            }
            purged.extend(listed.rows.iter().map(|row| row.id));
        }
        Ok(listed)
    }

    fn compact_store(&self) -> Result<StoreReport, Refusal> {
        Ok(StoreReport { bytes_before: Some(7), ..self.store()? })
    }

    fn pause(&self, request: &PauseRequest) -> Result<Paused, Refusal> {
        match request.target.as_deref() {
            Some(TARGET) => Ok(Paused { targets: Vec::new() }),
            _ => Err(Refusal::new(RefusalKind::Unknown, "no such target", "look")),
        }
    }

    fn follow(&self, listener: Arc<dyn Listen>) {
        self.listeners.lock().push(Arc::downgrade(&listener));
    }

    fn wait(&self, request: &WaitRequest) -> Result<Box<dyn Wait>, Refusal> {
        /// A wait that is over after this many looks.
        struct Looks(u32);
        impl Wait for Looks {
            fn look(&mut self) -> Result<Waiting, Refusal> {
                self.0 = self.0.saturating_sub(1);
                Ok(Waiting { done: self.0 == 0, ..Waiting::default() })
            }
        }
        Ok(Box::new(Looks(request.targets.unwrap_or(u32::MAX))))
    }
}

fn job(id: u64, path: &str) -> Job {
    Job {
        id: JobId(id),
        target: TargetId(1),
        path: RelPath::new(path.as_bytes()).expect("a valid path"),
        scope: Scope::Entry,
        origin: Origin::Write,
        state: JobState::Ready,
        generation: Generation::FIRST,
        queued_at: Timestamp(1_000),
        changed_at: Timestamp(1_000),
        attempts: 0,
        due_at: Timestamp::ZERO,
        partial: false,
        last_error: None,
    }
}

fn in_memory(jobs: u64, method: &str, path: &str, body: &str) -> (StatusCode, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let service = TowerToHyperService::new(router(Arc::new(Fake::with(jobs)), PATIENCE, Stopping::default()));
        let body = Full::<Bytes>::from(body.to_owned());
        let request = Request::builder().method(method).uri(path).body(body).expect("a request");
        let answer = service.call(request).await.expect("an answer");
        let code = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (code, String::from_utf8(body.to_vec()).expect("text"))
    })
}

fn count(client: &Client, filter: &JobFilter) -> u64 {
    let mut count = 0;
    let mut each = |_| {
        count += 1;
        ControlFlow::Continue(())
    };
    client.jobs(filter, &mut each).expect("a list");
    count
}

#[test]
fn answers_what_it_knows_and_refuses_the_rest_in_json() {
    let (code, body) = in_memory(0, "GET", "/v1/status", "");
    assert_eq!(code, StatusCode::OK);
    assert!(body.contains(r#""store":{"state":"ok""#), "{body}");
    let (code, body) = in_memory(3, "GET", "/v1/jobs?limit=2", "");
    assert_eq!((code, body.lines().count()), (StatusCode::OK, 2));
    assert_eq!(in_memory(3, "GET", "/v1/jobs?limit=0", ""), (StatusCode::OK, String::new()));
    assert_eq!(in_memory(3, "GET", "/v1/jobs?state=failed", ""), (StatusCode::OK, String::new()));
    assert_eq!(in_memory(3, "GET", "/v1/jobs?path=*1", "").1.lines().count(), 1);
    for (method, path, body, code) in [
        ("GET", "/v1/jobs?state=lost", "", StatusCode::BAD_REQUEST),
        ("GET", "/v1/jobs?stat=failed", "", StatusCode::BAD_REQUEST),
        ("GET", "/v1/jobs?path=%5B", "", StatusCode::BAD_REQUEST),
        ("GET", "/", "", StatusCode::NOT_FOUND),
        ("POST", "/v1/status", "", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/v1/jobs/purge", "", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "/v1/jobs/purge", "", StatusCode::BAD_REQUEST),
        ("POST", "/v1/jobs/purge", r#"{"filter":{"stat":"failed"}}"#, StatusCode::BAD_REQUEST),
        ("POST", "/v1/jobs/purge", "purge all", StatusCode::BAD_REQUEST),
        ("POST", "/v1/pause", r#"{"target":"x","paused":true}"#, StatusCode::NOT_FOUND),
        ("POST", "/v1/reconcile", "{}", StatusCode::SERVICE_UNAVAILABLE),
        ("GET", "/v1/explain?path=a", "", StatusCode::SERVICE_UNAVAILABLE),
        ("GET", "/v1/explain", "", StatusCode::BAD_REQUEST),
    ] {
        let (given, answer) = in_memory(3, method, path, body);
        let json: serde_json::Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{path}: {e}: {answer}"));
        assert!(given == code && json["error"].is_string(), "{method} {path} {body}: {given} {answer}");
    }
    let huge = format!(r#"{{"filter":{{"error":"{}"}}}}"#, "x".repeat(BODY_BYTES_MAX));
    assert_eq!(in_memory(3, "POST", "/v1/jobs/purge", &huge).0, StatusCode::PAYLOAD_TOO_LARGE);
}

/// If an unreadable part of a filter were left out, the request would concern more jobs.
#[test]
fn nothing_is_changed_by_what_cannot_be_understood() {
    for path in ["/v1/jobs/purge", "/v1/jobs/retry"] {
        for body in [
            "[]",
            "[{}]",
            r#"[{},true]"#,
            "null",
            r#"{"filter":[],"all":true}"#,
            r#"{"filter":null,"all":true}"#,
            r#"{"filter":{"older_than_s":-5},"all":true}"#,
            r#"{"filter":{"older_than_s":-1e300}}"#,
            r#"{"filter":{"older_than_s":1e999}}"#,
            r#"{"filter":{"older_than_s":null},"all":true}"#,
            r#"{"filter":{"ids":[]},"all":true}"#,
            r#"{"filter":{"ids":[-1]}}"#,
            r#"{"filter":{"limit":-1}}"#,
        ] {
            let (code, answer) = in_memory(3, "POST", path, body);
            assert!(code == StatusCode::BAD_REQUEST && answer.contains("error"), "{path} {body}: {code} {answer}");
        }
        // An age that no job can have.
        for age in ["18446744073709551615", "1e300", "1e10"] {
            let body = format!(r#"{{"filter":{{"older_than_s":{age}}}}}"#);
            assert_eq!(in_memory(3, "POST", path, &body), (StatusCode::OK, String::new()), "{path} {age}");
        }
    }
    for query in ["older_than_s=nan", "older_than_s=inf", "older_than_s=-1", "older_than_s=", "limit=-1", "target="] {
        let (code, answer) = in_memory(3, "GET", &format!("/v1/jobs?{query}"), "");
        assert!(code == StatusCode::BAD_REQUEST, "{query}: {code} {answer}");
    }
    for path in ["/v1/reconcile", "/v1/survey", "/v1/verify", "/v1/wait", "/v1/pause", "/v1/accept-deletions"] {
        assert_eq!(in_memory(3, "POST", path, "[]").0, StatusCode::BAD_REQUEST, "{path}");
    }
    for body in [r#"{"timeout_s":-1}"#, r#"{"timeout_s":null}"#, r#"{"targets":-1}"#] {
        assert_eq!(in_memory(3, "POST", "/v1/wait", body).0, StatusCode::BAD_REQUEST, "{body}");
    }
}

#[test]
fn a_list_of_many_pages_streams_in_order_and_complete() {
    let jobs = ListPage::ROWS as u64 * 2 + 100;
    let (_, body) = in_memory(jobs, "GET", "/v1/jobs", "");
    let ids: Vec<u64> = body.lines().map(|line| serde_json::from_str::<JobRow>(line).expect("a row").id).collect();
    assert_eq!(ids, (0..jobs).collect::<Vec<_>>());
    let mut seen = 0;
    let fake = Fake::with(jobs);
    let page = ListPage::first(Matcher::new(&JobFilter::default(), Timestamp(0)).expect("a filter"));
    let listed = each_job(page, |page| fake.list(page), &mut |_| {
        seen += 1;
        ControlFlow::Continue(())
    });
    assert_eq!((listed, seen), (Ok(()), jobs));
}

#[test]
fn what_is_purged_is_told_row_by_row_and_a_dry_run_purges_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let fake = Arc::new(Fake { jobs: 1_200, breaks_after: Some(1_000), ..Fake::default() });
    let _server = ControlServer::start(dir.path(), Arc::<Fake>::clone(&fake)).expect("a server");
    let client = Client::connect(dir.path()).expect("a client");
    let purge = |request: JobsRequest| {
        let mut rows = 0;
        let result = client.change(JobAction::Purge, &request, &mut |_| {
            rows += 1;
            ControlFlow::Continue(())
        });
        (rows, result.map_err(|error| error.to_string()))
    };
    let all = JobsRequest { all: true, ..JobsRequest::default() };
    assert_eq!(purge(JobsRequest { dry_run: true, ..all.clone() }), (1_200, Ok(())));
    assert_eq!(count(&client, &JobFilter::default()), 1_200);
    let three = JobFilter { ids: vec![3, 5, 9_999], ..JobFilter::default() };
    assert_eq!(purge(JobsRequest { filter: three, ..JobsRequest::default() }), (2, Ok(())));
    // The jobs that were purged before the store broke are told, and then the failure.
    assert_eq!(purge(all), (1_000, Err("the store is full".to_owned())));
    assert_eq!(count(&client, &JobFilter::default()), 198);
}

#[test]
fn a_wait_ends_by_itself_or_with_its_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let _server = ControlServer::start(dir.path(), Arc::new(Fake::default())).expect("a server");
    let client = Client::connect(dir.path()).expect("a client");
    let ends = client.wait(&WaitRequest { targets: Some(5), ..WaitRequest::default() }).expect("a word");
    assert!(ends.done && !ends.timed_out);
    let late = client.wait(&WaitRequest { timeout_s: Some(0.1), ..WaitRequest::default() }).expect("a word");
    assert!(!late.done && late.timed_out);
}

/// Waiting clients take only some of the places.
#[test]
fn two_hundred_clients_that_wait_leave_room_for_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = ControlServer::start(dir.path(), Arc::new(Fake::default())).expect("a server");
    let mut waiting: Vec<StdStream> = Vec::new();
    for _ in 0..200 {
        // The backlog is full now and then, and `connect` waits for a moment.
        let mut stream = StdStream::connect(socket_path(dir.path())).expect("a connection");
        stream.write_all(b"POST /v1/wait HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").expect("a request");
        waiting.push(stream);
    }
    let client = Client::connect(dir.path()).expect("a client");
    assert_eq!(client.status().expect("a status").pid, 1);
    let mut refused = 0;
    for stream in &mut waiting {
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let mut head = [0; 12];
        refused += usize::from(stream.read_exact(&mut head).is_ok() && head.ends_with(b"503"));
    }
    assert_eq!(refused, 200 - WAITS_MAX);
    server.stop();
}

#[test]
fn serves_its_own_user_over_the_socket_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    // The socket file of a dead daemon is in the way.
    drop(std::os::unix::net::UnixListener::bind(socket_path(dir.path())).expect("a socket"));
    let server = ControlServer::start(dir.path(), Arc::new(Fake::with(600))).expect("a server");
    let mode = std::fs::metadata(socket_path(dir.path())).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let client = Client::connect(dir.path()).expect("a client");
    assert_eq!(client.status().expect("a status").state, DaemonState::Running);
    assert_eq!(count(&client, &JobFilter::default()), 600);
    assert_eq!(count(&client, &JobFilter { limit: Some(7), ..JobFilter::default() }), 7);
    let target = Some(TARGET.to_owned());
    let named = JobFilter { state: Some(JobState::Ready), target, ..JobFilter::default() };
    assert_eq!(count(&client, &named), 600);
    let other = JobFilter { target: Some("u@h::m".to_owned()), ..JobFilter::default() };
    let refused = client.jobs(&other, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(&refused, Err(ClientError::Refused { hint: Some(hint), .. }) if hint == "look"), "{refused:?}");
    let mut seen = 0;
    let stopping = client.jobs(&JobFilter::default(), &mut |_| {
        seen += 1;
        ControlFlow::Break(())
    });
    assert!(stopping.is_ok() && seen == 1);

    server.stop();
    server.stop();
    assert!(!socket_path(dir.path()).exists());
    assert!(matches!(client.status(), Err(ClientError::NoDaemon { .. })));
}

/// Opens a connection for a list that fills every buffer, and reads nothing.
#[test]
fn clients_that_do_not_read_or_do_not_send_lose_their_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let short = Duration::from_millis(300);
    let patience = Patience { header: short, body: short, stall: short };
    let server = ControlServer::start_with(dir.path(), Arc::new(Fake::with(50_000)), patience).expect("a server");
    let client = Client::connect(dir.path()).expect("a client");
    for request in [
        &b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ] {
        let idle: Vec<StdStream> = (0..CONNECTIONS_MAX)
            .map(|_| {
                let mut stream = StdStream::connect(socket_path(dir.path())).expect("a connection");
                stream.write_all(request).expect("a request");
                stream
            })
            .collect();
        assert_eq!(client.status().expect("a status").pid, 1);
        drop(idle);
    }
    server.stop();
}

/// Idle connections held their places for the whole header timeout, and clients behind them gave up.
#[test]
fn clients_that_ask_nothing_make_room_for_those_that_ask() {
    let dir = tempfile::tempdir().expect("a directory");
    let hour = Duration::from_secs(3_600);
    let patience = Patience { header: hour, body: hour, stall: hour };
    let server = ControlServer::start_with(dir.path(), Arc::new(Fake::with(3)), patience).expect("a server");
    let connect = || std::os::unix::net::UnixStream::connect(socket_path(dir.path())).expect("connects");
    let mut idle: Vec<_> = (0..300).map(|_| connect()).collect();
    for _ in 0..10 {
        let client = Client::connect(dir.path()).expect("a client");
        client.status().expect("an answer");
        idle.extend((0..20).map(|_| connect()));
    }
    // The oldest of the idle connections are closed.
    use std::io::Read as _;
    let first = &mut idle[0];
    first.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    assert_eq!(first.read(&mut [0; 1]).expect("an end"), 0);
    drop(idle);
    server.stop();
}

#[test]
fn garbage_and_half_requests_hold_up_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let patience = Patience { header: Duration::from_millis(300), ..PATIENCE };
    let server = ControlServer::start_with(dir.path(), Arc::new(Fake::with(1)), patience).expect("a server");
    let connect = || StdStream::connect(socket_path(dir.path())).expect("a connection");

    // As many connections as there are places: the next client gets in when the header timeout has closed them.
    let mut halves: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connect()).collect();
    for (n, half) in halves.iter_mut().enumerate() {
        let part: &[u8] = if n % 2 == 0 { b"GET /v1/status HTTP/1.1\r\nHost:" } else { b"" };
        half.write_all(part).expect("half a request");
    }
    let client = Client::connect(dir.path()).expect("a client");
    assert_eq!(client.status().expect("a status").pid, 1);
    for mut half in halves {
        let mut rest = Vec::new();
        let _ = half.read_to_end(&mut rest);
    }

    for garbage in [&b"\x16\x03\x01\0\xff garbage\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", &[b'A'; 1_000_000]] {
        let mut stream = connect();
        let _ = stream.write_all(garbage);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(client.status().expect("a status").pid, 1);

    // A client that stops in the middle of a request does not hold up the stop.
    let mut half = connect();
    half.write_all(b"GET /v1/jobs HTTP/1.1\r\n").expect("half a request");
    server.stop();
}

#[test]
fn only_root_and_the_own_user_may_ask() {
    assert!(may_ask(0, 1000) && may_ask(1000, 1000));
    assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
}

#[test]
fn a_path_too_long_for_a_socket_is_a_clear_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let deep = dir.path().join("d".repeat(110));
    std::fs::create_dir(&deep).expect("a directory");
    let error = ControlServer::start(&deep, Arc::new(Fake::default())).expect_err("too long");
    assert!(matches!(error, ControlError::PathTooLong { .. }), "{error}");
    assert!(matches!(Client::connect(&deep), Err(ClientError::NoDaemon { .. })));
}

#[test]
fn jobs_are_added_in_pieces_that_fit_and_each_gets_its_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = ControlServer::start(dir.path(), Arc::new(Fake::default())).expect("a server");
    let client = Client::connect(dir.path()).expect("a client");
    let job = |n: u64| {
        let target = if n.is_multiple_of(3) { "x::y" } else { "h::m" };
        // Some of these paths are so long that only tens of jobs fit into a request.
        let name = format!("{n}").repeat(if n < 100 { 500 } else { 1 });
        NewJob::new(Path::new("/srv"), target, &RelPath::new(name.as_bytes()).expect("a path"), None)
    };
    let jobs: Vec<NewJob> = (0..1_000).map(job).collect();
    let answers = client.add(&jobs).expect("answers");
    let expected: Vec<Option<String>> =
        (0..1_000u64).map(|n| n.is_multiple_of(3).then(|| "no x::y".to_owned())).collect();
    assert_eq!(answers, expected);
    assert_eq!(client.add(&[]).expect("no answers"), []);
    server.stop();
}
