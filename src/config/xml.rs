//! Turns bytes into a small tree in which every element and attribute knows its place, by sersync's lenient grammar.
//!
//! quick-xml finds the markup, and this module reads the tags, since sersync takes tags that are not XML (no quotes, `<` and a
//! bare `&` in values, any case). quick-xml wants UTF-8, but values are bytes of any encoding. So quick-xml gets a copy in
//! which every byte above ASCII is a plain letter. In all encodings in use markup is ASCII, and no byte of a longer character
//! looks like markup. So offsets in the copy are offsets in the file.
//!
//! Text between tags has no meaning to sersync. Neither has text before `<head>`, unless `<?xml ...?>` follows. Only the place
//! of such text is kept. Nothing behind `</head>` is read.

pub(super) mod element;
mod tag;

use quick_xml::Reader;
use quick_xml::errors::{Error, SyntaxError};
use quick_xml::events::Event;

use super::blank;
use super::diagnostic::Notes;
use super::error::{Fault, Problem};
use super::schema;

pub(super) use element::{Attribute, Document, Element, Stray, StrayKind};

/// sersync's format has 5 levels. Deeper trees are refused, since dropping a tree recurses.
const DEPTH_MAX: usize = 32;

/// Reads the first `head` element, wherever it stands. `bytes` has no byte order mark of UTF-8.
pub(super) fn parse(bytes: &[u8], notes: &mut Notes<'_>) -> Result<Document, Problem> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Fault::Utf16.at(0));
    }
    if let Some(offset) = bytes.iter().position(|&b| b == 0) {
        return Err(if offset < 2 { Fault::Utf16.at(0) } else { Fault::Nul.at(offset) });
    }
    if bytes.trim_ascii().is_empty() {
        return Err(Fault::Empty.at(0));
    }
    let ascii: String = bytes.iter().map(|&b| if b.is_ascii() { char::from(b) } else { 'x' }).collect();
    let mut reader = Reader::from_str(&ascii);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;

    let mut tree = Tree { bytes, notes, open: Vec::new(), strays: Vec::new(), before: None, outside: None };
    loop {
        let start = offset(reader.buffer_position());
        let event = reader.read_event().map_err(|error| tree.markup(start, offset(reader.error_position()), error))?;
        let raw = bytes.get(start..offset(reader.buffer_position())).unwrap_or_default();
        let head = match event {
            Event::Start(_) => tree.start(raw, start, false)?,
            Event::Empty(_) => tree.start(raw, start, true)?,
            Event::End(_) => tree.end(raw, start)?,
            Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) => tree.text(raw, start)?,
            Event::Comment(_) => {
                tree.stray(StrayKind::Comment, raw, start);
                None
            }
            Event::Decl(_) if tree.before.is_some() => return Err(tree.text_before_declaration()),
            Event::Decl(_) | Event::PI(_) | Event::DocType(_) => None,
            Event::Eof => return Err(tree.end_of_file()),
        };
        if let Some(head) = head {
            let end = offset(reader.buffer_position());
            tree.stray(StrayKind::Behind, bytes.get(end..).unwrap_or_default(), end);
            return Ok(Document { head, strays: tree.strays });
        }
    }
}

/// A position in the file, which is a megabyte at most, as an offset.
fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

struct Tree<'t, 'n> {
    bytes: &'t [u8],
    notes: &'t mut Notes<'n>,
    /// The open elements, from `head` down to the innermost; empty before `head`.
    open: Vec<Element>,
    strays: Vec<Stray>,
    /// The first text before `head`, and its offset.
    before: Option<(String, usize)>,
    /// The name of the first element outside of `head`, and its offset.
    outside: Option<(Vec<u8>, usize)>,
}

impl Tree<'_, '_> {
    fn start(&mut self, raw: &[u8], offset: usize, empty: bool) -> Result<Option<Element>, Problem> {
        let content = raw.strip_prefix(b"<").and_then(|raw| raw.strip_suffix(if empty { &b"/>"[..] } else { b">" }));
        let tag = tag::read(content.unwrap_or_default(), offset + 1, self.notes)?;
        let element = Element { name: tag.name, offset, attributes: tag.attributes, children: Vec::new() };
        if self.open.is_empty() && !element.is("head") {
            // Elements around or before `head` have no meaning.
            self.outside.get_or_insert((element.name, offset));
            return Ok(None);
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(Fault::TooDeep { limit: DEPTH_MAX }.at(offset));
        }
        if let (true, Some((text, at))) = (self.open.is_empty(), &self.before) {
            let message = format!("text before <head> is ignored: {text}");
            self.notes.warn_with(*at, message, "delete it, or make it a comment: <!-- ... -->");
        }
        self.open.push(element);
        Ok(if empty || tag.closed { self.close() } else { None })
    }

