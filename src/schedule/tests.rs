use chrono::{DateTime, FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};

use super::*;

fn at(text: &str) -> Timestamp {
    let time = DateTime::parse_from_rfc3339(text).expect("a valid time");
    Timestamp(u64::try_from(time.timestamp_millis()).expect("after 1970"))
}

fn cron(text: &str) -> Plan {
    Plan::new(&Schedule::Cron(text.to_owned())).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Berlin in 2026: UTC+2 from 29 March 01:00 UTC to 25 October 01:00 UTC, else UTC+1.
#[derive(Debug, Clone, Copy)]
struct Berlin;

impl TimeZone for Berlin {
    type Offset = FixedOffset;

    fn from_offset(_: &FixedOffset) -> Self {
        Self
    }

    fn offset_from_local_date(&self, _: &NaiveDate) -> MappedLocalTime<FixedOffset> {
        MappedLocalTime::None
    }

    fn offset_from_local_datetime(&self, local: &NaiveDateTime) -> MappedLocalTime<FixedOffset> {
        let fits = |hours: i32| {
            let offset = FixedOffset::east_opt(hours * 3600).expect("a valid offset");
            let utc = *local - TimeDelta::hours(i64::from(hours));
            (self.offset_from_utc_datetime(&utc) == offset).then_some(offset)
        };
        match (fits(2), fits(1)) {
            (Some(summer), Some(winter)) => MappedLocalTime::Ambiguous(summer, winter),
            (Some(one), None) | (None, Some(one)) => MappedLocalTime::Single(one),
            (None, None) => MappedLocalTime::None,
        }
    }

    fn offset_from_utc_date(&self, _: &NaiveDate) -> FixedOffset {
        FixedOffset::east_opt(3600).expect("a valid offset")
    }

    fn offset_from_utc_datetime(&self, utc: &NaiveDateTime) -> FixedOffset {
        let summer = "2026-03-29T01:00:00".parse().expect("valid")..="2026-10-25T00:59:59".parse().expect("valid");
        FixedOffset::east_opt(if summer.contains(utc) { 7200 } else { 3600 }).expect("a valid offset")
    }
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
        let next = cron(expression).next_in(&Utc, at(after), at(after));
        assert_eq!(next.to_string(), at(expected).to_string(), "{expression}");
    }
}

#[test]
fn parts_of_a_second_neither_skip_nor_repeat_a_time() {
    let plan = cron("*/5 * * * *");
    for after in ["2026-11-22T13:35:00Z", "2026-11-22T13:35:00.001Z", "2026-11-22T13:39:59.999Z"] {
        assert_eq!(plan.next_in(&Utc, at(after), at(after)), at("2026-11-22T13:40:00Z"), "{after}");
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
        ("61 3 * * *", CronError::Syntax { given: given("61 3 * * *") }),
        ("@never", CronError::Syntax { given: given("@never") }),
        ("0 3 30 2 *", CronError::Never { given: given("0 3 30 2 *") }),
    ] {
        match Plan::new(&Schedule::Cron(expression.to_owned())) {
            Err(ScheduleError::Cron(found)) => assert_eq!(found, error),
            other => panic!("{expression}: {other:?}"),
        }
    }
    assert!(check(&Schedule::Every(Duration::ZERO)).is_err());
    assert!(check(&Schedule::Every(Duration::from_secs(60))).is_ok());
}

#[test]
fn daylight_saving_neither_skips_a_run_nor_doubles_it() {
    let plan = cron("30 2 * * *");
    let mut runs = Vec::new();
    let mut time = at("2026-03-28T00:00:00Z");
    for _ in 0..3 {
        time = plan.next_in(&Berlin, time, time);
        runs.push(time.to_string());
    }
    // 02:30 does not exist on the 29th: it runs at 03:00 summer time.
    assert_eq!(runs, ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"]);

    runs.clear();
    time = at("2026-10-24T12:00:00Z");
    for _ in 0..2 {
        time = plan.next_in(&Berlin, time, time);
        runs.push(time.to_string());
    }
    assert_eq!(runs, ["2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"]);
}

#[test]
fn every_second_of_an_hour_that_comes_twice_still_has_a_next_run() {
    let time = at("2026-10-25T01:00:00Z");
    assert_eq!(cron("* * * * * *").next_in(&Berlin, time, time), at("2026-10-25T02:00:00Z"));
}

#[test]
fn what_was_missed_is_due_now_and_once() {
    let (last, now) = (at("2026-11-20T00:00:00Z"), at("2026-11-22T13:00:00Z"));
    assert_eq!(cron("0 3 * * *").next_in(&Utc, last, now), now);
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
