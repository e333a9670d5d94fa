//! crontab(5) expressions on top of the `cron` crate, whose own dialect differs: it wants seconds, counts weekdays
//! from 1 for Sunday, and demands day of month *and* weekday where crontab takes either.
//!
//! Times are found on a calendar without daylight saving and only then placed in the zone. A time that the clock skips in
//! spring runs when the clock goes on, one that comes twice in autumn runs the first time.

use std::str::FromStr;

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, TimeDelta, TimeZone, Utc};

use crate::model::Timestamp;

/// The longest gap that is searched through. No zone has ever skipped more than a day (Samoa, 2011).
const GAP_MINUTES_MAX: i64 = 48 * 60;
/// How many calendar times are tried to find one that lies ahead. Only those of an hour that comes twice can lie behind.
const TRIES_MAX: usize = 2 * 60 * 60 + 1;
const DAY_NAMES: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// The reason why a text is no usable cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    #[error("a cron expression has 5 fields (or 6, seconds first), this has {given}")]
    FieldCount { given: usize },
    #[error("{given} is no weekday: 0-7 or sun-sat, where 0 and 7 are Sunday")]
    Weekday { given: String },
    #[error("{field}: {given} is not {range}")]
    Field { field: &'static str, given: String, range: &'static str },
    #[error("{given} is no cron expression")]
    Syntax { given: String },
    #[error("{given} never comes")]
    Never { given: String },
}

#[derive(Debug, Clone)]
pub(super) struct Expression {
    /// The expression is due when any of these is: there are two if both day of month and weekday are restricted.
    alternatives: Vec<cron::Schedule>,
}

impl Expression {
    pub(super) fn parse(text: &str) -> Result<Self, CronError> {
        let given = || text.trim().to_owned();
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let sources = match fields.as_slice() {
            [name] if name.starts_with('@') => vec![name.to_ascii_lowercase()],
            [minute, hour, day, month, weekday] => alternatives("0", [minute, hour, day, month, weekday])?,
            [second, minute, hour, day, month, weekday] => alternatives(second, [minute, hour, day, month, weekday])?,
            other => return Err(CronError::FieldCount { given: other.len() }),
        };
        let alternatives = sources
            .iter()
            .map(|source| {
                let wrong = || wrong_field(&fields).unwrap_or_else(|| CronError::Syntax { given: given() });
                cron::Schedule::from_str(source).map_err(|_| wrong())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let expression = Self { alternatives };
        if expression.next_after(&Utc, Timestamp::ZERO).is_none() {
            return Err(CronError::Never { given: given() });
        }
        Ok(expression)
    }

    /// The first time after `after`, to the second.
    pub(super) fn next_after<Z: TimeZone>(&self, zone: &Z, after: Timestamp) -> Option<Timestamp> {
        let after = DateTime::from_timestamp_millis(i64::try_from(after.0).ok()?)?;
        let calendar = after.with_timezone(zone).naive_local().and_utc();
        self.alternatives
            .iter()
            .filter_map(|schedule| {
                schedule
                    .after(&calendar)
                    .take(TRIES_MAX)
                    .filter_map(|time| place(zone, time.naive_utc()))
                    .find(|&time| time > after)
            })
            .min()
            .and_then(|time| u64::try_from(time.timestamp_millis()).ok())
            .map(Timestamp)
    }
}

/// The instant at which the clocks of the zone show this time, or go on after having skipped it.
fn place<Z: TimeZone>(zone: &Z, time: NaiveDateTime) -> Option<DateTime<Utc>> {
    (0..=GAP_MINUTES_MAX).find_map(|minutes| match zone.from_local_datetime(&(time + TimeDelta::minutes(minutes))) {
        MappedLocalTime::Single(time) | MappedLocalTime::Ambiguous(time, _) => Some(time.with_timezone(&Utc)),
        MappedLocalTime::None => None,
    })
}

/// The first field in which a number is out of range, if that is what is wrong.
fn wrong_field(fields: &[&str]) -> Option<CronError> {
    const FIELDS: [(&str, u32, u32, &str); 5] = [
        ("second", 0, 59, "0-59"),
        ("minute", 0, 59, "0-59"),
        ("hour", 0, 23, "0-23"),
        ("day of month", 1, 31, "1-31"),
        ("month", 1, 12, "1-12"),
    ];
    // Without seconds there are five fields, of which the last is the weekday.
    let known = FIELDS.iter().skip(usize::from(fields.len() == 5));
    known.zip(fields).find_map(|((field, first, last, range), given)| {
        let mut numbers = given.split([',', '-', '/']).filter(|part| !part.is_empty());
        let is_out = |part: &str| {
            part.bytes().all(|b| b.is_ascii_digit())
                && !part.parse().is_ok_and(|number| (*first..=*last).contains(&number))
        };
        let wrong = numbers.find(|part| is_out(part))?;
        Some(CronError::Field { field, given: wrong.to_owned(), range })
    })
}

/// The expressions of the `cron` crate that together mean a crontab line.
fn alternatives(second: &str, [minute, hour, day, month, weekday]: [&str; 5]) -> Result<Vec<String>, CronError> {
    let weekday = weekday_names(weekday)?;
    let line = |day: &str, weekday: &str| format!("{second} {minute} {hour} {day} {month} {weekday}");
    // crontab(5): a field that starts with a star does not restrict.
    let restricts = |field: &str| !field.starts_with(['*', '?']);
    Ok(if restricts(day) && restricts(&weekday) {
        vec![line(day, "*"), line("*", &weekday)]
    } else {
        vec![line(day, &weekday)]
    })
}

/// Weekdays as a list of names. Ranges are written out, since `fri-sun` runs backwards in a week that starts on
/// Sunday.
fn weekday_names(field: &str) -> Result<String, CronError> {
    if matches!(field, "*" | "?") {
        return Ok(field.to_owned());
    }
    let wrong = || CronError::Weekday { given: field.to_owned() };
    let mut names = Vec::new();
    for item in field.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, step.parse::<usize>().ok().filter(|&step| step > 0).ok_or_else(wrong)?),
            None => (item, 1),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (0, 6),
            Some((first, last)) => (weekday(first).ok_or_else(wrong)?, weekday(last).ok_or_else(wrong)?),
            None => {
                let first = weekday(range).ok_or_else(wrong)?;
                (first, if step == 1 { first } else { 6 })
            }
        };
        // `fri-mon` goes over the end of the week, and `1-7` ends there.
        let last = if last < first { last + 7 } else { last };
        names.extend((first..=last).step_by(step).filter_map(|day| DAY_NAMES.get(day % 7)).copied());
    }
    Ok(names.join(","))
}

/// 0 to 7, both ends Sunday.
fn weekday(text: &str) -> Option<usize> {
    match text.parse() {
        Ok(number) => (number <= 7).then_some(number),
        Err(_) => DAY_NAMES.iter().position(|name| {
            text.len() >= 3
                && text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(name))
                && text.bytes().all(|b| b.is_ascii_alphabetic())
        }),
    }
}
