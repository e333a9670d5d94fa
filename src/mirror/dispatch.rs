//! Hands the queue's batches to a pool of workers, each of which runs rsync, and brings back what came of them.
//!
//! One thread decides; it sleeps until there is work, a run ends, a wait is over, or it is told to stop. It starts a
//! batch only when a worker is free, so claimed jobs never sit in a line: the durable queue is the only queue. A
//! target's runs are limited by its [`Lanes`], and who gets the next one is decided in `shares`. For that the dispatcher
//! knows which targets have answered, and looks now and then whether the runs in flight move, more often while somebody goes
//! without a place. A run that it ends counts as cut off, and as the target's trouble.
//!
//! Which targets are served, and how, may be replaced at any time ([`Executor::serve`]). A run that is in flight then
//! comes to its end as it was begun, be its target served any more or not.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use log::{debug, error, info, warn};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::activity::{Activities, Happened, Listener};
use super::admit;
use super::changed::Ran;
use super::context::TargetContext;
use super::environment;
use super::execute::execute;
use super::lanes::Lanes;
use super::launch::command_line;
use super::lingering;
use super::looked::Contents;
use super::pace::moved;
use super::report::BatchReport;
use super::shares::{self, Candidate, Flight, Health, Step};
use super::ssh::by_hand;
use super::standby::{Next, STANDBYS_MAX, Standby};
use super::stop::StopSignal;
use super::survey::{Comparison, Look};
use super::top;
use super::under_way::Course;
use super::unvouched;
use crate::clock::{Clock, monotonic};
use crate::model::{
    Change, JobError, Lane, Lingers, RelPath, Scope, Target, TargetId, TargetTrouble, Timestamp, Top, TroubleClass,
    Verdict, counted,
};
use crate::queue::{Batch, BatchResult, Queue, TargetEvent};

/// How long running rsyncs may take to end by themselves at a stop, before they are ended.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// How long ended rsyncs may take to be gone: above the time after which `run` kills them.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How long the first run to an empty target waits for the store.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// Failing paths named in the log for one batch; the others are counted. All are in `syncq list`.
const FAILURES_LOGGED_MAX: usize = 5;
/// The longest sleep of the dispatcher.
const IDLE: Duration = Duration::from_secs(3600);
/// How often runs are looked at at the most, and how soon again while somebody goes without a place.
const LOOK: Duration = Duration::from_millis(500);
/// A run that still moves when it is so old has met a target that works.
const AGE_WELL: Duration = Duration::from_secs(1);

/// The targets that are served.
pub type Contexts = BTreeMap<TargetId, Arc<TargetContext>>;

/// What the dispatcher serves from now on.
#[derive(Debug)]
struct Served {
    contexts: Arc<Contexts>,
    connections_max: usize,
    /// Answered once nothing is started any more that was served before.
    done: Sender<()>,
}

/// The executor: a dispatcher and its workers.
#[derive(Debug)]
pub struct Executor {
    shared: Arc<Shared>,
    /// Dropping it stops the dispatcher.
    orders: Mutex<Option<Sender<Served>>>,
    dispatcher: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    queue: Arc<Queue>,
    clock: Arc<dyn Clock>,
    contexts: Mutex<Arc<Contexts>>,
    last_paths: Mutex<BTreeMap<TargetId, RelPath>>,
    stop: StopSignal,
    activities: Activities,
}

impl Shared {
    fn context(&self, target: TargetId) -> Option<Arc<TargetContext>> {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner).get(&target).cloned()
    }

    /// Has it remembered that a target is this source's, once that is seen. Returns whether it is news.
    fn note_known(&self, target: TargetId, context: &TargetContext) -> bool {
        let is_new = || self.queue.target_record(target).is_some_and(|record| record.is_new);
        let is_news = context.guard.has_become_known() && is_new();
        if is_news {
            self.queue.note_known_target(target);
        }
        is_news
    }

    /// Whether the target is served by another context by now.
    fn is_outdated(&self, target: TargetId, context: &Arc<TargetContext>) -> bool {
        self.context(target).is_some_and(|now| !Arc::ptr_eq(&now, context))
    }
}

