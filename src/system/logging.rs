//! Where log records go and what they look like.
//!
//! One record is one line: control characters in it are escaped, so no file name can forge a record. On a terminal or in a
//! file a line is `time level area: message key=value`, or on request a JSON object. Under systemd the journal knows the
//! time, and `<N>` in front tells it the level. Everything that syncq writes to stderr while it runs goes through this
//! module, so a live view can stay below the log lines.
//!
//! Levels can be set per area, which is a module of syncq or sled: `info,mirror=debug`.
//!
//! Invariant: a log that cannot be written never stops the mirror; its records are lost.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use log::kv::{self, VisitSource, VisitValue};
use log::{Level, LevelFilter, Record};
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use serde_json::{Map, Value};

use super::LOG_TARGET;
use crate::clock::{Clock as _, SystemClock};
use crate::control;
use crate::model::Plain;
use crate::trust;

/// The level of logging if none is given.
pub const DEFAULT_LEVEL: &str = "info";

/// The areas that can have a level of their own: the modules of syncq, and the store's engine.
pub const AREAS: [&str; 17] = [
    "cli", "clock", "config", "control", "ctime", "daemon", "filter", "mirror", "model", "mounts", "plugin", "queue",
    "schedule", "sled", "store", "trust", "watch",
];

/// The form of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// One JSON object per record.
    Json,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Stderr,
    /// The file, and stderr as well until [`leave_terminal`].
    File(PathBuf),
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("cannot write the log file {}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the log level {given:?} makes no sense")]
    Level { given: String },
    #[error("there is no area {area:?} to set a log level for")]
    Area { area: String },
    #[error("logging is set up already")]
    Twice,
}

static CONSOLE: Mutex<Console> =
    Mutex::new(Console { file: None, to_stderr: true, std_to_file: false, live: String::new(), live_lines: 0 });

struct Console {
    file: Option<(PathBuf, File)>,
    to_stderr: bool,
    /// Both stdout and stderr lead to the log file.
    std_to_file: bool,
    /// The live view below the last log line, and its height in lines.
    live: String,
    live_lines: usize,
}

/// Starts logging at `level`: a word (`debug`), or a list with levels of single areas (`warn,watch=trace`). The error: the
/// level or area is unknown, or the file cannot be opened.
pub fn init(level: &str, form: Form, output: Output) -> Result<(), LoggingError> {
    let mut builder = env_logger::Builder::new();
    // sled logs every segment at info.
    builder.filter_module("sled", LevelFilter::Warn);
    for (module, level) in levels(level)? {
        builder.filter(module.as_deref(), level);
    }
    let style = match &output {
        Output::Stderr => Style::of_stderr(),
        Output::File(_) => Style::Plain,
    };
    if let Output::File(path) = output {
        let file = open(&path).map_err(|source| LoggingError::File { path: path.clone(), source })?;
        console().file = Some((path, file));
    }
    builder.format(move |buffer, record| {
        let mut line = String::with_capacity(160);
        let time = SystemClock.now().to_string();
        // Writing to a String cannot fail.
        let _ = match form {
            Form::Text => write_record(&mut line, style, &time, record),
            Form::Json => write_json(&mut line, style, &time, record),
        };
        buffer.write_all(line.as_bytes())
    });
    builder.target(env_logger::Target::Pipe(Box::new(Sink)));
    builder.try_init().map_err(|_| LoggingError::Twice)
}

/// Opens the log file anew, after it was rotated away. Does nothing if there is no log file.
pub fn reopen() {
    let mut console = console();
    let Some((path, _)) = console.file.take() else { return };
    match open(&path) {
        Ok(file) => {
            console.file = Some((path, file));
            if console.std_to_file {
                console.redirect_std();
            }
        }
        Err(error) => {
            drop(console);
            log::error!(target: LOG_TARGET, path:% = path.display(), error:%; "cannot reopen the log file");
        }
    }
}

/// Ends the copy on stderr and redirects stdout and stderr to the log file, for a daemon that has left its terminal.
pub fn leave_terminal() {
    let mut console = console();
    if console.file.is_some() {
        console.to_stderr = false;
        console.std_to_file = true;
        console.redirect_std();
    }
}

/// Shows `lines` below the log lines on the terminal, in place of the lines shown before. No lines take the view away.
pub fn show_live(lines: &[String]) {
    let mut console = console();
    let mut text = console.wipe();
    console.live.clear();
    for line in lines {
        // With wrapping off, a long line is cut at the terminal's edge, whatever the width of its characters.
        let _ = writeln!(console.live, "\x1b[?7l{line}\x1b[?7h");
    }
    console.live_lines = lines.len();
    text.push_str(&console.live);
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn console() -> MutexGuard<'static, Console> {
    CONSOLE.lock()
}

