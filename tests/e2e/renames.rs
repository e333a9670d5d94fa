//! Files that are moved within the tree are not sent again, and the trees end equal whatever happens meanwhile.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags};

use crate::churn::seeds;
use crate::harness::world::soon;
use crate::harness::{Compare, Daemon, World, make_dir, patterned, set_mtime, skipped, wait_until, write};
use crate::ssh;

/// The most bytes that the two targets may be sent for a rename of [`tree`], which is many times as large.
const FEW_BYTES: u64 = 150_000;

/// A world that compares hard links too.
fn world() -> World {
    let mut world = World::new();
    world.conf.attrib = true;
    world.compare.hard_links = true;
    write(world.src.join("stays"), "here");
    world
}

/// A directory of 4 MB in 400 files, some of them deeper.
fn tree(dir: &Path, seed: u64) {
    for sub in ["", "sub", "sub/deep"] {
        make_dir(dir.join(sub));
    }
    for n in 0..400 {
        let sub = ["", "sub", "sub/deep"][n % 3];
        write(dir.join(sub).join(format!("file{n}")), patterned(seed * 1_000 + n as u64, 10_000));
    }
    symlink("file0", dir.join("link")).expect("cannot create a symlink");
}

fn told(world: &World, command: &str) {
    let state = world.cli.state.display().to_string();
    drop(world.cli.run([command, "--all", "--state-dir", &state]).ok());
}

fn rename(world: &World, from: &str, to: &str) {
    fs::rename(world.src.join(from), world.src.join(to)).unwrap_or_else(|e| panic!("cannot rename {from}: {e}"));
}

/// Calls `act`, waits for equal trees, and returns the bytes that the targets have been sent meanwhile.
#[track_caller]
fn sent_for(world: &World, act: impl FnOnce(&World)) -> u64 {
    let before = world.rsyncd.received_bytes();
    act(world);
    world.converges(soon());
    world.rsyncd.received_bytes() - before
}

#[track_caller]
fn few_bytes(world: &World, what: &str, act: impl FnOnce(&World)) {
    let sent = sent_for(world, act);
    assert!(sent < FEW_BYTES, "{what}: {sent} bytes were sent");
}

/// Writes other content of the same length, and restores the file's time.
fn rewrite_unseen(path: &Path, seed: u64) {
    let meta = fs::metadata(path).expect("a file");
    let mut file = OpenOptions::new().write(true).open(path).expect("cannot open the file");
    file.write_all(&patterned(seed, meta.len() as usize)).expect("cannot write the file");
    file.set_modified(meta.modified().expect("a time")).expect("cannot set the time");
}

#[test]
fn a_renamed_directory_is_not_sent_again() {
    let mut world = world();
    tree(&world.src.join("old"), 1);
    make_dir(world.src.join("place"));
    world.start();
    world.converges(soon());
    few_bytes(&world, "renamed", |world| rename(world, "old", "new"));
    few_bytes(&world, "moved elsewhere", |world| rename(world, "new", "place/new"));
    few_bytes(&world, "a part of it moved up", |world| rename(world, "place/new/sub", "sub"));
    few_bytes(&world, "with all above it", |world| rename(world, "place", "another"));
    few_bytes(&world, "an odd name", |world| rename(world, "another", "an odd-name (with) 字 & more"));
    few_bytes(&world, "and back", |world| rename(world, "an odd-name (with) 字 & more", "old"));
}

/// If a walk meets the moved directory before its events are read, all of the directory is sent. That is correct but expensive.
/// On a busy machine it happens now and then, and not always.
#[test]
fn a_directory_that_moves_into_one_made_just_now_is_not_sent_again_as_a_rule() {
    let mut world = world();
    tree(&world.src.join("old"), 1);
    world.start();
    world.converges(soon());
    let mut sent = Vec::new();
    while sent.last().is_none_or(|sent| *sent >= FEW_BYTES) {
        assert!(sent.len() < 10, "sent for each move: {sent:?} bytes");
        sent.push(sent_for(&world, |world| {
            make_dir(world.src.join("made/just/now"));
            rename(world, "old", "made/just/now/old");
        }));
        rename(&world, "made/just/now/old", "old");
        fs::remove_dir_all(world.src.join("made")).expect("cannot remove the directory");
        world.converges(soon());
    }
}

#[test]
fn a_large_file_that_is_renamed_or_moved_is_not_sent_again() {
    let mut world = world();
    write(world.src.join("large"), patterned(1, 12 << 20));
    write(world.src.join("smaller"), patterned(2, 3 << 20));
    make_dir(world.src.join("a/b"));
    world.start();
    world.converges(soon());
    few_bytes(&world, "renamed in place", |world| rename(world, "large", "renamed"));
    few_bytes(&world, "moved", |world| rename(world, "renamed", "a/b/renamed"));
    few_bytes(&world, "moved up", |world| rename(world, "a/b/renamed", "a/renamed"));
    few_bytes(&world, "a smaller one", |world| rename(world, "smaller", "a/smaller"));
    few_bytes(&world, "a log that begins anew", |world| {
        rename(world, "a/renamed", "a/renamed.1");
        write(world.src.join("a/renamed"), "the next");
    });
}

