//! `syncq reload`: has a running daemon read its configuration files again.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::exit::{CliError, Exit};
use super::output::{json_line, plain, stdout};
use super::state_dir::WhichDaemon;
use crate::control::Client;

/// Have a running daemon read its configuration again
///
/// Waits until the new configuration is in force, all of its directories watched. With an error in it the old one stays in
/// force entirely, and this exits with 78. What was given on the daemon's command line stays as it is. HUP does the same,
/// and tells the outcome only in the log and in syncq status.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq reload -o /etc/syncq/confxml.xml"))]
pub struct ReloadArgs {
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ReloadArgs) -> Result<ExitCode, CliError> {
    let reloaded = Client::connect(&args.which.find()?)?.reload()?;
    let mut out = stdout();
    if args.json {
        json_line(&mut out, &reloaded)?;
    }
    if let Some(error) = reloaded.config.error {
        out.flush()?;
        return Err(CliError {
            exit: if error.config { Exit::Config } else { Exit::Failed },
            error: anyhow::anyhow!("the old configuration stays in force: {}", error.message),
            hint: error.hint,
        });
    }
    if !args.json {
        writeln!(out, "{}", plain(&reloaded.changes.to_string()))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
