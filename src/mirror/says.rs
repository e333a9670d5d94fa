//! Reads rsync's messages line by line: which path, who says it, which system error. Pure.
//!
//! rsync escapes what is not printable as `\#ooo`, so that a line is a message, but it does not escape quotes; a name
//! is therefore a guess until it is held against the paths that were listed ([`Line::names`] gives all guesses,
//! longest first).

/// Decodes `\#ooo` back to bytes.
pub fn unescape(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, after)) = rest.split_first() {
        if let Some([a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) = rest.strip_prefix(b"\\#") {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = tail;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    bytes
}

/// What a message is about, as far as it decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A path failed.
    Failure,
    /// Only the attributes of a path failed; what lies below it did not.
    Attributes,
    /// A path was gone when rsync came to it.
    Vanished,
    /// rsync deletes nothing any more in this run.
    DeletionsSkipped,
    /// `--max-delete` was reached.
    DeletionsLimited,
    /// Nothing of its own: a summary, a banner, a consequence of another line.
    Noise,
}

/// One line of rsync's standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    bytes: &'a [u8],
    pub about: About,
    /// The system error, from the parentheses at the end.
    pub errno: Option<i32>,
}

/// Marks in front of a name without quotes, which then reaches to the end of the line.
const BARE: [&str; 5] = [
    "cannot delete non-empty directory: ",
    "WARNING: parent dir is absent in the file list: ",
    "could not make way for new ",
    "ERROR: ",
    "WARNING: ",
];

/// Marks of messages about attributes.
const ATTRIBUTES: [&str; 4] = ["failed to set times on", "failed to set permissions on", " chown \"", " chgrp \""];

/// Whether rsync says that it deletes no more, since it could not read all of the source. Unlike its errors it says so on
/// its standard output.
pub fn skips_deletions(line: &[u8]) -> bool {
    line.strip_suffix(b"\r").unwrap_or(line) == b"IO error encountered -- skipping file deletion"
}

impl<'a> Line<'a> {
    pub fn read(bytes: &'a [u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let errno = trailing_errno(&text);
        let from_rsync = text.starts_with("rsync: ");
        let about = if text.starts_with("file has vanished: ")
            || text.starts_with("directory has vanished: ")
            || text.starts_with("WARNING: parent dir is absent")
        {
            About::Vanished
        } else if skips_deletions(bytes) {
            About::DeletionsSkipped
        } else if text.starts_with("Deletions stopped due to --max-delete") {
            About::DeletionsLimited
        } else if from_rsync && ATTRIBUTES.iter().any(|mark| text.contains(mark)) {
            About::Attributes
        } else if (from_rsync && errno.is_some() && !text.contains("read error: Connection"))
            || text.starts_with("could not make way for new ")
            || text.starts_with("cannot delete non-empty directory: ")
            || text.contains(" failed verification -- update discarded") && text.starts_with("ERROR: ")
            || text.starts_with("rsync: [") && text.contains("cannot send file with empty name")
            || text.starts_with("skipping non-regular file ")
        {
            About::Failure
        } else {
            About::Noise
        };
        Self { bytes, about, errno }
    }

    /// The message without the speaker's name.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(self.bytes);
        let text = text.strip_prefix("rsync: ").unwrap_or(&text);
        match text.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            Some((_, message)) => message.to_owned(),
            None => text.to_owned(),
        }
    }

    /// Whether our side says it. The sender reads the source, everybody else the target.
    pub fn is_senders(&self) -> bool {
        self.bytes.starts_with(b"rsync: [sender]") || self.bytes.starts_with(b"file has vanished")
    }

    /// Everything in the line that may be the name it is about, likeliest first, decoded.
    pub fn names(&self) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        // What follows the arrow of a symbolic link is its target, and no path of ours.
        let link = find(self.bytes, b"symlink \"").map(|at| self.bytes.get(at + 9..).unwrap_or_default());
        if let Some(inner) = link {
            let ends = [find(inner, b"\" (in "), find(inner, b"\" -> \"")];
            return ends
                .into_iter()
                .flatten()
                .min()
                .and_then(|end| inner.get(..end))
                .map(unescape)
                .into_iter()
                .collect();
        }
        if let Some(open) = find(self.bytes, b"\"") {
            let inner = self.bytes.get(open + 1..).unwrap_or_default();
            // A quote may be part of the name: try every closing one from the last.
            let ends = inner.iter().enumerate().filter(|&(_, &b)| b == b'"').map(|(at, _)| at);
            names.extend(ends.rev().filter_map(|end| inner.get(..end)));
            // `rename "temporary" -> "name"`: each side is a name of its own.
            if let Some(arrow) = find(inner, b"\" -> \"") {
                let second = inner.get(arrow + 6..).unwrap_or_default();
                let second = second.strip_prefix(b"\"").unwrap_or(second);
                let end = second.iter().position(|&b| b == b'"').unwrap_or(second.len());
                names.extend([second.get(..end), inner.get(..arrow)].into_iter().flatten());
            }
        }
        // `delete_file: unlink(name) failed: …`
        for call in [&b"unlink("[..], b"rmdir("] {
            if let Some(at) = find(self.bytes, call) {
                let inner = self.bytes.get(at + call.len()..).unwrap_or_default();
                names.extend(rfind(inner, b") failed").and_then(|end| inner.get(..end)));
            }
        }
        for mark in BARE {
            if let Some(rest) = self.bytes.strip_prefix(mark.as_bytes()) {
                let rest = match mark {
                    // `could not make way for new regular file: name`
                    "could not make way for new " => find(rest, b": ").and_then(|at| rest.get(at + 2..)),
                    "ERROR: " | "WARNING: " => rfind(rest, b" failed verification").and_then(|end| rest.get(..end)),
                    _ => Some(rest),
                };
                names.extend(rest);
            }
        }
        names.into_iter().map(unescape).collect()
    }
}