/// A worker is done with a batch.
struct Ended {
    run: u64,
    target: TargetId,
    lane: Lane,
    busy: bool,
    reached: bool,
}

impl Executor {
    /// Starts the threads, so that at most `threads` rsyncs run at a time. Nothing is sent before [`Self::serve`].
    pub fn start(queue: Arc<Queue>, clock: Arc<dyn Clock>, threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|n| format!("rsync-{n}"))
            // `work` catches panics itself; this keeps one that slips through from ending the process.
            .panic_handler(|_| error!("a worker panicked"))
            .build()
            .map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared {
            queue,
            clock,
            contexts: Mutex::default(),
            last_paths: Mutex::new(BTreeMap::new()),
            stop: StopSignal::new()?,
            activities: Activities::default(),
        });
        let (orders, ordered) = unbounded();
        let dispatcher = std::thread::Builder::new().name("dispatch".into()).spawn({
            let shared = Arc::clone(&shared);
            move || Dispatcher::new(shared, pool, threads).run(&ordered)
        })?;
        Ok(Self { shared, orders: Mutex::new(Some(orders)), dispatcher: Mutex::new(Some(dispatcher)) })
    }

    /// From now on these targets are served, each with at most `connections_max` rsyncs at a time, and no others. Returns
    /// when that is so. Runs in flight come to their end.
    pub fn serve(&self, contexts: Contexts, connections_max: usize) {
        let contexts = Arc::new(contexts);
        *self.shared.contexts.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&contexts);
        let (done, is_done) = bounded(1);
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if orders.is_some_and(|orders| orders.send(Served { contexts, connections_max, done }).is_ok()) {
            // Disconnected: the dispatcher has been stopped, and serves nobody.
            let _ = is_done.recv();
        }
    }

    /// The path that was sent to a target last.
    pub fn last_path(&self, target: TargetId) -> Option<RelPath> {
        self.shared.last_paths.lock().unwrap_or_else(PoisonError::into_inner).get(&target).cloned()
    }

    /// The command line that mirrors a path by hand, if one can say it.
    pub fn command_line(&self, target: TargetId, path: &RelPath, scope: Scope) -> Option<String> {
        command_line(self.shared.context(target)?.as_ref(), path, scope)
    }

    /// Why a path that the filter lets through is not mirrored to a target all the same, if it is not: for the user's own
    /// rsync options, or the server's configuration as far as it is known. Costs a run of rsync on this machine.
    pub fn left_out(&self, target: TargetId, path: &RelPath) -> std::io::Result<Option<String>> {
        let Some(context) = self.shared.context(target) else { return Ok(None) };
        if context.refuses(path) {
            return Ok(Some("the server's own configuration leaves it out".to_owned()));
        }
        admit::left_out(&context, path, &self.shared.stop)
    }

    /// Lets the next run over the whole tree delete on the target as much as it likes.
    pub fn accept_deletions(&self, target: TargetId) {
        if let Some(context) = self.shared.context(target) {
            context.guard.accept();
        }
    }

    /// From now on whatever is at the target's place counts.
    pub fn accept_target(&self, target: TargetId) {
        self.shared.context(target).and_then(|context| context.place.clone()).iter().for_each(|place| place.accept());
    }

    /// How a target is served now, if it is.
    pub fn context(&self, target: TargetId) -> Option<Arc<TargetContext>> {
        self.shared.context(target)
    }

    /// The file that holds up a run to the target at this moment, in words, if one does.
    pub fn held_up(&self, target: TargetId) -> Option<String> {
        let context = self.shared.context(target)?;
        context.program.hangs.shown(&context.root)
    }

    /// How far the runs to the target have come, if any takes its time.
    pub fn course(&self, target: TargetId) -> Option<Course> {
        let context = self.shared.context(target)?;
        let course = context.program.under_way.course(monotonic())?;
        // Of others the connection is another program's.
        let Target { destination, options } = &context.target;
        let is_direct = destination.is_daemon() && options.params.remote_shell().is_none();
        let is_connecting = course.is_connecting && is_direct && !environment::redirects(&environment::own);
        Some(Course { is_connecting, ..course })
    }

    /// Ends the connection that is kept open to a target's host, once nothing goes through it.
    pub fn hang_up(&self, target: TargetId) {
        if let Some(connection) = self.shared.context(target).and_then(|context| context.connection.clone()) {
            connection.hang_up();
        }
    }

    /// Begins to compare a target with the source, without changing anything. It ends early when `is_wanted` says no.
    pub fn compare<'a>(
        &'a self,
        context: &'a TargetContext,
        look: Look,
        is_wanted: &'a dyn Fn() -> bool,
    ) -> Comparison<'a> {
        Comparison::new(context, look, &self.shared.stop, is_wanted)
    }

    /// Has `listener` told what happens from now on.
    pub fn listen(&self, listener: Listener) {
        self.shared.activities.listen(listener);
    }

    /// Ends running rsyncs now instead of after a grace time. For a second signal.
    pub fn hurry_stop(&self) {
        self.shared.stop.raise();
    }

    /// Starts no more runs, waits for those in flight, and ends them after a grace time. Their jobs are released, none
    /// is marked failed. May be called twice.
    pub fn stop(&self) {
        drop(self.orders.lock().unwrap_or_else(PoisonError::into_inner).take());
        let dispatcher = self.dispatcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(dispatcher) = dispatcher else { return };
        if dispatcher.join().is_err() {
            error!("the dispatcher ended in a panic");
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A batch that a worker has.
struct Run {
    target: TargetId,
    lane: Lane,
    started: Instant,
    /// Ends it alone. `None`: there was no descriptor left for one.
    stop: Option<StopSignal>,
    /// What its process had moved at the last look, and since when that has not changed.
    counters: Option<u64>,
    moved: Instant,
    is_ending: bool,
}

/// What is known of a target beside its queue.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    health: Health,
    /// How often in a row its runs were ended since they kept others from theirs.
    endings: u32,
    /// When its lanes last had their turn.
    turns: [u64; 2],
}

struct Dispatcher {
    shared: Arc<Shared>,
    pool: ThreadPool,
    threads: usize,
    contexts: Arc<Contexts>,
    /// Of the targets that are served, and of those that were while runs to them are in flight.
    lanes: BTreeMap<TargetId, Lanes>,
    targets: Vec<TargetId>,
    known: BTreeMap<TargetId, Known>,
    runs: BTreeMap<u64, Run>,
    next_run: u64,
    /// Counts the batches that were begun.
    turn: u64,
    looked: Instant,
    ended: (Sender<Ended>, Receiver<Ended>),
    /// Something was done about a standby.
    tended: (Sender<()>, Receiver<()>),
}

impl Dispatcher {
    fn new(shared: Arc<Shared>, pool: ThreadPool, threads: usize) -> Self {
        Self {
            shared,
            pool,
            threads,
            contexts: Arc::default(),
            lanes: BTreeMap::new(),
            targets: Vec::new(),
            known: BTreeMap::new(),
            runs: BTreeMap::new(),
            next_run: 0,
            turn: 0,
            looked: monotonic(),
            ended: unbounded(),
            tended: bounded(1),
        }
    }

    fn run(mut self, ordered: &Receiver<Served>) {
        let work = self.shared.queue.work().clone();
        let ended = self.ended.1.clone();
        let tended = self.tended.1.clone();
        loop {
            let due = self.shared.queue.next_due(&self.targets);
            let is_short = self.start_batches();
            let renewal = self.tend_standbys();
            let wait = due.map_or(IDLE, |due| due.since(self.shared.clock.now()).max(Duration::from_millis(1)));
            let wait = renewal.map_or(wait, |at| wait.min(at.saturating_duration_since(monotonic())));
            let wait = if is_short { wait.min(LOOK) } else { wait };
            crossbeam_channel::select! {
                recv(ordered) -> served => match served {
                    Ok(served) => self.serve(served),
                    Err(_) => break,
                },
                recv(ended) -> ended => if let Ok(ended) = ended { self.note_end(&ended) },
                recv(work) -> _ => {}
                recv(tended) -> _ => {}
                default(wait.min(IDLE)) => {}
            }
        }
        self.drain();
    }

    fn serve(&mut self, Served { contexts, connections_max, done }: Served) {
        self.targets = contexts.keys().copied().collect();
        for target in &self.targets {
            self.lanes.entry(*target).or_insert_with(|| Lanes::new(connections_max)).resize(connections_max);
        }
        let is_served = |old: &Arc<TargetContext>| contexts.values().any(|new| Arc::ptr_eq(old, new));
        for standby in self.contexts.values().filter(|old| !is_served(old)).filter_map(|old| old.standby.clone()) {
            self.pool.spawn(move || standby.close());
        }
        self.contexts = contexts;
        self.forget_idle();
        // Whoever asked may have gone.
        let _ = done.send(());
    }

    /// Forgets the lanes of targets that are no longer served, once nothing is in flight to them.
    fn forget_idle(&mut self) {
        self.lanes.retain(|target, lanes| lanes.in_flight() > 0 || self.contexts.contains_key(target));
        self.known.retain(|target, _| self.lanes.contains_key(target));
    }

    fn in_flight(&self) -> usize {
        self.lanes.values().map(Lanes::in_flight).sum()
    }

    fn note_end(&mut self, ended: &Ended) {
        let run = self.runs.remove(&ended.run);
        let known = self.known.entry(ended.target).or_default();
        if ended.reached {
            (known.health, known.endings) = (Health::Well, 0);
        } else if run.is_some_and(|run| run.is_ending) {
            (known.health, known.endings) = (Health::Ill, known.endings.saturating_add(1));
        }
        let now = self.shared.clock.now();
        if let Some(lanes) = self.lanes.get_mut(&ended.target) {
            lanes.ended(ended.lane, ended.busy, now);
        }
        if let Some(standby) = self.contexts.get(&ended.target).and_then(|context| context.standby.as_ref())
            && ended.reached
        {
            standby.used(monotonic());
        }
        self.forget_idle();
    }

    /// Has the workers start, exchange and end standbys as it is due. Returns when the next one is. After the batches, so
    /// that none of those waits for it.
    fn tend_standbys(&self) -> Option<Instant> {
        let mut next = None;
        // One more run may start at any time.
        let mut room = self.threads.saturating_sub(self.in_flight() + 1).min(STANDBYS_MAX);
        // With one, a target in steady use would never have its standby back before the next change.
        let disturbs = self.lanes.values().filter(|lanes| !lanes.is_small_idle()).nth(1).is_some();
        for (target, context) in self.contexts.iter() {
            let (Some(standby), Some(lanes)) = (&context.standby, self.lanes.get(target)) else { continue };
            let may_wait = || room > 0 && lanes.bears_standby() && self.shared.queue.is_open(*target);
            match standby.next(may_wait, lanes.is_small_idle(), disturbs, monotonic()) {
                Next::Nothing => {}
                Next::At(at) => next = Some(next.map_or(at, |next: Instant| next.min(at))),
                order @ (Next::Renew | Next::End) => {
                    let (standby, context) = (Arc::clone(standby), Arc::clone(context));
                    let tended = self.tended.0.clone();
                    self.pool.spawn(move || {
                        if order == Next::Renew {
                            standby.renew(|| context.launch())
                        } else {
                            standby.end()
                        }
                        // Full means that a wake-up is already under way.
                        let _ = tended.try_send(());
                    });
                }
            }
            room = room.saturating_sub(usize::from(standby.is_held()));
        }
        next
    }

    /// Starts what may start, and ends what holds up others. Returns whether somebody goes without a place.
    fn start_batches(&mut self) -> bool {
        let mut wanted: BTreeMap<(TargetId, Lane), bool> = BTreeMap::new();
        let mut candidates: Vec<Candidate> = self.targets.iter().filter_map(|id| self.candidate(*id)).collect();
        loop {
            let queue = &self.shared.queue;
            let mut wants =
                |target, lane| *wanted.entry((target, lane)).or_insert_with(|| queue.has_work(target, lane));
            match shares::next(self.threads, &candidates, &self.flights(), &mut wants) {
                Step::Rest => return false,
                Step::Start(target, lane) => {
                    // Looked up again after it: the next may be held up by what this one has taken.
                    wanted.retain(|(of, _), _| *of != target);
                    let batch = self
                        .contexts
                        .get(&target)
                        .cloned()
                        .and_then(|context| self.shared.queue.claim(target, lane).map(|batch| (batch, context)));
                    match batch {
                        Some((batch, context)) => self.start(batch, context),
                        None => drop(wanted.insert((target, lane), false)),
                    }
                    let now = self.candidate(target);
                    let same = candidates.iter_mut().find(|candidate| candidate.target == target);
                    if let (Some(same), Some(now)) = (same, now) {
                        *same = now;
                    }
                }
                Step::End(run) => self.end(run),
                Step::Wait if self.looked.elapsed() >= LOOK => {
                    self.look_at_runs();
                    candidates = self.targets.iter().filter_map(|id| self.candidate(*id)).collect();
                }
                Step::Wait => return true,
            }
        }
    }

    fn candidate(&self, target: TargetId) -> Option<Candidate> {
        let lanes = self.lanes.get(&target)?;
        let Known { health, turns, .. } = self.known.get(&target).copied().unwrap_or_default();
        let health = if self.shared.queue.is_well(target) { health } else { Health::Ill };
        let bears = [Lane::Small, Lane::Large].map(|lane| lanes.may_start(lane));
        Some(Candidate { target, health, bears, turns })
    }

    fn flights(&self) -> Vec<Flight> {
        let flight = |(id, run): (&u64, &Run)| Flight {
            id: *id,
            target: run.target,
            lane: run.lane,
            silent: self.looked.saturating_duration_since(run.moved),
            endings: self.known.get(&run.target).map_or(0, |known| known.endings),
            holds_up_own: self.shared.queue.has_ready(run.target),
            is_ending: run.is_ending,
        };
        self.runs.iter().map(flight).collect()
    }

    /// Looks whether the processes of the runs have moved anything since the last look. What cannot be looked at counts as
    /// moving.
    fn look_at_runs(&mut self) {
        let now = monotonic();
        for run in self.runs.values_mut() {
            let counters = run.stop.as_ref().and_then(StopSignal::process).and_then(moved);
            let has_moved = counters.is_none() || counters != run.counters;
            if has_moved && run.counters.is_some() && now.saturating_duration_since(run.started) >= AGE_WELL {
                self.known.entry(run.target).or_default().health = Health::Well;
            }
            if has_moved {
                (run.counters, run.moved) = (counters, now);
            }
        }
        self.looked = now;
    }

    /// Ends a run that holds up others. Its worker tells when it has ended.
    fn end(&mut self, run: u64) {
        let Some(run) = self.runs.get_mut(&run) else { return };
        run.is_ending = true;
        if let Some(stop) = &run.stop {
            stop.raise();
        }
    }

    fn start(&mut self, batch: Batch, context: Arc<TargetContext>) {
        if let Some(lanes) = self.lanes.get_mut(&batch.target) {
            lanes.started(batch.lane);
        }
        let (target, lane, id, now) = (batch.target, batch.lane, self.next_run, monotonic());
        let stop = self.shared.stop.below().ok();
        let known = self.known.entry(target).or_default();
        self.turn += 1;
        let [small, large] = &mut known.turns;
        *(if lane == Lane::Small { small } else { large }) = self.turn;
        self.next_run += 1;
        let run = Run { target, lane, started: now, stop: stop.clone(), counters: None, moved: now, is_ending: false };
        self.runs.insert(id, run);
        let shared = Arc::clone(&self.shared);
        let ended = self.ended.0.clone();
        let surplus = self.surplus(target, lane);
        self.pool.spawn(move || {
            surplus.iter().for_each(|standby| standby.end());
            let stop = stop.unwrap_or_else(|| shared.stop.clone());
            let (busy, reached) = work(&shared, &context, &batch, &stop);
            // Nobody listens any more only when the dispatcher is gone.
            let _ = ended.send(Ended { run: id, target, lane, busy, reached });
        });
    }

    /// The standbys that have to go before a run that was just counted begins: what its target bears no more, and what
    /// would be an rsync too many.
    fn surplus(&self, target: TargetId, lane: Lane) -> Vec<Arc<Standby>> {
        let held = |(id, context): (&TargetId, &Arc<TargetContext>)| {
            let standby = context.standby.clone().filter(|standby| standby.is_held())?;
            Some((*id, standby))
        };
        let mut held: Vec<_> = self.contexts.iter().filter_map(held).collect();
        let too_many = (self.in_flight() + held.len()).saturating_sub(self.threads);
        // The small lane takes its own, as a rule, and is the last to have it ended.
        held.sort_by_key(|(id, _)| *id == target && lane == Lane::Small);
        let bears = |id: &TargetId| *id != target || self.lanes.get(id).is_some_and(Lanes::bears_standby);
        let gone = held.iter().enumerate().filter(|(at, (id, _))| *at < too_many || !bears(id));
        gone.map(|(_, (_, standby))| Arc::clone(standby)).collect()
    }

    /// Waits for what is in flight, and ends it when the grace time is over.
    fn drain(&mut self) {
        let started = monotonic();
        let ended = self.ended.1.clone();
        while self.in_flight() > 0 && started.elapsed() < STOP_GRACE + STOP_DEADLINE {
            if started.elapsed() >= STOP_GRACE {
                self.shared.stop.raise();
            }
            if let Ok(ended) = ended.recv_timeout(Duration::from_millis(100)) {
                self.note_end(&ended);
            }
        }
        self.shared.stop.raise();
        if self.in_flight() > 0 {
            warn!("{} rsync runs have not ended; their jobs stay in the queue", self.in_flight());
        }
    }
}

/// Runs a batch and gives it back to the queue. Returns whether the target was out of connections, and whether it was
/// reached.
fn work(shared: &Shared, context: &Arc<TargetContext>, batch: &Batch, stop: &StopSignal) -> (bool, bool) {
    let name = context.target.name();
    // Before a run of this batch ends: its own connection takes a moment to close.
    let is_asked = lingering::is_any() || batch.jobs.iter().any(|job| job.repeats);
    let lingers = if is_asked { context.lingers() } else { Lingers::No };
    if lingers > Lingers::No {
        debug!("{name}: a run that was cut off may still write");
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
    debug!("{name}: {jobs} in {runs}, {} ms", started.elapsed().as_millis());
    if let Some(path) = &report.last_path {
        let mut last_paths = shared.last_paths.lock().unwrap_or_else(PoisonError::into_inner);
        last_paths.insert(batch.target, path.clone());
    }
    if report.trouble.is_none() {
        log_failures(&name, &report);
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
            warn!("{name}: more paths changed in one run than plugins can be told of");
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
        // Passes by itself within moments, and may come with every burst.
        Some(TargetEvent::Trouble { trouble, .. }) if trouble.class == TroubleClass::Busy => {
            debug!("{name}: {}; fewer runs at a time from here on", trouble.message);
        }
        Some(TargetEvent::Trouble { trouble, probe_at }) => {
            let retry = shown_wait(probe_at, shared.clock.now());
            shared.activities.tell(context, || Happened::Trouble { trouble: trouble.clone(), retry_at: probe_at });
            warn!("{name}: {}; its jobs are kept, next try in {retry}", trouble.message);
            if let Some(hint) = trouble.hint {
                warn!("{name}: hint: {hint}");
            }
            if let Some(command) = trouble.command {
                warn!("{name}: command: {command}");
            }
        }
        Some(TargetEvent::Recovered { class: TroubleClass::Busy, .. }) => {}
        Some(TargetEvent::Recovered { class, after }) => {
            // It may have been upgraded or reconfigured meanwhile.
            context.capabilities.forget();
            if class == TroubleClass::Target {
                // Whatever else it was used for meanwhile.
                shared.queue.enqueue(&[batch.target], &[Change::whole_tree()]);
            }
            shared.activities.tell(context, || Happened::Recovered { after });
            info!("{name}: back after {}", humantime::format_duration(Duration::from_secs(after.as_secs())));
        }
        None => {}
    }
    if reached {
        look_again(shared, context, batch.target, stop);
    }
    (busy, reached)
}

/// Looks at what a batch's target holds, as far as that is due. The error is one that nothing may be sent to.
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

/// Looks whether the target is what it was, if that was not done for a while: after a run, so that no change waits for it.
fn look_again(shared: &Shared, context: &TargetContext, target: TargetId, stop: &StopSignal) {
    if !context.looked_at_top().is_stale(false, monotonic()) {
        return;
    }
    // That is asked for seldom: the record is everybody's.
    let known = shared.queue.target_record(target).and_then(|record| record.top);
    if !context.looked_at_top().is_stale(known.is_some(), monotonic()) {
        return;
    }
    match look_at_top(shared, context, target, known.as_ref(), stop) {
        Err(trouble) if trouble.class == TroubleClass::Target => {
            context.looked_at_top().doubt();
            error!("{}: {}; nothing is sent there until it is back", context.target.name(), trouble.message);
            trouble.hint.iter().for_each(|hint| warn!("{}: hint: {hint}", context.target.name()));
            shared.queue.note_place(target, Err(trouble));
            // What was sent since the last look is somewhere else, and this has the target tried again.
            shared.queue.enqueue(&[target], &[Change::whole_tree()]);
        }
        // The next run meets it as well.
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
    let top = top::look(context, known, now, stop)?;
    context.looked_at_top().note(monotonic());
    if top.as_ref() != known {
        shared.queue.set_target_top(target, top);
    }
    Ok(())
}

/// What is known of what the target of a batch holds.
fn contents(
    shared: &Shared,
    context: &TargetContext,
    batch: &Batch,
    stop: &StopSignal,
) -> Result<Contents, TargetTrouble> {
    let Some(unvouched) = &batch.unvouched else { return Ok(Contents::Vouched) };
    let contents = unvouched::contents(context, unvouched.since, stop)?;
    if shared.note_known(batch.target, context) {
        // Before anything is sent there: a daemon that is killed then could not tell what is its own.
        shared.queue.flush(FLUSH_PATIENCE);
    }
    if contents == Contents::Vouched {
        debug!("{}: holds nothing that the source has, so it is filled", context.target.name());
        shared.queue.vouch(batch.target, unvouched.since, None);
    }
    Ok(contents)
}

/// A run was ended that kept others from theirs. Always in the same words: it is no news the next time.
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

fn log_failures(name: &str, report: &BatchReport) {
    let failed = report.verdicts.iter().filter_map(|(path, verdict)| match verdict {
        Verdict::Failed(error) => Some((path, error)),
        _ => None,
    });
    let all: Vec<_> = failed.chain(report.found.iter().map(|found| (&found.path, &found.error))).collect();
    for (path, error) in all.iter().take(FAILURES_LOGGED_MAX) {
        warn!("{name}: cannot mirror {path}: {error}; it is tried again");
    }
    if all.len() > FAILURES_LOGGED_MAX {
        warn!("{name}: {} more paths failed; see `syncq list`", all.len() - FAILURES_LOGGED_MAX);
    }
    for failed in &report.commands_failed {
        warn!("{name}: {}; command: {}", failed.message, failed.command);
    }
}
