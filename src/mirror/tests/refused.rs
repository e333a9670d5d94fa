//! Runs whose server refuses an option that syncq adds: they do without the option, or say that they need it.

use super::*;

/// A batch for the whole tree, then one for each kind of change. The first trouble, if there is one.
fn mirror(stage: &Stage, ctx: &TargetContext) -> Option<String> {
    let stop = StopSignal::new().unwrap();
    let run = |lane, jobs: &[ClaimedJob]| {
        let report = execute(ctx, lane, jobs, Contents::Vouched, NOW, &stop);
        let undone = report.verdicts.iter().find_map(|(path, verdict)| match verdict {
            Verdict::Failed(error) => Some(format!("{path}: {}", error.message)),
            _ => None,
        });
        report.trouble.map(|trouble| format!("{} ({})", trouble.message, trouble.hint.unwrap_or_default())).or(undone)
    };
    stage.write("a", "1");
    stage.write("d/b", "2");
    stage.write("e/c", "3");
    let whole = job("", Scope::Subtree, Origin::Reconcile);
    if let Some(trouble) = run(Lane::Large, std::slice::from_ref(&whole)) {
        return Some(trouble);
    }
    stage.write("a", "of another length");
    stage.write("large", &"x".repeat(100_000));
    std::fs::remove_file(stage.src("d/b")).unwrap();
    std::fs::remove_dir_all(stage.src("e")).unwrap();
    stage.write("e", "a file now");
    run(Lane::Large, &entries(&["large"])).or_else(|| run(Lane::Small, &entries(&["a", "d/b", "e"])))
}

/// The paths that differ by name or content.
fn differs(stage: &Stage) -> String {
    let output = Command::new("diff").arg("-rq").args([stage.src(""), stage.dst("")]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Nothing arrived, and the first message was hidden by its consequence.
#[test]
fn each_option_that_is_added_is_done_without_or_named() {
    for (refused, words) in [
        ("modify-window", None),
        ("partial-dir", None),
        // Without --force only a comparison, which deletes, makes way.
        ("force", Some("could not make way for new regular file: e")),
        ("checksum", None),
        ("ignore-times", None),
        ("checksum ignore-times", Some("refuse --checksum")),
        ("delete-missing-args", None),
        ("fuzzy link-dest", None),
        ("modify-window partial-dir ignore-times delete-missing-args", None),
        ("max-delete", Some("refuse --max-delete")),
        ("relative", Some("--relative")),
        ("recursive", Some("recursive")),
        ("log-format", Some("log-format")),
    ] {
        let stage = Stage::with_daemon(&format!("refuse options = {refused}"), "");
        let ctx = stage.module("m");
        let trouble = mirror(&stage, &ctx);
        match words {
            // Times of directories may differ within the second where nanoseconds are refused.
            None => assert_eq!((trouble, differs(&stage)), (None, String::new()), "{refused}"),
            Some(words) => {
                let trouble = trouble.unwrap_or_else(|| panic!("{refused} does not matter"));
                assert!(trouble.contains(words), "{refused}: {trouble}");
                assert!(refused == "force" || trouble.contains("refuse options"), "{refused}: {trouble}");
            }
        }
    }
}
