//! What is reported of directories that are made, moved, replaced and out of reach, and which watches they keep.

use super::*;

#[test]
fn a_renamed_directory_keeps_its_watches_and_is_reported_whole() {
    let mut driver = Driver::new(|root| fs::create_dir_all(root.join("d1/sub")).unwrap());
    let before = driver.tracker.table().snapshot();
    fs::rename(driver.root.join("d1"), driver.root.join("d3")).unwrap();
    fs::write(driver.root.join("d3/sub/f"), "1").unwrap();
    assert_eq!(driver.report(), [root(), subtree("d3"), times("d3/sub"), write("d3/sub/f"), gone_directory("d1")]);
    let after = driver.tracker.table().snapshot();
    assert_eq!(after[&path("d3/sub")], before[&path("d1/sub")]);
    driver.check_table();
}

#[test]
fn where_a_directory_came_from_is_told_if_nothing_else_is_known_of_it() {
    let mut driver = Driver::new(|root| fs::create_dir_all(root.join("d1/sub")).unwrap());
    fs::rename(driver.root.join("d1"), driver.root.join("d2")).unwrap();
    assert_eq!(driver.report(), [root(), moved("d2", "d1"), gone_directory("d1")]);
    fs::write(driver.root.join("d2/sub/f"), "1").unwrap();
    fs::rename(driver.root.join("d2"), driver.root.join("d3")).unwrap();
    assert!(driver.report().contains(&subtree("d3")), "a write to the old name may be on its way");
    fs::rename(driver.root.join("d3"), driver.root.join("d4")).unwrap();
    fs::create_dir(driver.root.join("d3")).unwrap();
    assert!(driver.report().contains(&subtree("d4")), "another has come to the old name");
    fs::rename(driver.root.join("d3"), driver.outside.join("d3")).unwrap();
    fs::rename(driver.root.join("d4"), driver.root.join("d3")).unwrap();
    assert!(driver.report().contains(&subtree("d3")), "the new name was that of another");
    // The rename leads into a directory that nobody watches yet.
    fs::create_dir_all(driver.root.join("made/now")).unwrap();
    fs::rename(driver.root.join("d3"), driver.root.join("made/now/d3")).unwrap();
    let reported = driver.report();
    assert!(reported.contains(&moved("made/now/d3", "d3")), "{reported:?}");
    driver.check_table();
}

#[test]
fn a_directory_that_moves_on_before_the_watcher_looks_keeps_its_watches() {
    let mut driver = Driver::new(|root| fs::create_dir_all(root.join("a/sub")).unwrap());
    let before = driver.tracker.table().snapshot();
    fs::rename(driver.root.join("a"), driver.root.join("b")).unwrap();
    fs::rename(driver.root.join("b"), driver.root.join("c")).unwrap();
    assert!(driver.report().contains(&subtree("c")));
    assert_eq!(driver.tracker.table().snapshot()[&path("c/sub")], before[&path("a/sub")]);
    driver.check_table();
}

/// One of two exchanged directories was not followed any more: the kernel tells of the first one's arrival before it tells
/// that the second has left the same name.
#[test]
fn exchanged_directories_are_both_followed() {
    let mut driver = Driver::new(|root| {
        for name in ["a/x/deep", "b/y/deep", "c"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("f"), "1").unwrap();
    });
    for (one, another) in [("a/x", "b/y"), ("c", "a/x"), ("a/x", "c"), ("b/y", "f"), ("f", "c")] {
        for bytes in [64, 64 * 1024] {
            exchange(&driver.root.join(one), &driver.root.join(another)).unwrap();
            while driver.turn(Duration::ZERO, bytes, 1) {}
            let reported = driver.report();
            for name in [one, another] {
                let is_dir = driver.root.join(name).is_dir();
                let expected = if is_dir { subtree(name) } else { write(name) };
                assert!(reported.contains(&expected), "{one} and {another}: {reported:?}");
                if is_dir {
                    fs::write(driver.root.join(name).join("probe"), "1").unwrap();
                    let below = format!("{name}/probe");
                    assert!(driver.report().contains(&write(&below)), "{one} and {another}: {below}");
                }
            }
            driver.check_table();
        }
    }
}

