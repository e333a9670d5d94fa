//! (under construction)
use crate::model::RelPath;

/// What kind of thing a path names, as far as the filter's rules need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    /// Anything else that is there, with its size in bytes.
    File {
        size: u64,
    },
    /// Something that was no directory and is gone.
    GoneFile,
}

#[derive(Debug)]
pub struct Filter {}

#[derive(Debug, thiserror::Error)]
#[error("bad expression")]
pub struct FilterError {}

impl Filter {
    pub fn new(_excludes: &[String], _legacy_hidden: bool) -> Result<Self, FilterError> {
        Ok(Self {})
    }
    /// Whether the path, or an ancestor of it, is not mirrored.
    pub fn excludes(&self, _path: &RelPath, _kind: Kind) -> bool {
        false
    }
    /// Whether the user gave expressions (which rsync's own rules cannot express).
    pub fn has_expressions(&self) -> bool {
        false
    }
    /// The temporaries (and, with legacy_hidden, dot-files) as rsync --filter rules, for runs with -r or --delete.
    pub fn rsync_rules(&self) -> Vec<std::ffi::OsString> {
        Vec::new()
    }
}
