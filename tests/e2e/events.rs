//! Ways in which a file changes that sersync's default events do not report (L12), and files that stay open.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, mknodat, open};

use crate::harness::world::soon;
use crate::harness::{World, make_dir, outward, patterned, secs, skipped, wait_until, write};

#[test]
fn l12_symlinks_arrive() {
    let mut world = World::new();
    make_dir(world.src.join("dir"));
    world.start();
    for (link, target) in [
        ("relative", "dir/file"),
        ("absolute", outward("/somewhere/else")),
        ("above", outward("../../etc/passwd")),
        ("dangling", "nothing"),
        ("dir/loop", ".."),
        ("to dir", "dir"),
    ] {
        symlink(target, world.src.join(link)).expect("cannot create a symlink");
    }
    world.converges(soon());
    // A link with another destination replaces one of the same name, as ln -sfn does it.
    symlink("another", world.src.join("fresh")).expect("cannot create a symlink");
    fs::rename(world.src.join("fresh"), world.src.join("relative")).expect("cannot rename");
    fs::remove_file(world.src.join("to dir")).expect("cannot remove a symlink");
    world.converges(soon());
}

#[test]
fn l12_hard_links_arrive_by_content() {
    let mut world = World::new();
    write(world.src.join("one"), "shared");
    world.start();
    world.converges(soon());
    fs::hard_link(world.src.join("one"), world.src.join("other")).expect("cannot link");
    world.converges(soon());
    fs::remove_file(world.src.join("one")).expect("cannot remove a file");
    world.converges(soon());
}

#[test]
fn l12_a_fifo_arrives() {
    let mut world = World::new();
    world.start();
    let made = mknodat(CWD, world.src.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o644), 0);
    made.expect("cannot create a fifo");
    world.converges(soon());
}

#[test]
fn l12_a_file_without_a_name_arrives_once_it_gets_one() {
    let mut world = World::new();
    world.start();
    let flags = OFlags::TMPFILE | OFlags::WRONLY;
    let Ok(unnamed) = open(&world.src, flags, Mode::from_raw_mode(0o644)) else {
        return skipped("the file system has no O_TMPFILE");
    };
    let mut file = File::from(unnamed);
    file.write_all(b"published at once").expect("cannot write");
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, link, CWD, world.src.join("published"), AtFlags::SYMLINK_FOLLOW).expect("cannot link");
    drop(file);
    world.converges(soon());
}

/// Runs some lines of Python, for system calls that std lacks.
fn python(script: &str, path: &Path) -> bool {
    let ran = Command::new("python3").args([OsStr::new("-c"), script.as_ref(), path.as_ref()]).status();
    match ran {
        Ok(status) => {
            assert!(status.success(), "python3 ended with {status}");
            true
        }
        Err(_) => {
            skipped("no python3");
            false
        }
    }
}

/// truncate(2) opens no file, so no close is reported.
#[test]
fn l12_truncate_by_path_arrives() {
    let mut world = World::new();
    write(world.src.join("file"), patterned(1, 10_000));
    world.start();
    world.converges(soon());
    if python("import os, sys; os.truncate(sys.argv[1], 1234)", &world.src.join("file")) {
        world.converges(soon());
    }
}

#[test]
fn l12_a_write_through_mmap_arrives() {
    let mut world = World::new();
    write(world.src.join("file"), patterned(1, 10_000));
    world.start();
    world.converges(soon());
    let script = "import mmap, sys
f = open(sys.argv[1], 'r+b')
m = mmap.mmap(f.fileno(), 0)
m[100:110] = b'0123456789'
m.flush(); m.close(); f.close()";
    if python(script, &world.src.join("file")) {
        world.converges(soon());
    }
}

#[test]
fn l12_a_file_held_open_arrives_at_the_close_at_the_latest() {
    let mut world = World::new();
    world.start();
    let mut file = File::create(world.src.join("log")).expect("cannot create a file");
    for line in 0..50 {
        writeln!(file, "line {line}").expect("cannot write");
    }
    drop(file);
    world.converges(soon());
}

