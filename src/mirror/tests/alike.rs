//! A path that the filter or the user's own options leave out was spared by a comparison, but sent or deleted by live
//! changes: the two had different judges. Here histories, filters and options are random. After all changes of a history
//! were carried out one by one, a comparison finds nothing more to do, and the target is as one comparison alone would have
//! made it.
//!
//! `SYNCQ_ALIKE_CASES` is the number of histories.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Few names, so that changes often meet the rules.
const NAMES: [&str; 7] = ["a", "b", "keep", "x.log", "x.txt", "core", ".rsync-filter"];

/// Options by which rsync chooses paths, one or two at a time.
const PARAMS: [&[&str]; 20] = [
    &[],
    &["--exclude=keep"],
    &["--exclude=/a"],
    &["--exclude=*.log"],
    &["--exclude=a/keep/"],
    &["--include=*/", "--include=*.txt", "--exclude=*"],
    &["--filter=- keep", "--filter=P b"],
    &["--filter=H *.log"],
    &["-f", "- /b/*", "-f+ /b/a"],
    &["--exclude-from=@rules"],
    &["--include=/a/x.log", "--exclude=*.log"],
    &["-C"],
    &["-F"],
    &["-FF", "--exclude=core"],
    &["-L"],
    &["-k"],
    &["--copy-unsafe-links"],
    &["--safe-links"],
    &["-x", "--exclude=/b"],
    &["-L", "--exclude=keep"],
];

const EXPRESSIONS: [&[&str]; 6] = [&[], &[], &["keep"], &["(.*)/keep"], &[r"(.*)\.log"], &["/a/b", "core"]];

#[derive(Debug, Clone)]
enum Act {
    Write(String, u8),
    MakeTree(String, u8),
    Remove(String),
    Rename(String, String),
    Link(String, &'static str),
    Close(String),
}

fn a_path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&NAMES[..]), 1..4).prop_map(|names| names.join("/"))
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (a_path(), any::<u8>()).prop_map(|(path, n)| Act::Write(path, n)),
        2 => (a_path(), any::<u8>()).prop_map(|(path, n)| Act::MakeTree(path, n)),
        4 => a_path().prop_map(Act::Remove),
        3 => (a_path(), a_path()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => (a_path(), prop::sample::select(vec!["@outside", "@outside/f"]))
            .prop_map(|(path, to)| Act::Link(path, to)),
        1 => a_path().prop_map(Act::Close),
    ]
}

impl Act {
    /// Makes the change in the source, and returns the jobs that the watcher makes of it.
    fn carry_out(&self, stage: &Stage) -> Vec<ClaimedJob> {
        let at = |name: &str| stage.src(name);
        let is_dir = |name: &str| fs::symlink_metadata(at(name)).is_ok_and(|found| found.is_dir());
        // No change is made through a link or below a file: the kernel would report it under another name.
        let reaches = |name: &str| {
            let parent = path(name).parent().unwrap_or_else(RelPath::root);
            parent.ancestors().chain([parent.clone()]).all(|above| {
                let found = fs::symlink_metadata(above.under(&stage.src("")));
                above.is_root() || found.is_ok_and(|found| found.is_dir())
            })
        };
        let missing = |name: &str| fs::symlink_metadata(at(name)).is_err();
        let mut jobs = Vec::new();
        match self {
            Self::Write(name, n) if reaches(name) && !is_dir(name) => {
                let _ = fs::remove_file(at(name));
                let is_rules = name.ends_with(".rsync-filter");
                fs::write(at(name), if is_rules { "- x.txt\n".to_owned() } else { "x".repeat(usize::from(*n)) })
                    .unwrap();
                jobs.push(job(name, Scope::Entry, Origin::Write));
                if is_rules {
                    // Nothing reports that rules have changed; whole-tree runs find the paths that they concern.
                    jobs.push(job("", Scope::Subtree, Origin::Reconcile));
                }
            }
            Self::MakeTree(name, n) if reaches(name) && missing(name) => {
                fs::create_dir(at(name)).unwrap();
                for (bit, inside) in NAMES.iter().take(6).enumerate().filter(|(bit, _)| n >> bit & 1 == 1) {
                    let inside = at(name).join(inside);
                    if bit % 2 == 0 {
                        fs::write(inside, "new").unwrap();
                    } else {
                        write(&inside.join("x.txt"), "deep");
                        write(&inside.join("keep"), "deep");
                    }
                }
                jobs.push(job(name, Scope::Subtree, Origin::Write));
            }
            Self::Remove(name) if reaches(name) && !missing(name) => {
                if is_dir(name) {
                    fs::remove_dir_all(at(name)).unwrap()
                } else {
                    fs::remove_file(at(name)).unwrap()
                }
                jobs.push(job(name, Scope::Entry, Origin::Scan));
            }
            Self::Rename(from, to)
                if reaches(from) && reaches(to) && !missing(from) && missing(to) && !to.starts_with(from.as_str()) =>
            {
                let scope = if is_dir(from) { Scope::Subtree } else { Scope::Entry };
                fs::rename(at(from), at(to)).unwrap();
                jobs.push(job(from, Scope::Entry, Origin::Scan));
                jobs.push(job(to, scope, Origin::Replaced));
            }
            Self::Link(name, to) if reaches(name) && missing(name) => {
                symlink(stage.dir.path().join(to.trim_start_matches('@')), at(name)).unwrap();
                jobs.push(job(name, Scope::Entry, Origin::Write));
            }
            Self::Close(name) if is_dir(name) && reaches(name) => {
                fs::set_permissions(at(name), fs::Permissions::from_mode(0o555)).unwrap();
                jobs.push(job(name, Scope::Entry, Origin::Scan));
            }
            _ => return Vec::new(),
        }
        for changed in jobs.clone() {
            let parent = changed.path.parent().unwrap_or_else(RelPath::root);
            if jobs.iter().all(|job| job.path != parent) {
                jobs.push(ClaimedJob { path: parent, ..job("", Scope::Entry, Origin::Scan) });
            }
        }
        jobs
    }
}

