//! Looks at an rsync daemon's password file before rsync does, to say what is wrong with it in plain words.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;

use super::exit::{CliError, quoted};
use crate::trust;

/// Whether rsync will take the file: readable for us, and closed to others.
pub fn check(path: &Path) -> Result<(), CliError> {
    let found = trust::open_given(path)
        .and_then(|file| file.metadata())
        .with_context(|| format!("cannot use the password file {}", path.display()))
        .map_err(|error| {
            CliError::config(error).hint("it holds the password alone, and is readable for the user that syncq runs as")
        })?;
    // rsync's own rules: it belongs to root where root runs rsync, and there is nothing in it for others.
    if rustix::process::geteuid().is_root() && found.uid() != 0 {
        let (shown, owner) = (path.display(), found.uid());
        let error =
            anyhow::anyhow!("rsync refuses the password file {shown}: it belongs to user {owner}, and root runs rsync");
        return Err(CliError::config(error).hint(format!("chown root {}", quoted(path))));
    }
    if found.permissions().mode() & 0o006 != 0 {
        return Err(CliError::config(anyhow::anyhow!(
            "rsync refuses the password file {}: others may use it",
            path.display()
        ))
        .hint(format!("chmod 600 {}", quoted(path))));
    }
    Ok(())
}
