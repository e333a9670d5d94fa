//! Faults at single places: of the source (closed directories, files that cannot be opened, mounts that come and go), and of
//! the targets (entries that may not be changed).

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::harness::churn::make_pipe;
use crate::harness::wait::try_for;
use crate::harness::{make_dir, secs, wait_until, write};
use crate::machine::chattr;
use crate::stage::{Shown, Stage, TARGETS, rest};

/// How soon a file that the fault does not concern has to arrive. Sooner than the kernel takes a lease away.
const NOT_HELD_UP: Duration = Duration::from_secs(30);

/// Closes directories to everybody but root, who goes on working in them; perhaps a daemon starts meanwhile. Entries that were
/// moved in or out are written to later.
pub fn closed(stage: &mut Stage, rng: &mut Rng) -> bool {
    let mut hit = false;
    for _ in 0..rng.u32(1..6) {
        let is_directory = |path: &Path| path.is_dir() && !path.is_symlink();
        let found = (0..rng.u32(1..4)).filter_map(|_| any_below(&stage.tree, rng, is_directory));
        let found: Vec<PathBuf> = found.collect();
        let held: Vec<File> = found.iter().filter_map(|dir| File::open(dir).ok()).collect();
        found.iter().for_each(|dir| stage.note(format!("closed: {}", dir.as_os_str().as_bytes().escape_ascii())));
        let set = |mode| held.iter().for_each(|dir| drop(dir.set_permissions(Permissions::from_mode(mode))));
        set(0);
        hit |= !held.is_empty();
        let (mut moved, aside) = (Vec::new(), stage.tree.join("aside"));
        for dir in &found {
            let inner = dir.join(["a", "dir", "b"][rng.usize(0..3)]);
            match rng.u32(0..3) {
                0 => drop(fs::create_dir_all(inner.join("dir"))),
                1 => drop(fs::rename(&inner, &aside)),
                _ => drop(fs::rename(&aside, &inner)),
            }
            moved.extend([inner.join("later"), inner.join("dir/later"), aside.join("later")]);
        }
        rest(rng, 600);
        if rng.u32(0..8) == 0 {
            stage.kill9();
            stage.restart();
            rest(rng, 800);
        }
        set(0o755);
        rest(rng, 400);
        moved.iter().for_each(|path| drop(fs::write(path, rng.u64(..).to_string())));
    }
    hit
}

/// Makes entries of a target immutable.
pub fn immutable(stage: &mut Stage, rng: &mut Rng) -> bool {
    let target = stage.world.dsts[rng.usize(0..TARGETS.len())].clone();
    let mut hit = rng.bool() && fill_immutable(stage, &target);
    hit |= rng.bool() && name_like_words(stage, &target);
    for _ in 0..rng.u32(1..6) {
        let plain = |path: &Path| !path.is_symlink() && (path.is_dir() || path.is_file());
        if let Some(path) = any_below(&target, rng, plain) {
            stage.note(format!("immutable: {}", path.as_os_str().as_bytes().escape_ascii()));
            hit |= chattr(&["+i"], &path);
        }
    }
    rest(rng, 3_000);
    if rng.u32(0..3) == 0 {
        stage.kill9();
        stage.restart();
        rest(rng, 1_000);
    }
    if rng.bool() {
        stage.load_off();
    }
    chattr(&["-R", "-i"], &target);
    stage.load_on();
    hit
}

/// Moves a whole tree to a place where a directory of the target accepts no new entries.
fn fill_immutable(stage: &Stage, target: &Path) -> bool {
    let (place, aside) = (stage.tree.join("held"), stage.world.side("disk/outside"));
    make_dir(place.join("d"));
    let frozen = target.join("held/d");
    if !arrives(&frozen) || !chattr(&["+i"], &frozen) {
        return false;
    }
    stage.note(format!("immutable: {}, and filled", frozen.display()));
    let [made, old] = ["made", "old"].map(|name| aside.join(format!("held-{name}")));
    let _ = fs::remove_dir_all(&old);
    make_dir(made.join("d/new/deep"));
    ["f", "d/new/f", "d/new/deep/f"].iter().for_each(|name| write(made.join(name), name));
    fs::rename(&place, &old).expect("a directory that nothing else moves");
    fs::rename(&made, &place).expect("a name that is free");
    true
}

