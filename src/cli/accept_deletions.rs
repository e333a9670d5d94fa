//! `syncq accept-deletions`: an operator agrees to what maxDelete has stopped.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::exit::CliError;
use super::output::{Form, Rows, json_line, plain, stdout};
use super::state_dir::WhichDaemon;
use crate::control::{AcceptRequest, Client};

/// Let the next comparison delete more than maxDelete allows
///
/// The target is compared in full at once, and whatever the source lacks is deleted there, also if the source is empty. Look
/// at syncq status first: it says how much that is. A restart forgets what was not done by then.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq accept-deletions backup::www"))]
pub struct AcceptArgs {
    /// On which target, named as in status
    #[arg(value_name = "TARGET", required_unless_present_any = ["root", "all"])]
    target: Option<String>,
    /// On all targets of this mirrored directory
    #[arg(long, value_name = "DIR", conflicts_with = "target")]
    root: Option<PathBuf>,
    /// On all targets
    #[arg(long, conflicts_with_all = ["target", "root"])]
    all: bool,
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &AcceptArgs) -> Result<ExitCode, CliError> {
    let done = Client::connect(&args.which.find()?)?.accept_deletions(&AcceptRequest {
        target: args.target.clone(),
        root: args.root.as_ref().map(|root| root.display().to_string()),
        all: args.all,
    })?;
    let mut out = stdout();
    if args.json {
        json_line(&mut out, &done)?;
        std::io::Write::flush(&mut out)?;
    } else {
        let mut rows = Rows::new(out, Form::of_stdout(), &["DELETIONS ACCEPTED ON"]);
        done.targets.iter().try_for_each(|target| rows.push(vec![plain(target)]))?;
        rows.end()?;
    }
    Ok(ExitCode::SUCCESS)
}
