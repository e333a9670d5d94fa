//! Text from elsewhere, as it may stand in a line that a person reads: names of files, what rsync says, errors.
//!
//! Control characters (C0, DEL, C1) steer a terminal and break lines. Characters that set the direction of text show a
//! line in another order than it has, so that a name seems to be another one. Separators of lines and paragraphs end a
//! line for some readers. All of these stand as escapes, in every table, message and log.

use std::fmt::{self, Write as _};

/// Whether a character makes a line look like another one.
pub fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}'
            | '\u{200e}' | '\u{200f}'
            | '\u{2028}' | '\u{2029}'
            | '\u{202a}'..='\u{202e}'
            // Isolates, and the old controls of Arabic.
            | '\u{2066}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}')
}

/// A text, shown with escapes for its misleading characters.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'t>(pub &'t str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_misleading(c) { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// `1 root`, `2 roots`.
pub fn counted(number: u64, what: &str) -> String {
    let plural = match (number, what.strip_suffix('y')) {
        (1, _) => return format!("1 {what}"),
        (_, Some(stem)) => format!("{stem}ies"),
        (_, None) => format!("{what}s"),
    };
    format!("{number} {plural}")
}

/// The text with these escapes, as a `String`.
pub fn plain(text: &str) -> String {
    Plain(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_or_turns_a_line_around_is_escaped() {
        for (text, expected) in [
            ("plain.txt", "plain.txt"),
            ("博客 é 🏠 שלום", "博客 é 🏠 שלום"),
            ("a\nb\tc", "a\\nb\\tc"),
            ("\x1b[2J\x7f", "\\u{1b}[2J\\u{7f}"),
            ("\u{9b}2J\u{85}", "\\u{9b}2J\\u{85}"),
            ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
            ("\u{2066}a\u{2069}", "\\u{2066}a\\u{2069}"),
            ("\u{200f}\u{61c}\u{2028}\u{feff}", "\\u{200f}\\u{61c}\\u{2028}\\u{feff}"),
            ("", ""),
        ] {
            assert_eq!(plain(text), expected);
        }
        let all = (0..=0x10_ffff).filter_map(char::from_u32).filter(|&c| is_misleading(c));
        assert_eq!(all.count(), 65 + 2 + 1 + 2 + 5 + 10 + 1 + 3);
    }
}
