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
