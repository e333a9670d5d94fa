//! Everything known about one path: whether it is mirrored, and for each target what the path's job waits for.

use std::io;
use std::path::Path;

use crate::control::{Explanation, JobRow, Refusal, RefusalKind, TargetExplanation, TargetState};
use crate::dispatch::Executor;
use crate::filter::{Exclusion, Kind};
use crate::mirror::{Presence, Source};
use crate::model::{Job, JobError, JobState, RelPath, Scope, Timestamp};
use crate::queue::Standing;
use crate::watch::Notice;

use crate::daemon::active_config::Core;
use crate::daemon::named_target::NamedTarget;
use crate::daemon::root::RootRuntime;

/// Explains whether a path is mirrored to any of the targets, and what stands at the path. `is_away`: the directory at the root
/// is not the one that is mirrored.
pub(crate) fn explain(root: &Path, path: &RelPath, is_away: bool, targets: Vec<TargetExplanation>) -> Explanation {
    // The path is left out and has no job, so no run would ever have this command line.
    let shown = |target: TargetExplanation| match (&target.left_out, &target.job) {
        (Some(_), None) => TargetExplanation { command: None, waits_for: None, ..target },
        // An operator who ran the command by hand would delete what is only out of sight.
        _ if is_away => TargetExplanation { command: None, ..target },
        _ => target,
    };
    let targets: Vec<TargetExplanation> = targets.into_iter().map(shown).collect();
    let mirrored = targets.iter().any(|target| target.left_out.is_none());
    Explanation {
        root: root.display().to_string(),
        path: path_text(path),
        source: if is_away { OUT_OF_REACH } else { standing_there(Source::new(root).look(path)) }.to_owned(),
        mirrored: Some(mirrored),
        rule: targets.iter().find_map(|target| target.left_out.clone()).filter(|_| !mirrored),
        targets,
    }
}

/// The notice about a file that is sent and changed back over and over, if `path` is one.
pub(crate) fn answered(root: &RootRuntime, path: &RelPath) -> Option<String> {
    root.is_answered(path).then(|| Notice::Answered { path: path.clone() }.to_string())
}

/// Why the path is not mirrored to a target, if it is not: either a rule of the root, or an option of rsync or of its server.
/// An error means that rsync could not be asked.
pub(crate) fn left_out(
    root: &RootRuntime,
    path: &RelPath,
    executor: &Executor,
    target: &NamedTarget,
) -> io::Result<Option<String>> {
    match rule(root, path, Source::new(root.path()).look(path)) {
        Some(rule) => Ok(Some(rule)),
        None => executor.left_out(target.id, path),
    }
}

/// Why the rules of the root leave out a path with this presence, if they do.
fn rule(root: &RootRuntime, path: &RelPath, presence: Presence) -> Option<String> {
    let kind = match presence {
        Presence::Directory => Kind::Directory,
        Presence::Missing | Presence::File { .. } | Presence::Other | Presence::Unknown(_) => Kind::File,
    };
    let excluded = root.filter.exclusion(path, kind).map(|exclusion| match exclusion {
        Exclusion::Temporary => "its name is that of a temporary file".to_owned(),
        Exclusion::Hidden => "dot files and backup copies are left out, as sersync does".to_owned(),
        Exclusion::Expression(n) => {
            let expression = root.rules.excludes.get(n).map_or("", String::as_str);
            format!("excluded by the expression {expression}")
        }
    });
    let kept = (presence == Presence::Missing && !root.rules.events.delete)
        .then(|| "it is gone, and deletions are not mirrored (delete is off)".to_owned());
    excluded.or(kept)
}

/// Refuses to answer for a path that is left out or of which nothing is known. Such a path is probably misspelt, and any answer
/// about it would be true. Call this behind the watcher's barrier, so that a path that has just come or gone is known.
pub(super) fn check_known(
    root: &RootRuntime,
    path: &RelPath,
    core: &Core,
    targets: &[NamedTarget],
) -> Result<(), Refusal> {
    if path.is_root() {
        return Ok(());
    }
    let shown = path.under(root.path()).display().to_string();
    let presence = Source::new(root.path()).look(path);
    for target in targets {
        // A failure to ask rsync about the path also fails the path's jobs, and they report it.
        if let Ok(Some(why)) = left_out(root, path, &core.executor, target) {
            let hint = format!("syncq explain {shown} says the same; nothing is sent or deleted there");
            let message = format!("{shown} is not mirrored to {}: {why}", target.name);
            return Err(Refusal::new(RefusalKind::Wrong, message, hint));
        }
    }
    let has_job = |target: &NamedTarget| core.queue.is_about(target.id, path);
    if presence != Presence::Missing || root.has_lost(path) || targets.iter().any(has_job) {
        return Ok(());
    }
    let message = format!("nothing is there in the source: {shown}, and nothing is known to have been");
    let above = path.parent().filter(|above| !above.is_root());
    let above =
        above.map_or_else(|| root.path().display().to_string(), |above| above.under(root.path()).display().to_string());
    let hint = format!("check the name; if it was deleted some time ago, ask about the directory: {above}");
    Err(Refusal::new(RefusalKind::Unknown, message, hint))
}

