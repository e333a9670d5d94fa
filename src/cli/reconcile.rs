//! `syncq reconcile`: has trees compared in full, now.

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::exit::CliError;
use super::output::{Form, Rows, counted, json_line, plain, stdout};
use super::state_dir::WhichDaemon;
use super::wait::{path_arg, wait};
use crate::control::{Client, DifferenceKind, DifferenceRow, ReconcileRequest, WaitRequest, word};

/// Compare source and targets in full, and make them equal
///
/// Finds what was changed on a target, and what was purged. Without --wait it returns when the comparison is queued; it is
/// durable then.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq reconcile backup::www --path /srv/www/photos --wait"))]
pub struct ReconcileArgs {
    /// Only with this target, named as in status
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// Only this file, or this directory with all below it
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// Only print what would be sent and what deleted; maxDelete is not looked at
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Return when it is done
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// With --wait: give up after this long, like 30s or 5m [default: never]. The comparison stays queued
    #[arg(long, value_name = "TIME", value_parser = super::values::duration, requires = "wait")]
    timeout: Option<Duration>,
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object, or with --dry-run one a line
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ReconcileArgs) -> Result<ExitCode, CliError> {
    let client = Client::connect(&args.which.find()?)?;
    let path = args.path.as_ref().map(|path| path_arg(path));
    if args.dry_run {
        return survey(&client, &ReconcileRequest { target: args.target.clone(), path }, args.json);
    }
    let queued = client.reconcile(&ReconcileRequest { target: args.target.clone(), path: path.clone() })?;
    let mut out = stdout();
    if args.json {
        json_line(&mut out, &queued)?;
        out.flush()?;
    } else {
        let mut rows = Rows::new(out, Form::of_stdout(), &["TARGET", "ROOT", "PATH"]);
        for job in &queued.jobs {
            let path = if job.path.is_empty() { "." } else { &job.path };
            rows.push(vec![plain(&job.target), plain(&job.root), plain(path)])?;
        }
        rows.end()?;
    }
    if !args.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let timeout_s = args.timeout.map(|timeout| timeout.as_secs_f64());
    wait(&client, &WaitRequest { path, target: args.target.clone(), targets: None, timeout_s }, false)
}

/// Prints the differences that the comparison would remove, as they come.
fn survey(client: &Client, request: &ReconcileRequest, json: bool) -> Result<ExitCode, CliError> {
    let mut out = stdout();
    let mut result = Ok(());
    let (mut sent, mut deleted) = (0, 0);
    let mut print = |row: &DifferenceRow| -> io::Result<()> {
        if json {
            return json_line(&mut out, row);
        }
        let path = if row.path.is_empty() { "." } else { &row.path };
        writeln!(out, "{}\t{}\t{}", plain(&row.target), word(row.change), plain(path))
    };
    client.survey(request, &mut |row| {
        match row.change {
            DifferenceKind::Delete => deleted += 1,
            _ => sent += 1,
        }
        result = print(&row);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    out.flush()?;
    let _ = writeln!(io::stderr(), "{} would be sent, {} deleted", counted(sent, "path"), counted(deleted, "path"));
    Ok(ExitCode::SUCCESS)
}
