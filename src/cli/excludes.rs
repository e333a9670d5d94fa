//! Reads the texts that people type to leave paths out: turns each into the expression that they mean, or refuses it with the
//! right form. Also reports expressions that match nothing.
//!
//! An expression has to match the whole of a path, and the filter shows it deeper paths as `/app/uploads` (directories as
//! `app/uploads/` too). An expression of a wrong form protects nothing, and the first comparison deletes the files that it was
//! to protect.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::exit::CliError;
use crate::filter::{self, Filter, Kind};
use crate::model::{RelPath, Root};

/// The most entries of a tree that are searched for a match.
const ENTRIES_MAX: usize = 100_000;

/// The expression for the text behind `--exclude`.
pub(super) fn expression(typed: &str, source: &Path) -> Result<String, CliError> {
    let refuse = |why: &str, hint: String| {
        Err(CliError::config(anyhow::anyhow!("cannot use --exclude '{typed}': {why}")).hint(hint))
    };
    let mut rest = typed.strip_prefix('^').unwrap_or(typed);
    rest = rest.strip_suffix('$').filter(|rest| !rest.ends_with('\\')).unwrap_or(rest);
    let inside = source.to_str().and_then(|source| rest.strip_prefix(source));
    rest = inside.filter(|inside| inside.is_empty() || inside.starts_with('/')).unwrap_or(rest);
    while let Some(shorter) = rest.strip_prefix("./").or_else(|| rest.strip_prefix('/')) {
        rest = shorter;
    }
    // To leave out everything in a directory is to leave out the directory.
    while let Some(shorter) = rest.strip_suffix("/**").or_else(|| rest.strip_suffix("/*")) {
        rest = shorter;
    }
    if rest.is_empty() {
        return refuse(
            "it names no path below the source",
            "write a path as it is below the source: 'app/uploads'".into(),
        );
    }
    if rest.starts_with('*') || rest.contains("/*") || rest.contains("**") {
        return refuse("it is a shell pattern", format!("it takes a regular expression: '{}'", of_shell_pattern(rest)));
    }
    if let Err(reason) = filter::check(rest) {
        return refuse(&reason.to_string(), r"it takes a regular expression, like '(.*)\.tmp' or 'app/uploads'".into());
    }
    let is_deep = rest.trim_end_matches('/').contains('/');
    Ok(if !is_deep || rest.ends_with('/') || rest.starts_with('.') || rest.starts_with("(.") {
        rest.to_owned()
    } else if rest.contains('|') {
        format!("/(?:{rest})")
    } else {
        format!("/{rest}")
    })
}

/// The expression with the meaning of a shell pattern.
fn of_shell_pattern(pattern: &str) -> String {
    let is_deep = pattern.contains('/');
    let mut expression = String::from(if is_deep && !pattern.starts_with("**/") { "/" } else { "" });
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let (piece, taken) = match first {
            _ if rest.starts_with("**/") => ("(.*)/".to_owned(), 3),
            _ if rest.starts_with("**") => ("(.*)".to_owned(), 2),
            '*' if is_deep => ("[^/]*".to_owned(), 1),
            '*' => ("(.*)".to_owned(), 1),
            '?' => ("[^/]".to_owned(), 1),
            '.' | '+' | '(' | ')' | '|' | '^' | '$' | '{' | '}' | '\\' => (format!("\\{first}"), first.len_utf8()),
            _ => (first.to_string(), first.len_utf8()),
        };
        expression.push_str(&piece);
        rest = rest.get(taken..).unwrap_or_default();
    }
    expression
}

/// Looks for expressions that match nothing, on a thread of its own, and logs them.
pub(super) fn report_unmatched(roots: Vec<Root>) {
    if roots.iter().all(|root| root.excludes.is_empty()) {
        return;
    }
    for expression in roots.iter().flat_map(|root| &root.excludes).filter(|expression| is_everything(expression)) {
        log::warn!(
            "the exclude '{expression}' leaves out everything: '\\..*' is for dot-files, '(.*)\\.tmp' for an ending"
        );
    }
    let look = move || {
        for found in roots.iter().flat_map(unmatched) {
            match found.instead {
                Some(_) => log::warn!("{found}"),
                None => log::info!("{found}"),
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("syncq-excludes".into()).spawn(look) {
        log::debug!("expressions are not looked at: {error}");
    }
}

/// Whether an expression leaves out everything: it matches names that have nothing in common.
pub(super) fn is_everything(expression: &str) -> bool {
    const NAMES: [&[u8]; 4] = [b"a", b"Z-0_9.tar", b"\xe4\xb8\xad ~", b"q.w"];
    Filter::new(&[expression.to_owned()], false)
        .is_ok_and(|filter| NAMES.iter().all(|name| filter.spares(&RelPath::root().join(name), Kind::File)))
}

/// An expression that matches no existing entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unmatched {
    pub(super) expression: String,
    root: String,
    entries: usize,
    /// A changed expression that would match, and an entry that it matches.
    pub(super) instead: Option<(String, RelPath)>,
}

impl std::fmt::Display for Unmatched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { expression, root, entries, instead } = self;
        write!(f, "the exclude '{expression}' concerns none of {entries} entries in {root}")?;
        match instead {
            Some((instead, path)) => write!(
                f,
                ", since it is to match the whole of a path, like 'name' or '/directory/name'; '{instead}' would leave out {path}"
            ),
            None => Ok(()),
        }
    }
}

