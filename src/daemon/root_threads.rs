//! The threads that look after the roots, one each, so that a file system that hangs holds up only the root on it.
//!
//! A root at which something is going on is looked after once a second. One at rest is left alone until something happens
//! there, but for a look now and then at what no event tells of.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use parking_lot::Mutex;

use super::root::RootRuntime;
use crate::clock::monotonic;

/// How often a root is looked after at which something is going on, and how often one at rest.
const TICK: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_secs(15);
/// How long an end waits for looks at roots that are under way.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct RootThreads(Mutex<Vec<RootThread>>);

#[derive(Debug)]
struct RootThread {
    root: Arc<RootRuntime>,
    /// Dropping it tells the thread to end.
    stop: Sender<()>,
    /// Disconnected when it has.
    ended: Receiver<()>,
}

impl RootThreads {
    /// Starts all of `roots` at once and then looks after them. Hands over a result for each once it is watched.
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
                // Nobody listens any more after a stop.
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

    /// Ends the threads of those roots, except one that a file system holds up.
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
