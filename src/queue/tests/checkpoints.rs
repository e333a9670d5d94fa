//! What the store holds, and what the queue notes, of roots and directories.

use super::*;
use crate::model::{BootId, RootId};
use crate::store::Contents;

const SRC: &str = "/src";

struct World {
    store: MemoryStore,
    queue: Queue,
    target: TargetId,
}

impl World {
    fn new() -> Self {
        Self::on(MemoryStore::new())
    }

    fn on(store: MemoryStore) -> Self {
        let queue = open(&store, &Arc::new(SimulatedClock::new(Timestamp(1_000))));
        let (target, _) = queue.register(Path::new(SRC), &destination(), Policy::default());
        Self { store, queue, target }
    }

    fn checkpoint(&self, at: u64, directories: Vec<DirectoryChange>, complete: &[u64]) {
        let complete: Vec<_> = complete.iter().map(|fingerprint| (self.target, *fingerprint)).collect();
        self.queue.checkpoint(Path::new(SRC), moment(at), directories, &complete);
    }

    fn flushed(&self) -> Contents {
        assert!(self.queue.flush(SOON));
        self.store.contents()
    }

    /// Lets `commits` more commits succeed and waits until they have and the next has failed.
    fn fails_after(&self, commits: u64, change: impl FnOnce()) {
        assert!(self.queue.store_health().error.is_some() || self.queue.flush(SOON));
        let done = self.store.commits() + commits;
        self.store.fail_after(0);
        change();
        self.store.fail_after(commits);
        let begun = crate::clock::monotonic();
        while self.store.commits() < done || self.queue.store_health().error.is_none() {
            assert!(begun.elapsed() < SOON, "{} of {done} commits", self.store.commits());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.store.commits(), done);
    }

    /// The watermark and the fingerprint that the store has.
    fn durable(&self) -> (Option<u64>, Option<u64>) {
        let contents = self.flushed();
        (contents.roots[0].watermark.map(|moment| moment.uptime_ms), contents.targets[0].complete_under)
    }

    /// Has the queue killed and opened again on what the store holds.
    fn crash(self) -> Self {
        let store = self.store.copy();
        std::mem::forget(self);
        Self::on(store)
    }

    fn remembered(&self) -> Vec<u64> {
        let taken = self.queue.take_directories(Path::new(SRC)).unwrap_or_default();
        taken.iter().map(|directory| directory.id.inode).collect()
    }
}

fn moment(at: u64) -> Moment {
    Moment { wall: Timestamp(at), boot: BootId([1; 16]), uptime_ms: at }
}

fn id(inode: u64) -> DirectoryId {
    DirectoryId { inode, born_ns: Some(5) }
}

fn put(inode: u64) -> DirectoryChange {
    DirectoryChange::Put { id: id(inode), parent: id(1), name: format!("d{inode}").into_bytes().into() }
}

#[test]
fn a_checkpoint_is_there_after_a_crash_and_hands_its_directories_out_once() {
    let world = World::new();
    world.checkpoint(10, (2..5).map(put).collect(), &[99]);
    assert_eq!(world.durable(), (Some(10), Some(99)));
    let moved = DirectoryChange::Put { id: id(2), parent: id(3), name: (*b"moved").into() };
    world.checkpoint(20, vec![moved, DirectoryChange::Gone(id(4))], &[99]);
    assert_eq!(world.durable(), (Some(20), Some(99)));
    let world = world.crash();
    assert_eq!(world.queue.root_record(Path::new(SRC)).unwrap().watermark, Some(moment(20)));
    assert_eq!(world.queue.target_record(world.target).unwrap().complete_under, Some(99));
    let directories = world.queue.take_directories(Path::new(SRC)).unwrap();
    let places: Vec<_> = directories.iter().map(|d| (d.id.inode, d.parent.inode, d.name.as_slice())).collect();
    assert_eq!(places, [(2, 3, &b"moved"[..]), (3, 1, b"d3")]);
    assert_eq!(world.queue.take_directories(Path::new(SRC)), None);
}

#[test]
fn the_mark_and_the_scheduled_run_are_kept() {
    let world = World::new();
    let unknown = Path::new("/nowhere");
    world.queue.set_root_mark(Path::new(SRC), id(1));
    world.queue.set_scheduled_run(Path::new(SRC), Timestamp(77));
    world.queue.set_root_mark(unknown, id(1));
    world.checkpoint(10, vec![], &[]);
    world.flushed();
    let world = world.crash();
    let root = world.queue.root_record(Path::new(SRC)).unwrap();
    assert_eq!((root.mark, root.scheduled_run, root.watermark), (Some(id(1)), Some(Timestamp(77)), Some(moment(10))));
    assert_eq!(world.queue.root_mark(Path::new(SRC)), Some(id(1)));
    assert_eq!(world.queue.root_record(unknown), None);
    world.flushed();
    let ops = world.store.ops();
    world.queue.set_root_mark(Path::new(SRC), id(1));
    world.flushed();
    assert_eq!(world.store.ops(), ops, "what the store has is not written again");
}

