//! syncq as a service: the messages to a service manager, the form of the log, and the scripts that people have around sersync.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::daemon::Cli;
use crate::harness::processes::{pid_of, signal};
use crate::harness::world::{give_to_nobody, soon};
use crate::harness::{Ended, World, make_dir, secs, skipped, wait_for, wait_until, write};

/// A service manager that only listens.
struct Manager {
    socket: UnixDatagram,
    said: Vec<String>,
}

impl Manager {
    /// Listens in `world`. The daemon has to be started after this.
    fn of(world: &mut World) -> Self {
        let path = world.base().join("notify");
        let socket = UnixDatagram::bind(&path).expect("cannot bind a socket");
        socket.set_nonblocking(true).expect("cannot change a socket");
        world.cli.env.push(("NOTIFY_SOCKET".to_owned(), path.into_os_string()));
        Self { socket, said: Vec::new() }
    }

    /// All lines received so far.
    fn said(&mut self) -> &[String] {
        let mut buffer = [0; 4_096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let message = String::from_utf8(buffer[..length].to_vec()).expect("a message is text");
            self.said.extend(message.lines().map(str::to_owned));
        }
        &self.said
    }

    fn count(&mut self, line: &str) -> usize {
        self.said().iter().filter(|said| *said == line).count()
    }

    #[track_caller]
    fn wait_for(&mut self, what: &str, heard: impl Fn(&[String]) -> bool) {
        wait_for(secs(30), what, || if heard(self.said()) { Ok(()) } else { Err(format!("{:#?}", self.said)) });
    }
}

/// The inotify watches that a process holds.
fn watches_of(pid: i32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the process runs");
    let infos = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    infos.map(|info| info.lines().filter(|line| line.starts_with("inotify wd:")).count()).sum()
}

/// How often the threads of a process have gone to sleep of their own accord so far: first those that answer requests, then the
/// others.
fn wake_ups_of(pid: i32) -> (u64, u64) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs").flatten();
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let field =
        |status: &str, name: &str| Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned());
    let mut sums = (0, 0);
    for status in statuses {
        let count = || field(&status, "voluntary_ctxt_switches:")?.parse::<u64>().ok();
        let answers =
            field(&status, "Name:").is_some_and(|name| ["control", "tokio-rt-worker"].contains(&name.as_str()));
        *if answers { &mut sums.0 } else { &mut sums.1 } += count().unwrap_or(0);
    }
    sums
}

/// The daemon woke up eleven times a second: for a look each second at the store, each root and the schedules, and for seven
/// threads of the store's engine.
#[test]
fn an_idle_daemon_sleeps() {
    let mut world = World::new();
    write(world.src.join("f"), "1");
    world.start();
    world.converges(soon());
    let pid = world.daemon().pid();
    let mut samples = Vec::new();
    wait_for(soon(), "ten seconds with at most one wake-up each", || {
        let now = (Instant::now(), wake_ups_of(pid));
        let before = samples.iter().rfind(|(then, _): &&(Instant, (u64, u64))| now.0 - *then >= secs(10)).copied();
        samples.push(now);
        let Some((_, before)) = before else { return Err("not yet".to_owned()) };
        // Fewer than before means that a thread has ended. Daemons of other tests ask this one at their start, which has the
        // root looked at.
        match (now.1.0.checked_sub(before.0), now.1.1.checked_sub(before.1)) {
            (Some(answers), Some(woken)) if woken <= 10 + answers => Ok(()),
            woken => Err(format!("{woken:?}")),
        }
    });
}

#[test]
fn the_manager_hears_of_readiness_only_when_every_directory_is_watched() {
    const DIRS: usize = 3_000;
    let mut world = World::new();
    for n in 0..DIRS {
        make_dir(world.src.join(format!("{}/{n}", n % 30)));
    }
    let mut manager = Manager::of(&mut world);
    world.rsyncd.start();
    let conf = world.conf.save();
    let args = ["run".as_ref(), "-o".as_ref(), conf.as_os_str(), "--state-dir".as_ref(), world.cli.state.as_os_str()];
    world.daemon = Some(crate::harness::Daemon::spawn(&world.cli, args));
    let pid = world.daemon().pid();
    let watches = wait_for(secs(60), "READY=1", || {
        // Counted right after the message was sent: a walk that still went on would show.
        if manager.count("READY=1") == 1 { Ok(watches_of(pid)) } else { Err(format!("{:?}", manager.said)) }
    });
    assert!(watches > DIRS, "only {watches} directories are watched");
    let ready = manager.said.iter().position(|line| line == "READY=1").expect("it was heard");
    let earlier = &manager.said[..ready];
    assert!(earlier.iter().any(|line| line.starts_with("EXTEND_TIMEOUT_USEC=")), "{earlier:?}");
    assert!(!manager.said.iter().any(|line| line.starts_with("WATCHDOG")), "nobody asked for a watchdog");

    world.stop();
    assert_eq!((manager.count("READY=1"), manager.count("STOPPING=1")), (1, 1), "{:?}", manager.said);
    let said = manager.said();
    assert_eq!(said.last().map(String::as_str), Some("STATUS=stopping"), "{said:?}");
}