    fn end(&mut self, raw: &[u8], offset: usize) -> Result<Option<Element>, Problem> {
        let found = raw.strip_prefix(b"</").and_then(|raw| raw.strip_suffix(b">")).unwrap_or_default().trim_ascii();
        match self.open.last() {
            Some(element) if element.name.eq_ignore_ascii_case(found) => Ok(self.close()),
            Some(element) => {
                let opened_line = self.notes.line(element.offset);
                let (expected, found) = (self.notes.show(&element.name), self.notes.show(found));
                Err(Fault::EndTag { expected, found, opened_line }.at(offset))
            }
            None if self.outside.as_ref().is_some_and(|(name, _)| schema::belongs(name).is_some()) => {
                Err(self.end_of_file())
            }
            None => Err(Fault::StrayEndTag { found: self.notes.show(found) }.at(offset)),
        }
    }

    /// Closes the innermost element. Returns the element if it is `head`.
    fn close(&mut self) -> Option<Element> {
        let element = self.open.pop()?;
        match self.open.last_mut() {
            Some(parent) => {
                parent.children.push(element);
                None
            }
            None => Some(element),
        }
    }

    /// Records a piece that has no meaning.
    fn stray(&mut self, kind: StrayKind, raw: &[u8], offset: usize) {
        let (text, blanks) = blank::trimmed(raw);
        if !text.is_empty() {
            self.strays.push(Stray { kind, offset: offset + blanks, text: text.to_vec() });
        }
    }

    fn text(&mut self, raw: &[u8], offset: usize) -> Result<Option<Element>, Problem> {
        let (text, blanks) = blank::trimmed(raw);
        if text.is_empty() || !self.open.is_empty() {
            self.stray(StrayKind::Text, raw, offset);
            return Ok(None);
        }
        let first_line = text.split(|&b| b == b'\n').next().unwrap_or_default().trim_ascii();
        let shown = self.notes.show_markup(first_line);
        self.before.get_or_insert((shown, offset + blanks));
        self.stray(StrayKind::Text, raw, offset);
        Ok(None)
    }

    /// The error for text before the declaration, which sersync does not take for XML either.
    fn text_before_declaration(&mut self) -> Problem {
        let (text, offset) = self.before.take().unwrap_or_default();
        Fault::TextBeforeHead { text }.at(offset)
    }

    fn end_of_file(&self) -> Problem {
        match self.open.last() {
            Some(element) => Fault::NotClosed { name: self.notes.show(&element.name) }.at(element.offset),
            None => match &self.outside {
                Some((name, offset)) if schema::belongs(name).is_some() => {
                    Fault::NoHead { around: format!(" around <{}>", self.notes.show(name)) }.at(*offset)
                }
                _ => Fault::NoHead { around: String::new() }.at(0),
            },
        }
    }

    /// The error for markup that quick-xml cannot end: the construct that begins at `start`.
    fn markup(&mut self, start: usize, error: usize, reason: Error) -> Problem {
        match reason {
            Error::Syntax(SyntaxError::UnclosedComment) => Fault::CommentNotClosed.at(start),
            Error::Syntax(
                SyntaxError::UnclosedTag
                | SyntaxError::UnclosedSingleQuotedAttributeValue
                | SyntaxError::UnclosedDoubleQuotedAttributeValue,
            ) => {
                let tag = self.bytes.get(start + 1..).unwrap_or_default();
                let end = tag.iter().position(|&b| b == b'>').unwrap_or(tag.len());
                // If a missing quote is the cause, reading the tag finds out which.
                match tag::read(tag.get(..end).unwrap_or_default(), start + 1, self.notes) {
                    Ok(tag) => Fault::TagNotClosed { name: self.notes.show(&tag.name) }.at(start),
                    Err(problem) => problem,
                }
            }
            reason => Fault::Markup { reason: Box::new(reason) }.at(error.max(start)),
        }
    }
}
