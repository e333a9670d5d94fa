//! `syncq purge`: forgets jobs.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Args;

use super::change_args::{ChangeArgs, apply};
use super::exit::CliError;
use super::output::counted;
use crate::control::{JobFilter, JobsRequest};
use crate::model::JobAction;

/// Forget jobs
///
/// Their paths may stay different on the target until they change again or a comparison finds them (syncq reconcile). A job
/// that is just being sent stays.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq purge --path 'cache/**' --older-than 1d --yes"))]
pub struct PurgeArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// All jobs, if nothing else says which
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(short = 'y', long)]
    yes: bool,
}

const MEANING: &str = "their paths may stay different until they change again or are reconciled";

pub fn run(args: &PurgeArgs) -> Result<ExitCode, CliError> {
    let filter = args.change.filter();
    if filter == JobFilter::default() && !args.all {
        return Err(CliError::usage("no job is named").hint("say which: syncq purge ID, --path GLOB, ... or --all"));
    }
    let asks = io::stdin().is_terminal() && io::stderr().is_terminal();
    let request = JobsRequest { filter, all: args.all, dry_run: args.change.dry_run };
    if !request.dry_run && !args.yes && !asks {
        let error = CliError::usage("nobody is there to be asked whether to purge");
        return Err(error.hint("see what it would be with --dry-run, then say --yes"));
    }
    let source = args.change.source()?;
    if !request.dry_run && !args.yes {
        let mut count = 0u64;
        source.change(JobAction::Purge, &JobsRequest { dry_run: true, ..request.clone() }, |_| {
            count += 1;
            Ok(())
        })?;
        if count > 0 && !agrees(&format!("forget {}? {MEANING} [y/N] ", counted(count, "job")))? {
            let _ = writeln!(io::stderr(), "nothing was purged");
            return Ok(ExitCode::FAILURE);
        }
    }
    let applied = apply(&source, JobAction::Purge, &request, args.change.json)?;
    let jobs = counted(applied.count, "job");
    let _ = match (request.dry_run, applied.count) {
        (true, _) => writeln!(io::stderr(), "{jobs} would be purged; {MEANING}"),
        (false, 0) => writeln!(io::stderr(), "{jobs} purged"),
        (false, _) => writeln!(io::stderr(), "{jobs} purged; {MEANING}"),
    };
    applied.end()
}

fn agrees(question: &str) -> Result<bool, CliError> {
    io::stderr().write_all(question.as_bytes())?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
