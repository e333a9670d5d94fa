//! The end of a command: the exit codes, and the one place where an error becomes words.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::control::{ClientError, ControlError, Refusal};
use crate::daemon::{NotTaken, UnknownRoot};
use crate::mirror::NoRsync;
use crate::model::plain;
use crate::store::StoreError;
use crate::watch::WatchError;

/// The exit codes, as every `--help` lists them.
pub const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  failed
   2  wrong usage
   3  daemon not reachable
  78  bad configuration";

/// Why a command did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    NoDaemon = 3,
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error on its way to the operator: its causes, the exit code, and a hint.
#[derive(Debug)]
pub struct CliError {
    pub exit: Exit,
    pub error: anyhow::Error,
    pub hint: Option<String>,
}

impl CliError {
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, error: anyhow::Error::msg(message.into()), hint: None }
    }

    pub fn config(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Config, error: error.into(), hint: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Chooses exit code and hint by the type of the underlying error.
impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        let (exit, hint) = match error.downcast_ref::<StoreError>() {
            Some(StoreError::Locked { dir, .. }) => (
                Exit::Failed,
                Some(format!(
                    "one daemon per state directory; see what that one does: syncq status --state-dir {}",
                    quoted(dir)
                )),
            ),
            Some(StoreError::NewerSchema { writer, .. }) => {
                (Exit::Failed, Some(format!("run syncq {writer} or newer, or another --state-dir")))
            }
            Some(StoreError::Damaged { .. }) => (
                Exit::Failed,
                Some("start syncq: it keeps the damaged store aside and compares every target in full".to_owned()),
            ),
            Some(StoreError::Directory { source, .. }) if source.kind() == io::ErrorKind::NotFound => (
                Exit::NoDaemon,
                Some(
                    "no daemon runs there and none ever did: name its directory with --state-dir DIR; of several -o FILE \
                     the first counts"
                        .to_owned(),
                ),
            ),
            Some(StoreError::NoCopy { .. }) => {
                (Exit::Failed, Some("name a directory that has room for it: TMPDIR=DIR syncq ...".to_owned()))
            }
            Some(StoreError::Directory { .. }) => {
                (Exit::Failed, Some("choose a directory that you may write: --state-dir DIR".to_owned()))
            }
            _ if matches!(error.downcast_ref(), Some(ControlError::ListenTcp { .. })) => (
                Exit::Failed,
                Some(
                    "another program has it, or it is no address of this machine: --listen, or <control listen=\"…\">"
                        .to_owned(),
                ),
            ),
            _ if error.is::<UnknownRoot>() => {
                (Exit::Config, Some("create it, or correct <localpath watch=\"…\"> in the configuration".to_owned()))
            }
            _ => {
                let unwatched = error.downcast_ref::<WatchError>().and_then(WatchError::hint);
                let hint = error.downcast_ref::<NoRsync>().map(NoRsync::hint).or(unwatched);
                (Exit::Failed, hint.map(str::to_owned))
            }
        };
        Self { exit, error, hint }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let (exit, hint) = match &error {
            ClientError::NoDaemon { .. } => (
                Exit::NoDaemon,
                Some("start one with syncq run or syncq mirror, or name its directory: --state-dir DIR"),
            ),
            ClientError::Denied { .. } => (Exit::NoDaemon, Some("ask as that user, or with sudo")),
            ClientError::Ended => (Exit::NoDaemon, Some("see its log; ask again when it runs")),
            ClientError::Refused { hint, .. } => (Exit::Failed, hint.as_deref()),
            ClientError::Connect { .. } => (Exit::NoDaemon, None),
            ClientError::Silent => (Exit::NoDaemon, Some("see its log; it may be busy with a slow disk: ask again")),
            ClientError::Answer { .. } => {
                (Exit::Failed, Some("daemon and command may differ in version: restart the daemon"))
            }
            ClientError::Broken { .. } | ClientError::Runtime { .. } => {
                (Exit::Failed, Some("see the daemon's log; ask again"))
            }
        };
        let hint = hint.map(str::to_owned);
        Self { exit, error: error.into(), hint }
    }
}

impl From<Refusal> for CliError {
    fn from(refusal: Refusal) -> Self {
        let hint = refusal.hint.clone();
        Self { exit: Exit::Failed, error: refusal.into(), hint }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        anyhow::Error::new(error).into()
    }
}

