//! Writes the rsync command line of a run, and its list. Pure.
//!
//! No shell ever sees a name: rsync gets an argument vector, and the paths go NUL-separated to its standard input.
//! `shell_line` writes the line that a person can paste.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use super::narrow::pattern;
use super::run::{Deletion, Entry, Run, RunKind};
use super::source::Presence;
use crate::mirror::rsync::ssh_command;
use crate::model::{Destination, Lane, Origin, PARTIAL_DIR, Params, RelPath, Target};

/// A daemon that does not answer within this time is down. rsync itself would wait for the kernel, two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything that a command line depends on besides target and run.
#[derive(Debug, Clone, Copy)]
pub struct Mode<'a> {
    pub lane: Lane,
    pub deletion: Deletion,
    /// Create missing parents of the destination.
    pub mkpath: bool,
    /// The filter's rules in rsync's syntax, for runs in which rsync itself lists directories.
    pub rules: &'a [OsString],
    /// A written path is compared by its content. Otherwise its whole content is sent again.
    pub contents: bool,
    /// A directory that is deleted, or makes way for something else, is emptied first. Without this rsync leaves a
    /// directory that is not empty, and says so.
    pub empties: bool,
    pub pass: Pass,
    pub withheld: Withheld,
}

impl Mode<'_> {
    /// A mode for a target that lacks no option, without rules.
    pub(crate) fn new(lane: Lane, deletion: Deletion, pass: Pass) -> Self {
        Self {
            lane,
            deletion,
            mkpath: false,
            rules: &[],
            contents: true,
            empties: true,
            pass,
            withheld: Withheld::default(),
        }
    }
}

/// Options that the other side refuses and a run can do without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Withheld {
    pub exactness: Exactness,
    pub partial_dir: bool,
    pub force: bool,
    pub ignore_times: bool,
}

/// How exactly times are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Exactness {
    #[default]
    Nanoseconds,
    Seconds,
    /// Even seconds, which is what FAT keeps.
    EvenSeconds,
}

/// The purpose of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Makes the target equal.
    Real,
    /// Makes the target equal, and names what it changes.
    Itemized,
    /// Names what differs. Changes nothing.
    Show,
    /// Names what differs, and also what is equal. Changes nothing.
    Confirm,
    /// Counts what the target holds and what would be deleted. Changes nothing.
    Count,
}

impl Pass {
    pub(crate) fn is_dry(self) -> bool {
        match self {
            Self::Real | Self::Itemized => false,
            Self::Show | Self::Confirm | Self::Count => true,
        }
    }
}

