//! `syncq accept-target`: an operator agrees that a target is another directory than before.

use std::process::ExitCode;

use clap::Args;

use super::accept_deletions::show;
use super::exit::CliError;
use super::target_choice::TargetChoice;
use crate::control::{AcceptRequest, Client};

/// Mirror to what is at a target's place now, although it is not what was there before
///
/// For a target that is target_gone: its disk is not mounted, or it was replaced. What is there now, or nothing, counts from
/// here on, is compared in full at once, by content too, and filled. maxDelete holds.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq accept-target /mnt/backup/www"))]
pub struct AcceptArgs {
    #[command(flatten)]
    choice: TargetChoice,
}

pub fn run(args: &AcceptArgs) -> Result<ExitCode, CliError> {
    let choice = &args.choice;
    let request = AcceptRequest { target: choice.target.clone(), root: choice.root(), all: choice.all };
    show(choice, &Client::connect(&choice.which.find()?)?.accept_target(&request)?, "ACCEPTED")
}
