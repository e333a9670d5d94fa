//! Reads sersync's `rsync_fail_log.sh`: entries of `#errno N`, a command line, an empty line. Pure.
//!
//! ```text
//! cd W && rsync PARAMS -R OPTIONS "./a/b.txt" TARGET ...                                          a path to upload
//! cd W && rsync PARAMS -R --delete ./ OPTIONS --include="a/" --include="a/b" --exclude=* TARGET   a path to delete
//! cd W && rsync PARAMS -R --delete ./ OPTIONS TARGET [--exclude="..."]                            the whole tree
//! ```
//!
//! sersync puts a path between quotes and escapes nothing but `$`. So the end of a path is searched from behind, and a path
//! with a newline spans lines.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use memchr::memmem::{find, rfind};

use crate::model::RelPath;

/// The place that a command was to make equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub root: PathBuf,
    /// The target's name in syncq's form: `[user@]host::module` or `host:/path`.
    pub target: String,
    pub path: RelPath,
    /// Whether the command is about the whole tree.
    pub whole: bool,
}

/// Why a piece of the file is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    #[error("this is no command of sersync's")]
    NoCommand,
    #[error("the command has no path in quotes")]
    NoPath,
    #[error("the command's path leaves its directory")]
    BadPath,
    #[error("the command names no target")]
    NoTarget,
}

/// The commands of a file, each with the number of its first line, counted from 1.
pub fn commands(text: &[u8]) -> Vec<(usize, Result<Command, Skipped>)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (at, line) in text.split(|&b| b == b'\n').enumerate() {
        let begins = line.starts_with(b"cd ");
        let ends = line.trim_ascii().is_empty() || line.starts_with(b"#errno ");
        if begins || ends {
            found.extend(open.take().map(|(at, command)| (at, read(&command))));
        }
        match &mut open {
            _ if begins => open = Some((at + 1, line.to_vec())),
            Some((_, command)) => {
                command.push(b'\n');
                command.extend_from_slice(line);
            }
            None if ends || line.starts_with(b"#") => {}
            None => found.push((at + 1, Err(Skipped::NoCommand))),
        }
    }
    found.extend(open.map(|(at, command)| (at, read(&command))));
    found
}

fn read(command: &[u8]) -> Result<Command, Skipped> {
    const RSYNC: &[u8] = b" && rsync ";
    let command = command.strip_prefix(b"cd ").ok_or(Skipped::NoCommand)?;
    let split = find(command, RSYNC).ok_or(Skipped::NoCommand)?;
    let root = command.get(..split).unwrap_or_default();
    let rest = command.get(split + RSYNC.len()..).unwrap_or_default();
    let (path, whole, behind) = if let Some(at) = find(rest, b"\"./") {
        let inside = rest.get(at + 3..).unwrap_or_default();
        // The words behind the path have no quotes, so the last quote ends the path.
        let end = inside.iter().rposition(|&b| b == b'"').ok_or(Skipped::NoPath)?;
        (inside.get(..end).unwrap_or_default(), false, inside.get(end + 1..).unwrap_or_default())
    } else if let Some(at) = rfind(rest, b"--include=\"") {
        let inside = rest.get(at + 11..).unwrap_or_default();
        let end = rfind(inside, b"--exclude=*").ok_or(Skipped::NoPath)?;
        let behind = inside.get(end + 11..).unwrap_or_default();
        let path = inside.get(..end).unwrap_or_default().trim_ascii_end().strip_suffix(b"\"").ok_or(Skipped::NoPath)?;
        (path.strip_suffix(b"/***").unwrap_or(path), false, behind)
    } else {
        let at = find(rest, b" ./ ").ok_or(Skipped::NoPath)?;
        (&b""[..], true, rest.get(at + 4..).unwrap_or_default())
    };
    let path = unescaped(path);
    let path = RelPath::new(path.strip_suffix(b"/").unwrap_or(&path)).map_err(|_| Skipped::BadPath)?;
    let root: PathBuf = OsString::from_vec(root.to_vec()).into();
    Ok(Command { root: root.components().collect(), target: target(behind)?, path, whole })
}

/// The first word that rsync would take for a remote target.
fn target(behind: &[u8]) -> Result<String, Skipped> {
    let mut words = behind.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let target = words.find(|word| !word.starts_with(b"-") && word.contains(&b':')).ok_or(Skipped::NoTarget)?;
    let mut target = String::from_utf8(target.to_vec()).map_err(|_| Skipped::NoTarget)?;
    while target.ends_with('/') && !target.ends_with(":/") {
        target.pop();
    }
    Ok(target)
}

