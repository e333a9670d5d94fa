//! What is written: the workloads, each with a tree to begin with and an act that is measured.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use walkdir::WalkDir;

use crate::measure::Scene;

/// Which of the measured times stands for the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headline {
    /// From the write of one file until both targets have it.
    Latency,
    /// From the first write until both targets are equal to the source.
    Total,
    /// From the last write until both targets are equal to the source.
    Lag,
}

impl Headline {
    pub fn words(self) -> &'static str {
        match self {
            Self::Latency => "one write until visible, median",
            Self::Total => "first write until equal",
            Self::Lag => "last write until equal",
        }
    }
}

pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    pub headline: Headline,
    /// rsyncd's limit per module; 0 is none.
    pub max_connections: u32,
    pub prepare: fn(&Path, &Sizes) -> Result<()>,
    pub act: fn(&mut Scene<'_>) -> Result<()>,
}

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
    };
}

pub const ALL: [Workload; 10] = [
    Workload {
        name: "single",
        about: "one small file at a time on an idle system",
        headline: Headline::Latency,
        max_connections: 0,
        prepare: nothing,
        act: single,
    },
    Workload {
        name: "burst",
        about: "1,000 small files in a loop",
        headline: Headline::Total,
        max_connections: 0,
        prepare: nothing,
        act: burst,
    },
    Workload {
        name: "burst-2conn",
        about: "the same, rsyncd with max connections = 2",
        headline: Headline::Total,
        max_connections: 2,
        prepare: nothing,
        act: burst,
    },
    Workload {
        name: "dirs",
        about: "10,000 files in 100 new directories",
        headline: Headline::Total,
        max_connections: 0,
        prepare: nothing,
        act: |scene| files_in_dirs(&scene.source.join("new"), scene.sizes),
    },
    Workload {
        name: "chains",
        about: "200 times mkdir -p a/b/c/d/e",
        headline: Headline::Total,
        max_connections: 0,
        prepare: nothing,
        act: chains,
    },
    Workload {
        name: "copy",
        about: "cp -a of a real tree, 3,000 files",
        headline: Headline::Total,
        max_connections: 0,
        prepare: nothing,
        act: copy,
    },
    Workload {
        name: "rename",
        about: "a directory of 5,000 files renamed",
        headline: Headline::Total,
        max_connections: 0,
        prepare: |source, sizes| noisy_files(&source.join("old"), sizes.renamed_files),
        act: |scene| Ok(fs::rename(scene.source.join("old"), scene.source.join("renamed"))?),
    },
    Workload {
        name: "delete",
        about: "a tree of 10,000 files deleted",
        headline: Headline::Total,
        max_connections: 0,
        prepare: |source, sizes| files_in_dirs(&source.join("doomed"), sizes),
        act: |scene| Ok(fs::remove_dir_all(scene.source.join("doomed"))?),
    },
    Workload {
        name: "mixed",
        about: "eight files of 64 MiB, then 300 small ones every 10 ms",
        headline: Headline::Total,
        max_connections: 0,
        prepare: nothing,
        act: mixed,
    },
    Workload {
        name: "append",
        about: "3,000 lines appended to one file in 3 s",
        headline: Headline::Lag,
        max_connections: 0,
        prepare: nothing,
        act: append,
    },
];

fn nothing(_: &Path, _: &Sizes) -> Result<()> {
    Ok(())
}

fn small_files(dir: &Path, count: usize, content: &[u8]) -> Result<()> {
    fs::create_dir_all(dir)?;
    for n in 1..=count {
        fs::write(dir.join(format!("{n}.txt")), content)?;
    }
    Ok(())
}

/// Files of 4 KiB that do not compress: what is sent twice shows in the bytes.
fn noisy_files(dir: &Path, count: usize) -> Result<()> {
    let mut noise = fastrand::Rng::with_seed(3);
    let mut content = [0; 4096];
    fs::create_dir_all(dir)?;
    for n in 1..=count {
        noise.fill(&mut content);
        fs::write(dir.join(format!("{n}.bin")), content)?;
    }
    Ok(())
}

