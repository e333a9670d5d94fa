//! `<filter>`: live events, new directories and whole-tree runs judge alike (L17).

use std::fs;

use crate::harness::world::soon;
use crate::harness::{Compare, World, make_dir, wait_until, write};

/// One row: an expression, names that it excludes, and names that it does not. Names ending in a slash are directories with a
/// file.
struct Row {
    expression: &'static str,
    excluded: &'static [&'static str],
    mirrored: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        expression: r"(.*)\.gz",
        excluded: &["x.gz", "sub/x.gz", "sub/deep/x.gz", "dir.gz/"],
        mirrored: &["x.gz.txt", "gz", "sub/gz"],
    },
    Row { expression: r"(.*)\.svn", excluded: &[".svn/", "sub/.svn/", "x.svn"], mirrored: &["svn/", ".svnx/"] },
    Row { expression: "^info/*", excluded: &["info/"], mirrored: &["sub/info/", "information", "infos/"] },
    Row { expression: "^info/.*", excluded: &["info/"], mirrored: &["sub/info/", "infos/"] },
    Row { expression: "^sub/info/*", excluded: &["sub/info/"], mirrored: &["info/", "sub/infos/"] },
    Row { expression: r"/sub/(.*)\.log", excluded: &["sub/x.log", "sub/deep/x.log"], mirrored: &["x.log"] },
];

/// Creates the names of a row under the root. Returns the files.
fn make(world: &World, names: &[&str], content: &str) -> Vec<String> {
    let mut files = Vec::new();
    for name in names {
        let file = if name.ends_with('/') { format!("{name}inside") } else { (*name).to_owned() };
        let path = world.src.join(&file);
        make_dir(path.parent().expect("a parent"));
        write(path, content);
        files.push(file);
    }
    files
}

fn verdicts(world: &World, row: &Row, excluded: &[String], mirrored: &[String], when: &str) {
    write(world.src.join("marker"), when);
    for n in 0..world.dsts.len() {
        wait_until(soon(), &format!("{:?} {when}: {mirrored:?}", row.expression), || {
            mirrored.iter().all(|file| world.arrived(n, file)) && world.arrived(n, "marker")
        });
    }
    world.cli.wait_idle(soon());
    for dst in &world.dsts {
        for file in excluded {
            let path = dst.join(file);
            assert!(!path.exists(), "{:?} must keep {file:?} away {when}", row.expression);
        }
    }
}

#[test]
fn l17_filters_hold_for_live_events() {
    for row in ROWS {
        let mut world = World::new();
        world.conf.excludes = vec![row.expression.to_owned()];
        // The directories exist before the start, so that they are watched before anything happens in them.
        for dir in ["sub/deep", "sub/info", "svn", "infos"] {
            make_dir(world.src.join(dir));
        }
        world.start();
        let mirrored = make(&world, row.mirrored, "live");
        let excluded = make(&world, row.excluded, "live");
        verdicts(&world, row, &excluded, &mirrored, "live");
        make(&world, row.mirrored, "changed");
        make(&world, row.excluded, "changed");
        verdicts(&world, row, &excluded, &mirrored, "at a change");
    }
}

#[test]
fn l17_filters_hold_in_directories_that_come_into_being() {
    for row in ROWS {
        let mut world = World::new();
        world.conf.excludes = vec![row.expression.to_owned()];
        world.start();
        // Moved in as whole directories, so that no event reports their content.
        let mirrored = make(&world, row.mirrored, "moved");
        let excluded = make(&world, row.excluded, "moved");
        verdicts(&world, row, &excluded, &mirrored, "after mkdir");
        let outside = world.side("outside");
        for top in ["sub", "svn", "infos", ".svnx"] {
            if world.src.join(top).exists() {
                fs::rename(world.src.join(top), outside.join(top)).expect("cannot move out");
                wait_until(soon(), "the moved directory to go", || !world.dsts[0].join(top).exists());
                fs::rename(outside.join(top), world.src.join(top)).expect("cannot move in");
            }
        }
        verdicts(&world, row, &excluded, &mirrored, "after a move");
    }
}

#[test]
fn l17_filters_hold_for_whole_tree_runs_and_l10_a_filter_does_not_prevent_them() {
    for row in ROWS {
        let mut world = World::new();
        world.conf.excludes = vec![row.expression.to_owned()];
        let mirrored = make(&world, row.mirrored, "at start");
        let excluded = make(&world, row.excluded, "at start");
        world.start_with(&["-r"]);
        verdicts(&world, row, &excluded, &mirrored, "with -r");
    }
}

/// An excluded file may exist on the mirror for reasons of its own; a whole-tree run leaves it alone.
#[test]
fn excluded_files_on_the_mirror_are_not_deleted() {
    let mut world = World::new();
    world.conf.excludes = vec![r"(.*)\.gz".to_owned()];
    write(world.src.join("file"), "content");
    make_dir(world.src.join("sub"));
    for dst in &world.dsts {
        write(dst.join("theirs.gz"), "theirs");
        make_dir(dst.join("sub"));
        write(dst.join("sub/theirs.gz"), "theirs");
        write(dst.join("old"), "to be deleted");
    }
    world.start_with(&["-r"]);
    wait_until(soon(), "the whole-tree run", || {
        (0..2).all(|n| world.arrived(n, "file") && !world.dsts[n].join("old").exists())
    });
    world.cli.wait_idle(soon());
    for dst in &world.dsts {
        assert!(dst.join("theirs.gz").exists() && dst.join("sub/theirs.gz").exists(), "an excluded file was deleted");
    }
}

#[test]
fn the_exclude_option_of_mirror_filters_alike() {
    let mut world = World::new();
    world.compare = Compare::content();
    for name in ["a.gz", "a.txt", "sub/b.gz", "sub/b.txt"] {
        make_dir(world.src.join(name).parent().expect("a parent"));
        write(world.src.join(name), name);
    }
    world.start_mirror(&["--exclude", r"(.*)\.gz"]);
    write(world.src.join("c.gz"), "live");
    write(world.src.join("c.txt"), "live");
    wait_until(soon(), "the rest", || {
        (0..2).all(|n| ["a.txt", "sub/b.txt", "c.txt"].iter().all(|file| world.arrived(n, file)))
    });
    world.cli.wait_idle(soon());
    for name in ["a.gz", "sub/b.gz", "c.gz"] {
        assert!(!world.dsts[0].join(name).exists(), "{name} must stay away");
    }
}
