//! File systems that are mounted and unmounted below the source. Their content is mirrored, and the content of a file system
//! that is not mounted is not taken for deleted.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::world::soon;
use crate::harness::{World, is_root, make_dir, overwrite_quietly, secs, skipped, wait_for, wait_until, write};
use crate::operators::{done, syncq, target};

/// The mounts of a test. They are unmounted at its end, the last one first.
#[derive(Default)]
struct Mounts(Vec<PathBuf>);

impl Mounts {
    fn mount(&mut self, args: &[&str], at: &Path) -> bool {
        let mounted = Command::new("mount").args(args).arg(at).output().is_ok_and(|output| output.status.success());
        if mounted {
            self.0.push(at.to_owned());
        }
        mounted
    }

    fn bind(&mut self, from: &Path, at: &Path) -> bool {
        self.mount(&["--bind", from.to_str().expect("a plain path")], at)
    }

    fn unmount(&mut self, at: &Path, option: &str) {
        let status = Command::new("umount").arg(option).arg(at).status().expect("umount");
        assert!(status.success(), "cannot unmount {}", at.display());
        self.0.retain(|mounted| !mounted.starts_with(at));
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for at in self.0.drain(..).rev() {
            let _ = Command::new("umount").arg("--lazy").arg(at).status();
        }
    }
}

/// A world with a tmpfs with files at `disk`, and the value that undoes the mount. `None` where mounting is not allowed.
fn world() -> Option<(World, Mounts)> {
    let (world, mut mounts) = (World::new(), Mounts::default());
    let disk = world.src.join("disk");
    make_dir(&disk);
    write(world.src.join("beside"), "beside");
    if !is_root() || !mounts.mount(&["-t", "tmpfs", "none"], &disk) {
        skipped("cannot mount a tmpfs");
        return None;
    }
    fill(&disk);
    Some((world, mounts))
}

fn fill(disk: &Path) {
    for n in 0..5 {
        make_dir(disk.join(format!("d{n}/sub")));
        write(disk.join(format!("d{n}/sub/file")), format!("{n}"));
    }
}

fn is_held(world: &World, place: &str) {
    wait_for(soon(), "the place to be held with its reason", || {
        let status = world.cli.status().json;
        let target = &status["targets"][0];
        let tells = target["state"] == "needs_approval" && target["reason"].to_string().contains(place);
        if tells { Ok(()) } else { Err(status.to_string()) }
    });
}

fn keeps(world: &World, place: &str) {
    for dst in &world.dsts {
        for n in 0..5 {
            let file = dst.join(place).join(format!("d{n}/sub/file"));
            assert!(file.exists(), "{} was deleted", file.display());
        }
    }
}

/// Neither was noticed: a mounted file system was not followed, and the next comparison deleted the files of an unmounted one.
#[test]
fn what_is_mounted_is_followed_and_what_is_unmounted_is_not_deleted() {
    let Some((mut world, mut mounts)) = world() else { return };
    let (disk, late) = (world.src.join("disk"), world.src.join("sub/la te"));
    make_dir(&late);
    world.start();
    world.converges(soon());
    assert!(mounts.mount(&["-t", "tmpfs", "none"], &late), "cannot mount");
    write(late.join("old"), "before it was looked at");
    world.converges(soon());
    write(late.join("new"), "followed");
    make_dir(late.join("dir/deep"));
    write(late.join("dir/deep/file"), "followed");
    world.converges(soon());

    mounts.unmount(&disk, "--verbose");
    is_held(&world, "disk");
    write(disk.join("stray"), "in the mount point");
    done(&world, &["reconcile"]);
    write(world.src.join("beside"), "goes on");
    wait_until(soon(), "the rest goes on", || world.arrived(0, "beside") && world.arrived(1, "beside"));
    keeps(&world, "disk");
    assert_eq!(syncq(&world, &["wait", "--timeout", "1s"]).code, Some(1), "what is not mounted passes for equal");

    world.stop();
    mounts.unmount(&late, "--lazy");
    world.start_daemon(&["-r"]);
    is_held(&world, "disk");
    write(world.src.join("beside"), "goes on after the restart");
    wait_until(soon(), "the rest goes on", || world.arrived(0, "beside") && world.arrived(1, "beside"));
    keeps(&world, "disk");
    assert!(world.dsts[0].join("sub/la te/dir/deep/file").exists(), "unmounted while no daemon ran, and deleted");

    fs::remove_file(disk.join("stray")).expect("cannot remove");
    assert!(mounts.mount(&["-t", "tmpfs", "none"], &disk), "cannot mount again");
    fill(&disk);
    write(disk.join("d0/sub/file"), "changed elsewhere");
    for name in ["m1", "m2"] {
        done(&world, &["accept-deletions", target(&world, name).as_str()]);
    }
    world.converges(secs(90));
    assert!(!world.dsts[0].join("sub/la te/dir").exists(), "an operator has agreed");
}

