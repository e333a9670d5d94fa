//! The rules by which a tree is watched: the part of a configuration that its watcher depends on.
//!
//! A reload replaces a watcher only if its rules differ. Deliberately absent: what a target's content depends on
//! (`fingerprint`).

use std::path::PathBuf;
use std::time::Duration;

use crate::daemon::options::RootOptions;
use crate::model::EventSwitches;

/// How a tree is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub path: PathBuf,
    pub events: EventSwitches,
    pub excludes: Vec<String>,
    pub legacy_hidden: bool,
    /// Names of rsync's per-directory filter files. The rules in such a file hold for the directory that contains the file.
    pub rule_files: Vec<String>,
    pub quiet_period: Duration,
    pub hot_interval: Duration,
    /// Whether some target keeps hard links.
    pub keeps_links: bool,
    /// Whether this is the only configured root on its directory. The store keeps one watermark for each directory.
    pub keeps_watermark: bool,
}

impl Rules {
    pub fn new(options: &RootOptions, keeps_watermark: bool) -> Self {
        let RootOptions { root, settings } = options;
        Self {
            path: root.path.clone(),
            events: root.events,
            excludes: root.excludes.clone(),
            legacy_hidden: root.legacy_hidden,
            rule_files: root.targets.iter().flat_map(|target| target.options.params.rule_files()).collect(),
            quiet_period: settings.quiet_period,
            hot_interval: settings.hot_interval,
            keeps_links: root.targets.iter().any(|target| target.options.params.has_any(&["hard-links"])),
            keeps_watermark,
        }
    }
}
