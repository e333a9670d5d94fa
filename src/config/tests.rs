use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::bytes::CONFIG_BYTES_MAX;
use super::*;
use crate::model::{self, Backoff, Destination, Endpoint, MaxDelete, Schedule, Settings};

const STOCK: &str = include_str!("../../tests/fixtures/configs/stock.xml");

macro_rules! fixture {
    ($name:literal) => {
        ok(include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/configs/", $name)))
    };
}

fn ok(bytes: &[u8]) -> (Config, Vec<String>) {
    let (config, diagnostics) =
        parse(Path::new("c.xml"), bytes).unwrap_or_else(|error| panic!("{error} ({:?})", error.hint()));
    (config, diagnostics.iter().map(ToString::to_string).collect())
}

fn fault(bytes: &[u8]) -> ConfigError {
    parse(Path::new("c.xml"), bytes).expect_err(&String::from_utf8_lossy(bytes))
}

/// The stock file with one piece exchanged. Its `-artuz` becomes `-artz`, which causes no warning.
fn stock_with(from: &str, to: &str) -> String {
    assert!(STOCK.contains(from), "{from} is in the stock file");
    STOCK.replacen(from, to, 1).replacen("-artuz", "-artz", 1)
}

fn warnings(from: &str, to: &str) -> Vec<String> {
    ok(stock_with(from, to).as_bytes()).1
}

fn names(config: &Config) -> Vec<String> {
    config.roots.iter().flat_map(|root| &root.targets).map(model::Target::name).collect()
}

fn daemon(host: &str, module: &[u8]) -> Destination {
    Destination::Daemon { host: host.into(), module: OsStr::from_bytes(module).into() }
}

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/configs");

/// The files of the corpus, sorted by name.
pub(crate) fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(DIRECTORY).expect("the corpus");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "xml"));
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect()
}

mod errors;
mod fixtures;
mod fuzz;
mod options;

proptest! {
    #[test]
    fn arbitrary_bytes_are_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(Path::new("c.xml"), &bytes);
        let _ = outline::read(Path::new("c.xml"), &bytes);
    }

    #[test]
    fn a_damaged_stock_file_is_never_a_panic(
        at in 0..STOCK.len(),
        cut in 0..40usize,
        junk in "[<>/=\"'&;!a-z \\n-]{0,12}",
    ) {
        let mut bytes = STOCK.as_bytes().to_vec();
        bytes.splice(at..(at + cut).min(STOCK.len()), junk.into_bytes());
        if let Err(error) = parse(Path::new("c.xml"), &bytes) {
            prop_assert!(error.to_string().starts_with("c.xml:"));
        }
        // A file that can be parsed can also be outlined.
        prop_assert!(outline::read(Path::new("c.xml"), &bytes).is_ok() || parse(Path::new("c.xml"), &bytes).is_err());
    }
}
