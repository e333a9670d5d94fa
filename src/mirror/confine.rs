//! Keeps an rsync that follows swapped links within the source and the target, by Landlock.
//!
//! Up to 3.5.0 rsync goes by names: a user who may write in the tree swaps a directory for a link between rsync's look and
//! its reading, and has whatever the link leads to sent, root's files too, or, on a target of this machine, overwritten
//! and deleted. Such a process may read the source and what a program needs to run, and write the target, and the kernel
//! refuses it the rest. A thread is confined, starts the process, which inherits that, and ends; syncq itself stays free.
//! That costs a third of a millisecond a run, and newer versions, which look themselves where a link leads, do without.
//!
//! What still holds for nobody: within the source and within the target an older rsync follows a swapped link as before. A
//! remote shell is a program of the user's: it may also read `~/.ssh`, and what its command line and ssh's configuration
//! name. Deliberately absent: an ssh that connects for each run by itself (its keys, sockets and helpers may be anywhere),
//! runs whose parameters ask to follow links (that is what they are for), an rsync that is a script (nobody knows what it
//! needs), and kernels without Landlock, where `check` and the start say so.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetStatus, path_beneath_rules,
};

use super::program::find_rsync;
use crate::model::{Destination, Given, Params, Target};

/// From this version on rsync follows no link of another user's.
const CAREFUL: [u32; 3] = [3, 5, 0];

/// How long rsync may take to tell its version.
const VERSION_WITHIN: Duration = Duration::from_secs(10);

/// Rights of a later kernel are left alone by an earlier one.
const RIGHTS: ABI = ABI::V3;

/// What a program needs to run, and no secret is kept in.
const PROGRAMS: [&str; 14] = [
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/lib",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/nix/store",
    "/gnu/store",
];
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

/// Where the runs for one target have their business.
#[derive(Debug, Clone)]
pub struct Places {
    root: PathBuf,
    target: Target,
}

/// How runs are kept within their places on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// rsync itself sees to it.
    Unneeded,
    /// The kernel does.
    Landlock,
    /// rsync is one that follows swapped links.
    Missing(Missing),
}

/// Why nothing keeps rsync within its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Kernel,
    Script,
}

impl Missing {
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
        }
    }

    pub fn hint(self) -> &'static str {
        "install rsync 3.5.0 or newer, or run syncq as a user who may read nothing else"
    }
}

/// How the rsync in PATH is kept within its places.
pub fn confinement() -> Confinement {
    match rsync_kind() {
        Kind::Careful => Confinement::Unneeded,
        Kind::Script => Confinement::Missing(Missing::Script),
        Kind::Trusting(_) if is_available() => Confinement::Landlock,
        Kind::Trusting(_) => Confinement::Missing(Missing::Kernel),
    }
}

/// What there is to know of a rsync.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Looks where links lead. Also what cannot be asked: runs will tell.
    Careful,
    /// Follows them.
    Trusting(PathBuf),
    /// Runs another one that follows them.
    Script,
}

/// A file, as far as a replaced one is another.
type Stamp = (PathBuf, u64, u64, i64, i64);

/// Asked once for each program that PATH has led to.
static KNOWN: Mutex<Option<(Stamp, Kind)>> = Mutex::new(None);

fn rsync_kind() -> Kind {
    let found = find_rsync().ok().and_then(|path| Some((path.metadata().ok()?, path)));
    let Some((meta, path)) = found else { return Kind::Careful };
    let stamp = (path.clone(), meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, kind)) = known.as_ref().filter(|(known, _)| *known == stamp) {
        return kind.clone();
    }
    let kind = match super::rsync_version(VERSION_WITHIN) {
        Ok(found) if found.numbers().as_slice() < &CAREFUL[..] => match is_script(&path) {
            true => Kind::Script,
            false => Kind::Trusting(path),
        },
        _ => Kind::Careful,
    };
    *known = Some((stamp, kind.clone()));
    kind
}

fn is_script(path: &Path) -> bool {
    let mut start = [0; 2];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"#!"
}

/// Whether the kernel confines.
fn is_available() -> bool {
    let attempt = std::thread::spawn(|| ruleset().is_ok_and(|rules| confine(rules).is_ok()));
    attempt.join().unwrap_or(false)
}

impl Places {
    pub fn new(root: &Path, target: &Target) -> Self {
        Self { root: root.to_owned(), target: target.clone() }
    }

