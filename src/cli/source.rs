//! Where the commands get their answers: from the daemon, or without one from its store.

use std::ops::ControlFlow;
use std::path::Path;

use super::exit::CliError;
use crate::control::{Client, ClientError, Inspect, JobFilter, JobRow, NewJob, Status, each_job};
use crate::daemon::offline;

pub enum Source {
    Daemon(Client),
    Store(Box<dyn Inspect>),
}

impl Source {
    pub fn open(state_dir: &Path) -> Result<Self, CliError> {
        match Client::connect(state_dir) {
            Ok(client) => Ok(Self::Daemon(client)),
            Err(ClientError::NoDaemon { .. }) => Ok(Self::Store(offline::inspect(state_dir)?)),
            Err(error) => Err(error.into()),
        }
    }

    pub fn status(&self) -> Result<Status, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.status()?),
            Self::Store(store) => Ok(store.status()),
        }
    }

    /// Queues jobs. One answer each: why it was left out, if so. They are on disk then.
    pub fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.add(jobs)?),
            Self::Store(store) => Ok(store.add(jobs).map_err(anyhow::Error::from)?),
        }
    }

    /// Hands every matching job to `each`, at most `limit` of them, until it fails.
    pub fn jobs(
        &self,
        filter: &JobFilter,
        limit: Option<u64>,
        mut each: impl FnMut(JobRow) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut left = limit.unwrap_or(u64::MAX);
        let mut failed = None;
        let mut step = |row| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            match each(row) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let listed = match self {
            Self::Daemon(client) => client.jobs(filter, limit, &mut step),
            Self::Store(store) => {
                each_job(store.as_ref(), filter, &mut step);
                Ok(())
            }
        };
        match failed {
            Some(error) => Err(error),
            None => Ok(listed?),
        }
    }
}
