//! The user's own rsync options, taken apart once. Whoever wants to know something of them asks here.
//!
//! Live changes go to rsync by name, a comparison lets rsync look for itself. The two come to different ends with an
//! option by which rsync finds, follows or spares something when it looks. [`Params::selects`] tells of such options, and
//! then all runs let rsync look (`mirror/plan/narrow`). Options with which no mirror can work are refused when the
//! configuration is read.
//!
//! Pure. An unknown option counts as one that selects.

mod options;
mod usable;

use std::ffi::{OsStr, OsString};
use std::ops::Deref;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use options::{KNOWN, Known};

pub use options::Effect;
pub use usable::{Refused, Usable, Why};

/// One option as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The option as rsync's manual writes it, with dashes. A word that is no option stands for itself.
    pub shown: String,
    /// The long name without dashes and without `no-`, or the letter of an option that has no other name.
    name: String,
    letter: Option<u8>,
    /// Given as `--no-NAME`.
    is_off: bool,
    pub value: Option<OsString>,
    /// Whether the value is the next word.
    is_value_next: bool,
    /// The index of the word that the option stands in.
    pub word: usize,
    /// Whether the word is an option at all.
    pub is_option: bool,
}

impl Given {
    fn known(&self) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.name == self.name)
    }

    /// Whether this is the option `name`, switched on.
    pub fn is(&self, name: &str) -> bool {
        self.is_option && !self.is_off && self.name == name
    }

    pub fn effect(&self) -> Effect {
        match (self.is_off, self.known()) {
            (true, _) => options::effect_of_no(&self.name),
            (false, Some(known)) => known.effect,
            (false, None) => Effect::Selects,
        }
    }

    /// Whether the option has rsync delete whatever is not in the list. In a flat run such an option would reach beyond
    /// the listed paths.
    pub fn deletes(&self) -> bool {
        !self.is_off && (self.name == "del" || (self.name.starts_with("delete") && self.name != "delete-missing-args"))
    }
}

/// The options of one target.
#[derive(Debug, Clone, Default)]
pub struct Params {
    words: Vec<OsString>,
    given: Vec<Given>,
}

impl Params {
    pub fn given(&self) -> &[Given] {
        &self.given
    }

    /// Whether an option is given with which only rsync knows what it finds, follows or spares.
    pub fn selects(&self) -> bool {
        self.given.iter().any(|given| given.effect() == Effect::Selects)
    }

    /// The options because of which these params [`select`](Self::selects), as they were given.
    pub fn choosing(&self) -> Vec<String> {
        let chosen = self.given.iter().filter(|given| given.effect() == Effect::Selects);
        let shown = |given: &Given| match &given.value {
            Some(value) if given.letter.is_none() => format!("{}={}", given.shown, value.display()),
            Some(value) => format!("{} {}", given.shown, value.display()),
            None => given.shown.clone(),
        };
        chosen.map(shown).collect()
    }

    /// Whether one of these options is switched on.
    pub fn has_any(&self, names: &[&str]) -> bool {
        self.given.iter().any(|given| names.iter().any(|name| given.is(name)))
    }

    /// Names of files in the tree that hold rules for the directories that they lie in (`-F`, `-C`, `dir-merge`).
    pub fn rule_files(&self) -> Vec<String> {
        let per_directory = |rule: &OsStr| {
            let rule = rule.to_string_lossy().into_owned();
            let rest = rule.strip_prefix("dir-merge").or_else(|| rule.strip_prefix(':'))?;
            // `:n- /.rules`: modifiers, a blank or an underscore, and perhaps a slash.
            let name = rest.split_once([' ', '_']).map_or(rest, |(_, name)| name).trim_start_matches('/');
            (!name.is_empty()).then(|| name.to_owned())
        };
        let of = |given: &Given| match given.name.as_str() {
            "F" => Some(".rsync-filter".to_owned()),
            "cvs-exclude" => Some(".cvsignore".to_owned()),
            "filter" => per_directory(given.value.as_deref()?),
            _ => None,
        };
        self.given.iter().filter_map(of).collect()
    }

    /// Whether what a link points to may be sent in its place.
    pub fn follows_links(&self) -> bool {
        self.has_any(&["copy-links", "copy-dirlinks", "copy-unsafe-links"])
    }

    /// Whether files that rsync deletes live on under another name.
    pub fn keeps_backups(&self) -> bool {
        self.has_any(&["backup", "backup-dir", "suffix"])
    }

    /// Whether all options mean the same in a run that is rooted elsewhere, and none lets a file be written in place.
    pub fn are_same_elsewhere(&self) -> bool {
        let same = |given: &Given| match given.known() {
            Some(known) => known.is_same_elsewhere && (!given.is_off || known.name == "whole-file"),
            None => false,
        };
        self.given.iter().all(same)
    }

    /// The limit that `--max-delete` sets: the last option counts, and below zero means zero, as for rsync.
    pub fn max_delete(&self) -> Option<u64> {
        let mut values = self.given.iter().filter(|given| given.is("max-delete")).filter_map(|given| {
            let limit = str::from_utf8(given.value.as_deref()?.as_bytes()).ok()?.parse::<i64>().ok()?;
            Some(u64::try_from(limit).unwrap_or(0))
        });
        values.next_back()
    }

