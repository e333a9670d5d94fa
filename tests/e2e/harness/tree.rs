//! Compares two trees by bytes, and describes differences for a person.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The most differences that are shown of one pair of trees.
const SHOWN_MAX: usize = 12;

/// The properties that have to be equal besides names, types, sizes, link targets and content.
#[derive(Debug, Clone, Copy)]
pub struct Compare {
    pub modes: bool,
    pub file_times: bool,
    pub dir_times: bool,
    /// The root directory's own mode and time.
    pub root: bool,
    pub owners: bool,
    /// Which names share an inode.
    pub hard_links: bool,
    pub xattrs: bool,
    /// Temporary and partial files that a killed rsync left on the target.
    pub leftovers: bool,
}

impl Default for Compare {
    fn default() -> Self {
        Self {
            modes: true,
            file_times: true,
            dir_times: true,
            root: true,
            owners: false,
            hard_links: false,
            xattrs: false,
            leftovers: true,
        }
    }
}

impl Compare {
    /// Without the properties that only IN_ATTRIB reports: for trees whose metadata changed while `attrib` was off.
    pub fn content() -> Self {
        Self { modes: false, file_times: false, dir_times: false, root: false, ..Self::default() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File,
    Dir,
    Symlink(Vec<u8>),
    Fifo,
    Other(u32),
}

#[derive(Debug)]
struct Entry {
    node: Node,
    meta: Metadata,
}

type Entries = BTreeMap<Vec<u8>, Entry>;

/// All entries below `root` by relative path. The root itself has the empty path.
fn entries(root: &Path) -> io::Result<Entries> {
    let mut found = Entries::new();
    found.insert(Vec::new(), Entry { node: Node::Dir, meta: fs::metadata(root)? });
    let mut pending: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(full(root, &dir))? {
            let entry = entry?;
            let mut path = dir.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.file_name().as_bytes());
            let meta = entry.metadata()?;
            let kind = meta.file_type();
            let node = if kind.is_dir() {
                pending.push(path.clone());
                Node::Dir
            } else if kind.is_symlink() {
                Node::Symlink(fs::read_link(entry.path())?.into_os_string().into_vec())
            } else if kind.is_file() {
                Node::File
            } else if kind.is_fifo() {
                Node::Fifo
            } else {
                Node::Other(meta.mode())
            };
            found.insert(path, Entry { node, meta });
        }
    }
    Ok(found)
}

fn full(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(path)) }
}

/// How many entries a tree has below its root.
pub fn count(root: &Path) -> usize {
    entries(root).map_or(0, |found| found.len() - 1)
}

/// The first differences between source and mirror; empty if they are equal.
pub fn differences(source: &Path, mirror: &Path, compare: Compare) -> Vec<String> {
    let (ours, mut theirs) = match (entries(source), entries(mirror)) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(e), _) => return vec![format!("{} cannot be read: {e}", source.display())],
        (_, Err(e)) => return vec![format!("{} cannot be read: {e}", mirror.display())],
    };
    if !compare.leftovers {
        theirs.retain(|path, _| ours.contains_key(path) || !is_leftover(path));
    }
    let mut found = Vec::new();
    let missing = ours.keys().filter(|path| !theirs.contains_key(*path)).count();
    let extra = theirs.keys().filter(|path| !ours.contains_key(*path)).count();
    if missing + extra > 0 {
        found.push(format!(
            "{missing} of {} entries are missing from the mirror, {extra} are in excess",
            ours.len() - 1
        ));
    }
    for (path, entry) in &ours {
        let Some(other) = theirs.get(path) else {
            found.push(format!("missing: {} ({:?})", shown(path), entry.node));
            continue;
        };
        let what = compare_entries(path, (source, entry), (mirror, other), compare);
        found.extend(what.into_iter().map(|what| format!("{}: {what}", shown(path))));
        if found.len() > SHOWN_MAX {
            break;
        }
    }
    for (path, entry) in theirs.iter().filter(|(path, _)| !ours.contains_key(*path)) {
        found.push(format!("in excess: {} ({:?})", shown(path), entry.node));
        if found.len() > 2 * SHOWN_MAX {
            break;
        }
    }
    if compare.hard_links && found.is_empty() && links(&ours) != links(&theirs) {
        found.push(format!("hard links: {:?} became {:?}", links(&ours), links(&theirs)));
    }
    found
}

