//! `syncq verify`: reports differences between the source and its targets.

use std::ffi::OsString;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::exit::{CliError, Exit};
use super::output::{counted, json_line, plain, size, some, stdout};
use super::progress::Progress;
use super::state_dir::WhichDaemon;
use super::wait::path_arg;
use crate::control::{Client, ClientError, Differing, Verified, VerifyLine, VerifyRequest, word};

/// Compare source and targets, and tell what differs
///
/// What is still on its way is no difference: whatever is found is looked at again after its jobs. Exits with 0 if
/// all was seen to be equal, else with 1: something differs, a target could not be compared, or something is pending or
/// changes all the time. By default size and modification time are trusted, as rsync does; nothing is changed without
/// --repair.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq verify backup::www /srv/www/photos --checksum --budget 20"))]
pub struct VerifyArgs {
    /// Only with this target, named as in status; and only this file, or this directory with all below it. A single word
    /// is a target if there is one of that name, or else a path that is there
    #[arg(value_names = ["TARGET", "PATH"], num_args = 0..=2)]
    words: Vec<OsString>,
    /// Only with this target
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Only this path, there or gone
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// Read and compare all contents
    #[arg(short = 'c', long)]
    checksum: bool,
    /// Queue what differs to be made equal; syncq wait waits for it
    #[arg(long)]
    repair: bool,
    /// Read so many megabytes a second on this machine, on average. A target elsewhere reads the same files, in bursts of
    /// at most a directory
    #[arg(long, value_name = "MB/S", value_parser = super::values::budget, allow_negative_numbers = true)]
    budget: Option<f64>,
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object a line: "type" is difference, busy or target
    #[arg(long)]
    json: bool,
}

