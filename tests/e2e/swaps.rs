//! The same path becomes another kind of entry: the last state wins, whatever was in flight.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::harness::world::soon;
use crate::harness::{World, make_dir, patterned, set_mtime, skipped, wait_until, write};
use crate::operators::done;

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).expect("cannot remove a directory"),
        Ok(_) => fs::remove_file(path).expect("cannot remove a file"),
        Err(_) => {}
    }
}

fn become_file(path: &Path) {
    remove(path);
    write(path, "now a file");
}

fn become_dir(path: &Path) {
    remove(path);
    make_dir(path.join("inner"));
    write(path.join("inner/file"), "now a directory");
}

fn become_link(path: &Path) {
    remove(path);
    symlink("somewhere/else", path).expect("cannot create a symlink");
}

#[test]
fn l23_every_kind_becomes_every_other() {
    let kinds: [fn(&Path); 3] = [become_file, become_dir, become_link];
    let mut world = World::new();
    world.start();
    for (a, before) in kinds.iter().enumerate() {
        for (b, after) in kinds.iter().enumerate() {
            let path = world.src.join(format!("{a}to{b}"));
            before(&path);
            world.converges(soon());
            after(&path);
            world.converges(soon());
        }
    }
}

#[test]
fn l23_swaps_in_quick_succession_end_equal() {
    let kinds: [fn(&Path); 3] = [become_file, become_dir, become_link];
    let mut world = World::new();
    // Leftovers of killed rsyncs have a test of their own.
    world.compare.leftovers = false;
    write(world.src.join("stays"), "here");
    world.start();
    let mut rng = fastrand::Rng::with_seed(23);
    for _ in 0..40 {
        for name in ["a", "b", "dir/c"] {
            let path = world.src.join(name);
            make_dir(path.parent().expect("a parent"));
            kinds[rng.usize(0..3)](&path);
        }
        std::thread::sleep(Duration::from_millis(rng.u64(0..25)));
    }
    world.converges(soon());
}

/// The sender opens a directory where it had listed a file, and the receiver keeps the received bytes as a partial file.
#[test]
fn l23_a_file_that_becomes_a_directory_under_a_run_leaves_nothing_behind() {
    let mut world = World::new();
    world.conf.params = "-art --bwlimit=4000".to_owned();
    write(world.src.join("a"), patterned(1, 6 << 20));
    write(world.src.join("f"), patterned(2, 40_000));
    world.start();
    wait_until(soon(), "the first file to be on its way", || {
        fs::read_dir(&world.dsts[0]).is_ok_and(|mut entries| entries.next().is_some())
    });
    become_dir(&world.src.join("f"));
    world.converges(soon());
}

/// rsync hung in opening the pipe until somebody else opened it, and held up everything else for the target. The test meets
/// this once in a comparison and once among changes.
#[test]
fn l23_a_file_that_becomes_a_pipe_under_a_run_holds_up_nothing_else() {
    let mut world = World::new();
    world.conf.params = "-art --bwlimit=4000".to_owned();
    let fill = |dir: &Path| {
        make_dir(dir);
        write(dir.join("a"), patterned(1, 4 << 20));
        for name in ["f", "g", "z"] {
            write(dir.join(name), patterned(2, 40_000));
        }
    };
    let swap = |dir: &Path, targets: &[PathBuf]| {
        let name = dir.file_name().expect("a name");
        wait_until(soon(), "the first file to be on its way", || {
            fs::read_dir(targets[0].join(name)).is_ok_and(|mut entries| entries.next().is_some())
        });
        for name in ["f", "g"] {
            remove(&dir.join(name));
            assert!(Command::new("mkfifo").arg(dir.join(name)).status().expect("no mkfifo").success());
        }
    };
    fill(&world.src.join("compared"));
    world.start();
    swap(&world.src.join("compared"), &world.dsts);
    world.converges(soon());
    done(&world, &["pause", "--all"]);
    fill(&world.src.join("changed"));
    done(&world, &["resume", "--all"]);
    swap(&world.src.join("changed"), &world.dsts);
    world.converges(soon());
}

