//! Chooses a daemon's state directory, and finds it again for other commands.
//!
//! The directory's name is derived from the name of the configuration file, or from the source directory. So `syncq status -o
//! FILE` finds the daemon that `syncq run -o FILE` started.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::exit::{CliError, Exit, quoted};
use super::sersync_args::DEFAULT_CONFIG;
use crate::control::{Client, socket_path};
use crate::trust;

/// The options by which a command names a daemon.
#[derive(Debug, Args)]
pub struct WhichDaemon {
    /// State directory of the daemon
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Configuration file that the daemon was started with
    #[arg(short = 'o', long = "config", value_name = "CONF", conflicts_with = "state_dir")]
    pub config: Option<PathBuf>,
}

impl WhichDaemon {
    /// Returns the state directory of the named daemon. If no daemon is named, it is that of `./confxml.xml`, or else that of
    /// the only daemon of this user.
    pub fn find(&self) -> Result<PathBuf, CliError> {
        if let Some(dir) = &self.state_dir {
            return Ok(dir.clone());
        }
        if let Some(config) = &self.config {
            return for_config(config, None);
        }
        if Path::new(DEFAULT_CONFIG).is_file() {
            return for_config(Path::new(DEFAULT_CONFIG), None);
        }
        let base = base()?;
        only_daemon(&base).ok_or_else(|| none_or_many(&base))
    }
}

/// The state directory of a daemon started with `config`. A daemon that only runs a plugin has a directory of its own, so that
/// it can run beside the daemon that mirrors.
pub fn for_config(config: &Path, plugin: Option<&str>) -> Result<PathBuf, CliError> {
    let mut name = config.file_stem().unwrap_or(OsStr::new("confxml")).to_owned();
    if let Some(plugin) = plugin {
        name.push(".");
        name.push(plugin);
    }
    Ok(base()?.join(name))
}

/// The state directory of a mirror of `source`, an absolute path without symbolic links. A checksum in the name keeps sources
/// with the same name apart.
pub fn for_source(source: &Path) -> Result<PathBuf, CliError> {
    Ok(base()?.join(source_name(source)))
}

fn source_name(source: &Path) -> OsString {
    let mut name = OsString::from("mirror-");
    name.push(source.file_name().unwrap_or(OsStr::new("root")));
    name.push(format!("-{:08x}", crc32fast::hash(source.as_os_str().as_bytes())));
    name
}

/// Creates the directory for this user only, if it is missing. An existing one has to belong to this user, with everything in
/// it.
pub fn create(dir: &Path) -> Result<(), CliError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(dir)
        .with_context(|| format!("cannot create the state directory {}", dir.display()))
        .map_err(|error| CliError::from(error).hint("choose one that you may write: --state-dir DIR"))?;
    check_trusted(dir)
}

/// Refuses a directory that other users have prepared, or could.
pub fn check_trusted(dir: &Path) -> Result<(), CliError> {
    trust::check_state(dir).map_err(|error| {
        let hint = trust::Untrusted::of(&error).map(trust::Untrusted::hint);
        let error = CliError::config(
            anyhow::Error::new(error).context(format!("cannot use the state directory {}", dir.display())),
        );
        match hint {
            Some(hint) => error.hint(hint),
            None => error.hint("choose another: --state-dir DIR"),
        }
    })
}

/// Refuses a state directory inside a mirrored tree: each change that it records would be a change to record.
pub fn check_outside<'a>(dir: &Path, roots: impl IntoIterator<Item = &'a Path>) -> Result<(), CliError> {
    let real = real_path(dir);
    match roots.into_iter().find(|root| real.starts_with(real_path(root))) {
        None => Ok(()),
        Some(root) => Err(CliError::config(anyhow::anyhow!(
            "the state directory {} lies inside {}, which is mirrored",
            dir.display(),
            root.display()
        ))
        .hint("choose one outside: --state-dir DIR")),
    }
}

/// The path with symbolic links resolved, as far as the path exists.
pub fn real_path(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path.to_owned()
}

fn base() -> Result<PathBuf, CliError> {
    base_from(rustix::process::geteuid().is_root(), |name| std::env::var_os(name)).ok_or_else(|| {
        CliError::usage("there is no home directory for a state directory").hint("name one: --state-dir DIR")
    })
}

