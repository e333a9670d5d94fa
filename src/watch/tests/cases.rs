//! One test for each way in which a tree can change.

mod directories;
mod unseen_names;

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;

use inotify::EventMask;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::property::exchange;
use super::{Driver, between_changes, path};
use crate::filter::Filter;
use crate::model::{Change, Origin, Scope, Settle};
use crate::watch::Notice;
use crate::watch::event::RawEvent;
use crate::watch::policy::TIMES_WAIT;
use crate::watch::policy::UNWRITTEN_QUIET;
use crate::watch::table::Wd;

fn entry(at: &str) -> Change {
    Change::scan(path(at), Scope::Entry)
}

fn gone_directory(at: &str) -> Change {
    Change { gone_directory: true, ..entry(at) }
}

fn write(at: &str) -> Change {
    Change::write(path(at))
}

fn subtree(at: &str) -> Change {
    Change { fresh: true, origin: Origin::Replaced, ..Change::scan(path(at), Scope::Subtree) }
}

fn moved(at: &str, old: &str) -> Change {
    Change { moved_from: Some(path(old)), ..subtree(at) }
}

fn fresh(at: &str) -> Change {
    Change { scope: Scope::Children, fresh: true, ..Change::write(path(at)) }
}

/// A directory whose listing changed, and with it its times.
fn times(at: &str) -> Change {
    Change { settle: Settle::Within(TIMES_WAIT), ..entry(at) }
}

fn root() -> Change {
    times("")
}