/// The arguments of one run, without `rsync` itself. The run's list goes to standard input.
pub fn arguments(target: &Target, run: &Run, mode: Mode<'_>) -> Vec<OsString> {
    let params = &target.options.params;
    let listing = run.looks_around();
    let deletes = !matches!(mode.deletion, Deletion::Off | Deletion::Refused) && mode.empties;
    // These rules stand in front of the user's own, since the first rule that matches decides.
    let front = run.narrowing.iter().cloned().chain(run.skip.iter().map(|path| pattern(path, b"")));
    let mut args: Vec<OsString> = front.map(|pattern| joined("--exclude=", &pattern)).collect();
    // The user's arguments stand before syncq's, since the last one wins and must not change what a batch relies on. The
    // user's --max-delete has become the limit of the guard where the guard judges.
    let is_audible = mode.pass != Pass::Real || listing || !mode.empties;
    let theirs = params.without(|given| {
        let is_ours = if run.lists() && deletes { given.is("max-delete") } else { given.deletes() };
        is_ours || (is_audible && given.is("quiet")) || (!mode.empties && given.is("force"))
    });
    args.extend(theirs.iter().cloned());
    let mut add = |arg: &str| args.push(OsString::from(arg));
    if run.looks || run.kind == RunKind::Tree {
        add("-r");
    } else {
        add("--no-r");
        add("--dirs");
    }
    if !run.looks {
        for arg in ["-R", "--files-from=-", "--from0"] {
            add(arg);
        }
    }
    args.extend(exactness(params, mode.withheld));
    let mut add = |arg: &str| args.push(OsString::from(arg));
    if !run.looks {
        match mode.deletion {
            Deletion::ByName => add("--delete-missing-args"),
            Deletion::Off | Deletion::ByLevel | Deletion::Refused => add("--ignore-missing-args"),
        }
    }
    if !run.looks
        && params.given().iter().any(|given| ["--no-implied-dirs", "--no-i-d"].contains(&given.shown.as_str()))
    {
        // Without the directories above a path in the list, rsync writes through a link that stands in their place on the
        // target.
        add("--implied-dirs");
    }
    if mode.deletion != Deletion::Off && mode.empties && !mode.withheld.force {
        add("--force");
    }
    if listing && deletes {
        add("--delete");
        if let (Some(limit), false) = (run.max_delete, mode.pass.is_dry()) {
            add(&format!("--max-delete={limit}"));
        }
    }
    if run.kind == RunKind::RootOnly && !run.looks {
        add("--exclude=/*");
    }
    if run.kind == RunKind::Removal && !run.looks {
        // To rsync a directory of which nothing is to be sent is empty, and this option of the user's would leave it out.
        add("--no-prune-empty-dirs");
    }
    // An --ignore-times or --size-only of the user's does not matter here: with --checksum rsync compares contents before
    // it looks at either. A dry run with --ignore-times would list everything.
    match (run.origin, mode.pass) {
        (Origin::Write | Origin::Replaced, Pass::Real | Pass::Itemized)
            if !mode.contents && !mode.withheld.ignore_times =>
        {
            add("--ignore-times");
        }
        (Origin::Write | Origin::Replaced, Pass::Real | Pass::Itemized | Pass::Show | Pass::Confirm) => {
            add("--checksum");
        }
        (Origin::Write | Origin::Replaced, Pass::Count) | (Origin::Scan | Origin::Reconcile, _) => {}
    }
    if run.by_content && mode.pass != Pass::Count && !args.iter().any(|arg| arg == "--checksum") {
        // Where contents may not be compared, everything is sent.
        match (mode.contents, mode.pass) {
            (true, _) => args.push("--checksum".into()),
            (false, Pass::Real | Pass::Itemized) if !mode.withheld.ignore_times => args.push("--ignore-times".into()),
            (false, _) => {}
        }
    }
    let mut add = |arg: &str| args.push(OsString::from(arg));
    if mode.mkpath {
        add("--mkpath");
    }
    let resumes = ["partial", "partial-dir", "inplace", "append", "append-verify", "delay-updates", "P"];
    if mode.lane == Lane::Large && !run.compares() && !params.has_any(&resumes) && !mode.withheld.partial_dir {
        add(&format!("--partial-dir={PARTIAL_DIR}"));
    }
    match mode.pass {
        Pass::Real => {}
        Pass::Itemized => add("--out-format=%i %n"),
        Pass::Show => {
            add("-n");
            add("--out-format=%i %n");
        }
        Pass::Confirm => {
            add("-n");
            add("-ii");
            add("--out-format=%i %n");
        }
        Pass::Count => {
            add("-n");
            add("--no-h");
            add("--info=stats2");
            add("--out-format=%i %n");
        }
    }
    if run.origin == Origin::Reconcile {
        args.extend(target.options.reconcile_excludes.iter().map(|pattern| joined("--exclude=", pattern)));
    }
    // By name a link is sent although the user has links followed; rsync has to find what is behind the link.
    let finds = run.compares() || run.entries.iter().any(|entry| run.looks && entry.presence == Presence::Other);
    if run.kind == RunKind::Removal && !run.looks {
        args.extend(removal_rules(run).iter().map(|rule| joined("--filter=", rule)));
    } else if finds || !run.with_contents.is_empty() {
        // These rules stand last, since the first rule that matches decides and some of them include.
        args.extend(mode.rules.iter().map(|rule| joined("--filter=", rule)));
    }
    connection(target, &mut args);
    args.push("./".into());
    args.push(target.destination.to_arg());
    args
}

