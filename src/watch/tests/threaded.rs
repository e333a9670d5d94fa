//! The watcher as others use it: with its thread, started, stopped and left alone.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Collector, Sink, between_changes, path, scratch, settings};
use crate::clock;
use crate::model::{DirectoryChange, RelPath, Scope};
use crate::watch::{CatchUp, GoneReason, Notice, WatchError, WatchSettings, Watcher};

const PATIENCE: Duration = Duration::from_secs(20);

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::monotonic() + PATIENCE;
    while !condition() {
        assert!(clock::monotonic() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn start(root: &Path) -> (Watcher, Arc<Collector>) {
    let collector = Arc::new(Collector::default());
    let watcher = Watcher::start(settings(root), Arc::clone(&collector) as Arc<dyn Sink>).unwrap();
    (watcher, collector)
}

#[test]
fn chains_of_directories_made_at_once_are_reported_and_watched() {
    let dir = scratch();
    let (watcher, collector) = start(dir.path());
    let mut missing: HashSet<RelPath> = HashSet::new();
    for chain in 0..200 {
        let deepest = dir.path().join(format!("{chain}/a/b/c/d/e"));
        fs::create_dir_all(&deepest).unwrap();
        fs::write(deepest.join("at-once"), "1").unwrap();
        let mut name = path(format!("{chain}"));
        missing.insert(name.clone());
        for below in ["a", "b", "c", "d", "e"] {
            name = name.join(below.as_bytes());
            missing.insert(name.clone());
        }
    }
    let directories = missing.clone();
    wait_until("each directory is reported with what is in it", || {
        for change in collector.take() {
            if change.scope >= Scope::Children {
                missing.remove(&change.path);
            }
        }
        missing.is_empty()
    });
    assert_eq!(watcher.stats().watches, 1 + 200 * 6);

    let mut missing: HashSet<RelPath> = directories.iter().map(|dir| dir.join(b"later")).collect();
    for file in &missing {
        fs::write(file.under(dir.path()), "2").unwrap();
    }
    wait_until("a file in each directory is reported", || {
        for change in collector.take() {
            missing.remove(&change.path);
        }
        missing.is_empty()
    });
    assert!(collector.notices.lock().is_empty());
}

#[test]
fn a_tree_that_is_there_is_watched_when_start_returns() {
    let dir = scratch();
    for name in ["a/b", "c"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let (watcher, collector) = start(dir.path());
    assert_eq!((watcher.stats().watches, watcher.stats().unwatched), (4, 0));
    assert!(collector.take().is_empty(), "what was there before is for a scan to report");
    fs::write(dir.path().join("a/b/f"), "1").unwrap();
    wait_until("the file is reported", || collector.take().iter().any(|c| c.path == path("a/b/f")));
    assert!(watcher.stats().events > 0);
    watcher.stop();
    watcher.stop();
}

#[test]
fn a_root_that_goes_away_is_told_once_and_the_thread_still_stops() {
    for (reason, go) in [
        (GoneReason::Deleted, (|root| fs::remove_dir(root).unwrap()) as fn(&Path)),
        (GoneReason::Renamed, |root| fs::rename(root, root.with_file_name("elsewhere")).unwrap()),
    ] {
        let dir = scratch();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let (watcher, collector) = start(&root);
        go(&root);
        wait_until("the notice", || !collector.notices.lock().is_empty());
        assert_eq!(*collector.notices.lock(), [Notice::RootGone { reason }]);
        assert_eq!(watcher.stats().watches, 0);
        assert!(watcher.barrier().recv().is_err());
        watcher.stop();
    }
}

#[test]
fn behind_a_barrier_all_that_happened_before_is_reported() {
    let dir = scratch();
    let (watcher, collector) = start(dir.path());
    for round in 0..50 {
        let file = format!("{round}/a/b/f");
        fs::create_dir_all(dir.path().join(&file).parent().unwrap()).unwrap();
        fs::write(dir.path().join(&file), "1").unwrap();
        watcher.barrier().recv_timeout(PATIENCE).unwrap();
        let last = path(file);
        let reported = collector.take();
        let covers =
            |at: &RelPath, scope| *at == last || scope >= Scope::Children && last.parent().as_ref() == Some(at);
        assert!(reported.iter().any(|c| covers(&c.path, c.scope)), "{last}: {reported:?}");
    }
    watcher.stop();
    assert!(watcher.barrier().recv().is_err(), "nobody is there to answer");
}

#[test]
fn a_root_that_cannot_be_watched_is_an_error() {
    let dir = scratch();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for root in [dir.path().join("missing"), file] {
        let refused = Watcher::start(settings(&root), Arc::new(Collector::default()));
        assert!(matches!(refused, Err(WatchError::Root { root: named, .. }) if named == root));
    }
}

#[test]
fn a_root_may_be_named_through_a_symbolic_link() {
    let dir = scratch();
    fs::create_dir_all(dir.path().join("real/d")).unwrap();
    std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
    let (watcher, collector) = start(&dir.path().join("link"));
    assert_eq!(watcher.stats().watches, 2);
    fs::write(dir.path().join("real/d/f"), "").unwrap();
    wait_until("the file is reported", || collector.take().iter().any(|c| c.path == path("d/f")));
}

/// When changes were handed on as they were found, a hundred changes of a million files cost three hundred runs after a
/// restart.
#[test]
fn changes_found_by_one_walk_come_together() {
    const DIRECTORIES: u64 = 1_000;
    let dir = scratch();
    let file = |n: u64| dir.path().join(format!("{n}/f"));
    for n in 0..DIRECTORIES {
        fs::create_dir(dir.path().join(n.to_string())).unwrap();
        fs::write(file(n), "1").unwrap();
    }
    let (watcher, _) = start(dir.path());
    let known = watcher.checkpoint().recv_timeout(PATIENCE).unwrap().into_iter().filter_map(|change| match change {
        DirectoryChange::Put { id, parent, name } => Some((id, (parent, name))),
        DirectoryChange::Gone(_) => None,
    });
    let known = known.collect();
    watcher.stop();
    let since = between_changes();
    (0..DIRECTORIES).for_each(|n| fs::write(file(n), "2").unwrap());
    let settings = WatchSettings { catch_up: Some(CatchUp { since, known }), ..settings(dir.path()) };
    let collector = Arc::new(Collector::default());
    let begun = clock::monotonic();
    let watcher = Watcher::start(settings, Arc::clone(&collector) as Arc<dyn Sink>).unwrap();
    let calls = collector.calls.load(Ordering::SeqCst);
    assert_eq!(collector.take().len() as u64, DIRECTORIES);
    assert!(calls <= 1 + begun.elapsed().as_secs(), "handed on in {calls} parts");
    watcher.stop();
}

/// Without that call the last change of a burst would wait for a batch that nobody fills.
#[test]
fn whoever_was_told_that_more_follow_is_told_when_none_do() {
    let dir = scratch();
    let (watcher, collector) = start(dir.path());
    let mut names = 0..;
    wait_until("a burst is handed on in parts", || {
        names.by_ref().take(5_000).any(|n: u64| {
            fs::write(dir.path().join(n.to_string()), "").unwrap();
            collector.awaits_more.load(Ordering::SeqCst)
        })
    });
    wait_until("it is over", || !collector.awaits_more.load(Ordering::SeqCst));
    watcher.stop();
}
