//! Turns the tree into the configuration: every element gets its meaning, every missing element its default.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::filter::Filter;
use crate::model::{Destination, EventSwitches, Root, Schedule, Settings, counted};
use crate::schedule::{self, ScheduleError};

use super::diagnostic::{Matter, Notes};
use super::error::{Fault, Problem};
use super::remote::{self, Access};
use super::xml::Element;
use super::{Config, Purpose, extension, plugin, schema, value};

const LOCAL_PATH: &str = "localpath";
const MINUTE: Duration = Duration::from_secs(60);
const SCHEDULE_MINUTES: u32 = 600;
const FAIL_LOG_MINUTES: u32 = 60;
/// The minutes that sersync takes for an empty `timeToExecute`.
const FAIL_LOG_MINUTES_EMPTY: u32 = 120;

pub(super) fn config(purpose: Purpose, file: &Path, head: &Element, notes: &mut Notes<'_>) -> Result<Config, Problem> {
    schema::check(head, notes);
    let debug = value::switch(head, "debug", false, notes);
    let excludes = excludes(head, notes)?;
    let events = events(head, notes);
    let mut settings = Settings::default();
    let mut template =
        Root { path: "/".into(), targets: Vec::new(), events, excludes, legacy_hidden: false, schedule: None };
    let (mut fail_log, mut access) = (None, None);
    let sersync = match (head.child("sersync"), purpose) {
        (Some(sersync), Purpose::Mirror) => {
            let mut found = remote::access(sersync, events.delete, notes)?;
            (fail_log, settings.backoff.cap) = self::fail_log(sersync, notes);
            (template.schedule, found.options.reconcile_excludes) = crontab(sersync, notes)?;
            access = Some(found);
            Some(sersync)
        }
        (None, Purpose::Mirror) => return Err(no_localpath(head, head.offset, notes)),
        (sersync, Purpose::Plugin) => sersync,
    };
    let legacy_hidden;
    (settings, legacy_hidden) = extension::read(head, settings, notes)?;
    template.legacy_hidden = legacy_hidden;
    let control = extension::control(head, notes)?;
    let (roots, spelled) = match sersync {
        Some(sersync) => roots(head, sersync, access.as_ref(), &template, notes)?,
        None => (Vec::new(), Vec::new()),
    };
    let (plugin, plugins) = plugin::read(head, sersync.filter(|_| purpose == Purpose::Mirror), notes)?;
    warn_of_watch(head, plugin.as_ref(), &roots, notes);
    let file = file.to_path_buf();
    Ok(Config { file, roots, template, spelled, debug, settings, control, fail_log, plugin, plugins })
}

/// The error for a missing directory to watch. Names a `<localpath>` that stands in the wrong place.
fn no_localpath(head: &Element, offset: usize, notes: &Notes<'_>) -> Problem {
    let elsewhere = head.children(LOCAL_PATH).chain(head.children.iter().flat_map(|child| {
        // A plugin has a `<localpath>` of its own, which is no misplaced one.
        child.children(LOCAL_PATH).filter(move |_| !child.is("plugin"))
    }));
    let watched = |found: &Element| Some((notes.show(&found.attribute("watch")?.value), found.offset));
    match elsewhere.into_iter().find_map(watched) {
        Some((watch, offset)) => Fault::LocalPathElsewhere { watch }.at(offset),
        None => Fault::NoLocalPath.at(offset),
    }
}

