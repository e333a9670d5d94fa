//! Whether a target on another machine still holds what it held. Where its disk is not mounted, the server has an empty
//! directory in its place, and rsync would fill that directory without a word.
//!
//! A few names are remembered that stood at the top of both target and source at the last look. The target is taken for
//! another one if it has none of those names that the source still has. A name made anew at the source since then does not
//! count. Where none of the names is left at the source, or no more than a file or two that somebody may have deleted on
//! the target, there is nothing to tell by, and the target is taken for what it was.
//!
//! A look is a listing of one level. It is taken before the first run of a daemon, after trouble, and before comparisons of
//! the whole tree. While something is being sent it is also taken once a minute, after a run, so that no change waits for
//! it. Data sent within that minute may go to the wrong place, and is sent again when the right one is back.
//!
//! Deliberately absent: targets on this machine, whose directory is known (`place`), and those that may not be listed.

use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use memchr::memmem;

use super::context::TargetContext;
use super::launch::{command_line, run_rsync, with_room};
use super::looked::is_shared;
use crate::mirror::outcome::classify::{Outcome, classify};
use crate::mirror::outcome::diagnosis::{cannot_start, trouble};
use crate::mirror::plan::arguments::level_arguments;
use crate::mirror::plan::run::{Run, RunKind};
use crate::mirror::rsync::capture::Capture;
use crate::mirror::rsync::ended::End;
use crate::mirror::rsync::itemize::unescape;
use crate::mirror::rsync::messages::lines;
use crate::mirror::rsync::process::Priority;
use crate::mirror::rsync::stop::StopSignal;
use crate::model::{Destination, Origin, RelPath, Scope, TargetTrouble, Timestamp, Top, TroubleClass};

/// How many bytes of a listing are kept. A target with more names at its top is not empty.
const LISTING_BYTES_MAX: usize = 256 << 10;

/// How many names are remembered, and how many bytes of them.
const NAMES_MAX: usize = 16;
const NAMES_BYTES_MAX: usize = 512;

/// This many files, or one directory, nobody deletes by hand without a thought of the mirror.
const FILES_MIN: usize = 3;

const NO_SUCH_FILE: i32 = 2;

/// The answer to a listing of a target's top.
pub(in crate::mirror) enum Listed {
    Names(BTreeSet<RelPath>),
    /// The target's directory does not exist.
    Missing,
    /// The target may not be listed, or holds more names than are kept.
    Unknown,
}

/// Lists the top of a target on another machine. The error: the target cannot be used at present.
pub(in crate::mirror) fn list(ctx: &TargetContext, stop: &StopSignal) -> Result<Listed, TargetTrouble> {
    let args = level_arguments(&ctx.target);
    let nothing = Run::new(RunKind::Flat, Origin::Scan, Vec::new());
    let kept = Capture::new(LISTING_BYTES_MAX, 0);
    let start = || run_rsync(ctx, &args, b"", &|| Some(kept.clone()), Priority::Usual, stop);
    let ended = with_room(ctx, &nothing, false, stop, &start).map_err(|error| cannot_start(&error))?;
    match classify(&ended, &nothing, &ctx.prefixes, &ctx.noise) {
        Outcome::Target(found) | Outcome::Split(found)
            if matches!(found.class, TroubleClass::Unavailable | TroubleClass::Busy) =>
        {
            // Sending fails for the same reason, and an operator tries by hand to send rather than to list.
            let command = command_line(ctx, &RelPath::root(), Scope::Subtree);
            return Err(TargetTrouble { command, ..found });
        }
        Outcome::Void => return Ok(Listed::Unknown),
        _ => {}
    }
    let stderr = ended.stderr.bytes();
    Ok(match ended.end {
        End::Exit(0) if !ended.stdout.is_cut() => {
            let listing = ended.stdout.bytes();
            Listed::Names(names(&listing).filter_map(|name| RelPath::new(&name).ok()).collect())
        }
        End::Exit(23) if lines(&stderr).any(|line| line.errno == Some(NO_SUCH_FILE)) => Listed::Missing,
        _ => Listed::Unknown,
    })
}

