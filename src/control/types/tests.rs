//! The keys and words that scripts rely on.

use super::*;
use crate::model::{Generation, JobError, JobId, TargetId};

fn row(path: &[u8]) -> JobRow {
    let job = Job {
        id: JobId(7),
        target: TargetId(1),
        path: RelPath::new(path).expect("a valid path"),
        scope: Scope::Entry,
        origin: Origin::Write,
        state: JobState::Waiting,
        generation: Generation::FIRST,
        queued_at: Timestamp(1_000),
        changed_at: Timestamp(1_000),
        attempts: 2,
        due_at: Timestamp(5_500),
        partial: false,
        last_error: Some(JobError::new(Some(23), "permission denied")),
    };
    JobRow::new(&job, Path::new("/srv/www"), "b::www")
}

#[test]
fn a_row_has_the_promised_keys() {
    let json = serde_json::to_string(&row(b"a/b\n.txt")).expect("json");
    assert_eq!(
        json,
        r#"{"id":7,"root":"/srv/www","target":"b::www","path":"a/b\n.txt","scope":"entry","origin":"write","#
            .to_owned()
            + r#""state":"waiting","#
            + r#""attempts":2,"queued_at":"1970-01-01T00:00:01.000Z","due_at":"1970-01-01T00:00:05.500Z","#
            + r#""error":"permission denied (rsync exit 23)"}"#
    );
    let back: JobRow = serde_json::from_str(&json).expect("a row");
    assert_eq!(back, row(b"a/b\n.txt"));
    assert_eq!(back.shown_path(), "a/b\\n.txt");
    assert_eq!(back.rel_path(), RelPath::new(b"a/b\n.txt").ok());
}

/// The output of `syncq status --json`, with every optional part missing.
#[test]
fn a_status_has_the_promised_keys() {
    let root = RootStatus {
        path: "/srv".to_owned(),
        state: RootState::Watching,
        reason: None,
        hint: None,
        targets: vec!["b::www".to_owned()],
    };
    let target = TargetStatus {
        name: "b::www".to_owned(),
        port: None,
        root: "/srv".to_owned(),
        state: TargetState::Idle,
        pending: 1,
        running: 2,
        waiting: 3,
        failed: 4,
        lag_s: 1.5,
        jobs_per_s: 0.5,
        eta_s: None,
        last_path: None,
        last_success_at: None,
        paused_since: Some(Timestamp(0)),
        reason: None,
        hint: None,
        command: None,
        retry_at: None,
        contents: None,
        run: None,
    };
    let status = Status {
        version: "1.0.0".to_owned(),
        state: DaemonState::Running,
        pid: 7,
        started_at: Some(Timestamp(1_000)),
        configs: vec!["/etc/c.xml".to_owned()],
        config: Some(ConfigStatus::default()),
        roots: vec![root],
        targets: vec![target],
        store: StoreStatus { state: StoreState::Ok, bytes: 9, error: None },
        watches: WatchStatus::default(),
        plugins: vec![PluginStatus { name: "http".to_owned(), ..PluginStatus::default() }],
    };
    assert_eq!(
        serde_json::to_string(&status).expect("json"),
        [
            r#"{"version":"1.0.0","state":"running","pid":7,"started_at":"1970-01-01T00:00:01.000Z","#,
            r#""configs":["/etc/c.xml"],"config":{"loaded_at":null,"error":null},"#,
            r#""roots":[{"path":"/srv","state":"watching","reason":null,"hint":null,"targets":["b::www"]}],"#,
            r#""targets":[{"name":"b::www","port":null,"root":"/srv","state":"idle","pending":1,"running":2,"waiting":3,"#,
            r#""failed":4,"lag_s":1.5,"jobs_per_s":0.5,"eta_s":null,"last_path":null,"last_success_at":null,"#,
            r#""paused_since":"1970-01-01T00:00:00.000Z","reason":null,"hint":null,"command":null,"#,
            r#""retry_at":null,"contents":null,"run":null}],"store":{"state":"ok","bytes":9,"error":null},"#,
            r#""watches":{"used":0,"unwatched":0,"hint":null,"limit":0,"overflows":0},"#,
            r#""plugins":[{"name":"http","waiting":0,"delivered":0,"failed":0,"dropped":0,"reason":null}]}"#,
        ]
        .concat()
    );
}

