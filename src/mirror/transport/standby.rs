//! A connection to each target in use that stands ready, so that a change does not wait for one.
//!
//! `rsync --files-from=-` connects and is let in before it reads its list. So one is started ahead for the argument list
//! of the next flat run, and gets that run's list when there is one. It is replaced in the background once the batch has
//! come back, exchanged before it grows old, and goes when the target has not been in use for some minutes (`standby_lifetime`).
//! The dispatcher decides when ([`Standby::next`]) and has the workers do it.
//!
//! A standby only makes things faster; nothing may depend on it:
//!
//! - It is bound to the directory in which it was started. That is compared with the root's identity when the list is
//!   handed over, and not the root's name.
//! - Whatever keeps it from being used, and whatever end but a regular one a run has that was begun on it, makes the same
//!   run begin again over a fresh connection, and that one counts. If the list had been handed over, its receiver may
//!   still be writing: then the batch counts as cut off.
//! - The server has entered the module's directory when the connection was made. If that directory has been moved away,
//!   or another file system was mounted over it since, everything goes to the old one, and rsync ends with 0. So what was
//!   done over a connection older than two seconds shows at the target at once, but is confirmed: the run is repeated over
//!   a fresh connection, with the quick check. Then it costs what it would have cost anyway, only nobody waits for it.
//! - It counts as a connection of the target. It goes first when the target is short of them, and a run that was refused
//!   for want of one is tried again when the standbys at the same server have gone. Such a target gets none for a while.
//!
//! There is at most one for each target, and at most [`STANDBYS_MAX`] in all. They count as rsyncs where their number is
//! limited (`-n`): they go before a run has to wait or there is one too many. A daemon that is killed leaves none: they
//! find the end of an empty list, and end.
//!
//! It keeps the file systems of the source and of the target busy, so that neither can be unmounted; `pause` ends it.
//!
//! Deliberately absent: targets that are reached through ssh, whose runs share a connection already (`ssh`), local ones,
//! those that keep backups, and long lists, for which a connection is not what takes the time.

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use log::debug;
use parking_lot::{Mutex, MutexGuard};

use super::root_identity::RootIdentity;
use super::standby_lifetime::{Lifetime, Loss};
use crate::clock::monotonic;
use crate::mirror::plan::arguments::Pass;
use crate::mirror::plan::run::{Run, RunKind};
use crate::mirror::plan::source::Presence;
use crate::mirror::rsync::capture::Capture;
use crate::mirror::rsync::ended::{Cut, End, Ended};
use crate::mirror::rsync::process::Started;
use crate::mirror::rsync::program::Program;
use crate::mirror::rsync::stop::StopSignal;
use crate::model::{Destination, Lane, Origin, Target};

/// So many stand ready at the most, over all targets. Each is a process of some megabytes here and one at the server.
pub const STANDBYS_MAX: usize = 32;

/// A run with more than this starts cold: the connection is not what takes its time, and confirming costs the more the
/// longer its list.
const ENTRIES_MAX: usize = 200;
const BYTES_MAX: u64 = 1 << 20;

/// For so long a new one leaves the processor to the runs of other targets: in a burst to many, it is theirs.
const DEFERENCE: Duration = Duration::from_millis(100);

/// A run over a standby that moves no byte for so long has lost its connection without a word. Runs are short here.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// How long one that has been told to end may take. It takes a moment, unless its connection is dead.
const END_WITHIN: Duration = Duration::from_millis(200);

/// For so long after a standby has ended, the server may count its connection.
const COUNTED_FOR: Duration = Duration::from_secs(2);

/// The standbys of one daemon.
#[derive(Debug, Default)]
pub struct Standbys(Arc<All>);

#[derive(Debug, Default)]
struct All {
    known: Mutex<Vec<Weak<Standby>>>,
    closed: AtomicBool,
}

impl Standbys {
    /// The place for the standbys of `target`. `None` if it is to have none.
    pub fn of(&self, target: &Target, wanted: bool) -> Option<Arc<Standby>> {
        let Destination::Daemon { host, .. } = &target.destination else { return None };
        // It waits for a list. Where rsync looks for itself there is none.
        // Through a remote shell there is a login to each.
        if !wanted || target.options.params.selects() || target.options.params.remote_shell().is_some() {
            return None;
        }
        let host = host.rsplit_once('@').map_or(host.as_str(), |(_, host)| host).to_owned();
        let lifetime = Lifetime::new(target.options.timeout);
        let standby = Arc::new(Standby {
            server: Server { host, port: target.options.port },
            all: Arc::clone(&self.0),
            state: Mutex::new(State {
                lifetime,
                waiting: None,
                ordered: false,
                closed: false,
                lacking_since: None,
                ended_at: None,
            }),
        });
        let mut known = self.0.known();
        known.retain(|standby| standby.strong_count() > 0);
        known.push(Arc::downgrade(&standby));
        Some(standby)
    }

