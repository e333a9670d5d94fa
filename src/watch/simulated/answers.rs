//! The answers of the simulated kernel to the tracker.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::SimulatedKernel;
use super::disk::{Disk, Node, size};
use crate::ctime::Dated;
use crate::model::{DirectoryId, RelPath};
use crate::mounts::{self, MountKey};
use crate::watch::kernel::{Kernel, Listed, Listing, Look};
use crate::watch::table::Wd;

impl Disk {
    /// A directory, looked up without following links, that may be listed and watched.
    fn open_directory(&self, path: &RelPath) -> Result<u64, Errno> {
        let found = self.seen(path)?;
        match &self.inode(found).node {
            Node::Directory(_) if self.inode(found).is_closed => Err(Errno::ACCESS),
            Node::Directory(_) => Ok(found),
            Node::File { .. } => Err(Errno::NOTDIR),
            Node::Link(_) => Err(Errno::LOOP),
        }
    }

    fn id(&self, inode: u64) -> DirectoryId {
        DirectoryId { inode, born_ns: Some(self.inode(inode).born_ns) }
    }

    fn list(&self, path: &RelPath, dated: bool, counted: bool) -> Result<Listing, Errno> {
        let dir = self.open_directory(path)?;
        let is_dated = dated && self.dates_changes;
        let listed = |(name, &entry): (&Vec<u8>, &u64)| {
            let inode = self.mounted.get(&entry).copied().unwrap_or(entry);
            let (is_dir, found) = (self.is_directory(inode), self.inode(inode));
            let dated = Dated { changed: found.changed, written_last: found.written_last };
            // A listing tells the inode of a covered directory, not that of what is mounted on it.
            Listed {
                name: name.clone(),
                is_dir,
                inode: entry,
                dated: (is_dated && !is_dir).then_some(dated),
                has_names: (is_dated || counted) && !is_dir && found.links > 1,
            }
        };
        let entries = self.entries(dir).into_iter().flatten().map(listed).collect();
        Ok(Listing { changed: is_dated.then(|| self.inode(dir).changed), entries })
    }

    fn look(&self, path: &RelPath) -> Result<Look, Errno> {
        // A link on the way leads to where nothing is.
        let found = self.seen(path).map_err(|errno| if errno == Errno::LOOP { Errno::NOENT } else { errno })?;
        let inode = self.inode(found);
        let (size, stamp) = match inode.node {
            Node::File { stamp, .. } => (size(stamp), stamp),
            Node::Directory(_) | Node::Link(_) => (0, 0),
        };
        let links = if self.is_directory(found) { 1 } else { inode.links };
        let is_plain = matches!(inode.node, Node::File { .. }) && links == 1;
        Ok(Look {
            size,
            is_plain,
            inode: found,
            device: inode.device,
            links,
            written: (i64::from(stamp), 0),
            changed: inode.changed,
        })
    }

    /// The mounts as `/proc/self/mountinfo` has them.
    fn mountinfo(&self, root: &Path) -> String {
        let mut text = String::new();
        for (path, inode, found) in self.tree() {
            if self.mounted.values().any(|top| *top == inode) {
                let (device, at) = (found.device, path.under(root));
                let _ = writeln!(text, "{device} 1 0:{device} / {} rw - tmpfs none rw", at.display());
            }
        }
        text
    }
}

impl Kernel for SimulatedKernel {
    fn watch(&mut self, path: &RelPath) -> Result<(Wd, Option<DirectoryId>), Errno> {
        self.ask(|disk| {
            let dir = disk.open_directory(path)?;
            Ok((disk.inotify.watch(dir)?, Some(disk.id(dir))))
        })
    }

    fn unwatch(&mut self, wds: &[Wd]) {
        self.ask(|disk| wds.iter().for_each(|wd| disk.inotify.unwatch(*wd)));
    }

    fn identify(&self, path: &RelPath) -> Option<DirectoryId> {
        self.ask(|disk| disk.seen(path).ok().filter(|found| disk.is_directory(*found)).map(|found| disk.id(found)))
    }

    fn mounts(&self) -> (BTreeMap<RelPath, MountKey>, Vec<(RelPath, RelPath)>) {
        let root = Path::new("/root");
        let text = self.ask(|disk| disk.mountinfo(root));
        (mounts::below(text.as_bytes(), root), mounts::twins(text.as_bytes(), root))
    }

    fn is_root_away(&self) -> bool {
        false
    }

    fn list(&mut self, path: &RelPath, dated: bool, counted: bool) -> io::Result<Listing> {
        Ok(self.ask(|disk| disk.list(path, dated, counted))?)
    }

    fn list_inodes(&self, path: &RelPath) -> io::Result<Vec<(Vec<u8>, Option<u64>)>> {
        let (listing, is_trusted) =
            self.ask(|disk| disk.list(path, false, false).map(|found| (found, disk.dates_changes)))?;
        let files = listing.entries.into_iter().filter(|entry| !entry.is_dir);
        Ok(files.map(|entry| (entry.name, is_trusted.then_some(entry.inode))).collect())
    }

    fn is_open(&self, path: &RelPath) -> bool {
        self.ask(|disk| disk.open_directory(path).is_ok())
    }

    fn look(&self, path: &RelPath) -> io::Result<Look> {
        Ok(self.ask(|disk| disk.look(path))?)
    }
}
