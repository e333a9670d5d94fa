//! The counterpart of the commands: the running daemon, or its store if none is running.

use std::ops::ControlFlow;
use std::path::Path;

use super::exit::CliError;
use crate::clock::{Clock, SystemClock};
use crate::control::{
    Client, ClientError, Explanation, JobFilter, JobRow, JobsRequest, ListPage, Matcher, NewJob, Operate, PathArg,
    PauseRequest, Paused, Refusal, Status, StoreReport, each_job,
};
use crate::daemon::offline;
use crate::model::JobAction;

pub enum Source {
    Daemon(Client),
    Store(Box<dyn Operate>),
}

impl Source {
    pub fn open(state_dir: &Path) -> Result<Self, CliError> {
        match Client::connect(state_dir) {
            Ok(client) => Ok(Self::Daemon(client)),
            Err(ClientError::NoDaemon { .. }) => Ok(Self::Store(offline::open(state_dir)?)),
            Err(error) => Err(error.into()),
        }
    }

    pub fn status(&self) -> Result<Status, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.status()?),
            Self::Store(store) => Ok(store.status()),
        }
    }

    /// Queues jobs, and returns once they are on disk. One answer per job: `None`, or why the job was left out.
    pub fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.add(jobs)?),
            Self::Store(store) => Ok(store.add(jobs)?),
        }
    }

    /// Hands every matching job to `each`, until `each` fails.
    pub fn jobs(&self, filter: &JobFilter, each: impl FnMut(JobRow) -> Result<(), CliError>) -> Result<(), CliError> {
        let request = JobsRequest { filter: filter.clone(), ..JobsRequest::default() };
        self.change(JobAction::List, &request, each)
    }

    /// Applies `action` to all jobs of the request, and hands each job to `each` as it was before, until `each` fails.
    pub fn change(
        &self,
        action: JobAction,
        request: &JobsRequest,
        mut each: impl FnMut(JobRow) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut failed = None;
        let mut step = |row| match each(row) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        };
        match self {
            Self::Daemon(client) => client.change(action, request, &mut step)?,
            Self::Store(store) => {
                let matcher = Matcher::new(&request.filter, SystemClock.now()).map_err(Refusal::from)?;
                let page = ListPage { dry_run: request.dry_run, ..ListPage::first(matcher) };
                let ask = |page: &ListPage| match action {
                    JobAction::List => store.list(page),
                    _ => store.change(action, page),
                };
                each_job(page, ask, &mut step)?;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    pub fn explain(&self, path: &PathArg) -> Result<Explanation, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.explain(path)?),
            Self::Store(store) => Ok(store.explain(path)?),
        }
    }

    /// Counts the store's records. With `compact` the store is first made as small as its records allow.
    pub fn store(&self, compact: bool) -> Result<StoreReport, CliError> {
        match (self, compact) {
            (Self::Daemon(client), _) => Ok(client.store(compact)?),
            (Self::Store(store), false) => Ok(store.store()?),
            (Self::Store(store), true) => Ok(store.compact_store()?),
        }
    }

    pub fn pause(&self, request: &PauseRequest) -> Result<Paused, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.pause(request)?),
            Self::Store(store) => Ok(store.pause(request)?),
        }
    }
}
