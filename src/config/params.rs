//! The user's own rsync options in `commonParams`: splits them into words, and reports what [`Params::usable`] finds, with
//! places in the file.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::blank;
use super::diagnostic::{Matter, Notes};
use super::error::{Fault, Problem};
use super::value::Value;
use super::words;
use crate::model::{Params, Usable};

/// Splits and checks the options.
pub(super) fn read(value: Value<'_>, keep_newer: bool, notes: &mut Notes<'_>) -> Result<Usable, Problem> {
    let ascii = blank::in_ascii(value.bytes);
    if ascii.is_some() {
        let message = "params: blanks that are not ASCII separate options too";
        notes.warn_with(value.offset, message, "write plain blanks");
    }
    let words = words::split(ascii.as_deref().unwrap_or(value.bytes)).map_err(|open| {
        Fault::Unbalanced { attribute: "params", quote: open.quote }.at(value.offset_of(open.offset))
    })?;
    let offsets: Vec<usize> = words.iter().map(|word| value.offset_of(word.offset)).collect();
    let place = |word: usize| offsets.get(word).copied().unwrap_or(value.offset);
    let params: Params = words.into_iter().map(|word| OsString::from_vec(word.text)).collect();
    let usable = params.usable(keep_newer).map_err(|refused| Fault::Params(refused.clone()).at(place(refused.word)))?;
    for notice in &usable.notices {
        let hint = match notice.is_update {
            true => "leave it out, or keep newer files on the target with <commonParams keepNewer=\"true\" .../>",
            false => "leave it out",
        };
        let matter = if notice.is_update { Matter::Update } else { Matter::Other };
        notes.warn_of(matter, place(notice.word), format!("params: {}", notice.message), Some(hint));
    }
    Ok(usable)
}
