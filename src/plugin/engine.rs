//! The threads that deliver a plugin's notices, and what happens when they cannot.
//!
//! If the other side cannot be reached, or does not answer, all deliveries of the plugin stop: the notices wait, one of
//! them is tried with growing pauses, and the others follow when it has gone through. A notice that fails while others go
//! through is given up after a few tries. The log and the figures tell of both.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::line::{Line, Put, Waiting};
use super::log_limiter::LogLimiter;
use super::{Delivery, Failure, Notice};
use crate::clock::monotonic;
use crate::model::Backoff;

/// How many notices a plugin keeps, and how it delivers them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many notices may wait. The plugin is not told of further paths, which is logged and counted.
    pub notices_max: usize,
    /// How many deliveries run at once.
    pub threads: usize,
    /// How often one notice is tried while others go through.
    pub tries_max: u32,
    /// The pauses while the other side cannot be reached.
    pub backoff: Backoff,
    /// How long a stop waits for the remaining notices.
    pub stop_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            notices_max: 100_000,
            threads: 4,
            tries_max: 5,
            backoff: Backoff { base: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(60) },
            stop_grace: Duration::from_secs(2),
        }
    }
}

/// How long deliveries under way may take to end after the grace time.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// A plugin's figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineStats {
    pub waiting: u64,
    pub in_flight: u64,
    pub delivered: u64,
    /// Notices that were given up, or refused by the other side.
    pub failed: u64,
    /// Notices that were never tried, for lack of room.
    pub dropped: u64,
    /// Why nothing can be delivered at present, or why the notice that ended last was given up.
    pub reason: Option<String>,
}

/// Delivers the notices of one plugin; see the module's documentation.
pub struct Engine {
    name: &'static str,
    shared: Arc<Shared>,
    delivery: Arc<Box<dyn Delivery>>,
    limits: Limits,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A notice may be taken, a notice came back, or the threads shall end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    line: Line,
    stats: EngineStats,
    trouble: Option<Trouble>,
    limiter: LogLimiter,
    stopping: bool,
}

/// A state in which the other side cannot be reached.
struct Trouble {
    failures: u32,
    until: Instant,
}

impl Shared {
    /// No panic leaves the counters or the line in an inconsistent state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Engine {
    pub(super) fn start(name: &'static str, delivery: Box<dyn Delivery>, limits: Limits) -> std::io::Result<Arc<Self>> {
        let engine = Arc::new(Self { name, shared: Arc::default(), delivery: Arc::new(delivery), limits });
        for n in 0..limits.threads.max(1) {
            let worker =
                Worker { name, shared: Arc::clone(&engine.shared), delivery: Arc::clone(&engine.delivery), limits };
            let thread = std::thread::Builder::new().name(format!("plugin-{n}"));
            if let Err(failure) = thread.spawn(move || worker.run()) {
                engine.shared.lock().stopping = true;
                engine.shared.changed.notify_all();
                return Err(failure);
            }
        }
        Ok(engine)
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Takes a notice into the line for delivery. Never waits.
    pub fn notify(&self, notice: Notice) {
        if !self.delivery.wants(&notice) {
            return;
        }
        let mut state = self.shared.lock();
        let path = notice.path.clone();
        if state.stopping {
            let name = self.name;
            warn!("plugin {name}: not told of {path}: it has been switched off");
            return;
        }
        match state.line.put(notice, self.limits.notices_max) {
            Put::Kept => {
                self.shared.changed.notify_one();
            }
            Put::Merged => {}
            Put::Dropped => {
                state.stats.dropped += 1;
                let dropped = state.stats.dropped;
                // The first dropped notice is logged, and then ever fewer of them.
                if dropped.is_power_of_two() {
                    let waiting = state.line.waiting();
                    let name = self.name;
                    warn!(
                        "plugin {name}: not told of {path}: {waiting} notices wait already; {dropped} dropped so far"
                    );
                }
            }
        }
    }

    pub fn stats(&self) -> EngineStats {
        let state = self.shared.lock();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        EngineStats {
            waiting: count(state.line.waiting()),
            in_flight: count(state.line.in_flight()),
            ..state.stats.clone()
        }
    }

    /// Delivers remaining notices for a moment, ends deliveries under way, and logs how many are lost. May be called twice.
    pub fn stop(&self) {
        let busy = |state: &mut State| {
            !state.stopping && state.trouble.is_none() && (state.line.waiting() > 0 || state.line.in_flight() > 0)
        };
        let mut state = self.shared.lock();
        self.shared.changed.wait_while_for(&mut state, busy, self.limits.stop_grace);
        if std::mem::replace(&mut state.stopping, true) {
            return;
        }
        self.shared.changed.notify_all();
        drop(state);
        self.delivery.stop();
        // The threads are not joined: one may be deep in a name look-up, and the process ends anyway.
        let mut state = self.shared.lock();
        self.shared.changed.wait_while_for(&mut state, |state| state.line.in_flight() > 0, STOP_DEADLINE);
        let left = state.line.waiting() + state.line.in_flight();
        let (name, stats, left_out) = (self.name, &state.stats, state.limiter.left_out());
        if left > 0 {
            warn!("plugin {name}: {left} notices were not delivered before the stop and are lost");
        }
        if left_out > 0 {
            warn!("plugin {name}: {left_out} more failures were not logged");
        }
        info!("plugin {name}: {} delivered, {} failed, {} dropped", stats.delivered, stats.failed, stats.dropped);
    }
}

struct Worker {
    name: &'static str,
    shared: Arc<Shared>,
    delivery: Arc<Box<dyn Delivery>>,
    limits: Limits,
}

impl Worker {
    fn run(self) {
        while let Some(waiting) = self.next() {
            let delivery = &self.delivery;
            let spoken = std::panic::AssertUnwindSafe(|| delivery.deliver(&waiting.notice));
            let result = std::panic::catch_unwind(spoken).unwrap_or_else(|_| {
                error!("plugin {}: syncq itself failed; please report it with the log", self.name);
                Err(Failure::Refused("syncq itself failed".to_owned()))
            });
            self.settle(waiting, result);
        }
    }

