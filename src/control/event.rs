//! The events of a daemon, as listeners receive them. How events reach them is said in `events`.

use serde::{Deserialize, Serialize};

use super::types::rfc3339;
use crate::model::Timestamp;

/// Something that happened. The name of the event in the stream is that of the variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    Sent(Sent),
    Trouble(Trouble),
    Recovered(Recovered),
    Dropped(Dropped),
}

impl Event {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Sent(_) => "sent",
            Self::Trouble(_) => "trouble",
            Self::Recovered(_) => "recovered",
            Self::Dropped(_) => "dropped",
        }
    }
}

/// A run made some paths equal: single entries, or whole subtrees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    pub target: String,
    pub root: String,
    pub paths: u64,
    pub took_s: f64,
}

/// Nothing can be sent to a target at present.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trouble {
    pub target: String,
    pub root: String,
    pub reason: String,
    pub hint: Option<String>,
    #[serde(with = "rfc3339")]
    pub retry_at: Timestamp,
}

/// Sending to the target works again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovered {
    pub target: String,
    pub root: String,
    pub after_s: f64,
}

/// So many events were dropped because the reader was too slow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    pub events: u64,
}
