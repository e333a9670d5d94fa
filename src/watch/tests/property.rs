//! Whatever happens in a tree, and however far the watcher lags behind: in the end its table is the tree, and a mirror
//! that was told just the reported paths equals the source.

#![expect(clippy::print_stdout, reason = "a failing test shows which seed it was")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use rustix::fs::{CWD, RenameFlags};

use super::{Driver, model};

/// Writes in place, through one of its names if there are several.
fn write(path: &Path, serial: u32) -> std::io::Result<()> {
    std::fs::write(path, serial.to_string())
}

/// Exchanges the entries at two paths.
pub(super) fn exchange(one: &Path, another: &Path) -> std::io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, one, CWD, another, RenameFlags::EXCHANGE)?)
}

/// One random operation. It may fail, as a program's may.
pub(super) fn operate(rng: &mut Rng, root: &Path, outside: &Path, serial: u32) {
    let any = |rng: &mut Rng| -> PathBuf {
        let mut path = root.to_path_buf();
        for _ in 0..rng.usize(1..=4) {
            path.push(rng.choice(["a", "b", "c", "d\n\u{fffd}"]).unwrap());
        }
        path
    };
    let one = any(rng);
    let away = outside.join(rng.choice(["x", "y"]).unwrap());
    let _ = match rng.u32(0..100) {
        0..25 => std::fs::create_dir_all(&one).and_then(|()| write(&one.join("f"), serial)),
        25..35 => std::fs::create_dir(&one),
        35..55 => write(&one.join(rng.choice(["f", "g"]).unwrap()), serial),
        55..72 => std::fs::rename(&one, any(rng)),
        72..75 => exchange(&one, &any(rng)),
        75..80 => std::fs::rename(&one, &away),
        80..86 => std::fs::rename(&away, &one),
        86..91 => std::fs::remove_dir_all(&one),
        91..93 => std::fs::remove_dir_all(&one).and_then(|()| std::fs::write(&one, serial.to_string())),
        93..95 => std::fs::remove_file(&one).and_then(|()| std::fs::create_dir(&one)),
        95..97 => std::fs::hard_link(one.join("f"), any(rng)),
        97..98 => std::os::unix::fs::symlink("a", &one).and(write(&away.join("f"), serial)),
        98..99 => std::fs::rename(&one, &away).and_then(|()| std::fs::rename(&away, &one)),
        _ => std::fs::remove_file(one.join("f")),
    };
}

fn check(driver: &mut Driver, before: &model::Tree, seed: u64) {
    // Later operations are dated later, so that an overflow does not bring the present ones up again.
    super::between_changes();
    let changes = driver.report();
    let source = model::read(&driver.root);
    let mut mirror = before.clone();
    model::apply(&mut mirror, &changes, &source);
    assert_eq!(mirror, source, "seed {seed}, changes {changes:#?}");
    driver.check_table();
}

#[test]
fn a_mirror_told_only_the_reported_paths_equals_the_source() {
    for seed in 0..25 {
        let mut rng = Rng::with_seed(seed);
        println!("seed {seed}");
        let mut driver = Driver::new(|root| {
            for serial in 0..20 {
                operate(&mut Rng::with_seed(seed + u64::from(serial) * 7919), root, root, serial);
            }
        });
        for round in 0..6 {
            let before = model::read(&driver.root);
            for serial in 0..60 {
                operate(&mut rng, &driver.root, &driver.outside, 1000 * round + serial);
                // The watcher does a little at times: some events, some listings, some giving up.
                if rng.u32(0..100) == 0 {
                    driver.overflow();
                } else if rng.u32(0..4) == 0 {
                    let ahead = Duration::from_millis(rng.u64(0..40));
                    driver.turn(ahead, rng.usize(300..3000), rng.usize(0..4));
                }
            }
            check(&mut driver, &before, seed);
        }
    }
}

#[test]
fn the_same_with_the_tree_changing_while_the_watcher_looks() {
    for seed in 0..5 {
        println!("seed {seed}");
        let mut driver = Driver::new(|_| {});
        for round in 0..5 {
            let before = model::read(&driver.root);
            let (root, outside, over) = (driver.root.clone(), driver.outside.clone(), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut rng = Rng::with_seed(seed * 1000 + u64::from(round));
                    for serial in 0..400 {
                        operate(&mut rng, &root, &outside, 1000 * round + serial);
                    }
                    over.store(true, Ordering::Release);
                });
                while !over.load(Ordering::Acquire) {
                    driver.turn(Duration::ZERO, 4096, 2);
                }
            });
            check(&mut driver, &before, seed);
        }
    }
}

#[test]
fn the_table_is_the_tree_after_a_first_walk_through_a_changing_tree() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let mut driver = Driver::with(|_| {}, |_| {});
        for serial in 0..40 {
            operate(&mut rng, &driver.root, &driver.outside, serial);
        }
        for serial in 40..140 {
            operate(&mut rng, &driver.root, &driver.outside, serial);
            if rng.bool() {
                driver.turn(Duration::ZERO, rng.usize(300..3000), rng.usize(0..3));
            }
        }
        driver.settle();
        driver.check_table();
    }
}
