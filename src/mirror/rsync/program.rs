//! What is run, and for whom.
//!
//! Each run carries its owner, the state directory, in its environment, by which `orphans` knows it again.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use super::blocked::Hangs;
use super::under_way::UnderWay;

/// Keeps a process within the places of its business.
pub trait Confine: fmt::Debug + Send + Sync {
    /// Starts the process that `command` describes, whose arguments are `args`.
    fn spawn(&self, command: &mut Command, args: &[OsString]) -> io::Result<Child>;
}

/// What is run, and for whom.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: OsString,
    pub owner: OsString,
    /// A process that has read and written nothing for so long hangs.
    pub stall_limit: Duration,
    /// Where its runs have their business, if they are rsync's.
    pub places: Option<Arc<dyn Confine>>,
    /// In what its runs hang.
    pub hangs: Arc<Hangs>,
    /// How far its runs have come.
    pub under_way: Arc<UnderWay>,
}

/// The variable that names the owner of a run.
pub(crate) const OWNER: &str = "SYNCQ_STATE_DIR";
