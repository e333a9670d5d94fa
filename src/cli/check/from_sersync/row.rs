//! What a row of the table consists of, and the conditions on which one holds. Which rows there are is `table`'s.

use super::facts::Fact;
use crate::config::{Matter, Outline};
use Verdict::{Differs, Same};
use When::Always;

/// How a piece of the file compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It means the same to both.
    Same,
    /// It does nothing in either.
    Unused,
    /// Both pass over it.
    Ignored,
    Differs,
}

/// An attribute at its place.
pub struct Here<'a> {
    pub file: &'a Outline,
    pub value: &'a str,
    /// So many elements of the same name stand before it in its parent.
    pub earlier: usize,
    /// The name of the plugin whose section it stands in.
    pub section: Option<&'a str>,
}

impl Here<'_> {
    pub(super) fn is_on(&self, path: &str) -> bool {
        self.file.value(path, "start").is_some_and(is_true)
    }

    pub(super) fn has_blanks(&self) -> bool {
        self.value.trim() != self.value
    }
}

/// As syncq reads it; sersync took exactly `true`.
pub(super) fn is_true(value: &str) -> bool {
    matches!(value.trim().to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on")
}

/// What holds for an attribute, if `when` does.
pub struct Row {
    pub element: &'static str,
    pub attribute: &'static str,
    pub when: When,
    pub verdict: Verdict,
    pub says: &'static str,
    /// What is told behind it.
    pub facts: &'static [&'static Fact],
    /// What follows is told as well.
    pub is_besides: bool,
    /// The warning on the file that says the same.
    pub matter: Matter,
}

impl Row {
    pub(super) const fn about(mut self, matter: Matter) -> Self {
        self.matter = matter;
        self
    }

    pub(super) const fn and(mut self, facts: &'static [&'static Fact]) -> Self {
        self.facts = facts;
        self
    }

    /// All that is told of it.
    pub fn text(&self) -> String {
        let own = Some(self.says.to_owned()).filter(|says| !says.is_empty());
        sentences(own.into_iter().chain(self.facts.iter().map(|fact| fact.told())))
    }
}

/// Puts texts behind each other; all but the first begin as sentences do.
pub fn sentences(texts: impl IntoIterator<Item = String>) -> String {
    let mut all = String::new();
    for mut text in texts {
        if !all.is_empty() {
            all.push_str(". ");
            if let Some(first) = text.get_mut(..1) {
                first.make_ascii_uppercase();
            }
        }
        all.push_str(&text);
    }
    all
}

#[derive(Clone, Copy)]
pub enum When {
    Always,
    /// The attribute is a switch, and on.
    On,
    /// Anything else that has to hold.
    If(fn(&Here<'_>) -> bool),
}

impl When {
    pub fn holds(self, here: &Here<'_>) -> bool {
        match self {
            Self::Always => true,
            Self::On => is_true(here.value),
            Self::If(condition) => condition(here),
        }
    }
}

pub(super) const fn row(
    element: &'static str,
    attribute: &'static str,
    when: When,
    verdict: Verdict,
    says: &'static str,
) -> Row {
    Row { element, attribute, when, verdict, says, facts: &[], is_besides: false, matter: Matter::Other }
}

/// One that hides none of those behind it.
pub(super) const fn besides(element: &'static str, attribute: &'static str, when: When, says: &'static str) -> Row {
    Row { element, attribute, when, verdict: Differs, says, facts: &[], is_besides: true, matter: Matter::Other }
}

/// What differs as the facts say.
pub(super) const fn of(
    element: &'static str,
    attribute: &'static str,
    when: When,
    facts: &'static [&'static Fact],
) -> Row {
    row(element, attribute, when, Differs, "").and(facts)
}

pub(super) const fn same(element: &'static str, attribute: &'static str) -> Row {
    row(element, attribute, Always, Same, "")
}

pub(super) fn blanks(here: &Here<'_>) -> bool {
    here.has_blanks()
}

pub(super) fn without_filter(here: &Here<'_>) -> bool {
    !here.is_on("filter")
}

pub(super) fn without_auth(here: &Here<'_>) -> bool {
    !here.is_on("sersync/rsync/auth")
}

pub(super) fn with_ssh(here: &Here<'_>) -> bool {
    here.is_on("sersync/rsync/ssh")
}

/// A password file and ssh: rsync refuses them together. syncq then takes neither the file nor the user.
pub(super) fn with_ssh_and_password(here: &Here<'_>) -> bool {
    with_ssh(here) && here.file.value("sersync/rsync/auth", "passwordfile").is_some_and(|file| !file.trim().is_empty())
}

pub(super) fn without_crontab(here: &Here<'_>) -> bool {
    !here.is_on("sersync/crontab")
}

pub(super) fn without_crontab_filter(here: &Here<'_>) -> bool {
    !here.is_on("sersync/crontab") || !here.is_on("sersync/crontab/crontabfilter")
}

pub(super) fn without_plugin(here: &Here<'_>) -> bool {
    !here.is_on("sersync/plugin")
}

/// Of the sections of plugins only the one in use does anything.
pub(super) fn not_in_use(here: &Here<'_>) -> bool {
    let used = here.file.value("sersync/plugin", "name").unwrap_or("command").trim();
    without_plugin(here) || !here.section.is_some_and(|name| name.trim().eq_ignore_ascii_case(used))
}

/// Whether neither takes it for an expression, or only sersync.
pub(super) fn is_no_expression(here: &Here<'_>) -> bool {
    crate::filter::check(here.value.trim()).is_err()
}

/// Whether params hold `-u`, alone or among other letters, or `--update`.
pub(super) fn updates(here: &Here<'_>) -> bool {
    here.value.split_whitespace().any(|word| {
        let letters = word.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
        let flags = letters.map(|letters| letters.split(['e', 'f', 'B', 'T', 'M', '@']).next().unwrap_or_default());
        word == "--update" || flags.is_some_and(|flags| flags.contains('u'))
    })
}

/// What a shell would have made something of.
pub(super) fn is_for_a_shell(here: &Here<'_>) -> bool {
    here.value.contains(['"', '\'', '\\', '$', '`', '*', '?', '[', '{', ';', '|', '&', '<', '>', '(', ')', '~'])
}
