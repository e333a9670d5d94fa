//! The states in which a disk may be at a moment, from the calls up to that moment.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::trace::{Call, Offset, What};

const PAGE_BYTES: usize = 4_096;

/// A change of a file's content since it was last synced.
#[derive(Debug, Clone)]
enum Change {
    Write { end: usize, offset: usize, bytes: Vec<u8> },
    SetLen { end: usize, len: usize },
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    /// Changes in their order; any page may be in any state since the durable one.
    later: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Entry {
    Put(PathBuf, Node),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// A directory, or a file by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

type Names = BTreeMap<PathBuf, Node>;

#[derive(Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    /// The names as the process sees them.
    names: Names,
    /// All changes of names, with the line in which each ended, and how many of them are durable for certain.
    entries: Vec<(usize, Entry)>,
    durable_entries: usize,
    /// The last commit that the process was told to be durable.
    pub acknowledged: Option<u64>,
}

impl Disk {
    /// The disk when the calls up to `line` of the record have been made. A call that was under way may have had its
    /// effect, but a sync counts only once it has ended.
    pub fn at(calls: &[Call], line: usize) -> Self {
        let mut disk = Self::default();
        for call in calls {
            let over = call.end < line;
            if over || (call.start < line && !matches!(call.what, What::Sync(_) | What::Acknowledged(_))) {
                disk.apply(call);
            }
        }
        disk
    }

    fn apply(&mut self, call: &Call) {
        let end = call.end;
        match &call.what {
            What::Create(path) if self.names.contains_key(path) => {}
            What::Create(path) => {
                self.files.push(File::default());
                self.entry(end, Entry::Put(path.clone(), Node::File(self.files.len() - 1)));
            }
            What::MakeDir(path) => self.entry(end, Entry::Put(path.clone(), Node::Dir)),
            What::Rename(from, to) => self.entry(end, Entry::Rename(from.clone(), to.clone())),
            What::Remove(path) => self.entry(end, Entry::Remove(path.clone())),
            What::Write { path, offset, bytes } => {
                let Some(file) = self.file(path) else { return };
                let offset = match *offset {
                    Offset::At(offset) => usize::try_from(offset).expect("fits"),
                    Offset::End => file.len_after(file.later.len()),
                };
                file.later.push(Change::Write { end, offset, bytes: bytes.clone() });
            }
            What::SetLen { path, len } => {
                let len = usize::try_from(*len).expect("fits");
                if let Some(file) = self.file(path) {
                    file.later.push(Change::SetLen { end, len });
                }
            }
            What::Sync(path) => {
                if let Some(file) = self.file(path) {
                    file.sync(call.start);
                    return;
                }
                let covered = |(end, entry): &(usize, Entry)| *end < call.start && entry.is_in(path);
                let last = self.entries.iter().rposition(covered);
                self.durable_entries = self.durable_entries.max(last.map_or(0, |last| last + 1));
            }
            What::Acknowledged(number) => self.acknowledged = Some(*number),
        }
    }

    fn entry(&mut self, end: usize, entry: Entry) {
        entry.apply(&mut self.names);
        self.entries.push((end, entry));
    }

    fn file(&mut self, path: &Path) -> Option<&mut File> {
        match self.names.get(path) {
            Some(Node::File(number)) => self.files.get_mut(*number),
            _ => None,
        }
    }

    /// Writes to `dir` what the disk may hold after a power cut at this moment, one of many possibilities.
    pub fn write_to(&self, dir: &Path, random: &mut fastrand::Rng) {
        // As little as is certain, all that was ever written, or anything in between.
        let luck = Luck::any(random);
        let count = luck.count(self.durable_entries, self.entries.len(), random);
        let mut names = Names::new();
        self.entries[..count].iter().for_each(|(_, entry)| entry.apply(&mut names));
        fs::create_dir(dir).expect("creates");
        let root = self.root();
        for (path, node) in &names {
            let at = dir.join(path.strip_prefix(&root).expect("below the state directory"));
            match node {
                Node::Dir => fs::create_dir(at).expect("creates"),
                Node::File(number) => fs::write(at, self.files[*number].after_a_cut(luck, random)).expect("writes"),
            }
        }
    }

