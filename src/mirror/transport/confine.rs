//! Keeps an rsync that follows swapped links within the source and the target, by Landlock.
//!
//! Up to 3.5.0 rsync goes by names: a user who may write in the tree swaps a directory for a link between rsync's look and
//! its reading. rsync then sends whatever the link leads to, root's files too. On a target of this machine it overwrites
//! and deletes there. A confined process may read the source and what a program needs to run, and write the target, and the
//! kernel refuses it the rest. A thread is confined, starts the process, which inherits the confinement, and ends; syncq
//! itself stays free. That costs a third of a millisecond a run. Newer versions look themselves where a link leads, and are
//! not confined.
//!
//! The kinds of access that are confined ([`Places::held`]) depend on where the target is and what the parameters ask for.
//! An rsync that only sends writes nothing here, and a remote shell is a program of the user's that may write what it likes
//! (known hosts, sockets). So for those only reading is confined; allowed are also `~/.ssh` and the files that the shell's
//! command line and ssh's configuration name. Where links are to be followed (`-L`, `-k`, `--copy-unsafe-links`), only
//! writing is confined.
//!
//! [`Places::confinement`] tells what is not confined, and `check` and the start pass that on: kernels without Landlock, an
//! rsync that is a script (nobody knows what it needs), a remote shell that is no ssh, or an ssh that connects for each run
//! and starts other programs (nobody knows what a `ProxyCommand` reads), links that are to be followed, and `-K` to a
//! target on this machine. Within the source and within the target an older rsync follows a swapped link as before.
//!
//! Deliberately absent: what the rsync of another machine does there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetStatus,
};
use memchr::memmem;
use parking_lot::Mutex;

use super::shell_files::{PROGRAMS, is_plain, is_script, shell_files, ssh_alone};
use crate::mirror::rsync::installed::find_rsync;
use crate::mirror::rsync::program::Confine;
use crate::mirror::rsync::version::rsync_version;
use crate::model::{Destination, Given, Params, Target};

/// From this version on rsync follows no link of another user's.
const CAREFUL: [u32; 3] = [3, 5, 0];

/// How long rsync may take to tell its version.
const VERSION_WITHIN: Duration = Duration::from_secs(10);

/// The version of Landlock's rights. An earlier kernel enforces those of them that it knows.
const RIGHTS: ABI = ABI::V3;

const READABLE: [&str; 27] = [
    "/usr/share",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/locale.alias",
    "/etc/popt",
    "/etc/popt.d",
    "/etc/ssl/openssl.cnf",
    "/etc/crypto-policies",
    "/etc/krb5.conf",
    "/etc/ssh/ssh_config",
    "/etc/ssh/ssh_config.d",
    "/etc/ssh/ssh_known_hosts",
    "/var/lib/sss/mc",
    "/dev/urandom",
    "/dev/random",
];
const DEVICES: [&str; 2] = ["/dev/null", "/dev/tty"];

/// The directories that the runs for one target read and write.
#[derive(Debug, Clone)]
pub struct Places {
    sources: Vec<PathBuf>,
    target: Target,
}

/// How runs are kept within their places on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// rsync itself does not leave its places.
    Unneeded,
    /// The kernel confines rsync.
    Landlock,
    /// Nothing confines rsync.
    Missing(Missing),
}

/// Why nothing keeps rsync within its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Kernel,
    Script,
    /// Nobody knows what the remote shell needs.
    Shell,
    /// The parameters have rsync follow links wherever they lead.
    Links,
    /// `-K` has rsync follow links of the target.
    Kept,
}

impl Missing {
    /// Whether the reason is the same for all targets.
    pub fn is_general(self) -> bool {
        matches!(self, Self::Kernel | Self::Script)
    }

