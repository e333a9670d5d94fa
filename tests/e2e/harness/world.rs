//! The world of one test: a source, two modules of an rsyncd as targets, a configuration and a daemon.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::Rsyncd;
use super::config::Conf;
use super::daemon::{Cli, Daemon};
use super::rsync::{Side, rsync};
use super::tree::{Compare, differences};
use super::wait::{secs, try_for, wait_for, wait_until};

/// Made by [`World::new`], adapted by the test, then started. Fields are dropped in order: daemon, rsyncd, directory.
#[derive(Debug)]
pub struct World {
    pub daemon: Option<Daemon>,
    pub rsyncd: Rsyncd,
    pub conf: Conf,
    pub cli: Cli,
    pub src: PathBuf,
    /// The paths of the modules `m1` and `m2`.
    pub dsts: Vec<PathBuf>,
    pub compare: Compare,
    /// Whether the directory outlives a failed test.
    pub keep: bool,
    dir: Option<TempDir>,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("syncq-e2e-").tempdir().expect("cannot create a temporary directory");
        let base = dir.path().to_owned();
        let make = |name: &str| {
            let path = base.join(name);
            fs::create_dir(&path).unwrap_or_else(|e| panic!("cannot create {}: {e}", path.display()));
            path
        };
        let (src, dsts, home) = (make("src"), vec![make("m1"), make("m2")], make("home"));
        let mut rsyncd = Rsyncd::new(&base.join("rsyncd"));
        rsyncd.module("m1", &dsts[0]).module("m2", &dsts[1]);
        let mut conf = Conf::new(&base, "confxml.xml", rsyncd.port);
        conf.root(&src, &[("127.0.0.1", "m1"), ("127.0.0.1", "m2")]);
        let cli = Cli::new(&home, &base.join("state"));
        let keep = std::env::var_os("SYNCQ_E2E_KEEP").is_some();
        Self { daemon: None, rsyncd, conf, cli, src, dsts, compare: Compare::default(), keep, dir: Some(dir) }
    }

    /// The directory that holds everything.
    pub fn base(&self) -> &Path {
        self.dir.as_ref().expect("the world has its directory until it is dropped").path()
    }

    /// Makes a further directory in the world, outside of source and targets.
    pub fn side(&self, name: &str) -> PathBuf {
        let path = self.base().join(name);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("cannot create {}: {e}", path.display()));
        path
    }

    /// Starts rsyncd, writes the configuration and starts `syncq run` with it.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Like [`World::start`], with further arguments.
    pub fn start_with(&mut self, more: &[&str]) {
        self.rsyncd.start();
        self.start_daemon(more);
    }

    /// Starts the daemon alone.
    pub fn start_daemon(&mut self, more: &[&str]) {
        let conf = self.conf.save();
        let mut args = vec!["run".into(), "-o".into(), conf.into_os_string(), "--state-dir".into()];
        args.push(self.cli.state.clone().into_os_string());
        args.extend(more.iter().map(Into::into));
        self.daemon = Some(Daemon::start(&self.cli, args));
    }

    /// Starts rsyncd and `syncq mirror SRC m1 m2`, with further arguments.
    pub fn start_mirror(&mut self, more: &[&str]) {
        self.rsyncd.start();
        let mut args = vec!["mirror".into(), self.src.clone().into_os_string()];
        args.extend(["m1", "m2"].map(|module| self.rsyncd.remote(module).into()));
        args.extend(["--port".into(), self.rsyncd.port.to_string().into(), "--state-dir".into()]);
        args.push(self.cli.state.clone().into_os_string());
        args.extend(more.iter().map(Into::into));
        self.daemon = Some(Daemon::start(&self.cli, args));
    }

    #[track_caller]
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the daemon has been started")
    }

    /// Waits until no job is left and both targets equal the source. Fails if any job has failed.
    #[track_caller]
    pub fn converges(&self, deadline: Duration) {
        let dsts: Vec<&Path> = self.dsts.iter().map(PathBuf::as_path).collect();
        self.equal_within(&self.src, &dsts, deadline);
    }

    /// Waits with `syncq wait`, and then until `status` calls every target idle. At that moment the trees have to be equal,
    /// since people rely on these two answers. Nothing may change the tree meanwhile.
    #[track_caller]
    pub fn answers_are_true(&self, deadline: Duration) {
        let (seconds, state) = (format!("{}s", deadline.as_secs()), self.cli.state.display().to_string());
        drop(self.cli.run(["wait", "--timeout", &seconds, "--state-dir", &state]).ok());
        self.equal_now("wait says done");
        wait_for(deadline, "every target to be idle", || {
            let status = self.cli.try_status()?;
            let states = status.targets.iter().all(|target| target.state == "idle");
            if states { Ok(()) } else { Err(status.json["targets"].to_string()) }
        });
        self.equal_now("status says idle");
    }

    #[track_caller]
    fn equal_now(&self, said: &str) {
        for dst in &self.dsts {
            let found = differences(&self.src, dst, self.compare);
            assert!(found.is_empty(), "{said}, and {} differs:\n  {}", dst.display(), found.join("\n  "));
        }
    }

    #[track_caller]
    pub fn equal_within(&self, src: &Path, dsts: &[&Path], deadline: Duration) {
        let end = try_for(deadline, || {
            let status = self.cli.try_status()?;
            if status.json["state"] == "offline" {
                return Err("the daemon has gone".to_owned());
            }
            if !status.is_idle() {
                return Err("work is left".to_owned());
            }
            for dst in dsts {
                let found = differences(src, dst, self.compare);
                if !found.is_empty() {
                    return Err(format!("{} differs:\n  {}", dst.display(), found.join("\n  ")));
                }
            }
            Ok(status)
        });
        match end {
            Ok(status) => {
                let failed: u64 = status.targets.iter().map(|target| target.failed).sum();
                assert_eq!(failed, 0, "equal, but jobs have failed:\n{:#?}", status.targets);
            }
            Err(reason) => panic!("not equal after {} s: {reason}\n{}", deadline.as_secs(), self.picture(src, dsts)),
        }
    }

    /// Status, jobs and differences, for the message of a failing test.
    fn picture(&self, src: &Path, dsts: &[&Path]) -> String {
        let status = match self.cli.try_status() {
            Ok(status) => format!("{:#}", status.json),
            Err(reason) => return reason,
        };
        let jobs: Vec<_> = self.cli.list().into_iter().take(10).map(|job| job.to_string()).collect();
        let differing: Vec<_> = dsts
            .iter()
            .map(|dst| format!("{}:\n  {}", dst.display(), differences(src, dst, self.compare).join("\n  ")))
            .collect();
        format!("{status}\nfirst jobs:\n{}\ndifferences now:\n{}", jobs.join("\n"), differing.join("\n"))
    }

    /// Waits until all earlier writes are so old that a start no longer looks at them by itself, and until the daemon has noted
    /// that.
    pub fn ages(&self) {
        let begun = SystemTime::now();
        let aged = || begun.elapsed().is_ok_and(|age| age > syncq::ctime::MARGIN * 11 / 10);
        wait_until(secs(60), "the files to grow old", aged);
        super::write(self.src.join("sign of life"), "");
        self.converges(soon());
    }

    /// Whether a path is equal in the source and in the target numbered `n`.
    pub fn arrived(&self, n: usize, path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        match (fs::read(self.src.join(path)), fs::read(self.dsts[n].join(path))) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            _ => false,
        }
    }

    /// Puts a wrapper named rsync first in the daemon's `PATH`, which counts starts. Call it before the daemon starts.
    pub fn count_rsyncs(&mut self) -> RsyncCount {
        let bin = self.side("bin");
        let count = RsyncCount { file: self.base().join("rsync.count") };
        fs::write(&count.file, "").expect("cannot create the count");
        let real = rsync(Side::Client);
        let script =
            format!("#!/bin/sh\necho \"$*\" >> '{}'\nexec '{}' \"$@\"\n", count.file.display(), real.display());
        let wrapper = bin.join("rsync");
        fs::write(&wrapper, script).expect("cannot write the wrapper");
        fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).expect("cannot chmod the wrapper");
        self.cli.bin = Some(bin);
        count
    }

    /// Gives everything to `nobody` and runs daemon and rsyncd as `nobody`, if the tests run as root.
    pub fn become_nobody(&mut self) {
        self.rsyncd.as_nobody = true;
        self.daemon_as_nobody();
        if super::is_root() {
            give_to_nobody(self.base());
        }
    }

    /// Runs the daemon as `nobody`, and gives `nobody` every directory that the daemon writes in.
    pub fn daemon_as_nobody(&mut self) {
        self.cli.as_nobody = true;
        if super::is_root() {
            // `nobody` may be unable to reach the build directory.
            let binary = self.base().join("syncq");
            // By cp: a child of another test could inherit a descriptor of ours, which would make the copy busy.
            let copied = Command::new("cp").arg(&self.cli.binary).arg(&binary).status().expect("cannot start cp");
            assert!(copied.success(), "cannot copy the binary: {copied}");
            self.cli.binary = binary;
            for dir in [self.base(), &self.cli.home, &self.cli.state].into_iter().filter(|dir| dir.exists()) {
                give(dir);
            }
        }
    }

    /// Stops the daemon; it must end with 0.
    pub fn stop(&mut self) {
        self.daemon().stop();
    }
}

