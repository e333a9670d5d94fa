//! `syncq list`: the jobs that are not done yet.
//!
//! Jobs are written as they come, in the order of target and path, so half a million of them take no memory here. For another
//! order at most the first `SORTED_MAX` are kept.

use std::collections::BTreeMap;
use std::io::{BufWriter, StdoutLock, Write as _};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::exit::CliError;
use super::filter_args::FilterArgs;
use super::output::{Form, Rows, json_line, plain, stdout};
use super::source::Source;
use super::state_dir::WhichDaemon;
use crate::control::JobRow;

/// List the changes that are not on their targets yet
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq list --state failed --target backup::www --sort age --limit 20"))]
pub struct ListArgs {
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// In which order; other than by path at most 10000 jobs are shown
    #[arg(long, value_name = "ORDER", value_enum, default_value_t = Order::Path)]
    sort: Order,
    /// At most this many jobs
    #[arg(long, value_name = "N", value_parser = super::values::whole::<u64>)]
    limit: Option<u64>,
}

/// The most jobs that are kept to be sorted.
const SORTED_MAX: u64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// By target and path
    Path,
    /// The oldest first
    Age,
    /// What is due next first
    Due,
    /// What has failed most often first
    Attempts,
}

const HEADER: [&str; 8] = ["ID", "STATE", "TARGET", "SCOPE", "ATTEMPTS", "DUE", "PATH", "ERROR"];

pub fn run(args: &ListArgs) -> Result<ExitCode, CliError> {
    let source = Source::open(&args.which.find()?)?;
    let mut out = Jobs::new(args.json);
    let mut filter = args.filter.filter();
    if args.sort == Order::Path {
        filter.limit = args.limit;
        source.jobs(&filter, |row| out.push(&row))?;
        out.end()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut first = First::new(args.sort, args.limit.unwrap_or(SORTED_MAX).min(SORTED_MAX));
    source.jobs(&filter, |row| {
        first.offer(row);
        Ok(())
    })?;
    let left_out = first.left_out;
    for row in first.rows.into_values() {
        out.push(&row)?;
    }
    out.end()?;
    if left_out > 0 && args.limit.is_none_or(|limit| limit > SORTED_MAX) {
        let _ = writeln!(std::io::stderr(), "syncq: {left_out} more jobs; sort by path to see all");
    }
    Ok(ExitCode::SUCCESS)
}

/// The first jobs in a given order.
struct First {
    order: Order,
    limit: u64,
    /// The key is rank and id. Ids are unique, so jobs of one rank do not replace each other.
    rows: BTreeMap<(u64, u64), JobRow>,
    left_out: u64,
}

impl First {
    fn new(order: Order, limit: u64) -> Self {
        Self { order, limit, rows: BTreeMap::new(), left_out: 0 }
    }

    fn offer(&mut self, row: JobRow) {
        let rank = match self.order {
            Order::Path => 0,
            Order::Age => row.queued_at.0,
            Order::Due => row.due_at.0,
            Order::Attempts => u64::from(u32::MAX - row.attempts),
        };
        self.rows.insert((rank, row.id), row);
        if self.rows.len() as u64 > self.limit {
            self.rows.pop_last();
            self.left_out += 1;
        }
    }
}

/// Writes jobs to standard output: as a table, as tab-separated lines, or as JSON.
pub enum Jobs {
    Json(BufWriter<StdoutLock<'static>>),
    Rows(Rows<BufWriter<StdoutLock<'static>>>),
}

impl Jobs {
    pub fn new(json: bool) -> Self {
        if json { Self::Json(stdout()) } else { Self::Rows(Rows::new(stdout(), Form::of_stdout(), &HEADER)) }
    }

    pub fn push(&mut self, row: &JobRow) -> Result<(), CliError> {
        match self {
            Self::Json(out) => json_line(out, row)?,
            Self::Rows(rows) => rows.push(cells(row))?,
        }
        Ok(())
    }

    pub fn end(self) -> Result<(), CliError> {
        match self {
            Self::Json(mut out) => out.flush()?,
            Self::Rows(rows) => drop(rows.end()?),
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JobState, Origin, Scope, Timestamp};

    fn row(id: u64, queued_at: u64, due_at: u64, attempts: u32) -> JobRow {
        JobRow {
            id,
            root: "/srv".to_owned(),
            target: "b::www".to_owned(),
            path: format!("f{id}"),
            path_b64: None,
            scope: Scope::Entry,
            origin: Origin::Write,
            state: JobState::Waiting,
            attempts,
            queued_at: Timestamp(queued_at),
            due_at: Timestamp(due_at),
            error: None,
        }
    }

    #[test]
    fn the_first_of_an_order_are_kept_and_the_others_counted() {
        let rows = [row(1, 30, 5, 2), row(2, 10, 9, 2), row(3, 20, 7, 9), row(4, 40, 1, 0)];
        for (order, expected) in [(Order::Age, [2, 3, 1]), (Order::Due, [4, 1, 3]), (Order::Attempts, [3, 1, 2])] {
            let mut first = First::new(order, 3);
            rows.iter().cloned().for_each(|row| first.offer(row));
            let ids: Vec<u64> = first.rows.values().map(|row| row.id).collect();
            assert_eq!((ids.as_slice(), first.left_out), (&expected[..], 1), "{order:?}");
        }
    }
}
