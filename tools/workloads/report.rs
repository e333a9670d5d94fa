//! Medians of samples, and their tables: Markdown for people, JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use serde::Serialize;
use serde_json::{Value, json};

use crate::measure::Sample;
use crate::peers::Peer;
use crate::process::Usage;
use crate::workload::{Headline, Workload};

pub struct Conditions {
    pub runs: u32,
    pub quick: bool,
    /// The scale of the large trees.
    pub scale: f64,
    /// The machine's load average over the minute before the first run, as other programs may run too.
    pub load: Option<f64>,
}

/// The results of one workload.
pub struct Row {
    pub workload: &'static Workload,
    samples: BTreeMap<Peer, Vec<Sample>>,
    pub results: BTreeMap<Peer, Summary>,
}

/// The medians over a peer's good runs. Times are seconds.
#[derive(Debug, Default)]
pub struct Summary {
    pub failed: usize,
    failure: Option<String>,
    /// The time that the workload's headline names; `None` if no run succeeded.
    headline_s: Option<f64>,
    total_s: f64,
    lag_s: f64,
    write_s: f64,
    p50_s: Option<f64>,
    p95_s: Option<f64>,
    idle_s: Option<f64>,
    idle_wakeups: Option<f64>,
    /// The times of the first and of the last start.
    ready_s: Option<(f64, f64)>,
    peak_bytes: f64,
    wakeups: f64,
    cpu_own_s: f64,
    cpu_children_s: f64,
    cpu_receiver_s: f64,
    connections: f64,
    refused: f64,
    bytes: f64,
}

impl Row {
    pub fn new(workload: &'static Workload) -> Self {
        Self { workload, samples: BTreeMap::new(), results: BTreeMap::new() }
    }

    pub fn add(&mut self, peer: Peer, sample: Sample) {
        self.samples.entry(peer).or_default().push(sample);
    }

    pub fn finish(&mut self) {
        let workload = self.workload;
        self.results = self.samples.iter().map(|(peer, samples)| (*peer, summary(workload, samples))).collect();
    }

    fn headline_s(&self, peer: Peer) -> Option<f64> {
        self.results.get(&peer)?.headline_s
    }
}

fn summary(workload: &Workload, samples: &[Sample]) -> Summary {
    let good: Vec<&Sample> = samples.iter().filter(|sample| sample.failure.is_none()).collect();
    let middle = |value: &dyn Fn(&Sample) -> f64| quantile(good.iter().map(|s| value(s)).collect(), 0.5);
    // The latencies of all runs form one population: a median of medians would hide bad ones.
    let latencies: Vec<f64> = good.iter().flat_map(|s| s.latencies_s.iter().copied()).collect();
    let (p50_s, p95_s) = (quantile(latencies.clone(), 0.5), quantile(latencies, 0.95));
    let or_zero = |value: Option<f64>| value.unwrap_or(0.0);
    let count = |value: u64| value as f64;
    let idle = |value: &dyn Fn(Usage) -> f64| quantile(good.iter().filter_map(|s| s.idle.map(value)).collect(), 0.5);
    let ready = |of: &dyn for<'a> Fn(&'a [f64]) -> Option<&'a f64>| {
        quantile(good.iter().filter_map(|s| of(&s.ready_s).copied()).collect(), 0.5)
    };
    Summary {
        failed: samples.len() - good.len(),
        failure: samples.iter().find_map(|sample| sample.failure.clone()),
        headline_s: match workload.headline {
            Headline::Latency => p50_s,
            other => middle(&|s| headline_s(other, s)),
        },
        total_s: or_zero(middle(&|s| s.total_s)),
        lag_s: or_zero(middle(&|s| s.lag_s)),
        write_s: or_zero(middle(&|s| s.write_s)),
        p50_s,
        p95_s,
        idle_s: idle(&|used| used.cpu.own_s + used.cpu.children_s),
        idle_wakeups: idle(&|used| count(used.wakeups)),
        ready_s: ready(&|starts| starts.first()).zip(ready(&|starts| starts.last())),
        peak_bytes: or_zero(middle(&|s| count(s.usage.peak_bytes))),
        wakeups: or_zero(middle(&|s| count(s.usage.wakeups))),
        cpu_own_s: or_zero(middle(&|s| s.usage.cpu.own_s)),
        cpu_children_s: or_zero(middle(&|s| s.usage.cpu.children_s)),
        cpu_receiver_s: or_zero(middle(&|s| s.receiver_cpu_s)),
        connections: or_zero(middle(&|s| count(s.traffic.connections))),
        refused: or_zero(middle(&|s| count(s.traffic.refused))),
        bytes: or_zero(middle(&|s| count(s.traffic.bytes_received))),
    }
}

