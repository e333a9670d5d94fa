//! What process 1 of a container has to do beside its work: every process that loses its parent becomes its child, and stays as
//! a zombie until it is waited for. syncq's ssh connections and the commands of plugins leave such orphans.
//!
//! A mirror that finds itself as process 1 starts itself once more and only looks after processes from then on. So whoever waits
//! for an own child in the mirror finds it: nothing there is waited for behind its back.
//!
//! Deliberately not here: anything for a mirror that is not process 1. There somebody else does it.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

/// What is passed on to the mirror.
const PASSED_ON: [i32; 7] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH];

/// As process 1: runs the mirror as a child and returns its exit code. `None`: this process is the one that mirrors.
pub fn stand_in() -> io::Result<Option<u8>> {
    if !rustix::process::getpid().is_init() {
        return Ok(None);
    }
    // From here on nothing is missed.
    let mut signals = Signals::new(PASSED_ON.into_iter().chain([SIGCHLD]))?;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut command = Command::new(std::env::current_exe()?);
    // A group of its own: what the terminal sends comes here alone, and is passed on once.
    command.arg0(name).args(arguments).process_group(0);
    let child = Pid::from_child(&command.spawn()?);
    for signal in signals.forever() {
        if signal == SIGCHLD {
            if let Some(code) = reap(child) {
                return Ok(Some(code));
            }
        } else if let Some(signal) = Signal::from_named_raw(signal) {
            // Gone: then its end is about to be told.
            let _ = kill_process(child, signal);
        }
    }
    Ok(Some(1))
}

/// Waits for whoever has ended, and returns the exit code of `child` if it is among them.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    // One signal may stand for many ends.
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            code = exit_code(status);
        }
    }
    code
}

/// As a shell has it: 128 and the signal that ended it.
fn exit_code(status: WaitStatus) -> Option<u8> {
    let code = status.exit_status().or_else(|| Some(128 + status.terminating_signal()?));
    code.and_then(|code| u8::try_from(code).ok())
}