/// The kernel watches a directory, not the path at which it is seen, so only one of two paths was followed.
#[test]
fn a_directory_that_is_seen_at_two_places_is_followed_at_both() {
    let Some((mut world, mut mounts)) = world() else { return };
    let (one, other) = (world.src.join("one"), world.src.join("z/other"));
    make_dir(one.join("d/deep"));
    make_dir(&other);
    assert!(mounts.bind(&one, &other), "cannot mount");
    world.start();
    world.converges(soon());
    for (round, place) in [&one, &other, &one].into_iter().enumerate() {
        write(place.join("d/deep/file"), format!("round {round}"));
        make_dir(place.join(format!("new{round}/sub")));
        world.converges(soon());
        write(place.join(format!("new{round}/sub/file")), "followed");
        fs::rename(place.join(format!("new{round}")), place.join(format!("was{round}"))).expect("renamed");
        world.converges(soon());
        fs::remove_file(place.join(format!("was{round}/sub/file"))).expect("removed");
        world.converges(soon());
    }
    // A third place is mounted while the daemon runs. Then two are unmounted, and the directory is seen at one place alone.
    let third = world.src.join("a third");
    make_dir(&third);
    assert!(mounts.bind(&one.join("d"), &third), "cannot mount");
    write(one.join("d/deep/file"), "three places");
    world.converges(soon());
    write(third.join("deep/file"), "from the third");
    world.converges(soon());
    for place in [&third, &other] {
        mounts.unmount(place, "--verbose");
        write(one.join("d/deep/file"), format!("without {}", place.display()));
        wait_until(soon(), "the place that is left", || {
            world
                .dsts
                .iter()
                .all(|dst| fs::read(dst.join("one/d/deep/file")).ok() == fs::read(one.join("d/deep/file")).ok())
        });
    }
    world.daemon().stop();
}

/// The comparison in progress took the mount point, which was empty by then, for the directory that had been there.
#[test]
fn what_is_unmounted_under_a_comparison_is_not_deleted() {
    let Some((mut world, mounts)) = world() else { return };
    let (disk, bin, armed) = (world.src.join("disk"), world.side("bin"), world.base().join("armed"));
    // The unmount comes between the daemon's last look and the look of the rsync that is to delete.
    let script = format!(
        "#!/bin/sh\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         case \" $* \" in *' --max-delete=0 '*) ;; *' -r '*) if rm '{}' 2>/dev/null; then umount --lazy '{}'; fi;; esac\nexec rsync \"$@\"\n",
        armed.display(),
        disk.display()
    );
    write(bin.join("rsync"), script);
    fs::set_permissions(bin.join("rsync"), Permissions::from_mode(0o755)).expect("cannot chmod the wrapper");
    world.cli.bin = Some(bin);
    world.start();
    world.converges(soon());
    write(&armed, "");
    // Without an extra file no run would delete anything.
    world.dsts.iter().for_each(|dst| write(dst.join("extra"), "to be deleted"));
    done(&world, &["reconcile"]);
    wait_until(soon(), "the comparison", || !armed.exists());
    is_held(&world, "disk");
    keeps(&world, "disk");
    drop(mounts);
}

