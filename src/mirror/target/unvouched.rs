//! A target whose contents nobody saw arrive: a new one that is not empty, or one whose watermark was lost with the store.
//! Size and time, which rsync's quick check goes by, then say little: a file that was overwritten in place and given its
//! time back looks as it did.
//!
//! - A target that holds no name of the source is looked at once, before anything is sent: whatever is on it later was sent
//!   from here, so a first fill reads the source once.
//! - A small tree is compared by content in its first comparison.
//! - A large tree is compared by size and time, so that the mirror is soon of use, and by content in the background
//!   (`daemon::contents`).
//! - Until then a moved path is sent again: nobody vouches for the copy that the target has under the old name.
//!
//! Deliberately absent: since when a target is not vouched for, and how far it has been compared. The queue's records say.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::context::TargetContext;
use super::looked::{Contents, Holds, is_shared};
use super::top::{self, Listed};
use crate::filter::Filter;
use crate::mirror::plan::source::Presence;
use crate::mirror::plan::walk::Files;
use crate::mirror::rsync::stop::StopSignal;
use crate::model::{Destination, RelPath, TargetTrouble, Timestamp};

/// The one name on an empty disk.
const MADE_WITH_DISK: &[u8] = b"lost+found";

/// Up to this size a tree is compared by content in one go: that takes seconds, even where a disk has to seek for each
/// file.
const SMALL_BYTES_MAX: u64 = 256 << 20;
const SMALL_FILES_MAX: u64 = 10_000;

/// Whether the mirrored part of the source is so small that it is compared by content at once.
pub(in crate::mirror) fn is_small(ctx: &TargetContext) -> bool {
    let (mut bytes, mut files) = (0_u64, 0_u64);
    Files::below(&ctx.root, &RelPath::root(), 0, &ctx.filter).all(|entry| {
        if let Presence::File { size } = entry.presence {
            bytes = bytes.saturating_add(size);
        }
        files += 1;
        bytes <= SMALL_BYTES_MAX && files <= SMALL_FILES_MAX
    })
}

/// Whether the contents of a target that is not vouched for since `since` can be trusted. The target is looked at once; a
/// second caller waits for that look. The error: the target cannot be used at present.
pub(crate) fn contents(ctx: &TargetContext, since: Timestamp, stop: &StopSignal) -> Result<Contents, TargetTrouble> {
    let mut looked = ctx.looked();
    let holds = match *looked {
        Some((at, holds)) if at == since => holds,
        _ => holds(ctx, stop)?,
    };
    *looked = Some((since, holds));
    if holds == Holds::Nothing {
        ctx.guard.note_empty();
    }
    Ok(if holds == Holds::Shared { Contents::Unvouched } else { Contents::Vouched })
}

/// The kind of names that the target holds at its top. A target that cannot be listed (a module that is write only) may
/// hold any. The error: the target cannot be used at present.
fn holds(ctx: &TargetContext, stop: &StopSignal) -> Result<Holds, TargetTrouble> {
    ctx.check()?;
    if let Destination::Local(path) = &ctx.target.destination {
        return Ok(holds_here(&ctx.root.join(path), &ctx.root, &ctx.filter));
    }
    Ok(match top::list(ctx, stop)? {
        Listed::Names(names) => {
            let own = names.iter().filter(|name| !name.is_root()).map(RelPath::as_bytes);
            let names = own.filter(|name| *name != MADE_WITH_DISK);
            Holds::by(names.map(|name| is_shared(&ctx.root, &ctx.filter, name)))
        }
        // rsync makes the directory with the first run.
        Listed::Missing => Holds::Nothing,
        Listed::Unknown => Holds::Shared,
    })
}

fn holds_here(target: &Path, root: &Path, filter: &Filter) -> Holds {
    let is_shared = |entry: std::fs::DirEntry| is_shared(root, filter, entry.file_name().as_bytes());
    let is_made = |entry: &io::Result<std::fs::DirEntry>| {
        entry.as_ref().is_ok_and(|entry| entry.file_name().as_bytes() == MADE_WITH_DISK)
    };
    match std::fs::read_dir(target) {
        Ok(entries) => Holds::by(entries.filter(|entry| !is_made(entry)).map(|entry| entry.map_or(true, is_shared))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Holds::Nothing,
        Err(_) => Holds::Shared,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with `lost+found` in it is filled for the first time; one with a name of the source is not.
    #[test]
    fn only_names_that_the_source_has_as_well_make_a_target_one_that_holds_something() {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let filter = Filter::new(&["^left_out$".to_owned()], false).unwrap();
        let holds = || holds_here(target.path(), source.path(), &filter);
        assert_eq!(holds(), Holds::Nothing);
        assert_eq!(holds_here(&target.path().join("missing"), source.path(), &filter), Holds::Nothing);
        std::fs::create_dir(target.path().join("lost+found")).unwrap();
        assert_eq!(holds(), Holds::Nothing);
        std::fs::create_dir(target.path().join("other")).unwrap();
        for name in ["left_out", "a"] {
            std::fs::write(source.path().join(name), "1").unwrap();
        }
        std::fs::write(target.path().join("left_out"), "2").unwrap();
        assert_eq!(holds(), Holds::Others);
        std::fs::write(target.path().join("a"), "2").unwrap();
        assert_eq!(holds(), Holds::Shared);
    }
}
