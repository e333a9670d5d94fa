//! Makes the tables of README and of the page about sersync from `facts` and `table`, and compares them with the documents.
//!
//! `SYNCQ_GOLDEN=write` writes the tables anew. Texts that only the page has are in `page`.

use std::path::Path;

use super::facts::{Fact, IN_GENERAL, IN_PLACE};
use super::page::{AT_LARGE, COMMAND_LINE, FURTHER_LOSSES, TESTED};
use super::row::{Row, Verdict, sentences};
use super::table::{
    AS_ABOVE, BLANKS, NO_AUTH, NO_CRONTAB, NO_CRONTAB_FILTER, NO_EXPRESSION, NO_FILTER, NOT_IN_USE, OF_ITS_OWN, ROWS,
};

/// Texts that hold for many attributes, and say nothing about a particular one.
const SAID_OFTEN: [&str; 9] =
    [AS_ABOVE, BLANKS, NO_AUTH, NO_CRONTAB, NO_CRONTAB_FILTER, NO_EXPRESSION, NO_FILTER, NOT_IN_USE, OF_ITS_OWN];

fn code(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A row of a table, with escapes for characters that would end a cell.
fn line(cells: &[&str]) -> String {
    cells.iter().map(|cell| format!("| {} ", cell.replace('|', "\\|"))).collect::<String>() + "|\n"
}

fn in_general() -> String {
    let lines = IN_GENERAL.iter().map(|fact| line(&[fact.about, fact.sersync, fact.syncq]));
    format!("| | sersync | syncq |\n|---|---|---|\n{}", lines.collect::<String>())
}

/// The attributes that have a row in the document, in the order of the format.
fn configuration() -> String {
    let mut attributes: Vec<(&str, &str)> = ROWS.iter().map(|row| (row.element, row.attribute)).collect();
    attributes.dedup();
    let attribute = |(element, attribute): (&str, &str)| {
        let tested = TESTED.iter().find(|(e, a, ..)| (*e, *a) == (element, attribute));
        let (note, tests) = tested.map_or(("", &[][..]), |(_, _, note, tests)| (*note, *tests));
        let rows = ROWS
            .iter()
            .filter(|row| (row.element, row.attribute) == (element, attribute) && !SAID_OFTEN.contains(&row.says));
        let differs = rows.clone().filter(|row| row.verdict == Verdict::Differs).map(Row::text);
        let unused = rows.filter(|row| row.verdict == Verdict::Unused).map(Row::text).take(1);
        let mut said: Vec<String> = Some(note.to_owned()).filter(|note| !note.is_empty()).into_iter().collect();
        said.extend(differs);
        if said.is_empty() && !tests.is_empty() {
            said.extend(unused);
        }
        if said.is_empty() && !tests.is_empty() {
            said.push("the same".to_owned());
        }
        (!said.is_empty()).then(|| line(&[&format!("`{element}` `{attribute}`"), &sentences(said), &code(tests)]))
    };
    let large = AT_LARGE.iter().map(|fact| line(&[fact.about, fact.syncq, &code(fact.tests)]));
    let lines = large.chain(attributes.into_iter().filter_map(attribute));
    format!("| in `confxml.xml` | syncq | test |\n|---|---|---|\n{}", lines.collect::<String>())
}

fn command_line() -> String {
    let lines = COMMAND_LINE.iter().map(|fact| line(&[fact.sersync, fact.syncq, &code(fact.tests)]));
    format!("| sersync | syncq | test |\n|---|---|---|\n{}", lines.collect::<String>())
}

/// The table of losses: L8 comes before L8b, L8b before L10, and all of these before S1.
fn losses() -> String {
    let numbered =
        IN_GENERAL.iter().chain(IN_PLACE).copied().chain(FURTHER_LOSSES).filter(|fact| !fact.number.is_empty());
    let mut all: Vec<&Fact> = numbered.collect();
    all.sort_by_key(|fact| {
        let digits: String = fact.number.chars().filter(char::is_ascii_digit).collect();
        (fact.number.chars().next(), digits.parse::<u32>().expect("a number"), fact.number)
    });
    let cell = |fact: &Fact| {
        if fact.about.is_empty() { fact.sersync.to_owned() } else { format!("{}: {}", fact.about, fact.sersync) }
    };
    let lines = all.iter().map(|fact| line(&[fact.number, &cell(fact), &code(fact.tests)]));
    format!("| | in sersync | test |\n|---|---|---|\n{}", lines.collect::<String>())
}

fn further() -> String {
    let lines = IN_GENERAL.iter().filter(|fact| fact.number.is_empty() && !fact.tests.is_empty());
    let lines = lines.map(|fact| line(&[fact.about, fact.sersync, fact.syncq, &code(fact.tests)]));
    format!("| | sersync | syncq | test |\n|---|---|---|---|\n{}", lines.collect::<String>())
}

/// Replaces the text between a document's marks by `table`, and returns whether it was equal before.
fn hold(document: &mut String, name: &str, table: &str) -> bool {
    let begin = format!("<!-- facts: {name} -->\n");
    let (before, rest) = document.split_once(&begin).unwrap_or_else(|| panic!("no mark {begin}"));
    let (found, behind) = rest.split_once("<!-- end of facts -->").expect("an end of the table");
    let is_equal = found == table;
    *document = format!("{before}{begin}{table}<!-- end of facts -->{behind}");
    is_equal
}

#[test]
fn the_tables_about_sersync_are_made_of_the_facts() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents: [(&str, &[(&str, String)]); 2] = [
        ("README.md", &[("in general", in_general())]),
        (
            "tests/compatibility.md",
            &[
                ("configuration", configuration()),
                ("command line", command_line()),
                ("losses", losses()),
                ("further differences", further()),
            ],
        ),
    ];
    for (name, tables) in documents {
        let file = repository.join(name);
        let mut text = std::fs::read_to_string(&file).expect("a document");
        let changed: Vec<&str> =
            tables.iter().filter(|(name, table)| !hold(&mut text, name, table)).map(|(name, _)| *name).collect();
        if std::env::var_os("SYNCQ_GOLDEN").is_some_and(|value| value == "write") {
            std::fs::write(&file, text).expect("a file");
        } else {
            assert!(
                changed.is_empty(),
                "{name}: {changed:?} differ from the facts: SYNCQ_GOLDEN=write writes them anew"
            );
        }
    }
}

/// Every attribute in `TESTED` has a row in the table, and no loss is told twice.
#[test]
fn what_is_tested_is_in_the_table() {
    for (element, attribute, ..) in TESTED {
        assert!(ROWS.iter().any(|row| row.element == *element && row.attribute == *attribute), "{element} {attribute}");
    }
    let all: Vec<&Fact> = IN_GENERAL.iter().chain(IN_PLACE).copied().chain(FURTHER_LOSSES).collect();
    for fact in &all {
        assert!(all.iter().filter(|other| other.about == fact.about && other.sersync == fact.sersync).count() == 1);
        assert!(fact.number.is_empty() || !fact.tests.is_empty(), "{}", fact.number);
    }
}
