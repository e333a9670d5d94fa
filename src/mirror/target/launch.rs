//! Starts rsync for a target: over the connection to its host if there is one, and again if the server had no connection
//! left a moment ago. Also the run that transfers nothing, and the command line that a person may paste.
//!
//! Deliberately absent: the runs of a batch, which are planned elsewhere (`execute`), and the meaning of their words
//! (`outcome`).

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use super::context::TargetContext;
use crate::mirror::outcome::classify::{Outcome, classify};
use crate::mirror::outcome::diagnosis::cannot_start;
use crate::mirror::plan::arguments::{Pass, arguments, probe_arguments, with_remote_shell};
use crate::mirror::plan::narrow;
use crate::mirror::plan::run::{Entry, Run, RunKind};
use crate::mirror::plan::shell_line::pasteable;
use crate::mirror::plan::source::Presence;
use crate::mirror::rsync::capture::Capture;
use crate::mirror::rsync::ended::Ended;
use crate::mirror::rsync::process::{Priority, run};
use crate::mirror::rsync::stop::StopSignal;
use crate::model::{Lane, Origin, RelPath, Scope, TargetTrouble, TroubleClass};

/// How often and after which pause a refused run is begun again, while the server may still count the batch's last
/// connection.
const OWN_CONNECTION_PAUSES: u32 = 20;
const OWN_CONNECTION_PAUSE: Duration = Duration::from_millis(50);

/// Runs rsync for a target, over the connection to its host if it has one.
pub(in crate::mirror) fn run_rsync(
    ctx: &TargetContext,
    args: &[OsString],
    list: &[u8],
    stdout: &dyn Fn() -> Option<Capture>,
    priority: Priority,
    stop: &StopSignal,
) -> io::Result<Ended> {
    #[cfg(test)]
    if let Some(stand_in) = &ctx.stand_in {
        return (stand_in.0)(args, list, stdout(), stop);
    }
    let start = |args: &[OsString]| {
        let ended = run(&ctx.program, &ctx.root, args, list, stdout(), priority, stop);
        ended.inspect(|ended| ctx.note_cut(ended.cut))
    };
    match &ctx.connection {
        Some(connection) => connection.drive(stop, |line| start(&with_remote_shell(args, line))),
        None => start(args),
    }
}

/// Starts a run, and starts it again while the server refuses it for want of a connection that this process has just given
/// up: a server takes its time to notice the end of a connection. Where a server allows only one, a batch that needs two
/// runs would otherwise never be done, nor any run beside a standby.
pub(in crate::mirror) fn with_room(
    ctx: &TargetContext,
    run: &Run,
    had_another: bool,
    stop: &StopSignal,
    start: &dyn Fn() -> io::Result<Ended>,
) -> io::Result<Ended> {
    let refused = |ended: &io::Result<Ended>| {
        ended.as_ref().is_ok_and(|ended| is_busy(&classify(ended, run, &ctx.prefixes, &ctx.noise)))
    };
    let mut ended = start();
    let makes_room = refused(&ended) && ctx.standby.as_ref().is_some_and(|standby| standby.make_room());
    let mut pauses = if had_another || makes_room { OWN_CONNECTION_PAUSES } else { 0 };
    while pauses > 0 && refused(&ended) {
        stop.rest(OWN_CONNECTION_PAUSE);
        pauses -= 1;
        ended = start();
    }
    ended
}

/// In a test, a function in place of the process. Its arguments are rsync's, the list, and the buffer for the output.
#[cfg(test)]
pub(in crate::mirror) struct StandIn(pub(crate) Box<RunInPlace>);

#[cfg(test)]
type RunInPlace = dyn Fn(&[OsString], &[u8], Option<Capture>, &StopSignal) -> io::Result<Ended> + Send + Sync;

#[cfg(test)]
impl std::fmt::Debug for StandIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StandIn")
    }
}

fn is_busy(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Target(TargetTrouble { class: TroubleClass::Busy, .. }))
}

/// Asks whether the target can be reached and lets this machine in, by a run that transfers nothing. The error says why
/// not.
pub fn probe(ctx: &TargetContext, stop: &StopSignal) -> Result<(), TargetTrouble> {
    ctx.check()?;
    let mode = ctx.capabilities.mode(Lane::Small, ctx.target.options.delete, Pass::Real);
    let args = probe_arguments(&ctx.target, mode);
    let nothing = Run::new(RunKind::Flat, Origin::Scan, Vec::new());
    let start = || run_rsync(ctx, &args, b"", &|| None, Priority::Usual, stop);
    let ended = with_room(ctx, &nothing, false, stop, &start).map_err(|error| cannot_start(&error))?;
    match classify(&ended, &nothing, &ctx.prefixes, &ctx.noise) {
        Outcome::Target(found) | Outcome::Split(found) | Outcome::NoRoom { trouble: found, .. } => {
            Err(TargetTrouble { command: Some(pasteable(&ctx.root, &args, &nothing)), ..found })
        }
        // The target answers. A batch will find out what the target lacks or which path fails.
        Outcome::Done | Outcome::Paths(_) | Outcome::Fallback(_) | Outcome::Blocked(..) | Outcome::Void => Ok(()),
    }
}

/// The command line that makes one path equal, to be pasted into a shell. `None` if the user's filter cannot be expressed
/// in rsync's rules.
pub fn command_line(ctx: &TargetContext, path: &RelPath, scope: Scope) -> Option<String> {
    let (kind, origin) = match scope {
        Scope::Entry if path.is_root() => (RunKind::RootOnly, Origin::Scan),
        Scope::Entry => (RunKind::Flat, Origin::Write),
        Scope::Children => (RunKind::Level, Origin::Scan),
        Scope::Subtree => (RunKind::Tree, Origin::Scan),
    };
    if scope > Scope::Entry && ctx.filter.has_expressions() {
        return None;
    }
    let entry = Entry { path: path.clone(), presence: Presence::Other, orphan: false, jobs: Vec::new() };
    let run = Run { looks: ctx.target.options.params.selects(), ..Run::new(kind, origin, vec![entry]) };
    let run = narrow::prepared(&run, &ctx.root);
    let rules = ctx.filter.rsync_rules();
    let args = arguments(&ctx.target, &run, ctx.mode(Lane::Small, Pass::Real, &rules));
    Some(pasteable(&ctx.root, &args, &run))
}
