//! The one tree of sled that holds everything, with sled's manners kept inside: panics become errors, a batch is durable
//! when its write returns, and dropping a tree never panics. Knows bytes, not records.
//!
//! There is one tree on purpose: batches written to two trees one after the other came back torn from 24 of 116 kills.

use std::fmt;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::time::Duration;

use super::disk::{self, DbFile};
use super::guard::guarded;
use super::migrations::{CHANGES_MAX, RawChange, RawStore, Visit};

/// Small, since the queue keeps its own index and reads are rare.
const CACHE_BYTES: u64 = 8 << 20;

/// How often the collector of memory that sled has replaced gets its turn after each commit; a turn frees 512 objects at
/// most. Without these turns the collector lags behind while no other thread has anything to do with it: with 200,000
/// changes for one target that is there and one that is not, a daemon took 160 to 180 MB instead of 110; 8 turns and 64
/// turns did not differ.
const COLLECT_TURNS: usize = 16;

/// How long to wait for sled's own lock, which its threads may hold for a moment after a store was dropped. Nobody else
/// can hold it: the state directory's lock is ours.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// An open store.
pub struct Tree {
    /// `None` only while being dropped.
    db: Option<::sled::Db>,
    file: DbFile,
}

/// Why the engine does not do what it should.
#[derive(Debug)]
pub enum Trouble {
    /// The files on the disk make no sense.
    Damage(String),
    /// The files may be all right, but they cannot be used at present: disk full, no permission.
    Outside(io::Error),
}

impl Tree {
    /// Opens the store in `dir`, or creates an empty one.
    pub fn open(dir: &Path) -> Result<Self, Trouble> {
        // sled would let everybody read the directory, and names of files are nobody's business.
        disk::create_private_dir(dir).map_err(Trouble::Outside)?;
        // No background flusher: every batch is flushed when it is committed.
        let config = ::sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let mut tries = 0;
        let db = loop {
            match guarded(|| config.open()).map_err(Trouble::Damage)? {
                Ok(db) => break db,
                Err(error) if is_lock(&error) && tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        };
        let file = DbFile::open(dir).map_err(Trouble::Outside)?;
        let tree = Self { db: Some(db), file };
        disk::settle(dir).map_err(Trouble::Outside)?;
        Ok(tree)
    }

    /// Calls `visit` with every key that starts with `prefix`, in the order of bytes, and its value.
    pub fn visit(&self, prefix: &[u8], mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), Trouble> {
        self.walk(prefix, None, |key, value| {
            visit(key, value);
            ControlFlow::Continue(())
        })
    }

    /// Like [`visit`](Self::visit), but from behind the key `after` if one is given, and until `visit` breaks it off.
    pub fn walk(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Trouble> {
        let db = self.db()?;
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        guarded(|| {
            for entry in db.range::<&[u8], _>((start, Bound::Unbounded)) {
                let (key, value) = entry?;
                if !key.starts_with(prefix) || visit(&key, &value).is_break() {
                    break;
                }
            }
            Ok::<(), ::sled::Error>(())
        })
        .map_err(Trouble::Damage)?
        .map_err(Trouble::from)
    }

    pub fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
        let db = self.db()?;
        let value = guarded(|| db.get(key)).map_err(Trouble::Damage)??;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Makes all of `changes` or none, and returns once they would survive a power cut. After an error the tree is of no
    /// more use: sled refuses everything, and nobody knows what reached the disk.
    pub fn write(&self, changes: Vec<RawChange>) -> Result<(), Trouble> {
        let db = self.db()?;
        let mut batch = ::sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        guarded(|| {
            db.apply_batch(batch)?;
            db.flush()
        })
        .map_err(Trouble::Damage)??;
        for _ in 0..COLLECT_TURNS {
            crossbeam_epoch::pin().flush();
        }
        self.file.sync().map_err(Trouble::Outside)
    }

    /// Whether the tree's file is the one that lies in `dir`. Writing to a removed file succeeds and saves nothing.
    pub fn is_in(&self, dir: &Path) -> io::Result<bool> {
        self.file.is_in(dir)
    }

    /// Closes the store and waits until its directory may be moved or removed.
    pub fn close(mut self) -> io::Result<()> {
        let db = self.db.take();
        guarded(|| drop(db)).map_err(io::Error::other)?;
        self.file.wait_closed()
    }

    fn db(&self) -> Result<&::sled::Db, Trouble> {
        self.db.as_ref().ok_or_else(|| Trouble::Outside(io::Error::from(io::ErrorKind::NotConnected)))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let db = self.db.take();
        if let Err(reason) = guarded(|| drop(db)) {
            log::warn!("closing the store: {reason}");
        }
    }
}

// sled's own `Debug` prints all keys and values.
impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").finish_non_exhaustive()
    }
}

impl RawStore for Tree {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.read(key)?)
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
        let mut result = Ok(());
        self.visit(prefix, |key, value| {
            if result.is_ok() {
                result = visit(key, value);
            }
        })?;
        result
    }

    fn apply(&self, changes: Vec<RawChange>) -> io::Result<()> {
        if changes.len() > CHANGES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the migration's batch is too large"));
        }
        Ok(self.write(changes)?)
    }
}

impl From<::sled::Error> for Trouble {
    fn from(error: ::sled::Error) -> Self {
        match error {
            ::sled::Error::Io(error) => error.into(),
            other => Self::Damage(other.to_string()),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        if means_damage(&error) { Self::Damage(error.to_string()) } else { Self::Outside(error) }
    }
}

impl From<Trouble> for io::Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Damage(reason) => Self::new(io::ErrorKind::InvalidData, reason),
            Trouble::Outside(error) => error,
        }
    }
}

/// Whether an I/O error of sled speaks of the files' content: a file shorter than it should be, or a bad sector.
fn means_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

fn is_lock(error: &::sled::Error) -> bool {
    matches!(error, ::sled::Error::Io(error) if error.raw_os_error().is_none() && error.to_string().contains("could not acquire lock"))
}
