//! Bounds a backlog by forgetting detail: the jobs below a directory become one sweep of that directory.
//!
//! The innermost directories go first, and among them the fullest, until half of the jobs are gone; in the end the whole
//! tree is one job. Halving makes the walk over all jobs cheap: as many changes as one walk removes have to come before
//! the next. Jobs that failed keep their place and their error for as long as the others suffice.

use std::cmp::Reverse;

use super::TargetQueue;
use crate::model::{Change, JobId, Origin, RelPath, Scope, Timestamp};

/// A directory with jobs below it.
struct Directory {
    /// Some path below the directory. It begins with the directory's own path.
    sample: RelPath,
    path_len: usize,
    /// Index of the directory above; the root's index is its own.
    above: usize,
    /// Jobs at the directory's entries, and jobs below those entries that do not become sweeps.
    jobs: usize,
    /// Directories in this one for which it is not decided yet whether they become sweeps.
    undecided: usize,
    chosen: bool,
}

impl Directory {
    fn path_bytes(&self) -> &[u8] {
        self.sample.as_bytes().get(..self.path_len).unwrap_or_default()
    }

    fn is_above(&self, path: &RelPath) -> bool {
        self.path_len == 0
            || (path.as_bytes().starts_with(self.path_bytes()) && path.as_bytes().get(self.path_len) == Some(&b'/'))
    }

    fn path(&self) -> RelPath {
        self.sample.ancestors().find(|above| above.as_bytes() == self.path_bytes()).unwrap_or_else(RelPath::root)
    }
}

impl TargetQueue {
    /// Turns as many directories into sweeps as it takes to remove half of the jobs.
    pub fn collapse(&mut self, now: Timestamp, mut next_id: impl FnMut() -> JobId) {
        let excess = self.jobs.len().div_ceil(2);
        let mut all = false;
        let (mut chosen, saved) = self.choose(excess, all);
        if saved < excess {
            all = true;
            (chosen, _) = self.choose(excess, all);
        }
        for path in chosen {
            let sweep = Change { origin: Origin::Write, ..Change::scan(path.clone(), Scope::Subtree) };
            if self.jobs.contains_key(&path) {
                self.merge(&path, Scope::Subtree, &sweep, now);
            } else {
                self.create(&path, Scope::Subtree, &sweep, now, next_id());
            }
            let below = self.range_below(&path).filter(|(_, job)| job.may_go(all));
            let below: Vec<RelPath> = below.map(|(path, _)| path.clone()).collect();
            self.absorb(&path, &below);
        }
    }

    /// Chooses directories to sweep so that at least `excess` jobs go, if possible. Returns the directories and how many
    /// jobs go. `all` says whether failed jobs may go.
    fn choose(&self, excess: usize, all: bool) -> (Vec<RelPath>, usize) {
        let mut directories = self.directories(all);
        let mut saved = 0;
        let mut round: Vec<usize> =
            directories.iter().enumerate().filter(|(_, dir)| dir.undecided == 0).map(|(at, _)| at).collect();
        while saved < excess && !round.is_empty() {
            round.sort_by_key(|&at| Reverse(directories.get(at).map(|dir| dir.jobs)));
            for at in std::mem::take(&mut round) {
                let Some(dir) = directories.get_mut(at) else { continue };
                let new = usize::from(!self.jobs.contains_key(dir.path_bytes()));
                let gain = dir.jobs.saturating_sub(new);
                dir.chosen = saved < excess && gain > 0;
                let left = if dir.chosen { new } else { dir.jobs };
                saved += if dir.chosen { gain } else { 0 };
                let above = dir.above;
                if above == at {
                    continue;
                }
                let Some(dir) = directories.get_mut(above) else { continue };
                dir.jobs += left;
                dir.undecided -= 1;
                if dir.undecided == 0 {
                    round.push(above);
                }
            }
        }
        // A directory inside a swept one needs no sweep. The directories are in path order, each behind those above it.
        let mut swept = vec![false; directories.len()];
        let mut chosen = Vec::new();
        for (at, dir) in directories.iter().enumerate() {
            let above = at != dir.above && swept.get(dir.above).copied().unwrap_or_default();
            if dir.chosen && !above {
                chosen.push(dir.path());
            }
            if let Some(swept) = swept.get_mut(at) {
                *swept = dir.chosen || above;
            }
        }
        (chosen, saved)
    }

    /// All directories with jobs below them that may go, the root first.
    fn directories(&self, all: bool) -> Vec<Directory> {
        let new = |sample: &RelPath, path_len, above| Directory {
            sample: sample.clone(),
            path_len,
            above,
            jobs: 0,
            undecided: 0,
            chosen: false,
        };
        let mut directories = vec![new(&RelPath::root(), 0, 0)];
        // Indexes of the directories from the root down to that of the last path. Paths below one directory follow each
        // other.
        let mut open = vec![0];
        for (path, _) in self.jobs.iter().filter(|(path, job)| !path.is_root() && job.may_go(all)) {
            while let Some(&at) = open.last()
                && directories.get(at).is_some_and(|dir| !dir.is_above(path))
            {
                open.pop();
            }
            let mut above = open.last().copied().unwrap_or_default();
            let known_len = directories.get(above).map_or(0, |dir| dir.path_len);
            let slashes = path.as_bytes().iter().enumerate().skip(known_len + 1).filter(|(_, b)| **b == b'/');
            for (path_len, _) in slashes {
                if let Some(dir) = directories.get_mut(above) {
                    dir.undecided += 1;
                }
                directories.push(new(path, path_len, above));
                above = directories.len() - 1;
                open.push(above);
            }
            if let Some(dir) = directories.get_mut(above) {
                dir.jobs += 1;
            }
        }
        directories
    }
}
