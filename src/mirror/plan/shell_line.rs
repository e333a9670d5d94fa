//! Writes a run as a shell line that a person can paste. Pure.
//!
//! The line is for reading and repeating by hand only; nothing in syncq executes it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::arguments::{is_plain, list_lines};
use super::run::Run;

/// How many paths a pasted line names; the rest of a batch is only counted.
const PASTE_PATHS_MAX: usize = 20;

/// The run as one shell line that does the same when pasted.
pub fn pasteable(root: &Path, args: &[OsString], run: &Run) -> String {
    let lines = list_lines(run);
    let mut text = format!("cd {} && ", quoted(root.as_os_str().as_bytes()));
    if !run.looks {
        text.push_str("printf '%s\\0'");
        for line in lines.iter().take(PASTE_PATHS_MAX) {
            text.push(' ');
            text.push_str(&quoted(line));
        }
        text.push_str(" | ");
    }
    text.push_str("rsync");
    for arg in args {
        text.push(' ');
        text.push_str(&quoted(arg.as_bytes()));
    }
    if let Some(more) = lines.len().checked_sub(PASTE_PATHS_MAX + 1) {
        text.push_str(&format!(" # and {} more paths", more + 1));
    }
    text
}

/// Quotes for a POSIX shell, or with `$'…'` (bash, zsh, ksh) where a byte cannot be shown literally.
fn quoted(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && bytes.iter().all(|&b| is_plain(b)) => text.to_owned(),
        Ok(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let mut text = String::from("$'");
            for &b in bytes {
                match b {
                    b'\'' | b'\\' => text.extend(['\\', char::from(b)]),
                    b' '..=b'~' => text.push(char::from(b)),
                    _ => text.push_str(&format!("\\{b:03o}")),
                }
            }
            text.push('\'');
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::plan::arguments::list;
    use crate::mirror::plan::run::{Entry, RunKind};
    use crate::mirror::plan::source::Presence;
    use crate::model::{Origin, RelPath};

    fn flat(names: &[&[u8]]) -> Run {
        let entry = |name: &&[u8]| Entry {
            path: RelPath::new(name).unwrap(),
            presence: Presence::Directory,
            orphan: false,
            jobs: Vec::new(),
        };
        Run::new(RunKind::Flat, Origin::Scan, names.iter().map(entry).collect())
    }

    #[test]
    fn the_pasteable_line_survives_a_shell() {
        let names: Vec<&[u8]> = vec![b"a b", b"it's $(x) `y`", b"n\nl", b"\xff'\\", b"plain"];
        let flat = flat(&names);
        let text = pasteable(Path::new("/tmp"), &["-a".into(), "-e".into(), "ssh -p 1".into()], &flat);
        assert!(text.starts_with("cd /tmp && printf '%s\\0' './a b' ") && text.ends_with("| rsync -a -e 'ssh -p 1'"));
        let (printf, _) = text.split_once(" | rsync").unwrap();
        let output = std::process::Command::new("bash").arg("-c").arg(printf).output().unwrap();
        assert_eq!(output.stdout, list(&flat));
        let many: Vec<Vec<u8>> = (0..30).map(|n| format!("f{n:02}").into_bytes()).collect();
        let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
        let text = pasteable(Path::new("/"), &[], &self::flat(&many));
        assert!(text.contains("./f19") && !text.contains("./f20") && text.ends_with(" # and 10 more paths"), "{text}");
    }
}