/// Replaces `\$` by `$`, the only escape that sersync writes.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    for (at, &byte) in path.iter().enumerate() {
        if byte != b'\\' || path.get(at + 1) != Some(&b'$') {
            plain.push(byte);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "rsync_backup@192.168.40.144::www --password-file=/etc/rsync.password >/dev/null 2>&1 ";

    fn one(command: &str) -> Result<Command, Skipped> {
        let text = format!("#errno 2560\n{command}\n\n");
        let mut found = commands(text.as_bytes());
        assert_eq!(found.len(), 1, "{found:?}");
        let (line, command) = found.remove(0);
        assert_eq!(line, 2);
        command
    }

    #[test]
    fn sersyncs_commands_are_understood() {
        for (command, path, whole) in [
            (format!(r#"cd /data/www && rsync -artuz -R "./a/b.txt" {TAIL}"#), "a/b.txt", false),
            (
                format!(r#"cd /data/www && rsync -artuz -R  --port=874  --timeout=100 "./x\$y.txt" {TAIL}"#),
                "x$y.txt",
                false,
            ),
            (format!(r#"cd /data/www && rsync -artuz --exclude='q "x"' -R "./a "b" c" {TAIL}"#), "a \"b\" c", false),
            (format!("cd /data/www && rsync -artuz -R \"./two\nlines\" {TAIL}"), "two\nlines", false),
            (format!(r#"cd /data/www && rsync -artuz -R "./back\" {TAIL}"#), "back\\", false),
            (format!(r#"cd /data/www && rsync -artuz -R "./" {TAIL}"#), "", false),
            (
                format!(
                    r#"cd /data/www && rsync -artuz -R --delete ./   --include="a/" --include="a/b.txt" --exclude=*  {TAIL}"#
                ),
                "a/b.txt",
                false,
            ),
            (
                format!(
                    r#"cd /data/www && rsync -artuz -R --delete ./   --include="a/" --include="a/d"  --include="a/d/***" --exclude=*  {TAIL}"#
                ),
                "a/d",
                false,
            ),
            (format!(r#"cd /data/www && rsync -artuz -R  ./   --include="f" --exclude=*  {TAIL}"#), "f", false),
            (format!("cd /data/www && rsync -artuz -R --delete ./  --port=874  {TAIL}"), "", true),
            (format!(r#"cd /data/www/ && rsync -artuz -R --delete ./ {TAIL} --exclude="*.php""#), "", true),
        ] {
            let path = RelPath::new(path.as_bytes()).unwrap();
            let target = "rsync_backup@192.168.40.144::www".to_owned();
            assert_eq!(one(&command), Ok(Command { root: "/data/www".into(), target, path, whole }), "{command}");
        }
        let ssh =
            r#"cd /data/www && rsync -artuz -R  -e ssh  --timeout=100 "./x" 10.0.0.2:/data/www/ >/dev/null 2>&1 "#;
        assert_eq!(one(ssh).unwrap().target, "10.0.0.2:/data/www");
    }

    #[test]
    fn what_is_none_is_named_with_its_line() {
        let text = format!(
            "#!/bin/sh\nrm -rf /\n#errno -1\ncd /w && rsync -az -R \"./ok\" {TAIL}\n\ncd /w && tar x\n\n\
             cd /w && rsync -az -R \"./../up\" {TAIL}\ncd /w && rsync -az x\n\ncd /w && rsync -az -R \"./x\" local\n"
        );
        let found: Vec<_> = commands(text.as_bytes()).into_iter().map(|(line, found)| (line, found.err())).collect();
        assert_eq!(
            found,
            [
                (2, Some(Skipped::NoCommand)),
                (4, None),
                (6, Some(Skipped::NoCommand)),
                (8, Some(Skipped::BadPath)),
                (9, Some(Skipped::NoPath)),
                (11, Some(Skipped::NoTarget)),
            ]
        );
        assert_eq!(commands(b""), []);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = commands(&bytes);
            let _ = commands(&[b"cd /w && rsync -a -R ", bytes.as_slice()].concat());
        }

        #[test]
        fn every_name_survives(name in "[^\0\n/]{1,20}") {
            proptest::prop_assume!(name != "." && name != ".." && !name.contains("\\$") && !name.ends_with('\\'));
            let command = format!("cd /w && rsync -a -R \"./{}\" {TAIL}", name.replace('$', "\\$"));
            let path = one(&command).unwrap().path;
            proptest::prop_assert_eq!(path.as_bytes(), name.as_bytes());
        }
    }
}