    /// Ends them all, for good.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        let known: Vec<_> = self.0.known().iter().filter_map(Weak::upgrade).collect();
        let mut waiting: Vec<Waiting> = known.iter().filter_map(|standby| standby.lock().close()).collect();
        // All at once.
        waiting.iter_mut().for_each(|waiting| waiting.started.release());
        let begun = monotonic();
        for Waiting { started, .. } in waiting {
            let _ = started.dismiss(END_WITHIN.saturating_sub(begun.elapsed()));
        }
    }
}

impl All {
    fn known(&self) -> MutexGuard<'_, Vec<Weak<Standby>>> {
        self.known.lock()
    }
}

/// What counts connections: modules share one count, unless each has a lock file of its own.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    host: String,
    port: Option<u16>,
}

/// The standby of one target, if it has one at present.
#[derive(Debug)]
pub struct Standby {
    server: Server,
    all: Arc<All>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    lifetime: Lifetime,
    waiting: Option<Waiting>,
    /// A worker has been told to do something about it.
    ordered: bool,
    closed: bool,
    /// Since when there is none although there should be.
    lacking_since: Option<Instant>,
    /// When the last one went.
    ended_at: Option<Instant>,
}

/// An rsync that waits for its list.
#[derive(Debug)]
struct Waiting {
    started: Started,
    args: Vec<OsString>,
    born: Instant,
    /// Which directory it was started for. It goes to its place by name, but may be confined to the one that was there.
    identity: RootIdentity,
}

/// How the runs of a target are started that may go over a standby.
#[derive(Debug)]
pub struct Launch<'a> {
    pub program: &'a Program,
    /// Where they begin.
    pub root: &'a Path,
    pub identity: RootIdentity,
    /// The arguments of those that send what was written. They depend on no path.
    pub args: Vec<OsString>,
    /// The target, for the log.
    pub name: String,
}

/// What is to be done about a target's standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing, unless something happens.
    Nothing,
    /// Nothing until then.
    At(Instant),
    /// A worker shall [`Standby::renew`] it.
    Renew,
    /// A worker shall [`Standby::end`] it.
    End,
}

/// What became of a run that was to begin on a standby.
#[derive(Debug)]
pub enum Begun {
    /// It could not.
    Not,
    /// It went through, and counts.
    Answered(Ended),
    /// It went through, as far as the other side tells, and has to be confirmed. What it printed.
    Unconfirmed(Capture),
    /// It broke off. What is known of its connection, and what it had printed.
    CutOff(Cut, Capture),
}

/// Whether the connection is what takes the time of a run, which then also names what it changes.
pub fn suits(run: &Run, lane: Lane, pass: Pass) -> bool {
    let content = |entry: &crate::mirror::plan::run::Entry| match entry.presence {
        Presence::File { size } => Some(size),
        Presence::Other | Presence::Unknown(_) => Some(0),
        Presence::Missing | Presence::Directory => None,
    };
    // A standby compares contents. Where there are none that makes no difference.
    let may_compare = run.origin == Origin::Write || run.entries.iter().all(|entry| content(entry).is_none());
    // A directory that stands for the many new files in it: a standby would read each of them twice.
    let are_many_new = run.are_new && !run.with_contents.is_empty();
    run.kind == RunKind::Flat
        && !are_many_new
        && lane == Lane::Small
        && pass == Pass::Real
        && may_compare
        && run.entries.len() <= ENTRIES_MAX
        && run.entries.iter().filter_map(content).fold(0, u64::saturating_add) <= BYTES_MAX
}

impl State {
    fn close(&mut self) -> Option<Waiting> {
        self.closed = true;
        self.take(monotonic())
    }

    fn take(&mut self, now: Instant) -> Option<Waiting> {
        let waiting = self.waiting.take()?;
        self.ended_at = Some(now);
        Some(waiting)
    }

    /// Takes note of how one ended that was not given a list.
    fn learn(&mut self, ended: &Ended, born: Instant, now: Instant) {
        if ended.end != End::Exit(0) {
            let is_busy = String::from_utf8_lossy(&ended.stderr.bytes()).contains("@ERROR: max connections");
            self.lifetime.lost(if is_busy { Loss::Busy } else { Loss::Dead }, born, now);
        }
    }
}

impl Standby {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Something was sent to the target.
    pub fn used(&self, now: Instant) {
        self.lock().lifetime.used(now);
    }

    /// What is to be done now. `may_wait`: the target bears a connection that waits. `may_start`: no run of the target is in
    /// its way. `disturbs`: those of several others are. An answer that asks for a worker is given once.
    pub fn next(&self, may_wait: impl Fn() -> bool, may_start: bool, disturbs: bool, now: Instant) -> Next {
        let mut state = self.lock();
        if state.ordered || state.closed {
            return Next::Nothing;
        }
        let next = match &state.waiting {
            Some(_) if !may_wait() => Next::End,
            Some(waiting) => match state.lifetime.ends_at(waiting.born, now) {
                at if at > now => Next::At(at),
                _ => Next::Renew,
            },
            None if may_start && state.lifetime.wants(now) && may_wait() => {
                match *state.lacking_since.get_or_insert(now) + DEFERENCE {
                    at if disturbs && at > now => Next::At(at),
                    _ => Next::Renew,
                }
            }
            None => Next::Nothing,
        };
        state.ordered = matches!(next, Next::Renew | Next::End);
        next
    }

