//! Checks an rsync daemon's password file before rsync does, to report faults in plain words. Never shows the content.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;

use super::exit::{CliError, quoted};
use crate::trust;

/// The most bytes that are read: the file holds one line.
const BYTES_MAX: u64 = 4_096;

/// Checks that rsync will accept the file: readable for this user, closed to others, and not empty.
pub fn check(path: &Path) -> Result<(), CliError> {
    let shown = path.display();
    let file = trust::open_given(path).with_context(|| format!("cannot use the password file {shown}"));
    let file = file.map_err(|error| {
        let hint = match path.is_dir() {
            true => "name a file with the password, and nothing else, in its first line",
            false => "it holds the password alone, and is readable for the user that syncq runs as",
        };
        CliError::config(error).hint(hint)
    })?;
    let found = file.metadata().with_context(|| format!("cannot use the password file {shown}"))?;
    // rsync's own rules: the file of an rsync that runs as root belongs to root, and others have no rights to it.
    if rustix::process::geteuid().is_root() && found.uid() != 0 {
        let owner = found.uid();
        let error =
            anyhow::anyhow!("rsync refuses the password file {shown}: it belongs to user {owner}, and root runs rsync");
        return Err(CliError::config(error).hint(format!("chown root {}", quoted(path))));
    }
    if found.permissions().mode() & 0o006 != 0 {
        let error = anyhow::anyhow!("rsync refuses the password file {shown}: others may use it");
        return Err(CliError::config(error).hint(format!("chmod 600 {}", quoted(path))));
    }
    let content = content(file).with_context(|| format!("cannot read the password file {shown}"))?;
    if first_line(&content).is_empty() {
        let error = anyhow::anyhow!("rsync refuses the password file {shown}: its first line is empty");
        return Err(CliError::config(error).hint("it holds the password alone, in its first line"));
    }
    Ok(())
}

fn content(file: File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

fn first_line(content: &[u8]) -> &[u8] {
    content.split(|&b| b == b'\n' || b == b'\r').next().unwrap_or_default()
}

/// An oddity of a file that rsync accepts, and the way out. `user` is the user name that rsync sends.
pub fn oddity(path: &Path, user: Option<&str>) -> Option<(&'static str, &'static str)> {
    odd(&content(trust::open_given(path).ok()?).ok()?, user)
}

/// The oddity of a content. Pure.
fn odd(content: &[u8], user: Option<&str>) -> Option<(&'static str, &'static str)> {
    let first = first_line(content);
    if user.is_some_and(|user| first.strip_prefix(user.as_bytes()).is_some_and(|rest| rest.starts_with(b":"))) {
        return Some((
            "it holds user:password",
            "that is the form of `secrets file` on the server; here it is the password alone, without the user",
        ));
    }
    if first.trim_ascii() != first {
        return Some(("the password begins or ends with a blank", "rsync takes it with the blank; is that meant?"));
    }
    let more = content.split(|&b| b == b'\n').skip(1).any(|line| !line.trim_ascii().is_empty());
    more.then_some(("it has more than one line", "rsync takes the first line only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_files_form_is_judged_without_repeating_it() {
        for (content, user, words) in [
            ("S3cret\n", Some("joe"), ""),
            ("S3cret", None, ""),
            ("a:S3cret\n", Some("joe"), ""),
            ("joe:S3cret\n", Some("joe"), "user:password"),
            ("S3cret \n", None, "blank"),
            ("S3cret\nother\n", None, "more than one line"),
            ("S3cret\n\n", None, ""),
            ("S3cret\r\n", None, ""),
        ] {
            let (message, hint) = odd(content.as_bytes(), user).unwrap_or_default();
            assert!(message.contains(words) && message.is_empty() == words.is_empty(), "{content:?}: {message}");
            assert!(!message.contains("S3cret") && !hint.contains("S3cret"));
        }
    }

    #[test]
    fn an_empty_file_is_refused_before_rsync_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("pass");
        for (content, words) in [("", "is empty"), ("\nS3cret\n", "is empty"), ("S3cret\n", ""), ("\u{ff}\n", "")] {
            std::fs::write(&file, content).expect("a file");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a mode");
            let said = check(&file).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains(words) && said.is_empty() == words.is_empty(), "{content:?}: {said}");
        }
        let said = check(dir.path()).expect_err("a directory").to_string();
        assert!(said.contains("name a file with the password"), "{said}");
    }
}