    /// Starts the process that `command` describes, with these arguments, confined if its version needs it.
    pub(super) fn spawn(&self, command: &mut Command, args: &[OsString]) -> io::Result<Child> {
        let program = match rsync_kind() {
            Kind::Trusting(program) if !self.follows_links() && !self.connects(args) && is_known_to_confine() => {
                program
            }
            _ => return command.spawn(),
        };
        let rules = self.rules(&program, args).map_err(io::Error::other)?;
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                confine(rules)?;
                command.spawn()
            });
            confined.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts rsync broke")))
        })
    }

    /// Whether a run gets to its host by itself, and so through an ssh that needs what nobody here knows.
    fn connects(&self, args: &[OsString]) -> bool {
        let line = remote_shell(args);
        let is_shared = || line.as_bytes().windows(SHARED.len()).any(|part| part == SHARED);
        let through_shell = match &self.target.destination {
            Destination::Local(_) => false,
            Destination::Ssh { .. } => true,
            Destination::Daemon { .. } => !line.is_empty(),
        };
        through_shell && !is_shared()
    }

    /// Whether the user's own parameters have rsync follow links to wherever they lead.
    fn follows_links(&self) -> bool {
        self.target.options.params.has_any(&["copy-links", "copy-unsafe-links", "copy-dirlinks", "keep-dirlinks"])
    }

    fn rules(&self, program: &Path, args: &[OsString]) -> Result<RulesetCreated, landlock::RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let run = read | AccessFs::Execute;
        let mut write = AccessFs::from_all(RIGHTS);
        write.remove(AccessFs::Execute);
        let device = AccessFs::ReadFile | AccessFs::WriteFile;
        let mut rules = ruleset()?
            .add_rules(path_beneath_rules(PROGRAMS.iter(), run))?
            .add_rules(path_beneath_rules(libraries(program), run))?
            .add_rules(path_beneath_rules(READABLE.iter(), read))?
            .add_rules(path_beneath_rules(DEVICES.iter(), device))?
            .add_rules(path_beneath_rules(named(args, &READS), read))?
            .add_rules(path_beneath_rules([&self.root], read))?;
        match &self.target.destination {
            Destination::Daemon { .. } => {}
            Destination::Local(path) => {
                // As rsync would; what is not there cannot be named.
                let _ = std::fs::create_dir(path);
                rules = add(rules, path, write)?;
                rules = rules.add_rules(path_beneath_rules(named(args, &WRITES), write))?;
            }
            Destination::Ssh { .. } => {
                let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(|| "/root".into());
                rules = rules.add_rules(path_beneath_rules(shell_files(args, &home), run))?;
            }
        }
        Ok(rules)
    }
}

/// Asked once, since the kernel stays.
fn is_known_to_confine() -> bool {
    static AVAILABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *AVAILABLE.get_or_init(is_available)
}

fn ruleset() -> Result<RulesetCreated, landlock::RulesetError> {
    Ruleset::default().handle_access(AccessFs::from_all(RIGHTS))?.create()
}

fn add(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    match PathFd::new(path) {
        Ok(opened) => rules.add_rule(PathBeneath::new(opened, access)),
        // rsync will say what is the matter with it.
        Err(_) => Ok(rules),
    }
}