/// sersync mirrored the plugin's directory in place of the root.
fn warn_of_watch(head: &Element, plugin: Option<&plugin::Plugin>, roots: &[Root], notes: &mut Notes<'_>) {
    let Some((plugin, watch)) = plugin.and_then(|plugin| Some((plugin, plugin.watch()?))) else { return };
    let name = plugin.kind().as_str();
    let normal: PathBuf = watch.components().collect();
    if roots.iter().any(|root| root.path == normal) {
        return;
    }
    let section = head.children("plugin").find(|section| {
        section.attribute("name").is_some_and(|found| found.value.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    });
    let offset = section.map_or(head.offset, |section| section.offset);
    let shown = watch.display();
    if roots.iter().any(|root| plugin.is_told_of(&root.path)) {
        let message = format!(
            "plugin {name} is told of what changes below {shown}; sersync mirrored that directory in place of <localpath>"
        );
        notes.warn_of(Matter::PluginWatch, offset, message, None);
    } else {
        notes.warn_with(
            offset,
            format!("plugin {name} is told of nothing: its watch {shown} lies in no mirrored directory; sersync mirrored that directory in place of <localpath>"),
            "name the directory of <sersync><localpath> in the plugin's watch too",
        );
    }
}

fn excludes(head: &Element, notes: &mut Notes<'_>) -> Result<Vec<String>, Problem> {
    match value::section(head, "filter", "nothing is excluded", notes) {
        Some(filter) if value::start(filter, false, notes) => {
            let excludes = value::regexes(filter, "exclude", notes);
            // Each expression is valid by itself; all of them together may still be too large.
            Filter::new(&excludes, false).map_err(|reason| Fault::Filter { reason }.at(filter.offset))?;
            Ok(excludes)
        }
        _ => Ok(Vec::new()),
    }
}

fn events(head: &Element, notes: &mut Notes<'_>) -> EventSwitches {
    let default = EventSwitches::default();
    let state = "delete, createFolder, closeWrite, moveFrom and moveTo are on";
    let Some(inotify) = value::section(head, "inotify", state, notes) else { return default };
    let mut switch = |name, default| value::switch(inotify, name, default, notes);
    let events = EventSwitches {
        delete: switch("delete", default.delete),
        create_folder: switch("createFolder", default.create_folder),
        create_file: switch("createFile", default.create_file),
        close_write: switch("closeWrite", default.close_write),
        move_from: switch("moveFrom", default.move_from),
        move_to: switch("moveTo", default.move_to),
        attrib: switch("attrib", default.attrib),
        modify: switch("modify", default.modify),
    };
    if !(events.close_write || events.create_file || events.modify) {
        notes.warn_with(
            inotify.offset,
            "closeWrite, createFile and modify are off: files that are written are not followed",
            "switch closeWrite on; without it only whole-tree runs send them: <crontab start=\"true\" schedule=\"60\">",
        );
    }
    events
}

/// Reads `<failLog>`: the path of the list of failures, and the longest wait of a failing job.
fn fail_log(sersync: &Element, notes: &mut Notes<'_>) -> (Option<PathBuf>, Duration) {
    let default = "no list of failures is written, failing jobs are tried at least every 60 minutes";
    let Some(element) = value::section(sersync, "failLog", default, notes) else {
        return (None, MINUTE * FAIL_LOG_MINUTES);
    };
    let path = value::expected(element, "path", "no list of failures is written", notes);
    let offset = path.map_or(element.offset, |path| path.offset);
    let path = path.filter(|path| !path.is_empty()).map(value::Value::to_path);
    if let Some(relative) = path.as_ref().filter(|path| path.is_relative()) {
        let message =
            format!("failLog path {} is relative: it is meant from where syncq is started", relative.display());
        notes.warn_with(offset, message, "write it in full; a service is started in /");
    }
    let default = format!("{FAIL_LOG_MINUTES} minutes");
    let minutes = match value::expected(element, "timeToExecute", &default, notes) {
        None => FAIL_LOG_MINUTES,
        Some(given) => {
            let shown = notes.show(given.bytes);
            let (minutes, warning) = match given.number::<u32>() {
                Some(0) => (1, Some("sersync ran its list every idle minute")),
                Some(minutes) => (minutes, None),
                None if given.is_empty() => (FAIL_LOG_MINUTES_EMPTY, Some("as in sersync")),
                None => (FAIL_LOG_MINUTES, Some("this is no whole number of minutes")),
            };
            if let Some(reason) = warning {
                let message =
                    format!("timeToExecute \"{shown}\" is taken as {}: {reason}", counted(minutes.into(), "minute"));
                notes.warn_with(given.offset, message, "write the longest wait between two tries, in minutes");
            }
            minutes
        }
    };
    (path, MINUTE * minutes)
}

fn crontab(sersync: &Element, notes: &mut Notes<'_>) -> Result<(Option<Schedule>, Vec<OsString>), Problem> {
    let Some(element) = value::section(sersync, "crontab", "no whole-tree runs by schedule", notes) else {
        return Ok((None, Vec::new()));
    };
    if !value::start(element, false, notes) {
        return Ok((None, Vec::new()));
    }
    let schedule = schedule(element, notes)?;
    let default = "whole-tree runs exclude nothing more";
    let excludes = match value::section(element, "crontabfilter", default, notes) {
        Some(filter) if value::start(filter, false, notes) => value::expressions(filter, "exclude", notes)
            .into_iter()
            .map(|pattern| OsString::from_vec(pattern.bytes.to_vec()))
            .collect(),
        _ => Vec::new(),
    };
    Ok((Some(schedule), excludes))
}

/// Reads a schedule: minutes, as in sersync, or a cron expression.
fn schedule(crontab: &Element, notes: &mut Notes<'_>) -> Result<Schedule, Problem> {
    let every = |minutes: u32| Schedule::Every(MINUTE * minutes);
    let default = format!("every {SCHEDULE_MINUTES} minutes");
    let Some(value) = value::expected(crontab, "schedule", &default, notes) else {
        return Ok(every(SCHEDULE_MINUTES));
    };
    let given = notes.show(value.bytes);
    let timezone = value::attribute(crontab, "timezone", notes).filter(|zone| !zone.is_empty());
    if given.starts_with('@') || given.contains(char::is_whitespace) {
        let schedule = Schedule::Cron { expression: given, timezone: timezone.map(|zone| notes.show(zone.bytes)) };
        return match schedule::check(&schedule) {
            Ok(()) => Ok(schedule),
            Err(reason @ ScheduleError::Timezone { .. }) => {
                Err(Fault::Schedule { reason }.at(timezone.map_or(value.offset, |zone| zone.offset)))
            }
            Err(reason) => Err(Fault::Schedule { reason }.at(value.offset)),
        };
    }
    if let Some(zone) = timezone {
        notes.warn(zone.offset, "timezone has no meaning for a schedule in minutes, ignored");
    }
    if let Some(minutes) = value.number::<u32>().filter(|&minutes| minutes > 0) {
        return Ok(every(minutes));
    }
    // sersync reads the digits at the front, and takes 600 if they give no number above 0.
    let digits = given.find(|c: char| !c.is_ascii_digit()).unwrap_or(given.len());
    let minutes = given.get(..digits).and_then(|digits| digits.parse().ok()).filter(|&minutes| minutes > 0);
    let minutes = minutes.unwrap_or(SCHEDULE_MINUTES);
    notes.warn_with(
        value.offset,
        format!("schedule \"{given}\" is taken as {}", counted(minutes.into(), "minute")),
        "write minutes (600), five cron fields (0 3 * * *), or @daily",
    );
    Ok(every(minutes))
}

/// All `<localpath>`s, each with its spelling. Two with the same directory become one root. Without `access` the roots have no
/// targets, and their `<remote>`s are not checked.
fn roots(
    head: &Element,
    sersync: &Element,
    access: Option<&Access>,
    template: &Root,
    notes: &mut Notes<'_>,
) -> Result<(Vec<Root>, Vec<PathBuf>), Problem> {
    let mut roots: Vec<Root> = Vec::new();
    let mut spelled = Vec::new();
    let mut known: HashMap<PathBuf, (usize, HashSet<Destination>)> = HashMap::new();
    for localpath in sersync.children(LOCAL_PATH) {
        let watch = value::attribute(localpath, "watch", notes).filter(|watch| !watch.is_empty());
        if access.is_none() && watch.is_none_or(|watch| !watch.bytes.starts_with(b"/")) {
            continue;
        }
        let watch = watch.ok_or_else(|| Fault::NoWatch.at(localpath.offset))?;
        if !watch.bytes.starts_with(b"/") {
            return Err(Fault::RelativeWatch { given: notes.show(watch.bytes) }.at(watch.offset));
        }
        // `components` drops doubled slashes, single dots, and a slash at the end.
        let path: PathBuf = watch.to_path().components().collect();
        let (index, seen) = known.entry(path.clone()).or_insert_with(|| (roots.len(), HashSet::new()));
        let targets = match access {
            Some(access) => remote::targets(localpath, &path, access, seen, notes)?,
            None => Vec::new(),
        };
        if let Some(root) = roots.get_mut(*index) {
            notes.warn(localpath.offset, format!("{} is given twice; its remotes are joined", path.display()));
            root.targets.extend(targets);
            continue;
        }
        if roots.len() == 1 {
            let message = "sersync watched the first <localpath> only; syncq mirrors all of them";
            notes.warn_of(Matter::Localpaths, localpath.offset, message, None);
        }
        roots.push(Root { path, targets, ..template.clone() });
        spelled.push(watch.to_path());
    }
    if roots.is_empty() && access.is_some() {
        let meant = |child: &&Element| schema::closest(&notes.show(&child.name), [LOCAL_PATH].into_iter()).is_some();
        return Err(match sersync.children.iter().find(meant) {
            Some(child) => Fault::NotLocalPath { given: notes.show(&child.name) }.at(child.offset),
            None => no_localpath(head, sersync.offset, notes),
        });
    }
    Ok((roots, spelled))
}
