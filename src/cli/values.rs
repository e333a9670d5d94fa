//! Reads numbers and durations of the command line. An invalid value, or one out of range, is refused in plain words: if the
//! age of a `purge` were taken for something else, other jobs than the intended ones would be removed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// The budgets that `verify` accepts, in megabytes per second.
const BUDGET_MB_S: RangeInclusive<f64> = 0.1..=1e7;

/// Reads `90s`, `1h 30m`, `3d`. A bare number other than 0 is refused, since its unit is unknown.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| match (error, text.trim().parse::<f64>()) {
        (humantime::DurationError::NumberOverflow, _) => format!("{text} is longer than any time that can be told"),
        (_, Ok(_)) => format!("{text} has no unit: write {text}s, {text}m or {text}h"),
        _ => format!("{text:?} is no duration, like 90s, 2h or 3d"),
    })
}

/// Like [`duration`], for a time that must not be zero.
pub fn pause(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it has to be longer than nothing, like 500ms or 15s".to_owned()),
        pause => Ok(pause),
    }
}

/// Reads a whole number in the range of `T`.
pub fn whole<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| match text.trim_start_matches(['-', '+']).bytes().all(|b| b.is_ascii_digit()) {
        true if !text.is_empty() => format!("{text} is out of range"),
        _ => format!("{text:?} is no whole number"),
    })
}

/// Reads a budget in megabytes per second.
pub fn budget(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number of megabytes a second"))?;
    if BUDGET_MB_S.contains(&number) { Ok(number) } else { Err("give megabytes a second, 0.1 or more".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No text becomes an unintended number, neither zero nor the greatest.
    #[test]
    fn what_is_no_number_is_refused_in_words_that_name_it() {
        for (text, expected) in [
            ("90s", Ok(Duration::from_secs(90))),
            ("1h 30m", Ok(Duration::from_secs(5_400))),
            ("0", Ok(Duration::ZERO)),
            ("18446744073709551615s", Ok(Duration::from_secs(u64::MAX))),
            ("18446744073709551616s", Err("longer than any time")),
            ("99999999999999999999d", Err("longer than any time")),
            ("600000000000000000y", Err("longer than any time")),
            ("90", Err("has no unit")),
            ("1.5", Err("has no unit")),
            ("-5", Err("has no unit")),
            ("-5s", Err("is no duration")),
            ("abc", Err("is no duration")),
            ("", Err("is no duration")),
            ("nan", Err("has no unit")),
            ("5 parsecs", Err("is no duration")),
        ] {
            match (duration(text), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(said), Err(words)) => assert!(said.contains(words), "{text}: {said}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        assert!(pause("0s").is_err() && pause("1ms").is_ok());
        for (text, expected) in [
            ("7", Ok(7_u64)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err("out of range")),
            ("-1", Err("out of range")),
            ("1.5", Err("no whole number")),
            ("abc", Err("no whole number")),
            ("", Err("no whole number")),
            ("0x10", Err("no whole number")),
        ] {
            match (whole::<u64>(text), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(said), Err(words)) => assert!(said.contains(words), "{text}: {said}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        for text in ["0", "-1", "nan", "inf", "1e300", "abc", "0.01", ""] {
            assert!(budget(text).is_err(), "{text}");
        }
        assert_eq!(budget("20"), Ok(20.0));
    }
}
