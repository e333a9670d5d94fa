//! Reads values: the blanks around them, the many ways to say yes, numbers, and defaults for missing values.

use std::path::PathBuf;
use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use super::blank;
use super::diagnostic::{Matter, Notes};
use super::xml::Element;

/// The value of an attribute, without blanks around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'e> {
    pub(super) bytes: &'e [u8],
    /// The offset at which the value begins in the file.
    pub(super) offset: usize,
    verbatim: bool,
}

impl Value<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The offset in the file of a byte of the value. If the value has entities, which make that uncertain, the value's own
    /// offset.
    pub(super) fn offset_of(&self, byte: usize) -> usize {
        if self.verbatim { self.offset + byte } else { self.offset }
    }

    pub(super) fn to_path(self) -> PathBuf {
        OsString::from_vec(self.bytes.to_vec()).into()
    }

    /// The value as a number, if it is one.
    pub(super) fn number<T: std::str::FromStr>(&self) -> Option<T> {
        str::from_utf8(self.bytes).ok()?.parse().ok()
    }
}

/// The value of an attribute, if the element has that attribute. Blanks around the value are removed with a warning.
pub(super) fn attribute<'e>(element: &'e Element, name: &str, notes: &mut Notes<'_>) -> Option<Value<'e>> {
    let attribute = element.attribute(name)?;
    let (bytes, before) = blank::trimmed(&attribute.value);
    if bytes.len() < attribute.value.len() {
        let shown = notes.show_value(name.as_bytes(), bytes);
        notes.warn_of(
            Matter::Blanks,
            attribute.value_offset,
            format!("blanks around the value of {name} are ignored"),
            Some(&format!("write {name}=\"{shown}\"")),
        );
    }
    let offset = attribute.value_offset + if attribute.verbatim { before } else { 0 };
    Some(Value { bytes, offset, verbatim: attribute.verbatim })
}

/// Like [`attribute`], with a warning if the attribute is missing; `default` says what holds without it.
pub(super) fn expected<'e>(
    element: &'e Element,
    name: &str,
    default: &str,
    notes: &mut Notes<'_>,
) -> Option<Value<'e>> {
    let value = attribute(element, name, notes);
    if value.is_none() {
        let element_name = notes.show(&element.name);
        let hint = format!("<{element_name} {name}=\"...\">");
        let message = format!("<{element_name}> has no {name}: {default}");
        notes.warn_of(Matter::Default, element.offset, message, Some(&hint));
    }
    value
}

/// A child element, with a warning if it is missing.
pub(super) fn section<'e>(
    parent: &'e Element,
    name: &'static str,
    default: &'static str,
    notes: &mut Notes<'_>,
) -> Option<&'e Element> {
    let child = parent.child(name);
    if child.is_none() {
        let parent_name = notes.show(&parent.name);
        let message = format!("<{parent_name}> has no <{name}>: {default}");
        notes.warn_of(Matter::Missing { name, default }, parent.offset, message, None);
    }
    child
}

/// The switch `<name start="true"/>` of a child element.
pub(super) fn switch(parent: &Element, name: &'static str, default: bool, notes: &mut Notes<'_>) -> bool {
    let state = if default { "it is on" } else { "it is off" };
    section(parent, name, state, notes).map_or(default, |child| start(child, default, notes))
}

/// The attribute `start` of an element.
pub(super) fn start(element: &Element, default: bool, notes: &mut Notes<'_>) -> bool {
    let state = if default { "it is on" } else { "it is off" };
    expected(element, "start", state, notes).map_or(default, |value| boolean(value, "start", notes))
}

/// Reads a switch. sersync takes exactly `true` for true and anything else for false.
pub(super) fn boolean(value: Value<'_>, name: &str, notes: &mut Notes<'_>) -> bool {
    let lower = value.bytes.to_ascii_lowercase();
    let (meaning, certain) = match lower.as_slice() {
        b"true" => (true, value.bytes == b"true"),
        b"1" | b"yes" | b"on" => (true, false),
        b"false" => (false, value.bytes == b"false"),
        _ => (false, false),
    };
    if !certain {
        let shown = notes.show(value.bytes);
        notes.warn_of(
            Matter::Switch,
            value.offset,
            format!("{name}: \"{shown}\" is taken as {meaning}"),
            Some(&format!("write {name}=\"true\" or {name}=\"false\"")),
        );
    }
    meaning
}

/// The `expression` of each child with that name.
pub(super) fn expressions<'e>(element: &'e Element, name: &str, notes: &mut Notes<'_>) -> Vec<Value<'e>> {
    let mut values = Vec::new();
    for child in element.children(name) {
        let value = expected(child, "expression", "it is ignored", notes);
        values.extend(value.filter(|value| !value.is_empty()));
    }
    values
}

/// The valid regular expressions of an element. Bytes that are not UTF-8 are written as escapes with the same meaning.
pub(super) fn regexes(element: &Element, name: &str, notes: &mut Notes<'_>) -> Vec<String> {
    let mut regexes = Vec::new();
    for value in expressions(element, name, notes) {
        let mut regex = String::new();
        for chunk in value.bytes.utf8_chunks() {
            regex.push_str(chunk.valid());
            regex.extend(chunk.invalid().iter().map(|byte| format!(r"\x{byte:02x}")));
        }
        match crate::filter::check(&regex) {
            Ok(()) => regexes.push(regex),
            Err(error) => {
                let shown = notes.show(value.bytes);
                let hint = if value.bytes.starts_with(b"*") {
                    "this is a regular expression, not a shell pattern: any text is .* and a dot is \\."
                } else {
                    "correct it; a regular expression as Perl has it"
                };
                let message = format!("{name} {shown} is ignored: {error}");
                notes.warn_of(Matter::Expression, value.offset, message, Some(hint));
            }
        }
    }
    regexes
}
