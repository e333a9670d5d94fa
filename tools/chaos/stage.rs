//! All participants: the tree, the daemon, two servers with a proxy in front of each, and the mounts.

use std::collections::BTreeMap;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::config::Conf;
use crate::harness::inotify::{self, EventQueueLimit};
use crate::harness::wait::try_for;
use crate::harness::{Rsyncd, World, make_dir, secs, wait_until, write};
use crate::journal::Journal;
use crate::load::{Load, Running};
use crate::machine::{DISK, chattr, disks_below, ran};
use crate::proxy::{Mode, Proxy};

pub const TARGETS: [(&str, &str); 2] = [("127.0.0.1", "m1"), ("127.0.0.2", "m2")];
/// The longest wait for equal trees after all faults are repaired: a minute more than the longest pause between two attempts.
pub const HEAL: Duration = Duration::from_secs(150);
/// How long data that was delivered late may still change a target.
const LATE: Duration = Duration::from_secs(165);
/// The mount options of a small tmpfs for the state.
const STATE_DISK: &str = "size=24m,mode=0700";

/// What is mounted below the tree: a directory from outside, or a second view of a directory of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Another file system.
    Disk,
    /// A directory of the tree.
    Twin,
}

/// The properties of a stage.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub seed: u64,
    pub twins: bool,
    /// Whether this process is in a mount namespace of its own.
    pub mounts: bool,
    /// The number of events in the daemon's queue in the kernel; `None` for the machine's own limit.
    pub queue: Option<u32>,
    /// Whether the daemon belongs to an ordinary user.
    pub ordinary: bool,
    /// Whether connections have to survive longer holds.
    pub late: bool,
}

#[derive(Debug)]
pub struct Stage {
    pub world: World,
    pub proxies: Vec<Proxy>,
    pub servers: Vec<Rsyncd>,
    pub journal: Journal,
    /// The tree itself, which stays when its mount at the source is gone.
    pub tree: PathBuf,
    load: Option<Load>,
    running: Option<Running>,
    mounted: Vec<PathBuf>,
    /// The mounts below the tree: the kind, the mounted directory, and the place in the tree.
    pub below: Vec<(Shown, PathBuf, PathBuf)>,
    /// Until this moment a target may be behind what the daemon reports.
    late_until: Option<Instant>,
    setting: Setting,
    /// For each kind of fault: how often it was made, and how often the daemon's status showed it.
    struck: BTreeMap<String, (u32, u32)>,
    /// The writable sysctl directory. The daemon sees a read-only one.
    sysctl: PathBuf,
}

impl Stage {
    /// Sets everything up and starts it. The trees are equal at the end.
    pub fn set(setting: Setting, journal: &Journal) -> Self {
        let mut world = World::new();
        world.keep = true;
        journal.keep_in(world.base());
        let port = crate::harness::free_port();
        let (mut servers, mut proxies) = (Vec::new(), Vec::new());
        world.conf.local_paths.clear();
        let src = world.src.clone();
        world.conf.root(&src, &TARGETS).port = port;
        for ((address, module), dst) in TARGETS.iter().zip(&world.dsts) {
            let upstream = crate::harness::free_port();
            let mut server = Rsyncd::at(&world.base().join(format!("rsyncd-{module}")), address, upstream);
            server.module(module, dst);
            server.start();
            servers.push(server);
            proxies.push(Proxy::start(address, port, upstream));
        }
        world.conf.attrib = true;
        world.conf.params = "-art".to_owned();
        // A stalled connection has to end within the round, but not before held data is delivered.
        world.conf.timeout_s = Some(if setting.late { 30 } else { 5 });
        world.conf.syncq = "<backoff base=\"200ms\" cap=\"5s\"/><transfer quietPeriod=\"1s\"/>".to_owned();
        // Killed receivers leave temporary files; other tests look for those.
        world.compare.leftovers = false;
        let disk = world.side("disk");
        let (tree, outside) = (disk.join("src"), world.side("disk/outside"));
        make_dir(&tree);
        let sysctl = world.side("inotify");
        let mut stage = Self {
            tree: if setting.mounts { tree.clone() } else { src.clone() },
            load: None,
            running: None,
            mounted: Vec::new(),
            below: Vec::new(),
            late_until: None,
            world,
            proxies,
            servers,
            journal: journal.clone(),
            setting,
            struck: BTreeMap::new(),
            sysctl,
        };
        stage.mount_all(&tree, &src);
        // An empty root would suspend the deletions, which is tested elsewhere.
        write(stage.tree.join("stays"), "here");
        let twins = setting.twins;
        stage.load = Some(Load::new(setting.seed, &stage.tree, &outside, twins, setting.ordinary, journal.clone()));
        if setting.ordinary {
            stage.world.daemon_as_nobody();
        }
        stage.note("start");
        let small = stage.small_queue();
        stage.world.start_daemon(&[]);
        drop(small);
        stage.equal();
        stage
    }