/// A log that is never closed must not be left out for ever: once it is quiet, it is sent.
#[test]
fn l12_a_file_that_is_never_closed_arrives_once_it_is_quiet() {
    let mut world = World::new();
    world.start();
    let mut file = File::create(world.src.join("log")).expect("cannot create a file");
    file.write_all(b"first line\n").expect("cannot write");
    world.converges(soon());
    file.write_all(b"second line\n").expect("cannot write");
    world.converges(soon());
    drop(file);
}

#[test]
fn l12_with_modify_on_a_file_is_followed_while_it_is_open() {
    let mut world = World::new();
    world.conf.modify = true;
    world.conf.create_file = true;
    world.start();
    let mut file = File::create(world.src.join("log")).expect("cannot create a file");
    for line in 0..3 {
        writeln!(file, "line {line}").expect("cannot write");
        wait_until(secs(60), "the line on both targets", || world.arrived(0, "log") && world.arrived(1, "log"));
    }
    drop(file);
    world.converges(soon());
}

/// The log of a server over hours: never closed, and never quiet for as long as `quietPeriod` asks.
#[test]
fn l12_with_modify_on_a_log_that_is_never_quiet_is_mirrored_all_the_time() {
    let mut world = World::new();
    world.conf.modify = true;
    world.conf.syncq = "<transfer quietPeriod=\"1h\"/>".to_owned();
    let path = world.src.join("access.log");
    write(&path, "");
    world.start();
    world.converges(soon());
    let mut file = OpenOptions::new().append(true).open(&path).expect("cannot open a file");
    let mut shortest = 0;
    for _ in 0..5 {
        wait_until(secs(60), "the log to grow on both targets", || {
            writeln!(file, "a line longer than {shortest}").expect("cannot write");
            let len = |dst: &PathBuf| fs::metadata(dst.join("access.log")).map_or(0, |meta| meta.len());
            let now = world.dsts.iter().map(len).min().unwrap_or(0);
            now > std::mem::replace(&mut shortest, now)
        });
    }
    drop(file);
    world.converges(soon());
}

#[test]
fn several_writers_of_one_file_end_equal() {
    let mut world = World::new();
    world.start();
    let path = world.src.join("shared");
    write(&path, "");
    let mut writers: Vec<_> =
        (0..4).map(|_| OpenOptions::new().append(true).open(&path).expect("cannot open the file")).collect();
    for line in 0..200 {
        let n = line % writers.len();
        writeln!(writers[n], "line {line}").expect("cannot write");
    }
    drop(writers.pop());
    writers.iter_mut().for_each(|file| file.write_all(b"the end\n").expect("cannot write"));
    drop(writers);
    world.converges(soon());
}

/// Temporary files of programs are not mirrored; files that only look like temporary ones are (L11).
#[test]
fn l11_hidden_files_are_mirrored_and_temporaries_are_not() {
    let mut world = World::new();
    world.compare.dir_times = false;
    world.start();
    let kept = [".htaccess", ".env", ".env.sample", ".user.ini", ".hidden/inside", ".env.prod01", "x.tmp", "x.bak"];
    for name in kept {
        make_dir(world.src.join(name).parent().expect("a parent"));
        write(world.src.join(name), "kept");
    }
    write(world.src.join("4913"), "");
    world.converges(soon());
    write(world.src.join(".htaccess"), "changed");
    write(world.src.join("visible"), "moved");
    fs::rename(world.src.join("visible"), world.src.join(".visible")).expect("cannot rename");
    fs::remove_file(world.src.join(".env")).expect("cannot remove a file");
    world.converges(soon());
    let temporaries = [".page.swp", "page~", "#page#", ".page.Xy3abZ", ".goutputstream-AB12CD"];
    for name in temporaries {
        write(world.src.join(name), "left out");
    }
    write(world.src.join("marker"), "after the temporaries");
    wait_until(soon(), "the marker", || world.arrived(0, "marker") && world.arrived(1, "marker"));
    world.cli.wait_idle(soon());
    for name in temporaries {
        assert!(!world.dsts[0].join(name).exists(), "{name} has been mirrored");
    }
    temporaries.iter().for_each(|name| fs::remove_file(world.src.join(name)).expect("cannot remove a file"));
    world.converges(soon());
}