    pub fn message(self) -> &'static str {
        match self {
            Self::Kernel => {
                "this rsync is older than 3.5.0, and this kernel has no Landlock: whoever may write in a watched tree can have any file of \
                 this user sent, by swapping a directory for a link"
            }
            Self::Script => {
                "rsync is a script that runs one older than 3.5.0, which syncq cannot confine: whoever may write in a watched tree can have \
                 any file of this user sent, by swapping a directory for a link"
            }
            Self::Shell => {
                "this rsync is older than 3.5.0, and its remote shell connects for each run through programs of its own, so that syncq cannot \
                 confine it: whoever may write in the watched tree can have any file of this user sent, by swapping a directory for a link"
            }
            Self::Links => {
                "the params have links followed wherever they lead: whoever may write in the watched tree can have any file of this user \
                 sent, by making a link"
            }
            Self::Kept => {
                "this rsync is older than 3.5.0, and -K has it write behind links of the target: whoever may write in the watched tree can \
                 have any file of this user overwritten"
            }
        }
    }

    pub fn hint(self) -> &'static str {
        match self {
            Self::Kernel | Self::Script => {
                "install rsync 3.5.0 or newer, or run syncq as a user who may read nothing else"
            }
            Self::Shell => {
                "install rsync 3.5.0 or newer, or do without ProxyCommand and the like, or have the connection shared (<ssh share=\"true\"/>)"
            }
            Self::Links => {
                "take -L, -k and --copy-unsafe-links out of the params, or run syncq as a user who may read nothing else"
            }
            Self::Kept => "install rsync 3.5.0 or newer, or take -K out of the params",
        }
    }
}

/// How the rsync in PATH is kept within its places, as far as the answer is the same for all targets.
pub fn confinement() -> Confinement {
    match rsync_kind() {
        Kind::Careful => Confinement::Unneeded,
        Kind::Script => Confinement::Missing(Missing::Script),
        Kind::Trusting(_) if is_known_to_confine() => Confinement::Landlock,
        Kind::Trusting(_) => Confinement::Missing(Missing::Kernel),
    }
}

/// Whether an rsync of this version follows no link of another user's.
pub(in crate::mirror) fn is_careful(version: &[u32]) -> bool {
    version >= &CAREFUL[..]
}

/// The rights of a process that only reads.
fn read() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// How an rsync program treats links, as far as confinement has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// rsync looks where links lead. Also an rsync whose version cannot be asked: its runs will fail and tell.
    Careful,
    /// rsync at this path follows links.
    Trusting(PathBuf),
    /// A script that runs another rsync, one that follows links.
    Script,
}

/// Path, device, inode and change time of a program: differs if the program was replaced.
type Stamp = (PathBuf, u64, u64, i64, i64);

/// The answer for the program that PATH led to last, so that each program is asked once.
static KNOWN: Mutex<Option<(Stamp, Kind)>> = Mutex::new(None);

fn rsync_kind() -> Kind {
    let found = find_rsync().ok().and_then(|path| Some((path.metadata().ok()?, path)));
    let Some((meta, path)) = found else { return Kind::Careful };
    let stamp = (path.clone(), meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec());
    let mut known = KNOWN.lock();
    if let Some((_, kind)) = known.as_ref().filter(|(known, _)| *known == stamp) {
        return kind.clone();
    }
    let kind = match rsync_version(VERSION_WITHIN) {
        Ok(found) if !is_careful(&found.numbers()) => match is_script(&path) {
            true => Kind::Script,
            false => Kind::Trusting(path),
        },
        _ => Kind::Careful,
    };
    *known = Some((stamp, kind.clone()));
    kind
}

/// Whether the kernel can confine a thread.
fn is_available() -> bool {
    let attempt = std::thread::spawn(|| ruleset().is_ok_and(|rules| confine(rules).is_ok()));
    attempt.join().unwrap_or(false)
}

impl Places {
    /// The places of runs that read at `root`.
    pub fn new(root: &Path, target: &Target) -> Self {
        Self { sources: vec![root.to_owned()], target: target.clone() }
    }

    /// Adds `source` to the directories that the runs read.
    pub fn and(mut self, source: &Path) -> Self {
        self.sources.push(source.to_owned());
        self
    }

    /// How the runs for the target are confined on this machine. `shares`: runs to its host share a connection.
    pub fn confinement(&self, shares: bool) -> Confinement {
        let params = &self.target.options.params;
        match confinement() {
            general @ Confinement::Missing(_) => general,
            _ if params.follows_links() => Confinement::Missing(Missing::Links),
            Confinement::Unneeded => Confinement::Unneeded,
            Confinement::Landlock if self.keeps_links() => Confinement::Missing(Missing::Kept),
            Confinement::Landlock if self.connects_by_program() || !self.may_confine(params.remote_shell(), shares) => {
                Confinement::Missing(Missing::Shell)
            }
            Confinement::Landlock => Confinement::Landlock,
        }
    }

