//! One measurement: a fresh source, a fresh rsyncd, one peer, one workload, and a bounded wait for equal trees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::peers::{Peer, Running};
use crate::process::{Cpu, Usage};
use crate::receiver::{Receiver, Traffic};
use crate::scene::{Goal, INTERRUPTED, Scene, check_interrupted};
use crate::sizes::Sizes;
use crate::track::Tracker;
use crate::tree::{self, Entry, Tree};
use crate::workload::{Headline, Workload};

/// How long a peer may take to show that it is mirroring.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How long a probe file may take to arrive. After that another, longer one is written.
const PROBE_WAIT: Duration = Duration::from_secs(3);

pub struct Settings {
    pub syncq: PathBuf,
    pub dir: PathBuf,
    pub sizes: Sizes,
    /// The longest wait for equal trees.
    pub timeout: Duration,
    /// The pause before and after the measured time, so that late work is not charged to the next measurement.
    pub rest: Duration,
}

/// The results of one run. Times are seconds.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Why the run does not count; `None` if the trees ended equal.
    pub failure: Option<String>,
    pub write_s: f64,
    pub total_s: f64,
    pub lag_s: f64,
    pub latencies_s: Vec<f64>,
    pub usage: Usage,
    /// The usage while nothing was written; only for the idle workload.
    pub idle: Option<Usage>,
    /// The time from each start of the daemon until it reported that it was ready.
    pub ready_s: Vec<f64>,
    pub receiver_cpu_s: f64,
    pub traffic: Traffic,
}

/// Runs `workload` once with `peer`. The failure of a peer becomes part of the sample. An error means that the benchmark itself
/// cannot go on.
pub fn measure(workload: &Workload, peer: Peer, settings: &Settings) -> Result<Sample> {
    let dir = tempfile::Builder::new().prefix("syncq-bench-").tempdir_in(&settings.dir)?;
    let source = dir.path().join("src");
    fs::create_dir(&source)?;
    (workload.prepare)(&source, &settings.sizes)?;
    let receiver = Receiver::start(dir.path(), workload.targets, workload.max_connections)?;
    seed(&source, &receiver)?;
    let mut running = Running::start(peer, &settings.syncq, dir.path(), &source, &receiver)?;
    match run(workload, peer, settings, &source, &receiver, &mut running) {
        Err(error) if !INTERRUPTED.load(Ordering::Relaxed) => {
            let words = running.last_lines();
            let said = if words.is_empty() { String::new() } else { format!(" (it said: {words})") };
            Ok(Sample { failure: Some(format!("{error:#}{said}")), ..Sample::default() })
        }
        result => result,
    }
}

fn run(
    workload: &Workload,
    peer: Peer,
    settings: &Settings,
    source: &Path,
    receiver: &Receiver,
    running: &mut Running,
) -> Result<Sample> {
    let timeout = settings.timeout * workload.patience;
    if !peer.is_bare() {
        wait_ready(source, &receiver.targets, READY_WAIT * workload.patience, running)?;
    }
    std::thread::sleep(settings.rest);
    let before = tree::read(source)?;
    let (used_before, cpu_before, traffic) = (running.usage(), Cpu::of(receiver.pid()), receiver.traffic()?);

    let began = Instant::now();
    let mut scene = Scene {
        source,
        sizes: &settings.sizes,
        targets: &receiver.targets,
        running,
        tracker: Tracker::new(source, &receiver.targets),
        latencies_s: Vec::new(),
        timeout,
        used_before,
        before: &before,
        goal: None,
        idle: None,
    };
    (workload.act)(&mut scene)?;
    let written = Instant::now();
    let Scene { running, tracker, mut latencies_s, used_before, goal, idle, .. } = scene;
    // A latency workload has waited for every file, so nothing is left to send.
    if workload.headline != Headline::Latency {
        running.push()?;
    }
    let goal = goal.map_or_else(|| tree::read(source).map(|expected| Goal::new(&before, expected)), Ok)?;
    let outcome = wait_equal(source, &goal, &receiver.targets, timeout, running)?;
    running.settle()?;
    latencies_s.extend(tracker.finish());
    std::thread::sleep(settings.rest);

    let (failure, equal) = match outcome {
        Ok(equal) => (None, equal),
        Err(difference) => (Some(format!("not equal after {} s: {difference}", timeout.as_secs())), Instant::now()),
    };
    let receiver_cpu = Cpu::of(receiver.pid()).since(cpu_before);
    Ok(Sample {
        failure,
        write_s: (written - began).as_secs_f64(),
        total_s: (equal - began).as_secs_f64(),
        lag_s: equal.saturating_duration_since(written).as_secs_f64(),
        latencies_s,
        usage: running.usage().since(used_before),
        idle,
        ready_s: running.ready_s(),
        receiver_cpu_s: receiver_cpu.own_s + receiver_cpu.children_s,
        traffic: receiver.traffic()?.since(traffic),
    })
}

