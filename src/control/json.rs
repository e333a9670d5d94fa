//! JSON for people: like any JSON, but with escapes for characters that would steer a terminal or reverse a line. JSON itself
//! requires escapes for the control characters of C0 only.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use crate::model::is_misleading;

struct Plain;

impl Formatter for Plain {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((before, c)) = rest.char_indices().find(|&(_, c)| is_misleading(c)) {
            let (plain, behind) = rest.split_at(before);
            CompactFormatter.write_string_fragment(out, plain)?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = behind.get(c.len_utf8()..).unwrap_or_default();
        }
        CompactFormatter.write_string_fragment(out, rest)
    }
}

/// Writes a value as JSON on one line, without a line break at the end.
pub fn write_json(out: &mut impl io::Write, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, Plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_the_same_and_shows_nothing_misleading() {
        for text in ["plain", "a\u{202e}b\u{9b}\n\"\\", "\u{2028}", "é博", "", "\u{7f}\u{feff}x"] {
            let mut json = Vec::new();
            write_json(&mut json, &vec![text, "next"]).expect("json");
            let json = String::from_utf8(json).expect("text");
            assert!(!json.contains(is_misleading), "{json}");
            assert_eq!(serde_json::from_str::<Vec<String>>(&json).expect("json"), [text, "next"]);
        }
    }
}
