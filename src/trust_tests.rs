//! Every file that syncq writes or believes, against everything that others may have put in its place.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

const NOBODY: u32 = 65_534;

/// What others may have left at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    Link,
    DanglingLink,
    HardLink,
    Fifo,
    OthersFile,
    WritableFile,
    Directory,
}

const PLANTED: [Planted; 7] = [
    Planted::Link,
    Planted::DanglingLink,
    Planted::HardLink,
    Planted::Fifo,
    Planted::OthersFile,
    Planted::WritableFile,
    Planted::Directory,
];

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Puts it there. `false`: not in our power.
fn plant(planted: Planted, path: &Path, victim: &Path) -> bool {
    match planted {
        Planted::Link => symlink(victim, path).unwrap(),
        Planted::DanglingLink => symlink(victim.with_extension("new"), path).unwrap(),
        Planted::HardLink => fs::hard_link(victim, path).unwrap(),
        Planted::Fifo => {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }
        Planted::OthersFile => {
            fs::write(path, "theirs").unwrap();
            return is_root() && std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).is_ok();
        }
        Planted::WritableFile => {
            fs::write(path, "anybody's").unwrap();
            set_mode(path, 0o666);
        }
        Planted::Directory => {
            fs::create_dir(path).unwrap();
            set_mode(path, 0o777);
        }
    }
    true
}

fn unplant(path: &Path) {
    if fs::remove_file(path).is_err() {
        fs::remove_dir(path).unwrap();
    }
}

fn why(result: io::Result<impl Sized>) -> Option<Why> {
    result.err().map(|error| Untrusted::of(&error).unwrap_or_else(|| panic!("{error}")).why)
}

/// Each file that syncq keeps in a state directory, and one that only sled opens, against all that others may have left
/// there: nothing is taken, and what a link leads to is left as it was.
#[test]
fn what_others_have_planted_in_a_state_directory_is_neither_used_nor_followed() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, victim) = (temp.path().join("state"), temp.path().join("victim"));
    fs::create_dir_all(dir.join("store")).unwrap();
    set_mode(&dir, 0o755);
    set_mode(&dir.join("store"), 0o755);
    fs::write(&victim, "untouched").unwrap();
    let inside = ["store/db", "store/conf", "store/snap.0000000000000001"];
    for name in STATE_FILES.into_iter().filter(|&name| name != "store").chain(inside) {
        let path = dir.join(name);
        for planted in PLANTED {
            if !plant(planted, &path, &victim) {
                unplant(&path);
                continue;
            }
            let expected = match planted {
                Planted::Link | Planted::DanglingLink => Why::Link,
                Planted::HardLink => Why::Linked,
                Planted::Fifo => Why::NoFile,
                Planted::OthersFile => Why::Owner(NOBODY),
                Planted::WritableFile => Why::Writable(0o100_666),
                Planted::Directory => Why::Writable(0o040_777),
            };
            assert_eq!(why(check_state(&dir)), Some(expected), "{name}: {planted:?}");
            // The descriptor says the same, whatever the start has seen.
            if planted != Planted::Directory {
                let mut append = OpenOptions::new();
                assert_eq!(why(open(&path, append.append(true).create(true))), Some(expected), "{name}: {planted:?}");
                let mut write = OpenOptions::new();
                let unowned = open_plain(&path, write.read(true).write(true).create(true));
                let is_of_anyone = matches!(planted, Planted::OthersFile | Planted::WritableFile);
                assert_eq!(unowned.is_ok(), is_of_anyone, "{name}: {planted:?}");
                // What is made anew takes the name and nothing else.
                drop(make_anew(&path, 0o600).unwrap());
                assert!(check_state(&dir).is_ok(), "{name}: {planted:?}");
            }
            unplant(&path);
            assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched", "{name}: {planted:?}");
            assert!(!victim.with_extension("new").exists(), "{name}: {planted:?}");
        }
    }
    // What is not syncq's is not looked at.
    symlink(&victim, dir.join("notes")).unwrap();
    assert!(check_state(&dir).is_ok());
}

