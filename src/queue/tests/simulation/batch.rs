//! A batch under way: its runs one after the other, and what they mean for its jobs, as `mirror::execute` has it.

use super::*;

/// A batch under way, as `mirror::execute` drives it.
pub(super) struct Batch {
    pub(super) jobs: Vec<ClaimedJob>,
    pub(super) lane: Lane,
    pub(super) deletion: Deletion,
    pub(super) verdicts: Vec<Option<Verdict>>,
    pub(super) links: VecDeque<(usize, usize)>,
    /// Whether the directories in which the `links` runs begin are known to be directories.
    pub(super) is_sure: bool,
    /// Whether a run of the batch wrote through a link.
    pub(super) astray: bool,
    /// Something ran beside the batch that may make a link of a directory at any moment: a subtree, or the rest of a run
    /// that was cut off.
    pub(super) is_excused: bool,
    /// The runs to come, once they are planned.
    pub(super) runs: Option<VecDeque<Rsync>>,
    pub(super) current: Option<Rsync>,
}

impl Batch {
    pub(super) fn new(jobs: Vec<ClaimedJob>, lane: Lane, deletion: Deletion) -> Self {
        let place = |path: &RelPath| jobs.iter().position(|job| job.path == *path);
        // The old content of a file is only what the new one is compared with.
        let old = |job: &ClaimedJob| job.moved_from.as_ref().filter(|_| job.scope == Scope::Subtree).and_then(place);
        let links = jobs.iter().enumerate().filter_map(|(at, job)| Some((at, old(job)?))).collect();
        let verdicts = vec![None; jobs.len()];
        let (is_sure, astray, is_excused) = (false, false, false);
        Self { verdicts, jobs, lane, deletion, links, is_sure, astray, is_excused, runs: None, current: None }
    }

    pub(super) fn subtrees(&self) -> Vec<RelPath> {
        self.jobs.iter().filter(|job| job.scope == Scope::Subtree).map(|job| job.path.clone()).collect()
    }

    pub(super) fn settle(&mut self, job: usize, verdict: Verdict) {
        let rank = |verdict: &Verdict| match verdict {
            Verdict::Done => 0,
            Verdict::Above(_) | Verdict::LookAgain(_) => 1,
            Verdict::Large | Verdict::Released => 2,
            Verdict::Failed(_) => 3,
        };
        let kept = &mut self.verdicts[job];
        if kept.as_ref().is_none_or(|kept| rank(kept) < rank(&verdict)) {
            *kept = Some(verdict);
        }
    }

    /// Does one step. Returns whether it was the last.
    pub(super) fn step(&mut self, source: &Tree, mirror: &mut Tree) -> bool {
        if let Some(mut rsync) = self.current.take() {
            let has_ended = rsync.step(source, mirror);
            self.astray |= rsync.astray;
            match has_ended {
                true => self.ended(rsync, source),
                false => self.current = Some(rsync),
            }
            return false;
        }
        if !self.links.is_empty() && !self.is_sure {
            self.is_sure = true;
            let entered =
                |&(new, old): &(usize, usize)| [Some(self.jobs[new].path.clone()), self.jobs[old].path.parent()];
            let places: BTreeSet<RelPath> = self.links.iter().flat_map(entered).flatten().collect();
            let entry = |path: RelPath| Entry { path, presence: Presence::Directory, orphan: false, jobs: Vec::new() };
            let places = places.into_iter().filter(|place| !place.is_root()).map(entry).collect();
            self.current = Some(Rsync::new(Run::new(RunKind::Flat, Origin::Scan, places)));
            return false;
        }
        if let Some((new, old)) = self.links.pop_front() {
            if self.may_link(new, old, source) {
                let mut rsync = Rsync::new(Run::new(RunKind::Tree, Origin::Write, vec![self.entry(new, source)]));
                rsync.linked = Some((self.jobs[new].path.clone(), self.jobs[old].path.clone()));
                self.current = Some(rsync);
            }
            return false;
        }
        let Some(runs) = &mut self.runs else {
            let undecided: Vec<usize> = (0..self.jobs.len()).filter(|&at| self.verdicts[at].is_none()).collect();
            let look = &mut |path: &RelPath| source.presence(path);
            let plan = plan(&self.jobs, &undecided, self.lane, LIMITS, self.deletion, look);
            let resumes = |run: &Run| self.lane == Lane::Large && run.kind == RunKind::Flat;
            let rsync = |run| Rsync { resumes: resumes(&run), ..Rsync::new(run) };
            self.runs = Some(plan.runs.into_iter().map(rsync).collect());
            plan.settled.into_iter().for_each(|(job, verdict)| self.settle(job, verdict));
            return false;
        };
        self.current = runs.pop_front();
        self.current.is_none()
    }

    pub(super) fn entry(&self, job: usize, source: &Tree) -> Entry {
        let path = self.jobs[job].path.clone();
        Entry { presence: source.presence(&path), path, orphan: false, jobs: vec![job] }
    }

    /// Whether the content of a moved directory can be taken over.
    pub(super) fn may_link(&self, new: usize, old: usize, source: &Tree) -> bool {
        let (new, old) = (&self.jobs[new], &self.jobs[old].path);
        new.scope == Scope::Subtree
            && source.is_dir(&new.path)
            && source.presence(old) == Presence::Missing
            && old.parent().is_some_and(|parent| source.is_dir(&parent))
    }

    pub(super) fn ended(&mut self, mut rsync: Rsync, source: &Tree) {
        let place = |path: &RelPath| self.jobs.iter().position(|job| job.path == *path).unwrap();
        let linked = rsync.linked.as_ref().map(|(new, old)| (place(new), place(old)));
        if let Some((_, old)) = linked
            && rsync.run.kind == RunKind::Tree
        {
            // The old name goes next. Whatever goes wrong, the normal run comes.
            if rsync.bad.is_empty() {
                let look = &mut |path: &RelPath| source.presence(path);
                let deletion = Run::deletion(self.deletion, vec![self.entry(old, source)], look);
                self.current = Some(Rsync { linked: rsync.linked, ..Rsync::new(deletion) });
            }
            return;
        }
        if self.runs.is_none() && linked.is_none() && !rsync.bad.is_empty() {
            self.links.clear();
        }
        let mut run = rsync.run;
        if rsync.keeps && rsync.bad.len() < run.entries.len() && run.looks_around() {
            // Nothing was deleted for the other entries either.
            let others;
            (run, others) = run.parted(|at| rsync.bad.contains_key(&at));
            rsync.bad = rsync.bad.into_values().enumerate().collect();
            self.current = Some(Rsync::new(others));
        }
        for (at, entry) in run.entries.iter().enumerate() {
            for &job in &entry.jobs {
                let verdict = match rsync.bad.get(&at) {
                    Some(Verdict::LookAgain(_)) => Verdict::LookAgain(self.jobs[job].scope),
                    Some(verdict) => verdict.clone(),
                    None => Verdict::Done,
                };
                self.settle(job, verdict);
            }
        }
        if let Some((new, old)) = linked
            && self.verdicts[old] == Some(Verdict::Done)
            && self.may_link(new, old, source)
        {
            self.settle(new, Verdict::Done);
        }
    }
}
