//! The three places where the command line reaches into the rest of syncq.

use std::path::{Path, PathBuf};

use super::exit::CliError;
use crate::control::{ClientError, Inspect};
use crate::daemon::Options;
use crate::model::Root;

/// What the configuration files say, together.
#[derive(Debug, Default)]
pub struct Loaded {
    pub roots: Vec<Root>,
    /// `<debug start="true"/>` in any of them.
    pub debug: bool,
    /// What is odd in them but does not matter, one line each.
    pub notices: Vec<String>,
}

// MERGE: crate::config::load(file) for each file; ConfigError -> CliError::config, Diagnostic -> notices.
pub fn load_configs(files: &[PathBuf]) -> Result<Loaded, CliError> {
    match files.iter().find(|file| !file.is_file()) {
        Some(missing) => Err(CliError::config(anyhow::anyhow!("there is no configuration file {}", missing.display()))
            .hint("name one: syncq run -o FILE")),
        None => Err(CliError::config(anyhow::anyhow!("this build cannot read configuration files"))),
    }
}

// MERGE: crate::daemon::run(options).
pub fn run_daemon(options: Options) -> anyhow::Result<()> {
    anyhow::bail!("this build has no daemon for {}", options.state_dir.display())
}

// MERGE: crate::daemon::offline::inspect(state_dir), with its own errors.
pub fn open_offline(state_dir: &Path) -> Result<Box<dyn Inspect>, CliError> {
    Err(ClientError::NoDaemon { state_dir: state_dir.to_owned() }.into())
}
