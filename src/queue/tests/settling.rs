//! When a change of a file that is still being written is sent.

use super::*;

#[test]
fn an_open_file_waits_for_its_close_or_for_quiet() {
    let mut bench = Bench::new();
    let modified = Change { settle: Settle::Quiet(SOON), ..Change::write(path("log")) };
    bench.add(modified.clone());
    bench.wait(4_000);
    assert!(bench.small().is_empty());
    bench.add(modified.clone());
    bench.wait(4_000);
    assert!(bench.small().is_empty(), "each write begins the wait anew");
    bench.write("log");
    assert_eq!(bench.small(), ["log"], "the close ends it");
    bench.add(modified);
    bench.done("log");
    assert!(bench.small().is_empty());
    bench.wait(5_000);
    assert_eq!(bench.small(), ["log"]);
}

#[test]
fn a_followed_file_is_not_postponed_by_further_writes() {
    let mut bench = Bench::new();
    for _ in 0..11 {
        bench.add(Change { settle: Settle::Within(Duration::from_secs(1)), ..Change::write(path("log")) });
        bench.wait(100);
    }
    assert_eq!(bench.small(), ["log"]);
}

#[test]
fn a_path_that_changes_all_the_time_is_sent_once_an_interval() {
    let mut bench = Bench::new();
    let mut runs = 0;
    for _ in 0..3_000 {
        bench.write("log");
        if !bench.small().is_empty() {
            runs += 1;
            bench.write("log");
            bench.done("log");
        }
        bench.wait(1);
    }
    assert!((5..=8).contains(&runs), "{runs} runs in 3 s");
    bench.wait(2_000);
    assert_eq!(bench.small(), ["log"], "the newest state goes out at last");
}

/// A user who swapped a directory for a link ten times a second had as many tries to catch rsync between its look and its
/// reading.
#[test]
fn a_directory_that_is_swapped_all_the_time_rests_with_all_that_is_below() {
    let mut bench = Bench::new();
    let swapped = || Change { fresh: true, origin: Origin::Replaced, ..Change::scan(path("d"), Scope::Subtree) };
    let (mut runs, mut others) = (0, 0);
    let mut run = |bench: &mut Bench| {
        for lane in [Lane::Small, Lane::Large] {
            for name in bench.claim(lane) {
                *if name.starts_with('d') { &mut runs } else { &mut others } += 1;
                bench.done(&name);
            }
        }
        (runs, others)
    };
    for n in 0..250 {
        if n % 2 == 0 {
            bench.add(swapped())
        } else {
            bench.write("d")
        }
        bench.write("d/f");
        bench.write(&format!("e/f{n}"));
        run(&mut bench);
        bench.wait(100);
    }
    let (tries, others) = run(&mut bench);
    assert!(tries < 20 && others == 250, "{tries} runs in 25 s, {others} of others");
    bench.wait(1_000);
    assert!(run(&mut bench).0 > tries, "left alone, it goes");
    assert_eq!(bench.len(), 0);
}
