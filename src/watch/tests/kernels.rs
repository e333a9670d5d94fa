//! The simulated kernel is like the machine's own: after the same operations, both tell the same in the same words.
//!
//! Not compared: permissions, since tests may run as root; mounts, which only root may make; sizes and times.

use std::collections::HashMap;
use std::fs::{self, FileTimes};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use rustix::fs::{CWD, RenameFlags};

use super::{TICK, path, scratch};
use crate::model::{RelPath, Timestamp};
use crate::watch::event::RawEvent;
use crate::watch::kernel::Kernel;
use crate::watch::simulated::{Disk, Operation, SimulatedKernel};
use crate::watch::system_kernel::SystemKernel;

const PLACES: [&str; 7] = ["a", "b", "a/a", "a/b", "b/a", "b/a/a", "a/a/b"];

fn operation(rng: &mut Rng) -> Operation {
    let mut place = || path(*rng.choice(&PLACES[..]).unwrap());
    let (one, other) = (place(), place());
    match rng.u32(0..24) {
        0..5 => Operation::Write(one),
        5 => Operation::Rewrite(one),
        6..10 => Operation::MakeDirectory(one),
        10 => Operation::Symlink(one),
        11..13 => Operation::HardLink(one, other),
        13..15 => Operation::Remove(one),
        15..18 => Operation::Rename(one, other),
        18..20 => Operation::Exchange(one, other),
        20..22 => Operation::Leave(one, rng.u8(0..2)),
        _ => Operation::Enter(rng.u8(0..2), one),
    }
}

fn rewrite(file: &Path) -> std::io::Result<()> {
    let before = fs::symlink_metadata(file).and_then(|metadata| metadata.modified()).unwrap_or(std::time::UNIX_EPOCH);
    fs::write(file, "2")?;
    fs::File::open(file)?.set_times(FileTimes::new().set_accessed(before).set_modified(before))
}

/// Removes a tree, in the order of its names.
fn remove(at: &Path) -> std::io::Result<()> {
    if !fs::symlink_metadata(at)?.is_dir() {
        return fs::remove_file(at);
    }
    let mut below: Vec<PathBuf> = fs::read_dir(at)?.map(|entry| entry.unwrap().path()).collect();
    below.sort();
    below.iter().try_for_each(|below| remove(below))?;
    fs::remove_dir(at)
}

/// Renames an entry, unless both paths lead to the same file already: then nothing would happen.
fn rename(from: &Path, to: &Path, flags: RenameFlags) -> std::io::Result<()> {
    let number = |at: &Path| at.symlink_metadata().map(|found| found.ino()).ok();
    if number(from) == number(to) {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    Ok(rustix::fs::renameat_with(CWD, from, CWD, to, flags)?)
}

/// Does to real directories what is done to the simulated ones.
fn perform(root: &Path, outside: &Path, operation: &Operation) -> bool {
    let (at, slot) = (|path: &RelPath| path.under(root), |number: &u8| outside.join(number.to_string()));
    // Links lead to where nothing is, as the simulated ones do.
    let is_file = |path: &RelPath| at(path).symlink_metadata().is_ok_and(|found| found.is_file());
    let is_free = |path: &RelPath| at(path).symlink_metadata().is_err();
    let done = match operation {
        Operation::Write(path) if is_file(path) || is_free(path) => fs::write(at(path), "1"),
        Operation::Rewrite(path) if is_file(path) || is_free(path) => rewrite(&at(path)),
        Operation::MakeDirectory(path) => fs::create_dir(at(path)),
        Operation::Symlink(path) => std::os::unix::fs::symlink("/nowhere/at/all", at(path)),
        Operation::HardLink(from, to) => fs::hard_link(at(from), at(to)),
        Operation::Remove(path) => remove(&at(path)),
        Operation::Rename(from, to) => rename(&at(from), &at(to), RenameFlags::empty()),
        Operation::Exchange(one, other) => rename(&at(one), &at(other), RenameFlags::EXCHANGE),
        Operation::Leave(path, number) => rename(&at(path), &slot(number), RenameFlags::empty()),
        Operation::Enter(number, path) => rename(&slot(number), &at(path), RenameFlags::empty()),
        _ => return false,
    };
    done.is_ok()
}

/// Events in words, with cookies in the order of their appearance.
#[derive(Default)]
struct Words(HashMap<u32, u32>);

impl Words {
    fn of(&mut self, event: RawEvent<'_>) -> String {
        let next = u32::try_from(self.0.len()).unwrap() + 1;
        let cookie = if event.cookie == 0 { 0 } else { *self.0.entry(event.cookie).or_insert(next) };
        format!("{:?}", RawEvent { cookie, ..event }.decode())
    }
}

/// What a kernel answers about each place.
fn answers(kernel: &mut impl Kernel) -> Vec<String> {
    let mut said = Vec::new();
    for place in PLACES.map(path).into_iter().chain([RelPath::root()]) {
        let look = kernel.look(&place).map(|look| (look.is_plain, look.links)).map_err(|error| error.kind());
        let listed = kernel.list(&place, false, false).map_err(|error| error.raw_os_error());
        let names = listed.map(|listing| {
            let mut names: Vec<_> = listing.entries.into_iter().map(|entry| (entry.name, entry.is_dir)).collect();
            names.sort();
            names
        });
        let files = kernel.list_inodes(&place).map(|names| names.len()).map_err(|error| error.raw_os_error());
        let (id, is_open) = (kernel.identify(&place).is_some(), kernel.is_open(&place));
        said.push(format!("{place}: {look:?}, {names:?}, {files:?}, {id}, {is_open}"));
    }
    said
}

#[test]
fn the_simulated_kernel_tells_what_the_machines_tells() {
    for seed in 0..60 {
        let (mut rng, dir) = (Rng::with_seed(seed), scratch());
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        let attributes = rng.bool();
        let mut real = SystemKernel::new(root.clone(), attributes).unwrap();
        let mut simulated = SimulatedKernel::new(Disk::new(Timestamp::ZERO.after(TICK), attributes));
        let (mut real_words, mut simulated_words, mut buffer) = (Words::default(), Words::default(), vec![0; 1 << 16]);
        for step in 0..200 {
            let place = path(*rng.choice(&PLACES[..]).unwrap());
            let told = format!("seed {seed}, step {step}");
            if rng.u32(0..3) == 0 {
                let place = if rng.u32(0..4) == 0 { RelPath::root() } else { place };
                let [ours, theirs] = [simulated.watch(&place), real.watch(&place)].map(|known| known.map(|(wd, _)| wd));
                assert_eq!(ours, theirs, "{told}: watch {place}");
                if let Ok(wd) = ours
                    && rng.u32(0..8) == 0
                {
                    simulated.unwatch(&[wd]);
                    real.unwatch(&[wd]);
                }
            }
            let operation = operation(&mut rng);
            let done = simulated.disk_mut().perform(&operation);
            assert_eq!(done, perform(&root, &outside, &operation), "{told}: {operation:?}");
            simulated.disk_mut().is_known();
            if rng.u32(0..4) == 0 {
                let heard: Vec<_> = real.read(&mut buffer).unwrap().map(|event| real_words.of(event)).collect();
                let disk = simulated.disk_mut();
                let told_by_ours: Vec<_> =
                    std::iter::from_fn(|| disk.read()).map(|event| simulated_words.of(event.raw())).collect();
                assert_eq!(told_by_ours, heard, "{told}: {operation:?}");
                assert_eq!(answers(&mut simulated), answers(&mut real), "{told}");
            }
        }
    }
}
