//! Jobs at several names of one file, where the target is to have one file with several names as well (`-H`). rsync links
//! only names that it finds in one list: names that go in two runs are two files on the target, and stay so. So the jobs
//! at these names are claimed together or not at all.
//!
//! The names are known in memory only, from the change to the end of the job. Two kinds are not held together: names
//! whose jobs a restart finds in the store, and a name that keeps failing, for which the others do not wait.

use std::collections::BTreeSet;

use super::TargetQueue;
use super::pending_job::{PendingJob, State, Wait};
use crate::model::{RelPath, Scope};

impl TargetQueue {
    /// Whether another name of the same file cannot be claimed together with this one at present.
    pub(super) fn waits_for_name(&self, path: &RelPath) -> bool {
        let is_away = |name: &RelPath| {
            self.jobs.get(name).is_some_and(|job| job.is_running() || (goes_along(job) && self.is_excluded(name, job)))
        };
        self.names.others(path).any(is_away)
    }

    /// Adds the jobs at the other names of the chosen files.
    pub(super) fn add_names(&self, chosen: &mut Vec<RelPath>) {
        let is_there = |name: &&RelPath| self.jobs.get(*name).is_some_and(goes_along);
        let names = chosen.iter().flat_map(|path| self.names.others(path)).filter(is_there);
        let names: BTreeSet<RelPath> = names.filter(|name| !chosen.contains(name)).cloned().collect();
        chosen.extend(names);
    }
}

fn goes_along(job: &PendingJob) -> bool {
    let is_pending = match job.state {
        State::Ready | State::Waiting { why: Wait::Hot | Wait::Settling | Wait::ReceiverMayWrite, .. } => true,
        State::Waiting { why: Wait::Backoff, .. } | State::Running { .. } | State::Failed => false,
    };
    is_pending && job.scope == Scope::Entry
}
