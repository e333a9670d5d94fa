//! Which targets a command acts on, for commands that take whole targets.

use std::path::PathBuf;

use clap::Args;

use super::state_dir::WhichDaemon;

#[derive(Debug, Args)]
pub struct TargetChoice {
    /// Which target, named as in status
    #[arg(value_name = "TARGET", required_unless_present_any = ["root", "all"])]
    pub target: Option<String>,
    /// All targets of this mirrored directory
    #[arg(long, value_name = "DIR", conflicts_with = "target")]
    root: Option<PathBuf>,
    /// All targets
    #[arg(long, conflicts_with_all = ["target", "root"])]
    pub all: bool,
    #[command(flatten)]
    pub which: WhichDaemon,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl TargetChoice {
    /// The mirrored directory as requests carry it.
    pub fn root(&self) -> Option<String> {
        self.root.as_ref().map(|root| root.display().to_string())
    }
}
