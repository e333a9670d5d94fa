//! The meaning of rsync's known messages for a target, in plain words, and what an operator can do. Pure tables.
//!
//! The same exit code may mean a fault that a person must repair or one that passes by itself, so the text decides first.

use std::io;

use crate::mirror::rsync::ended::End;
use crate::mirror::rsync::installed::RSYNC;
use crate::mirror::rsync::messages::{About, Line, lines};
use crate::mirror::rsync::version::{NoAnswer, NoVersion};
use crate::model::{TargetTrouble, TroubleClass};

/// An ability that the other side lacks, and the way to do without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Deletions by name are refused: make the parent's level equal instead.
    DeleteByLevel,
    /// Every deletion is refused.
    DeleteNothing,
    /// The destination's parent directory does not exist yet: make it.
    MakePath,
    /// A moved file cannot be linked from its old name.
    LinkDest,
    /// A renamed file cannot be looked for under its old name.
    Fuzzy,
    /// Contents may not be compared: everything is sent again.
    Contents,
    /// Times are compared by whole seconds.
    Seconds,
    /// Times are compared by even seconds.
    EvenSeconds,
    /// The part of a large file that has arrived is not kept for the next attempt.
    PartialDir,
    /// A directory that makes way for something else has to be empty already.
    Force,
    /// A path that is written over and over is compared by content, however large it is.
    IgnoreTimes,
}

impl Fallback {
    /// The bit of this lack in a set.
    pub fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The way to go on after a run that failed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    Trouble(TroubleClass),
    Fallback(Fallback),
}

struct Known {
    text: &'static str,
    remedy: Remedy,
    meaning: &'static str,
    hint: &'static str,
}

const fn known(text: &'static str, class: TroubleClass, meaning: &'static str, hint: &'static str) -> Known {
    Known { text, remedy: Remedy::Trouble(class), meaning, hint }
}

const fn lacking(text: &'static str, fallback: Fallback) -> Known {
    Known { text, remedy: Remedy::Fallback(fallback), meaning: "the other side lacks an option", hint: "" }
}

use TroubleClass::{Busy, Misconfigured, Source, Unavailable};

