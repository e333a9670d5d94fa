//! The contract between the engine and the forms of plugins: the trait that delivers a notice, and the ways in which a
//! delivery fails. Deliberately absent: which forms there are.

use super::notice::Notice;
use crate::filter::FilterError;

/// Why a notice was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The other side cannot be reached, whatever the notice. The notice is kept, and all deliveries wait.
    Unreachable(String),
    /// The delivery may work another time. It is tried a few times.
    Again(String),
    /// The other side will never take this notice.
    Refused(String),
    /// The daemon stops.
    Stopped,
}

/// Delivers notices in one plugin's form. Called from several threads.
pub(super) trait Delivery: Send + Sync {
    /// Whether the plugin wants to be told of this path at all.
    fn wants(&self, notice: &Notice) -> bool;

    fn deliver(&self, notice: &Notice) -> Result<(), Failure>;

    /// Ends the deliveries under way. Later ones end at once with [`Failure::Stopped`].
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
