//! Every file in `tests/fixtures/configs` beside what it means: the effective configuration with its warnings, or the
//! error, each with line and column. `SYNCQ_GOLDEN=write` writes the results anew, for a person to read the difference.

use std::fmt::Write;
use std::path::PathBuf;

use super::*;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/configs");

/// The files of the corpus, sorted by name.
pub(super) fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(DIRECTORY).expect("the corpus");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "xml"));
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect()
}

fn meaning(file: &Path, bytes: &[u8]) -> String {
    let name = Path::new(file.file_name().expect("a name"));
    let mut text = String::new();
    match parse(name, bytes) {
        Ok((config, diagnostics)) => {
            show(&mut text, &config).expect("text");
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

/// What differs from the defaults, and what has none.
fn show(out: &mut String, config: &Config) -> std::fmt::Result {
    for (root, spelled) in config.roots.iter().zip(&config.spelled) {
        writeln!(out, "root {:?} spelled {spelled:?}", root.path)?;
        let defaults = model::EventSwitches::default();
        if root.events != defaults {
            writeln!(out, "    {:?}", root.events)?;
        }
        if !root.excludes.is_empty() {
            writeln!(out, "    excludes {:?}", root.excludes)?;
        }
        if let Some(schedule) = &root.schedule {
            writeln!(out, "    schedule {schedule:?}")?;
        }
        if root.legacy_hidden {
            writeln!(out, "    legacy hidden")?;
        }
        for target in &root.targets {
            let options = &target.options;
            writeln!(out, "    target {:?}", target.destination)?;
            write!(out, "        params {:?}", options.params)?;
            for (name, value) in [
                ("password file", options.password_file.as_ref().map(|file| format!("{file:?}"))),
                ("port", options.port.map(|port| port.to_string())),
                ("timeout", options.timeout.map(|timeout| format!("{timeout:?}"))),
                ("no deletions", (!options.delete).then(String::new)),
                (
                    "crontab excludes",
                    (!options.reconcile_excludes.is_empty()).then(|| format!("{:?}", options.reconcile_excludes)),
                ),
            ] {
                if let Some(value) = value {
                    write!(out, ", {name} {value}")?;
                }
            }
            writeln!(out)?;
        }
    }
    if config.debug {
        writeln!(out, "debug")?;
    }
    // Only what differs, so that a new setting does not touch every file.
    let (settings, defaults) = (format!("{:#?}", config.settings), format!("{:#?}", Settings::default()));
    for (setting, _) in settings.lines().zip(defaults.lines()).filter(|(setting, default)| setting != default) {
        writeln!(out, "setting {}", setting.trim().trim_end_matches(','))?;
    }
    match &config.fail_log {
        Some(path) => writeln!(out, "fail log {path:?}")?,
        None => writeln!(out, "no fail log")?,
    }
    if let Some(plugin) = &config.plugin {
        writeln!(out, "in use: {plugin:?}")?;
    }
    let complete: Vec<_> = config.plugins.iter().map(|plugin| plugin.kind().as_str()).collect();
    writeln!(out, "plugin sections: {complete:?}")
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
