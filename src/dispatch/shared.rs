//! State that the executor, its dispatcher and its workers share, and the questions to an operator that are already in
//! the log.
//!
//! Nothing here decides about runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::activity::Activities;
use crate::clock::Clock;
use crate::mirror::{StopSignal, TargetContext};
use crate::model::{JobError, RelPath, TargetId};
use crate::queue::Queue;

/// Readers of a log take handing out runs and running them for one thing, so both speak as the area `mirror`.
pub(super) const LOG_TARGET: &str = "syncq::mirror";

/// The targets that are served.
pub type Contexts = BTreeMap<TargetId, Arc<TargetContext>>;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Arc<Queue>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) contexts: Mutex<Arc<Contexts>>,
    pub(super) last_paths: Mutex<BTreeMap<TargetId, RelPath>>,
    pub(super) stop: StopSignal,
    pub(super) activities: Activities,
    /// The questions that the log has asked operators, by the target and the path that wait for the answer.
    pub(super) asked: Mutex<BTreeMap<(TargetId, RelPath), String>>,
}

impl Shared {
    /// Whether a failure is to be logged. A question to an operator is logged once, although its job is tried again and
    /// again.
    pub(super) fn is_news(&self, target: TargetId, path: &RelPath, error: &JobError) -> bool {
        let mut asked = self.asked.lock();
        let place = (target, path.clone());
        if !error.asks_for_approval() {
            asked.remove(&place);
            return true;
        }
        asked.insert(place, error.message.clone()).as_ref() != Some(&error.message)
    }

    /// Notes that questions about these paths have been answered, or need no answer any more.
    pub(super) fn note_done<'a>(&self, target: TargetId, done: impl Iterator<Item = &'a RelPath>) {
        let mut asked = self.asked.lock();
        if !asked.is_empty() {
            done.for_each(|path| drop(asked.remove(&(target, path.clone()))));
        }
    }

    pub(super) fn context(&self, target: TargetId) -> Option<Arc<TargetContext>> {
        self.contexts.lock().get(&target).cloned()
    }

    /// Has the store remember that a target is this source's, once that is seen. Returns whether that is news.
    pub(super) fn note_known(&self, target: TargetId, context: &TargetContext) -> bool {
        let is_new = || self.queue.target_record(target).is_some_and(|record| record.is_new);
        let is_news = context.guard.has_become_known() && is_new();
        if is_news {
            self.queue.note_known_target(target);
        }
        is_news
    }

    /// Whether the target is served by another context by now.
    pub(super) fn is_outdated(&self, target: TargetId, context: &Arc<TargetContext>) -> bool {
        self.context(target).is_some_and(|now| !Arc::ptr_eq(&now, context))
    }
}
