//! Names: every byte string that the kernel accepts is mirrored unchanged, and no name is ever interpreted by a shell, by
//! rsync's list of files or by rsync's patterns.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::harness::world::soon;
use crate::harness::{World, make_dir, wait_until, write};

const ODD: &[&[u8]] = &[
    b"with blank",
    b" leading blank",
    b"trailing blank ",
    b"single'quote",
    b"double\"quote",
    b"bad\"",
    b"$(touch PWNED).txt",
    b"a`touch PWNED`.txt",
    b"b\";touch PWNED;\".txt",
    b"c;touch PWNED",
    b"d|touch PWNED",
    b"e&touch PWNED&",
    b"f>PWNED",
    b"${HOME}$HOME",
    b"new\nline",
    b"\ntouch PWNED\n",
    b"tab\there",
    b"\r",
    b"\x1b[31m\x07",
    b"-leading-dash",
    b"--delete",
    b"--exclude=*",
    b"-e touch PWNED",
    b"# comment",
    b";comment",
    b"#",
    b"+ plus",
    b"- minus",
    b"*",
    b"?",
    b"[a]",
    b"[!a]",
    b"a\\*b",
    b"back\\slash",
    b"trailing\\",
    b"\\\\",
    b"{a,b}",
    b"!",
    b"~x",
    b"%s%n",
    b"host:path",
    b"host::module",
    b"...",
    b"..a",
    b"\xff\xfe\xfd",
    b"\xd6\xd0\xce\xc4.txt",
    "中文.txt".as_bytes(),
    b"caf\xe9",
    b"cafe\xcc\x81",
    b"\\#012",
    b"a\\nb",
];

fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = ODD.iter().map(|name| name.to_vec()).collect();
    names.push(vec![b'x'; 255]);
    names.push([&[b'"'; 200][..], &[b' '; 55]].concat());
    names
}

fn no_command_ran(dir: &Path) {
    for entry in fs::read_dir(dir).expect("cannot list a directory") {
        let entry = entry.expect("cannot list a directory");
        assert_ne!(entry.file_name(), "PWNED", "a file name was run as a command: {}", entry.path().display());
        if entry.file_type().expect("cannot stat an entry").is_dir() {
            no_command_ran(&entry.path());
        }
    }
}

#[test]
fn s1_odd_file_names_are_created_changed_and_deleted_byte_for_byte() {
    let mut world = World::new();
    write(world.src.join("stays"), "here");
    make_dir(world.src.join("sub"));
    world.start();
    let odd = odd_names();
    let paths: Vec<_> = ["", "sub"]
        .iter()
        .map(|dir| world.src.join(dir))
        .flat_map(|dir| odd.iter().map(move |name| dir.join(OsStr::from_bytes(name))))
        .collect();
    for path in &paths {
        write(path, "created");
    }
    world.converges(soon());
    for path in &paths {
        write(path, "changed and longer");
    }
    world.converges(soon());
    for path in &paths {
        fs::remove_file(path).expect("cannot remove a file");
    }
    world.converges(soon());
    no_command_ran(world.base());
}

#[test]
fn s1_odd_directory_names_are_filled_renamed_and_deleted() {
    let mut world = World::new();
    write(world.src.join("stays"), "here");
    world.start();
    for name in odd_names() {
        let dir = world.src.join(OsStr::from_bytes(&name));
        make_dir(&dir);
        write(dir.join(OsStr::from_bytes(&name)), "inside");
    }
    world.converges(soon());
    for (n, name) in odd_names().into_iter().enumerate() {
        let dir = world.src.join(OsStr::from_bytes(&name));
        match n % 3 {
            0 => fs::remove_dir_all(&dir).expect("cannot remove a directory"),
            1 => fs::rename(&dir, world.src.join(format!("plain{n}"))).expect("cannot rename a directory"),
            _ => write(dir.join("more"), "later"),
        }
    }
    world.converges(soon());
    no_command_ran(world.base());
}

#[test]
fn s1_odd_names_as_link_targets_arrive_unchanged() {
    let mut world = World::new();
    world.start();
    for (n, name) in odd_names().into_iter().enumerate() {
        let link = world.src.join(format!("link{n}"));
        std::os::unix::fs::symlink(OsStr::from_bytes(&name), link).expect("cannot create a symlink");
    }
    world.converges(soon());
}

