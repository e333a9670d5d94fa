//! What changed while nobody watched is found by the first walk, and nothing else is reported.

#![expect(clippy::print_stdout, reason = "a failing test shows which seed it was")]

use std::fs;
use std::time::Duration;

use fastrand::Rng;

use super::property::operate;
use super::{Driver, between_changes, model, path};
use crate::model::{Change, DirectoryChange, Origin, RelPath, Scope};
use crate::watch::{CatchUp, KnownDirectories};

/// Keeps what is known of directories, as the store does.
fn keep(known: &mut KnownDirectories, changes: Vec<DirectoryChange>) {
    for change in changes {
        match change {
            DirectoryChange::Put { id, parent, name } => drop(known.insert(id, (parent, name))),
            DirectoryChange::Gone(id) => drop(known.remove(&id)),
        }
    }
}

/// Takes everything up to now for known.
fn checkpoint(driver: &mut Driver, known: &mut KnownDirectories) -> CatchUp {
    let since = between_changes();
    driver.settle();
    keep(known, driver.tracker.take_directories());
    CatchUp { since, known: known.clone() }
}

fn level(at: &str) -> Change {
    Change::scan(path(at), Scope::Children)
}

fn moved_in(at: &str) -> Change {
    Change { fresh: true, origin: Origin::Replaced, ..Change::scan(path(at), Scope::Subtree) }
}

#[test]
fn only_what_changed_is_reported() {
    let mut driver = Driver::new(|root| {
        for dir in ["same/deep", "renamed/deep", "files", "emptied/below"] {
            fs::create_dir_all(root.join(dir)).unwrap();
            fs::write(root.join(dir).join("f"), "1").unwrap();
            fs::write(root.join(dir).join("g"), "1").unwrap();
        }
    });
    fs::create_dir_all(driver.outside.join("old/deep")).unwrap();
    let catch_up = checkpoint(&mut driver, &mut KnownDirectories::new());

    driver.restart(catch_up.clone());
    assert_eq!(driver.report(), [], "nothing changed");
    assert_eq!(driver.tracker.take_directories(), [], "and no directory came or went");

    fs::write(driver.root.join("files/f"), "2").unwrap();
    fs::remove_file(driver.root.join("emptied/below/g")).unwrap();
    fs::rename(driver.root.join("renamed"), driver.root.join("another")).unwrap();
    fs::rename(driver.outside.join("old"), driver.root.join("same/moved-in")).unwrap();
    driver.restart(catch_up);
    let mut changes = driver.report();
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    let written = Change::write(path("files/f"));
    assert_eq!(
        changes,
        [level(""), moved_in("another"), level("emptied/below"), written, level("same"), moved_in("same/moved-in")]
    );
    driver.check_table();
}

#[test]
fn a_directory_that_nobody_can_watch_is_not_known_at_the_next_start() {
    let mut driver = Driver::new(|root| fs::create_dir_all(root.join("a/b")).unwrap());
    let root = driver.tracker.table().root();
    let a = driver.tracker.table().child(root, b"a").unwrap();
    driver.tracker.table_mut().rekey(a, crate::watch::table::Wd(-9), None);
    let catch_up = checkpoint(&mut driver, &mut KnownDirectories::new());
    assert_eq!(catch_up.known.len(), 0, "neither it nor what is below it");
    driver.restart(catch_up);
    assert_eq!(driver.report(), [Change::scan(path("a"), Scope::Subtree)]);
}

#[test]
fn a_mirror_of_the_last_checkpoint_equals_the_source_after_catching_up() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let mut known = KnownDirectories::new();
        let mut driver = Driver::new(|root| {
            for serial in 0..30 {
                operate(&mut Rng::with_seed(seed * 31 + u64::from(serial)), root, root, serial);
            }
        });
        for round in 1..4 {
            let catch_up = checkpoint(&mut driver, &mut known);
            let mut mirror = model::read(&driver.root);
            // These operations are seen, but all that was made of them is lost with the process.
            for serial in 0..rng.u32(0..40) {
                operate(&mut rng, &driver.root, &driver.outside, 1000 * round + serial);
                if rng.bool() {
                    driver.turn(Duration::ZERO, rng.usize(300..3000), rng.usize(0..4));
                }
            }
            driver.restart(catch_up);
            // Nobody watches, or only the upper directories yet.
            for serial in 100..100 + rng.u32(0..40) {
                operate(&mut rng, &driver.root, &driver.outside, 1000 * round + serial);
                if rng.u32(0..20) == 0 {
                    driver.turn(Duration::ZERO, rng.usize(300..3000), rng.usize(0..4));
                }
            }
            let changes = driver.report();
            let source = model::read(&driver.root);
            model::apply(&mut mirror, &changes, &source);
            assert_eq!(mirror, source, "seed {seed}, round {round}, changes {changes:#?}");
            driver.check_table();
        }
    }
}

#[test]
fn where_changes_are_not_dated_everything_is_reported() {
    let mut driver = Driver::new(|root| fs::create_dir_all(root.join("a/b")).unwrap());
    let catch_up = checkpoint(&mut driver, &mut KnownDirectories::new());
    driver.restart(catch_up);
    driver.tracker.kernel_mut().distrust_all();
    assert_eq!(driver.report(), [Change::scan(RelPath::root(), Scope::Subtree)]);
}
