//! Finds the root that contains a path given by an operator.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use crate::control::{PathArg, Refusal, RefusalKind};
use crate::model::RelPath;

/// Returns the root that contains the path, and the path below it. A relative path is taken from the operator's working
/// directory. If there is only one root, the path may also be relative to that root, as `list` shows it.
pub(crate) fn resolve(arg: &PathArg, roots: &[&Path]) -> Result<(PathBuf, RelPath), Refusal> {
    let given = arg.given().ok_or_else(|| {
        Refusal::new(RefusalKind::Wrong, "path_b64 is no base64", "leave it out for a path that is UTF-8")
    })?;
    let from_there = arg.cwd.as_deref().map_or_else(|| given.clone(), |cwd| cwd.join(&given));
    // Roots may lie in each other: the innermost one counts.
    let mut found: Vec<(&Path, PathBuf)> =
        roots.iter().filter_map(|root| Some((*root, below(&clean(&from_there), root)?))).collect();
    found.sort_by_key(|(root, _)| std::cmp::Reverse(root.as_os_str().len()));
    let as_listed = || match roots {
        [only] if given.is_relative() => Some((*only, clean(&given))),
        _ => None,
    };
    let (root, path) = found.into_iter().next().or_else(as_listed).ok_or_else(|| {
        let shown = roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ");
        let message = format!("{} lies in no directory that is mirrored", given.display());
        Refusal::new(RefusalKind::Unknown, message, format!("mirrored is what lies in {shown}"))
    })?;
    match RelPath::new(path.as_os_str().as_bytes()) {
        Ok(path) => Ok((root.to_owned(), path)),
        Err(error) => {
            Err(Refusal::new(RefusalKind::Wrong, format!("{}: {error}", given.display()), "name it from the root down"))
        }
    }
}

fn below(path: &Path, root: &Path) -> Option<PathBuf> {
    if let Ok(rest) = path.strip_prefix(root) {
        return Some(rest.to_owned());
    }
    // The root's name may go through a symbolic link that the operator's shell has resolved.
    let real = root.canonicalize().ok()?;
    path.strip_prefix(real).ok().map(Path::to_owned)
}

/// Removes `.` and `..` from the text alone, since the path need not exist.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_however_it_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = dir.path().join("real");
        let link = dir.path().join("link");
        std::fs::create_dir(&real).expect("a directory");
        std::os::unix::fs::symlink(&real, &link).expect("a link");
        let inner = real.join("inner");
        let found = |path: &str, cwd: Option<&Path>, roots: &[&Path]| {
            let arg = PathArg::new(Path::new(path), cwd.map(Path::to_owned));
            resolve(&arg, roots).map(|(root, path)| (root, path.to_string())).map_err(|refusal| refusal.kind)
        };
        let text = |path: &Path| path.display().to_string();
        let (a, both) = (text(&real.join("a/b")), [real.as_path(), inner.as_path()]);
        assert_eq!(found(&a, None, &[&real]), Ok((real.clone(), "a/b".to_owned())));
        assert_eq!(found(&a, None, &[&link]), Ok((link.clone(), "a/b".to_owned())), "through the link");
        assert_eq!(found("b", Some(&real.join("a")), &[&real]), Ok((real.clone(), "a/b".to_owned())));
        assert_eq!(found("../b", Some(&real.join("a")), &[&real]), Ok((real.clone(), "b".to_owned())));
        assert_eq!(found(".", Some(&real), &[&real]), Ok((real.clone(), ".".to_owned())));
        assert_eq!(found("a/b", Some(Path::new("/tmp")), &[&real]), Ok((real.clone(), "a/b".to_owned())), "as listed");
        assert_eq!(found(&text(&inner.join("x")), None, &both), Ok((inner.clone(), "x".to_owned())), "the innermost");
        assert_eq!(found("a/b", Some(Path::new("/tmp")), &both), Err(RefusalKind::Unknown));
        assert_eq!(found("/elsewhere", None, &[&real]), Err(RefusalKind::Unknown));
    }
}
