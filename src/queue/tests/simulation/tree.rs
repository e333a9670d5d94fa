//! A tree in memory, the source's or the target's: directories, files and links, and who may look where.

use super::*;

/// A file's stamp is its size and time. A directory's number is its inode; on the target it means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir(u32),
    File {
        content: u32,
        stamp: u32,
    },
    /// A link to a directory that is not the mirror's.
    Link(u32),
}

/// The root's number. That of a directory on the target means nothing.
pub(super) const ROOT: u32 = 0;

#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<RelPath, Node>,
    /// Directories into which only root may look.
    pub(super) closed: BTreeSet<u32>,
}

impl Tree {
    pub(super) fn is_dir(&self, path: &RelPath) -> bool {
        path.is_root() || matches!(self.nodes.get(path), Some(Node::Dir(_)))
    }

    pub(super) fn inode(&self, dir: &RelPath) -> Option<u32> {
        match self.nodes.get(dir) {
            _ if dir.is_root() => Some(ROOT),
            Some(Node::Dir(inode)) => Some(*inode),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, path: &RelPath) {
        self.nodes.retain(|other, _| !path.covers(other));
    }

    /// Whether what is written at `path` would go through a link.
    pub(super) fn leads_astray(&self, path: &RelPath) -> bool {
        path.ancestors().any(|above| matches!(self.nodes.get(&above), Some(Node::Link(_))))
    }

    pub(super) fn children(&self, dir: &RelPath) -> Vec<(RelPath, Node)> {
        let is_child = |(path, _): &(&RelPath, &Node)| path.parent().as_ref() == Some(dir);
        self.nodes.iter().filter(is_child).map(|(path, node)| (path.clone(), *node)).collect()
    }

    /// The tree on the simulated kernel's disk.
    pub(super) fn of(disk: &Disk) -> Self {
        let mut tree = Self::default();
        for (path, inode, found) in disk.tree() {
            let inode = u32::try_from(inode).unwrap();
            let node = match found.node {
                disk::Node::Directory(_) => Node::Dir(inode),
                disk::Node::File { content, stamp } => Node::File { content, stamp },
                disk::Node::Link(to) => Node::Link(to),
            };
            tree.nodes.insert(path, node);
            tree.closed.extend(Some(inode).filter(|_| found.is_closed));
        }
        tree
    }

    /// The tree as others than root see it.
    pub(super) fn seen(&self) -> Self {
        let mut seen = self.clone();
        seen.nodes.retain(|path, _| path.ancestors().all(|above| !self.is_closed(&above)));
        seen
    }

    pub(super) fn is_closed(&self, dir: &RelPath) -> bool {
        self.inode(dir).is_some_and(|inode| self.closed.contains(&inode))
    }

    pub(super) fn presence(&self, path: &RelPath) -> Presence {
        match self.nodes.get(path) {
            _ if path.is_root() => Presence::Directory,
            None if path.ancestors().any(|above| self.is_closed(&above)) => Presence::Unknown(Errno::ACCESS),
            Some(Node::Dir(_)) => Presence::Directory,
            Some(Node::File { stamp, .. }) => Presence::File { size: if stamp % 3 == 0 { 9 << 20 } else { 2 << 20 } },
            Some(Node::Link(_)) => Presence::Other,
            None => Presence::Missing,
        }
    }

    /// Keeps a part of the file at `path`, since a receiver was cut off in it.
    pub(super) fn keep_partial(&mut self, path: &RelPath, node: Node) {
        let Some(dir) = path.parent().filter(|dir| self.is_dir(dir) && !self.leads_astray(path)) else { return };
        self.nodes.insert(dir.join(PARTIAL_DIR.as_bytes()), Node::Dir(ROOT));
        self.nodes.insert(partial_of(path), node);
    }

    /// Removes the part of the file at `path`, since a receiver has all of the file.
    pub(super) fn use_up_partial(&mut self, path: &RelPath) {
        if self.nodes.remove(&partial_of(path)).is_some()
            && let Some(dir) = partial_of(path).parent().filter(|dir| self.children(dir).is_empty())
        {
            self.nodes.remove(&dir);
        }
    }

    /// The tree as a comparison sees it.
    pub(super) fn shown(&self) -> BTreeMap<String, Option<(u32, u32)>> {
        let seen = |node: &Node| match node {
            Node::Dir(_) => None,
            Node::File { content, stamp } => Some((*content, *stamp)),
            Node::Link(content) => Some((*content, u32::MAX)),
        };
        self.nodes.iter().map(|(path, node)| (path.to_string(), seen(node))).collect()
    }
}

pub(super) fn rebased(path: &RelPath, from: &RelPath, to: &RelPath) -> RelPath {
    let rest = &path.as_bytes()[from.as_bytes().len()..];
    RelPath::new(&[to.as_bytes(), rest].concat()).unwrap()
}