/// Copies the source that `prepare` has made to the targets, so that no peer begins with a full copy.
fn seed(source: &Path, receiver: &Receiver) -> Result<()> {
    for target in &receiver.targets {
        let status = Command::new("cp").arg("-a").arg(source.join(".")).arg(target).status();
        if !status.context("cannot run cp")?.success() {
            bail!("cp could not fill {}", target.display());
        }
    }
    Ok(())
}

/// Waits until a file arrives that was written after an earlier file had arrived. The first file may have come with the peer's
/// initial copy; the second shows that the peer is watching. Then waits until the trees are equal.
fn wait_ready(source: &Path, targets: &[PathBuf], timeout: Duration, running: &mut Running) -> Result<()> {
    const NEEDED: u32 = 2;
    let deadline = Instant::now() + timeout;
    let mut arrived = 0;
    for n in 0_u32.. {
        let name = format!("ready-{n}");
        fs::write(source.join(&name), &name)?;
        let expected = Entry::at(&source.join(&name));
        let patience = Instant::now() + PROBE_WAIT * (n + 1);
        while Instant::now() < patience {
            running.check()?;
            check_interrupted()?;
            if targets.iter().all(|target| Entry::at(&target.join(&name)) == expected) {
                arrived += 1;
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if arrived == NEEDED {
            break;
        }
        if Instant::now() > deadline {
            bail!("mirrors nothing {} s after its start", timeout.as_secs());
        }
    }
    match wait_equal(source, &Goal::new(&Tree::new(), tree::read(source)?), targets, timeout, running)? {
        Ok(_) => running.wait_idle(timeout),
        Err(difference) => bail!("not equal {} s after its start: {difference}", timeout.as_secs()),
    }
}

/// Waits until each target equals the source. Returns the moment of equality, or the difference that remained.
///
/// Walking 10,000 files again and again would take processor time from the measured programs. So the list of missing entries is
/// worked off from its front, one look at a time. Only when the list is empty the trees are compared in full.
fn wait_equal(
    source: &Path,
    goal: &Goal,
    targets: &[PathBuf],
    timeout: Duration,
    running: &mut Running,
) -> Result<Result<Instant, String>> {
    const POLL: Duration = Duration::from_millis(2);
    const FULL_POLL: Duration = Duration::from_millis(50);
    let deadline = Instant::now() + timeout;
    for (path, entry) in &goal.coming {
        for target in targets {
            let copy = target.join(path);
            while Entry::at(&copy) != *entry {
                if Instant::now() > deadline {
                    return Ok(Err(format!("{} is not as it should be", copy.display())));
                }
                running.check()?;
                check_interrupted()?;
                std::thread::sleep(POLL);
            }
        }
    }
    let mut equal = Instant::now();
    loop {
        let mut different = None;
        for target in targets {
            different = different.or(tree::difference(source, &goal.expected, target)?);
        }
        match different {
            None => return Ok(Ok(equal)),
            Some(words) if Instant::now() > deadline => return Ok(Err(words)),
            Some(_) => {
                running.check()?;
                check_interrupted()?;
                std::thread::sleep(FULL_POLL);
                equal = Instant::now();
            }
        }
    }
}
