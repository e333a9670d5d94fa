//! The interface between the control API and the daemon: the questions and the orders.

use std::ops::ControlFlow;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::model::{JobAction, RelPath, TargetId};

use super::refusal::Refusal;
use super::{
    AcceptRequest, Accepted, DifferenceRow, Event, ExplainQuery, Explanation, JobRow, Matcher, NewJob, PauseRequest,
    Paused, ReconcileRequest, Reconciled, Reloaded, Status, StoreReport, VerifyLine, VerifyRequest, WaitRequest,
    Waiting,
};

/// Answers questions about a daemon, or about a store without a daemon. The methods are called from the control thread's
/// helpers while mirroring goes on, so an implementation reads a snapshot or holds its lock for one page at most.
pub trait Inspect: Send + Sync {
    fn status(&self) -> Status;

    /// Counts the store's records, which reads all of them.
    fn store(&self) -> Result<StoreReport, Refusal>;

    /// Returns the next jobs in the order of (target, path), at most `page.limit` of them.
    fn list(&self, page: &ListPage) -> Result<Listed, Refusal>;
}

/// Carries out the orders of operators. When a method returns, its changes are on disk.
pub trait Operate: Inspect {
    /// Applies `action` to the next jobs that it is meant for, and returns the jobs as they were before.
    fn change(&self, action: JobAction, page: &ListPage) -> Result<Listed, Refusal>;

    /// Adds jobs. Returns one answer per job: `None`, or why the job was left out.
    fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, Refusal>;

    /// Makes the store as small as its records allow.
    fn compact_store(&self) -> Result<StoreReport, Refusal>;

    /// Pauses targets, or resumes them.
    fn pause(&self, request: &PauseRequest) -> Result<Paused, Refusal>;

    /// Lets the next comparison of targets delete without limit, and starts that comparison.
    fn accept_deletions(&self, _request: &AcceptRequest) -> Result<Accepted, Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Accepts what is at the places of targets now, whatever was there before, and has the targets compared in full.
    fn accept_target(&self, _request: &AcceptRequest) -> Result<Accepted, Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Has trees compared in full with their targets.
    fn reconcile(&self, _request: &ReconcileRequest) -> Result<Reconciled, Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Hands `each` the differences that [`reconcile`](Self::reconcile) would remove, until `each` breaks off. Takes as long as
    /// the comparison, and ends early when `is_wanted` returns false.
    fn survey(
        &self,
        _request: &ReconcileRequest,
        _each: &mut dyn FnMut(DifferenceRow) -> ControlFlow<()>,
        _is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Compares targets with the source, and hands `each` the paths that differ although no change is under way. Ends like
    /// [`survey`](Self::survey).
    fn verify(
        &self,
        _request: &VerifyRequest,
        _each: &mut dyn FnMut(VerifyLine) -> ControlFlow<()>,
        _is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Has the configuration read again. The receiver gets the outcome. It is disconnected if the daemon stops before that.
    fn reload(&self) -> Result<Receiver<Reloaded>, Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Begins to wait until every change made before now is mirrored.
    fn wait(&self, _request: &WaitRequest) -> Result<Box<dyn Wait>, Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Reports events to `listener` for as long as somebody else holds a reference to it.
    fn follow(&self, _listener: Arc<dyn Listen>) {}

    /// Tells everything known about a path.
    fn explain(&self, _query: &ExplainQuery) -> Result<Explanation, Refusal> {
        Err(Refusal::needs_daemon())
    }
}

/// Takes events as they happen.
pub trait Listen: Send + Sync {
    /// Keeps the event or drops it, without waiting.
    fn hear(&self, event: Event);
}

/// One client's wait.
pub trait Wait: Send {
    /// Checks the progress, without waiting. Refuses if there turns out to be nothing to wait for.
    fn look(&mut self) -> Result<Waiting, Refusal>;
}

/// One step through the list. Half a million jobs are listed in pages, so that neither side ever holds all of them.
#[derive(Debug, Clone)]
pub struct ListPage {
    /// Only jobs behind this place. The place stays valid if its job is gone.
    pub after: Option<Place>,
    pub limit: usize,
    pub wanted: Arc<Matcher>,
    /// Only list the jobs that would be changed.
    pub dry_run: bool,
}

/// The position of a job in the list.
pub type Place = (TargetId, RelPath);

/// The answer to a page.
#[derive(Debug, Default)]
pub struct Listed {
    pub rows: Vec<JobRow>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<Place>,
}

impl ListPage {
    /// Rows in one page: many enough to make the lock cheap, few enough to release it soon.
    pub const ROWS: usize = 500;

    pub fn first(wanted: Matcher) -> Self {
        Self { after: None, limit: Self::ROWS, wanted: Arc::new(wanted), dry_run: false }
    }

    /// Moves the page behind `listed`, its answer. Returns `false` if that was the last page.
    pub fn advance(&mut self, listed: &Listed) -> bool {
        self.after = listed.next.clone();
        self.after.is_some()
    }
}

/// Hands every job of every page to `each` until it breaks off, at most as many as the filter's limit. `ask` fetches the answer
/// to a page.
pub fn each_job<E>(
    mut page: ListPage,
    mut ask: impl FnMut(&ListPage) -> Result<Listed, E>,
    each: &mut dyn FnMut(JobRow) -> ControlFlow<()>,
) -> Result<(), E> {
    let mut left = page.wanted.filter.limit.unwrap_or(u64::MAX);
    while left > 0 {
        page.limit = usize::try_from(left).unwrap_or(usize::MAX).min(ListPage::ROWS);
        let listed = ask(&page)?;
        let more = page.advance(&listed);
        left = left.saturating_sub(listed.rows.len() as u64);
        for row in listed.rows {
            if each(row).is_break() {
                return Ok(());
            }
        }
        if !more {
            break;
        }
    }
    Ok(())
}