/// Known texts in order: the first one found decides. They are searched only in runs that failed as a whole.
const KNOWN: &[Known] = &[
    known(
        "@ERROR: max connections",
        Busy,
        "the rsync server has no connection left",
        "raise `max connections` of the module in rsyncd.conf",
    ),
    known(
        "@ERROR: auth failed",
        Misconfigured,
        "the rsync server refuses user or password",
        "check the user name, the password file (one line, mode 600) and on the server `auth users` and its secrets file (user:password, mode 600)",
    ),
    known(
        "@ERROR: Unknown module",
        Misconfigured,
        "the rsync server has no module of that name",
        "compare the module name with rsyncd.conf on the server; with `list = no` a host that `hosts allow` leaves out is told the same",
    ),
    known(
        "@ERROR: access denied",
        Misconfigured,
        "the rsync server does not admit this host",
        "add this machine to `hosts allow` of the module",
    ),
    known(
        "@ERROR: chroot failed",
        Unavailable,
        "the module's directory is missing on the server",
        "mount or create the module's `path` on the server",
    ),
    known(
        "@ERROR: chdir failed",
        Unavailable,
        "the module's directory is missing on the server",
        "mount or create the module's `path` on the server",
    ),
    known(
        "@ERROR: early exec failed",
        Unavailable,
        "the server's `early exec` script refused the run",
        "look at that script and the server's log",
    ),
    known(
        "pre-xfer exec returned failure",
        Unavailable,
        "the server's `pre-xfer exec` script refused the run",
        "look at that script and the server's log",
    ),
    known(
        "module is read only",
        Misconfigured,
        "the module is read only",
        "set `read only = no` for the module in rsyncd.conf",
    ),
    known(
        "module is write only",
        Misconfigured,
        "the module does not let itself be compared",
        "check `write only` in rsyncd.conf",
    ),
    known(
        "could not open password file",
        Misconfigured,
        "the password file cannot be read",
        "check the path and the owner of the password file",
    ),
    known(
        "password file must not be other-accessible",
        Misconfigured,
        "the password file is readable by others",
        "chmod 600 the password file",
    ),
    known(
        "password file must be owned by root",
        Misconfigured,
        "the password file belongs to another user",
        "chown the password file to root",
    ),
    known(
        "is your shell clean",
        Misconfigured,
        "the remote shell prints something of its own",
        "`ssh HOST true` must print nothing: silence the login scripts there",
    ),
    lacking("configured to refuse --delete-missing-args", Fallback::DeleteByLevel),
    lacking("configured to refuse --delete", Fallback::DeleteNothing),
    lacking("configured to refuse --link-dest", Fallback::LinkDest),
    lacking("configured to refuse --fuzzy", Fallback::Fuzzy),
    lacking("configured to refuse --checksum", Fallback::Contents),
    lacking("configured to refuse --modify-window", Fallback::Seconds),
    lacking("configured to refuse --partial-dir", Fallback::PartialDir),
    lacking("configured to refuse --force", Fallback::Force),
    lacking("configured to refuse --ignore-times", Fallback::IgnoreTimes),
    // rrsync takes no negative number, and does not say which argument it minds.
    lacking("invalid rsync-command syntax or options", Fallback::Seconds),
    // The cause is `--checksum-choice=none` in the params.
    lacking("checksum-choice for --checksum", Fallback::Contents),
    known(
        "configured to refuse --max-delete",
        Misconfigured,
        "the rsync server refuses --max-delete, with which deletions are guarded",
        "take it out of `refuse options` in rsyncd.conf, or set <guard maxDelete=\"off\"/>",
    ),
    known(
        "configured to refuse",
        Misconfigured,
        "the rsync server refuses an option",
        "take it out of `refuse options` in rsyncd.conf, or out of the params if it stands there",
    ),
    known(
        "has been disabled on this server",
        Misconfigured,
        "rrsync, which ssh runs on the host, refuses an option",
        "take it out of the params, or allow it there",
    ),
    known(
        "sending to read-only server is not allowed",
        Misconfigured,
        "rrsync, which ssh runs on the host, lets nothing be written",
        "take -ro out of the key's command= in authorized_keys there",
    ),
    known(
        "rrsync error:",
        Misconfigured,
        "rrsync, which ssh runs on the host, refuses the call",
        "see the key's command= in authorized_keys there, and the directory that it names",
    ),
    known(
        "--mkpath: unknown option",
        Misconfigured,
        "the destination's parent directory does not exist",
        "create the destination's directory",
    ),
    known(
        "unknown option",
        Misconfigured,
        "rsync does not know an option",
        "check the params, and that neither side's rsync is too old for them (`rsync --version`)",
    ),
    known(
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        Misconfigured,
        "the host's ssh key has changed",
        "if that is right, remove the old one: ssh-keygen -R HOST",
    ),
    known(
        "Host key verification failed",
        Misconfigured,
        "ssh does not know the host's key",
        "connect once by hand as the same user: ssh HOST",
    ),
    known(
        "UNPROTECTED PRIVATE KEY FILE",
        Misconfigured,
        "ssh does not use a private key that others may read",
        "chmod 600 the key file",
    ),
    known(
        "not accessible: No such file or directory",
        Misconfigured,
        "the private key that ssh is to use is not there",
        "check the key's path (-i or IdentityFile)",
    ),
    known(
        "Permission denied (publickey",
        Misconfigured,
        "ssh is not let in",
        "install this user's public key on the host: ssh-copy-id HOST",
    ),
    known(
        "Permission denied (password",
        Misconfigured,
        "ssh is not let in",
        "install this user's public key on the host: ssh-copy-id HOST",
    ),
    known(
        "Permission denied (keyboard-interactive",
        Misconfigured,
        "ssh is not let in",
        "install this user's public key on the host: ssh-copy-id HOST",
    ),
    known(
        "Permission denied, please try again",
        Misconfigured,
        "ssh is not let in",
        "install this user's public key on the host: ssh-copy-id HOST",
    ),
    known(
        "Too many authentication failures",
        Misconfigured,
        "ssh is not let in",
        "name the key in ~/.ssh/config (IdentityFile, IdentitiesOnly)",
    ),
    known(
        "Failed to exec",
        Misconfigured,
        "the remote shell program cannot be started",
        "install ssh, or check `-e` in the params",
    ),
    known("remote command not found", Misconfigured, "there is no rsync on the host", "install rsync there"),
    known("remote command could not be run", Misconfigured, "rsync cannot be run on the host", "check the rsync there"),
    known("command not found", Misconfigured, "there is no rsync on the host", "install rsync there"),
    known("rsync: not found", Misconfigured, "there is no rsync on the host", "install rsync there"),
    known("rsync: No such file or directory", Misconfigured, "there is no rsync on the host", "install rsync there"),
    known(
        "Bad configuration option",
        Misconfigured,
        "ssh does not understand its configuration",
        "run `ssh -G HOST` as the same user",
    ),
    known(
        "Can't open user config file",
        Misconfigured,
        "ssh cannot read its configuration",
        "check the path behind -F in the params",
    ),
    known(
        "kex_exchange_identification",
        Unavailable,
        "sshd hangs up before anybody has logged in",
        "look at its log: too many connections at once (MaxStartups), or this machine is not admitted",
    ),
    known("Could not resolve hostname", Unavailable, "the host name is unknown", "check the name and the name service"),
    known("getaddrinfo", Unavailable, "the host name is unknown", "check the name and the name service"),
    known(
        "Connection refused",
        Unavailable,
        "nothing listens on that port",
        "start rsyncd (or sshd) on the host, and check the port",
    ),
    known("No route to host", Unavailable, "the host cannot be reached", "check network and firewall"),
    known("Network is unreachable", Unavailable, "the network cannot be reached", "check the network"),
    known(
        "timeout waiting for daemon connection",
        Unavailable,
        "the host does not answer",
        "check host, network and firewall",
    ),
    known("Connection timed out", Unavailable, "the host does not answer", "check host, network and firewall"),
    known(
        "timeout in data send/receive",
        Unavailable,
        "the line was silent for too long",
        "raise `timeout` if the host is only slow",
    ),
    known("Timeout, server ", Unavailable, "the host does not answer any more", "check host, network and firewall"),
    known("change_dir", Source, "the source directory is gone", "mount or create it"),
    known("getcwd()", Source, "the source directory is gone", "mount or create it"),
    known("Connection reset", Unavailable, "the connection broke", "look at the server's log"),
    known("connection unexpectedly closed", Unavailable, "the connection broke", "look at the server's log"),
];

