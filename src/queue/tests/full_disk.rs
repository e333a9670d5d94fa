//! The disk of the store fills up while a checkpoint is on its way to it.

use super::*;
use crate::model::BootId;
use crate::store::sled::SledStore;
use crate::store::sled::tests::Tmpfs;

const SRC: &str = "/src";
const BEFORE: u64 = 500;
const ALL: u64 = 20_000;

fn moment(at: u64) -> Moment {
    Moment { wall: Timestamp(at), boot: BootId([1; 16]), uptime_ms: at }
}

fn put(inode: u64) -> DirectoryChange {
    let id = |inode| DirectoryId { inode, born_ns: None };
    DirectoryChange::Put { id: id(inode), parent: id(1), name: format!("directory {inode}").into_bytes().into() }
}

fn open(dir: &Path) -> Queue {
    let (store, opened) = SledStore::open(dir, Timestamp(1)).expect("opens");
    assert!(!opened.rolled_back, "{opened:?}");
    let (queue, damaged) =
        Queue::open(Box::new(store), Arc::new(SimulatedClock::new(Timestamp(1_000)))).expect("opens");
    assert_eq!(damaged, 0);
    queue
}

fn watermark(queue: &Queue) -> Option<Moment> {
    queue.root_record(Path::new(SRC)).and_then(|root| root.watermark)
}

#[test]
fn a_checkpoint_that_meets_a_full_disk_waits_for_room_and_is_whole_then() {
    let temp = tempfile::tempdir().expect("a directory");
    let disk = temp.path().join("disk");
    std::fs::create_dir(&disk).expect("creates");
    let Some(_mounted) = Tmpfs::mount(&disk, "12m") else { return };
    let (dir, ballast) = (disk.join("state"), disk.join("ballast"));
    let queue = open(&dir);
    let mirror = Destination::Local("/mirror".into());
    let (target, _) = queue.register(Path::new(SRC), &mirror, Policy::default());
    queue.enqueue(&[target], &[Change::write(path("before"))]);
    queue.checkpoint(Path::new(SRC), moment(10), (2..BEFORE).map(put).collect(), &[(target, 7)]);
    assert!(queue.flush(SOON));

    // Room for a part of the checkpoint.
    std::fs::write(&ballast, vec![1; 9 << 20]).expect("fits");
    queue.checkpoint(Path::new(SRC), moment(20), (2..ALL).map(put).collect(), &[(target, 7)]);
    queue.enqueue(&[target], &[Change::write(path("during"))]);
    let begun = crate::clock::monotonic();
    while queue.store_health().error.is_none() {
        assert!(begun.elapsed() < SOON * 4, "the disk never gets full");
        std::thread::sleep(Duration::from_millis(5));
    }
    let error = queue.store_health().error.unwrap_or_default();
    assert!(error.contains("No space left"), "{error}");
    assert_eq!(watermark(&queue), Some(moment(10)));
    assert!(queue.claim(target, Lane::Small).is_some(), "mirroring goes on");

    // The store as a kill would leave it now.
    let killed = temp.path().join("killed");
    copy(&dir, &killed);
    let left = open(&killed);
    assert_eq!(watermark(&left), Some(moment(10)));
    assert_eq!(left.target_record(target).and_then(|record| record.complete_under), Some(7));
    let found = left.take_directories(Path::new(SRC)).unwrap().len() as u64;
    assert!((BEFORE - 2..ALL - 2).contains(&found), "{found} directories");
    assert!(left.page(target, None, 10, |_| true).iter().any(|job| job.path == path("before")));
    drop(left);

    std::fs::remove_file(&ballast).expect("removes");
    assert!(queue.flush(SOON * 4), "there is room again");
    assert_eq!(queue.store_health().error, None);
    assert_eq!(watermark(&queue), Some(moment(20)));
    drop(queue);
    let queue = open(&dir);
    assert_eq!(watermark(&queue), Some(moment(20)));
    assert_eq!(queue.take_directories(Path::new(SRC)).unwrap().len() as u64, ALL - 2);
    assert_eq!(queue.stats(target).expect("a target").counts.total(), 2);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("creates");
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copies");
        }
    }
}