    fn root(&self) -> PathBuf {
        let first = self.entries.first().map(|(_, entry)| entry.path().parent().expect("an absolute path"));
        first.map(Path::to_owned).unwrap_or_default()
    }
}

impl Entry {
    fn path(&self) -> &Path {
        match self {
            Self::Put(path, _) | Self::Rename(_, path) | Self::Remove(path) => path,
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        self.path().parent() == Some(dir)
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Put(path, node) => drop(names.insert(path.clone(), *node)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename(from, to) => {
                let moved: Vec<_> =
                    names.iter().filter(|(path, _)| path.starts_with(from)).map(|(p, n)| (p.clone(), *n)).collect();
                for (path, node) in moved {
                    names.remove(&path);
                    let below = path.strip_prefix(from).expect("below what is renamed");
                    // `to` joined with an empty path would end in a slash.
                    let new = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                    names.insert(new, node);
                }
            }
        }
    }
}

/// How much unsynced data has reached the disk.
#[derive(Debug, Clone, Copy)]
enum Luck {
    Nothing,
    Everything,
    Some,
}

impl Luck {
    fn any(random: &mut fastrand::Rng) -> Self {
        [Self::Nothing, Self::Everything, Self::Some, Self::Some][random.usize(..4)]
    }

    fn count(self, certain: usize, all: usize, random: &mut fastrand::Rng) -> usize {
        match self {
            Self::Nothing => certain,
            Self::Everything => all,
            Self::Some => random.usize(certain..=all),
        }
    }
}

impl File {
    /// Ends a sync that started in line `start`: the changes that ended before it are durable.
    fn sync(&mut self, start: usize) {
        let covered = self.later.iter().take_while(|change| change.end() < start).count();
        for change in self.later.drain(..covered) {
            change.apply(&mut self.durable);
        }
    }

    /// The length after the first `count` of the later changes.
    fn len_after(&self, count: usize) -> usize {
        self.later.iter().take(count).fold(self.durable.len(), |len, change| match change {
            Change::Write { offset, bytes, .. } => len.max(offset + bytes.len()),
            Change::SetLen { len, .. } => *len,
        })
    }

    fn after_a_cut(&self, luck: Luck, random: &mut fastrand::Rng) -> Vec<u8> {
        let len = self.len_after(luck.count(0, self.later.len(), random));
        let mut content = self.durable.clone();
        content.resize(len, 0);
        for (number, page) in content.chunks_mut(PAGE_BYTES).enumerate() {
            let from = number * PAGE_BYTES;
            let touching: Vec<_> = self.later.iter().filter(|change| change.touches(from, from + PAGE_BYTES)).collect();
            let count = luck.count(0, touching.len(), random);
            for change in touching.into_iter().take(count) {
                change.apply_to_page(page, from);
            }
        }
        content
    }
}

impl Change {
    fn end(&self) -> usize {
        match self {
            Self::Write { end, .. } | Self::SetLen { end, .. } => *end,
        }
    }

    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes, .. } => {
                content.resize(content.len().max(offset + bytes.len()), 0);
                content[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Self::SetLen { len, .. } => content.resize(*len, 0),
        }
    }

    fn touches(&self, from: usize, to: usize) -> bool {
        match self {
            Self::Write { offset, bytes, .. } => *offset < to && offset + bytes.len() > from,
            Self::SetLen { len, .. } => *len < to,
        }
    }

    /// Applies the change to one page that begins at `from`.
    fn apply_to_page(&self, page: &mut [u8], from: usize) {
        match self {
            Self::Write { offset, bytes, .. } => {
                let first = offset.saturating_sub(from).min(page.len());
                let skipped = from.saturating_sub(*offset);
                let rest = &bytes[skipped..];
                let count = rest.len().min(page.len() - first);
                page[first..first + count].copy_from_slice(&rest[..count]);
            }
            Self::SetLen { len, .. } => {
                let first = len.saturating_sub(from).min(page.len());
                page[first..].fill(0);
            }
        }
    }
}

/// The model's own check: with everything written and nothing lost, the model comes to the files that are there.
pub fn replays_to_what_is_there(calls: &[Call], dir: &Path) {
    let disk = Disk::at(calls, usize::MAX);
    let mut files = 0;
    for (path, node) in &disk.names {
        let Node::File(number) = node else {
            assert!(path.is_dir(), "{}", path.display());
            continue;
        };
        let file = &disk.files[*number];
        let expected = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let content = file.after_a_cut(Luck::Everything, &mut fastrand::Rng::with_seed(1));
        assert!(
            content == expected,
            "{} has {} bytes, {} by the record",
            path.display(),
            expected.len(),
            content.len()
        );
        files += 1;
    }
    let there = walkdir::WalkDir::new(dir).into_iter().flatten().filter(|entry| entry.file_type().is_file()).count();
    assert_eq!(files, there);
}
