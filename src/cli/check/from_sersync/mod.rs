//! `syncq check --from-sersync CONF`: goes through a `confxml.xml` and tells what syncq does differently with it, and why.
//!
//! The texts come from `table`; this module walks through the file and prints. `warned` removes warnings on the file that the
//! comparison repeats. Only the file is looked at, not this machine.

#[cfg(test)]
mod documents;
// The program uses only some of the facts; the rest, the numbers and the tests are for the documents.
#[cfg_attr(not(test), allow(dead_code))]
mod facts;
#[cfg(test)]
mod page;
mod row;
mod table;
mod warned;

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::cli::output::{json_line, plain};
use crate::config::{Matter, Outline, What};
use row::{Here, Verdict};
use table::{MANDATORY, Said, said_of};
pub use warned::untold;

/// The most characters of a value that a line shows.
const SHOWN_CHARS_MAX: usize = 60;

/// One attribute, or another piece of the file. The fields are those of a line of `--json`, which always has all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    pub file: String,
    /// Counted from 1; `None` for an element that is missing.
    pub line: Option<u32>,
    pub column: Option<u32>,
    /// The element with its parents below `head`: `sersync/rsync/auth`.
    pub element: Option<String>,
    pub attribute: Option<String>,
    pub value: Option<String>,
    pub verdict: Verdict,
    /// The difference and its reason. Empty where both do the same.
    pub message: String,
    /// The warnings on the file that repeat this message.
    #[serde(skip)]
    told: Vec<Matter>,
    /// Line and column of the element.
    #[serde(skip)]
    element_at: Option<(u32, u32)>,
}

/// All comparisons for a file, in the file's order; missing elements come last.
pub fn compare(file: &Path, outline: &Outline) -> Vec<Comparison> {
    let mut found = Vec::new();
    let mut section = None;
    for part in &outline.parts {
        let nothing = Comparison {
            file: file.display().to_string(),
            line: Some(part.line),
            column: Some(part.column),
            element: None,
            attribute: None,
            value: None,
            verdict: Verdict::Ignored,
            message: String::new(),
            told: Vec::new(),
            element_at: Some((part.line, part.column)),
        };
        match &part.what {
            What::Element { path, earlier, attributes } => {
                if path == "plugin" {
                    let name = attributes.iter().find(|attribute| attribute.is_known && attribute.name == "name");
                    section = name.map(|name| name.value.as_str());
                }
                for attribute in attributes {
                    let here = Here { file: outline, value: &attribute.value, earlier: *earlier, section };
                    let Said { verdict, message, told } = match attribute.is_known {
                        true => said_of(path, &attribute.name, &here),
                        false => Said {
                            verdict: Verdict::Ignored,
                            message: "neither knows this attribute".to_owned(),
                            told: vec![Matter::Unknown],
                        },
                    };
                    found.push(Comparison {
                        element: Some(path.clone()),
                        attribute: Some(attribute.name.clone()),
                        value: Some(attribute.value.clone()),
                        verdict,
                        message,
                        told,
                        line: Some(attribute.line),
                        column: Some(attribute.column),
                        ..nothing.clone()
                    });
                }
            }
            What::Surplus { path, lost } => found.push(Comparison {
                element: Some(path.clone()),
                message: match lost {
                    Some(lost) => format!("given twice; the first counts, in both: {lost}"),
                    None => "given twice; the first counts, in both".to_owned(),
                },
                told: vec![Matter::Twice],
                ..nothing
            }),
            What::Unknown { name, belongs } => found.push(Comparison {
                element: Some(name.clone()),
                message: match belongs {
                    Some(parent) => format!("neither looks for it here: it belongs into <{parent}>"),
                    None => "neither knows this element".to_owned(),
                },
                told: vec![Matter::Unknown],
                ..nothing
            }),
            What::Comment => found.push(Comparison { message: "a comment".to_owned(), ..nothing }),
            What::Text { text } => found.push(Comparison {
                value: Some(text.clone()),
                message: "text between tags; neither reads it".to_owned(),
                ..nothing
            }),
            What::Behind => {
                found.push(Comparison { message: "what follows </head> is not read, in both".to_owned(), ..nothing })
            }
        }
    }
    let missing = MANDATORY.iter().filter(|path| {
        // If an element is missing together with its parent, only the parent is named.
        let parent = path.rsplit_once('/').map(|(parent, _)| parent);
        !outline.has(path) && parent.is_none_or(|parent| outline.has(parent))
    });
    found.extend(missing.map(|path| Comparison {
        file: file.display().to_string(),
        line: None,
        column: None,
        element: Some((*path).to_owned()),
        attribute: None,
        value: None,
        verdict: Verdict::Differs,
        message: "missing: sersync crashed; syncq takes its default, or needs none".to_owned(),
        told: Vec::new(),
        element_at: None,
    }));
    found
}

