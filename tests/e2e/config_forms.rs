//! sersync's configuration and command line as users have them: the forms of the start, several files, several roots, and a
//! configuration copied from a tutorial.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::harness::processes::signal;
use crate::harness::world::soon;
use crate::harness::{Conf, Daemon, World, make_dir, secs, wait_for, wait_until, write};

/// The number in the pid file, which may have any name in the state directory.
fn pid_in(state: &Path) -> Result<i32, String> {
    let entries = fs::read_dir(state).map_err(|e| format!("{}: {e}", state.display()))?;
    let names: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let pid_file = names
        .iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("pid")))
        .ok_or_else(|| format!("no pid file among {names:?}"))?;
    let text = fs::read_to_string(pid_file).map_err(|e| e.to_string())?;
    text.trim().parse().map_err(|e| format!("{text:?} in {}: {e}", pid_file.display()))
}

/// Starts a daemon in the background, checks that it mirrors, and ends it by the id in its pid file.
fn in_the_background(world: &World, args: &[&str]) {
    let mut all: Vec<OsString> = args.iter().map(Into::into).collect();
    all.extend(["--state-dir".into(), world.cli.state.clone().into_os_string()]);
    let ended = world.cli.run(&all);
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.text());
    // The parent has returned, so the daemon is ready.
    world.cli.status();
    let pid = pid_in(&world.cli.state).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    // S6: sersync ran with umask 0.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the status of the daemon");
    assert!(status.contains("Umask:\t0022"), "{status}");
    write(world.src.join("live"), format!("{args:?}"));
    world.converges(soon());
    signal(pid, Signal::TERM);
    wait_until(secs(30), "the daemon to end", || !Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn sersyncs_command_lines_start_a_daemon_in_the_background() {
    let mut world = World::new();
    world.rsyncd.start();
    let conf = world.conf.save();
    let conf = conf.to_str().expect("a UTF-8 path");
    for args in [
        &["-r", "-d", "-n", "8", "-o", conf][..],
        &["-dro", conf],
        &["-d", "-o", conf],
        &["run", "-d", "-r", "-o", conf],
        &["-d", "-r", "-n8", "-o", conf],
    ] {
        write(world.src.join("before"), format!("{args:?}"));
        in_the_background(&world, args);
    }
}

#[test]
fn without_o_the_file_in_the_current_directory_is_taken() {
    let mut world = World::new();
    world.rsyncd.start();
    world.conf.save();
    world.cli.cwd = world.base().to_owned();
    in_the_background(&world, &["-dr"]);
}

#[test]
fn l4_d_does_not_return_0_when_the_daemon_cannot_start() {
    let world = World::new();
    let conf = world.conf.file.to_str().expect("a UTF-8 path");
    let state = world.cli.state.to_str().expect("a UTF-8 path");
    let ended = world.cli.run(["-d", "-r", "-o", conf, "--state-dir", state]);
    assert_eq!(ended.code, Some(78), "{}", ended.text());
    world.conf.save();
    write(&world.cli.state, "in the way");
    let ended = world.cli.run(["-d", "-r", "-o", conf, "--state-dir", state]);
    assert!(matches!(ended.code, Some(1 | 78)), "{}: {}", ended.status, ended.text());
}

#[test]
fn l18_every_localpath_is_served() {
    let mut world = World::new();
    let second = world.side("second");
    let target = world.side("m3");
    world.rsyncd.module("m3", &target);
    world.conf.root(&second, &[("127.0.0.1", "m3")]);
    write(second.join("before"), "second");
    world.start();
    write(world.src.join("file"), "first");
    make_dir(second.join("dir"));
    write(second.join("dir/file"), "second");
    world.converges(soon());
    world.equal_within(&second, &[&target], soon());
    assert_eq!(world.cli.status().targets.len(), 3);
}

#[test]
fn l18_every_file_with_an_o_is_served_and_others_are_reported() {
    let mut world = World::new();
    let second = world.side("second");
    let target = world.side("m3");
    world.rsyncd.module("m3", &target);
    let mut other = Conf::new(world.base(), "other.xml", world.rsyncd.port);
    other.root(&second, &[("127.0.0.1", "m3")]);
    let other = other.save();
    write(world.src.join("file"), "first");
    write(second.join("file"), "second");
    world.start_with(&["-o", other.to_str().expect("a UTF-8 path")]);
    world.converges(soon());
    world.equal_within(&second, &[&target], soon());
    world.stop();
    // The form of a tutorial: two file names after one -o.
    let state = world.cli.state.clone().into_os_string();
    let args = ["run".into(), "-o".into(), world.conf.file.clone().into_os_string(), other.into_os_string()];
    let args = args.into_iter().chain(["--state-dir".into(), state]);
    world.daemon = Some(Daemon::start(&world.cli, args.collect::<Vec<OsString>>()));
    write(world.src.join("file"), "first, changed");
    world.converges(soon());
    let log = world.daemon().log_text();
    assert!(log.lines().any(|line| line.contains("other.xml") && line.contains("ignored")), "{log}");
}

/// Two files may watch one directory, each for its own targets.
#[test]
fn one_root_in_two_files_feeds_all_targets() {
    let mut world = World::new();
    let target = world.side("m3");
    world.rsyncd.module("m3", &target);
    let mut other = Conf::new(world.base(), "other.xml", world.rsyncd.port);
    let src = world.src.clone();
    other.root(&src, &[("127.0.0.1", "m3")]);
    let other = other.save();
    world.start_with(&["-o", other.to_str().expect("a UTF-8 path")]);
    write(world.src.join("file"), "content");
    world.converges(soon());
    world.equal_within(&src, &[&target], soon());
}

/// Copied from a published note: stray text between elements, blanks around paths, GBK or UTF-8 under a Latin label.
const TUTORIAL: &str = r#"<?xml version="1.0" encoding="ISO-8859-1"?>
<head version="2.5">
    <host hostip="localhost" port="8008"></host>
    <debug start="false"/>
    <fileSystem xfs="false"/>
    <filter start="false">
        <exclude expression="(.*)\.svn"></exclude>
        <exclude expression="(.*)\.gz"></exclude>
        <exclude expression="^info/*"></exclude>
        <exclude expression="^static/*"></exclude>
    </filter>
    <inotify>
        <delete start="true"/>
        <createFolder start="true"/>
        <createFile start="false"/>
        <closeWrite start="true"/>
        <moveFrom start="true"/>
        <moveTo start="true"/>
        <attrib start="false"/>
        <modify start="false"/>
    </inotify>
 
    <sersync>
<!-- ################################### -->
<localpath watch=" WATCH">           本地同步路径
        <remote ip="127.0.0.1" name="m1"/>    此blog为远程服务器的同步模块名
        <remote ip="127.0.0.1" name="m2"/>
</localpath>
<!-- ################################### -->
 
 <rsync>
     <commonParams params="-aruz"/>     同步参数,同步帐号及密码文件,端口,时间参数
     <auth start="true" users="rsync_backup" passwordfile="PASSWORD"/>
     <userDefinedPort start="true" port="PORT"/><!-- port=874 -->
     <timeout start="true" time="100"/><!-- timeout=100 -->
     <ssh start="false"/>
 </rsync>
 
 <failLog path=" LOG" timeToExecute="60"/><!--default every 60mins execute once-->
        <crontab start="false" schedule="600"><!--600mins-->
            <crontabfilter start="false">
                <exclude expression="*.php"></exclude>
                <exclude expression="info/*"></exclude>
            </crontabfilter>
        </crontab>
        <plugin start="false" name="command"/>
    </sersync>
 
    <plugin name="command">
        <param prefix="/bin/sh" suffix="" ignoreError="true"/> <!--prefix /opt/tongbu/mmm.sh suffix-->
        <filter start="false">
            <include expression="(.*)\.php"/>
            <include expression="(.*)\.sh"/>
        </filter>
    </plugin>
 
    <plugin name="socket">
        <localpath watch="/opt/tongbu">
            <deshost ip="192.168.138.20" port="8009"/>
        </localpath>
    </plugin>
    <plugin name="refreshCDN">
        <localpath watch="/data0/htdocs/cms.xoyo.com/site/">
            <cdninfo domainname="ccms.chinacache.com" port="80" username="xxxx" passwd="xxxx"/>
            <sendurl base="http://pic.xoyo.com/cms"/>
            <regexurl regex="false" match="cms.xoyo.com/site([/a-zA-Z0-9]*).xoyo.com/p_w_picpaths"/>
        </localpath>
    </plugin>
</head> 
"#;

#[test]
fn a_configuration_from_a_tutorial_runs_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    for gbk in [false, true] {
        let mut world = World::new();
        let password = world.base().join("rsync.password");
        write(&password, "123456");
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).expect("cannot chmod");
        world.rsyncd.global("auth users", "rsync_backup").secret("rsync_backup", "123456");
        let shown = |path: &Path| path.to_str().expect("a UTF-8 path").to_owned();
        let xml = TUTORIAL
            .replace("WATCH", &shown(&world.src))
            .replace("PASSWORD", &shown(&password))
            .replace("PORT", &world.rsyncd.port.to_string())
            .replace("LOG", &shown(&world.base().join("rsync_fail_log.sh")));
        let bytes = if gbk {
            let (before, after) = xml.split_once("本地同步路径").expect("the stray text");
            [before.as_bytes(), b"\xb1\xbe\xb5\xd8\xcd\xac\xb2\xbd\xc2\xb7\xbe\xb6", after.as_bytes()].concat()
        } else {
            xml.into_bytes()
        };
        write(&world.conf.file, bytes);
        world.rsyncd.start();
        let mut args: Vec<OsString> = vec!["-r".into(), "-o".into(), world.conf.file.clone().into_os_string()];
        args.extend(["--state-dir".into(), world.cli.state.clone().into_os_string()]);
        write(world.src.join("10M.img"), crate::harness::patterned(1, 100 << 10));
        world.daemon = Some(Daemon::start(&world.cli, args));
        for n in 1..=200 {
            write(world.src.join(format!("{n}.txt")), "aaaa\n");
        }
        world.converges(soon());
        world.stop();
    }
}

