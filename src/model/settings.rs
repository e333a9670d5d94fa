//! How hard and how often things are tried. Plain values with the defaults that the documentation names.

use std::fmt;
use std::time::Duration;

use super::Backoff;

/// syncq's own settings, the same for all roots of one configuration file.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How long a failing job waits.
    pub backoff: Backoff,
    /// Failed runs of a job until it becomes a dead letter; 0 never gives up.
    pub max_attempts: u32,
    /// Files above this size, in bytes, do not delay smaller ones.
    pub large_file_bytes: u64,
    /// The most rsync runs at a time to one target.
    pub connections_max: u32,
    /// The shortest time between two runs of a path that changes again and again.
    pub hot_interval: Duration,
    /// A file that is written without being closed is sent once it has been quiet for this long.
    pub quiet_period: Duration,
    /// How much a comparison of whole directories may delete without being asked to.
    pub max_delete: MaxDelete,
    /// The most jobs that are held one by one, over all targets. Above that, jobs of the target that has most of them
    /// become fewer jobs that stand for whole directories. 100,000 jobs are about 35 MB of memory and 110 MB of store.
    pub pending_max: u32,
    /// Whether runs to one host through ssh share a connection.
    pub ssh_share: bool,
    /// Whether a connection to each rsync daemon in use stands ready for the next change.
    pub standby: bool,
}

/// How much the first comparison with a target may delete. Nobody has seen yet that the target holds a copy of this source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AtFirst {
    /// As much as any other comparison: the target was equal once, or an operator asked for it.
    #[default]
    Usual,
    /// Fewer than 1,000 entries, and less than a tenth of what there is or five at most.
    Few,
    Nothing,
}

/// How much a run that makes directories equal may delete without being asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxDelete {
    /// Anything, even all.
    Unlimited,
    Entries(u64),
    /// This share of what the target holds there, and always [`MaxDelete::FEW`] entries.
    Percent(u8),
}

impl MaxDelete {
    /// So few deletions are no disaster, whatever share of a small mirror they make.
    pub const FEW: u64 = 1_000;

    /// How many entries may go without a look at how many there are. `None`: any number.
    pub fn unseen(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Entries(count) => Some(count),
            Self::Percent(_) => Some(Self::FEW),
        }
    }

    /// How many entries may go where the target holds `held`. `None`: any number.
    pub fn of(self, held: u64) -> Option<u64> {
        let share = |percent: u8| u64::try_from(u128::from(held) * u128::from(percent) / 100).unwrap_or(u64::MAX);
        match self {
            Self::Percent(percent) => Some(share(percent).max(Self::FEW)),
            other => other.unseen(),
        }
    }
}

impl Default for MaxDelete {
    fn default() -> Self {
        Self::Percent(50)
    }
}

/// As the configuration writes it.
impl fmt::Display for MaxDelete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("off"),
            Self::Entries(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            max_attempts: 0,
            large_file_bytes: 8 << 20,
            connections_max: 4,
            hot_interval: Duration::from_secs(1),
            quiet_period: Duration::from_secs(5),
            max_delete: MaxDelete::default(),
            pending_max: 100_000,
            ssh_share: true,
            standby: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_deletions_are_always_allowed_but_by_a_number_of_its_own() {
        for (limit, held, allowed) in [
            (MaxDelete::default(), 10_000, Some(5_000)),
            (MaxDelete::default(), 1_500, Some(1_000)),
            (MaxDelete::default(), 0, Some(1_000)),
            (MaxDelete::Percent(0), 1_000_000, Some(1_000)),
            (MaxDelete::Percent(100), u64::MAX, Some(u64::MAX)),
            (MaxDelete::Entries(7), 10_000, Some(7)),
            (MaxDelete::Unlimited, 10_000, None),
        ] {
            assert_eq!(limit.of(held), allowed, "{limit} of {held}");
        }
    }
}
