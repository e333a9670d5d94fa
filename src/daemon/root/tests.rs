use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::state::Watching;
use super::*;
use crate::clock::{SystemClock, monotonic};
use crate::filter::Filter;
use crate::mirror::RootIdentity;
use crate::model::{Destination, EventSwitches, TargetId};
use crate::mounts::Mounts;
use crate::queue::{Policy, Queue};
use crate::store::memory::MemoryStore;

fn queue() -> Arc<Queue> {
    Arc::new(Queue::open(Box::new(MemoryStore::new()), Arc::new(SystemClock)).unwrap().0)
}

fn root(path: &Path, queue: &Arc<Queue>, beside: bool) -> (Arc<RootRuntime>, TargetId) {
    let (target, _) = queue.register(path, &Destination::Local("/there".into()), Policy::default());
    let rules = Rules {
        path: path.to_owned(),
        events: EventSwitches::default(),
        excludes: Vec::new(),
        legacy_hidden: false,
        rule_files: Vec::new(),
        quiet_period: Duration::from_secs(10),
        hot_interval: Duration::from_secs(1),
        keeps_links: false,
        keeps_watermark: true,
    };
    let options = StartOptions { beside, store_is_whole: true, ..StartOptions::default() };
    let (filter, identity) = (Arc::new(Filter::new(&[], false).unwrap()), RootIdentity::of(path).unwrap());
    let mounts = Arc::new(Mounts::new(path, []));
    (Arc::new(RootRuntime::new(rules, filter, identity, mounts, options, vec![(target, 1)], Arc::clone(queue))), target)
}

/// Maintains the root until `condition` holds, as its thread does.
fn maintain_until(root: &Arc<RootRuntime>, what: &str, condition: impl Fn() -> bool) {
    let begun = monotonic();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        root.maintain();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A reload that failed, or left a root out, while the root's tree was still being walked left a watcher behind for good. That
/// watcher went on to queue changes by rules that were not in force.
#[test]
fn a_watcher_that_is_started_too_late_is_given_up() {
    for (beside, stopped) in [(true, false), (false, false), (false, true)] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "f").unwrap();
        let queue = queue();
        let (root, _) = root(dir.path(), &queue, beside);
        // The root ends while its tree is still being walked, and the walk finds out only when it is done.
        if stopped {
            root.stop()
        } else {
            root.abandon()
        }
        root.start().unwrap();
        assert!(!matches!(root.lock().watching, Watching::On(_)), "beside: {beside}, stopped: {stopped}");
        let watcher = root.start_watcher(None).unwrap();
        assert!(!root.keep(watcher));
        assert_eq!(Arc::strong_count(&root), 1, "a watcher still holds it");
    }
}

/// After a crash and with the old settings back, the target kept what the runs under the new settings had made of it.
#[test]
fn other_settings_take_back_at_once_that_a_target_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "f").unwrap();
    let queue = queue();
    let (root, target) = root(dir.path(), &queue, false);
    root.start().unwrap();
    let complete_under = || queue.target_record(target).unwrap().complete_under;
    maintain_until(&root, "the first checkpoint", || complete_under() == Some(1));
    root.retarget(vec![(target, 2)]);
    assert_eq!(complete_under(), None);
    // No event comes, and the target is recorded as complete all the same.
    maintain_until(&root, "the next checkpoint", || complete_under() == Some(2));
    root.stop();
}
