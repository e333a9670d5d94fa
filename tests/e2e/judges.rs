//! Live changes and comparisons judge alike: a path that is excluded on purpose is neither sent nor deleted by either.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::churn::{Report, seeds};
use crate::harness::churn::Churn;
use crate::harness::world::soon;
use crate::harness::{World, make_dir, secs, wait_until, write};

/// Kind, link destination and content of every path below a directory.
fn contents(root: &Path) -> BTreeMap<PathBuf, String> {
    let entries = walkdir::WalkDir::new(root).min_depth(1).into_iter().map(|entry| entry.expect("a readable tree"));
    let what = |entry: &walkdir::DirEntry| match entry.file_type() {
        kind if kind.is_dir() => "directory".to_owned(),
        kind if kind.is_symlink() => format!("-> {}", fs::read_link(entry.path()).expect("a link").display()),
        _ => format!("{:?}", fs::read(entry.path()).expect("a readable file")),
    };
    entries.map(|entry| (entry.path().strip_prefix(root).expect("below").to_owned(), what(&entry))).collect()
}

/// The changes that a comparison of the whole tree makes on a target that live changes have filled.
fn changed_by_a_comparison(world: &World) -> Vec<String> {
    let before: Vec<_> = world.dsts.iter().map(|dst| contents(dst)).collect();
    let state = world.cli.state.as_os_str();
    let ended = world.cli.run(["reconcile".as_ref(), "--wait".as_ref(), "--state-dir".as_ref(), state]).ok();
    assert_eq!(ended.code, Some(0));
    let after = world.dsts.iter().map(|dst| contents(dst));
    let changed = |(before, after): (BTreeMap<PathBuf, String>, BTreeMap<PathBuf, String>)| {
        let differs = |path: &&PathBuf| before.get(*path) != after.get(*path);
        let paths = before.keys().chain(after.keys()).filter(differs);
        paths.map(|path| format!("{}: {:?}", path.display(), after.get(path))).collect::<Vec<_>>()
    };
    before.into_iter().zip(after).flat_map(changed).collect()
}

#[test]
fn what_is_left_out_stays_on_the_target_when_its_directory_goes() {
    type Setup = fn(&mut World);
    let setups: [Setup; 2] = [
        |world| world.conf.excludes = vec!["(.*)/uploads".to_owned()],
        |world| world.conf.params = "-artz --exclude=uploads".to_owned(),
    ];
    for setup in setups {
        let mut world = World::new();
        setup(&mut world);
        for top in ["app", "web"] {
            write_all(&world.src, top, "index");
            world.dsts.iter().for_each(|dst| write_all(dst, &format!("{top}/uploads"), "photo"));
        }
        write(world.src.join("stays"), "1");
        world.start();
        world.cli.wait_idle(soon());
        fs::remove_dir_all(world.src.join("app")).expect("cannot remove");
        fs::rename(world.src.join("web"), world.src.join("web2")).expect("cannot rename");
        wait_until(soon(), "the directories to go", || {
            world.dsts.iter().all(|dst| !dst.join("app/index").exists() && !dst.join("web/index").exists())
        });
        world.cli.wait_idle(soon());
        for dst in &world.dsts {
            assert!(dst.join("web2/index").exists());
            for top in ["app", "web"] {
                assert!(dst.join(top).join("uploads/photo").exists(), "{top} of {}", world.conf.params);
            }
        }
    }
}

fn write_all(root: &Path, dir: &str, name: &str) {
    make_dir(root.join(dir));
    write(root.join(dir).join(name), name);
}

/// `--exclude`, `-F` and the like held for comparisons only.
#[test]
fn rsyncs_own_rules_hold_for_live_changes_and_change_with_their_files() {
    let mut world = World::new();
    world.conf.params = "-artz --exclude=/private -F".to_owned();
    write_all(&world.src, "private", "key");
    write_all(&world.src, "sub/deep", "x.o");
    world.start();
    world.cli.wait_idle(soon());
    write(world.src.join("private/key2"), "2");
    write(world.src.join("sub/deep/y.o"), "y");
    wait_until(soon(), "y.o", || world.dsts.iter().all(|dst| dst.join("sub/deep/y.o").exists()));
    // From now on object files are neither mirrored nor deleted.
    write(world.src.join("sub/.rsync-filter"), "- *.o\n");
    wait_until(soon(), "the rules", || world.dsts.iter().all(|dst| dst.join("sub/.rsync-filter").exists()));
    world.cli.wait_idle(soon());
    fs::remove_file(world.src.join("sub/deep/y.o")).expect("cannot remove");
    write(world.src.join("sub/deep/z.o"), "z");
    write(world.src.join("sub/deep/z.c"), "z");
    wait_until(soon(), "z.c", || world.dsts.iter().all(|dst| dst.join("sub/deep/z.c").exists()));
    world.cli.wait_idle(soon());
    for dst in &world.dsts {
        assert!(!dst.join("private").exists() && !dst.join("sub/deep/z.o").exists());
        assert!(dst.join("sub/deep/y.o").exists());
    }
    assert_eq!(changed_by_a_comparison(&world), [""; 0]);
    // Without the rules the object files are mirrored again. While it deletes, the receiver follows its own copy of the rules.
    // So the files that the copy spared are deleted by the next comparison.
    fs::remove_file(world.src.join("sub/.rsync-filter")).expect("cannot remove");
    wait_until(soon(), "the objects", || world.dsts.iter().all(|dst| dst.join("sub/deep/z.o").exists()));
    world.cli.wait_idle(soon());
    changed_by_a_comparison(&world);
    assert!(world.dsts.iter().all(|dst| !dst.join("sub/deep/y.o").exists()));
    assert_eq!(changed_by_a_comparison(&world), [""; 0]);
}

/// The churn is that of the test without rules, with options that let rsync choose, and with expressions.
#[test]
fn random_changes_leave_a_comparison_nothing_to_do() {
    for (n, (params, excludes)) in [
        ("-artz --exclude=/dir/ --exclude=g", None),
        ("-artz -C --filter='- a/b'", None),
        ("-artz", Some("(.*)/(a|log)")),
    ]
    .into_iter()
    .enumerate()
    {
        for seed in seeds(1) {
            let seed = 3_000 + 100 * n as u64 + seed;
            let mut world = World::new();
            world.conf.attrib = true;
            world.conf.params = params.to_owned();
            world.conf.excludes = excludes.into_iter().map(str::to_owned).collect();
            let outside = world.side("outside");
            world.start();
            let mut report = Report(Churn::new(seed, &world.src, &outside), seed);
            for _ in 0..80 {
                report.0.step();
                report.0.pause();
            }
            write(world.src.join("last"), "one");
            world.cli.wait_idle(secs(90));
            assert_eq!(changed_by_a_comparison(&world), [""; 0], "{params} {excludes:?}");
        }
    }
}