    /// The kinds of access that a run with these arguments gets only within its places.
    fn held(&self, args: &[OsString]) -> BitFlags<AccessFs> {
        let follows = self.target.options.params.follows_links();
        let all = AccessFs::from_all(RIGHTS);
        let line = remote_shell(args);
        match &self.target.destination {
            Destination::Local(_) if self.keeps_links() => BitFlags::empty(),
            Destination::Local(_) if follows => all & !(read() | AccessFs::Execute),
            Destination::Local(_) => all,
            _ if follows => BitFlags::empty(),
            _ if self.connects_by_program() => BitFlags::empty(),
            _ if !self.takes_shell(&line) => all,
            _ => {
                let is_shared = memmem::find(line.as_bytes(), SHARED).is_some();
                let is_known = self.may_confine(Some(&line), is_shared);
                if is_known { read() } else { BitFlags::empty() }
            }
        }
    }

    /// Whether the environment names a program that connects to a daemon; nobody knows what that program needs.
    fn connects_by_program(&self) -> bool {
        let is_daemon = matches!(self.target.destination, Destination::Daemon { .. });
        is_daemon && std::env::var_os("RSYNC_CONNECT_PROG").is_some_and(|program| !program.is_empty())
    }

    /// Whether runs go through the remote shell `line`: runs to a daemon may do without one.
    fn takes_shell(&self, line: &OsStr) -> bool {
        match &self.target.destination {
            Destination::Local(_) => false,
            Destination::Ssh { .. } => true,
            Destination::Daemon { .. } => !line.is_empty(),
        }
    }

    /// Whether rsync keeps links of a target on this machine where the source has directories, and so writes where they
    /// lead.
    fn keeps_links(&self) -> bool {
        let is_local = matches!(self.target.destination, Destination::Local(_));
        is_local && self.target.options.params.has_any(&["keep-dirlinks"])
    }

    /// The directory in which runs begin.
    fn root(&self) -> &Path {
        self.sources.first().map_or(Path::new("/"), PathBuf::as_path)
    }

    /// Whether the needs of the way to the target are known. `is_shared`: the run goes over a shared connection that stands
    /// already.
    fn may_confine(&self, line: Option<&OsStr>, is_shared: bool) -> bool {
        let shell = line.unwrap_or(OsStr::new("ssh"));
        let is_known = if is_shared { is_plain(shell) } else { ssh_alone(shell, &home(), self.root()) };
        is_known || !self.takes_shell(line.unwrap_or_default())
    }

    fn rules(
        &self,
        program: &Path,
        args: &[OsString],
        held: BitFlags<AccessFs>,
    ) -> Result<RulesetCreated, landlock::RulesetError> {
        let mut places = Allowed { rules: Ruleset::default().handle_access(held)?.create()?, held };
        places.allow(PROGRAMS.iter(), read() | AccessFs::Execute)?;
        places.allow(libraries(program), read() | AccessFs::Execute)?;
        places.allow(READABLE.iter(), read())?;
        places.allow(DEVICES.iter(), AccessFs::ReadFile | AccessFs::WriteFile)?;
        places.allow(named(args, &READS), read())?;
        places.allow(&self.sources, read())?;
        match &self.target.destination {
            Destination::Local(path) => {
                // Makes the destination like rsync would, unless the run is a dry one: no rule can name a directory that
                // does not exist.
                let has = |option: &str| args.iter().any(|arg| arg == option);
                if !has("-n") {
                    let _ = if has("--mkpath") { std::fs::create_dir_all(path) } else { std::fs::create_dir(path) };
                }
                let write = AccessFs::from_all(RIGHTS) & !BitFlags::from(AccessFs::Execute);
                places.allow([path], write)?;
                places.allow(named(args, &WRITES), write)?;
            }
            Destination::Daemon { .. } | Destination::Ssh { .. } => {
                let line = remote_shell(args);
                if self.takes_shell(&line) {
                    places.allow(shell_files(&line, &home(), self.root()), read())?;
                }
            }
        }
        Ok(places.rules)
    }
}

