//! A connection to each target in use that stands ready, so that a change does not wait for one.
//!
//! `rsync --files-from=-` connects and is let in before it reads its list. So an rsync, the standby, is started ahead with
//! the arguments of the next flat run, and gets that run's list when there is one. It is replaced in the background once
//! the batch has come back, exchanged before it grows old, and ended when the target has not been in use for some minutes
//! (`standby_lifetime`). The dispatcher decides when ([`Standby::next`]) and has the workers do it.
//!
//! A standby only makes things faster; nothing may depend on it:
//!
//! - A standby is bound to the directory in which it was started. When the list is handed over, that directory, and not the
//!   root's name, is compared with the root's identity.
//! - If a standby cannot be used, or a run begun on it ends in any way but a regular one, the same run begins again over a
//!   fresh connection, and that one counts. If the list had been handed over, the first receiver may still be writing: then
//!   the batch counts as cut off.
//! - The server entered the module's directory when the connection was made. If that directory has been moved away, or
//!   another file system was mounted over it since, everything goes to the old directory, and rsync ends with 0. So what
//!   was done over a connection older than two seconds shows at the target at once, but is confirmed: the run is repeated
//!   over a fresh connection, with the quick check. A confirmed run costs as much as one without a standby, only nobody
//!   waits for it.
//! - A standby counts as a connection of the target. It is ended first when the target is short of connections. A run that
//!   was refused for want of one is tried again when the standbys at the same server have gone. Such a target gets no
//!   standby for a while.
//!
//! There is at most one standby for each target, and at most [`STANDBYS_MAX`] in all. Standbys count as rsyncs where their
//! number is limited (`-n`): one is ended before a run has to wait, or when there is one too many. A daemon that is killed
//! leaves none: each standby reads the end of an empty list, and ends.
//!
//! A standby keeps the file systems of the source and of the target busy, so that neither can be unmounted; `pause` ends
//! it.
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

/// The most standbys over all targets. Each is a process of some megabytes here and one at the server.
pub const STANDBYS_MAX: usize = 32;

/// A run with more entries or bytes than this starts cold: the connection is not what takes its time, and confirming costs
/// the more the longer its list.
const ENTRIES_MAX: usize = 200;
const BYTES_MAX: u64 = 1 << 20;

/// For this long a new standby leaves the processor to the runs of other targets: in a burst to many, they need it.
const DEFERENCE: Duration = Duration::from_millis(100);

/// A run over a standby that moves no byte for this long has lost its connection without a message. Such runs are short.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// How long a standby that is told to end may take. It ends in a moment, unless its connection is dead.
const END_WITHIN: Duration = Duration::from_millis(200);

/// How long after the end of a standby the server may still count its connection.
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
    /// The place for the standby of `target`. `None` if the target is to have none: `wanted` is off, or a standby cannot
    /// serve it.
    pub fn of(&self, target: &Target, wanted: bool) -> Option<Arc<Standby>> {
        let Destination::Daemon { host, .. } = &target.destination else { return None };
        // A standby waits for a list. Where rsync looks for itself there is none. Through a remote shell each standby would
        // be a login.
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

    /// Ends all standbys, for good.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        let known: Vec<_> = self.0.known().iter().filter_map(Weak::upgrade).collect();
        let mut waiting: Vec<Waiting> = known.iter().filter_map(|standby| standby.lock().close()).collect();
        // All standbys are told to end before the first is waited for.
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

/// The server at which connections are counted: modules share one count, unless each has a lock file of its own.
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
    /// A worker has been told to renew or end the standby.
    ordered: bool,
    closed: bool,
    /// Since when there has been no standby although there should be one.
    lacking_since: Option<Instant>,
    /// When the last standby ended.
    ended_at: Option<Instant>,
}

/// An rsync that waits for its list.
#[derive(Debug)]
struct Waiting {
    started: Started,
    args: Vec<OsString>,
    born: Instant,
    /// Which directory the standby was started for. The standby enters the root by name, but may be confined to another
    /// directory that had the name a moment before.
    identity: RootIdentity,
}

/// How those runs of a target are started that may go over a standby.
#[derive(Debug)]
pub struct Launch<'a> {
    pub program: &'a Program,
    /// The directory in which they begin.
    pub root: &'a Path,
    pub identity: RootIdentity,
    /// The arguments of runs that send written paths. They depend on no path.
    pub args: Vec<OsString>,
    /// The target, for the log.
    pub name: String,
}

/// The dispatcher's next step for a target's standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing, unless something happens.
    Nothing,
    /// Nothing until this moment.
    At(Instant),
    /// Have a worker [`Standby::renew`] it.
    Renew,
    /// Have a worker [`Standby::end`] it.
    End,
}

/// The result of an attempt to begin a run on a standby.
#[derive(Debug)]
pub enum Begun {
    /// The standby could not be used.
    Not,
    /// The run ended, and its end counts.
    Answered(Ended),
    /// The run went through, as far as the other side tells, but has to be confirmed. Holds what rsync printed.
    Unconfirmed(Capture),
    /// The run broke off. Holds what is known of its connection, and what rsync had printed.
    CutOff(Cut, Capture),
}

/// Whether `run` may go over a standby: the connection takes most of its time. Such a run also names what it changes.
pub fn suits(run: &Run, lane: Lane, pass: Pass) -> bool {
    let content = |entry: &crate::mirror::plan::run::Entry| match entry.presence {
        Presence::File { size } => Some(size),
        Presence::Other | Presence::Unknown(_) => Some(0),
        Presence::Missing | Presence::Directory => None,
    };
    // A standby compares contents, which makes no difference to a run without any.
    let may_compare = run.origin == Origin::Write || run.entries.iter().all(|entry| content(entry).is_none());
    // A directory listed in place of many new files: a standby, which compares contents, would read each of them twice.
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

    /// Learns from the end of a standby that was not given a list.
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

    /// Notes that something was sent to the target.
    pub fn used(&self, now: Instant) {
        self.lock().lifetime.used(now);
    }

    /// The next step at this moment. `may_wait`: the target has a connection to spare. `may_start`: no run of the target is in
    /// the way of a new standby. `disturbs`: several other targets are being sent to, so a new standby waits `DEFERENCE`
    /// before it takes processor time from them. An answer that asks for a worker is given once.
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

    /// Whether there is a standby, or a worker has been told to start or end one.
    pub fn is_held(&self) -> bool {
        let state = self.lock();
        state.waiting.is_some() || state.ordered
    }

    /// Ends the present standby, and starts another if the target is to have one. `launch` is called after that end, and
    /// tells how runs are started by then.
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
        // The root is checked again when the list is handed over; this check spares a vain start.
        if identity.check(root).is_err() {
            // Without a rest the next standby would be asked for at once, again and again, for as long as the source is
            // away.
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

    /// Ends the present standby.
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

    /// Ends the present standby, and lets no other start.
    pub fn close(&self) {
        self.lock().closed = true;
        self.end();
    }

    /// A run to the target was refused for want of a connection. Ends all standbys at the same server. Returns whether the
    /// server may have counted any of them.
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

    /// Makes the run with this list over the standby, if there is one that can be used and was started the way runs are
    /// started now.
    pub fn begin(&self, launch: &Launch<'_>, list: &[u8], stdout: Option<Capture>, stop: &StopSignal) -> Begun {
        let name = &launch.name;
        // A standby that is just being started or ended is not waited for.
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
    /// Makes the present standby older.
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
