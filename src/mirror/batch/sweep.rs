//! Carries out a sweep: a job for a directory below which files were written, when nobody remembers which files.
//!
//! The quick check may take such a file for equal: same size, same time, other content. A run over the whole tree without
//! the quick check would read everything on both sides. But a write leaves its mark where nobody can forge it: in the
//! inode's change time. So the files changed since the oldest of the forgotten writes was seen are sent first, by name and
//! without the quick check. One quick run over the tree then does everything else. Where change times are not the kernel's
//! own (network and FUSE file systems, unions), the whole tree goes without the quick check.
//!
//! Deliberately absent: directories that came from elsewhere (`Origin::Replaced`). The change times in them are old.

use std::time::Duration;

use super::session::Execution;
use crate::ctime;
use crate::mirror::plan::run::{Entry, Run, RunKind};
use crate::mirror::plan::walk::Files;
use crate::model::{Origin, Timestamp};

/// How much later than it happens a write may be seen: the kernel's queue, a busy machine or a stopped process delay it.
const SEEN_WITHIN: Duration = Duration::from_secs(600);

/// How many files go into one list.
const LIST_PATHS_MAX: usize = 20_000;

/// Whether `run` is a sweep that can be carried out in this way.
pub(crate) fn concerns(batch: &Execution<'_>, run: &Run) -> bool {
    run.kind == RunKind::Tree && run.origin == Origin::Write && ctime::dates_changes(&batch.ctx.root)
}

/// The runs that send the written files in the trees of `run`. Each is found when the iterator is asked for it. Afterwards
/// a comparison by size and time is enough.
pub(crate) fn runs<'a>(batch: &Execution<'a>, run: &'a Run) -> impl Iterator<Item = Run> + use<'a> {
    let (ctx, jobs, unmounted) = (batch.ctx, batch.jobs, batch.unmounted.clone());
    let below = move |entry: &Entry| {
        let since = entry.jobs.iter().filter_map(|&job| jobs.get(job)).map(|job| job.since).min();
        let margin_ms = u64::try_from(SEEN_WITHIN.as_millis()).unwrap_or(u64::MAX);
        let since_ms = since.unwrap_or(Timestamp::ZERO).0.saturating_sub(margin_ms);
        Files::below(&ctx.root, &entry.path, since_ms, &ctx.filter)
    };
    let mut files = run.entries.iter().flat_map(below);
    std::iter::from_fn(move || {
        let mut entries: Vec<Entry> = files.by_ref().take(LIST_PATHS_MAX).collect();
        if entries.is_empty() {
            return None;
        }
        entries.retain(|entry| !unmounted.iter().any(|place| place.covers(&entry.path)));
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Some(Run::new(RunKind::Flat, Origin::Write, entries))
    })
}
