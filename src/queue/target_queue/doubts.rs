//! Paths whose run was cut off and which have been sent again. They are looked at once more, at growing distances, since
//! data of the run that was cut off may still be held somewhere.
//!
//! Data that this machine's kernel holds is known, and waited for (`mirror/rsync/lingering`). Data that a stalled server,
//! a proxy or the host behind an ssh holds shows nowhere. So the path is compared again later, a few times. Where nothing
//! came late, that costs a run that finds all equal. Nobody waits for these looks: they promise nothing about a moment,
//! only that the target does not stay wrong.
//!
//! Targets on this machine have no doubts: their receivers are ended with the run.
//!
//! In memory only: after a daemon was killed, the next one begins with doubts of its own (`open_receiver_window`). Pure,
//! and bounded by [`DOUBTS_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::hints::below;
use crate::model::{RelPath, Scope, TargetId, Timestamp};

/// How long after a path was sent again each look comes at the earliest.
const AFTER: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(130), Duration::from_secs(250)];
/// Looks are this far apart, so that few runs make all looks that are due. Looks at different targets, and looks at files
/// and at directories, come at different moments, so that a machine on which many runs were cut off still rests.
/// [`AFTER`] grows by no less than this in each step.
const GRID_MS: u64 = 120_000;
const BETWEEN_TARGETS_MS: u64 = 40_000;
const BETWEEN_SCOPES_MS: u64 = 60_000;
/// The most paths that are noted. Doubts at further paths are dropped.
const DOUBTS_MAX: usize = 20_000;

#[derive(Debug, Clone, Copy)]
struct Doubt {
    since: Timestamp,
    scope: Scope,
    /// The index in `AFTER` of the next look.
    step: usize,
    due: Timestamp,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Doubts {
    /// When within each stretch of [`GRID_MS`] this target's looks are due.
    offset_ms: u64,
    of: BTreeMap<RelPath, Doubt>,
    due: BTreeSet<(Timestamp, RelPath)>,
}

impl Doubts {
    pub fn of(target: TargetId) -> Self {
        let offset_ms = u64::from(target.0) * BETWEEN_TARGETS_MS % GRID_MS;
        Self { offset_ms, of: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// Notes that a path has been sent again at `since`. A subtree takes long to compare and is looked at only once, at
    /// the end.
    pub fn note(&mut self, path: &RelPath, scope: Scope, since: Timestamp) {
        let scope = self.remove(path).map_or(scope, |known| known.scope.max(scope));
        if self.of.len() < DOUBTS_MAX {
            let step = if scope == Scope::Subtree { AFTER.len() - 1 } else { 0 };
            self.place(path, Doubt { since, scope, step, due: since });
        }
    }

    /// A directory has come to `path`: in place of what there is a doubt about at it or below, all is looked at, once and at
    /// the end, since what comes late may take a tree away.
    pub fn widen(&mut self, path: &RelPath) {
        let own = self.of.get_key_value(path);
        let concerned: Vec<RelPath> = below(&self.of, path).chain(own).map(|(path, _)| path.clone()).collect();
        for path in concerned {
            if let Some(doubt) = self.remove(&path) {
                self.place(&path, Doubt { scope: Scope::Subtree, step: AFTER.len() - 1, ..doubt });
            }
        }
    }

    /// Takes the paths that are to be looked at by `now`, and plans their next looks.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<(RelPath, Scope)> {
        let mut taken = Vec::new();
        while let Some((_, path)) = self.due.first().filter(|(due, _)| *due <= now).cloned() {
            let Some(doubt) = self.remove(&path) else { continue };
            self.place(&path, Doubt { step: doubt.step + 1, ..doubt });
            taken.push((path, doubt.scope));
        }
        taken
    }

    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    fn place(&mut self, path: &RelPath, doubt: Doubt) {
        let Some(after) = AFTER.get(doubt.step) else { return };
        let earliest = doubt.since.after(*after).0;
        let offset_ms = self.offset_ms + if doubt.scope == Scope::Entry { 0 } else { BETWEEN_SCOPES_MS };
        let wait_ms = (2 * GRID_MS + offset_ms - earliest % GRID_MS) % GRID_MS;
        let due = Timestamp(earliest + wait_ms);
        self.due.insert((due, path.clone()));
        self.of.insert(path.clone(), Doubt { due, ..doubt });
    }

    fn remove(&mut self, path: &RelPath) -> Option<Doubt> {
        let doubt = self.of.remove(path)?;
        self.due.remove(&(doubt.due, path.clone()));
        Some(doubt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn times(target: u32, scope: Scope) -> Vec<u64> {
        let mut doubts = Doubts::of(TargetId(target));
        doubts.note(&path("a"), scope, Timestamp(1_000));
        let mut times = Vec::new();
        while let Some(due) = doubts.next_due() {
            assert!(doubts.take_due(Timestamp(due.0 - 1)).is_empty());
            assert_eq!(doubts.take_due(due), [(path("a"), scope)]);
            times.push(due.0 / 1_000);
        }
        assert!(doubts.of.is_empty());
        times
    }

    #[test]
    fn a_path_is_looked_at_at_growing_distances_and_a_tree_once() {
        assert_eq!(times(0, Scope::Entry), [120, 240, 360]);
        assert_eq!(times(0, Scope::Children), [60, 180, 300]);
        assert_eq!(times(0, Scope::Subtree), [300]);
    }

    /// Two targets with three kinds of runs each once made six runs at one moment.
    #[test]
    fn different_targets_are_looked_at_at_different_moments() {
        assert_eq!([1, 2, 3, 4].map(|target| times(target, Scope::Entry)[0]), [40, 80, 120, 40]);
        assert_eq!([1, 2, 3, 4].map(|target| times(target, Scope::Children)[0]), [100, 20, 60, 100]);
    }

    #[test]
    fn what_was_cut_off_at_different_moments_is_looked_at_in_one_run() {
        let mut doubts = Doubts::of(TargetId(0));
        for n in 0..10 {
            doubts.note(&path(&n.to_string()), Scope::Entry, Timestamp(1_000 + n * 900));
        }
        assert_eq!(doubts.next_due(), Some(Timestamp(120_000)));
        assert_eq!(doubts.take_due(Timestamp(120_000)).len(), 10);
    }

    #[test]
    fn being_cut_off_again_begins_anew_and_there_is_a_limit() {
        let mut doubts = Doubts::of(TargetId(0));
        doubts.note(&path("a"), Scope::Entry, Timestamp(0));
        doubts.note(&path("a"), Scope::Entry, Timestamp(9_000));
        assert!(doubts.take_due(Timestamp(119_999)).is_empty());
        assert_eq!(doubts.take_due(Timestamp(120_000)).len(), 1);
        for n in 0..=DOUBTS_MAX {
            doubts.note(&path(&n.to_string()), Scope::Entry, Timestamp(0));
        }
        assert_eq!((doubts.of.len(), doubts.due.len()), (DOUBTS_MAX, DOUBTS_MAX));
    }
}
