//! Shapes of output: a table on a terminal, tab-separated lines for a pipe, JSON on request.
//!
//! Every write is checked for errors. A reader who has seen enough (`| head`) thus ends the command quietly; see
//! `exit::report`.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::control::{TargetState, write_json};
pub use crate::model::counted;

/// The most rows of one table. A longer list becomes several tables, since the widths of columns need all rows in memory.
const TABLE_ROWS_MAX: usize = 1_000;

/// The most parts that one line tells. A person reads no more, and a script uses JSON.
const PARTS_MAX: usize = 5;

/// The form of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Table,
    Tabs,
}

impl Form {
    pub fn of_stdout() -> Self {
        if io::stdout().is_terminal() { Self::Table } else { Self::Tabs }
    }
}

/// Rows of text on their way to stdout.
pub struct Rows<W: io::Write> {
    out: W,
    form: Form,
    header: Vec<&'static str>,
    gathered: Vec<(Vec<String>, Tone)>,
    /// The index of the column that is coloured by the row's tone.
    toned: Option<usize>,
    any: bool,
}

/// Standard output, buffered.
pub fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

impl<W: io::Write> Rows<W> {
    pub fn new(out: W, form: Form, header: &[&'static str]) -> Self {
        Self { out, form, header: header.to_vec(), gathered: Vec::new(), toned: None, any: false }
    }

    /// Colours the cells of a column by their row's tone, if the terminal has colours.
    pub fn toned(self, column: usize) -> Self {
        Self { toned: Some(column).filter(|_| has_colours(io::stdout().is_terminal())), ..self }
    }

    pub fn push(&mut self, row: Vec<String>) -> io::Result<()> {
        self.push_toned(row, Tone::Plain)
    }

    pub fn push_toned(&mut self, row: Vec<String>, tone: Tone) -> io::Result<()> {
        match self.form {
            Form::Tabs => {
                self.any = true;
                writeln!(self.out, "{}", row.join("\t"))
            }
            Form::Table => {
                self.gathered.push((row, tone));
                if self.gathered.len() >= TABLE_ROWS_MAX { self.flush_table() } else { Ok(()) }
            }
        }
    }

    /// Writes the remaining rows, and returns whether there were any rows.
    pub fn end(mut self) -> io::Result<bool> {
        self.flush_table()?;
        self.out.flush()?;
        Ok(self.any)
    }

    fn flush_table(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.any = true;
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let toned = self.toned;
        let cells = |(row, tone): (Vec<String>, Tone)| -> Vec<Cell> {
            let cell = |(at, text): (usize, String)| match tone.colour().filter(|_| toned == Some(at)) {
                Some(colour) => Cell::new(text).fg(colour).add_attribute(Attribute::Bold),
                None => Cell::new(text),
            };
            row.into_iter().enumerate().map(cell).collect()
        };
        table.set_header(self.header.clone()).add_rows(self.gathered.drain(..).map(cells));
        if toned.is_some() {
            table.enforce_styling();
        }
        for line in table.lines() {
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Writes one JSON value on a line of its own.
pub fn json_line(out: &mut impl io::Write, value: &impl Serialize) -> io::Result<()> {
    write_json(out, value)?;
    writeln!(out)
}

pub use crate::model::plain;

/// Joins parts to one line. Of many parts only the first `PARTS_MAX` appear.
pub fn some(parts: &[String]) -> String {
    let shown = parts.get(..PARTS_MAX).unwrap_or(parts).join("; ");
    match parts.len().saturating_sub(PARTS_MAX) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

/// An age in seconds in words for people: the two greatest units.
pub fn age(seconds: f64) -> String {
    if seconds < 1.0 {
        return if seconds > 0.0 { "<1s".to_owned() } else { "-".to_owned() };
    }
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole}s"),
        (0, 0, _) => format!("{minutes}m{}s", whole % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// How much a word on a terminal calls for attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    /// The state passes by itself, or an operator has wanted it.
    Waits,
    /// An operator has to act, or soon will have to.
    Trouble,
}

impl Tone {
    /// The tone for the state of a target.
    pub fn of(state: TargetState) -> Self {
        use TargetState as State;
        match state {
            State::Idle | State::Scanning | State::Syncing | State::Comparing | State::Offline | State::Unknown => {
                Self::Plain
            }
            State::Paused | State::Busy | State::BackingOff => Self::Waits,
            State::Failing | State::Misconfigured | State::SourceGone | State::TargetGone | State::NeedsApproval => {
                Self::Trouble
            }
        }
    }

    /// The colour of a cell.
    fn colour(self) -> Option<Color> {
        match self {
            Self::Plain => None,
            Self::Waits => Some(Color::Yellow),
            Self::Trouble => Some(Color::Red),
        }
    }

    /// The text with control sequences around it.
    pub fn painted(self, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Waits => format!("\x1b[33m{text}\x1b[0m"),
            Self::Trouble => format!("\x1b[1;31m{text}\x1b[0m"),
        }
    }
}

/// Whether output to the terminal gets colours.
pub fn has_colours(is_terminal: bool) -> bool {
    let is_empty = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    is_terminal && is_empty("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The longest beginning of a text that fits into `columns` columns of a terminal.
pub fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        // The last column is for the sign that the text was cut.
        used < columns
    };
    let mut shown: String = text.chars().take_while(fits).collect();
    shown.push('…');
    shown
}

/// A number of bytes in words for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut shown = format!("{bytes} B");
    for unit in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        shown = format!("{value:.1} {unit}");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: Form) -> String {
        let mut out = Vec::new();
        let mut rows = Rows::new(&mut out, form, &["A", "B"]);
        rows.push(vec!["1".into(), "long".into()]).expect("a row");
        rows.push(vec!["22".into(), String::new()]).expect("a row");
        assert!(rows.end().expect("an end"));
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_pipe_gets_tabs_and_a_terminal_a_table() {
        assert_eq!(written(Form::Tabs), "1\tlong\n22\t\n");
        let table = written(Form::Table);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [vec!["A", "B"], vec!["1", "long"], vec!["22"]]);
    }

    /// A wait for twenty targets that were away ended with a line of two screens.
    #[test]
    fn of_many_parts_the_first_are_told() {
        let parts: Vec<String> = (1..=7).map(|n| format!("t{n}")).collect();
        assert_eq!(some(&parts), "t1; t2; t3; t4; t5; and 2 more");
        assert_eq!(some(&parts[..5]), "t1; t2; t3; t4; t5");
        assert_eq!(some(&[]), "");
    }

    #[test]
    fn ages_and_sizes_read_well() {
        for (seconds, text) in
            [(0.0, "-"), (0.4, "<1s"), (59.9, "59s"), (61.0, "1m1s"), (3_700.0, "1h1m"), (90_000.0, "1d1h")]
        {
            assert_eq!(age(seconds), text);
        }
        for (bytes, text) in [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (u64::MAX, "16384.0 PiB")] {
            assert_eq!(size(bytes), text);
        }
    }

    /// A row that was longer than the terminal left its own last character in the last column.
    #[test]
    fn a_row_is_cut_where_the_terminal_ends() {
        for (text, columns, expected) in [
            ("short", 5, "short"),
            ("longer", 5, "long…"),
            ("连接连接", 6, "连接…"),
            ("连接连接", 5, "连接…"),
            ("", 0, ""),
        ] {
            assert_eq!(cut(text, columns), expected, "{text} {columns}");
            assert!(expected.width() <= columns);
        }
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(plain("a\tb\x1b[2Jé"), "a\\tb\\u{1b}[2Jé");
    }
}