/// The option that sets how exactly times are compared. `None` if the user sets it: a file replaced within a second
/// differs.
pub(crate) fn exactness(params: &Params, withheld: Withheld) -> Option<OsString> {
    match withheld.exactness {
        _ if params.has_any(&["modify-window"]) => None,
        Exactness::Nanoseconds => Some("--modify-window=-1".into()),
        Exactness::Seconds => None,
        Exactness::EvenSeconds => Some("--modify-window=1".into()),
    }
}

/// Rules under which a removal takes away nothing but its entries. rsync neither sends nor deletes what does not match. An
/// entry that exists again at the source is sent.
fn removal_rules(run: &Run) -> Vec<OsString> {
    let above: BTreeSet<RelPath> = run.entries.iter().flat_map(|entry| entry.path.ancestors()).collect();
    let above = above.iter().filter(|path| !path.is_root()).map(|path| joined("+ ", &pattern(path, b"/")));
    let entries = run
        .entries
        .iter()
        .flat_map(|entry| [joined("+ ", &pattern(&entry.path, b"")), joined("+ ", &pattern(&entry.path, b"/**"))]);
    above.chain(entries).chain([OsString::from("- *")]).collect()
}

/// The limits of one removal: a rule costs memory here and time there, and a command line ends at two megabytes.
const REMOVAL_ENTRIES_MAX: usize = 1_000;
const REMOVAL_BYTES_MAX: usize = 256 << 10;

/// Whether a removal has more entries than go into one run.
pub(crate) fn is_too_long(run: &Run) -> bool {
    let bytes = || run.entries.iter().map(|entry| entry.path.as_bytes().len()).fold(0, usize::saturating_add);
    run.kind == RunKind::Removal
        && run.entries.len() > 1
        && (run.entries.len() > REMOVAL_ENTRIES_MAX || bytes() > REMOVAL_BYTES_MAX)
}

/// The arguments of a run that connects and transfers nothing.
pub fn probe_arguments(target: &Target, mode: Mode<'_>) -> Vec<OsString> {
    arguments(target, &Run::new(RunKind::Flat, Origin::Scan, Vec::new()), mode)
}

/// The arguments of a run that lists the target as far as `rules` let it, and changes nothing. Of the user's parameters
/// only those are kept that say how to reach the target, and what to exclude.
pub fn list_arguments(target: &Target, rules: &[OsString]) -> Vec<OsString> {
    listing(target, &["-r", "--list-only", "--no-h", "--prune-empty-dirs"], rules)
}

/// The arguments of a run that lists the top of the target, and changes nothing.
pub fn level_arguments(target: &Target) -> Vec<OsString> {
    listing(target, &["--no-r", "--dirs", "--list-only", "--no-h"], &[])
}

fn listing(target: &Target, how: &[&str], rules: &[OsString]) -> Vec<OsString> {
    const KEPT: [&str; 15] = [
        "rsh",
        "rsync-path",
        "sockopts",
        "address",
        "contimeout",
        "exclude",
        "include",
        "filter",
        "exclude-from",
        "include-from",
        "from0",
        "cvs-exclude",
        "F",
        "ipv4",
        "ipv6",
    ];
    let params = target.options.params.without(|given| !KEPT.iter().any(|kept| given.is(kept)));
    let mut args: Vec<OsString> = params.to_vec();
    args.extend(how.iter().map(OsString::from));
    args.extend(target.options.reconcile_excludes.iter().map(|pattern| joined("--exclude=", pattern)));
    args.extend(rules.iter().map(|rule| joined("--filter=", rule)));
    connection(target, &mut args);
    args.push(target.destination.to_arg());
    args
}

