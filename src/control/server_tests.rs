//! The router called in memory, and the server over its real socket.

use std::io::{Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream as StdStream;

use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::service::Service as _;

use super::*;
use crate::control::{
    AddError, Client, ClientError, DaemonState, JobRow, Status, StoreState, StoreStatus, WatchStatus, each_job,
};
use crate::model::{Generation, Job, JobId, Origin, RelPath, Scope, TargetId, Timestamp};

/// Holds `jobs` ready jobs of one target.
struct Fake {
    jobs: u64,
}

impl Inspect for Fake {
    fn status(&self) -> Status {
        Status {
            version: "0".to_owned(),
            state: DaemonState::Running,
            pid: 1,
            started_at: Some(Timestamp(1_000)),
            configs: Vec::new(),
            roots: Vec::new(),
            targets: Vec::new(),
            store: StoreStatus { state: StoreState::Ok, bytes: 0, error: None },
            watches: WatchStatus::default(),
            plugins: Vec::new(),
        }
    }

    fn list(&self, page: &ListPage) -> Vec<JobRow> {
        assert!(page.limit <= ListPage::ROWS, "a page stays small");
        let name = |n: u64| format!("f{n:06}");
        let next = match &page.after {
            Some((_, path)) => path.to_string().trim_start_matches('f').parse::<u64>().expect("a place of ours") + 1,
            None => 0,
        };
        (next..self.jobs)
            .filter(|_| page.filter.state.is_none_or(|state| state == JobState::Ready))
            .filter(|_| page.filter.target.as_deref().is_none_or(|name| name == "u@h::m/a b"))
            .take(page.limit)
            .map(|n| JobRow::new(&job(n, &name(n)), Path::new("/srv"), "u@h::m/a b"))
            .collect()
    }

    /// Takes what it knows the target of.
    fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, AddError> {
        let refused = |job: &NewJob| (job.target != "h::m").then(|| format!("no {}", job.target));
        Ok(jobs.iter().map(refused).collect())
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
        last_error: None,
    }
}

fn in_memory(jobs: u64, method: &str, path: &str) -> (StatusCode, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let service = TowerToHyperService::new(router(Arc::new(Fake { jobs })));
        let request = Request::builder().method(method).uri(path).body(Empty::<Bytes>::new()).expect("a request");
        let answer = service.call(request).await.expect("an answer");
        let code = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (code, String::from_utf8(body.to_vec()).expect("text"))
    })
}

fn count(client: &Client, filter: &JobFilter, limit: Option<u64>) -> usize {
    let mut rows = 0;
    let mut each = |_| {
        rows += 1;
        ControlFlow::Continue(())
    };
    client.jobs(filter, limit, &mut each).expect("a list");
    rows
}

#[test]
fn the_router_answers_and_refuses() {
    let (code, body) = in_memory(0, "GET", "/v1/status");
    assert_eq!(code, StatusCode::OK);
    assert!(body.contains(r#""state":"running""#) && body.contains(r#""store":{"state":"ok""#), "{body}");
    let (code, body) = in_memory(3, "GET", "/v1/jobs?limit=2");
    assert_eq!((code, body.lines().count()), (StatusCode::OK, 2));
    assert_eq!(in_memory(3, "GET", "/v1/jobs?limit=0"), (StatusCode::OK, String::new()));
    assert_eq!(in_memory(3, "GET", "/v1/jobs?state=failed"), (StatusCode::OK, String::new()));
    assert_eq!(in_memory(0, "GET", "/v1/jobs?state=lost").0, StatusCode::BAD_REQUEST);
    assert_eq!(in_memory(0, "GET", "/").0, StatusCode::NOT_FOUND);
    assert_eq!(in_memory(0, "POST", "/v1/status").0, StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn a_list_of_many_pages_streams_in_order_and_complete() {
    let jobs = ListPage::ROWS as u64 * 2 + 100;
    let (_, body) = in_memory(jobs, "GET", "/v1/jobs");
    let ids: Vec<u64> = body.lines().map(|line| serde_json::from_str::<JobRow>(line).expect("a row").id).collect();
    assert_eq!(ids, (0..jobs).collect::<Vec<_>>());
    let mut seen = 0;
    each_job(&Fake { jobs }, &JobFilter::default(), &mut |_| {
        seen += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(seen, jobs);
}

#[test]
fn serves_its_own_user_over_the_socket_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    // A dead daemon's socket is in the way.
    drop(std::os::unix::net::UnixListener::bind(socket_path(dir.path())).expect("a socket"));
    let server = ControlServer::start(dir.path(), Arc::new(Fake { jobs: 600 })).expect("a server");
    let mode = std::fs::metadata(socket_path(dir.path())).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let client = Client::connect(dir.path()).expect("a client");
    assert_eq!(client.status().expect("a status").state, DaemonState::Running);
    assert_eq!(count(&client, &JobFilter::default(), None), 600);
    assert_eq!(count(&client, &JobFilter::default(), Some(7)), 7);
    let named = JobFilter { state: Some(JobState::Ready), target: Some("u@h::m/a b".to_owned()) };
    assert_eq!(count(&client, &named, None), 600);
    let other = JobFilter { state: None, target: Some("u@h::m".to_owned()) };
    assert_eq!(count(&client, &other, None), 0);
    let mut seen = 0;
    let stopping = client.jobs(&JobFilter::default(), None, &mut |_| {
        seen += 1;
        ControlFlow::Break(())
    });
    assert!(stopping.is_ok() && seen == 1);

    server.stop();
    server.stop();
    assert!(!socket_path(dir.path()).exists());
    assert!(matches!(client.status(), Err(ClientError::NoDaemon { .. })));
}

#[test]
fn garbage_and_half_requests_hold_up_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let inspect = Arc::new(Fake { jobs: 1 });
    let server = ControlServer::start_with(dir.path(), inspect, Duration::from_millis(300)).expect("a server");
    let connect = || StdStream::connect(socket_path(dir.path())).expect("a connection");

    // As many as there are places: the next client gets in when the header timeout has thrown them out.
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

    // A client that stopped in mid-request does not hold up the stop.
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
    let error = ControlServer::start(&deep, Arc::new(Fake { jobs: 0 })).expect_err("too long");
    assert!(matches!(error, ControlError::PathTooLong { .. }), "{error}");
    assert!(matches!(Client::connect(&deep), Err(ClientError::NoDaemon { .. })));
}

#[test]
fn jobs_are_added_in_pieces_that_fit_and_each_gets_its_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = ControlServer::start(dir.path(), Arc::new(Fake { jobs: 0 })).expect("a server");
    let client = Client::connect(dir.path()).expect("a client");
    let job = |n: u64| {
        let target = if n.is_multiple_of(3) { "x::y" } else { "h::m" };
        // Some of these fit into a request by tens only.
        let name = format!("{n}").repeat(if n < 100 { 500 } else { 1 });
        NewJob::new(Path::new("/srv"), target, &RelPath::new(name.as_bytes()).expect("a path"), false)
    };
    let jobs: Vec<NewJob> = (0..1_000).map(job).collect();
    let answers = client.add(&jobs).expect("answers");
    let expected: Vec<Option<String>> =
        (0..1_000u64).map(|n| n.is_multiple_of(3).then(|| "no x::y".to_owned())).collect();
    assert_eq!(answers, expected);
    assert_eq!(client.add(&[]).expect("no answers"), []);
    server.stop();
}
