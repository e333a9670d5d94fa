//! `syncq reconcile`: trees are compared in full, now.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::exit::CliError;
use super::output::{Form, Rows, json_line, plain, stdout};
use super::state_dir::WhichDaemon;
use super::wait::{path_arg, wait};
use crate::control::{Client, ReconcileRequest, WaitRequest};

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
    /// Return when it is done
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ReconcileArgs) -> Result<ExitCode, CliError> {
    let client = Client::connect(&args.which.find()?)?;
    let path = args.path.as_ref().map(|path| path_arg(path));
    let queued = client.reconcile(&ReconcileRequest { target: args.target.clone(), path: path.clone() })?;
    let mut out = stdout();
    if args.json {
        json_line(&mut out, &queued)?;
        std::io::Write::flush(&mut out)?;
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
    wait(&client, &WaitRequest { path, target: args.target.clone(), targets: None, timeout_s: None }, false)
}
