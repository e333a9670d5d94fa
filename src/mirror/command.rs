//! Writes the rsync command line of a run, its list, and the line that a person can paste. Pure.
//!
//! No shell ever sees a name: rsync gets argv, and the paths go NUL-separated to its standard input. The pasteable
//! line is for reading and repeating by hand only; nothing in syncq executes it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use super::plan::{Deletion, Entry, Run, RunKind};
use super::ssh;
use crate::model::{Destination, Lane, Origin, RelPath, Target};

/// A daemon that does not answer within this time is down. rsync itself would wait for the kernel, two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A pasted line names at most so many paths; the rest of a batch is only counted.
const PASTE_PATHS_MAX: usize = 20;

/// The directory, on the target, that keeps the received part of an interrupted large file for the next attempt.
pub(super) const PARTIAL_DIR: &str = ".rsync-partial";

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
    pub pass: Pass,
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

/// The arguments of one run, without `rsync` itself. The list goes to standard input.
pub fn arguments(target: &Target, run: &Run, mode: Mode<'_>) -> Vec<OsString> {
    let params = &target.options.params;
    let listing = run.looks_around();
    let deletes = !matches!(mode.deletion, Deletion::Off | Deletion::Refused);
    let dry = !matches!(mode.pass, Pass::Real | Pass::Itemized);
    // Theirs come first: the last one wins, and what makes a batch a batch is not theirs to change.
    let mut args: Vec<OsString> = match run.lists() && deletes {
        // Their --max-delete has become the limit of the guard.
        true => without_max_delete(params).cloned().collect(),
        false => params.iter().filter(|param| !asks_for_deletion(param)).cloned().collect(),
    };
    if mode.pass != Pass::Real || listing {
        args = args.iter().filter_map(|param| audible(param)).collect();
    }
    let mut add = |arg: &str| args.push(OsString::from(arg));
    match run.kind {
        RunKind::Tree => add("-r"),
        RunKind::Removal | RunKind::Flat | RunKind::RootOnly | RunKind::Level => {
            add("--no-r");
            add("--dirs");
        }
    }
    for arg in ["-R", "--files-from=-", "--from0", "--modify-window=-1"] {
        add(arg);
    }
    if params.iter().any(|param| param == "--no-implied-dirs" || param == "--no-i-d") {
        // Without what leads to a path in the list, rsync writes through a link that stands there on the target.
        add("--implied-dirs");
    }
    match mode.deletion {
        Deletion::ByName => add("--delete-missing-args"),
        Deletion::Off | Deletion::ByLevel | Deletion::Refused => add("--ignore-missing-args"),
    }
    if mode.deletion != Deletion::Off {
        add("--force");
    }
    if listing && deletes {
        add("--delete");
        if let (Some(limit), false) = (run.max_delete, dry) {
            add(&format!("--max-delete={limit}"));
        }
    }
    if run.kind == RunKind::RootOnly {
        add("--exclude=/*");
    }
    if run.kind == RunKind::Removal {
        // A directory of which nothing is to be sent is empty to rsync.
        add("--no-prune-empty-dirs");
    }
    // Theirs does not matter: rsync looks at contents before it looks at what it may ignore. A dry run with --ignore-times
    // would list everything.
    match (run.origin, mode.pass) {
        (Origin::Write | Origin::Replaced, Pass::Real | Pass::Itemized) if !mode.contents => add("--ignore-times"),
        (Origin::Write | Origin::Replaced, Pass::Real | Pass::Itemized | Pass::Show | Pass::Confirm) => {
            add("--checksum");
        }
        (Origin::Write | Origin::Replaced, Pass::Count) | (Origin::Scan | Origin::Reconcile, _) => {}
    }
    if mode.mkpath {
        add("--mkpath");
    }
    let resumes = ["--partial", "--partial-dir", "--inplace", "--append", "--append-verify", "--delay-updates", "-P"];
    if mode.lane == Lane::Large
        && !listing
        && !params.iter().any(|param| resumes.iter().any(|option| is_option(param, option)))
    {
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
    args.extend(run.skip.iter().map(|path| joined("--exclude=", &literal_pattern(path))));
    if run.kind == RunKind::Removal {
        args.extend(removal_rules(run).iter().map(|rule| joined("--filter=", rule)));
    } else if listing || !run.with_contents.is_empty() {
        // Last, since the first rule that matches decides and some of these include.
        args.extend(mode.rules.iter().map(|rule| joined("--filter=", rule)));
    }
    connection(target, &mut args);
    args.push("./".into());
    args.push(target.destination.to_arg());
    args
}

/// Rules under which a removal takes away nothing but its entries: what does not match is neither sent nor deleted. One
/// that is there again at the source is sent.
fn removal_rules(run: &Run) -> Vec<OsString> {
    let above: BTreeSet<RelPath> = run.entries.iter().flat_map(|entry| entry.path.ancestors()).collect();
    let above = above.iter().filter(|path| !path.is_root()).map(|path| joined("+ ", &directory_pattern(path, b"/")));
    let entries = run.entries.iter().flat_map(|entry| {
        [joined("+ ", &literal_pattern(&entry.path)), joined("+ ", &directory_pattern(&entry.path, b"/**"))]
    });
    above.chain(entries).chain([OsString::from("- *")]).collect()
}

/// A rule costs memory here and time there, and so much can be said on a command line (which ends at two megabytes).
const REMOVAL_ENTRIES_MAX: usize = 1_000;
const REMOVAL_BYTES_MAX: usize = 256 << 10;

/// Whether a removal has more entries than go into one run.
pub(super) fn is_too_long(run: &Run) -> bool {
    let bytes = || run.entries.iter().map(|entry| entry.path.as_bytes().len()).fold(0, usize::saturating_add);
    run.kind == RunKind::Removal
        && run.entries.len() > 1
        && (run.entries.len() > REMOVAL_ENTRIES_MAX || bytes() > REMOVAL_BYTES_MAX)
}

/// A pattern that matches a directory (`/`) or what is in it (`/**`).
fn directory_pattern(path: &RelPath, end: &[u8]) -> OsString {
    let is_wild = end.contains(&b'*') || path.as_bytes().iter().any(|b| b"*?[".contains(b));
    let mut pattern = escaped(path, is_wild);
    pattern.extend_from_slice(end);
    OsString::from_vec(pattern)
}

/// A pattern that matches this path and nothing else. In a pattern without a wildcard rsync takes backslashes as they
/// are.
fn literal_pattern(path: &RelPath) -> OsString {
    OsString::from_vec(escaped(path, path.as_bytes().iter().any(|b| b"*?[".contains(b))))
}

fn escaped(path: &RelPath, is_wild: bool) -> Vec<u8> {
    let mut pattern = vec![b'/'];
    for &byte in path.as_bytes() {
        if is_wild && b"*?[\\".contains(&byte) {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern
}

/// The arguments of a run that connects and transfers nothing.
pub fn probe_arguments(target: &Target, mode: Mode<'_>) -> Vec<OsString> {
    arguments(target, &Run::new(RunKind::Flat, Origin::Scan, Vec::new()), mode)
}

/// The arguments of a run that lists the target as far as `rules` let it, and changes nothing. Of the user's parameters
/// only those go along that say how to reach it, and what they exclude.
pub fn list_arguments(target: &Target, rules: &[OsString]) -> Vec<OsString> {
    const LONG_WITH_VALUE: [&str; 10] = [
        "--rsh",
        "--rsync-path",
        "--sockopts",
        "--address",
        "--contimeout",
        "--exclude",
        "--include",
        "--filter",
        "--exclude-from",
        "--include-from",
    ];
    let mut args: Vec<OsString> = Vec::new();
    let mut params = target.options.params.iter();
    while let Some(param) = params.next() {
        let bytes = param.as_bytes();
        if let Some(name) = LONG_WITH_VALUE.iter().find(|name| is_option(param, name)) {
            args.push(param.clone());
            if param == *name {
                args.extend(params.next().cloned());
            }
        } else if let Some(cluster) = bytes.strip_prefix(b"-").filter(|rest| !rest.starts_with(b"-")) {
            let (letters, value) = cluster.split_at(letters(cluster));
            args.extend(letters.iter().filter(|b| b"CF".contains(b)).map(|&b| format!("-{}", char::from(b)).into()));
            if let Some(&letter @ (b'e' | b'f')) = letters.last() {
                args.push(OsString::from_vec([&[b'-', letter], value].concat()));
                if value.is_empty() {
                    args.extend(params.next().cloned());
                }
            }
        } else if param == "--cvs-exclude" {
            args.push(param.clone());
        }
    }
    args.extend(["-r", "--list-only", "--no-h", "--prune-empty-dirs"].map(OsString::from));
    args.extend(target.options.reconcile_excludes.iter().map(|pattern| joined("--exclude=", pattern)));
    args.extend(rules.iter().map(|rule| joined("--filter=", rule)));
    connection(target, &mut args);
    args.push(target.destination.to_arg());
    args
}

/// Whether the user's own parameters have files with several names linked as they are.
pub fn keeps_links(params: &[OsString]) -> bool {
    params.iter().any(|param| {
        let cluster = param.as_bytes().strip_prefix(b"-").filter(|rest| !rest.starts_with(b"-"));
        let has_letter = |cluster: &[u8]| cluster.get(..letters(cluster)).is_some_and(|found| found.contains(&b'H'));
        param == "--hard-links" || cluster.is_some_and(has_letter)
    })
}

/// The limit that the user's own parameters set.
pub fn max_delete(params: &[OsString]) -> Option<u64> {
    let values = params.iter().zip(params.iter().skip(1).map(Some).chain([None])).filter_map(|(param, next)| {
        let value = match param.as_bytes().strip_prefix(MAX_DELETE.as_bytes())? {
            [] => next?.as_bytes(),
            [b'=', value @ ..] => value,
            _ => return None,
        };
        // Below zero means zero, as for rsync.
        str::from_utf8(value).ok()?.parse::<i64>().ok().map(|limit| u64::try_from(limit).unwrap_or(0))
    });
    values.last()
}

pub(super) fn without_max_delete(params: &[OsString]) -> impl Iterator<Item = &OsString> {
    let mut is_value = false;
    params.iter().filter(move |param| {
        let was_value = std::mem::replace(&mut is_value, *param == MAX_DELETE);
        !was_value && !is_option(param, MAX_DELETE)
    })
}

const MAX_DELETE: &str = "--max-delete";

pub(super) fn connection(target: &Target, args: &mut Vec<OsString>) {
    let options = &target.options;
    if let Some(timeout) = options.timeout {
        args.push(format!("--timeout={}", timeout.as_secs().max(1)).into());
    }
    match &target.destination {
        Destination::Local(_) => {}
        Destination::Ssh { path, .. } => {
            // Theirs is part of it, and the last one counts.
            if let Some(line) = ssh::line(remote_shell(&options.params), options.port, options.timeout) {
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
            if !options.params.iter().any(|param| is_option(param, "--contimeout")) {
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

/// The remote shell that the user's own parameters name: the last one counts.
pub fn remote_shell(params: &[OsString]) -> Option<&OsStr> {
    let values = params.iter().zip(params.iter().skip(1).map(Some).chain([None])).filter_map(|(param, next)| {
        let next = || next.map(OsString::as_os_str);
        if let Some(rest) = param.as_bytes().strip_prefix(b"--rsh") {
            return if rest.is_empty() { next() } else { rest.strip_prefix(b"=").map(OsStr::from_bytes) };
        }
        let cluster = param.as_bytes().strip_prefix(b"-").filter(|rest| !rest.starts_with(b"-"))?;
        let (letters, value) = cluster.split_at(letters(cluster));
        match letters.last() {
            Some(b'e') if value.is_empty() => next(),
            Some(b'e') => Some(OsStr::from_bytes(value.strip_prefix(b"=").unwrap_or(value))),
            _ => None,
        }
    });
    values.last()
}

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

fn list_lines(run: &Run) -> Vec<Vec<u8>> {
    if run.kind == RunKind::Removal {
        let slash = |path: &RelPath| if path.is_root() { &b""[..] } else { b"/" };
        return run.with_contents.iter().map(|path| [b"./", path.as_bytes(), slash(path)].concat()).collect();
    }
    run.entries.iter().filter_map(|entry| list_entry(run, entry)).collect()
}

/// One list entry, or `None` for a root that is not looked into: rsync sends its attributes as everybody's parent.
fn list_entry(run: &Run, entry: &Entry) -> Option<Vec<u8>> {
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

/// The run as one shell line that does the same when pasted.
pub fn pasteable(root: &Path, args: &[OsString], run: &Run) -> String {
    let lines = list_lines(run);
    let mut text = format!("cd {} && printf '%s\\0'", quoted(root.as_os_str().as_bytes()));
    for line in lines.iter().take(PASTE_PATHS_MAX) {
        text.push(' ');
        text.push_str(&quoted(line));
    }
    text.push_str(" | rsync");
    for arg in args {
        text.push(' ');
        text.push_str(&quoted(arg.as_bytes()));
    }
    if let Some(more) = lines.len().checked_sub(PASTE_PATHS_MAX + 1) {
        text.push_str(&format!(" # and {} more paths", more + 1));
    }
    text
}

/// Quotes for a POSIX shell, or with `$'…'` (bash, zsh, ksh) where a byte could not be shown as it is.
fn quoted(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && bytes.iter().all(|&b| is_plain(b)) => text.to_owned(),
        Ok(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let mut text = String::from("$'");
            for &b in bytes {
                match b {
                    b'\'' | b'\\' => text.extend(['\\', char::from(b)]),
                    b' '..=b'~' => text.push(char::from(b)),
                    _ => text.push_str(&format!("\\{b:03o}")),
                }
            }
            text.push('\'');
            text
        }
    }
}

/// Bytes without a meaning to any shell.
pub(super) fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_./,:=@+%".contains(&b)
}

pub(super) fn joined(option: &str, value: &OsStr) -> OsString {
    OsString::from_vec([option.as_bytes(), value.as_bytes()].concat())
}

/// Whether a user's parameter is the option `name`, with or without `=value`.
pub(super) fn is_option(param: &OsStr, name: &str) -> bool {
    param.as_bytes().strip_prefix(name.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
}

/// Whether a user's parameter sets the short option `letter`, alone or in a cluster (`-avze`).
pub(super) fn has_short(param: &OsStr, letter: u8) -> bool {
    let Some(cluster) = param.as_bytes().strip_prefix(b"-").filter(|rest| !rest.starts_with(b"-")) else {
        return false;
    };
    cluster.iter().take(letters(cluster)).any(|&b| b == letter)
}

/// The letters of a cluster of short options, without the value that may follow the last.
pub(super) fn option_letters(param: &OsStr) -> Option<&[u8]> {
    let cluster = param.as_bytes().strip_prefix(b"-").filter(|rest| !rest.starts_with(b"-"))?;
    cluster.get(..letters(cluster))
}

/// How much of a cluster is letters: what follows one that takes a value is its value.
fn letters(cluster: &[u8]) -> usize {
    cluster.iter().position(|b| b"efTBM@".contains(b)).map_or(cluster.len(), |at| at + 1)
}

/// A user's parameter without `-q`: the answer of a dry run is what it prints, and a run that deletes prints that it does
/// not.
fn audible(param: &OsStr) -> Option<OsString> {
    if param == "--quiet" {
        return None;
    }
    if !has_short(param, b'q') {
        return Some(param.to_owned());
    }
    let (letters, value) = param.as_bytes().split_at(1 + letters(param.as_bytes().get(1..)?));
    let mut bytes = letters.to_vec();
    bytes.retain(|&b| b != b'q');
    bytes.extend_from_slice(value);
    (bytes != b"-").then(|| OsString::from_vec(bytes))
}

/// Options that delete whatever is not in the list. In a flat run they would reach beyond the listed paths.
pub(super) fn asks_for_deletion(param: &OsStr) -> bool {
    const WIDENING: [&str; 7] = [
        "--del",
        "--delete",
        "--delete-before",
        "--delete-during",
        "--delete-delay",
        "--delete-after",
        "--delete-excluded",
    ];
    WIDENING.iter().any(|option| param.as_bytes() == option.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::look::Presence;
    use crate::model::{RelPath, TransferOptions};

    fn target(destination: Destination, params: &[&str]) -> Target {
        let params = params.iter().map(OsString::from).collect();
        Target { destination, options: TransferOptions { params, ..TransferOptions::default() } }
    }

    fn run(kind: RunKind, origin: Origin, names: &[&[u8]]) -> Run {
        let entry = |name: &&[u8]| Entry {
            path: RelPath::new(name).unwrap(),
            presence: Presence::Directory,
            orphan: false,
            jobs: Vec::new(),
        };
        Run::new(kind, origin, names.iter().map(entry).collect())
    }

    fn line(target: &Target, run: &Run, deletion: Deletion, lane: Lane) -> String {
        let rules = [OsString::from("- *~")];
        let args = arguments(
            target,
            run,
            Mode { lane, deletion, mkpath: false, contents: true, rules: &rules, pass: Pass::Real },
        );
        args.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn a_flat_run_to_each_kind_of_destination() {
        let flat = run(RunKind::Flat, Origin::Write, &[b"a"]);
        let common =
            "--no-r --dirs -R --files-from=- --from0 --modify-window=-1 --delete-missing-args --force --checksum";
        let local = target(Destination::Local("/mnt/b".into()), &["-artz"]);
        assert_eq!(line(&local, &flat, Deletion::ByName, Lane::Small), format!("-artz {common} ./ /mnt/b/"));
        let mut ssh = target(Destination::Ssh { host: "u@h".into(), path: "/x y".into() }, &["-a"]);
        ssh.options.port = Some(2222);
        assert_eq!(
            line(&ssh, &flat, Deletion::ByName, Lane::Large),
            format!(
                "-a {common} --partial-dir=.rsync-partial -e ssh -p 2222 -o BatchMode=yes -o ConnectTimeout=30 \
                 -o ServerAliveInterval=15 -o ServerAliveCountMax=3 -s ./ u@h:/x y/"
            )
        );
        ssh.options.params.extend(["-ze".into(), "ssh -i /key".into()]);
        assert!(line(&ssh, &flat, Deletion::ByName, Lane::Small).contains("-e ssh -i /key -p 2222 -o BatchMode=yes "));
        ssh.options.params.push("--rsh=rsh -x".into());
        assert!(!line(&ssh, &flat, Deletion::ByName, Lane::Small).contains("BatchMode"));
        ssh.destination = Destination::Ssh { host: "h".into(), path: "~/www".into() };
        assert!(line(&ssh, &flat, Deletion::ByName, Lane::Small).ends_with(" ./ h:~/www/"));
        let mut daemon = target(Destination::Daemon { host: "u@h".into(), module: "m".into() }, &["-a", "--partial"]);
        daemon.options.port = Some(874);
        daemon.options.password_file = Some("/etc/p".into());
        daemon.options.timeout = Some(Duration::from_secs(100));
        assert_eq!(
            line(&daemon, &flat, Deletion::ByName, Lane::Large),
            format!(
                "-a --partial {common} --timeout=100 --sockopts=TCP_NODELAY --contimeout=30 --port=874 \
                 --password-file=/etc/p ./ u@h::m/"
            )
        );
    }

    /// A link of the target that stands in a directory's place was followed.
    #[test]
    fn what_leads_to_a_path_is_always_listed() {
        for (params, listed) in [(&["-a"][..], false), (&["-a", "--no-implied-dirs"], true), (&["--no-i-d"], true)] {
            let target = target(Destination::Local("/b".into()), params);
            let text = line(&target, &run(RunKind::Flat, Origin::Write, &[b"a/b"]), Deletion::ByName, Lane::Small);
            assert_eq!(text.contains(" --implied-dirs "), listed, "{text}");
        }
    }

    #[test]
    fn the_users_remote_shell_in_all_its_forms() {
        for (params, expected) in [
            (&["-a"][..], None),
            (&["-avze", "ssh -p 2", "-r"], Some("ssh -p 2")),
            (&["-essh -4"], Some("ssh -4")),
            (&["--rsh=x", "--rsh", "y z"], Some("y z")),
            (&["--rsync-path=-e", "-f", "-e"], None),
        ] {
            let params: Vec<OsString> = params.iter().map(OsString::from).collect();
            assert_eq!(remote_shell(&params), expected.map(OsStr::new), "{params:?}");
        }
    }

    #[test]
    fn a_run_goes_through_the_remote_shell_that_it_is_given() {
        let ssh = target(Destination::Ssh { host: "h".into(), path: "/x".into() }, &["-ae", "ssh -4"]);
        let flat = run(RunKind::Flat, Origin::Write, &[b"a"]);
        let mode = Mode {
            lane: Lane::Small,
            deletion: Deletion::Off,
            mkpath: false,
            contents: true,
            rules: &[],
            pass: Pass::Real,
        };
        let args = with_remote_shell(&arguments(&ssh, &flat, mode), OsStr::new("ssh -S /s"));
        assert_eq!(args[args.len() - 4..], ["-e", "ssh -S /s", "./", "h:/x/"]);
        let local = arguments(&target(Destination::Local("/b".into()), &["-a"]), &flat, mode);
        assert_eq!(with_remote_shell(&local, OsStr::new("ssh")), local);
    }

    #[test]
    fn a_removal_lists_what_is_above_and_rules_out_the_rest() {
        let entry = |name: &[u8]| Entry {
            path: RelPath::new(name).unwrap(),
            presence: Presence::Missing,
            orphan: false,
            jobs: vec![0],
        };
        let entries = [&b"x"[..], b"d[/e\\/y*", b"gone/z"].map(entry).to_vec();
        let is_there = |path: &RelPath| path.as_bytes() != b"gone";
        let run = Run::deletion(Deletion::ByLevel, entries.clone(), &mut |path| match is_there(path) {
            true => Presence::Directory,
            false => Presence::Missing,
        });
        assert_eq!(list(&run), b"./\0./d[/e\\/\0");
        let text = line(&target(Destination::Local("/b".into()), &["-a"]), &run, Deletion::ByLevel, Lane::Small);
        let rules: Vec<&str> = text.split(" --filter=").skip(1).collect();
        assert_eq!(
            rules,
            [
                r"+ /d\[/",
                r"+ /d\[/e\\/",
                "+ /gone/",
                "+ /x",
                "+ /x/**",
                r"+ /d\[/e\\/y\*",
                r"+ /d\[/e\\/y\*/**",
                "+ /gone/z",
                "+ /gone/z/**",
                "- * ./ /b/"
            ],
            "{text}"
        );
        let by_name = Run::deletion(Deletion::ByName, entries, &mut |_| Presence::Directory);
        assert_eq!((by_name.kind, list(&by_name)), (RunKind::Flat, b"./x\0./d[/e\\/y*\0./gone/z\0".to_vec()));
    }

    #[test]
    fn deletion_reaches_no_further_than_asked() {
        let user = target(Destination::Local("/b".into()), &["-a", "--delete", "--delete-excluded"]);
        for (kind, deletion, delete, missing, force) in [
            (RunKind::Flat, Deletion::ByName, false, true, true),
            (RunKind::Flat, Deletion::ByLevel, false, false, true),
            (RunKind::Removal, Deletion::ByLevel, true, false, true),
            (RunKind::RootOnly, Deletion::ByName, false, true, true),
            (RunKind::Level, Deletion::ByName, true, true, true),
            (RunKind::Level, Deletion::ByLevel, true, false, true),
            (RunKind::Tree, Deletion::ByName, true, true, true),
            (RunKind::Tree, Deletion::Refused, false, false, true),
            (RunKind::Tree, Deletion::Off, false, false, false),
        ] {
            let text = line(&user, &run(kind, Origin::Scan, &[b"a"]), deletion, Lane::Small) + " ";
            assert_eq!(text.contains(" --delete "), delete, "{text}");
            let excluded = delete && kind != RunKind::Removal;
            assert_eq!(text.contains(" --delete-excluded "), excluded, "{text}");
            assert_eq!(text.contains(" --delete-missing-args "), missing, "{text}");
            assert_eq!(text.contains(" --force "), force, "{text}");
            assert_eq!(text.contains("--filter=- *~"), matches!(kind, RunKind::Level | RunKind::Tree), "{text}");
        }
    }

    #[test]
    fn runs_whose_words_count_are_never_quiet() {
        let target = target(Destination::Local("/b".into()), &["-aqz", "--quiet", "-q", "-qeq", "-a"]);
        let mode = Mode {
            lane: Lane::Small,
            deletion: Deletion::ByName,
            mkpath: false,
            contents: true,
            rules: &[],
            pass: Pass::Show,
        };
        let args = arguments(&target, &run(RunKind::Flat, Origin::Write, &[]), mode);
        assert_eq!(args[..3], ["-az", "-eq", "-a"]);
        assert!(
            args.contains(&"--checksum".into())
                && args.contains(&"-n".into())
                && !args.contains(&"--ignore-times".into())
        );
        let mode = |pass| Mode {
            lane: Lane::Small,
            deletion: Deletion::ByName,
            mkpath: false,
            contents: true,
            rules: &[],
            pass,
        };
        for (kind, first) in [(RunKind::Tree, "-az"), (RunKind::Level, "-az"), (RunKind::Flat, "-aqz")] {
            assert_eq!(arguments(&target, &run(kind, Origin::Scan, &[]), mode(Pass::Real))[0], first, "{kind:?}");
        }
    }

    #[test]
    fn only_a_reconcile_knows_its_excludes_and_the_filters_rules_come_last() {
        let mut target = target(Destination::Local("/b".into()), &["-a"]);
        target.options.reconcile_excludes = vec!["*.php".into()];
        let reconcile = line(&target, &run(RunKind::Tree, Origin::Reconcile, &[b""]), Deletion::ByName, Lane::Large);
        assert!(reconcile.contains("--exclude=*.php --filter=- *~ ./"), "{reconcile}");
        assert!(
            !line(&target, &run(RunKind::Tree, Origin::Scan, &[b""]), Deletion::ByName, Lane::Large).contains("php")
        );
    }

    #[test]
    fn lists_are_nul_separated_and_say_where_to_look() {
        for (kind, expected) in [
            (RunKind::Flat, &b"./#a\0./b c\0"[..]),
            (RunKind::Level, b"./\0./#a/\0./b c/\0"),
            (RunKind::Tree, b"./\0./#a/\0./b c/\0"),
        ] {
            assert_eq!(list(&run(kind, Origin::Scan, &[b"", b"#a", b"b c"])), expected);
        }
        assert_eq!(list(&run(RunKind::RootOnly, Origin::Scan, &[b""])), b"./\0");
    }

    #[test]
    fn the_pasteable_line_survives_a_shell() {
        let names: Vec<&[u8]> = vec![b"a b", b"it's $(x) `y`", b"n\nl", b"\xff'\\", b"plain"];
        let flat = run(RunKind::Flat, Origin::Scan, &names);
        let text = pasteable(Path::new("/tmp"), &["-a".into(), "-e".into(), "ssh -p 1".into()], &flat);
        assert!(text.starts_with("cd /tmp && printf '%s\\0' './a b' ") && text.ends_with("| rsync -a -e 'ssh -p 1'"));
        let (printf, _) = text.split_once(" | rsync").unwrap();
        let output = std::process::Command::new("bash").arg("-c").arg(printf).output().unwrap();
        assert_eq!(output.stdout, list(&flat));
        let many: Vec<Vec<u8>> = (0..30).map(|n| format!("f{n:02}").into_bytes()).collect();
        let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
        let text = pasteable(Path::new("/"), &[], &run(RunKind::Flat, Origin::Scan, &many));
        assert!(text.contains("./f19") && !text.contains("./f20") && text.ends_with(" # and 10 more paths"), "{text}");
    }
}
