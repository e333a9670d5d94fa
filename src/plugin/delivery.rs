//! What the engine and the forms of plugins agree on: the trait that delivers a notice, and the ways in which that fails.
//! Which forms there are is not known here.

use super::notice::Notice;
use crate::filter::FilterError;

/// Why a notice was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The other side cannot be reached, whatever the notice. It is kept, and all wait.
    Unreachable(String),
    /// It may work another time. Tried a few times.
    Again(String),
    /// This notice will never be taken.
    Refused(String),
    /// The daemon stops.
    Stopped,
}

/// Delivers notices in one plugin's form. Called from several threads.
pub(super) trait Delivery: Send + Sync {
    /// Whether the plugin wants to know of it at all.
    fn wants(&self, notice: &Notice) -> bool;

    fn deliver(&self, notice: &Notice) -> Result<(), Failure>;

    /// Ends what is under way; what is delivered later is stopped at once.
    fn stop(&self);
}

/// Why a plugin cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("an expression of the plugin cannot be used")]
    Expression(#[from] FilterError),
    #[error("cannot start the plugin's threads")]
    Thread(#[from] std::io::Error),
}
