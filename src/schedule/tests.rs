use std::path::Path;
use std::sync::Arc;

use chrono::DateTime;

use super::*;
use crate::clock::{Clock, SimulatedClock};
use crate::model::{Change, Destination, Lane, Origin, RelPath, Scope, Verdict};
use crate::queue::{BatchResult, Policy, Queue};
use crate::store::memory::MemoryStore;

fn at(text: &str) -> Timestamp {
    let time = DateTime::parse_from_rfc3339(text).expect("a valid time");
    Timestamp(u64::try_from(time.timestamp_millis()).expect("after 1970"))
}

fn schedule(expression: &str, timezone: &str) -> Schedule {
    Schedule::Cron { expression: expression.to_owned(), timezone: Some(timezone.to_owned()) }
}

fn cron_in(timezone: &str, text: &str) -> Plan {
    Plan::new(&schedule(text, timezone)).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn cron(text: &str) -> Plan {
    cron_in("UTC", text)
}

#[test]
fn the_next_times_of_cron_expressions() {
    // 2026-11-22 is a Sunday.
    let after = "2026-11-22T13:37:28Z";
    for (expression, expected) in [
        ("*/5 * * * *", "2026-11-22T13:40:00Z"),
        ("0 3 * * *", "2026-11-23T03:00:00Z"),
        ("30 0 3 * * *", "2026-11-23T03:00:30Z"),
        ("0 3 * * 0", "2026-11-29T03:00:00Z"),
        ("0 3 * * 7", "2026-11-29T03:00:00Z"),
        ("0 3 * * 1", "2026-11-23T03:00:00Z"),
        ("0 3 * * 6", "2026-11-28T03:00:00Z"),
        ("0 3 * * 5-7", "2026-11-27T03:00:00Z"),
        ("0 14 * * fri-Sunday", "2026-11-22T14:00:00Z"),
        ("0 3 * * 2-6/2", "2026-11-24T03:00:00Z"),
        ("0 3 * * */6", "2026-11-28T03:00:00Z"),
        ("0 3 1 * *", "2026-12-01T03:00:00Z"),
        // Either the 1st or a Tuesday, as crontab has it.
        ("0 3 1 * 2", "2026-11-24T03:00:00Z"),
        ("0 3 23 * 5", "2026-11-23T03:00:00Z"),
        ("0 3 29 2 *", "2028-02-29T03:00:00Z"),
        ("@daily", "2026-11-23T00:00:00Z"),
        ("@Hourly", "2026-11-22T14:00:00Z"),
        ("@weekly", "2026-11-29T00:00:00Z"),
    ] {
        let next = cron(expression).next_after(at(after), at(after));
        assert_eq!(next.to_string(), at(expected).to_string(), "{expression}");
    }
}

#[test]
fn parts_of_a_second_neither_skip_nor_repeat_a_time() {
    let plan = cron("*/5 * * * *");
    for after in ["2026-11-22T13:35:00Z", "2026-11-22T13:35:00.001Z", "2026-11-22T13:39:59.999Z"] {
        assert_eq!(plan.next_after(at(after), at(after)), at("2026-11-22T13:40:00Z"), "{after}");
    }
}

#[test]
fn bad_expressions_are_refused() {
    let given = |text: &str| text.to_owned();
    for (expression, error) in [
        ("* * *", CronError::FieldCount { given: 3 }),
        ("", CronError::FieldCount { given: 0 }),
        ("0 3 * * 8", CronError::Weekday { given: given("8") }),
        ("0 3 * * mo", CronError::Weekday { given: given("mo") }),
        ("0 3 * * 1/0", CronError::Weekday { given: given("1/0") }),
        ("61 3 * * *", CronError::Field { field: "minute", given: given("61"), range: "0-59" }),
        ("0 25 * * *", CronError::Field { field: "hour", given: given("25"), range: "0-23" }),
        ("0 0 3 1,32 * *", CronError::Field { field: "day of month", given: given("32"), range: "1-31" }),
        ("x 3 * * *", CronError::Syntax { given: given("x 3 * * *") }),
        ("@never", CronError::Syntax { given: given("@never") }),
        ("0 3 30 2 *", CronError::Never { given: given("0 3 30 2 *") }),
    ] {
        match Plan::new(&schedule(expression, "UTC")) {
            Err(ScheduleError::Cron(found)) => assert_eq!(found, error),
            other => panic!("{expression}: {other:?}"),
        }
    }
    assert!(matches!(check(&schedule("@daily", "Mars/Olympus")), Err(ScheduleError::Timezone { .. })));
    assert!(check(&Schedule::Every(Duration::ZERO)).is_err());
    assert!(check(&Schedule::Every(Duration::from_secs(60))).is_ok());
}

#[test]
fn daylight_saving_neither_skips_a_run_nor_doubles_it() {
    let plan = cron_in("Europe/Berlin", "30 2 * * *");
    let mut runs = Vec::new();
    let mut time = at("2026-03-28T00:00:00Z");
    for _ in 0..3 {
        time = plan.next_after(time, time);
        runs.push(time.to_string());
    }
    // 02:30 does not exist on the 29th: it runs at 03:00 summer time.
    assert_eq!(runs, ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"]);

    runs.clear();
    time = at("2026-10-24T12:00:00Z");
    for _ in 0..2 {
        time = plan.next_after(time, time);
        runs.push(time.to_string());
    }
    assert_eq!(runs, ["2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"]);
}

#[test]
fn every_second_of_an_hour_that_comes_twice_still_has_a_next_run() {
    let time = at("2026-10-25T01:00:00Z");
    assert_eq!(cron_in("Europe/Berlin", "* * * * * *").next_after(time, time), at("2026-10-25T02:00:00Z"));
}

#[test]
fn what_was_missed_is_due_now_and_once() {
    let (last, now) = (at("2026-11-20T00:00:00Z"), at("2026-11-22T13:00:00Z"));
    assert_eq!(cron("0 3 * * *").next_after(last, now), now);
    assert_eq!(every(Duration::from_secs(3600)).next_after(last, now), now);

    let mut scheduler = Scheduler::default();
    scheduler.add(7, &Schedule::Every(Duration::from_secs(3600)), last, now).expect("valid");
    assert_eq!(scheduler.due(now), [7]);
    assert!(scheduler.due(now).is_empty());
    assert_eq!(scheduler.due(now.after(Duration::from_secs(3600))), [7]);
}

#[test]
fn a_clock_set_back_delays_a_run_by_one_interval_at_most() {
    let hour = Duration::from_secs(3600);
    let (future, now) = (at("2030-01-01T00:00:00Z"), at("2026-11-22T13:00:00Z"));
    assert_eq!(every(hour).next_after(future, now), now.after(hour));

    let mut scheduler = Scheduler::default();
    scheduler.add(0, &Schedule::Every(hour), future, future).expect("valid");
    assert!(scheduler.due(now).is_empty());
    assert_eq!(scheduler.due(now.after(hour)), [0]);
}

#[test]
fn each_plan_is_due_in_its_own_time() {
    let (minute, now) = (Duration::from_secs(60), at("2026-11-22T13:00:00Z"));
    let mut scheduler = Scheduler::default();
    scheduler.add(0, &Schedule::Every(minute), now, now).expect("valid");
    scheduler.add(1, &Schedule::Every(minute * 2), now, now).expect("valid");
    assert_eq!(scheduler.due(now.after(minute)), [0]);
    assert_eq!(scheduler.due(now.after(minute * 2)), [0, 1]);
}

fn every(interval: Duration) -> Plan {
    Plan::new(&Schedule::Every(interval)).expect("valid")
}

#[test]
fn a_time_zone_moves_the_run_and_its_summer_time() {
    for (zone, after, expected) in [
        ("Asia/Shanghai", "2026-11-22T13:00:00Z", "2026-11-22T19:00:00Z"),
        ("Europe/Berlin", "2026-07-01T13:00:00Z", "2026-07-02T01:00:00Z"),
        ("Europe/Berlin", "2026-11-22T13:00:00Z", "2026-11-23T02:00:00Z"),
        ("America/New_York", "2026-11-22T13:00:00Z", "2026-11-23T08:00:00Z"),
    ] {
        assert_eq!(cron_in(zone, "0 3 * * *").next_after(at(after), at(after)), at(expected), "{zone}");
    }
}

/// A walk through a year in steps of a minute: each day has its run, and no day has two.
#[test]
fn every_day_of_a_year_has_exactly_one_run_whatever_the_clocks_do() {
    for time in ["30 2 * * *", "0 3 * * *", "0 0 * * *"] {
        let (begin, days) = (at("2026-01-01T12:00:00+01:00"), 365);
        let mut scheduler = Scheduler::default();
        scheduler.add(0, &schedule(time, "Europe/Berlin"), begin, begin).expect("valid");
        let mut runs = Vec::new();
        for minute in 1..=days * 24 * 60 {
            let now = begin.after(Duration::from_secs(minute * 60));
            runs.extend(scheduler.due(now).into_iter().map(|_| now));
        }
        let mut berlin: Vec<String> = runs
            .iter()
            .map(|run| DateTime::from_timestamp_millis(i64::try_from(run.0).expect("small")).expect("valid"))
            .map(|run| run.with_timezone(&chrono_tz::Europe::Berlin).date_naive().to_string())
            .collect();
        assert_eq!(berlin.len() as u64, days, "{time}");
        berlin.dedup();
        assert_eq!(berlin.len() as u64, days, "{time}: twice on a day");
    }
}

#[test]
fn a_daemon_that_was_down_makes_up_for_one_run() {
    let now = at("2026-11-22T13:00:00Z");
    let hour = Duration::from_secs(3600);
    for (schedule, last, due_now, next) in [
        // Down for a month.
        (schedule("0 3 * * *", "UTC"), "2026-10-20T03:00:00Z", true, "2026-11-23T03:00:00Z"),
        (Schedule::Every(hour), "2026-10-20T03:00:00Z", true, "2026-11-22T14:00:00Z"),
        // Restarted between two runs: the interval goes on where it was.
        (schedule("0 3 * * *", "UTC"), "2026-11-22T03:00:00Z", false, "2026-11-23T03:00:00Z"),
        (Schedule::Every(hour), "2026-11-22T12:20:00Z", false, "2026-11-22T13:20:00Z"),
        // The clock was wrong at the last run, or is now.
        (schedule("0 3 * * *", "UTC"), "2099-01-01T00:00:00Z", false, "2026-11-23T03:00:00Z"),
        (Schedule::Every(hour), "2099-01-01T00:00:00Z", false, "2026-11-22T14:00:00Z"),
        (Schedule::Every(hour), "1970-01-01T00:00:00Z", true, "2026-11-22T14:00:00Z"),
    ] {
        let mut scheduler = Scheduler::default();
        scheduler.add(0, &schedule, at(last), now).expect("valid");
        assert_eq!(scheduler.due(now), if due_now { vec![0] } else { vec![] }, "{schedule:?} after {last}");
        assert!(scheduler.due(Timestamp(at(next).0 - 1)).is_empty(), "{schedule:?} after {last}");
        assert_eq!(scheduler.due(at(next)), [0], "{schedule:?} after {last}");
    }
}

/// A run is due every minute, and each takes three and a half: one runs, and one waits, never more.
#[test]
fn a_run_that_takes_longer_than_its_schedule_neither_doubles_nor_piles_up() {
    let minute = Duration::from_secs(60);
    let clock = Arc::new(SimulatedClock::new(at("2026-11-22T13:00:00Z")));
    let store = Box::new(MemoryStore::default());
    let (queue, _) = Queue::open(store, Arc::<SimulatedClock>::clone(&clock)).expect("a queue");
    let (target, _) = queue.register(Path::new("/src"), &Destination::Local("/dst".into()), Policy::default());
    let mut scheduler = Scheduler::default();
    scheduler.add(0, &Schedule::Every(minute), clock.now(), clock.now()).expect("valid");
    let (mut running, mut started, mut due) = (None, 0, 0);
    for half_minute in 1..=60 {
        clock.advance(minute / 2);
        for _ in scheduler.due(clock.now()) {
            due += 1;
            let whole = Change { origin: Origin::Reconcile, ..Change::scan(RelPath::root(), Scope::Subtree) };
            queue.enqueue(&[target], &[whole]);
        }
        match queue.claim(target, Lane::Large) {
            Some(batch) => {
                assert!(running.is_none(), "a second run beside one under way");
                running = Some((half_minute + 7, batch));
                started += 1;
            }
            None => assert!(running.is_some() || half_minute < 2, "a due run was not started"),
        }
        let counts = queue.stats(target).expect("known").counts;
        assert!(counts.total() <= 1, "{counts:?}");
        if let Some((_, batch)) = running.take_if(|(until, _)| *until <= half_minute) {
            let verdicts = vec![(RelPath::root(), Verdict::Done)];
            queue.finish(&batch, BatchResult { verdicts, reached: true, ..BatchResult::default() });
        }
    }
    // One every four minutes: three and a half of work, and the half until the next look.
    assert_eq!((due, started), (30, 8));
}
