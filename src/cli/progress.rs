//! The live view on a terminal, of a mirror or of what is waited for: a line per target below the log lines, redrawn when
//! something changed.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::output::{age, plain};
use crate::control::{Status, TargetStatus, word};
use crate::daemon::logging;

/// Five looks a second follow the eye and cost the daemon nothing.
const INTERVAL: Duration = Duration::from_millis(200);

/// Targets shown; a terminal has few lines, and the log wants some.
const LINES_MAX: usize = 12;

/// The running view. Dropping it takes it off the screen.
#[derive(Debug)]
pub struct Progress {
    /// Dropping it ends the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts the view of what `look` returns, on a terminal. Without a thread for it there is just no view.
    pub fn start(look: impl Fn() -> Option<Status> + Send + 'static) -> Option<Self> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let (stop, stopped) = mpsc::channel();
        let draw = move || {
            let mut shown = Vec::new();
            // What is over at once needs no view.
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let lines = look().map(|status| render(&status)).unwrap_or_default();
                if lines != shown {
                    logging::show_live(&lines);
                    shown = lines;
                }
            }
            logging::show_live(&[]);
        };
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(draw).ok()?;
        Some(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn render(status: &Status) -> Vec<String> {
    let names = status.targets.iter().map(|target| target.name.chars().count()).max().unwrap_or(0).min(40);
    let mut lines: Vec<_> = status.targets.iter().take(LINES_MAX).map(|target| line(target, names)).collect();
    if status.targets.len() > LINES_MAX {
        lines.push(format!("and {} more targets: syncq status", status.targets.len() - LINES_MAX));
    }
    lines
}

fn line(target: &TargetStatus, name_width: usize) -> String {
    let mut line = format!("{:name_width$}  {:<13}", plain(&target.name), word(target.state));
    let open = target.pending + target.running + target.waiting;
    line.push_str(&format!("  {open:>7} pending"));
    if target.failed > 0 {
        line.push_str(&format!(", {} failed", target.failed));
    }
    if target.lag_s > 0.0 {
        line.push_str(&format!(", {} behind", age(target.lag_s)));
    }
    if let Some(text) = target.reason.as_ref().or(target.last_path.as_ref()) {
        line.push_str("  ");
        line.push_str(&plain(text));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::sample;

    #[test]
    fn a_line_tells_state_backlog_and_what_matters_most() {
        let mut status = sample();
        assert_eq!(
            render(&status),
            [
                "/backup/www  idle                 0 pending  a\\nb",
                "b::www       misconfigured       12 pending, 1m15s behind  auth failed on module www",
            ]
        );
        status.targets = vec![status.targets.remove(0); 20];
        assert_eq!(render(&status).len(), LINES_MAX + 1);
    }
}
