//! `syncq accept-deletions`: an operator agrees to deletions that maxDelete has stopped.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::exit::CliError;
use super::output::{Form, Rows, json_line, plain, stdout};
use super::target_choice::TargetChoice;
use crate::control::{AcceptRequest, Accepted, Client, TargetState};

/// Let the next comparison delete more than maxDelete allows
///
/// The target is compared in full at once, and whatever the source lacks is deleted there, also if the source is empty. Look
/// at syncq status first: it says how much that is. A restart forgets what was not done by then.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq accept-deletions backup::www"))]
pub struct AcceptArgs {
    #[command(flatten)]
    choice: TargetChoice,
}

pub fn run(args: &AcceptArgs) -> Result<ExitCode, CliError> {
    let choice = &args.choice;
    let client = Client::connect(&choice.which.find()?)?;
    let status = client.status()?;
    let well = status.targets.into_iter().filter(|target| target.state == TargetState::Idle);
    let well: Vec<String> = well.map(|target| target.name).collect();
    let done = client.accept_deletions(&AcceptRequest {
        target: choice.target.clone(),
        root: choice.root(),
        all: choice.all,
    })?;
    for target in done.targets.iter().filter(|target| well.contains(target)) {
        // The agreement was recorded for these targets too: an operator may agree to deletions in advance.
        let target = plain(target);
        let said = "nothing was held back there; what its next comparison finds is deleted without asking";
        let _ = writeln!(std::io::stderr(), "{target}: {said}");
    }
    show(choice, &done, "DELETIONS ACCEPTED ON")
}

/// Prints the names of the targets that an operator has accepted.
pub(super) fn show(choice: &TargetChoice, done: &Accepted, header: &'static str) -> Result<ExitCode, CliError> {
    let mut out = stdout();
    if choice.json {
        json_line(&mut out, done)?;
        std::io::Write::flush(&mut out)?;
    } else {
        let mut rows = Rows::new(out, Form::of_stdout(), &[header]);
        done.targets.iter().try_for_each(|target| rows.push(vec![plain(target)]))?;
        rows.end()?;
    }
    Ok(ExitCode::SUCCESS)
}
