//! syncq mirrors directory trees of a Linux machine to many rsync targets in real time and never forgets a change.
//!
//! The way of a change through the house:
//!
//! ```text
//!  kernel ──inotify──▶ watch ──Change──▶ filter ──▶ queue (commit → store) ──▶ dispatch ──▶ mirror ──rsync──▶ target
//!                        ▲                            ▲      ▲                    │  ▲          │
//!           scan ────────┘                 schedule ──┘      └───── verdicts ─────┘  └─ outcome ┘
//! ```
//!
//! [`model`] holds the nouns, pure values that all others share. `ARCHITECTURE.md` tells how the parts stand to each other, and
//! which of them may use which. Four walks lead through the house; each follows its links in order.
//!
//! # The life of a change
//!
//! [`watch::Watcher`] reads the kernel's events on a thread of its own and keeps a table of the directories that it watches. What
//! passes the [`Filter`](filter::Filter) becomes a [`Change`](model::Change), says that a path may differ, and goes to the
//! [`Sink`](watch::Sink) of its root. [`Queue::enqueue_burst`](queue::Queue::enqueue_burst) makes a
//! [`Job`](model::Job) of it for each target. A committer writes what stays for a moment through a [`Store`](store::Store), of
//! which [`SledStore`](store::sled::SledStore) is the one on disk.
//!
//! # The life of a job
//!
//! The [`Executor`](dispatch::Executor) has a dispatcher that takes a [`Batch`](queue::Batch) with
//! [`Queue::claim`](queue::Queue::claim) whenever a target may have another run, and gives it to a worker. [`mirror::execute`]
//! looks at the paths as they are by then, plans the fewest rsync runs, starts them and judges their ends by what is known of the
//! target ([`TargetContext`](mirror::TargetContext)). Its [`BatchReport`](mirror::BatchReport) holds a
//! [`Verdict`](model::Verdict) for each job, which [`Queue::finish`](queue::Queue::finish) carries out: done, again later, or
//! the whole target waits.
//!
//! # The life of a reload
//!
//! [`config::load`] turns sersync's XML into a [`Config`](config::Config), or says with line and column why it does not. The
//! [`daemon`] builds all that the new configuration needs beside what is at work, watches new directories first, and then puts
//! all of it in force in one step that cannot fail; targets become known to the queue by
//! [`Queue::register`](queue::Queue::register), and the executor serves them from [`Executor::serve`](dispatch::Executor::serve)
//! on.
//!
//! # The life of a start
//!
//! [`cli::main`] reads the command line, and [`daemon::run`] does the rest: the store is opened,
//! [`Queue::open`](queue::Queue::open) takes over its jobs, the executor sends them, [`ControlServer`](control::ControlServer)
//! answers, and each root is watched and looked through for what has changed since its watermark
//! ([`CatchUp`](watch::CatchUp)). [`Queue::checkpoint`](queue::Queue::checkpoint) moves the watermark from then on.
//!
//! # Beside the walks
//!
//! [`schedule`] asks for whole-tree runs, [`plugin`] tells others of what was mirrored, [`system`] is what a process owes its
//! machine, [`clock`] alone reads the time, [`ctime`] and [`mounts`] say what the file system tells, and [`trust`] opens files
//! that others may have touched.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod ctime;
pub mod daemon;
pub mod dispatch;
pub mod filter;
pub mod mirror;
pub mod model;
pub mod mounts;
pub mod plugin;
pub mod queue;
pub mod schedule;
pub mod store;
pub mod system;
pub mod trust;
pub mod watch;

#[cfg(test)]
#[path = "arrows_tests.rs"]
mod arrows;
