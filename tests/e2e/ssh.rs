//! Targets behind ssh: one connection for all runs to a host, what happens when either side dies, and the messages when no
//! connection can be made.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::harness::netns::{Machine, Network};
use crate::harness::processes::signal;
use crate::harness::sshd::Sshd;
use crate::harness::world::{give_to_nobody, soon};
use crate::harness::{Daemon, World, is_root, make_dir, patterned, secs, skipped, wait_for, wait_until, write};

/// A world whose two targets are directories behind one sshd. `None`: there is no sshd.
pub fn world() -> Option<(World, Sshd)> {
    world_with(&[])
}

fn world_with(options: &[&str]) -> Option<(World, Sshd)> {
    let mut world = World::new();
    let sshd = Sshd::start_with(&world.base().join("sshd"), options)?;
    sshd.forget_log();
    let paths: Vec<String> = world.dsts.iter().map(|dst| dst.display().to_string()).collect();
    world.conf.local_paths.clear();
    let (src, remotes) = (world.src.clone(), [("127.0.0.1", paths[0].as_str()), ("127.0.0.1", paths[1].as_str())]);
    world.conf.root(&src, &remotes);
    world.conf.ssh = true;
    world.conf.port = sshd.port;
    world.conf.params = format!("-artz -e '{}'", sshd.shell());
    Some((world, sshd))
}

/// The processes that hold the daemon's connections open.
fn masters(world: &World) -> Vec<i32> {
    let path = format!("ControlPath={}/", world.cli.state.display());
    let is_master = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> = line.split(|&b| b == 0).map(|word| String::from_utf8_lossy(word).into()).collect();
        words.iter().any(|word| word == "ControlMaster=yes") && words.iter().any(|word| word.starts_with(&path))
    };
    let all = fs::read_dir("/proc").expect("cannot list /proc").flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_master).collect()
}

/// The one process that holds the connection open.
#[track_caller]
fn master(world: &World) -> i32 {
    let found = masters(world);
    assert_eq!(found.len(), 1, "there is to be one connection: {found:?}");
    found[0]
}

/// Changes one file and waits until both targets have it.
fn change(world: &World, name: &str, content: &str) {
    write(world.src.join(name), content);
    wait_until(soon(), name, || world.arrived(0, name) && world.arrived(1, name));
}

/// Waits until a target shows why it cannot be reached.
#[track_caller]
fn told(world: &World, target: &str, reason: &str, hint: &str) {
    wait_for(soon(), reason, || {
        let status = world.cli.try_status()?;
        let found = status.target(target);
        let (why, what) = (found.reason.clone().unwrap_or_default(), found.hint.clone().unwrap_or_default());
        if why.contains(reason) && what.contains(hint) { Ok(()) } else { Err(format!("{found:#?}")) }
    });
}

fn has_trouble(world: &mut World) -> bool {
    world.daemon().log_text().contains("its jobs are kept")
}

#[test]
fn twenty_changes_for_two_targets_of_a_host_are_one_handshake() {
    let Some((mut world, sshd)) = world() else { return };
    make_dir(world.src.join("dir/sub"));
    write(world.src.join("dir/sub/file"), "content");
    for name in [&b"a b"[..], b"quote'\"$(x)`y`", b"-dash", b"new\nline", b"latin\xe9\xff", b"#hash;&|"] {
        write(world.src.join(OsStr::from_bytes(name)), "odd");
    }
    world.start_daemon(&[]);
    world.converges(soon());
    for n in 0..20 {
        change(&world, &format!("file{n}"), "content");
    }
    fs::rename(world.src.join("dir"), world.src.join("renamed 'dir'")).expect("cannot rename");
    fs::remove_file(world.src.join("file3")).expect("cannot remove");
    world.converges(soon());
    assert_eq!(sshd.logins(), 1);
    assert!(world.cli.state.join("ssh").is_dir());
    assert!(!has_trouble(&mut world));
    world.stop();
    assert!(masters(&world).is_empty());
    assert!(!world.cli.state.join("ssh").exists(), "sockets are left");
}

#[test]
fn without_sharing_each_run_connects() {
    let Some((mut world, sshd)) = world() else { return };
    world.conf.syncq = "<ssh share=\"false\"/>".to_owned();
    world.start_daemon(&[]);
    for n in 0..3 {
        change(&world, &format!("file{n}"), "content");
    }
    world.converges(soon());
    assert!(sshd.logins() >= 8, "a comparison and three changes for two targets: {}", sshd.logins());
    assert!(masters(&world).is_empty() && !world.cli.state.join("ssh").exists());
    world.stop();
}

