//! Writes the manual pages and the completions of bash, zsh and fish into a directory: `cargo run --example manual DIR`.
//!
//! Made from the definition of the command line, so they say what `--help` says. An example target, so that the program
//! itself does not carry the generators.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).ok_or_else(|| anyhow::anyhow!("usage: manual DIR"))?;
    let dir = Path::new(&dir);
    fs::create_dir_all(dir)?;
    let mut command = syncq::cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "syncq", dir)?;
    }
    // Fills in the full names of the subcommands. The list of subcommands is no page of its own.
    let mut command = syncq::cli::command().disable_help_subcommand(true);
    command.build();
    write_pages(dir, "syncq", &command, None)?;
    // sersync's name stands for `syncq run`.
    fs::write(dir.join("sersync2.1"), ".so man1/syncq-run.1\n")?;
    Ok(())
}

/// Writes the page of a command and those of all commands below it.
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
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    tail(command, see_also).to_writer(&mut page)?;
    fs::write(dir.join(format!("{name}.1")), page)
}

/// What stands behind the options in the help, a section for each paragraph with a heading, and the other pages.
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
    let pages: Vec<String> = see_also.iter().map(|name| format!("{name}(1)")).chain(["rsync(1)".to_owned()]).collect();
    roff.control("SH", ["SEE ALSO"]).text([roman(pages.join(", "))]);
    roff
}