#[test]
fn the_watchdog_hears_of_life_and_the_status_of_trouble() {
    let mut world = World::new();
    let mut manager = Manager::of(&mut world);
    world.cli.env.push(("WATCHDOG_USEC".to_owned(), "1000000".into()));
    world.start();
    write(world.src.join("file"), "content");
    world.converges(soon());
    manager.wait_for("signs of life", |said| said.iter().filter(|line| *line == "WATCHDOG=1").count() >= 3);
    manager.wait_for("all is well", |said| said.iter().any(|line| line == "STATUS=all 2 targets are up to date"));

    // A root that is gone is trouble, but no reason for the manager to kill the daemon.
    let away = world.base().join("away");
    fs::rename(&world.src, &away).expect("cannot rename");
    manager.wait_for("the trouble", |said| said.iter().any(|line| line.contains("is suspended")));
    let before = manager.count("WATCHDOG=1");
    manager.wait_for("further signs", |said| said.iter().filter(|line| *line == "WATCHDOG=1").count() >= before + 3);

    // A daemon that hangs sends no sign of life.
    let pid = world.daemon().pid();
    signal(pid, Signal::STOP);
    wait_until(secs(10), "the daemon to stand still", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
    });
    let before = manager.count("WATCHDOG=1");
    // Two intervals of silence prove that. There is no condition to wait for.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(manager.count("WATCHDOG=1"), before);
    signal(pid, Signal::CONT);
    manager.wait_for("life again", |said| said.iter().filter(|line| *line == "WATCHDOG=1").count() > before);
}

#[test]
fn a_manager_that_has_gone_does_not_matter() {
    let mut world = World::new();
    drop(Manager::of(&mut world));
    world.cli.env.push(("WATCHDOG_USEC".to_owned(), "1000000".into()));
    write(world.src.join("file"), "content");
    world.start();
    world.converges(soon());
    world.stop();
}

/// The daemon's log as JSON, line by line.
fn json_lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON ({e}): {line}"))).collect()
}

#[test]
fn the_json_log_is_an_object_per_line() {
    let mut world = World::new();
    write(world.src.join("a \"name\"\nof two lines"), "content");
    world.start_with(&["--log-format", "json", "--log-level", "debug"]);
    world.converges(soon());
    world.daemon().signal(Signal::USR1);
    let answer = wait_for(secs(10), "the status", || {
        let log = world.daemon.as_ref().expect("it runs").log_text();
        // The last line may be incomplete.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        json_lines(whole).into_iter().find(|line| line["message"] == "status").ok_or(log)
    });
    assert!(answer["fields"]["roots"] == 1 && answer["fields"]["state"] == "running", "{answer}");
    world.stop();
    let lines = json_lines(&world.daemon().log_text());
    for line in &lines {
        let time = line["time"].as_str().unwrap_or_default();
        chrono::DateTime::parse_from_rfc3339(time).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(["error", "warn", "info", "debug"].iter().any(|level| line["level"] == *level), "{line}");
        assert!(line["area"].is_string() && line["message"].is_string(), "{line}");
    }
    let ready = |line: &&Value| line["message"].as_str().is_some_and(|text| text.starts_with("ready"));
    assert_eq!(lines.iter().filter(ready).count(), 1);
}

#[test]
fn each_area_has_a_log_level_of_its_own() {
    // The params of the configuration make `cli` warn, and `daemon` reports its work at the level info.
    for (level, daemon_at_info, cli_at_warn) in [("error,daemon=info", true, false), ("info,daemon=error", false, true)]
    {
        let mut world = World::new();
        world.start_with(&["--log-level", level, "--log-format", "json"]);
        world.converges(soon());
        world.stop();
        let lines = json_lines(&world.daemon().log_text());
        let says = |area: &str, level: &str| lines.iter().any(|line| line["area"] == area && line["level"] == level);
        let said = (says("daemon", "info"), says("cli", "warn"));
        assert_eq!(said, (daemon_at_info, cli_at_warn), "{level}: {lines:#?}");
    }

    let world = World::new();
    for (wrong, words) in [("mirrors=debug", "mirror, "), ("loud", "trace")] {
        let conf = world.conf.save();
        let (conf, state) = (conf.to_str().expect("text"), world.cli.state.to_str().expect("text"));
        let ended = world.cli.run(["run", "-o", conf, "--state-dir", state, "--log-level", wrong]);
        assert!(ended.code == Some(2) && ended.stderr.contains(words), "{}: {}", ended.status, ended.text());
    }
}

