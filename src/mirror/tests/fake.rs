//! A script in rsync's place, for ends that a real rsync has only by accident.

use super::*;
use crate::mirror::batch::session::Execution;
use crate::mirror::outcome::classify::Outcome;
use crate::mirror::plan::run::{Run, RunKind};
use crate::mirror::rsync::capture::Capture;
use crate::mirror::rsync::ended::{Cut, End, Ended};
use crate::model::TroubleClass::{Misconfigured, Unavailable};

/// A context whose rsync is a shell script. The script finds the list, one path a line, in `$list`, and in a dry run
/// `$dry` is set.
pub(super) fn scripted(stage: &Stage, script: &str) -> TargetContext {
    let rsync = stage.dir.path().join("rsync");
    let head = "#!/bin/sh\nlist=$(tr '\\0' '\\n')\nfor arg; do [ \"$arg\" = -n ] && dry=1; done\n";
    program(&rsync, &format!("{head}{script}\n"));
    let mut ctx = stage.local();
    ctx.program.path = rsync.into();
    ctx
}

fn sixteen(stage: &Stage) -> Vec<ClaimedJob> {
    let names: Vec<String> = (0..16).map(|n| format!("f{n:02}")).collect();
    for name in &names {
        stage.write(name, &"x".repeat(100_000));
    }
    entries(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn failed(report: &BatchReport) -> Vec<String> {
    let failed = report.verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Failed(_)));
    failed.map(|(path, _)| path.to_string()).collect()
}

#[test]
fn halving_finds_the_paths_that_sink_a_batch() {
    let stage = Stage::new();
    let jobs = sixteen(&stage);
    let ctx = scripted(
        &stage,
        "case $list in *f03*|*f11*) echo 'rsync: connection unexpectedly closed (7 bytes)' >&2; exit 12;; esac",
    );
    let report = go(&ctx, &jobs);
    assert_eq!(failed(&report), ["f03", "f11"]);
    // The receiver of a run that was cut off may still write.
    assert_eq!(report.cut, CutOff::Open);
    let done = report.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Done).count();
    assert!(done == 14 && report.trouble.is_none() && report.runs < 40, "{report:#?}");
    assert!(!report.commands_failed.is_empty() && report.commands_failed.len() <= 4);
}

/// A file that vanished from the target put the target in trouble for seconds, as if it had another version of rsync.
#[test]
fn a_file_that_goes_from_the_target_during_a_run_is_not_the_targets_fault() {
    let stage = Stage::new();
    let jobs = sixteen(&stage);
    let said = "got a block match with no basis file for \"/f03\" (in m) [receiver]";
    let ctx = scripted(&stage, &format!("case $list in *f02*f03*) echo '{said}' >&2; exit 2;; esac"));
    let report = go(&ctx, &jobs);
    assert_eq!((failed(&report), report.trouble), (vec![], None));
}

#[test]
fn a_dead_line_is_not_halved() {
    let stage = Stage::new();
    let jobs = sixteen(&stage);
    let ctx = scripted(&stage, "echo 'rsync: connection unexpectedly closed (7 bytes)' >&2; exit 12");
    let report = go(&ctx, &jobs);
    assert_eq!(report.trouble.as_ref().unwrap().class, Unavailable);
    assert_eq!(report.runs, 2, "the batch and one probe");
    assert!(report.verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Released));
}

#[test]
fn a_dry_run_tells_who_failed_where_rsync_did_not() {
    let stage = Stage::new();
    let jobs = sixteen(&stage);
    let ctx = scripted(&stage, "[ \"$dry\" ] && { echo '.d..t...... ./'; echo '<f+++++++++ f07'; exit 0; }; exit 23");
    let report = go(&ctx, &jobs);
    assert_eq!((failed(&report), report.runs), (vec!["f07".to_owned()], 2));
}

#[test]
fn no_room_fails_a_large_file_and_stops_at_a_small_one() {
    let stage = Stage::new();
    let mut jobs = sixteen(&stage);
    stage.write("small", "x");
    jobs.extend(entries(&["small"]));
    let full = |name: &str| {
        format!("echo 'rsync: [receiver] write failed on \"{name}\" (in m): No space left on device (28)' >&2; exit 11")
    };
    let report = go(&scripted(&stage, &full("f05")), &jobs);
    assert_eq!((failed(&report), report.trouble.is_none()), (vec!["f05".to_owned()], true));
    let report = go(&scripted(&stage, &full("small")), &jobs);
    assert_eq!(report.trouble.as_ref().unwrap().class, Unavailable);
    assert!(failed(&report).is_empty());
}

