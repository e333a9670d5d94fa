//! Runs that begin on a standby: which of them count, and which begin again.

use super::*;
use crate::clock::monotonic;
use crate::mirror::transport::standby::Next;

/// A context with a standby that waits.
fn ready(mut ctx: TargetContext, all: &Standbys) -> TargetContext {
    let standby = all.of(&ctx.target, true).expect("a daemon's target may have one");
    standby.used(monotonic());
    standby.renew(|| ctx.launch());
    assert!(standby.is_there());
    ctx.standby = Some(standby);
    ctx
}

fn standby(ctx: &TargetContext) -> &Standby {
    ctx.standby.as_ref().unwrap()
}

/// A context whose rsync is a script. In the script `$n` is the number of the start; the first start is the standby.
fn scripted(stage: &Stage, script: &str) -> TargetContext {
    let (rsync, count) = (stage.dir.path().join("rsync"), stage.dir.path().join("count"));
    let count = count.display();
    let head = format!("#!/bin/sh\necho x >> {count}; n=$(wc -l < {count})\nlist=$(tr '\\0' '\\n')");
    program(&rsync, &format!("{head}\n{script}\n"));
    let mut ctx = stage.module("m");
    ctx.program.path = rsync.into();
    ctx
}

fn starts(stage: &Stage) -> usize {
    std::fs::read_to_string(stage.dir.path().join("count")).unwrap_or_default().lines().count()
}

fn starts_reach(stage: &Stage, number: usize) {
    let begun = monotonic();
    while starts(stage) < number {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} starts", starts(stage));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn only_a_regular_end_over_a_young_connection_counts_by_itself() {
    const OLD: Duration = Duration::from_secs(10);
    let young = Duration::ZERO;
    // How the standby ends, its age, how many rsyncs are started, and whether the batch counts as cut off.
    for (first, age, expected, cut) in [
        ("exit 0", young, 1, false),
        ("exit 0", OLD, 2, false),
        ("exit 23", OLD, 2, false),
        ("exit 12", young, 2, true),
        ("exit 10", OLD, 2, true),
        ("exit 30", OLD, 2, true),
        ("exit 20", young, 2, true),
        ("exit 5", young, 2, true),
        ("kill -9 $$", OLD, 2, true),
        // This standby is too old to be used at all.
        ("exit 0", Duration::from_secs(51), 2, false),
    ] {
        let stage = Stage::new();
        stage.write("f", "f");
        let all = Standbys::default();
        let ctx = ready(scripted(&stage, &format!("[ $n -gt 1 ] || {first}")), &all);
        starts_reach(&stage, 1);
        standby(&ctx).age(age);
        let report = go(&ctx, &entries(&["f"]));
        all_done(&report);
        assert_eq!(
            (starts(&stage), report.cut == CutOff::Open, report.runs),
            (expected, cut, 1),
            "{first} after {age:?}"
        );
        assert!(report.commands_failed.is_empty() && !standby(&ctx).is_there(), "{first}: {report:#?}");
    }
}

#[test]
fn one_that_has_ended_is_not_used_and_nothing_is_cut_off() {
    let stage = Stage::new();
    stage.write("f", "f");
    let all = Standbys::default();
    let mut ctx = scripted(&stage, "");
    let refused = stage.dir.path().join("refused");
    program(&refused, "#!/bin/sh\necho '@ERROR: max connections (1) reached -- try again later' >&2; exit 5\n");
    let real = std::mem::replace(&mut ctx.program.path, refused.into());
    let mut ctx = ready(ctx, &all);
    ctx.program.path = real;
    // The standby ends by itself, at a time of its own.
    let begun = monotonic();
    while !standby(&ctx).has_died() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(2));
    }
    let report = go(&ctx, &entries(&["f"]));
    all_done(&report);
    assert!(report.cut == CutOff::No && starts(&stage) == 1, "{report:#?}");
    standby(&ctx).renew(|| ctx.launch());
    assert!(!standby(&ctx).is_there(), "a target that refused one for want of connections is left alone");
}

/// A standby was asked for again at once, for as long as the source was away, which kept two processors busy.
#[test]
fn none_is_asked_for_while_the_source_is_away() {
    let stage = Stage::new();
    stage.write("f", "f");
    let all = Standbys::default();
    let ctx = ready(scripted(&stage, ""), &all);
    standby(&ctx).end();
    let next = || standby(&ctx).next(|| true, true, false, monotonic());
    std::fs::rename(&ctx.root, ctx.root.with_extension("away")).unwrap();
    assert_eq!(next(), Next::Renew);
    standby(&ctx).renew(|| ctx.launch());
    assert_eq!((next(), standby(&ctx).is_there()), (Next::Nothing, false));
}

#[test]
fn what_it_does_not_suit_starts_cold_and_leaves_it() {
    let stage = Stage::with_daemon("", "");
    stage.write("d/f", "f");
    stage.write("large", &"x".repeat(2 << 20));
    let all = Standbys::default();
    let ctx = ready(stage.module("m"), &all);
    for jobs in [
        vec![job("", Scope::Subtree, Origin::Scan)],
        vec![job("d", Scope::Children, Origin::Scan)],
        vec![job("d/f", Scope::Entry, Origin::Scan)],
        entries(&["large"]),
    ] {
        all_done(&go(&ctx, &jobs));
        assert!(standby(&ctx).is_there(), "{jobs:?}");
    }
    // Directories and deletions have no content to distrust.
    all_done(&go(&ctx, &[job("d", Scope::Entry, Origin::Scan), job("gone", Scope::Entry, Origin::Scan)]));
    assert!(!standby(&ctx).is_there());
    assert_eq!(stage.difference(), None);
}

