//! `syncq pause` and `syncq resume`: stops sending to targets for a while.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::exit::CliError;
use super::output::{Form, Rows, json_line, plain, stdout};
use super::source::Source;
use super::target_choice::TargetChoice;
use crate::control::PauseRequest;

/// Send nothing to a target until it is resumed
///
/// Changes are noted and wait. What is being sent comes to its end. A pause outlasts restarts.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq pause backup::www"))]
pub struct PauseArgs {
    #[command(flatten)]
    selection: TargetChoice,
}

/// Send to a paused target again
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq resume --all"))]
pub struct ResumeArgs {
    #[command(flatten)]
    selection: TargetChoice,
}

pub fn pause(args: &PauseArgs) -> Result<ExitCode, CliError> {
    run(&args.selection, true)
}

pub fn resume(args: &ResumeArgs) -> Result<ExitCode, CliError> {
    run(&args.selection, false)
}

fn run(selection: &TargetChoice, paused: bool) -> Result<ExitCode, CliError> {
    let source = Source::open(&selection.which.find()?)?;
    let done = source.pause(&PauseRequest {
        target: selection.target.clone(),
        root: selection.root(),
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