    /// The remote shell that the options name: the last one counts.
    pub fn remote_shell(&self) -> Option<&OsStr> {
        self.given.iter().filter(|given| given.is("rsh")).filter_map(|given| given.value.as_deref()).next_back()
    }

    /// The same params without the options for which `is_dropped` holds.
    #[must_use]
    pub fn without(&self, is_dropped: impl Fn(&Given) -> bool) -> Self {
        let mut words: Vec<OsString> = Vec::new();
        for here in self.given.chunk_by(|one, next| one.word == next.word) {
            let kept: Vec<&Given> = here.iter().filter(|given| !is_dropped(given)).collect();
            let (Some(last), Some(word)) = (kept.last(), here.first().and_then(|given| self.words.get(given.word)))
            else {
                continue;
            };
            if kept.len() == here.len() {
                words.push(word.clone());
            } else {
                let letters = kept.iter().filter_map(|given| given.letter);
                let mut cluster: Vec<u8> = std::iter::once(b'-').chain(letters).collect();
                if last.value.is_some() && !last.is_value_next {
                    cluster.extend(word.as_bytes().iter().skip(1 + here.len()));
                }
                words.push(OsString::from_vec(cluster));
            }
            words.extend(last.value.clone().filter(|_| last.is_value_next));
        }
        Self::from(words)
    }
}

impl From<Vec<OsString>> for Params {
    fn from(words: Vec<OsString>) -> Self {
        let given = take_apart(&words);
        Self { words, given }
    }
}

impl<S: Into<OsString>> FromIterator<S> for Params {
    fn from_iter<I: IntoIterator<Item = S>>(words: I) -> Self {
        Self::from(words.into_iter().map(Into::into).collect::<Vec<OsString>>())
    }
}

impl<S: Into<OsString>> Extend<S> for Params {
    fn extend<I: IntoIterator<Item = S>>(&mut self, words: I) {
        let mut all = std::mem::take(&mut self.words);
        all.extend(words.into_iter().map(Into::into));
        *self = Self::from(all);
    }
}

/// The words, as rsync is given them.
impl Deref for Params {
    type Target = [OsString];

    fn deref(&self) -> &[OsString] {
        &self.words
    }
}

impl PartialEq for Params {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Eq for Params {}

impl<S: AsRef<OsStr>, const N: usize> PartialEq<[S; N]> for Params {
    fn eq(&self, other: &[S; N]) -> bool {
        self.words.iter().map(OsString::as_os_str).eq(other.iter().map(AsRef::as_ref))
    }
}

/// Parses words as rsync does.
fn take_apart(words: &[OsString]) -> Vec<Given> {
    let mut given = Vec::new();
    let mut rest = words.iter().enumerate();
    while let Some((word, text)) = rest.next() {
        let bytes = text.as_bytes();
        let plain = |shown: String, name: String| Given {
            shown,
            name,
            letter: None,
            is_off: false,
            value: None,
            is_value_next: false,
            word,
            is_option: true,
        };
        match bytes {
            [b'-', b'-', option @ ..] if !option.is_empty() => {
                let mut halves = option.splitn(2, |&b| b == b'=');
                let typed = String::from_utf8_lossy(halves.next().unwrap_or_default()).into_owned();
                let inside = halves.next().map(|value| OsString::from_vec(value.to_vec()));
                let is_value_next = inside.is_none() && by_name(&typed).is_some_and(|known| known.takes_value);
                let (name, is_off) = match typed.strip_prefix("no-") {
                    Some(name) => (full_name(name), true),
                    None => (typed.clone(), false),
                };
                let value = if is_value_next { rest.next().map(|(_, value)| value.clone()) } else { inside };
                given.push(Given { is_off, value, is_value_next, ..plain(format!("--{typed}"), name) });
            }
            [b'-', cluster @ ..] if !cluster.is_empty() && cluster != b"-" => {
                for (at, &letter) in cluster.iter().enumerate() {
                    let known = by_letter(letter);
                    let shown = String::from_utf8_lossy(&[letter]).into_owned();
                    let name = known.map_or(shown.clone(), |known| known.name.to_owned());
                    let one = Given { letter: Some(letter), ..plain(format!("-{shown}"), name) };
                    if !known.is_some_and(|known| known.takes_value) {
                        given.push(one);
                        continue;
                    }
                    let inside = cluster.get(at + 1..).filter(|inside| !inside.is_empty());
                    let value = match inside {
                        Some(inside) => Some(OsString::from_vec(inside.strip_prefix(b"=").unwrap_or(inside).to_vec())),
                        None => rest.next().map(|(_, value)| value.clone()),
                    };
                    given.push(Given { value, is_value_next: inside.is_none(), ..one });
                    break;
                }
            }
            other => {
                let shown = String::from_utf8_lossy(other).into_owned();
                given.push(Given { is_option: false, ..plain(shown.clone(), shown) });
            }
        }
    }
    given
}

fn by_letter(letter: u8) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.letter == Some(letter))
}

fn by_name(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// The full name of an option, which `--no-` may name by its letter.
fn full_name(name: &str) -> String {
    let known = match name.as_bytes() {
        [letter] => by_letter(*letter),
        _ => None,
    };
    known.map_or(name, |known| known.name).to_owned()
}

#[cfg(test)]
mod tests;