#[test]
fn no_password_is_in_the_log_or_in_an_argument() {
    const PASSWORD: &str = "correct-horse-battery-staple";
    let mut world = World::new();
    let file = world.base().join("rsync.pas");
    write(&file, format!("{PASSWORD}\n"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("cannot chmod");
    world.conf.auth = Some(("backup".to_owned(), file.clone()));
    world.rsyncd.global("auth users", "backup").secret("backup", PASSWORD);
    world.count_rsyncs();
    write(world.src.join("file"), "content");
    world.start_with(&["--log-level", "trace"]);
    world.converges(soon());
    // A wrong password is reported, but not shown.
    write(&file, "swordfish-of-old\n");
    let mut writes = 0;
    let reason = wait_for(soon(), "the complaint", || {
        // The first write may go through an rsync that was let in earlier.
        writes += 1;
        write(world.src.join("file"), format!("other {writes}"));
        let status = world.cli.try_status()?;
        status.target("m1").reason.clone().ok_or_else(|| status.json.to_string())
    });
    assert!(reason.contains("auth"), "{reason}");
    let status = world.cli.status().json.to_string();
    world.stop();
    let arguments = fs::read_to_string(world.base().join("rsync.count")).expect("rsyncs were counted");
    assert!(arguments.contains("--password-file"), "{arguments}");
    for secret in [PASSWORD, "swordfish-of-old"] {
        for (place, text) in [("log", &world.daemon().log_text()), ("arguments", &arguments), ("status", &status)] {
            assert!(!text.contains(secret), "the password is in the {place}:\n{text}");
        }
    }
}

/// A usual installation: `sersync2` and `confxml.xml` in one directory, for an ordinary user.
struct Installed {
    world: World,
    dir: PathBuf,
    sersync2: PathBuf,
}

impl Installed {
    fn new() -> Option<Self> {
        let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
        if !["setpriv", "ps", "pgrep"].into_iter().all(has) {
            skipped("no setpriv, ps or pgrep");
            return None;
        }
        let mut world = World::new();
        let dir = world.side("sersync");
        world.conf.file = dir.join("confxml.xml");
        world.conf.save();
        write(world.src.join("file"), "content");
        world.become_nobody();
        let sersync2 = dir.join("sersync2");
        symlink(&world.cli.binary, &sersync2).expect("cannot make a link");
        world.cli.state = world.cli.home.join(".local/state/syncq/confxml");
        world.rsyncd.start();
        Some(Self { world, dir, sersync2 })
    }

    /// The start command of a remote-control script, not yet run.
    fn remote_start(&self) -> Command {
        let mut cli = self.world.cli.clone();
        cli.binary.clone_from(&self.sersync2);
        let mut command = cli.command();
        command.args(["-n", "10", "-d", "-o"]).arg(self.dir.join("confxml.xml"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A shell of the user who runs the daemon.
    fn shell(&self) -> Cli {
        let mut shell = self.world.cli.clone();
        shell.binary = "/bin/sh".into();
        shell
    }

    fn script(&self, text: &str) -> Ended {
        // With COLUMNS set, `ps` would cut its lines, which it does not do in a script.
        self.shell().run(["-c", &format!("unset COLUMNS; {text}")])
    }

    fn pid(&self) -> i32 {
        let text = fs::read_to_string(self.world.cli.state.join("syncq.pid")).expect("a daemon runs");
        text.trim().parse().expect("a number")
    }

    fn put(&self, name: &str, content: &str) {
        write(self.world.src.join(name), content);
        if crate::harness::is_root() {
            give_to_nobody(&self.world.src.join(name));
        }
    }
}

#[test]
fn the_watchdog_cron_of_sersync_users_starts_it_once_and_again_after_a_kill() {
    let Some(installed) = Installed::new() else { return };
    let dir = installed.dir.display().to_string();
    // Other tests have daemons too: the directory identifies this one.
    let cron = format!(
        "status=`ps aux|grep sersync2|grep -v grep|grep {dir}/confxml.xml|wc -l`\n\
         if [ $status -eq 0 ]; then {dir}/sersync2 -d -r -o {dir}/confxml.xml; fi"
    );
    let _ = installed.script(&cron).ok();
    let first = installed.pid();
    let found = installed.script("pgrep sersync").ok();
    assert!(found.stdout.lines().any(|line| line == first.to_string()), "{first} is not among {}", found.stdout);
    let comm = fs::read_to_string(format!("/proc/{first}/comm")).expect("it runs");
    assert_eq!(comm.trim(), "sersync2");
    let _ = installed.script(&cron).ok();
    assert_eq!(installed.pid(), first, "it was started a second time");
    installed.world.converges(soon());

    installed.put("file", "changed and killed");
    let _ = installed
        .script(&format!("ps aux|grep sersync2|grep {dir}/|grep -v grep|awk '{{print $2}}'|xargs kill -9"))
        .ok();
    wait_until(secs(10), "its end", || !Path::new(&format!("/proc/{first}/exe")).exists());
    installed.put("meanwhile", "nobody looked");
    let _ = installed.script(&cron).ok();
    assert_ne!(installed.pid(), first);
    installed.world.converges(soon());
}

#[test]
fn sersync2_in_its_own_directory_takes_the_short_forms() {
    let Some(installed) = Installed::new() else { return };
    let dir = installed.dir.display();
    let help = installed.script(&format!("{dir}/sersync2 -h")).ok();
    assert!(help.stdout.contains("-o") && help.stdout.contains("-d"), "{}", help.stdout);
    let _ = installed.script(&format!("cd {dir} && ./sersync2 -dro confxml.xml")).ok();
    installed.world.converges(soon());
    let argv = fs::read(format!("/proc/{}/cmdline", installed.pid())).expect("it runs");
    let argv = String::from_utf8_lossy(&argv).replace('\0', " ");
    assert!(argv.contains("sersync2 ") && argv.contains("confxml.xml"), "{argv}");
}

/// A start over ssh returns only once the last holder of its output has gone.
#[test]
fn sersync2_d_lets_go_of_the_output_that_ssh_waits_for() {
    let Some(installed) = Installed::new() else { return };
    let mut child = installed.remote_start().spawn().expect("cannot start it");
    let (told, ends) = std::sync::mpsc::channel();
    let (mut out, mut err) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let other = told.clone();
    std::thread::spawn(move || other.send(out.read_to_end(&mut Vec::new()).is_ok()));
    std::thread::spawn(move || told.send(err.read_to_end(&mut Vec::new()).is_ok()));
    for _ in 0..2 {
        assert_eq!(ends.recv_timeout(secs(30)), Ok(true), "somebody still holds the output");
    }
    assert!(child.wait().expect("it ends").success());
    installed.world.converges(soon());
}

/// The detached child of the world in `dir`.
fn detached_in(dir: &Path) -> Option<i32> {
    let dir = dir.to_str()?;
    fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
        let argv = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let argv = String::from_utf8_lossy(&argv).into_owned();
        argv.contains("--detached") && argv.contains(dir) && !argv.starts_with("setpriv")
    })
}

#[test]
fn a_start_over_ssh_that_is_cut_short_still_starts() {
    let Some(installed) = Installed::new() else { return };
    for n in 0..2_000 {
        make_dir(installed.world.src.join(format!("dir{}/{n}", n % 20)));
    }
    if crate::harness::is_root() {
        give_to_nobody(&installed.world.src);
    }
    let mut launcher = installed.remote_start().spawn().expect("cannot start it");
    wait_until(secs(30), "the daemon to begin", || detached_in(&installed.dir).is_some_and(leads_a_session));
    signal(pid_of(&launcher), Signal::KILL);
    let _ = launcher.wait();
    drop(launcher);
    installed.world.converges(soon());
}

fn leads_a_session(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let session = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3).map(str::to_owned));
    session == Some(pid.to_string())
}

#[test]
fn hup_opens_the_log_of_a_daemon_anew() {
    let Some(installed) = Installed::new() else { return };
    let _ = installed.script(&format!("cd {} && ./sersync2 -d", installed.dir.display())).ok();
    let log = installed.world.cli.state.join("syncq.log");
    let rotated = installed.world.cli.state.join("syncq.log.1");
    fs::rename(&log, &rotated).expect("there is a log");
    signal(installed.pid(), Signal::HUP);
    wait_until(secs(10), "the new log", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("log file reopened"))
    });
    assert!(fs::read_to_string(&rotated).is_ok_and(|text| text.contains("ready")), "the old log is kept");
    installed.world.converges(soon());
}
