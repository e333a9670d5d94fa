//! `syncq wait`: returns once every change made before the call is on the targets.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::exit::{CliError, Exit};
use super::output::{json_line, plain, some, stdout};
use super::progress::Progress;
use super::state_dir::WhichDaemon;
use crate::control::{Client, JobRow, Missing, PathArg, Status, WaitRequest, Waiting};

/// Wait until everything changed so far is on the targets
///
/// What changes later is not waited for. Exits with 1 if the time is over before, and says what is missing.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq wait --path /srv/www/release --timeout 5m && ./announce"))]
pub struct WaitArgs {
    #[command(flatten)]
    which: WhichDaemon,
    /// Give up after this long, like 30s or 5m [default: never]
    #[arg(long, value_name = "TIME", value_parser = super::values::duration)]
    timeout: Option<Duration>,
    /// Only changes of this file, or of this directory with all below it
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// On so many targets of each mirrored directory: a number, any (one of them) or all
    #[arg(long, value_name = "N", default_value = "all", value_parser = count)]
    targets: Count,
    /// Only this target, named as in status
    #[arg(long, value_name = "TARGET", conflicts_with = "targets")]
    target: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
enum Count {
    All,
    Of(u32),
}

fn count(text: &str) -> Result<Count, String> {
    match text {
        "all" => Ok(Count::All),
        "any" => Ok(Count::Of(1)),
        number => match number.parse() {
            Ok(count @ 1..) => Ok(Count::Of(count)),
            _ => Err("give a number from 1 on, any or all".to_owned()),
        },
    }
}

pub fn run(args: &WaitArgs) -> Result<ExitCode, CliError> {
    let request = WaitRequest {
        path: args.path.as_ref().map(|path| path_arg(path)),
        target: args.target.clone(),
        targets: match args.targets {
            Count::All => None,
            Count::Of(count) => Some(count),
        },
        timeout_s: args.timeout.map(|timeout| timeout.as_secs_f64()),
    };
    wait(&Client::connect(&args.which.find()?)?, &request, args.json)
}

/// A path from the command line, with the working directory, which the daemon does not share.
pub fn path_arg(path: &std::path::Path) -> PathArg {
    PathArg::new(path, std::env::current_dir().ok())
}

/// Waits, and reports the result.
pub fn wait(client: &Client, request: &WaitRequest, json: bool) -> Result<ExitCode, CliError> {
    let view = Progress::start(watched(client, request));
    let waiting = client.wait(request);
    drop(view);
    let waiting = waiting?;
    if json {
        let mut out = stdout();
        json_line(&mut out, &waiting)?;
        out.flush()?;
    }
    if !json && !waiting.comparing.is_empty() {
        let targets = some(&waiting.comparing.iter().map(|name| plain(name)).collect::<Vec<_>>());
        let _ = writeln!(std::io::stderr(), "syncq: equal in size and time, contents still being compared: {targets}");
    }
    if waiting.done {
        return Ok(ExitCode::SUCCESS);
    }
    Err(CliError {
        exit: Exit::Failed,
        error: anyhow::anyhow!("the time is over: {}", missing(&waiting)),
        hint: Some("see syncq status and syncq list; ask about one path: syncq explain PATH".to_owned()),
    })
}

/// Returns a function that looks at the targets that are waited for.
fn watched(client: &Client, request: &WaitRequest) -> impl Fn() -> Option<Status> + Send + 'static {
    // A second connection: the first is busy with the wait.
    let client = Client::connect(client.state_dir());
    let target = request.target.clone();
    move || {
        let mut status = client.as_ref().ok()?.status().ok()?;
        status.targets.retain(|known| target.as_ref().is_none_or(|target| *target == known.name));
        // Not all of many targets are shown, so those come first that lack something.
        status.targets.sort_by_key(|known| known.lag_s <= 0.0);
        Some(status)
    }
}

fn missing(waiting: &Waiting) -> String {
    let one = |missing: &Missing| {
        let what = plain(missing.target.as_deref().unwrap_or(&missing.root));
        let reason = missing.reason.as_deref().map(|reason| format!(" ({})", plain(reason))).unwrap_or_default();
        let job = |row: &JobRow| match &row.error {
            Some(error) => format!("{} ({})", row.shown_path(), plain(error)),
            None => row.shown_path(),
        };
        let jobs: Vec<String> = missing.jobs.iter().map(job).collect();
        let jobs = if jobs.is_empty() { String::new() } else { format!(" lacks {}", jobs.join(", ")) };
        format!("{what}{jobs}{reason}")
    };
    some(&waiting.missing.iter().map(one).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_one_line() {
        let root = Missing {
            root: "/srv".to_owned(),
            target: None,
            reason: Some("/srv is missing\n".to_owned()),
            jobs: Vec::new(),
        };
        let target = Missing { target: Some("b::www".to_owned()), reason: None, ..root.clone() };
        let waiting = Waiting { done: false, timed_out: true, missing: vec![root, target], ..Waiting::default() };
        assert_eq!(missing(&waiting), "/srv (/srv is missing\\n); b::www");
    }

    #[test]
    fn a_count_is_a_number_any_or_all() {
        assert!(matches!(count("all"), Ok(Count::All)) && matches!(count("any"), Ok(Count::Of(1))));
        assert!(matches!(count("2"), Ok(Count::Of(2))) && count("x").is_err());
    }
}
