//! The command line of a job before it runs, for people.

use super::command::{Mode, Pass, arguments, pasteable};
use super::context::TargetContext;
use super::look::{Presence, Source};
use super::plan::{RunKind, plan};
use crate::model::{ClaimedJob, Job, Lane};

/// The line that does what `job` stands for, to be pasted into a shell. `None` if nothing would be run, or if the user's
/// expressions have a say in it: then syncq picks the names itself, and rsync alone would delete what they exclude.
pub fn preview(ctx: &TargetContext, job: &Job) -> Option<String> {
    let job = ClaimedJob { path: job.path.clone(), scope: job.scope, origin: job.origin, generation: job.generation };
    let deletion = ctx.capabilities.deletion(ctx.target.options.delete);
    let mut source = Source::new(&ctx.root);
    // In the large lane no size is too large.
    let planned = plan(&[job], &[0], Lane::Large, ctx.limits, deletion, &mut |path| source.look(path));
    let mut run = planned.runs.into_iter().next()?;
    if run.lists() && ctx.filter.has_expressions() {
        return None;
    }
    run.max_delete = (run.lists() && ctx.guard.limit().is_some()).then_some(0);
    let large = |presence| matches!(presence, Presence::File { size } if size > ctx.limits.large_file_bytes);
    let is_large = run.kind == RunKind::Tree || run.entries.iter().any(|entry| large(entry.presence));
    let mode = Mode {
        lane: if is_large { Lane::Large } else { Lane::Small },
        deletion,
        mkpath: ctx.capabilities.makes_path(),
        rules: &ctx.filter.rsync_rules(),
        pass: Pass::Real,
    };
    Some(pasteable(&ctx.root, &arguments(&ctx.target, &run, mode), &run))
}
