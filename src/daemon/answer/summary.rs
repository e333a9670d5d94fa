//! A status in few words: one line for the service manager, and a line per target in the log.
//!
//! Deliberately absent: who reads the summary, and when.

use crate::control::{RootState, Status, TargetState, word};

/// The state of the daemon in a line: what is wrong first, then how much is pending.
pub fn summary(status: &Status) -> String {
    let mut parts: Vec<String> = Vec::new();
    let refused = status.config.as_ref().and_then(|config| config.error.as_ref());
    parts.extend(refused.map(|refused| format!("the configuration was not taken: {}", refused.message)));
    let suspended = status.roots.iter().filter(|root| root.state == RootState::Suspended);
    parts.extend(suspended.clone().map(|root| format!("{} is suspended", root.path)));
    let is_suspended = |path: &str| suspended.clone().any(|root| root.path == path);
    let is_trouble = |target: &&crate::control::TargetStatus| match target.state {
        TargetState::BackingOff | TargetState::Misconfigured | TargetState::TargetGone => true,
        // Already reported with the root.
        TargetState::SourceGone => !is_suspended(&target.root),
        _ => false,
    };
    let in_trouble = status.targets.iter().filter(is_trouble);
    parts.extend(
        in_trouble
            .map(|target| format!("{}: {}", target.name, target.reason.as_deref().unwrap_or("something is wrong"))),
    );
    let pending: u64 = status.targets.iter().map(|target| target.pending + target.running + target.waiting).sum();
    let is_idle = |target: &crate::control::TargetStatus| target.state == TargetState::Idle;
    let is_scanned = status.targets.iter().any(|target| target.state == TargetState::Scanning);
    parts.push(match (pending, status.targets.len()) {
        (0, _) if is_scanned => "what has changed is being looked for".to_owned(),
        (0, _) if !status.targets.iter().all(is_idle) => "no change is known to be pending".to_owned(),
        (0, 1) => "the target is up to date".to_owned(),
        (0, targets) => format!("all {targets} targets are up to date"),
        (1, _) => "1 change pending".to_owned(),
        (pending, _) => format!("{pending} changes pending"),
    });
    let failed: u64 = status.targets.iter().map(|target| target.failed).sum();
    if failed > 0 {
        parts.push(format!("{failed} given up"));
    }
    parts.join("; ")
}

/// Writes a status to the log, a line per target: the answer to USR1.
pub fn log_status(status: &Status) {
    let (roots, watches) = (status.roots.len(), status.watches.used);
    log::info!(state = word(status.state), roots, watches, store_bytes = status.store.bytes; "status");
    for target in &status.targets {
        let pending = target.pending + target.running + target.waiting;
        let (failed, lag_s, reason) = (target.failed, target.lag_s, target.reason.as_deref().unwrap_or_default());
        log::info!(target = target.name, state = word(target.state), pending, failed, lag_s, reason; "target");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_begins_with_what_is_wrong() {
        let target = |name| {
            serde_json::json!({
                "name": name, "root": "/srv/www", "state": "idle", "pending": 0, "running": 0, "waiting": 0, "failed": 0,
                "lag_s": 0.0, "last_path": null, "reason": null, "hint": null, "command": null, "retry_at": null,
            })
        };
        let mut status: Status = serde_json::from_value(serde_json::json!({
            "version": "0", "state": "running", "pid": 1, "started_at": null, "configs": [], "roots": [],
            "targets": [target("a::www"), target("b::www")],
            "store": {"state": "ok", "bytes": 0, "error": null},
            "watches": {"used": 0, "limit": 0, "unwatched": 0, "overflows": 0, "hint": null},
        }))
        .expect("a status");
        assert_eq!(summary(&status), "all 2 targets are up to date");
        status.targets[0].pending = 3;
        status.targets[1].state = TargetState::Misconfigured;
        status.targets[1].reason = Some("auth failed".to_owned());
        status.targets[1].failed = 1;
        assert_eq!(summary(&status), "b::www: auth failed; 3 changes pending; 1 given up");
        status.config = serde_json::from_value(serde_json::json!({
            "loaded_at": null, "error": {"message": "a.xml:3:1: no such element", "hint": null, "config": true, "at": null},
        }))
        .expect("a status");
        assert!(summary(&status).starts_with("the configuration was not taken: a.xml:3:1: no such element; b::www"));
    }
}
