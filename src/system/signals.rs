//! Turns signals into calls, on a thread of their own.
//!
//! TERM and INT stop the daemon, a second one at once. HUP opens the log file anew and has the configuration read again.
//! USR1 has the status logged. Deliberately absent: what a stop or a reload does, and where a status comes from.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::{Handle, Signals};

use super::LOG_TARGET;
use super::logging;

/// How urgently to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Work under way may come to an end.
    Graceful,
    /// Asked for a second time: stop at once.
    Forced,
}

/// Catches a HUP that comes before the signal thread runs: uncaught it would end the daemon.
#[derive(Debug)]
pub struct EarlyHup(Arc<AtomicBool>);

impl EarlyHup {
    pub fn note() -> io::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGHUP, Arc::clone(&came))?;
        Ok(Self(came))
    }

    /// Whether a HUP has come by now.
    pub fn has_come(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The thread that waits for signals. When this is dropped, signals have no effect on it any more.
#[derive(Debug)]
pub struct SignalThread {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl SignalThread {
    /// Calls `stop` at each TERM or INT, `reload` at each HUP and `dump` at each USR1, one at a time. No call may block for
    /// long. The error: the signals cannot be caught.
    pub fn start(
        mut stop: impl FnMut(Stop) + Send + 'static,
        mut reload: impl FnMut() + Send + 'static,
        mut dump: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
        let handle = signals.handle();
        let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut urgency = Stop::Graceful;
            for signal in signals.forever() {
                match signal {
                    SIGTERM | SIGINT => {
                        log::info!(target: LOG_TARGET, "{}",
                            match urgency {
                                Stop::Forced => "stopping at once",
                                Stop::Graceful => "stopping when what is under way has ended; once more stops at once",
                            }
                        );
                        stop(urgency);
                        urgency = Stop::Forced;
                    }
                    SIGHUP => {
                        logging::reopen();
                        log::info!(target: LOG_TARGET, "log file reopened");
                        reload();
                    }
                    _ => dump(),
                }
            }
        })?;
        Ok(Self { handle, thread: Some(thread) })
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[derive(Debug, PartialEq, Eq)]
    enum Call {
        Stop(Stop),
        Reload,
        Dump,
    }

    #[test]
    fn the_second_stop_is_forced() {
        let (seen, calls) = mpsc::channel();
        let (dumped, reloaded) = (seen.clone(), seen.clone());
        let thread = SignalThread::start(
            move |stop| seen.send(Call::Stop(stop)).expect("a listener"),
            move || reloaded.send(Call::Reload).expect("a listener"),
            move || dumped.send(Call::Dump).expect("a listener"),
        )
        .expect("a thread");
        let next = || calls.recv_timeout(Duration::from_secs(5)).expect("a call");
        let raise = |signal| signal_hook::low_level::raise(signal).expect("a signal");
        raise(SIGUSR1);
        assert_eq!(next(), Call::Dump);
        raise(SIGHUP);
        assert_eq!(next(), Call::Reload);
        raise(SIGTERM);
        assert_eq!(next(), Call::Stop(Stop::Graceful));
        raise(SIGINT);
        assert_eq!(next(), Call::Stop(Stop::Forced));
        drop(thread);
    }
}
