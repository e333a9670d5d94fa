//! An rsync in miniature: it lists before it sends, sends step by step, and what it has sent arrives later.

use super::*;

/// One thing that a receiver is told to do.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// Make the directory, and if a listing is given, delete what the listing does not name.
    Dir(RelPath, Option<BTreeSet<RelPath>>),
    File(RelPath, u32),
    Link(RelPath, u32),
    Gone(RelPath),
}

#[derive(Debug)]
pub(super) struct Rsync {
    pub(super) run: Run,
    pub(super) is_listed: bool,
    pub(super) to_list: VecDeque<RelPath>,
    pub(super) items: VecDeque<(Item, usize)>,
    /// What is sent and has not arrived, with the place of its entry in the list.
    pub(super) underway: VecDeque<(Received, usize)>,
    pub(super) bad: BTreeMap<usize, Verdict>,
    /// The new and the old name, where content is taken over.
    pub(super) linked: Option<(RelPath, RelPath)>,
    /// The run wrote through a link.
    pub(super) astray: bool,
    /// The run could not read something, and from then on deletes only what it was told by name.
    pub(super) keeps: bool,
    /// The run keeps the part that it has of a file when it is cut off, and begins with such a part.
    pub(super) resumes: bool,
}

impl Rsync {
    pub(super) fn new(run: Run) -> Self {
        let (items, to_list, underway) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (bad, linked, is_listed) = (BTreeMap::new(), None, false);
        let (astray, keeps, resumes) = (false, false, false);
        Self { run, is_listed, to_list, items, underway, bad, linked, astray, keeps, resumes }
    }

    /// Does one step. Returns whether it was the last.
    pub(super) fn step(&mut self, source: &Tree, mirror: &mut Tree) -> bool {
        if !self.is_listed {
            self.is_listed = true;
            self.list(source);
        } else if let Some((item, entry)) = self.items.pop_front() {
            self.send(item, entry, source, mirror);
        } else if let Some(dir) = self.to_list.pop_front() {
            let entry = self.run.entries.iter().position(|entry| entry.path.covers(&dir)).unwrap();
            match source.presence(&dir) {
                Presence::Unknown(_) => self.denied(entry),
                Presence::Directory => self.list_dir(&dir, source.children(&dir), entry, source),
                _ => self.list_dir(&dir, Vec::new(), entry, source),
            }
        } else {
            self.arrive(mirror);
        }
        self.is_listed && self.items.is_empty() && self.to_list.is_empty() && self.underway.is_empty()
    }

    /// Lets one thing arrive.
    pub(super) fn arrive(&mut self, mirror: &mut Tree) {
        let Some((received, entry)) = self.underway.pop_front() else { return };
        // A run that begins in the new directory enters whatever has its name.
        let begins_in = self.linked.as_ref().filter(|_| self.run.kind == RunKind::Tree).map(|(new, _)| new);
        if self.resumes
            && let Received::Node(path, Node::File { .. }) = &received
        {
            mirror.use_up_partial(path);
        }
        match receive(received, begins_in, mirror) {
            Landed::Done => {}
            Landed::Astray => self.astray = true,
            Landed::Failed => drop(self.bad.insert(entry, Verdict::Failed(JobError::new(Some(23), "no")))),
        }
    }

    /// Leaves the part of the file that is on its way when the run is cut off.
    pub(super) fn keep_partial(&mut self, mirror: &mut Tree) {
        let is_file = |(received, _): &mut (Received, usize)| matches!(received, Received::Node(_, Node::File { .. }));
        if self.resumes
            && let Some((Received::Node(path, node), _)) = self.underway.pop_front_if(is_file)
        {
            mirror.keep_partial(&path, node);
        }
    }

    pub(super) fn denied(&mut self, entry: usize) {
        self.bad.insert(entry, Verdict::Failed(JobError::new(Some(23), "may not be read")));
        self.keeps = true;
    }

    pub(super) fn list(&mut self, source: &Tree) {
        for (at, entry) in self.run.entries.clone().into_iter().enumerate() {
            if matches!(source.presence(&entry.path), Presence::Unknown(_)) {
                self.denied(at);
                continue;
            }
            // A missing entry is deleted through the directory that held it.
            if self.run.kind == RunKind::Removal && !self.run.with_contents.iter().any(|dir| is_in(source, dir, &entry))
            {
                continue;
            }
            let mut above: Vec<RelPath> = entry.path.ancestors().filter(|above| !above.is_root()).collect();
            above.reverse();
            let is_there = above.iter().all(|above| source.is_dir(above));
            let begins_here = self.linked.is_some() && self.run.kind == RunKind::Tree;
            if is_there && !begins_here {
                self.items.extend(above.into_iter().map(|above| (Item::Dir(above, None), at)));
            }
            match source.nodes.get(&entry.path) {
                _ if !is_there => {
                    self.items.push_back((Item::Gone(entry.path.clone()), at));
                    if !entry.orphan {
                        self.bad.insert(at, Verdict::LookAgain(Scope::Entry));
                    }
                }
                None if !entry.path.is_root() => self.items.push_back((Item::Gone(entry.path.clone()), at)),
                Some(Node::File { stamp, .. }) => self.items.push_back((Item::File(entry.path.clone(), *stamp), at)),
                Some(Node::Link(to)) => self.items.push_back((Item::Link(entry.path.clone(), *to), at)),
                _ => match self.run.kind {
                    RunKind::Tree => self.to_list.push_back(entry.path.clone()),
                    RunKind::Level => self.list_dir(&entry.path, source.children(&entry.path), at, source),
                    RunKind::Flat | RunKind::Removal => {
                        self.items.push_back((Item::Dir(entry.path.clone(), None), at));
                    }
                    RunKind::RootOnly => {}
                },
            }
        }
    }

