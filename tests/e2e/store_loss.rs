//! The store, or the whole state directory, is removed under a running daemon. Mirroring goes on, the loss shows, and a new
//! store holds the pending jobs. In another test the disk below the store fills up.

use std::fs;
use std::io::ErrorKind;
use std::io::Write;
use std::path::Path;

use crate::harness::world::soon;
use crate::harness::{World, is_root, make_dir, patterned, skipped, wait_for, wait_until, write};
use crate::trouble::SmallDisk;

const FILES: u64 = 300;

/// A world in which the targets are down and `FILES` changes wait for them.
fn pending() -> World {
    let mut world = World::new();
    write(world.src.join("before"), "mirrored before");
    world.start();
    world.converges(soon());
    world.rsyncd.stop();
    for n in 0..FILES {
        write(world.src.join(format!("pending{n}")), patterned(n, 500));
    }
    wait_until(soon(), "the changes to be noticed", || known_to_store(&world, FILES));
    world
}

fn known_to_store(world: &World, files: u64) -> bool {
    let jobs = world.cli.list();
    (0..files).all(|n| jobs.iter().filter(|job| job["path"] == format!("pending{n}")).count() == 2)
}

fn store_state(world: &World) -> Result<(String, String), String> {
    let store = world.cli.try_status()?.json["store"].clone();
    Ok((store["state"].as_str().unwrap_or_default().to_owned(), store["error"].to_string()))
}

/// Removes a directory. The daemon may be creating a file in it at that moment.
fn remove_in_use(dir: &Path) {
    wait_for(soon(), "the directory to go", || match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Err(error.to_string()),
        removed => removed.map_err(|error| panic!("cannot remove {}: {error}", dir.display())),
    });
}

/// Checks that the store was created anew and holds all jobs.
fn comes_through(mut world: World, removed: &Path) {
    write(world.src.join(format!("pending{FILES}")), "written after the loss");
    wait_for(soon(), "the new store", || {
        let (state, error) = store_state(&world)?;
        if removed.join("db").exists() && state == "ok" { Ok(()) } else { Err(format!("{state}: {error}")) }
    });
    wait_until(soon(), "the last change to be noticed", || known_to_store(&world, FILES + 1));
    world.stop();
    assert_eq!(world.cli.status().json["state"], "offline");
    assert!(known_to_store(&world, FILES + 1), "the new store lacks jobs");
    world.daemon().restart();
    world.daemon().kill9();
    world.rsyncd.start();
    world.daemon().restart();
    world.converges(soon());
}

#[test]
fn a_store_that_is_removed_while_it_is_used_is_made_anew_with_all_jobs() {
    let world = pending();
    let store = world.cli.state.join("store");
    remove_in_use(&store);
    wait_for(soon(), "the loss to show", || match store_state(&world)? {
        (state, error) if state == "degraded" && error.contains("removed or replaced") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    comes_through(world, &store);
}

#[test]
fn a_state_directory_that_is_removed_while_it_is_used_is_made_anew_with_all_jobs() {
    let mut world = pending();
    let store = world.cli.state.join("store");
    remove_in_use(&world.cli.state);
    wait_for(soon(), "the daemon to answer again", || {
        let status = world.cli.try_status()?;
        if status.json["state"] == "running" { Ok(()) } else { Err(status.json["state"].to_string()) }
    });
    let log = world.daemon().log_text();
    assert!(log.contains("removed or replaced while it was in use"), "the log does not tell:\n{log}");
    comes_through(world, &store);
}

/// The loss delays no change that is being mirrored.
#[test]
fn changes_are_mirrored_while_the_store_is_removed_again_and_again() {
    let mut world = World::new();
    world.start();
    for round in 0..4 {
        for n in 0..30 {
            write(world.src.join(format!("f{n}")), patterned(round * 100 + n, 2_000));
        }
        remove_in_use(&world.cli.state.join("store"));
        write(world.src.join("last"), format!("{round}"));
        world.converges(soon());
        wait_until(soon(), "the new store", || world.cli.state.join("store/db").exists());
    }
    world.daemon().kill9();
    write(world.src.join("while down"), "unseen");
    world.daemon().restart();
    world.converges(soon());
}

/// Fills the disk with a file, to the last byte.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("cannot create a file");
    for bytes in [1 << 20, 4_096, 1] {
        while file.write_all(&vec![1; bytes]).is_ok() {}
    }
}

#[test]
fn a_daemon_starts_and_mirrors_with_the_disk_of_its_state_full() {
    if !is_root() {
        return skipped("only root may mount");
    }
    let mut world = World::new();
    let state = world.cli.state.clone();
    make_dir(&state);
    let Some(_disk) = SmallDisk::mount(&state, "160m") else { return skipped("cannot mount a tmpfs") };
    world.start();
    wait_until(soon(), "the ballast", || state.join("ballast").exists());
    world.stop();
    fill(&state.join("filler"));
    world.daemon().restart();
    for n in 0..50 {
        write(world.src.join(format!("f{n}")), patterned(n, 2_000));
    }
    world.converges(soon());
    // The disk fills again, this time under the running daemon.
    fill(&state.join("more"));
    for n in 0..3_000 {
        write(world.src.join(format!("while full {n}")), "small");
    }
    world.converges(soon());
    // Use up the room that the first start had set aside.
    for round in 0..2 {
        fill(&state.join(format!("again{round}")));
        world.daemon().kill9();
        write(world.src.join("f1"), format!("while down {round}"));
        world.daemon().restart();
        write(world.src.join("f2"), format!("while full {round}"));
        world.converges(soon());
    }
    for file in ["filler", "more", "again0", "again1"] {
        fs::remove_file(state.join(file)).expect("cannot make room");
    }
    wait_for(soon(), "the store to heal", || {
        let (state, error) = store_state(&world)?;
        if state == "ok" { Ok(()) } else { Err(error) }
    });
    world.daemon().kill9();
    write(world.src.join("while down"), "unseen");
    world.daemon().restart();
    world.converges(soon());
    world.stop();
}
