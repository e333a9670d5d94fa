//! Links on the target that rsync would follow: they still stand where the source has directories by now.

use super::*;

/// A stage on whose target `victim` is a link to a directory outside of the target, and a move to a name below `victim`.
fn astray(to: fn(&Stage) -> TargetContext, way: Scope, new: &str, victim: &str) {
    let stage = Stage::with_daemon("", "");
    let ctx = to(&stage);
    let old = if way == Scope::Subtree { "old" } else { "big" };
    let content = "x".repeat(2 << 20);
    let file = if way == Scope::Subtree { "old/f" } else { "big" };
    write(&stage.src(file), &content);
    all_done(&go(&ctx, &[job("", Scope::Subtree, Origin::Scan)]));

    let outside = stage.dir.path().join("outside");
    write(&outside.join("in/keep"), "keep");
    write(&outside.join("keep"), "keep");
    let before = listed(&outside);
    std::fs::create_dir_all(stage.src(new).parent().unwrap()).unwrap();
    std::fs::create_dir_all(stage.dst(victim).parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&outside, stage.dst(victim)).unwrap();
    std::fs::rename(stage.src(old), stage.src(new)).unwrap();
    let origin = if way == Scope::Subtree { Origin::Replaced } else { Origin::Write };
    let moved = ClaimedJob { moved_from: Some(path(old)), ..job(new, way, origin) };
    let jobs = [moved, job(old, Scope::Entry, Origin::Scan)];
    let report = execute(&ctx, Lane::Large, &jobs, Contents::Vouched, NOW, &StopSignal::new().unwrap());
    all_done(&report);
    assert_eq!(listed(&outside), before, "{new} through {victim}");
    all_done(&go(&ctx, &entries(&["", new])));
    assert_eq!(stage.difference(), None);
}

fn listed(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.metadata().unwrap().is_dir() {
                left.push(entry.path());
            }
            all.push((entry.path(), std::os::unix::fs::MetadataExt::ino(&entry.metadata().unwrap())));
        }
    }
    all.sort();
    all
}

/// A directory that moved below a name that had been a link was written where the link leads, outside of the destination.
#[test]
fn what_was_moved_is_not_written_behind_a_link_of_the_target() {
    let places: [fn(&Stage) -> TargetContext; 2] = [Stage::local, |stage| stage.module("m")];
    for to in places {
        astray(to, Scope::Subtree, "a/in", "a");
        astray(to, Scope::Subtree, "new", "new");
        astray(to, Scope::Subtree, "a/b/in", "a/b");
        astray(to, Scope::Entry, "a/big", "a");
    }
}

/// A link stood in place of the old name. Files behind it that the quick check took for equal were linked into the mirror.
#[test]
fn what_was_moved_is_not_taken_from_behind_a_link_of_the_target() {
    for to in [Stage::local as fn(&Stage) -> TargetContext, |stage| stage.module("m")] {
        let stage = Stage::with_daemon("", "");
        let ctx = to(&stage);
        write(&stage.src("d/old/f"), &"x".repeat(2 << 20));
        all_done(&go(&ctx, &[job("", Scope::Subtree, Origin::Scan)]));
        let outside = stage.dir.path().join("outside");
        std::fs::rename(stage.dst("d"), &outside).unwrap();
        std::os::unix::fs::symlink(&outside, stage.dst("d")).unwrap();
        std::fs::rename(stage.src("d/old"), stage.src("new")).unwrap();
        let moved = ClaimedJob { moved_from: Some(path("d/old")), ..job("new", Scope::Subtree, Origin::Replaced) };
        let jobs = [moved, job("d/old", Scope::Entry, Origin::Scan)];
        all_done(&execute(&ctx, Lane::Large, &jobs, Contents::Vouched, NOW, &StopSignal::new().unwrap()));
        let inode = |path: PathBuf| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        assert_ne!(inode(stage.dst("new/f")), inode(outside.join("old/f")));
        assert!(outside.join("old/f").exists());
    }
}