#[test]
fn a_file_moved_over_another_of_the_same_size_and_time_arrives() {
    let mut world = world();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    make_dir(world.src.join("a"));
    make_dir(world.src.join("b"));
    for (n, name) in ["a/file", "b/file", "a/other"].into_iter().enumerate() {
        write(world.src.join(name), patterned(n as u64, 2 << 20));
        set_mtime(world.src.join(name), time);
    }
    world.start();
    world.converges(soon());
    rename(&world, "a/file", "b/file");
    world.converges(soon());
    rename(&world, "a/other", "b/other");
    rename(&world, "b/other", "b/file");
    world.converges(soon());
}

#[test]
fn chains_and_swaps_end_equal() {
    let mut world = world();
    tree(&world.src.join("a"), 1);
    tree(&world.src.join("b"), 2);
    write(world.src.join("large"), patterned(3, 2 << 20));
    // The same sizes and times, so that no quick check can distinguish the trees.
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for dir in ["a", "b"] {
        for n in 0..400 {
            set_mtime(world.src.join(dir).join(["", "sub", "sub/deep"][n % 3]).join(format!("file{n}")), time);
        }
    }
    world.start();
    world.converges(soon());
    let mut rng = fastrand::Rng::with_seed(7);
    for round in 0..12 {
        let steps: &[(&str, &str)] = match round % 4 {
            0 => &[("a", "c"), ("b", "a"), ("c", "b")],
            1 => &[("a", "c"), ("c", "d"), ("d", "e"), ("e", "a")],
            2 => &[("a", "b/a"), ("b/a", "c"), ("b", "a"), ("c", "b")],
            _ => &[("large", "large2"), ("large2", "a/large2"), ("a/large2", "b/large"), ("b/large", "large")],
        };
        for (from, to) in steps {
            rename(&world, from, to);
            if rng.bool() {
                std::thread::sleep(Duration::from_millis(rng.u64(0..200)));
            }
        }
        world.converges(soon());
    }
}

#[test]
fn exchanges_end_equal_and_both_sides_are_followed() {
    let mut world = world();
    tree(&world.src.join("a/x"), 1);
    tree(&world.src.join("b/y"), 2);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for (n, name) in ["large", "b/large"].into_iter().enumerate() {
        write(world.src.join(name), patterned(n as u64, 2 << 20));
        set_mtime(world.src.join(name), time);
    }
    world.start();
    world.converges(soon());
    for (one, another) in [("a/x", "b/y"), ("large", "b/large"), ("a/x", "large"), ("a", "b/large"), ("b/large", "a")] {
        let (one, another) = (world.src.join(one), world.src.join(another));
        rustix::fs::renameat_with(CWD, &one, CWD, &another, RenameFlags::EXCHANGE).expect("exchanged");
        world.converges(soon());
        for path in [one, another] {
            if path.is_dir() {
                write(path.join("probe"), "1");
            }
        }
        world.converges(soon());
    }
}

#[test]
fn what_changes_around_a_rename_arrives() {
    let mut world = world();
    tree(&world.src.join("old"), 1);
    world.start();
    world.converges(soon());
    for round in 0..12_u64 {
        let (from, to) = if round % 2 == 0 { ("old", "new") } else { ("new", "old") };
        let pause = || std::thread::sleep(Duration::from_millis(round * 17 % 120));
        match round % 3 {
            0 => rewrite_unseen(&world.src.join(from).join("file0"), round),
            1 => write(world.src.join(from).join("sub/file1"), format!("round {round}")),
            _ => fs::remove_file(world.src.join(from).join(format!("sub/deep/file{}", round * 3 + 2))).expect("a file"),
        }
        pause();
        rename(&world, from, to);
        pause();
        rewrite_unseen(&world.src.join(to).join("file3"), round + 100);
        write(world.src.join(to).join("file6"), format!("round {round}"));
        // The old name gets files again that have the same look.
        if round % 4 == 1 {
            make_dir(world.src.join(from));
            let (theirs, ours) = (world.src.join(to).join("file9"), world.src.join(from).join("file9"));
            write(&ours, patterned(round, 10_000));
            set_mtime(&ours, fs::metadata(theirs).expect("a file").modified().expect("a time"));
            pause();
            world.converges(soon());
            fs::remove_dir_all(world.src.join(from)).expect("cannot remove a directory");
        }
        world.converges(soon());
    }
}

