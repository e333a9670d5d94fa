//! Why a path is not mirrored, and how `status` follows a daemon.

use std::fs;

use serde_json::Value;

use super::{done, mirrored, put, syncq, target};
use crate::harness::world::soon;
use crate::harness::{World, wait_for, wait_until, write};

#[test]
fn a_path_is_explained_from_the_rule_to_the_command_line() {
    let mut world = World::new();
    world.conf.excludes = vec![r"(.*)\.log".to_owned(), "cache/(.*)".to_owned()];
    for name in ["d/f", "d/x.log", "cache/deep/f"] {
        put(world.src.join(name), "content");
    }
    world.start();
    done(&world, &["wait", "--timeout", "60s"]);
    let (cli, src, state) = (world.cli.clone(), world.src.clone(), world.cli.state.display().to_string());
    let explained = |path: &str| -> Value {
        let ended = cli.run(["explain", path, "--json", "--state-dir", &state]).ok();
        serde_json::from_str(&ended.stdout).expect("JSON")
    };
    let whole = |name: &str| src.join(name).display().to_string();
    let about = explained(&whole("d/x.log"));
    assert!(about["mirrored"] == false && about["rule"].as_str().expect("a rule").contains(r"(.*)\.log"), "{about}");
    let about = explained(&whole("cache/deep/f"));
    assert!(about["rule"].as_str().expect("a rule").contains("cache/"), "{about}");
    assert!(explained(&whole("d/.f.swp"))["rule"].as_str().expect("a rule").contains("temporary"));

    let about = explained("d/f");
    assert!(about["mirrored"] == true && about["source"] == "file" && about["path"] == "d/f", "{about}");
    assert_eq!(about["targets"].as_array().map(Vec::len), Some(2));
    assert!(about["targets"][0]["job"].is_null() && about["targets"][0]["waits_for"].is_null(), "{about}");
    assert!(about["targets"][0]["last_success_at"].is_string(), "{about}");
    // The printed command line really sends the path.
    let command = about["targets"][0]["command"].as_str().expect("a command").to_owned();
    for dst in &world.dsts {
        write(dst.join("d/f"), "damaged");
    }
    let ran = std::process::Command::new("bash").args(["-c", &command]).status().expect("cannot start bash");
    assert!(ran.success() && world.arrived(0, "d/f") && !world.arrived(1, "d/f"), "{command}");

    done(&world, &["pause", &target(&world, "m1")]);
    write(world.src.join("d/f"), "changed");
    wait_until(soon(), "the other target", || world.arrived(1, "d/f"));
    let about = explained(&whole("d/f"));
    let m1 = &about["targets"][0];
    assert!(m1["state"] == "paused" && m1["job"]["path"] == "d/f", "{about}");
    assert!(m1["waits_for"].as_str().expect("a reason").contains("syncq resume"), "{about}");
    assert!(explained(&whole("d/x.log"))["targets"][0]["command"].is_null(), "a command that nobody runs");
    let page = syncq(&world, &["explain", &whole("d/f")]).ok().stdout;
    assert!(page.contains("\n  waits for: an operator: the target is paused since "), "{page}");

    done(&world, &["resume", "--all"]);
    done(&world, &["wait", "--timeout", "60s"]);
    world.rsyncd.stop();
    fs::remove_file(world.src.join("d/f")).expect("cannot remove a file");
    wait_for(soon(), "the trouble to be explained", || {
        let about = explained(&whole("d/f"));
        let reason = about["targets"][1]["waits_for"].as_str().unwrap_or_default().to_owned();
        let knows = about["source"] == "nothing" && reason.starts_with("the target: ");
        if knows && about["targets"][1]["next_try"].is_string() { Ok(()) } else { Err(about.to_string()) }
    });
    world.stop();
    let about = explained(&whole("d/f"));
    let m2 = &about["targets"][1];
    assert!(about["mirrored"].is_null() && about["source"] == "nothing" && m2["state"] == "offline", "{about}");
    assert!(m2["job"]["path"] == "d/f" && m2["waits_for"].as_str().is_some_and(|on| on.contains("daemon")), "{about}");
    let nowhere = syncq(&world, &["explain", "/nowhere"]);
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("hint: "), "{}", nowhere.text());
}

/// `status --watch` goes on through a stop and a start of the daemon.
#[test]
fn a_watched_status_follows_the_daemon() {
    let mut world = mirrored();
    let shown = world.base().join("watched");
    let mut command = world.cli.command();
    command.args(["status", "--watch=100ms", "--json", "--state-dir"]).arg(&world.cli.state);
    let mut watching =
        command.stdout(fs::File::create(&shown).expect("a file")).spawn().expect("cannot start syncq status");
    let last_is = |state: &str| {
        let text = fs::read_to_string(&shown).expect("the output");
        let last = text.lines().last().unwrap_or_default().to_owned();
        if last.contains(&format!(r#""state":"{state}""#)) { Ok(()) } else { Err(last) }
    };
    wait_for(soon(), "a running daemon", || last_is("running"));
    world.stop();
    wait_for(soon(), "a stopped daemon", || last_is("offline"));
    world.daemon().restart();
    wait_for(soon(), "the daemon again", || last_is("running"));
    watching.kill().expect("cannot end syncq status");
    watching.wait().expect("cannot wait for syncq status");
}
