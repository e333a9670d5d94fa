//! The facts about rsync that syncq relies on: one fact a test, each held against a real client and a real server, on this
//! machine, as a daemon and through a remote shell. `tools/rsync-matrix` holds all of them against every pair of versions
//! that it knows. A fact that is relied on and not here was measured once, on one version: put it here.
//!
//! - `lists`: what a list makes rsync do, what is compared, and how it is reported. `arguments`, `short_list`, `planner`,
//!   `itemize`, `observer`, `comparison`, `top` and `stale_temporaries` rely on it.
//! - `deletions`: which entries are deleted, spared and counted. `deletions`, `filtered`, `planner`, `arguments`, `narrow`,
//!   `classify`.
//! - `words`: sentences and exit codes. `messages`, `itemize`, `diagnosis`, `classify`, `noise`, `inspect`.
//! - `ways`: what a receiver makes use of and leaves behind, and how it is reached. `rename`, `standby`, `context`,
//!   `stale_temporaries`, `arguments`, `process`, `confine`.
//!
//! Where versions differ the test says how, and the code does what works with all of them:
//!
//! | fact | versions | code |
//! |---|---|---|
//! | a deletion by name is refused by the receiver, exit 2 | Debian's 3.2.7, 3.4.3 | asked again by directory (`Fallback::DeleteByLevel`) |
//! | a daemon that refuses `delete-missing-args` takes what is missing for something odd, and ends well | before 3.4.3, Debian's 3.2.7 excepted | `classify::mistakes_missing` |
//! | a dry run counts no deletions towards a daemon | before 3.4.4 | the lines are counted (`stats::deletions`) |
//! | what a daemon refuses is lost with the connection | before 3.2.0 | the target counts as away, not as misconfigured |
//! | a missing path below a missing directory breaks the run | before 3.2.0 | asked again by directory (`classify::mistakes_missing`) |
//! | a dry run says in words that it would make the destination | not 3.2.3 and before | the root's own line is read (`inspect`) |
//! | what a listed link leads to is not said | without `-l` | `top::names` |
//! | `--mkpath` is not known | before 3.2.3 | the operator is told to make the directory |
//! | a daemon takes an option's value with the escapes that clients since 3.2.4 give it | up to 3.2.7 | `rename` says `-s` |
//! | errors do not say who speaks | before 3.2.0 | `messages::Form::ours` |
//! | `--modify-window=-1` is not known | before 3.1.3 | `check` and the start say that the version is untested |
//! | a link that was swapped in is followed | before 3.5.0 | `confine` |
//!
//! No distribution has 3.1.3 or 3.4.x. Builds of 3.1.3 and 3.4.3 from their sources were held against most of these facts.
//! To do that again, or with other versions, name their programs like `tools/rsync-matrix` does.

use super::*;

mod deletions;
mod lists;
mod ways;
mod words;

/// How the client gets to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// One rsync is both client and server.
    Local,
    Daemon,
    /// A remote shell that runs its command on this machine.
    Shell,
}

const WAYS: [Way; 3] = [Way::Local, Way::Daemon, Way::Shell];

/// The arguments of a run by name.
const BY_NAME: [&str; 7] = ["-a", "--no-r", "--dirs", "-R", "--files-from=-", "--from0", "--modify-window=-1"];
/// The arguments of a run over trees that are named in a list.
const BY_TREE: [&str; 6] = ["-a", "-r", "-R", "--files-from=-", "--from0", "--modify-window=-1"];

/// A source and a target, and the way between them.
struct Pair {
    stage: Stage,
    way: Way,
}

/// The end and the output of a run.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    #[track_caller]
    fn well(self) -> Self {
        assert!(self.code == 0 && self.err.is_empty(), "{self:#?}");
        self
    }

    /// The words of both outputs.
    fn all(&self) -> String {
        format!("{}\n{}", self.out, self.err)
    }

    fn has_line(&self, line: &str) -> bool {
        self.out.lines().any(|found| found == line)
    }
}

impl Pair {
    fn new(way: Way) -> Self {
        Self::with(way, "")
    }

    /// A pair whose module has further settings.
    fn with(way: Way, settings: &str) -> Self {
        let stage = if way == Way::Daemon { Stage::with_daemon(settings, "") } else { Stage::new() };
        Self { stage, way }
    }

