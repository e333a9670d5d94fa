//! The command line: reads the arguments, does the work or asks the daemon for it, and turns the result into text and an exit
//! code.
//!
//! One file per subcommand. Texts for people are made here and nowhere below: the rest of syncq returns values.
//!
//! Invariant: this module knows no queue and no rsync. It starts the daemon through `crate::daemon` and asks it
//! through `crate::control`; `check` alone needs no daemon, and has `crate::mirror` ask the targets.

mod accept_deletions;
mod accept_target;
mod apart;
mod change_args;
mod check;
mod configs;
mod destination;
mod excludes;
mod exit;
mod explain;
mod filter_args;
mod help;
mod import_faillog;
mod list;
mod listen;
mod log_options;
mod mirror;
mod neighbours;
mod output;
mod own_rsyncd;
mod password_file;
mod pause;
mod progress;
mod purge;
mod reconcile;
mod reload;
mod retry;
mod run;
mod sersync_args;
mod sersync_fail_log;
mod source;
mod state_dir;
mod status;
mod store;
mod target_choice;
mod values;
mod verify;
mod wait;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use exit::EXIT_CODES;
use help::help_tail;

/// Mirror directory trees to many rsync targets in real time
#[derive(Debug, Parser)]
#[command(name = "syncq", version, arg_required_else_help = true, after_help = top_help(), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Mirror(mirror::MirrorArgs),
    Check(check::CheckArgs),
    Status(status::StatusArgs),
    List(list::ListArgs),
    Retry(retry::RetryArgs),
    Purge(purge::PurgeArgs),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    Reconcile(reconcile::ReconcileArgs),
    Verify(verify::VerifyArgs),
    Reload(reload::ReloadArgs),
    Wait(wait::WaitArgs),
    Explain(explain::ExplainArgs),
    AcceptDeletions(accept_deletions::AcceptArgs),
    AcceptTarget(accept_target::AcceptArgs),
    ImportFaillog(import_faillog::ImportArgs),
    Store(store::StoreArgs),
}

/// Runs the command line and returns its exit code.
pub fn main() -> ExitCode {
    let has_default_config = Path::new(sersync_args::DEFAULT_CONFIG).is_file();
    let args = sersync_args::translate(std::env::args_os().collect(), has_default_config, is_command);
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    exit::report(match cli.command {
        Command::Run(run) => run::run(run, &arguments(&args), is_command),
        Command::Mirror(mirror) => mirror::run(mirror),
        Command::Check(check) => check::run(&check),
        Command::Status(status) => status::run(&status),
        Command::List(list) => list::run(&list),
        Command::Retry(retry) => retry::run(&retry),
        Command::Purge(purge) => purge::run(&purge),
        Command::Pause(pause) => pause::pause(&pause),
        Command::Resume(resume) => pause::resume(&resume),
        Command::Reconcile(reconcile) => reconcile::run(&reconcile),
        Command::Verify(verify) => verify::run(&verify),
        Command::Reload(reload) => reload::run(&reload),
        Command::Wait(wait) => wait::run(&wait),
        Command::Explain(explain) => explain::run(&explain),
        Command::AcceptDeletions(accept) => accept_deletions::run(&accept),
        Command::AcceptTarget(accept) => accept_target::run(&accept),
        Command::ImportFaillog(import) => import_faillog::run(&import),
        Command::Store(store) => store::run(&store),
    })
}

/// The definition of the command line, from which manual pages and completions are made.
pub fn command() -> clap::Command {
    use clap::CommandFactory as _;
    Cli::command()
}

/// Whether a word names a subcommand.
fn is_command(word: &OsStr) -> bool {
    word == "help" || command().get_subcommands().any(|command| word == command.get_name())
}

/// The command line without the program's name.
fn arguments(args: &[OsString]) -> Vec<OsString> {
    args.iter().skip(1).cloned().collect()
}