fn files_in_dirs(parent: &Path, sizes: &Sizes) -> Result<()> {
    for dir in 1..=sizes.dirs {
        small_files(&parent.join(format!("d{dir}")), sizes.files_per_dir, b"aaaa\n")?;
    }
    Ok(())
}

fn single(scene: &mut Scene<'_>) -> Result<()> {
    let began = Instant::now();
    let mut chance = fastrand::Rng::with_seed(1);
    for n in 0..scene.sizes.single_files {
        if began.elapsed() > scene.sizes.single_budget {
            break;
        }
        // Not in step with anybody's timer.
        std::thread::sleep(Duration::from_millis(chance.u64(80..240)));
        scene.write_and_wait(Path::new(&format!("single-{n}.txt")), b"aaaa\n")?;
    }
    Ok(())
}

/// `for n in $(seq 1000); do echo aaaa > $n.txt; done`
fn burst(scene: &mut Scene<'_>) -> Result<()> {
    small_files(scene.source, scene.sizes.burst_files, b"aaaa\n")
}

fn chains(scene: &mut Scene<'_>) -> Result<()> {
    for n in 1..=scene.sizes.chains {
        fs::create_dir_all(scene.source.join(format!("c{n}/a/b/c/d/e")))?;
    }
    Ok(())
}

/// Takes documentation packages in the order of their names until there are enough files.
fn copy(scene: &mut Scene<'_>) -> Result<()> {
    const TREES: [&str; 3] = ["/usr/share/doc", "/usr/include", "/usr/share"];
    let mut chosen: Vec<PathBuf> = Vec::new();
    let mut files = 0;
    for tree in TREES {
        let Ok(entries) = fs::read_dir(tree) else { continue };
        let mut entries: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
        entries.sort();
        for entry in entries {
            if files >= scene.sizes.copied_files {
                break;
            }
            // Links out of the package would be other links in another place; a package is copied if it is whole.
            if chosen.iter().any(|c| c.file_name() == entry.file_name()) || entry.is_symlink() {
                continue;
            }
            files += WalkDir::new(&entry).into_iter().flatten().filter(|e| e.file_type().is_file()).count();
            chosen.push(entry);
        }
    }
    if chosen.is_empty() {
        bail!("none of {} has anything to copy", TREES.join(", "));
    }
    let status = Command::new("cp").arg("-a").args(&chosen).arg(scene.source).status().context("cannot run cp")?;
    if !status.success() {
        bail!("cp: {status}");
    }
    Ok(())
}

/// The small files are written while the large ones are on their way.
fn mixed(scene: &mut Scene<'_>) -> Result<()> {
    // Noise, so that compression does not shrink it to nothing.
    let mut noise = fastrand::Rng::with_seed(2);
    let mut block = vec![0; 1 << 20];
    let large = scene.source.join("large");
    fs::create_dir_all(&large)?;
    for n in 0..scene.sizes.large_files {
        let mut file = File::create(large.join(format!("{n}.bin")))?;
        for _ in 0..scene.sizes.large_bytes / block.len() {
            noise.fill(&mut block);
            file.write_all(&block)?;
        }
    }
    fs::create_dir_all(scene.source.join("small"))?;
    for n in 0..scene.sizes.small_files {
        std::thread::sleep(Duration::from_millis(10));
        scene.write_and_track(Path::new(&format!("small/{n}.txt")), b"aaaa\n")?;
    }
    Ok(())
}

/// Opens and closes the file for every line, as `echo >> log` does.
fn append(scene: &mut Scene<'_>) -> Result<()> {
    let path = scene.source.join("growing.log");
    let began = Instant::now();
    for n in 0..scene.sizes.appends {
        let due = scene.sizes.append_time.mul_f64(f64::from(n) / f64::from(scene.sizes.appends));
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        writeln!(file, "line {n} of a log that never rests")?;
    }
    Ok(())
}
