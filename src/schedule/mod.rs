//! When whole-tree runs are due: at an interval, or at the times of a cron expression.
//!
//! Pure: the time is a parameter, and the caller starts the runs. A time that was missed (the daemon was down) is made up
//! for once, however often it was missed. The queue sees to it that no two runs of one root overlap: a run is a job of
//! the root, and there is only ever one such job; a run that is due while another is under way follows it, once.
//!
//! The names and rules of time zones are compiled in, so that a configuration means the same on a machine without them.
//! If a country changes its rules, a run is an hour off until the next version: no more than that.

mod cron;

use std::time::Duration;

use chrono::Local;

use crate::model::{Schedule, Timestamp};

pub use self::cron::CronError;

/// Why a schedule cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error("the interval is zero")]
    ZeroInterval,
    #[error("{given} is no time zone of the IANA data base")]
    Timezone { given: String },
    #[error(transparent)]
    Cron(#[from] CronError),
}

/// Whether a schedule can be followed. Used when the configuration is read.
pub fn check(schedule: &Schedule) -> Result<(), ScheduleError> {
    Plan::new(schedule).map(drop)
}

/// A schedule that has been checked and compiled.
#[derive(Debug, Clone)]
pub struct Plan(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Every(Duration),
    Cron(Box<cron::Expression>, Zone),
}

#[derive(Debug, Clone, Copy)]
enum Zone {
    /// The zone of this machine (`TZ=UTC` in the environment makes it UTC).
    Local,
    Named(chrono_tz::Tz),
}

impl Plan {
    pub fn new(schedule: &Schedule) -> Result<Self, ScheduleError> {
        Ok(Self(match schedule {
            Schedule::Every(Duration::ZERO) => return Err(ScheduleError::ZeroInterval),
            Schedule::Every(interval) => Kind::Every(*interval),
            Schedule::Cron { expression, timezone } => {
                let zone = match timezone {
                    None => Zone::Local,
                    Some(name) => {
                        let unknown = |_| ScheduleError::Timezone { given: name.clone() };
                        Zone::Named(name.parse().map_err(unknown)?)
                    }
                };
                Kind::Cron(Box::new(cron::Expression::parse(expression)?), zone)
            }
        }))
    }

    /// When the run after `last_run` is due; `now` if that time has passed.
    pub fn next_after(&self, last_run: Timestamp, now: Timestamp) -> Timestamp {
        // A run in the future means that the clock was set back: waiting for it to come round again could take years.
        let last_run = last_run.min(now);
        let due = match &self.0 {
            Kind::Every(interval) => Some(last_run.after(*interval)),
            Kind::Cron(expression, Zone::Local) => expression.next_after(&Local, last_run),
            Kind::Cron(expression, Zone::Named(zone)) => expression.next_after(zone, last_run),
        };
        // An expression that is past its last time is never due again.
        due.map_or(Timestamp(u64::MAX), |due| due.max(now))
    }
}

/// The plans of several roots, each with its last run. Has no thread: the owner asks [`Scheduler::due`] now and then, and
/// starts the runs that are due.
#[derive(Debug, Default)]
pub struct Scheduler(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    key: usize,
    plan: Plan,
    last_run: Timestamp,
    due: Timestamp,
}

impl Scheduler {
    /// Takes up a schedule under a number of the caller's choice. `last_run` is when it last ran, in this process or an
    /// earlier one. For a schedule that never ran, the caller gives the present: it is then due after the first interval,
    /// not at once.
    pub fn add(
        &mut self,
        key: usize,
        schedule: &Schedule,
        last_run: Timestamp,
        now: Timestamp,
    ) -> Result<(), ScheduleError> {
        let plan = Plan::new(schedule)?;
        let last_run = last_run.min(now);
        let due = plan.next_after(last_run, now);
        self.0.push(Entry { key, plan, last_run, due });
        Ok(())
    }

    /// When the next run is due; an overdue run counts with its time in the past.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.0.iter().map(|entry| entry.due).min()
    }

    /// The numbers of all schedules that are due, in the order in which they were added. Each counts as run now.
    pub fn due(&mut self, now: Timestamp) -> Vec<usize> {
        let mut keys = Vec::new();
        for entry in &mut self.0 {
            if now < entry.last_run {
                // The clock was set back: measure from here.
                entry.ran(now);
            } else if entry.due <= now {
                entry.ran(now);
                keys.push(entry.key);
            }
        }
        keys
    }
}

impl Entry {
    fn ran(&mut self, now: Timestamp) {
        self.last_run = now;
        self.due = self.plan.next_after(now, now);
    }
}

#[cfg(test)]
mod tests;