/// The expressions of a root that match nothing among the first `ENTRIES_MAX` entries.
pub(super) fn unmatched(root: &Root) -> Vec<Unmatched> {
    struct Open<'a> {
        expression: &'a str,
        filter: Filter,
        /// Expressions that may have been meant instead.
        others: Vec<(String, Filter)>,
        instead: Option<(String, RelPath)>,
    }
    let one = |expression: &str| Filter::new(&[expression.to_owned()], false).ok();
    let mut open: Vec<Open<'_>> = Vec::new();
    for expression in &root.excludes {
        let Some(filter) = one(expression) else { continue };
        let bare = expression.trim_start_matches(['^', '/']).trim_end_matches(['$', '/']);
        let others = [format!("/{bare}"), format!("(.*)/{bare}"), bare.to_owned()];
        let others = others.into_iter().filter(|other| other != expression);
        let others = others.filter_map(|other| Some((other.clone(), one(&other)?))).collect();
        open.push(Open { expression, filter, others, instead: None });
    }
    let mut left = vec![RelPath::root()];
    let mut entries = 0;
    while let Some(directory) = left.pop().filter(|_| !open.is_empty() && entries < ENTRIES_MAX) {
        for entry in std::fs::read_dir(directory.under(&root.path)).into_iter().flatten().flatten() {
            let path = directory.join(entry.file_name().as_bytes());
            let is_directory = entry.file_type().is_ok_and(|found| found.is_dir());
            let kind = if is_directory { Kind::Directory } else { Kind::File };
            entries += 1;
            open.retain(|open| !open.filter.spares(&path, kind));
            for open in open.iter_mut().filter(|open| open.instead.is_none()) {
                let meant = open.others.iter().find(|(_, filter)| filter.spares(&path, kind));
                open.instead = meant.map(|(other, _)| (other.clone(), path.clone()));
            }
            if is_directory {
                left.push(path);
            }
        }
    }
    let shown = root.path.display().to_string();
    let found = open.into_iter().map(|Open { expression, instead, .. }| Unmatched {
        expression: expression.to_owned(),
        root: shown.clone(),
        entries,
        instead,
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventSwitches;

    /// `--exclude app/uploads` matched nothing, and the files that it was to protect were deleted.
    #[test]
    fn what_people_type_leaves_out_what_they_mean() {
        let source = Path::new("/srv/www");
        for typed in [
            "app/uploads",
            "/app/uploads",
            "./app/uploads",
            "app/uploads/",
            "/app/uploads/",
            "^app/uploads$",
            "app/uploads/*",
            "app/uploads/**",
            "/srv/www/app/uploads",
            "(.*)/uploads",
            ".*/uploads",
            "app/(uploads|cache)",
            "app/up.*",
            "web/x|app/uploads",
        ] {
            let filter = Filter::new(&[expression(typed, source).unwrap()], false).unwrap();
            let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
            assert!(filter.excludes(&path("app/uploads"), Kind::Directory), "{typed}");
            assert!(filter.excludes(&path("app/uploads/a/b.jpg"), Kind::File), "{typed}");
            assert!(!filter.excludes(&path("app/index"), Kind::File), "{typed}");
        }
        for typed in ["cache", "/cache", "cache/", "cache/*"] {
            let filter = Filter::new(&[expression(typed, source).unwrap()], false).unwrap();
            assert!(filter.excludes(&RelPath::new(b"cache/x").unwrap(), Kind::File), "{typed}");
        }
    }

    #[test]
    fn shell_patterns_are_refused_with_the_right_form() {
        for (typed, right, concerned) in [
            ("*.log", r"(.*)\.log", "a/b.log"),
            ("*.log", r"(.*)\.log", "b.log"),
            ("app/*.log", r"/app/[^/]*\.log", "app/b.log"),
            ("**/cache", "(.*)/cache", "a/b/cache"),
            ("a/**/c", "/a/(.*)/c", "a/b/c"),
        ] {
            let error = expression(typed, Path::new("/src")).unwrap_err();
            assert!(format!("{error:?}").contains(&right.escape_debug().to_string()), "{error:?}");
            let filter = Filter::new(&[right.to_owned()], false).unwrap();
            assert!(filter.excludes(&RelPath::new(concerned.as_bytes()).unwrap(), Kind::File), "{right}");
        }
        for typed in ["", "/", "(", "/src"] {
            assert!(expression(typed, Path::new("/src")).is_err(), "{typed}");
        }
    }

    #[test]
    fn an_expression_that_leaves_out_everything_is_known() {
        for (expression, expected) in [
            (".*", true),
            ("(.*)", true),
            (".+", true),
            ("[^/]*", true),
            (r"\..*", false),
            ("a.*", false),
            ("(.*)a(.*)", false),
        ] {
            assert_eq!(is_everything(expression), expected, "{expression}");
        }
    }

    #[test]
    fn an_expression_that_concerns_nothing_is_told_with_one_that_would() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("app/uploads")).unwrap();
        std::fs::create_dir_all(dir.path().join("a/node_modules")).unwrap();
        let root = Root {
            path: dir.path().to_owned(),
            targets: Vec::new(),
            events: EventSwitches::default(),
            excludes: ["app/uploads", "node_modules", "(.*)/uploads", r"(.*)\.tmp"].map(str::to_owned).to_vec(),
            legacy_hidden: false,
            schedule: None,
        };
        let found: Vec<(String, Option<String>)> = unmatched(&root)
            .into_iter()
            .map(|found| (found.expression, found.instead.map(|(instead, _)| instead)))
            .collect();
        let expected =
            [("app/uploads", Some("/app/uploads")), ("node_modules", Some("(.*)/node_modules")), (r"(.*)\.tmp", None)];
        assert_eq!(found, expected.map(|(one, other)| (one.to_owned(), other.map(str::to_owned))));
    }
}
