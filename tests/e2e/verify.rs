//! `syncq verify`: differences on a target are reported, pending changes are not, and differences can be repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;

use crate::harness::churn::Churn;
use crate::harness::world::soon;
use crate::harness::{Ended, World, make_dir, patterned, wait_until, write};
use crate::operators::{done, json_lines, syncq, target};

/// The lines of one type.
fn of_type<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

/// Kind and path of each difference. Times of directories are left out, since any change in a directory changes them.
fn found(ended: &Ended) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let lines = json_lines(ended);
    let rows = of_type(&lines, "difference").into_iter().map(|row| (text(&row["kind"]), text(&row["path"])));
    rows.filter(|(kind, _)| kind != "time").collect()
}

fn set(expected: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    expected.iter().map(|(kind, path)| ((*kind).to_owned(), (*path).to_owned())).collect()
}

/// A mirror with one file for each kind of damage to come.
fn world(change: impl FnOnce(&mut World)) -> World {
    let mut world = World::new();
    for name in ["d/same", "d/twin", "d/grown", "d/moded", "d/gone", "d/sub/deep", "e/other"] {
        make_dir(world.src.join(name).parent().expect("a parent"));
        write(world.src.join(name), format!("content of {name}"));
    }
    symlink("here", world.src.join("d/link")).expect("cannot link");
    change(&mut world);
    world.start();
    world.converges(soon());
    world
}

/// Damages the content and keeps size and time.
fn twin(world: &World, path: &str) {
    let damaged = world.dsts[0].join(path);
    let meta = fs::metadata(&damaged).expect("the file");
    let mut bytes = fs::read(&damaged).expect("the file");
    bytes[0] ^= 1;
    fs::write(&damaged, bytes).expect("cannot write");
    let file = fs::File::options().write(true).open(&damaged).expect("the file");
    file.set_modified(meta.modified().expect("a time")).expect("cannot set the time");
}

#[test]
fn each_kind_of_difference_is_told_and_repaired() {
    let world = world(|_| {});
    let m1 = target(&world, "m1");
    let equal = syncq(&world, &["verify", "--checksum"]).ok();
    assert_eq!(equal.stdout.matches(": equal; read ").count(), 2, "{}", equal.text());

    let dst = &world.dsts[0];
    twin(&world, "d/twin");
    write(dst.join("d/grown"), "longer than what was there before");
    fs::set_permissions(dst.join("d/moded"), Permissions::from_mode(0o600)).expect("cannot chmod");
    fs::remove_file(dst.join("d/gone")).expect("cannot remove");
    fs::remove_file(dst.join("d/link")).expect("cannot remove");
    symlink("elsewhere", dst.join("d/link")).expect("cannot link");
    fs::remove_dir_all(dst.join("d/sub")).expect("cannot remove");
    write(dst.join("d/sub"), "a file instead of a directory");
    make_dir(dst.join("d/extra/in"));
    write(dst.join("d/extra/in/f"), "on the target alone");
    write(dst.join("e/extra"), "on the target alone");

    let d = world.src.join("d").display().to_string();
    let mut expected = set(&[
        ("size", "d/grown"),
        ("attributes", "d/moded"),
        ("missing", "d/gone"),
        ("content", "d/link"),
        ("type", "d/sub"),
        ("missing", "d/sub/deep"),
        ("extra", "d/extra"),
        ("extra", "d/extra/in"),
        ("extra", "d/extra/in/f"),
    ]);
    let quick = syncq(&world, &["verify", &m1, &d, "--json"]);
    assert_eq!((quick.code, found(&quick)), (Some(1), expected.clone()), "{}", quick.text());
    // The number includes the times of the directories.
    assert!(quick.stderr.contains(" paths differ on 1 of 1 targets\nhint: "), "{}", quick.stderr);

    expected.insert(("content".to_owned(), "d/twin".to_owned()));
    let thorough = syncq(&world, &["verify", "--path", &d, "-c", "--json"]);
    assert_eq!((thorough.code, found(&thorough)), (Some(1), expected.clone()), "{}", thorough.text());
    expected.insert(("extra".to_owned(), "e/extra".to_owned()));
    let all = syncq(&world, &["verify", "-c", "--repair", "--json"]);
    assert_eq!((all.code, found(&all)), (Some(1), expected), "{}", all.text());
    let lines = json_lines(&all);
    let ends = of_type(&lines, "target");
    let m1_end = ends.iter().find(|end| end["target"] == m1.as_str()).expect("m1's end");
    assert!(m1_end["repaired"] == m1_end["differences"] && m1_end["error"].is_null(), "{m1_end}");
    assert!(ends.iter().any(|end| end["target"] != m1.as_str() && end["differences"] == 0), "{ends:?}");

    done(&world, &["wait", "--timeout", "60s"]);
    world.converges(soon());
    done(&world, &["verify", "-c"]);
}

