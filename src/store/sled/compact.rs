//! Makes a store small again: sled's file only ever grows, so a drained backlog of 500,000 jobs leaves half a gigabyte.
//!
//! The live records are copied to a fresh store beside the old one, which then takes the old one's place. The swap is two
//! renames with nothing else in between. A kill between them leaves no `store` but a whole `store.old`, and the next open
//! puts that back ([`finish_swap`]). Both stores hold the same then, since no commit is made between the copy and the
//! swap. A `store` that is there is always the newest, so the others beside it may go.
//!
//! Deliberately not here: when to look at all, which is the caller's decision.

use std::io;
use std::ops::ControlFlow;

use super::contents;
use super::disk;
use super::layout::Layout;
use super::migrations::{CHANGES_MAX, RawChange};
use super::tree::{Tree, Trouble};

/// A store below this cannot become smaller: sled begins a file with half a mebibyte.
pub const SMALLEST_BYTES: u64 = 1 << 20;
/// A file below this is not worth the work, unless an operator asks for it.
const FILE_BYTES_MIN: u64 = 16 << 20;
/// A copy has to be smaller by this factor at least.
const GAIN_MIN: u64 = 4;
/// How many bytes a fresh store takes for each byte of keys and values, and for each record beside that. Measured: 324
/// bytes for a record of 125.
const COPY_FACTOR: u64 = 2;
const COPY_RECORD_BYTES: u64 = 64;

/// Whether a copy of `tree`, whose file has `file_bytes`, would be so much smaller that it pays. Reads only as much as
/// it takes to know.
pub fn is_worthwhile(tree: &Tree, file_bytes: u64) -> Result<bool, Trouble> {
    if file_bytes < FILE_BYTES_MIN {
        return Ok(false);
    }
    let bytes_max = file_bytes / GAIN_MIN;
    let mut copy_bytes = 0;
    tree.walk(b"", None, |key, value| {
        copy_bytes += COPY_FACTOR * (key.len() + value.len()) as u64 + COPY_RECORD_BYTES;
        if copy_bytes < bytes_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(copy_bytes < bytes_max)
}

/// Writes all that `tree` holds to a fresh store beside it, closed and durable. Leaves nothing behind if it fails.
pub fn copy(layout: &Layout, tree: &Tree) -> io::Result<()> {
    disk::remove_dir(&layout.compact)?;
    let copied = Tree::open(&layout.compact).map_err(io::Error::from).and_then(|copy| {
        copy_records(tree, &copy)?;
        copy.close()?;
        disk::settle(&layout.compact)
    });
    copied.inspect_err(|_| {
        if let Err(error) = disk::remove_dir(&layout.compact) {
            log::debug!("cannot remove {}: {error}", layout.compact.display());
        }
    })
}

fn copy_records(from: &Tree, to: &Tree) -> io::Result<()> {
    let mut batch: Vec<RawChange> = Vec::new();
    let mut result = Ok(());
    from.walk(b"", None, |key, value| {
        batch.push((key.to_vec(), Some(value.to_vec())));
        if batch.len() == CHANGES_MAX {
            result = to.write(std::mem::take(&mut batch));
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    to.write(batch)?;
    // If a store is damaged without a sign, sled might show less than there is.
    if contents::last_commit(to)? != contents::last_commit(from)? {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the copy is not complete"));
    }
    Ok(())
}

/// Puts the copy in the place of the store, which the caller has closed. The replaced store stays as `store.old` until
/// [`finish_swap`].
pub fn swap(layout: &Layout) -> io::Result<()> {
    disk::remove_dir(&layout.old)?;
    disk::rename(&layout.store, &layout.old)?;
    disk::rename(&layout.compact, &layout.store)
}

/// Puts the store back that [`swap`] has replaced.
pub fn swap_back(layout: &Layout) -> io::Result<()> {
    disk::remove_dir(&layout.store)?;
    disk::rename(&layout.old, &layout.store)
}

/// Brings a compaction to an end wherever it was interrupted.
pub fn finish_swap(layout: &Layout) -> io::Result<()> {
    if !layout.store.exists() && layout.old.exists() {
        log::info!("taking up the store that was being compacted");
        disk::rename(&layout.old, &layout.store)?;
    }
    disk::remove_dir(&layout.old)?;
    disk::remove_dir(&layout.compact)
}
