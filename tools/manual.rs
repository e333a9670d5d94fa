//! Writes the manual pages and the completions of bash, zsh and fish into a directory: `cargo run --example manual DIR`.
//!
//! The pages are made from the definition of the command line, so they say the same as `--help`. The page of the configuration
//! is made from the example file, whose comments explain each setting. This is an example target, so that the program itself
//! does not contain the generators.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).ok_or_else(|| anyhow::anyhow!("usage: manual DIR"))?;
    let dir = Path::new(&dir);
    fs::create_dir_all(dir)?;
    let mut command = syncq::cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "syncq", dir)?;
        // The command of sersync's name has sersync's command line, so syncq's subcommands are not offered for it.
        if let Some(run) = command.find_subcommand("run") {
            generate_to(shell, &mut run.clone().name("sersync2").bin_name("sersync2"), "sersync2", dir)?;
        }
    }
    // `build` fills in the full names of the subcommands. The help subcommand gets no page.
    let mut command = syncq::cli::command().disable_help_subcommand(true);
    command.build();
    write_pages(dir, "syncq", &command, None)?;
    // sersync's name stands for `syncq run`.
    fs::write(dir.join("sersync2.1"), ".so man1/syncq-run.1\n")?;
    write_format(dir)?;
    Ok(())
}

/// The files that syncq reads and writes, and the environment variables that it heeds.
const FILES: [(&str, &str); 6] = [
    ("/etc/syncq/NAME.xml", "the configuration of the unit syncq@NAME; its format: confxml.xml(5)"),
    ("/var/lib/syncq/NAME", "the state directory, with the queue, of root's syncq run -o NAME.xml"),
    ("$XDG_STATE_HOME/syncq/NAME, ~/.local/state/syncq/NAME", "the same of another user"),
    ("control.sock, there", "the control API, as JSON over HTTP"),
    ("syncq.log, there", "the log of a daemon that was started with -d"),
    (
        "/usr/share/doc/syncq/examples",
        "a configuration with all settings, one for rsyncd, and one for units without root",
    ),
];
const ENVIRONMENT: [(&str, &str); 5] = [
    ("SYNCQ_LOG, SYNCQ_LOG_FORMAT", "as --log-level and --log-format, which win"),
    ("NO_COLOR", "no colours on a terminal, if it is set and not empty"),
    ("XDG_STATE_HOME, HOME", "where other users than root have their state directories"),
    ("TMPDIR", "where commands that work without a daemon copy a store to"),
    (
        "RSYNC_PASSWORD, RSYNC_RSH, RSYNC_PROXY, RSYNC_CONNECT_PROG and others of rsync's",
        "hold where they mean something; the start and syncq check name those that do",
    ),
];

/// Writes a section of names, each with its meaning.
fn named(roff: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (name, what) in entries {
        roff.control("TP", []).text([bold(*name)]).text([roman(*what)]);
    }
}

/// Writes the page of the configuration's format: an introduction, then the example file.
fn write_format(dir: &Path) -> io::Result<()> {
    let source = format!("syncq {}", env!("CARGO_PKG_VERSION"));
    let mut roff = Roff::new();
    roff.control("TH", ["confxml.xml", "5", "", source.as_str(), "syncq"]);
    roff.control("SH", ["NAME"]).text([roman("confxml.xml - what syncq mirrors, and how")]);
    roff.control("SH", ["DESCRIPTION"]).text([roman(
        "An XML file in the format of sersync 2.5, which is read as it is, with an element of syncq's own. Below is one with \
         all settings and their usual values; its comments say what they mean.",
    )]);
    roff.control("PP", []).text([roman(
        "What is left out has its default. syncq check -o FILE names what is wrong or odd, with line and column, and syncq check \
         --from-sersync FILE says line by line what sersync made of it.",
    )]);
    roff.control("SH", ["EXAMPLE"]).control("nf", []);
    for line in include_str!("../conf/confxml.xml").lines() {
        // roff would drop an empty line, so it becomes a blank.
        roff.text([roman(if line.is_empty() { " " } else { line })]);
    }
    roff.control("fi", []);
    roff.control("SH", ["SEE ALSO"]).text([roman("syncq(1), syncq-run(1), syncq-check(1), rsync(1)")]);
    let mut page = Vec::new();
    roff.to_writer(&mut page)?;
    fs::write(dir.join("confxml.xml.5"), page)
}

/// Writes the page of a command, and those of all its subcommands.
fn write_pages(dir: &Path, name: &str, command: &Command, above: Option<&str>) -> io::Result<()> {
    let below: Vec<String> = command.get_subcommands().map(|sub| format!("{name}-{}", sub.get_name())).collect();
    let see_also: Vec<String> = above.map(str::to_owned).into_iter().chain(below.iter().cloned()).collect();
    write_page(dir, name, command, &see_also)?;
    command.get_subcommands().zip(&below).try_for_each(|(sub, page)| write_pages(dir, page, sub, Some(name)))
}

fn write_page(dir: &Path, name: &str, command: &Command, see_also: &[String]) -> io::Result<()> {
    let title = name.to_owned();
    let source = format!("syncq {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).title(title).section("1").source(source).manual("syncq");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis(command).to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    tail(command, see_also).to_writer(&mut page)?;
    fs::write(dir.join(format!("{name}.1")), page)
}

/// The usage line of the command, with the repetitions that its help shows.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]).control("nf", []);
    for line in usage.trim_start_matches("Usage:").lines() {
        roff.text([roman(line.trim())]);
    }
    roff.control("fi", []);
    roff
}

/// The text behind the options in the help, as one section for each paragraph with a heading, and the list of other pages.
fn tail(command: &Command, see_also: &[String]) -> Roff {
    let mut roff = Roff::new();
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for paragraph in text.split("\n\n") {
        let (heading, lines) = match paragraph.split_once(":\n") {
            Some((heading, lines)) if !heading.contains('\n') => (heading.to_uppercase(), lines),
            _ => ("NOTES".to_owned(), paragraph),
        };
        let heading = if heading == "EXIT CODES" { "EXIT STATUS".to_owned() } else { heading };
        roff.control("SH", [heading.as_str()]).control("nf", []);
        for line in lines.lines() {
            roff.text([roman(line.trim_start())]);
        }
        roff.control("fi", []);
    }
    if command.get_name() == "syncq" {
        named(&mut roff, "FILES", &FILES);
        named(&mut roff, "ENVIRONMENT", &ENVIRONMENT);
    }
    let pages: Vec<String> = see_also
        .iter()
        .map(|name| format!("{name}(1)"))
        .chain(["confxml.xml(5)".to_owned(), "rsync(1)".to_owned()])
        .collect();
    roff.control("SH", ["SEE ALSO"]).text([roman(pages.join(", "))]);
    roff
}
