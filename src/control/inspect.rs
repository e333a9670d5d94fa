//! What the daemon lets others see of itself, and what it does when it is told to.

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

/// Answers questions about a daemon, or about a store without one. Called from the control thread's helpers while
/// mirroring goes on, so an implementation reads a snapshot or holds its lock for one page at most.
pub trait Inspect: Send + Sync {
    fn status(&self) -> Status;

    /// Counts what the store holds, which reads all of it.
    fn store(&self) -> Result<StoreReport, Refusal>;

    /// Returns the next jobs in the order of (target, path), at most `page.limit` of them.
    fn list(&self, page: &ListPage) -> Result<Listed, Refusal>;
}

/// Does what operators want. What it returns is on disk by then.
pub trait Operate: Inspect {
    /// Does `action` to the next jobs that it means something for, and returns them as they were.
    fn change(&self, action: JobAction, page: &ListPage) -> Result<Listed, Refusal>;

    /// Adds jobs. One answer each: why it was left out, if so.
    fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, Refusal>;

    /// Makes the store as small as what it holds.
    fn compact_store(&self) -> Result<StoreReport, Refusal>;

    /// Pauses targets, or has them go on.
    fn pause(&self, request: &PauseRequest) -> Result<Paused, Refusal>;

    /// Lets the next comparison of targets delete as much as it likes, and has it begin.
    fn accept_deletions(&self, _request: &AcceptRequest) -> Result<Accepted, Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Takes what is at the places of targets for them, whatever was there before, and has it compared in full.
    fn accept_target(&self, _request: &AcceptRequest) -> Result<Accepted, Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Has trees compared in full.
    fn reconcile(&self, _request: &ReconcileRequest) -> Result<Reconciled, Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Hands `each` what [`reconcile`](Self::reconcile) would change, until it says stop. Takes as long as the comparison,
    /// and ends early when `is_wanted` says no.
    fn survey(
        &self,
        _request: &ReconcileRequest,
        _each: &mut dyn FnMut(DifferenceRow) -> ControlFlow<()>,
        _is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Compares targets with the source, and hands `each` what differs although no change is under way. Ends like
    /// [`survey`](Self::survey).
    fn verify(
        &self,
        _request: &VerifyRequest,
        _each: &mut dyn FnMut(VerifyLine) -> ControlFlow<()>,
        _is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Has the configuration read again. The receiver is handed how that went; it is disconnected if the daemon stops before.
    fn reload(&self) -> Result<Receiver<Reloaded>, Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Begins to wait until everything changed before now is mirrored.
    fn wait(&self, _request: &WaitRequest) -> Result<Box<dyn Wait>, Refusal> {
        Err(Refusal::needs_daemon())
    }

    /// Tells `listener` what happens, for as long as somebody else holds it.
    fn follow(&self, _listener: Arc<dyn Listen>) {}

    /// Tells all there is to know about a path.
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
    /// Looks how far it has come, without waiting. Refused if there turns out to be nothing to wait for.
    fn look(&mut self) -> Result<Waiting, Refusal>;
}

/// One step through the list. Half a million jobs are listed in pages, so that neither side ever holds them all.
#[derive(Debug, Clone)]
pub struct ListPage {
    /// Only jobs behind this place, which stays good if the job there is gone.
    pub after: Option<Place>,
    pub limit: usize,
    pub wanted: Arc<Matcher>,
    /// Only shows what would be changed.
    pub dry_run: bool,
}

/// Where a job stands in the list.
pub type Place = (TargetId, RelPath);

/// The answer to a page.
#[derive(Debug, Default)]
pub struct Listed {
    pub rows: Vec<JobRow>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<Place>,
}

impl ListPage {
    /// Rows in one page: long enough to make the lock cheap, short enough to give it back soon.
    pub const ROWS: usize = 500;

    pub fn first(wanted: Matcher) -> Self {
        Self { after: None, limit: Self::ROWS, wanted: Arc::new(wanted), dry_run: false }
    }

    /// Moves behind `listed`, the answer to this page; `false` if that was the last one.
    pub fn advance(&mut self, listed: &Listed) -> bool {
        self.after = listed.next.clone();
        self.after.is_some()
    }
}

/// Hands every job of every page to `each` until it breaks off, at most as many as the filter's limit. `ask` answers a
/// page.
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