/// The shared connection was opened in another directory, where the relative path led to nothing.
#[test]
fn a_relative_path_in_the_remote_shell_is_found_in_the_source_and_holds_nothing_there() {
    let Some((mut world, sshd)) = world() else { return };
    fs::copy(sshd.client(), world.src.join("client")).expect("cannot copy the client's configuration");
    world.conf.params = "-artz -e 'ssh -F client'".to_owned();
    world.start_daemon(&[]);
    change(&world, "file", "content");
    world.converges(soon());
    assert!(!has_trouble(&mut world), "{}", world.daemon().log_text());
    assert!(masters(&world).is_empty() && !world.cli.state.join("ssh").exists());
}

#[test]
fn a_user_who_shares_connections_already_goes_on_doing_it_his_way() {
    let Some((mut world, sshd)) = world() else { return };
    let sockets = world.side("cm");
    sshd.write_client(&format!("ControlMaster auto\nControlPath {}/%C\nControlPersist 2\n", sockets.display()));
    world.start_daemon(&[]);
    change(&world, "file", "content");
    assert!(masters(&world).is_empty(), "a connection beside his own");
    assert!(!world.cli.state.join("ssh").exists());
}

#[test]
fn mirror_reaches_a_user_at_a_host_and_a_path_with_blanks_and_quotes() {
    let Some((mut world, sshd)) = world() else { return };
    let odd = world.base().join("it's a \"odd\" $HOME dir");
    make_dir(&odd);
    make_dir(world.src.join("d/e"));
    write(world.src.join("d/e/f"), "content");
    let destination = |path: &Path| {
        let mut text = OsString::from(format!("{}@127.0.0.1:", Sshd::user()));
        text.push(path);
        text
    };
    let args: Vec<OsString> = vec![
        "mirror".into(),
        world.src.clone().into(),
        destination(&odd),
        destination(&world.dsts[0]),
        "--port".into(),
        sshd.port.to_string().into(),
        "--rsync-arg=-e".into(),
        format!("--rsync-arg={}", sshd.shell()).into(),
        "--state-dir".into(),
        world.cli.state.clone().into(),
    ];
    world.daemon = Some(Daemon::start(&world.cli, args));
    world.dsts[1] = odd;
    world.converges(soon());
    change(&world, "d/e/f", "changed");
    fs::remove_dir_all(world.src.join("d")).expect("cannot remove");
    world.converges(soon());
    assert_eq!(sshd.logins(), 1);
    world.stop();
}

#[test]
fn an_ordinary_user_shares_a_connection() {
    let Some((mut world, sshd)) = world() else { return };
    if is_root() {
        world.conf.local_paths[0].remotes.iter_mut().for_each(|remote| remote.0 = "root@127.0.0.1".to_owned());
    }
    world.conf.save();
    world.become_nobody();
    if is_root() {
        // Files that root's sshd reads have to belong to root; the client's key has to belong to the user.
        give_to_nobody(&world.base().join("sshd/user_key"));
    }
    // The owners are the user on this side and root on the other.
    world.start_daemon(&[]);
    write(world.src.join("file"), "content");
    for n in 0..5 {
        change(&world, &format!("file{n}"), "content");
    }
    assert_eq!(sshd.logins(), 1);
    world.stop();
    assert!(masters(&world).is_empty() && !world.cli.state.join("ssh").exists());
}

#[test]
fn more_sessions_than_the_server_takes_on_one_connection_connect_by_themselves() {
    let Some((mut world, sshd)) = world_with(&["MaxSessions 1"]) else { return };
    for n in 0..4 {
        write(world.src.join(format!("large{n}")), patterned(n, 9 << 20));
    }
    // Slow enough that runs overlap.
    world.conf.params.push_str(" --bwlimit=12m");
    world.start_daemon(&[]);
    for n in 0..5 {
        change(&world, &format!("file{n}"), "content");
    }
    world.converges(soon());
    assert!(!has_trouble(&mut world), "a refused session counted against a target");
    assert!(sshd.logins() > 1, "no session was refused, this tests nothing");
    world.stop();
}

#[test]
fn a_refused_key_is_explained_and_heals() {
    let Some((mut world, sshd)) = world() else { return };
    sshd.refuse_key();
    write(world.src.join("file"), "content");
    world.start_daemon(&[]);
    told(&world, "m1", "ssh is not let in", "ssh-copy-id");
    sshd.accept_key();
    let _ = world.cli.run(["retry", "--state-dir", world.cli.state.to_str().expect("a UTF-8 path")]).ok();
    world.converges(secs(150));
}

