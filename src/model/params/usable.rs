//! Which params a mirror can be run with, whether they come from a configuration or from `--rsync-arg`.
//!
//! Some params concern the target rather than rsync (a password file, which ssh cannot take; a port, by which a daemon is
//! found), and are returned apart. Pure.

use std::path::PathBuf;

use super::{Effect, Given, Params};

/// Params that can be used.
#[derive(Debug, Default)]
pub struct Usable {
    pub params: Params,
    /// `--password-file`: the last one counts.
    pub password_file: Option<PathBuf>,
    /// `--port`: the last one counts.
    pub port: Option<u16>,
    /// The first option that asks for deletions.
    pub deletes: Option<String>,
    pub notices: Vec<Notice>,
}

/// Something that the author of the params should know, in words that go behind the name of the place where they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The index of the word that the notice is about.
    pub word: usize,
    pub message: String,
    /// The notice says that `--update` was dropped.
    pub is_update: bool,
}

/// Why no mirror can be run with the params.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} {why}")]
pub struct Refused {
    /// The index of the word that is refused.
    pub word: usize,
    pub option: String,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("is not an option")]
    NotAnOption,
    #[error("has no value")]
    NoValue,
    #[error("is no port from 1 to 65535")]
    NoPort,
    #[error("cannot be used, {0}")]
    Unusable(&'static str),
}

impl Params {
    /// Judges each option. Unless `keep_newer`, `--update` is dropped: with that option a file that was replaced by an
    /// older one (a restore, an unpacked archive) is never sent, and nobody is told.
    pub fn usable(&self, keep_newer: bool) -> Result<Usable, Refused> {
        let mut usable = Usable::default();
        for given in self.given() {
            let refuse = |why| Refused { word: given.word, option: given.shown.clone(), why };
            let notice = |message| Notice { word: given.word, message, is_update: false };
            if !given.is_option {
                return Err(refuse(Why::NotAnOption));
            }
            match given.effect() {
                Effect::Unusable(reason) => return Err(refuse(Why::Unusable(reason))),
                Effect::Lossy(effect) => usable.notices.push(notice(format!("with {} {effect}", given.shown))),
                Effect::Same | Effect::Selects => {}
            }
            if given.lacks_value() {
                return Err(refuse(Why::NoValue));
            }
            if given.is("update") && !keep_newer {
                let why = "since it never sends a file that was replaced by an older one";
                let message = format!("{} is dropped, {why}", given.shown);
                usable.notices.push(Notice { is_update: true, ..notice(message) });
            }
            if given.is("password-file") {
                usable.password_file = given.value.clone().map(PathBuf::from);
            }
            if given.is("port") {
                let port = given.value.as_ref().and_then(|value| value.to_str()?.trim().parse::<u16>().ok());
                usable.port = Some(port.filter(|&port| port > 0).ok_or_else(|| refuse(Why::NoPort))?);
            }
            if given.deletes() || given.is("delete-missing-args") {
                usable.deletes.get_or_insert_with(|| given.shown.clone());
            }
        }
        let apart = |given: &Given| given.is("password-file") || given.is("port");
        usable.params = self.without(|given| apart(given) || (given.is("update") && !keep_newer));
        Ok(usable)
    }
}

impl Refused {
    /// The option that was meant by a word that begins with a typographic dash.
    pub fn dashed(&self) -> Option<String> {
        let bare = self.option.strip_prefix(['–', '—']).filter(|_| self.why == Why::NotAnOption)?;
        Some(format!("--{}", bare.trim_start_matches(['–', '—', '-'])))
    }
}

impl Given {
    fn lacks_value(&self) -> bool {
        let takes_value = !self.is_off && self.known().is_some_and(|known| known.takes_value);
        takes_value && self.value.as_deref().is_none_or(|value| value.is_empty() && self.needs_text())
    }

    /// Whether an empty value does harm. An empty pattern or format is odd and harmless; an empty name or number leads
    /// rsync to take the next word for the value, or to do nothing.
    fn needs_text(&self) -> bool {
        ["password-file", "port", "rsh", "partial-dir", "backup-dir", "temp-dir"].iter().any(|name| self.is(name))
    }
}
