//! Hands the queue's batches to a pool of workers, each of which runs rsync, and brings back their outcomes.
//!
//! Other modules hold an [`Executor`]. Its `dispatcher` is one thread that decides: `next_run` says who runs next, and
//! `lanes` how many runs a target bears, both pure. A `worker` takes one batch through [`crate::mirror`]. `activity`
//! tells listeners what happens.
//!
//! Which targets are served, and how, may be replaced at any time ([`Executor::serve`]). A run in flight then comes to
//! its end as it was begun, whether its target is still served or not.
//!
//! Invariant: this module alone knows both the queue and rsync's runs. It reads no words of rsync's and writes no argument.

mod activity;
mod dispatcher;
mod executor;
mod lanes;
mod next_run;
mod shared;
mod worker;

pub use activity::{Activity, Happened, Listener};
pub use executor::Executor;
pub use shared::Contexts;