/// A path that is not mirrored is no difference, whether the user's expressions or a temporary file's name exclude it.
#[test]
fn what_is_filtered_is_no_difference() {
    for excludes in [vec![], vec![r"(.*)\.log".to_owned(), "cache/(.*)".to_owned()]] {
        let filtered = !excludes.is_empty();
        let world = world(|world| world.conf.excludes = excludes);
        for dst in &world.dsts {
            make_dir(dst.join("d/holder"));
            write(dst.join("d/holder/x.log"), "on the target alone");
            write(dst.join("d/.f.swp"), "a temporary");
        }
        if filtered {
            make_dir(world.src.join("cache"));
            write(world.src.join("cache/f"), "not mirrored");
            write(world.src.join("d/y.log"), "not mirrored");
        }
        let ended = syncq(&world, &["verify", "--json"]);
        let expected = if filtered { set(&[]) } else { set(&[("extra", "d/holder"), ("extra", "d/holder/x.log")]) };
        assert_eq!(found(&ended), expected, "{}", ended.text());
    }
}

#[test]
fn without_deletions_what_is_in_excess_is_no_difference() {
    let world = world(|world| world.conf.delete = false);
    write(world.dsts[0].join("e/extra"), "on the target alone");
    let ended = syncq(&world, &["verify", "--json"]);
    assert_eq!(found(&ended), set(&[]), "{}", ended.text());
    fs::remove_file(world.dsts[0].join("e/other")).expect("cannot remove");
    let ended = syncq(&world, &["verify", "--json"]);
    assert_eq!(found(&ended), set(&[("missing", "e/other")]), "{}", ended.text());
}

#[test]
fn a_name_that_is_no_text_comes_in_base64() {
    let name = OsStr::from_bytes(b"caf\xe9");
    let world = world(|world| write(world.src.join(name), "content"));
    fs::remove_file(world.dsts[0].join(name)).expect("cannot remove");
    let ended = syncq(&world, &["verify", "--json", "--target", &target(&world, "m1")]);
    let lines = json_lines(&ended);
    let rows = of_type(&lines, "difference");
    let row = rows.iter().find(|row| row["kind"] == "missing").expect("the row");
    assert!(row["path"] == "caf\\xe9" && row["path_b64"] == "Y2Fm6Q==", "{row}");
}

/// The other target is compared all the same.
#[test]
fn a_target_out_of_reach_is_named_with_its_trouble() {
    let world = world(|_| {});
    let (m1, m2) = (target(&world, "m1"), target(&world, "m2"));
    // The state after a failed mount.
    fs::rename(&world.dsts[0], world.base().join("away")).expect("cannot rename");
    fs::remove_file(world.dsts[1].join("e/other")).expect("cannot remove");
    let ended = syncq(&world, &["verify", "--json"]);
    assert_eq!(ended.code, Some(1), "{}", ended.text());
    assert_eq!(found(&ended), set(&[("missing", "e/other")]), "{}", ended.text());
    let lines = json_lines(&ended);
    let end = |name: &str| *of_type(&lines, "target").iter().find(|end| end["target"] == name).expect("an end");
    assert!(end(&m1)["error"].as_str().is_some_and(|error| error.contains("missing on the server")), "{}", end(&m1));
    assert!(end(&m1)["hint"].is_string() && end(&m2)["error"].is_null(), "{ended:?}");
    assert!(ended.stderr.contains(&m1) && ended.stderr.contains("\nhint: "), "{}", ended.stderr);
    for wrong in [&["verify", "nowhere::x", "/"][..], &["verify", "/nowhere"]] {
        let refused = syncq(&world, wrong);
        assert!(refused.code == Some(1) && refused.stderr.contains("\nhint: "), "{}", refused.text());
    }
    // The word was taken for a path, which is missing everywhere and therefore equal.
    let misspelt = syncq(&world, &["verify", "nowhere::x"]);
    assert!(misspelt.code == Some(2) && misspelt.stderr.contains("is no target"), "{}", misspelt.text());
}

