//! Moves a root's watermark: the time up to which every change has a job in the store or is mirrored.
//!
//! The watermark moves in three steps, so that nothing before it can be lost. The watcher passes on everything up to a barrier.
//! The queue writes down all jobs. Then the watermark is stored with the known directories. Deliberately absent: what a start
//! makes of the watermark (`catch_up`).

use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, TryRecvError};

use super::runtime::RootRuntime;
use super::state::{Checkpoint, State, Watching};
use crate::clock::{moment, monotonic};

/// The least time between two moves of the watermark. A start after a crash looks through that much again.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// A move needs all jobs on disk. While many jobs are not written yet, a move waits so long for most of them to be done, since
/// a job that is done need not be written.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(30);

const UNWRITTEN_MANY: usize = 1_000;

/// How long a checkpoint waits for the disk before it is left for later.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// How long a start waits for its first checkpoint.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);

impl RootRuntime {
    /// Sets a first watermark as soon as possible: without one, after a crash nothing tells what has changed.
    pub(super) fn first_checkpoint(&self) {
        if !self.rules.keeps_watermark || self.queue.store_health().uncommitted >= UNWRITTEN_MANY {
            return;
        }
        let mut state = self.lock();
        let State { watching: Watching::On(watcher), checkpoint, .. } = &mut *state else { return };
        let events = watcher.stats().events;
        let (asked_at, reply) = (moment(), watcher.checkpoint());
        checkpoint.events = Some(events);
        drop(state);
        match reply.recv_timeout(FIRST_PATIENCE) {
            Ok(directories) => {
                let mut state = self.lock();
                state.checkpoint.reached = Some(asked_at);
                state.checkpoint.directories.extend(directories);
                drop(state);
                self.settle(FIRST_PATIENCE);
            }
            // The answer is taken later, by `advance`.
            Err(RecvTimeoutError::Timeout) => self.lock().checkpoint.asked = Some((asked_at, reply)),
            Err(RecvTimeoutError::Disconnected) => {}
        }
    }

    /// Whether the source is as it should be and the watermark covers everything that has happened.
    pub(super) fn is_at_rest(&self) -> bool {
        let state = self.lock();
        let Watching::On(watcher) = &state.watching else { return false };
        let Checkpoint { asked, reached, events, .. } = &state.checkpoint;
        let is_marked = asked.is_none() && reached.is_none() && *events == Some(watcher.stats().events);
        state.suspended.is_none() && (is_marked || !self.rules.keeps_watermark)
    }

    /// Continues the next move of the watermark; see the module's documentation. While nothing happens, nothing has to move.
    pub(super) fn advance(&self) {
        let store = self.queue.store_health();
        if !self.rules.keeps_watermark || store.error.is_some() {
            return;
        }
        let interval = if store.uncommitted < UNWRITTEN_MANY { CHECKPOINT_INTERVAL } else { CHECKPOINT_PATIENCE };
        let mut state = self.lock();
        let State { watching: Watching::On(watcher), suspended: None, checkpoint, .. } = &mut *state else { return };
        if checkpoint.asked.is_none() && checkpoint.reached.is_none() {
            let events = watcher.stats().events;
            let waited = checkpoint.last.is_none_or(|last| last.elapsed() >= interval);
            if waited && checkpoint.events.replace(events) != Some(events) {
                checkpoint.asked = Some((moment(), watcher.checkpoint()));
            }
            return;
        }
        if let Some((asked_at, reply)) = &checkpoint.asked {
            match reply.try_recv() {
                Ok(directories) => {
                    checkpoint.reached = Some(*asked_at);
                    checkpoint.directories.extend(directories);
                }
                Err(TryRecvError::Empty) => return,
                // The watcher has ended.
                Err(TryRecvError::Disconnected) => {}
            }
            checkpoint.asked = None;
        }
        let age = checkpoint.reached.map_or(0, |reached| moment().uptime_ms.saturating_sub(reached.uptime_ms));
        let may_wait = Duration::from_millis(age) < CHECKPOINT_PATIENCE;
        drop(state);
        if store.uncommitted < UNWRITTEN_MANY || !may_wait {
            self.settle(FLUSH_PATIENCE);
        }
    }

    /// Moves the watermark to the barrier that was reached, once all jobs up to there are on disk. Waits `patience` for the
    /// disk.
    pub(super) fn settle(&self, patience: Duration) {
        // Read before the flush: every target in this list has its jobs queued, so the flush writes them.
        let mut complete = self.lock_targets().clone();
        if self.lock().checkpoint.reached.is_none() || !self.queue.flush(patience) {
            return;
        }
        // Locked to the end: once another runtime has taken over, this one must not touch the watermark.
        let mut state = self.lock();
        if !state.in_charge {
            return;
        }
        let Some(reached) = state.checkpoint.reached.take() else { return };
        let directories = std::mem::take(&mut state.checkpoint.directories);
        // `retarget` clears `events` to ask for an early checkpoint. If it did so while this one was under way, leave `last`
        // empty: then the next one starts at once.
        state.checkpoint.last = state.checkpoint.events.map(|_| monotonic());
        // Held to the end: a target that was given other settings meanwhile is not complete under these settings.
        let targets = self.lock_targets();
        complete.retain(|print| targets.contains(print));
        self.queue.checkpoint(self.path(), reached, directories, &complete);
    }
}
