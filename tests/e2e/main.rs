//! End to end: the real syncq, a real rsyncd, real trees. One binary, one file per theme.
//!
//! Every test has its own world: a temporary directory with a source, two rsyncd modules as targets, a state directory
//! and a home. Nothing outside of it is touched, all traffic stays on loopback, and whatever a test started it ends by
//! process id. Tests wait for conditions with a deadline and never for time.
//!
//! `SYNCQ_SEED=n` replays one churn run, `SYNCQ_SEEDS=n` sets how many are made, `SYNCQ_E2E_KEEP=1` keeps the directories of
//! failed tests, `SYNCQ_E2E_SLOW=n` multiplies all deadlines, `SYNCQ_TEST_BINARY=path` tries another syncq. Tests that the
//! machine cannot run (no root, no tmpfs, no sshd, no namespaces) pass and print why they did nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods
)]

mod harness;

mod answers;
mod backlog;
mod bursts;
mod catch_up;
mod check;
mod churn;
mod compatibility;
mod config_forms;
mod control_tcp;
mod crash;
mod destinations;
mod events;
mod fail_log;
mod fairness;
mod filters;
mod first_comparison;
mod guard;
mod harness_check;
mod input;
mod judges;
mod late_data;
mod limits;
mod loss_modes;
mod metadata;
mod mounts;
mod names;
mod neighbours;
mod operators;
mod operators_day;
mod opposite;
mod ordinary_user;
mod places;
mod plugins;
mod reload;
mod renames;
mod roots;
mod rsync_runs;
mod seed;
mod service;
mod ssh;
mod standby;
mod store_commands;
mod store_loss;
mod swap_attack;
mod swaps;
mod trouble;
mod trouble_paths;
mod verify;
mod watcher;