#[test]
fn a_directory_renamed_over_an_empty_one_of_which_the_target_has_more_arrives() {
    let mut world = world();
    world.start();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for round in 0..6 {
        for (n, dir) in ["over", "moved"].into_iter().enumerate() {
            tree(&world.src.join(dir), 2 * round + n as u64);
            for n in 0..400 {
                set_mtime(world.src.join(dir).join(["", "sub", "sub/deep"][n % 3]).join(format!("file{n}")), time);
            }
        }
        world.converges(soon());
        fs::remove_dir_all(world.src.join("over")).expect("cannot remove a directory");
        if round % 2 == 0 {
            make_dir(world.src.join("over"));
        }
        rename(&world, "moved", "over");
        world.converges(soon());
        fs::remove_dir_all(world.src.join("over")).expect("cannot remove a directory");
        world.converges(soon());
    }
}

#[test]
fn what_waits_for_a_paused_target_is_not_lost_by_a_rename() {
    let mut world = world();
    tree(&world.src.join("old"), 1);
    tree(&world.src.join("quiet"), 2);
    world.start();
    world.converges(soon());
    told(&world, "pause");
    for n in 0..5 {
        rewrite_unseen(&world.src.join(format!("old/sub/file{}", 3 * n + 1)), n);
    }
    wait_until(soon(), "jobs for the files", || world.cli.list().len() >= 5);
    rename(&world, "old", "new");
    rename(&world, "new", "newer");
    told(&world, "resume");
    world.converges(soon());

    told(&world, "pause");
    few_bytes(&world, "renamed while paused", |world| {
        rename(world, "quiet", "still");
        wait_until(soon(), "a job for it", || !world.cli.list().is_empty());
        rename(world, "still", "stiller");
        told(world, "resume");
    });
}

#[test]
fn a_rename_while_the_target_is_down_is_not_sent_again_either() {
    let mut world = world();
    tree(&world.src.join("old"), 1);
    world.start();
    world.converges(soon());
    world.rsyncd.stop();
    rename(&world, "old", "new");
    wait_until(soon(), "the trouble", || world.cli.status().targets.iter().all(|target| target.reason.is_some()));
    let before = world.rsyncd.received_bytes();
    world.rsyncd.start();
    world.converges(soon());
    let sent = world.rsyncd.received_bytes() - before;
    assert!(sent < FEW_BYTES, "{sent} bytes were sent");
}

/// A target that refuses the options is sent everything, and is not tried again with the options each time.
#[test]
fn a_server_that_refuses_the_options_is_sent_the_data() {
    let mut world = world();
    for module in ["m1", "m2"] {
        world.rsyncd.module_option(module, "refuse options", "link-dest fuzzy");
    }
    let count = world.count_rsyncs();
    tree(&world.src.join("old"), 1);
    write(world.src.join("large"), patterned(1, 2 << 20));
    world.start();
    world.converges(soon());
    for (from, to) in [("old", "new"), ("new", "old"), ("large", "larger"), ("larger", "large")] {
        rename(&world, from, to);
        world.converges(soon());
    }
    assert_eq!(count.naming("--link-dest"), 2, "each target is asked once");
    assert_eq!(count.naming("--fuzzy"), 2, "each target is asked once");
    for target in world.cli.status().targets {
        assert!(target.reason.is_none(), "{target:?}");
    }
}

/// Without deletions both names would share their files for ever.
#[test]
fn where_nothing_is_deleted_no_files_are_shared() {
    for by_move in [false, true] {
        let mut world = world();
        (world.conf.delete, world.conf.move_from) = (by_move, !by_move);
        tree(&world.src.join("old"), 1);
        write(world.src.join("large"), patterned(1, 2 << 20));
        world.start();
        world.converges(soon());
        rename(&world, "old", "new");
        rename(&world, "large", "larger");
        let copy = world.side("copy");
        for dst in &world.dsts {
            wait_until(soon(), "the new names", || {
                dst.join("larger").exists() && dst.join("new/sub/deep/file398").exists()
            });
        }
        world.cli.wait_idle(soon());
        // The old files stay, and changes of the new names do not reach them.
        write(world.src.join("new/file0"), "changed");
        fs::set_permissions(world.src.join("new/file3"), Permissions::from_mode(0o600)).expect("cannot chmod");
        world.cli.wait_idle(soon());
        for name in ["new", "larger", "stays"] {
            rename_aside(&world.src.join(name), &copy.join(name));
        }
        tree(&copy.join("old"), 1);
        for dst in &world.dsts {
            let compare = Compare { hard_links: true, ..Compare::content() };
            let compare = Compare { file_times: false, ..compare };
            let mut found = crate::harness::tree::differences(&copy, dst, compare);
            found.retain(|line| line.contains("hard links") || line.contains("content"));
            assert!(found.is_empty(), "{found:?}");
        }
    }
}

