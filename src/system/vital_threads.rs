//! Notices the death of a thread without which the daemon is of no use.
//!
//! A panic ends only its thread. Without its watcher or its dispatcher the daemon would go on, look healthy and mirror
//! nothing. So it ends instead, and its service manager starts it anew: pending jobs are in the store, and the start finds
//! the changes that nobody saw.
//!
//! Deliberately absent: panics of workers, which cost the dispatcher one batch, and of the control socket's requests.

use std::panic::{set_hook, take_hook};

use crossbeam_channel::Sender;

/// The names of the vital threads.
const VITAL: [&str; 5] = ["commit", "dispatch", "reload", "root", "watch"];

/// A vital thread has died.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {thread} thread has crashed: {panic}")]
pub struct Crashed {
    pub thread: String,
    pub panic: String,
}

/// Reports every panic of a vital thread to `to`, and then calls the panic hook that was set before.
pub fn report_deaths(to: Sender<Crashed>) {
    let before = take_hook();
    set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        if let Some(name) = thread.name().filter(|name| VITAL.contains(name)) {
            // If the channel is full, it already holds a death, and one is enough.
            let _ = to.try_send(Crashed { thread: name.to_owned(), panic: panic.to_string() });
        }
        before(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vital_thread_does_not_die_in_silence() {
        let (died, deaths) = crossbeam_channel::bounded(1);
        report_deaths(died);
        let die = |name: &str| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(|| panic!("on purpose"));
            thread.expect("a thread").join().expect_err("a panic");
        };
        die("rsync-1");
        assert!(deaths.try_recv().is_err());
        die("dispatch");
        let death = deaths.try_recv().expect("a death");
        assert!(death.thread == "dispatch" && death.panic.contains("on purpose"), "{death}");
    }
}