/// The lines of a captured standard error, without blank ones.
pub fn lines(stderr: &[u8]) -> impl Iterator<Item = Line<'_>> {
    stderr.split(|&b| b == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty()).map(Line::read)
}

/// The path of a `--out-format='%i %n'` line that tells of a difference, and whether the path is to be deleted.
/// `None` for what the user's own `-v` or `--stats` adds, and for paths shown as equal (`-vv`).
pub fn difference(line: &[u8]) -> Option<(Vec<u8>, bool)> {
    difference_of(line).map(|difference| (difference.name, difference.deletes))
}

/// A difference with what is different.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference<'a> {
    pub name: Vec<u8>,
    pub deletes: bool,
    /// rsync's columns behind the kind of entry: all `+` for a new one.
    pub attributes: &'a [u8],
}

/// As [`difference`], with the columns.
pub fn difference_of(line: &[u8]) -> Option<Difference<'_>> {
    // `<f..T...... name`, `*deleting   name`: eleven columns and a blank.
    let (columns, name) = line.split_at_checked(12).filter(|(_, name)| !name.is_empty())?;
    if columns == DELETING {
        return Some(Difference { name: unescape(name), deletes: true, attributes: b"" });
    }
    let [what @ (b'<' | b'>' | b'c' | b'h' | b'.'), b'f' | b'd' | b'L' | b'D' | b'S', attributes @ .., b' '] = columns
    else {
        return None;
    };
    let equal = *what == b'.' && attributes.iter().all(|&b| b == b' ');
    (!equal).then(|| Difference { name: unescape(name), deletes: false, attributes })
}

/// What an itemized line begins with that tells of a deletion.
pub const DELETING: &[u8] = b"*deleting   ";

/// How many lines tell of a deletion.
pub fn deletions(output: &[u8]) -> u64 {
    output.split(|&b| b == b'\n').filter(|line| line.starts_with(DELETING)).count() as u64
}

/// How many deletions `--max-delete` has held back, if any. Directories with something in them are not counted.
pub fn held_back(stderr: &[u8]) -> Option<u64> {
    let line = lines(stderr).find(|line| line.about == About::DeletionsLimited)?;
    let text = line.text();
    let count = text.rsplit_once('(').and_then(|(_, count)| count.split_once(' ')?.0.parse().ok());
    // In words that are not known it is at least one.
    Some(count.unwrap_or(1))
}

/// What a comparison would delete, and of how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    pub deleted: u64,
    /// What the other side holds now: what it shares with this one, and what is to be deleted.
    pub held: u64,
}

/// What a dry run with `--stats` says of both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Nothing if the other side does not say: a daemon before rsync 3.5 counts none in a dry run.
    pub deleted: u64,
    /// What both sides have.
    pub shared: u64,
}

impl Statistics {
    pub fn read(output: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(output);
        let number = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
            let digits: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
            digits.replace(',', "").parse::<u64>().ok()
        };
        // The root is in every list, and no entry of its own.
        let sent = number("Number of files")?.saturating_sub(1);
        let shared = sent.saturating_sub(number("Number of created files").unwrap_or(0));
        Some(Self { deleted: number("Number of deleted files").unwrap_or(0), shared })
    }
}

