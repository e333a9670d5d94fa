//! What the daemon lets others see of itself.

use std::ops::ControlFlow;

use crate::model::{JobState, RelPath, TargetId};

use super::{JobRow, NewJob, Status};

/// Answers questions about a daemon, or about a store without one. Called from the control thread's helpers while
/// mirroring goes on, so an implementation reads a snapshot or holds its lock for one page at most.
pub trait Inspect: Send + Sync {
    fn status(&self) -> Status;

    /// Returns the next jobs in the order of (target, path), at most `page.limit` of them. Fewer than that means that
    /// there are no more.
    fn list(&self, page: &ListPage) -> Vec<JobRow>;

    /// Adds jobs and waits until they are on disk. One answer each: why it was left out, if so.
    fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, AddError>;
}

/// Why jobs that were added may be lost with the process.
#[derive(Debug, thiserror::Error)]
#[error("the store could not be written in time")]
pub struct AddError;

/// Which jobs are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    pub state: Option<JobState>,
    /// The name of the target, as `status` shows it.
    pub target: Option<String>,
}

/// One step through the list. Half a million jobs are listed in pages, so that neither side ever holds them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// Only jobs behind this place. It is [`JobRow::place`] of the last row seen, and stays good if that job is gone.
    pub after: Option<(TargetId, RelPath)>,
    pub limit: usize,
    pub filter: JobFilter,
}

impl ListPage {
    /// Rows in one page: long enough to make the lock cheap, short enough to give it back soon.
    pub const ROWS: usize = 500;

    pub fn first(filter: JobFilter) -> Self {
        Self { after: None, limit: Self::ROWS, filter }
    }

    /// Moves behind `rows`, the answer to this page; `false` if that was the last one.
    pub fn advance(&mut self, rows: &[JobRow]) -> bool {
        let place = rows.last().and_then(|row| row.place.clone());
        let more = rows.len() >= self.limit && place.is_some();
        self.after = place;
        more
    }
}

/// Hands every matching job to `each`, page by page, until it breaks off.
pub fn each_job(inspect: &dyn Inspect, filter: &JobFilter, each: &mut dyn FnMut(JobRow) -> ControlFlow<()>) {
    let mut page = ListPage::first(filter.clone());
    loop {
        let rows = inspect.list(&page);
        let more = page.advance(&rows);
        for row in rows {
            if each(row).is_break() {
                return;
            }
        }
        if !more {
            return;
        }
    }
}
