//! Which params a mirror can be run with, whichever way they came in: a configuration's, or `--rsync-arg`.
//!
//! Some are the target's matter rather than rsync's (a password file, which ssh cannot take; a port, by which a daemon is
//! found), and come out apart. Pure.

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

/// Something that its author should know, in words that go behind the name of where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Which word it is about.
    pub word: usize,
    pub message: String,
    /// `--update` has been dropped.
    pub is_update: bool,
}

/// Why none can be run with them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} {why}")]
pub struct Refused {
    /// Which word it is about.
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
    /// Judges each of them. Unless `keep_newer`, `--update` goes: with it a file that was replaced by an older one (a restore,
    /// an unpacked archive) is never sent, and nobody is told.
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
    /// What was meant by a word that begins with a typographic dash.
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

    /// An empty pattern or format is odd and harmless; an empty name or number leads rsync to take what follows for it, or to
    /// do nothing.
    fn needs_text(&self) -> bool {
        ["password-file", "port", "rsh", "partial-dir", "backup-dir", "temp-dir"].iter().any(|name| self.is(name))
    }
}
