//! The workloads: their names, their amounts, and the measured time that stands for each.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::act;
use crate::scene::Scene;
use crate::sizes::Sizes;

/// The measured time that stands for the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headline {
    /// From the write of one file until all targets have it.
    Latency,
    /// From the first write until all targets are equal to the source.
    Total,
    /// From the last write until all targets are equal to the source.
    Lag,
    /// From a start of the peer until all targets have what changed while it was down.
    Restart,
    /// CPU time used while nothing is written, and wake-ups.
    Idle,
}

impl Headline {
    pub fn words(self) -> &'static str {
        match self {
            Self::Latency => "one write until visible, median",
            Self::Total => "first write until equal",
            Self::Lag => "last write until equal",
            Self::Restart => "start until equal",
            Self::Idle => "CPU, wake-ups",
        }
    }
}

pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    pub headline: Headline,
    pub targets: usize,
    /// rsyncd's limit of connections per module; 0 means no limit.
    pub max_connections: u32,
    /// The multiple of the usual timeout that the workload may take.
    pub patience: u32,
    /// Measured once, however many runs are requested: a run takes minutes, and one suffices.
    pub once: bool,
    /// Whether the workload is part of `--quick`. It is not if another workload shows as well that everything runs.
    pub quick: bool,
    /// Whether files have to be deleted on the targets, which a list of existing paths cannot express.
    pub deletes: bool,
    pub prepare: fn(&Path, &Sizes) -> Result<()>,
    pub act: fn(&mut Scene<'_>) -> Result<()>,
}

/// The defaults of a workload.
const USUAL: Workload = Workload {
    name: "",
    about: "",
    headline: Headline::Total,
    targets: 2,
    max_connections: 0,
    patience: 1,
    once: false,
    quick: true,
    deletes: false,
    prepare: act::nothing,
    act: |_| Ok(()),
};

const SMALL: &[u8] = b"aaaa\n";

pub const ALL: [Workload; 15] = [
    Workload {
        name: "single",
        about: "one small file at a time on an idle system",
        headline: Headline::Latency,
        act: |scene| act::one_at_a_time(scene, ""),
        ..USUAL
    },
    Workload {
        name: "huge-dir",
        about: "one small file at a time in a directory of 200,000",
        headline: Headline::Latency,
        prepare: |source, sizes| act::small_files(&source.join("huge"), sizes.huge_files, b""),
        act: |scene| act::one_at_a_time(scene, "huge"),
        quick: false,
        ..USUAL
    },
    Workload { name: "burst", about: "1,000 small files in a loop", act: act::burst, ..USUAL },
    Workload {
        name: "burst-2conn",
        about: "1,000 small files, rsyncd with max connections = 2",
        max_connections: 2,
        act: act::burst,
        ..USUAL
    },
    Workload { name: "fan-out", about: "1,000 small files, 20 targets", targets: 20, act: act::burst, ..USUAL },
    Workload {
        name: "dirs",
        about: "10,000 files in 100 new directories",
        act: |scene| act::files_in_dirs(&scene.source.join("new"), scene.sizes.dirs, scene.sizes.files_per_dir, SMALL),
        ..USUAL
    },
    Workload {
        name: "flood",
        about: "60,000 files in 40 directories",
        prepare: |source, sizes| act::files_in_dirs(source, sizes.flood_dirs, 0, SMALL),
        act: |scene| act::files_in_dirs(scene.source, scene.sizes.flood_dirs, scene.sizes.flood_files_per_dir, SMALL),
        quick: false,
        ..USUAL
    },
    Workload { name: "chains", about: "200 times mkdir -p a/b/c/d/e", act: act::chains, ..USUAL },
    Workload { name: "copy", about: "cp -a of a real tree, 3,000 files", act: act::copy, ..USUAL },
    Workload {
        name: "rename",
        about: "a directory of 5,000 files renamed",
        deletes: true,
        prepare: |source, sizes| act::noisy_files(&source.join("old"), sizes.renamed_files),
        act: |scene| Ok(fs::rename(scene.source.join("old"), scene.source.join("renamed"))?),
        ..USUAL
    },
    Workload {
        name: "delete",
        about: "a tree of 10,000 files deleted",
        deletes: true,
        prepare: |source, sizes| act::files_in_dirs(&source.join("doomed"), sizes.dirs, sizes.files_per_dir, SMALL),
        act: |scene| Ok(fs::remove_dir_all(scene.source.join("doomed"))?),
        ..USUAL
    },
    Workload {
        name: "mixed",
        about: "eight files of 64 MiB, then 300 small ones every 10 ms",
        act: act::mixed,
        ..USUAL
    },
    Workload {
        name: "append",
        about: "3,000 lines appended to one file in 3 s",
        headline: Headline::Lag,
        act: act::append,
        ..USUAL
    },
    Workload {
        name: "restart",
        about: "restart over 1,000,000 files in 20,000 directories, 100 new ones made while down",
        headline: Headline::Restart,
        patience: 10,
        once: true,
        prepare: |source, sizes| {
            act::files_in_dirs(&source.join("tree"), sizes.restart_dirs, sizes.restart_files_per_dir, b"")
        },
        act: act::change_while_down,
        ..USUAL
    },
    Workload {
        name: "idle",
        about: "a minute without changes, 10,000 files in 100 directories",
        headline: Headline::Idle,
        once: true,
        prepare: |source, sizes| act::files_in_dirs(source, sizes.dirs, sizes.files_per_dir, SMALL),
        act: |scene| scene.stay_idle(scene.sizes.idle),
        ..USUAL
    },
];