/// Prints comparisons for people: one line for each attribute, with the differences below it.
pub fn write_text(out: &mut impl Write, found: &[Comparison]) -> io::Result<()> {
    let width = found.iter().filter_map(|one| one.line).max().unwrap_or(0).to_string().len().max(4);
    writeln!(out, "{:>width$}  what", "LINE")?;
    for one in found {
        let line = one.line.map_or_else(|| "-".to_owned(), |line| line.to_string());
        let verdict = match one.verdict {
            Verdict::Same => "same",
            Verdict::Unused => "unused",
            Verdict::Ignored => "ignored",
            Verdict::Differs => "differs",
        };
        let what = what(one);
        match (what.is_empty(), one.message.is_empty()) {
            (true, _) => writeln!(out, "{line:>width$}  {verdict:<7}  {}", plain(&one.message))?,
            (false, true) => writeln!(out, "{line:>width$}  {verdict:<7}  {what}")?,
            (false, false) if one.verdict == Verdict::Differs => {
                writeln!(out, "{line:>width$}  {verdict:<7}  {what}")?;
                writeln!(out, "{:width$}             {}", "", plain(&one.message))?;
            }
            (false, false) => writeln!(out, "{line:>width$}  {verdict:<7}  {what}: {}", plain(&one.message))?,
        }
    }
    let count = |verdict| found.iter().filter(|one| one.verdict == verdict).count();
    let (same, differs) = (count(Verdict::Same), count(Verdict::Differs));
    let (unused, ignored) = (count(Verdict::Unused), count(Verdict::Ignored));
    writeln!(out, "\n{same} the same, {differs} differ, {unused} unused, {ignored} ignored")
}

/// The piece as a line names it: `sersync/rsync/auth users="root"`, or a piece of text.
fn what(one: &Comparison) -> String {
    let value = one.value.as_deref().map(|value| {
        let cut: String = value.chars().take(SHOWN_CHARS_MAX).collect();
        let more = if cut.len() < value.len() { "…" } else { "" };
        plain(&format!("{cut}{more}"))
    });
    match (&one.element, &one.attribute, value) {
        (Some(element), Some(attribute), Some(value)) => format!("{element} {}=\"{value}\"", plain(attribute)),
        (Some(element), ..) => format!("<{}>", plain(element)),
        (None, _, Some(value)) => value,
        (None, _, None) => String::new(),
    }
}

