//! A target that holds something of which nobody saw how it got there: a new one that is not empty, or one whose watermark
//! was lost with the store. Size and time, which rsync's quick check goes by, then say little: a file that was overwritten
//! in place and given its time back looks as it did.
//!
//! - A target that holds nothing by the names of the source is looked at once, before anything is sent: whatever is on it
//!   later was sent from here, so a first fill reads the source once.
//! - A small tree is compared by content in its first comparison.
//! - A large one is compared by size and time, so that the mirror is soon of use, and by content in the background
//!   (`daemon::contents`).
//! - Until then what was moved is sent again: what the target has under the old name may be what nobody vouches for.
//!
//! Deliberately absent: since when a target is not vouched for, and how far it has been compared. The queue's records say.

use std::io;
use std::path::Path;

use super::capture::Capture;
use super::command::level_arguments;
use super::context::TargetContext;
use super::execute::{cannot_start, command_line, with_room};
use super::line::lines;
use super::look::Presence;
use super::outcome::{Outcome, classify};
use super::plan::{Run, RunKind};
use super::recent::Files;
use super::run::{End, Priority};
use super::says::unescape;
use super::ssh::run_rsync;
use super::stop::StopSignal;
use crate::filter::{Filter, Kind};
use crate::model::{Destination, Origin, RelPath, Scope, TargetTrouble, TroubleClass};

/// What is known of what a target holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Equal size and time mean equal content, unless a job says otherwise.
    Vouched,
    /// They may not.
    Unvouched,
}

/// Up to so much is compared by content in one go: seconds, even where a disk has to seek for each file.
const SMALL_BYTES_MAX: u64 = 256 << 20;
const SMALL_FILES_MAX: u64 = 10_000;

/// Of a listing so much is kept. A target with more names at its top is not empty.
const LISTING_BYTES_MAX: usize = 256 << 10;

const NO_SUCH_FILE: i32 = 2;

/// Whether what is mirrored of the source is so little that it is compared by content at once.
pub(super) fn is_small(ctx: &TargetContext) -> bool {
    let (mut bytes, mut files) = (0_u64, 0_u64);
    Files::below(&ctx.root, &RelPath::root(), 0, &ctx.filter).all(|entry| {
        if let Presence::File { size } = entry.presence {
            bytes = bytes.saturating_add(size);
        }
        files += 1;
        bytes <= SMALL_BYTES_MAX && files <= SMALL_FILES_MAX
    })
}

/// Whether the target holds nothing at its top that the source has as well. What cannot be listed (a module that is write
/// only) counts as holding something. The error is a target that cannot be used at present.
pub(super) fn is_empty(ctx: &TargetContext, stop: &StopSignal) -> Result<bool, TargetTrouble> {
    ctx.check()?;
    if let Destination::Local(path) = &ctx.target.destination {
        return Ok(is_empty_here(&ctx.root.join(path), &ctx.root, &ctx.filter));
    }
    let args = level_arguments(&ctx.target);
    let nothing = Run::new(RunKind::Flat, Origin::Scan, Vec::new());
    let kept = Capture::new(LISTING_BYTES_MAX, 0);
    let start = || run_rsync(ctx, &args, b"", &|| Some(kept.clone()), Priority::Usual, stop);
    let ended = with_room(ctx, &nothing, false, stop, &start).map_err(|error| cannot_start(&error))?;
    match classify(&ended, &nothing, &ctx.prefixes, &ctx.noise) {
        Outcome::Target(found) | Outcome::Split(found)
            if matches!(found.class, TroubleClass::Unavailable | TroubleClass::Busy) =>
        {
            // Nothing can be sent for the same reason, and it is the sending that an operator tries by hand.
            let command = command_line(ctx, &RelPath::root(), Scope::Subtree);
            return Err(TargetTrouble { command, ..found });
        }
        Outcome::Void => return Ok(false),
        _ => {}
    }
    let stderr = ended.stderr.bytes();
    Ok(match ended.end {
        End::Exit(0) => {
            let listing = ended.stdout.bytes();
            !ended.stdout.is_cut() && !names(&listing).any(|name| is_shared(&ctx.root, &ctx.filter, &name))
        }
        // rsync makes the directory with the first run.
        End::Exit(23) => lines(&stderr).any(|line| line.errno == Some(NO_SUCH_FILE)),
        _ => false,
    })
}

fn is_empty_here(target: &Path, root: &Path, filter: &Filter) -> bool {
    match std::fs::read_dir(target) {
        Ok(mut entries) => entries.all(|entry| {
            entry.is_ok_and(|entry| {
                !is_shared(root, filter, std::os::unix::ffi::OsStrExt::as_bytes(&*entry.file_name()))
            })
        }),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Whether the source has that name at its top, and it is mirrored.
fn is_shared(root: &Path, filter: &Filter, name: &[u8]) -> bool {
    let Ok(path) = RelPath::new(name) else { return false };
    match std::fs::symlink_metadata(path.under(root)) {
        Ok(found) if found.is_dir() => !filter.excludes(&path, Kind::Directory),
        Ok(_) => !filter.excludes(&path, Kind::File),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The names that a listing of one level tells of: `-rw-r--r--      6 2026/11/22 16:33:01 name`.
fn names(listing: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    listing.split(|&b| b == b'\n').filter_map(|line| {
        let rest = line.get(10..)?.trim_ascii_start();
        let size = rest.iter().position(|&b| b == b' ')?;
        let name = rest.get(size + " 2026/11/22 16:33:01 ".len()..)?;
        let is_link = line.starts_with(b"l");
        let end = if is_link { name.windows(4).position(|part| part == b" -> ")? } else { name.len() };
        let name = unescape(name.get(..end)?);
        (name != b".").then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_listing_are_read() {
        let listing = b"drwxr-xr-x           4096 2026/11/20 10:00:00 .\n\
            -rw-r--r--              0 2026/11/20 10:00:00  a b\n\
            drwxr-xr-x           4096 2026/11/20 10:00:00 d\\#012e\n\
            lrwxrwxrwx              1 2026/11/20 10:00:00 l -> a\n\
            -rw-r--r--     1234567890 2026/11/20 10:00:00 large\n";
        let read: Vec<String> = names(listing).map(|name| name.escape_ascii().to_string()).collect();
        assert_eq!(read, [" a b", "d\\ne", "l", "large"]);
    }

    /// A directory with `lost+found` in it is filled for the first time; one with a name of the source is not.
    #[test]
    fn only_names_that_the_source_has_as_well_make_a_target_one_that_holds_something() {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let filter = Filter::new(&["^left_out$".to_owned()], false).unwrap();
        let is_empty = || is_empty_here(target.path(), source.path(), &filter);
        assert!(is_empty() && is_empty_here(&target.path().join("missing"), source.path(), &filter));
        std::fs::create_dir(target.path().join("lost+found")).unwrap();
        for name in ["left_out", "a"] {
            std::fs::write(source.path().join(name), "1").unwrap();
        }
        std::fs::write(target.path().join("left_out"), "2").unwrap();
        assert!(is_empty());
        std::fs::write(target.path().join("a"), "2").unwrap();
        assert!(!is_empty());
    }
}
