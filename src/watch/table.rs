//! Which directory each watch descriptor stands for, and under which path it is at present.
//!
//! A tree of nodes keyed by watch descriptor. Each node knows its parent's descriptor and its own name, so renaming a
//! directory moves one node however much lies below it, and a path is put together only when an event asks for it. A node
//! takes about 100 bytes beyond its name (`tools/micro size` measures it). Pure: never talks to the kernel or the file
//! system.
//!
//! The kernel does not use a descriptor twice within one inotify instance, so a [`Wd`] that was noted earlier either
//! still means the same directory or means nothing. A directory that could not be watched has a made-up negative one.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::model::{DirectoryChange, DirectoryId, RelPath};

/// The most directories between a root and its deepest one. Linux paths end at 4,096 bytes; the limit ends a walk upwards
/// even if the table were damaged.
const DEPTH_MAX: usize = 4_096;

/// A watch descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wd(pub i32);

impl Wd {
    /// Whether the kernel knows the descriptor, which is not a made-up one then.
    pub fn is_watched(self) -> bool {
        self.0 >= 0
    }
}

/// An `Option<DirectoryId>` in two thirds of its size. Zero stands for an unknown number: no directory has such an inode,
/// and none was born as 1970 began.
#[derive(Debug, Clone, Copy)]
struct PackedId {
    inode: u64,
    born_ns: u64,
}

impl From<Option<DirectoryId>> for PackedId {
    fn from(id: Option<DirectoryId>) -> Self {
        let born_ns = id.and_then(|id| id.born_ns).unwrap_or(0);
        Self { inode: id.map_or(0, |id| id.inode), born_ns }
    }
}

impl PackedId {
    fn get(self) -> Option<DirectoryId> {
        let born_ns = (self.born_ns != 0).then_some(self.born_ns);
        (self.inode != 0).then_some(DirectoryId { inode: self.inode, born_ns })
    }
}

/// One directory. There may be a million of these, so each byte counts.
#[derive(Debug)]
struct Node {
    /// `None` for the root, and for a directory that was moved away and has not turned up elsewhere yet.
    parent: Option<Wd>,
    name: Box<[u8]>,
    /// In the order of their names. A box, since most directories hold none.
    #[expect(clippy::box_collection, reason = "a third of the vector's size where there is none")]
    children: Option<Box<Vec<Wd>>>,
    /// Which directory it is, if the kernel could tell.
    id: PackedId,
    /// The directory has not been reported, since new directories are not by these settings.
    unreported: bool,
    /// The directory's place has changed since [`Table::take_changes`].
    moved: bool,
}

impl Node {
    fn new(id: Option<DirectoryId>) -> Self {
        Self { parent: None, name: Box::default(), children: None, id: id.into(), unreported: false, moved: false }
    }

    fn children(&self) -> &[Wd] {
        self.children.as_deref().map(Vec::as_slice).unwrap_or_default()
    }
}

/// The watched directories of one root.
#[derive(Debug)]
pub struct Table {
    nodes: HashMap<Wd, Node>,
    root: Wd,
    unwatched: usize,
    next_made_up: i32,
    /// Directories that came to their places or left the tree since [`Table::take_changes`].
    moved: Vec<Wd>,
    gone: Vec<DirectoryId>,
    /// The last path that was asked for, since events of one directory come together. Forgotten whenever a place changes.
    last_path: RefCell<Option<(Wd, RelPath)>>,
}

impl Table {
    pub fn new(root: Wd, id: Option<DirectoryId>) -> Self {
        let nodes = HashMap::from([(root, Node::new(id))]);
        Self {
            nodes,
            root,
            unwatched: 0,
            next_made_up: -2,
            moved: Vec::new(),
            gone: Vec::new(),
            last_path: RefCell::default(),
        }
    }

    pub fn root(&self) -> Wd {
        self.root
    }

    pub fn contains(&self, wd: Wd) -> bool {
        self.nodes.contains_key(&wd)
    }

    /// Directories that have a watch.
    pub fn watched(&self) -> usize {
        self.nodes.len() - self.unwatched
    }