impl Confine for Places {
    /// Confines the process if the version of rsync needs it.
    fn spawn(&self, command: &mut Command, args: &[OsString]) -> io::Result<Child> {
        let Kind::Trusting(program) = rsync_kind() else { return command.spawn() };
        let held = self.held(args);
        if held.is_empty() || !is_known_to_confine() {
            return command.spawn();
        }
        let rules = self.rules(&program, args, held).map_err(io::Error::other)?;
        std::thread::scope(|scope| {
            let confined = std::thread::Builder::new().spawn_scoped(scope, || {
                confine(rules)?;
                command.spawn()
            })?;
            confined.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts rsync broke")))
        })
    }
}

/// A ruleset that is being built.
struct Allowed {
    rules: RulesetCreated,
    held: BitFlags<AccessFs>,
}

impl Allowed {
    /// Allows `access` at and below these paths, as far as that kind is confined at all. A path that cannot be opened is
    /// left out; rsync will say what is wrong with it.
    fn allow<P: AsRef<Path>>(
        &mut self,
        paths: impl IntoIterator<Item = P>,
        access: impl Into<BitFlags<AccessFs>>,
    ) -> Result<(), landlock::RulesetError> {
        let access = access.into() & self.held;
        if access.is_empty() {
            return Ok(());
        }
        for path in paths {
            // The kernel refuses a rule that gives a file the rights of directories.
            let is_file = path.as_ref().metadata().is_ok_and(|found| !found.is_dir());
            let access = if is_file { access & AccessFs::from_file(RIGHTS) } else { access };
            if let (false, Ok(opened)) = (access.is_empty(), PathFd::new(&path)) {
                (&mut self.rules).add_rule(PathBeneath::new(opened, access))?;
            }
        }
        Ok(())
    }
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(|| "/root".into())
}

/// Whether the kernel can confine, asked once: the kernel stays the same.
fn is_known_to_confine() -> bool {
    static AVAILABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *AVAILABLE.get_or_init(is_available)
}

fn ruleset() -> Result<RulesetCreated, landlock::RulesetError> {
    Ruleset::default().handle_access(AccessFs::from_all(RIGHTS))?.create()
}

/// Confines the calling thread, and the processes that it starts, for good.
fn confine(rules: RulesetCreated) -> io::Result<()> {
    let status = rules.restrict_self().map_err(io::Error::other)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(io::ErrorKind::Unsupported.into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

/// The directories of an rsync that does not come with the system, and of its libraries.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    let bin = program.parent();
    let prefix = bin.and_then(Path::parent);
    let beside = prefix.into_iter().flat_map(|prefix| ["lib", "lib64", "libraries"].map(|name| prefix.join(name)));
    let set = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let set = std::env::split_paths(&set).filter(|path| path.is_absolute()).collect::<Vec<_>>();
    bin.map(Path::to_owned).into_iter().chain(beside).chain(set).collect()
}

/// Options whose value is a file or directory that rsync reads.
const READS: [&str; 7] =
    ["exclude-from", "include-from", "password-file", "link-dest", "copy-dest", "compare-dest", "filter"];
/// Options whose value is a file or directory that rsync writes, if the receiver is on this machine.
const WRITES: [&str; 4] = ["temp-dir", "backup-dir", "partial-dir", "log-file"];

/// The absolute paths that are values of these options. The value of a filter counts if it merges a file.
fn named(args: &[OsString], options: &[&str]) -> Vec<PathBuf> {
    let given = Params::from(args.to_vec());
    let value = |given: &Given| {
        let option = options.iter().find(|option| given.is(option))?;
        let value = given.value.as_deref()?.as_bytes();
        let path = match *option {
            "filter" => value.strip_prefix(b"merge ").or_else(|| value.strip_prefix(b". "))?,
            _ => value,
        };
        Some(PathBuf::from(OsStr::from_bytes(path))).filter(|path| path.is_absolute())
    };
    given.given().iter().filter_map(value).collect()
}

/// The remote shell that these arguments name.
fn remote_shell(args: &[OsString]) -> OsString {
    Params::from(args.to_vec()).remote_shell().unwrap_or_default().to_owned()
}

/// The option by which a remote shell goes over a shared connection of syncq's.
const SHARED: &[u8] = b"ControlMaster=no";

#[cfg(test)]
mod tests;
