//! The page about sersync names the test that proves each of its rows. A test that is renamed has to be renamed there too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn functions(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn ")?.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_test_that_the_page_about_sersync_names_exists() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = BTreeSet::new();
    for directory in ["src", "tests"] {
        functions(&repository.join(directory), &mut known);
    }
    let page = fs::read_to_string(repository.join("tests/compatibility.md")).expect("the page");
    // Of the words between backticks, only tests have several underscores.
    let is_test = |name: &&str| name.matches('_').count() >= 3 && !name.contains(['.', ' ', '/', '-']);
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(is_test).collect();
    assert!(named.len() > 100, "{} names", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !known.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
