//! The duties of process 1 in a container: every process that loses its parent becomes a child of process 1, and stays a zombie
//! until process 1 waits for it. syncq's ssh connections and the commands of plugins leave such orphans.
//!
//! A mirror that finds itself as process 1 starts itself once more as a child. The parent only forwards signals and reaps
//! processes from then on. So no wait for any child takes away an exit status that the mirror itself waits for.
//!
//! Deliberately absent: anything for a mirror that is not process 1. There another process has these duties.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

/// The signals that are forwarded to the mirror.
const PASSED_ON: [i32; 7] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH];

/// Runs the mirror as a child if this is process 1, and returns its exit code. `None`: this process has to mirror itself.
pub fn stand_in() -> io::Result<Option<u8>> {
    if !rustix::process::getpid().is_init() {
        return Ok(None);
    }
    // Before the child is spawned, so that no signal and no end is missed.
    let mut signals = Signals::new(PASSED_ON.into_iter().chain([SIGCHLD]))?;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut command = Command::new(std::env::current_exe()?);
    // The child gets a process group of its own: a signal from the terminal then reaches only this process, which forwards it
    // once.
    command.arg0(name).args(arguments).process_group(0);
    let child = Pid::from_child(&command.spawn()?);
    for signal in signals.forever() {
        if signal == SIGCHLD {
            if let Some(code) = reap(child) {
                return Ok(Some(code));
            }
        } else if let Some(signal) = Signal::from_named_raw(signal) {
            // An error means that the child is gone; SIGCHLD is about to say so.
            let _ = kill_process(child, signal);
        }
    }
    Ok(Some(1))
}

/// Reaps every process that has ended, and returns the exit code of `child` if it is among them.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    // One SIGCHLD may stand for several ended processes.
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            code = exit_code(status);
        }
    }
    code
}

/// The exit code as a shell reports it: 128 plus the signal's number for a process that a signal ended.
fn exit_code(status: WaitStatus) -> Option<u8> {
    let code = status.exit_status().or_else(|| Some(128 + status.terminating_signal()?));
    code.and_then(|code| u8::try_from(code).ok())
}
