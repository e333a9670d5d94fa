//! `syncq retry`: has failed jobs tried again now.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::change_args::{ChangeArgs, apply};
use super::exit::CliError;
use super::output::{counted, plain};
use super::source::Source;
use crate::control::{JobFilter, JobsRequest, TargetStatus};
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
    let hurried = hurried(&source, &request.filter)?;
    let applied = apply(&source, JobAction::Retry, &request, args.change.json)?;
    let mut said: Vec<String> = hurried.iter().map(|name| plain(name)).collect();
    if applied.count > 0 || said.is_empty() {
        said.insert(0, counted(applied.count, "job"));
    }
    let what = match (request.dry_run, applied.count + hurried.len() as u64) {
        (true, _) => "would be tried again now",
        (false, 1) => "is tried again now",
        (false, _) => "are tried again now",
    };
    let _ = writeln!(std::io::stderr(), "{} {what}", said.join(", "));
    applied.end()
}

/// The targets in trouble that the retry will probe as well.
fn hurried(source: &Source, filter: &JobFilter) -> Result<Vec<String>, CliError> {
    if !filter.is_of_whole_targets() {
        return Ok(Vec::new());
    }
    let wanted = |target: &TargetStatus| {
        target.retry_at.is_some()
            && filter.target.as_ref().is_none_or(|name| *name == target.name)
            && filter.root.as_ref().is_none_or(|root| Path::new(root) == Path::new(&target.root))
    };
    Ok(source.status()?.targets.into_iter().filter(wanted).map(|target| target.name).collect())
}
