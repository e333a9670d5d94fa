//! The user's own rsync options: split, checked, and cleared of what would quietly break a mirror.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::diagnostic::Notes;
use super::error::{Fault, Problem};
use super::value::Value;
use super::words;

/// Single letters whose value is the rest of the word, or the next word.
const LETTERS_WITH_VALUE: &[u8] = b"efBTM@";

/// Long options whose value may be the next word.
#[rustfmt::skip]
const OPTIONS_WITH_VALUE: &[&str] = &[
    "address", "backup-dir", "block-size", "bwlimit", "cc", "checksum-choice", "checksum-seed", "chmod", "chown",
    "compare-dest", "compress-choice", "compress-level", "contimeout", "copy-as", "copy-dest", "debug", "early-input",
    "exclude", "exclude-from", "filter", "groupmap", "iconv", "include", "include-from", "info", "link-dest",
    "log-file", "log-file-format", "log-format", "max-alloc", "max-delete", "max-size", "min-size", "modify-window",
    "out-format", "outbuf", "partial-dir", "password-file", "port", "protocol", "remote-option", "rsh", "rsync-path",
    "skip-compress", "sockopts", "stderr", "stop-after", "stop-at", "suffix", "temp-dir", "time-limit", "timeout",
    "usermap", "zc", "zl",
];

const NOTHING_SENT: &str = "rsync would send nothing";
const OWN_LIST: &str = "syncq gives rsync its own list of files";
const LAYOUT: &str = "files would land at other places on the target";
const OTHER_JOB: &str = "rsync would do something else";

/// Options with which a run cannot do its work.
const UNUSABLE: &[(&str, &str)] = &[
    ("dry-run", NOTHING_SENT),
    ("list-only", NOTHING_SENT),
    ("only-write-batch", NOTHING_SENT),
    ("files-from", OWN_LIST),
    ("ignore-missing-args", "deletions would not reach the target"),
    ("no-relative", LAYOUT),
    ("no-R", LAYOUT),
    ("remove-source-files", "it empties the source"),
    ("remove-sent-files", "it empties the source"),
    ("daemon", OTHER_JOB),
    ("server", OTHER_JOB),
    ("sender", OTHER_JOB),
    ("config", OTHER_JOB),
    ("read-batch", OTHER_JOB),
    ("write-batch", "each run would overwrite the batch of the one before"),
    ("help", OTHER_JOB),
    ("version", OTHER_JOB),
];

/// Options that work and leave the mirror out of step.
const LOSSY: &[(&str, &str)] = &[
    ("ignore-existing", "files that the target has are never updated"),
    ("existing", "new files never reach the target"),
    ("ignore-non-existing", "new files never reach the target"),
    ("append", "changes within a file never reach the target"),
    ("size-only", "changes that keep a file's size may never reach the target"),
];

/// The options of one configuration.
#[derive(Debug, Default)]
pub(super) struct Params {
    pub(super) words: Vec<OsString>,
    /// `--password-file`, which is the target's matter: ssh cannot take it.
    pub(super) password_file: Option<PathBuf>,
    pub(super) deletes: bool,
}

/// Splits and checks the options. Unless `keep_newer`, `--update` goes: with it a file that was replaced by an older
/// one (a restore, an unpacked archive) is never sent, and nobody is told.
pub(super) fn read(value: Value<'_>, keep_newer: bool, notes: &mut Notes<'_>) -> Result<Params, Problem> {
    let words = words::split(value.bytes).map_err(|open| {
        Fault::Unbalanced { attribute: "params", quote: open.quote }.at(value.offset_of(open.offset))
    })?;
    let mut params = Params::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let offset = value.offset_of(word.offset);
        let mut text = word.text;
        let wants_value = match text.as_slice() {
            [b'-', b'-', option @ ..] if !option.is_empty() => {
                let (name, given) = match option.iter().position(|&b| b == b'=') {
                    Some(at) => (option.get(..at).unwrap_or_default(), option.get(at + 1..)),
                    None => (option, None),
                };
                let name = notes.show(name);
                check_long(&name, offset, notes)?;
                if name == "update" && !keep_newer {
                    warn_update("--update", offset, notes);
                    continue;
                }
                if name == "password-file" {
                    let file = given.map(<[u8]>::to_vec).or_else(|| words.next().map(|word| word.text));
                    params.password_file = file.map(|file| OsString::from_vec(file).into());
                    continue;
                }
                params.deletes |= name == "del" || name.starts_with("delete");
                given.is_none() && OPTIONS_WITH_VALUE.contains(&name.as_str())
            }
            [b'-', letters @ ..] if !letters.is_empty() && letters != b"-" => {
                let end = letters.iter().position(|letter| LETTERS_WITH_VALUE.contains(letter));
                let wants_value = end.is_some_and(|end| end + 1 == letters.len());
                let (flags, rest) = letters.split_at_checked(end.unwrap_or(letters.len())).unwrap_or_default();
                for (letter, reason) in [(b'n', NOTHING_SENT), (b'V', OTHER_JOB)] {
                    if flags.contains(&letter) {
                        let option = format!("-{}", char::from(letter));
                        return Err(Fault::UnusableOption { option, reason }.at(offset));
                    }
                }
                if flags.contains(&b'u') && !keep_newer {
                    warn_update("-u", offset, notes);
                    let kept: Vec<u8> = flags.iter().filter(|&&flag| flag != b'u').chain(rest).copied().collect();
                    if kept.is_empty() {
                        continue;
                    }
                    text = [&b"-"[..], &kept].concat();
                }
                wants_value
            }
            other => return Err(Fault::NotAnOption { given: notes.show(other) }.at(offset)),
        };
        params.words.push(OsString::from_vec(text));
        if wants_value {
            params.words.extend(words.next().map(|word| OsString::from_vec(word.text)));
        }
    }
    Ok(params)
}

fn check_long(name: &str, offset: usize, notes: &mut Notes<'_>) -> Result<(), Problem> {
    if let Some(&(_, reason)) = UNUSABLE.iter().find(|(unusable, _)| *unusable == name) {
        return Err(Fault::UnusableOption { option: format!("--{name}"), reason }.at(offset));
    }
    if let Some((_, effect)) = LOSSY.iter().find(|(lossy, _)| *lossy == name) {
        notes.warn_with(offset, format!("params: with --{name} {effect}"), "leave it out");
    }
    Ok(())
}

fn warn_update(option: &str, offset: usize, notes: &mut Notes<'_>) {
    notes.warn_with(
        offset,
        format!("params: {option} is dropped, since it never sends a file that was replaced by an older one"),
        "leave it out, or keep newer files on the target with <commonParams keepNewer=\"true\" .../>",
    );
}
