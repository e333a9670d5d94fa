//! `syncq store`: the store of jobs, seen from outside: its size, its health, and its jobs as text.
//!
//! If a daemon is running, everything goes through it, since only one process may have the store open. An export consists of
//! lines of JSON: a head, a line for each job as `list --json` shows it, and a last line with the number of jobs, by which a
//! truncated export is recognised. An export holds no directories and no watermark: they mean nothing elsewhere, and every
//! start can do without them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::exit::{CliError, Exit};
use super::output::{Form, Rows, json_line, plain, size, stdout};
use super::source::Source;
use super::state_dir::WhichDaemon;
use crate::clock::{Clock, SystemClock};
use crate::control::{JobFilter, JobRow, NewJob, StoreReport};

/// Look after the store that keeps the jobs
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq store check"))]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    Stats(StatsArgs),
    Check(CheckArgs),
    Compact(CompactArgs),
    Export(ExportArgs),
    Import(ImportArgs),
}

/// Show what the store holds and what it takes
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq store stats --json"))]
struct StatsArgs {
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Read every record of the store
///
/// No record is changed. Those that cannot be read are dropped by the next start, which then compares every target in full.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq store check --state-dir /var/lib/syncq/confxml"))]
struct CheckArgs {
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Make the store as small as what it holds
///
/// A running daemon does so by itself once it pays.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq store compact"))]
struct CompactArgs {
    #[command(flatten)]
    which: WhichDaemon,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Write all pending jobs as lines of JSON
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq store export jobs.jsonl"))]
struct ExportArgs {
    /// Where to; must not exist [default: standard output]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    which: WhichDaemon,
}

/// Queue the jobs of an export
///
/// They are tried at once; a job that is there already is joined with the new one. Directories and targets have to be known:
/// start syncq with its configuration once.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq store import jobs.jsonl"))]
struct ImportArgs {
    /// What export has written; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    which: WhichDaemon,
}

/// The version of exports that is written, and the newest that is read.
const EXPORT_VERSION: u32 = 1;
/// The most bytes of a line: two paths of 4 KiB, escaped and in base64, with room to spare.
const LINE_BYTES_MAX: u64 = 256 * 1024;
/// How many jobs are queued at once.
const JOBS_AT_ONCE: usize = 1_000;
/// The most problems that are printed; the others are counted.
const PROBLEMS_SHOWN_MAX: u64 = 50;

pub fn run(args: &StoreArgs) -> Result<ExitCode, CliError> {
    match &args.command {
        StoreCommand::Stats(args) => stats(&args.which, args.json),
        StoreCommand::Check(args) => check(&args.which, args.json),
        StoreCommand::Compact(args) => compact(&args.which, args.json),
        StoreCommand::Export(args) => export(args),
        StoreCommand::Import(args) => import(args),
    }
}

fn stats(which: &WhichDaemon, json: bool) -> Result<ExitCode, CliError> {
    let report = Source::open(&which.find()?)?.store(false)?;
    print(&report, json)?;
    Ok(ExitCode::SUCCESS)
}

fn check(which: &WhichDaemon, json: bool) -> Result<ExitCode, CliError> {
    let report = Source::open(&which.find()?)?.store(false)?;
    print(&report, json)?;
    let message = match (report.damaged, report.rolled_back) {
        (0, false) => return Ok(ExitCode::SUCCESS),
        (0, true) => "the latest changes of the store are missing".to_owned(),
        (damaged, _) => format!("{damaged} records of the store cannot be read"),
    };
    let hint = "start syncq anew: it goes on with what is good and compares every target in full".to_owned();
    Err(CliError { exit: Exit::Failed, error: anyhow::Error::msg(message), hint: Some(hint) })
}

fn compact(which: &WhichDaemon, json: bool) -> Result<ExitCode, CliError> {
    let report = Source::open(&which.find()?)?.store(true)?;
    print(&report, json)?;
    Ok(ExitCode::SUCCESS)
}

fn print(report: &StoreReport, json: bool) -> Result<(), CliError> {
    let mut out = stdout();
    if json {
        json_line(&mut out, report)?;
        out.flush()?;
        return Ok(());
    }
    let mut rows = Rows::new(out, Form::of_stdout(), &["WHAT", "COUNT"]);
    let before = report.bytes_before.map(|bytes| format!(" (before: {})", size(bytes))).unwrap_or_default();
    for (what, count) in [
        ("schema", report.schema.to_string()),
        ("on disk", size(report.bytes) + &before),
        ("of use", size(report.live_bytes)),
        ("roots", report.roots.to_string()),
        ("targets", report.targets.to_string()),
        ("directories", report.directories.to_string()),
        ("jobs", report.jobs.to_string()),
        ("damaged", report.damaged.to_string()),
    ] {
        rows.push(vec![what.to_owned(), count])?;
    }
    for kept in &report.kept {
        rows.push(vec![format!("kept: {}", plain(&kept.path)), size(kept.bytes)])?;
    }
    rows.end()?;
    Ok(())
}

/// The first line of an export.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    syncq_export: u32,
    /// The version of the syncq that wrote the export.
    version: String,
    exported_at: String,
}

/// The last line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    jobs: u64,
}

fn export(args: &ExportArgs) -> Result<ExitCode, CliError> {
    let source = Source::open(&args.which.find()?)?;
    let Some(path) = &args.file else {
        write_export(&source, &mut stdout())?;
        return Ok(ExitCode::SUCCESS);
    };
    let cannot = || format!("cannot write {}", path.display());
    // Mode 600: the names of mirrored files are private.
    let file = File::options().write(true).create_new(true).mode(0o600).open(path).with_context(cannot)?;
    let mut out = BufWriter::new(file);
    let written = write_export(&source, &mut out).and_then(|count| {
        out.get_ref().sync_all().with_context(cannot)?;
        Ok(count)
    });
    match written {
        Ok(count) => {
            let _ = writeln!(io::stderr(), "{count} jobs exported to {}", path.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            // A partial export is useless.
            let _ = std::fs::remove_file(path);
            Err(error)
        }
    }
}

fn write_export(source: &Source, out: &mut impl Write) -> Result<u64, CliError> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let exported_at = SystemClock.now().to_string();
    json_line(out, &Head { syncq_export: EXPORT_VERSION, version, exported_at })?;
    let mut jobs = 0;
    source.jobs(&JobFilter::default(), |row| {
        jobs += 1;
        Ok(json_line(out, &row)?)
    })?;
    json_line(out, &Tail { jobs })?;
    out.flush()?;
    Ok(jobs)
}

fn import(args: &ImportArgs) -> Result<ExitCode, CliError> {
    let name = args.file.display().to_string();
    let cannot = || format!("cannot read {name}");
    let source = Source::open(&args.which.find()?)?;
    let done = if args.file == Path::new("-") {
        read_export(io::stdin().lock(), |jobs| source.add(jobs))
    } else {
        let file = File::open(&args.file).with_context(cannot)?;
        read_export(BufReader::new(file), |jobs| source.add(jobs))
    };
    let mut out = stdout();
    for (line, reason) in &done.problems {
        writeln!(out, "{name}:{line}: skipped: {}", plain(reason))?;
    }
    if done.skipped > PROBLEMS_SHOWN_MAX {
        writeln!(out, "{} more are skipped", done.skipped - PROBLEMS_SHOWN_MAX)?;
    }
    writeln!(out, "queued: {}, skipped: {}", done.added, done.skipped)?;
    out.flush()?;
    if let Some(error) = done.error {
        return Err(error);
    }
    if done.skipped == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let error = anyhow::anyhow!("not all of {name} could be queued");
    let hint = "start syncq with a configuration that has these targets, and import again".to_owned();
    Err(CliError { exit: Exit::Failed, error, hint: Some(hint) })
}

/// The progress of an import.
#[derive(Debug, Default)]
struct Imported {
    added: u64,
    skipped: u64,
    /// The first skipped lines, each with the reason.
    problems: Vec<(u64, String)>,
    /// The error that ended the import early, if one did.
    error: Option<CliError>,
}

impl Imported {
    fn skip(&mut self, line: u64, reason: String) {
        self.skipped += 1;
        if self.skipped <= PROBLEMS_SHOWN_MAX {
            self.problems.push((line, reason));
        }
    }
}

/// Reads an export and hands its jobs to `add`, several at a time.
fn read_export(
    input: impl BufRead,
    mut add: impl FnMut(&[NewJob]) -> Result<Vec<Option<String>>, CliError>,
) -> Imported {
    let mut done = Imported::default();
    if let Err(error) = read_lines(input, &mut add, &mut done) {
        done.error = Some(error);
    }
    done
}

fn read_lines(
    mut input: impl BufRead,
    add: &mut impl FnMut(&[NewJob]) -> Result<Vec<Option<String>>, CliError>,
    done: &mut Imported,
) -> Result<(), CliError> {
    let mut gathered: Vec<(u64, NewJob)> = Vec::new();
    let mut tail = None;
    let mut read = 0;
    let mut text = Vec::new();
    for line in 1_u64.. {
        text.clear();
        // A longer line is cut in the middle, and is then not valid JSON.
        io::Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
        if text.is_empty() {
            break;
        }
        if line == 1 {
            check_head(&text)?;
        } else if let Ok(row) = serde_json::from_slice::<JobRow>(&text) {
            read += 1;
            match new_job(&row) {
                Some(job) => gathered.push((line, job)),
                None => done.skip(line, "this is no path".to_owned()),
            }
        } else if let Ok(found) = serde_json::from_slice::<Tail>(&text) {
            tail = Some(found.jobs);
        } else {
            done.skip(line, "this is no job".to_owned());
        }
        if gathered.len() >= JOBS_AT_ONCE {
            queue(&mut gathered, add, done)?;
        }
    }
    queue(&mut gathered, add, done)?;
    if tail == Some(read) {
        return Ok(());
    }
    let error = anyhow::anyhow!("the export is not complete: it was cut short, or lines are missing");
    Err(CliError { exit: Exit::Failed, error, hint: Some("what it holds is queued; export again".to_owned()) })
}

fn check_head(text: &[u8]) -> Result<(), CliError> {
    let Ok(head) = serde_json::from_slice::<Head>(text) else {
        return Err(CliError::usage("this is no export of syncq").hint("write one: syncq store export FILE"));
    };
    if head.syncq_export > EXPORT_VERSION {
        let message =
            format!("the export was written by syncq {}, in a form that is newer than this one", head.version);
        return Err(CliError::usage(message).hint(format!("use syncq {} or newer", head.version)));
    }
    Ok(())
}

fn queue(
    gathered: &mut Vec<(u64, NewJob)>,
    add: &mut impl FnMut(&[NewJob]) -> Result<Vec<Option<String>>, CliError>,
    done: &mut Imported,
) -> Result<(), CliError> {
    let (lines, jobs): (Vec<u64>, Vec<NewJob>) = gathered.drain(..).unzip();
    if jobs.is_empty() {
        return Ok(());
    }
    for (line, answer) in lines.into_iter().zip(add(&jobs)?) {
        match answer {
            None => done.added += 1,
            Some(reason) => done.skip(line, reason),
        }
    }
    Ok(())
}

fn new_job(row: &JobRow) -> Option<NewJob> {
    let job = NewJob::new(Path::new(&row.root), &row.target, &row.rel_path()?, Some(row.scope));
    Some(NewJob { origin: Some(row.origin), ..job })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JobState, Origin, Scope, Timestamp};

