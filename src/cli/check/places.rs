//! Checks the places on this machine: sources, password files, the state directory, the list of failures. Changes nothing.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat, statfs, statvfs};

use super::note::{Check, Note};
use crate::cli::exit::{CliError, quoted};
use crate::cli::output::size;
use crate::cli::state_dir::{self, real_path};
use crate::cli::{configs, excludes, password_file};
use crate::control::{Client, ClientError};
use crate::model::{Destination, Root};

/// With less free room than this in the state directory, a backlog soon fills the disk; syncq keeps 16 MiB of it back.
const ROOM_BYTES_MIN: u64 = 256 << 20;

/// File systems for which inotify does not report every change, by the type that `statfs` returns.
const PARTLY_DEAF: &[(u32, &str, &str)] = &[
    (0x6969, "NFS", OTHERS),
    (0xFF53_4D42, "CIFS", OTHERS),
    (0xFE53_4D42, "SMB2", OTHERS),
    (0x517B, "SMB", OTHERS),
    (0x0102_1997, "9P", OTHERS),
    (0x00C3_6400, "Ceph", OTHERS),
    (0x0116_1970, "GFS2", OTHERS),
    (0x7461_636F, "OCFS2", OTHERS),
    (0x0BD0_0BD0, "Lustre", OTHERS),
    (0x5346_414F, "AFS", OTHERS),
    (0x786F_4256, "VirtualBox's shared folders", OTHERS),
    (0x6573_5546, "FUSE", "what changes behind the program that serves it causes no events"),
    (0x794C_7630, "overlayfs", "what is changed directly in its lower or upper directory causes no events"),
    (0x9FA0, "proc", "it causes no events"),
    (0x6265_6572, "sysfs", "it causes no events"),
];
const OTHERS: &str = "what other machines change causes no events on this one";

/// Checks the source directories.
pub fn sources(file: &Path, roots: &[Root]) -> Vec<Note> {
    roots.iter().flat_map(|root| source(file, root)).collect()
}

fn source(file: &Path, root: &Root) -> Vec<Note> {
    let shown = root.path.display().to_string();
    if !root.path.try_exists().unwrap_or(true) {
        let hint = format!("create or mount it, or correct <localpath watch=\"…\"> in {}", file.display());
        return vec![Note::fail(Check::Source, shown, "there is no such directory").hint(hint)];
    }
    if let Err(refused) = configs::check_watch(file, &root.path) {
        return vec![refusal(Check::Source, &shown, &refused)];
    }
    let mut notes = vec![match statfs(&root.path).ok().and_then(|found| deafness(u32::try_from(found.f_type).ok()?)) {
        None => Note::ok(Check::Source, &shown, "readable"),
        Some((name, why)) => Note::warn(Check::Source, &shown, format!("readable; it lies on {name}, where {why}"))
            .hint("let whole-tree runs find it: <crontab start=\"true\" schedule=\"60\">"),
    }];
    let everything = root.excludes.iter().filter(|expression| excludes::is_everything(expression));
    notes.extend(everything.map(|expression| {
        Note::warn(Check::Source, &shown, format!("the exclude '{expression}' leaves out everything"))
            .hint(r"'\..*' is for dot-files, '(.*)\.tmp' for an ending")
    }));
    notes.extend(excludes::unmatched(root).into_iter().map(|found| match found.instead {
        Some(_) => Note::warn(Check::Source, &shown, found.to_string()),
        None => Note::ok(Check::Source, &shown, found.to_string()),
    }));
    notes
}

fn deafness(kind: u32) -> Option<(&'static str, &'static str)> {
    PARTLY_DEAF.iter().find(|(number, ..)| *number == kind).map(|(_, name, why)| (*name, *why))
}

/// Reports roots that lie in another root: each change in the inner root is sent by both.
pub fn overlaps(roots: &[&Root]) -> Vec<Note> {
    let mut notes = Vec::new();
    for (at, inner) in roots.iter().enumerate() {
        for (other, outer) in roots.iter().enumerate() {
            let (inside, around) = (real_path(&inner.path), real_path(&outer.path));
            // Two names of one directory would match in both directions, and are reported once.
            if at != other
                && inner.path != outer.path
                && inside.starts_with(&around)
                && (inside != around || at > other)
            {
                let message = format!("lies inside {}: its changes are sent by both", outer.path.display());
                notes.push(
                    Note::warn(Check::Source, inner.path.display().to_string(), message)
                        .hint("leave one of them out, unless the targets differ on purpose"),
                );
            }
        }
    }
    notes
}

/// Checks each password file once. `user` is rsync's user name, which helps to recognise a file of the wrong form.
pub fn passwords(roots: &[&Root]) -> Vec<Note> {
    let mut seen = std::collections::BTreeSet::new();
    let mut notes = Vec::new();
    for target in roots.iter().flat_map(|root| &root.targets) {
        let Some(file) = &target.options.password_file else { continue };
        if seen.insert(file) {
            let user = match &target.destination {
                Destination::Daemon { host, .. } => host.rsplit_once('@').map(|(user, _)| user),
                Destination::Local(_) | Destination::Ssh { .. } => None,
            };
            notes.push(password(file, user));
        }
    }
    notes
}

fn password(file: &Path, user: Option<&str>) -> Note {
    let shown = file.display().to_string();
    if let Err(refused) = password_file::check(file) {
        return refusal(Check::Password, &shown, &refused);
    }
    match password_file::oddity(file, user) {
        Some((message, hint)) => Note::warn(Check::Password, shown, message).hint(hint),
        None => Note::ok(Check::Password, shown, "readable, and closed to others"),
    }
}

