//! Every file in `tests/fixtures/configs` has a result beside it: the effective configuration with its warnings, or the error,
//! each with line and column. `SYNCQ_GOLDEN=write` writes the results anew, so that a person can read the difference.

use std::fmt::Write;
use std::path::Path;

use super::*;
use crate::config::parse;
use crate::config::tests::corpus;

fn meaning(file: &Path, bytes: &[u8]) -> String {
    let name = Path::new(file.file_name().expect("a name"));
    let mut text = String::new();
    match parse(name, bytes) {
        Ok((config, diagnostics)) => {
            // Settings appear only where they differ from the default, so that a new setting does not change every file.
            let defaults = settings(&Settings::default());
            for line in lines(&config).iter().filter(|line| !defaults.contains(line)) {
                writeln!(text, "{line}").expect("text");
            }
            for diagnostic in diagnostics {
                writeln!(text, "warning: {diagnostic}").expect("text");
                if let Some(hint) = diagnostic.hint {
                    writeln!(text, "    hint: {hint}").expect("text");
                }
            }
        }
        Err(error) => {
            let kind = if error.is_syntax() { "syntax error" } else { "error" };
            writeln!(text, "{kind}: {error}").expect("text");
            if let Some(hint) = error.hint() {
                writeln!(text, "    hint: {hint}").expect("text");
            }
        }
    }
    text
}

/// The lines that differ, with their numbers.
fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let mut text = String::new();
    for n in 0..expected.len().max(found.len()) {
        let (old, new) = (expected.get(n), found.get(n));
        if old != new {
            let line = |line: Option<&&str>| line.map_or_else(|| "(nothing)".to_owned(), |line| (*line).to_owned());
            writeln!(text, "  line {}:\n    - {}\n    + {}", n + 1, line(old), line(new)).expect("text");
        }
    }
    text
}

#[test]
fn every_file_means_what_is_written_beside_it() {
    let write = std::env::var_os("SYNCQ_GOLDEN").is_some_and(|value| value == "write");
    let corpus = corpus();
    assert!(corpus.len() >= 50, "{} files", corpus.len());
    let mut wrong = String::new();
    for (file, bytes) in corpus {
        let (golden, found) = (file.with_extension("golden"), meaning(&file, &bytes));
        assert!(!found.contains("S3cret"), "{} shows a password:\n{found}", file.display());
        if write {
            std::fs::write(&golden, &found).expect("a file");
            continue;
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if expected != found {
            writeln!(wrong, "{} (- as written, + as read):\n{}", file.display(), difference(&expected, &found))
                .expect("text");
        }
    }
    assert!(wrong.is_empty(), "{wrong}SYNCQ_GOLDEN=write writes them anew");
}

/// A typing error next to a password must not bring the password into an error, which goes into a daemon's log and status.
#[test]
fn no_slip_beside_a_password_shows_it() {
    let sections = "<plugin name=\"refreshCDN\"><localpath watch=\"/opt/tongbu\">\
        <cdninfo domainname=\"h\" port=\"80\" username=\"u\" passwd=\"S3cret\"/><sendurl base=\"http://x\"/></localpath></plugin>\
        <plugin name=\"http\"><localpath watch=\"/opt/tongbu\">\
        <deshost url=\"http://u:S3cret@h:80/x?token=S3cret\"/></localpath></plugin>";
    for used in ["refreshCDN", "http"] {
        let head = format!(
            "<head><sersync><localpath watch=\"/opt/tongbu\"><remote ip=\"h\" name=\"m\"/></localpath>\
             <plugin start=\"true\" name=\"{used}\"/></sersync>"
        );
        for (at, sign) in sections.char_indices().filter(|(_, c)| "\"=<>/ &?:@".contains(*c)) {
            let (before, behind) = (&sections[..at], &sections[at + sign.len_utf8()..]);
            for instead in ["", "<", " ", "\"", "<!--"] {
                let file = format!("{head}{before}{instead}{behind}</head>");
                let said = meaning(Path::new("c.xml"), file.as_bytes());
                assert!(!said.contains("S3cret"), "{file}\n{said}");
            }
        }
    }
}
