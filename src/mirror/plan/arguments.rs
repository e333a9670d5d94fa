//! Writes the rsync command line of a run, and its list. Pure.
//!
//! No shell ever sees a name: rsync gets argv, and the paths go NUL-separated to its standard input. The line that a person
//! can paste is written by `shell_line`.

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

/// What a command line depends on besides target and run.
#[derive(Debug, Clone, Copy)]
pub struct Mode<'a> {
    pub lane: Lane,
    pub deletion: Deletion,
    /// Create missing parents of the destination.
    pub mkpath: bool,
    /// The filter's rules in rsync's syntax, for runs in which rsync itself lists directories.
    pub rules: &'a [OsString],
    /// What a write names is compared by its content. Otherwise all of it is sent again.
    pub contents: bool,
    /// A directory that is deleted, or makes way for something else, is emptied first. Without it stays what has something
    /// in it, and rsync says so.
    pub empties: bool,
    pub pass: Pass,
    pub withheld: Withheld,
}

impl Mode<'_> {
    /// Against a side that lacks nothing, without rules.
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

/// What the other side refuses and a run can do without.
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
    /// As FAT keeps them.
    EvenSeconds,
}

/// What a run is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// To make the target equal.
    Real,
    /// The same, and to name what is changed.
    Itemized,
    /// To name what differs. Changes nothing.
    Show,
    /// To name what differs, and also what is equal. Changes nothing.
    Confirm,
    /// To count what is there and what would be deleted. Changes nothing.
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

/// The arguments of one run, without `rsync` itself. The list goes to standard input.
pub fn arguments(target: &Target, run: &Run, mode: Mode<'_>) -> Vec<OsString> {
    let params = &target.options.params;
    let listing = run.looks_around();
    let deletes = !matches!(mode.deletion, Deletion::Off | Deletion::Refused) && mode.empties;
    // In front of the user's own rules, since the first that matches decides.
    let front = run.narrowing.iter().cloned().chain(run.skip.iter().map(|path| pattern(path, b"")));
    let mut args: Vec<OsString> = front.map(|pattern| joined("--exclude=", &pattern)).collect();
    // Theirs come before ours: the last one wins, and what makes a batch a batch is not theirs to change. Their
    // --max-delete has become the limit of the guard where the guard judges.
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
        // Without what leads to a path in the list, rsync writes through a link that stands there on the target.
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
        // A directory of which nothing is to be sent is empty to rsync.
        add("--no-prune-empty-dirs");
    }
    // Theirs does not matter: rsync looks at contents before it looks at what it may ignore. A dry run with --ignore-times
    // would list everything.
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
        // Where contents may not be compared all is sent.
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
    // By name a link is sent that the user has followed, and what is behind it is for rsync to find.
    let finds = run.compares() || run.entries.iter().any(|entry| run.looks && entry.presence == Presence::Other);
    if run.kind == RunKind::Removal && !run.looks {
        args.extend(removal_rules(run).iter().map(|rule| joined("--filter=", rule)));
    } else if finds || !run.with_contents.is_empty() {
        // Last, since the first rule that matches decides and some of these include.
        args.extend(mode.rules.iter().map(|rule| joined("--filter=", rule)));
    }
    connection(target, &mut args);
    args.push("./".into());
    args.push(target.destination.to_arg());
    args
}

/// How exactly times are compared, unless the user says so: a file that was replaced within the second is another one.
pub(crate) fn exactness(params: &Params, withheld: Withheld) -> Option<OsString> {
    match withheld.exactness {
        _ if params.has_any(&["modify-window"]) => None,
        Exactness::Nanoseconds => Some("--modify-window=-1".into()),
        Exactness::Seconds => None,
        Exactness::EvenSeconds => Some("--modify-window=1".into()),
    }
}

/// Rules under which a removal takes away nothing but its entries: what does not match is neither sent nor deleted. One
/// that is there again at the source is sent.
fn removal_rules(run: &Run) -> Vec<OsString> {
    let above: BTreeSet<RelPath> = run.entries.iter().flat_map(|entry| entry.path.ancestors()).collect();
    let above = above.iter().filter(|path| !path.is_root()).map(|path| joined("+ ", &pattern(path, b"/")));
    let entries = run
        .entries
        .iter()
        .flat_map(|entry| [joined("+ ", &pattern(&entry.path, b"")), joined("+ ", &pattern(&entry.path, b"/**"))]);
    above.chain(entries).chain([OsString::from("- *")]).collect()
}

/// A rule costs memory here and time there, and so much can be said on a command line (which ends at two megabytes).
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
/// only those go along that say how to reach it, and what they exclude.
pub fn list_arguments(target: &Target, rules: &[OsString]) -> Vec<OsString> {
    listing(target, &["-r", "--list-only", "--no-h", "--prune-empty-dirs"], rules)
}

/// The arguments of a run that lists what is at the top of the target, and changes nothing.
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
            // Theirs is part of it, and the last one counts.
            if let Some(line) = ssh_command::line(options.params.remote_shell(), options.port, options.timeout) {
                args.push(REMOTE_SHELL.into());
                args.push(line);
            }
            let bytes = path.as_os_str().as_bytes();
            // With -s no shell would put the home directory in the place of `~`.
            if !bytes.strip_prefix(b"~").unwrap_or(bytes).iter().all(|&b| is_plain(b)) {
                args.push("-s".into());
            }
        }
        Destination::Daemon { .. } => {
            args.push("--sockopts=TCP_NODELAY".into());
            if let Some(own) = options.params.remote_shell() {
                // The daemon is started through it: rsync connects nowhere, and refuses to be told for how long to try.
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

/// The same arguments with another remote shell, if they have one of ours.
pub fn with_remote_shell(args: &[OsString], line: &OsStr) -> Vec<OsString> {
    let mut args = args.to_vec();
    if let Some(value) = args.iter().rposition(|arg| arg == REMOTE_SHELL).and_then(|at| args.get_mut(at + 1)) {
        *value = line.to_owned();
    }
    args
}

/// The list of a run as rsync reads it: `./path`, NUL after each, a slash at the end of what it shall look into.
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

/// One list entry, or `None` for a root that is not looked into: rsync sends its attributes as everybody's parent. A run
/// that looks has no list.
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
