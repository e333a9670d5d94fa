//! The common part of `retry` and `purge`: which jobs they select, and how they act on them.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;

use super::exit::{CliError, Exit};
use super::filter_args::FilterArgs;
use super::list::Jobs;
use super::source::Source;
use super::state_dir::WhichDaemon;
use crate::control::{JobFilter, JobsRequest};
use crate::model::JobAction;

#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// Numbers of jobs, as list shows them
    #[arg(value_name = "ID", value_parser = super::values::whole::<u64>)]
    ids: Vec<u64>,
    #[command(flatten)]
    which: WhichDaemon,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only print which jobs it would be
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print the jobs as they were, one JSON object per line
    #[arg(long)]
    pub json: bool,
}

impl ChangeArgs {
    pub fn source(&self) -> Result<Source, CliError> {
        Source::open(&self.which.find()?)
    }

    pub fn filter(&self) -> JobFilter {
        JobFilter { ids: self.ids.clone(), ..self.filter.filter() }
    }
}

/// The result of an action.
pub struct Applied {
    /// How many jobs the action concerned.
    pub count: u64,
    action: JobAction,
    /// The given ids that no such job has.
    missing: BTreeSet<u64>,
}

/// Applies `action` to the jobs of the request, and prints them.
pub fn apply(source: &Source, action: JobAction, request: &JobsRequest, json: bool) -> Result<Applied, CliError> {
    let mut missing: BTreeSet<u64> = request.filter.ids.iter().copied().collect();
    let mut count = 0;
    let mut out = Jobs::new(json);
    let result = source.change(action, request, |row| {
        missing.remove(&row.id);
        count += 1;
        out.push(&row)
    });
    // Print the jobs that were changed, even if an error followed.
    out.end()?;
    result?;
    Ok(Applied { count, action, missing })
}

impl Applied {
    /// The exit code, to be asked for after the result is printed. Ids that no such job has are an error.
    pub fn end(self) -> Result<ExitCode, CliError> {
        if self.missing.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let ids: Vec<String> = self.missing.iter().map(u64::to_string).collect();
        let open = match self.action {
            JobAction::Retry => "failed or backing off",
            _ => "pending and not being sent",
        };
        Err(CliError {
            exit: Exit::Failed,
            error: anyhow::anyhow!("no job of these numbers is {open}: {}", ids.join(", ")),
            hint: Some("see syncq list; a job that is done is in it no more".to_owned()),
        })
    }
}
