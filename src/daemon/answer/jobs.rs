//! The deeds of operators on a queue: a daemon's, or one opened on a stopped daemon's store.

use std::path::Path;
use std::time::Duration;

use crate::control::{
    JobRow, KeptStore, ListPage, Listed, NewJob, PauseRequest, Paused, PausedTarget, Refusal, RefusalKind, StoreReport,
};
use crate::model::{Change, JobAction, RelPath, Scope, TargetId};
use crate::queue::{Queue, Selected};
use crate::store::Census;

use crate::daemon::named_target::NamedTarget;

/// How long an operator waits for the disk.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

/// How long an operator waits for the store to be read or copied. Shorter than a client waits for a line of the answer.
const CENSUS_PATIENCE: Duration = Duration::from_secs(25);

/// Applies `action` to one page of jobs over all targets, in the order of (target, path). Returns once the changes are on disk.
pub(crate) fn jobs(
    queue: &Queue,
    targets: &[NamedTarget],
    action: JobAction,
    page: &ListPage,
) -> Result<Listed, Refusal> {
    let wanted = wanted(targets, page)?;
    let filter = &page.wanted.filter;
    if action == JobAction::Retry && !page.dry_run && page.after.is_none() && filter.is_of_whole_targets() {
        queue.probe_now(&wanted.iter().map(|target| target.id).collect::<Vec<_>>());
    }
    let pick = |job: &_| page.wanted.wants(job);
    let listed = gather(&wanted, page, |target, after, room| {
        Ok(match page.dry_run {
            true => queue.preview(target, after, room, action, &pick),
            false => queue.operate(target, after, room, action, &pick),
        })
    })?;
    if action != JobAction::List && !page.dry_run && !listed.rows.is_empty() {
        make_durable(queue)?;
    }
    Ok(listed)
}

/// The targets that a page is about, in the page's order.
pub(crate) fn wanted<'a>(targets: &'a [NamedTarget], page: &ListPage) -> Result<Vec<&'a NamedTarget>, Refusal> {
    let filter = &page.wanted.filter;
    let mut wanted: Vec<&NamedTarget> =
        targets.iter().filter(|target| page.wanted.wants_target(&target.name, &target.root)).collect();
    check_names(targets, filter.target.as_deref(), filter.root.as_deref(), !wanted.is_empty())?;
    wanted.sort_by_key(|target| target.id);
    Ok(wanted)
}

/// Gathers one page. `select` takes a target, a path and a number, and returns at most that many jobs behind the path.
pub(crate) fn gather(
    wanted: &[&NamedTarget],
    page: &ListPage,
    mut select: impl FnMut(TargetId, Option<&RelPath>, usize) -> Result<Selected, Refusal>,
) -> Result<Listed, Refusal> {
    let mut listed = Listed::default();
    for (n, target) in wanted.iter().enumerate() {
        let after = match &page.after {
            Some((id, _)) if target.id < *id => continue,
            Some((id, path)) if target.id == *id => Some(path),
            _ => None,
        };
        let room = page.limit.saturating_sub(listed.rows.len());
        let selected = select(target.id, after, room)?;
        listed.rows.extend(selected.jobs.iter().map(|job| JobRow::new(job, &target.root, &target.name)));
        if let Some(path) = selected.next {
            listed.next = Some((target.id, path));
            break;
        }
        // If the last row of the target filled the page, the next page begins at the next target.
        if listed.rows.len() >= page.limit
            && let (Some(job), true) = (selected.jobs.last(), n + 1 < wanted.len())
        {
            listed.next = Some((target.id, job.path.clone()));
            break;
        }
    }
    Ok(listed)
}

/// Queues paths that may differ. The source is asked for each path's kind, which decides how it is compared.
pub(crate) fn add(queue: &Queue, targets: &[NamedTarget], jobs: &[NewJob]) -> Result<Vec<Option<String>>, Refusal> {
    let add = |job: &NewJob| {
        let Some(path) = job.path() else { return Some("this is no path".to_owned()) };
        let known = targets.iter().find(|known| known.name == job.target && known.root == Path::new(&job.root));
        let Some(known) = known else { return Some(format!("{} is not mirrored to {}", job.root, job.target)) };
        let directory = std::fs::symlink_metadata(path.under(&known.root)).is_ok_and(|found| found.is_dir());
        let subtree = directory || job.scope == Some(Scope::Subtree);
        let change = match (job.scope, job.origin) {
            (Some(scope), Some(origin)) => Change { origin, ..Change::scan(path, scope) },
            (None, _) if path.is_root() => Change::scan(path, Scope::Entry),
            _ if subtree => Change::scan(path, Scope::Subtree),
            _ => Change::write(path),
        };
        queue.enqueue(&[known.id], &[change]);
        None
    };
    let answers = jobs.iter().map(add).collect();
    make_durable(queue)?;
    Ok(answers)
}

