//! The handle that ends rsync runs from outside. Once raised, it stays raised.
//!
//! A signal may have others below it, each for the runs of one batch: such a signal is raised by itself, or with the one
//! above. A signal also knows which process is being waited for under it. Whoever may have to end that process can so see
//! whether the process still moves.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Pid;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// A signal shared by whoever may stop runs and by the runs, which wait for it together with their pipes.
#[derive(Debug, Clone)]
pub struct StopSignal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    raised: AtomicBool,
    event: OwnedFd,
    below: Mutex<Vec<Weak<Inner>>>,
    /// The number of the process that is waited for; 0 for none.
    process: AtomicI32,
}

/// As long as this value lives, its process counts as being waited for.
#[derive(Debug)]
pub struct Attended<'a>(&'a StopSignal);

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        self.0.0.process.store(0, Ordering::SeqCst);
    }
}

impl Inner {
    fn raise(&self) {
        if !self.raised.swap(true, Ordering::SeqCst) {
            // The counter stands at zero, so the write cannot be refused. Nobody ever reads the counter, so the descriptor
            // stays readable and wakes all who wait.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
        let below = std::mem::take(&mut *self.below.lock());
        below.iter().filter_map(Weak::upgrade).for_each(|below| below.raise());
    }
}

impl StopSignal {
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (raised, below, process) = (AtomicBool::new(false), Mutex::default(), AtomicI32::new(0));
        Ok(Self(Arc::new(Inner { raised, event, below, process })))
    }

    /// A new signal that is raised with this one, or alone. The error: no descriptor is left.
    pub fn below(&self) -> io::Result<Self> {
        let below = Self::new()?;
        let mut known = self.0.below.lock();
        known.retain(|other| other.strong_count() > 0);
        known.push(Arc::downgrade(&below.0));
        drop(known);
        if self.is_raised() {
            below.raise();
        }
        Ok(below)
    }

    /// Notes which process is being waited for.
    pub(in crate::mirror) fn attend(&self, pid: Pid) -> Attended<'_> {
        self.0.process.store(pid.as_raw_nonzero().get(), Ordering::SeqCst);
        Attended(self)
    }

    /// The process that is being waited for.
    pub fn process(&self) -> Option<Pid> {
        Pid::from_raw(self.0.process.load(Ordering::SeqCst))
    }

    /// Ends every run that knows this signal and keeps others from starting. May be called any number of times.
    pub fn raise(&self) {
        self.0.raise();
    }

    pub fn is_raised(&self) -> bool {
        self.0.raised.load(Ordering::SeqCst)
    }

    /// Waits for `pause`, or until the signal is raised.
    pub fn rest(&self, pause: Duration) {
        let mut raised = [PollFd::new(&self.0.event, PollFlags::IN)];
        // An early end of the pause does no harm.
        let _ = poll(&mut raised, Timespec::try_from(pause).ok().as_ref());
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