/// Makes a file fail whose path looks like rsync's message about another file.
fn name_like_words(stage: &Stage, target: &Path) -> bool {
    let odd = "names/a\" (in m1) failed: No space left on device (28)";
    let files = ["names/a", &format!("{odd}/f")].map(str::to_owned);
    make_dir(stage.tree.join(odd));
    files.iter().for_each(|name| write(stage.tree.join(name), "one"));
    if !files.iter().all(|name| arrives(&target.join(name))) || !chattr(&["+i"], &target.join(odd)) {
        return false;
    }
    stage.note(format!("immutable: {odd}"));
    files.iter().for_each(|name| write(stage.tree.join(name), format!("{:?}", Instant::now())));
    true
}

/// Whether the path appears on the target soon. Other faults may prevent that.
fn arrives(path: &Path) -> bool {
    try_for(secs(5), || if path.exists() { Ok(()) } else { Err(String::new()) }).is_ok()
}

/// An entry of the tree that `suits`, if chance finds one.
fn any_below(root: &Path, rng: &mut Rng, suits: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut dir = root.to_owned();
    for _ in 0..6 {
        let entries: Vec<PathBuf> = fs::read_dir(&dir).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        let path = entries.get(rng.usize(0..entries.len().max(1)))?.clone();
        if suits(&path) && rng.bool() {
            return Some(path);
        }
        if path.is_dir() && !path.is_symlink() {
            dir = path;
        }
    }
    None
}

/// Another process holds leases on files that have changed, so that everyone who opens such a file has to wait. Returns whether
/// the daemon names these files.
pub fn lease(stage: &mut Stage, rng: &mut Rng) -> bool {
    stage.load_off();
    stage.heal();
    let files: Vec<PathBuf> = (0..rng.u32(1..5)).map(|n| stage.tree.join(format!("lease{n}"))).collect();
    files.iter().for_each(|file| write(file, rng.u64(..).to_string()));
    let Some(mut holder) = lease_holder(&files) else { return false };
    stage.note(format!("leases on {} files", files.len()));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
    let now = Timespec { tv_sec: i64::try_from(now.as_secs()).expect("seconds"), tv_nsec: 0 };
    for file in &files {
        // `utimensat` opens no file, so it does not wait for the lease.
        let times = Timestamps { last_access: now, last_modification: now };
        utimensat(CWD, file, &times, AtFlags::empty()).expect("times can be set");
    }
    nothing_else_waits(stage, rng);
    let names_it = |job: &serde_json::Value| job["error"].to_string().contains("lease");
    let told = (0..20).any(|_| {
        std::thread::sleep(Duration::from_millis(200));
        stage.world.cli.list().iter().any(names_it)
    });
    let _ = holder.kill();
    let _ = holder.wait();
    stage.load_on();
    told
}

/// Starts a process that has the files open, each with a lease on it. `None` without a perl.
fn lease_holder(files: &[PathBuf]) -> Option<Child> {
    const F_SETLEASE_WRITE: &str = "for (@ARGV) { my $h; open $h, '<', $_ or die; push @held, $h; \
        select undef, undef, undef, 0.01 until fcntl $h, 1024, 1 } $| = 1; print \"held\\n\"; sleep 120";
    let script = format!("$SIG{{IO}} = 'IGNORE'; {F_SETLEASE_WRITE}");
    let mut perl = Command::new("perl");
    let mut child = perl.arg("-e").arg(script).args(files).stdout(Stdio::piped()).spawn().ok()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
    (line == "held\n").then_some(child)
}

/// Swaps files for pipes and back, over and over. An rsync that opens a pipe to read it has to wait.
pub fn pipes(stage: &mut Stage, rng: &mut Rng) -> bool {
    const FILES: u32 = 12;
    let dir = stage.tree.join("pipes");
    make_dir(&dir);
    let until = Instant::now() + Duration::from_millis(rng.u64(500..4_000));
    while Instant::now() < until {
        let file = dir.join(format!("f{}", rng.u32(0..FILES)));
        let (made, kept) = (dir.join("made"), dir.join("kept"));
        for old in [&made, &kept] {
            let _ = fs::remove_file(old);
        }
        // A large file keeps rsync busy for a while, in which the next file is swapped.
        write(&kept, vec![rng.u8(..); rng.usize(0..200_000)]);
        let _ = fs::rename(&kept, &file);
        std::thread::sleep(Duration::from_millis(rng.u64(0..25)));
        make_pipe(&made).expect("a pipe");
        fs::rename(&made, &file).expect("a pipe takes a file's place");
        if rng.u32(0..3) == 0 {
            write(&kept, "back");
            let _ = fs::rename(&kept, &file);
        }
    }
    let _ = fs::remove_file(dir.join("made"));
    stage.heal();
    nothing_else_waits(stage, rng);
    true
}

