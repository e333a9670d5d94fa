//! Blanks that are not ASCII: no-break and ideographic spaces, and spaces of other widths or of none. An input method, a web
//! page or a word processor writes them where a blank is meant. sersync took them for a part of the neighbouring word. Pure.

/// How many bytes the blank at the front has, ASCII blanks included; 0 if there is none.
pub(super) fn leading(bytes: &[u8]) -> usize {
    match bytes {
        [first, ..] if first.is_ascii_whitespace() => 1,
        // No-break space.
        [0xC2, 0xA0, ..] => 2,
        // Ogham space, en quad to zero-width space, narrow no-break space, mathematical space, ideographic space, byte order
        // mark.
        [0xE1, 0x9A, 0x80, ..]
        | [0xE2, 0x80, 0x80..=0x8B | 0xAF, ..]
        | [0xE2, 0x81, 0x9F, ..]
        | [0xE3, 0x80, 0x80, ..]
        | [0xEF, 0xBB, 0xBF, ..] => 3,
        // The ideographic space in GBK. No character begins so in UTF-8.
        [0xA1, 0xA1, ..] => 2,
        _ => 0,
    }
}

fn trailing(bytes: &[u8]) -> usize {
    let ends = |len: usize| {
        let last = bytes.len().checked_sub(len).and_then(|at| bytes.get(at..));
        last.is_some_and(|last| leading(last) == len)
    };
    // A character in UTF-8 may end in the same two bytes as GBK's ideographic space.
    let is_text = || bytes.ends_with(&[0xA1, 0xA1]) && std::str::from_utf8(bytes).is_ok();
    [1, 2, 3].into_iter().find(|&len| ends(len) && !is_text()).unwrap_or(0)
}

/// `bytes` without the blanks around them, and the number of bytes that stood before.
pub(super) fn trimmed(bytes: &[u8]) -> (&[u8], usize) {
    let mut rest = bytes;
    while let found @ 1.. = leading(rest) {
        rest = rest.get(found..).unwrap_or_default();
    }
    let before = bytes.len() - rest.len();
    while let found @ 1.. = trailing(rest) {
        rest = rest.get(..rest.len() - found).unwrap_or_default();
    }
    (rest, before)
}

/// Replaces every blank outside of quotes that is not ASCII by as many ASCII blanks as it has bytes. `None`: there are none.
pub(super) fn in_ascii(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut ascii = bytes.to_vec();
    let (mut at, mut open, mut is_changed) = (0, None, false);
    while let Some((rest, &byte)) = bytes.get(at..).zip(bytes.get(at)) {
        let found = leading(rest);
        match (open, byte) {
            (None, b'\'' | b'"') => open = Some(byte),
            (Some(quote), byte) if byte == quote => open = None,
            (None, _) if found > 1 => {
                ascii.iter_mut().skip(at).take(found).for_each(|byte| *byte = b' ');
                is_changed = true;
            }
            _ => {}
        }
        at += found.max(1);
    }
    is_changed.then_some(ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_of_all_alphabets_are_taken_off() {
        for (given, expected, before) in [
            (&b" a b\t"[..], &b"a b"[..], 1),
            ("\u{3000}a\u{a0}\u{200b}".as_bytes(), b"a", 3),
            (b"\xa1\xa1a\xa1\xa1", b"a", 2),
            // 塡 ends in the bytes of GBK's ideographic space.
            ("塡".as_bytes(), "塡".as_bytes(), 0),
            ("\u{feff}".as_bytes(), b"", 3),
            ("é".as_bytes(), "é".as_bytes(), 0),
            (b"", b"", 0),
        ] {
            assert_eq!(trimmed(given), (expected, before), "{given:?}");
        }
    }

    #[test]
    fn between_words_they_separate_and_in_quotes_they_stay() {
        let given = "-a\u{3000}-z --exclude='a\u{3000}b'";
        let expected = "-a   -z --exclude='a\u{3000}b'";
        assert_eq!(in_ascii(given.as_bytes()).as_deref(), Some(expected.as_bytes()));
        assert_eq!(in_ascii("-a 'é\u{a0}'".as_bytes()), None);
    }
}
