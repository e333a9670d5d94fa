//! The options by which `list`, `retry` and `purge` select jobs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::control::JobFilter;
use crate::model::{JobState, Scope};

#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// Only jobs in this state
    #[arg(long, value_name = "STATE", value_enum)]
    state: Option<StateArg>,
    /// Only jobs of this target, named as in status
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Only jobs of this mirrored directory
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Only jobs of paths like this, as in .gitignore: *.jpg, photos/2024, a/**/b
    #[arg(long, value_name = "GLOB")]
    path: Option<String>,
    /// Only jobs queued at least this long ago, like 90s, 2h or 3d
    #[arg(long, value_name = "AGE", value_parser = super::values::duration)]
    older_than: Option<Duration>,
    /// Only jobs whose last error has this text in it
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only jobs for this much of the tree
    #[arg(long, value_name = "SCOPE", value_enum)]
    scope: Option<ScopeArg>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StateArg {
    /// May be sent now
    Ready,
    /// Being sent
    Running,
    /// Backing off, or still being written
    Waiting,
    /// Given up until the path changes
    Failed,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeArg {
    /// One file, or a directory's attributes
    Entry,
    /// A directory and the one level in it
    Children,
    /// A directory with all below it
    Subtree,
}

impl FilterArgs {
    pub fn filter(&self) -> JobFilter {
        JobFilter {
            ids: Vec::new(),
            state: self.state.map(|state| match state {
                StateArg::Ready => JobState::Ready,
                StateArg::Running => JobState::Running,
                StateArg::Waiting => JobState::Waiting,
                StateArg::Failed => JobState::Failed,
            }),
            target: self.target.clone(),
            root: self.root.as_ref().map(|root| root.display().to_string()),
            path: self.path.clone(),
            older_than_s: self.older_than.map(|age| age.as_secs_f64()),
            error: self.error.clone(),
            scope: self.scope.map(|scope| match scope {
                ScopeArg::Entry => Scope::Entry,
                ScopeArg::Children => Scope::Children,
                ScopeArg::Subtree => Scope::Subtree,
            }),
            limit: None,
        }
    }
}
