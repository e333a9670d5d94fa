//! A mirror in miniature: a tree that changes, a watcher that reports it late, the queue, the executor's plans, and rsyncs
//! that list and send step by step beside each other. Whatever the order, the target equals the source once the queue is
//! empty.
//!
//! The queue, `mirror`'s plan and `watch`'s gathering are the real ones. The watcher is the tracker's rules in short; an
//! rsync is what matters of it: it lists before it sends, reads what is there when it sends, takes files of equal size and
//! time for equal unless told otherwise, and deletes what it did not list, or what it was told by name. What lies in a
//! directory that is closed neither can look at. What a cut off one has underway may still
//! arrive seconds later, and minutes later if something between the two holds it.

use std::collections::VecDeque;

use proptest::prelude::*;
use rustix::io::Errno;

use super::*;
use crate::mirror::parts::{Deletion, Entry, Run, RunKind, plan};
use crate::mirror::{Limits, Presence};
use crate::model::{PARTIAL_DIR, partial_of};
use crate::watch::parts::{Gather, Presence as Reported};

/// A file's stamp is its size and time. A directory's number is its inode; on the target it means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir(u32),
    File {
        content: u32,
        stamp: u32,
    },
    /// To a directory that is not the mirror's.
    Link(u32),
}

const ROOT: u32 = 0;

#[derive(Debug, Clone, Default)]
struct Tree {
    nodes: BTreeMap<RelPath, Node>,
    /// Directories into which only root may look.
    closed: BTreeSet<u32>,
}

impl Tree {
    fn is_dir(&self, path: &RelPath) -> bool {
        path.is_root() || matches!(self.nodes.get(path), Some(Node::Dir(_)))
    }

    fn inode(&self, dir: &RelPath) -> Option<u32> {
        match self.nodes.get(dir) {
            _ if dir.is_root() => Some(ROOT),
            Some(Node::Dir(inode)) => Some(*inode),
            _ => None,
        }
    }

    fn remove(&mut self, path: &RelPath) {
        self.nodes.retain(|other, _| !path.covers(other));
    }

    /// Whether what is written at `path` would go through a link.
    fn leads_astray(&self, path: &RelPath) -> bool {
        path.ancestors().any(|above| matches!(self.nodes.get(&above), Some(Node::Link(_))))
    }

    fn children(&self, dir: &RelPath) -> Vec<(RelPath, Node)> {
        let is_child = |(path, _): &(&RelPath, &Node)| path.parent().as_ref() == Some(dir);
        self.nodes.iter().filter(is_child).map(|(path, node)| (path.clone(), *node)).collect()
    }

    fn rename(&mut self, from: &RelPath, to: &RelPath) {
        self.remove(to);
        let moved: Vec<RelPath> = self.nodes.keys().filter(|path| from.covers(path)).cloned().collect();
        for old in moved {
            if let Some(node) = self.nodes.remove(&old) {
                self.nodes.insert(rebased(&old, from, to), node);
            }
        }
    }

    /// What others than root see of it.
    fn seen(&self) -> Self {
        let mut seen = self.clone();
        seen.nodes.retain(|path, _| path.ancestors().all(|above| !self.is_closed(&above)));
        seen
    }

    fn is_closed(&self, dir: &RelPath) -> bool {
        self.inode(dir).is_some_and(|inode| self.closed.contains(&inode))
    }

    fn presence(&self, path: &RelPath) -> Presence {
        match self.nodes.get(path) {
            _ if path.is_root() => Presence::Directory,
            None if path.ancestors().any(|above| self.is_closed(&above)) => Presence::Unknown(Errno::ACCESS),
            Some(Node::Dir(_)) => Presence::Directory,
            Some(Node::File { stamp, .. }) => Presence::File { size: if stamp % 3 == 0 { 9 << 20 } else { 2 << 20 } },
            Some(Node::Link(_)) => Presence::Other,
            None => Presence::Missing,
        }
    }

    /// A receiver was cut off in the file at `path`.
    fn keep_partial(&mut self, path: &RelPath, node: Node) {
        let Some(dir) = path.parent().filter(|dir| self.is_dir(dir) && !self.leads_astray(path)) else { return };
        self.nodes.insert(dir.join(PARTIAL_DIR.as_bytes()), Node::Dir(ROOT));
        self.nodes.insert(partial_of(path), node);
    }

    /// A receiver has all of the file at `path`.
    fn use_up_partial(&mut self, path: &RelPath) {
        if self.nodes.remove(&partial_of(path)).is_some()
            && let Some(dir) = partial_of(path).parent().filter(|dir| self.children(dir).is_empty())
        {
            self.nodes.remove(&dir);
        }
    }

    /// What a comparison sees.
    fn shown(&self) -> BTreeMap<String, Option<(u32, u32)>> {
        let seen = |node: &Node| match node {
            Node::Dir(_) => None,
            Node::File { content, stamp } => Some((*content, *stamp)),
            Node::Link(content) => Some((*content, u32::MAX)),
        };
        self.nodes.iter().map(|(path, node)| (path.to_string(), seen(node))).collect()
    }
}