/// sersync crashes if an element is missing; syncq uses the documented default.
#[test]
fn l4_a_configuration_with_only_the_essentials_runs() {
    let mut world = World::new();
    world.rsyncd.start();
    let xml = format!(
        "<head><sersync><localpath watch=\"{}\"><remote ip=\"127.0.0.1\" name=\"m1\"/>\
         <remote ip=\"127.0.0.1\" name=\"m2\"/></localpath>\
         <rsync><userDefinedPort start=\"true\" port=\"{}\"/></rsync></sersync></head>",
        world.src.display(),
        world.rsyncd.port
    );
    write(&world.conf.file, xml);
    let mut args: Vec<OsString> = vec!["run".into(), "-o".into(), world.conf.file.clone().into_os_string()];
    args.extend(["--state-dir".into(), world.cli.state.clone().into_os_string()]);
    world.daemon = Some(Daemon::start(&world.cli, args));
    write(world.src.join("file"), "content");
    world.converges(soon());
}

/// The list of failures is only read: nothing in it is ever run, and its mode is tight (S3).
#[test]
fn s3_the_fail_log_is_never_executed() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new();
    let trap = world.base().join("PWNED");
    write(&world.conf.fail_log, format!("#!/bin/sh\ntouch '{}'\n", trap.display()));
    fs::set_permissions(&world.conf.fail_log, fs::Permissions::from_mode(0o777)).expect("cannot chmod");
    world.conf.fail_log_minutes = 0;
    // No rsyncd runs yet, so every job fails at first.
    world.start_daemon(&[]);
    write(world.src.join("file"), "content");
    wait_for(soon(), "the target's trouble", || {
        let status = world.cli.try_status()?;
        if status.targets.iter().all(|target| target.reason.is_some()) { Ok(()) } else { Err(String::new()) }
    });
    world.rsyncd.start();
    world.converges(secs(150));
    assert!(!trap.exists(), "the fail log has been executed");
    let mode = fs::metadata(&world.conf.fail_log).map(|meta| meta.permissions().mode() & 0o777);
    assert!(mode.is_err() || mode.is_ok_and(|mode| mode & 0o111 == 0 || mode == 0o777), "the fail log is executable");
}