/// Counts the store's records. With `compact` the store is first made as small as its records allow.
pub(crate) fn store(queue: &Queue, compact: bool) -> Result<StoreReport, Refusal> {
    let bytes = queue.store_health().stats.bytes;
    let census = queue.store_census(compact, CENSUS_PATIENCE).map_err(|reason| {
        let message = format!("the store cannot be read: {reason}");
        Refusal::new(RefusalKind::Unavailable, message, "see syncq status and the daemon's log")
    })?;
    Ok(report(census, compact.then_some(bytes)))
}

/// A census in words for operators. `bytes_before`: the size of the store before it was compacted.
pub(crate) fn report(census: Census, bytes_before: Option<u64>) -> StoreReport {
    let Census { schema, roots, targets, directories, jobs, damaged, rolled_back, live_bytes, bytes: now, kept } =
        census;
    let kept = kept.into_iter().map(|store| KeptStore { path: store.path.display().to_string(), bytes: store.bytes });
    StoreReport {
        schema,
        bytes: now,
        live_bytes,
        bytes_before,
        roots,
        targets,
        directories,
        jobs,
        damaged,
        rolled_back,
        kept: kept.collect(),
    }
}

/// Pauses targets, or resumes them.
pub(crate) fn pause(queue: &Queue, targets: &[NamedTarget], request: &PauseRequest) -> Result<Paused, Refusal> {
    let PauseRequest { target, root, all, paused } = request;
    let wanted = named(targets, target.as_deref(), root.as_deref(), *all)?;
    let change = |target: &&NamedTarget| PausedTarget {
        name: target.name.clone(),
        root: target.root.display().to_string(),
        paused: *paused,
        changed: queue.pause(target.id, *paused),
    };
    let done = Paused { targets: wanted.iter().map(change).collect() };
    if done.targets.iter().any(|target| target.changed) {
        make_durable(queue)?;
    }
    Ok(done)
}

/// The targets that are named by a target, by a root, or as all.
pub(crate) fn named<'a>(
    targets: &'a [NamedTarget],
    target: Option<&str>,
    root: Option<&str>,
    all: bool,
) -> Result<Vec<&'a NamedTarget>, Refusal> {
    if [target.is_some(), root.is_some(), all].iter().filter(|given| **given).count() != 1 {
        let message = "name one target, or a root, or say all";
        return Err(Refusal::new(RefusalKind::Wrong, message, "targets are named in syncq status"));
    }
    check_names(targets, target, root, true)?;
    let wanted = |named: &&NamedTarget| {
        target.is_none_or(|name| name == named.name) && root.is_none_or(|root| Path::new(root) == named.root)
    };
    Ok(targets.iter().filter(wanted).collect())
}

/// Refuses names that no target or root has: a misspelt name must not look like an empty list.
pub(super) fn check_names(
    targets: &[NamedTarget],
    target: Option<&str>,
    root: Option<&str>,
    any: bool,
) -> Result<(), Refusal> {
    let unknown = |message: String, mut known: Vec<String>| {
        known.sort();
        known.dedup();
        let more = known.len().saturating_sub(NAMES_SHOWN_MAX);
        known.truncate(NAMES_SHOWN_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Refusal::new(RefusalKind::Unknown, message, format!("there are: {}{more}", known.join(", "))))
    };
    if let Some(name) = target
        && !targets.iter().any(|target| target.name == name)
    {
        let names = targets.iter().map(|target| target.name.clone()).collect();
        return unknown(format!("there is no target {name}"), names);
    }
    if let Some(root) = root
        && !targets.iter().any(|target| target.root == Path::new(root))
    {
        let names = targets.iter().map(|target| target.root.display().to_string()).collect();
        return unknown(format!("{root} is not being mirrored"), names);
    }
    match (target, root, any) {
        (Some(target), Some(root), false) => {
            let names = targets.iter().filter(|named| named.root == Path::new(root));
            unknown(format!("{root} is not mirrored to {target}"), names.map(|named| named.name.clone()).collect())
        }
        _ => Ok(()),
    }
}

/// Names listed in a hint.
const NAMES_SHOWN_MAX: usize = 10;

/// Waits until every change made so far is on disk.
pub(super) fn make_durable(queue: &Queue) -> Result<(), Refusal> {
    if queue.flush(FLUSH_PATIENCE) {
        return Ok(());
    }
    let reason = queue.store_health().error.unwrap_or_else(|| "it takes too long".to_owned());
    Err(Refusal::new(
        RefusalKind::Unavailable,
        format!("the store cannot be written: {reason}"),
        "it is done, but a restart may forget it; see syncq status",
    ))
}
