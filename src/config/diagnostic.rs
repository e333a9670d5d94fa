//! Collects warnings, and turns byte offsets in the file into lines and columns.
//!
//! The rest of `config` speaks in byte offsets. Lines and columns are counted once at the end, in one pass, so that a file of
//! one long line costs no more than any other.

use std::fmt;
use std::path::{Path, PathBuf};

use encoding_rs::{Encoding, GBK, UTF_8, WINDOWS_1252};

use super::error::{ConfigError, Problem};
use crate::model::plain;

/// The most warnings that are kept; further ones are only counted.
const NOTES_MAX: usize = 200;
/// The most bytes of a value or name that a message shows.
const SHOWN_BYTES_MAX: usize = 200;
/// How far into the file sersync looks for the encoding label.
const LABEL_BYTES_MAX: usize = 200;

/// Attributes whose values no message shows: `passwd` is a password, and `url` may contain one.
const SECRETS: [&str; 2] = ["passwd", "url"];

/// Whether messages must not show the value of an attribute with this name.
pub(super) fn is_secret(name: &[u8]) -> bool {
    SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_bytes()))
}

/// The end of the first secret attribute's name in a piece of markup. The bytes behind the name may be a password, or the rest
/// of one: a missing quote or blank puts the name into another value or into the tag's name.
pub(super) fn secret_after(markup: &[u8]) -> Option<usize> {
    let lower = markup.to_ascii_lowercase();
    let at = |secret: &str| lower.windows(secret.len()).position(|window| window == secret.as_bytes());
    SECRETS.iter().filter_map(|secret| Some(at(secret)? + secret.len())).min()
}

/// A warning: an oddity in the file, and how syncq reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub file: PathBuf,
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters of the file's encoding.
    pub column: u32,
    pub message: String,
    /// The text to write instead.
    pub hint: Option<String>,
    pub matter: Matter,
}

impl Diagnostic {
    /// Whether a part is missing and has its default: nothing is odd about the file but its shortness.
    pub fn is_default(&self) -> bool {
        matches!(self.matter, Matter::Default | Matter::Missing { .. })
    }
}

/// The matter of a warning. A caller that goes through the whole file uses it to leave out warnings that it words otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matter {
    /// A matter that no caller words otherwise.
    Other,
    /// An attribute is missing.
    Default,
    /// An element is missing. `default` says what holds without it.
    Missing { name: &'static str, default: &'static str },
    /// Blanks around a value.
    Blanks,
    /// A switch that is neither `true` nor `false`.
    Switch,
    /// `-u` in params.
    Update,
    /// A text that is no regular expression.
    Expression,
    /// A text that only a shell would understand.
    Shell,
    /// An element or attribute that has no meaning.
    Unknown,
    /// A second element where only the first counts.
    Twice,
    /// Directories that sersync did not watch.
    Localpaths,
    /// The user and the password file of an rsync daemon, given for ssh.
    AuthWithSsh,
    /// A port, given for ssh.
    PortWithSsh,
    /// A plugin's directory that is not mirrored.
    PluginWatch,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.message)
    }
}

struct Note {
    offset: usize,
    message: String,
    hint: Option<String>,
    matter: Matter,
}

/// The warnings about one file.
pub(super) struct Notes<'a> {
    bytes: &'a [u8],
    encoding: &'static Encoding,
    notes: Vec<Note>,
    left_out: usize,
}