fn give(path: &Path) {
    chown(path, Some(65534), Some(65534)).unwrap_or_else(|e| panic!("cannot chown {}: {e}", path.display()));
}

/// Changes the owner of a tree.
pub fn give_to_nobody(path: &Path) {
    give(path);
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("cannot list a directory") {
            give_to_nobody(&entry.expect("cannot list a directory").path());
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.daemon.take());
        self.cli.end_all();
        self.rsyncd.stop();
        if let Some(dir) = self.dir.take() {
            if std::thread::panicking() && self.keep {
                eprintln!("kept: {}", dir.keep().display());
            } else if let Err(error) = dir.close() {
                eprintln!("cannot remove the world: {error}");
            }
        }
    }
}

/// The starts of rsync by the daemon.
#[derive(Debug)]
pub struct RsyncCount {
    file: PathBuf,
}

impl RsyncCount {
    /// How many of the command lines so far contain both words.
    pub fn naming_both(&self, one: &str, other: &str) -> usize {
        let lines = fs::read_to_string(&self.file).unwrap_or_default();
        lines.lines().filter(|line| line.contains(one) && line.contains(other)).count()
    }

    /// How many of the command lines so far name `target`, transfers and probes alike.
    pub fn naming(&self, target: &str) -> usize {
        fs::read_to_string(&self.file).unwrap_or_default().lines().filter(|line| line.contains(target)).count()
    }
}

/// A deadline for conditions that normally come true within a second or two.
pub fn soon() -> Duration {
    secs(60)
}