/// The value below which a part `q` of the values lies, by the nearest rank. Of two middle values the upper one is returned.
fn quantile(mut values: Vec<f64>, q: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * q).floor() as usize;
    values.get(index.min(values.len().saturating_sub(1))).copied()
}

/// The time that stands for one sample.
fn headline_s(headline: Headline, sample: &Sample) -> f64 {
    match headline {
        Headline::Latency => quantile(sample.latencies_s.clone(), 0.5).unwrap_or(0.0),
        Headline::Total => sample.total_s,
        Headline::Lag | Headline::Restart => sample.lag_s,
        Headline::Idle => sample.idle.map_or(0.0, |used| used.cpu.own_s + used.cpu.children_s),
    }
}

/// One sample in words, for the progress line.
pub fn one_line(workload: &Workload, sample: &Sample) -> String {
    let cpu = sample.usage.cpu.own_s + sample.usage.cpu.children_s;
    let time = headline_s(workload.headline, sample);
    format!("{}, cpu {cpu:.2} s, {} connections", seconds(time), sample.traffic.connections)
}

/// The measurements that did not end equal, each with the reason.
pub fn failures(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        for (peer, result) in &row.results {
            if let Some(failure) = &result.failure {
                let _ =
                    writeln!(text, "\n{}, {}: {} failed; {failure}", row.workload.name, peer.title(), result.failed);
            }
        }
    }
    text
}

/// Two tables, one of times with ratios and one of costs, then the failures.
pub fn markdown(rows: &[Row], peers: &[Peer], conditions: &Conditions) -> String {
    let mut text = String::new();
    let machine = machine();
    let scaled = match conditions.scale {
        1.0 => String::new(),
        scale => format!(" The trees of huge-dir, flood and restart are {scale} times as large as it says here."),
    };
    let _ = writeln!(
        text,
        "Median of {}{}; {} CPUs, load {} before, Linux {}, {}, {}; two targets unless said otherwise, one rsyncd on \
         127.0.0.1. Bare rsync runs once per target, up to four at a time, after everything is written.{}\n",
        conditions.runs,
        if rows.iter().any(|row| row.workload.once) { " (restart and idle: one run)" } else { "" },
        machine.cpus,
        conditions.load.map_or("unknown".to_owned(), |load| format!("{load:.1}")),
        machine.kernel,
        machine.rsync.as_deref().unwrap_or("no rsync"),
        machine.lsyncd.as_deref().unwrap_or("no lsyncd"),
        scaled,
    );
    let titles: Vec<&str> = peers.iter().map(|peer| peer.title()).collect();
    let _ = writeln!(text, "| workload | time | {} | syncq / bare | lsyncd / syncq |", titles.join(" | "));
    let _ = writeln!(text, "|---|---|{}---:|---:|", "---:|".repeat(peers.len()));
    for row in rows {
        let cells: Vec<String> =
            peers.iter().map(|peer| row.results.get(peer).map_or("".into(), |r| time_cell(row, r))).collect();
        let syncq = row.headline_s(Peer::Syncq);
        let ratio = |over: Option<f64>, under: Option<f64>| match (over, under) {
            (Some(over), Some(under)) if under > 0.0 => format!("{:.1}", over / under),
            _ => String::new(),
        };
        let lsyncd = row.headline_s(Peer::LsyncdNoDelay).or(row.headline_s(Peer::LsyncdOneSecond));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            row.workload.about,
            row.workload.headline.words(),
            cells.join(" | "),
            ratio(syncq, row.headline_s(Peer::Bare)),
            ratio(lsyncd, syncq),
        );
    }
    text += "\nCPU of the daemon + of its rsyncs, connections to all targets, bytes received by each target, most \
             memory that the daemon had:\n\n";
    let _ = writeln!(text, "| workload | {} |", titles.join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(peers.len()));
    for row in rows {
        let cells: Vec<String> =
            peers.iter().map(|peer| row.results.get(peer).map_or("".into(), |r| cost_cell(row, r))).collect();
        let _ = writeln!(text, "| {} | {} |", row.workload.about, cells.join(" | "));
    }
    text += &failures(rows);
    text
}

