//! One watched root at run time: its watcher, its targets, its watermark, and whether the source is still the directory that it
//! was.
//!
//! [`RootRuntime`] is the whole; `state` holds the values that change. [`RootRuntime::maintain`] is called once a second while
//! something is going on, and now and then otherwise. It has `suspension` check the source, and `watermark` move the time up to
//! which everything is mirrored or has a job. `catch_up` decides what a start makes of that time. The watcher's notices come in
//! through `sink`.
//!
//! `change` holds the effects of a new configuration on a root that is watched already. `rules` holds the rules by which a root
//! is watched. `sight` and `seen` say how much of the root is seen. `fingerprint` sums up what a target's content depends on
//! beside the root.

mod catch_up;
mod change;
mod fingerprint;
mod rules;
mod runtime;
mod seen;
mod sight;
mod sink;
mod state;
mod suspension;
#[cfg(test)]
mod tests;
mod watermark;

pub use fingerprint::{Fingerprint, fingerprint};
pub use rules::Rules;
pub use runtime::{RootRuntime, StartOptions};
pub use sight::{Sight, Suspension};
