//! Breaks everything around a mirror that can break, again and again, and checks that the mirror heals. `tools/faults` starts
//! it.
//!
//! The real syncq mirrors a tree to two real rsync daemons, while `load` changes that tree at random. Meanwhile `fault` kills
//! the daemon, its rsyncs and the servers, cuts connections and delivers their data late (`proxy` stands between the two
//! sides). It fills the disk of the state directory, overflows the kernel's event queue, unmounts the source and has the daemon
//! read other configurations. `places` makes faults at single places: closed directories, leases, pipes, mounts below the
//! source, immutable targets. In the end everything is repaired, and the trees must be equal. `rounds` has the orders of
//! faults, `bounds` the costs of lasting trouble, `stage` all participants, `machine` the programs and mounts below the stage,
//! and `journal` the record of actions.
//!
//! As root this program works in a mount namespace of its own, so that nobody else sees its mounts. If it is not root, or no
//! namespace can be made, it says which faults it leaves out. Deliberately absent: steps of the clock, which no namespace
//! confines.

// Prints for people, reads real clocks, and fails by panicking, as tests do.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod bounds;
mod fault;
// The rest of the harness is for tests.
#[allow(dead_code, unused_imports)]
#[path = "../../tests/e2e/harness/mod.rs"]
mod harness;
mod journal;
mod load;
mod machine;
mod places;
mod proxy;
mod rounds;
mod stage;

use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;

use fault::Kind;
use harness::rsync::Side;
use journal::Journal;
use rounds::INTERRUPTED;

/// Set once this program has been started with the right environment.
const STARTED: &str = "SYNCQ_CHAOS_STARTED";
/// Set in the mount namespace.
const INSIDE: &str = "SYNCQ_CHAOS_INSIDE";
/// The most lines of the journal that are shown of a failure.
const JOURNAL_SHOWN: usize = 150;