/// Prints one JSON object per line.
pub fn write_json(out: &mut impl Write, found: &[Comparison]) -> io::Result<()> {
    found.iter().try_for_each(|one| json_line(out, one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::corpus;
    use crate::config::{outline, parse};

    fn text(file: &Path) -> Option<String> {
        let outline = outline(file).ok()?;
        let mut out = Vec::new();
        write_text(&mut out, &compare(Path::new(file.file_name()?), &outline)).expect("written");
        Some(String::from_utf8(out).expect("text"))
    }

    /// Every file of the corpus that is XML gets its lines, whether it makes sense or not. No line shows a password.
    #[test]
    fn every_file_that_can_be_read_is_compared() {
        for (file, bytes) in corpus() {
            let name = file.display();
            match (text(&file), parse(&file, &bytes)) {
                (Some(text), _) => {
                    assert!(text.contains("  what\n") && !text.contains("S3cret"), "{name}:\n{text}");
                    assert!(!text.contains("neither knows it"), "{name}:\n{text}");
                }
                (None, Err(error)) => assert!(error.is_syntax(), "{name}: {error}"),
                (None, Ok(_)) => panic!("{name} can be used and not compared"),
            }
        }
    }

    #[test]
    fn some_files_are_compared_line_by_line() {
        let write = std::env::var_os("SYNCQ_GOLDEN").is_some_and(|value| value == "write");
        let names = [
            "tutorial_blog",
            "stock",
            "everything_on",
            "several_localpaths",
            "ssh_auth_port",
            "plugin_http_with_password",
            "plugin_command_for_a_shell",
            "missing_sections",
        ];
        for (file, _) in corpus() {
            if !names.iter().any(|name| file.file_stem().is_some_and(|stem| stem == *name)) {
                continue;
            }
            let (golden, found) = (file.with_extension("from-sersync"), text(&file).expect("a file that can be read"));
            if write {
                std::fs::write(&golden, &found).expect("a file");
                continue;
            }
            let expected = std::fs::read_to_string(&golden).unwrap_or_default();
            assert_eq!(found, expected, "{}: SYNCQ_GOLDEN=write writes them anew", golden.display());
        }
    }

    /// The message for an attribute may depend on other parts of the file.
    #[test]
    fn one_change_changes_what_is_said() {
        let stock = include_str!("../../../../tests/fixtures/configs/stock.xml");
        let said = |from: &str, to: &str, element: &str, attribute: &str| {
            assert!(stock.contains(from), "{from}");
            let dir = tempfile::tempdir().expect("a directory");
            let file = dir.path().join("c.xml");
            std::fs::write(&file, stock.replacen(from, to, 1)).expect("a file");
            let found = compare(&file, &outline(&file).expect("an outline"));
            let of = |one: &&Comparison| {
                one.element.as_deref() == Some(element) && one.attribute.as_deref() == Some(attribute)
            };
            let one = found.iter().find(of).expect("the attribute").clone();
            (one.verdict, one.message)
        };
        let (start, params) = ("sersync/rsync/ssh", "sersync/rsync/commonParams");
        for (from, to, element, attribute, verdict, words) in [
            ("-artuz", "-artz", params, "params", Verdict::Same, ""),
            ("-artuz", "-artz --update", params, "params", Verdict::Differs, "-u is dropped"),
            ("-artuz", "-artuz --exclude-from=$HOME/x", params, "params", Verdict::Differs, "-u is dropped"),
            ("-artuz", "-artuz --exclude-from=$HOME/x", params, "params", Verdict::Differs, "nothing is expanded"),
            ("-artuz", "-artuz --exclude={a,b}", params, "params", Verdict::Differs, "nothing is expanded"),
            (
                "<localpath watch=\"",
                "<localpath watch=\" ",
                "sersync/localpath",
                "watch",
                Verdict::Differs,
                "while no daemon is running",
            ),
            ("<ssh start=\"false\"", "<ssh start=\"yes\"", start, "start", Verdict::Differs, "BatchMode"),
            ("-artuz", "-arz -e xu", params, "params", Verdict::Same, ""),
            ("-artuz", "-arz --exclude='*.log'", params, "params", Verdict::Differs, "no shell"),
            ("params=\"-artuz\"", "keepNewer=\"true\" params=\"-artuz\"", params, "params", Verdict::Same, ""),
            ("<ssh start=\"false\"", "<ssh start=\"yes\"", start, "start", Verdict::Differs, "taken for true"),
            ("<ssh start=\"false\"", "<ssh start=\"true\"", start, "start", Verdict::Differs, "BatchMode"),
            (
                "<plugin start=\"false\"",
                "<plugin start=\"true\"",
                "plugin/param",
                "prefix",
                Verdict::Differs,
                "one argument",
            ),
            (
                "<plugin start=\"false\"",
                "<plugin start=\"true\"",
                "plugin/localpath/deshost",
                "ip",
                Verdict::Unused,
                "not in",
            ),
            (
                "schedule=\"600\"",
                "schedule=\"@daily\"",
                "sersync/crontab",
                "schedule",
                Verdict::Unused,
                "crontab is off",
            ),
            ("<localpath watch=\"", "<localpath watch=\" ", "sersync/localpath", "watch", Verdict::Differs, "blanks"),
            (
                "<filter start=\"false\"",
                "<filter start=\"true\"",
                "filter/exclude",
                "expression",
                Verdict::Differs,
                "whole of",
            ),
            ("<closeWrite", "<closeWrite ", "inotify/closeWrite", "start", Verdict::Differs, "dot-files"),
            (
                "</head>",
                "<syncq><legacyHidden start=\"true\"/></syncq></head>",
                "inotify/closeWrite",
                "start",
                Verdict::Same,
                "",
            ),
            ("<delete start=\"true\"", "<delete start=\"false\"", "inotify/delete", "start", Verdict::Same, ""),
        ] {
            let (found, message) = said(from, to, element, attribute);
            assert!(found == verdict && message.contains(words), "{to}: {found:?} {message}");
        }
    }

    /// Without a password file, both programs use the user with ssh. With a password file sersync failed, and syncq drops both.
    #[test]
    fn users_and_ssh_are_told_as_they_are_treated() {
        let stock = include_str!("../../../../tests/fixtures/configs/stock.xml");
        let stock = stock.replacen("<ssh start=\"false\"", "<ssh start=\"true\"", 1);
        let auth = "<auth start=\"false\" users=\"root\" passwordfile=\"/etc/rsync.pas\"/>";
        assert!(stock.contains(auth));
        for (file, verdict) in [("/etc/rsync.pas", Verdict::Differs), ("", Verdict::Same)] {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("c.xml");
            let ours = format!("<auth start=\"true\" users=\"joe\" passwordfile=\"{file}\"/>");
            std::fs::write(&path, stock.replacen(auth, &ours, 1)).expect("a file");
            let found = compare(&path, &outline(&path).expect("an outline"));
            let of_auth = found.iter().filter(|one| one.element.as_deref() == Some("sersync/rsync/auth"));
            let verdicts: Vec<_> = of_auth.map(|one| one.verdict).collect();
            assert_eq!(verdicts, [verdict; 3], "{file}");
        }
    }

    /// The keys that `--json` promises.
    #[test]
    fn a_line_of_json_has_every_field() {
        let one = Comparison {
            file: "c.xml".to_owned(),
            line: Some(2),
            column: Some(7),
            element: Some("debug".to_owned()),
            attribute: Some("start".to_owned()),
            value: Some("true".to_owned()),
            verdict: Verdict::Differs,
            message: "m".to_owned(),
            told: vec![Matter::Blanks],
            element_at: Some((2, 3)),
        };
        let mut out = Vec::new();
        write_json(&mut out, &[one]).expect("written");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "{\"file\":\"c.xml\",\"line\":2,\"column\":7,\"element\":\"debug\",\"attribute\":\"start\",\"value\":\"true\",\
             \"verdict\":\"differs\",\"message\":\"m\"}\n"
        );
    }
}
