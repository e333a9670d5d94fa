//! Plugins and the list of failures follow a configuration that is read again.

use std::fs;
use std::path::Path;

use super::{second, taken, walks};
use crate::harness::config::LocalPath;
use crate::harness::world::soon;
use crate::harness::{World, wait_until, write};

/// A plugin that stays delivers its pending notices; a new plugin is told of later changes.
#[test]
fn plugins_follow_the_configuration() {
    let mut world = World::new();
    let (old, new) = (world.base().join("old"), world.base().join("new"));
    let section = |file: &Path| {
        format!(
            "<plugin name=\"command\"><param prefix=\"sh -c 'echo &quot;$1&quot; >> {}' -\" suffix=\"\" \
             ignoreError=\"true\"/><filter start=\"false\"/></plugin>",
            file.display()
        )
    };
    let told = |file: &Path, path: &str| fs::read_to_string(file).is_ok_and(|text| text.contains(path));
    world.conf.plugin = Some("command".to_owned());
    world.conf.plugin_sections = section(&old);
    world.start();
    write(world.src.join("one"), "1");
    wait_until(soon(), "the first notice", || told(&old, "/one"));
    // The target changes; the plugin stays the same.
    world.conf.local_paths[0].remotes.truncate(1);
    let _ = taken(&world);
    write(world.src.join("two"), "2");
    wait_until(soon(), "the second notice", || told(&old, "/two"));
    world.conf.plugin_sections = section(&new);
    assert_eq!(taken(&world)["changes"]["others"], true);
    write(world.src.join("three"), "3");
    wait_until(soon(), "the third notice", || told(&new, "/three"));
    assert!(!told(&old, "/three"));
    world.conf.plugin = None;
    let _ = taken(&world);
    let status = world.cli.status().json;
    assert_eq!(status["plugins"], serde_json::json!([]));
    world.stop();
}

/// With `-m` there are no targets, and the watchers produce the notices.
#[test]
fn a_plugin_that_runs_alone_follows_the_configuration() {
    let mut world = World::new();
    let (old, new, src2) = (world.base().join("old"), world.base().join("new"), world.side("src2"));
    let section = |file: &Path| {
        format!(
            "<plugin name=\"command\"><param prefix=\"sh -c 'echo &quot;$1&quot; >> {}' -\" suffix=\"\" \
             ignoreError=\"true\"/><filter start=\"false\"/></plugin>",
            file.display()
        )
    };
    let told = |file: &Path, path: &str| fs::read_to_string(file).is_ok_and(|text| text.contains(path));
    world.conf.plugin_sections = section(&old);
    world.start_with(&["-m", "command"]);
    write(world.src.join("one"), "1");
    wait_until(soon(), "the first notice", || told(&old, "/src/one"));
    world.conf.plugin_sections = section(&new);
    world.conf.local_paths.push(LocalPath { watch: src2.display().to_string(), remotes: vec![second()] });
    assert_eq!(taken(&world)["changes"]["roots"]["added"], 1);
    write(world.src.join("two"), "2");
    write(src2.join("three"), "3");
    wait_until(soon(), "the other notices", || told(&new, "/src/two") && told(&new, "/src2/three"));
    assert!(!told(&old, "/src/two"));
    assert_eq!(walks(&world, &world.src), 1);
    world.stop();
}

/// A list that the new configuration replaces by another one says that it is no longer kept.
#[test]
fn fail_logs_follow_the_configuration() {
    let mut world = World::new();
    world.start();
    let (old, new) = (world.conf.fail_log.clone(), world.base().join("another list"));
    wait_until(soon(), "the list", || fs::read_to_string(&old).is_ok_and(|text| text.contains("Nothing is failing")));
    world.conf.fail_log = new.clone();
    let _ = taken(&world);
    wait_until(soon(), "the other list", || {
        fs::read_to_string(&new).is_ok_and(|text| text.contains("Nothing is failing"))
    });
    wait_until(soon(), "the last words", || fs::read_to_string(&old).is_ok_and(|text| text.contains("no longer kept")));
    world.stop();
}