/// An rsync that goes by names followed a link that had replaced a directory, and sent any file that a user cared to point at.
#[test]
fn l23_an_older_rsync_sends_nothing_from_behind_a_link_that_was_swapped_in() {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/rsyncs/bookworm/bin");
    if !old.join("rsync").exists() {
        return skipped("an older rsync (tools/rsyncs bookworm)");
    }
    let mut world = World::new();
    world.cli.bin = Some(old);
    world.conf.params = "-art --bwlimit=1000".to_owned();
    write(world.src.join("a"), patterned(1, 3 << 20));
    make_dir(world.src.join("d"));
    write(world.src.join("d/f"), patterned(2, 40_000));
    let secret = world.side("secret");
    write(secret.join("f"), patterned(3, 40_000));
    world.start();
    if world.daemon().log_text().contains("no Landlock") {
        return skipped("Landlock");
    }
    wait_until(soon(), "the first file to be on its way", || {
        fs::read_dir(&world.dsts[0]).is_ok_and(|mut entries| entries.next().is_some())
    });
    fs::rename(world.src.join("d"), world.src.join("e")).expect("cannot rename");
    symlink(&secret, world.src.join("d")).expect("cannot symlink");
    let kept = fs::read(secret.join("f")).expect("the secret");
    let dsts = world.dsts.clone();
    wait_until(soon(), "the link to arrive", || {
        for dst in &dsts {
            let sent = !dst.join("d").is_symlink() && fs::read(dst.join("d/f")).is_ok_and(|sent| sent == kept);
            // The link may have come between the two looks.
            assert!(!sent || dst.join("d").is_symlink(), "what is behind the link was sent");
        }
        dsts.iter().all(|dst| dst.join("d").is_symlink() && dst.join("e/f").is_file())
    });
    assert!(world.daemon().log_text().contains("Permission denied"), "rsync was kept from it");
}

/// A large file is rewritten, deleted and created again while it is being sent.
#[test]
fn l24_the_last_state_of_a_file_in_flight_wins() {
    let mut world = World::new();
    world.conf.params = "-art --bwlimit=4000".to_owned();
    world.start();
    let path = world.src.join("file");
    for round in 0..4 {
        write(&path, patterned(round, 4 << 20));
        std::thread::sleep(Duration::from_millis(150));
        fs::remove_file(&path).expect("cannot remove the file");
        write(&path, format!("short, round {round}"));
        std::thread::sleep(Duration::from_millis(50));
    }
    world.converges(soon());
}

#[test]
fn l24_delete_and_create_again_ends_with_the_file() {
    let mut world = World::new();
    write(world.src.join("stays"), "here");
    make_dir(world.src.join("dir"));
    world.start();
    for round in 0..60 {
        for n in 0..5 {
            let path = world.src.join(format!("dir/{n}"));
            remove(&path);
            write(&path, format!("round {round}"));
        }
        if round % 10 == 0 {
            fs::remove_dir_all(world.src.join("dir")).expect("cannot remove the directory");
            make_dir(world.src.join("dir"));
        }
    }
    world.converges(soon());
}

#[test]
fn l22_same_size_and_same_time_with_other_content_arrives() {
    let mut world = World::new();
    let path = world.src.join("file");
    write(&path, "content one");
    world.start();
    world.converges(soon());
    let before = fs::metadata(&path).expect("a file").modified().expect("a time");
    for content in ["content two", "content 333"] {
        // Set the time before the close, so that the event of the write comes last.
        let mut file = OpenOptions::new().write(true).open(&path).expect("cannot open the file");
        file.write_all(content.as_bytes()).expect("cannot write the file");
        file.set_modified(before).expect("cannot set the time");
        drop(file);
        world.converges(soon());
    }
}

#[test]
fn l22_same_size_and_same_time_restored_after_the_close_arrives() {
    let mut world = World::new();
    world.conf.attrib = true;
    let path = world.src.join("file");
    write(&path, "content one");
    world.start();
    world.converges(soon());
    let before = fs::metadata(&path).expect("a file").modified().expect("a time");
    write(&path, "content two");
    set_mtime(&path, before);
    world.converges(soon());
}

fn old_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

/// With `-u` rsync skips a file that is newer on the target, and does not report that.
#[test]
fn l22_an_older_file_replaces_a_newer_one_in_spite_of_u() {
    let mut world = World::new();
    world.conf.params = "-artuz".to_owned();
    write(world.src.join("renamed over"), "the newer one");
    write(world.src.join("written over"), "the newer one");
    let backup = world.side("backup");
    world.start();
    world.converges(soon());
    // As mv does it: an old file is renamed over the new one.
    write(backup.join("old"), "the older one");
    set_mtime(backup.join("old"), old_time());
    fs::rename(backup.join("old"), world.src.join("renamed over")).expect("cannot rename");
    // As cp -p does it: written in place, with the time set before the close.
    let mut file = File::create(world.src.join("written over")).expect("cannot open the file");
    file.write_all(b"the older one, restored").expect("cannot write the file");
    file.set_modified(old_time()).expect("cannot set the time");
    drop(file);
    world.converges(soon());
}

#[test]
fn l29_an_editor_saving_again_and_again_never_leaves_the_file_missing() {
    let mut world = World::new();
    write(world.src.join("page.html"), "version 0");
    world.start();
    world.converges(soon());
    for version in 1..=100 {
        write(world.src.join("sedXa81bC"), format!("version {version}"));
        fs::rename(world.src.join("sedXa81bC"), world.src.join("page.html")).expect("cannot rename");
        let there = world.dsts.iter().all(|dst| dst.join("page.html").exists());
        assert!(there, "the mirror was without the file while it was saved (version {version})");
    }
    world.converges(soon());
}

