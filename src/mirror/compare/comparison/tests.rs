//! How the listing of a comparison is read.

use super::*;

#[test]
fn kinds_of_difference_are_told_apart() {
    for (line, path, what) in [
        (&b"<f+++++++++ a b"[..], &b"a b"[..], Differs::Missing),
        (b"cd+++++++++ d/", b"d", Differs::Missing),
        (b"*deleting   d/x\\#377", b"d/x\xff", Differs::Extra),
        (b"<fc........ a", b"a", Differs::Content),
        (b"<fcst...... a", b"a", Differs::Size),
        (b"<f.st...... a", b"a", Differs::Size),
        (b"<f..t...... a", b"a", Differs::Time),
        (b"<f..T...... a", b"a", Differs::Time),
        (b".f...p..... a", b"a", Differs::Attributes),
        (b".d....og... ./", b"", Differs::Attributes),
        (b"cLc.t...... l", b"l", Differs::Content),
    ] {
        let expected = Difference { path: RelPath::new(path).unwrap(), what };
        assert_eq!(read(line), Some(expected), "{}", String::from_utf8_lossy(line));
    }
    assert_eq!(read(b"sent 95 bytes  received 25 bytes"), None);
}

#[test]
fn lines_come_whole_however_they_are_cut() {
    let mut lines = Vec::new();
    let mut cut = Cut::new(|line: &[u8]| lines.push(line.to_vec()));
    for piece in [&b"a"[..], b"b\nc\n", b"\nd"] {
        cut.push(piece).unwrap();
    }
    assert_eq!(lines, [&b"ab"[..], b"c", b""]);
}
