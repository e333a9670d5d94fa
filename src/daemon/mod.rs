//! (under construction)

pub mod detach;
pub mod logging;
pub mod options;
pub mod signals;
pub mod sysctl;

pub use options::{OnReady, Options};
