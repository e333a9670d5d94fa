//! The live view on a terminal, of a mirror or of a wait: a line per target below the log lines, redrawn after each change.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::termios::tcgetwinsize;

use super::output::{Tone, age, cut, has_colours, plain, size};
use crate::clock::monotonic;
use crate::control::{RunStatus, Status, TargetStatus, word};
use crate::system::logging;

/// The pause between two looks. Five looks a second are fast enough for the eye and cost the daemon nothing.
const INTERVAL: Duration = Duration::from_millis(200);

/// A wait is shown only after this many seconds.
const WAIT_SHOWN_AFTER_S: f64 = 1.0;
/// The progress of a run is shown only after this many seconds.
const COURSE_AFTER_S: f64 = 2.0;
/// A run that has sent nothing for this many seconds has stalled, or compares.
const STILL_AFTER_S: f64 = 5.0;

/// The most targets that are shown: a terminal has few lines, and the log needs some.
const LINES_MAX: usize = 12;

/// The running view. Dropping it removes the view from the screen.
#[derive(Debug)]
pub struct Progress {
    /// Dropping the sender ends the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts the view of the status that `look` returns, if stderr is a terminal. If no thread can be started there is no
    /// view.
    pub fn start(look: impl Fn() -> Option<Status> + Send + 'static) -> Option<Self> {
        let colours = has_colours(true);
        Self::of_lines(move || look().map(|status| render(&status, columns(), colours)).unwrap_or_default())
    }

    /// Shows in one line what is waited for, and for how long.
    pub fn of_wait(what: String) -> Option<Self> {
        let begun = monotonic();
        Self::of_lines(move || {
            let waited = begun.elapsed().as_secs_f64();
            // A short wait needs no line.
            if waited < WAIT_SHOWN_AFTER_S {
                Vec::new()
            } else {
                vec![cut(&format!("{what}: {}", age(waited)), columns())]
            }
        })
    }

    fn of_lines(lines: impl Fn() -> Vec<String> + Send + 'static) -> Option<Self> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let (stop, stopped) = mpsc::channel();
        let draw = move || {
            let mut shown = Vec::new();
            // The first lines come after a pause: a short affair needs no view.
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let lines = lines();
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

/// The width of the terminal, which may change. If a terminal does not tell its width, lines are not cut here.
fn columns() -> usize {
    let told = tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col);
    if told == 0 { usize::MAX } else { told.into() }
}

fn render(status: &Status, columns: usize, colours: bool) -> Vec<String> {
    let names = status.targets.iter().map(|target| target.name.chars().count()).max().unwrap_or(0).min(40);
    let mut lines: Vec<_> =
        status.targets.iter().take(LINES_MAX).map(|target| line(target, names, columns, colours)).collect();
    if status.targets.len() > LINES_MAX {
        lines.push(cut(&format!("and {} more targets: syncq status", status.targets.len() - LINES_MAX), columns));
    }
    lines
}

fn line(target: &TargetStatus, name_width: usize, columns: usize, colours: bool) -> String {
    let state = word(target.state);
    let mut line = format!("{:name_width$}  {state:<13}", plain(&target.name));
    let open = target.pending + target.running + target.waiting;
    line.push_str(&format!("  {open:>5} pending"));
    if target.failed > 0 {
        line.push_str(&format!(", {} failed", target.failed));
    }
    if target.lag_s > 0.0 {
        line.push_str(&format!(", {} behind", age(target.lag_s)));
    }
    let course = target.run.as_ref().and_then(course);
    // The path `.` is the whole tree and tells nothing.
    let last = target.last_path.as_ref().filter(|path| *path != ".");
    if let Some(text) = target.reason.as_ref().or(course.as_ref()).or(last) {
        line.push_str("  ");
        line.push_str(&plain(text));
    }
    let line = cut(&line, columns);
    // Colour the state behind the name, and only if the cut has left it there.
    match line.split_once(&format!("  {state} ")) {
        Some((name, rest)) if colours => format!("{name}  {} {rest}", Tone::of(target.state).painted(&state)),
        _ => line,
    }
}

/// The progress of the runs to a target, if they have lasted for a while.
pub fn course(run: &RunStatus) -> Option<String> {
    let RunStatus { elapsed_s, sent_bytes, still_s, connecting } = *run;
    if elapsed_s < COURSE_AFTER_S {
        return None;
    }
    if connecting {
        return Some(format!("connecting for {}", age(elapsed_s)));
    }
    let sent = format!("sent {}", size(sent_bytes));
    Some(match still_s >= STILL_AFTER_S {
        true => format!("{sent} in {}, nothing for {}", age(elapsed_s), age(still_s)),
        false => format!("{sent}, {}/s", size((sent_bytes as f64 / elapsed_s) as u64)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::sample;

    #[test]
    fn a_line_tells_state_backlog_and_what_matters_most() {
        let mut status = sample();
        assert_eq!(
            render(&status, 90, false),
            [
                "/backup/www  idle               0 pending  a\\nb",
                "b::www       misconfigured     12 pending, 1m15s behind  auth failed on module www",
            ]
        );
        status.targets = vec![status.targets.remove(0); 20];
        assert_eq!(render(&status, 80, false).len(), LINES_MAX + 1);
    }

    /// The terminal cut lines by itself, which left each line's last character in the last column.
    #[test]
    fn a_line_fits_into_the_terminal_and_its_state_has_a_colour() {
        let status = sample();
        let lines = render(&status, 40, true);
        assert_eq!(
            lines,
            ["/backup/www  idle               0 pendi…", "b::www       \x1b[1;31mmisconfigured\x1b[0m     12 pendi…",]
        );
        assert_eq!(render(&status, 20, true)[1], "b::www       miscon…");
    }

    #[test]
    fn a_long_run_is_told_by_what_it_does() {
        let run = |elapsed_s, sent_bytes, still_s, connecting| RunStatus { elapsed_s, sent_bytes, still_s, connecting };
        for (run, told) in [
            (run(1.0, 0, 1.0, true), None),
            (run(31.0, 0, 31.0, true), Some("connecting for 31s")),
            (run(10.0, 20_480, 0.3, false), Some("sent 20.0 KiB, 2.0 KiB/s")),
            (run(70.0, 20_480, 65.0, false), Some("sent 20.0 KiB in 1m10s, nothing for 1m5s")),
        ] {
            assert_eq!(course(&run).as_deref(), told);
        }
        let mut status = sample();
        status.targets[0].run = Some(run(3.0, 1_024, 0.0, false));
        assert!(render(&status, 80, false)[0].ends_with("sent 1.0 KiB, 341 B/s"));
    }
}
