//! Merges the warnings on the file with the comparison, so that each matter is told once.
//!
//! A warning is dropped if the comparison has the same matter at the same place. Knowledge that only the warning has (the
//! default, the likely meaning, the reason why an expression is invalid) goes into the line of the comparison. Texts are not
//! compared: both sides name the [`Matter`] that they are about. A warning without a matter stays.

use crate::config::{Diagnostic, Matter};

use super::Comparison;

/// Returns the warnings that say more than `found`. The small additions of the others go into `found`.
pub fn untold(found: &mut [Comparison], warnings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    warnings.into_iter().filter(|warning| !is_told(found, warning)).collect()
}

fn is_told(found: &mut [Comparison], warning: &Diagnostic) -> bool {
    let Some(one) = place(found, warning) else { return false };
    match (warning.matter, &warning.hint) {
        (Matter::Missing { default, .. }, _) => one.message = format!("missing: sersync crashed; here {default}"),
        (Matter::Expression, Some(hint)) => one.message = format!("{}; {hint}", warning.message),
        // If the comparison says where the element belongs, the hint adds nothing.
        (Matter::Unknown, Some(hint)) if !one.message.contains("belongs") => {
            one.message = format!("{}; {hint}", one.message);
        }
        _ => {}
    }
    true
}

/// The line of the comparison that says the same as the warning, if there is one.
fn place<'f>(found: &'f mut [Comparison], warning: &Diagnostic) -> Option<&'f mut Comparison> {
    let at = (warning.line, warning.column);
    let begins = |one: &Comparison| one.line.zip(one.column);
    let one = match warning.matter {
        Matter::Other | Matter::Default => None,
        Matter::Missing { name, .. } => found.iter_mut().find(|one| {
            begins(one).is_none() && one.element.as_deref().is_some_and(|path| path.rsplit('/').next() == Some(name))
        }),
        // The warning's place lies inside the value, behind the beginning of the attribute.
        Matter::Blanks | Matter::Switch | Matter::Update | Matter::Expression | Matter::Shell => {
            found.iter_mut().rfind(|one| begins(one).is_some_and(|begins| begins <= at))
        }
        Matter::Unknown | Matter::Twice => found.iter_mut().find(|one| begins(one) == Some(at)),
        Matter::Localpaths | Matter::AuthWithSsh | Matter::PortWithSsh => {
            found.iter_mut().find(|one| one.element_at == Some(at) && one.told.contains(&warning.matter))
        }
        // Only one plugin is in use, so the matter alone decides.
        Matter::PluginWatch => found.iter_mut().find(|one| one.told.contains(&warning.matter)),
    };
    one.filter(|one| matches!(warning.matter, Matter::Missing { .. }) || one.told.contains(&warning.matter))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{compare, write_text};
    use super::*;
    use crate::config::tests::corpus;
    use crate::config::{outline, parse};

    /// A dropped `-u`, removed blanks and elements without a meaning were told by the comparison, and again by a warning below
    /// it.
    #[test]
    fn each_thing_is_told_once_for_every_file_of_the_corpus() {
        for (file, bytes) in corpus() {
            let (Ok(outline), Ok((_, warnings))) = (outline(&file), parse(&file, &bytes)) else { continue };
            let mut found = compare(&file, &outline);
            let all = warnings.clone();
            let rest = untold(&mut found, warnings);
            let mut text = Vec::new();
            write_text(&mut text, &found).expect("written");
            let mut text = String::from_utf8(text).expect("text");
            rest.iter().for_each(|warning| text.push_str(&format!("{}\n", warning.message)));
            let name = file.display();
            for word in
                ["-u is dropped", "did you mean atrib", "neither knows this element: <", "sersync watched the first"]
            {
                assert!(text.matches(word).count() <= 1, "{name}: {word}\n{text}");
            }
            for warning in all {
                let is_left = rest.contains(&warning);
                let said = match warning.matter {
                    Matter::Other | Matter::Default => "",
                    Matter::Missing { default, .. } => default,
                    Matter::Blanks if text.contains("taken for true") => "taken for true",
                    Matter::Blanks => "blanks",
                    Matter::Switch => "taken for true",
                    Matter::Update => "-u is dropped",
                    Matter::Expression => "is ignored: ",
                    Matter::Shell => "an argument like any other",
                    Matter::Unknown => "neither ",
                    Matter::Twice => "given twice",
                    Matter::Localpaths => "several `<localpath>`",
                    Matter::AuthWithSsh => "the password file is dropped",
                    Matter::PortWithSsh => "the port of sshd",
                    Matter::PluginWatch => "took the place",
                };
                assert!(is_left || !said.is_empty() && text.contains(said), "{name}: {warning}\n{text}");
            }
        }
    }

    /// If the comparison had the matter at that place in another sense, the warning would be lost.
    #[test]
    fn what_the_comparison_does_not_say_stays_a_warning() {
        let text = "<head><debug start=\"ture\"/><sersync><localpath watch=\"/a\"><remote ip=\"h\" name=\"m\"/></localpath>\
                    <rsync><timeout start=\" true\" time=\"x\" tiem=\"1\"/></rsync></sersync></head>";
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("c.xml");
        std::fs::write(&file, text).expect("a file");
        let (_, warnings) = parse(Path::new("c.xml"), text.as_bytes()).expect("a configuration");
        let mut found = compare(&file, &outline(&file).expect("an outline"));
        let rest: Vec<String> = untold(&mut found, warnings).into_iter().map(|warning| warning.message).collect();
        assert_eq!(rest, ["start: \"ture\" is taken as false", "time x is no number of seconds; 100 is used"]);
        let said = |element: &str, attribute: Option<&str>| {
            let of =
                |one: &&Comparison| one.element.as_deref() == Some(element) && one.attribute.as_deref() == attribute;
            found.iter().find(of).map(|one| one.message.clone()).unwrap_or_default()
        };
        assert_eq!(said("filter", None), "missing: sersync crashed; here nothing is excluded");
        assert!(said("sersync/rsync/timeout", Some("tiem")).ends_with("did you mean time?"));
    }
}
