//! `syncq explain`: why a path is, or is not, on its targets.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::exit::{CliError, quoted};
use super::output::{json_line, plain, stdout};
use super::source::Source;
use super::state_dir::WhichDaemon;
use super::wait::path_arg;
use crate::control::{Explanation, TargetExplanation, word};

/// Tell all there is to know about a path
///
/// Whether it is mirrored, and for each target its job, what that waits for, the last error and the command line.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq explain /srv/www/photos/a.jpg"))]
pub struct ExplainArgs {
    /// A file or directory, there or gone
    #[arg(value_name = "PATH")]
    path: PathBuf,
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ExplainArgs) -> Result<ExitCode, CliError> {
    let explanation = Source::open(&args.which.find()?)?.explain(&path_arg(&args.path))?;
    let mut out = stdout();
    if args.json {
        json_line(&mut out, &explanation)?
    } else {
        write_page(&mut out, &explanation)?
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn write_page(out: &mut impl Write, about: &Explanation) -> io::Result<()> {
    let path = if about.path.is_empty() { "." } else { &about.path };
    writeln!(out, "{} in {}", plain(path), plain(&about.root))?;
    writeln!(out, "  source: {}", about.source)?;
    match (&about.rule, about.mirrored) {
        (Some(rule), _) => writeln!(out, "  to be mirrored: no, {}", plain(rule))?,
        (None, Some(_)) if about.targets.iter().all(|target| target.left_out.is_none()) => {
            writeln!(out, "  to be mirrored: yes")?
        }
        (None, Some(_)) => writeln!(out, "  to be mirrored: yes, but not to all targets")?,
        (None, None) => writeln!(out, "  to be mirrored: a running daemon knows")?,
    }
    about.targets.iter().try_for_each(|target| write_target(out, about, target))
}

fn write_target(out: &mut impl Write, about: &Explanation, target: &TargetExplanation) -> io::Result<()> {
    writeln!(out, "\n{}: {}", plain(&target.name), word(target.state))?;
    if let Some(left_out) = target.left_out.as_ref().filter(|_| about.mirrored == Some(true)) {
        writeln!(out, "  not mirrored there: {}", plain(left_out))?;
    }
    match &target.job {
        None if target.left_out.is_some() => writeln!(out, "  job: none; nothing is sent or deleted there")?,
        None if target.waits_for.is_some() => {
            let why = target.waits_for.as_deref().map(plain).unwrap_or_default();
            writeln!(out, "  job: none is known: {why}")?
        }
        None if about.source == "directory" => {
            let glob = quoted(format!("/{}", plain(&about.path)).as_ref());
            let glob = if about.path.is_empty() { String::new() } else { format!(" --path {glob}") };
            writeln!(out, "  job: none for the directory itself; what is pending in it: syncq list{glob}")?
        }
        None => writeln!(out, "  job: none; the target is equal there, as far as is known")?,
        Some(job) => {
            let path = if job.path.is_empty() { ".".to_owned() } else { job.shown_path() };
            writeln!(out, "  job: {} {} of {path}, {} since {}", job.id, job.scope, job.state, job.queued_at)?;
            if let Some(error) = &job.error {
                writeln!(out, "  last error: {} (failed {} times)", plain(error), job.attempts)?;
            }
        }
    }
    if let Some(waits_for) = target.waits_for.as_ref().filter(|_| target.job.is_some()) {
        writeln!(out, "  waits for: {}", plain(waits_for))?;
    }
    if let Some(next_try) = target.next_try {
        writeln!(out, "  next try: {next_try}")?;
    }
    if let Some(at) = target.last_success_at {
        writeln!(out, "  last success of the target: {at}")?;
    }
    if let Some(command) = &target.command {
        writeln!(out, "  command: {}", plain(command))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{JobRow, TargetState};
    use crate::model::{JobState, Origin, Scope, Timestamp};

    fn idle() -> TargetExplanation {
        TargetExplanation {
            name: "/dst".to_owned(),
            job: None,
            waits_for: None,
            left_out: None,
            next_try: None,
            last_success_at: None,
            command: None,
            state: TargetState::Idle,
        }
    }

    fn page(about: &Explanation) -> String {
        let mut out = Vec::new();
        write_page(&mut out, about).expect("a page");
        String::from_utf8(out).expect("text")
    }

    /// An excluded path, and a directory with pending jobs below it, were said to be equal on the target.
    #[test]
    fn only_what_may_be_equal_is_called_equal() {
        let about = |path: &str, source: &str, rule: Option<&str>| Explanation {
            root: "/srv".to_owned(),
            path: path.to_owned(),
            source: source.to_owned(),
            mirrored: Some(rule.is_none()),
            rule: rule.map(str::to_owned),
            targets: vec![TargetExplanation { left_out: rule.map(str::to_owned), ..idle() }],
        };
        for (path, source, rule, words) in [
            ("a", "file", None, "job: none; the target is equal there, as far as is known\n"),
            ("a", "file", Some("excluded"), "job: none; nothing is sent or deleted there\n"),
            ("d", "directory", Some("excluded"), "job: none; nothing is sent or deleted there\n"),
            ("my d", "directory", None, "what is pending in it: syncq list --path '/my d'\n"),
            ("", "directory", None, "what is pending in it: syncq list\n"),
        ] {
            let said = page(&about(path, source, rule));
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_person_reads_what_is_in_the_way() {
        let job = JobRow {
            id: 7,
            root: "/srv".to_owned(),
            target: "b::www".to_owned(),
            path: "a\nb".to_owned(),
            path_b64: None,
            scope: Scope::Entry,
            origin: Origin::Write,
            state: JobState::Waiting,
            attempts: 2,
            queued_at: Timestamp(0),
            due_at: Timestamp(1_000),
            error: Some("denied (rsync exit 23)".to_owned()),
        };
        let busy = TargetExplanation {
            name: "b::www".to_owned(),
            state: TargetState::Syncing,
            job: Some(job),
            waits_for: Some("its next attempt, after 2 failures".to_owned()),
            left_out: None,
            next_try: Some(Timestamp(1_000)),
            last_success_at: Some(Timestamp(0)),
            command: Some("rsync x".to_owned()),
        };
        let about = Explanation {
            root: "/srv".to_owned(),
            path: "a\\nb".to_owned(),
            source: "file".to_owned(),
            mirrored: Some(true),
            rule: None,
            targets: vec![busy, idle()],
        };
        assert_eq!(
            page(&about),
            "a\\nb in /srv\n  source: file\n  to be mirrored: yes\n\nb::www: syncing\n  job: 7 entry of a\\nb, waiting \
             since 1970-01-01T00:00:00.000Z\n  last error: denied (rsync exit 23) (failed 2 times)\n  waits for: its next \
             attempt, after 2 failures\n  next try: 1970-01-01T00:00:01.000Z\n  last success of the target: \
             1970-01-01T00:00:00.000Z\n  command: rsync x\n\n/dst: idle\n  job: none; the target is equal there, as far as is known\n"
        );
    }
}
