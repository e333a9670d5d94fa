//! Removes what killed receivers have left on the target: `.NAME.XXXXXX`, which a comparison leaves alone, since another
//! run may be writing it at that moment.
//!
//! After a comparison of the whole tree, at most once a day, the target is listed (a listing cut down to such names costs
//! a fifth of the comparison), and what is older than a day and not at the source goes by name. rsync looks at the source
//! once more when it deletes, so that a file that has come into being there is never lost.
//!
//! Deliberately absent: `.rsync-partial`, which a comparison deletes like anything that the source lacks, and a
//! `--partial-dir` of the user's, which rsync itself protects and uses up. A target that cannot be listed (write only)
//! keeps its leftovers. Ages are by the target's clock against ours; a day is longer than clocks are apart.

use std::time::Duration;

use chrono::NaiveDateTime;
use log::{debug, info};

use super::session::{Batch, Flow};
use crate::filter::Filter;
use crate::mirror::plan::arguments::list_arguments;
use crate::mirror::plan::run::{Deletion, Entry};
use crate::mirror::plan::source::{Presence, Source};
use crate::mirror::rsync::capture::Capture;
use crate::mirror::rsync::ended::End;
use crate::mirror::rsync::itemize::{to_path, unescape};
use crate::mirror::rsync::stats::Survey;
use crate::model::{JobError, RelPath, Timestamp, Verdict};

/// No run writes to one file for so long without changing its time.
const AGE_MIN: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a target is listed.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// Of a listing so much is kept: some ten thousand leftovers. The others are for the next day.
const LISTING_BYTES_MAX: usize = 1 << 20;

/// Sweeps the target, if that has not been done today. `job` is the one of the whole tree.
pub(crate) fn drive(batch: &mut Batch<'_>, job: usize, now: Timestamp) {
    let ctx = batch.ctx;
    let cleaned_at = ctx.cleaned_at();
    let lately = cleaned_at.is_some_and(|at| at <= now && now.since(at) < INTERVAL);
    if lately || !matches!(batch.deletion(), Deletion::ByName | Deletion::ByLevel) {
        return;
    }
    let args = list_arguments(&ctx.target, &Filter::leftover_rules());
    let Some(ended) = batch.list_target(&args, Capture::new(LISTING_BYTES_MAX, 0)) else { return };
    if !matches!(ended.end, End::Exit(0 | 23 | 24)) {
        debug!("{}: cannot be looked through for leftovers", ctx.target.name());
        ctx.set_cleaned_at(now);
        return;
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
        && !limit.allows(Survey { deleted: count, held: count })
    {
        let message = format!(
            "{count} files named like rsync's temporaries (.NAME.XXXXXX) would be deleted on the target, more than \
             {limit} allows; none was: if it is right: syncq accept-deletions TARGET, or raise maxDelete"
        );
        batch.settle(job, Verdict::Failed(JobError::new(None, message)));
        return;
    }
    let flow = if entries.is_empty() { Flow::Continue } else { batch.remove(entries) };
    if flow == Flow::Continue {
        ctx.set_cleaned_at(now);
        if count > 0 {
            info!("{}: removed {count} temporary files of receivers that were killed", ctx.target.name());
        }
    }
}

/// What of a listing may go, in the order of a list.
fn leftovers(listing: &[u8], filter: &Filter, source: &mut Source, now: Timestamp) -> Vec<Entry> {
    let mut entries: Vec<Entry> = listing
        .split(|&b| b == b'\n')
        .filter_map(listed_file)
        .filter(|(path, modified)| filter.is_leftover(path) && *modified <= now && now.since(*modified) >= AGE_MIN)
        .filter(|(path, _)| {
            // Where the directory itself is gone the comparison has deleted it, or was not to.
            let parent = path.parent().unwrap_or_else(RelPath::root);
            source.look(path) == Presence::Missing && source.look(&parent) == Presence::Directory
        })
        .map(|(path, _)| Entry { path, presence: Presence::Missing, orphan: false, jobs: Vec::new() })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// A line of `--list-only` that tells of a regular file: `-rw-r--r--      6 2026/11/22 16:33:01 name`.
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