fn open(path: &std::path::Path) -> io::Result<File> {
    trust::open(path, OpenOptions::new().append(true).create(true).mode(0o640))
}

/// Reads a level or a list of levels into pairs of module and level. The level without a module is for all other modules.
fn levels(given: &str) -> Result<Vec<(Option<String>, LevelFilter)>, LoggingError> {
    given.split(',').map(|part| level(part.trim())).collect()
}

fn level(part: &str) -> Result<(Option<String>, LevelFilter), LoggingError> {
    let (area, level) = match part.split_once('=') {
        Some((area, level)) => (Some(area.trim()), level.trim()),
        None => (None, part),
    };
    let level = level.parse().map_err(|_| LoggingError::Level { given: part.to_owned() })?;
    let Some(area) = area else { return Ok((None, level)) };
    // The area may be `watch`, or more precisely `syncq::watch::table`.
    let inside = area.strip_prefix("syncq::").unwrap_or(area);
    let known = inside.split("::").next().is_some_and(|area| AREAS.contains(&area));
    if !known {
        return Err(LoggingError::Area { area: area.to_owned() });
    }
    let module = if inside == "sled" { inside.to_owned() } else { format!("syncq::{inside}") };
    Ok((Some(module), level))
}

impl Console {
    fn write(&mut self, line: &[u8]) {
        if let Some((_, file)) = &mut self.file {
            let _ = file.write_all(line);
        }
        if self.to_stderr {
            let mut text = self.wipe().into_bytes();
            text.extend_from_slice(line);
            text.extend_from_slice(self.live.as_bytes());
            // Log line and view are written in one piece, so that nothing flickers.
            let _ = io::stderr().lock().write_all(&text);
        }
    }

    /// The control sequence that takes the live view away and puts the cursor where the view began.
    fn wipe(&self) -> String {
        if self.live_lines == 0 { String::new() } else { format!("\r\x1b[{}A\x1b[J", self.live_lines) }
    }

    fn redirect_std(&mut self) {
        if let Some((_, file)) = &self.file {
            let _ = rustix::stdio::dup2_stdout(file);
            let _ = rustix::stdio::dup2_stderr(file);
        }
    }
}

struct Sink;

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        console().write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Coloured,
    Plain,
    Journal,
}

impl Style {
    fn of_stderr() -> Self {
        if is_journal() {
            Self::Journal
        } else if io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) {
            Self::Coloured
        } else {
            Self::Plain
        }
    }
}

/// Whether stderr is the stream that systemd announced. The variable alone is not enough: processes whose output goes
/// elsewhere inherit it.
fn is_journal() -> bool {
    let Some(announced) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    announced == format!("{}:{}", stderr.dev(), stderr.ino())
}

fn write_record(out: &mut String, style: Style, time: &str, record: &Record<'_>) -> fmt::Result {
    let level = record.level();
    match style {
        Style::Journal => write!(out, "<{}>", priority(level))?,
        Style::Plain => write!(out, "{time} {level:<5} ")?,
        Style::Coloured => write!(out, "\x1b[2m{time}\x1b[0m {}{level:<5}\x1b[0m ", colour(level))?,
    }
    write!(out, "{}: ", area(record.target()))?;
    write!(out, "{}", Plain(&record.args().to_string()))?;
    record.key_values().visit(&mut Fields { out: &mut *out }).map_err(|_| fmt::Error)?;
    out.push('\n');
    Ok(())
}

/// Writes one JSON object: `time`, `level`, `area`, `message`, and `fields` if there are any. For the journal the level
/// stands in front of it as well.
fn write_json(out: &mut String, style: Style, time: &str, record: &Record<'_>) -> fmt::Result {
    let level = record.level();
    if style == Style::Journal {
        write!(out, "<{}>", priority(level))?;
    }
    let mut fields = JsonFields::default();
    record.key_values().visit(&mut fields).map_err(|_| fmt::Error)?;
    let message = record.args().to_string();
    let level = level.as_str().to_ascii_lowercase();
    let json = JsonRecord { time, level: &level, area: area(record.target()), message: &message, fields: fields.0 };
    // Every value in the record has a form in JSON, so this cannot fail.
    let mut line = Vec::new();
    let _ = control::write_json(&mut line, &json);
    writeln!(out, "{}", String::from_utf8_lossy(&line))
}

#[derive(Serialize)]
struct JsonRecord<'a> {
    time: &'a str,
    level: &'a str,
    area: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
}

/// The area of a log target: `syncq::watch::scan` is `watch`.
fn area(target: &str) -> &str {
    let inside = target.strip_prefix("syncq::").unwrap_or(target);
    inside.split("::").next().unwrap_or(inside)
}

fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::Error => "\x1b[31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[32m",
        Level::Debug | Level::Trace => "\x1b[36m",
    }
}

