//! Mirrors in opposite directions.

use std::ffi::OsString;

use crate::harness::world::soon;
use crate::harness::{Daemon, World, secs, wait_for, write};

/// Starts a mirror from the first module's directory back to the source. Returns its daemon.
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

/// If contents may not be compared, two mirrors send a file back and forth for ever, and nobody was told.
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
    let (file, state) = (src.join("f"), world.cli.state.to_str().expect("text").to_owned());
    wait_for(secs(180), "the loop to be told", || {
        // The first comparison of the other mirror may take the file for deleted.
        if !file.exists() {
            write(&file, "back and forth");
        }
        let json = world.cli.try_status()?.json;
        let root = &json["roots"][0];
        let told = root["reason"].to_string().contains(" is sent") && root["hint"].to_string().contains("opposite");
        let said = world.cli.run(["explain", file.to_str().expect("text"), "--state-dir", &state]);
        // `explain` has to say so whatever the file's job waits for at the moment.
        let explained = said.stdout.contains("does another mirror");
        if told && explained { Ok(()) } else { Err(format!("{json}\n{}", said.text())) }
    });
}

/// Two equal trees come to rest.
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
