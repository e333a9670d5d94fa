//! `syncq import-faillog`: takes over the work that sersync left in its `rsync_fail_log.sh`.
//!
//! The script is read and never run. Of each command only the directory, the target and the path matter. The work to be done
//! follows from the source as it is now.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::exit::{CliError, Exit};
use super::output::{plain, stdout};
use super::sersync_fail_log::{Command, commands};
use super::source::Source;
use super::state_dir::WhichDaemon;
use crate::control::NewJob;
use crate::model::Scope;
use crate::trust;

/// Larger files are refused: at 200 bytes a command, this is more than 300,000 commands.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The most problems that are printed; the others are counted.
const PROBLEMS_SHOWN_MAX: usize = 50;

/// Queue what sersync's script of failed commands stands for, without running it
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq import-faillog /tmp/rsync_fail_log.sh -o /etc/syncq/confxml.xml"))]
pub struct ImportArgs {
    /// The script, as failLog named it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    which: WhichDaemon,
}

pub fn run(args: &ImportArgs) -> Result<ExitCode, CliError> {
    let file = args.file.display();
    let found = std::fs::metadata(&args.file).with_context(|| format!("cannot read {file}"))?;
    if found.is_dir() {
        let hint = "name the script, as <failLog path=\"...\"> did";
        return Err(CliError::usage(format!("{file} is a directory")).hint(hint));
    }
    if found.len() > FILE_BYTES_MAX {
        return Err(CliError::usage(format!("{file} is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let mut text = Vec::new();
    trust::open_given(&args.file)
        .and_then(|opened| opened.take(FILE_BYTES_MAX).read_to_end(&mut text))
        .with_context(|| format!("cannot read {file}"))?;
    let source = Source::open(&args.which.find()?)?;
    let mut problems = Vec::new();
    let mut lines = Vec::new();
    let mut jobs = Vec::new();
    for (line, command) in commands(&text) {
        match command {
            Ok(Command { root, target, path, whole }) => {
                lines.push(line);
                jobs.push(NewJob::new(&root, &target, &path, whole.then_some(Scope::Subtree)));
            }
            Err(reason) => problems.push((line, reason.to_string())),
        }
    }
    let answers = source.add(&jobs)?;
    let mut added = 0;
    for (line, answer) in lines.into_iter().zip(answers) {
        match answer {
            None => added += 1,
            Some(reason) => problems.push((line, reason)),
        }
    }
    problems.sort();
    let mut out = stdout();
    let skipped = problems.len();
    for (line, reason) in problems.iter().take(PROBLEMS_SHOWN_MAX) {
        writeln!(out, "{file}:{line}: skipped: {}", plain(reason))?;
    }
    if let Some(more) = skipped.checked_sub(PROBLEMS_SHOWN_MAX).filter(|&more| more > 0) {
        writeln!(out, "{more} more are skipped")?;
    }
    writeln!(out, "queued: {added}, skipped: {skipped}")?;
    out.flush()?;
    if skipped == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let error = anyhow::anyhow!("not all of {file} could be taken over");
    let hint = "what is left out is found by a comparison: syncq reconcile".to_owned();
    Err(CliError { exit: Exit::Failed, error, hint: Some(hint) })
}