fn trailing_errno(text: &str) -> Option<i32> {
    text.strip_suffix(')')?.rsplit_once('(')?.1.parse().ok()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn rfind(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).rposition(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_only_those() {
        for (escaped, plain) in [
            (&b"a\\#012b"[..], &b"a\nb"[..]),
            (b"\\#377\\#134#012", b"\xff\\#012"),
            (b"\\#99x\\", b"\\#99x\\"),
            (b"\\#4", b"\\#4"),
        ] {
            assert_eq!(unescape(escaped), plain);
        }
    }

    #[test]
    fn names_of_every_form() {
        for (line, name) in [
            (r#"rsync: [sender] send_files failed to open "/src/a": Permission denied (13)"#, "/src/a"),
            (r#"rsync: [receiver] mkstemp "/sub/.x.3XRano" (in m) failed: Permission denied (13)"#, "/sub/.x.3XRano"),
            (r#"rsync: [receiver] mkstemp "a"b"c" failed: Permission denied (13)"#, r#"a"b"c"#),
            (r#"rsync: [generator] delete_file: unlink(ro/g) failed) failed: Permission denied (13)"#, "ro/g) failed"),
            (r#"rsync: [generator] rename "/d/.z.10107" -> ""/d/z"" failed: Operation not permitted (1)"#, "/d/z"),
            (r#"rsync: [generator] symlink "/d/l" -> "t" failed: Permission denied (13)"#, "/d/l"),
            (r#"rsync: [generator] symlink "/l5" (in m) -> "a"b" failed: File exists (17)"#, "/l5"),
            ("could not make way for new regular file: a", "a"),
            ("could not make way for new directory: z: y", "z: y"),
            ("cannot delete non-empty directory: mx", "mx"),
            ("file has vanished: \"/src/no\"", "/src/no"),
            ("ERROR: d/f failed verification -- update discarded.", "d/f"),
            ("WARNING: parent dir is absent in the file list: no", "no"),
        ] {
            let names = Line::read(line.as_bytes()).names();
            assert!(names.contains(&name.as_bytes().to_vec()), "{line}: {names:?}");
        }
    }

    #[test]
    fn what_a_line_is_about() {
        for (line, about) in [
            ("rsync: [sender] read error: Connection reset by peer (104)", About::Noise),
            (
                "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1394) [sender=3.5.0]",
                About::Noise,
            ),
            ("*** Skipping any contents from this failed directory ***", About::Noise),
            ("rsync: [generator] failed to set times on \".\" (in m): Operation not permitted (1)", About::Attributes),
            ("rsync: [generator] chown \"/d/f\" failed: Operation not permitted (1)", About::Attributes),
            ("IO error encountered -- skipping file deletion", About::DeletionsSkipped),
            ("Deletions stopped due to --max-delete limit (2 skipped)", About::DeletionsLimited),
            ("Warning: Permanently added '10.0.0.1' to the list of known hosts.", About::Noise),
            ("rsync: [sender] opendir \"/s/d\" failed: Permission denied (13)", About::Failure),
        ] {
            assert_eq!(Line::read(line.as_bytes()).about, about, "{line}");
        }
    }

    #[test]
    fn what_max_delete_held_back_and_what_there_is() {
        let stderr = b"Deletions stopped due to --max-delete limit (1234 skipped)\nrsync error: (code 25)\n";
        assert_eq!(held_back(stderr), Some(1234));
        assert_eq!(held_back(b"Deletions stopped due to --max-delete limit\n"), Some(1));
        assert_eq!(held_back(b"rsync: [sender] opendir \"/s/d\" failed: Permission denied (13)\n"), None);
        let stats = "\nNumber of files: 1,007 (reg: 3, dir: 4)\nNumber of created files: 4 (reg: 2, dir: 2)\n\
                     Number of deleted files: 57 (reg: 55, dir: 2)\n";
        assert_eq!(Statistics::read(stats.as_bytes()), Some(Statistics { deleted: 57, shared: 1_002 }));
        assert_eq!(Statistics::read(b"Number of files: 7\n"), Some(Statistics { deleted: 0, shared: 6 }));
        assert_eq!(Statistics::read(b"sent 95 bytes\n"), None);
        assert_eq!(deletions(b"*deleting   a\n<f+++++++++ *deleting   b\n*deleting   d/\nx\n"), 2);
    }

    #[test]
    fn lines_of_a_dry_run() {
        assert_eq!(difference(b"*deleting   d/x y"), Some((b"d/x y".to_vec(), true)));
        assert_eq!(difference(b"<f+++++++++ ro/x"), Some((b"ro/x".to_vec(), false)));
        assert_eq!(difference(b"hf          h"), Some((b"h".to_vec(), false)));
        for noise in ["short", ".f          equal", "sending incremental file list", "sent 95 bytes  received 25 bytes"]
        {
            assert_eq!(difference(noise.as_bytes()), None, "{noise}");
        }
    }
}
