//! The options of commands that act on whole targets: which targets are meant.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::state_dir::WhichDaemon;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which targets").args(["target", "root", "all"]).required(true))]
pub struct TargetChoice {
    /// Which target, named as in status
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
    /// All targets of this mirrored directory
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// All targets
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub which: WhichDaemon,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl TargetChoice {
    /// The mirrored directory in the form of requests.
    pub fn root(&self) -> Option<String> {
        self.root.as_ref().map(|root| root.display().to_string())
    }
}
