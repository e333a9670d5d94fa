//! Which files a remote shell has to read, and whether that can be known.
//!
//! A confined rsync starts its ssh confined as well. So `confine` asks here for the files that the shell's command line and
//! ssh's configuration name, and whether the shell starts other programs, whose needs nobody knows. Deliberately absent:
//! the meaning of ssh's configuration. A path that is named there counts, whatever its option is.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::mirror::rsync::ssh_command;

/// Directories with what a program needs to run; no secret is kept in them.
pub(super) const PROGRAMS: [&str; 14] = [
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

pub(super) fn is_script(path: &Path) -> bool {
    let mut start = [0; 2];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"#!"
}

/// The files that a remote shell needs: those that its command line names, ssh's own, and those that ssh's own files name.
pub(super) fn shell_files(line: &OsStr, home: &Path, root: &Path) -> Vec<PathBuf> {
    let mut files: BTreeSet<PathBuf> = texts(line, home, root).iter().flat_map(|text| paths_in(text, home)).collect();
    files.insert(home.join(".ssh"));
    files.insert(format!("/tmp/krb5cc_{}", rustix::process::geteuid().as_raw()).into());
    files.into_iter().collect()
}

/// Whether a remote shell is an ssh that starts no other program, whose needs nobody knows.
pub(super) fn ssh_alone(line: &OsStr, home: &Path, root: &Path) -> bool {
    const STARTS: [&str; 5] = ["proxycommand", "localcommand", "knownhostscommand", "pkcs11provider", " exec "];
    let is_ssh = ssh_command::line(Some(line), None, None).is_some();
    let starts = |text: &Vec<u8>| {
        let text = String::from_utf8_lossy(text).to_ascii_lowercase();
        // A line that begins with `#` is a comment of the configuration.
        let mut said = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        said.any(|line| STARTS.iter().any(|word| line.contains(word)) && !line.contains("permitlocalcommand"))
    };
    is_ssh && is_plain(line) && !texts(line, home, root).iter().any(starts)
}

/// Whether the program of this line comes with the system, as far as can be seen. A program of the user's own may need any
/// file.
pub(super) fn is_plain(line: &OsStr) -> bool {
    let Some(program) = words(line).next() else { return false };
    let found = match program.parent() {
        Some(dir) if dir.as_os_str().is_empty() => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
        }
        _ => Some(program.to_owned()),
    };
    let found = found.and_then(|file| file.canonicalize().ok());
    // A program that is not there cannot be started in any case.
    found.is_none_or(|file| PROGRAMS.iter().any(|dir| file.starts_with(dir)) && !is_script(&file))
}

/// The command line of a remote shell, ssh's configuration, and each file named in them that may belong to the
/// configuration.
fn texts(line: &OsStr, home: &Path, root: &Path) -> Vec<Vec<u8>> {
    let mut texts = vec![line.as_bytes().to_vec()];
    let mut seen = BTreeSet::new();
    let mut left: Vec<PathBuf> = vec![home.join(".ssh/config"), "/etc/ssh/ssh_config".into()];
    left.extend(directory_of(&home.join(".ssh/config.d")).chain(directory_of(Path::new("/etc/ssh/ssh_config.d"))));
    left.extend(paths_in(line.as_bytes(), home));
    // ssh is started in the source's directory, so relative names count from there.
    left.extend(words(line).skip(1).map(|word| root.join(word)));
    while let Some(file) = left.pop().filter(|_| seen.len() < CONFIGS_MAX) {
        // A configuration is small. A key file that is read by mistake has no path in it.
        let is_small = file.metadata().is_ok_and(|found| found.is_file() && found.len() <= CONFIG_BYTES_MAX);
        if !is_small || !seen.insert(file.clone()) {
            continue;
        }
        if let Ok(text) = std::fs::read(&file) {
            left.extend(paths_in(&text, home));
            texts.push(text);
        }
    }
    texts
}

fn directory_of(dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

const CONFIG_BYTES_MAX: u64 = 1 << 20;

const CONFIGS_MAX: usize = 64;

/// The words of a command line; quotes, commas and equal signs part them like blanks do.
fn words(line: &OsStr) -> impl Iterator<Item = &Path> {
    let words = line.as_bytes().split(|b| b.is_ascii_whitespace() || b"=\"',".contains(b));
    words.filter(|word| !word.is_empty()).map(|word| Path::new(OsStr::from_bytes(word)))
}

/// The absolute paths among the words of a command line or of ssh's configuration. The root itself does not count.
fn paths_in(text: &[u8], home: &Path) -> Vec<PathBuf> {
    let absolute = words(OsStr::from_bytes(text))
        .map(|word| word.strip_prefix("~").map_or_else(|_| word.to_owned(), |rest| home.join(rest)));
    absolute.filter(|path| path.is_absolute() && path.parent().is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mirror through ssh would have stopped if ssh's configuration named a key in another directory.
    #[test]
    fn what_ssh_is_told_of_is_within_its_reach() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("client");
        let more = dir.path().join("more");
        let text = format!(
            "Host *\nIdentityFile=/keys/id\nInclude {}\n  UserKnownHostsFile ~/hosts \"/x/more\"\n",
            more.display()
        );
        std::fs::write(&config, text).unwrap();
        std::fs::write(&more, "CertificateFile /keys/certificate\n").unwrap();
        let line = format!("ssh -F {} -o ControlPath=/s/1", config.display());
        let shown = shell_files(OsStr::new(&line), Path::new("/h"), Path::new("/r"));
        for path in ["/keys/id", "/keys/certificate", "/h/hosts", "/x/more", "/s/1", "/h/.ssh"] {
            assert!(shown.contains(&PathBuf::from(path)), "{path}: {shown:?}");
        }
        assert!(shown.contains(&config) && !shown.contains(&PathBuf::from("/")), "{shown:?}");
        // ssh is started in the source.
        let shown = shell_files(OsStr::new("ssh -F client"), Path::new("/h"), dir.path());
        assert!(shown.contains(&PathBuf::from("/keys/id")), "{shown:?}");
    }

    /// The needs of an ssh that connects for each run are known, unless the ssh has other programs connect.
    #[test]
    fn an_ssh_that_starts_programs_of_its_own_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        let own = home.path().join("ssh");
        std::fs::write(&own, "#!/bin/sh\n").unwrap();
        let own = own.to_str().unwrap();
        for (config, line, expected) in [
            ("", "ssh -i /key", true),
            ("", "/usr/bin/ssh", true),
            ("# ProxyCommand nc\nProxyJump h", "ssh", true),
            ("Host x\n  proxycommand nc %h", "ssh", false),
            ("Match host y exec \"test -e /x\"", "ssh", false),
            ("", "ssh -o ProxyCommand='nc %h'", false),
            ("", "rsh", false),
            ("", "/opt/tunnel", false),
            // A program of the user's own is called ssh.
            ("", own, false),
        ] {
            std::fs::write(home.path().join(".ssh/config"), config).unwrap();
            assert_eq!(ssh_alone(OsStr::new(line), home.path(), Path::new("/r")), expected, "{config:?} {line}");
        }
    }
}