#[test]
fn a_directory_that_leaves_the_tree_is_forgotten_and_one_that_enters_is_met() {
    let mut driver = Driver::new(|root| fs::create_dir_all(root.join("d/sub")).unwrap());
    fs::rename(driver.root.join("d"), driver.outside.join("d")).unwrap();
    fs::write(driver.outside.join("d/f"), "1").unwrap();
    assert_eq!(driver.report(), [root(), gone_directory("d")]);
    driver.check_table();
    fs::write(driver.outside.join("d/sub/f"), "1").unwrap();
    fs::rename(driver.outside.join("d"), driver.root.join("e")).unwrap();
    assert_eq!(driver.report(), [root(), subtree("e")]);
    driver.check_table();
}

#[test]
fn a_directory_that_leaves_and_comes_back_in_one_read_keeps_its_watches() {
    let mut driver = Driver::new(|root| fs::create_dir_all(root.join("d/sub")).unwrap());
    let before = driver.tracker.table().snapshot();
    fs::rename(driver.root.join("d"), driver.outside.join("d")).unwrap();
    fs::rename(driver.outside.join("d"), driver.root.join("d")).unwrap();
    assert_eq!(driver.report(), [root(), subtree("d")]);
    assert_eq!(driver.tracker.table().snapshot(), before);
}

#[test]
fn a_move_whose_second_half_comes_in_a_later_read_is_still_one() {
    let mut driver = Driver::new(|root| fs::create_dir_all(root.join("a/sub")).unwrap());
    let before = driver.tracker.table().snapshot();
    fs::rename(driver.root.join("a"), driver.root.join("b")).unwrap();
    // Room for one event with a short name.
    assert!(driver.turn(Duration::ZERO, 40, 0) && driver.tracker.awaits_name());
    assert!(driver.report().contains(&moved("b", "a")));
    assert_eq!(driver.tracker.table().snapshot()[&path("b/sub")], before[&path("a/sub")]);
}

#[test]
fn a_directory_deleted_and_made_again_is_fresh() {
    let mut driver = Driver::new(|root| fs::create_dir_all(root.join("d/sub")).unwrap());
    fs::remove_dir_all(driver.root.join("d")).unwrap();
    fs::create_dir(driver.root.join("d")).unwrap();
    let reported = driver.report();
    assert!(reported.contains(&fresh("d")), "{reported:?}");
    driver.check_table();
    fs::write(driver.root.join("d/f"), "1").unwrap();
    assert_eq!(driver.report(), [times("d"), write("d/f")]);
}

#[test]
fn a_directory_replaced_by_a_file_and_back() {
    let mut driver = Driver::new(|root| fs::create_dir_all(root.join("d/sub")).unwrap());
    fs::remove_dir_all(driver.root.join("d")).unwrap();
    fs::write(driver.root.join("d"), "1").unwrap();
    assert!(driver.report().contains(&write("d")));
    driver.check_table();
    fs::remove_file(driver.root.join("d")).unwrap();
    fs::create_dir(driver.root.join("d")).unwrap();
    assert!(driver.report().contains(&fresh("d")));
    driver.check_table();
}

#[test]
fn a_deleted_tree_is_one_change() {
    let mut driver = Driver::new(|root| {
        fs::create_dir_all(root.join("d/sub/deep")).unwrap();
        fs::write(root.join("d/sub/f"), "1").unwrap();
    });
    fs::remove_dir_all(driver.root.join("d")).unwrap();
    let reported = driver.report();
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert!(reported.contains(&root()) && reported.contains(&gone_directory("d")));
}

