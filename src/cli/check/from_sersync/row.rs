//! The rows of the table: their parts, and the conditions on which a row holds. The rows themselves are in `table`.

use super::facts::Fact;
use crate::config::{Matter, Outline};
use Verdict::{Differs, Same};
use When::Always;

/// The result of comparing a piece of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The piece means the same to both programs.
    Same,
    /// The piece has no effect in either program.
    Unused,
    /// Both programs skip the piece.
    Ignored,
    Differs,
}

/// An attribute at its place.
pub struct Here<'a> {
    pub file: &'a Outline,
    pub value: &'a str,
    /// How many elements with the same name stand before it in its parent.
    pub earlier: usize,
    /// The name of the plugin in whose section the attribute stands.
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

/// Whether syncq reads the value as true; sersync took exactly `true`.
pub(super) fn is_true(value: &str) -> bool {
    matches!(value.trim().to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on")
}

/// The statement about an attribute, provided that `when` holds.
pub struct Row {
    pub element: &'static str,
    pub attribute: &'static str,
    pub when: When,
    pub verdict: Verdict,
    pub says: &'static str,
    /// The facts that are told after `says`.
    pub facts: &'static [&'static Fact],
    /// Whether the rows after this one are consulted too.
    pub is_besides: bool,
    /// The warning on the file that repeats this row.
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

    /// The whole text of the row.
    pub fn text(&self) -> String {
        let own = Some(self.says.to_owned()).filter(|says| !says.is_empty());
        sentences(own.into_iter().chain(self.facts.iter().map(|fact| fact.told())))
    }
}

/// Joins texts to a paragraph; all but the first get a capital letter.
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
    /// Another condition.
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

/// A row after which the following rows are consulted too.
pub(super) const fn besides(element: &'static str, attribute: &'static str, when: When, says: &'static str) -> Row {
    Row { element, attribute, when, verdict: Differs, says, facts: &[], is_besides: true, matter: Matter::Other }
}

/// A row whose text is that of the facts.
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

/// rsync refuses a password file together with ssh. syncq then takes neither the file nor the user.
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

/// Whether the attribute stands in the section of a plugin that is not in use: only the section in use has an effect.
pub(super) fn not_in_use(here: &Here<'_>) -> bool {
    let used = here.file.value("sersync/plugin", "name").unwrap_or("command").trim();
    without_plugin(here) || !here.section.is_some_and(|name| name.trim().eq_ignore_ascii_case(used))
}

/// Whether the value is no valid expression, for both programs or for syncq alone.
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

/// Whether the value contains characters that only a shell would interpret.
pub(super) fn is_for_a_shell(here: &Here<'_>) -> bool {
    here.value.contains(['"', '\'', '\\', '$', '`', '*', '?', '[', '{', ';', '|', '&', '<', '>', '(', ')', '~'])
}
