//! Reads the configuration files that a command names, and looks whether what they name is there.
//!
//! What only a person can mend ends the start here, with a hint; what may come back by itself (a target that is down)
//! is left to the daemon.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::exit::CliError;
use super::password_file;
use crate::config;
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

/// Reads and checks all of `files`.
pub fn load(files: &[PathBuf]) -> Result<Loaded, CliError> {
    let mut loaded = Loaded::default();
    for file in files {
        let (config, diagnostics) = config::load(file).map_err(|error| {
            let hint = error.hint();
            let error = CliError::config(error);
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?;
        loaded.notices.extend(diagnostics.iter().map(|diagnostic| match &diagnostic.hint {
            Some(hint) => format!("{diagnostic}; {hint}"),
            None => diagnostic.to_string(),
        }));
        if let Some(plugin) = &config.plugin {
            let name = plugin.kind().as_str();
            loaded.notices.push(format!("{}: this version runs no plugins, {name} is left out", file.display()));
        }
        loaded.debug |= config.debug;
        for root in config.roots {
            check_watch(file, &root.path)?;
            for target in &root.targets {
                if let Some(password_file) = &target.options.password_file {
                    password_file::check(password_file)?;
                }
            }
            loaded.roots.push(RootOptions { root, settings: config.settings.clone() });
        }
    }
    Ok(loaded)
}

fn check_watch(file: &Path, watch: &Path) -> Result<(), CliError> {
    let refuse = |error: anyhow::Error| {
        CliError::config(error).hint(format!("create it, or correct <localpath watch=\"…\"> in {}", file.display()))
    };
    let shown = watch.display();
    let found = match std::fs::metadata(watch) {
        // Whether it was ever there, only the daemon's store knows.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.with_context(|| format!("cannot watch {shown}")).map_err(refuse)?,
    };
    if !found.is_dir() {
        return Err(refuse(anyhow::anyhow!("cannot watch {shown}: it is no directory")));
    }
    std::fs::read_dir(watch).with_context(|| format!("cannot read {shown}")).map_err(CliError::config)?;
    Ok(())
}
