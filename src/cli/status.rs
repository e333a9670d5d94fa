//! `syncq status`: shows the state of the daemon, its roots and its targets.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::exit::CliError;
use super::output::{Form, Rows, Tone, age, counted, json_line, plain, size, stdout};
use super::progress::course;
use super::source::Source;
use super::state_dir::WhichDaemon;
use crate::control::{
    ConfigStatus, DaemonState, PluginStatus, RootStatus, Status, StoreState, TargetStatus, WatchStatus, word,
};

/// Show what is pending, since when, and why
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq status -o /etc/syncq/confxml.xml --json"))]
pub struct StatusArgs {
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Show it again and again, until interrupted: every so often, like 500ms or 5s
    #[arg(long, value_name = "EVERY", value_parser = super::values::duration, num_args = 0..=1,
        default_missing_value = "2s", require_equals = true)]
    watch: Option<Duration>,
}

/// The shortest interval of `--watch`: each look costs the daemon a walk over its jobs.
const WATCH_MIN: Duration = Duration::from_millis(100);
/// Moves to the first column of the first line, and clears the screen from there on.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub fn run(args: &StatusArgs) -> Result<ExitCode, CliError> {
    let state_dir = args.which.find()?;
    let Some(every) = args.watch else {
        show(args, &Source::open(&state_dir)?.status()?)?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut seen = false;
    loop {
        // Opened anew each time: an open store would keep a daemon from starting, and the daemon may be restarted meanwhile.
        match Source::open(&state_dir).and_then(|source| source.status()) {
            Ok(status) => {
                if !args.json && Form::of_stdout() == Form::Table {
                    io::stdout().write_all(CLEAR.as_bytes())?;
                }
                show(args, &status)?;
                seen = true;
            }
            // A daemon that is just starting holds the store already and does not answer yet.
            Err(error) if seen => io::stderr().write_all(error.to_string().as_bytes())?,
            Err(error) => return Err(error),
        }
        std::thread::sleep(every.max(WATCH_MIN));
    }
}

fn show(args: &StatusArgs, status: &Status) -> Result<(), CliError> {
    let mut out = stdout();
    if args.json {
        json_line(&mut out, status)?;
    } else if Form::of_stdout() == Form::Table {
        write_page(&mut out, status)?;
    } else {
        write_targets(&mut out, Form::Tabs, status)?;
    }
    Ok(out.flush()?)
}

const HEADER: [&str; 9] = ["TARGET", "ROOT", "STATE", "PENDING", "RUNNING", "WAITING", "FAILED", "LAG", "LAST"];

fn write_targets(out: &mut impl Write, form: Form, status: &Status) -> io::Result<()> {
    // If all targets have one root, the column says nothing and takes room. Scripts count columns, so they always get it.
    let shows_root = form == Form::Tabs || !has_one_root(status);
    let header: Vec<&str> = HEADER.into_iter().filter(|name| shows_root || *name != "ROOT").collect();
    let mut rows = Rows::new(out, form, &header).toned(if shows_root { 2 } else { 1 });
    for target in &status.targets {
        // A person needs an age, a script a number.
        let lag = if form == Form::Table { age(target.lag_s) } else { target.lag_s.to_string() };
        let mut row = vec![plain(&target.name)];
        row.extend(shows_root.then(|| plain(&target.root)));
        row.extend([
            word(target.state),
            target.pending.to_string(),
            target.running.to_string(),
            target.waiting.to_string(),
            target.failed.to_string(),
            lag,
            target.last_path.as_deref().map(plain).unwrap_or_default(),
        ]);
        rows.push_toned(row, Tone::of(target.state))?;
    }
    rows.end().map(|_| ())
}

fn has_one_root(status: &Status) -> bool {
    let mut roots = status.targets.iter().map(|target| &target.root);
    roots.next().is_some_and(|first| roots.all(|root| root == first))
}

