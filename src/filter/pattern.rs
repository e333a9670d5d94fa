//! One regular expression over bytes, compiled.
//!
//! An expression without look-around, back reference or possessive repetition goes to an engine whose time grows with the
//! subject alone. Other expressions have to be tried step by step, as sersync's engine did, and get a limited number of
//! steps: an expression that needs more does not match, and is named once in the log.

use std::sync::atomic::{AtomicBool, Ordering};

use fancy_regex::BytesMode;
use regex::bytes::RegexBuilder;

use super::dialect::{EXPRESSION_BYTES_MAX, FilterError, anchored, bytewise};

/// The most steps of one match, which take milliseconds. A path is a few hundred bytes.
const STEPS_MAX: usize = 100_000;
/// The most instructions of one expression that is tried step by step.
const INSTRUCTIONS_MAX: usize = 100_000;

/// An expression to match a whole subject, or to be searched in one.
#[derive(Debug)]
pub struct Pattern {
    engine: Engine,
    has_given_up: AtomicBool,
}

#[derive(Debug)]
enum Engine {
    Linear(regex::bytes::Regex),
    Stepwise(Box<fancy_regex::Regex>),
}

/// Where an expression was found in a subject.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'s> {
    pub first_group: Option<&'s [u8]>,
    /// Where the match ends.
    pub end: usize,
}

impl Pattern {
    /// Compiles an expression that passed [`super::check`].
    pub(super) fn new(expression: &str, whole: bool) -> Result<Self, FilterError> {
        let text = if whole { anchored(expression) } else { bytewise(expression) };
        let engine = if needs_steps(expression) {
            let mut builder = fancy_regex::RegexBuilder::new(&text);
            builder.bytes_mode(BytesMode::Ascii).dot_matches_new_line(true).backtrack_limit(STEPS_MAX);
            builder.delegate_size_limit(EXPRESSION_BYTES_MAX).max_prog_size(INSTRUCTIONS_MAX);
            let regex = builder.build().map_err(|reason| FilterError::Stepwise { reason: Box::new(reason) })?;
            Engine::Stepwise(Box::new(regex))
        } else {
            let mut builder = RegexBuilder::new(&text);
            builder.unicode(false).dot_matches_new_line(true).size_limit(EXPRESSION_BYTES_MAX);
            Engine::Linear(builder.build().map_err(|reason| FilterError::Syntax { reason })?)
        };
        Ok(Self { engine, has_given_up: AtomicBool::new(false) })
    }

    pub fn is_match(&self, subject: &[u8]) -> bool {
        match &self.engine {
            Engine::Linear(regex) => regex.is_match(subject),
            Engine::Stepwise(regex) => regex.is_match(subject).unwrap_or_else(|reason| {
                self.give_up(regex, &reason);
                false
            }),
        }
    }

    /// The first place at which the expression matches.
    pub fn find<'s>(&self, subject: &'s [u8]) -> Option<Found<'s>> {
        let (group, end) = match &self.engine {
            Engine::Linear(regex) => {
                let found = regex.captures(subject)?;
                (found.get(1).map(|group| group.range()), found.get(0)?.end())
            }
            Engine::Stepwise(regex) => {
                let found = regex.captures(subject).unwrap_or_else(|reason| {
                    self.give_up(regex, &reason);
                    None
                })?;
                (found.get(1).map(|group| group.range()), found.get(0)?.end())
            }
        };
        Some(Found { first_group: group.and_then(|range| subject.get(range)), end })
    }

    fn give_up(&self, regex: &fancy_regex::Regex, reason: &fancy_regex::Error) {
        if !self.has_given_up.swap(true, Ordering::Relaxed) {
            log::warn!(
                "the expression {} is too laborious for some paths, and is taken not to match them: {reason}",
                regex.as_str()
            );
        }
    }
}

