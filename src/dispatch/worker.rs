//! A worker: runs one batch and gives it back to the queue.
//!
//! Before the run a worker looks at what the target holds, as far as that is due. Afterwards it records what was learned
//! of the target and tells whoever listens. The dispatcher has decided which batch runs, and when.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use log::{debug, error, info, warn};

use super::activity::Happened;
use super::shared::{LOG_TARGET, Shared};
use crate::clock::monotonic;
use crate::mirror::{
    BatchReport, Contents, Ran, StopSignal, TargetContext, anything_lingers, by_hand, contents_of, execute, top_of,
};
use crate::model::{
    Change, JobError, Lingers, Scope, TargetId, TargetTrouble, Timestamp, Top, TroubleClass, Verdict, counted,
};
use crate::queue::{Batch, BatchResult, TargetEvent};

/// How long the first run to an empty target waits for the store.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// Failing paths named in the log for one batch; the others are counted. All are in `syncq list`.
const FAILURES_LOGGED_MAX: usize = 5;

/// Runs a batch and gives it back to the queue. Returns whether the target was out of connections, and whether it was
/// reached.
pub(super) fn work(shared: &Shared, context: &Arc<TargetContext>, batch: &Batch, stop: &StopSignal) -> (bool, bool) {
    let name = context.target.name();
    // Ask before a run of this batch ends, since the run's own connection takes a moment to close.
    let is_asked = anything_lingers() || batch.jobs.iter().any(|job| job.is_safety_rerun);
    let lingers = if is_asked { context.lingers() } else { Lingers::No };
    if lingers > Lingers::No {
        debug!(target: LOG_TARGET, "{name}: a run that was cut off may still write");
    }
    let started = monotonic();
    let report = catch_unwind(AssertUnwindSafe(|| match looked_at(shared, context, batch, stop) {
        Ok(contents) => execute(context, batch.lane, &batch.jobs, contents, shared.clock.now(), stop),
        Err(trouble) => BatchReport { trouble: Some(trouble), ..BatchReport::default() },
    }));
    let mut report = report.unwrap_or_else(|_| {
        let broken = JobError::new(None, "syncq itself failed on this batch; please report it with the log");
        let verdicts = batch.jobs.iter().map(|job| (job.path.clone(), Verdict::Failed(broken.clone()))).collect();
        BatchReport { verdicts, ..BatchReport::default() }
    });
    shared.note_known(batch.target, context);
    if stop.is_raised() && !shared.stop.is_raised() && report.trouble.is_none() {
        report.trouble = Some(silent());
    }
    // Without this, a batch that comes back as it went would be claimed again at once, for ever.
    let idle = report.verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Released);
    if idle && report.trouble.is_none() && !shared.stop.is_raised() {
        report.trouble = Some(TargetTrouble {
            class: TroubleClass::Unavailable,
            code: None,
            message: "a batch made no progress".to_owned(),
            hint: None,
            command: None,
        });
    }
    let outdated = shared.is_outdated(batch.target, context);
    if outdated {
        report.disown();
    }
    let (jobs, runs) = (counted(batch.jobs.len() as u64, "job"), counted(report.runs.into(), "run"));
    debug!(target: LOG_TARGET, "{name}: {jobs} in {runs}, {} ms", started.elapsed().as_millis());
    if let Some(path) = &report.last_path {
        let mut last_paths = shared.last_paths.lock();
        last_paths.insert(batch.target, path.clone());
    }
    if report.trouble.is_none() {
        log_failures(shared, batch.target, &name, &report);
    }
    let busy = report.trouble.as_ref().is_some_and(|trouble| trouble.class == TroubleClass::Busy);
    let reached = report.trouble.is_none() && report.runs > 0 && !stop.is_raised() && !outdated;
    if let (true, Some(unvouched)) = (report.vouched, &batch.unvouched) {
        shared.queue.vouch(batch.target, unvouched.since, None);
    }
    if reached && let Some(mark) = context.place.as_ref().and_then(|place| place.learn()) {
        shared.queue.set_target_mark(batch.target, Some(mark));
    }
    let BatchReport { verdicts, found, trouble, cut, equal, .. } = report;
    let trouble = trouble
        .map(|trouble| TargetTrouble { hint: trouble.hint.map(|hint| by_hand(&context.target, &hint)), ..trouble });
    let result = BatchResult { verdicts, found, trouble, reached, cut, equal, lingers };
    if let Some(observer) = context.observer() {
        if report.changed_cut {
            warn!(target: LOG_TARGET, "{name}: more paths changed in one run than plugins can be told of");
        }
        let ended = |verdict: &Verdict| matches!(verdict, Verdict::Done | Verdict::Failed(_));
        let verdicts = result.verdicts.iter().map(|(_, verdict)| ended(verdict));
        let settled = batch.jobs.iter().zip(verdicts).filter(|(_, ended)| *ended).map(|(job, _)| job).collect();
        let in_trouble = result.trouble.is_some();
        observer.ran(Ran { target: batch.target, settled, changed: report.changed, in_trouble });
    }
    let jobs = result.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Done).count() as u64;
    if result.trouble.is_some() {
        context.looked_at_top().doubt();
    }
    let event = shared.queue.finish(batch, result);
    if jobs > 0 {
        shared.activities.tell(context, || Happened::Sent { jobs, took: started.elapsed() });
    }
    match event {
        // This trouble passes by itself within moments, and may come with every burst.
        Some(TargetEvent::Trouble { trouble, .. }) if trouble.class == TroubleClass::Busy => {
            debug!(target: LOG_TARGET, "{name}: {}; fewer runs at a time from here on", trouble.message);
        }
        Some(TargetEvent::Trouble { trouble, probe_at }) => {
            let retry = shown_wait(probe_at, shared.clock.now());
            shared.activities.tell(context, || Happened::Trouble { trouble: trouble.clone(), retry_at: probe_at });
            warn!(target: LOG_TARGET, "{name}: {}; its jobs are kept, next try in {retry}", trouble.message);
            if let Some(hint) = trouble.hint {
                warn!(target: LOG_TARGET, "{name}: hint: {hint}");
            }
            if let Some(command) = trouble.command {
                warn!(target: LOG_TARGET, "{name}: command: {command}");
            }
        }
        Some(TargetEvent::Recovered { class: TroubleClass::Busy, .. }) => {}
        Some(TargetEvent::Recovered { class, after }) => {
            // The target's rsync may have been upgraded or reconfigured meanwhile.
            context.forget_lacks();
            if class == TroubleClass::Target {
                // The target may have been used for something else meanwhile.
                shared.queue.enqueue(&[batch.target], &[Change::whole_tree()]);
            }
            shared.activities.tell(context, || Happened::Recovered { after });
            info!(target: LOG_TARGET, "{name}: back after {}", humantime::format_duration(Duration::from_secs(after.as_secs())));
        }
        None => {}
    }
    if reached {
        look_again(shared, context, batch.target, stop);
    }
    (busy, reached)
}

