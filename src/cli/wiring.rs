//! Reads the configuration files that a command names.

use std::path::PathBuf;

use super::exit::CliError;
use crate::daemon::RootOptions;

/// What the configuration files say, together.
#[derive(Debug, Default)]
pub struct Loaded {
    pub roots: Vec<RootOptions>,
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