#[test]
fn two_targets_share_a_root() {
    let world = World::new();
    let other = Destination::Local("/other mirror".into());
    let (second, new) = world.queue.register(Path::new(SRC), &other, Policy::default());
    let (third, _) = world.queue.register(Path::new("/src2"), &other, Policy::default());
    assert!(new && second != third);
    let contents = world.flushed();
    assert_eq!(contents.roots.iter().map(|root| root.id).collect::<Vec<_>>(), [RootId(1), RootId(2)]);
    assert_eq!(contents.targets.iter().map(|target| target.root.0).collect::<Vec<_>>(), [1, 1, 2]);
}

/// A watermark whose directories had not been written said that everything up to it was mirrored: a directory that had
/// been moved in was taken for a known one.
#[test]
fn a_watermark_is_never_durable_before_its_directories() {
    for commits in [0, 3] {
        let world = World::new();
        world.checkpoint(10, vec![put(2)], &[]);
        world.fails_after(commits, || {
            world.checkpoint(20, (3..4_003).map(put).collect(), &[7]);
        });
        // A change of the root's record in between must not carry the watermark along.
        world.fails_after(1, || world.queue.set_root_mark(Path::new(SRC), id(1)));
        let contents = world.store.contents();
        let (root, target) = (&contents.roots[0], &contents.targets[0]);
        assert_eq!((root.mark, root.watermark), (Some(id(1)), Some(moment(10))), "after {commits} commits");
        assert_eq!(target.complete_under, None);
        assert!(contents.directories.len() < 4_001);
        world.store.heal();
        assert_eq!(world.durable(), (Some(20), Some(7)), "and all of it gets there at last");
        assert_eq!(world.store.contents().directories.len(), 4_001);
    }
}

#[test]
fn jobs_do_not_wait_for_directories() {
    let world = World::new();
    world.fails_after(2, || {
        world.checkpoint(10, (2..50_002).map(put).collect(), &[]);
        world.queue.enqueue(&[world.target], &[Change::write(path("a"))]);
    });
    assert_eq!(world.store.contents().jobs.len(), 1);
}

/// The target was not served meanwhile. When it was configured again, it was taken for complete up to the watermark.
#[test]
fn a_target_that_a_checkpoint_does_not_name_is_no_longer_complete() {
    let world = World::new();
    world.checkpoint(10, Vec::new(), &[99]);
    assert_eq!(world.durable(), (Some(10), Some(99)));
    // The target is not complete even if that was about to be written.
    world.fails_after(0, || world.checkpoint(20, vec![put(2)], &[99]));
    world.checkpoint(30, Vec::new(), &[]);
    world.store.heal();
    assert_eq!(world.durable(), (Some(30), None));
    assert_eq!(world.crash().queue.target_record(TargetId(1)).unwrap().complete_under, None);
}

#[test]
fn a_later_checkpoint_supersedes_the_watermark_of_one_that_still_waits() {
    let world = World::new();
    world.fails_after(0, || world.checkpoint(10, (2..1_502).map(put).collect(), &[1]));
    // One commit takes a thousand operations: all but the end of the first checkpoint.
    world.fails_after(1, || {
        world.checkpoint(20, vec![DirectoryChange::Gone(id(2)), put(9_000)], &[1]);
    });
    assert_eq!(world.store.contents().roots[0].watermark, None);
    world.store.heal();
    assert_eq!(world.durable(), (Some(20), Some(1)));
    let inodes: Vec<u64> = world.store.contents().directories.iter().map(|d| d.id.inode).collect();
    assert_eq!(inodes, (3..1_502).chain([9_000]).collect::<Vec<_>>());
}

#[test]
fn what_is_forgotten_is_gone_however_many_directories_there_are() {
    let world = World::new();
    world.checkpoint(10, (2..3_502).map(put).collect(), &[5]);
    world.flushed();
    world.queue.forget_watermark(Path::new(SRC));
    assert_eq!(world.queue.root_record(Path::new(SRC)).unwrap().watermark, None);
    // Directories of a later checkpoint are not deleted along with the forgotten ones.
    world.checkpoint(20, vec![put(7)], &[6]);
    assert_eq!(world.durable(), (Some(20), Some(6)));
    assert_eq!(world.crash().remembered(), [7]);
}