/// Answers like [`explain`] without a daemon, from the store alone.
pub(super) fn explain_offline(
    root: &Path,
    path: &RelPath,
    targets: impl Iterator<Item = TargetExplanation>,
) -> Explanation {
    Explanation {
        root: root.display().to_string(),
        path: path_text(path),
        source: standing_there(Source::new(root).look(path)).to_owned(),
        mirrored: None,
        rule: None,
        targets: targets.collect(),
    }
}

/// The word for a place that cannot be looked at, and for a source that is not the one that is mirrored.
const OUT_OF_REACH: &str = "out of reach";

/// The word for what stands at a path.
fn standing_there(presence: Presence) -> &'static str {
    match presence {
        Presence::Missing => "nothing",
        Presence::Directory => "directory",
        Presence::File { .. } => "file",
        Presence::Other => "other",
        Presence::Unknown(_) => OUT_OF_REACH,
    }
}

fn path_text(path: &RelPath) -> String {
    if path.is_root() { String::new() } else { path.to_string() }
}

/// The facts about a target that the queue does not know: what holds up all its jobs, and how its runs look.
#[derive(Debug)]
pub(super) struct Circumstances {
    pub state: TargetState,
    /// Why nothing is sent or deleted at all, if that is so.
    pub suspended: Option<String>,
    /// Why a path may differ although it has no job, if it may.
    pub unknown: Option<String>,
    /// The notice that another rsync undoes what is sent to this path, if one does.
    pub answered: Option<String>,
    /// Why the path is not mirrored to this target, if it is not.
    pub left_out: Option<String>,
    pub command: Option<String>,
}

/// How one target stands to the path. `found` is the job that will make the path equal there, and the reason for its wait.
pub(crate) fn on_target(
    target: &NamedTarget,
    path: &RelPath,
    found: Option<(Job, Option<RelPath>)>,
    standing: &Standing,
    circumstances: impl FnOnce(&RelPath, Scope) -> Circumstances,
) -> TargetExplanation {
    let Circumstances { state, suspended, unknown, answered, left_out, command } = match &found {
        Some((job, _)) => circumstances(&job.path, job.scope),
        None => circumstances(path, Scope::Entry),
    };
    let is_held = suspended.is_some();
    let waits_for = match &found {
        Some((job, blocker)) => {
            let answered = answered.map(|answered| format!("; {answered}")).unwrap_or_default();
            Some(reason(&target.name, job, path, blocker.as_ref(), standing, suspended.as_deref()) + &answered)
        }
        None => unknown.or(answered),
    };
    TargetExplanation {
        name: target.name.clone(),
        state,
        next_try: found.as_ref().filter(|_| !is_held).and_then(|(job, _)| next_try(job, standing)),
        job: found.map(|(job, _)| JobRow::new(&job, &target.root, &target.name)),
        waits_for,
        left_out,
        last_success_at: standing.last_success,
        command,
    }
}

fn next_try(job: &Job, standing: &Standing) -> Option<Timestamp> {
    let due = (job.state == JobState::Waiting).then_some(job.due_at);
    due.max(standing.probe_at).filter(|_| standing.paused_since.is_none() && job.state != JobState::Failed)
}