    fn row(path: &str) -> JobRow {
        JobRow {
            id: 1,
            root: "/srv".to_owned(),
            target: "b::www".to_owned(),
            path: path.to_owned(),
            path_b64: None,
            scope: Scope::Children,
            origin: Origin::Scan,
            state: JobState::Failed,
            attempts: 3,
            queued_at: Timestamp(1),
            due_at: Timestamp(1),
            error: None,
        }
    }

    fn lines(head: &str, rows: &[JobRow], tail: &str) -> String {
        let mut text = format!("{head}\n");
        rows.iter().for_each(|row| text += &format!("{}\n", serde_json::to_string(row).expect("json")));
        text + tail
    }

    const HEAD: &str = r#"{"syncq_export":1,"version":"0.1.0","exported_at":"2026-01-01T00:00:00Z"}"#;

    fn imported(text: &str) -> (Imported, Vec<NewJob>) {
        let mut taken = Vec::new();
        let done = read_export(text.as_bytes(), |jobs| {
            taken.extend_from_slice(jobs);
            Ok(jobs.iter().map(|job| (job.target != "b::www").then(|| "unknown".to_owned())).collect())
        });
        (done, taken)
    }

    #[test]
    fn an_export_comes_back_job_by_job() {
        let rows: Vec<JobRow> = (0..2_500).map(|n| row(&format!("f{n}"))).collect();
        let (done, taken) = imported(&lines(HEAD, &rows, r#"{"jobs":2500}"#));
        assert!(done.error.is_none() && done.added == 2_500 && done.skipped == 0, "{done:?}");
        let expected = rows.iter().map(|row| new_job(row).expect("a job")).collect::<Vec<_>>();
        assert_eq!(taken, expected);
        assert!(taken.iter().all(|job| (job.scope, job.origin) == (Some(Scope::Children), Some(Origin::Scan))));
    }

    /// Other programs read exports too.
    #[test]
    fn an_export_begins_and_ends_with_the_promised_keys() {
        let head = Head { syncq_export: EXPORT_VERSION, version: "0.1.0".into(), exported_at: "2026".into() };
        let json = serde_json::to_string(&head).expect("json");
        assert_eq!(json, r#"{"syncq_export":1,"version":"0.1.0","exported_at":"2026"}"#);
        assert_eq!(serde_json::to_string(&Tail { jobs: 2 }).expect("json"), r#"{"jobs":2}"#);
    }

    #[test]
    fn what_is_wrong_in_an_export_is_told_and_the_rest_is_queued() {
        for (text, added, skipped, error) in [
            (lines(HEAD, &[], r#"{"jobs":0}"#), 0, 0, None),
            (lines(HEAD, &[row("a")], ""), 1, 0, Some("not complete")),
            (lines(HEAD, &[row("a")], r#"{"jobs":2}"#), 1, 0, Some("not complete")),
            (lines(HEAD, &[row("a"), row("../b")], r#"{"jobs":2}"#), 1, 1, None),
            (lines(HEAD, &[row("a")], "{\"id\":\n{\"jobs\":1}"), 1, 1, None),
            (lines(HEAD, &[JobRow { target: "x".into(), ..row("a") }], r#"{"jobs":1}"#), 0, 1, None),
            (lines(&HEAD.replace(":1,", ":2,"), &[row("a")], ""), 0, 0, Some("newer")),
            (String::new(), 0, 0, Some("not complete")),
            ("<head>".to_owned(), 0, 0, Some("no export")),
        ] {
            let (done, _) = imported(&text);
            assert_eq!((done.added, done.skipped), (added, skipped), "{text}");
            let told = done.error.map(|error| error.to_string());
            match error {
                None => assert_eq!(told, None),
                Some(error) => assert!(told.as_ref().is_some_and(|told| told.contains(error)), "{told:?}"),
            }
        }
    }
}