#[test]
fn forgetting_voids_a_checkpoint_that_still_waits() {
    let world = World::new();
    world.fails_after(1, || world.checkpoint(10, (2..1_502).map(put).collect(), &[5]));
    assert_eq!(world.store.contents().directories.len(), 1_000);
    world.queue.forget_watermark(Path::new(SRC));
    world.store.heal();
    assert_eq!(world.durable(), (None, None));
    assert!(world.store.contents().directories.is_empty());
}

/// A crash in the middle of a first checkpoint, or of forgetting one, leaves directories without a watermark. If they
/// were taken for known later, they would hide what was moved in meanwhile.
#[test]
fn directories_without_a_watermark_are_not_handed_out_and_go_with_the_next_checkpoint() {
    let world = World::new();
    world.fails_after(2, || world.checkpoint(10, (2..3_002).map(put).collect(), &[5]));
    let world = world.crash();
    assert_eq!(world.store.contents().directories.len(), 2_000);
    assert!(world.remembered().is_empty());
    world.flushed();
    assert_eq!(world.store.contents().directories.len(), 2_000, "whoever only looks changes nothing");
    world.checkpoint(20, vec![put(8_000)], &[]);
    assert_eq!(world.durable(), (Some(20), None));
    assert_eq!(world.crash().remembered(), [8_000]);
}

/// After a loss everything below has to be compared in full, and the store has to get all that memory holds.
#[test]
fn a_store_that_was_lost_gets_everything_again_but_watermarks() {
    let world = World::new();
    world.queue.set_root_mark(Path::new(SRC), id(1));
    world.queue.enqueue(&[world.target], &[Change::write(path("a")), Change::write(path("b"))]);
    world.checkpoint(10, vec![put(2), put(3)], &[5]);
    let before = world.flushed();
    world.store.fail_after(0);
    // As much as is under way at that moment: a job that comes, one that ends, a checkpoint, one to be forgotten.
    let batch = world.queue.claim(world.target, Lane::Small).expect("jobs are ready");
    let verdicts = vec![(path("a"), Verdict::Done)];
    world.queue.finish(&batch, BatchResult { verdicts, reached: true, ..BatchResult::default() });
    world.queue.enqueue(&[world.target], &[Change::write(path("c"))]);
    world.checkpoint(20, vec![put(4)], &[]);
    world.store.lose();
    let lost = || world.queue.store_health().error.is_some_and(|error| error.contains("lost"));
    let begun = crate::clock::monotonic();
    while !lost() {
        assert!(begun.elapsed() < SOON, "the loss does not show");
        std::thread::sleep(Duration::from_millis(1));
    }
    let after = world.flushed();
    assert_eq!(after.roots, [RootRecord { watermark: None, ..before.roots[0].clone() }]);
    assert_eq!(after.targets, [TargetRecord { complete_under: None, ..before.targets[0].clone() }]);
    assert!(after.directories.is_empty());
    let paths: Vec<_> = after.jobs.iter().map(|job| job.path.to_string()).collect();
    assert_eq!(paths, ["b", "c"]);
    assert!(after.next_job_id >= before.next_job_id);
    assert_eq!(world.queue.root_record(Path::new(SRC)).unwrap().watermark, None, "so all of it has to be named");
    world.checkpoint(30, vec![put(2), put(3)], &[6]);
    assert_eq!(world.durable(), (Some(30), Some(6)));
    assert_eq!(world.crash().remembered(), [2, 3]);
}

#[test]
fn checkpoints_of_several_roots_do_not_touch_each_other() {
    let world = World::new();
    world.queue.register(Path::new("/src2"), &destination(), Policy::default());
    world.checkpoint(10, vec![put(2)], &[5]);
    world.queue.checkpoint(Path::new("/src2"), moment(11), vec![put(2), put(3)], &[]);
    world.queue.forget_watermark(Path::new(SRC));
    let contents = world.flushed();
    let watermarks: Vec<_> = contents.roots.iter().map(|root| root.watermark).collect();
    assert_eq!(watermarks, [None, Some(moment(11))]);
    let directories: Vec<_> = contents.directories.iter().map(|d| (d.root, d.id.inode)).collect();
    assert_eq!(directories, [(RootId(2), 2), (RootId(2), 3)]);
    world.queue.checkpoint(Path::new("/nowhere"), moment(1), vec![put(9)], &[(TargetId(44), 1)]);
    assert_eq!(world.flushed(), contents);
}
