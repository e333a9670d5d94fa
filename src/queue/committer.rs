//! The one thread that writes the store: takes what has become dirty, commits it as one batch, and begins again.
//!
//! While one batch is being flushed the next gathers, and then for twice as long as that took: a disk that is slow, or
//! busy with the files that are being mirrored, is not kept busier by many small commits, and a job that is done by
//! then never touches it. Whoever waits for the disk ([`Queue::flush`](super::Queue::flush)) ends the pause. A failed
//! commit takes nothing away: its paths are dirty again at their old place and are tried after a pause, from the state
//! that memory has by then. What operators want of the store (counted, compacted) is done between two commits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use log::{error, info};

use super::{Shared, State};
use crate::clock::monotonic;
use crate::store::{COMMIT_OPS_MAX, Census, Op, Store, StoreError};

/// The shortest and the longest pause after a commit.
const GATHER_MIN: Duration = Duration::from_millis(5);
const GATHER_MAX: Duration = Duration::from_millis(100);
/// How often the store is given time to look after itself.
const TEND_EVERY: Duration = Duration::from_secs(1);
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
    let mut tended = monotonic();
    loop {
        let patience = TEND_EVERY.saturating_sub(tended.elapsed());
        let idle = |state: &mut State| {
            state.dirty_len() == 0 && state.store_tasks.is_empty() && !shared.closing.load(Ordering::SeqCst)
        };
        let (mut state, _) =
            shared.dirty.wait_timeout_while(shared.lock(), patience, idle).unwrap_or_else(PoisonError::into_inner);
        if shared.closing.load(Ordering::SeqCst) {
            return;
        }
        let tasks = std::mem::take(&mut state.store_tasks);
        drop(state);
        let tend = tended.elapsed() >= TEND_EVERY;
        let begun = monotonic();
        let (ops, result) = commit_next(shared, &mut *store, tend, tasks);
        if tend {
            tended = monotonic();
        }
        let gather = (begun.elapsed() * 2).clamp(GATHER_MIN, GATHER_MAX);
        let stats = store.stats();
        let mut state = shared.lock();
        state.store_stats = stats;
        state.settle_commit(ops, result.is_ok());
        match result {
            Ok(()) => {
                if state.store_error.take().is_some() {
                    info!("the store can be written again");
                }
                shared.committed.notify_all();
                let hurried = |state: &mut State| state.flushing > 0 || shared.closing.load(Ordering::SeqCst);
                drop(
                    shared
                        .dirty
                        .wait_timeout_while(state, gather, |state| !hurried(state))
                        .unwrap_or_else(PoisonError::into_inner),
                );
            }
            Err(failure) => {
                let lost = matches!(failure, StoreError::Lost { .. });
                let failure = failure.with_causes();
                if lost {
                    state.store_lost();
                    error!("{failure}; mirroring goes on, and the new store gets all pending jobs");
                } else if state.store_error.is_none() {
                    error!("{failure}; mirroring goes on, new jobs are held in memory until the store can be written");
                }
                state.store_error = Some(failure);
                shared.committed.notify_all();
                let closing = || shared.closing.load(Ordering::SeqCst);
                drop(
                    shared
                        .dirty
                        .wait_timeout_while(state, RETRY_AFTER, |_| !closing())
                        .unwrap_or_else(PoisonError::into_inner),
                );
            }
        }
    }
}

/// What an operator wants of the store.
pub(super) struct StoreTask {
    pub compact: bool,
    pub reply: Sender<Result<Census, String>>,
}

impl StoreTask {
    /// Only what leaves the store unusable is an error to the committer.
    fn run(self, store: &mut dyn Store) -> Result<(), StoreError> {
        let compacted = if self.compact { store.compact() } else { Ok(()) };
        let (answer, result) = match compacted.and_then(|()| store.census()) {
            Ok(census) => (Ok(census), Ok(())),
            Err(failure @ StoreError::NotCompacted { .. }) => (Err(failure.to_string()), Ok(())),
            Err(failure) => (Err(failure.with_causes()), Err(failure)),
        };
        // Who asked may have gone.
        let _ = self.reply.send(answer);
        result
    }
}

/// Does what operators want of the store, then commits what is dirty, as much as fits, and returns what that was.
fn commit_next(
    shared: &Shared,
    store: &mut dyn Store,
    tend: bool,
    tasks: Vec<StoreTask>,
) -> (Vec<Op>, Result<(), StoreError>) {
    let prepare = || {
        if tend {
            store.tend()?;
        }
        for task in tasks {
            task.run(store)?;
        }
        let forgetting = shared.lock().ledger.forgetting();
        if let Some(root) = forgetting {
            // Which directories these are is known to the store alone.
            let directories = store.directories(root, COMMIT_OPS_MAX)?;
            shared.lock().ledger.forget(root, directories);
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
