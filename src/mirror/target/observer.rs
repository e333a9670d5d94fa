//! The changes that a run has made on its target, read from rsync's output, for an observer. Pure.
//!
//! A change is no acknowledgement: rsync prints a line when it begins with a path. Only rsync's exit code and error
//! messages tell which jobs are done (`outcome`).

use crate::mirror::rsync::itemize::{difference_of, to_path};
use crate::model::{ClaimedJob, Origin, RelPath, TargetId};

/// How many bytes of a run's output are kept: some half a million paths. The observer does not hear of the rest, and the
/// log says so.
pub(crate) const CHANGED_BYTES_MAX: usize = 32 << 20;

/// The kind of change of a path on a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The path was created, or given other content or attributes.
    Update,
    Delete,
}

/// A path that a run changed on its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub path: RelPath,
    pub operation: Operation,
    pub directory: bool,
}

/// A batch that has ended, before the queue is told: its jobs are still in flight there.
#[derive(Debug)]
pub struct Ran<'a> {
    pub target: TargetId,
    /// Jobs that are done or have failed, so that no run for them follows at once.
    pub settled: Vec<&'a ClaimedJob>,
    pub changed: Vec<Changed>,
    /// The target can accept no runs at present.
    pub in_trouble: bool,
}

/// Hears of each batch that has ended. The workers call it, so it must not wait for anything.
pub trait Observer: Send + Sync + std::fmt::Debug {
    fn ran(&self, ran: Ran<'_>);
}

/// The paths that a run with `--out-format='%i %n'` has changed.
///
/// A directory counts only if it is new or got another mode or owner: its time changes with every entry. In a run over the
/// whole tree a path that the target lacked does not count: filling a new target is no change of the source.
pub(crate) fn changes(output: &[u8], origin: Origin) -> impl Iterator<Item = Changed> {
    output.split(|&b| b == b'\n').filter_map(difference_of).filter_map(move |difference| {
        let directory = difference.name.ends_with(b"/");
        let is_new = difference.attributes.starts_with(b"+");
        let only_time = difference.attributes.iter().enumerate().all(|(at, b)| at == 2 || matches!(b, b'.' | b' '));
        let counts = difference.deletes || if is_new { origin != Origin::Reconcile } else { !directory || !only_time };
        let path = to_path(&difference.name).filter(|path| counts && !path.is_root())?;
        let operation = if difference.deletes { Operation::Delete } else { Operation::Update };
        Some(Changed { path, operation, directory })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_a_change() {
        let output = b"building file list ... \n>f+++++++++ new\n.d..t...... ./\n.d..t...... d/\n.d...p..... e/\n\
            cd+++++++++ n/\n>f.st...... a\\#012b\n.f...p..... m\n*deleting   x/y\n*deleting   x/\ncL+++++++++ l\n\
            sent 119 bytes  received 31 bytes  300.00 bytes/sec\n      5 100%    0.00kB/s\n";
        let shown = |origin| -> Vec<String> {
            changes(output, origin)
                .map(|c| format!("{:?} {}{}", c.operation, c.path, if c.directory { "/" } else { "" }))
                .collect()
        };
        let changed = ["Update e/", "Update a\\nb", "Update m", "Delete x/y", "Delete x/"];
        assert_eq!(shown(Origin::Reconcile), changed);
        let all =
            ["Update new", "Update e/", "Update n/", "Update a\\nb", "Update m", "Delete x/y", "Delete x/", "Update l"];
        assert_eq!(shown(Origin::Scan), all);
    }
}