#[test]
fn after_an_overflow_only_what_changed_since_is_reported_and_everything_is_watched() {
    let mut driver = Driver::new(|root| {
        fs::create_dir_all(root.join("a/gone")).unwrap();
        fs::create_dir_all(root.join("untouched/deep")).unwrap();
        fs::write(root.join("a/old"), "").unwrap();
        fs::write(root.join("a/written"), "").unwrap();
    });
    between_changes();
    assert_eq!(driver.report(), []);
    fs::remove_dir(driver.root.join("a/gone")).unwrap();
    fs::create_dir_all(driver.root.join("a/new/deep")).unwrap();
    fs::write(driver.root.join("a/written"), "1").unwrap();
    fs::write(driver.root.join("a/older"), "1").unwrap();
    fs::File::options()
        .write(true)
        .open(driver.root.join("a/older"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    driver.overflow();
    driver.overflow();
    let mut changes = driver.report();
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    let level = Change::scan(path("a"), Scope::Children);
    assert_eq!(changes, [level, subtree("a/new"), write("a/older"), entry("a/written")]);
    assert_eq!(*driver.collector.notices.lock(), [Notice::Overflow]);
    driver.check_table();
}

#[test]
fn a_written_file_is_reported_once_with_its_directory() {
    let mut driver = Driver::new(|root| fs::create_dir(root.join("d")).unwrap());
    fs::write(driver.root.join("d/f"), "1").unwrap();
    assert_eq!(driver.report(), [times("d"), write("d/f")]);
    fs::write(driver.root.join("d/f"), "2").unwrap();
    assert_eq!(driver.report(), [write("d/f")], "the listing of the directory did not change");
    fs::remove_file(driver.root.join("d/f")).unwrap();
    assert_eq!(driver.report(), [times("d"), entry("d/f")]);
}

#[test]
fn a_file_that_is_still_open_waits_until_it_is_quiet() {
    let mut driver = Driver::new(|_| {});
    let mut file = fs::File::create(driver.root.join("f")).unwrap();
    let quiet = |wait| Change { settle: Settle::Quiet(wait), ..write("f") };
    assert_eq!(driver.report(), [root(), quiet(UNWRITTEN_QUIET)]);
    file.write_all(b"1").unwrap();
    assert_eq!(driver.report(), [quiet(Duration::from_secs(5))]);
    // Like truncate(2) by path, which opens nothing and so closes nothing.
    file.set_len(0).unwrap();
    assert_eq!(driver.report(), [quiet(Duration::from_secs(5))]);
    drop(file);
    assert_eq!(driver.report(), [write("f")]);
}

#[test]
fn names_that_nobody_closes_after_writing_are_complete_at_once() {
    let mut driver = Driver::new(|root| fs::write(root.join("f"), "1").unwrap());
    symlink("f", driver.root.join("link")).unwrap();
    symlink(".", driver.root.join("loop")).unwrap();
    fs::hard_link(driver.root.join("f"), driver.root.join("hard")).unwrap();
    rustix::fs::mknodat(CWD, driver.root.join("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert_eq!(driver.report(), [root(), write("link"), write("loop"), write("hard"), write("fifo")]);
    driver.check_table();
}

/// The kernel tells of one name; the others stayed old on the targets for ever.
#[test]
fn a_write_through_one_name_is_reported_under_all_of_them() {
    let mut driver = Driver::with(
        |s| s.events.attrib = true,
        |root| {
            for dir in ["a", "b/deep", "c"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            fs::write(root.join("a/f"), "1").unwrap();
            fs::hard_link(root.join("a/f"), root.join("b/deep/g")).unwrap();
        },
    );
    driver.settle();
    let written = |reported: &[Change]| -> Vec<String> {
        let writes = reported.iter().filter(|change| change.origin == Origin::Write);
        let mut paths: Vec<_> = writes.map(|change| change.path.to_string()).collect();
        paths.sort();
        paths
    };
    // The other name is searched for, then known; then one comes by an event, one by a rename, one with a directory, and
    // one goes.
    fs::write(driver.root.join("b/deep/g"), "2").unwrap();
    assert_eq!(written(&driver.report()), ["a/f", "b/deep/g"]);
    fs::write(driver.root.join("a/f"), "3").unwrap();
    assert_eq!(written(&driver.report()), ["a/f", "b/deep/g"]);
    fs::hard_link(driver.root.join("a/f"), driver.root.join("c/h")).unwrap();
    driver.settle();
    fs::rename(driver.root.join("b/deep/g"), driver.root.join("b/moved")).unwrap();
    fs::rename(driver.root.join("c"), driver.root.join("e")).unwrap();
    let _ = driver.report();
    fs::write(driver.root.join("e/h"), "4").unwrap();
    assert_eq!(written(&driver.report()), ["a/f", "b/moved", "e/h"]);
    fs::remove_file(driver.root.join("a/f")).unwrap();
    let _ = driver.report();
    fs::write(driver.root.join("e/h"), "5").unwrap();
    assert_eq!(written(&driver.report()), ["b/moved", "e/h"]);
    // A name that is nowhere in the tree is searched for once.
    fs::rename(driver.root.join("e/h"), driver.outside.join("h")).unwrap();
    let _ = driver.report();
    fs::write(driver.root.join("b/moved"), "6").unwrap();
    driver.turn(Duration::ZERO, 64 * 1024, 0);
    assert!(!driver.tracker.seeks_names(), "all of the tree is known");
    let _ = driver.report();
    fs::set_permissions(driver.root.join("b/moved"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(driver.outside.join("h"), driver.root.join("i")).unwrap();
    let _ = driver.report();
    fs::set_permissions(driver.root.join("i"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(driver.report(), [entry("b/moved"), entry("i")]);
}

/// A name in a directory that was closed for a moment counted as none: the other names stayed old for ever.
#[test]
fn a_write_through_a_name_that_nobody_may_look_at_is_reported_under_all_names_once_it_is_open() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let mut driver = linked();
    let mode = |driver: &Driver, dir: &str, mode| {
        fs::set_permissions(driver.root.join(dir), fs::Permissions::from_mode(mode)).unwrap();
    };
    let mut open = fs::File::options().append(true).open(driver.root.join("a/f")).unwrap();
    mode(&driver, "a", 0o600);
    std::io::Write::write_all(&mut open, b"2").unwrap();
    drop(open);
    let _ = driver.report();
    mode(&driver, "a", 0o755);
    assert!(driver.report().iter().any(|change| change.path == path("b/deep/g")));

    // Another name is where nobody may look: it is reported, and waits.
    mode(&driver, "b", 0o600);
    fs::write(driver.root.join("a/f"), "3").unwrap();
    assert!(driver.report().iter().any(|change| change.path == path("b/deep/g")));
    mode(&driver, "b", 0o755);
}

/// The name through which a file was written was gone before anybody looked, and with it the knowledge of the others.
#[test]
fn a_write_through_a_name_that_is_gone_at_once_is_reported_under_the_others() {
    let mut driver = linked();
    fs::write(driver.root.join("a/f"), "2").unwrap();
    assert!(driver.report().iter().any(|change| change.path == path("b/deep/g")));
    fs::write(driver.root.join("a/f"), "3").unwrap();
    fs::remove_file(driver.root.join("a/f")).unwrap();
    assert!(driver.report().iter().any(|change| change.path == path("b/deep/g")));
}

/// A file with two names.
fn linked() -> Driver {
    let mut driver = Driver::with(
        |s| s.events.attrib = true,
        |root| {
            for dir in ["a", "b/deep"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            fs::write(root.join("a/f"), "1").unwrap();
            fs::hard_link(root.join("a/f"), root.join("b/deep/g")).unwrap();
        },
    );
    driver.settle();
    driver
}

#[test]
fn where_links_are_kept_a_new_name_is_reported_with_all_others() {
    let mut driver = Driver::with(|s| s.keeps_links = true, |root| fs::write(root.join("f"), "1").unwrap());
    driver.settle();
    fs::hard_link(driver.root.join("f"), driver.root.join("g")).unwrap();
    let reported = driver.report_in_full();
    let tied: Vec<_> =
        reported.iter().filter_map(|change| Some((change.path.to_string(), change.several_names?))).collect();
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(driver.root.join("f")).unwrap());
    assert!(tied.contains(&("f".to_owned(), inode)) && tied.contains(&("g".to_owned(), inode)), "{reported:?}");
}

#[test]
fn a_file_is_new_that_was_made_under_a_free_name() {
    let mut driver = Driver::new(|root| fs::write(root.join("old"), "1").unwrap());
    let mut new = |act: &dyn Fn(&std::path::Path)| {
        act(&driver.root);
        let reported = driver.report_in_full();
        reported.iter().filter(|change| change.is_new).map(|change| change.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(new(&|root| fs::write(root.join("f"), "1").unwrap()), ["f"]);
    for act in [
        (&|root: &std::path::Path| fs::write(root.join("f"), "2").unwrap()) as &dyn Fn(&std::path::Path),
        &|root| fs::rename(root.join("f"), root.join("g")).unwrap(),
        // The target may have the file that was there.
        &|root| {
            fs::remove_file(root.join("old")).unwrap();
            fs::write(root.join("old"), "2").unwrap();
        },
        &|root| symlink("g", root.join("link")).unwrap(),
    ] {
        assert_eq!(new(act), Vec::<String>::new());
    }
}

#[test]
fn a_file_published_without_ever_being_closed_under_its_name_is_reported() {
    let mut driver = Driver::new(|_| {});
    let unnamed = rustix::fs::open(&driver.root, OFlags::TMPFILE | OFlags::WRONLY, Mode::RUSR).unwrap();
    rustix::io::write(&unnamed, b"1").unwrap();
    let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&unnamed));
    rustix::fs::linkat(CWD, from, CWD, driver.root.join("f"), AtFlags::SYMLINK_FOLLOW).unwrap();
    drop(unnamed);
    let reported = driver.report();
    assert_eq!(reported.first(), Some(&root()));
    assert!(reported.iter().any(|change| change.path == path("f")), "{reported:?}");
}

#[test]
fn names_may_be_any_bytes() {
    let mut driver = Driver::new(|_| {});
    let odd = std::ffi::OsStr::from_bytes(b"\xff\n$(x)");
    fs::create_dir(driver.root.join(odd)).unwrap();
    driver.settle();
    fs::write(driver.root.join(odd).join(odd), "1").unwrap();
    let reported = driver.report();
    assert!(reported.contains(&Change::write(path(b"\xff\n$(x)/\xff\n$(x)"))), "{reported:?}");
    driver.check_table();
}

#[test]
fn a_renamed_file_is_sent_before_its_old_name_is_deleted() {
    let mut driver = Driver::new(|root| fs::write(root.join("old"), "1").unwrap());
    fs::rename(driver.root.join("old"), driver.root.join("new")).unwrap();
    assert_eq!(driver.report(), [root(), write("new"), entry("old")]);
}

#[test]
fn where_a_large_file_came_from_is_told_if_rsync_can_find_it_there() {
    let large = |path: std::path::PathBuf| fs::File::create(path).unwrap().set_len(1 << 20).unwrap();
    let mut driver = Driver::new(|root| {
        fs::create_dir(root.join("d")).unwrap();
        large(root.join("a"));
        fs::write(root.join("small"), "1").unwrap();
    });
    let from = |new: &str, old: &str| Change { moved_from: Some(path(old)), ..write(new) };
    for (old, new, expected) in [
        ("a", "b", from("b", "a")),
        ("b", "d/b", from("d/b", "b")),
        ("d/b", "c", write("c")),
        ("small", "smaller", write("smaller")),
    ] {
        fs::rename(driver.root.join(old), driver.root.join(new)).unwrap();
        let reported = driver.report();
        assert!(reported.contains(&expected), "{old} to {new}: {reported:?}");
    }
    fs::rename(driver.root.join("c"), driver.root.join("c~")).unwrap();
    driver.settle();
    fs::rename(driver.root.join("c~"), driver.root.join("e")).unwrap();
    assert!(driver.report().contains(&write("e")), "the old name was never mirrored");
}

#[test]
fn deletions_that_are_not_to_be_reported_are_not() {
    let mut driver = Driver::with(|s| s.events.delete = false, |root| fs::create_dir(root.join("d")).unwrap());
    driver.settle();
    fs::remove_dir(driver.root.join("d")).unwrap();
    assert_eq!(driver.report(), [root()]);
    driver.check_table();
}

#[test]
fn events_of_forgotten_watches_are_nothing() {
    let mut driver = Driver::new(|_| {});
    for mask in [EventMask::CREATE | EventMask::ISDIR, EventMask::DELETE, EventMask::CLOSE_WRITE, EventMask::IGNORED] {
        driver.inject(RawEvent { wd: Wd(4711), mask, cookie: 0, name: b"f" });
        driver.inject(RawEvent { wd: Wd(4711), mask, cookie: 0, name: b"" });
    }
    assert_eq!(driver.report(), []);
    driver.check_table();
}

fn excluding(expression: &str, prepare: impl FnOnce(&std::path::Path)) -> Driver {
    let filter = Arc::new(Filter::new(&[expression.to_owned()], false).unwrap());
    let mut driver = Driver::with(|s| s.filter = filter, prepare);
    driver.settle();
    driver
}

#[test]
fn excluded_directories_are_neither_watched_nor_reported() {
    let mut driver = excluding("^cache.*", |root| fs::create_dir_all(root.join("cache1/sub")).unwrap());
    assert_eq!(driver.tracker.table().watched(), 1);
    fs::write(driver.root.join("cache1/sub/f"), "1").unwrap();
    fs::create_dir_all(driver.root.join("cache2/sub")).unwrap();
    assert_eq!(driver.report(), [root()]);
    assert_eq!(driver.tracker.table().watched(), 1);
    fs::rename(driver.root.join("cache1"), driver.root.join("kept")).unwrap();
    assert_eq!(driver.report(), [root(), subtree("kept")], "the old name was never mirrored");
    assert_eq!(driver.tracker.table().watched(), 3);
    fs::rename(driver.root.join("kept"), driver.root.join("cache3")).unwrap();
    assert_eq!(driver.report(), [root(), gone_directory("kept")]);
    assert_eq!(driver.tracker.table().watched(), 1);
}

#[test]
fn temporaries_are_not_reported_but_a_file_named_like_the_probe_of_vim_is() {
    let mut driver = Driver::new(|_| {});
    fs::write(driver.root.join(".f.swp"), "1").unwrap();
    assert_eq!(driver.report(), [root()]);
    // A comparison sends it, empty or not.
    fs::write(driver.root.join("4913"), "").unwrap();
    assert_eq!(driver.report(), [root(), write("4913")]);
}