/// Looks at what a batch's target holds, as far as that is due. An error means that nothing may be sent to the target.
fn looked_at(
    shared: &Shared,
    context: &TargetContext,
    batch: &Batch,
    stop: &StopSignal,
) -> Result<Contents, TargetTrouble> {
    let is_whole = || batch.jobs.iter().any(|job| job.path.is_root() && job.scope == Scope::Subtree);
    let is_due = context.looked_at_top().is_due() || is_whole();
    let known = if is_due { shared.queue.target_record(batch.target).and_then(|record| record.top) } else { None };
    if let Some(known) = known {
        look_at_top(shared, context, batch.target, Some(&known), stop)?;
    }
    contents(shared, context, batch, stop)
}

/// Looks whether the target is what it was, if that was not done for a while. This comes after a run, so that no change
/// waits for it.
fn look_again(shared: &Shared, context: &TargetContext, target: TargetId, stop: &StopSignal) {
    if !context.looked_at_top().is_stale(false, monotonic()) {
        return;
    }
    // The record is asked for seldom, since it is behind a lock that everybody shares.
    let known = shared.queue.target_record(target).and_then(|record| record.top);
    if !context.looked_at_top().is_stale(known.is_some(), monotonic()) {
        return;
    }
    match look_at_top(shared, context, target, known.as_ref(), stop) {
        Err(trouble) if trouble.class == TroubleClass::Target => {
            context.looked_at_top().doubt();
            error!(target: LOG_TARGET, "{}: {}; nothing is sent there until it is back", context.target.name(), trouble.message);
            trouble.hint.iter().for_each(|hint| warn!(target: LOG_TARGET, "{}: hint: {hint}", context.target.name()));
            shared.queue.note_place(target, Err(trouble));
            // Data sent since the last look is somewhere else. The job for the whole tree also has the target tried
            // again.
            shared.queue.enqueue(&[target], &[Change::whole_tree()]);
        }
        // The next run meets any other error as well.
        Err(_) | Ok(()) => {}
    }
}