#[test]
fn attributes_of_a_directory_are_reported_and_end_no_watch() {
    let mut driver = Driver::with(|s| s.events.attrib = true, |root| fs::create_dir_all(root.join("d1")).unwrap());
    driver.settle();
    fs::write(driver.root.join("d1/f"), "1").unwrap();
    let _ = driver.report();
    fs::set_permissions(driver.root.join("d1"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(driver.root.join("d1/f"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(driver.report(), [entry("d1"), entry("d1/f")]);
    fs::write(driver.root.join("d1/new"), "1").unwrap();
    assert!(driver.report().contains(&write("d1/new")));
    driver.check_table();
}

#[test]
fn new_directories_that_are_not_to_be_reported_are_once_something_is_in_them() {
    let mut driver = Driver::with(|s| s.events.create_folder = false, |_| {});
    driver.settle();
    fs::create_dir_all(driver.root.join("a/b")).unwrap();
    assert_eq!(driver.report(), []);
    driver.check_table();
    fs::write(driver.root.join("a/b/f"), "1").unwrap();
    assert_eq!(driver.report(), [fresh("a"), fresh("a/b"), write("a/b/f")]);
    fs::create_dir(driver.root.join("c")).unwrap();
    fs::write(driver.root.join("c/at-once"), "1").unwrap();
    assert_eq!(driver.report(), [fresh("c")], "the file may be older than the watch");
}

#[test]
fn moves_that_are_not_to_be_reported_are_followed_all_the_same() {
    for (move_from, move_to) in [(false, true), (true, false), (false, false)] {
        let set = |s: &mut crate::watch::WatchSettings| (s.events.move_from, s.events.move_to) = (move_from, move_to);
        let mut driver = Driver::with(set, |root| fs::create_dir_all(root.join("old/sub")).unwrap());
        driver.settle();
        fs::rename(driver.root.join("old"), driver.root.join("new")).unwrap();
        let reported = driver.report();
        assert_eq!(reported.contains(&gone_directory("old")), move_from);
        assert_eq!(reported.contains(&subtree("new")), move_to);
        fs::write(driver.root.join("new/sub/f"), "1").unwrap();
        assert!(driver.report().contains(&write("new/sub/f")));
        driver.check_table();
    }
}

#[test]
fn a_directory_out_of_reach_is_told_of_and_watched_as_soon_as_it_can_be() {
    let mut driver = Driver::new(|_| {});
    let name = "n".repeat(200);
    // Deeper than any path can say.
    let mut at = rustix::fs::open(&driver.root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..22 {
        rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    driver.settle();
    assert_eq!(driver.tracker.table().unwatched(), 1);
    let notices = std::mem::take(&mut *driver.collector.notices.lock());
    assert!(matches!(&notices[..], [Notice::Unwatched { so_far: 1, .. }]), "{notices:?}");

    fs::rename(driver.root.join(&name), driver.root.join("n")).unwrap();
    rustix::fs::renameat(CWD, driver.root.join("n").join(&name), CWD, driver.root.join("n/m")).unwrap();
    rustix::fs::renameat(CWD, driver.root.join("n/m").join(&name), CWD, driver.root.join("n/m/o")).unwrap();
    let reported = driver.report();
    assert!(reported.contains(&subtree("n")), "{reported:?}");
    driver.check_table();
    assert_eq!((driver.tracker.table().watched(), driver.tracker.table().unwatched()), (23, 0));
}

#[test]
fn directories_without_a_watch_are_looked_through_for_changes() {
    let mut driver = Driver::new(|_| {});
    driver.tracker.kernel_mut().exhausted = true;
    fs::create_dir_all(driver.root.join("d/e")).unwrap();
    for file in ["d/f", "d/e/g", "d/e/same"] {
        fs::write(driver.root.join(file), "1").unwrap();
    }
    driver.settle();
    assert_eq!(driver.tracker.table().unwatched(), 2);
    between_changes();
    driver.settle();
    driver.tracker.retry_unwatched();
    assert_ne!(driver.report(), [], "they may have changed before anybody knew that they cannot be watched");

    between_changes();
    fs::write(driver.root.join("d/f"), "2").unwrap();
    fs::remove_file(driver.root.join("d/e/g")).unwrap();
    fs::create_dir(driver.root.join("d/new")).unwrap();
    assert_eq!(driver.report(), [], "nobody sees it");
    driver.tracker.retry_unwatched();
    let mut changes = driver.report();
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    let level = |at| Change::scan(path(at), Scope::Children);
    assert_eq!(changes, [level("d"), level("d/e"), write("d/f"), subtree("d/new")]);

    driver.tracker.kernel_mut().exhausted = false;
    driver.tracker.retry_unwatched();
    let changes = driver.report();
    assert!(changes.contains(&Change::scan(path("d"), Scope::Subtree)), "{changes:?}");
    driver.check_table();
}

#[test]
fn a_directory_that_became_a_symbolic_link_does_not_lead_to_another() {
    let mut driver = Driver::new(|root| {
        for name in ["a/sub", "c/sub"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
    });
    // The watcher hears of c/sub/new and of its end only after c is a link through which a/sub/new is seen.
    fs::create_dir(driver.root.join("c/sub/new")).unwrap();
    fs::create_dir(driver.root.join("a/sub/new")).unwrap();
    fs::remove_dir_all(driver.root.join("c")).unwrap();
    symlink("a", driver.root.join("c")).unwrap();
    driver.settle();
    driver.check_table();
}
