//! What people type: reads the command line, does or asks for it, and turns the result into text and an exit code.
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

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use exit::EXIT_CODES;

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
    let args = sersync_args::translate(std::env::args_os().collect(), has_default_config);
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    exit::report(match cli.command {
        Command::Run(run) => run::run(run, &arguments(&args)),
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

/// The command line without the program's name.
fn arguments(args: &[OsString]) -> Vec<OsString> {
    args.iter().skip(1).cloned().collect()
}

/// Prints help where it was asked for, and otherwise what is wrong in the form of all our errors.
fn refuse(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").map_or_else(|| text.clone(), |rest| format!("syncq: {rest}"));
    // What was typed may be what somebody else has named.
    let lines: String = text.lines().map(|line| format!("{}\n", output::plain(line))).collect();
    let _ = io::stderr().lock().write_all(lines.as_bytes());
    exit::Exit::Usage.into()
}

/// Help behind the list of subcommands.
fn top_help() -> String {
    let sersync = "sersync's own command line works too: syncq -d -r -o FILE means syncq run -d -r -o FILE.";
    format!("{sersync}\n\n{EXIT_CODES}")
}

/// Help behind a subcommand's options: an example, then the exit codes.
fn help_tail(example: &str) -> String {
    format!("Example:\n  {example}\n\n{EXIT_CODES}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
