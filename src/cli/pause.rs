//! `syncq pause` and `syncq resume`: targets that get nothing for a while.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::exit::CliError;
use super::output::{Form, Rows, json_line, plain, stdout};
use super::source::Source;
use super::state_dir::WhichDaemon;
use crate::control::PauseRequest;

/// Send nothing to a target until it is resumed
///
/// Changes are noted and wait. What is being sent comes to its end. A pause outlasts restarts.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq pause backup::www"))]
pub struct PauseArgs {
    #[command(flatten)]
    selection: Selection,
}

/// Send to a paused target again
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq resume --all"))]
pub struct ResumeArgs {
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, Args)]
struct Selection {
    /// Which target, named as in status
    #[arg(value_name = "TARGET", required_unless_present_any = ["root", "all"])]
    target: Option<String>,
    /// All targets of this mirrored directory
    #[arg(long, value_name = "DIR", conflicts_with = "target")]
    root: Option<PathBuf>,
    /// All targets
    #[arg(long, conflicts_with_all = ["target", "root"])]
    all: bool,
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn pause(args: &PauseArgs) -> Result<ExitCode, CliError> {
    run(&args.selection, true)
}

pub fn resume(args: &ResumeArgs) -> Result<ExitCode, CliError> {
    run(&args.selection, false)
}

fn run(selection: &Selection, paused: bool) -> Result<ExitCode, CliError> {
    let source = Source::open(&selection.which.find()?)?;
    let done = source.pause(&PauseRequest {
        target: selection.target.clone(),
        root: selection.root.as_ref().map(|root| root.display().to_string()),
        all: selection.all,
        paused,
    })?;
    let mut out = stdout();
    if selection.json {
        json_line(&mut out, &done)?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Rows::new(out, Form::of_stdout(), &["TARGET", "ROOT", "NOW"]);
    for target in &done.targets {
        let now = match (target.paused, target.changed) {
            (true, true) => "paused",
            (true, false) => "paused before",
            (false, true) => "resumed",
            (false, false) => "was not paused",
        };
        rows.push(vec![plain(&target.name), plain(&target.root), now.to_owned()])?;
    }
    rows.end()?;
    Ok(ExitCode::SUCCESS)
}