    /// Waits for a notice to deliver. `None`: the engine stops.
    fn next(&self) -> Option<Waiting> {
        let mut state = self.shared.lock();
        loop {
            if state.stopping {
                return None;
            }
            let pause = match &state.trouble {
                None => Some(Duration::ZERO),
                // One delivery at a time finds out whether the other side is back.
                Some(_) if state.line.in_flight() > 0 => None,
                Some(trouble) => Some(trouble.until.saturating_duration_since(monotonic())),
            };
            match pause {
                Some(Duration::ZERO) if state.line.has_next() => return state.line.take(),
                Some(pause) if !pause.is_zero() && state.line.has_next() => {
                    self.shared.changed.wait_for(&mut state, pause);
                }
                _ => self.shared.changed.wait(&mut state),
            }
        }
    }

    fn settle(&self, mut waiting: Waiting, result: Result<(), Failure>) {
        let name = self.name;
        let mut state = self.shared.lock();
        let path = waiting.notice.path.clone();
        match result {
            Ok(()) => {
                state.stats.delivered += 1;
                state.line.done(&waiting.notice);
                self.reached(&mut state);
                state.stats.reason = None;
                debug!("plugin {name}: told of {path}");
            }
            Err(Failure::Stopped) => state.line.again(waiting, true),
            Err(Failure::Unreachable(reason)) => {
                state.line.again(waiting, true);
                self.unreachable(&mut state, reason);
            }
            Err(Failure::Again(reason)) if !self.is_spent(&state, &mut waiting) => {
                state.line.again(waiting, false);
                self.unreachable(&mut state, reason);
            }
            Err(Failure::Again(reason)) => self.give_up(&mut state, &waiting, &reason),
            Err(Failure::Refused(reason)) => {
                self.reached(&mut state);
                self.give_up(&mut state, &waiting, &reason);
            }
        }
        self.shared.changed.notify_all();
    }

    /// Counts a try and tells whether it was the last one. While nothing at all gets through, the notice is not to blame.
    fn is_spent(&self, state: &State, waiting: &mut Waiting) -> bool {
        let delivered = Some(state.stats.delivered);
        if waiting.delivered_then != delivered {
            waiting.delivered_then = delivered;
            waiting.tries += 1;
        }
        waiting.tries >= self.limits.tries_max
    }

    fn give_up(&self, state: &mut State, waiting: &Waiting, reason: &str) {
        state.stats.failed += 1;
        state.line.done(&waiting.notice);
        let (name, path, decision) = (self.name, &waiting.notice.path, state.limiter.note(monotonic()));
        if decision.left_out > 0 {
            warn!("plugin {name}: {} more failures were not logged", decision.left_out);
        }
        if decision.is_logged {
            warn!("plugin {name}: {path}: {reason}");
        }
        if state.trouble.is_none() {
            state.stats.reason = Some(format!("{path}: {reason}"));
        }
    }

    fn reached(&self, state: &mut State) {
        if state.trouble.take().is_some() {
            state.stats.reason = None;
            info!("plugin {}: works again", self.name);
        }
    }

    /// Pauses all deliveries, longer each time. Deliveries that were under way together and failed count once.
    fn unreachable(&self, state: &mut State, reason: String) {
        let now = monotonic();
        let failures = match &state.trouble {
            Some(trouble) if trouble.until > now => return,
            Some(trouble) => trouble.failures.saturating_add(1),
            None => 1,
        };
        let pause = self.limits.backoff.delay(failures, fastrand::f64());
        state.trouble = Some(Trouble { failures, until: now + pause });
        if state.stats.reason.as_ref() != Some(&reason) {
            let (name, waiting) = (self.name, state.line.waiting());
            warn!("plugin {name}: {reason}; {waiting} notices are kept, next try in {:.1} s", pause.as_secs_f64());
            state.stats.reason = Some(reason);
        }
    }
}
