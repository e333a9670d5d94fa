//! Looks at an rsync daemon's password file before rsync does, to say what is wrong with it in plain words.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;

use super::exit::{CliError, quoted};

/// Whether rsync will take the file: readable for us, and closed to others.
pub fn check(path: &Path) -> Result<(), CliError> {
    let found = std::fs::File::open(path)
        .and_then(|file| file.metadata())
        .with_context(|| format!("cannot use the password file {}", path.display()))
        .map_err(|error| {
            CliError::config(error).hint("it holds the password alone, and is readable for the user that syncq runs as")
        })?;
    if !found.is_file() {
        return Err(CliError::config(anyhow::anyhow!("the password file {} is no file", path.display())));
    }
    // rsync's own rule: nothing for others.
    if found.permissions().mode() & 0o006 != 0 {
        return Err(CliError::config(anyhow::anyhow!(
            "rsync refuses the password file {}: others may use it",
            path.display()
        ))
        .hint(format!("chmod 600 {}", quoted(path))));
    }
    Ok(())
}
