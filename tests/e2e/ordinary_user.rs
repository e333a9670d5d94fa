//! Without root: files that may not be read fail alone, with their names, and everything else goes on.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::harness::world::soon;
use crate::harness::{World, is_root, make_dir, skipped, wait_for, wait_until, write};
use crate::operators::{done, syncq};

const HEAL: Duration = Duration::from_secs(150);

/// A world of `nobody`, or of the tests' user if the tests do not run as root.
fn ordinary() -> Option<World> {
    if is_root() && !Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success()) {
        skipped("no setpriv to become an ordinary user with");
        return None;
    }
    Some(World::new())
}

/// Writes a file as the ordinary user would.
fn put(path: &Path, content: &str) {
    write(path, content);
    own(path);
}

fn own(path: &Path) {
    if is_root() {
        chown(path, Some(65534), Some(65534)).expect("cannot chown");
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("cannot chmod");
}

#[test]
fn an_ordinary_user_mirrors_a_tree() {
    let Some(mut world) = ordinary() else { return };
    make_dir(world.src.join("dir/sub"));
    write(world.src.join("dir/sub/file"), "content");
    world.become_nobody();
    world.start();
    put(&world.src.join("dir/new"), "new");
    put(&world.src.join("dir/sub/file"), "changed");
    world.converges(soon());
    fs::remove_file(world.src.join("dir/new")).expect("cannot remove a file");
    world.converges(soon());
    world.stop();
}

#[test]
fn l6_an_unreadable_source_file_fails_alone_and_by_name() {
    let Some(mut world) = ordinary() else { return };
    write(world.src.join("secret"), "not for everyone");
    write(world.src.join("plain"), "for everyone");
    chmod(&world.src.join("secret"), 0o000);
    world.become_nobody();
    world.start();
    put(&world.src.join("later"), "later");
    for file in ["plain", "later"] {
        wait_until(soon(), file, || world.arrived(0, file) && world.arrived(1, file));
    }
    wait_for(soon(), "the unreadable file in the list", || {
        let jobs = world.cli.list();
        let guilty: Vec<_> = jobs.iter().filter(|job| job["attempts"].as_u64() > Some(0)).collect();
        let named = guilty.iter().any(|job| {
            job["path"] == "secret" && job["error"].to_string().to_lowercase().contains("permission denied")
        });
        if named { Ok(()) } else { Err(format!("{jobs:#?}")) }
    });
    let others = world.cli.list().into_iter().filter(|job| job["path"] != "secret" && job["attempts"] != 0);
    assert_eq!(others.count(), 0, "other paths are blamed too");
    chmod(&world.src.join("secret"), 0o644);
    world.converges(HEAL);
}

#[test]
fn l13_an_unreadable_directory_is_shown_and_covered_once_it_opens() {
    let Some(mut world) = ordinary() else { return };
    make_dir(world.src.join("closed/below"));
    write(world.src.join("closed/below/file"), "inside");
    make_dir(world.src.join("open"));
    world.become_nobody();
    chmod(&world.src.join("closed"), 0o000);
    world.start();
    put(&world.src.join("open/file"), "outside");
    wait_until(soon(), "the open part", || world.arrived(0, "open/file") && world.arrived(1, "open/file"));
    wait_for(soon(), "the closed directory to be named", || {
        let status = world.cli.try_status()?.json.to_string();
        let jobs = world.cli.list();
        let listed = jobs.iter().any(|job| job["path"].as_str().unwrap_or_default().starts_with("closed"));
        if listed || status.contains("closed") { Ok(()) } else { Err(format!("{status}\n{jobs:#?}")) }
    });
    chmod(&world.src.join("closed"), 0o755);
    world.converges(HEAL);
    put(&world.src.join("closed/below/file"), "watched from now on");
    world.converges(HEAL);
}

/// A path that the daemon's user may not look at was taken for deleted, and a run on a directory above it settled its job.
#[test]
fn what_happens_in_a_directory_while_it_is_closed_arrives_once_it_opens() {
    if !is_root() {
        skipped("only root changes what is in a closed directory");
        return;
    }
    let Some(mut world) = ordinary() else { return };
    let closed = world.src.join("above/closed");
    for dir in ["out/deep", "renamed/deep", "one/deep", "another/deep", "stays/deep"] {
        make_dir(closed.join(dir));
        write(closed.join(dir).join("file"), dir);
    }
    make_dir(world.side("outside").join("in/deep"));
    write(world.side("outside").join("in/deep/file"), "in");
    let rename = |from: &Path, to: &Path| fs::rename(from, to).expect("renamed");
    let outside = world.side("outside");
    world.become_nobody();
    for round in 0..2 {
        if round == 0 {
            world.start()
        } else {
            chmod(&closed, 0o755)
        }
        world.converges(HEAL);
        chmod(&closed, 0o000);
        let (out, into) = if round == 0 { ("out", "in") } else { ("in", "out") };
        rename(&closed.join(out), &outside.join(format!("was-{out}")));
        rename(&outside.join(if round == 0 { "in" } else { "was-out" }), &closed.join(into));
        let (old, new) = if round == 0 { ("renamed", "new name") } else { ("new name", "renamed") };
        rename(&closed.join(old), &closed.join(new));
        renameat_with(CWD, closed.join("one"), CWD, closed.join("another"), RenameFlags::EXCHANGE).expect("exchanged");
        make_dir(closed.join(format!("made{round}/deep")));
        own(&closed.join(format!("made{round}")));
        own(&closed.join(format!("made{round}/deep")));
        for dir in ["one/deep", "another/deep", "stays/deep", &format!("made{round}/deep")] {
            put(&closed.join(dir).join("file"), &format!("{dir} {round}"));
        }
        wait_for(soon(), "what cannot be looked at to wait with a reason", || {
            let jobs = world.cli.list();
            let waits = |job: &&serde_json::Value| {
                job["path"] == "above/closed/stays/deep/file"
                    && job["error"].to_string().contains("cannot be looked at")
            };
            if jobs.iter().any(|job| waits(&job)) { Ok(()) } else { Err(format!("{jobs:#?}")) }
        });
        let gone = world.dsts[0].join("above/closed").join(out).join("deep/file");
        assert!(gone.exists(), "what cannot be looked at was taken for gone");
    }
    chmod(&closed, 0o755);
    world.converges(HEAL);
    for dir in ["in", "renamed", "one", "another", "made0", "made1"] {
        let dir = closed.join(dir).join("deep");
        if dir.is_dir() {
            put(&dir.join("file"), "followed");
        }
    }
    world.converges(soon());
}

/// rsync deletes nothing once it has met something that it cannot read, and its message was ignored. So paths that were deleted
/// in the source stayed on the targets, and the trees passed for equal.
#[test]
fn l13_an_unreadable_directory_keeps_nothing_else_from_being_deleted() {
    for excludes in [&[][..], &["^never/.*"]] {
        let Some(mut world) = ordinary() else { return };
        for file in ["closed/kept", "open/stays", "open/deep/stays"] {
            make_dir(world.src.join(file).parent().expect("a parent"));
            write(world.src.join(file), "content");
        }
        world.conf.excludes = excludes.iter().map(ToString::to_string).collect();
        world.become_nobody();
        world.start();
        world.converges(soon());
        let extra = ["open/extra", "open/deep/extra"].map(|file| world.dsts[0].join(file));
        extra.iter().for_each(|file| put(file, "only here"));
        chmod(&world.src.join("closed"), 0o000);
        let verified = syncq(&world, &["verify"]);
        assert_eq!(verified.stdout.matches("\textra\topen/").count(), 2, "{}", verified.text());
        done(&world, &["reconcile"]);
        wait_until(soon(), "what is in excess to be deleted", || !extra.iter().any(|file| file.exists()));
        chmod(&world.dsts[0].join("closed"), 0o755);
        assert!(world.dsts[0].join("closed/kept").exists(), "what cannot be read was taken for gone");
        chmod(&world.src.join("closed"), 0o755);
        world.converges(HEAL);
    }
}

#[test]
fn the_default_state_directory_of_an_ordinary_user_is_his_own() {
    let Some(mut world) = ordinary() else { return };
    let states = world.side("xdg");
    write(world.src.join("file"), "content");
    let conf = world.conf.save();
    world.become_nobody();
    world.rsyncd.start();
    // The expected place of the state directory: named after the configuration.
    world.cli.env.push(("XDG_STATE_HOME".to_owned(), states.clone().into_os_string()));
    world.cli.state = states.join("syncq/confxml");
    world.daemon = Some(crate::harness::Daemon::start(&world.cli, ["run".into(), "-o".into(), conf.into_os_string()]));
    world.converges(soon());
    let mode = fs::metadata(&world.cli.state).expect("the state directory").permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may look into the state directory: {mode:o}");
}

/// Everything in the state directory, with the facts that show whether anybody has touched it.
fn prints(dir: &Path) -> Vec<String> {
    let print = |entry: walkdir::DirEntry| {
        let found = entry.metadata().expect("readable");
        let owner = (found.uid(), found.gid(), found.mode());
        let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
        format!("{} {} {} {owner:?} {times:?}", entry.path().display(), found.ino(), found.len())
    };
    walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().map(|entry| print(entry.expect("readable"))).collect()
}

/// Root's `syncq status` left files of root's in the store of a daemon that runs as another user, and that daemon no longer
/// started. A command that only looks touches nothing; changes are left to the owner.
#[test]
fn commands_of_root_leave_the_store_of_another_user_as_it_is() {
    let Some(mut world) = ordinary() else { return };
    write(world.src.join("file"), "content");
    world.become_nobody();
    world.start();
    world.converges(soon());
    done(&world, &["pause", "--all"]);
    put(&world.src.join("later"), "later");
    wait_until(soon(), "a job", || !world.cli.list().is_empty());
    world.stop();
    let theirs = world.cli.clone();
    world.cli.as_nobody = false;
    let before = prints(&world.cli.state);
    let later = world.src.join("later").display().to_string();
    for (command, words) in [
        (&["status"][..], "paused"),
        (&["status", "--json"], "\"state\":\"offline\""),
        (&["list"], "later"),
        (&["explain", &later], "job: "),
        (&["store", "stats"], "jobs"),
        (&["store", "check"], "damaged\t0"),
        (&["store", "export"], "later"),
        (&["wait", "--timeout", "1s"], "start one"),
        (&["verify"], "start one"),
    ] {
        let said = syncq(&world, command).text();
        assert!(said.contains(words), "{command:?} says {said}");
        assert_eq!(prints(&world.cli.state), before, "{command:?} has changed something");
    }
    if is_root() {
        for command in [&["retry"][..], &["purge", "--all", "--yes"], &["resume", "--all"], &["store", "compact"]] {
            let ended = syncq(&world, command);
            let said = ended.text();
            assert!(ended.code == Some(1) && said.contains("sudo -u '#65534'"), "{command:?} says {said}");
            assert_eq!(prints(&world.cli.state), before, "{command:?} has changed something");
        }
    }
    world.cli = theirs;
    done(&world, &["resume", "--all"]);
    world.daemon().restart();
    world.converges(soon());
}

/// `verify` compared a closed directory again by itself, found it equal, and called the target equal.
#[test]
fn verify_calls_nothing_equal_that_it_could_not_read() {
    let Some(mut world) = ordinary() else { return };
    for dir in ["open", "closed/deep"] {
        make_dir(world.src.join(dir));
        write(world.src.join(dir).join("f"), "content");
    }
    world.become_nobody();
    // Without attrib the directory's new mode would be a difference before anybody looks into the directory.
    world.conf.attrib = true;
    world.start();
    world.converges(soon());
    done(&world, &["verify"]);
    let closed = world.src.join("closed");
    chmod(&closed, 0o000);
    let is_closed = |dst: &PathBuf| fs::metadata(dst.join("closed")).is_ok_and(|found| found.mode() & 0o777 == 0);
    wait_until(soon(), "the mode to be mirrored", || world.dsts.iter().all(is_closed));
    let told = syncq(&world, &["verify"]);
    let is_told = told.stdout.lines().any(|line| line.contains("\tunreadable\tclosed"));
    assert!(told.code == Some(1) && is_told && !told.stdout.contains("equal"), "{}", told.text());
    let said = syncq(&world, &["explain", "closed/deep/f"]).ok();
    assert!(!said.stdout.contains("the target is equal"), "{}", said.stdout);
    chmod(&closed, 0o755);
    world.converges(HEAL);
    done(&world, &["verify"]);
    world.stop();
}
