//! The user's expressions, matched the way sersync matches them: against the whole of a subject, byte by byte.
//!
//! sersync shows one path in three forms: a directory found at start as `sub/dir/`, an entry of the root as `name`,
//! and anything deeper as `/sub/name`. Here all forms of a path are tried, and those of its ancestors.

use regex::bytes::{RegexSet, RegexSetBuilder};

use super::dialect::{FilterError, anchored};
use super::pattern::{Pattern, needs_steps};
use crate::model::RelPath;

/// The largest compiled size of all expressions together, in bytes. Above it they are refused.
const EXPRESSIONS_BYTES_MAX: usize = 64 << 20;
/// The memory of the lazily built automaton, in bytes per thread that matches. At the limit the automaton starts anew,
/// only slower.
const CACHE_BYTES_MAX: usize = 4 << 20;

/// Whether the expression can be used in a [`super::Filter`].
pub fn check(expression: &str) -> Result<(), FilterError> {
    // The expression alone comes first: `a)|(?:b` is balanced only inside the group that anchors it.
    compile(expression, false)?;
    compile(expression, true).map(|_| ())
}

/// Compiles an expression that passed [`check`], for use outside of a [`super::Filter`]: to match a whole subject, or to
/// be searched in one.
pub fn compile(expression: &str, whole: bool) -> Result<Pattern, FilterError> {
    Pattern::new(expression, whole)
}

#[derive(Debug)]
pub(super) struct Expressions {
    /// Most expressions, tried all at once; `numbers` says which of the user's each is.
    together: RegexSet,
    numbers: Vec<usize>,
    /// The expressions that are tried step by step, each with its number.
    apart: Vec<(usize, Pattern)>,
}

impl Expressions {
    pub(super) fn new(expressions: &[String]) -> Result<Self, FilterError> {
        let numbered = || expressions.iter().enumerate();
        let (numbers, texts): (Vec<usize>, Vec<String>) = numbered()
            .filter(|(_, expression)| !needs_steps(expression))
            .map(|(number, expression)| (number, anchored(expression)))
            .unzip();
        let apart = numbered()
            .filter(|(_, expression)| needs_steps(expression))
            .map(|(number, expression)| Ok((number, Pattern::new(expression, true)?)))
            .collect::<Result<_, FilterError>>()?;
        let together = RegexSetBuilder::new(texts)
            .unicode(false)
            .dot_matches_new_line(true)
            .size_limit(EXPRESSIONS_BYTES_MAX)
            .dfa_size_limit(CACHE_BYTES_MAX)
            .build()
            .map_err(|reason| match reason {
                regex::Error::CompiledTooBig(limit_bytes) => FilterError::TooLarge { limit_bytes },
                reason => FilterError::Syntax { reason },
            })?;
        Ok(Self { together, numbers, apart })
    }

    /// Whether any form of the path or of an ancestor matches.
    pub(super) fn exclude(&self, path: &RelPath, is_directory: bool) -> bool {
        let is_match =
            |form: &[u8]| self.together.is_match(form) || self.apart.iter().any(|(_, pattern)| pattern.is_match(form));
        Self::any_form(path, is_directory, |form| is_match(form).then_some(())).is_some()
    }

    /// The number of an expression that matches a form of the path, or of the topmost ancestor that any matches.
    pub(super) fn first_match(&self, path: &RelPath, is_directory: bool) -> Option<usize> {
        Self::any_form(path, is_directory, |form| {
            let together = self.together.matches(form).iter().find_map(|at| self.numbers.get(at).copied());
            let apart = self.apart.iter().find(|(_, pattern)| pattern.is_match(form)).map(|(number, _)| *number);
            together.into_iter().chain(apart).min()
        })
    }

    fn any_form<T>(path: &RelPath, is_directory: bool, matches: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        // In `/a/b/` every form of `a/b` and of its ancestors is a slice.
        let mut subject = Vec::with_capacity(path.as_bytes().len() + 2);
        subject.push(b'/');
        subject.extend_from_slice(path.as_bytes());
        subject.push(b'/');
        let last = subject.len() - 1;
        let mut below_root = false;
        for (slash, _) in subject.iter().enumerate().skip(1).filter(|&(_, &byte)| byte == b'/') {
            let event_form = subject.get(usize::from(!below_root)..slash).unwrap_or_default();
            let start_form = subject.get(1..=slash).unwrap_or_default();
            let found =
                matches(event_form).or_else(|| if slash < last || is_directory { matches(start_form) } else { None });
            if found.is_some() {
                return found;
            }
            below_root = true;
        }
        None
    }
}