/// Break things around a mirror and see that it heals
#[derive(Parser, Debug)]
#[command(name = "tools/faults", disable_version_flag = true)]
struct Args {
    /// The short form: a few rounds, about half a minute, without the faults that take as long by themselves
    #[arg(long)]
    quick: bool,
    /// Where chance begins; the same seed makes the same choices [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How long random faults go on, in seconds [default: 60 if nothing else is asked for]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// How many rounds of random faults, instead of a time
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    rounds: Option<u32>,
    /// Rounds of kill -9 under load, a start without -r, and often no change afterwards
    #[arg(long, value_name = "N", default_value_t = 0)]
    kills: u32,
    /// Rounds of: jobs for a dead target, kill -9, a start, no change, and the target returns
    #[arg(long, value_name = "N", default_value_t = 0)]
    pending: u32,
    /// Create this many files as fast as one process can, with event queues of 1,024 and of 16,384
    #[arg(long, value_name = "FILES", default_value_t = 0)]
    burst: usize,
    /// Create this many files while one of two targets is away; tells what that costs, and what the other one notices
    #[arg(long, value_name = "FILES", default_value_t = 0)]
    away: usize,
    /// Rounds in which most of a dozen targets hang, each in the middle of what it does, and the others must be quick
    #[arg(long, value_name = "N", default_value_t = 0)]
    hung: u32,
    /// Unmount and mount a local target this many times under a load, with kills in between
    #[arg(long, value_name = "ROUNDS", default_value_t = 0)]
    local: u32,
    /// With other versions of rsync, the daemon's and the servers': suites or versions that tools/rsyncs has fetched
    #[arg(long, value_name = "CLIENT[/SERVER]")]
    rsync: Option<String>,
    /// Only these kinds of fault
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    only: Vec<Kind>,
    /// Not these kinds of fault
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    without: Vec<Kind>,
    /// Leave out replacements that keep size and time
    #[arg(long)]
    no_twins: bool,
    /// Print the journal as it is written
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let inside = std::env::var_os(INSIDE).is_some();
    if std::env::var_os(STARTED).is_none() {
        let sides = args.rsync.as_deref().map(rsyncs);
        if let Some(Err(missing)) = sides {
            eprintln!("faults: {missing}");
            return ExitCode::from(2);
        }
        begin_again(sides.and_then(Result::ok).into_iter().flatten());
    }
    on_signals_put_back();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let journal = Journal::new(args.verbose);
    let settings = rounds::Settings { seed, kinds: kinds(&args, inside), twins: !args.no_twins, inside };
    println!("faults: seed {seed}");
    let ended = catch_unwind(AssertUnwindSafe(|| run(&args, &settings, &journal)));
    harness::inotify::put_back();
    if ended.is_err() {
        eprintln!("--- the last of the journal ---");
        journal.tail(JOURNAL_SHOWN).iter().for_each(|line| eprintln!("{line}"));
        eprintln!("faults: FAILED with --seed {seed}");
        return ExitCode::FAILURE;
    }
    if INTERRUPTED.load(Ordering::Relaxed) {
        eprintln!("faults: interrupted");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(args: &Args, settings: &rounds::Settings, journal: &Journal) {
    if args.quick {
        rounds::kills(settings, journal, 6);
        rounds::pending(settings, journal, 1);
        bounds::away(settings, journal, 5_000);
        rounds::local(settings, journal, 2);
        return rounds::random(settings, journal, rounds::Until::after(Duration::from_secs(8)));
    }
    let asked = [args.kills, args.pending, args.local, args.hung].iter().any(|count| *count > 0);
    let asked = asked || args.burst > 0 || args.away > 0;
    if args.kills > 0 {
        rounds::kills(settings, journal, args.kills);
    }
    if args.pending > 0 {
        rounds::pending(settings, journal, args.pending);
    }
    if args.burst > 0 {
        bounds::bursts(settings, journal, args.burst);
    }
    if args.local > 0 {
        rounds::local(settings, journal, args.local);
    }
    if args.away > 0 {
        bounds::away(settings, journal, args.away);
    }
    if args.hung > 0 {
        bounds::hung(settings, journal, args.hung);
    }
    match (args.rounds, args.seconds) {
        (Some(count), _) => rounds::random(settings, journal, rounds::Until::Rounds(count)),
        (None, Some(seconds)) => {
            rounds::random(settings, journal, rounds::Until::after(Duration::from_secs(seconds)));
        }
        (None, None) if !asked => rounds::random(settings, journal, rounds::Until::after(Duration::from_secs(60))),
        (None, None) => {}
    }
}

/// The kinds of fault that are requested and possible. Prints those that are not possible.
fn kinds(args: &Args, inside: bool) -> Vec<Kind> {
    let is_chosen =
        |kind: &Kind| args.only.contains(kind) || (args.only.is_empty() && !(args.quick && kind.takes_long()));
    let asked = |kind: &Kind| is_chosen(kind) && !args.without.contains(kind);
    let (possible, impossible): (Vec<Kind>, Vec<Kind>) = Kind::ALL
        .into_iter()
        .filter(asked)
        .partition(|kind| (inside || !kind.needs_mounts()) && (harness::is_root() || !kind.needs_root()));
    for kind in impossible {
        println!("faults: {kind:?} is left out: it needs root, and a mount namespace perhaps");
    }
    possible
}

/// Starts this program once more with these variables, in a mount namespace of its own if that is possible. Returns only if
/// that fails.
fn begin_again(variables: impl Iterator<Item = (&'static str, PathBuf)>) {
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = if harness::is_root() && can_unshare() {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]).arg(program).env(INSIDE, "1");
        command
    } else {
        Command::new(program)
    };
    let error = command.args(std::env::args_os().skip(1)).envs(variables).env(STARTED, "1").exec();
    eprintln!("faults: cannot start again: {error}");
}

/// The variables that name the rsync of each side to the harness, for `CLIENT[/SERVER]`.
fn rsyncs(named: &str) -> Result<Vec<(&'static str, PathBuf)>, String> {
    let (client, server) = named.split_once('/').unwrap_or((named, named));
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/rsyncs");
    let side = |name: &str| {
        let program = all.join(name).join("bin/rsync");
        program.canonicalize().map_err(|error| format!("{}: {error}: tools/rsyncs fetches it", program.display()))
    };
    Ok(vec![(Side::Client.variable(), side(client)?), (Side::Server.variable(), side(server)?)])
}

fn can_unshare() -> bool {
    let probe = Command::new("unshare").args(["--mount", "--propagation", "private", "--", "true"]).output();
    probe.is_ok_and(|output| output.status.success())
}

/// Ends the program after the current step. Settings of the whole machine are restored at once.
fn on_signals_put_back() {
    let signals = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP];
    let mut signals = signal_hook::iterator::Signals::new(signals).expect("cannot handle signals");
    std::thread::spawn(move || {
        for _ in signals.forever() {
            harness::inotify::put_back();
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
}
