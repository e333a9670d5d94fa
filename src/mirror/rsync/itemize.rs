//! Reads rsync's lines about a run as a whole: which paths differ, which are equal, and which directories stay. Pure.
//! Deliberately absent: messages about single failures (`messages`) and figures (`stats`).

use crate::model::RelPath;

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

/// A name in rsync's output as a path: without a leading `./` and without the trailing slash of directories.
pub fn to_path(name: &[u8]) -> Option<RelPath> {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    RelPath::new(name.strip_suffix(b"/").unwrap_or(name)).ok()
}

/// Whether rsync says that it makes no more deletions, since it could not read all of the source. Unlike its errors this
/// line is on standard output.
pub fn skips_deletions(line: &[u8]) -> bool {
    line.strip_suffix(b"\r").unwrap_or(line) == b"IO error encountered -- skipping file deletion"
}

/// The directory that a line reports as not deleted because it is not empty: rsync spares an entry in it, or may not empty
/// it. rsync counts this as no error, so the line is on standard output.
pub fn full_directory(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.strip_prefix(b"cannot delete non-empty directory: ").map(unescape)
}

/// The path of a `--out-format='%i %n'` line about a difference, and whether the path is to be deleted. `None` for lines
/// that the user's own `-v` or `--stats` adds, and for paths shown as equal (`-vv`).
pub fn difference(line: &[u8]) -> Option<(Vec<u8>, bool)> {
    difference_of(line).map(|difference| (difference.name, difference.deletes))
}

/// An itemized line about a difference.
#[derive(Debug, PartialEq, Eq)]
pub struct Itemized<'a> {
    pub name: Vec<u8>,
    pub deletes: bool,
    /// rsync's columns after the kind of entry: all `+` for a new entry.
    pub attributes: &'a [u8],
}

/// Like [`difference`], with the columns.
pub fn difference_of(line: &[u8]) -> Option<Itemized<'_>> {
    // `<f..T...... name`, `*deleting   name`: eleven columns and a blank.
    let (columns, name) = line.split_at_checked(12).filter(|(_, name)| !name.is_empty())?;
    if columns == DELETING {
        return Some(Itemized { name: unescape(name), deletes: true, attributes: b"" });
    }
    let [what @ (b'<' | b'>' | b'c' | b'h' | b'.'), b'f' | b'd' | b'L' | b'D' | b'S', attributes @ .., b' '] = columns
    else {
        return None;
    };
    let equal = *what == b'.' && attributes.iter().all(|&b| b == b' ');
    (!equal).then(|| Itemized { name: unescape(name), deletes: false, attributes })
}

/// How an itemized line about a deletion begins.
pub const DELETING: &[u8] = b"*deleting   ";

/// The path of a line about an entry that is equal; rsync prints such lines if it is asked to.
pub fn equal(line: &[u8]) -> Option<Vec<u8>> {
    let (columns, name) = line.split_at_checked(12).filter(|(_, name)| !name.is_empty())?;
    let [b'.', b'f' | b'd' | b'L' | b'D' | b'S', attributes @ ..] = columns else { return None };
    attributes.iter().all(|&b| b == b' ').then(|| unescape(name))
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
    fn lines_of_a_dry_run() {
        assert_eq!(difference(b"*deleting   d/x y"), Some((b"d/x y".to_vec(), true)));
        assert_eq!(difference(b"<f+++++++++ ro/x"), Some((b"ro/x".to_vec(), false)));
        assert_eq!(difference(b"hf          h"), Some((b"h".to_vec(), false)));
        assert_eq!(equal(b".f          d/x y"), Some(b"d/x y".to_vec()));
        assert_eq!(equal(b".d          d/"), Some(b"d/".to_vec()));
        assert_eq!((equal(b".f..t...... t"), equal(b">f+++++++++ n"), equal(b".f")), (None, None, None));
        for noise in ["short", ".f          equal", "sending incremental file list", "sent 95 bytes  received 25 bytes"]
        {
            assert_eq!(difference(noise.as_bytes()), None, "{noise}");
        }
    }
}
