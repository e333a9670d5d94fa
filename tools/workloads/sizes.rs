//! The amounts that the workloads write, at full size and for a quick look. Which workload uses which amount is not said here.

use std::time::Duration;

/// The amounts of all workloads.
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

    /// Multiplies the trees of `huge-dir`, `flood` and `restart` by `scale`. The others stay as they are.
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
