//! Batches against a real rsync: a directory of this machine, and a daemon that each test starts for itself.

mod alike;
mod chance;
mod daemon;
mod facts;
mod fake;
mod filtered;
mod guard;
mod leftovers;
mod links;
mod refused;
mod standby;
#[path = "../../../tests/support/mod.rs"]
mod support;
mod trees;

use std::ffi::OsString;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use support::rsync::{Side, rsync};
use support::rsyncd::Rsyncd;

use super::plan::run::Deletion;
use super::rsync::{itemize, messages, stats};
use super::*;
use crate::filter::Filter;
use crate::model::{
    ClaimedJob, CutOff, Destination, Generation, JobError, Lane, MaxDelete, Origin, RelPath, Scope, Target, Timestamp,
    TransferOptions, Verdict,
};

/// 2026-11-22, noon.
const NOW: Timestamp = Timestamp(1_795_348_800_000);

/// A source, a target directory, and a daemon that serves it if asked to.
struct Stage {
    dir: tempfile::TempDir,
    daemon: Option<Rsyncd>,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        std::fs::create_dir(dir.path().join("dst")).unwrap();
        Self { dir, daemon: None }
    }

    /// Starts a daemon with the module `m` (the target directory), which gets `settings`, and further `modules`, both as
    /// they stand in rsyncd.conf. `@DIR@` is the stage's directory; a module without a path is the target directory.
    fn with_daemon(settings: &str, modules: &str) -> Self {
        let mut stage = Self::new();
        let mut server = Rsyncd::new(&stage.dir.path().join("rsyncd"));
        // The server's messages name paths of this machine, and links keep their values.
        server.global("use chroot", "no").global("munge symlinks", "no");
        let text = format!("[m]\n{settings}\n{modules}");
        let mut module = "";
        for line in text.replace("@DIR@", &stage.dir.path().display().to_string()).lines() {
            if let Some(name) = line.strip_prefix('[') {
                module = name.trim_end_matches(']');
                server.module(module, &stage.dst(""));
            } else if let Some((key, value)) = line.split_once(" = ") {
                server.module_option(module, key, value);
            }
        }
        server.start();
        stage.daemon = Some(server);
        stage
    }

    fn src(&self, name: &str) -> PathBuf {
        self.dir.path().join("src").join(name)
    }

    fn dst(&self, name: &str) -> PathBuf {
        self.dir.path().join("dst").join(name)
    }

    /// Writes a file, with its directories, into the source.
    fn write(&self, name: &str, content: &str) {
        write(&self.src(name), content);
    }

    fn local(&self) -> TargetContext {
        self.context(Destination::Local(self.dst("")), TransferOptions::default())
    }

    fn module(&self, module: &str) -> TargetContext {
        self.module_with(module, |_| {})
    }

    fn module_with(&self, module: &str, change: impl FnOnce(&mut TransferOptions)) -> TargetContext {
        let port = self.daemon.as_ref().map(|daemon| daemon.port);
        let (host, module) = match module.split_once('@') {
            Some((user, module)) => (format!("{user}@127.0.0.1"), module),
            None => ("127.0.0.1".to_owned(), module),
        };
        let mut options = TransferOptions { port, ..TransferOptions::default() };
        change(&mut options);
        self.context(Destination::Daemon { host, module: module.into() }, options)
    }

    fn context(&self, destination: Destination, options: TransferOptions) -> TargetContext {
        self.context_filtered(destination, options, &[])
    }

    fn context_filtered(&self, destination: Destination, options: TransferOptions, excludes: &[&str]) -> TargetContext {
        let root = self.src("");
        let identity = RootIdentity::of(&root).unwrap();
        let excludes: Vec<String> = excludes.iter().map(|&text| text.to_owned()).collect();
        let filter = Arc::new(Filter::new(&excludes, false).unwrap());
        let mut ctx = TargetContext::new(
            root,
            identity,
            Target { destination, options },
            filter,
            Limits::default(),
            Guard::default(),
            Path::new("/state"),
        );
        ctx.program.path = rsync(Side::Client).into();
        ctx
    }

    /// Both trees, as `find` shows them: kind, mode, size, time (directories included), name and link value.
    #[must_use]
    fn difference(&self) -> Option<(String, String)> {
        let (source, target) = (listing(&self.src("")), listing(&self.dst("")));
        (source != target).then_some((source, target))
    }
}

fn listing(root: &Path) -> String {
    let output = Command::new("find").args([".", "-printf", "%y %m %T@ %P %l\\0"]).current_dir(root).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<&str> = text.split('\0').collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(path).unwrap().write_all(content.as_bytes()).unwrap();
}

/// Writes a program by another process. A descriptor of this one, inherited by a child of another test, would make the
/// program busy.
fn program(path: &Path, text: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
}

fn path(name: impl AsRef<std::ffi::OsStr>) -> RelPath {
    RelPath::new(name.as_ref().as_bytes()).unwrap()
}

fn job(name: &str, scope: Scope, origin: Origin) -> ClaimedJob {
    ClaimedJob {
        path: path(name),
        scope,
        origin,
        generation: Generation::FIRST,
        since: Timestamp::ZERO,
        moved_from: None,
        several_names: None,
        is_new: false,
        is_safety_rerun: false,
    }
}

fn entries(names: &[&str]) -> Vec<ClaimedJob> {
    names.iter().map(|name| job(name, Scope::Entry, Origin::Write)).collect()
}

fn go(ctx: &TargetContext, jobs: &[ClaimedJob]) -> BatchReport {
    let report = execute(ctx, Lane::Small, jobs, Contents::Vouched, NOW, &StopSignal::new().unwrap());
    let answered: Vec<&RelPath> = report.verdicts.iter().map(|(path, _)| path).collect();
    assert_eq!(answered, jobs.iter().map(|job| &job.path).collect::<Vec<_>>(), "one verdict for each job");
    report
}

/// How many more runs a batch with deletions by name takes if rsync refuses these, like Debian 12's: the refusal takes one
/// run, and the deletions in another way take a run of their own.
fn refusals(ctx: &TargetContext) -> u32 {
    if ctx.capabilities.deletion(true) == Deletion::ByLevel { 2 } else { 0 }
}

#[track_caller]
fn all_done(report: &BatchReport) {
    for (path, verdict) in &report.verdicts {
        assert_eq!(*verdict, Verdict::Done, "{path}: {report:#?}");
    }
    assert_eq!(report.trouble, None);
}

#[track_caller]
fn verdict<'a>(report: &'a BatchReport, name: &str) -> &'a Verdict {
    &report.verdicts.iter().find(|(found, _)| *found == path(name)).unwrap().1
}
