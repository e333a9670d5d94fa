//! Damaged configurations: no input may panic, hang, or cost more than in proportion to its size.
//!
//! The files of the corpus are cut, spliced, repeated and sprinkled with pieces of markup. Every test run does so for a few
//! seconds; `SYNCQ_FUZZ_SECONDS=600` makes that ten minutes. A failure names the number by which it is replayed
//! (`SYNCQ_FUZZ_SEED`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::*;
use crate::clock::monotonic;

/// Pieces that have a meaning to the parser.
const PIECES: &[&[u8]] = &[
    b"<",
    b">",
    b"/>",
    b"</",
    b"=",
    b"\"",
    b"'",
    b"&",
    b";",
    b"&amp;",
    b"&#",
    b"&#x41;",
    b"&#0;",
    b"<!--",
    b"-->",
    b"--",
    b"<?",
    b"?>",
    b"<![CDATA[",
    b"]]>",
    b"<!DOCTYPE",
    b"<head>",
    b"</head>",
    b"<head",
    b"<sersync>",
    b"</sersync>",
    b"<localpath watch=\"/a\">",
    b"<remote ip=\"a\" name=\"b\"/>",
    b" start=\"true\"",
    b" name=\"command\"",
    b" passwd=\"x\"",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xa1\xb0",
    b"\xe2\x80\x9c",
    b"\x81",
    b"encoding=\"GBK\"",
    b"encoding=\"UTF-16\"",
    b"*",
    b"(",
    b"[a",
    b"{9999}",
    b"@daily",
    b"0 3 * * *",
    b"99999999999999999999",
    b"-1",
    b"-artuz --exclude='",
];

/// Without optimization a parse of a megabyte takes some tens of milliseconds. A quadratic step would take minutes.
const TIME_MAX: Duration = Duration::from_secs(20);
/// Now and then an input is blown up to this size.
const LARGE_BYTES: usize = 300_000;

fn mutated(corpus: &[(std::path::PathBuf, Vec<u8>)], rng: &mut Rng) -> Vec<u8> {
    let pick = |rng: &mut Rng| &corpus[rng.usize(..corpus.len())].1;
    let range = |rng: &mut Rng, len: usize, most: usize| {
        let start = rng.usize(..=len);
        start..(start + rng.usize(..=most)).min(len)
    };
    let mut bytes = pick(rng).clone();
    for _ in 0..rng.usize(1..12) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..9) {
            0 => drop(bytes.drain(range(rng, bytes.len(), 60))),
            1 | 2 => drop(bytes.splice(at..at, PIECES[rng.usize(..PIECES.len())].iter().copied())),
            3 => {
                let other = pick(rng);
                let piece = other[range(rng, other.len(), 400)].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let piece = bytes[range(rng, bytes.len(), 200)].to_vec();
                bytes.splice(at..at, piece.repeat(rng.usize(1..6)));
            }
            5 if at < bytes.len() => bytes[at] = rng.u8(..),
            6 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            7 => bytes.truncate(at),
            _ => {
                for quote in bytes.iter_mut().filter(|byte| matches!(byte, b'"' | b'\'')) {
                    if rng.u8(..10) == 0 {
                        *quote = if rng.bool() { b'"' } else { b'\'' };
                    }
                }
            }
        }
    }
    if rng.u8(..50) == 0 && !bytes.is_empty() {
        let piece = bytes[range(rng, bytes.len(), 60)].to_vec();
        let at = rng.usize(..=bytes.len());
        bytes.splice(at..at, piece.repeat(LARGE_BYTES / piece.len().max(1)));
    }
    bytes
}

/// Ends the process when one input takes too long, since a thread that hangs cannot be ended.
fn watch_over(running: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut seen = (u64::MAX, monotonic());
        while Arc::strong_count(&running) > 1 {
            let now = running.load(Ordering::SeqCst);
            if now != seen.0 {
                seen = (now, monotonic());
            }
            if seen.1.elapsed() > TIME_MAX {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::ABORT)
                    .expect("a signal");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}

#[test]
fn no_damage_makes_the_reader_panic_or_hang() {
    let seconds = std::env::var("SYNCQ_FUZZ_SECONDS").ok().and_then(|given| given.parse().ok()).unwrap_or(3);
    let replay: Option<u64> = std::env::var("SYNCQ_FUZZ_SEED").ok().and_then(|given| given.parse().ok());
    let corpus = corpus();
    let begun = monotonic();
    let first = replay.unwrap_or_else(|| fastrand::u64(..1 << 40));
    let running = Arc::new(AtomicU64::new(first));
    watch_over(Arc::clone(&running));
    let (mut runs, mut accepted, mut slowest) = (0u64, 0u64, Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let seed = first + runs;
        running.store(seed, Ordering::SeqCst);
        let bytes = mutated(&corpus, &mut Rng::with_seed(seed));
        let before = monotonic();
        let result = std::panic::catch_unwind(|| parse(Path::new("c.xml"), &bytes))
            .unwrap_or_else(|_| panic!("SYNCQ_FUZZ_SEED={seed} panics on {}", String::from_utf8_lossy(&bytes)));
        match result {
            Ok((config, _)) => {
                accepted += 1;
                assert!(!config.roots.is_empty() && config.roots.iter().all(|root| root.path.is_absolute()), "{seed}");
            }
            Err(error) => assert!(error.to_string().starts_with("c.xml"), "{seed}: {error}"),
        }
        let _ = outline::read(Path::new("c.xml"), &bytes);
        slowest = slowest.max(before.elapsed());
        runs += 1;
        if replay.is_some() {
            break;
        }
    }
    println_progress(runs, accepted, slowest);
}

#[allow(clippy::print_stderr, reason = "shown with --nocapture, for the long form")]
fn println_progress(runs: u64, accepted: u64, slowest: Duration) {
    eprintln!("{runs} inputs, {accepted} of them accepted, the slowest took {} ms", slowest.as_millis());
}