/// Whether the path is `.NAME.XXXXXX`, or lies in `.rsync-partial`.
pub fn is_leftover(path: &[u8]) -> bool {
    let mut components = path.split(|&b| b == b'/');
    if components.any(|component| component == b".rsync-partial") {
        return true;
    }
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    let dot = name.len().saturating_sub(7);
    name.starts_with(b".") && dot > 0 && name[dot] == b'.' && name[dot + 1..].iter().all(u8::is_ascii_alphanumeric)
}

fn compare_entries(
    path: &[u8],
    (source, ours): (&Path, &Entry),
    (mirror, theirs): (&Path, &Entry),
    compare: Compare,
) -> Option<String> {
    if ours.node != theirs.node {
        return Some(format!("{:?} became {:?}", ours.node, theirs.node));
    }
    let (a, b) = (&ours.meta, &theirs.meta);
    let is_link = matches!(ours.node, Node::Symlink(_));
    let attributes = compare.root || !path.is_empty();
    if ours.node == Node::File && a.len() != b.len() {
        return Some(format!("{} bytes became {}", a.len(), b.len()));
    }
    if compare.modes && attributes && !is_link && a.mode() != b.mode() {
        return Some(format!("mode {:o} became {:o}", a.mode(), b.mode()));
    }
    if compare.owners && attributes && (a.uid(), a.gid()) != (b.uid(), b.gid()) {
        return Some(format!("owner {}:{} became {}:{}", a.uid(), a.gid(), b.uid(), b.gid()));
    }
    let times = match ours.node {
        Node::Dir => compare.dir_times && attributes,
        Node::Symlink(_) => false,
        _ => compare.file_times,
    };
    if times && (a.mtime(), a.mtime_nsec()) != (b.mtime(), b.mtime_nsec()) {
        return Some(format!("mtime {}.{:09} became {}.{:09}", a.mtime(), a.mtime_nsec(), b.mtime(), b.mtime_nsec()));
    }
    let (one, other) = (full(source, path), full(mirror, path));
    if compare.xattrs && !is_link && xattrs(&one) != xattrs(&other) {
        return Some(format!("xattrs {:?} became {:?}", xattrs(&one), xattrs(&other)));
    }
    if ours.node == Node::File {
        return match same_content(&one, &other) {
            Ok(true) => None,
            Ok(false) => Some(format!("content differs ({} bytes)", a.len())),
            Err(e) => Some(format!("cannot compare: {e}")),
        };
    }
    None
}

fn same_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let len = one.read(&mut a)?;
        if len == 0 {
            return Ok(other.read(&mut b)? == 0);
        }
        match other.read_exact(&mut b[..len]) {
            Ok(()) if a[..len] == b[..len] => {}
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

/// The groups of names that share an inode.
fn links(entries: &Entries) -> Vec<Vec<String>> {
    let mut groups: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (path, entry) in entries.iter().filter(|(_, e)| e.node == Node::File && e.meta.nlink() > 1) {
        groups.entry(entry.meta.ino()).or_default().push(shown(path));
    }
    let mut groups: Vec<_> = groups.into_values().filter(|names| names.len() > 1).collect();
    groups.sort();
    groups
}

/// The extended attributes of the user namespace.
fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut found = BTreeMap::new();
    for name in names[..len].split(|&b| b == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0; 4096];
        let len = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap_or(0);
        found.insert(name.to_vec(), value[..len].to_vec());
    }
    found
}

/// A path as text in which every byte is visible.
pub fn shown(path: &[u8]) -> String {
    if path.is_empty() { "(root)".to_owned() } else { format!("\"{}\"", path.escape_ascii()) }
}