/// Prints help where it was asked for. Otherwise prints the fault in the form of all errors.
fn refuse(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let unknown = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(word))) => Some(word.as_str()),
        _ => None,
    };
    let typed: Vec<String> = std::env::args().collect();
    let _ = io::stderr().lock().write_all(usage(&error.render().to_string(), unknown, &typed).as_bytes());
    exit::Exit::Usage.into()
}

/// The text about a wrong command line: clap's words without tips that lead nowhere. `unknown` is the word that clap does not
/// know, `typed` the whole line. Pure.
fn usage(said: &str, unknown: Option<&str>, typed: &[String]) -> String {
    let said = said.strip_prefix("error: ").map_or_else(|| said.to_owned(), |rest| format!("syncq: {rest}"));
    let before = unknown.and_then(|word| typed.iter().rposition(|typed| typed == word)?.checked_sub(1));
    let ours = match (unknown, before.and_then(|at| typed.get(at)).map(String::as_str)) {
        (Some("-v" | "--verbose" | "--debug"), _) => Some(match typed.get(1).map(String::as_str) {
            Some("mirror" | "run") => "--log-level debug says more".to_owned(),
            _ => "the daemon's log says more: syncq run --log-level debug, or syncq mirror with it".to_owned(),
        }),
        (Some("--dry-run" | "--check"), _) => {
            Some("syncq reconcile --dry-run, or syncq verify, of a daemon that runs".to_owned())
        }
        // The option's value is optional, so it has to be joined to the option.
        (Some(value), Some(option @ ("--watch" | "--delete" | "--attrib"))) => {
            let unit = if value.bytes().all(|b| b.is_ascii_digit()) { "s" } else { "" };
            Some(format!("{option}={value}{unit}"))
        }
        _ => None,
    };
    let mut lines = Vec::new();
    for line in said.lines() {
        if line.trim_start().starts_with("tip: to pass ") {
            lines.extend(ours.as_ref().map(|tip| format!("  tip: {tip}")));
        } else {
            // The typed word may be a file name that somebody else has chosen, so it is printed without control characters.
            lines.push(output::plain(line));
        }
    }
    if let Some(tip) = ours.filter(|tip| !lines.iter().any(|line| line.contains(tip.as_str()))) {
        lines.insert(1.min(lines.len()), format!("\n  tip: {tip}"));
    }
    // A removed tip leaves empty lines behind.
    let mut text = lines.join("\n") + "\n";
    while text.contains("\n\n\n") {
        text = text.replace("\n\n\n", "\n\n");
    }
    text
}

/// Help behind the list of subcommands.
fn top_help() -> String {
    let sersync = "sersync's own command line works too: syncq -d -r -o FILE means syncq run -d -r -o FILE.";
    format!("{sersync}\n\n{EXIT_CODES}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tips_say_what_there_is() {
        for (line, words) in [
            ("syncq mirror /a /b -v", "tip: --log-level debug says more"),
            ("syncq status -v", "tip: the daemon's log says more"),
            ("syncq reconcile --dryrun", "dry-run"),
            ("syncq mirror /a /b --dry-run", "reconcile --dry-run"),
            ("syncq status --watch 2", "--watch=2s"),
            ("syncq status --nonsense", "unexpected argument '--nonsense'"),
        ] {
            let typed: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let error = Cli::try_parse_from(&typed).expect_err(line);
            let unknown = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::String(word)) => Some(word.as_str()),
                _ => None,
            };
            let said = usage(&error.render().to_string(), unknown, &typed);
            assert!(said.starts_with("syncq: ") && said.contains(words), "{said}");
            assert!(!said.contains("to pass") && !said.contains("\n\n\n"), "{said}");
        }
    }

    #[test]
    fn the_command_line_is_consistent_and_every_help_has_an_example() {
        let mut command = command();
        command.build();
        command.clone().debug_assert();
        fn check(command: &mut clap::Command) {
            for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
                let help = sub.render_long_help().to_string();
                assert!(help.contains("Example:\n  syncq ") && help.contains("78  bad configuration"), "{help}");
                check(sub);
            }
        }
        check(&mut command);
        assert!(command.render_long_help().to_string().contains("78  bad configuration"));
    }
}
