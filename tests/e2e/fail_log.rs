//! failLog: the readable list of failures, and the import of the work in sersync's script.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::harness::world::soon;
use crate::harness::{Conf, Daemon, World, make_dir, secs, wait_for, wait_until, write};

#[track_caller]
fn list_says(path: &Path, texts: &[&str]) -> String {
    wait_for(soon(), "the list", || {
        let list = fs::read_to_string(path).map_err(|e| e.to_string())?;
        let missing: Vec<_> = texts.iter().filter(|text| !list.contains(**text)).collect();
        if missing.is_empty() { Ok(list) } else { Err(format!("{missing:?} is not in:\n{list}")) }
    })
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("the list").permissions().mode() & 0o777
}

#[test]
fn the_list_says_what_is_failing_and_when_nothing_is() {
    let mut world = World::new();
    // sersync leaves an empty file that everybody may write.
    write(&world.conf.fail_log, "");
    fs::set_permissions(&world.conf.fail_log, fs::Permissions::from_mode(0o777)).expect("cannot chmod");
    write(world.src.join("file"), "content");
    world.start_daemon(&[]);
    let log = world.conf.fail_log.clone();
    let src = world.src.display().to_string();
    let down = format!("{src} -> 127.0.0.1::m1: nothing can be sent: nothing listens on that port");
    let command = format!("#   cd {src} && printf '%s\\0' ./ | rsync -artz");
    let list = list_says(&log, &[&down, "127.0.0.1::m2", "hint: start rsyncd", "since 20", "next try 20", &command]);
    assert_eq!(mode(&log), 0o600);
    // A user who still runs the list does no harm: it contains only comments.
    assert!(list.lines().all(|line| line.starts_with('#')), "{list}");
    world.rsyncd.start();
    world.converges(soon());
    list_says(&log, &["# Nothing is failing."]);
    world.stop();
    list_says(&log, &["# Nothing is failing.", "syncq has been stopped"]);
    assert_eq!(mode(&log), 0o600);
}

#[test]
fn a_path_that_fails_is_listed_with_its_command() {
    let mut world = World::new();
    let secret = world.src.join("secret file");
    write(&secret, "content");
    write(world.src.join("other"), "content");
    world.become_nobody();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("cannot chmod");
    world.start();
    let log = world.conf.fail_log.clone();
    let list =
        list_says(&log, &["127.0.0.1::m1: secret file: ", "127.0.0.1::m2: secret file: ", "tried ", "next try 20"]);
    assert!(list.contains("./secret file' | rsync -artz") || list.contains("'./secret file'"), "{list}");
    assert!(world.arrived(0, "other") && world.arrived(1, "other"));
    fs::remove_file(&secret).expect("cannot remove");
    world.converges(secs(150));
    list_says(&log, &["# Nothing is failing."]);
    world.stop();
}

/// S3: a link in a directory that others may write must not lead to another file. L8e: a missing directory costs only the list.
#[test]
fn s3_l8e_a_link_or_a_missing_directory_costs_the_list_only() {
    let mut world = World::new();
    let victim = world.base().join("victim");
    write(&victim, "precious");
    symlink(&victim, &world.conf.fail_log).expect("cannot link");
    world.start();
    write(world.src.join("file"), "content");
    world.converges(soon());
    let says = |world: &mut World, text: &str| {
        let log = world.daemon().log.clone();
        wait_until(soon(), text, || fs::read_to_string(&log).is_ok_and(|log| log.contains(text)));
    };
    says(&mut world, "is not written: it is a symbolic link");
    world.stop();
    assert_eq!(fs::read_to_string(&victim).expect("the victim"), "precious");
    assert!(world.conf.fail_log.is_symlink());

    let missing = world.base().join("not/yet");
    world.conf.fail_log = missing.join("list");
    world.rsyncd.stop();
    world.start_daemon(&[]);
    write(world.src.join("file"), "changed");
    says(&mut world, "list is not written: No such file or directory");
    make_dir(&missing);
    list_says(&missing.join("list"), &["nothing listens on that port"]);
    world.rsyncd.start();
    world.converges(soon());
    world.stop();
}