#[test]
fn l20_names_with_brackets_are_deleted() {
    let mut world = World::new();
    for file in ["[a].txt", "a.txt", "d[1]/inside", "d1/inside", "a\\*b", "a\\b", "x\\\\y", "[b", "c]"] {
        make_dir(world.src.join(file).parent().expect("a parent"));
        write(world.src.join(file), file);
    }
    world.start();
    world.converges(soon());
    for file in ["[a].txt", "a\\*b", "x\\\\y", "[b"] {
        fs::remove_file(world.src.join(file)).expect("cannot remove a file");
    }
    fs::remove_dir_all(world.src.join("d[1]")).expect("cannot remove a directory");
    world.converges(soon());
    assert!(world.dsts[0].join("a.txt").exists() && world.dsts[0].join("d1/inside").exists());
}

/// Deletes a path in the source, and expects that deletion on the mirror. A file that only the mirror has stays.
fn deleting_touches_nothing_else(name: &str) {
    let mut world = World::new();
    for file in [name, "beside", "zzz", "dir/inside"] {
        make_dir(world.src.join(file).parent().expect("a parent"));
        write(world.src.join(file), file);
    }
    world.start();
    world.converges(soon());
    let only_there = ["only there", "zzz2", "dir/only there"];
    for dst in &world.dsts {
        only_there.iter().for_each(|file| write(dst.join(file), "theirs"));
    }
    fs::remove_file(world.src.join(name)).expect("cannot remove a file");
    wait_until(soon(), "the deletion on both targets", || world.dsts.iter().all(|dst| !dst.join(name).exists()));
    world.cli.wait_idle(soon());
    for dst in &world.dsts {
        for file in only_there.iter().chain(&["beside", "zzz", "dir/inside"]) {
            assert!(dst.join(file).exists(), "deleting {name:?} has deleted {file:?} as well");
        }
    }
}

#[test]
fn l21_deleting_a_file_called_star_deletes_that_file_only() {
    deleting_touches_nothing_else("*");
}

#[test]
fn l21_deleting_a_file_called_question_mark_deletes_that_file_only() {
    deleting_touches_nothing_else("?");
}

#[test]
fn l27_deleting_beside_a_file_called_like_an_option_deletes_that_file_only() {
    let mut world = World::new();
    for file in ["--exclude=zzz", "--delete", "goes", "stays"] {
        write(world.src.join(file), file);
    }
    world.start();
    world.converges(soon());
    world.dsts.iter().for_each(|dst| write(dst.join("extra"), "theirs"));
    fs::remove_file(world.src.join("goes")).expect("cannot remove a file");
    wait_until(soon(), "the deletion", || world.dsts.iter().all(|dst| !dst.join("goes").exists()));
    world.cli.wait_idle(soon());
    assert!(world.dsts.iter().all(|dst| dst.join("extra").exists()), "a deletion has become a full run");
}

#[test]
fn l27_a_file_called_like_an_option_is_deleted_itself() {
    deleting_touches_nothing_else("--exclude=zzz");
}

#[test]
fn s5_a_path_longer_than_two_thousand_bytes_arrives() {
    let mut world = World::new();
    world.start();
    let deep = ["d".repeat(200).as_str(); 12].join("/");
    make_dir(world.src.join(&deep));
    write(world.src.join(&deep).join("file"), "deep");
    world.converges(soon());
    write(world.src.join(&deep).join("file"), "deep and changed");
    world.converges(soon());
    fs::remove_dir_all(world.src.join("d".repeat(200))).expect("cannot remove the chain");
    write(world.src.join("stays"), "here");
    world.converges(soon());
}

/// The name of the root itself has odd characters, as in `/srv/a b;c`.
#[test]
fn l28_odd_characters_in_the_root_and_the_module_path_work() {
    let mut world = World::new();
    world.src = world.side("a b;touch PWNED;'\"$(touch PWNED)");
    world.dsts = vec![world.side("m 1;x"), world.side("m$2")];
    world.rsyncd = crate::harness::Rsyncd::new(&world.side("rsyncd2"));
    world.rsyncd.module("m1", &world.dsts[0]).module("m2", &world.dsts[1]);
    world.conf.port = world.rsyncd.port;
    world.conf.local_paths.clear();
    let src = world.src.clone();
    world.conf.root(&src, &[("127.0.0.1", "m1"), ("127.0.0.1", "m2")]);
    write(world.src.join("file"), "content");
    world.start();
    world.converges(soon());
    write(world.src.join("file"), "changed content");
    world.converges(soon());
    no_command_ran(world.base());
}
