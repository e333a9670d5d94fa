//! Splits a line into words as a shell does: blanks, quotes, backslashes. Runs and expands nothing, so `$HOME` and
//! `*.log` are words like any other.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// An opening quote without a closing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{quote} at byte {offset} is not closed")]
pub struct SplitError {
    /// The offset of the quote, counted from 0.
    pub offset: usize,
    /// `'`, `"`, or `\` for a backslash at the very end.
    pub quote: &'static str,
}

/// A word and the offset at which it begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) offset: usize,
    pub(super) text: Vec<u8>,
}

/// Splits bytes into words as a shell does, without expansions.
pub fn split_words(line: &[u8]) -> Result<Vec<OsString>, SplitError> {
    Ok(split(line)?.into_iter().map(|word| OsString::from_vec(word.text)).collect())
}

pub(super) fn split(line: &[u8]) -> Result<Vec<Word>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut bytes = line.iter().copied().enumerate();
    while let Some((offset, byte)) = bytes.next() {
        if byte.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        let text = &mut word.get_or_insert_with(|| Word { offset, text: Vec::new() }).text;
        let open = |quote| SplitError { offset, quote };
        match byte {
            b'\'' => loop {
                match bytes.next().ok_or(open("'"))?.1 {
                    b'\'' => break,
                    quoted => text.push(quoted),
                }
            },
            b'"' => loop {
                match bytes.next().ok_or(open("\""))?.1 {
                    b'"' => break,
                    b'\\' => match bytes.next().ok_or(open("\""))?.1 {
                        b'\n' => {}
                        escaped @ (b'"' | b'\\' | b'$' | b'`') => text.push(escaped),
                        other => text.extend([b'\\', other]),
                    },
                    quoted => text.push(quoted),
                }
            },
            b'\\' => match bytes.next().ok_or(open("\\"))?.1 {
                // An escaped line break joins the lines, as in a shell.
                b'\n' => {}
                escaped => text.push(escaped),
            },
            plain => text.push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_in_a_shell() {
        for (line, expected) in [
            ("", &[][..]),
            ("  -a\t-z\n", &["-a", "-z"]),
            ("--exclude='a b' --exclude=\"c'd\"", &["--exclude=a b", "--exclude=c'd"]),
            (r#"-e "ssh -p 22 -i \"/k y\"" \$x"#, &["-e", "ssh -p 22 -i \"/k y\"", "$x"]),
            (r#"a\ b "\n\$" '\'"#, &["a b", r"\n$", r"\"]),
            ("'' \"\" x''y", &["", "", "xy"]),
            ("$HOME `id` *.log", &["$HOME", "`id`", "*.log"]),
            ("--exclude=*.conf.* # no comment", &["--exclude=*.conf.*", "#", "no", "comment"]),
        ] {
            let words = split_words(line.as_bytes()).expect(line);
            assert_eq!(words, expected.iter().map(OsString::from).collect::<Vec<_>>(), "{line}");
        }
    }

    #[test]
    fn an_open_quote_is_found_where_it_stands() {
        for (line, offset, quote) in [("-a 'b", 3, "'"), ("\"", 0, "\""), ("a \\", 2, "\\"), ("\"a\\", 0, "\"")] {
            assert_eq!(split_words(line.as_bytes()), Err(SplitError { offset, quote }), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn quoting_is_undone(words in proptest::collection::vec(proptest::collection::vec(1u8..=255, 0..8), 0..6)) {
            let mut line = Vec::new();
            for word in &words {
                line.push(b'\'');
                for &byte in word {
                    if byte == b'\'' { line.extend(b"'\\''") } else { line.push(byte) }
                }
                line.extend(b"' ");
            }
            let split: Vec<_> = split_words(&line).expect("balanced").into_iter().map(OsString::into_vec).collect();
            proptest::prop_assert_eq!(split, words);
        }
    }
}
