//! `syncq retry`: failed jobs are tried again now.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::change_args::{ChangeArgs, apply};
use super::exit::CliError;
use crate::control::JobsRequest;
use crate::model::JobAction;

/// Try failed and waiting jobs again now
///
/// Jobs that were given up begin anew. With nothing but --target or --root, a target in trouble is tried now as well.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq retry --target backup::www --error 'No space left'"))]
pub struct RetryArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

pub fn run(args: &RetryArgs) -> Result<ExitCode, CliError> {
    let source = args.change.source()?;
    let request = JobsRequest { filter: args.change.filter(), all: true, dry_run: args.change.dry_run };
    let count = apply(&source, JobAction::Retry, &request, args.change.json)?;
    let what = if request.dry_run { "would be tried again now" } else { "are tried again now" };
    let _ = writeln!(std::io::stderr(), "{count} jobs {what}");
    Ok(ExitCode::SUCCESS)
}
