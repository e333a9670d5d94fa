//! The workloads: what each is called, how much it writes, and which of the measured times stands for it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::act;
use crate::measure::Scene;

/// Which of the measured times stands for the workload.
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
    /// rsyncd's limit per module; 0 is none.
    pub max_connections: u32,
    /// How many times the usual timeout it may take.
    pub patience: u32,
    /// Measured once, however many runs are asked for: it takes minutes, and one run tells.
    pub once: bool,
    /// Part of `--quick`; not where another workload shows as well that everything runs.
    pub quick: bool,
    /// Something of the targets has to go, which a list of what there is cannot say.
    pub deletes: bool,
    pub prepare: fn(&Path, &Sizes) -> Result<()>,
    pub act: fn(&mut Scene<'_>) -> Result<()>,
}

/// What a workload is that says nothing else.
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

/// How much of everything.
pub struct Sizes {
    pub single_files: usize,
    pub single_budget: Duration,
    pub burst_files: usize,
    pub dirs: usize,
    pub files_per_dir: usize,
    pub chains: usize,
    pub copied_files: usize,
    pub renamed_files: usize,
    pub large_files: usize,
    pub large_bytes: usize,
    pub small_files: usize,
    pub appends: u32,
    pub append_time: Duration,
    pub huge_files: usize,
    pub flood_dirs: usize,
    pub flood_files_per_dir: usize,
    pub restart_dirs: usize,
    pub restart_files_per_dir: usize,
    pub restart_changes: usize,
    pub idle: Duration,
}

impl Sizes {
    pub const FULL: Self = Self {
        single_files: 30,
        single_budget: Duration::from_secs(15),
        burst_files: 1000,
        dirs: 100,
        files_per_dir: 100,
        chains: 200,
        copied_files: 3000,
        renamed_files: 5000,
        large_files: 8,
        large_bytes: 64 << 20,
        small_files: 300,
        appends: 3000,
        append_time: Duration::from_secs(3),
        huge_files: 200_000,
        flood_dirs: 40,
        flood_files_per_dir: 1500,
        restart_dirs: 20_000,
        restart_files_per_dir: 50,
        restart_changes: 100,
        idle: Duration::from_secs(60),
    };

    /// Just enough to see that everything runs.
    pub const QUICK: Self = Self {
        single_files: 3,
        single_budget: Duration::from_secs(5),
        burst_files: 40,
        dirs: 5,
        files_per_dir: 8,
        chains: 10,
        copied_files: 60,
        renamed_files: 40,
        large_files: 2,
        large_bytes: 9 << 20,
        small_files: 20,
        appends: 100,
        append_time: Duration::from_millis(200),
        huge_files: 200,
        flood_dirs: 4,
        flood_files_per_dir: 15,
        restart_dirs: 20,
        restart_files_per_dir: 10,
        restart_changes: 10,
        idle: Duration::from_millis(200),
    };

    /// The trees of `huge-dir`, `flood` and `restart` are `scale` times as large, the others as they are.
    pub fn scaled(self, scale: f64) -> Self {
        let times = |count: usize| ((count as f64 * scale).round() as usize).max(1);
        Self {
            huge_files: times(self.huge_files),
            flood_files_per_dir: times(self.flood_files_per_dir),
            restart_dirs: times(self.restart_dirs),
            ..self
        }
    }
}

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