/// Mounts that end lazily, that lie below another, whose parent is renamed, or that end so briefly that everything looks as
/// before.
#[test]
fn mounts_of_all_kinds_are_followed() {
    let Some((mut world, mut mounts)) = world() else { return };
    let disk = world.src.join("disk");
    let (outside, another) = (world.side("outside"), world.side("another"));
    fill(&outside);
    fill(&another);
    make_dir(disk.join("inner"));
    make_dir(world.src.join("above/bound"));
    assert!(mounts.bind(&outside, &disk.join("inner")) && mounts.bind(&another, &world.src.join("above/bound")));
    world.start();
    world.converges(soon());
    // The mount goes with all mounts below it, and comes back without them.
    mounts.unmount(&disk, "--lazy");
    is_held(&world, "disk");
    assert!(mounts.mount(&["-t", "tmpfs", "none"], &disk), "cannot mount");
    fill(&disk);
    write(disk.join("again"), "mounted again");
    wait_until(soon(), "what is mounted again", || world.arrived(0, "disk/again") && world.arrived(1, "disk/again"));
    keeps(&world, "disk/inner");
    make_dir(disk.join("inner"));
    assert!(mounts.bind(&outside, &disk.join("inner")), "cannot mount");
    world.converges(secs(90));
    // A remount changes nothing.
    let remounted = Command::new("mount").args(["-o", "remount,size=8m"]).arg(&disk).status();
    assert!(remounted.is_ok_and(|status| status.success()), "cannot remount");
    // The path above a mount is renamed; the mount moves with it.
    fs::rename(world.src.join("above"), world.src.join("renamed")).expect("cannot rename");
    mounts.0.iter_mut().filter(|at| at.ends_with("above/bound")).for_each(|at| *at = world.src.join("renamed/bound"));
    write(world.src.join("renamed/bound/d0/sub/file"), "followed");
    world.converges(secs(90));
    // Another file system is mounted in its place at once.
    mounts.unmount(&disk.join("inner"), "--verbose");
    mounts.unmount(&disk, "--verbose");
    assert!(mounts.mount(&["-t", "tmpfs", "none"], &disk), "cannot mount");
    fill(&disk);
    make_dir(disk.join("inner"));
    assert!(mounts.bind(&outside, &disk.join("inner")), "cannot mount");
    write(disk.join("another"), "one");
    world.converges(secs(90));
    write(disk.join("d1/sub/file"), "followed");
    write(disk.join("inner/d1/sub/file"), "followed");
    world.converges(soon());
    world.daemon().stop();
}

/// The files of the first file system looked deleted.
#[test]
fn another_file_system_in_the_place_of_one_is_held_until_an_operator_agrees() {
    let Some((mut world, mut mounts)) = world() else { return };
    let place = world.src.join("place");
    let (first, second) = (world.side("first"), world.side("second"));
    fill(&first);
    write(second.join("other"), "of another disk");
    make_dir(&place);
    assert!(mounts.bind(&first, &place), "cannot mount");
    if syncq::ctime::is_on_disk(rustix::fs::statfs(&first).expect("statfs").f_type) {
        world.start();
    } else {
        return skipped("only file systems on disks are told apart");
    }
    world.converges(soon());
    // Once while the daemon runs, and once while it does not.
    for restarts in [false, true] {
        if restarts {
            world.stop();
        }
        mounts.unmount(&place, "--verbose");
        assert!(mounts.bind(&second, &place), "cannot mount");
        if restarts {
            world.daemon().restart();
        }
        wait_for(soon(), "the other one to be told", || {
            let status = world.cli.status().json;
            let target = &status["targets"][0];
            let tells = target["state"] == "needs_approval" && target["reason"].to_string().contains("another file");
            if tells { Ok(()) } else { Err(status.to_string()) }
        });
        keeps(&world, "place");
        assert!(!world.dsts[0].join("place/other").exists(), "another file system was mirrored");
        if !restarts {
            mounts.unmount(&place, "--verbose");
            assert!(mounts.bind(&first, &place), "cannot mount");
            write(place.join("back"), "the first again");
            world.converges(secs(90));
        }
    }
    for name in ["m1", "m2"] {
        done(&world, &["accept-deletions", target(&world, name).as_str()]);
    }
    world.converges(secs(90));
    world.daemon().stop();
}

/// Containers have their files on overlays. A file that was overwritten in place, with size and time kept, was never found.
#[test]
fn what_changes_on_an_overlay_while_no_daemon_runs_is_found() {
    let Some((mut world, mut mounts)) = world() else { return };
    let (place, lower) = (world.src.join("overlay"), world.side("lower"));
    make_dir(&place);
    fill(&lower);
    let parts = ["upper", "work"].map(|name| world.side(name).display().to_string());
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), parts[0], parts[1]);
    if !mounts.mount(&["-t", "overlay", "none", "-o", &options], &place) {
        return skipped("cannot mount an overlay");
    }
    world.start();
    world.converges(soon());
    // A file that has been copied up to the upper layer, and one that has not.
    write(place.join("d1/sub/file"), "A");
    world.ages();
    world.stop();
    for name in ["d0/sub/file", "d1/sub/file"] {
        overwrite_quietly(place.join(name), "Z");
    }
    make_dir(place.join("new/deep"));
    write(place.join("new/deep/file"), "new");
    fs::remove_dir_all(place.join("d2")).expect("cannot remove");
    world.daemon().restart();
    world.converges(soon());
    world.daemon().stop();
}