fn rebased(path: &RelPath, from: &RelPath, to: &RelPath) -> RelPath {
    let rest = &path.as_bytes()[from.as_bytes().len()..];
    RelPath::new(&[to.as_bytes(), rest].concat()).unwrap()
}

/// What the kernel queues, by the inode of the watched directory.
#[derive(Debug, Clone)]
enum Event {
    Written(u32, Vec<u8>),
    FileGone(u32, Vec<u8>),
    DirGone(u32, Vec<u8>),
    Made(u32, Vec<u8>),
    MovedFrom(u32, Vec<u8>, u32),
    MovedTo(u32, Vec<u8>, u32),
}

struct Limbo {
    cookie: u32,
    inode: u32,
    old: RelPath,
    /// It and what is watched below, under their old names.
    watched: Vec<(u32, RelPath)>,
    until: Timestamp,
    disturbed: bool,
}

/// The tracker in short.
#[derive(Default)]
struct Watcher {
    /// Where each watched directory is, as far as events say.
    table: BTreeMap<u32, RelPath>,
    limbo: Vec<Limbo>,
    /// Those in which something could not be looked at, or watched.
    closed: BTreeSet<u32>,
    gather: Gather,
}

impl Watcher {
    fn at(&self, path: &RelPath) -> Option<u32> {
        self.table.iter().find(|(_, at)| *at == path).map(|(inode, _)| *inode)
    }

    fn forget_below(&mut self, path: &RelPath) {
        self.table.retain(|_, at| !path.covers(at));
    }

    fn touch(&mut self, dir: &RelPath) {
        let times = Change { settle: Settle::Within(TIMES), ..Change::scan(dir.clone(), Scope::Entry) };
        self.gather.add(times, Reported::There);
    }

    fn whole(&mut self, path: &RelPath, moved_from: Option<RelPath>) {
        let tree = Change { fresh: true, origin: Origin::Replaced, ..Change::scan(path.clone(), Scope::Subtree) };
        self.gather.add(Change { moved_from, ..tree }, Reported::There);
    }

    /// Remembers that nobody may look at `path`, or what is in it.
    fn note_if_closed(&mut self, source: &Tree, path: &RelPath) {
        let is_closed = matches!(source.presence(path), Presence::Unknown(_)) || source.is_closed(path);
        self.closed.extend(path.parent().filter(|_| is_closed).and_then(|dir| self.at(&dir)));
    }

    /// Reports all of what was closed and is open by now.
    fn look_if_open(&mut self, source: &Tree) {
        for dir in self.closed.clone() {
            let Some(path) = self.table.get(&dir).cloned() else { continue };
            if source.inode(&path) != Some(dir) || source.is_closed(&path) {
                continue;
            }
            self.closed.remove(&dir);
            self.gather.add(Change::scan(path.clone(), Scope::Subtree), Reported::There);
            self.look_over(source, &path);
        }
    }

    /// Watches a directory found under a name and what is in it. New ones are told of one by one, or as a whole.
    fn meet(&mut self, source: &Tree, path: &RelPath, one_by_one: bool) {
        self.note_if_closed(source, path);
        let Some(inode) = source.inode(path) else { return };
        if source.is_closed(path) && !self.table.contains_key(&inode) {
            return if one_by_one { self.announce(path) } else { self.whole(path, None) };
        }
        match self.table.get(&inode).cloned() {
            Some(known) if known == *path => {
                if one_by_one {
                    self.announce(path);
                }
            }
            Some(elsewhere) => {
                if elsewhere.covers(path) {
                    return;
                }
                self.forget_below(path);
                self.move_names(&elsewhere, path);
                self.whole(path, None);
            }
            None if self.limbo.iter().any(|left| left.inode == inode) => {
                self.limbo.retain(|left| left.inode != inode);
                self.forget_below(path);
                self.table.insert(inode, path.clone());
                self.whole(path, None);
            }
            None => {
                self.forget_below(path);
                self.table.insert(inode, path.clone());
                if one_by_one { self.announce(path) } else { self.whole(path, None) }
            }
        }
        self.closed.extend(Some(inode).filter(|_| source.is_closed(path)));
        for (below, node) in source.children(path) {
            if matches!(node, Node::Dir(_)) && self.at(&below) != source.inode(&below) {
                self.meet(source, &below, one_by_one);
            }
        }
    }

    fn announce(&mut self, path: &RelPath) {
        self.gather.appeared(path);
        let fresh = Change { scope: Scope::Children, fresh: true, ..Change::write(path.clone()) };
        self.gather.add(fresh, Reported::There);
    }

    fn move_names(&mut self, from: &RelPath, to: &RelPath) {
        for at in self.table.values_mut().filter(|at| from.covers(at)) {
            *at = rebased(at, from, to);
        }
    }