fn base_from(is_root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if is_root {
        return Some(PathBuf::from("/var/lib/syncq"));
    }
    // The XDG rules demand that a relative path is ignored.
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("syncq"))
}

/// The state directories in this user's standard place in which a daemon runs, or was killed.
pub fn daemons_of_user() -> Vec<PathBuf> {
    base().map(|base| daemons(&base)).unwrap_or_default()
}

fn daemons(base: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries.map(|entry| entry.path()).filter(|dir| socket_path(dir).exists()).collect();
    dirs.sort();
    dirs
}

fn only_daemon(base: &Path) -> Option<PathBuf> {
    match daemons(base).as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    }
}

/// Describes a daemon's directory: with its process and its mirrors, if the daemon answers.
fn described(dir: &Path) -> String {
    let shown = dir.display();
    match Client::connect(dir).and_then(|client| client.status()) {
        Ok(status) => {
            let roots: Vec<&str> = status.roots.iter().map(|root| root.path.as_str()).collect();
            format!("{shown} (pid {}, {})", status.pid, roots.join(", "))
        }
        Err(_) => shown.to_string(),
    }
}

fn none_or_many(base: &Path) -> CliError {
    let daemons = daemons(base);
    let Some(first) = daemons.first() else {
        return CliError {
            exit: Exit::NoDaemon,
            error: anyhow::anyhow!("no daemon is running in {}", base.display()),
            hint: Some("name its directory: --state-dir DIR, or its configuration: -o FILE".to_owned()),
        };
    };
    let shown: Vec<String> = daemons.iter().map(|dir| described(dir)).collect();
    CliError::usage(format!("{} daemons are running, and none is named: {}", daemons.len(), shown.join("; ")))
        .hint(format!("name one, like --state-dir {}", quoted(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_follows_user_and_environment() {
        let variables = |xdg: &'static str, home: &'static str| {
            move |name: &str| match name {
                "XDG_STATE_HOME" => Some(OsString::from(xdg)).filter(|value| !value.is_empty()),
                _ => Some(OsString::from(home)).filter(|value| !value.is_empty()),
            }
        };
        for (is_root, xdg, home, expected) in [
            (true, "/x", "/root", Some("/var/lib/syncq")),
            (false, "/x", "/home/u", Some("/x/syncq")),
            (false, "relative", "/home/u", Some("/home/u/.local/state/syncq")),
            (false, "", "/home/u", Some("/home/u/.local/state/syncq")),
            (false, "", "", None),
        ] {
            assert_eq!(base_from(is_root, variables(xdg, home)), expected.map(PathBuf::from));
        }
    }

    #[test]
    fn sources_of_the_same_name_do_not_share_state() {
        let one = source_name(Path::new("/a/www"));
        assert_eq!(one, source_name(Path::new("/a/www")));
        assert_ne!(one, source_name(Path::new("/b/www")));
        assert!(one.as_bytes().starts_with(b"mirror-www-"));
        assert!(source_name(Path::new("/")).as_bytes().starts_with(b"mirror-root-"));
    }

    #[test]
    fn state_inside_a_mirrored_tree_is_refused_through_links_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let (src, link) = (dir.path().join("src"), dir.path().join("link"));
        std::fs::create_dir(&src).expect("a directory");
        std::os::unix::fs::symlink(&src, &link).expect("a link");
        assert!(check_outside(&link.join("not/yet"), [src.as_path()]).is_err());
        assert!(check_outside(&dir.path().join("src2"), [src.as_path()]).is_ok());
    }

    #[test]
    fn one_daemon_needs_no_name() {
        let base = tempfile::tempdir().expect("a directory");
        assert_eq!(only_daemon(base.path()), None);
        assert_eq!(none_or_many(base.path()).exit, Exit::NoDaemon);
        let start = |name: &str| {
            let dir = base.path().join(name);
            std::fs::create_dir(&dir).expect("a directory");
            std::fs::write(socket_path(&dir), "").expect("a file");
            dir
        };
        let first = start("a");
        assert_eq!(only_daemon(base.path()), Some(first));
        start("b");
        assert_eq!(only_daemon(base.path()), None);
        assert_eq!(none_or_many(base.path()).exit, Exit::Usage);
    }
}
