//! The user's own rsync options: split, checked, and cleared of what would quietly break a mirror. What each option does
//! is known to [`crate::model::Params`].

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::diagnostic::Notes;
use super::error::{Fault, Problem};
use super::value::Value;
use super::words;
use crate::model::{Effect, Params};

/// The options of one configuration.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) params: Params,
    /// `--password-file`, which is the target's matter: ssh cannot take it.
    pub(super) password_file: Option<PathBuf>,
    pub(super) deletes: bool,
}

/// Splits and checks the options. Unless `keep_newer`, `--update` goes: with it a file that was replaced by an older
/// one (a restore, an unpacked archive) is never sent, and nobody is told.
pub(super) fn read(value: Value<'_>, keep_newer: bool, notes: &mut Notes<'_>) -> Result<Read, Problem> {
    let words = words::split(value.bytes).map_err(|open| {
        Fault::Unbalanced { attribute: "params", quote: open.quote }.at(value.offset_of(open.offset))
    })?;
    let offsets: Vec<usize> = words.iter().map(|word| value.offset_of(word.offset)).collect();
    let params: Params = words.into_iter().map(|word| OsString::from_vec(word.text)).collect();
    for given in params.given() {
        let offset = offsets.get(given.word).copied().unwrap_or(value.offset);
        let option = &given.shown;
        if !given.is_option {
            return Err(Fault::NotAnOption { given: option.clone() }.at(offset));
        }
        match given.effect() {
            Effect::Unusable(reason) => {
                return Err(Fault::UnusableOption { option: option.clone(), reason }.at(offset));
            }
            Effect::Lossy(effect) => {
                notes.warn_with(offset, format!("params: with {option} {effect}"), "leave it out");
            }
            Effect::Same | Effect::Selects => {}
        }
        if given.is("update") && !keep_newer {
            notes.warn_with(
                offset,
                format!("params: {option} is dropped, since it never sends a file that was replaced by an older one"),
                "leave it out, or keep newer files on the target with <commonParams keepNewer=\"true\" .../>",
            );
        }
    }
    let mut files =
        params.given().iter().filter(|given| given.is("password-file")).filter_map(|given| given.value.clone());
    Ok(Read {
        password_file: files.next_back().map(PathBuf::from),
        deletes: params.given().iter().any(|given| given.deletes() || given.is("delete-missing-args")),
        params: params.without(|given| given.is("password-file") || (given.is("update") && !keep_newer)),
    })
}
