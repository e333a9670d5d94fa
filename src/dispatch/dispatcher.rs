//! The dispatcher: one thread that decides which batch a worker gets next, and which run has to end.
//!
//! The dispatcher sleeps until there is work, a run ends, a wait is over, or it is told to stop. It starts a batch only
//! when a worker is free, so claimed jobs never sit in a line: the durable queue is the only queue. A target's [`Lanes`]
//! limit its runs, and `next_run` decides who gets the next one. For that decision the dispatcher knows which targets
//! have answered, and looks now and then whether the runs in flight move, more often while somebody goes without a place.
//! A run that the dispatcher ends counts as cut off, and as the target's trouble. The dispatcher runs no rsync itself:
//! `worker` does, in threads of a pool.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use log::warn;
use rayon::ThreadPool;

use super::lanes::Lanes;
use super::next_run::{self, Candidate, Flight, Health, Step};
use super::shared::{Contexts, LOG_TARGET, Shared};
use super::worker::work;
use crate::clock::monotonic;
use crate::mirror::{Next, STANDBYS_MAX, Standby, StopSignal, TargetContext, moved};
use crate::model::{Lane, TargetId};
use crate::queue::Batch;

/// How long running rsyncs may take to end by themselves at a stop, before they are ended.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// How long ended rsyncs may take to be gone: above the time after which `supervision` kills them.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// The longest sleep of the dispatcher.
const IDLE: Duration = Duration::from_secs(3600);
/// How often runs are looked at at most, and how soon they are looked at again while somebody goes without a place.
const LOOK: Duration = Duration::from_millis(500);
/// A run that still moves at this age has met a target that works.
const AGE_WELL: Duration = Duration::from_secs(1);

/// The order to serve these targets from now on.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) contexts: Arc<Contexts>,
    pub(super) connections_max: usize,
    /// Receives the answer once no batch is started any more for the targets that were served before.
    pub(super) done: Sender<()>,
}

/// A worker is done with a batch.
struct Finished {
    run: u64,
    target: TargetId,
    lane: Lane,
    busy: bool,
    reached: bool,
}

/// A batch that a worker has.
struct Run {
    target: TargetId,
    lane: Lane,
    started: Instant,
    /// Ends this run alone. `None`: there was no descriptor left for a signal of its own.
    stop: Option<StopSignal>,
    /// How much the run's process had moved at the last look. `moved` says since when that has not changed.
    counters: Option<u64>,
    moved: Instant,
    is_ending: bool,
}

/// Facts about a target beside its queue.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    health: Health,
    /// How often in a row runs to the target were ended because they kept others from theirs.
    endings: u32,
    /// The turns at which a batch of its small and of its large lane was last begun.
    turns: [u64; 2],
}

pub(super) struct Dispatcher {
    shared: Arc<Shared>,
    pool: ThreadPool,
    threads: usize,
    contexts: Arc<Contexts>,
    /// The lanes of the targets that are served, and of others while runs to them are in flight.
    lanes: BTreeMap<TargetId, Lanes>,
    targets: Vec<TargetId>,
    known: BTreeMap<TargetId, Known>,
    runs: BTreeMap<u64, Run>,
    next_run: u64,
    /// Counts the batches that were begun.
    turn: u64,
    looked: Instant,
    finished: (Sender<Finished>, Receiver<Finished>),
    /// Receives a token after a worker has renewed or ended a standby.
    tended: (Sender<()>, Receiver<()>),
}

