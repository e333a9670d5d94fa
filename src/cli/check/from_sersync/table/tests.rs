//! The table has a row for every attribute and element.

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
        assert_eq!(row.text().is_empty(), row.verdict == Same, "{} {}", row.element, row.attribute);
    }
    for element in MANDATORY {
        assert!(known.iter().any(|(known, _)| known.starts_with(element)), "{element}");
    }
}