/// Equal files were copied once more, so a target without room for the copies never came to rest.
#[test]
fn a_full_target_is_spared_copies_of_what_is_equal() {
    let stage = Stage::new();
    stage.write("large", "x");
    std::fs::File::options().append(true).open(stage.src("large")).unwrap().set_len(300 << 20).unwrap();
    let full = "echo 'rsync: [receiver] write failed on \"large\" (in m): No space left on device (28)' >&2; exit 11";
    let script = format!("case \"$*\" in *--checksum*) exit 0;; esac; {full}");
    let (ctx, stop) = (scripted(&stage, &script), StopSignal::new().unwrap());
    let report = execute(&ctx, Lane::Large, &entries(&["large"]), Contents::Vouched, NOW, &stop);
    assert_eq!((verdict(&report, "large"), report.runs), (&Verdict::Done, 2), "{report:#?}");
}

#[test]
fn what_vanished_is_looked_at_again_and_the_rest_is_done() {
    let stage = Stage::new();
    let jobs = sixteen(&stage);
    let name = stage.src("f02").display().to_string();
    let report = go(&scripted(&stage, &format!("echo 'file has vanished: \"{name}\"' >&2; exit 24")), &jobs);
    assert_eq!(*verdict(&report, "f02"), Verdict::LookAgain(Scope::Entry));
    assert_eq!(report.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Done).count(), 15);
}

/// An entry that could not be read kept all others in its run from being made equal, and they counted as done.
#[test]
fn an_entry_that_cannot_be_read_costs_the_others_no_deletion() {
    let stage = Stage::new();
    let names = ["a", "b", "c"];
    names.iter().for_each(|name| stage.write(&format!("{name}/f"), "x"));
    let unread = stage.src("b").display().to_string();
    let script = format!(
        "case $list in *b*) echo 'rsync: [sender] link_stat \"{unread}\" failed: Too many levels of symbolic links (40)' >&2; \
         echo 'IO error encountered -- skipping file deletion'; exit 23;; esac"
    );
    for scope in [Scope::Children, Scope::Subtree] {
        let report = go(&scripted(&stage, &script), &names.map(|name| job(name, scope, Origin::Scan)));
        assert_eq!((failed(&report), report.runs), (vec!["b".to_owned()], 2), "{report:#?}");
        assert!(["a", "c"].iter().all(|name| *verdict(&report, name) == Verdict::Done), "{report:#?}");
    }
}