fn look_at_top(
    shared: &Shared,
    context: &TargetContext,
    target: TargetId,
    known: Option<&Top>,
    stop: &StopSignal,
) -> Result<(), TargetTrouble> {
    let now = shared.clock.now();
    let top = top_of(context, known, now, stop)?;
    context.looked_at_top().note(monotonic());
    if top.as_ref() != known {
        shared.queue.set_target_top(target, top);
    }
    Ok(())
}

/// How far something vouches for what the target of a batch holds.
fn contents(
    shared: &Shared,
    context: &TargetContext,
    batch: &Batch,
    stop: &StopSignal,
) -> Result<Contents, TargetTrouble> {
    let Some(unvouched) = &batch.unvouched else { return Ok(Contents::Vouched) };
    let contents = contents_of(context, unvouched.since, stop)?;
    if shared.note_known(batch.target, context) {
        // On disk before anything is sent there: after a kill, a daemon could not tell which content is its own.
        shared.queue.flush(FLUSH_PATIENCE);
    }
    if contents == Contents::Vouched {
        debug!(target: LOG_TARGET, "{}: holds nothing that the source has, so it is filled", context.target.name());
        shared.queue.vouch(batch.target, unvouched.since, None);
    }
    Ok(contents)
}

/// The trouble of a target whose run was ended because it kept others from theirs. The words are always the same, so that
/// the trouble is no news the next time.
fn silent() -> TargetTrouble {
    TargetTrouble {
        class: TroubleClass::Unavailable,
        code: None,
        message: "rsync was let in and moved nothing any more, and was ended".to_owned(),
        hint: Some(
            "look whether the target hangs; one that is only slow is given twice the time at the next try".to_owned(),
        ),
        command: None,
    }
}

fn shown_wait(until: Timestamp, now: Timestamp) -> String {
    humantime::format_duration(Duration::from_millis(until.since(now).as_millis() as u64 / 100 * 100)).to_string()
}

fn log_failures(shared: &Shared, target: TargetId, name: &str, report: &BatchReport) {
    let done = report.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Done);
    shared.note_done(target, done.map(|(path, _)| path));
    let failed = report.verdicts.iter().filter_map(|(path, verdict)| match verdict {
        Verdict::Failed(error) => Some((path, error)),
        _ => None,
    });
    let all = failed.chain(report.found.iter().map(|found| (&found.path, &found.error)));
    let all: Vec<_> = all.filter(|(path, error)| shared.is_news(target, path, error)).collect();
    for (path, error) in all.iter().take(FAILURES_LOGGED_MAX) {
        warn!(target: LOG_TARGET, "{name}: cannot mirror {path}: {error}; it is tried again");
    }
    if all.len() > FAILURES_LOGGED_MAX {
        warn!(target: LOG_TARGET, "{name}: {} more paths failed; see `syncq list`", all.len() - FAILURES_LOGGED_MAX);
    }
    for failed in &report.commands_failed {
        warn!(target: LOG_TARGET, "{name}: {}; command: {}", failed.message, failed.command);
    }
}
