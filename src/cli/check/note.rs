//! One finding of `syncq check`, as text and as JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::output::counted;
use crate::cli::output::{json_line, plain};
use crate::model::TargetTrouble;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    /// Mirroring works, but less well than it could.
    Warn,
    /// Something will not be mirrored.
    Fail,
}

/// The subject area of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    Config,
    Effective,
    Rsync,
    Source,
    Limits,
    Password,
    State,
    Daemon,
    Plugin,
    Target,
}

impl Check {
    fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Effective => "effective",
            Self::Rsync => "rsync",
            Self::Source => "source",
            Self::Limits => "limits",
            Self::Password => "password",
            Self::State => "state",
            Self::Daemon => "daemon",
            Self::Plugin => "plugin",
            Self::Target => "target",
        }
    }
}

/// A finding. The fields are those of a line of `--json`, which always has all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    pub level: Level,
    pub check: Check,
    /// The file, directory or target that the finding is about.
    pub subject: String,
    pub message: String,
    /// The way out of the fault.
    pub hint: Option<String>,
    /// The root of a target.
    pub root: Option<String>,
    /// The rsync command that failed, to be tried by hand.
    pub command: Option<String>,
    /// The line in the configuration file, counted from 1.
    pub line: Option<u32>,
    pub column: Option<u32>,
}

impl Note {
    pub fn new(level: Level, check: Check, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            level,
            check,
            subject: subject.into(),
            message: message.into(),
            hint: None,
            root: None,
            command: None,
            line: None,
            column: None,
        }
    }

    pub fn ok(check: Check, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, check, subject, message)
    }

    pub fn warn(check: Check, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Warn, check, subject, message)
    }

    pub fn fail(check: Check, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Fail, check, subject, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn at(mut self, line: u32, column: u32) -> Self {
        (self.line, self.column) = (Some(line), Some(column));
        self
    }

    /// The trouble of a target, in the words of `status`.
    pub fn trouble(subject: impl Into<String>, found: &TargetTrouble) -> Self {
        let mut note = Self::fail(Check::Target, subject, found.message.clone());
        note.hint.clone_from(&found.hint);
        note.command.clone_from(&found.command);
        note
    }
}

/// Prints findings as they come, and remembers the worst level.
pub struct Report<W: Write> {
    pub out: W,
    pub json: bool,
    /// Whether roots are printed because several targets have the same name.
    pub names_roots: bool,
    worst: Level,
    warnings: u64,
    failures: u64,
}

impl<W: Write> Report<W> {
    pub fn new(out: W, json: bool) -> Self {
        Self { out, json, names_roots: false, worst: Level::Ok, warnings: 0, failures: 0 }
    }

    pub fn add(&mut self, note: &Note) -> io::Result<()> {
        self.worst = self.worst.max(note.level);
        match note.level {
            Level::Ok => {}
            Level::Warn => self.warnings += 1,
            Level::Fail => self.failures += 1,
        }
        if self.json {
            return json_line(&mut self.out, note);
        }
        write_text(&mut self.out, note, note.root.as_deref().filter(|_| self.names_roots))
    }

    pub fn add_all<'n>(&mut self, notes: impl IntoIterator<Item = &'n Note>) -> io::Result<()> {
        notes.into_iter().try_for_each(|note| self.add(note))
    }

    /// Writes the last line, and returns whether anything failed.
    pub fn end(mut self) -> io::Result<bool> {
        if !self.json {
            writeln!(self.out, "\n{}, {}", counted(self.failures, "failure"), counted(self.warnings, "warning"))?;
        }
        self.out.flush()?;
        Ok(self.worst == Level::Fail)
    }
}

fn write_text(out: &mut impl Write, note: &Note, root: Option<&str>) -> io::Result<()> {
    if note.check == Check::Effective {
        return writeln!(out, "    {}", plain(&note.message));
    }
    let level = match note.level {
        Level::Ok => "ok  ",
        Level::Warn => "warn",
        Level::Fail => "fail",
    };
    write!(out, "{level}  {:<8}  {}", note.check.as_str(), plain(&note.subject))?;
    if let (Some(line), Some(column)) = (note.line, note.column) {
        write!(out, ":{line}:{column}")?;
    }
    if let Some(root) = root {
        write!(out, " for {}", plain(root))?;
    }
    writeln!(out, ": {}", plain(&note.message))?;
    for (name, text) in [("hint", &note.hint), ("command", &note.command)] {
        if let Some(text) = text {
            writeln!(out, "                {name}: {}", plain(text))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: bool, notes: &[Note]) -> (String, bool) {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out, json);
        report.add_all(notes).expect("written");
        let failed = report.end().expect("written");
        (String::from_utf8(out).expect("text"), failed)
    }

    #[test]
    fn a_finding_is_one_line_with_its_hint_below() {
        let warning = Note::warn(Check::Config, "/etc/c.xml", "a\nb").hint("write c").at(3, 7);
        let (text, failed) = written(false, &[Note::ok(Check::Rsync, "rsync", "version 3.5.0"), warning]);
        assert_eq!(
            text,
            "ok    rsync     rsync: version 3.5.0\nwarn  config    /etc/c.xml:3:7: a\\nb\n                hint: write c\n\n\
             0 failures, 1 warning\n"
        );
        assert!(!failed);
        assert!(written(false, &[Note::fail(Check::Target, "t", "m")]).1);
    }

    /// The keys that `--json` promises: every field, always, and nothing else.
    #[test]
    fn a_line_of_json_has_every_field() {
        let found = TargetTrouble {
            class: crate::model::TroubleClass::Misconfigured,
            code: Some(5),
            message: "no".to_owned(),
            hint: Some("do".to_owned()),
            command: Some("rsync".to_owned()),
        };
        let (text, failed) = written(true, &[Note::trouble("h::m", &found)]);
        assert_eq!(
            text,
            r#"{"level":"fail","check":"target","subject":"h::m","message":"no","hint":"do","root":null,"command":"rsync","line":null,"column":null}"#
                .to_owned()
                + "\n"
        );
        assert!(failed);
    }
}
