//! Measures the time from the write of a file until all targets have it, on a thread of its own, for files that nobody waits
//! for.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::tree::Entry;

const POLL: Duration = Duration::from_millis(2);
/// At most this many of the oldest files are looked at in each round, so that looking costs little CPU.
const LOOKS_MAX: usize = 64;
/// How long files may still be missing after the trees are equal.
const FINISH_WAIT: Duration = Duration::from_secs(2);

pub struct Tracker {
    written: Sender<(PathBuf, Instant)>,
    thread: JoinHandle<Vec<f64>>,
}

impl Tracker {
    pub fn new(source: &Path, targets: &[PathBuf]) -> Self {
        let (written, receiver) = channel();
        let (source, targets) = (source.to_path_buf(), targets.to_vec());
        Self { written, thread: std::thread::spawn(move || track(&source, &targets, &receiver)) }
    }

    /// Notes that the file at `path` has just been written.
    pub fn written(&self, path: &Path) {
        // An error means that the thread has panicked; `finish` then returns nothing.
        let _ = self.written.send((path.to_path_buf(), Instant::now()));
    }

    /// The latencies in seconds.
    pub fn finish(self) -> Vec<f64> {
        drop(self.written);
        self.thread.join().unwrap_or_default()
    }
}

fn track(source: &Path, targets: &[PathBuf], written: &Receiver<(PathBuf, Instant)>) -> Vec<f64> {
    let mut pending: Vec<(PathBuf, Instant)> = Vec::new();
    let mut latencies_s = Vec::new();
    let mut last_call = None;
    loop {
        if pending.is_empty() {
            match written.recv() {
                Ok(file) => pending.push(file),
                Err(_) => return latencies_s,
            }
        }
        match written.recv_timeout(POLL) {
            Ok(file) => pending.push(file),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(POLL);
                let deadline = *last_call.get_or_insert_with(|| Instant::now() + FINISH_WAIT);
                if Instant::now() > deadline {
                    return latencies_s;
                }
            }
        }
        pending.extend(written.try_iter());
        let now = Instant::now();
        let mut looks = 0;
        pending.retain(|(path, since)| {
            looks += 1;
            if looks > LOOKS_MAX {
                return true;
            }
            let expected = Entry::at(&source.join(path));
            let arrived = targets.iter().all(|target| Entry::at(&target.join(path)) == expected);
            if arrived {
                latencies_s.push(now.duration_since(*since).as_secs_f64());
            }
            !arrived
        });
    }
}
