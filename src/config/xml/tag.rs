//! Reads the inside of one start tag, a name and attributes, as sersync does.

use super::Attribute;
use crate::config::blank;
use crate::config::diagnostic::{Notes, secret_after};
use crate::config::error::{Fault, Problem};

/// sersync's elements have at most 4 attributes; the limit keeps the search for duplicates cheap.
const ATTRIBUTES_MAX: usize = 64;
/// The most bytes of an entity between `&` and `;`. With more bytes the `&` is a bare one.
const ENTITY_BYTES_MAX: usize = 10;

pub(super) struct Tag {
    pub(super) name: Vec<u8>,
    pub(super) attributes: Vec<Attribute>,
    /// The tag ends in a slash of its own (`<x / >`).
    pub(super) closed: bool,
}

/// A position in the tag's bytes.
struct Cursor<'a> {
    content: &'a [u8],
    at: usize,
    /// Whether blanks that are not ASCII have been skipped.
    has_wide_blanks: bool,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.content.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.content.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        while let found @ 1.. = blank::leading(self.rest()) {
            self.has_wide_blanks |= found > 1;
            self.at += found;
        }
    }

    /// Takes a name: everything up to a blank or a byte in `ends`.
    fn take_name(&mut self, ends: &[u8]) -> &'a [u8] {
        let rest = self.rest();
        let is_end = |at: usize| {
            let from = rest.get(at..).unwrap_or_default();
            blank::leading(from) > 0 || from.first().is_none_or(|byte| ends.contains(byte))
        };
        let end = (0..rest.len()).find(|&at| is_end(at)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// Takes everything up to the first byte for which `ends` holds, or all.
    fn take_until(&mut self, ends: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let taken = rest.get(..rest.iter().position(|&b| ends(b)).unwrap_or(rest.len())).unwrap_or_default();
        self.at += taken.len();
        taken
    }
}

/// Reads the content between `<` and `>`; `base` is the content's offset in the file.
pub(super) fn read(content: &[u8], base: usize, notes: &mut Notes<'_>) -> Result<Tag, Problem> {
    let mut cursor = Cursor { content, at: 0, has_wide_blanks: false };
    cursor.skip_blanks();
    let name = cursor.take_name(b"=\"'/<");
    let element = notes.show(name);
    if name.is_empty() {
        return Err(Fault::StrayLess.at(base.saturating_sub(1)));
    }
    let mut tag = Tag { name: name.to_vec(), attributes: Vec::new(), closed: false };
    let (mut secret, mut seen) = (false, 0);
    loop {
        cursor.skip_blanks();
        if cursor.has_wide_blanks {
            let message = format!("blanks that are not ASCII in <{element}> are taken for blanks");
            notes.warn_with(base.saturating_sub(1), message, "write plain blanks");
            cursor.has_wide_blanks = false;
        }
        let offset = base + cursor.at;
        // Look only at the new bytes: otherwise a long tag would be looked through again and again.
        secret |= secret_after(content.get(seen..cursor.at).unwrap_or_default()).is_some();
        seen = cursor.at;
        let malformed = |rest: &[u8]| {
            // A missing quote makes the tag swallow what follows it, so the message shows only the bytes before the next `>`.
            let piece = rest.split(|&b| b == b'\n' || b == b'>').next().unwrap_or_default().trim_ascii();
            let text = if secret { "…".to_owned() } else { notes.show_markup(piece) };
            let element = element.clone();
            if rest.starts_with(b"<!--") {
                Fault::CommentInTag { name: element }.at(offset)
            } else if piece.contains(&b'<') {
                Fault::TagNotClosed { name: element }.at(base.saturating_sub(1))
            } else {
                Fault::Attribute { element, text }.at(offset)
            }
        };
        match blank::trimmed(cursor.rest()).0 {
            [] => return Ok(tag),
            b"/" => {
                tag.closed = true;
                return Ok(tag);
            }
            _ => {}
        }
        let start = cursor.rest();
        let name = cursor.take_name(b"=\"'<");
        if name.is_empty() {
            return Err(malformed(start));
        }
        cursor.skip_blanks();
        match cursor.peek() {
            Some(b'=') => {}
            Some(b'"' | b'\'' | b'<') => return Err(malformed(start)),
            _ => {
                let shown = if secret { "…".to_owned() } else { notes.show(name) };
                notes.warn_with(
                    offset,
                    format!("{shown} has no value"),
                    format!("write {shown}=\"...\", or delete it"),
                );
                continue;
            }
        }
        cursor.at += 1;
        cursor.skip_blanks();
        let Some((raw, value_at)) = value(&mut cursor) else { return Err(malformed(start)) };
        let attribute = attribute(name, offset, raw, base + value_at, notes);
        if let Some(first) = tag.attributes.iter().find(|known| known.name.eq_ignore_ascii_case(name)) {
            let (name, value) = (notes.show(name), notes.show_value(name, &first.value));
            notes.warn(offset, format!("{name} is given twice; the first counts: \"{value}\""));
        } else if tag.attributes.len() >= ATTRIBUTES_MAX {
            return Err(Fault::TooManyAttributes { element, limit: ATTRIBUTES_MAX }.at(offset));
        } else {
            tag.attributes.push(attribute);
        }
    }
}

