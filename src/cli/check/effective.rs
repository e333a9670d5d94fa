//! The effective configuration for people: the content of a file, with every default filled in.
//!
//! Passwords never appear: for an rsync daemon only the password file is shown, and for a web server only host and port.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use crate::config::{Config, Plugin};
use crate::model::{Endpoint, EventSwitches, Root, Schedule, Settings, Target, plain};

/// The lines of one configuration. The parts of a root are indented.
pub fn lines(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    for (root, spelled) in config.roots.iter().zip(&config.spelled) {
        let mut line = format!("root {}", shown(root.path.as_os_str()));
        // Plugins receive paths as the file spells them, so a different spelling is shown.
        if root.path.as_os_str() != spelled.as_os_str() {
            line.push_str(&format!(", spelled {}", shown(spelled.as_os_str())));
        }
        lines.push(line);
        add_root(root, &mut lines);
    }
    lines.push(match &config.fail_log {
        Some(path) => format!("list of failures {}", shown(path.as_os_str())),
        None => "no list of failures".to_owned(),
    });
    if config.debug {
        lines.push("debug".to_owned());
    }
    let sections: Vec<_> = config.plugins.iter().map(|plugin| plugin.kind().as_str()).collect();
    lines.push(match &config.plugin {
        Some(in_use) => format!("plugin {}", plugin(in_use)),
        None => "no plugin in use".to_owned(),
    });
    if !sections.is_empty() {
        lines.push(format!("complete plugin sections {}", sections.join(", ")));
    }
    lines.extend(settings(&config.settings));
    lines.extend(config.control.iter().map(|control| endpoint(&control.endpoint)));
    lines
}

fn add_root(root: &Root, lines: &mut Vec<String>) {
    lines.push(format!("    events {}", events(root.events)));
    lines.extend(root.excludes.iter().map(|expression| format!("    filter {expression}")));
    if root.legacy_hidden {
        lines.push("    filter dot-files and *~ (legacyHidden)".to_owned());
    }
    if let Some(schedule) = &root.schedule {
        lines.push(format!("    crontab {}", schedule_text(schedule)));
    }
    for target in &root.targets {
        add_target(target, lines);
    }
}

fn add_target(target: &Target, lines: &mut Vec<String>) {
    let options = &target.options;
    // The bytes of the target's name.
    let arg = target.destination.to_arg();
    let name = arg.as_bytes().strip_suffix(b"/").filter(|name| !name.is_empty()).unwrap_or(arg.as_bytes());
    lines.push(format!("    target {}", shown(OsStr::from_bytes(name))));
    let params: Vec<String> = options.params.iter().map(|param| shown(param)).collect();
    lines.push(format!("        params {}", params.join(" ")));
    let chosen = options.params.choosing();
    if !chosen.is_empty() {
        lines.push(format!("        {} hold for live changes too: rsync looks for each by itself", chosen.join(", ")));
    }
    if let Some(file) = &options.password_file {
        lines.push(format!("        password file {}", shown(file.as_os_str())));
    }
    if let Some(port) = options.port {
        lines.push(format!("        port {port}"));
    }
    if let Some(timeout) = options.timeout {
        lines.push(format!("        timeout {}", humantime::format_duration(timeout)));
    }
    if !options.delete {
        lines.push("        no deletions".to_owned());
    }
    lines.extend(options.reconcile_excludes.iter().map(|pattern| format!("        crontabfilter {}", shown(pattern))));
}

fn events(events: EventSwitches) -> String {
    let EventSwitches { delete, create_folder, create_file, close_write, move_from, move_to, attrib, modify } = events;
    let on: Vec<&str> = [
        ("delete", delete),
        ("createFolder", create_folder),
        ("createFile", create_file),
        ("closeWrite", close_write),
        ("moveFrom", move_from),
        ("moveTo", move_to),
        ("attrib", attrib),
        ("modify", modify),
    ]
    .into_iter()
    .filter_map(|(name, is_on)| is_on.then_some(name))
    .collect();
    if on.is_empty() { "none".to_owned() } else { on.join(" ") }
}

fn schedule_text(schedule: &Schedule) -> String {
    match schedule {
        Schedule::Every(pause) => format!("every {}", humantime::format_duration(*pause)),
        Schedule::Cron { expression, timezone: Some(zone) } => format!("{expression} in {zone}"),
        Schedule::Cron { expression, timezone: None } => expression.clone(),
    }
}

fn plugin(plugin: &Plugin) -> String {
    let words = |words: &[OsString]| words.iter().map(|word| format!("{} ", shown(word))).collect::<String>();
    let text = match plugin {
        Plugin::Command(command) => {
            let quiet = if command.ignore_error { ", output discarded" } else { "" };
            let only = match &command.includes {
                Some(includes) => format!(", only {}", includes.join(" ")),
                None => String::new(),
            };
            format!("{}PATH {}", words(&command.prefix), words(&command.suffix)).trim_end().to_owned() + quiet + &only
        }
        Plugin::Socket(socket) => format!("{}:{}", socket.host, socket.port),
        Plugin::RefreshCdn(cdn) => {
            let part = cdn.path_match.as_ref().map(|part| format!(", match {part}")).unwrap_or_default();
            format!("{}:{} as {}, base {}{part}", cdn.host, cdn.port, cdn.user, cdn.base)
        }
        // The rest of the plugin's URL may contain a password.
        Plugin::Http(http) => format!("{}:{}", http.url.host, http.url.port),
    };
    let watch = plugin.watch().map(|watch| format!(", told of {}", shown(watch.as_os_str()))).unwrap_or_default();
    format!("{} {text}{watch}", plugin.kind().as_str())
}

/// syncq's own settings, named as in `<syncq>`.
pub fn settings(settings: &Settings) -> [String; 3] {
    let duration = |duration| humantime::format_duration(duration);
    let Settings {
        backoff,
        max_attempts,
        large_file_bytes,
        connections_max,
        hot_interval,
        quiet_period,
        max_delete,
        pending_max,
        ssh_share,
        standby,
    } = settings;
    let ssh = if *ssh_share { "" } else { "; ssh share false" };
    let standby = if *standby { "" } else { ", standby false" };
    [
        format!(
            "backoff base {}, factor {}, cap {}, maxAttempts {max_attempts}",
            duration(backoff.base),
            backoff.factor,
            duration(backoff.cap)
        ),
        format!(
            "transfer connections {connections_max}, largeFile {large_file_bytes} bytes, hotInterval {}, quietPeriod {}, \
             maxPending {pending_max}{standby}",
            duration(*hot_interval),
            duration(*quiet_period)
        ),
        format!("guard maxDelete {max_delete}{ssh}"),
    ]
}

fn endpoint(Endpoint { address, token_file }: &Endpoint) -> String {
    let token = token_file.as_ref().map(|file| format!("token file {}", shown(file.as_os_str())));
    format!("control on {address}, {}", token.as_deref().unwrap_or("read-only"))
}

/// Bytes of any encoding in one line. Bytes that are not UTF-8, or that would steer a terminal, become escapes. A text with
/// blanks gets quotes.
fn shown(text: &OsStr) -> String {
    let mut shown = String::new();
    for chunk in text.as_bytes().utf8_chunks() {
        shown.push_str(&plain(chunk.valid()));
        shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    if shown.is_empty() || shown.contains(' ') { format!("'{shown}'") } else { shown }
}

#[cfg(test)]
#[path = "golden_tests.rs"]
mod golden_tests;