pub(crate) fn connection(target: &Target, args: &mut Vec<OsString>) {
    let options = &target.options;
    if let Some(timeout) = options.timeout {
        args.push(format!("--timeout={}", timeout.as_secs().max(1)).into());
    }
    match &target.destination {
        Destination::Local(_) => {}
        Destination::Ssh { path, .. } => {
            // The line contains the user's own remote shell, and the last -e counts.
            if let Some(line) = ssh_command::line(options.params.remote_shell(), options.port, options.timeout) {
                args.push(REMOTE_SHELL.into());
                args.push(line);
            }
            let bytes = path.as_os_str().as_bytes();
            // With -s no shell would expand a leading `~` to the home directory.
            if !bytes.strip_prefix(b"~").unwrap_or(bytes).iter().all(|&b| is_plain(b)) {
                args.push("-s".into());
            }
        }
        Destination::Daemon { .. } => {
            args.push("--sockopts=TCP_NODELAY".into());
            if let Some(own) = options.params.remote_shell() {
                // The remote shell starts the daemon: rsync itself connects nowhere, and refuses a --contimeout.
                if let Some(line) = ssh_command::line(Some(own), None, options.timeout) {
                    args.push(REMOTE_SHELL.into());
                    args.push(line);
                }
            } else if !options.params.has_any(&["contimeout"]) {
                let limit = options.timeout.map_or(CONNECT_TIMEOUT, |timeout| timeout.min(CONNECT_TIMEOUT));
                args.push(format!("--contimeout={}", limit.as_secs().max(1)).into());
            }
            if let Some(port) = options.port {
                args.push(format!("--port={port}").into());
            }
            if let Some(file) = &options.password_file {
                args.push(joined("--password-file=", file.as_os_str()));
            }
        }
    }
}

const REMOTE_SHELL: &str = "-e";

/// The same arguments with another remote shell, if they have a remote shell of syncq's.
pub fn with_remote_shell(args: &[OsString], line: &OsStr) -> Vec<OsString> {
    let mut args = args.to_vec();
    if let Some(value) = args.iter().rposition(|arg| arg == REMOTE_SHELL).and_then(|at| args.get_mut(at + 1)) {
        *value = line.to_owned();
    }
    args
}

/// The list of a run as rsync reads it: `./path`, NUL after each, a slash at the end of a directory that rsync shall look
/// into.
pub fn list(run: &Run) -> Vec<u8> {
    let mut list = Vec::new();
    for line in list_lines(run) {
        list.extend_from_slice(&line);
        list.push(0);
    }
    list
}

pub(super) fn list_lines(run: &Run) -> Vec<Vec<u8>> {
    if run.kind == RunKind::Removal && !run.looks {
        let slash = |path: &RelPath| if path.is_root() { &b""[..] } else { b"/" };
        return run.with_contents.iter().map(|path| [b"./", path.as_bytes(), slash(path)].concat()).collect();
    }
    run.entries.iter().filter_map(|entry| list_entry(run, entry)).collect()
}

/// One list entry. `None` for a root that is not looked into: rsync sends its attributes as the parent of all entries. A
/// run in which rsync looks for itself has no list.
fn list_entry(run: &Run, entry: &Entry) -> Option<Vec<u8>> {
    if run.looks {
        return None;
    }
    let mut line = b"./".to_vec();
    line.extend_from_slice(entry.path.as_bytes());
    let looks_into = match run.kind {
        RunKind::Removal | RunKind::Flat => run.with_contents.contains(&entry.path),
        RunKind::RootOnly => true,
        RunKind::Level => run.with_contents.is_empty() || run.with_contents.contains(&entry.path),
        RunKind::Tree => true,
    };
    if entry.path.is_root() {
        return looks_into.then_some(line);
    }
    line.extend_from_slice(if looks_into { b"/" } else { b"" });
    Some(line)
}

/// Bytes without a meaning to any shell.
pub(crate) fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_./,:=@+%".contains(&b)
}

pub(crate) fn joined(option: &str, value: &OsStr) -> OsString {
    OsString::from_vec([option.as_bytes(), value.as_bytes()].concat())
}

#[cfg(test)]
mod tests;
