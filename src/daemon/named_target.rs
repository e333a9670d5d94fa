//! A target with the names by which it is shown. Which facts are shown about it is decided elsewhere.

use std::path::PathBuf;

use crate::model::TargetId;

/// A target with its names.
#[derive(Debug, Clone)]
pub struct NamedTarget {
    pub id: TargetId,
    pub name: String,
    /// The port that is set in the configuration. Unknown without a daemon.
    pub port: Option<u16>,
    pub root: PathBuf,
}