#[test]
fn a_directory_of_others_or_for_all_is_no_state_directory() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    assert!(check_state(&dir).is_ok(), "made by us afterwards");
    fs::create_dir(&dir).unwrap();
    for (mode, expected) in [
        (0o700, None),
        (0o755, None),
        (0o775, Some(Why::Writable(0o040_775))),
        (0o777, Some(Why::Writable(0o040_777))),
        (0o1777, Some(Why::Writable(0o041_777))),
    ] {
        set_mode(&dir, mode);
        assert_eq!(why(check_dir(&dir)), expected, "{mode:o}");
    }
    set_mode(&dir, 0o700);
    let link = temp.path().join("link");
    symlink(&dir, &link).unwrap();
    assert!(check_dir(&link).is_ok(), "a link of our own");
    if is_root() {
        std::os::unix::fs::lchown(&link, Some(NOBODY), None).unwrap();
        assert_eq!(why(check_dir(&link)), Some(Why::Owner(NOBODY)), "a link of others");
        std::os::unix::fs::chown(&dir, Some(NOBODY), None).unwrap();
        assert_eq!(why(check_dir(&dir)), Some(Why::Owner(NOBODY)));
    }
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(why(check_dir(&file)), Some(Why::NoDirectory));
}

/// A careless umask leaves modes that do no harm where nobody gets in.
#[test]
fn modes_do_not_matter_behind_a_closed_door() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    fs::create_dir_all(dir.join("store")).unwrap();
    for path in ["lock", "store/db"] {
        fs::write(dir.join(path), "").unwrap();
        set_mode(&dir.join(path), 0o666);
    }
    for (state, store, is_fine) in
        [(0o700, 0o755, true), (0o700, 0o777, true), (0o755, 0o700, false), (0o755, 0o755, false)]
    {
        set_mode(&dir, state);
        set_mode(&dir.join("store"), store);
        assert_eq!(check_state(&dir).is_ok(), is_fine, "{state:o} {store:o}");
    }
    fs::remove_file(dir.join("lock")).unwrap();
    set_mode(&dir.join("store"), 0o700);
    assert!(check_state(&dir).is_ok());
}

/// Files that people name: through links, and never anything that would hold up whoever reads it.
#[test]
fn what_is_no_file_is_not_waited_for() {
    let temp = tempfile::tempdir().unwrap();
    let (file, link, fifo) = (temp.path().join("file"), temp.path().join("link"), temp.path().join("fifo"));
    fs::write(&file, "text").unwrap();
    symlink(&file, &link).unwrap();
    plant(Planted::Fifo, &fifo, &file);
    let socket = temp.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, expected) in [
        (file.as_path(), None),
        (&link, None),
        (&fifo, Some(Why::NoFile)),
        (&socket, Some(Why::NoFile)),
        (temp.path(), Some(Why::NoFile)),
        (Path::new("/dev/zero"), Some(Why::NoFile)),
    ] {
        assert_eq!(why(open_given(path)), expected, "{}", path.display());
    }
    for (mode, expected) in [
        (0o600, None),
        (0o400, None),
        (0o640, Some(Why::Readable(0o100_640))),
        (0o604, Some(Why::Readable(0o100_604))),
        (0o620, Some(Why::Writable(0o100_620))),
    ] {
        set_mode(&file, mode);
        assert_eq!(why(open_secret(&link)), expected, "{mode:o}");
    }
    set_mode(&file, 0o644);
    assert_eq!(others_hand(&file), None);
    set_mode(&file, 0o646);
    assert_eq!(others_hand(&link), Some(Why::Writable(0o100_646)));
    if is_root() {
        set_mode(&file, 0o600);
        std::os::unix::fs::chown(&file, Some(NOBODY), None).unwrap();
        assert_eq!(why(open_secret(&file)), Some(Why::Owner(NOBODY)));
        assert_eq!(others_hand(&file), Some(Why::Owner(NOBODY)));
    }
}