/// The output of `syncq store stats`, `check` and `compact`.
#[test]
fn a_store_report_has_the_promised_keys() {
    let kept = vec![KeptStore { path: "/var/lib/syncq/c/store.damaged-1".to_owned(), bytes: 3 }];
    let report = StoreReport { schema: 1, bytes: 2, bytes_before: Some(8), kept, ..StoreReport::default() };
    assert_eq!(
        serde_json::to_string(&report).expect("json"),
        [
            r#"{"schema":1,"bytes":2,"live_bytes":0,"bytes_before":8,"roots":0,"targets":0,"directories":0,"#,
            r#""jobs":0,"damaged":0,"rolled_back":false,"#,
            r#""kept":[{"path":"/var/lib/syncq/c/store.damaged-1","bytes":3}]}"#,
        ]
        .concat()
    );
    let looked = serde_json::to_string(&StoreReport::default()).expect("json");
    assert!(!looked.contains("bytes_before"), "{looked}");
}

/// Scripts compare these words.
#[test]
fn states_have_the_promised_words() {
    use crate::control::{DifferenceKind, DifferingKind};
    fn words(states: &[impl Serialize]) -> String {
        states.iter().map(word).collect::<Vec<_>>().join(" ")
    }
    use DaemonState as Daemon;
    use TargetState as Target;
    let targets = [
        Target::Idle,
        Target::Scanning,
        Target::Syncing,
        Target::Failing,
        Target::Paused,
        Target::BackingOff,
        Target::Misconfigured,
        Target::Busy,
        Target::SourceGone,
        Target::TargetGone,
        Target::NeedsApproval,
        Target::Comparing,
        Target::Offline,
    ];
    let differing = [
        DifferingKind::Missing,
        DifferingKind::Extra,
        DifferingKind::Type,
        DifferingKind::Size,
        DifferingKind::Content,
        DifferingKind::Time,
        DifferingKind::Attributes,
        DifferingKind::Unreadable,
    ];
    for (found, expected) in [
        (
            words(&[Daemon::Starting, Daemon::Running, Daemon::Stopping, Daemon::Offline]),
            "starting running stopping offline",
        ),
        (
            words(&[RootState::Scanning, RootState::Watching, RootState::Polling, RootState::Suspended]),
            "scanning watching polling suspended",
        ),
        (
            words(&targets),
            "idle scanning syncing failing paused backing_off misconfigured busy source_gone target_gone \
             needs_approval comparing offline",
        ),
        (words(&[StoreState::Ok, StoreState::Degraded]), "ok degraded"),
        (
            words(&[JobState::Ready, JobState::Running, JobState::Waiting, JobState::Failed]),
            "ready running waiting failed",
        ),
        (words(&[Scope::Entry, Scope::Children, Scope::Subtree]), "entry children subtree"),
        (words(&[Origin::Reconcile, Origin::Scan, Origin::Replaced, Origin::Write]), "reconcile scan replaced write"),
        (words(&[DifferenceKind::Send, DifferenceKind::Delete]), "send delete"),
        (words(&differing), "missing extra type size content time attributes unreadable"),
    ] {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_path_that_is_no_text_comes_along_in_base64() {
    let row = row(b"caf\xe9");
    assert_eq!(row.path, "caf\\xe9");
    assert_eq!(row.path_b64.as_deref(), Some("Y2Fm6Q=="));
    assert_eq!(row.shown_path(), "caf\\xe9");
    assert_eq!(row.rel_path(), RelPath::new(b"caf\xe9").ok());
}

#[test]
fn a_newer_daemons_state_is_no_error() {
    assert_eq!(serde_json::from_str::<TargetState>("\"dreaming\"").expect("known or not"), TargetState::Unknown);
    assert_eq!(serde_json::to_string(&TargetState::BackingOff).expect("json"), "\"backing_off\"");
}