    fn read(&mut self, event: Event, source: &Tree, now: Timestamp) {
        let (Event::Written(dir, _)
        | Event::FileGone(dir, _)
        | Event::DirGone(dir, _)
        | Event::Made(dir, _)
        | Event::MovedFrom(dir, ..)
        | Event::MovedTo(dir, ..)) = &event;
        let Some(dir) = self.table.get(dir).cloned() else {
            self.limbo.iter_mut().for_each(|left| left.disturbed = true);
            return;
        };
        match event {
            Event::Written(_, name) => {
                self.touch(&dir);
                self.gather.add(Change::write(dir.join(&name)), Reported::There);
            }
            Event::FileGone(_, name) => {
                self.touch(&dir);
                self.gather.add(Change::scan(dir.join(&name), Scope::Entry), Reported::Gone);
            }
            Event::DirGone(_, name) => {
                self.touch(&dir);
                self.forget_below(&dir.join(&name));
                self.gather.add(Change::scan(dir.join(&name), Scope::Entry), Reported::GoneDirectory);
            }
            Event::Made(_, name) => {
                self.touch(&dir);
                self.meet(source, &dir.join(&name), true);
            }
            Event::MovedFrom(_, name, cookie) => {
                self.touch(&dir);
                let old = dir.join(&name);
                self.note_if_closed(source, &old);
                if let Some(inode) = self.at(&old) {
                    let below = self.table.iter().filter(|(_, at)| old.covers(at));
                    let watched = below.map(|(inode, at)| (*inode, at.clone())).collect();
                    self.forget_below(&old);
                    let until = now.after(Duration::from_millis(20));
                    self.limbo.push(Limbo { cookie, inode, old: old.clone(), watched, until, disturbed: false });
                }
                self.gather.add(Change::scan(old, Scope::Entry), Reported::GoneDirectory);
            }
            Event::MovedTo(_, name, cookie) => {
                self.touch(&dir);
                let new = dir.join(&name);
                self.gather.appeared(&new);
                let left = self.limbo.iter().position(|left| left.cookie == cookie).map(|at| self.limbo.remove(at));
                let known = left.as_ref().filter(|left| !left.disturbed).map(|left| left.old.clone());
                let is_it = left.as_ref().is_some_and(|left| source.inode(&new) == Some(left.inode));
                if let Some(left) = left.filter(|_| is_it || !source.is_dir(&new)) {
                    // If it has moved on already, it is kept until the event that says so.
                    self.forget_below(&new);
                    self.table
                        .extend(left.watched.into_iter().map(|(inode, at)| (inode, rebased(&at, &left.old, &new))));
                }
                if is_it {
                    self.whole(&new, known);
                    self.look_over(source, &new);
                } else if source.is_dir(&new) && source.inode(&new) == self.at(&new) {
                    self.whole(&new, None);
                } else {
                    self.meet(source, &new, false);
                }
            }
        }
    }

    /// Reports what is new in a moved directory as a whole.
    fn look_over(&mut self, source: &Tree, path: &RelPath) {
        self.closed.extend(self.at(path).filter(|_| source.is_closed(path)));
        for (below, node) in source.children(path) {
            if let Node::Dir(inode) = node {
                if self.table.get(&inode) == Some(&below) {
                    self.look_over(source, &below);
                } else {
                    self.meet(source, &below, false);
                }
            }
        }
    }

    fn expire(&mut self, now: Timestamp) {
        self.limbo.retain(|left| left.until > now);
    }

    fn watches(&self, inode: u32) -> bool {
        self.table.contains_key(&inode) || self.limbo.iter().any(|left| left.watched.iter().any(|(it, _)| *it == inode))
    }
}

/// One thing that a receiver is told to do.
#[derive(Debug, Clone)]
enum Item {
    /// Make it, and if a listing is given, delete what that does not name.
    Dir(RelPath, Option<BTreeSet<RelPath>>),
    File(RelPath, u32),
    Link(RelPath, u32),
    Gone(RelPath),
}

#[derive(Debug)]
struct Rsync {
    run: Run,
    is_listed: bool,
    to_list: VecDeque<RelPath>,
    items: VecDeque<(Item, usize)>,
    /// What is sent and has not arrived, with the place of its entry in the list.
    underway: VecDeque<(Received, usize)>,
    bad: BTreeMap<usize, Verdict>,
    /// The new and the old name, where content is taken over.
    linked: Option<(RelPath, RelPath)>,
    /// It wrote through a link.
    astray: bool,
    /// It could not read something, and deletes nothing any more that it was not told by name.
    keeps: bool,
    /// It keeps what it has of a file when it is cut off, and begins with that.
    resumes: bool,
}

impl Rsync {
    fn new(run: Run) -> Self {
        let (items, to_list, underway) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (bad, linked, is_listed) = (BTreeMap::new(), None, false);
        let (astray, keeps, resumes) = (false, false, false);
        Self { run, is_listed, to_list, items, underway, bad, linked, astray, keeps, resumes }
    }