fn write_page(out: &mut impl Write, status: &Status) -> io::Result<()> {
    if status.state == DaemonState::Offline {
        write!(out, "no daemon is running; this is what its store tells")?;
    } else {
        write!(out, "syncq {} is {}, pid {}", plain(&status.version), word(status.state), status.pid)?;
    }
    if let Some(started_at) = status.started_at {
        write!(out, ", since {started_at}")?;
    }
    writeln!(out)?;
    if let Some(ConfigStatus { loaded_at, error: Some(error) }) = &status.config {
        let since = loaded_at.map(|at| format!(" of {at}")).unwrap_or_default();
        writeln!(out, "the configuration was not taken, the one{since} is in force: {}", plain(&error.message))?;
        if let Some(hint) = &error.hint {
            writeln!(out, "  hint: {}", plain(hint))?;
        }
    }
    if status.state != DaemonState::Offline {
        write_watches(out, &status.watches)?;
    }
    write!(out, "store: {}, {}", word(status.store.state), size(status.store.bytes))?;
    if status.store.state != StoreState::Ok {
        write!(out, ": {}", status.store.error.as_deref().map(plain).unwrap_or_default())?;
    }
    writeln!(out)?;
    if let Some(target) = status.targets.first().filter(|_| has_one_root(status)) {
        writeln!(out, "root: {}", plain(&target.root))?;
    }
    writeln!(out)?;
    for root in &status.roots {
        write_root(out, root)?;
    }
    write_targets(out, Form::Table, status)?;
    for target in &status.targets {
        if let Some(eta) = target.eta_s {
            let (name, left) = (plain(&target.name), age(eta.max(1.0)));
            writeln!(out, "\n{name}: {:.1} jobs a second, done in about {left} at that pace", target.jobs_per_s)?;
        }
    }
    for target in &status.targets {
        if let Some(course) = target.run.as_ref().and_then(course) {
            writeln!(out, "\n{}: {course}", plain(&target.name))?;
        }
    }
    for target in &status.targets {
        if let Some(contents) = &target.contents {
            let name = plain(&target.name);
            write!(out, "\n{name}: what it held on {} is ", contents.since)?;
            match contents.up_to.as_str() {
                "" => writeln!(out, "still to be compared by content")?,
                path => writeln!(out, "being compared by content; that has come to {}", plain(path))?,
            }
        }
    }
    for target in &status.targets {
        if let Some(since) = target.paused_since {
            let name = plain(&target.name);
            writeln!(out, "\n{name}: paused since {since}\n  to go on: syncq resume {name}")?;
        }
    }
    let is_of_root = |target: &&TargetStatus| {
        let same = |root: &&RootStatus| root.path == target.root && root.reason == target.reason;
        target.reason.is_some() && status.roots.iter().any(|root| same(&root))
    };
    for target in status.targets.iter().filter(|target| !is_of_root(target)) {
        write_trouble(out, target)?;
    }
    for target in status.targets.iter().filter(|target| target.failed > 0) {
        let (name, jobs) = (plain(&target.name), counted(target.failed, "job"));
        writeln!(
            out,
            "\n{name}: given up: {jobs}\n  why: syncq list --state failed\n  to try again: syncq retry --state failed"
        )?;
    }
    for plugin in &status.plugins {
        let PluginStatus { name, waiting, delivered, failed, dropped, reason } = plugin;
        write!(out, "\nplugin {}: {delivered} delivered, {waiting} waiting, {failed} failed, ", plain(name))?;
        writeln!(out, "{dropped} dropped")?;
        if let Some(reason) = reason {
            writeln!(out, "  {}", plain(reason))?;
        }
    }
    Ok(())
}

/// Writes the reason why changes of a root are not seen, if there is one. The reason holds for all targets of the root.
fn write_root(out: &mut impl Write, root: &RootStatus) -> io::Result<()> {
    let Some(reason) = &root.reason else { return Ok(()) };
    writeln!(out, "{} is {}: {}", plain(&root.path), word(root.state), plain(reason))?;
    if let Some(hint) = &root.hint {
        writeln!(out, "  hint: {}", plain(hint))?;
    }
    writeln!(out)
}

fn write_watches(out: &mut impl Write, watches: &WatchStatus) -> io::Result<()> {
    write!(out, "watches: {} of {}", watches.used, watches.limit)?;
    if watches.unwatched > 0 {
        write!(out, ", {} directories polled instead", watches.unwatched)?;
    }
    if watches.overflows > 0 {
        write!(out, ", event queue overflowed {}", counted(watches.overflows, "time"))?;
    }
    writeln!(out)?;
    if let Some(hint) = &watches.hint {
        writeln!(out, "hint: {}", plain(hint))?;
    }
    Ok(())
}

