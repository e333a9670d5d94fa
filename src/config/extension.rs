//! syncq's own element, `<syncq>`. No file written for sersync contains it, so it is read strictly.

use std::time::Duration;

use crate::model::{Backoff, Endpoint, MaxDelete, Settings};

use super::Control;
use super::diagnostic::Notes;
use super::error::{Fault, Problem};
use super::value::{self, Value};
use super::xml::Element;

const CONNECTIONS_MAX: u32 = 1000;
const PENDING_MAX: std::ops::RangeInclusive<u32> = 100..=10_000_000;
/// A longer wait would not overflow, but means "never" and should say so.
const WAIT_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Reads the settings in `<syncq>` on top of `settings`. All faults in it are reported together.
pub(super) fn read(head: &Element, mut settings: Settings, notes: &mut Notes<'_>) -> Result<(Settings, bool), Problem> {
    let Some(syncq) = head.child("syncq") else { return Ok((settings, false)) };
    let mut wrongs = Wrongs::default();
    let mut legacy_hidden = false;
    if let Some(backoff) = syncq.child("backoff") {
        read_backoff(backoff, &mut settings, &mut wrongs, notes);
    }
    if let Some(transfer) = syncq.child("transfer") {
        if let Some(value) = value::attribute(transfer, "connections", notes) {
            let count = value.number().filter(|count| (1..=CONNECTIONS_MAX).contains(count));
            let count = count.ok_or_else(|| wrong("connections", value, "number from 1 to 1000", notes));
            wrongs.take(count, &mut settings.connections_max);
        }
        if let Some(value) = value::attribute(transfer, "largeFile", notes) {
            wrongs.take(size("largeFile", value, notes), &mut settings.large_file_bytes);
        }
        if let Some(value) = value::attribute(transfer, "hotInterval", notes) {
            wrongs.take(duration("hotInterval", value, notes), &mut settings.hot_interval);
        }
        if let Some(value) = value::attribute(transfer, "quietPeriod", notes) {
            wrongs.take(duration("quietPeriod", value, notes), &mut settings.quiet_period);
        }
        if let Some(value) = value::attribute(transfer, "maxPending", notes) {
            let jobs = value.number().filter(|jobs| PENDING_MAX.contains(jobs));
            let jobs = jobs.ok_or_else(|| wrong("maxPending", value, "number from 100 to 10000000", notes));
            wrongs.take(jobs, &mut settings.pending_max);
        }
        if let Some(value) = value::attribute(transfer, "standby", notes) {
            settings.standby = value::boolean(value, "standby", notes);
        }
    }
    if let Some(value) = syncq.child("guard").and_then(|guard| value::attribute(guard, "maxDelete", notes)) {
        wrongs.take(max_delete(value, notes), &mut settings.max_delete);
    }
    if let Some(value) = syncq.child("ssh").and_then(|ssh| value::attribute(ssh, "share", notes)) {
        settings.ssh_share = value::boolean(value, "share", notes);
    }
    if let Some(hidden) = syncq.child("legacyHidden") {
        legacy_hidden = value::start(hidden, false, notes);
    }
    wrongs.into_result().map(|()| (settings, legacy_hidden))
}

/// The faults found so far.
#[derive(Default)]
struct Wrongs(Vec<Problem>);

impl Wrongs {
    fn take<T>(&mut self, found: Result<T, Problem>, place: &mut T) {
        match found {
            Ok(found) => *place = found,
            Err(problem) => self.0.push(problem),
        }
    }

    fn into_result(mut self) -> Result<(), Problem> {
        self.0.sort_by_key(|problem| problem.offset);
        let mut problems = self.0.into_iter();
        match problems.next() {
            None => Ok(()),
            Some(first) => {
                Err(Problem { others: problems.map(|problem| (problem.offset, problem.fault)).collect(), ..first })
            }
        }
    }
}

/// The TCP address of the control API. Whether the token file can be read is not checked here.
pub(super) fn control(head: &Element, notes: &mut Notes<'_>) -> Result<Option<Control>, Problem> {
    let Some(element) = head.child("syncq").and_then(|syncq| syncq.child("control")) else { return Ok(None) };
    let token_file = value::attribute(element, "tokenFile", notes);
    if let Some(value) = token_file.filter(Value::is_empty) {
        return Err(wrong("tokenFile", value, "name of a file", notes));
    }
    let Some(listen) = value::attribute(element, "listen", notes) else {
        return if token_file.is_some() { Err(Fault::TokenAlone.at(element.offset)) } else { Ok(None) };
    };
    let address = Endpoint::parse_address(&notes.show(listen.bytes))
        .ok_or_else(|| wrong("listen", listen, "port, or address with a port, such as 127.0.0.1:7878", notes))?;
    let endpoint = Endpoint { address, token_file: token_file.map(Value::to_path) };
    if endpoint.is_open() {
        return Err(Fault::OpenEndpoint { address }.at(listen.offset));
    }
    let (line, column) = notes.places()(element.offset);
    Ok(Some(Control { endpoint, line, column }))
}

