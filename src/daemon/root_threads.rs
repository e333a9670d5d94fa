//! The threads that look after the roots, one each, so that a file system that hangs holds up only the root on it.
//!
//! A root at which something is going on is maintained once a second. A root at rest is left alone until something happens
//! there, except for a look every `REST` at faults that no event tells of.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use parking_lot::Mutex;

use super::root::RootRuntime;
use crate::clock::monotonic;

/// How often a busy root is maintained, and how often one at rest.
const TICK: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_secs(15);
/// How long `end` waits for threads that are maintaining their roots.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct RootThreads(Mutex<Vec<RootThread>>);

#[derive(Debug)]
struct RootThread {
    root: Arc<RootRuntime>,
    /// Dropping it tells the thread to end.
    stop: Sender<()>,
    /// Disconnected once the thread has ended.
    ended: Receiver<()>,
}

impl RootThreads {
    /// Starts all of `roots` at once and then maintains them. The receiver gets a result for each root, once the root is
    /// watched.
    pub fn start(&self, roots: &[Arc<RootRuntime>]) -> Result<Receiver<Result<()>>> {
        let (done, watching) = bounded(roots.len());
        for root in roots {
            let (stop, stopped) = bounded::<()>(0);
            let (running, ended) = bounded::<()>(0);
            let (kept, done) = (Arc::clone(root), done.clone());
            let keep = move || {
                let _running = running;
                let result = kept.start().map_err(anyhow::Error::from);
                let is_watched = result.is_ok();
                // After a stop nobody receives this result.
                let _ = done.send(result);
                while is_watched && stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    while !kept.maintain() {
                        select! {
                            recv(stopped) -> _ => return,
                            recv(kept.notified()) -> _ => break,
                            default(REST) => {}
                        }
                    }
                }
            };
            std::thread::Builder::new().name("root".into()).spawn(keep).context("cannot start a thread")?;
            let thread = RootThread { root: Arc::clone(root), stop, ended };
            self.0.lock().push(thread);
        }
        Ok(watching)
    }

    /// Ends the threads of the roots that `is_meant` accepts. A thread that a file system holds up is left behind.
    pub fn end(&self, is_meant: impl Fn(&Arc<RootRuntime>) -> bool) {
        let mut threads = self.0.lock();
        let meant: Vec<RootThread> = threads.extract_if(.., |thread| is_meant(&thread.root)).collect();
        drop(threads);
        let deadline = monotonic() + PATIENCE;
        let told: Vec<Receiver<()>> =
            meant.into_iter().map(|RootThread { stop, ended, .. }| (drop(stop), ended).1).collect();
        for ended in told {
            let _ = ended.recv_deadline(deadline);
        }
    }
}