    pub(super) fn list_dir(&mut self, dir: &RelPath, children: Vec<(RelPath, Node)>, entry: usize, source: &Tree) {
        if source.is_closed(dir) {
            self.items.push_back((Item::Dir(dir.clone(), None), entry));
            return self.denied(entry);
        }
        let deep = self.run.kind == RunKind::Tree;
        let listed = children.iter().map(|(path, _)| path.clone()).collect();
        self.items.push_back((Item::Dir(dir.clone(), Some(listed)), entry));
        for (path, node) in children {
            match node {
                Node::Dir(_) if deep => self.to_list.push_back(path.clone()),
                _ => {}
            }
            let item = match node {
                Node::Dir(_) => Item::Dir(path, None),
                Node::File { stamp, .. } => Item::File(path, stamp),
                Node::Link(to) => Item::Link(path, to),
            };
            self.items.push_back((item, entry));
        }
    }

    /// Whether the receiver, by what it has, wants to be sent `item`.
    pub(super) fn asks_for(&self, item: &Item, mirror: &Tree) -> bool {
        let distrusts = self.run.origin >= Origin::Write && self.linked.is_none();
        match item {
            Item::File(path, stamp) if !distrusts => {
                !matches!(mirror.nodes.get(path), Some(Node::File { stamp: has, .. }) if has == stamp)
            }
            _ => true,
        }
    }

    pub(super) fn send(&mut self, item: Item, entry: usize, source: &Tree, mirror: &Tree) {
        if !self.asks_for(&item, mirror) {
            return;
        }
        let item = match item {
            Item::Dir(path, Some(_)) if self.keeps => Item::Dir(path, None),
            Item::File(path, _) if matches!(source.presence(&path), Presence::Unknown(_)) => return self.denied(entry),
            item => item,
        };
        let sent = match (&item, &self.linked) {
            (Item::File(path, stamp), Some((new, old))) if self.run.kind == RunKind::Tree => match mirror
                .nodes
                .get(&rebased(path, new, old))
            {
                Some(basis @ Node::File { stamp: has, .. }) if has == stamp => Ok(Received::Node(path.clone(), *basis)),
                _ => underway(&item, source),
            },
            _ => underway(&item, source),
        };
        match sent {
            Ok(received) => self.underway.push_back((received, entry)),
            Err(path) if self.run.entries.get(entry).is_some_and(|entry| entry.path == path) => {
                self.bad.insert(entry, Verdict::LookAgain(Scope::Entry));
            }
            // The entry vanished below a listed directory: the change that says so is to come.
            Err(_) => {}
        }
    }
}

/// Whether the directory is there, and the entry in it, if it is anywhere.
pub(super) fn is_in(source: &Tree, dir: &RelPath, entry: &Entry) -> bool {
    dir.is_ancestor_of(&entry.path) && source.is_dir(dir)
}

/// What goes over the wire.
#[derive(Debug)]
pub(super) enum Received {
    Node(RelPath, Node),
    Only(RelPath, BTreeSet<RelPath>),
    Gone(RelPath),
}

/// What a sender sends now for `item`. `Err`: the path has vanished.
pub(super) fn underway(item: &Item, source: &Tree) -> Result<Received, RelPath> {
    Ok(match item {
        Item::Dir(path, None) => Received::Node(path.clone(), Node::Dir(ROOT)),
        Item::Dir(path, Some(listed)) => Received::Only(path.clone(), listed.clone()),
        Item::Gone(path) => Received::Gone(path.clone()),
        // rsync reads a link when it lists it.
        Item::Link(path, to) => Received::Node(path.clone(), Node::Link(*to)),
        Item::File(path, stamp) => match source.nodes.get(path) {
            Some(Node::File { content, .. }) => {
                Received::Node(path.clone(), Node::File { content: *content, stamp: *stamp })
            }
            _ => return Err(path.clone()),
        },
    })
}

/// What came of a thing that a receiver was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landed {
    Done,
    Failed,
    /// It went behind a link, while rsync takes all for well.
    Astray,
}

pub(super) fn receive(received: Received, begins_in: Option<&RelPath>, mirror: &mut Tree) -> Landed {
    let (path, only) = match &received {
        Received::Gone(path) if mirror.leads_astray(path) => return Landed::Done,
        Received::Gone(path) => {
            mirror.remove(path);
            return Landed::Done;
        }
        Received::Node(path, _) => (path, None),
        Received::Only(path, listed) => (path, Some(listed)),
    };
    if mirror.leads_astray(path) || (begins_in == Some(path) && matches!(mirror.nodes.get(path), Some(Node::Link(_)))) {
        return Landed::Astray;
    }
    if !path.is_root() {
        if path.parent().is_some_and(|parent| !mirror.is_dir(&parent)) {
            return Landed::Failed;
        }
        let node = if let Received::Node(_, node) = &received { *node } else { Node::Dir(ROOT) };
        let stays_dir = matches!(node, Node::Dir(_)) && mirror.is_dir(path);
        if !stays_dir {
            mirror.remove(path);
            mirror.nodes.insert(path.clone(), node);
        }
    }
    for (child, _) in mirror.children(path) {
        if only.is_some_and(|listed| !listed.contains(&child)) {
            mirror.remove(&child);
        }
    }
    Landed::Done
}