/// Confines the calling thread and what it starts, for good.
fn confine(rules: RulesetCreated) -> io::Result<()> {
    let status = rules.restrict_self().map_err(io::Error::other)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(io::ErrorKind::Unsupported.into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

/// Where a rsync that does not come with the system has itself and its libraries.
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
/// Options whose value is one that it writes, if the receiver is on this machine.
const WRITES: [&str; 4] = ["temp-dir", "backup-dir", "partial-dir", "log-file"];

/// The absolute paths that are values of these options. A filter's is one if it merges a file.
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

/// The remote shell of these arguments.
fn remote_shell(args: &[OsString]) -> OsString {
    Params::from(args.to_vec()).remote_shell().unwrap_or_default().to_owned()
}

/// What the remote shell of these arguments needs: what it names, ssh's own files, and what is named in those. A shared
/// connection does without keys, but where the server takes no further session on it, ssh connects by itself.
fn shell_files(args: &[OsString], home: &Path) -> Vec<PathBuf> {
    let mut files = paths_in(remote_shell(args).as_bytes(), home);
    let configured = files.iter().cloned().chain([home.join(".ssh/config"), "/etc/ssh/ssh_config".into()]);
    let texts = configured.filter_map(|file| {
        // A configuration is small; a key that is named in its stead has no path in it.
        let is_small = file.metadata().is_ok_and(|found| found.is_file() && found.len() <= CONFIG_BYTES_MAX);
        is_small.then(|| std::fs::read(&file).ok()).flatten()
    });
    let named: Vec<PathBuf> = texts.flat_map(|text| paths_in(&text, home)).collect();
    files.extend(named);
    files.push(home.join(".ssh"));
    files
}

/// What a remote shell is told that goes over a connection of syncq's.
const SHARED: &[u8] = b"ControlMaster=no";
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The absolute paths among the words of a command line or a configuration of ssh's. What is but a pattern is none.
fn paths_in(text: &[u8], home: &Path) -> Vec<PathBuf> {
    let words =
        text.split(|b| b.is_ascii_whitespace() || b"=\"',".contains(b)).map(|word| Path::new(OsStr::from_bytes(word)));
    let absolute = words.map(|word| word.strip_prefix("~").map_or_else(|_| word.to_owned(), |rest| home.join(rest)));
    absolute.filter(|path| path.is_absolute() && path.parent().is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TransferOptions;

    fn words(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn files_that_the_arguments_name() {
        let args = words(&[
            "-a",
            "--exclude-from",
            "/x/list",
            "--filter=merge /x/rules",
            "--filter=- /private",
            "--exclude=/y",
        ]);
        assert_eq!(named(&args, &READS), [PathBuf::from("/x/list"), PathBuf::from("/x/rules")]);
        assert_eq!(named(&words(&["--temp-dir=/t", "--backup-dir=in"]), &WRITES), [PathBuf::from("/t")]);
    }

    /// A mirror through ssh whose configuration names a key elsewhere would have stopped.
    #[test]
    fn what_ssh_is_told_of_is_within_its_reach() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("client");
        std::fs::write(&config, "Host *\nIdentityFile=/keys/id\n  UserKnownHostsFile ~/hosts \"/x/more\"\n").unwrap();
        let line = format!("ssh -F {} -o ControlPath=/s/1", config.display());
        let shown = shell_files(&words(&["-e", &line]), Path::new("/h"));
        for path in ["/keys/id", "/h/hosts", "/x/more", "/s/1", "/h/.ssh"] {
            assert!(shown.contains(&PathBuf::from(path)), "{path}: {shown:?}");
        }
        assert!(shown.contains(&config) && !shown.contains(&PathBuf::from("/")), "{shown:?}");
    }

    #[test]
    fn an_ssh_that_connects_by_itself_is_left_alone() {
        let ssh = Destination::Ssh { host: "h".into(), path: "/t".into() };
        let shared = words(&["-e", "ssh -o ControlMaster=no -o ControlPath=/s/1"]);
        for (destination, args, connects) in [
            (ssh.clone(), shared, false),
            (ssh, words(&["-e", "ssh -S own"]), true),
            (Destination::Local("/t".into()), Vec::new(), false),
        ] {
            let target = Target { destination, options: TransferOptions::default() };
            assert_eq!(Places::new(Path::new("/r"), &target).connects(&args), connects);
        }
    }

    #[test]
    fn who_asks_rsync_to_follow_links_has_it_follow_them() {
        for (params, expected) in [
            (&["-artz"][..], false),
            (&["-aL"], true),
            (&["-rk"], true),
            (&["--copy-links"], true),
            (&["-e", "ssh -K"], false),
        ] {
            let options = TransferOptions { params: params.iter().collect(), ..TransferOptions::default() };
            let target = Target { destination: Destination::Local("/t".into()), options };
            assert_eq!(Places::new(Path::new("/r"), &target).follows_links(), expected, "{params:?}");
        }
    }

    /// An rsync that followed a swapped link sent root's files, and wrote and deleted outside of the destination.
    #[test]
    fn what_is_confined_reaches_the_source_and_the_target_alone() {
        if !is_available() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["src", "dst", "secret"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("f"), name).unwrap();
        }
        let target =
            Target { destination: Destination::Local(dir.path().join("dst")), options: TransferOptions::default() };
        let places = Places::new(&dir.path().join("src"), &target);
        for (script, allowed) in [
            ("cat src/f", true),
            ("cat dst/f && echo x > dst/g && mkdir dst/d && ln dst/g dst/d/h && mv dst/d/h dst/h && rm dst/f", true),
            ("cat /etc/passwd && echo x > /dev/null", true),
            ("cat secret/f", false),
            ("ls secret", false),
            ("echo x > secret/f", false),
            ("rm secret/f", false),
            ("echo x > src/f", false),
            ("ln -s ../secret dst/l && cat dst/l/f", false),
            ("cat /etc/shadow", false),
        ] {
            let rules = places.rules(Path::new("/usr/bin/rsync"), &[]).unwrap();
            let at = dir.path().to_owned();
            let started = std::thread::spawn(move || {
                confine(rules).unwrap();
                let mut command = Command::new("sh");
                let quiet = std::process::Stdio::null;
                command.args(["-c", script]).current_dir(at).stdout(quiet()).stderr(quiet()).status().unwrap()
            });
            assert_eq!(started.join().unwrap().success(), allowed, "{script}");
        }
        assert_eq!(
            std::fs::read(dir.path().join("secret/f")).unwrap(),
            b"secret",
            "and this process is as free as before"
        );
    }
}
