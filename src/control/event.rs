//! What happens in a daemon, as those who listen are told. How it reaches them is said in `events`.

use serde::{Deserialize, Serialize};

use super::types::rfc3339;
use crate::model::Timestamp;

/// Something that happened. Its name in the stream is that of the variant.
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

/// A run made some paths equal, each on its own or with all below it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    pub target: String,
    pub root: String,
    pub paths: u64,
    pub took_s: f64,
}

/// A target takes nothing at present.
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

/// It does again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovered {
    pub target: String,
    pub root: String,
    pub after_s: f64,
}

/// The reader was too slow for so many events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    pub events: u64,
}
