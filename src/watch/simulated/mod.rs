//! A kernel in memory: a file system of a few inodes, what may be asked of it, and an inotify. One for the watcher's tests and
//! for the simulation of the whole mirror.
//!
//! Time stands still until it is set, and nothing is left to chance. What a program does is an [`Operation`]. It takes place
//! when the test says so, or between two questions of the tracker ([`SimulatedKernel::arm`]), where real programs do it too.
//! `tests::kernels` holds all of this to the machine's own kernel.
//!
//! Deliberately absent: contents (a number stands for them), owners, special files, names of several file systems for one
//! directory, and watches on anything but directories.

mod answers;
mod disk;
mod inotify;
mod operation;
mod turns;

use std::cell::{Ref, RefCell};
use std::collections::VecDeque;

pub(crate) use disk::{Disk, Node};
pub(crate) use operation::Operation;
pub(crate) use turns::{Turn, Turns};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct SimulatedKernel {
    disk: RefCell<Disk>,
    /// Operations that are yet to take place, each after this many more questions than the one before.
    armed: RefCell<VecDeque<(u32, Operation)>>,
}

impl SimulatedKernel {
    pub(crate) fn new(disk: Disk) -> Self {
        Self { disk: RefCell::new(disk), armed: RefCell::default() }
    }

    pub(crate) fn disk(&self) -> Ref<'_, Disk> {
        self.disk.borrow()
    }

    pub(crate) fn disk_mut(&mut self) -> &mut Disk {
        self.disk.get_mut()
    }

    /// Lets the operation take place after this many questions, counted from the last operation that is armed.
    pub(crate) fn arm(&mut self, questions: u32, operation: Operation) {
        self.armed.get_mut().push_back((questions, operation));
    }

    /// Whether something is yet to take place.
    pub(crate) fn is_armed(&self) -> bool {
        !self.armed.borrow().is_empty()
    }

    /// Lets all armed operations take place at once.
    pub(crate) fn fire(&mut self) {
        for (_, operation) in std::mem::take(self.armed.get_mut()) {
            self.disk_mut().perform(&operation);
        }
    }

    /// Lets the operations take place that are due before the next question, and answers that question.
    fn ask<T>(&self, answer: impl FnOnce(&mut Disk) -> T) -> T {
        let mut disk = self.disk.borrow_mut();
        let mut armed = self.armed.borrow_mut();
        while let Some((_, operation)) = armed.pop_front_if(|(questions, _)| *questions == 0) {
            disk.perform(&operation);
        }
        if let Some((questions, _)) = armed.front_mut() {
            *questions -= 1;
        }
        answer(&mut disk)
    }
}
