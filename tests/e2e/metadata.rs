//! Mode, owner, times and extended attributes with `attrib` on, which makes sersync stop watching a directory (L2).

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::{Duration, SystemTime};

use rustix::fs::{XattrFlags, setxattr};

use crate::harness::world::soon;
use crate::harness::{World, is_root, make_dir, set_mtime, skipped, write};

fn chmod(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("cannot chmod");
}

fn with_attrib() -> World {
    let mut world = World::new();
    world.conf.attrib = true;
    for dir in 1..=5 {
        make_dir(world.src.join(format!("d{dir}/sub")));
        write(world.src.join(format!("d{dir}/f")), "content");
        write(world.src.join(format!("d{dir}/sub/g")), "content");
    }
    world
}

#[test]
fn l2_chmod_of_directories_arrives_and_writes_below_still_do() {
    let mut world = with_attrib();
    world.start();
    world.converges(soon());
    for dir in 1..=5 {
        chmod(&world.src.join(format!("d{dir}")), 0o750);
        chmod(&world.src.join(format!("d{dir}/f")), 0o640);
    }
    world.converges(soon());
    chmod(&world.src.join("d1"), 0o711);
    write(world.src.join("d1/new"), "written below");
    write(world.src.join("d1/sub/g"), "changed below");
    make_dir(world.src.join("d1/sub/newer"));
    write(world.src.join("d1/sub/newer/file"), "deeper");
    world.converges(soon());
}

#[test]
fn l2_chmod_of_a_directory_sends_its_pending_children_too() {
    let mut world = with_attrib();
    world.start();
    world.converges(soon());
    for n in 0..50 {
        let dir = world.src.join(format!("d{}", 1 + n % 5));
        write(dir.join(format!("new{n}")), "pending");
        chmod(&dir, if n % 2 == 0 { 0o755 } else { 0o750 });
    }
    world.converges(soon());
}

#[test]
fn l12_mode_owner_and_times_arrive() {
    let mut world = with_attrib();
    world.compare.owners = is_root();
    world.start();
    world.converges(soon());
    chmod(&world.src.join("d1/f"), 0o600);
    let past = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    set_mtime(world.src.join("d2/f"), past);
    set_mtime(world.src.join("d2"), past);
    if is_root() {
        chown(world.src.join("d3/f"), Some(1), Some(2)).expect("cannot chown");
        chown(world.src.join("d3/sub"), Some(3), Some(4)).expect("cannot chown");
    } else {
        skipped("owners: not root");
    }
    world.converges(soon());
}

#[test]
fn l30_extended_attributes_arrive_where_params_ask_for_them() {
    let mut world = with_attrib();
    world.conf.params = "-artuzHX".to_owned();
    world.compare.xattrs = true;
    let set = |path: &str, value: &str| {
        setxattr(world.src.join(path), "user.syncq.test", value.as_bytes(), XattrFlags::empty())
    };
    if set("d1/f", "before").is_err() {
        return skipped("the file system has no extended attributes");
    }
    world.start();
    world.converges(soon());
    let set = |path: &str, value: &str| {
        setxattr(world.src.join(path), "user.syncq.test", value.as_bytes(), XattrFlags::empty()).expect("setxattr")
    };
    set("d1/f", "after");
    set("d2", "a directory");
    world.converges(soon());
}

/// Without `attrib` nothing is promised about a chmod alone, but the next write transfers the mode too.
#[test]
fn without_attrib_a_chmod_arrives_with_the_next_write() {
    let mut world = World::new();
    write(world.src.join("file"), "content");
    world.start();
    world.converges(soon());
    chmod(&world.src.join("file"), 0o640);
    write(world.src.join("file"), "content again");
    world.converges(soon());
}

#[test]
fn an_unreadable_mode_arrives_on_both_targets() {
    if !is_root() {
        return skipped("only root may read a file of mode 000");
    }
    let mut world = with_attrib();
    world.start();
    world.converges(soon());
    chmod(&world.src.join("d1/f"), 0o000);
    chmod(&world.src.join("d2"), 0o000);
    chmod(&world.src.join("d3/f"), 0o4755);
    chmod(&world.src.join("d4"), 0o1777);
    world.converges(soon());
}