/// The value behind `=`, quoted or not, and its offset.
fn value<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a [u8], usize)> {
    match cursor.peek() {
        Some(quote @ (b'"' | b'\'')) => {
            cursor.at += 1;
            let at = cursor.at;
            let raw = cursor.take_until(|b| b == quote);
            cursor.peek()?;
            cursor.at += 1;
            Some((raw, at))
        }
        _ => {
            let at = cursor.at;
            let raw = cursor.take_until(|b| b.is_ascii_whitespace());
            let mixed = raw.iter().any(|b| b"<\"'".contains(b));
            (!mixed && !raw.is_empty()).then_some((raw, at))
        }
    }
}

/// Typographic quotes, in UTF-8 and in GBK. Browsers and word processors put them in place of straight ones.
const FANCY_QUOTES: [&[u8]; 4] = ["“".as_bytes(), "”".as_bytes(), b"\xa1\xb0", b"\xa1\xb1"];

fn attribute(name: &[u8], offset: usize, raw: &[u8], value_offset: usize, notes: &mut Notes<'_>) -> Attribute {
    let (mut plain, mut value_offset) = (raw, value_offset);
    for quote in FANCY_QUOTES {
        if let Some(rest) = plain.strip_prefix(quote) {
            (plain, value_offset) = (rest, value_offset + quote.len());
        }
        plain = plain.strip_suffix(quote).unwrap_or(plain);
    }
    if plain.len() < raw.len() {
        let shown = notes.show_value(name, plain);
        notes.warn_with(
            offset,
            format!("typographic quotes; the value is taken as {shown}"),
            format!("write \"{shown}\" with straight quotes"),
        );
    }
    let value = resolve_entities(plain, value_offset, notes);
    let verbatim = value.len() == plain.len();
    Attribute { name: name.to_vec(), offset, value, value_offset, verbatim }
}

/// Resolves entities to bytes. A number up to 255 becomes one byte, as in sersync. An `&` that begins no entity stays as it is.
fn resolve_entities(raw: &[u8], offset: usize, notes: &mut Notes<'_>) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&b| b == b'&') {
        let (before, from) = rest.split_at_checked(at).unwrap_or_default();
        value.extend_from_slice(before);
        let name = from.get(1..).unwrap_or_default();
        let end = name.iter().take(ENTITY_BYTES_MAX + 1).position(|&b| b == b';');
        let entity = end.and_then(|end| name.get(..end));
        match entity.and_then(entity_bytes) {
            Some(bytes) => value.extend(bytes),
            None => {
                let Some(name) = entity.filter(|name| !name.is_empty() && name.iter().all(u8::is_ascii_alphanumeric))
                else {
                    value.push(b'&');
                    rest = name;
                    continue;
                };
                let name = notes.show(name);
                let at = offset + (raw.len() - from.len());
                notes.warn(at, format!("&{name}; is no entity and is taken as these characters"));
                value.push(b'&');
                rest = from.get(1..).unwrap_or_default();
                continue;
            }
        }
        rest = end.and_then(|end| name.get(end + 1..)).unwrap_or_default();
    }
    value.extend_from_slice(rest);
    value
}

fn entity_bytes(name: &[u8]) -> Option<Vec<u8>> {
    let name = str::from_utf8(name).ok()?.to_ascii_lowercase();
    Some(match name.as_str() {
        "amp" => b"&".to_vec(),
        "lt" => b"<".to_vec(),
        "gt" => b">".to_vec(),
        "quot" => b"\"".to_vec(),
        "apos" => b"'".to_vec(),
        number => {
            let number = number.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            match u8::try_from(code) {
                Ok(0) => return None,
                Ok(byte) => vec![byte],
                Err(_) => char::from_u32(code)?.to_string().into_bytes(),
            }
        }
    })
}
