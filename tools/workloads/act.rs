//! The writing side of the workloads: the trees to begin with, and the acts that are measured.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use walkdir::WalkDir;

use crate::scene::Scene;
use crate::sizes::Sizes;

pub fn nothing(_: &Path, _: &Sizes) -> Result<()> {
    Ok(())
}

pub fn small_files(dir: &Path, count: usize, content: &[u8]) -> Result<()> {
    fs::create_dir_all(dir)?;
    for n in 1..=count {
        fs::write(dir.join(format!("{n}.txt")), content)?;
    }
    Ok(())
}

/// Files of 4 KiB that do not compress, so that data that is sent twice shows in the bytes.
pub fn noisy_files(dir: &Path, count: usize) -> Result<()> {
    let mut noise = fastrand::Rng::with_seed(3);
    let mut content = [0; 4096];
    fs::create_dir_all(dir)?;
    for n in 1..=count {
        noise.fill(&mut content);
        fs::write(dir.join(format!("{n}.bin")), content)?;
    }
    Ok(())
}

/// `dirs` directories below `parent` with `files` files of `content` in each.
pub fn files_in_dirs(parent: &Path, dirs: usize, files: usize, content: &[u8]) -> Result<()> {
    for dir in 1..=dirs {
        small_files(&parent.join(format!("d{dir}")), files, content)?;
    }
    Ok(())
}

/// Writes new files in the directory `dir`, and waits for each before it writes the next.
pub fn one_at_a_time(scene: &mut Scene<'_>, dir: &str) -> Result<()> {
    let began = Instant::now();
    let mut chance = fastrand::Rng::with_seed(1);
    for n in 0..scene.sizes.single_files {
        if began.elapsed() > scene.sizes.single_budget {
            break;
        }
        // A random pause, so that writes are not in step with a timer of a peer.
        std::thread::sleep(Duration::from_millis(chance.u64(80..240)));
        scene.write_and_wait(&Path::new(dir).join(format!("single-{n}.txt")), b"aaaa\n")?;
    }
    Ok(())
}

/// `for n in $(seq 1000); do echo aaaa > $n.txt; done`
pub fn burst(scene: &mut Scene<'_>) -> Result<()> {
    small_files(scene.source, scene.sizes.burst_files, b"aaaa\n")
}

pub fn chains(scene: &mut Scene<'_>) -> Result<()> {
    for n in 1..=scene.sizes.chains {
        fs::create_dir_all(scene.source.join(format!("c{n}/a/b/c/d/e")))?;
    }
    Ok(())
}

/// Copies documentation packages in the order of their names until there are enough files.
pub fn copy(scene: &mut Scene<'_>) -> Result<()> {
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
            // A link that leads out of its package would lead elsewhere in the copy. A package is copied only as a whole.
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

/// Writes the small files while the large ones are being sent.
pub fn mixed(scene: &mut Scene<'_>) -> Result<()> {
    // Noise, so that compression does not shrink the content.
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
pub fn append(scene: &mut Scene<'_>) -> Result<()> {
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

/// Adds a file to directories all over the tree while the peer is down.
pub fn change_while_down(scene: &mut Scene<'_>) -> Result<()> {
    let sizes = scene.sizes;
    scene.while_down(|source| {
        for n in 0..sizes.restart_changes {
            let dir = 1 + n * sizes.restart_dirs / sizes.restart_changes;
            fs::write(source.join(format!("tree/d{dir}/missed-{n}.txt")), b"aaaa\n")?;
        }
        Ok(())
    })
}