impl Dispatcher {
    pub(super) fn new(shared: Arc<Shared>, pool: ThreadPool, threads: usize) -> Self {
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
            finished: unbounded(),
            tended: bounded(1),
        }
    }

    pub(super) fn run(mut self, ordered: &Receiver<Served>) {
        let work = self.shared.queue.work().clone();
        let finished = self.finished.1.clone();
        let tended = self.tended.1.clone();
        loop {
            let due = self.shared.queue.next_due(&self.targets);
            let is_short = self.start_batches();
            let renewal = self.maintain_standbys();
            let wait = due.map_or(IDLE, |due| due.since(self.shared.clock.now()).max(Duration::from_millis(1)));
            let wait = renewal.map_or(wait, |at| wait.min(at.saturating_duration_since(monotonic())));
            let wait = if is_short { wait.min(LOOK) } else { wait };
            crossbeam_channel::select! {
                recv(ordered) -> served => match served {
                    Ok(served) => self.serve(served),
                    Err(_) => break,
                },
                recv(finished) -> finished => if let Ok(finished) = finished { self.note_finished(&finished) },
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
        // Whoever gave the order may have gone.
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

    fn note_finished(&mut self, finished: &Finished) {
        let run = self.runs.remove(&finished.run);
        let known = self.known.entry(finished.target).or_default();
        if finished.reached {
            (known.health, known.endings) = (Health::Well, 0);
        } else if run.is_some_and(|run| run.is_ending) {
            (known.health, known.endings) = (Health::Ill, known.endings.saturating_add(1));
        }
        let now = self.shared.clock.now();
        if let Some(lanes) = self.lanes.get_mut(&finished.target) {
            lanes.ended(finished.lane, finished.busy, now);
        }
        if let Some(standby) = self.contexts.get(&finished.target).and_then(|context| context.standby.as_ref())
            && finished.reached
        {
            standby.used(monotonic());
        }
        self.forget_idle();
    }

    /// Has the workers start, exchange and end standbys as it is due. Returns when the next standby is due. Comes after
    /// the batches, so that no batch waits for a standby.
    fn maintain_standbys(&self) -> Option<Instant> {
        let mut next = None;
        // A thread is left for one more run, which may start at any time.
        let mut room = self.threads.saturating_sub(self.in_flight() + 1).min(STANDBYS_MAX);
        // A single busy target is no disturbance: one in steady use would never have its standby back before the next
        // change.
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
                        // A full channel means that a wake-up is already on its way.
                        let _ = tended.try_send(());
                    });
                }
            }
            room = room.saturating_sub(usize::from(standby.is_held()));
        }
        next
    }

    /// Starts the runs that may start, and ends runs that hold up others. Returns whether somebody goes without a place.
    fn start_batches(&mut self) -> bool {
        let mut wanted: BTreeMap<(TargetId, Lane), bool> = BTreeMap::new();
        let mut candidates: Vec<Candidate> = self.targets.iter().filter_map(|id| self.candidate(*id)).collect();
        loop {
            let queue = &self.shared.queue;
            let mut wants =
                |target, lane| *wanted.entry((target, lane)).or_insert_with(|| queue.has_work(target, lane));
            match next_run::next(self.threads, &candidates, &self.flights(), &mut wants) {
                Step::Rest => return false,
                Step::Start(target, lane) => {
                    // Look up again after this batch: the target's next batch may be held up by the jobs of this one.
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

    /// Looks whether the processes of the runs have moved anything since the last look. A process that cannot be looked
    /// at counts as moving.
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
        let finished = self.finished.0.clone();
        let surplus = self.surplus(target, lane);
        self.pool.spawn(move || {
            surplus.iter().for_each(|standby| standby.end());
            let stop = stop.unwrap_or_else(|| shared.stop.clone());
            let (busy, reached) = work(&shared, &context, &batch, &stop);
            // Sending fails only when the dispatcher is gone.
            let _ = finished.send(Finished { run: id, target, lane, busy, reached });
        });
    }

    /// The standbys that have to go before a run that was just counted begins: those that its target bears no more, and
    /// those that would be an rsync too many.
    fn surplus(&self, target: TargetId, lane: Lane) -> Vec<Arc<Standby>> {
        let held = |(id, context): (&TargetId, &Arc<TargetContext>)| {
            let standby = context.standby.clone().filter(|standby| standby.is_held())?;
            Some((*id, standby))
        };
        let mut held: Vec<_> = self.contexts.iter().filter_map(held).collect();
        let too_many = (self.in_flight() + held.len()).saturating_sub(self.threads);
        // The small lane takes its target's standby, as a rule, so that one is the last to be ended.
        held.sort_by_key(|(id, _)| *id == target && lane == Lane::Small);
        let bears = |id: &TargetId| *id != target || self.lanes.get(id).is_some_and(Lanes::bears_standby);
        let gone = held.iter().enumerate().filter(|(at, (id, _))| *at < too_many || !bears(id));
        gone.map(|(_, (_, standby))| Arc::clone(standby)).collect()
    }

    /// Waits for the runs in flight, and ends them when the grace time is over.
    fn drain(&mut self) {
        let started = monotonic();
        let finished = self.finished.1.clone();
        while self.in_flight() > 0 && started.elapsed() < STOP_GRACE + STOP_DEADLINE {
            if started.elapsed() >= STOP_GRACE {
                self.shared.stop.raise();
            }
            if let Ok(finished) = finished.recv_timeout(Duration::from_millis(100)) {
                self.note_finished(&finished);
            }
        }
        self.shared.stop.raise();
        if self.in_flight() > 0 {
            warn!(target: LOG_TARGET, "{} rsync runs have not ended; their jobs stay in the queue", self.in_flight());
        }
    }
}
