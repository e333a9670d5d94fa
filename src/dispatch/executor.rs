//! The executor: what the rest of the program asks of the dispatcher and its workers.
//!
//! The executor starts and stops the dispatcher's thread, tells it which targets are served, and answers questions about
//! these targets. It runs no batch itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded, unbounded};
use log::error;
use parking_lot::Mutex;
use rayon::ThreadPoolBuilder;

use super::activity::{Activities, Listener};
use super::dispatcher::{Dispatcher, Served};
use super::shared::{Contexts, LOG_TARGET, Shared};
use crate::clock::{Clock, monotonic};
use crate::mirror::{Comparison, Course, Look, StopSignal, TargetContext, command_line, left_out};
use crate::model::{RelPath, Scope, TargetId};
use crate::queue::Queue;

/// The executor: a dispatcher and its workers.
#[derive(Debug)]
pub struct Executor {
    shared: Arc<Shared>,
    /// Dropping the sender stops the dispatcher.
    orders: Mutex<Option<Sender<Served>>>,
    dispatcher: Mutex<Option<JoinHandle<()>>>,
}

impl Executor {
    /// Starts the threads, so that at most `threads` rsyncs run at a time. Nothing is sent before [`Self::serve`].
    pub fn start(queue: Arc<Queue>, clock: Arc<dyn Clock>, threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|n| format!("rsync-{n}"))
            // `work` catches panics itself; the handler keeps a panic that slips through from ending the process.
            .panic_handler(|_| error!(target: LOG_TARGET, "a worker panicked"))
            .build()
            .map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared {
            queue,
            clock,
            contexts: Mutex::default(),
            last_paths: Mutex::new(BTreeMap::new()),
            stop: StopSignal::new()?,
            activities: Activities::default(),
            asked: Mutex::default(),
        });
        let (orders, ordered) = unbounded();
        let dispatcher = std::thread::Builder::new().name("dispatch".into()).spawn({
            let shared = Arc::clone(&shared);
            move || Dispatcher::new(shared, pool, threads).run(&ordered)
        })?;
        Ok(Self { shared, orders: Mutex::new(Some(orders)), dispatcher: Mutex::new(Some(dispatcher)) })
    }

    /// Serves these targets from now on and no others, each with at most `connections_max` rsyncs at a time. Returns when
    /// that is in force. Runs in flight come to their end.
    pub fn serve(&self, contexts: Contexts, connections_max: usize) {
        let contexts = Arc::new(contexts);
        *self.shared.contexts.lock() = Arc::clone(&contexts);
        let (done, is_done) = bounded(1);
        let orders = self.orders.lock().clone();
        if orders.is_some_and(|orders| orders.send(Served { contexts, connections_max, done }).is_ok()) {
            // Disconnected: the dispatcher has been stopped, and serves nobody.
            let _ = is_done.recv();
        }
    }

    /// The path that was sent to a target last.
    pub fn last_path(&self, target: TargetId) -> Option<RelPath> {
        self.shared.last_paths.lock().get(&target).cloned()
    }

    /// The command line that mirrors a path by hand, if one command line can.
    pub fn command_line(&self, target: TargetId, path: &RelPath, scope: Scope) -> Option<String> {
        command_line(self.shared.context(target)?.as_ref(), path, scope)
    }

    /// Why a path that the filter lets through is not mirrored to a target, if it is not: because of the user's own rsync
    /// options, or of the server's configuration as far as that is known. Costs a run of rsync on this machine.
    pub fn left_out(&self, target: TargetId, path: &RelPath) -> std::io::Result<Option<String>> {
        let Some(context) = self.shared.context(target) else { return Ok(None) };
        if context.refuses(path) {
            return Ok(Some("the server's own configuration leaves it out".to_owned()));
        }
        left_out(&context, path, &self.shared.stop)
    }

    /// Lets the next run over the whole tree delete on the target as much as it likes.
    pub fn accept_deletions(&self, target: TargetId) {
        if let Some(context) = self.shared.context(target) {
            context.guard.accept();
        }
    }

    /// Accepts whatever is at the target's place from now on.
    pub fn accept_target(&self, target: TargetId) {
        self.shared.context(target).and_then(|context| context.place.clone()).iter().for_each(|place| place.accept());
    }

    /// The context by which a target is served now; `None` if it is not served.
    pub fn context(&self, target: TargetId) -> Option<Arc<TargetContext>> {
        self.shared.context(target)
    }

    /// The file that holds up a run to the target at this moment, in words, if one does.
    pub fn held_up(&self, target: TargetId) -> Option<String> {
        self.shared.context(target)?.held_up()
    }

    /// How far the runs to the target have come, if one of them takes its time.
    pub fn course(&self, target: TargetId) -> Option<Course> {
        self.shared.context(target)?.course(monotonic())
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
        drop(self.orders.lock().take());
        let dispatcher = self.dispatcher.lock().take();
        let Some(dispatcher) = dispatcher else { return };
        if dispatcher.join().is_err() {
            error!(target: LOG_TARGET, "the dispatcher ended in a panic");
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.stop();
    }
}
