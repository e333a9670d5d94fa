//! Looks at a store while no daemon runs, through a private copy that is gone afterwards.
//!
//! sled writes wherever it opens: it locks, settles and mends its files, and makes them anew as the user that it runs as.
//! A look must leave everything as it is, with its owner and its times: the next daemon may run as another user, and has
//! to find whatever a crash has left. So the files are copied to a directory for temporary files, by name and without
//! following links, and sled gets the copy. The names of the copy are removed as soon as it is open, so that nothing
//! stays behind whatever ends the process.
//!
//! The state directory's lock is held, shared with others who look, only while the files are copied: somebody who reads a
//! long list does not keep a daemon from starting.
//!
//! Deliberately not here: any way to change the store.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, statvfs};

use super::contents;
use super::disk;
use super::layout::Layout;
use super::lock::Lock;
use super::migrations::STEPS;
use super::open::{self, Otherwise, Usable};
use super::progress::Progress;
use super::tree::{Tree, Trouble};
use crate::model::{Job, RelPath, TargetId};
use crate::store::{Census, RootRecord, StoreError, StoreStats, TargetRecord};

/// Other places for a copy, if the directory for temporary files has no room for it.
const OTHER_PLACES: [&str; 2] = ["/dev/shm", "/var/tmp"];
/// Room beside the copy itself, for what sled writes when it opens the copy.
const ROOM_BYTES: u64 = 4 << 20;

/// The store of a state directory, to be read and nothing else.
#[derive(Debug)]
pub struct Looked {
    tree: Tree,
    /// The layout of the original, not of the copy.
    layout: Layout,
    schema: u32,
    rolled_back: bool,
    damaged: u64,
}

impl Looked {
    /// Looks at the store in the state directory `dir`. Without a store the error is `Directory` with `NotFound`; with a
    /// daemon that uses it, `Locked`.
    pub fn at(dir: &Path) -> Result<Self, StoreError> {
        let layout = Layout::of(dir);
        layout.has_store().map_err(|source| layout.directory(source))?;
        let copy = Copy::of(&layout)?;
        let progress = Progress::open(&copy.layout.progress).map_err(|source| layout.directory(source))?;
        let usable = open::open(&copy.layout, progress.commit(), Otherwise::Refuse, STEPS)?;
        let Usable { tree, scanned, identity, rolled_back, .. } = usable;
        let damaged = scanned.damaged.len() as u64;
        Ok(Self { tree, layout, schema: identity.schema, rolled_back, damaged })
    }

    /// All roots and targets, ordered by id.
    pub fn known(&self) -> Result<(Vec<RootRecord>, Vec<TargetRecord>), StoreError> {
        self.read(contents::known)
    }

    /// Hands the jobs of a target to `each` as they are stored, in the order of their paths, from behind `after`, until it
    /// breaks off. Holds none of them.
    pub fn jobs(
        &self,
        target: TargetId,
        after: Option<&RelPath>,
        each: &mut dyn FnMut(Job) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.read(|tree| contents::jobs(tree, target, after, each))
    }

    /// The job of that target and path, as it is stored.
    pub fn job(&self, target: TargetId, path: &RelPath) -> Result<Option<Job>, StoreError> {
        self.read(|tree| contents::job(tree, target, path))
    }

    /// Reads everything and counts it, holding none of it.
    pub fn census(&self) -> Result<Census, StoreError> {
        let census = self.read(contents::census)?;
        let kept = self.layout.kept().map_err(|source| StoreError::Read { source })?;
        let (schema, rolled_back, bytes) = (self.schema, self.rolled_back, self.stats().bytes);
        Ok(Census { schema, rolled_back, bytes, kept, ..census })
    }

    pub fn stats(&self) -> StoreStats {
        StoreStats { bytes: disk::size_bytes(&self.layout.store) }
    }

    /// The fault that the next start will find in the store, and mend by comparing every target in full.
    pub fn fault(&self) -> Option<String> {
        match (self.damaged, self.rolled_back) {
            (0, false) => None,
            (0, true) => Some("its latest changes are missing".to_owned()),
            (damaged, _) => Some(format!("{damaged} of its records cannot be read")),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Tree) -> Result<T, Trouble>) -> Result<T, StoreError> {
        read(&self.tree).map_err(|trouble| match trouble {
            Trouble::Damage(reason) => StoreError::Damaged { dir: self.layout.dir.clone(), reason },
            Trouble::Outside(source) => StoreError::Read { source },
        })
    }
}

/// A copy of the parts of a store. Its files lose their names when this is dropped; whoever has them open keeps them.
pub(super) struct Copy {
    pub(super) layout: Layout,
}

impl Copy {
    fn of(original: &Layout) -> Result<Self, StoreError> {
        let _shared = Lock::share(&original.dir, &original.lock)?;
        Self::of_locked(original)
    }

    /// Copies the store for a caller that holds the lock.
    pub(super) fn of_locked(original: &Layout) -> Result<Self, StoreError> {
        let bytes = [&original.store, &original.old].map(|dir| disk::size_bytes(dir)).iter().sum::<u64>() + ROOM_BYTES;
        let cannot = |source| StoreError::NoCopy { dir: original.dir.clone(), bytes, source };
        let place = make_place(bytes).map_err(cannot)?;
        let copy = Self { layout: original.copied_to(&place) };
        for (from, to) in original.parts().iter().zip(copy.layout.parts()) {
            copy_tree(from, to).map_err(cannot)?;
        }
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.layout.place());
    }
}

/// Makes a directory of our own with room for `bytes`.
fn make_place(bytes: u64) -> io::Result<PathBuf> {
    let name = format!("syncq-look-{:032x}", fastrand::u128(..));
    let mut result = Err(io::ErrorKind::StorageFull.into());
    for parent in [std::env::temp_dir()].into_iter().chain(OTHER_PLACES.map(PathBuf::from)) {
        let Ok(disk) = statvfs(&parent) else { continue };
        if disk.f_bavail.saturating_mul(disk.f_frsize) < bytes {
            continue;
        }
        let place = parent.join(&name);
        result = DirBuilder::new().mode(0o700).create(&place).map(|()| place);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Copies files and directories; anything else is not sled's.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(from) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if found.is_dir() {
        DirBuilder::new().mode(0o700).create(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy_tree(&from.join(&name), &to.join(&name))?;
        }
    } else if found.is_file() {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut original = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(from)?;
        io::copy(&mut original, &mut File::create_new(to)?)?;
    }
    Ok(())
}