/// Install scripts check that `sersync2 -h` returns 0.
#[test]
fn h_returns_0_under_either_name() {
    let mut world = World::new();
    let alias = world.base().join("sersync2");
    std::os::unix::fs::symlink(&world.cli.binary, &alias).expect("cannot link");
    for (binary, text) in [(world.cli.binary.clone(), "Mirror directory trees"), (alias, "until stopped")] {
        world.cli.binary = binary;
        let ended = world.cli.run(["-h"]).ok();
        assert!(ended.stdout.contains(text) && ended.stderr.is_empty(), "{}", ended.text());
    }
    let ended = world.cli.run(["-q", "x"]);
    assert_eq!(ended.code, Some(2), "{}", ended.text());
}

/// The lines that users copy: the watched path, and for each target the command that compares all of it.
#[test]
fn the_start_prints_the_lines_that_people_copy() {
    let mut world = World::new();
    write(world.src.join("file"), "content");
    world.start();
    world.converges(soon());
    world.stop();
    let log = world.daemon().log_text();
    assert!(log.contains(&format!("watch path is: {}", world.src.display())), "{log}");
    for dst in &world.dsts {
        fs::remove_file(dst.join("file")).expect("cannot remove");
        write(dst.join("extra"), "not in the source");
    }
    let commands: Vec<_> = log.lines().filter_map(|line| line.split_once("execute command: ")).collect();
    assert_eq!(commands.len(), 2, "{log}");
    for (_, command) in commands {
        let status = std::process::Command::new("bash").arg("-c").arg(command).status().expect("bash");
        assert!(status.success(), "{command}");
    }
    for (n, dst) in world.dsts.iter().enumerate() {
        assert!(world.arrived(n, "file") && !dst.join("extra").exists());
    }
}

