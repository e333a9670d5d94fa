//! The identity of a directory, whatever it is called, and the moment up to which a tree is known. Pure values.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{RelPath, Timestamp};

/// The identity of a directory, as far as it outlives a rename and a reboot: its inode and, where the file system tells,
/// the time of its birth. Device numbers may change with a reboot and are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DirectoryId {
    pub inode: u64,
    /// Nanoseconds since the Unix epoch.
    #[serde(default)]
    pub born_ns: Option<u64>,
}

/// A place where a file system is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub path: RelPath,
    /// The root directory of the file system, where that tells it from another file system.
    pub id: Option<DirectoryId>,
}

/// One run of the kernel: its `boot_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BootId(#[serde(with = "serde_bytes")] pub [u8; 16]);

/// A point in time by two clocks: the wall clock, from which files get their times and which people and daemons set, and
/// the clock that counts from the boot, which nobody can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Moment {
    pub wall: Timestamp,
    pub boot: BootId,
    /// Milliseconds since the boot, sleep included.
    pub uptime_ms: u64,
}

impl Moment {
    /// By how many milliseconds the wall clock was set back between `earlier` and this moment; zero if it was set forward
    /// or not at all. `None` if the machine was booted in between: nobody knows what the wall clock said then.
    pub fn set_back_since(self, earlier: Self) -> Option<u64> {
        let offset = |moment: Self| i128::from(moment.wall.0) - i128::from(moment.uptime_ms);
        let back = u64::try_from(offset(earlier) - offset(self)).unwrap_or(0);
        (self.boot == earlier.boot).then_some(back)
    }
}

/// The `ctime` from which on something may have changed since `earlier`. `None` if `ctime` cannot tell: after a boot, and
/// when the wall clock was set back. `margin` is how much older than its event a change may be: a program that writes
/// much at once has its file dated when it begins and reported when it ends.
pub fn changed_since(earlier: Moment, now: Moment, margin: Duration) -> Option<Timestamp> {
    /// Leap seconds, and rounding.
    const TOLERATED_MS: u64 = 1_100;
    let back = now.set_back_since(earlier).filter(|back| *back <= TOLERATED_MS)?;
    Some(earlier.wall.before(margin + Duration::from_millis(back)))
}

/// The `ctime` from which on something may have changed since `earlier`, whatever happened in between: a boot, or a wall
/// clock that was set back once. Changes that were dated by a clock that was neither that of before nor that of today are
/// not covered.
pub fn dated_since(earlier: Moment, now: Moment, margin: Duration) -> Timestamp {
    match now.set_back_since(earlier) {
        Some(back) => earlier.wall.before(margin + Duration::from_millis(back)),
        // The time of the boot by today's clock, which may be behind the clock of before.
        None => earlier.wall.min(now.wall.before(Duration::from_millis(now.uptime_ms))).before(margin),
    }
}

/// A change in the place of a directory below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryChange {
    /// The directory is in `parent` under `name`, wherever it was before.
    Put { id: DirectoryId, parent: DirectoryId, name: Box<[u8]> },
    /// The directory is in the tree no more.
    Gone(DirectoryId),
}

impl DirectoryChange {
    pub fn id(&self) -> DirectoryId {
        match self {
            Self::Put { id, .. } | Self::Gone(id) => *id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_shows_against_the_uptime() {
        let moment = |boot, wall, uptime_ms| Moment { wall: Timestamp(wall), boot: BootId([boot; 16]), uptime_ms };
        let earlier = moment(1, 10_000, 500);
        for (now, back) in [
            (moment(1, 11_000, 1_500), Some(0)),
            (moment(1, 12_000, 1_500), Some(0)),
            (moment(1, 11_000, 4_500), Some(3_000)),
            (moment(1, 3_000, 600), Some(7_100)),
            (moment(2, 11_000, 1_500), None),
        ] {
            assert_eq!(now.set_back_since(earlier), back, "{now:?}");
            let since = changed_since(earlier, now, Duration::from_millis(200));
            assert_eq!(since, (back == Some(0)).then_some(Timestamp(9_800)), "{now:?}");
        }
    }

    /// After a boot, and when the clock was set back, times were taken for no witness at all, so that a file with its old
    /// size and time counted as equal.
    #[test]
    fn a_boot_and_a_clock_set_back_leave_a_time_from_which_on_something_may_have_changed() {
        let moment = |boot, wall, uptime_ms| Moment { wall: Timestamp(wall), boot: BootId([boot; 16]), uptime_ms };
        let earlier = moment(1, 10_000, 500);
        for (now, since) in [
            (moment(1, 11_000, 1_500), 9_800),
            (moment(1, 15_000, 1_500), 9_800),
            (moment(1, 11_000, 4_500), 6_800),
            (moment(2, 15_000, 1_500), 9_800),
            // The machine came up with a clock behind that of before.
            (moment(2, 6_000, 1_500), 4_300),
            (moment(2, 1_000, 1_500), 0),
        ] {
            assert_eq!(dated_since(earlier, now, Duration::from_millis(200)), Timestamp(since), "{now:?}");
        }
    }
}
