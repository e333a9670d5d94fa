//! Records of roots and targets beside their jobs: watermarks, marks, mounts, and who vouches for a target.
//!
//! Memory changes first; the committer writes the records. Deliberately absent: the jobs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crossbeam_channel::Receiver;

use super::Queue;
use super::checkpoint::Catalog;
use crate::model::{
    DirectoryChange, DirectoryId, Moment, Mounted, RelPath, TargetId, TargetTrouble, Timestamp, Top, TroubleClass,
};
use crate::store::{DirectoryRecord, RootRecord, TargetRecord};

impl Queue {
    /// Which directory `root` was when it was last mirrored, if it ever was.
    pub fn root_mark(&self, root: &Path) -> Option<DirectoryId> {
        self.root_record(root)?.mark
    }

    /// Remembers which directory `root` is.
    pub fn set_root_mark(&self, root: &Path, mark: DirectoryId) {
        self.change_ledger(|catalog| catalog.set_mark(root.as_os_str().as_bytes(), mark));
    }

    /// Remembers where file systems are mounted below `root`.
    pub fn set_mounts(&self, root: &Path, mounts: Vec<Mounted>) {
        self.change_ledger(|catalog| catalog.set_mounts(root.as_os_str().as_bytes(), mounts));
    }

    /// The root as the store knows it. A watermark that is still being written is not in it yet.
    pub fn root_record(&self, root: &Path) -> Option<RootRecord> {
        self.shared.lock().catalog.root(root.as_os_str().as_bytes()).cloned()
    }

    /// The target as the store knows it.
    pub fn target_record(&self, id: TargetId) -> Option<TargetRecord> {
        self.shared.lock().catalog.target(id).cloned()
    }

    /// Takes the directories below `root` that the store held at the start, as of the root's watermark then. They are
    /// handed out once, and take no memory here after that. Directories that the store gets later are not read again.
    pub fn take_directories(&self, root: &Path) -> Option<Vec<DirectoryRecord>> {
        self.shared.lock().catalog.take_directories(root.as_os_str().as_bytes())
    }

    /// Notes a checkpoint: every change below `root` before `watermark` is mirrored or has a job. `directories` says what
    /// became of directories since the last checkpoint. `complete` names the targets that are complete, each with the
    /// fingerprint of its settings; no other target of the root is complete from now on.
    ///
    /// The caller has made sure by [`flush`](Self::flush) that the jobs are on disk. The watermark gets to the disk after
    /// the directories, not before. A root that has no watermark after that flush, at first or because the store was
    /// lost, needs all its directories.
    pub fn checkpoint(
        &self,
        root: &Path,
        watermark: Moment,
        directories: Vec<DirectoryChange>,
        complete: &[(TargetId, u64)],
    ) {
        self.change_ledger(|catalog| catalog.checkpoint(root.as_os_str().as_bytes(), watermark, directories, complete));
    }

    /// Notes that nothing is known of the tree at `root` any more: all its targets have to be compared in full.
    pub fn forget_watermark(&self, root: &Path) {
        self.change_ledger(|catalog| catalog.forget_watermark(root.as_os_str().as_bytes()));
    }

    /// Notes that these targets are no longer complete, under whatever settings they were.
    pub fn forget_complete(&self, targets: &[TargetId]) {
        self.change_ledger(|catalog| catalog.forget_complete(&targets.iter().copied().collect()));
    }

    /// Notes that nothing vouches for the content of these targets: equal size and time may stand over other content. A
    /// target that was registered since the start is skipped the first time. Its registration noted the same, and
    /// comparisons made since then hold.
    pub fn distrust(&self, targets: &[TargetId]) {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let known: Vec<TargetId> = targets.iter().copied().filter(|target| !state.new_targets.remove(target)).collect();
        drop(state);
        self.change_ledger(|catalog| catalog.distrust(&known, now));
        self.shared.announce_distrust();
    }

    /// Notes that the target's content has been compared up to `up_to` in the order of the tree, or all of it if `None`.
    /// Has no effect if the target was distrusted after `since`.
    pub fn vouch(&self, target: TargetId, since: Timestamp, up_to: Option<RelPath>) {
        self.change_ledger(|catalog| catalog.vouch(target, since, up_to));
    }

    /// Notes that a target is known to be a copy of its source: it was equal once, or holds nothing yet.
    pub fn note_known_target(&self, target: TargetId) {
        self.change_ledger(|catalog| catalog.note_known(target));
    }

    /// Receives a token when a target has been distrusted. One token may stand for several.
    pub fn distrusted(&self) -> &Receiver<()> {
        &self.distrusted
    }

    /// Remembers which directory a local target is. `None`: whatever is there counts.
    pub fn set_target_mark(&self, target: TargetId, mark: Option<DirectoryId>) {
        self.change_ledger(|catalog| catalog.set_target_mark(target, mark));
    }

    /// Remembers what stood at the top of a target on another machine. `None`: whatever is there counts.
    pub fn set_target_top(&self, target: TargetId, top: Option<Top>) {
        self.change_ledger(|catalog| catalog.set_target_top(target, top));
    }

    /// Remembers the addresses to which the name of a target's host leads.
    pub fn set_target_addresses(&self, target: TargetId, addresses: BTreeSet<IpAddr>) {
        self.change_ledger(|catalog| catalog.set_target_addresses(target, addresses));
    }

    /// Notes the result of a look at a target's place. `Err`: the place is not what it was. `Ok`: it is, which ends a
    /// trouble of class `Target`. Returns whether that is news.
    pub fn note_place(&self, target: TargetId, found: Result<(), TargetTrouble>) -> bool {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        let Some(queue) = state.targets.get_mut(&target) else { return false };
        let known = queue.breaker.trouble().map(|trouble| trouble.class);
        let is_news = match found {
            // A trouble of another class may come from the changed place. If it does not, a run finds it out anew.
            Err(trouble) if known != Some(TroubleClass::Target) => {
                queue.breaker.trip(trouble, false, now, state.random.f64())
            }
            Ok(()) if known == Some(TroubleClass::Target) => queue.breaker.close(now).is_some(),
            Err(_) | Ok(()) => false,
        };
        if is_news {
            self.shared.hurry_committer();
            self.shared.announce_work();
        }
        is_news
    }

    /// Remembers when the tree at `root` was last compared by schedule.
    pub fn set_scheduled_run(&self, root: &Path, at: Timestamp) {
        self.change_ledger(|catalog| catalog.set_scheduled_run(root.as_os_str().as_bytes(), at));
    }

    pub(super) fn change_ledger(&self, change: impl FnOnce(&mut Catalog)) {
        let mut state = self.shared.lock();
        change(&mut state.catalog);
        // The changed record may build on jobs, and must not get to the disk before them.
        state.release_dirty();
        // A record that the store has already is not written again.
        state.notes += u64::from(state.catalog.dirty_len() > 0);
        self.shared.hurry_committer();
    }

    /// All roots that the store knows, configured or not.
    pub fn known_roots(&self) -> Vec<RootRecord> {
        self.shared.lock().catalog.roots().to_vec()
    }

    /// All targets that the store knows, configured or not.
    pub fn known_targets(&self) -> Vec<TargetRecord> {
        self.shared.lock().catalog.targets().to_vec()
    }
}