/// The way to go on after a run that failed as a whole, judged by its words. `None`: no known words.
pub fn remedy(code: i32, stderr: &[u8]) -> Option<(Remedy, Option<TargetTrouble>)> {
    let own_words: Vec<(Line<'_>, String)> =
        lines(stderr).map(|line| (line.own_words(), line)).map(|(own, line)| (line, lossy(&own))).collect();
    let text = String::from_utf8_lossy(stderr);
    if text.lines().any(|line| line.starts_with("invalid file mode 00 for ")) {
        return Some((Remedy::Fallback(Fallback::DeleteByLevel), None));
    }
    if code == 11 && text.contains("mkdir \"") && text.contains("No such file or directory (2)") {
        return Some((Remedy::Fallback(Fallback::MakePath), None));
    }
    if let Some(found) = of_destination(code, &text) {
        return Some((Remedy::Trouble(found.class), Some(found)));
    }
    // Text within a name does not count: anybody may name a file like a message.
    let saying = |known: &Known| own_words.iter().find(|(_, own)| own.contains(known.text)).map(|(line, _)| line);
    let (known, line) = KNOWN.iter().find_map(|known| Some((known, saying(known)?)))?;
    let said = with_first(&printable(line.text().trim()), stderr);
    if known.remedy == Remedy::Trouble(Source) && line.text().contains("Permission denied") {
        let (meaning, hint) =
            ("the source directory cannot be entered", "let the user that syncq runs as enter and read it");
        let found = trouble(Source, Some(code), meaning, &said, hint);
        return Some((known.remedy, Some(found)));
    }
    let trouble = match known.remedy {
        Remedy::Trouble(class) => Some(trouble(class, Some(code), known.meaning, &said, known.hint)),
        Remedy::Fallback(_) => None,
    };
    Some((known.remedy, trouble))
}

/// `said`, after the first message if that is another one: the first message is the cause, a later one its consequence.
fn with_first(said: &str, stderr: &[u8]) -> String {
    let is_own = |line: &Line<'_>| line.about != About::Noise && !line.bytes().starts_with(b"rsync error:");
    let first = lines(stderr).find(is_own).map(|line| printable(line.text().trim()));
    match first.filter(|first| first != said && first.chars().any(char::is_alphanumeric)) {
        Some(first) => format!("{first}; {said}"),
        None => said.to_owned(),
    }
}

/// The trouble that keeps the receiver from working in the destination's directory, if its words say so. The same exit
/// codes stand for troubles of the source, and a target was reported as having lost its source.
fn of_destination(code: i32, text: &str) -> Option<TargetTrouble> {
    const PHRASES: [&str; 4] = ["cannot stat destination", "change_dir", "mkdir \"", "destination must be a directory"];
    if !matches!(code, 3 | 11) {
        return None;
    }
    let is_about_it = |line: &&str| {
        // A message about a directory below the destination is about a path.
        let is_receivers = line.contains("[Receiver]") || line.contains("ERROR: destination");
        is_receivers && !line.contains("recv_generator") && PHRASES.iter().any(|phrase| line.contains(phrase))
    };
    let line = text.lines().find(is_about_it)?;
    let is = |words: &str| line.contains(words);
    let (class, meaning, hint) = if is("Not a directory") || is("File exists") || is("must be a directory") {
        let hint = "move away what stands in its place, or correct the destination";
        (Misconfigured, "the target is no directory", hint)
    } else if is("Permission denied") || is("Operation not permitted") {
        let hint = "let the user that rsync runs as on the target enter and write it";
        (Misconfigured, "the target's directory is closed", hint)
    } else if is("mkdir") {
        return None;
    } else {
        (Unavailable, "the target's directory cannot be entered", "mount or create it")
    };
    Some(trouble(class, Some(code), meaning, &printable(&Line::read(line.trim().as_bytes()).text()), hint))
}

/// A trouble described by one line of syncq's and one of rsync's.
pub fn trouble(class: TroubleClass, code: Option<i32>, meaning: &str, said: &str, hint: &str) -> TargetTrouble {
    let message = match (meaning.is_empty(), said.is_empty()) {
        (false, false) => format!("{meaning}: {said}"),
        (false, true) => meaning.to_owned(),
        (true, _) => said.to_owned(),
    };
    let hint = (!hint.is_empty()).then(|| hint.to_owned());
    TargetTrouble { class, code, message, hint, command: None }
}

/// The trouble of a target that turned out to lack an option, and fails for that even without the option.
pub fn lacking_option(said: &str) -> TargetTrouble {
    let hint = "check the rsync versions on both sides and `refuse options` in rsyncd.conf";
    trouble(Misconfigured, None, "the target lacks a needed option", said, hint)
}

/// The trouble of a run whose words are not known.
pub fn unknown(end: End, stderr: &[u8]) -> TargetTrouble {
    let said = first_words(stderr);
    let (class, code, meaning) = match end {
        End::Exit(code @ (1 | 4)) => (Misconfigured, Some(code), "rsync refuses its arguments"),
        // A receiver that cannot convert the name of an incoming file gives up, unless it cannot load the conversion at
        // all.
        End::Exit(code @ 2) if said.contains("cannot convert filename: ") => {
            (Misconfigured, Some(code), "the name cannot be said in the target's character set")
        }
        End::Exit(code @ (2 | 14)) => (Misconfigured, Some(code), "the two rsyncs do not understand each other"),
        End::Exit(code @ (126 | 127)) => (Misconfigured, Some(code), "the remote command cannot be run"),
        // The source was checked a moment before.
        End::Exit(code @ 3) => (Unavailable, Some(code), "rsync cannot use its source or its target directory"),
        End::Exit(code @ 5) => (Unavailable, Some(code), "the rsync server refuses to start"),
        End::Exit(code @ (19 | 20)) => (Unavailable, Some(code), "somebody ended rsync"),
        End::Exit(code @ 35) => (Unavailable, Some(code), "the host does not answer"),
        End::Exit(code @ 255) => (Unavailable, Some(code), "ssh failed"),
        End::Exit(code) => (Unavailable, Some(code), "rsync failed"),
        End::Signal(_) | End::Stopped | End::Blocked => (Unavailable, None, "rsync was killed"),
        End::Stalled => (Unavailable, None, "rsync moved no data for 20 minutes and was ended"),
    };
    let hint = if end == End::Stalled { "set a `timeout` for this target" } else { "" };
    trouble(class, code, meaning, &said, hint)
}

/// The first line that is not a summary.
pub fn first_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.clone().find(|line| !line.starts_with("rsync error:")).or_else(|| lines.next());
    first.map(|line| printable(&Line::read(line.as_bytes()).text())).unwrap_or_default()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One line of the other side's words, of bounded length and without characters that a terminal could obey.
pub fn printable(text: &str) -> String {
    const CHARS_MAX: usize = 400;
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(CHARS_MAX).collect()
}

impl From<NoAnswer> for TargetTrouble {
    fn from(found: NoAnswer) -> Self {
        match found {
            NoAnswer::CannotStart(error) => cannot_start(&error),
            NoAnswer::TooLate { limit, stderr } => {
                let meaning = format!("no answer within {} s", limit.as_secs_f64());
                let (said, hint) = (first_words(&stderr), "check host, network and firewall");
                trouble(Unavailable, None, &meaning, &said, hint)
            }
        }
    }
}

impl From<NoVersion> for TargetTrouble {
    fn from(found: NoVersion) -> Self {
        match found {
            NoVersion::NoAnswer(found) => found.into(),
            NoVersion::Untold { stderr } => {
                let said = first_words(&stderr);
                trouble(Misconfigured, None, "rsync does not tell its version", &said, "check the rsync in PATH")
            }
        }
    }
}

/// The trouble of a target for which rsync could not be started.
pub fn cannot_start(error: &io::Error) -> TargetTrouble {
    let (meaning, hint) = match error.kind() {
        io::ErrorKind::NotFound => ("rsync is not installed", "install rsync, or put it into PATH"),
        io::ErrorKind::PermissionDenied => ("rsync may not be started", "check the rsync in PATH"),
        _ => {
            let meaning = "rsync cannot be started";
            return trouble(
                TroubleClass::Unavailable,
                None,
                meaning,
                &error.to_string(),
                "check process and memory limits",
            );
        }
    };
    trouble(TroubleClass::Misconfigured, None, meaning, &format!("{RSYNC}: {error}"), hint)
}