fn rename_aside(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cannot start cp");
    assert!(status.success(), "cp ended with {status}");
}

#[test]
fn a_rename_behind_ssh_is_not_sent_again() {
    let Some((mut world, _sshd)) = ssh::world() else { return skipped("no sshd") };
    world.conf.attrib = true;
    world.compare.hard_links = true;
    tree(&world.src.join("old"), 1);
    world.start();
    taken_over_from_the_old_name(&world);
}

#[test]
fn a_rename_on_a_local_target_copies_nothing() {
    let mut world = world();
    tree(&world.src.join("old"), 1);
    let mut args = vec!["mirror".into(), world.src.clone().into_os_string()];
    args.extend(world.dsts.iter().map(|dst| dst.clone().into_os_string()));
    args.extend(["--state-dir".into(), world.cli.state.clone().into_os_string()]);
    world.daemon = Some(Daemon::start(&world.cli, args));
    taken_over_from_the_old_name(&world);
}

/// For cases where bytes are not counted: the files under the new names have the inodes of the old ones.
fn taken_over_from_the_old_name(world: &World) {
    world.converges(soon());
    let inodes = |world: &World, dir: &str| -> Vec<u64> {
        let inode = |dst: &std::path::PathBuf| fs::metadata(dst.join(dir).join("sub/file1")).expect("a file").ino();
        world.dsts.iter().map(inode).collect()
    };
    let before = inodes(world, "old");
    for (from, to) in [("old", "new name"), ("new name", "old")] {
        rename(world, from, to);
        world.converges(soon());
        assert_eq!(inodes(world, to), before, "{to}: the files have been sent again");
    }
    make_dir(world.src.join("deep/er"));
    world.converges(soon());
    rename(world, "old", "deep/er/new");
    world.converges(soon());
    assert_eq!(inodes(world, "deep/er/new"), before, "the files have been sent again");
}

/// All files are large enough to be taken over, and no quick check can distinguish one tree from another.
#[test]
fn random_renames_of_trees_that_look_alike_end_equal() {
    for seed in seeds(2) {
        random_renames(seed);
    }
}

fn random_renames(seed: u64) {
    const NAMES: [&str; 6] = ["a", "b", "c", "a/x", "b/x", "c/x/y"];
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let mut world = world();
    let mut rng = fastrand::Rng::with_seed(seed);
    let fill = |dir: &Path, seed: u64| {
        make_dir(dir.join("sub"));
        for n in 0..8 {
            let file = dir.join(["", "sub"][n % 2]).join(format!("file{n}"));
            write(&file, patterned(seed * 8 + n as u64, 200_000));
            set_mtime(&file, time);
        }
    };
    for (n, name) in NAMES.into_iter().enumerate().take(4) {
        fill(&world.src.join(name), n as u64);
    }
    world.start();
    world.converges(soon());
    let mut done = Vec::new();
    for step in 0..120_u64 {
        let (one, other) = (NAMES[rng.usize(..6)], NAMES[rng.usize(..6)]);
        let (path, to) = (world.src.join(one), world.src.join(other));
        let what = match rng.u32(..12) {
            0..6 => fs::rename(&path, &to).map(|()| "renamed"),
            6 => fs::rename(&path, world.src.join("aside"))
                .and_then(|()| fs::rename(&to, &path))
                .and_then(|()| fs::rename(world.src.join("aside"), &to))
                .map(|()| "swapped"),
            7 if path.join("file0").exists() => {
                rewrite_unseen(&path.join("file0"), step);
                Ok("rewritten")
            }
            8 if path.parent().is_some_and(Path::exists) => {
                fill(&path, 1_000 + step);
                Ok("filled")
            }
            9 => fs::remove_dir_all(&path).map(|()| "removed"),
            10 => fs::rename(path.join("file2"), to.join("file2")).map(|()| "file moved"),
            _ => fs::rename(path.join("sub"), to.join("sub")).map(|()| "part moved"),
        };
        done.extend(what.map(|what| format!("{step}: {one} {other} {what}")));
        // Jobs that wait for a paused target meet later changes.
        match step % 30 {
            5 | 15 => told(&world, "pause"),
            12 | 22 => told(&world, "resume"),
            _ => {}
        }
        // Operations do not come all at once: now and then there is a pause.
        match rng.u32(..8) {
            0 => std::thread::sleep(Duration::from_millis(rng.u64(..400))),
            1 | 2 => std::thread::sleep(Duration::from_millis(rng.u64(..30))),
            _ => {}
        }
        if step % 30 == 29 {
            let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.converges(soon())));
            if let Err(panic) = end {
                eprintln!("SYNCQ_SEED={seed}\n{}", done.join("\n"));
                std::panic::resume_unwind(panic);
            }
        }
    }
}
