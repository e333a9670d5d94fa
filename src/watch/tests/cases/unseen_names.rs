//! Files with several names that are written through a name of which nobody is told: in a directory without a watch, or in
//! one that may not be looked into.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::super::{Driver, between_changes};
use crate::watch::{CatchUp, KnownDirectories};

/// A file `a/f` with another name `u/g` in a directory without a watch, which has been looked through.
fn half_watched() -> Driver {
    let mut driver = Driver::new(|root| {
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/f"), "1").unwrap();
    });
    driver.tracker.kernel_mut().exhausted = true;
    fs::create_dir(driver.root.join("u")).unwrap();
    fs::hard_link(driver.root.join("a/f"), driver.root.join("u/g")).unwrap();
    driver.settle();
    poll(&mut driver);
    driver
}

/// Looks at what cannot be watched, and returns the paths that are reported, not by the run of a whole directory.
fn poll(driver: &mut Driver) -> Vec<String> {
    between_changes();
    driver.settle();
    driver.tracker.retry_unwatched();
    driver.report().into_iter().map(|change| change.path.to_string()).collect()
}

#[test]
fn a_write_through_an_unwatched_name_that_is_gone_by_the_next_look_is_reported_under_the_others() {
    for removes_directory in [false, true] {
        let mut driver = half_watched();
        fs::write(driver.root.join("u/g"), "2").unwrap();
        fs::remove_file(driver.root.join("u/g")).unwrap();
        if removes_directory {
            fs::remove_dir(driver.root.join("u")).unwrap();
            driver.settle();
            assert!(driver.tracker.lacks_watches(), "what was in it last has not been looked for");
        }
        assert!(poll(&mut driver).contains(&"a/f".to_owned()), "directory removed: {removes_directory}");
        assert!(!poll(&mut driver).contains(&"a/f".to_owned()), "told twice");
    }
}

/// Names in directories without a watch were learnt at the first look at what changes there, ten seconds later.
#[test]
fn a_write_through_an_unwatched_name_that_is_gone_before_the_first_look_is_reported_under_the_others() {
    let mut driver = Driver::new(|root| {
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/f"), "1").unwrap();
    });
    fs::create_dir(driver.outside.join("u")).unwrap();
    fs::hard_link(driver.root.join("a/f"), driver.outside.join("u/g")).unwrap();
    driver.tracker.kernel_mut().exhausted = true;
    fs::rename(driver.outside.join("u"), driver.root.join("u")).unwrap();
    let _ = driver.report();
    between_changes();
    fs::write(driver.root.join("u/g"), "2").unwrap();
    fs::remove_file(driver.root.join("u/g")).unwrap();
    assert!(poll(&mut driver).contains(&"a/f".to_owned()));
}

#[test]
fn a_known_name_tells_of_a_write_through_one_that_came_and_went_between_two_looks() {
    let mut driver = half_watched();
    let (known, passing) = (driver.root.join("a/f"), driver.root.join("u/passing"));
    fs::write(&known, "2").unwrap();
    assert!(poll(&mut driver).contains(&"a/f".to_owned()));
    fs::remove_file(driver.root.join("u/g")).unwrap();
    let _ = poll(&mut driver);
    assert!(!poll(&mut driver).contains(&"a/f".to_owned()), "told twice");
    fs::hard_link(&known, &passing).unwrap();
    fs::write(&passing, "3").unwrap();
    fs::remove_file(&passing).unwrap();
    assert!(poll(&mut driver).contains(&"a/f".to_owned()));
}

#[test]
fn a_write_in_a_closed_directory_through_a_name_that_is_then_removed_is_looked_for_in_the_whole_tree() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let mut driver = Driver::new(|root| {
        for dir in ["a", "b"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        fs::write(root.join("a/f"), "1").unwrap();
        fs::hard_link(root.join("a/f"), root.join("b/g")).unwrap();
    });
    let (closed, mut written) =
        (driver.root.join("a"), fs::File::options().append(true).open(driver.root.join("a/f")).unwrap());
    between_changes();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
    std::io::Write::write_all(&mut written, b"2").unwrap();
    drop(written);
    driver.settle();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(driver.root.join("a/f")).unwrap();
    assert!(poll(&mut driver).contains(&"b/g".to_owned()));
}

/// A new directory's files that came before its watch had no events, and were sent; other names of theirs were not.
#[test]
fn a_write_through_a_name_in_a_directory_that_is_not_watched_yet_is_reported_under_the_others() {
    let mut driver = Driver::new(|root| {
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/f"), "1").unwrap();
    });
    fs::create_dir(driver.root.join("new")).unwrap();
    fs::hard_link(driver.root.join("a/f"), driver.root.join("new/g")).unwrap();
    fs::write(driver.root.join("new/g"), "2").unwrap();
    assert!(driver.report().iter().any(|change| change.path.to_string() == "a/f"));
}

/// The first walk had listed one name of a file when that was written through another, whose directory had no watch yet.
#[test]
fn what_the_first_walk_has_passed_is_reported_if_it_changed_through_a_later_name() {
    let mut driver = Driver::new(|root| {
        for dir in ["a", "z"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        fs::write(root.join("f"), "1").unwrap();
        fs::hard_link(root.join("f"), root.join("z/g")).unwrap();
    });
    let since = between_changes();
    between_changes();
    driver.restart(CatchUp { since, known: KnownDirectories::new() });
    // The root is listed, and its directories are watched. What is written before they are has no event.
    driver.tracker.work(1);
    while driver.tracker.kernel_mut().read(&mut driver.buffer).unwrap().next().is_some() {}
    fs::write(driver.root.join("z/g"), "2").unwrap();
    while driver.tracker.kernel_mut().read(&mut driver.buffer).unwrap().next().is_some() {}
    assert!(driver.report().iter().any(|change| change.path.to_string() == "f"));
}