#[test]
fn an_unknown_and_a_changed_host_key_are_explained() {
    let Some((mut world, mut sshd)) = world() else { return };
    sshd.forget_host();
    write(world.src.join("file"), "content");
    world.start_daemon(&[]);
    told(&world, "m1", "ssh does not know the host's key", "connect once by hand");
    world.stop();
    sshd.trust_host();
    sshd.stop();
    sshd.change_host_key();
    sshd.start();
    world.start_daemon(&[]);
    told(&world, "m2", "the host's ssh key has changed", "ssh-keygen -R");
}

#[test]
fn a_host_without_rsync_is_explained() {
    let Some((mut world, _sshd)) = world() else { return };
    world.conf.params.push_str(" --rsync-path=/nonexistent/rsync");
    write(world.src.join("file"), "content");
    world.start_daemon(&[]);
    told(&world, "m1", "there is no rsync on the host", "install rsync");
}

#[test]
fn a_killed_sshd_is_told_from_a_killed_rsyncd_and_both_heal() {
    let Some((mut world, mut sshd)) = world() else { return };
    world.rsyncd.start();
    let args = [
        "mirror".to_owned(),
        world.src.display().to_string(),
        format!("127.0.0.1:{}", world.dsts[0].display()),
        format!("rsync://127.0.0.1:{}/m2", world.rsyncd.port),
        format!("--port={}", sshd.port),
        "--state-dir".to_owned(),
        world.cli.state.display().to_string(),
    ];
    // With `-e` among its arguments, rsync would look for its daemon behind ssh too.
    let bin = world.side("bin");
    write(bin.join("ssh"), format!("#!/bin/sh\nexec /usr/bin/{} \"$@\"\n", sshd.shell()));
    fs::set_permissions(bin.join("ssh"), Permissions::from_mode(0o755)).expect("cannot chmod");
    world.cli.bin = Some(bin);
    world.daemon = Some(Daemon::start(&world.cli, args));
    change(&world, "first", "content");
    world.converges(soon());

    sshd.stop();
    write(world.src.join("second"), "content");
    told(&world, "127.0.0.1:/", "nothing listens on that port", "sshd");
    wait_until(soon(), "the other target", || world.arrived(1, "second"));
    assert_eq!(world.cli.status().target("::m2").reason, None);
    sshd.start();
    world.converges(secs(150));

    world.rsyncd.stop();
    write(world.src.join("third"), "content");
    told(&world, "::m2", "nothing listens on that port", "rsyncd");
    wait_until(soon(), "the other target", || world.arrived(0, "third"));
    assert_eq!(world.cli.status().target("127.0.0.1:/").reason, None);
    world.rsyncd.start();
    world.converges(secs(150));
    world.stop();
}

#[test]
fn a_killed_connection_costs_the_next_change_nothing_but_a_handshake() {
    let Some((mut world, sshd)) = world() else { return };
    world.start_daemon(&[]);
    change(&world, "first", "content");
    world.converges(soon());
    signal(master(&world), Signal::KILL);
    wait_until(soon(), "its end", || masters(&world).is_empty());
    change(&world, "second", "content");
    world.converges(soon());
    assert_eq!(sshd.logins(), 2);
    assert!(!has_trouble(&mut world), "a dead connection counted against the target");
    world.stop();
    assert!(!world.cli.state.join("ssh").exists(), "the socket of the dead one is left");
}

#[test]
fn a_connection_whose_socket_is_removed_is_replaced_and_ended() {
    let Some((mut world, sshd)) = world() else { return };
    world.start_daemon(&[]);
    change(&world, "first", "content");
    world.converges(soon());
    let lost = master(&world);
    fs::remove_dir_all(world.cli.state.join("ssh")).expect("cannot remove the sockets");
    change(&world, "second", "content");
    world.converges(soon());
    assert_eq!(sshd.logins(), 2);
    assert_ne!(master(&world), lost);
    world.stop();
    assert!(masters(&world).is_empty());
}

/// The other end of a connection vanished without a word, or the connection's master hangs.
#[test]
fn a_hanging_connection_is_given_up_and_counts_against_nobody() {
    let Some((mut world, sshd)) = world() else { return };
    world.conf.timeout_s = Some(4);
    world.start_daemon(&[]);
    change(&world, "first", "content");
    world.converges(soon());
    let hanging = master(&world);
    signal(hanging, Signal::STOP);
    change(&world, "second", "content");
    world.converges(soon());
    assert_eq!(sshd.logins(), 2);
    assert!(!has_trouble(&mut world), "a hanging connection counted against the target");
    assert!(!masters(&world).contains(&hanging), "the hanging one is left");
    world.stop();
}