/// A directory that is listed in full is listed by its name, until something goes wrong in it.
#[test]
fn a_short_list_that_fails_is_said_at_length() {
    let stage = Stage::new();
    let mut names: Vec<String> = (0..40).map(|n| format!("d/f{n:02}")).collect();
    names.iter().for_each(|name| stage.write(name, "x"));
    stage.write("e", "x");
    names.push("e".to_owned());
    let jobs = entries(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let lists = stage.dir.path().join("lists");
    let kept = format!("printf '%s|' $list >> {0}; echo >> {0}", lists.display());
    let report = go(&scripted(&stage, &kept), &jobs);
    all_done(&report);
    assert_eq!((report.runs, std::fs::read_to_string(&lists).unwrap().as_str()), (1, "./d/|./e|\n"));
    let said = format!(
        "rsync: [sender] send_files failed to open \\\"{}\\\": Permission denied (13)",
        stage.src("d/f03").display()
    );
    let report = go(&scripted(&stage, &format!("{kept}; echo \"{said}\" >&2; exit 23")), &jobs);
    assert_eq!((failed(&report), report.runs), (vec!["d/f03".to_owned()], 2), "{report:#?}");
    assert!(std::fs::read_to_string(&lists).unwrap().lines().last().unwrap().contains("|./d/f38|./d/f39|./e|"));
    let gone = format!(
        "{kept}; case $list in ./d/*) case $list in *f03*) ;; *) echo 'rsync: [sender] read error: Connection reset by peer (104)' >&2; exit 10;; esac;; esac"
    );
    let report = go(&scripted(&stage, &gone), &jobs);
    all_done(&report);
    assert!(report.cut == CutOff::Open && report.runs == 2, "{report:#?}");
    // A dead target is asked no more often than without the shortcut.
    let report =
        go(&scripted(&stage, "echo 'rsync: failed to connect to h: Connection refused (111)' >&2; exit 10"), &jobs);
    assert!(report.runs == 1 && report.trouble.is_some(), "{report:#?}");
    // The directory also holds something that no job names: a little, and then more than a little.
    let last_list = || std::fs::read_to_string(&lists).unwrap().lines().last().unwrap().to_owned();
    stage.write("d/other", "x");
    all_done(&go(
        &scripted(&stage, &format!("{kept}; case \"$*\" in *'--exclude=/d/other '*) ;; *) exit 1;; esac")),
        &jobs,
    ));
    assert_eq!(last_list(), "./d/|./e|");
    (0..20).for_each(|n| stage.write(&format!("d/other{n}"), "x"));
    all_done(&go(&scripted(&stage, &kept), &jobs));
    assert!(last_list().starts_with("./d/f00|"));
}

/// Otherwise one bad file would have the whole tree compared again and again.
#[test]
fn what_fails_in_a_sweep_fails_alone() {
    let stage = Stage::new();
    for n in 0..16 {
        stage.write(&format!("d/f{n:02}"), "x");
    }
    let name = stage.src("d/f02").display().to_string();
    let vanished = format!("case $list in *f02*) echo 'file has vanished: \"{name}\"' >&2; exit 24;; esac");
    let deadly = "case $list in *f03*) echo 'rsync: connection unexpectedly closed (7 bytes)' >&2; exit 12;; esac";
    for (script, guilty) in [(vanished.as_str(), "d/f02"), (deadly, "d/f03")] {
        let report = go(&scripted(&stage, script), &[job("d", Scope::Subtree, Origin::Write)]);
        assert_eq!(*verdict(&report, "d"), Verdict::Done, "{report:#?}");
        let found: Vec<String> = report.found.iter().map(|found| found.path.to_string()).collect();
        assert_eq!((found, report.trouble), (vec![guilty.to_owned()], None));
    }
}

#[test]
fn no_option_is_given_up_twice() {
    let stage = Stage::new();
    let jobs = sixteen(&stage);
    let report = go(&scripted(&stage, "echo 'invalid file mode 00 for f01 [Receiver]' >&2; exit 2"), &jobs);
    assert_eq!((report.runs, report.trouble.unwrap().class), (2, Misconfigured));
}

#[test]
fn a_missing_rsync_is_said() {
    let stage = Stage::new();
    let mut ctx = stage.local();
    ctx.program.path = "/nonexistent/rsync".into();
    let trouble = go(&ctx, &sixteen(&stage)).trouble.unwrap();
    assert!(trouble.class == Misconfigured && trouble.message.contains("rsync is not installed"), "{trouble:?}");
    assert!(trouble.hint.is_some());
}

/// A dry run towards an rsync before 3.5 counts no deletions, so 1,500 of 1,501 files were deleted.
#[test]
fn deletions_are_what_is_listed_whatever_the_statistics_say() {
    let held_back = "echo 'Deletions stopped due to --max-delete limit (1500 skipped)' >&2; exit 25";
    let stats = "echo 'Number of files: 2 (reg: 1, dir: 1)'; echo 'Number of created files: 0'; \
                 echo 'Number of deleted files: 0'; exit 0";
    let listed = "seq -f '*deleting   x%.0f' 1500";
    for (list, words) in [
        (format!("{listed}; {stats}"), "1500 of the 1501 entries"),
        (format!("{listed}; exit 0"), "1500 of the 1500 entries"),
        // Whatever the reason, nobody knows what would be deleted.
        (stats.to_owned(), "lists none of them"),
        ("exit 0".to_owned(), "lists none of them"),
        // The listing has fewer deletions than were held back.
        (format!("echo '*deleting   x'; {stats}"), "1500 of the 2 entries"),
    ] {
        let stage = Stage::new();
        stage.write("a", "a");
        let ctx = scripted(&stage, &format!("[ \"$dry\" ] && {{ {list}; }}; {held_back}"));
        let report = go(&ctx, &[job("", Scope::Subtree, Origin::Reconcile)]);
        let Verdict::Failed(error) = verdict(&report, "") else { panic!("{list}: {report:#?}") };
        assert!(error.code == Some(JobError::DELETES_TOO_MUCH) && error.message.contains(words), "{list}: {error}");
        assert_eq!(report.runs, 2, "{list}: nothing is deleted");
    }
}

/// A login script or `sudo` that printed a message in each run made every job fail, once unknown messages no longer counted
/// as success.
#[test]
fn what_every_run_says_keeps_nothing() {
    let stage = Stage::new();
    let jobs = sixteen(&stage);
    let report = go(&scripted(&stage, "echo \"Today is $$. Authorized use only.\" >&2"), &jobs);
    all_done(&report);
    assert_eq!(report.runs, 2, "the batch, and one about nothing");
}

/// A message that names no known path puts all of them in doubt until the guilty one is found.
#[test]
fn unknown_words_are_nobodys_until_the_guilty_is_found() {
    let stage = Stage::new();
    let jobs = sixteen(&stage);
    // The real run and the dry run both leave out f05 with an unknown message and exit code 0.
    let script = "for path in $list; do\n\
        case $path in */f05) echo 'one was not to my taste' >&2;; *) [ -z \"$dry\" ] || echo \".f          ${path#./}\";; esac\n\
        done\nexit 0";
    let report = go(&scripted(&stage, script), &jobs);
    assert_eq!(failed(&report), ["f05"]);
    // A single path that is confirmed to be equal is done, whatever message there is.
    let script = "[ -n \"$list\" ] && echo 'a remark about something' >&2\n\
        [ -z \"$dry\" ] || for path in $list; do echo \".f          ${path#./}\"; done";
    let ctx = scripted(&stage, script);
    all_done(&go(&ctx, &jobs[..1]));
    let again = go(&ctx, &jobs[..1]);
    all_done(&again);
    assert_eq!(again.runs, 1, "it is known by now");
}

/// The daemon stopped during the probe, but the job's attempt was counted and the error stored.
#[test]
fn a_stop_during_the_probe_after_a_broken_run_burns_no_attempt() {
    let stage = Stage::new();
    stage.write("f", "content");
    let (begun, stop) = (stage.dir.path().join("begun"), StopSignal::new().unwrap());
    let ctx = scripted(
        &stage,
        &format!(
            "case $list in *f*) echo 'rsync: connection unexpectedly closed (7 bytes)' >&2; exit 12;; esac\n\
             touch {}; sleep 60",
            begun.display()
        ),
    );
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            let since = crate::clock::monotonic();
            while !begun.exists() && since.elapsed() < Duration::from_secs(30) {
                std::thread::yield_now();
            }
            stop.raise();
        });
        execute(&ctx, Lane::Small, &entries(&["f"]), Contents::Vouched, NOW, &stop)
    });
    assert!(begun.exists(), "there was no probe");
    assert_eq!((verdict(&report, "f"), &report.trouble), (&Verdict::Released, &None));
}

/// A stop that reached rsync before syncq made the listing of a comparison fail, and put a healthy target in trouble.
#[test]
fn what_a_stop_does_to_rsync_is_no_trouble_of_the_target() {
    let stage = Stage::new();
    let (ctx, stop) = (stage.local(), StopSignal::new().unwrap());
    let run = Run::new(RunKind::Flat, Origin::Scan, Vec::new());
    let ended = |code| {
        let mut stderr = Capture::new(1_000, 0);
        stderr.push(b"rsync error: received SIGINT, SIGTERM, or SIGHUP (code 20)\n");
        Ended { end: End::Exit(code), stderr, stdout: Capture::default(), blocked: None, cut: Cut::No }
    };
    let batch = Execution::new(&ctx, Lane::Small, &[], &stop);
    for code in [10, 12, 20, 30] {
        assert!(matches!(batch.meaning(&run, &ended(code)), Outcome::Target(_) | Outcome::Split(_)), "{code}");
    }
    stop.raise();
    for code in [10, 12, 20, 30] {
        assert_eq!(batch.meaning(&run, &ended(code)), Outcome::Void, "{code}");
    }
}
