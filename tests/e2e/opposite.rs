//! Mirrors in opposite directions.

use std::ffi::OsString;

use crate::harness::world::soon;
use crate::harness::{Daemon, World, secs, wait_for, write};

/// A mirror from the first module's directory back to the source, whose daemon it returns.
fn back(world: &mut World) -> Daemon {
    let mut cli = world.cli.clone();
    cli.state = world.base().join("state of the other");
    let mut args: Vec<OsString> =
        vec!["mirror".into(), world.dsts[0].clone().into(), world.rsyncd.remote("back").into()];
    args.extend([
        "--port".into(),
        world.rsyncd.port.to_string().into(),
        "--state-dir".into(),
        cli.state.clone().into(),
    ]);
    Daemon::start(&cli, args)
}

/// Where contents may not be compared, two mirrors send a file back and forth for ever, and nobody was told.
#[test]
fn a_loop_that_does_not_end_is_told() {
    let mut world = World::new();
    let src = world.src.clone();
    world.rsyncd.module("back", &src);
    for module in ["m1", "back"] {
        world.rsyncd.module_option(module, "refuse options", "checksum");
    }
    write(src.join("stays"), "stays");
    world.start();
    let _other = back(&mut world);
    write(src.join("f"), "back and forth");
    wait_for(secs(180), "the loop to be told", || {
        let json = world.cli.try_status()?.json;
        let root = &json["roots"][0];
        let told = root["reason"].to_string().contains("f is sent") && root["hint"].to_string().contains("opposite");
        if told { Ok(()) } else { Err(json.to_string()) }
    });
    let state = world.cli.state.to_str().expect("text").to_owned();
    let said = world.cli.run(["explain", src.join("f").to_str().expect("text"), "--state-dir", &state]).ok();
    assert!(said.stdout.contains("does another mirror") || said.stdout.contains("its run"), "{}", said.text());
}

/// What is equal rests.
#[test]
fn two_mirrors_come_to_rest_and_nothing_is_told() {
    let mut world = World::new();
    let src = world.src.clone();
    world.rsyncd.module("back", &src);
    write(src.join("stays"), "stays");
    world.start();
    let _other = back(&mut world);
    for n in 0..15 {
        write(src.join("f"), format!("version {n}"));
        world.converges(soon());
    }
    let json = world.cli.status().json;
    assert!(json["roots"][0]["reason"].is_null(), "{json}");
}
