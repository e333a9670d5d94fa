//! The one thread that writes the store. It takes what has become dirty, commits it as one batch, and begins again.
//!
//! A job that is done before it is written never touches the disk, and most are done within moments. So while every
//! target is served, a path is written only after it has been dirty for [`GATHER_WELL`]. Nothing is lost by that: the
//! watermark does not move before all older jobs are on disk, so a start after a crash looks for whatever came later.
//! Jobs of a target that is down or paused will stay. Then the next batch gathers while one is being flushed, and for
//! twice as long as the flush took. Whoever waits for the disk ([`Queue::flush`](super::Queue::flush)) ends the pause.
//!
//! A failed commit takes nothing away: its paths are dirty again at their old place and are tried after a pause, from the
//! state that memory has by then. Requests of operators to the store (to count, to compact) run between two commits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use log::{error, info};
use parking_lot::MutexGuard;

use super::state::{Shared, State, StoreTask};
use crate::clock::monotonic;
use crate::store::{COMMIT_OPS_MAX, Op, Store, StoreError};

/// How long dirty jobs are given to be done without the store while all targets are served. A job that is written then is
/// up to twice as old.
const GATHER_WELL: Duration = Duration::from_secs(5);
/// The shortest and the longest pause after a commit while some target is not served.
const GATHER_MIN: Duration = Duration::from_millis(5);
const GATHER_MAX: Duration = Duration::from_millis(100);
/// How often the store is given time to look after itself: while there is something to commit, and while there is
/// nothing. An idle store loses nothing, and a look only serves to repair it before somebody asks.
const MAINTAINED_EVERY: Duration = Duration::from_secs(1);
const MAINTAINED_IDLE_EVERY: Duration = Duration::from_secs(15);
/// The pause after a failed commit.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Committer {
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub fn start(shared: Arc<Shared>, store: Box<dyn Store>) -> Self {
        let thread = std::thread::Builder::new().name("commit".into()).spawn(move || run(&shared, store));
        let thread =
            thread.inspect_err(|e| error!("cannot start the committer: {e}; jobs are held in memory only")).ok();
        Self { thread }
    }

    pub fn join(self) {
        if let Some(thread) = self.thread
            && thread.join().is_err()
        {
            error!("the committer ended in a panic");
        }
    }
}

fn run(shared: &Shared, mut store: Box<dyn Store>) {
    let mut maintained = monotonic();
    let mut gather = GATHER_MIN;
    loop {
        let patience = MAINTAINED_IDLE_EVERY.saturating_sub(maintained.elapsed());
        let is_idle = |state: &mut State| state.is_clean() && !is_asked(shared, state);
        let mut state = shared.lock();
        shared.dirty.wait_while_for(&mut state, is_idle, patience);
        if !state.is_clean() {
            if state.may_wait() {
                state.release_dirty();
                pause(shared, &mut state, GATHER_WELL, State::may_wait);
            } else {
                pause(shared, &mut state, gather, |_| true);
            }
        }
        if !state.may_wait() || is_hurried(shared, &state) {
            state.release_dirty();
        }
        if shared.closing.load(Ordering::SeqCst) {
            let last_id = state.next_job_id;
            let is_known = state.stored_job_id == last_id || state.store_error.is_some();
            drop(state);
            if !is_known && let Err(failure) = store.commit(&[Op::PutNextJobId(last_id)]) {
                error!("{}", failure.with_causes());
            }
            return;
        }
        drop(state);
        loop {
            let mut state = shared.lock();
            let tasks = std::mem::take(&mut state.store_tasks);
            let in_doubt = std::mem::take(&mut state.store_in_doubt);
            drop(state);
            let maintain = in_doubt || maintained.elapsed() >= MAINTAINED_EVERY;
            let begun = monotonic();
            let (ops, result) = commit_next(shared, &mut *store, maintain, tasks);
            if maintain {
                maintained = monotonic();
            }
            gather = (begun.elapsed() * 2).clamp(GATHER_MIN, GATHER_MAX);
            let stats = store.stats();
            let mut state = shared.lock();
            state.store_stats = stats;
            state.settle_commit(ops, result.is_ok());
            let failed = result.is_err();
            note_result(&mut state, result);
            shared.committed.notify_all();
            if failed {
                let closing = || shared.closing.load(Ordering::SeqCst);
                shared.hurry.wait_while_for(&mut state, |_| !closing(), RETRY_AFTER);
                break;
            }
            if !state.has_releasable() || shared.closing.load(Ordering::SeqCst) {
                break;
            }
        }
    }
}

/// Whether the committer is asked for anything but to write what is dirty.
fn is_asked(shared: &Shared, state: &State) -> bool {
    !state.store_tasks.is_empty() || state.store_in_doubt || shared.closing.load(Ordering::SeqCst)
}

/// Whether somebody waits for the committer.
fn is_hurried(shared: &Shared, state: &State) -> bool {
    state.flushing > 0 || is_asked(shared, state)
}

/// Waits for at most `length`, while `may_wait` holds and nobody waits for the committer. A path that becomes dirty
/// meanwhile does not even wake the thread.
fn pause(shared: &Shared, state: &mut MutexGuard<'_, State>, length: Duration, may_wait: fn(&State) -> bool) {
    let quiet = |state: &mut State| may_wait(state) && !is_hurried(shared, state);
    shared.hurry.wait_while_for(state, quiet, length);
}

fn note_result(state: &mut State, result: Result<(), StoreError>) {
    let Err(failure) = result else {
        if state.store_error.take().is_some() {
            info!("the store can be written again");
        }
        return;
    };
    let lost = matches!(failure, StoreError::Lost { .. });
    let failure = failure.with_causes();
    if lost {
        state.store_lost();
        error!("{failure}; mirroring goes on, and the new store gets all pending jobs");
    } else if state.store_error.is_none() {
        error!("{failure}; mirroring goes on, new jobs are held in memory until the store can be written");
    }
    state.store_error = Some(failure);
}

/// Runs the requests of operators, then commits what is dirty, as much as fits. Returns the operations of that commit.
fn commit_next(
    shared: &Shared,
    store: &mut dyn Store,
    maintain: bool,
    tasks: Vec<StoreTask>,
) -> (Vec<Op>, Result<(), StoreError>) {
    let prepare = || {
        if maintain {
            store.maintain()?;
        }
        for task in tasks {
            task.run(store)?;
        }
        let forgetting = shared.lock().catalog.forgetting();
        if let Some(root) = forgetting {
            // Only the store knows which directories it holds of this root.
            let directories = store.directories(root, COMMIT_OPS_MAX)?;
            shared.lock().catalog.forget(root, directories);
        }
        Ok(())
    };
    if let Err(failure) = prepare() {
        return (Vec::new(), Err(failure));
    }
    let ops = shared.lock().take_dirty(COMMIT_OPS_MAX);
    let result = store.commit(&ops);
    (ops, result)
}
