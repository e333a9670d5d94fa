//! Finds the entries of a run's list that a message of rsync's is about. Pure.
//!
//! rsync names a path as the source's, as the target's, or by the name of a temporary file, which may be shortened. Where a
//! name may mean several entries, all of them are in doubt. Deliberately absent: the meaning of the message (`classify`).

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::mirror::plan::run::Run;
use crate::mirror::rsync::messages::{About, Line, Mask, Names};
use crate::model::{Destination, PARTIAL_DIR, RelPath};

/// The prefixes under which rsync names the path that the list calls `./path`.
#[derive(Debug, Clone, Default)]
pub struct Prefixes {
    source: Vec<Vec<u8>>,
    target: Vec<Vec<u8>>,
}

impl Prefixes {
    /// The prefixes for all names `root` of the source (symbolic links resolved or not), and for the destination.
    pub fn new(roots: &[&Path], destination: &Destination) -> Self {
        let source = roots.iter().map(|root| root.as_os_str().as_bytes().to_vec()).collect();
        let target = match destination {
            Destination::Local(path) | Destination::Ssh { path, .. } => path.as_os_str().as_bytes().to_vec(),
            Destination::Daemon { module, .. } => {
                let inside = module.as_bytes().splitn(2, |&b| b == b'/').nth(1).unwrap_or_default();
                [b"/", inside].concat()
            }
        };
        let trimmed = |prefixes: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
            let trim = |prefix: Vec<u8>| prefix.strip_suffix(b"/").map(<[u8]>::to_vec).unwrap_or(prefix);
            prefixes.into_iter().map(trim).filter(|prefix| !prefix.is_empty()).collect()
        };
        Self { source: trimmed(source), target: trimmed(vec![target]) }
    }

    /// The part of `name` below one of the prefixes.
    pub(super) fn strip(&self, name: &[u8]) -> Option<RelPath> {
        let inside = self
            .source
            .iter()
            .chain(&self.target)
            .filter_map(|prefix| name.strip_prefix(&prefix[..])?.strip_prefix(b"/"));
        inside.filter_map(path_of_message).next()
    }

    /// The path of `name` relative to the root. `is_senders`: the name is the sending side's.
    pub(super) fn relative(&self, name: &[u8], is_senders: bool) -> Option<RelPath> {
        let prefixes = if is_senders { &self.source } else { &self.target };
        let inside = prefixes.iter().filter_map(|prefix| name.strip_prefix(&prefix[..]));
        let inside = inside.filter(|rest| rest.is_empty() || rest.starts_with(b"/"));
        path_of_message(inside.min_by_key(|rest| rest.len()).unwrap_or(name))
    }
}

/// A name in a message as a path. Unlike a name in an itemized line it may begin with slashes, and end in `.` for a
/// directory.
fn path_of_message(name: &[u8]) -> Option<RelPath> {
    let mut name = name;
    while let Some(rest) = name.strip_prefix(b"/").or_else(|| name.strip_prefix(b"./")) {
        name = rest;
    }
    let name = name.strip_suffix(b"/.").unwrap_or(name);
    let name = if name == b"." { b"" } else { name };
    RelPath::new(name.strip_suffix(b"/").unwrap_or(name)).ok()
}

/// The paths that a message is about.
#[derive(Debug)]
pub(super) enum Concerned {
    /// Paths strictly below entries of a level or tree run.
    Below(Vec<RelPath>),
    /// Entries. Empty: the message is about a directory above them that is not listed.
    Entries(Vec<usize>),
    Unknown,
}

pub(super) fn concerned(line: &Line<'_>, run: &Run, prefixes: &Prefixes) -> Concerned {
    let Names { names, sure, mask } = line.names();
    let known: Vec<RelPath> = names.iter().filter_map(|name| prefixes.relative(name, line.is_senders())).collect();
    if run.lists()
        && let Some(at) = known.iter().position(|path| run.entries.iter().any(|entry| entry.path.is_ancestor_of(path)))
        && let Some(path) = known.get(at)
    {
        // No list shows which of several paths is meant, so all of the entry is in doubt.
        return match sure.then(|| meant(path, mask)).flatten() {
            Some(below) => Concerned::Below(below),
            None => Concerned::Entries(reached(run, path)),
        };
    }
    let direct: BTreeSet<usize> = known.iter().flat_map(|path| hits(run, path, mask)).collect();
    if !direct.is_empty() {
        return Concerned::Entries(direct.into_iter().collect());
    }
    if line.about == About::Unknown {
        return Concerned::Unknown;
    }
    // A parent that could not be made or entered takes down the entries below it; a failure to set its times does not.
    for path in &known {
        let below = run.entries.iter().enumerate().filter(|(_, entry)| path.is_ancestor_of(&entry.path));
        let below: Vec<usize> = below.map(|(at, _)| at).collect();
        if !below.is_empty() {
            return Concerned::Entries(if line.about == About::Attributes { Vec::new() } else { below });
        }
    }
    // If an absolute name lies below an unknown directory (ssh to a home directory, a chroot), the end of the name decides.
    known.iter().find_map(|path| by_suffix(run, path, mask)).map_or(Concerned::Unknown, Concerned::Entries)
}