struct Fields<'a> {
    out: &'a mut String,
}

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let value = value.to_string();
        let bare = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
        let result = if bare {
            write!(self.out, " {key}={}", Plain(&value))
        } else {
            write!(self.out, " {key}=\"{}\"", Plain(&value.replace('"', "'")))
        };
        result.map_err(kv::Error::from)
    }
}

/// The fields of a record, with their types.
#[derive(Default)]
struct JsonFields(Map<String, Value>);

impl<'kvs> VisitSource<'kvs> for JsonFields {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let mut json = JsonValue(Value::Null);
        value.visit(&mut json)?;
        self.0.insert(key.to_string(), json.0);
        Ok(())
    }
}

struct JsonValue(Value);

impl<'v> VisitValue<'v> for JsonValue {
    fn visit_any(&mut self, value: kv::Value<'_>) -> Result<(), kv::Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.0 = Value::Null;
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(style: Style, message: &str, field: &str) -> String {
        let mut out = String::new();
        let fields = [("path", field)];
        let args = format_args!("{message}").to_string();
        let written = write_record(
            &mut out,
            style,
            "T",
            &Record::builder()
                .level(Level::Warn)
                .target("syncq::watch::scan")
                .key_values(&fields)
                .args(format_args!("{args}"))
                .build(),
        );
        assert!(written.is_ok());
        out
    }

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        assert_eq!(line(Style::Plain, "gone", "a/b"), "T WARN  watch: gone path=a/b\n");
        assert_eq!(
            line(Style::Plain, "a\nT ERROR forged\x1b[2J", "x\ny \"z\""),
            "T WARN  watch: a\\nT ERROR forged\\u{1b}[2J path=\"x\\ny 'z'\"\n"
        );
    }

    #[test]
    fn the_journal_gets_a_priority_and_no_time() {
        assert_eq!(line(Style::Journal, "gone", ""), "<4>watch: gone path=\"\"\n");
    }

    #[test]
    fn the_live_view_is_wiped_by_its_height() {
        let mut console =
            Console { file: None, to_stderr: false, std_to_file: false, live: String::new(), live_lines: 0 };
        assert_eq!(console.wipe(), "");
        console.live_lines = 3;
        assert_eq!(console.wipe(), "\r\x1b[3A\x1b[J");
    }

    #[test]
    fn json_is_one_object_with_types_whatever_is_in_it() {
        let fields: [(&str, kv::Value<'_>); 4] =
            [("path", "a\nb\"".into()), ("dropped", 7_u64.into()), ("lag_s", 0.5.into()), ("time", true.into())];
        let written = |style| {
            let mut out = String::new();
            let record = Record::builder()
                .level(Level::Warn)
                .target("syncq::watch::scan")
                .key_values(&fields)
                .args(format_args!("gone\nfor good"))
                .build();
            write_json(&mut out, style, "T", &record).expect("a line");
            out
        };
        let line = written(Style::Plain);
        assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
        let object: Value = serde_json::from_str(&line).expect("JSON");
        let expected = serde_json::json!({
            "time": "T", "level": "warn", "area": "watch", "message": "gone\nfor good",
            "fields": {"path": "a\nb\"", "dropped": 7, "lag_s": 0.5, "time": true},
        });
        assert_eq!(object, expected);
        assert_eq!(written(Style::Journal), format!("<4>{line}"));
    }

    #[test]
    fn a_level_is_a_word_or_a_list_of_areas() {
        use LevelFilter::{Debug, Info, Trace, Warn};
        let module = |name: &str| Some(name.to_owned());
        for (good, expected) in [
            ("info", vec![(None, Info)]),
            (" DEBUG ", vec![(None, Debug)]),
            ("off", vec![(None, LevelFilter::Off)]),
            ("warn,watch=trace", vec![(None, Warn), (module("syncq::watch"), Trace)]),
            ("mirror = debug", vec![(module("syncq::mirror"), Debug)]),
            ("syncq::watch::table=trace", vec![(module("syncq::watch::table"), Trace)]),
            ("info, sled=debug", vec![(None, Info), (module("sled"), Debug)]),
        ] {
            assert_eq!(levels(good).expect(good), expected, "{good}");
        }
        for bad in ["", "loud", "info,quiet", "mirror=loud", "info,"] {
            assert!(matches!(levels(bad), Err(LoggingError::Level { .. })), "{bad}");
        }
        assert!(matches!(levels("mirrors=debug"), Err(LoggingError::Area { area }) if area == "mirrors"));
    }

    #[test]
    fn every_module_is_an_area() {
        let modules = include_str!("../lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod "));
        // `dispatch` logs as `mirror`, and `system` as `daemon`.
        let other = ["dispatch", "system"];
        for module in modules.map(|name| name.trim_end_matches(';')).filter(|module| !other.contains(module)) {
            assert!(AREAS.contains(&module), "{module} is missing in AREAS");
        }
    }
}
