//! The one thread that writes the store: takes what has become dirty, commits it as one batch, and begins again.
//!
//! While one batch is being flushed the next gathers, and then for twice as long as that took: a disk that is slow, or
//! busy with the files that are being mirrored, is not kept busier by many small commits, and a job that is done by
//! then never touches it. Whoever waits for the disk ([`Queue::flush`](super::Queue::flush)) ends the pause. A failed
//! commit takes nothing away: its paths are dirty again at their old place and are tried after a pause, from the state
//! that memory has by then.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use log::{error, info};

use super::{Shared, State};
use crate::clock::monotonic;
use crate::store::{COMMIT_OPS_MAX, Store};

/// The shortest and the longest pause after a commit.
const GATHER_MIN: Duration = Duration::from_millis(5);
const GATHER_MAX: Duration = Duration::from_millis(100);
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
    loop {
        let forgetting = {
            let state = shared
                .dirty
                .wait_while(shared.lock(), |state| state.dirty_len() == 0 && !shared.closing.load(Ordering::SeqCst))
                .unwrap_or_else(PoisonError::into_inner);
            if shared.closing.load(Ordering::SeqCst) {
                return;
            }
            state.ledger.forgetting()
        };
        let begun = monotonic();
        // Which directories have to be deleted is known to the store alone.
        let found = forgetting.map(|root| store.directories(root, COMMIT_OPS_MAX).map(|found| (root, found)));
        let (ops, result) = match found.transpose() {
            Ok(found) => {
                let mut state = shared.lock();
                if let Some((root, directories)) = found {
                    state.ledger.forget(root, directories);
                }
                let ops = state.take_dirty(COMMIT_OPS_MAX);
                drop(state);
                let result = store.commit(&ops);
                (ops, result)
            }
            Err(failure) => (Vec::new(), Err(failure)),
        };
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
                let failure = failure.with_causes();
                if state.store_error.is_none() {
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