#[test]
fn l24_a_name_that_comes_and_goes_ends_gone() {
    let mut world = World::new();
    write(world.src.join("stays"), "here");
    world.start();
    for n in 0..300 {
        let path = world.src.join(format!("temporary{}", n % 3));
        write(&path, "short-lived");
        fs::remove_file(&path).expect("cannot remove the file");
    }
    world.converges(soon());
    wait_until(soon(), "an idle queue", || world.cli.status().is_idle());
}

/// Two trees that differ in nothing but the bytes of their files, as two unpacked releases do.
#[test]
fn l22_a_directory_replaced_by_one_of_the_same_sizes_and_times_arrives() {
    let mut world = World::new();
    world.conf.attrib = true;
    write(world.src.join("stays"), "here");
    let aside = world.side("aside");
    world.start();
    world.converges(soon());
    let mut rng = fastrand::Rng::with_seed(24);
    for round in 1_000..1_060 {
        let made = aside.join(format!("made{round}"));
        make_dir(made.join("sub/deep"));
        for path in ["a", "sub/b", "sub/deep/c"] {
            write(made.join(path), format!("{round} {path}"));
        }
        for path in ["a", "sub/b", "sub/deep/c", "sub/deep", "sub", ""] {
            set_mtime(made.join(path), old_time());
        }
        let path = world.src.join("release");
        let away = match round % 3 {
            0 => world.src.join(format!("was{}", round % 7)),
            1 => aside.join(format!("was{round}")),
            _ => aside.join("gone"),
        };
        if path.exists() {
            remove(&away);
            fs::rename(&path, &away).expect("cannot move away");
        }
        std::thread::sleep(Duration::from_millis(rng.u64(0..40)));
        fs::rename(&made, &path).expect("cannot move in");
        if rng.bool() {
            write(path.join("sub/more"), "more");
        }
        if rng.bool() {
            std::thread::sleep(Duration::from_millis(rng.u64(0..60)));
            fs::rename(&path, aside.join("door")).expect("cannot move out");
            std::thread::sleep(Duration::from_millis(rng.u64(0..15)));
            fs::rename(aside.join("door"), &path).expect("cannot move back");
        }
        if round % 4 == 0 {
            world.converges(soon());
        }
    }
    world.converges(soon());
}

/// The holder of a lease on a file held up the whole target for as long as the kernel allows, and `status` did not say that
/// anything was held up.
#[test]
fn l23_a_file_with_a_lease_on_it_waits_alone_and_is_named() {
    let mut world = World::new();
    world.start();
    world.converges(soon());
    done(&world, &["pause", "--all"]);
    let leased = world.src.join("d/leased");
    make_dir(world.src.join("d"));
    write(&leased, patterned(1, 40_000));
    // A process keeps its lease only if it asks for the signal and does not react to it. Then the kernel takes the lease after
    // a while.
    let script = "import fcntl, os, signal, sys\n\
                  signal.signal(signal.SIGIO, lambda *_: None)\n\
                  fd = os.open(sys.argv[1], os.O_RDWR)\n\
                  fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
                  print('held', flush=True)\n\
                  sys.stdin.read()\n";
    let spawned = Command::new("python3")
        .args(["-c", script])
        .arg(&leased)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut holder) = spawned else { return skipped("no python3") };
    let mut said = String::new();
    BufReader::new(holder.stdout.take().expect("its output")).read_line(&mut said).expect("it can be read");
    if said.trim() != "held" {
        let _ = holder.wait();
        return skipped("the file system has no leases");
    }
    for n in 0..20 {
        write(world.src.join(format!("d/other{n}")), "other");
    }
    let reason = |n: usize| world.cli.status().json["targets"][n]["reason"].as_str().unwrap_or_default().to_owned();
    done(&world, &["resume", "--all"]);
    wait_until(soon(), "status to name the file while it is being waited for", || {
        (0..2).any(|n| reason(n).contains("held up by d/leased: another process holds a lease"))
    });
    wait_until(soon(), "all others", || (0..20).all(|at| (0..2).all(|n| world.arrived(n, format!("d/other{at}")))));
    // Every opener of the file at the source waits until the kernel takes the lease away.
    assert!(world.dsts.iter().all(|dst| !dst.join("d/leased").exists()), "nothing was held up");
    wait_until(soon(), "status to name what waits", || {
        (0..2).all(|n| reason(n).contains("d/leased: another process holds a lease"))
    });
    drop(holder.stdin.take());
    holder.wait().expect("it ends");
    done(&world, &["retry"]);
    world.converges(soon());
}