/// An old script may contain work: it is kept, and the log says how to import it.
#[test]
fn an_old_script_is_kept_and_can_be_taken_over() {
    let mut world = World::new();
    let src = world.src.display().to_string();
    let tail = "127.0.0.1::m1 --password-file=/etc/rsync.password >/dev/null 2>&1 ";
    let trap = world.base().join("PWNED");
    let script = format!(
        "#errno 2560\ncd {src} && rsync -artuz -R \"./up\" {tail}\n\n\
         #errno 3072\ncd {src} && rsync -artuz -R --delete ./   --include=\"dir/\" --include=\"dir/gone\" --exclude=*  {tail}\n\n\
         touch {0}\n#errno 2560\ncd {src} && rsync -artuz -R \"./a`touch {0}`b\" {tail}\n\n\
         #errno 2560\ncd {src} && rsync -artuz -R \"./up\" other::m1 >/dev/null 2>&1 \n\n",
        trap.display()
    );
    write(&world.conf.fail_log, &script);
    world.start();
    world.converges(soon());
    let log = world.daemon().log.clone();
    let hint = format!("hint: take over what sersync left: syncq import-faillog {}", world.conf.fail_log.display());
    wait_until(soon(), "the hint", || fs::read_to_string(&log).is_ok_and(|log| log.contains(&hint)));
    assert_eq!(fs::read_to_string(&world.conf.fail_log).expect("the script"), script);

    // Behind the daemon's back, the target lacks the paths in the script.
    write(world.src.join("up"), "content");
    make_dir(world.src.join("dir"));
    world.converges(soon());
    let damage = |world: &World| {
        fs::remove_file(world.dsts[0].join("up")).expect("cannot remove");
        write(world.dsts[0].join("dir/gone"), "should go");
    };
    let import = |world: &World| {
        let state = world.cli.state.clone();
        let file = world.conf.fail_log.clone();
        let args = [OsStr::new("import-faillog"), file.as_ref(), "--state-dir".as_ref(), state.as_ref()];
        let ended = world.cli.run(args);
        assert_eq!(ended.code, Some(1), "{}", ended.text());
        assert!(ended.stdout.ends_with("queued: 3, skipped: 2\n"), "{}", ended.text());
        for expected in [":7: skipped: this is no command", ":12: skipped: ", "is not mirrored to other::m1"] {
            assert!(ended.stdout.contains(expected), "{expected}: {}", ended.text());
        }
    };
    let base = world.base().as_os_str().to_owned();
    let ended = world.cli.run([OsStr::new("import-faillog"), &base]);
    assert!(ended.code == Some(2) && ended.text().contains("is a directory"), "{}", ended.text());
    damage(&world);
    import(&world);
    world.converges(soon());

    // The same without a daemon: the jobs stay in the store until the next start.
    damage(&world);
    world.stop();
    import(&world);
    let jobs = world.cli.list();
    let paths: Vec<&str> = jobs.iter().filter_map(|job| job["path"].as_str()).collect();
    assert!(["up", "dir/gone"].iter().all(|path| paths.contains(path)), "{paths:?}");
    world.daemon().restart();
    world.converges(soon());
    world.stop();
    assert!(!trap.exists() && !Path::new("PWNED").exists());
}

/// L8c: the configurations of two daemons name the same file.
#[test]
fn l8c_two_daemons_do_not_write_over_each_others_list() {
    let mut world = World::new();
    let (second, target) = (world.side("second"), world.side("m3"));
    world.rsyncd.module("m3", &target);
    let mut other = Conf::new(world.base(), "other.xml", world.rsyncd.port);
    other.fail_log.clone_from(&world.conf.fail_log);
    other.root(&second, &[("127.0.0.1", "m3")]);
    let other_conf = other.save();
    write(world.src.join("file"), "first");
    write(second.join("file"), "second");
    world.start_daemon(&[]);
    let log = world.conf.fail_log.clone();
    list_says(&log, &["127.0.0.1::m1: nothing can be sent"]);
    let mut cli = world.cli.clone();
    cli.state = world.base().join("state2");
    cli.home = world.side("home2");
    let args = [OsStr::new("run"), "-o".as_ref(), other_conf.as_ref(), "--state-dir".as_ref(), cli.state.as_ref()];
    let mut beside = Daemon::start(&cli, args);
    wait_until(soon(), "the warning", || {
        let text = beside.log_text();
        text.contains("is not written: the syncq in") && text.contains("give each configuration a failLog of its own")
    });
    list_says(&log, &["127.0.0.1::m1: nothing can be sent"]);
    world.rsyncd.start();
    world.converges(soon());
    wait_until(soon(), "the other's file", || fs::read(target.join("file")).is_ok_and(|found| found == b"second"));
    beside.stop();
    world.stop();
}

/// L8d: in sersync's script one name with a quote kept every other command from running.
#[test]
fn l8d_odd_names_hold_up_no_retry() {
    let mut world = World::new();
    world.start_daemon(&[]);
    for name in ["bad\"", "back\\", "`tick", "$(x", "new\nline", "plain"] {
        write(world.src.join(name), "content");
    }
    let log = world.conf.fail_log.clone();
    let list = list_says(&log, &["127.0.0.1::m1: nothing can be sent"]);
    assert!(list.lines().all(|line| line.starts_with('#')), "{list}");
    world.rsyncd.start();
    world.converges(soon());
    world.stop();
}

/// L8: in sersync neither retries nor whole-tree runs happened while any path kept failing.
#[test]
fn l8_a_path_that_keeps_failing_holds_up_neither_retries_nor_comparisons() {
    let mut world = World::new();
    let (failing, healed) = (world.src.join("failing"), world.src.join("healed"));
    for path in [&failing, &healed, &world.src.join("fine")] {
        write(path, "content");
    }
    world.become_nobody();
    let closed = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("cannot chmod");
    closed(&failing, 0o000);
    closed(&healed, 0o000);
    world.conf.attrib = true;
    world.conf.schedule = Some("*/2 * * * * *".to_owned());
    world.start();
    let log = world.conf.fail_log.clone();
    list_says(&log, &["m1: failing: ", "m1: healed: "]);
    // Makes the path fail anew. Called again and again while the retry and the comparison are awaited.
    let keep_failing = |n: u64| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000 + n);
        closed(&failing, 0o200);
        crate::harness::set_mtime(&failing, time);
        closed(&failing, 0o000);
    };
    fs::remove_file(world.dsts[0].join("fine")).expect("cannot remove");
    closed(&healed, 0o644);
    let mut n = 0;
    wait_until(secs(150), "the retry and the comparison", || {
        n += 1;
        keep_failing(n);
        world.arrived(0, "healed") && world.arrived(1, "healed") && world.arrived(0, "fine")
    });
    closed(&failing, 0o644);
    world.converges(secs(150));
    world.stop();
}
