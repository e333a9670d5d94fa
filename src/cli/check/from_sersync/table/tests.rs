//! The table is complete, and names what the page about sersync names.

use super::*;

#[test]
fn every_attribute_of_the_format_has_a_row_for_whatever_its_value_is() {
    let known = crate::config::known_attributes();
    for (element, attribute) in known.iter().filter(|(element, _)| !element.starts_with("syncq")) {
        let rows: Vec<&Row> =
            ROWS.iter().filter(|row| row.element == *element && row.attribute == *attribute).collect();
        assert!(rows.last().is_some_and(|row| matches!(row.when, Always)), "{element} {attribute}");
        assert!(rows.iter().rev().skip(1).all(|row| !matches!(row.when, Always)), "{element} {attribute}");
    }
    for row in ROWS {
        assert!(
            known.iter().any(|(e, a)| e == row.element && *a == row.attribute),
            "{} {}",
            row.element,
            row.attribute
        );
        assert_eq!(row.says.is_empty(), row.verdict == Same, "{} {}", row.element, row.attribute);
    }
    for element in MANDATORY {
        assert!(known.iter().any(|(known, _)| known.starts_with(element)), "{element}");
    }
}

/// The page about sersync has a table of the configuration too. What one of them names the other must name.
#[test]
fn the_page_about_sersync_names_the_same_elements() {
    let page = include_str!("../../../../../tests/compatibility.md");
    let (_, rest) = page.split_once("## Configuration").expect("its section");
    let (section, _) = rest.split_once("\n## ").expect("the next section");
    let firsts: String =
        section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).collect::<Vec<_>>().join("\n");
    let named: Vec<&str> = firsts.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).collect();
    let names = |row: &Row| row.element.split('/').chain([row.attribute]).map(str::to_owned).collect::<Vec<_>>();
    // Values and file names stand between backticks as well.
    let others = ["confxml.xml", "rsync_fail_log.sh", "command", "socket", "refreshCDN", "http"];
    for name in named.iter().filter(|name| !others.contains(name)) {
        assert!(ROWS.iter().any(|row| names(row).iter().any(|known| known == name)), "only the page names {name}");
    }
    // The sections of plugins have rows of their own there, by the plugin's name.
    for row in ROWS.iter().filter(|row| row.verdict == Differs && !row.element.contains("plugin")) {
        let name = row.element.rsplit('/').next().unwrap_or_default();
        // An expression stands for what holds it.
        let name = if name == "exclude" { "filter" } else { name };
        assert!(named.contains(&name) || row.says == OF_ITS_OWN, "the page does not name {name}");
    }
}