/// Everything below a directory: kinds, link values and contents. Not modes: a directory that stays for an entry spared in
/// it keeps the mode that it was given last.
fn contents(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let at = entry.unwrap().path();
            let meta = fs::symlink_metadata(&at).unwrap();
            let what = if meta.is_dir() {
                left.push(at.clone());
                "dir".to_owned()
            } else if meta.is_symlink() {
                format!("-> {}", fs::read_link(&at).unwrap().display())
            } else {
                format!("file {:?}", fs::read_to_string(&at).unwrap())
            };
            found.insert(at.strip_prefix(root).unwrap().display().to_string(), what);
        }
    }
    found
}

/// Files that only the target has, in directories that come and go.
fn seed(target: &Path) {
    for name in ["a/keep/own", "a/b/keep", "b/x.log", "keep/own", "x.log/keep", "core", "gone/x.log", "gone/x.txt"] {
        write(&target.join(name), "the target's own");
    }
}

/// Runs jobs like the queue would: failed ones, and those that look again, are tried once more.
fn settle(ctx: &TargetContext, jobs: &[ClaimedJob]) {
    let mut left = jobs.to_vec();
    for _ in 0..3 {
        if left.is_empty() {
            return;
        }
        let report = go(ctx, &left);
        assert_eq!(report.trouble, None, "{report:#?}");
        let undone: Vec<&RelPath> =
            report.verdicts.iter().filter(|(_, verdict)| *verdict != Verdict::Done).map(|(path, _)| path).collect();
        left.retain(|job| undone.contains(&&job.path));
    }
}

fn alike(acts: &[Act], params: &[&str], expressions: &[&str]) -> Result<(), TestCaseError> {
    let stage = Stage::new();
    write(&stage.dir.path().join("outside/f"), "outside");
    write(&stage.dir.path().join("outside/keep"), "outside");
    write(&stage.dir.path().join("rules"), "/a/keep\n*.log\n");
    for name in ["a/x.txt", "a/keep/x.log", "b/a/x.txt", "b/x.txt", "x.txt"] {
        stage.write(name, name);
    }
    let rules = format!("--exclude-from={}", stage.dir.path().join("rules").display());
    let options = || TransferOptions {
        params: std::iter::once("-a")
            .chain(params.iter().map(|&param| if param == "--exclude-from=@rules" { rules.as_str() } else { param }))
            .collect(),
        ..TransferOptions::default()
    };
    let (live, compared) = (stage.dst("live"), stage.dst("compared"));
    let context = |target: &Path| stage.context_filtered(Destination::Local(target.to_owned()), options(), expressions);
    let whole = [job("", Scope::Subtree, Origin::Reconcile)];
    for target in [&live, &compared] {
        fs::create_dir(target).unwrap();
        settle(&context(target), &whole);
        seed(target);
        // Only entries that the rules spare are left of the seed.
        settle(&context(target), &whole);
    }
    let ctx = context(&live);
    for act in acts {
        let jobs = act.carry_out(&stage);
        // The watcher reports no excluded path; an operator's job for one changes nothing.
        settle(&ctx, &jobs);
    }
    let before = contents(&live);
    settle(&ctx, &whole);
    let after = contents(&live);
    prop_assert_eq!(before, after.clone(), "a comparison still finds something to do");
    // Rules in the tree change with the tree: files sent earlier stay where the rules spare them now.
    if params.iter().any(|param| param.starts_with("-F")) {
        return Ok(());
    }
    settle(&context(&compared), &whole);
    prop_assert_eq!(after, contents(&compared), "one comparison makes something else of it");
    Ok(())
}

/// See the header of this file.
#[test]
fn live_changes_and_a_comparison_come_to_the_same_end() {
    let cases = std::env::var("SYNCQ_ALIKE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16);
    let mut runner =
        TestRunner::new(Config { cases, max_shrink_iters: 200, failure_persistence: None, ..Config::default() });
    let histories =
        (prop::collection::vec(act(), 1..8), prop::sample::select(&PARAMS[..]), prop::sample::select(&EXPRESSIONS[..]));
    runner.run(&histories, |(acts, params, expressions)| alike(&acts, params, expressions)).unwrap();
}
