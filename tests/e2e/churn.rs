//! Property: whatever happens to the tree, both mirrors equal it in the end. Random operations, seeded.

use crate::harness::churn::Churn;
use crate::harness::{World, secs};

const STEPS: usize = 400;

/// Prints what was done if the test fails.
pub struct Report(pub Churn, pub u64);

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SYNCQ_SEED={}; operations that were possible:", self.1);
            self.0.history.iter().filter(|line| line.ends_with(": ok")).for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// The seeds to try: the one of `SYNCQ_SEED`, or as many as `SYNCQ_SEEDS` says.
pub fn seeds(default: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    match number("SYNCQ_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SYNCQ_SEEDS").unwrap_or(default)).collect(),
    }
}

fn churned(seed: u64, setup: impl Fn(&mut World)) {
    let mut world = World::new();
    world.conf.attrib = true;
    // A test of their own.
    world.compare.leftovers = false;
    setup(&mut world);
    let outside = world.side("outside");
    world.start();
    let mut report = Report(Churn::new(seed, &world.src, &outside), seed);
    for quarter in 0..4 {
        for _ in 0..STEPS / 4 {
            report.0.step();
            report.0.pause();
        }
        if quarter % 2 == 1 {
            world.answers_are_true(secs(90));
            world.converges(secs(90));
        }
    }
    // An empty root would suspend the deletions, which is another test's matter.
    crate::harness::write(world.src.join("last"), "one");
    world.answers_are_true(secs(90));
    world.converges(secs(90));
}

#[test]
fn random_changes_end_equal() {
    for seed in seeds(4) {
        churned(seed, |_| {});
    }
}

#[test]
fn random_changes_end_equal_through_few_connections() {
    for seed in seeds(2) {
        churned(1_000 + seed, |world| {
            world.rsyncd.module_option("m1", "max connections", "1");
            world.conf.params = "-artuz --bwlimit=2000".to_owned();
        });
    }
}

#[test]
fn random_changes_end_equal_with_modify_and_create_file() {
    for seed in seeds(2) {
        churned(2_000 + seed, |world| {
            world.conf.modify = true;
            world.conf.create_file = true;
        });
    }
}
