//! Measures syncq beside bare rsync, lsyncd and a loop around inotifywait on the workloads of its users, all with the same
//! rsync daemon on this machine. `tools/bench` installs the needed packages and starts it.
//!
//! `workload` lists the workloads, `sizes` their sizes, `act` writes them in a `scene`, and `peers` mirror them. `receiver` and
//! `process` run programs, `ready` hears when a daemon is ready, `tree` compares, `measure` makes one measurement, `track`
//! takes latencies beside it, and `report` makes tables and JSON. Deliberately absent: any knowledge of syncq's inside. syncq
//! is one program among others here.

// A benchmark prints for people and reads real clocks.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

mod act;
mod measure;
mod peers;
mod process;
mod ready;
mod receiver;
mod report;
mod scene;
mod sizes;
#[path = "../../tests/support/mod.rs"]
mod support;
mod track;
mod tree;
mod workload;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

use measure::{Settings, measure};
use peers::Peer;
use report::Row;
use scene::INTERRUPTED;
use sizes::Sizes;
use workload::Workload;

/// Measure syncq beside bare rsync, lsyncd and a loop around inotifywait
#[derive(Parser)]
#[command(name = "tools/bench", disable_version_flag = true)]
struct Args {
    /// Only see that everything runs and ends equal: tiny sizes, one run
    #[arg(long)]
    quick: bool,
    /// Runs of each measurement, of which the median is reported; one of restart and idle
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Only this workload (may be repeated)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only these peers: bare, listed, inotifywait, lsyncd-1, lsyncd-0, syncq
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    peers: Vec<String>,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where source and targets are made [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Make the trees of huge-dir, flood and restart so many times as large
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = scale)]
    scale: f64,
    /// Longest wait for equal trees, in seconds (ten times as long for restart)
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// List the workloads
    #[arg(long)]
    list: bool,
    /// Another syncq than the one just built
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_syncq"), hide_default_value = true)]
    syncq: PathBuf,
    /// Set by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench {
        // `cargo test --all-targets` starts benchmarks too, but needs no measurement.
        println!("the benchmark runs through tools/bench");
        return ExitCode::SUCCESS;
    }
    match bench(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the benchmark, and returns whether every run ended equal. At full size only syncq has to: the results of the others are
/// part of the report.
fn bench(args: &Args) -> Result<bool> {
    let workloads = chosen_workloads(args)?;
    if args.list {
        for workload in workloads {
            println!("{:12} {}", workload.name, workload.about);
        }
        return Ok(true);
    }
    let (peers, missing) = chosen_peers(args)?;
    for peer in &missing {
        eprintln!("bench: {} is not installed; {} is left out", peer.needs().unwrap_or_default(), peer.title());
    }
    on_signals_stop()?;
    let settings = Settings {
        syncq: args.syncq.clone(),
        dir: args.dir.clone().unwrap_or_else(std::env::temp_dir),
        sizes: if args.quick { Sizes::QUICK } else { Sizes::FULL }.scaled(args.scale),
        timeout: Duration::from_secs(if args.quick { args.timeout.min(20) } else { args.timeout }),
        rest: Duration::from_millis(if args.quick { 50 } else { 500 }),
    };
    let runs = if args.quick { 1 } else { args.runs };
    let load = report::load();
    let rows = measure_all(&workloads, &peers, runs, &settings)?;
    let conditions = report::Conditions { runs, quick: args.quick, scale: args.scale, load };
    if args.quick {
        // Times of tiny sizes mean nothing, and must not be quoted.
        let titles: Vec<&str> = peers.iter().map(|peer| peer.title()).collect();
        print!("ran {} workloads with {}{}", rows.len(), titles.join(", "), report::failures(&rows));
        println!();
    } else {
        print!("{}", report::markdown(&rows, &peers, &conditions));
    }
    if let Some(file) = &args.json {
        let mut text = serde_json::to_string_pretty(&report::json(&rows, &conditions))?;
        text.push('\n');
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let held = |peer: Peer| peer == Peer::Syncq || (args.quick && peer.promises());
    let failed = rows.iter().flat_map(|row| &row.results).filter(|(peer, result)| held(**peer) && result.failed > 0);
    Ok(failed.count() == 0)
}

/// Runs alternate between the peers, so that a machine that slows down or warms up treats them alike.
fn measure_all(workloads: &[&'static Workload], peers: &[Peer], runs: u32, settings: &Settings) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for workload in workloads {
        let mut row = Row::new(workload);
        let runs = if workload.once { 1 } else { runs };
        for run in 1..=runs {
            for peer in peers.iter().filter(|peer| peer.masters(workload.deletes)) {
                let sample = measure(workload, *peer, settings)?;
                let words = sample.failure.clone().unwrap_or_else(|| report::one_line(workload, &sample));
                eprintln!("{:12} {:16} run {run} of {runs}: {words}", workload.name, peer.title());
                row.add(*peer, sample);
                if INTERRUPTED.load(Ordering::Relaxed) {
                    bail!("interrupted");
                }
            }
        }
        row.finish();
        rows.push(row);
    }
    Ok(rows)
}

fn chosen_workloads(args: &Args) -> Result<Vec<&'static Workload>> {
    static WORKLOADS: [Workload; workload::ALL.len()] = workload::ALL;
    if let Some(unknown) = args.only.iter().find(|name| !WORKLOADS.iter().any(|w| w.name == **name)) {
        let names: Vec<&str> = WORKLOADS.iter().map(|w| w.name).collect();
        bail!("no workload is called {unknown}; there are {}", names.join(", "));
    }
    let chosen = |workload: &&Workload| match args.only.as_slice() {
        [] => workload.quick || !args.quick,
        only => only.iter().any(|name| name == workload.name),
    };
    Ok(WORKLOADS.iter().filter(chosen).collect())
}

/// The peers that can run, and those whose program is not installed.
fn chosen_peers(args: &Args) -> Result<(Vec<Peer>, Vec<Peer>)> {
    if let Some(unknown) = args.peers.iter().find(|name| !Peer::ALL.iter().any(|p| p.name() == **name)) {
        bail!("no peer is called {unknown}; there are {}", Peer::ALL.map(Peer::name).join(", "));
    }
    let chosen = |peer: &Peer| {
        if args.peers.is_empty() {
            return !args.quick || peer.is_quick();
        }
        args.peers.iter().any(|name| name == peer.name())
    };
    let installed = |peer: &Peer| {
        peer.needs().is_none_or(|program| {
            let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            version.is_ok()
        })
    };
    Ok(Peer::ALL.into_iter().filter(chosen).partition(installed))
}

fn on_signals_stop() -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(factor) if factor > 0.0 && factor <= 10.0 => Ok(factor),
        _ => Err("a number above 0 and up to 10 is needed, like 0.1".to_owned()),
    }
}
