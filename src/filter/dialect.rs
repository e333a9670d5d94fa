//! Translates sersync's expressions for the engines of today: a match of the whole subject, byte by byte. Says why an
//! expression is refused. Which engine takes an expression is decided in `pattern`.

use std::fmt::Write;

/// The largest compiled size of one expression, in bytes. A larger expression is refused.
pub(super) const EXPRESSION_BYTES_MAX: usize = 4 << 20;

/// Why an expression cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("{}", LastLine(reason))]
    Syntax { reason: regex::Error },
    #[error("{reason}")]
    Stepwise { reason: Box<fancy_regex::Error> },
    #[error("the expressions compile to more than {} MiB together", .limit_bytes >> 20)]
    TooLarge { limit_bytes: usize },
}

/// The regex crate draws a picture of several lines; people want its last one.
struct LastLine<'a>(&'a regex::Error);

impl std::fmt::Display for LastLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            regex::Error::CompiledTooBig(limit) => write!(f, "it compiles to more than {} MiB", limit >> 20),
            other => {
                let text = other.to_string();
                let last = text.lines().next_back().unwrap_or_default().trim();
                f.write_str(last.strip_prefix("error: ").unwrap_or(last))
            }
        }
    }
}

/// The expression, made to match the whole subject. `^` and `$` would not do, since they can be told to match at lines.
pub(super) fn anchored(expression: &str) -> String {
    format!(r"\A(?:{})\z", bytewise(expression))
}

/// The expression in ASCII: with Unicode off the regex crate refuses other characters in classes, while sersync takes
/// such characters as the bytes that they are.
pub(super) fn bytewise(expression: &str) -> String {
    let mut ascii = String::with_capacity(expression.len());
    for byte in expression.bytes() {
        if byte.is_ascii() {
            ascii.push(char::from(byte));
        } else {
            let _ = write!(ascii, r"\x{byte:02x}");
        }
    }
    ascii
}