fn time_cell(row: &Row, result: &Summary) -> String {
    let Some(headline_s) = result.headline_s else { return "failed".into() };
    let mut cell = seconds(headline_s);
    if let (Headline::Idle, Some(wakeups)) = (row.workload.headline, result.idle_wakeups) {
        cell += &format!(", {wakeups:.0}");
    }
    if let (Headline::Restart, Some((first_s, last_s))) = (row.workload.headline, result.ready_s) {
        cell += &format!(" (ready after {}, first start {})", seconds(last_s), seconds(first_s));
    }
    match (row.workload.headline, result.p95_s) {
        (Headline::Latency, Some(p95_s)) => cell += &format!(" (p95 {})", seconds(p95_s)),
        (_, Some(p95_s)) => cell += &format!(" (small: p95 {})", seconds(p95_s)),
        (_, None) => {}
    }
    if result.failed > 0 {
        cell += &format!(" ({} failed)", result.failed);
    }
    cell
}

fn cost_cell(row: &Row, result: &Summary) -> String {
    if result.headline_s.is_none() {
        return "failed".into();
    }
    let mut cell = format!("{:.2} + {:.2} s, {:.0}", result.cpu_own_s, result.cpu_children_s, result.connections);
    if result.refused > 0.0 {
        cell += &format!(" ({:.0} refused)", result.refused);
    }
    cell += &format!(", {:.1} MB", result.bytes / row.workload.targets as f64 / 1e6);
    if result.peak_bytes > 0.0 {
        cell += &format!(", {:.0} MB", result.peak_bytes / 1e6);
    }
    cell
}

/// A time with at most three significant digits: more would claim a precision that these measurements lack.
fn seconds(value: f64) -> String {
    match value {
        v if v < 0.1 => format!("{:.1} ms", v * 1e3),
        v if v < 1.0 => format!("{:.0} ms", v * 1e3),
        v => format!("{v:.2} s"),
    }
}

pub fn json(rows: &[Row], conditions: &Conditions) -> Value {
    let workloads: Vec<Value> = rows
        .iter()
        .map(|row| {
            let peers: serde_json::Map<String, Value> = row
                .results
                .iter()
                .map(|(peer, result)| (peer.name().to_owned(), peer_json(row, *peer, result)))
                .collect();
            json!({
                "name": row.workload.name,
                "about": row.workload.about,
                "headline": row.workload.headline.words(),
                "targets": row.workload.targets,
                "max_connections": row.workload.max_connections,
                "peers": peers,
            })
        })
        .collect();
    json!({
        "machine": machine(),
        "load_before": conditions.load,
        "runs": conditions.runs,
        "quick": conditions.quick,
        "scale": conditions.scale,
        "workloads": workloads,
    })
}

fn peer_json(row: &Row, peer: Peer, result: &Summary) -> Value {
    let samples = row.samples.get(&peer).map(Vec::as_slice).unwrap_or_default();
    let totals: Vec<f64> = samples.iter().filter(|s| s.failure.is_none()).map(|s| s.total_s).collect();
    let lags: Vec<f64> = samples.iter().filter(|s| s.failure.is_none()).map(|s| s.lag_s).collect();
    json!({
        "headline_s": result.headline_s,
        "total_s": result.total_s,
        "lag_s": result.lag_s,
        "write_s": result.write_s,
        "latency_p50_s": result.p50_s,
        "latency_p95_s": result.p95_s,
        "cpu_own_s": result.cpu_own_s,
        "cpu_children_s": result.cpu_children_s,
        "cpu_receiver_s": result.cpu_receiver_s,
        "connections": result.connections,
        "connections_refused": result.refused,
        "bytes_received": result.bytes,
        "bytes_per_target": result.bytes / row.workload.targets as f64,
        "peak_bytes": result.peak_bytes,
        "wakeups": result.wakeups,
        "first_ready_s": result.ready_s.map(|(first_s, _)| first_s),
        "last_ready_s": result.ready_s.map(|(_, last_s)| last_s),
        "idle_cpu_s": result.idle_s,
        "idle_wakeups": result.idle_wakeups,
        "failed": result.failed,
        "failure": result.failure,
        "runs_total_s": totals,
        "runs_lag_s": lags,
    })
}

/// The machine of the measurement.
#[derive(Serialize)]
struct Machine {
    cpus: usize,
    kernel: String,
    rsync: Option<String>,
    lsyncd: Option<String>,
}

/// The load average over the last minute.
pub fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

fn machine() -> Machine {
    // "rsync  version 3.4.1  protocol version 32" and "Version: 2.2.3".
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        let line = String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned();
        let number = line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        Some(format!("{program} {number}"))
    };
    Machine {
        cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        rsync: version("rsync"),
        lsyncd: version("lsyncd"),
    }
}