/// All kinds of changes while the trees are compared: none of them is a difference. `SYNCQ_VERIFIES=100` makes that many
/// comparisons, each with a seed of its own.
#[test]
fn a_mirror_under_churn_raises_no_alarm() {
    // Without attrib a changed mode would really be a difference.
    let world = world(|world| world.conf.attrib = true);
    let outside = world.side("outside");
    let rounds = std::env::var("SYNCQ_VERIFIES").ok().and_then(|count| count.parse().ok()).unwrap_or(2);
    let (stop, round) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut churns: BTreeMap<u64, Churn> = BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                let seed = round.load(Ordering::Relaxed);
                let churn = churns.entry(seed).or_insert_with(|| Churn::new(seed, &world.src, &outside));
                churn.step();
                churn.pause();
            }
        });
        for n in 0..rounds {
            round.store(n, Ordering::Relaxed);
            let round = n;
            let args: &[&str] = if round % 2 == 0 { &["verify", "--json"] } else { &["verify", "--json", "-c"] };
            let ended = syncq(&world, args);
            let lines = json_lines(&ended);
            let alarms = of_type(&lines, "difference");
            // On a busy machine, changes under rsync may break off a comparison as often as it is begun again.
            let broke =
                |line: &&Value| line["error"].as_str().is_some_and(|error| error.starts_with("the connection broke"));
            let broken = of_type(&lines, "target").iter().filter(|line| broke(line)).count();
            // A path that keeps changing is not seen to be equal either.
            let busy = of_type(&lines, "busy").len();
            let expected = i32::from(broken > 0 || busy > 0);
            if !alarms.is_empty() || ended.code != Some(expected) {
                stop.store(true, Ordering::Relaxed);
                panic!("round {round}: {}", ended.text());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    done(&world, &["wait", "--timeout", "60s"]);
    done(&world, &["verify", "-c"]);
}

/// A change that waits for a pause is pending as well.
#[test]
fn what_is_held_up_is_busy_and_no_difference() {
    let world = world(|_| {});
    let m1 = target(&world, "m1");
    done(&world, &["pause", &m1]);
    write(world.src.join("d/new"), "new");
    wait_until(soon(), "the other target", || world.arrived(1, "d/new"));
    let ended = syncq(&world, &["verify", &m1, "--json"]);
    let lines = json_lines(&ended);
    assert_eq!((ended.code, of_type(&lines, "difference").len()), (Some(1), 0), "{}", ended.text());
    assert!(of_type(&lines, "busy").iter().any(|row| row["path"] == "d/new"), "{}", ended.text());
    let shown = syncq(&world, &["verify", &m1]);
    assert!(
        shown.code == Some(1)
            && shown.stdout.contains("\tbusy\td/new\n")
            && shown.stdout.contains(" still pending or changing"),
        "{}",
        shown.stdout
    );
    done(&world, &["resume", &m1]);
}

/// Checked by the reported rate: 24 MB at 8 MB per second.
#[test]
fn a_budget_bounds_what_is_read() {
    let world = world(|world| {
        for n in 0..6 {
            write(world.src.join(format!("d/big{n}")), patterned(n, 4_000_000));
        }
    });
    let told = |budget: &[&str]| {
        let m1 = target(&world, "m1");
        let ended = syncq(&world, &[&["verify", &m1, "-c", "--json"], budget].concat()).ok();
        let lines = json_lines(&ended);
        let end = of_type(&lines, "target")[0].clone();
        (end["bytes_read"].as_f64().expect("a number"), end["elapsed_s"].as_f64().expect("a number"))
    };
    let (bytes, _) = told(&[]);
    // Only root is told the bytes of the last reads, so others get a smaller number.
    let is_told = |bytes: f64, all: f64| bytes >= if crate::harness::is_root() { 24e6 } else { all };
    assert!(is_told(bytes, 1.0), "all contents are read: {bytes}");
    let (bytes, elapsed_s) = told(&["--budget", "8"]);
    assert!(is_told(bytes, 22e6) && bytes / elapsed_s <= 8e6 * 1.25, "{bytes} bytes in {elapsed_s} s");
    // No process is left stopped.
    write(world.src.join("d/after"), "after");
    wait_until(soon(), "a change", || world.arrived(0, "d/after") && world.arrived(1, "d/after"));
}

/// How many comparisons the daemon has begun, by the commands in its log.
fn begun(world: &World) -> usize {
    world.daemon.as_ref().expect("it runs").log_text().matches("--out-format=").count()
}

/// A world with a file that takes minutes to compare by content at a small budget. Whether rsync can be seen meanwhile is a
/// matter of chance: it may have read everything at once, and the pause that pays for the reading comes after its end.
fn slow_world() -> World {
    world(|world| {
        world.conf.debug = true;
        // The standby is off, so that every rsync that runs is comparing.
        world.conf.syncq = "<transfer standby=\"false\"/>".to_owned();
        write(world.src.join("d/big"), patterned(1, 8_000_000));
    })
}

/// Begins such a comparison.
fn slowly(world: &World, stdout: Stdio) -> Child {
    let before = begun(world);
    let mut command = world.cli.command();
    command.args(["verify", "--json", "-c", "--budget", "0.1", "--state-dir"]).arg(&world.cli.state).stdout(stdout);
    let mut client = command.spawn().expect("cannot start syncq verify");
    wait_until(soon(), "the comparison", || {
        let ended = client.try_wait().expect("cannot look after syncq verify");
        assert!(ended.is_none(), "it ended by itself\n{}", world.daemon.as_ref().expect("it runs").log_text());
        begun(world) > before
    });
    client
}

/// A comparison is paused to keep its budget. Neither the end of its client nor a stop of the daemon waits for it.
#[test]
fn a_slow_comparison_ends_with_its_client_and_with_the_daemon() {
    let mut world = slow_world();
    let mut client = slowly(&world, Stdio::null());
    let refused = syncq(&world, &["verify"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("another comparison"), "{}", refused.text());
    client.kill().expect("cannot end syncq verify");
    client.wait().expect("cannot wait for syncq verify");
    wait_until(soon(), "the end of its rsync", || world.daemon().rsyncs().is_empty());
    wait_until(soon(), "room for another", || syncq(&world, &["verify", "d/same"]).code == Some(0));
    let mut client = slowly(&world, Stdio::null());
    world.stop();
    client.wait().expect("cannot wait for syncq verify");
}

/// Otherwise the state under the old configuration would be reported as a difference under the new one.
#[test]
fn a_comparison_ends_with_the_configuration_that_it_is_about() {
    let mut world = slow_world();
    let client = slowly(&world, Stdio::piped());
    world.conf.excludes = vec![r"(.*)\.log".to_owned()];
    world.conf.local_paths[0].remotes.truncate(1);
    world.conf.save();
    done(&world, &["reload"]);
    let output = client.wait_with_output().expect("cannot wait for syncq verify");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((output.status.code(), of_type(&lines, "difference").len()), (Some(1), 0), "{text}");
    let ends = of_type(&lines, "target");
    let told = |end: &&&Value| end["error"].as_str().is_some_and(|error| error.contains("configuration has changed"));
    // The first target was being compared; the second is no longer configured.
    assert_eq!((ends.len(), ends.iter().filter(told).count()), (2, 2), "{text}");
    world.stop();
}
