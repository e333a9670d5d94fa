//! Property: whatever happens to the tree, both mirrors equal it in the end. The operations are random, from a seed.

use crate::harness::churn::Churn;
use crate::harness::{World, secs};
use crate::operators::equal_now;

const STEPS: usize = 400;

/// Prints the operations if the test fails.
pub struct Report(pub Churn, pub u64);

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SYNCQ_SEED={}; operations that were possible:", self.1);
            self.0.history.iter().filter(|line| line.ends_with(": ok")).for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// The seeds to try: the seed in `SYNCQ_SEED`, or as many as `SYNCQ_SEEDS` says.
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
    // Leftovers of killed rsyncs have a test of their own.
    world.compare.leftovers = false;
    setup(&mut world);
    let outside = world.side("outside");
    let mut churn = Churn::new(seed, &world.src, &outside);
    (churn.open, churn.closes) = (world.cli.as_nobody, world.cli.as_nobody);
    let mut report = Report(churn, seed);
    // So that the first comparison meets closed directories as well.
    (0..if report.0.closes { STEPS / 4 } else { 0 }).for_each(|_| report.0.step());
    world.start();
    open_again(&world, &mut report);
    for quarter in 0..4 {
        for _ in 0..STEPS / 4 {
            report.0.step();
            report.0.pause();
        }
        open_again(&world, &mut report);
        if quarter % 2 == 1 {
            world.answers_are_true(secs(90));
            world.converges(secs(90));
        }
    }
    // An empty root would suspend the deletions, which other tests look at.
    crate::harness::write(world.src.join("last"), "one");
    world.answers_are_true(secs(90));
    world.converges(secs(90));
}

/// Opens every closed directory. A closed directory cannot be sent, but a wait that ends meanwhile has to be true.
fn open_again(world: &World, report: &mut Report) {
    if report.0.closes {
        let state = world.cli.state.to_str().expect("a UTF-8 path");
        // A user who may not look into a directory cannot compare it.
        let may_look = crate::harness::is_root();
        if may_look && world.cli.run(["wait", "--timeout", "2s", "--state-dir", state]).code == Some(0) {
            equal_now(world, report.1);
        }
        report.0.reopen();
    }
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

/// Under a filter of expressions, the content of a directory that the daemon's user could not open was taken for equal.
#[test]
fn random_changes_end_equal_where_directories_are_closed_for_a_while() {
    for seed in seeds(2) {
        churned(4_000 + seed, |world| {
            if seed % 2 == 0 {
                world.conf.excludes = vec!["^nothing(a|b)+like this$".to_owned()];
            }
            world.daemon_as_nobody();
        });
    }
}
