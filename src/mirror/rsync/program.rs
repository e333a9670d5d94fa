//! Which program is run, and for which owner.
//!
//! Each run carries its owner, the state directory, in its environment; `orphans` recognises the run by that.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use super::blocked::Hangs;
use super::under_way::UnderWay;

/// Keeps a process within the directories that it has to read and write.
pub trait Confine: fmt::Debug + Send + Sync {
    /// Starts the process that `command` describes, whose arguments are `args`.
    fn spawn(&self, command: &mut Command, args: &[OsString]) -> io::Result<Child>;
}

/// Which program is run, and for which owner.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: OsString,
    pub owner: OsString,
    /// A process that has read and written nothing for this long hangs.
    pub stall_limit: Duration,
    /// Confines the runs, if the program is rsync.
    pub places: Option<Arc<dyn Confine>>,
    /// The files in which runs of this program hang.
    pub hangs: Arc<Hangs>,
    /// How far runs of this program have come.
    pub under_way: Arc<UnderWay>,
}

/// The variable that names the owner of a run.
pub(crate) const OWNER: &str = "SYNCQ_STATE_DIR";