/// Checks the state directory, and whether a daemon is running in it.
pub fn state(dir: &Path) -> Vec<Note> {
    let shown = dir.display().to_string();
    let Some(there) = dir.ancestors().find(|ancestor| ancestor.exists()) else {
        return vec![Note::fail(Check::State, shown, "there is no directory above it")];
    };
    let is_made = there == dir;
    let mut notes = Vec::new();
    if accessat(CWD, there, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_err() {
        let message = if is_made {
            "it cannot be written".to_owned()
        } else {
            format!("it cannot be made in {}", there.display())
        };
        notes.push(
            Note::fail(Check::State, &shown, message)
                .hint("choose one that you may write: --state-dir DIR, or run as root"),
        );
    } else {
        let message = if is_made { "writable" } else { "not there yet, can be made" };
        let free = statvfs(there).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        notes.push(if free < ROOM_BYTES_MIN {
            Note::warn(Check::State, &shown, format!("{message}, with {} free", size(free)))
                .hint("make room, or choose another disk: --state-dir DIR")
        } else {
            Note::ok(Check::State, &shown, format!("{message}, {} free", size(free)))
        });
    }
    if is_made {
        notes.extend(state_dir::check_trusted(dir).err().map(|refused| refusal(Check::State, &shown, &refused)));
        notes.extend(daemon(dir));
    }
    notes
}

fn daemon(dir: &Path) -> Option<Note> {
    let shown = dir.display().to_string();
    match Client::connect(dir).and_then(|client| client.status()) {
        Ok(status) => Some(
            Note::ok(Check::Daemon, shown, format!("a daemon is running here, pid {}", status.pid))
                .hint("it reads its configuration when it starts; its own findings: syncq status"),
        ),
        Err(ClientError::NoDaemon { .. }) => None,
        Err(error) => Some(Note::ok(Check::Daemon, shown, format!("a daemon may be running here: {error}"))),
    }
}

/// The log directory of the unit's instances, with one directory for each configuration, named after it.
const UNIT_LOGS: &str = "/var/log/syncq";

/// Checks the path of the list of failures of `config`.
pub fn fail_log(config: &Path, path: &Path) -> Option<Note> {
    let absolute = std::path::absolute(path);
    let path = absolute.as_deref().unwrap_or(path);
    let dir = path.parent().unwrap_or(Path::new("/"));
    let is_usable = dir.is_dir() && accessat(CWD, dir, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    if !dir.exists() && dir.parent() == Some(Path::new(UNIT_LOGS)) && dir.file_name() == config.file_stem() {
        let message = format!("not there yet; the unit syncq@{} makes its directory", dir.file_name()?.display());
        return Some(Note::ok(Check::State, path.display().to_string(), message));
    }
    (!is_usable).then(|| {
        let message = "the list of failures cannot be written there; mirroring does without";
        Note::warn(Check::State, path.display().to_string(), message)
            .hint(format!("mkdir -p {}, or name another <failLog path=\"…\">", quoted(dir)))
    })
}

/// Turns an error of the start into a finding.
pub fn refusal(check: Check, subject: &str, error: &CliError) -> Note {
    let mut message = String::new();
    for cause in error.error.chain().map(ToString::to_string) {
        // Some errors repeat their source in their own text.
        if !message.ends_with(&cause) {
            message.push_str(if message.is_empty() { "" } else { ": " });
            message.push_str(&cause);
        }
    }
    let note = Note::fail(check, subject, message);
    match &error.hint {
        Some(hint) => note.hint(hint.clone()),
        None => note,
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::Level;
    use super::*;

    #[test]
    fn file_systems_that_do_not_tell_everything_are_known() {
        assert_eq!(deafness(0x6969).map(|(name, _)| name), Some("NFS"));
        assert_eq!(deafness(0x6573_5546).map(|(name, _)| name), Some("FUSE"));
        // ext4, XFS, Btrfs, tmpfs
        for kind in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994] {
            assert_eq!(deafness(kind), None);
        }
    }

    #[test]
    fn a_root_in_another_is_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("a/b")).expect("a directory");
        std::os::unix::fs::symlink(path("a"), path("link")).expect("a link");
        let roots: Vec<Root> = ["a", "a/b", "link", "ab"].map(path).map(super::super::tests::root).into();
        let notes = overlaps(&roots.iter().collect::<Vec<_>>());
        let told: Vec<(String, String)> = notes.into_iter().map(|note| (note.subject, note.message)).collect();
        assert_eq!(told.len(), 3, "{told:#?}");
        assert!(
            told.iter().any(|(subject, message)| subject.ends_with("/a/b") && message.contains("/a:")),
            "{told:#?}"
        );
        assert!(told.iter().any(|(subject, _)| subject.ends_with("/link")), "{told:#?}");
    }

    #[test]
    fn a_state_directory_is_looked_at_and_not_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let missing = dir.path().join("a/b");
        let notes = state(&missing);
        assert!(notes.iter().all(|note| note.level != Level::Fail), "{notes:#?}");
        assert!(!dir.path().join("a").exists());
        let config = Path::new("/etc/syncq/no such instance.xml");
        assert!(fail_log(config, &missing).is_some() && fail_log(config, &dir.path().join("list")).is_none());
    }

    /// For the example file a missing directory was reported before each first start of the unit, although the unit creates it.
    #[test]
    fn a_list_in_the_units_own_directory_is_no_warning_before_the_first_start() {
        let config = Path::new("/etc/syncq/no such instance.xml");
        for (list, level) in [
            ("/var/log/syncq/no such instance/failing.txt", Level::Ok),
            ("/var/log/syncq/no such other/failing.txt", Level::Warn),
        ] {
            assert_eq!(fail_log(config, Path::new(list)).map(|note| note.level), Some(level), "{list}");
        }
    }
}
