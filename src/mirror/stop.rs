//! The handle that ends rsync runs from outside. Raised once, it stays raised.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Shared by whoever may stop runs and by the runs, which wait for it together with their pipes.
#[derive(Debug, Clone)]
pub struct StopSignal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    raised: AtomicBool,
    event: OwnedFd,
}

impl StopSignal {
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { raised: AtomicBool::new(false), event })))
    }

    /// Ends every run that knows this signal and keeps others from starting. May be called any number of times.
    pub fn raise(&self) {
        if !self.0.raised.swap(true, Ordering::SeqCst) {
            // The counter stands at zero, so that the write cannot be refused; nobody ever reads it, so that it
            // wakes all who wait.
            let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        }
    }

    pub fn is_raised(&self) -> bool {
        self.0.raised.load(Ordering::SeqCst)
    }

    /// Waits so long, or until it is raised.
    pub fn rest(&self, pause: Duration) {
        let mut raised = [PollFd::new(&self.0.event, PollFlags::IN)];
        // An early end of the pause does no harm.
        let _ = poll(&mut raised, Timespec::try_from(pause).ok().as_ref());
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