#[test]
fn a_killed_daemon_leaves_no_connection_behind_after_the_next_start() {
    let Some((mut world, _sshd)) = world() else { return };
    world.start_daemon(&[]);
    change(&world, "first", "content");
    let left = master(&world);
    world.daemon().kill9();
    assert!(masters(&world).contains(&left), "it outlives its daemon, or this tests nothing");
    write(world.src.join("second"), "content");
    world.daemon().restart();
    assert!(!masters(&world).contains(&left));
    world.converges(soon());
    world.stop();
    assert!(masters(&world).is_empty());
}

#[test]
fn a_paused_mirror_holds_no_connection() {
    let Some((mut world, sshd)) = world() else { return };
    world.start_daemon(&[]);
    change(&world, "first", "content");
    world.converges(soon());
    let state = world.cli.state.to_str().expect("a UTF-8 path").to_owned();
    let _ = world.cli.run(["pause", "--all", "--state-dir", &state]).ok();
    wait_until(soon(), "the end of the connection", || masters(&world).is_empty());
    let _ = world.cli.run(["resume", "--all", "--state-dir", &state]).ok();
    change(&world, "second", "content");
    assert_eq!(sshd.logins(), 2);
    world.stop();
}

/// A socket's address holds 107 bytes.
#[test]
fn a_long_state_directory_has_its_sockets_elsewhere() {
    let Some((mut world, sshd)) = world() else { return };
    let runtime: PathBuf = world.side("run");
    world.cli.env.push(("XDG_RUNTIME_DIR".to_owned(), runtime.clone().into()));
    world.cli.state = world.base().join("s".repeat(60));
    world.start_daemon(&[]);
    for n in 0..3 {
        change(&world, &format!("file{n}"), "content");
    }
    assert_eq!(sshd.logins(), 1);
    assert_eq!(fs::read_dir(&runtime).expect("cannot list").count(), 1);
    world.stop();
    assert_eq!(fs::read_dir(&runtime).expect("cannot list").count(), 0, "sockets are left");
}

/// No packet comes back from the host, not even a refusal.
#[test]
fn a_host_that_is_cut_off_is_given_up_in_time_and_gets_everything_when_it_is_back() {
    let dir = tempfile::tempdir().expect("cannot create a directory");
    let Some(mut network) = Network::new(dir.path()) else { return };
    let (here, host) = (network.machine(94), network.machine(144));
    network.introduce(&[(&here, 94), (&host, 144)]);
    if !host.path("/usr/sbin/sshd").is_file() {
        return skipped("no sshd");
    }
    let script = "echo 'root:*:19000:0:99999:7:::' >/etc/shadow && mkdir -p /run/sshd /etc/ssh &&
        ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/key &&
        echo SetEnv SHLVL=2 >/etc/ssh/sshd_config && /usr/sbin/sshd -h /etc/ssh/key -E /var/log/sshd.log -o UsePAM=no";
    host.sh(script);
    host.wait_listening(22);
    // Sooner than syncq's own limit of three times a quarter of a minute.
    let script = "mkdir -p -m 700 /root/.ssh && cd /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f id_ed25519 &&
        printf 'ServerAliveInterval 1\\nServerAliveCountMax 2\\nConnectTimeout 3\\n' >config";
    here.sh(script);
    let read = |machine: &Machine, path: &str| fs::read_to_string(machine.path(path)).expect("a key");
    fs::create_dir(host.path("/root/.ssh")).expect("cannot create a directory");
    write(host.path("/root/.ssh/authorized_keys"), read(&here, "/root/.ssh/id_ed25519.pub"));
    host.sh("chown -R root:root /root && chmod -R go-rwx /root");
    let known = format!("192.168.40.144 {}", read(&host, "/etc/ssh/key.pub"));
    write(here.path("/root/.ssh/known_hosts"), known);

    fs::copy(env!("CARGO_BIN_EXE_syncq"), here.path("/usr/local/syncq")).expect("cannot install");
    here.sh("mkdir /data/www && echo content >/data/www/before");
    here.sh("/usr/local/syncq mirror /data/www 192.168.40.144:/data/www --state-dir /var/lib/s >/var/log/s 2>&1 &");
    let arrived = |name: &str, deadline| {
        wait_for(deadline, name, || match host.path(&format!("/data/www/{name}")).exists() {
            true => Ok(()),
            false => Err(here.sh("cat /var/log/s") + &host.sh("cat /var/log/sshd.log")),
        });
    };
    arrived("before", soon());
    network.cut(&host);
    here.sh("echo content >/data/www/meanwhile");
    wait_for(soon(), "the reason", || {
        let output = here.try_sh("/usr/local/syncq status --json --state-dir /var/lib/s");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if said.contains("the host does not answer") { Ok(()) } else { Err(said) }
    });
    assert!(!host.path("/data/www/meanwhile").exists(), "it is not cut off");
    network.join(&host);
    arrived("meanwhile", secs(150));
}
