//! Removes the temporaries of killed receivers from the target: `.NAME.XXXXXX`. A comparison leaves these names alone,
//! since another run may be writing such a file at that moment.
//!
//! After a comparison of the whole tree, at most once a day, the target is listed (a listing cut down to such names costs a
//! fifth of the comparison). A temporary that is older than a day and not at the source is deleted by name. rsync looks at
//! the source once more when it deletes, so that a file that has come into being there is never lost.
//!
//! Deliberately absent: `.rsync-partial`, which a comparison deletes like anything that the source lacks, and a
//! `--partial-dir` of the user's, which rsync itself protects and uses up. A target that cannot be listed (write only)
//! keeps its leftovers. Ages are by the target's clock against ours; a day is longer than clocks are apart.

use std::time::Duration;

use chrono::NaiveDateTime;
use log::{debug, info};

use super::session::Execution;
use crate::filter::Filter;
use crate::mirror::plan::arguments::list_arguments;
use crate::mirror::plan::run::{Deletion, Entry};
use crate::mirror::plan::source::{Presence, Source};
use crate::mirror::rsync::capture::Capture;
use crate::mirror::rsync::ended::End;
use crate::mirror::rsync::itemize::{to_path, unescape};
use crate::mirror::rsync::stats::DeletionCount;
use crate::model::{JobError, RelPath, Timestamp, Verdict};

/// How old a temporary has to be. No run writes to one file for so long without changing its time.
const AGE_MIN: Duration = Duration::from_secs(24 * 60 * 60);
/// How long after a listing of a target the next one may be.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// How many bytes of a listing are kept: enough for some ten thousand leftovers. The others are removed on another day.
const LISTING_BYTES_MAX: usize = 1 << 20;

/// The temporaries to be removed from the target. `None`: the target has been listed within [`INTERVAL`], cannot be
/// listed, deletes nothing, or the deletions are over its limit. `job` is the index of the whole tree's job.
pub(crate) fn find(batch: &mut Execution<'_>, job: usize, now: Timestamp) -> Option<Vec<Entry>> {
    let ctx = batch.ctx;
    let cleaned_at = ctx.cleaned_at();
    let lately = cleaned_at.is_some_and(|at| at <= now && now.since(at) < INTERVAL);
    if lately || !matches!(batch.deletion(), Deletion::ByName | Deletion::ByLevel) {
        return None;
    }
    let args = list_arguments(&ctx.target, &Filter::leftover_rules());
    let ended = batch.list_target(&args, Capture::new(LISTING_BYTES_MAX, 0))?;
    if !matches!(ended.end, End::Exit(0 | 23 | 24)) {
        debug!("{}: cannot be looked through for leftovers", ctx.target.name());
        ctx.set_cleaned_at(now);
        return None;
    }
    let mut listing = ended.stdout.bytes();
    if ended.stdout.is_cut() {
        listing.truncate(listing.iter().rposition(|&b| b == b'\n').unwrap_or(0));
    }
    let mut source = Source::new(&ctx.root);
    let mut entries = leftovers(&listing, &ctx.filter, &mut source, now);
    entries.retain(|entry| !batch.is_unmounted(&entry.path));
    let count = entries.len() as u64;
    if let Some(limit) = ctx.guard.limit()
        && !limit.allows(DeletionCount { deleted: count, held: count })
    {
        let message = format!(
            "{count} files named like rsync's temporaries (.NAME.XXXXXX) would be deleted on the target, more than \
             {limit} allows; none was: if it is right: syncq accept-deletions TARGET, or raise maxDelete"
        );
        batch.settle(job, Verdict::Failed(JobError::new(None, message)));
        return None;
    }
    Some(entries)
}

/// Notes that `count` temporaries were removed, so that the target is not listed again soon.
pub(crate) fn note_removed(batch: &Execution<'_>, count: usize, now: Timestamp) {
    let ctx = batch.ctx;
    ctx.set_cleaned_at(now);
    if count > 0 {
        info!("{}: removed {count} temporary files of receivers that were killed", ctx.target.name());
    }
}

/// The temporaries of a listing that may be deleted, sorted like a list for rsync.
fn leftovers(listing: &[u8], filter: &Filter, source: &mut Source, now: Timestamp) -> Vec<Entry> {
    let mut entries: Vec<Entry> = listing
        .split(|&b| b == b'\n')
        .filter_map(listed_file)
        .filter(|(path, modified)| filter.is_leftover(path) && *modified <= now && now.since(*modified) >= AGE_MIN)
        .filter(|(path, _)| {
            // Where the source lacks the directory itself, the comparison has deleted it on the target, or must not.
            let parent = path.parent().unwrap_or_else(RelPath::root);
            source.look(path) == Presence::Missing && source.look(&parent) == Presence::Directory
        })
        .map(|(path, _)| Entry { path, presence: Presence::Missing, orphan: false, jobs: Vec::new() })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// Path and time in a line of `--list-only` about a regular file: `-rw-r--r--      6 2026/11/22 16:33:01 name`.
fn listed_file(line: &[u8]) -> Option<(RelPath, Timestamp)> {
    let (mode, rest) = line.split_at_checked(10)?;
    if !mode.starts_with(b"-") {
        return None;
    }
    let rest = rest.trim_ascii_start();
    let size = rest.iter().position(|&b| b == b' ')?;
    let rest = rest.get(size + 1..)?;
    let (time, name) = rest.split_at_checked(19)?;
    let time = NaiveDateTime::parse_from_str(str::from_utf8(time).ok()?, "%Y/%m/%d %H:%M:%S").ok()?;
    let modified = Timestamp(u64::try_from(time.and_utc().timestamp_millis()).ok()?);
    Some((to_path(&unescape(name.strip_prefix(b" ")?))?, modified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_temporaries_that_the_source_lacks_may_go() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/.real.Ab12Cd"), "a file of the source").unwrap();
        let listing = b"drwxr-xr-x           4096 2026/11/20 10:00:00 .\n\
            -rw-r--r--              0 2026/11/20 10:00:00 d/.f.txt.Ab12Cd\n\
            -rw-------     1234567890 2026/11/20 10:00:00 .we ird\\#012x.aBcdef\n\
            -rw-r--r--              0 2026/11/20 10:00:00  .x.Ab12Cd\n\
            -rw-r--r--              0 2026/11/22 09:00:00 d/.young.Ab12Cd\n\
            -rw-r--r--              0 2027/11/22 09:00:00 d/.future.Ab12Cd\n\
            -rw-r--r--              0 2026/11/20 10:00:00 d/.real.Ab12Cd\n\
            -rw-r--r--              0 2026/11/20 10:00:00 gone/.f.Ab12Cd\n\
            -rw-r--r--              0 2026/11/20 10:00:00 d/.env.sample\n\
            -rw-r--r--              0 2026/11/20 10:00:00 d/.env.SAMPLE\n\
            -rw-r--r--              0 2026/11/20 10:00:00 keep/.f.Ab12Cd\n\
            lrwxrwxrwx              1 2026/11/20 10:00:00 d/.l.Ab12Cd\n\
            -rw-r--r--              0 2026/11/20 10:00";
        std::fs::create_dir(dir.path().join("keep")).unwrap();
        let filter = Filter::new(&["keep".to_owned()], false).unwrap();
        let now = Timestamp(1_795_341_600_000);
        assert_eq!(now.to_string(), "2026-11-22T10:00:00.000Z");
        let found = leftovers(listing, &filter, &mut Source::new(dir.path()), now);
        let names: Vec<String> = found.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(names, [".we ird\\nx.aBcdef", "d/.f.txt.Ab12Cd"]);
    }
}
