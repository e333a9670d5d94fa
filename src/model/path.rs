//! A path inside a root, as bytes. Pure: never touches the file system.
//!
//! Linux paths are bytes, not text: every name that the kernel accepts is kept as it is. Text appears only where a
//! person reads it ([`RelPath`]'s `Display`, which escapes what a terminal could misread).

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::plain::is_misleading;

/// A path relative to a root: components joined by single slashes, no leading or trailing slash, no `.` or `..`,
/// no NUL. The empty path is the root itself. Cloning is cheap, since all copies share one allocation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Arc<[u8]>);

/// Why bytes are not a [`RelPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path starts with a slash")]
    Absolute,
    #[error("the path has an empty component")]
    EmptyComponent,
    #[error("the path has a '.' or '..' component")]
    DotComponent,
    #[error("the path has a NUL byte")]
    Nul,
}

impl RelPath {
    /// The root itself.
    pub fn root() -> Self {
        Self(Arc::from(&b""[..]))
    }

    /// Checks `bytes` and takes them as they are.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        if bytes.first() == Some(&b'/') {
            return Err(PathError::Absolute);
        }
        for component in bytes.split(|&b| b == b'/') {
            match component {
                b"" => return Err(PathError::EmptyComponent),
                b"." | b".." => return Err(PathError::DotComponent),
                name if name.contains(&0) => return Err(PathError::Nul),
                _ => {}
            }
        }
        Ok(Self(Arc::from(bytes)))
    }

    /// The path's bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Names `name` inside this directory. `name` is one component as the kernel gave it.
    pub fn join(&self, name: &[u8]) -> Self {
        if self.is_root() {
            return Self(Arc::from(name));
        }
        // The iterator's length is known in advance, so this is one allocation; by way of a `Vec` it would be two.
        Self(self.0.iter().copied().chain([b'/']).chain(name.iter().copied()).collect())
    }

    /// The directory that holds this path, or `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(Arc::from(self.0.get(..end).unwrap_or_default())))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }

    /// The components from the root down; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|c| !c.is_empty())
    }

    /// The path's ancestors from its parent up to and including the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), Self::parent)
    }

    /// The bytes of the path's ancestors, in the same order, for look-ups that copy nothing.
    pub fn ancestor_bytes(&self) -> impl Iterator<Item = &[u8]> {
        let above = |path: &[u8]| path.iter().rposition(|&b| b == b'/').unwrap_or(0);
        let parent = (!self.is_root()).then(|| self.0.get(..above(&self.0)).unwrap_or_default());
        std::iter::successors(parent, move |path| {
            (!path.is_empty()).then(|| path.get(..above(path)).unwrap_or_default())
        })
    }

    /// Whether `other` lies strictly below this path.
    pub fn is_ancestor_of(&self, other: &Self) -> bool {
        if self.is_root() {
            return !other.is_root();
        }
        other.0.len() > self.0.len() && other.0.starts_with(&self.0) && other.0.get(self.0.len()) == Some(&b'/')
    }

    /// Whether `other` is this path or lies below it.
    pub fn covers(&self, other: &Self) -> bool {
        self == other || self.is_ancestor_of(other)
    }

    /// The absolute path of this entry under `root`.
    pub fn under(&self, root: &Path) -> PathBuf {
        if self.is_root() { root.to_path_buf() } else { root.join(OsStr::from_bytes(&self.0)) }
    }
}

/// The half-open byte range of everything strictly below a directory that is not the root: `dir/` to `dir0`
/// (`0` follows `/`). For ordered maps keyed by path bytes.
pub fn below_range(dir: &RelPath) -> (Vec<u8>, Vec<u8>) {
    let mut start = dir.as_bytes().to_vec();
    let mut end = start.clone();
    start.push(b'/');
    end.push(b'/' + 1);
    (start, end)
}

impl std::borrow::Borrow<[u8]> for RelPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Printable characters stand as they are; control characters, backslashes and bytes that are not UTF-8 are escaped,
/// so that a name can neither break a log line nor forge one. The root is shown as `.`.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if is_misleading(c) || c == '\\' { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Self::new(&bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> RelPath {
        RelPath::new(bytes).expect("a valid path")
    }

    #[test]
    fn refuses_what_could_leave_the_root() {
        for (bytes, error) in [
            (&b"/etc"[..], PathError::Absolute),
            (b"a//b", PathError::EmptyComponent),
            (b"a/", PathError::EmptyComponent),
            (b"a/../b", PathError::DotComponent),
            (b".", PathError::DotComponent),
            (b"a\0b", PathError::Nul),
        ] {
            assert_eq!(RelPath::new(bytes), Err(error));
        }
    }

    #[test]
    fn parents_names_and_ancestors() {
        assert_eq!(path(b"a/b/c").parent(), Some(path(b"a/b")));
        assert_eq!(path(b"a").parent(), Some(RelPath::root()));
        assert_eq!(RelPath::root().parent(), None);
        assert_eq!(path(b"a/b").name(), b"b");
        let ancestors: Vec<_> = path(b"a/b/c").ancestors().collect();
        assert_eq!(ancestors, [path(b"a/b"), path(b"a"), RelPath::root()]);
        assert!(path(b"a/b/c").ancestor_bytes().eq(ancestors.iter().map(RelPath::as_bytes)));
        assert_eq!(RelPath::root().ancestor_bytes().count(), 0);
    }

    #[test]
    fn a_common_prefix_is_not_an_ancestor() {
        assert!(path(b"a").is_ancestor_of(&path(b"a/b")));
        assert!(!path(b"a").is_ancestor_of(&path(b"ab/c")));
        assert!(!path(b"a").is_ancestor_of(&path(b"a")));
        assert!(RelPath::root().is_ancestor_of(&path(b"a")));
        let (start, end) = below_range(&path(b"a"));
        assert!(start.as_slice() <= &b"a/b"[..] && &b"a/\xff"[..] < end.as_slice() && end.as_slice() <= &b"ab"[..]);
    }

    #[test]
    fn display_escapes_what_could_forge_a_log_line() {
        assert_eq!(path(b"a\nb\x1b[0m\xff\\").to_string(), "a\\nb\\u{1b}[0m\\xff\\\\");
        assert_eq!(path("博客/日志".as_bytes()).to_string(), "博客/日志");
        assert_eq!(RelPath::root().to_string(), ".");
    }
}
