//! The content of a notice: one path of one root, and what was done to it. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::mirror::Operation;
use crate::model::RelPath;

/// A watched directory as plugins know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    /// The directory as the configuration spells it. A slash at its end shows in the told paths (`/d//file`): scripts cut
    /// there.
    pub spelled: PathBuf,
    /// The names of the targets.
    pub targets: Vec<String>,
}

/// One change that a plugin is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub source: Arc<Source>,
    pub path: RelPath,
    pub operation: Operation,
    pub directory: bool,
}

impl Notice {
    /// The absolute path as sersync spells it: the directory as it is configured, a slash, the rest.
    pub fn spelled(&self) -> Vec<u8> {
        below(self.source.spelled.as_os_str(), self.path.as_bytes())
    }

    /// The absolute path without doubled slashes.
    pub fn absolute(&self) -> PathBuf {
        self.path.under(&self.source.path)
    }

    /// The path below `watch`, without a leading slash. `None` if the path is not below `watch`.
    pub(super) fn below(&self, watch: &Watch) -> Option<Vec<u8>> {
        let absolute = self.absolute();
        let rest = absolute.strip_prefix(&watch.normal).ok()?;
        (!rest.as_os_str().is_empty()).then(|| rest.as_os_str().as_bytes().to_vec())
    }
}

/// The directory that a plugin's section names. Only paths below it are told, and they begin with its spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watch {
    normal: PathBuf,
    pub(super) spelled: PathBuf,
}

impl Watch {
    pub(super) fn new(spelled: &Path) -> Self {
        Self { normal: spelled.components().collect(), spelled: spelled.to_owned() }
    }

    /// The path to tell: with the plugin's own spelling of its directory, or the root's if the plugin names none.
    pub(super) fn spell(watch: Option<&Self>, notice: &Notice) -> Option<Vec<u8>> {
        match watch {
            Some(watch) => Some(below(watch.spelled.as_os_str(), &notice.below(watch)?)),
            None => Some(notice.spelled()),
        }
    }
}

fn below(directory: &OsStr, rest: &[u8]) -> Vec<u8> {
    let mut bytes = directory.as_bytes().to_vec();
    if bytes != b"/" {
        bytes.push(b'/');
    }
    bytes.extend_from_slice(rest);
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A notice of a file below a root with this spelling.
    pub(crate) fn notice(root: &str, path: &[u8]) -> Notice {
        let source =
            Source { path: Path::new(root).components().collect(), spelled: root.into(), targets: vec!["h::m".into()] };
        let path = RelPath::new(path).unwrap();
        Notice { source: Arc::new(source), path, operation: Operation::Update, directory: false }
    }

    #[test]
    fn a_slash_at_the_end_shows_in_the_path() {
        for (root, watch, expected) in [
            ("/d", None, Some("/d/a/b")),
            ("/d/", None, Some("/d//a/b")),
            ("/d", Some("/d/"), Some("/d//a/b")),
            ("/d/", Some("/d"), Some("/d/a/b")),
            ("/d", Some("/d/a/"), Some("/d/a//b")),
            ("/d", Some("/"), Some("/d/a/b")),
            ("/", None, Some("/a/b")),
            ("/d", Some("/d/a/b"), None),
            ("/d", Some("/da"), None),
            ("/d", Some("/x"), None),
        ] {
            let watch = watch.map(|watch| Watch::new(Path::new(watch)));
            let told = Watch::spell(watch.as_ref(), &notice(root, b"a/b"));
            assert_eq!(told.as_deref(), expected.map(str::as_bytes), "{root} {watch:?}");
        }
    }
}