impl<'a> Notes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, encoding: guess_encoding(bytes), notes: Vec::new(), left_out: 0 }
    }

    pub(super) fn warn(&mut self, offset: usize, message: impl Into<String>) {
        self.add(offset, message.into(), None, Matter::Other);
    }

    pub(super) fn warn_with(&mut self, offset: usize, message: impl Into<String>, hint: impl Into<String>) {
        self.add(offset, message.into(), Some(hint.into()), Matter::Other);
    }

    /// Like [`warn_with`](Self::warn_with), for a matter that has a name.
    pub(super) fn warn_of(&mut self, matter: Matter, offset: usize, message: impl Into<String>, hint: Option<&str>) {
        self.add(offset, message.into(), hint.map(str::to_owned), matter);
    }

    fn add(&mut self, offset: usize, message: String, hint: Option<String>, matter: Matter) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(Note { offset, message, hint, matter });
        } else {
            self.left_out += 1;
        }
    }

    /// A piece of the file for a message: one line of limited length, readable in the file's encoding.
    pub(super) fn show(&self, bytes: &[u8]) -> String {
        let (text, _) = self.encoding.decode_without_bom_handling(bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes));
        let mut shown = plain(&text);
        if bytes.len() > SHOWN_BYTES_MAX {
            shown.push('…');
        }
        shown
    }

    /// A whole piece of the file, readable in the file's encoding.
    pub(super) fn text(&self, bytes: &[u8]) -> String {
        self.encoding.decode_without_bom_handling(bytes).0.into_owned()
    }

    /// The value of an attribute for a message, unless it may be a password.
    pub(super) fn show_value(&self, name: &[u8], bytes: &[u8]) -> String {
        if is_secret(name) { "***".to_owned() } else { self.show(bytes) }
    }

    /// A piece of markup that cannot be parsed, up to the place where a password may begin.
    pub(super) fn show_markup(&self, bytes: &[u8]) -> String {
        match secret_after(bytes) {
            Some(end) => format!("{}…", self.show(bytes.get(..end).unwrap_or_default())),
            None => self.show(bytes),
        }
    }

    /// The line of a place, for messages that point to a second one.
    pub(super) fn line(&self, offset: usize) -> u32 {
        Cursor::new(self).advance(offset).0
    }

    /// Returns a function from offsets to lines and columns. Each offset has to be no less than the one before.
    pub(super) fn places(&self) -> impl FnMut(usize) -> (u32, u32) {
        let mut cursor = Cursor::new(self);
        move |offset| cursor.advance(offset)
    }

    pub(super) fn error(&self, file: &Path, problem: Problem) -> ConfigError {
        let mut cursor = Cursor::new(self);
        let (line, column) = cursor.advance(problem.offset);
        let others = problem.others.into_iter().map(|(offset, fault)| {
            let (line, column) = cursor.advance(offset);
            (line, column, fault)
        });
        let others = others.collect();
        ConfigError::At { file: file.to_path_buf(), line, column, fault: problem.fault, others }
    }

    pub(super) fn into_diagnostics(mut self, file: &Path) -> Vec<Diagnostic> {
        if self.left_out > 0 {
            let message = format!("{} more warnings are not shown", self.left_out);
            self.notes.push(Note { offset: self.bytes.len(), message, hint: None, matter: Matter::Other });
        }
        let mut notes = std::mem::take(&mut self.notes);
        notes.sort_by_key(|note| note.offset);
        let mut cursor = Cursor::new(&self);
        notes
            .into_iter()
            .map(|Note { offset, message, hint, matter }| {
                let (line, column) = cursor.advance(offset);
                Diagnostic { file: file.to_path_buf(), line, column, message, hint, matter }
            })
            .collect()
    }
}

/// Walks through the file and counts lines and characters.
struct Cursor<'a> {
    bytes: &'a [u8],
    encoding: &'static Encoding,
    offset: usize,
    line: u32,
    column: u32,
}

impl<'a> Cursor<'a> {
    fn new(notes: &Notes<'a>) -> Self {
        Self { bytes: notes.bytes, encoding: notes.encoding, offset: 0, line: 1, column: 1 }
    }

    /// Line and column of an offset, which has to be no less than the previous one.
    fn advance(&mut self, offset: usize) -> (u32, u32) {
        let mut passed = self.bytes.get(self.offset..offset.min(self.bytes.len())).unwrap_or_default();
        if let Some(newline) = passed.iter().rposition(|&b| b == b'\n') {
            let lines = passed.iter().filter(|&&b| b == b'\n').count();
            self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
            self.column = 1;
            passed = passed.get(newline + 1..).unwrap_or_default();
        }
        let characters = if passed.is_ascii() {
            passed.len()
        } else {
            self.encoding.decode_without_bom_handling(passed).0.chars().count()
        };
        self.column = self.column.saturating_add(u32::try_from(characters).unwrap_or(u32::MAX));
        self.offset = self.offset.max(offset);
        (self.line, self.column)
    }
}

/// The encoding in which messages show the file. UTF-8 is tried before the label, since editors save UTF-8 under the stock
/// file's label ISO-8859-1. A wrong label over Chinese text is almost always GBK.
fn guess_encoding(bytes: &[u8]) -> &'static Encoding {
    let fits = |encoding: &'static Encoding| {
        encoding.decode_without_bom_handling_and_without_replacement(bytes).is_some().then_some(encoding)
    };
    fits(UTF_8)
        .or_else(|| label(bytes).filter(|encoding| !encoding.is_single_byte()).and_then(fits))
        .or_else(|| fits(GBK))
        .unwrap_or(WINDOWS_1252)
}

fn label(bytes: &[u8]) -> Option<&'static Encoding> {
    let start = bytes.get(..LABEL_BYTES_MAX).unwrap_or(bytes);
    let key = b"encoding=";
    let at = start.windows(key.len()).position(|window| window.eq_ignore_ascii_case(key))?;
    let value = start.get(at + key.len()..)?;
    let value = value.strip_prefix(b"\"").or_else(|| value.strip_prefix(b"'")).unwrap_or(value);
    let end = value.iter().position(|&b| !(b.is_ascii_alphanumeric() || b"-_.:".contains(&b))).unwrap_or(value.len());
    // Only encodings in which markup is ASCII: the label UTF-16 is wrong on a file whose label could be read as ASCII.
    Encoding::for_label(value.get(..end)?).filter(|encoding| encoding.is_ascii_compatible())
}
