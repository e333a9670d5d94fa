//! The answers about a running daemon's configuration and its reloads.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::types::rfc3339_option;
use crate::model::Timestamp;

/// The configuration in `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// When the files of the active configuration were read.
    #[serde(with = "rfc3339_option")]
    pub loaded_at: Option<Timestamp>,
    /// Why the last attempt to read them failed. The previous configuration is still active then.
    pub error: Option<ConfigError>,
}

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigError {
    /// The message, with file, line and column where there are any.
    pub message: String,
    /// What an operator can do about it.
    pub hint: Option<String>,
    /// Whether the configuration is wrong; otherwise this machine lacks something.
    pub config: bool,
    /// The time of the attempt.
    #[serde(with = "rfc3339_option")]
    pub at: Option<Timestamp>,
}

/// The answer to `POST /v1/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    pub config: ConfigStatus,
    /// The changes since the previous configuration, if there was no error.
    pub changes: ConfigChanges,
}

/// How a configuration differs from the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChanges {
    pub roots: Tally,
    pub targets: Tally,
    /// Settings, plugins, schedules or failLogs.
    pub others: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub added: u64,
    pub changed: u64,
    pub removed: u64,
}

impl Tally {
    fn parts(self, one: &'static str, many: &'static str) -> impl Iterator<Item = String> {
        let parts = [(self.added, "added"), (self.changed, "changed"), (self.removed, "removed")];
        let shown = move |(count, what)| format!("{count} {} {what}", if count == 1 { one } else { many });
        parts.into_iter().filter(|(count, _)| *count > 0).map(shown)
    }
}

/// The changes in words, for log and command line.
impl fmt::Display for ConfigChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.roots.parts("directory", "directories").collect();
        parts.extend(self.targets.parts("target", "targets"));
        if self.others && parts.is_empty() {
            parts.push("settings changed".to_owned());
        }
        f.write_str(&if parts.is_empty() { "nothing changed".to_owned() } else { parts.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_said_in_a_line() {
        let roots = Tally { added: 2, changed: 0, removed: 1 };
        let targets = Tally { added: 1, changed: 3, removed: 0 };
        let changes = ConfigChanges { roots, targets, others: true };
        assert_eq!(changes.to_string(), "2 directories added, 1 directory removed, 1 target added, 3 targets changed");
        assert_eq!(ConfigChanges { others: true, ..ConfigChanges::default() }.to_string(), "settings changed");
        assert_eq!(ConfigChanges::default().to_string(), "nothing changed");
    }

    /// Scripts rely on these keys.
    #[test]
    fn answers_have_the_promised_keys() {
        let error =
            ConfigError { message: "a.xml:3:1: no".to_owned(), hint: None, config: true, at: Some(Timestamp(0)) };
        let config = ConfigStatus { loaded_at: Some(Timestamp(1_000)), error: Some(error) };
        let json = serde_json::to_string(&Reloaded { config, changes: ConfigChanges::default() }).expect("json");
        let tally = r#"{"added":0,"changed":0,"removed":0}"#;
        assert_eq!(
            json,
            format!(
                "{}{}\"changes\":{{\"roots\":{tally},\"targets\":{tally},\"others\":false}}}}",
                r#"{"config":{"loaded_at":"1970-01-01T00:00:01.000Z","error":{"message":"a.xml:3:1: no","hint":null,"#,
                r#""config":true,"at":"1970-01-01T00:00:00.000Z"}},"#
            )
        );
    }
}