/// The entries that `path` is, or whose temporary file `path` is.
fn hits(run: &Run, path: &RelPath, mask: Mask) -> Vec<usize> {
    let mut hits = if mask == Mask::Always { Vec::new() } else { reached(run, path) };
    if mask != Mask::Never {
        hits.extend(unmasked(run, path).unwrap_or_default());
    }
    // The name may look like a temporary file's and still be a listed one.
    if hits.is_empty() { reached(run, path) } else { hits }
}

/// The paths that `path`, below a compared directory, may mean. `None`: that cannot be known.
fn meant(path: &RelPath, mask: Mask) -> Option<Vec<RelPath>> {
    let held =
        path.parent().filter(|parent| parent.name() == PARTIAL_DIR.as_bytes()).and_then(|parent| parent.parent());
    if let Some(directory) = held {
        return Some(vec![directory.join(path.name())]);
    }
    if mask == Mask::Never {
        return Some(vec![path.clone()]);
    }
    let Some(last) = final_name(path) else { return Some(vec![path.clone()]) };
    match mask {
        // rsync shortens the name of a temporary file that would be too long.
        _ if last.name().len() >= LONG_BYTES_MIN => None,
        Mask::Always => Some(vec![last]),
        Mask::Perhaps | Mask::Never => Some(vec![last, path.clone()]),
    }
}

/// From this many bytes on, rsync may have shortened a name.
const LONG_BYTES_MIN: usize = 240;

/// The final name of the temporary file `.name.XXXXXX`.
fn final_name(path: &RelPath) -> Option<RelPath> {
    let name = path.name().strip_prefix(b".")?;
    let (stem, suffix) = name.split_at_checked(name.len().checked_sub(7)?)?;
    let temporary =
        !stem.is_empty() && suffix.first() == Some(&b'.') && suffix.iter().skip(1).all(u8::is_ascii_alphanumeric);
    temporary.then(|| path.parent().map(|parent| parent.join(stem))).flatten()
}

pub(super) fn reached(run: &Run, path: &RelPath) -> Vec<usize> {
    let hits = run.entries.iter().enumerate().filter(|(_, entry)| run.reaches(entry, path));
    hits.map(|(at, _)| at).collect()
}

/// Takes `path` for a temporary file (`.name.XXXXXX`, `.rsync-partial/name`) and finds the entries that it was to become.
fn unmasked(run: &Run, path: &RelPath) -> Option<Vec<usize>> {
    let name = path.name();
    let parent = path.parent()?;
    if parent.name() == PARTIAL_DIR.as_bytes() {
        return Some(reached(run, &parent.parent()?.join(name))).filter(|hits| !hits.is_empty());
    }
    let dot = name.iter().rposition(|&b| b == b'.').filter(|&dot| dot > 0)?;
    let (stem, suffix) = (name.get(..dot)?, name.get(dot + 1..)?);
    if !(4..=8).contains(&suffix.len()) || !suffix.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    for stem in [stem.strip_prefix(b"."), Some(stem)].into_iter().flatten().filter(|stem| !stem.is_empty()) {
        let hits = reached(run, &parent.join(stem));
        if !hits.is_empty() {
            return Some(hits);
        }
        let shortened = |entry: &RelPath| {
            entry.parent().as_ref() == Some(&parent)
                && entry.name().len() >= LONG_BYTES_MIN
                && entry.name().starts_with(stem)
        };
        // Each entry whose name begins with the shortened one may be meant.
        let long = run.entries.iter().enumerate().filter(|(_, entry)| shortened(&entry.path));
        let hits: Vec<usize> = long.map(|(at, _)| at).collect();
        if stem.len() + 16 >= LONG_BYTES_MIN && !hits.is_empty() {
            return Some(hits);
        }
    }
    None
}

fn by_suffix(run: &Run, path: &RelPath, mask: Mask) -> Option<Vec<usize>> {
    let components: Vec<&[u8]> = path.components().collect();
    (1..components.len()).find_map(|start| {
        let suffix = RelPath::new(&components.get(start..)?.join(&b'/')).ok()?;
        Some(hits(run, &suffix, mask)).filter(|hits| !hits.is_empty())
    })
}
