//! What a comparison would change, without changing anything.

use super::command::Pass;
use super::context::TargetContext;
use super::execute::{Batch, Flow};
use super::expand;
use super::look::Source;
use super::outcome::{Outcome, classify};
use super::plan::plan;
use super::says::difference;
use super::stop::StopSignal;
use super::trouble::trouble;
use crate::model::{ClaimedJob, Job, Lane, RelPath, TargetTrouble, TroubleClass};

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub path: RelPath,
    /// It is on the target alone, and would be deleted there.
    pub excess: bool,
}

/// How often the other side may turn out to lack an option; there are three such options.
const ROUNDS_MAX: u32 = 4;

/// Has rsync tell what it would do for `job`, and calls `each` for each difference, in rsync's order. Returns whether all
/// have been told: of very much output the rest is left out. The limit on deletions is not looked at.
pub fn survey(
    ctx: &TargetContext,
    job: &Job,
    stop: &StopSignal,
    each: &mut dyn FnMut(Difference),
) -> Result<bool, TargetTrouble> {
    let Job { path, scope, origin, generation, queued_at: since, .. } = job.clone();
    let job = ClaimedJob { path, scope, origin, generation, since };
    let jobs = [job];
    let mut batch = Batch::new(ctx, Lane::Large, &jobs, stop);
    for _ in 0..ROUNDS_MAX {
        let mut source = Source::new(&ctx.root);
        let planned = plan(&jobs, &[0], Lane::Large, ctx.limits, batch.deletion(), &mut |path| source.look(path));
        // Nothing to run: it is gone, and deletions are not mirrored.
        let Some(run) = planned.runs.into_iter().next() else { return Ok(true) };
        let Some((ended, command)) = batch.start(&run, Pass::Show) else { break };
        match classify(&ended, &run, &ctx.prefixes) {
            Outcome::Done | Outcome::Paths(_) => {}
            Outcome::Fallback(fallback) => match batch.fall_back(fallback, command, &ended) {
                Flow::Replan => continue,
                Flow::Continue | Flow::Halt => break,
            },
            Outcome::Target(found) | Outcome::Split(found) | Outcome::NoRoom { trouble: found, .. } => {
                return Err(TargetTrouble { command: Some(command), ..found });
            }
            Outcome::Void => break,
        }
        let mut output = ended.stdout.bytes();
        let is_cut = ended.stdout.is_cut();
        if is_cut {
            // The last line may be half a name.
            output.truncate(output.iter().rposition(|&b| b == b'\n').unwrap_or(0));
        }
        if run.lists() && ctx.filter.has_expressions() {
            let (present, going) = expand::mirrored(&output, &ctx.filter, &mut source);
            going.into_iter().for_each(|path| each(Difference { path, excess: true }));
            present.into_iter().for_each(|path| each(Difference { path, excess: false }));
        } else {
            for (name, excess) in output.split(|&b| b == b'\n').filter_map(difference) {
                expand::to_path(&name).into_iter().for_each(|path| each(Difference { path, excess }));
            }
        }
        return Ok(!is_cut);
    }
    Err(batch.trouble().unwrap_or_else(|| {
        let hint = "look at the daemon's log, and try again";
        trouble(TroubleClass::Unavailable, None, "rsync could not compare", &ctx.root.display().to_string(), hint)
    }))
}
