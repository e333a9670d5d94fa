//! Asks an rsync for its version, and runs a program with a time limit.
//!
//! Deliberately absent: which versions follow swapped links (`confine`), and what a missing answer means (`diagnosis`).

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::capture::Capture;
use super::ended::{End, Ended};
use super::installed::{OLDEST_RSYNC, RSYNC};
use super::process::{Priority, STALL_LIMIT, run};
use super::program::Program;
use super::stop::StopSignal;

/// How many bytes of an answer are kept; an answer has a few lines.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// Marks these runs in their environment. No daemon has this owner, so none ends them.
const OWNER: &str = "syncq check";

/// The version of an rsync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RsyncVersion {
    pub version: String,
    pub protocol: Option<u32>,
}

impl RsyncVersion {
    /// The parts of the version, as far as they are numbers.
    pub fn numbers(&self) -> Vec<u32> {
        numbers(&self.version)
    }

    /// Set if the version is older than any that syncq is tested with.
    pub fn untested(&self) -> Option<Untested> {
        (self.numbers() < numbers(OLDEST_RSYNC)).then_some(Untested)
    }
}

/// An rsync older than [`OLDEST_RSYNC`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untested;

impl Untested {
    pub fn message(self) -> String {
        format!("this rsync is older than {OLDEST_RSYNC}, the oldest that syncq is tested with")
    }

    pub fn hint(self) -> String {
        format!("install rsync {OLDEST_RSYNC} or newer")
    }
}

/// Why a run gave no answer.
#[derive(Debug)]
pub enum NoAnswer {
    CannotStart(io::Error),
    /// The run was ended after `limit`, and had printed `stderr` by then.
    TooLate {
        limit: Duration,
        stderr: Vec<u8>,
    },
}

/// Why the version of rsync is not known.
#[derive(Debug)]
pub enum NoVersion {
    NoAnswer(NoAnswer),
    /// The run ended without telling its version, and printed `stderr`.
    Untold {
        stderr: Vec<u8>,
    },
}

fn numbers(version: &str) -> Vec<u32> {
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>();
    version.split('.').map(|part| digits(part).parse().unwrap_or(0)).collect()
}

/// Asks the rsync in PATH for its version, for at most `limit`.
pub fn rsync_version(limit: Duration) -> Result<RsyncVersion, NoVersion> {
    let asked = within(limit, &program(RSYNC), Path::new("/"), &["--version".into()], b"");
    let Ended { stdout, stderr, .. } = asked.map_err(NoVersion::NoAnswer)?;
    read_version(&String::from_utf8_lossy(&stdout.bytes())).ok_or_else(|| NoVersion::Untold { stderr: stderr.bytes() })
}

/// Reads the first line: `rsync  version 3.2.7  protocol version 31`.
pub(in crate::mirror) fn read_version(output: &str) -> Option<RsyncVersion> {
    let mut words = output.lines().next()?.split_whitespace().skip_while(|word| *word != "version").skip(1);
    let version = words.next()?.trim_start_matches('v').to_owned();
    let protocol = words.nth(2).and_then(|number| number.parse().ok());
    Some(RsyncVersion { version, protocol })
}

/// The program at `path` for a run that no batch asks for. No daemon ends it.
pub fn program(path: &str) -> Program {
    Program {
        path: path.into(),
        owner: OWNER.into(),
        stall_limit: STALL_LIMIT,
        places: None,
        hangs: Default::default(),
        under_way: Default::default(),
    }
}

/// Runs `program` in `dir` with `list` as its input, and ends it after `limit`.
pub fn within(
    limit: Duration,
    program: &Program,
    dir: &Path,
    args: &[OsString],
    list: &[u8],
) -> Result<Ended, NoAnswer> {
    let stop = StopSignal::new().map_err(NoAnswer::CannotStart)?;
    let (over, is_over) = bounded::<()>(0);
    let ended = std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            if is_over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                stop.raise();
            }
        });
        let ended = run(program, dir, args, list, Some(Capture::new(ANSWER_BYTES_MAX, 0)), Priority::Usual, stop);
        drop(over);
        ended
    });
    match ended.map_err(NoAnswer::CannotStart)? {
        Ended { end: End::Stopped, stderr, .. } => Err(NoAnswer::TooLate { limit, stderr: stderr.bytes() }),
        ended => Ok(ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_all_their_forms() {
        for (line, version, protocol) in [
            ("rsync  version 3.5.0  protocol version 32\nCopyright", "3.5.0", Some(32)),
            ("rsync  version v3.2.4dev  protocol version 31", "3.2.4dev", Some(31)),
            ("rsync  version 3.1.3  protocol version 31.PR14", "3.1.3", None),
        ] {
            assert_eq!(read_version(line), Some(RsyncVersion { version: version.to_owned(), protocol }));
        }
        assert_eq!(read_version("openrsync: protocol"), None);
        assert_eq!(read_version(""), None);
    }

    #[test]
    fn older_versions_than_the_oldest_tested_are_known() {
        for (version, is_old) in [
            ("3.1.3", true),
            ("3.2.2", true),
            ("2.6.9", true),
            ("3.2.3", false),
            ("3.2.4dev", false),
            ("3.10", false),
            ("4.0.0", false),
        ] {
            let found = RsyncVersion { version: version.to_owned(), protocol: None };
            assert_eq!(found.untested().is_some(), is_old, "{version}");
        }
    }

    /// The documented version and the constant must not differ; the package and `tools/setup` read the constant.
    #[test]
    fn the_oldest_tested_version_is_the_documented_one() {
        assert!(
            include_str!("../../../README.md").contains(&format!("- rsync {OLDEST_RSYNC} or newer on both sides."))
        );
    }
}