/// The reason for the job's wait. What holds up the whole target comes before what holds up the job.
fn reason(
    target: &str,
    job: &Job,
    path: &RelPath,
    blocker: Option<&RelPath>,
    standing: &Standing,
    suspended: Option<&str>,
) -> String {
    if job.state == JobState::Running {
        return if job.path == *path {
            "its run, which is under way".to_owned()
        } else {
            format!("the run over {}, which is under way", job.path)
        };
    }
    let then = suspended.map(|held| format!("; and {held}")).unwrap_or_default();
    if job.state == JobState::Failed {
        return format!("a change of it, a comparison or an operator: given up after {} failures", job.attempts)
            + &format!(" (syncq retry {}){then}", job.id.0);
    }
    if let Some(since) = standing.paused_since {
        return format!("an operator: the target is paused since {since} (syncq resume {target}){then}");
    }
    if let Some(held) = suspended {
        return held.to_owned();
    }
    if let Some(trouble) = &standing.trouble {
        return format!("the target: {}", trouble.message);
    }
    if job.last_error.as_ref().is_some_and(JobError::asks_for_approval) {
        return format!("an operator, who has to agree or mend it: syncq accept-deletions {target}");
    }
    match (job.state, blocker, job.attempts) {
        (JobState::Waiting, _, 0) => {
            "a pause: it is still being written, was sent a moment ago, or is looked at again since a run was cut off"
                .to_owned()
        }
        (JobState::Waiting, _, attempts) => format!("its next attempt, after {attempts} failures"),
        (_, Some(blocker), _) => format!("the end of the run over {blocker}, which must not overlap with its own"),
        _ => "its turn".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Generation, JobId, Origin, TargetId, TargetTrouble, TroubleClass};

    /// The job that a change of the path would make.
    fn imagined(target: TargetId, path: &RelPath) -> Job {
        Job {
            id: JobId(0),
            target,
            path: path.clone(),
            scope: Scope::Entry,
            origin: Origin::Write,
            state: JobState::Ready,
            generation: Generation::FIRST,
            queued_at: Timestamp::ZERO,
            changed_at: Timestamp::ZERO,
            attempts: 0,
            due_at: Timestamp::ZERO,
            partial: false,
            last_error: None,
        }
    }

    #[test]
    fn the_first_thing_in_the_way_is_named() {
        let path = RelPath::new(b"d/a").expect("a path");
        let above = RelPath::new(b"d").expect("a path");
        let job = |state, attempts| Job { state, attempts, ..imagined(TargetId(1), &path) };
        let asks = JobError::new(Some(JobError::DELETES_TOO_MUCH), "1200 of 1205 entries would be deleted");
        let held = Job { last_error: Some(asks), ..job(JobState::Waiting, 4) };
        let well = Standing::default();
        let paused = Standing { paused_since: Some(Timestamp(1)), ..Standing::default() };
        let trouble = TargetTrouble {
            class: TroubleClass::Unavailable,
            code: Some(10),
            message: "refused".into(),
            hint: None,
            command: None,
        };
        let away = Standing { trouble: Some(trouble), probe_at: Some(Timestamp(9)), ..Standing::default() };
        for (job, blocker, standing, words) in [
            (job(JobState::Running, 0), None, &paused, "its run"),
            (job(JobState::Failed, 7), None, &paused, "given up after 7 failures"),
            (job(JobState::Ready, 0), Some(&above), &paused, "(syncq resume b::m)"),
            (job(JobState::Failed, 7), None, &well, "given up after 7 failures (syncq retry 0)"),
            (job(JobState::Ready, 0), None, &away, "the target: refused"),
            (job(JobState::Waiting, 0), None, &well, "a pause"),
            (job(JobState::Waiting, 3), None, &well, "after 3 failures"),
            (held, None, &well, "syncq accept-deletions b::m"),
            (job(JobState::Ready, 0), Some(&above), &well, "the run over d,"),
            (job(JobState::Ready, 0), None, &well, "its turn"),
        ] {
            let said = reason("b::m", &job, &path, blocker, standing, None);
            assert!(said.contains(words), "{said}");
        }
        // A reason that held up everything hid that the job was given up, or that its target was paused.
        for (job, standing, words) in [
            (job(JobState::Running, 0), &well, &["its run"][..]),
            (job(JobState::Failed, 7), &well, &["given up", "; and the source is away"]),
            (job(JobState::Ready, 0), &paused, &["paused", "; and the source is away"]),
            (job(JobState::Ready, 0), &away, &["the source is away"]),
        ] {
            let said = reason("b::m", &job, &path, None, standing, Some("the source is away"));
            assert!(words.iter().all(|words| said.contains(words)), "{said}");
        }
        assert_eq!(next_try(&Job { due_at: Timestamp(5), ..job(JobState::Waiting, 1) }, &well), Some(Timestamp(5)));
        assert_eq!(next_try(&job(JobState::Ready, 0), &away), Some(Timestamp(9)));
        assert_eq!(next_try(&job(JobState::Ready, 0), &paused), None);
    }
}