fn read_backoff(element: &Element, settings: &mut Settings, wrongs: &mut Wrongs, notes: &mut Notes<'_>) {
    let Backoff { base, factor, cap } = &mut settings.backoff;
    if let Some(value) = value::attribute(element, "cap", notes) {
        let found = duration("cap", value, notes).and_then(|cap| match cap {
            Duration::ZERO => Err(wrong("cap", value, "duration above zero", notes)),
            cap => Ok(cap),
        });
        wrongs.take(found, cap);
    }
    match value::attribute(element, "base", notes) {
        Some(value) => {
            let found = duration("base", value, notes).and_then(|base| match base {
                base if base.is_zero() || base > *cap => {
                    Err(wrong("base", value, "duration above zero and at most cap", notes))
                }
                base => Ok(base),
            });
            wrongs.take(found, base);
        }
        None => *base = (*base).min(*cap),
    }
    if let Some(value) = value::attribute(element, "factor", notes) {
        let found = value.number().filter(|factor: &f64| (1.0..=1000.0).contains(factor));
        wrongs.take(found.ok_or_else(|| wrong("factor", value, "number from 1 to 1000", notes)), factor);
    }
    if let Some(value) = value::attribute(element, "maxAttempts", notes) {
        let found = value.number();
        let found = found.ok_or_else(|| wrong("maxAttempts", value, "whole number (0 never gives up)", notes));
        wrongs.take(found, &mut settings.max_attempts);
    }
}

fn wrong(attribute: &'static str, value: Value<'_>, expected: &'static str, notes: &Notes<'_>) -> Problem {
    Fault::Value { attribute, given: notes.show(value.bytes), expected }.at(value.offset)
}

/// Reads `90s`, `5m`, `1h 30m`. A bare number is refused, since sersync counts some in minutes and others in seconds.
fn duration(attribute: &'static str, value: Value<'_>, notes: &Notes<'_>) -> Result<Duration, Problem> {
    let given = notes.show(value.bytes);
    if given.parse::<f64>().is_ok() {
        return Err(Fault::NoUnit { attribute, given, example: "s" }.at(value.offset));
    }
    humantime::parse_duration(&given)
        .ok()
        .filter(|duration| *duration <= WAIT_MAX)
        .ok_or_else(|| wrong(attribute, value, "duration, such as 90s, 5m or 1h 30m", notes))
}

/// Reads `50%`, a number of entries, or `off`.
fn max_delete(value: Value<'_>, notes: &Notes<'_>) -> Result<MaxDelete, Problem> {
    let given = notes.show(value.bytes);
    let given = given.trim();
    let limit = match given.strip_suffix('%') {
        _ if given.eq_ignore_ascii_case("off") => Some(MaxDelete::Unlimited),
        Some(percent) => percent.trim_end().parse().ok().filter(|percent| *percent <= 100).map(MaxDelete::Percent),
        None => given.parse().ok().map(MaxDelete::Entries),
    };
    limit.ok_or_else(|| wrong("maxDelete", value, "share (50%), number of entries (20000), or off", notes))
}

/// Reads `8MiB` or `500 kB`, with the units of rsync and systemd: `K` and `KiB` are 1024 bytes, `kB` and `KB` 1000.
fn size(attribute: &'static str, value: Value<'_>, notes: &Notes<'_>) -> Result<u64, Problem> {
    let given = notes.show(value.bytes);
    let digits = given.find(|c: char| !c.is_ascii_digit()).unwrap_or(given.len());
    let (number, unit) = given.split_at_checked(digits).unwrap_or_default();
    if unit.is_empty() && !number.is_empty() {
        return Err(Fault::NoUnit { attribute, given, example: "MiB" }.at(value.offset));
    }
    let factor: Option<u64> = match unit.trim_ascii().to_ascii_lowercase().as_str() {
        "b" => Some(1),
        "k" | "kib" => Some(1 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        "t" | "tib" => Some(1 << 40),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        "tb" => Some(1_000_000_000_000),
        _ => None,
    };
    factor
        .zip(number.parse::<u64>().ok())
        .and_then(|(factor, number)| number.checked_mul(factor))
        .ok_or_else(|| wrong(attribute, value, "size, such as 8MiB or 500kB", notes))
}