    /// Directories that should have a watch and have none.
    pub fn unwatched(&self) -> usize {
        self.unwatched
    }

    /// The directories without a watch, the oldest first.
    pub fn unwatched_wds(&self) -> Vec<Wd> {
        let mut unwatched: Vec<Wd> = self.nodes.keys().copied().filter(|wd| !wd.is_watched()).collect();
        unwatched.sort_unstable_by(|a, b| b.cmp(a));
        unwatched
    }

    /// The directory's present path; `None` if the directory is not known or has been moved away.
    pub fn path(&self, wd: Wd) -> Option<RelPath> {
        let mut last = self.last_path.borrow_mut();
        if let Some((known, path)) = &*last
            && *known == wd
        {
            return Some(path.clone());
        }
        let path = self.put_together(wd)?;
        *last = Some((wd, path.clone()));
        Some(path)
    }

    fn put_together(&self, wd: Wd) -> Option<RelPath> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = wd;
        while at != self.root {
            let node = self.nodes.get(&at)?;
            names.push(&node.name);
            at = node.parent?;
            if names.len() > DEPTH_MAX {
                return None;
            }
        }
        names.reverse();
        RelPath::new(&names.join(&b'/')).ok()
    }

    /// The directory that holds `wd`, with the name it has there.
    pub fn place(&self, wd: Wd) -> Option<(Wd, &[u8])> {
        let node = self.nodes.get(&wd)?;
        Some((node.parent?, &node.name))
    }

    pub fn child(&self, parent: Wd, name: &[u8]) -> Option<Wd> {
        let children = self.nodes.get(&parent)?.children();
        children.get(self.position(children, name).ok()?).copied()
    }

    /// The directories known in `parent`, by name.
    pub fn children(&self, parent: Wd) -> Vec<(Wd, &[u8])> {
        let children = self.nodes.get(&parent).map(Node::children).unwrap_or_default();
        children.iter().map(|&wd| (wd, self.name(wd))).collect()
    }

    /// Whether `upper` is `lower` or lies above it.
    pub fn is_at_or_above(&self, upper: Wd, lower: Wd) -> bool {
        let mut at = Some(lower);
        for _ in 0..=DEPTH_MAX {
            match at {
                Some(wd) if wd == upper => return true,
                Some(wd) => at = self.nodes.get(&wd).and_then(|n| n.parent),
                None => return false,
            }
        }
        true
    }

    pub fn id(&self, wd: Wd) -> Option<DirectoryId> {
        self.nodes.get(&wd)?.id.get()
    }

    /// Adds a directory under a free name. Without a watch descriptor it gets a made-up one, which is returned.
    pub fn insert(&mut self, parent: Wd, name: &[u8], wd: Option<Wd>, id: Option<DirectoryId>) -> Wd {
        let wd = wd.unwrap_or_else(|| {
            self.next_made_up -= 1;
            self.unwatched += 1;
            Wd(self.next_made_up)
        });
        self.nodes.insert(wd, Node::new(id));
        self.attach(wd, parent, name);
        wd
    }

    /// Puts a detached directory, with all below it, under a free name of `parent`.
    pub fn attach(&mut self, wd: Wd, parent: Wd, name: &[u8]) {
        let Some(node) = self.nodes.get_mut(&wd) else { return };
        self.last_path.take();
        node.parent = Some(parent);
        node.name = name.into();
        if !std::mem::replace(&mut node.moved, true) {
            self.moved.push(wd);
        }
        let Some(holder) = self.nodes.get(&parent) else { return };
        if let Err(place) = self.position(holder.children(), name)
            && let Some(holder) = self.nodes.get_mut(&parent)
        {
            holder.children.get_or_insert_default().insert(place, wd);
        }
    }

    /// Takes a directory, with all below it, out of its parent. The directory stays known, but has no path.
    pub fn detach(&mut self, wd: Wd) {
        self.last_path.take();
        let Some(parent) = self.nodes.get_mut(&wd).and_then(|n| n.parent.take()) else { return };
        let Some(holder) = self.nodes.get(&parent) else { return };
        if let Ok(place) = self.position(holder.children(), self.name(wd))
            && let Some(children) = self.nodes.get_mut(&parent).and_then(|holder| holder.children.as_mut())
        {
            children.remove(place);
        }
    }

    pub fn is_detached(&self, wd: Wd) -> bool {
        wd != self.root && self.nodes.get(&wd).is_some_and(|n| n.parent.is_none())
    }

    /// Forgets a directory and all below it, and returns the descriptors whose watches are to be removed.
    pub fn remove(&mut self, wd: Wd) -> Vec<Wd> {
        self.last_path.take();
        self.detach(wd);
        let mut watched = Vec::new();
        let mut open = vec![wd];
        while let Some(wd) = open.pop() {
            let Some(node) = self.nodes.remove(&wd) else { continue };
            open.extend(node.children());
            self.gone.extend(node.id.get());
            if wd.is_watched() {
                watched.push(wd);
            } else {
                self.unwatched -= 1;
            }
        }
        watched
    }

    /// Gives a directory that is watched at last its descriptor: it keeps its place and what is below it.
    pub fn rekey(&mut self, old: Wd, new: Wd, id: Option<DirectoryId>) {
        let Some((parent, name)) = self.place(old).map(|(p, n)| (p, Box::<[u8]>::from(n))) else { return };
        self.detach(old);
        let Some(mut node) = self.nodes.remove(&old) else { return };
        node.id = id.into();
        node.moved = false;
        for &wd in node.children() {
            if let Some(child) = self.nodes.get_mut(&wd) {
                child.parent = Some(new);
                // The child's place can be told only now.
                if !std::mem::replace(&mut child.moved, true) {
                    self.moved.push(wd);
                }
            }
        }
        self.unwatched -= usize::from(!old.is_watched());
        self.nodes.insert(new, node);
        self.attach(new, parent, &name);
    }

    /// Takes the changes of places since the last call, so that whoever keeps the directories elsewhere can follow.
    /// Directories that left the tree come first, since they may be back. A directory without a watch is not in a place
    /// of which anything is known, so it counts as gone.
    pub fn take_changes(&mut self) -> Vec<DirectoryChange> {
        let mut changes: Vec<_> = std::mem::take(&mut self.gone).into_iter().map(DirectoryChange::Gone).collect();
        for wd in std::mem::take(&mut self.moved) {
            let Some(node) = self.nodes.get_mut(&wd) else { continue };
            node.moved = false;
            let Some(id) = node.id.get() else { continue };
            let parent = node.parent.filter(|_| wd.is_watched());
            let name = node.name.clone();
            changes.push(match parent.and_then(|parent| self.id(parent)) {
                Some(parent) => DirectoryChange::Put { id, parent, name },
                None => DirectoryChange::Gone(id),
            });
        }
        changes
    }

    pub fn set_unreported(&mut self, wd: Wd) {
        if let Some(node) = self.nodes.get_mut(&wd) {
            node.unreported = true;
        }
    }

    pub fn is_unreported(&self, wd: Wd) -> bool {
        self.nodes.get(&wd).is_some_and(|n| n.unreported)
    }

    /// Returns the unreported directories from `wd` upwards, the topmost first, and takes them for reported from now on.
    pub fn take_unreported(&mut self, wd: Wd) -> Vec<Wd> {
        let mut broken = Vec::new();
        let mut at = Some(wd);
        while let Some(node) = at.and_then(|wd| self.nodes.get_mut(&wd)) {
            if !std::mem::take(&mut node.unreported) {
                break;
            }
            broken.extend(at);
            at = node.parent;
        }
        broken.reverse();
        broken
    }

    fn name(&self, wd: Wd) -> &[u8] {
        self.nodes.get(&wd).map(|n| &*n.name).unwrap_or_default()
    }

    fn position(&self, children: &[Wd], name: &[u8]) -> Result<usize, usize> {
        children.binary_search_by(|&wd| self.name(wd).cmp(name))
    }

    #[cfg(test)]
    pub fn snapshot(&self) -> std::collections::BTreeMap<RelPath, Wd> {
        let snapshot: std::collections::BTreeMap<_, _> =
            self.nodes.keys().filter_map(|&wd| Some((self.path(wd)?, wd))).collect();
        assert_eq!(snapshot.len(), self.nodes.len(), "each known directory has a path of its own");
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Wd = Wd(1);

    /// The directory that the tests watch under the descriptor of that number.
    fn id(number: i32) -> Option<DirectoryId> {
        Some(DirectoryId { inode: u64::from(number.unsigned_abs()), born_ns: None })
    }

    /// `a` (2), `a/b` (3), `a/b/c` (4), `z` (5).
    fn table() -> Table {
        let mut table = Table::new(ROOT, id(1));
        table.insert(ROOT, b"z", Some(Wd(5)), id(5));
        table.insert(ROOT, b"a", Some(Wd(2)), id(2));
        table.insert(Wd(2), b"b", Some(Wd(3)), id(3));
        table.insert(Wd(3), b"c", Some(Wd(4)), id(4));
        table
    }

    fn path(table: &Table, wd: Wd) -> Option<String> {
        table.path(wd).map(|p| p.to_string())
    }

    #[test]
    fn a_renamed_directory_takes_all_below_it_along() {
        let mut table = table();
        assert_eq!(path(&table, Wd(4)).as_deref(), Some("a/b/c"));
        table.detach(Wd(3));
        assert!(table.is_detached(Wd(3)) && !table.is_detached(Wd(4)));
        assert_eq!(path(&table, Wd(4)), None, "moved away: no path until it turns up");
        table.attach(Wd(3), Wd(5), b"new");
        assert_eq!(path(&table, Wd(4)).as_deref(), Some("z/new/c"));
        assert_eq!((table.child(Wd(2), b"b"), table.child(Wd(5), b"new")), (None, Some(Wd(3))));
    }

    #[test]
    fn removing_forgets_all_below_and_names_the_watches() {
        let mut table = table();
        let unwatched = table.insert(Wd(3), b"locked", None, None);
        assert_eq!((table.watched(), table.unwatched()), (5, 1));
        let mut removed = table.remove(Wd(2));
        removed.sort();
        assert_eq!(removed, [Wd(2), Wd(3), Wd(4)]);
        assert_eq!((table.watched(), table.unwatched()), (2, 0));
        assert!(!table.contains(unwatched) && table.child(ROOT, b"a").is_none());
        assert!(table.remove(Wd(99)).is_empty());
    }

    #[test]
    fn a_directory_watched_at_last_keeps_its_children() {
        let mut table = table();
        let made_up = table.insert(ROOT, b"m", None, None);
        table.insert(made_up, b"n", Some(Wd(7)), id(7));
        table.rekey(made_up, Wd(8), id(8));
        assert_eq!(path(&table, Wd(7)).as_deref(), Some("m/n"));
        assert_eq!((table.child(ROOT, b"m"), table.unwatched()), (Some(Wd(8)), 0));
    }

    #[test]
    fn children_are_found_by_name_in_any_order_of_arrival() {
        let mut table = Table::new(ROOT, id(1));
        for i in 0..100 {
            table.insert(ROOT, format!("{}", i * 37 % 100).as_bytes(), Some(Wd(i + 2)), id(i + 2));
        }
        for i in 0..100 {
            assert_eq!(table.child(ROOT, format!("{}", i * 37 % 100).as_bytes()), Some(Wd(i + 2)));
        }
        assert_eq!(table.child(ROOT, b"100"), None);
    }

    #[test]
    fn above_and_below() {
        let table = table();
        assert!(table.is_at_or_above(Wd(2), Wd(4)) && table.is_at_or_above(Wd(4), Wd(4)));
        assert!(!table.is_at_or_above(Wd(4), Wd(2)) && !table.is_at_or_above(Wd(5), Wd(4)));
    }

    #[test]
    fn silence_is_broken_once_from_the_top() {
        let mut table = table();
        for wd in [2, 3] {
            table.set_unreported(Wd(wd));
        }
        assert_eq!(table.take_unreported(Wd(3)), [Wd(2), Wd(3)]);
        assert!(table.take_unreported(Wd(3)).is_empty());
    }
}
