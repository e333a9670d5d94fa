//! The filter of `list`, `retry` and `purge`, which says which jobs are wanted, and its compiled form. Pure.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::refusal::{Refusal, RefusalKind};
use super::strict::{self, NoDuration};
use crate::model::{Job, JobState, Scope, Timestamp};

/// Selects the jobs that satisfy every given condition. Used as the query of `GET /v1/jobs`, and as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobFilter {
    /// Jobs with one of these numbers.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::given_ids")]
    pub ids: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "strict::given")]
    pub state: Option<JobState>,
    /// The name of the target, as `status` shows it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "strict::given_text")]
    pub target: Option<String>,
    /// The mirrored directory.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "strict::given_text")]
    pub root: Option<String>,
    /// A glob; see the module `glob`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "strict::given_text")]
    pub path: Option<String>,
    /// Queued at least this many seconds ago.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "strict::given")]
    pub older_than_s: Option<f64>,
    /// Text that the last error contains, regardless of case.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "strict::given_text")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "strict::given")]
    pub scope: Option<Scope>,
    /// At most this many jobs.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "strict::given")]
    pub limit: Option<u64>,
}

/// A glob that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{glob:?} is no pattern for paths")]
pub struct GlobError {
    pub glob: String,
}

/// A filter that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FilterError {
    #[error(transparent)]
    Glob(#[from] GlobError),
    #[error("older_than_s: {0}")]
    Age(#[from] NoDuration),
}

impl From<FilterError> for Refusal {
    fn from(error: FilterError) -> Self {
        let hint = match error {
            FilterError::Glob(_) => {
                "patterns are as in .gitignore, like *.jpg or photos/**; for a bracket in a name write [[]"
            }
            FilterError::Age(_) => "give an age in seconds; leave it out if jobs of any age are meant",
        };
        Self::new(RefusalKind::Wrong, error.to_string(), hint)
    }
}

/// A filter that has been checked.
#[derive(Debug)]
pub struct Matcher {
    pub filter: JobFilter,
    ids: HashSet<u64>,
    path: Option<Regex>,
    error: Option<String>,
    /// The least age, and the moment of the request.
    older_than: Option<(Duration, Timestamp)>,
}

impl JobFilter {
    /// Whether the filter selects all jobs of whole targets.
    pub fn is_of_whole_targets(&self) -> bool {
        *self == Self { target: self.target.clone(), root: self.root.clone(), ..Self::default() }
    }
}

impl Matcher {
    pub fn new(filter: &JobFilter, now: Timestamp) -> Result<Self, FilterError> {
        let age = filter.older_than_s.map(strict::duration).transpose()?;
        Ok(Self {
            ids: filter.ids.iter().copied().collect(),
            path: filter.path.as_deref().map(glob).transpose()?,
            error: filter.error.as_ref().map(|text| text.to_lowercase()),
            older_than: age.map(|age| (age, now)),
            filter: filter.clone(),
        })
    }

    /// Whether jobs of this target may be wanted.
    pub fn wants_target(&self, name: &str, root: &Path) -> bool {
        self.filter.target.as_deref().is_none_or(|target| target == name)
            && self.filter.root.as_deref().is_none_or(|wanted| Path::new(wanted) == root)
    }

    /// Whether this job is wanted, given that its target is.
    pub fn wants(&self, job: &Job) -> bool {
        let has_text = |text: &String| {
            job.last_error.as_ref().is_some_and(|error| error.to_string().to_lowercase().contains(text.as_str()))
        };
        (self.ids.is_empty() || self.ids.contains(&job.id.0))
            && self.filter.state.is_none_or(|state| state == job.state)
            && self.filter.scope.is_none_or(|scope| scope == job.scope)
            && self.older_than.is_none_or(|(age, now)| now.since(job.queued_at) >= age)
            && self.path.as_ref().is_none_or(|glob| glob.is_match(job.path.as_bytes()))
            && self.error.as_ref().is_none_or(has_text)
    }
}

/// Compiles a glob as in `.gitignore`: `*` and `?` match anything but a slash, `**` matches anything, `[a-z]` one of these
/// ASCII characters and `[!a-z]` one character that is not among them. A glob without a slash is about names at any depth,
/// otherwise about whole paths. A match of a directory includes everything below it. `.` alone is the root's own job.
// Not the crate globset: its `?` matches one byte and so no Chinese character, and its braces, which are literal here and in
// .gitignore, cannot be switched off.
pub fn glob(glob: &str) -> Result<Regex, GlobError> {
    let bad = || GlobError { glob: glob.to_owned() };
    if glob == "." {
        return Regex::new(r"\A\z").map_err(|_| bad());
    }
    let body = glob.trim_start_matches('/').trim_end_matches('/');
    if body.is_empty() {
        return Err(bad());
    }
    let anchored = glob.starts_with('/') || body.contains('/');
    let mut expression = String::from(if anchored { r"\A" } else { r"(?:\A|/)" });
    let mut rest = body;
    while let Some(c) = rest.chars().next() {
        let mut used = c.len_utf8();
        match c {
            '*' if rest.starts_with("**/") => {
                expression.push_str("(?:.*/)?");
                used = 3;
            }
            '*' if rest.starts_with("**") => {
                expression.push_str(".*");
                used = 2;
            }
            '*' => expression.push_str("[^/]*"),
            // One character, of any number of bytes.
            '?' => expression.push_str(r"(?:[^/\x80-\xff]|[\xc0-\xff][\x80-\xbf]*|[\x80-\xbf])"),
            '[' => {
                let (class, length) = class(rest).ok_or_else(bad)?;
                expression.push_str(&class);
                used = length;
            }
            c => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| expression.push_str(&format!(r"\x{byte:02x}"))),
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    expression.push_str(r"(?:/|\z)");
    RegexBuilder::new(&expression).unicode(false).dot_matches_new_line(true).build().map_err(|_| bad())
}

/// Returns the expression for the class at the start of `text`, and the length of the class in bytes. `None` if `text` does not
/// begin with a class of ASCII characters.
fn class(text: &str) -> Option<(String, usize)> {
    let inner = text.strip_prefix('[')?;
    let negated = inner.starts_with(['!', '^']);
    let inner = if negated { inner.get(1..)? } else { inner };
    // A bracket in the first place is a member of the class.
    let end = inner.bytes().skip(1).position(|byte| byte == b']')? + 1;
    let members = inner.get(..end).filter(|members| members.is_ascii())?;
    let mut class = String::from(if negated { "[^/" } else { "[" });
    for member in members.chars() {
        if member == '-' { class.push('-') } else { class.push_str(&format!(r"\x{:02x}", u32::from(member))) }
    }
    class.push(']');
    Some((class, text.len() - inner.len() + end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Generation, JobError, JobId, Origin, RelPath, TargetId};

    #[test]
    fn globs_mean_what_they_mean_in_gitignore() {
        for (pattern, path, expected) in [
            ("*.jpg", "a.jpg", true),
            ("*.jpg", "deep/er/a.jpg", true),
            ("*.jpg", "a.jpg.txt", false),
            ("/a", "a", true),
            ("/a", "b/a", false),
            ("a/b", "a/b/c", true),
            ("a/b/", "a/b", true),
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/b/b/c", false),
            ("a/**/c", "a/b/b/c", true),
            ("a/**/c", "a/c", true),
            ("a/**", "a/b/c", true),
            ("**", "x", true),
            ("**", "", true),
            (".", "", true),
            (".", "a", false),
            ("?.txt", "é.txt", true),
            ("?.txt", "/.txt", false),
            ("[a-c].txt", "b.txt", true),
            ("[!a-c].txt", "b.txt", false),
            ("[!a-c].txt", "d.txt", true),
            ("[]x]", "]", true),
            ("a.b", "axb", false),
            ("博客", "博客/日志", true),
            ("a\\b", "a\\b", true),
            ("?", "日", true),
            ("{x}", "{x}", true),
            ("a{b,c}", "ab", false),
            ("{a", "{a", true),
            ("a**b", "a/x/b", true),
        ] {
            assert_eq!(glob(pattern).expect("a glob").is_match(path.as_bytes()), expected, "{pattern} on {path}");
        }
        assert!(glob("?").expect("a glob").is_match(b"\xff"));
        for pattern in ["", "/", "[", "[a", "[é]"] {
            assert!(glob(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn all_that_is_given_has_to_hold() {
        let job = Job {
            id: JobId(7),
            target: TargetId(1),
            path: RelPath::new(b"photos/a.jpg").expect("a path"),
            scope: Scope::Entry,
            origin: Origin::Write,
            state: JobState::Failed,
            generation: Generation::FIRST,
            queued_at: Timestamp(60_000),
            changed_at: Timestamp(60_000),
            attempts: 3,
            due_at: Timestamp::ZERO,
            partial: false,
            last_error: Some(JobError::new(Some(23), "Permission denied")),
        };
        let all = JobFilter {
            ids: vec![1, 7],
            state: Some(JobState::Failed),
            target: Some("b::www".to_owned()),
            root: Some("/srv/".to_owned()),
            path: Some("photos".to_owned()),
            older_than_s: Some(40.0),
            error: Some("permission".to_owned()),
            scope: Some(Scope::Entry),
            limit: None,
        };
        let wants = |filter: &JobFilter| {
            let matcher = Matcher::new(filter, Timestamp(100_000)).expect("a filter");
            matcher.wants_target("b::www", Path::new("/srv")) && matcher.wants(&job)
        };
        assert!(wants(&all) && wants(&JobFilter::default()));
        for other in [
            JobFilter { ids: vec![1], ..all.clone() },
            JobFilter { state: Some(JobState::Ready), ..all.clone() },
            JobFilter { target: Some("b::w".to_owned()), ..all.clone() },
            JobFilter { root: Some("/sr".to_owned()), ..all.clone() },
            JobFilter { path: Some("photo".to_owned()), ..all.clone() },
            JobFilter { older_than_s: Some(41.0), ..all.clone() },
            JobFilter { error: Some("denial".to_owned()), ..all.clone() },
            JobFilter { scope: Some(Scope::Subtree), ..all.clone() },
        ] {
            assert!(!wants(&other), "{other:?}");
        }
        assert!(!all.is_of_whole_targets());
        let whole = JobFilter { target: all.target.clone(), root: all.root, ..JobFilter::default() };
        assert!(whole.is_of_whole_targets());
    }

    #[test]
    fn a_misspelt_key_is_no_filter_that_matches_everything() {
        assert!(serde_json::from_str::<JobFilter>(r#"{"stat":"failed"}"#).is_err());
        assert_eq!(serde_json::to_string(&JobFilter::default()).expect("json"), "{}");
    }
}
