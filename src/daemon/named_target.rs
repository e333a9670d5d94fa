//! How a target is called where something of it is shown. What is shown is not said here.

use std::path::PathBuf;

use crate::model::TargetId;

/// A target with its names.
#[derive(Debug, Clone)]
pub struct NamedTarget {
    pub id: TargetId,
    pub name: String,
    /// The port that is set for it. Unknown without a daemon.
    pub port: Option<u16>,
    pub root: PathBuf,
}