/// `<debug start="true"/>` prints sersync's line and every rsync command; without it neither is printed.
#[test]
fn debug_shows_each_command() {
    for debug in [true, false] {
        let mut world = World::new();
        world.conf.debug = debug;
        world.start();
        world.converges(soon());
        write(world.src.join("a file"), "content");
        world.converges(soon());
        world.stop();
        let log = world.daemon().log_text();
        assert_eq!(log.contains("Open debug, you will see debug infomation"), debug, "{log}");
        assert_eq!(log.contains("mirror: execute command: cd ") && log.contains("'./a file'"), debug, "{log}");
    }
}

/// L14: with xfs="true" sersync followed symbolic links, and link loops too.
#[test]
fn l14_xfs_changes_nothing_and_link_loops_end() {
    for xfs in [true, false] {
        let mut world = World::new();
        world.conf.xfs = xfs;
        make_dir(world.src.join("a/b"));
        std::os::unix::fs::symlink("..", world.src.join("a/b/up")).expect("cannot link");
        std::os::unix::fs::symlink(".", world.src.join("a/self")).expect("cannot link");
        world.start();
        write(world.src.join("a/b/file"), "content");
        make_dir(world.src.join("a/c/d"));
        write(world.src.join("a/c/d/file"), "content");
        world.converges(soon());
        assert_eq!(world.cli.status().json["watches"]["used"], 5, "the root, a, b, c and d, each once");
    }
}

/// `-n` bounds the number of rsyncs at a time.
#[test]
fn n_limits_the_rsyncs_at_a_time() {
    for (n, most) in [("1", 1), ("3", 3)] {
        let mut world = World::new();
        // Each rsync of the daemon notes how many run beside it.
        let bin = world.side("bin");
        let seen = world.base().join("seen");
        let running = world.side("running");
        write(&seen, "");
        let script = format!(
            "#!/bin/sh\ntouch '{1}'/$$\nls '{1}' | wc -l >> '{0}'\nsleep 0.05\n\
             PATH=/usr/local/bin:/usr/bin:/bin rsync \"$@\"\ncode=$?\nrm '{1}'/$$\nexit $code\n",
            seen.display(),
            running.display()
        );
        write(bin.join("rsync"), script);
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(bin.join("rsync"), fs::Permissions::from_mode(0o755)).expect("cannot chmod");
        world.cli.bin = Some(bin);
        world.start_with(&["-n", n]);
        for n in 0..100 {
            write(world.src.join(format!("f{n}")), "content");
        }
        world.converges(soon());
        world.stop();
        let counts: Vec<usize> =
            fs::read_to_string(&seen).expect("counts").lines().map(|l| l.trim().parse().expect("a count")).collect();
        assert!(counts.iter().all(|&count| count <= most), "-n {n}: {counts:?}");
    }
}