    /// A pair for each way.
    fn all() -> impl Iterator<Item = Self> {
        WAYS.into_iter().map(Self::new)
    }

    /// The target as the client names it, or a directory in it.
    fn target(&self, below: &str) -> Vec<OsString> {
        let path = self.stage.dst(below);
        match self.way {
            Way::Local => vec![path.into()],
            Way::Daemon => {
                let port = self.stage.daemon.as_ref().unwrap().port;
                vec![format!("--port={port}").into(), format!("127.0.0.1::m/{below}").into()]
            }
            Way::Shell => {
                let shell = self.stage.dir.path().join("shell");
                let there = rsync(Side::Server);
                let dir = there.parent().unwrap();
                // Like sshd, this passes the words to a shell as one line.
                program(&shell, &format!("#!/bin/sh\nshift\nPATH={}:$PATH exec sh -c \"$*\"\n", dir.display()));
                vec!["-e".into(), shell.into(), format!("host:{}", path.display()).into()]
            }
        }
    }

    /// Runs rsync in the source.
    fn run(&self, args: &[&str], list: &[u8]) -> Said {
        self.run_to("", args, list)
    }

    /// Runs rsync in the source, to a directory within the target.
    fn run_to(&self, below: &str, args: &[&str], list: &[u8]) -> Said {
        let mut words: Vec<OsString> = args.iter().map(OsString::from).collect();
        let mut target = self.target(below);
        let last = target.pop().unwrap();
        words.extend(target);
        words.push("./".into());
        words.push(last);
        self.start(&words, list)
    }

    /// Runs rsync with exactly these arguments.
    fn start(&self, args: &[OsString], list: &[u8]) -> Said {
        self.begin(Command::new(rsync(Side::Client)), args, list)
    }

    /// Runs rsync as a user who may write the target but not read everything.
    fn run_as_nobody(&self, args: &[&str], list: &[u8]) -> Said {
        let mut words: Vec<OsString> = args.iter().map(OsString::from).collect();
        let mut target = self.target("");
        let last = target.pop().unwrap();
        words.extend(target);
        words.extend(["./".into(), last]);
        if !rustix::process::geteuid().is_root() {
            return self.start(&words, list);
        }
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        open(self.stage.dir.path(), 0o755);
        for entry in walkdir::WalkDir::new(self.stage.dst("")).into_iter().map(Result::unwrap) {
            open(entry.path(), 0o777);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(rsync(Side::Client));
        self.begin(command, &words, list)
    }

    fn close(&self, name: &str) {
        std::fs::set_permissions(self.stage.src(name), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    }

    fn open(&self, name: &str) {
        std::fs::set_permissions(self.stage.src(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn begin(&self, mut command: Command, args: &[OsString], list: &[u8]) -> Said {
        command.args(args).current_dir(self.stage.src("")).env("LC_ALL", "C").env("TZ", "UTC");
        command.env("RSYNC_PASSWORD", "").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A client that has ended already reads no list.
        let _ = child.stdin.take().unwrap().write_all(list);
        let ended = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: ended.status.code().unwrap_or(-1), out: text(ended.stdout), err: text(ended.stderr) }
    }

    /// The version of the receiving rsync.
    fn receiver(&self) -> Vec<u32> {
        version(if self.way == Way::Local { Side::Client } else { Side::Server })
    }

    /// Whether both versions are at least `oldest`.
    fn both_from(&self, oldest: [u32; 3]) -> bool {
        self.receiver() >= oldest.to_vec() && version(Side::Client) >= oldest.to_vec()
    }

    fn has(&self, name: &str) -> bool {
        self.stage.dst(name).symlink_metadata().is_ok()
    }

    fn target_names(&self) -> Vec<String> {
        let all = walkdir::WalkDir::new(self.stage.dst("")).min_depth(1).sort_by_file_name();
        let names = all.into_iter().map(|entry| entry.unwrap().path().to_owned());
        names.map(|path| path.strip_prefix(self.stage.dst("")).unwrap().display().to_string()).collect()
    }
}

fn version(side: Side) -> Vec<u32> {
    let output = Command::new(rsync(side)).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split("version ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    number.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

fn set_time(path: &Path, seconds: u64, nanos: u32) {
    let time = std::time::UNIX_EPOCH + Duration::new(seconds, nanos);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&path.symlink_metadata().unwrap())
}
