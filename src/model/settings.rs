//! How hard and how often things are tried. Plain values with the defaults that the documentation names.

use std::time::Duration;

use super::Backoff;

/// syncq's own settings, the same for all roots of one configuration file.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How long a failing job waits.
    pub backoff: Backoff,
    /// Failed runs of a job until it becomes a dead letter; 0 never gives up.
    pub max_attempts: u32,
    /// Files above this size do not delay smaller ones.
    pub large_file_bytes: u64,
    /// rsync runs at a time to one target.
    pub connections_max: u32,
    /// A path that changes again and again is sent at most this often.
    pub hot_interval: Duration,
    /// A file that is written without being closed is sent once it has been quiet for this long.
    pub quiet_period: Duration,
    /// Jobs held one by one, over all targets; above that those of the target with the most become fewer that stand for
    /// whole directories. 100,000 are about 35 MB of memory and 110 MB of store.
    pub pending_max: u32,
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
            pending_max: 100_000,
        }
    }
}