    /// Does one thing; whether that was the last.
    fn step(&mut self, source: &Tree, mirror: &mut Tree) -> bool {
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
    fn arrive(&mut self, mirror: &mut Tree) {
        let Some((received, entry)) = self.underway.pop_front() else { return };
        // One that begins in the new directory enters whatever has its name.
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

    /// What it leaves of the file that is on its way when it is cut off.
    fn keep_partial(&mut self, mirror: &mut Tree) {
        let is_file = |(received, _): &mut (Received, usize)| matches!(received, Received::Node(_, Node::File { .. }));
        if self.resumes
            && let Some((Received::Node(path, node), _)) = self.underway.pop_front_if(is_file)
        {
            mirror.keep_partial(&path, node);
        }
    }

    fn denied(&mut self, entry: usize) {
        self.bad.insert(entry, Verdict::Failed(JobError::new(Some(23), "may not be read")));
        self.keeps = true;
    }

    fn list(&mut self, source: &Tree) {
        for (at, entry) in self.run.entries.clone().into_iter().enumerate() {
            if matches!(source.presence(&entry.path), Presence::Unknown(_)) {
                self.denied(at);
                continue;
            }
            // What is missing is deleted by the directory that was there.
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

    fn list_dir(&mut self, dir: &RelPath, children: Vec<(RelPath, Node)>, entry: usize, source: &Tree) {
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

    /// Whether the receiver, by what it has, wants to be sent anything.
    fn asks_for(&self, item: &Item, mirror: &Tree) -> bool {
        let distrusts = self.run.origin >= Origin::Write && self.linked.is_none();
        match item {
            Item::File(path, stamp) if !distrusts => {
                !matches!(mirror.nodes.get(path), Some(Node::File { stamp: has, .. }) if has == stamp)
            }
            _ => true,
        }
    }

    fn send(&mut self, item: Item, entry: usize, source: &Tree, mirror: &Tree) {
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
            // Below a listed directory, where the change that says so is to come.
            Err(_) => {}
        }
    }
}

/// Whether the directory is there, and the entry in it, if it is anywhere.
fn is_in(source: &Tree, dir: &RelPath, entry: &Entry) -> bool {
    dir.is_ancestor_of(&entry.path) && source.is_dir(dir)
}

/// What goes over the wire.
#[derive(Debug)]
enum Received {
    Node(RelPath, Node),
    Only(RelPath, BTreeSet<RelPath>),
    Gone(RelPath),
}

/// What a sender sends now. `Err`: it has vanished.
fn underway(item: &Item, source: &Tree) -> Result<Received, RelPath> {
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

/// Where something came to that a receiver was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Landed {
    Done,
    Failed,
    /// Behind a link, as far as rsync knows well.
    Astray,
}

fn receive(received: Received, begins_in: Option<&RelPath>, mirror: &mut Tree) -> Landed {
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

/// A batch under way, as `mirror::execute` drives it.
struct Batch {
    jobs: Vec<ClaimedJob>,
    lane: Lane,
    deletion: Deletion,
    verdicts: Vec<Option<Verdict>>,
    links: VecDeque<(usize, usize)>,
    /// Whether the directories that these begin in are known to be directories.
    is_sure: bool,
    /// The first place that it wrote to through a link.
    astray: bool,
    /// What may make a link of a directory at any moment ran beside it: a subtree, or what a cut off one has left.
    is_excused: bool,
    /// The runs to come, once they are planned.
    runs: Option<VecDeque<Rsync>>,
    current: Option<Rsync>,
}

impl Batch {
    fn new(jobs: Vec<ClaimedJob>, lane: Lane, deletion: Deletion) -> Self {
        let place = |path: &RelPath| jobs.iter().position(|job| job.path == *path);
        let old = |job: &ClaimedJob| job.moved_from.as_ref().and_then(place);
        let links = jobs.iter().enumerate().filter_map(|(at, job)| Some((at, old(job)?))).collect();
        let verdicts = vec![None; jobs.len()];
        let (is_sure, astray, is_excused) = (false, false, false);
        Self { verdicts, jobs, lane, deletion, links, is_sure, astray, is_excused, runs: None, current: None }
    }

    fn subtrees(&self) -> Vec<RelPath> {
        self.jobs.iter().filter(|job| job.scope == Scope::Subtree).map(|job| job.path.clone()).collect()
    }

    fn settle(&mut self, job: usize, verdict: Verdict) {
        let rank = |verdict: &Verdict| match verdict {
            Verdict::Done => 0,
            Verdict::Above(_) | Verdict::LookAgain(_) => 1,
            Verdict::Large | Verdict::Released => 2,
            Verdict::Failed(_) => 3,
        };
        let kept = &mut self.verdicts[job];
        if kept.as_ref().is_none_or(|kept| rank(kept) < rank(&verdict)) {
            *kept = Some(verdict);
        }
    }

    /// Does one thing; whether that was the last.
    fn step(&mut self, source: &Tree, mirror: &mut Tree) -> bool {
        if let Some(mut rsync) = self.current.take() {
            let has_ended = rsync.step(source, mirror);
            self.astray |= rsync.astray;
            match has_ended {
                true => self.ended(rsync, source),
                false => self.current = Some(rsync),
            }
            return false;
        }
        if !self.links.is_empty() && !self.is_sure {
            self.is_sure = true;
            let entered =
                |&(new, old): &(usize, usize)| [Some(self.jobs[new].path.clone()), self.jobs[old].path.parent()];
            let places: BTreeSet<RelPath> = self.links.iter().flat_map(entered).flatten().collect();
            let entry = |path: RelPath| Entry { path, presence: Presence::Directory, orphan: false, jobs: Vec::new() };
            let places = places.into_iter().filter(|place| !place.is_root()).map(entry).collect();
            self.current = Some(Rsync::new(Run::new(RunKind::Flat, Origin::Scan, places)));
            return false;
        }
        if let Some((new, old)) = self.links.pop_front() {
            if self.may_link(new, old, source) {
                let mut rsync = Rsync::new(Run::new(RunKind::Tree, Origin::Write, vec![self.entry(new, source)]));
                rsync.linked = Some((self.jobs[new].path.clone(), self.jobs[old].path.clone()));
                self.current = Some(rsync);
            }
            return false;
        }
        let Some(runs) = &mut self.runs else {
            let undecided: Vec<usize> = (0..self.jobs.len()).filter(|&at| self.verdicts[at].is_none()).collect();
            let look = &mut |path: &RelPath| source.presence(path);
            let plan = plan(&self.jobs, &undecided, self.lane, LIMITS, self.deletion, look);
            let resumes = |run: &Run| self.lane == Lane::Large && run.kind == RunKind::Flat;
            let rsync = |run| Rsync { resumes: resumes(&run), ..Rsync::new(run) };
            self.runs = Some(plan.runs.into_iter().map(rsync).collect());
            plan.settled.into_iter().for_each(|(job, verdict)| self.settle(job, verdict));
            return false;
        };
        self.current = runs.pop_front();
        self.current.is_none()
    }

    fn entry(&self, job: usize, source: &Tree) -> Entry {
        let path = self.jobs[job].path.clone();
        Entry { presence: source.presence(&path), path, orphan: false, jobs: vec![job] }
    }

    /// Whether the content of a moved directory can be taken over.
    fn may_link(&self, new: usize, old: usize, source: &Tree) -> bool {
        let (new, old) = (&self.jobs[new], &self.jobs[old].path);
        new.scope == Scope::Subtree
            && source.is_dir(&new.path)
            && source.presence(old) == Presence::Missing
            && old.parent().is_some_and(|parent| source.is_dir(&parent))
    }

    fn ended(&mut self, mut rsync: Rsync, source: &Tree) {
        let place = |path: &RelPath| self.jobs.iter().position(|job| job.path == *path).unwrap();
        let linked = rsync.linked.as_ref().map(|(new, old)| (place(new), place(old)));
        if let Some((_, old)) = linked
            && rsync.run.kind == RunKind::Tree
        {
            // The old name goes next. Whatever went wrong, the normal run comes.
            if rsync.bad.is_empty() {
                let look = &mut |path: &RelPath| source.presence(path);
                let deletion = Run::deletion(self.deletion, vec![self.entry(old, source)], look);
                self.current = Some(Rsync { linked: rsync.linked, ..Rsync::new(deletion) });
            }
            return;
        }
        if self.runs.is_none() && linked.is_none() && !rsync.bad.is_empty() {
            self.links.clear();
        }
        let mut run = rsync.run;
        if rsync.keeps && rsync.bad.len() < run.entries.len() && run.looks_around() {
            // Nothing was deleted for the others either.
            let others;
            (run, others) = run.parted(|at| rsync.bad.contains_key(&at));
            rsync.bad = rsync.bad.into_values().enumerate().collect();
            self.current = Some(Rsync::new(others));
        }
        for (at, entry) in run.entries.iter().enumerate() {
            for &job in &entry.jobs {
                let verdict = match rsync.bad.get(&at) {
                    Some(Verdict::LookAgain(_)) => Verdict::LookAgain(self.jobs[job].scope),
                    Some(verdict) => verdict.clone(),
                    None => Verdict::Done,
                };
                self.settle(job, verdict);
            }
        }
        if let Some((new, old)) = linked
            && self.verdicts[old] == Some(Verdict::Done)
            && self.may_link(new, old, source)
        {
            self.settle(new, Verdict::Done);
        }
    }
}

const TIMES: Duration = Duration::from_millis(100);
const LIMITS: Limits = Limits { large_file_bytes: 8 << 20, bytes_max: 64 << 20 };
const PATIENCE: Duration = Duration::from_secs(5);
/// For so long something between both sides may hold what an rsync has sent.
const HELD: Duration = Duration::from_secs(150);

#[derive(Debug, Clone)]
enum Step {
    Write(u8),
    /// Without a change that the quick check sees.
    Rewrite(u8),
    Make(u8),
    Link(u8),
    Remove(u8),
    Rename(u8, u8),
    /// Only root may look into it for a while.
    Close(u8),
    Open(u8),
    /// Reads so many events.
    Read(u8),
    Reconcile,
    Collapse,
    Claim(bool),
    /// Lets one batch do so many things.
    Go(u8, u8),
    /// Lets so many things arrive that one batch has sent.
    Arrive(u8, u8),
    /// Ends one before its time.
    Cut(u8),
    /// Lets one thing arrive that was sent by one whose end came before its time.
    ArriveLate(u8),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0u8..PLACES.len() as u8;
    let step = prop_oneof![
        6 => at.clone().prop_map(Step::Write),
        1 => at.clone().prop_map(Step::Rewrite),
        5 => at.clone().prop_map(Step::Make),
        2 => at.clone().prop_map(Step::Link),
        3 => at.clone().prop_map(Step::Remove),
        4 => (at.clone(), at.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => at.clone().prop_map(Step::Close),
        2 => at.prop_map(Step::Open),
        8 => (1u8..6).prop_map(Step::Read),
        1 => Just(Step::Reconcile),
        1 => Just(Step::Collapse),
        8 => any::<bool>().prop_map(Step::Claim),
        24 => (any::<u8>(), 1u8..12).prop_map(|(which, steps)| Step::Go(which, steps)),
        1 => any::<u8>().prop_map(Step::Cut),
        12 => (any::<u8>(), 1u8..12).prop_map(|(which, count)| Step::Arrive(which, count)),
        1 => any::<u8>().prop_map(Step::ArriveLate),
        3 => (0u16..3_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..300)
}

/// Few, so that what happens meets.
const PLACES: [&str; 7] = ["a", "b", "a/a", "a/b", "b/a", "b/a/a", "a/a/b"];

/// What one has sent that was cut off.
struct Adrift {
    cut_at: Timestamp,
    until: Timestamp,
    sent: VecDeque<Received>,
}

struct World {
    bench: Bench,
    places: Vec<RelPath>,
    source: Tree,
    mirror: Tree,
    events: VecDeque<Event>,
    watcher: Watcher,
    batches: Vec<Batch>,
    /// What was sent by rsyncs that were cut off, and until when it may arrive.
    adrift: Vec<Adrift>,
    /// Something has arrived for which nobody waits any more, and looks to come have to find it.
    is_late: bool,
    next: u32,
    /// What the target's rsync lets itself be told.
    deletion: Deletion,
}

impl World {
    /// A watched tree of directories with a file each, of which the target has nothing yet.
    fn new(deletion: Deletion) -> Self {
        let watcher = Watcher { table: BTreeMap::from([(ROOT, RelPath::root())]), ..Watcher::default() };
        let mut world = Self {
            bench: Bench::new(),
            places: PLACES.map(path).to_vec(),
            source: Tree::default(),
            mirror: Tree::default(),
            events: VecDeque::new(),
            watcher,
            batches: Vec::new(),
            adrift: Vec::new(),
            is_late: false,
            next: ROOT,
            deletion,
        };
        for place in world.places.clone() {
            let number = world.number();
            let holds_others = world.places.iter().any(|other| place.is_ancestor_of(other));
            let node = if holds_others { Node::Dir(number) } else { Node::File { content: number, stamp: number } };
            if holds_others {
                world.watcher.table.insert(number, place.clone());
            }
            world.source.nodes.insert(place, node);
        }
        world.step(Step::Reconcile);
        world
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Tells the watcher of `path`, if the directory above it is watched.
    fn tell(&mut self, path: &RelPath, event: impl FnOnce(u32, Vec<u8>) -> Event) {
        let inode = self.source.inode(&path.parent().unwrap()).unwrap();
        if self.watcher.watches(inode) {
            self.events.push_back(event(inode, path.name().to_vec()));
        }
    }

    fn is_in_place(&self, path: &RelPath) -> bool {
        path.parent().is_some_and(|parent| self.source.is_dir(&parent))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(at) | Step::Rewrite(at) => {
                let (path, content) = (self.places[at as usize].clone(), self.number());
                let before = match self.source.nodes.get(&path) {
                    Some(Node::Dir(_) | Node::Link(_)) => return,
                    Some(Node::File { stamp, .. }) => Some(*stamp),
                    None => None,
                };
                if self.is_in_place(&path) {
                    let stamp = before.filter(|_| matches!(step, Step::Rewrite(_))).unwrap_or(content);
                    self.source.nodes.insert(path.clone(), Node::File { content, stamp });
                    self.tell(&path, Event::Written);
                }
            }
            Step::Make(at) => {
                let (path, inode) = (self.places[at as usize].clone(), self.number());
                if self.is_in_place(&path) && !self.source.nodes.contains_key(&path) {
                    self.source.nodes.insert(path.clone(), Node::Dir(inode));
                    self.tell(&path, Event::Made);
                }
            }
            Step::Link(at) => {
                let (path, to) = (self.places[at as usize].clone(), self.number());
                if self.is_in_place(&path) && !self.source.nodes.contains_key(&path) {
                    self.source.nodes.insert(path.clone(), Node::Link(to));
                    self.tell(&path, Event::Written);
                }
            }
            Step::Remove(at) => {
                let below = |path: &&RelPath| self.places[at as usize].covers(path);
                let all: Vec<RelPath> = self.source.nodes.keys().filter(below).cloned().collect();
                for path in all.into_iter().rev() {
                    let event = if self.source.is_dir(&path) { Event::DirGone } else { Event::FileGone };
                    self.tell(&path, event);
                    self.source.nodes.remove(&path);
                }
            }
            Step::Rename(from, to) => self.rename(from, to),
            Step::Close(at) => self.source.closed.extend(self.source.inode(&self.places[at as usize])),
            Step::Open(at) => {
                if let Some(inode) = self.source.inode(&self.places[at as usize]) {
                    self.source.closed.remove(&inode);
                }
            }
            Step::Read(count) => {
                let seen = self.source.seen();
                for _ in 0..count {
                    let Some(event) = self.events.pop_front() else { break };
                    self.watcher.read(event, &seen, self.bench.now);
                }
                self.watcher.look_if_open(&seen);
                for change in self.watcher.gather.take() {
                    self.bench.add(change);
                }
                if self.events.is_empty() {
                    self.watcher.expire(self.bench.now);
                }
            }
            Step::Reconcile => {
                let whole = Change::scan(RelPath::root(), Scope::Subtree);
                self.bench.add(Change { origin: Origin::Reconcile, ..whole });
            }
            Step::Collapse => {
                let ids = &mut self.bench.ids;
                self.bench.queue.collapse(self.bench.now, || {
                    *ids += 1;
                    JobId(*ids)
                });
            }
            Step::Claim(is_small) => {
                self.bench.raise_doubts();
                let lane = if is_small { Lane::Small } else { Lane::Large };
                let jobs = self.bench.queue.claim(lane, 4, self.bench.now);
                if !jobs.is_empty() {
                    self.batches.push(Batch::new(jobs, lane, self.deletion));
                }
            }
            Step::Go(which, count) if !self.batches.is_empty() => {
                let (at, seen) = (which as usize % self.batches.len(), self.source.seen());
                for _ in 0..count {
                    let has_ended = self.batches[at].step(&seen, &mut self.mirror);
                    let batch = &self.batches[at];
                    assert!(!batch.astray || batch.is_excused, "wrote behind a link: {:?}", batch.jobs);
                    if has_ended {
                        let batch = self.batches.swap_remove(at);
                        self.finish(batch, false);
                        break;
                    }
                }
            }
            Step::Arrive(which, count) if !self.batches.is_empty() => {
                let at = which as usize % self.batches.len();
                let batch = &mut self.batches[at];
                if let Some(rsync) = &mut batch.current {
                    (0..count).for_each(|_| rsync.arrive(&mut self.mirror));
                    assert!(!rsync.astray || batch.is_excused, "wrote behind a link: {:?}", batch.jobs);
                }
            }
            Step::Cut(which) if !self.batches.is_empty() => {
                let mut batch = self.batches.swap_remove(which as usize % self.batches.len());
                if let Some(mut rsync) = batch.current.take() {
                    rsync.keep_partial(&mut self.mirror);
                    let sent = rsync.underway.into_iter().map(|(received, _)| received);
                    // What was cut off below a directory may hold paths that nobody has a doubt about.
                    let is_known = batch.jobs.iter().all(|job| job.scope == Scope::Entry);
                    let patience = if is_known { HELD } else { PATIENCE };
                    let (cut_at, until) = (self.bench.now, self.bench.now.after(patience));
                    self.adrift.push(Adrift { cut_at, until, sent: sent.collect() });
                }
                self.finish(batch, true);
            }
            Step::ArriveLate(which) if !self.adrift.is_empty() => {
                let at = which as usize % self.adrift.len();
                if !self.arrives_late(at) {
                    self.adrift.swap_remove(at);
                }
            }
            Step::Go(..) | Step::Arrive(..) | Step::Cut(_) | Step::ArriveLate(_) => {}
            Step::Wait(ms) => self.bench.wait(u64::from(ms)),
        }
        self.excuse();
        self.bench.queue.check_invariants();
        self.check_rest();
    }

    /// Lets one thing arrive of what one has sent that was cut off. Whether there was one.
    fn arrives_late(&mut self, at: usize) -> bool {
        let Adrift { cut_at, until, sent } = &mut self.adrift[at];
        let Some(received) = sent.pop_front().filter(|_| *until > self.bench.now) else { return false };
        self.is_late |= self.bench.now > cut_at.after(PATIENCE);
        receive(received, None, &mut self.mirror);
        true
    }

    /// Lets all arrive that was cut off, but for what a look at a whole tree, which goes by size and time, could not tell from
    /// what is there.
    fn all_arrives_late(&mut self) {
        let source = &self.source.nodes;
        let is_told_apart = |received: &Received| match received {
            Received::Node(path, Node::File { stamp, .. }) => {
                !matches!(source.get(path), Some(Node::File { stamp: now, .. }) if now == stamp)
            }
            _ => true,
        };
        self.adrift.iter_mut().for_each(|one| one.sent.retain(is_told_apart));
        (0..self.adrift.len()).for_each(|at| while self.arrives_late(at) {});
    }

    /// Where nothing is left to be done, and nothing is on its way, a wait would be over.
    fn check_rest(&self) {
        let watcher = &self.watcher;
        let is_seen = self.events.is_empty() && watcher.gather.is_empty() && watcher.limbo.is_empty();
        let may_look = self.source.closed.is_empty() && watcher.closed.is_empty();
        if is_seen && may_look && !self.is_late && self.bench.len() == 0 {
            assert_eq!(self.mirror.shown(), self.source.shown(), "a wait was over too early");
        }
    }

    /// Notes which batches have run beside what no rule keeps from making a link of a directory.
    fn excuse(&mut self) {
        let subtrees: Vec<Vec<RelPath>> = self.batches.iter().map(Batch::subtrees).collect();
        let is_adrift = self.adrift.iter().any(|one| one.until > self.bench.now && !one.sent.is_empty());
        for (at, batch) in self.batches.iter_mut().enumerate() {
            let others = || subtrees.iter().enumerate().filter(|(other, _)| *other != at);
            let is_beside_subtree = others().any(|(_, roots)| !roots.is_empty());
            let is_subtree = !batch.subtrees().is_empty() && others().next().is_some();
            batch.is_excused |= is_adrift || is_beside_subtree || is_subtree;
        }
    }

    fn rename(&mut self, from: u8, to: u8) {
        let (from, to) = (self.places[from as usize].clone(), self.places[to as usize].clone());
        let Some(node) = self.source.nodes.get(&from).copied() else { return };
        if from.covers(&to) || to.covers(&from) || !self.is_in_place(&to) {
            return;
        }
        let is_dir = matches!(node, Node::Dir(_));
        let fits = match self.source.nodes.get(&to) {
            None => true,
            Some(Node::File { .. } | Node::Link(_)) => !is_dir,
            Some(Node::Dir(_)) => is_dir && self.source.children(&to).is_empty(),
        };
        if !fits {
            return;
        }
        let cookie = self.number();
        if is_dir {
            self.tell(&from, |dir, name| Event::MovedFrom(dir, name, cookie));
            self.tell(&to, |dir, name| Event::MovedTo(dir, name, cookie));
        } else {
            self.tell(&from, Event::FileGone);
            self.tell(&to, Event::Written);
        }
        self.source.rename(&from, &to);
    }

    fn finish(&mut self, batch: Batch, is_cut: bool) {
        for (job, verdict) in batch.jobs.iter().zip(batch.verdicts) {
            let verdict = verdict.unwrap_or(Verdict::Released);
            if is_cut && verdict == Verdict::Released {
                self.bench.queue.note_cut(&job.path, self.bench.now);
            }
            let took = Duration::from_millis(30);
            self.bench.queue.finish(&job.path, verdict, took, self.bench.now, 0.5);
        }
    }
}

/// `late`: how many times 20 s after the last step all arrives that was cut off and is still held.
fn end_equal(deletion: Deletion, steps: Vec<Step>, late: u8) -> Result<(), TestCaseError> {
    let mut world = World::new(deletion);
    steps.into_iter().for_each(|step| world.step(step));
    world.source.closed.clear();
    for round in 0..60 {
        world.step(Step::Wait(20_000));
        if round == late {
            world.all_arrives_late();
        }
        for step in [Step::Read(u8::MAX), Step::Claim(true), Step::Claim(false)] {
            world.step(step);
        }
        while !world.batches.is_empty() {
            world.step(Step::Go(0, u8::MAX));
        }
    }
    let left: Vec<Job> = world.bench.queue.page(None, usize::MAX, |_| true);
    prop_assert_eq!(left, [], "the queue drains");
    prop_assert_eq!(world.mirror.shown(), world.source.shown());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4 * ProptestConfig::default().cases, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_trees_end_equal(steps in steps(), late in 0u8..8) {
        end_equal(Deletion::ByName, steps, late)?;
    }

    #[test]
    fn the_same_where_the_target_deletes_by_directory_alone(steps in steps(), late in 0u8..8) {
        end_equal(Deletion::ByLevel, steps, late)?;
    }
}