/// Turns an error into one line, for a daemon's log and status.
impl From<CliError> for NotTaken {
    fn from(failure: CliError) -> Self {
        let mut message = String::new();
        for cause in failure.error.chain().map(|cause| one_line(&cause.to_string())) {
            // Some errors repeat their source in their own text.
            if !message.ends_with(&cause) || message.is_empty() {
                message.push_str(if message.is_empty() { "" } else { ": " });
                message.push_str(&cause);
            }
        }
        let config = matches!(failure.exit, Exit::Config | Exit::Usage);
        Self { message, hint: Some(one_line(failure.advice())), config }
    }
}

impl CliError {
    /// The way out of the error: there always is one.
    fn advice(&self) -> &str {
        if let Some(hint) = &self.hint {
            return hint;
        }
        let kind = self.error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        match (kind, self.exit) {
            (Some(io::ErrorKind::NotFound), _) => "check the name",
            (Some(io::ErrorKind::AlreadyExists), _) => "choose another name, or remove what is there",
            (Some(io::ErrorKind::PermissionDenied), _) => "do it as a user who may, or with sudo",
            (Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded), _) => "make room on that disk",
            (_, Exit::Usage) => "see syncq help and the help of its commands",
            (_, Exit::Config) => "correct it and try again; the file that syncq ships shows what is possible",
            (_, Exit::NoDaemon) => "see the daemon's log",
            (_, Exit::Failed) => "see the log, and syncq status if it runs",
        }
    }
}

/// The printed error: one line per level, without control characters.
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = String::new();
        for (level, cause) in self.error.chain().enumerate() {
            let text = one_line(&cause.to_string());
            // Some errors repeat their source in their own text.
            if level > 0 && before.ends_with(&text) {
                continue;
            }
            writeln!(f, "{} {text}", if level == 0 { "syncq:" } else { "caused by:" })?;
            before = text;
        }
        writeln!(f, "hint: {}", one_line(self.advice()))
    }
}

/// Ends a command. Prints nothing if the command succeeded or if the reader of its output is gone; otherwise prints the error.
pub fn report(result: Result<ExitCode, CliError>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    if error.error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    // Without stderr nobody can be told; the exit code remains.
    let _ = io::stderr().lock().write_all(error.to_string().as_bytes());
    error.exit.into()
}

fn one_line(text: &str) -> String {
    plain(text.trim_end())
}

/// A path in a form that can be pasted into a shell.
pub fn quoted(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn an_error_is_one_line_per_level_and_ends_in_a_hint() {
        let error = Err::<(), _>(io::Error::from_raw_os_error(28)).context("cannot watch /srv/a\nb").unwrap_err();
        let error = CliError::from(error).hint("free some space");
        assert_eq!(
            error.to_string(),
            "syncq: cannot watch /srv/a\\nb\ncaused by: No space left on device (os error 28)\nhint: free some space\n"
        );
        assert_eq!(error.exit, Exit::Failed);
    }

    #[test]
    fn no_error_comes_without_a_hint() {
        for (code, hint) in [(2, "check the name"), (13, "sudo"), (28, "make room"), (5, "see the log")] {
            let error = Err::<(), _>(io::Error::from_raw_os_error(code)).context("cannot write x").unwrap_err();
            let text = CliError::from(error).to_string();
            assert!(
                text.lines().last().is_some_and(|last| last.starts_with("hint: ") && last.contains(hint)),
                "{text}"
            );
        }
        for error in [CliError::usage("x"), CliError::config(anyhow::anyhow!("x"))] {
            assert!(error.to_string().contains("\nhint: "), "{error}");
        }
    }

    #[test]
    fn a_missing_daemon_is_exit_3_and_a_closed_pipe_is_none() {
        let error = CliError::from(ClientError::NoDaemon { state_dir: "/x".into() });
        assert_eq!(error.exit, Exit::NoDaemon);
        let pipe = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(report(Err(pipe)), ExitCode::SUCCESS);
    }

    #[test]
    fn a_locked_store_says_who_holds_it_even_below_other_causes() {
        let locked = StoreError::Locked { dir: "/var/lib/syncq/my conf".into(), pid: None };
        let error = CliError::from(anyhow::Error::new(locked).context("cannot start"));
        assert!(error.to_string().ends_with("--state-dir '/var/lib/syncq/my conf'\n"), "{error}");
    }
}
