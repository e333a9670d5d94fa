//! `syncq list`: the jobs that are not done yet.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::exit::CliError;
use super::output::{Form, Rows, json_line, plain, stdout};
use super::source::Source;
use super::state_dir::WhichDaemon;
use crate::control::{JobFilter, JobRow};
use crate::model::JobState;

/// List the changes that are not on their targets yet
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq list --state failed --target backup::www"))]
pub struct ListArgs {
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Only jobs in this state
    #[arg(long, value_name = "STATE", value_enum)]
    state: Option<StateArg>,
    /// Only jobs of this target, named as in status
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// At most this many jobs
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StateArg {
    /// May be sent now
    Ready,
    /// Being sent
    Running,
    /// Backing off, or still being written
    Waiting,
    /// Given up until the path changes
    Failed,
}

impl From<StateArg> for JobState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Ready => Self::Ready,
            StateArg::Running => Self::Running,
            StateArg::Waiting => Self::Waiting,
            StateArg::Failed => Self::Failed,
        }
    }
}

const HEADER: [&str; 8] = ["ID", "STATE", "TARGET", "SCOPE", "ATTEMPTS", "DUE", "PATH", "ERROR"];

pub fn run(args: &ListArgs) -> Result<ExitCode, CliError> {
    let source = Source::open(&args.which.find()?)?;
    let filter = JobFilter { state: args.state.map(JobState::from), target: args.target.clone() };
    if args.json {
        let mut out = stdout();
        source.jobs(&filter, args.limit, |row| Ok(json_line(&mut out, &row)?))?;
        std::io::Write::flush(&mut out)?;
    } else {
        let mut rows = Rows::new(stdout(), Form::of_stdout(), &HEADER);
        source.jobs(&filter, args.limit, |row| Ok(rows.push(cells(&row))?))?;
        rows.end()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(row: &JobRow) -> Vec<String> {
    vec![
        row.id.to_string(),
        row.state.to_string(),
        plain(&row.target),
        row.scope.to_string(),
        row.attempts.to_string(),
        row.due_at.to_string(),
        row.shown_path(),
        row.error.as_deref().map(plain).unwrap_or_default(),
    ]
}
