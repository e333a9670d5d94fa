//! The actions with their times, in UTC as in the daemon's log: kept in memory, and in a file beside the trees.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone)]
pub struct Journal {
    verbose: bool,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    lines: Vec<String>,
    file: Option<File>,
}

impl Journal {
    pub fn new(verbose: bool) -> Self {
        Self { verbose, inner: Arc::default() }
    }

    /// From now on also writes the journal to a file in `dir`.
    pub fn keep_in(&self, dir: &Path) {
        let file = OpenOptions::new().create(true).append(true).open(dir.join("journal.log"));
        self.inner.lock().expect("the journal").file = Some(file.expect("cannot create the journal's file"));
    }

    pub fn note(&self, text: impl AsRef<str>) {
        let line = format!("{} {}", chrono::Utc::now().format("%H:%M:%S%.3f"), text.as_ref());
        if self.verbose {
            eprintln!("{line}");
        }
        let mut inner = self.inner.lock().expect("the journal");
        if let Some(file) = &mut inner.file {
            let _ = writeln!(file, "{line}");
        }
        inner.lines.push(line);
    }

    pub fn tail(&self, count: usize) -> Vec<String> {
        let inner = self.inner.lock().expect("the journal");
        inner.lines[inner.lines.len().saturating_sub(count)..].to_vec()
    }
}
