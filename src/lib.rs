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
//! [`model`] holds the nouns, pure values that all others share. [`watch`] turns what the kernel reports into changes
//! that pass the [`filter`]. The [`queue`] makes them durable jobs through a [`store`]; [`dispatch`] hands them to workers, in
//! which [`mirror`] turns jobs into rsync runs and runs into outcomes. Watcher and mirror look at [`ctime`]s and [`mounts`].
//! [`config`] reads sersync's XML,
//! [`schedule`] asks for whole-tree runs, [`plugin`] tells others of what was mirrored, [`control`] answers operators,
//! [`daemon`] wires and starts it all with what [`system`] knows of the machine, and [`cli`] is what people type.
//!
//! `ARCHITECTURE.md` tells how the parts stand to each other and which arrows may not be reversed.

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