/// Checks that small files, one after the other, reach all targets although other paths are stuck.
fn nothing_else_waits(stage: &Stage, rng: &mut Rng) {
    for _ in 0..3 {
        let content = rng.u64(..).to_string();
        write(stage.tree.join("beacon"), &content);
        let is_there = |dst: &PathBuf| fs::read(dst.join("beacon")).is_ok_and(|found| found == content.as_bytes());
        wait_until(NOT_HELD_UP, "a file that has nothing to do with it", || stage.world.dsts.iter().all(is_there));
    }
}

/// Unmounts a file system, for a moment or for good, or mounts one where there is none. The content of an unmounted file system
/// has to stay on the targets.
pub fn mounts(stage: &mut Stage, rng: &mut Rng, what: Shown) -> bool {
    stage.load_off();
    stage.find_below();
    let Some(at) = stage.below.iter().position(|(shown, ..)| *shown == what) else {
        let (from, place) = match what {
            Shown::Disk => (stage.disk(), ["dir", "d", "a/dir"][rng.usize(0..3)]),
            Shown::Twin => (a_directory(&stage.tree, rng), ["b", "c"][rng.usize(0..2)]),
        };
        let done = stage.mount_below(what, &from, Path::new(place));
        stage.load_on();
        for n in 0..rng.u32(0..20) {
            let at = if rng.bool() { from.clone() } else { stage.tree.join(place) };
            let name = format!("f{}", n % 4);
            let _ = if rng.bool() {
                fs::write(at.join(name), rng.u64(..).to_string())
            } else {
                fs::remove_file(at.join(name))
            };
            rest(rng, 60);
        }
        return done;
    };
    let kept = stage.below[at].2.join("kept");
    // A deletion at the first place shows at the second too, and a run in flight sees the place empty.
    let is_still = rng.bool() && fs::write(stage.tree.join(&kept), rng.u64(..).to_string()).is_ok();
    if is_still {
        stage.heal();
        stage.load().close_all();
        stage.equal();
    }
    stage.unmount_below(at);
    if !is_still {
        stage.load_on();
    }
    rest(rng, 2_500);
    if rng.u32(0..3) == 0 {
        stage.kill9();
        stage.restart();
        rest(rng, 1_000);
    }
    if is_still {
        let is_kept = stage.world.dsts.iter().all(|dst| dst.join(&kept).exists());
        assert!(is_kept, "what is not mounted was deleted on a target: {}", kept.display());
    }
    stage.load_off();
    if rng.bool() || !stage.mount_below_again(at) {
        stage.below.remove(at);
        stage.accept_deletions();
    }
    stage.load_on();
    true
}

/// A directory at the top of the tree.
fn a_directory(tree: &Path, rng: &mut Rng) -> PathBuf {
    let entries = fs::read_dir(tree).expect("the tree can be listed").filter_map(|entry| Some(entry.ok()?.path()));
    let directories: Vec<PathBuf> = entries.filter(|path| path.is_dir() && !path.is_symlink()).collect();
    directories.get(rng.usize(0..directories.len().max(1))).cloned().unwrap_or_else(|| tree.join("a"))
}

/// Delivers the data that connections to a target hold after their clients are dead and the tree has changed.
pub fn late(stage: &mut Stage, rng: &mut Rng) -> bool {
    let n = rng.usize(0..TARGETS.len());
    stage.hold(n, rng.usize(0..40_000));
    rest(rng, 1_500);
    stage.load_on();
    let mut held = 0;
    let until = Instant::now() + secs(3);
    while held == 0 && Instant::now() < until {
        rest(rng, 200);
        held = stage.held(n);
    }
    stage.let_others_pass(n);
    if rng.bool() {
        let rsyncs = stage.world.daemon().rsyncs();
        stage.note(format!("kill -9 {rsyncs:?}"));
        rsyncs.into_iter().for_each(|pid| crate::harness::processes::signal(pid, rustix::process::Signal::KILL));
    } else {
        stage.kill9();
        stage.restart();
    }
    rest(rng, 500);
    stage.load_off();
    rest(rng, 12_000);
    stage.deliver(n);
    stage.load_on();
    held > 0
}