fn write_trouble(out: &mut impl Write, target: &TargetStatus) -> io::Result<()> {
    let Some(reason) = &target.reason else { return Ok(()) };
    writeln!(out, "\n{}: {}", plain(&target.name), plain(reason))?;
    if let Some(hint) = &target.hint {
        writeln!(out, "  hint: {}", plain(hint))?;
    }
    if let Some(command) = &target.command {
        writeln!(out, "  command: {}", plain(command))?;
    }
    if let Some(retry_at) = target.retry_at {
        writeln!(out, "  next try: {retry_at}")?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::{ConfigError, RootState, RunStatus, StoreStatus, TargetState};
    use crate::model::Timestamp;

    /// A daemon with one idle target, and one target whose password is wrong.
    pub fn sample() -> Status {
        let target = TargetStatus {
            name: "/backup/www".to_owned(),
            port: None,
            root: "/srv/www".to_owned(),
            state: TargetState::Idle,
            pending: 0,
            running: 0,
            waiting: 0,
            failed: 0,
            lag_s: 0.0,
            jobs_per_s: 0.0,
            eta_s: None,
            last_path: Some("a\nb".to_owned()),
            last_success_at: None,
            paused_since: None,
            reason: None,
            hint: None,
            command: None,
            retry_at: None,
            contents: None,
            run: None,
        };
        let bad = TargetStatus {
            name: "b::www".to_owned(),
            state: TargetState::Misconfigured,
            pending: 12,
            lag_s: 75.5,
            last_path: None,
            last_success_at: None,
            reason: Some("auth failed on module www".to_owned()),
            hint: Some("check user and password".to_owned()),
            command: Some("rsync -artz ./ b::www/".to_owned()),
            retry_at: Some(Timestamp(60_000)),
            ..target.clone()
        };
        Status {
            version: "0.1.0".to_owned(),
            state: DaemonState::Running,
            pid: 42,
            started_at: Some(Timestamp(1_000)),
            configs: Vec::new(),
            config: None,
            roots: vec![RootStatus {
                path: "/srv/www".to_owned(),
                state: RootState::Watching,
                reason: None,
                hint: None,
                targets: vec![target.name.clone(), bad.name.clone()],
            }],
            targets: vec![target, bad],
            store: StoreStatus { state: StoreState::Ok, bytes: 2_048, error: None },
            watches: WatchStatus { used: 3, limit: 8_192, ..WatchStatus::default() },
            plugins: Vec::new(),
        }
    }

    #[test]
    fn a_person_sees_trouble_with_its_remedy() {
        let mut out = Vec::new();
        write_page(&mut out, &sample()).expect("a page");
        let page = String::from_utf8(out).expect("text");
        assert!(
            page.starts_with("syncq 0.1.0 is running, pid 42, since 1970-01-01T00:00:01.000Z\nwatches: 3 of 8192\n")
        );
        assert!(page.contains("store: ok, 2.0 KiB\nroot: /srv/www\n\n"), "{page}");
        assert!(page.contains("1m15s") && page.contains("a\\nb"), "{page}");
        assert!(page.ends_with(
            "\nb::www: auth failed on module www\n  hint: check user and password\n  command: rsync -artz ./ b::www/\n  \
             next try: 1970-01-01T00:01:00.000Z\n"
        ));
    }

    #[test]
    fn a_person_sees_pauses_and_the_pace() {
        let mut status = sample();
        status.targets[0] = TargetStatus {
            jobs_per_s: 12.5,
            eta_s: Some(90.0),
            paused_since: Some(Timestamp(0)),
            ..status.targets[0].clone()
        };
        let mut out = Vec::new();
        write_page(&mut out, &status).expect("a page");
        let page = String::from_utf8(out).expect("text");
        assert!(page.contains("\n/backup/www: 12.5 jobs a second, done in about 1m30s at that pace\n"), "{page}");
        assert!(
            page.contains(
                "\n/backup/www: paused since 1970-01-01T00:00:00.000Z\n  to go on: syncq resume /backup/www\n"
            ),
            "{page}"
        );
    }

    /// A first fill, and a host that never answered, were both shown as `syncing` without any detail.
    #[test]
    fn a_person_sees_how_far_a_long_run_has_come() {
        let mut status = sample();
        status.targets[0].run =
            Some(RunStatus { elapsed_s: 30.0, sent_bytes: 3 << 20, still_s: 0.2, connecting: false });
        status.targets[1].run = Some(RunStatus { elapsed_s: 12.0, sent_bytes: 0, still_s: 12.0, connecting: true });
        let mut out = Vec::new();
        write_page(&mut out, &status).expect("a page");
        let page = String::from_utf8(out).expect("text");
        assert!(page.contains("\n/backup/www: sent 3.0 MiB, 102.4 KiB/s\n"), "{page}");
        assert!(page.contains("\nb::www: connecting for 12s\n"), "{page}");
    }

    /// Jobs that were given up appeared as a number only.
    #[test]
    fn a_person_sees_what_was_given_up_and_how_to_go_on() {
        let mut status = sample();
        status.targets[0].failed = 1;
        let mut out = Vec::new();
        write_page(&mut out, &status).expect("a page");
        let page = String::from_utf8(out).expect("text");
        let expected = "\n/backup/www: given up: 1 job\n  why: syncq list --state failed\n  \
                        to try again: syncq retry --state failed\n";
        assert!(page.ends_with(expected), "{page}");
    }

    /// With two short paths the table was wider than a terminal.
    #[test]
    fn a_table_of_one_root_has_no_column_for_it() {
        let page = |status: &Status| {
            let mut out = Vec::new();
            write_page(&mut out, status).expect("a page");
            String::from_utf8(out).expect("text")
        };
        let mut status = sample();
        assert!(!page(&status).contains("ROOT"), "{}", page(&status));
        status.targets[1].root = "/srv/other".to_owned();
        assert!(page(&status).contains(" TARGET       ROOT        STATE "), "{}", page(&status));
        assert!(!page(&status).contains("root: "), "{}", page(&status));
    }

    /// The page said that a daemon with pid 0 has 0 of 0 watches.
    #[test]
    fn a_person_sees_that_no_daemon_runs() {
        let mut out = Vec::new();
        write_page(&mut out, &Status { state: DaemonState::Offline, started_at: None, ..sample() }).expect("a page");
        let page = String::from_utf8(out).expect("text");
        assert!(page.starts_with("no daemon is running; this is what its store tells\nstore: ok, 2.0 KiB\n"), "{page}");
    }

    #[test]
    fn a_configuration_that_was_not_taken_is_named_before_all_else() {
        let error =
            ConfigError { message: "a.xml:3:1: no".to_owned(), hint: Some("x".to_owned()), config: true, at: None };
        let config = Some(ConfigStatus { loaded_at: Some(Timestamp(1_000)), error: Some(error) });
        let mut out = Vec::new();
        write_page(&mut out, &Status { config, ..sample() }).expect("a page");
        let page = String::from_utf8(out).expect("text");
        let expected = "\nthe configuration was not taken, the one of 1970-01-01T00:00:01.000Z is in force: a.xml:3:1: no\n  \
                        hint: x\nwatches: ";
        assert!(page.contains(expected), "{page}");
    }

    #[test]
    fn a_plugin_in_trouble_says_why() {
        let reason = Some("cannot connect to h:80".to_owned());
        let name = "socket".to_owned();
        let plugin = PluginStatus { name, waiting: 7, delivered: 5, failed: 1, dropped: 0, reason };
        let mut out = Vec::new();
        write_page(&mut out, &Status { plugins: vec![plugin], ..sample() }).expect("a page");
        let page = String::from_utf8(out).expect("text");
        let expected = "\nplugin socket: 5 delivered, 7 waiting, 1 failed, 0 dropped\n  cannot connect to h:80\n";
        assert!(page.ends_with(expected), "{page}");
    }

    #[test]
    fn a_script_gets_one_line_per_target() {
        let mut out = Vec::new();
        write_targets(&mut out, Form::Tabs, &sample()).expect("lines");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "/backup/www\t/srv/www\tidle\t0\t0\t0\t0\t0\ta\\nb\nb::www\t/srv/www\tmisconfigured\t12\t0\t0\t0\t75.5\t\n"
        );
    }
}