pub fn run(args: &VerifyArgs) -> Result<ExitCode, CliError> {
    let client = Client::connect(&args.which.find()?)?;
    let (target, path) = subject(args, &|name| is_target(&client, name), &|path| is_there(&client, path))?;
    let request = VerifyRequest {
        target,
        path: path.map(|path| path_arg(&path)),
        checksum: args.checksum,
        repair: args.repair,
        budget_mb_s: args.budget,
    };
    let mut out = stdout();
    let mut ended = Vec::new();
    let mut result = Ok(());
    // The line is shown until the first result appears on the terminal, where it would be in the way.
    let mut view = Progress::of_wait("comparing, and nothing differs so far".to_owned());
    client.verify(&request, &mut |line| {
        drop(view.take());
        // Flush each line: a comparison may take hours.
        result = print(&mut out, &line, args.json).and_then(|()| out.flush());
        if let VerifyLine::Target(target) = line {
            ended.push(target);
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    verdict(&ended, args.repair)
}

/// Returns the target and the path that are meant. A single word that is no target has to be an existing path: it may be a
/// misspelt target rather than a deleted file.
fn subject(
    args: &VerifyArgs,
    is_target: &dyn Fn(&str) -> Result<bool, ClientError>,
    is_there: &dyn Fn(&Path) -> Result<bool, ClientError>,
) -> Result<(Option<String>, Option<PathBuf>), CliError> {
    let VerifyArgs { words, target, path, .. } = args;
    let named = |word: &OsString| match word.to_str() {
        Some(text) => is_target(text),
        None => Ok(false),
    };
    let (first, second) = match (words.as_slice(), target, path) {
        ([], _, _) => (None, None),
        ([one], Some(_), None) => (None, Some(one)),
        ([one], None, Some(_)) => (Some(one), None),
        ([one], None, None) if named(one)? => (Some(one), None),
        ([one], None, None) if is_there(one.as_ref())? => (None, Some(one)),
        ([one], None, None) => {
            let one = one.to_string_lossy();
            let error = CliError::usage(format!("{one} is no target, and nothing is there in the source"));
            return Err(error.hint(format!("targets are named in syncq status; a path that is gone: --path {one}")));
        }
        ([one, two], None, None) => (Some(one), Some(two)),
        _ => return Err(CliError::usage("target or path is named twice")),
    };
    let target = target.clone().or_else(|| first.map(|word| word.to_string_lossy().into_owned()));
    Ok((target, path.clone().or_else(|| second.map(PathBuf::from))))
}

fn is_target(client: &Client, name: &str) -> Result<bool, ClientError> {
    Ok(client.status()?.targets.iter().any(|target| target.name == name))
}

fn is_there(client: &Client, path: &Path) -> Result<bool, ClientError> {
    Ok(client.explain(&path_arg(path))?.source != "nothing")
}

fn print(out: &mut impl Write, line: &VerifyLine, json: bool) -> io::Result<()> {
    if json {
        return json_line(out, line);
    }
    match line {
        VerifyLine::Difference(differing) => print_path(out, differing, &word(differing.kind)),
        VerifyLine::Busy(differing) => print_path(out, differing, "busy"),
        VerifyLine::Target(verified) => writeln!(out, "{}", summary(verified)),
    }
}

fn print_path(out: &mut impl Write, differing: &Differing, word: &str) -> io::Result<()> {
    let path = if differing.path.is_empty() { "." } else { &differing.path };
    let error = differing.error.as_ref().map(|error| format!("\t{}", plain(error))).unwrap_or_default();
    writeln!(out, "{}\t{word}\t{}{error}", plain(&differing.target), plain(path))
}

/// The line about a whole target. It begins with `#` so that nobody takes it for a row.
fn summary(verified: &Verified) -> String {
    let Verified { target, root, differences, busy, repaired, bytes_read, elapsed_s, error, hint: _ } = verified;
    let said = match (error, differences) {
        (Some(error), _) => format!("not compared: {}", plain(error)),
        (None, 0) if *busy == 0 => "equal".to_owned(),
        (None, 0) => "no path differs for certain".to_owned(),
        (None, 1) => "1 path differs".to_owned(),
        (None, count) => format!("{count} paths differ"),
    };
    let mut text = format!("# {} of {}: {said}", plain(target), plain(root));
    if *busy > 0 {
        text.push_str(&format!(", {busy} still pending or changing"));
    }
    if *repaired > 0 {
        text.push_str(&format!(", {repaired} queued"));
    }
    let rate = (*bytes_read as f64 / elapsed_s.max(0.001)) as u64;
    text + &format!("; read {} in {elapsed_s:.1} s ({}/s)", size(*bytes_read), size(rate))
}

/// The exit code and the error for the whole command.
fn verdict(ended: &[Verified], repair: bool) -> Result<ExitCode, CliError> {
    let differences: u64 = ended.iter().map(|target| target.differences).sum();
    let differing = ended.iter().filter(|target| target.differences > 0).count();
    let failed: Vec<&Verified> = ended.iter().filter(|target| target.error.is_some()).collect();
    let mut problems = Vec::new();
    if differences > 0 {
        let paths = if differences == 1 { "1 path differs".to_owned() } else { format!("{differences} paths differ") };
        problems.push(format!("{paths} on {differing} of {} targets", ended.len()));
    }
    let why = |target: &&Verified| target.error.as_ref().map(|error| format!("{}: {error}", target.target));
    problems.extend(failed.iter().filter_map(why));
    let busy: u64 = ended.iter().map(|target| target.busy).sum();
    if problems.is_empty() && busy > 0 {
        let what = counted(busy, "path");
        let error = anyhow::anyhow!("nothing differs for certain, and {what} could not be seen to be equal");
        let hint = "what they wait for: syncq explain PATH; when syncq wait has returned, ask again".to_owned();
        return Err(CliError { exit: Exit::Failed, error, hint: Some(hint) });
    }
    if problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let hint = match (failed.first(), repair) {
        (Some(target), _) => target.hint.clone(),
        (None, true) => Some("they are queued; syncq wait returns when they are done".to_owned()),
        (None, false) => Some("make them equal: the same command with --repair".to_owned()),
    };
    Err(CliError { exit: Exit::Failed, error: anyhow::Error::msg(some(&problems)), hint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::DifferingKind;
    use crate::model::RelPath;

    fn args(words: &[&str], target: Option<&str>, path: Option<&str>) -> VerifyArgs {
        VerifyArgs {
            words: words.iter().map(OsString::from).collect(),
            target: target.map(str::to_owned),
            path: path.map(PathBuf::from),
            checksum: false,
            repair: false,
            budget: None,
            which: WhichDaemon { state_dir: None, config: None },
            json: false,
        }
    }

    #[test]
    fn words_are_a_target_a_path_or_both() {
        let is_target = |name: &str| Ok(name == "b::m");
        let is_there = |path: &Path| Ok(path.starts_with("/srv"));
        for (words, target, path, expected) in [
            (&[][..], None, None, Some((None, None))),
            (&["b::m"], None, None, Some((Some("b::m"), None))),
            (&["/srv/d"], None, None, Some((None, Some("/srv/d")))),
            // The word was taken for a path that is missing everywhere, and therefore equal.
            (&["x::m"], None, None, None),
            (&[], None, Some("gone"), Some((None, Some("gone")))),
            (&["x::m", "/srv/d"], None, None, Some((Some("x::m"), Some("/srv/d")))),
            (&["b::m"], Some("a::m"), None, Some((Some("a::m"), Some("b::m")))),
            (&["a::m"], None, Some("d"), Some((Some("a::m"), Some("d")))),
            (&["a::m", "d"], None, Some("e"), None),
            (&["d"], Some("a::m"), Some("e"), None),
        ] {
            let meant = subject(&args(words, target, path), &is_target, &is_there).ok();
            let expected =
                expected.map(|(t, p): (Option<&str>, Option<&str>)| (t.map(str::to_owned), p.map(PathBuf::from)));
            assert_eq!(meant, expected, "{words:?}");
        }
    }

    #[test]
    fn a_person_reads_rows_and_one_line_for_each_target() {
        let path = RelPath::new(b"a\nb").expect("a path");
        let row = Differing::new(&path, DifferingKind::Content, Path::new("/srv"), "b::m");
        let verified = Verified {
            target: "b::m".to_owned(),
            root: "/srv".to_owned(),
            differences: 2,
            busy: 1,
            bytes_read: 3 << 20,
            elapsed_s: 1.5,
            ..Verified::default()
        };
        let mut out = Vec::new();
        for line in [VerifyLine::Difference(row.clone()), VerifyLine::Busy(row), VerifyLine::Target(verified.clone())] {
            print(&mut out, &line, false).expect("a line");
        }
        let text = String::from_utf8(out).expect("text");
        let expected = "b::m\tcontent\ta\\nb\nb::m\tbusy\ta\\nb\n\
                        # b::m of /srv: 2 paths differ, 1 still pending or changing; read 3.0 MiB in 1.5 s (2.0 MiB/s)\n";
        assert_eq!(text, expected);
        let equal = Verified { differences: 0, ..verified.clone() };
        // The target was called equal, even if it was paused and had received nothing.
        assert!(
            summary(&equal).starts_with("# b::m of /srv: no path differs for certain, 1 still pending or changing; ")
        );
        assert!(summary(&Verified { busy: 0, ..equal.clone() }).starts_with("# b::m of /srv: equal; read "));
        // The command ended with 0, as if every path had been seen to be equal.
        let unsure = verdict(std::slice::from_ref(&equal), false).expect_err("it was not seen to be equal");
        assert_eq!(unsure.exit, Exit::Failed);
        assert!(unsure.to_string().starts_with("syncq: nothing differs for certain, and 1 path could not be seen"));
        assert!(verdict(&[Verified { busy: 0, ..equal.clone() }], false).is_ok());
        let away = Verified { error: Some("refused".to_owned()), hint: Some("look".to_owned()), ..equal };
        let said = verdict(&[away, verified], false).expect_err("it differs").to_string();
        assert_eq!(said, "syncq: 2 paths differ on 1 of 2 targets; b::m: refused\nhint: look\n");
    }
}