/// Whether an expression has something for which an engine has to go back: look-around, an atomic group, a back
/// reference, or a repetition that gives nothing back (`.*+`), as Boost has it.
pub(super) fn needs_steps(expression: &str) -> bool {
    let bytes = expression.as_bytes();
    let (mut at, mut in_class, mut repeats) = (0, false, false);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let (taken, is_repetition) = match rest {
            [b'\\', b'1'..=b'9' | b'k' | b'g', ..] if !in_class => return true,
            [b'\\', ..] => (2, false),
            [b'[', b':' | b'.' | b'=', ..] if in_class => (2, false),
            [b'[', b'^', b']', ..] if !in_class => {
                in_class = true;
                (3, false)
            }
            [b'[', b']', ..] if !in_class => {
                in_class = true;
                (2, false)
            }
            [b'[', ..] if !in_class => {
                in_class = true;
                (1, false)
            }
            [b':' | b'.' | b'=', b']', ..] if in_class && is_named(bytes.get(..at).unwrap_or_default()) => (2, false),
            [b']', ..] if in_class => {
                in_class = false;
                (1, false)
            }
            _ if in_class => (1, false),
            [b'(', b'?', b'=' | b'!' | b'>', ..] | [b'(', b'?', b'<', b'=' | b'!', ..] => return true,
            [b'+', ..] if repeats => return true,
            [b'*' | b'+' | b'?', ..] => (1, !repeats),
            [b'}', ..] => (1, true),
            _ => (1, false),
        };
        repeats = is_repetition;
        at += taken;
    }
    false
}

/// Whether a class name (`[:alpha:]`) is open at the end of `before`.
fn is_named(before: &[u8]) -> bool {
    let open = before.iter().rposition(|&b| b == b'[');
    open.and_then(|open| before.get(open + 1)).is_some_and(|b| b":.=".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_steps_is_tried_by_steps() {
        for (expression, expected) in [
            (r"(.*)\.tmp", false),
            ("a++", true),
            (".*+x", true),
            ("a?+b", true),
            ("a{2,3}+", true),
            ("a*?+", false),
            (r"a\++", false),
            (r"a\*+", false),
            ("[*+]+", false),
            ("[]*+]", false),
            ("[^]*+]x", false),
            ("[[:alpha:]*+]", false),
            ("[[:alpha:]]*+", true),
            (r"(a)\1", true),
            (r"[\1]", false),
            (r"\\1", false),
            ("(?!a)b", true),
            ("(?<=a)b", true),
            ("(?>a)b", true),
            ("(?:a)b", false),
            ("(?i)a", false),
        ] {
            assert_eq!(needs_steps(expression), expected, "{expression}");
        }
    }

    /// As in Boost: a repetition that gives nothing back has taken the rest too.
    #[test]
    fn look_around_back_references_and_possessive_repetitions_match_as_sersyncs_did() {
        for (expression, subject, expected) in [
            (r"(?!info/).*", &b"static/a"[..], true),
            (r"(?!info/).*", b"info/a", false),
            (r".*(?<!\.php)", b"a.html", true),
            (r".*(?<!\.php)", b"a.php", false),
            (r"(.)(.)\2\1", b"abba", true),
            (r"(.)(.)\2\1", b"abab", false),
            (r".*+\.tmp", b"a.tmp", false),
            (r"[^.]*+\.tmp", b"a.tmp", true),
            (r"(?!\xff).*", b"\xffx", false),
            (r"(?!é).*", "éx".as_bytes(), false),
            (r"(?!a).*", b"b\n\xfe", true),
            (r"(?!a)\w+", b"\xe9", false),
        ] {
            let pattern = Pattern::new(expression, true).expect(expression);
            assert_eq!(pattern.is_match(subject), expected, "{expression} {subject:?}");
        }
        let pattern = Pattern::new(r"(?<=/)(www)(?=/)", false).expect("an expression");
        let expected = Found { first_group: Some(&b"www"[..]), end: 8 };
        assert_eq!(pattern.find(b"/srv/www/x"), Some(expected));
        assert_eq!(pattern.find(b"/srv/wwwx"), None);
    }

    #[test]
    fn an_expression_that_would_never_end_gives_up() {
        let pattern = Pattern::new(r"(?=(a+)+b)a*", true).expect("an expression");
        assert!(!pattern.is_match(&[b'a'; 60]));
        let pattern = Pattern::new(r"(a*)*\1c", true).expect("an expression");
        assert!(!pattern.is_match(&[b'a'; 200]));
    }
}