/// rsync ends with 0, but the file is in the directory that was moved away.
#[test]
fn a_change_is_not_lost_in_a_module_directory_that_was_moved_away() {
    let stage = Stage::with_daemon("", "");
    let all = Standbys::default();
    let ctx = ready(stage.module("m"), &all);
    standby(&ctx).age(Duration::from_secs(3));
    // Once let in, the server's process sits in the directory.
    all_done(&go(&stage.module("m"), &entries(&["nothing"])));
    std::fs::rename(stage.dst(""), stage.dir.path().join("away")).unwrap();
    std::fs::create_dir(stage.dst("")).unwrap();
    stage.write("f", "f");
    all_done(&go(&ctx, &entries(&["f"])));
    assert!(stage.dst("f").exists());
}

/// Such a standby would read the files of the old directory, and take files that exist only in the new one for deleted.
#[test]
fn it_never_reads_another_directory_than_the_root() {
    let stage = Stage::with_daemon("", "");
    stage.write("f", "old");
    let all = Standbys::default();
    let old = ready(stage.module("m"), &all);
    std::fs::rename(stage.src(""), stage.dir.path().join("before")).unwrap();
    std::fs::create_dir(stage.src("")).unwrap();
    stage.write("f", "new");
    stage.write("only new", "new");
    write(&stage.dst("only new"), "older");
    // An operator has accepted the other directory at the same name.
    let mut ctx = stage.module("m");
    ctx.standby = old.standby.clone();
    all_done(&go(&ctx, &entries(&["f", "only new"])));
    assert_eq!(stage.difference(), None);
}

#[test]
fn a_run_that_is_refused_a_connection_gets_that_of_the_standby() {
    let stage = Stage::with_daemon("max connections = 1", "");
    stage.write("large", &"x".repeat(2 << 20));
    let all = Standbys::default();
    let ctx = ready(stage.module("m"), &all);
    let log = stage.daemon.as_ref().unwrap().log();
    let begun = monotonic();
    while !std::fs::read_to_string(&log).unwrap_or_default().contains("receiving file list") {
        assert!(begun.elapsed() < Duration::from_secs(20), "the standby has not connected");
        std::thread::sleep(Duration::from_millis(5));
    }
    let report = go(&ctx, &entries(&["large"]));
    all_done(&report);
    assert!(!standby(&ctx).is_there());
    standby(&ctx).renew(|| ctx.launch());
    assert!(!standby(&ctx).is_there(), "such a target gets none for a while");
}

#[test]
fn what_is_to_be_done_depends_on_what_is_there() {
    let stage = Stage::new();
    let all = Standbys::default();
    let ctx = scripted(&stage, "");
    let standby = all.of(&ctx.target, true).unwrap();
    let now = monotonic();
    let s = Duration::from_secs;
    assert_eq!(standby.next(|| true, true, false, now), Next::Nothing, "nothing was sent yet");
    standby.used(now);
    assert_eq!(standby.next(|| true, false, false, now), Next::Nothing, "a run would be disturbed");
    assert_eq!(standby.next(|| false, true, false, now), Next::Nothing, "paused, in trouble, or short of connections");
    let Next::At(at) = standby.next(|| true, true, true, now) else { panic!("others are at work") };
    assert!(at > now && at < now + s(1));
    assert_eq!(standby.next(|| true, true, true, at), Next::Renew, "they may be for ever");
    assert_eq!(standby.next(|| true, true, false, now), Next::Nothing, "a worker is at it");
    standby.renew(|| ctx.launch());
    let Next::At(at) = standby.next(|| true, true, false, now) else { panic!("it waits") };
    assert!(at >= now + s(50) && at < monotonic() + s(51));
    assert_eq!(standby.next(|| true, false, false, now + s(55)), Next::Renew, "it grows old");
    standby.renew(|| ctx.launch());
    assert!(standby.is_there());
    assert_eq!(standby.next(|| false, true, false, now), Next::End);
    standby.end();
    assert!(!standby.is_there());
    standby.close();
    assert_eq!(standby.next(|| true, true, false, now), Next::Nothing, "for good");
    standby.renew(|| ctx.launch());
    assert!(!standby.is_there());
}

#[test]
fn there_are_none_after_the_end_and_none_where_they_do_harm() {
    let stage = Stage::new();
    let all = Standbys::default();
    let ctx = scripted(&stage, "");
    let standbys: Vec<_> = (0..5).map(|_| all.of(&ctx.target, true).unwrap()).collect();
    for standby in &standbys {
        standby.used(monotonic());
        standby.renew(|| ctx.launch());
    }
    assert!(standbys.iter().all(|standby| standby.is_there() && standby.is_held()));
    all.close();
    standbys[0].renew(|| ctx.launch());
    assert!(standbys.iter().all(|standby| !standby.is_there() && !standby.is_held()));
    let backed_up = stage.module_with("m", |options| options.params = ["-artzb"].into_iter().collect());
    for (ctx, wanted) in [(&stage.local(), true), (&backed_up, true), (&ctx, false)] {
        assert!(all.of(&ctx.target, wanted).is_none(), "{:?}", ctx.target);
    }
}