    /// Whether there is one, or is about to be.
    pub fn is_held(&self) -> bool {
        let state = self.lock();
        state.waiting.is_some() || state.ordered
    }

    /// Ends the present one, and starts another if the target is to have one. `launch` is asked after that end, and tells how
    /// runs are started then.
    pub fn renew<'a>(&self, launch: impl FnOnce() -> Launch<'a>) {
        self.end();
        let now = monotonic();
        let mut state = self.lock();
        if state.closed
            || self.all.closed.load(Ordering::SeqCst)
            || state.waiting.is_some()
            || !state.lifetime.wants(now)
        {
            return;
        }
        let Launch { program, root, identity, args, .. } = launch();
        // Looked at again when the list is handed over; this spares the attempt.
        if identity.check(root).is_err() {
            // Or the next one would be asked for at once, and so on, for as long as the source is away.
            return state.lifetime.lost(Loss::Away, now, now);
        }
        match Started::new(program, root, &args, true) {
            Ok(started) => {
                let waiting = Waiting { started, args, born: now, identity };
                (state.waiting, state.lacking_since) = (Some(waiting), None);
            }
            Err(_) => state.lifetime.lost(Loss::Dead, now, now),
        }
    }

    /// Ends the present one.
    pub fn end(&self) {
        let mut state = self.lock();
        state.ordered = false;
        let Some(Waiting { started, born, .. }) = state.take(monotonic()) else { return };
        drop(state);
        let ended = started.dismiss(END_WITHIN);
        if let Ok(Some(ended)) = ended {
            self.lock().learn(&ended, born, monotonic());
        }
    }

    /// Ends the present one, and there is no other.
    pub fn close(&self) {
        self.lock().closed = true;
        self.end();
    }

    /// A run to the target was refused for want of a connection. Ends the standbys that hold one there. Returns whether
    /// there were any.
    pub(in crate::mirror) fn make_room(&self) -> bool {
        let known: Vec<_> = self.all.known().iter().filter_map(Weak::upgrade).collect();
        let same = known.iter().filter(|other| other.server == self.server);
        let made: Vec<bool> = same
            .map(|other| {
                let now = monotonic();
                let mut state = other.lock();
                let was_there = state.waiting.is_some();
                let counts = state.ended_at.is_some_and(|at| now.duration_since(at) < COUNTED_FOR);
                if was_there || counts {
                    state.lifetime.lost(Loss::Busy, now, now);
                }
                drop(state);
                other.end();
                was_there || counts
            })
            .collect();
        made.contains(&true)
    }

    /// Has the run with this list made over the connection that stands ready, if there is one that can be used and was
    /// started as runs are now.
    pub fn begin(&self, launch: &Launch<'_>, list: &[u8], stdout: Option<Capture>, stop: &StopSignal) -> Begun {
        let name = &launch.name;
        // One that is just being started or ended is not waited for.
        let Some(mut state) = self.state.try_lock() else { return Begun::Not };
        let now = monotonic();
        let Some(Waiting { mut started, args, born, identity }) = state.take(now) else { return Begun::Not };
        let age = now.duration_since(born);
        if let Ok(Some(ended)) = started.ended() {
            state.learn(&ended, born, now);
            debug!("{name}: the standby was found dead after {} s", age.as_secs());
            return Begun::Not;
        }
        let fits = identity == launch.identity && args == launch.args && state.lifetime.is_usable(born, now);
        drop(state);
        if !fits || launch.identity.check(&started.directory()).is_err() {
            return Begun::Not;
        }
        match started.hand_over(list, stdout, STALL_LIMIT, stop) {
            Ok(ended) if matches!(ended.end, End::Exit(0 | 23 | 24 | 25)) => {
                debug!("{name}: sent by the standby, {} ms old", age.as_millis());
                if Lifetime::is_trusted(born, now) { Begun::Answered(ended) } else { Begun::Unconfirmed(ended.stdout) }
            }
            Ok(ended) if matches!(ended.end, End::Stopped | End::Blocked) => Begun::Answered(ended),
            broken => {
                debug!("{name}: the standby broke after {} s, a fresh run begins", age.as_secs());
                self.lock().lifetime.lost(Loss::Dead, born, now);
                let cut = broken.as_ref().map_or(Cut::Held, |ended| ended.cut);
                Begun::CutOff(cut, broken.map(|ended| ended.stdout).unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
impl Standby {
    /// Makes the present one older.
    pub fn age(&self, by: Duration) {
        if let Some(waiting) = &mut self.lock().waiting {
            waiting.born -= by;
        }
    }

    pub fn is_there(&self) -> bool {
        self.lock().waiting.is_some()
    }

    pub(in crate::mirror) fn has_died(&self) -> bool {
        self.lock().waiting.as_mut().is_some_and(|waiting| waiting.started.has_died())
    }
}