/// Whether a target that has none of the `lasting` names is more likely another target than one that lost them.
fn is_telling(ctx: &TargetContext, lasting: &[&RelPath]) -> bool {
    lasting.len() >= FILES_MIN || lasting.iter().any(|name| name.under(&ctx.root).is_dir())
}

/// Looks at the target, of which `known` is remembered. Returns the names to remember from `now` on. The error: the target
/// cannot be used at present, or is another one than it was.
pub(crate) fn look(
    ctx: &TargetContext,
    known: Option<&Top>,
    now: Timestamp,
    stop: &StopSignal,
) -> Result<Option<Top>, TargetTrouble> {
    if matches!(ctx.target.destination, Destination::Local(_)) {
        return Ok(None);
    }
    let listed = match list(ctx, stop)? {
        Listed::Names(names) => names,
        Listed::Missing => BTreeSet::new(),
        Listed::Unknown => return Ok(known.cloned()),
    };
    let lasting: Vec<&RelPath> = known
        .iter()
        .flat_map(|known| known.names.iter().map(move |name| (name, known.at)))
        .filter(|(name, at)| is_shared(&ctx.root, &ctx.filter, name.as_bytes()) && is_older(ctx, name, *at))
        .map(|(name, _)| name)
        .collect();
    let still = || lasting.iter().copied().filter(|name| listed.contains(*name));
    if is_telling(ctx, &lasting) && still().next().is_none() {
        return Err(another(ctx, &lasting));
    }
    if let Some(known) = known.filter(|known| !known.names.is_empty() && still().count() == known.names.len()) {
        return Ok(Some(known.clone()));
    }
    let kept: BTreeSet<&RelPath> = still().collect();
    let others =
        listed.iter().filter(|name| !kept.contains(name) && is_shared(&ctx.root, &ctx.filter, name.as_bytes()));
    let mut bytes = 0;
    let fits = |name: &&RelPath| {
        bytes += name.as_bytes().len();
        bytes <= NAMES_BYTES_MAX
    };
    let names: Vec<RelPath> = still().chain(others).take_while(fits).take(NAMES_MAX).cloned().collect();
    Ok((!names.is_empty()).then_some(Top { names, at: now }))
}

/// Whether the source's entry of that name was made before `at`. Where the time of its making is not known, the time of its
/// last change stands in.
fn is_older(ctx: &TargetContext, name: &RelPath, at: Timestamp) -> bool {
    let Ok(found) = std::fs::symlink_metadata(name.under(&ctx.root)) else { return false };
    let made = found.created().or_else(|_| found.modified()).ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    made.is_some_and(|made| made.as_millis() < u128::from(at.0))
}

fn another(ctx: &TargetContext, lacks: &[&RelPath]) -> TargetTrouble {
    let first = lacks.first().map(ToString::to_string).unwrap_or_default();
    let more = if lacks.len() > 1 { format!(" or {} more", lacks.len() - 1) } else { String::new() };
    let name = ctx.target.name();
    let said = format!("it has no {first}{more}");
    let hint = format!("mount or restore its disk there; to fill what is there now: syncq accept-target {name}");
    trouble(TroubleClass::Target, None, "the target holds nothing of what it held", &said, &hint)
}

/// The names in a listing of one level. A line of it: `-rw-r--r--      6 2026/11/22 16:33:01 name`.
fn names(listing: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    listing.split(|&b| b == b'\n').filter_map(|line| {
        let rest = line.get(10..)?.trim_ascii_start();
        let size = rest.iter().position(|&b| b == b' ')?;
        let name = rest.get(size + " 2026/11/22 16:33:01 ".len()..)?;
        // rsync adds the target of a link if the user's own options preserve links.
        let arrow = memmem::find(name, b" -> ").filter(|_| line.starts_with(b"l"));
        let name = unescape(name.get(..arrow.unwrap_or(name.len()))?);
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
            lrwxrwxrwx              1 2026/11/20 10:00:00 m\n\
            -rw-r--r--     1234567890 2026/11/20 10:00:00 large\n";
        let read: Vec<String> = names(listing).map(|name| name.escape_ascii().to_string()).collect();
        assert_eq!(read, [" a b", "d\\ne", "l", "m", "large"]);
    }
}