    /// How often daemons looked only for changes since the previous daemon, and how often they compared everything.
    pub fn starts(&mut self) -> String {
        let log = self.world.daemon().log_text();
        let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        let (caught_up, full) = (count("only what has changed"), count("compared in full"));
        format!("{caught_up} times only what had changed was looked for, {full} times everything compared")
    }

    fn mount_all(&mut self, tree: &Path, src: &Path) {
        if !self.setting.mounts {
            return;
        }
        self.mount(&["--bind".as_ref(), tree, src]);
        let state = self.world.cli.state.clone();
        make_dir(&state);
        self.mount(&["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), STATE_DISK.as_ref(), "tmpfs".as_ref(), &state]);
        if self.setting.ordinary {
            chown(&state, Some(65534), Some(65534)).expect("cannot chown the state directory");
        }
        let sysctl = self.sysctl.clone();
        self.mount(&["--bind".as_ref(), inotify::SYSCTL.as_ref(), &sysctl]);
        if self.setting.queue.is_some() {
            // A daemon of root would raise the limit of the queue, so the limits become read-only for it.
            let sysctl = inotify::SYSCTL.as_ref();
            self.mount(&["--bind".as_ref(), "-o".as_ref(), "ro".as_ref(), sysctl, sysctl]);
        }
    }

    /// Runs `mount ARGS`. The last argument is the mount point.
    pub fn mount(&mut self, args: &[&Path]) {
        let output = Command::new("mount").args(args).output().expect("cannot start mount");
        assert!(output.status.success(), "mount {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        self.mounted.push(args.last().expect("a place").to_path_buf());
    }

    pub fn unmount(&mut self, place: &Path) {
        self.mounted.retain(|mounted| mounted != place);
        // Running processes keep the mount busy, as in real life.
        let output = Command::new("umount").arg("--lazy").arg(place).output().expect("cannot start umount");
        assert!(output.status.success(), "umount {}: {}", place.display(), String::from_utf8_lossy(&output.stderr));
    }

    pub fn is_ordinary(&self) -> bool {
        self.setting.ordinary
    }

    /// A file system with a few files, for a mount below the tree.
    pub fn disk(&mut self) -> PathBuf {
        let disk = self.world.base().join("below");
        if !disk.exists() {
            make_dir(&disk);
            self.mount(&["-t".as_ref(), "tmpfs".as_ref(), DISK.as_ref(), &disk]);
            make_dir(disk.join("a/dir"));
            ["f", "a/f", "a/dir/f"].iter().for_each(|name| write(disk.join(name), name));
        }
        disk
    }

    /// Mounts a directory at a place of the tree, which is emptied first. Returns whether that succeeded.
    pub fn mount_below(&mut self, what: Shown, from: &Path, place: &Path) -> bool {
        let at = self.tree.join(place);
        if at == *from || self.below.iter().any(|(_, _, other)| other == place) {
            return false;
        }
        if at.symlink_metadata().is_ok() && !(at.is_dir() && !at.is_symlink()) {
            let _ = std::fs::remove_file(&at);
        }
        let made = [from, &at].iter().all(|dir| std::fs::create_dir_all(dir).is_ok() && !dir.is_symlink());
        if !made {
            return false;
        }
        self.below.push((what, from.to_owned(), place.to_owned()));
        let done = self.mount_below_again(self.below.len() - 1);
        if !done {
            self.below.pop();
        }
        done
    }

    /// Mounts it again at its place: in the tree itself, and in the mount of the tree that the daemon sees.
    pub fn mount_below_again(&mut self, at: usize) -> bool {
        let (_, from, place) = self.below[at].clone();
        let seen = match from.strip_prefix(&self.tree) {
            Ok(within) => self.world.src.join(within),
            Err(_) => from.clone(),
        };
        let places = [(from, self.tree.join(&place)), (seen, self.world.src.join(&place))];
        let done = places.iter().all(|(from, place)| ran("mount", &["--bind".as_ref(), from, place]));
        self.note(format!("mounted at {}: {done}", place.display()));
        if !done {
            self.unmount_below(at);
        }
        done
    }

    /// Finds mounts whose parent directory has been moved since. A mount that has left the tree is forgotten.
    pub fn find_below(&mut self) {
        let at = disks_below(&self.tree);
        for (shown, _, place) in &mut self.below {
            if *shown == Shown::Disk && !at.contains(place) {
                *place = at.first().cloned().unwrap_or_default();
            }
        }
        self.below.retain(|(.., place)| !place.as_os_str().is_empty());
    }

    /// Unmounts it lazily, since open files keep it busy.
    pub fn unmount_below(&mut self, at: usize) {
        let (_, from, place) = self.below[at].clone();
        for root in [&self.world.src, &self.tree] {
            let done = ran("umount", &["--lazy".as_ref(), &root.join(&place)]);
            self.note(format!("unmounted {} at {}: {done}", from.display(), root.join(&place).display()));
        }
    }

    /// Accepts the missing entries, as an operator would.
    pub fn accept_deletions(&self) {
        let cli = &self.world.cli;
        let args = ["accept-deletions".as_ref(), "--all".as_ref(), "--state-dir".as_ref(), cli.state.as_os_str()];
        let ended = cli.run(args);
        self.note(format!("accepted: {}", ended.text().trim_end()));
    }

    /// As long as the returned value is held, a daemon that starts gets a small queue.
    fn small_queue(&self) -> Option<EventQueueLimit> {
        EventQueueLimit::set(&self.sysctl, self.setting.queue?)
    }

    pub fn note(&self, text: impl AsRef<str>) {
        self.journal.note(text);
    }

    /// Starts the load on a thread of its own.
    pub fn load_on(&mut self) {
        if let Some(load) = self.load.take() {
            self.note("load on");
            self.running = Some(load.run());
        }
    }

    pub fn load_off(&mut self) {
        if let Some(running) = self.running.take() {
            self.load = Some(running.call_back());
            self.note("load off");
        }
    }

    /// The load, which must not be running.
    pub fn load(&mut self) -> &mut Load {
        self.load.as_mut().expect("the load is off")
    }

    pub fn kill9(&mut self) {
        self.note("kill -9 the daemon");
        self.world.daemon().kill9();
    }

    /// Empties the state directory, which may be a mount point. The daemon must not be running.
    pub fn lose_state(&mut self) {
        self.note("the state is lost");
        for entry in std::fs::read_dir(&self.world.cli.state).expect("cannot list the state directory") {
            let path = entry.expect("cannot list the state directory").path();
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.unwrap_or_else(|e| panic!("cannot remove {}: {e}", path.display()));
        }
    }

    pub fn restart(&mut self) {
        self.note("start the daemon");
        let small = self.small_queue();
        self.world.daemon().restart();
        drop(small);
        self.note("the daemon is ready");
    }

    pub fn signal_daemon(&mut self, signal: Signal) {
        self.note(format!("{signal:?} to the daemon"));
        self.world.daemon().signal(signal);
    }

    /// Has the daemon read another configuration, without waiting for the outcome.
    pub fn reload(&mut self, conf: Conf) {
        let remotes = &conf.local_paths[0].remotes;
        self.note(format!("reload: {remotes:?}, {}, {:?}, {}", conf.params, conf.excludes, conf.syncq));
        self.world.conf = conf;
        self.world.conf.save();
        self.signal_daemon(Signal::HUP);
    }

    /// Waits until the daemon has both targets again, and reports no error.
    pub fn has_read_its_configuration(&self) -> bool {
        self.says(|status| {
            let targets = status["roots"][0]["targets"].as_array().map(Vec::len);
            status["config"]["error"].is_null() && targets == Some(TARGETS.len())
        })
    }

    /// Counts a fault, and whether the daemon has noticed it: an unnoticed fault proves nothing.
    pub fn count(&mut self, kind: &str, hit: bool) {
        let (struck, hits) = self.struck.entry(kind.to_owned()).or_default();
        *struck += 1;
        *hits += u32::from(hit);
        if !hit {
            self.note(format!("{kind} went unnoticed"));
        }
    }

    /// Each kind of fault, with the number of times it was made and noticed.
    pub fn counted(&self) -> String {
        let one = |(kind, (struck, hits)): (&String, &(u32, u32))| {
            if struck == hits { format!("{kind} {struck}") } else { format!("{kind} {struck} (noticed {hits})") }
        };
        self.struck.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Whether `what` holds for the status within a few seconds.
    pub fn says(&self, mut what: impl FnMut(&Value) -> bool) -> bool {
        let looked = try_for(secs(5), || match self.world.cli.try_status() {
            Ok(status) if what(&status.json) => Ok(()),
            _ => Err(String::new()),
        });
        looked.is_ok()
    }

    /// Waits until the root is watched.
    pub fn watching_again(&self) {
        let watching = |status: &Value| status["roots"][0]["state"] == "watching";
        wait_until(secs(60), "the root to be watched again", || {
            self.world.cli.try_status().is_ok_and(|status| watching(&status.json))
        });
    }

    /// The daemon's greatest use of memory so far, in MB.
    pub fn peak_memory_mb(&mut self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.world.daemon().pid()));
        let status = status.expect("a running daemon");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its most memory");
        let kb: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kb / 1_024
    }

    /// The size of the store, in MB.
    pub fn store_mb(&self) -> u64 {
        let status = self.world.cli.status();
        status.json["store"]["bytes"].as_u64().expect("the size of the store") >> 20
    }

    /// Repairs every target's connection.
    pub fn heal(&mut self) {
        self.proxies.iter().for_each(|proxy| proxy.set(Mode::Pass));
        (0..self.proxies.len()).for_each(|n| self.deliver(n));
    }

    /// From now on holds the data that is sent to a target, except for the first `after` bytes of each connection.
    pub fn hold(&self, target: usize, after: usize) {
        self.note(format!("held on the way to target {target}: all after {after} bytes"));
        self.proxies[target].set(Mode::Hold(after));
    }

    /// How many connections of a target are held.
    pub fn held(&self, target: usize) -> usize {
        self.proxies[target].held()
    }

    /// Lets further connections of a target pass.
    pub fn let_others_pass(&self, target: usize) {
        self.note(format!("{} connections are held", self.held(target)));
        self.proxies[target].set(Mode::Pass);
    }

    /// Delivers the held data of a target.
    pub fn deliver(&mut self, target: usize) {
        let held = self.held(target);
        if held > 0 {
            self.note(format!("{held} connections deliver to target {target}"));
            self.proxies[target].release();
            self.late_until = Some(Instant::now() + LATE);
        }
    }

    /// Has the daemon retry all jobs that wait for a later attempt.
    pub fn retry(&self) {
        let cli = &self.world.cli;
        let ended = cli.run(["retry".as_ref(), "--state-dir".as_ref(), cli.state.as_os_str()]);
        drop(ended.ok());
    }

    /// Waits until both targets equal the source.
    pub fn equal(&mut self) {
        if self.late_until.is_some_and(|until| Instant::now() < until) {
            self.note("all is well; waiting for equal trees, which may be late");
            self.world.converges(HEAL + LATE);
        } else {
            self.note("all is well; waiting for true answers and equal trees");
            self.world.answers_are_true(HEAL);
            self.world.converges(HEAL);
        }
        self.note("equal");
    }

    /// Waits until one target has jobs that it cannot do.
    pub fn has_pending(&self, module: &str) {
        wait_until(secs(60), "jobs that wait", || {
            self.world.cli.try_status().is_ok_and(|status| !status.target(module).is_idle())
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // Faults that the load ran into no longer matter.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| running.call_back()));
        }
        if std::thread::panicking() {
            let copy = self.world.base().join("state-kept");
            let _ = Command::new("cp").arg("-a").arg(&self.world.cli.state).arg(copy).status();
        }
        drop(self.world.daemon.take());
        self.servers.iter_mut().for_each(Rsyncd::stop);
        none_immutable(self);
        (0..self.below.len()).for_each(|at| self.unmount_below(at));
        for place in self.mounted.drain(..).rev() {
            let _ = Command::new("umount").arg("--lazy").arg(place).status();
        }
    }
}

/// Lets some time pass. No check relies on it.
pub fn rest(rng: &mut Rng, most_ms: u64) {
    std::thread::sleep(Duration::from_millis(rng.u64(0..most_ms)));
}

/// Makes all entries mutable again: an immutable entry keeps its directory from being removed.
fn none_immutable(stage: &Stage) {
    for target in &stage.world.dsts {
        chattr(&["-R", "-i"], target);
    }
}
