//! A configuration file as it stands: every element, attribute and other piece, with its place.
//!
//! For callers that explain what a file meant to sersync. Its meaning to syncq is [`Config`](super::Config). No password leaves
//! this module.

use std::path::Path;

use super::diagnostic::{Notes, is_secret};
use super::error::{ConfigError, Problem};
use super::schema::{self, Standing};
use super::xml::{self, StrayKind};

/// The pieces of a file, in the file's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    pub parts: Vec<Part>,
}

/// One piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters of the file's encoding.
    pub column: u32,
    pub what: What,
}

/// The kind of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An element that has a meaning.
    Element {
        /// The names of its parents below `head` and its own, as the format spells them: `sersync/rsync/auth`.
        path: String,
        /// How many elements with the same name stand before it in its parent.
        earlier: usize,
        attributes: Vec<Attribute>,
    },
    /// A second element where only the first counts.
    Surplus {
        path: String,
        /// The content whose loss somebody may notice: directories and expressions.
        lost: Option<String>,
    },
    /// An element whose name has no meaning where it stands.
    Unknown {
        name: String,
        /// The element in which an element with this name has a meaning.
        belongs: Option<&'static str>,
    },
    Comment,
    /// Text between tags, on one line, cut where a password may begin.
    Text {
        text: String,
    },
    /// Something stands behind the last tag of `head`.
    Behind,
}

/// An attribute of an element that has a meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The name as the format spells it; a name without a meaning as the file spells it.
    pub name: String,
    pub is_known: bool,
    /// The value with its blanks. A value that may be a password is `***`.
    pub value: String,
    /// Line and column, counted as in [`Part`].
    pub line: u32,
    pub column: u32,
}

impl Outline {
    /// The value of an attribute of the first element with that path.
    pub fn value(&self, path: &str, attribute: &str) -> Option<&str> {
        let attributes = self.parts.iter().find_map(|part| match &part.what {
            What::Element { path: found, attributes, .. } if found == path => Some(attributes),
            _ => None,
        })?;
        attributes.iter().find(|found| found.is_known && found.name == attribute).map(|found| found.value.as_str())
    }

    /// Whether the file has an element with that path.
    pub fn has(&self, path: &str) -> bool {
        self.parts.iter().any(|part| matches!(&part.what, What::Element { path: found, .. } if found == path))
    }
}

/// Reads the bytes of a file.
pub(super) fn read(file: &Path, bytes: &[u8]) -> Result<Outline, ConfigError> {
    super::check_size(file, bytes)?;
    let bytes = super::without_mark(bytes);
    let mut notes = Notes::new(bytes);
    let found = parts(bytes, &mut notes).map_err(|problem| notes.error(file, problem))?;
    let mut place = notes.places();
    let parts = found.into_iter().map(|Found { offset, attributes_at, mut what }| {
        let (line, column) = place(offset);
        if let What::Element { attributes, .. } = &mut what {
            for (attribute, at) in attributes.iter_mut().zip(attributes_at) {
                (attribute.line, attribute.column) = place(at);
            }
        }
        Part { line, column, what }
    });
    Ok(Outline { parts: parts.collect() })
}

/// A piece whose line and column have not been counted yet.
struct Found {
    offset: usize,
    attributes_at: Vec<usize>,
    what: What,
}

/// The pieces, sorted.
fn parts(bytes: &[u8], notes: &mut Notes<'_>) -> Result<Vec<Found>, Problem> {
    let document = xml::parse(bytes, notes)?;
    let mut parts = Vec::new();
    let plain = |offset, what| Found { offset, attributes_at: Vec::new(), what };
    schema::walk(&document.head, &mut |path, element, standing| {
        let what = match standing {
            Standing::Unknown => {
                What::Unknown { name: notes.show(&element.name), belongs: schema::belongs(&element.name) }
            }
            Standing::Surplus => What::Surplus { path: path.to_owned(), lost: schema::lost(element, notes) },
            Standing::Known { earlier, attributes: known } => {
                let attributes = element.attributes.iter().map(|attribute| named(attribute, known, notes)).collect();
                What::Element { path: path.to_owned(), earlier, attributes }
            }
        };
        let attributes_at = element.attributes.iter().map(|attribute| attribute.offset).collect();
        parts.push(Found { offset: element.offset, attributes_at, what });
    });
    for stray in document.strays {
        match stray.kind {
            StrayKind::Comment => parts.push(plain(stray.offset, What::Comment)),
            StrayKind::Behind => parts.push(plain(stray.offset, What::Behind)),
            StrayKind::Text => {
                let mut offset = stray.offset;
                for line in stray.text.split_inclusive(|&b| b == b'\n') {
                    let blanks = line.iter().take_while(|b| b.is_ascii_whitespace()).count();
                    // Text that was copied from a web page has many blanks that are not ASCII.
                    let text = notes.show_markup(line.trim_ascii()).trim().to_owned();
                    if !text.is_empty() {
                        parts.push(plain(offset + blanks, What::Text { text }));
                    }
                    offset += line.len();
                }
            }
        }
    }
    parts.sort_by_key(|found| found.offset);
    Ok(parts)
}

fn named(attribute: &xml::Attribute, known: &[&'static str], notes: &Notes<'_>) -> Attribute {
    let meant = known.iter().find(|known| attribute.name.eq_ignore_ascii_case(known.as_bytes()));
    // An attribute with an unknown name may be a misspelt `passwd`.
    let value =
        if meant.is_none() || is_secret(&attribute.name) { "***".to_owned() } else { notes.text(&attribute.value) };
    Attribute {
        name: meant.map_or_else(|| notes.show(&attribute.name), |name| (*name).to_owned()),
        is_known: meant.is_some(),
        value,
        line: 0,
        column: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_its_place() {
        let text = "<head>\n <!-- a\n b --> note\n one passwd=S3cret\n <DEBUG Start='true' x=\"S3cret\"/><debug/>\n\
                    <filter><exclude expression=\"a\"/><exclude expression=\"b\"/></filter><fliter/>\n</head> tail\n";
        let outline = read(Path::new("c.xml"), text.as_bytes()).expect("an outline");
        let shown: Vec<String> =
            outline.parts.iter().map(|part| format!("{}:{} {:?}", part.line, part.column, part.what)).collect();
        let expected = [
            "1:1 Element { path: \"head\", earlier: 0",
            "2:2 Comment",
            "3:8 Text { text: \"note\" }",
            "4:2 Text { text: \"one passwd…\" }",
            "5:2 Element { path: \"debug\", earlier: 0, attributes: [Attribute { name: \"start\", is_known: true, value: \"true\", \
             line: 5, column: 9 }, Attribute { name: \"x\", is_known: false, value: \"***\", line: 5, column: 22 }]",
            "5:34 Surplus { path: \"debug\", lost: None }",
            "6:1 Element { path: \"filter\"",
            "6:9 Element { path: \"filter/exclude\", earlier: 0",
            "6:34 Element { path: \"filter/exclude\", earlier: 1",
            "6:68 Unknown { name: \"fliter\", belongs: None }",
            "7:9 Behind",
        ];
        assert_eq!(shown.len(), expected.len(), "{shown:#?}");
        for (shown, expected) in shown.iter().zip(expected) {
            assert!(shown.starts_with(expected), "{shown}\n{expected}");
        }
        assert!(!shown.concat().contains("S3cret"));
        assert_eq!((outline.value("debug", "start"), outline.value("debug", "x")), (Some("true"), None));
        assert!(outline.has("filter/exclude") && !outline.has("fliter"));
    }
}
