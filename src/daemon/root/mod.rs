//! One watched root at run time: its watcher, its targets, up to when the tree is known, and whether the source is what it
//! was.
//!
//! [`RootRuntime`] is all of it; `state` is what changes about it. [`RootRuntime::maintain`], called once a second while something is
//! going on and now and then while not, has `suspension` look whether the source is what it was, and `watermark` move the time
//! up to which everything is mirrored or has a job. `catch_up` is what a start makes of that time. What happens meanwhile to
//! the watcher itself is told by its notices, which come in through `sink`.
//!
//! What another configuration makes of a root that is watched already is in `change`, and by which `rules` it is watched; how
//! much is seen of it, in `sight` and `seen`; what a target's content depends on beside it, in `fingerprint`.

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
