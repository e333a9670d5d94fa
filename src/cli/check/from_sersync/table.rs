//! The differences between sersync and syncq, by element and attribute of `confxml.xml`. Texts that README or the page about
//! sersync tells as well come from `facts`.
//!
//! Of the rows of an attribute, the first whose condition holds decides. Rows that are told besides do not decide. Data only:
//! the conditions are in `row`, and printing is done elsewhere.

use super::facts::{
    BAD_EXPRESSION, BRACKETS, CDN_PASSWORD, CDN_URL, CHMOD, COMMAND_PLUGIN, CREATE_FOLDER, DOT_FILES, DOWN,
    EMPTY_SOURCE, FAIL_SCRIPT, FILTER, FILTERED_RUNS, FIRST_COMPARISON, HALF_A_SOURCE, LOCALPATHS, MOVE_FROM, NOTICES,
    SCHEDULE, STAR, TIME_TO_EXECUTE, UPDATE, WITHOUT_A_DAEMON,
};
use super::row::{
    Here, Row, Verdict, When, besides, blanks, is_for_a_shell, is_no_expression, is_true, not_in_use, of, row, same,
    updates, with_ssh, with_ssh_and_password, without_auth, without_crontab, without_crontab_filter, without_filter,
    without_plugin,
};
use crate::config::Matter;
use Verdict::{Differs, Same, Unused};
use When::{Always, If, On};

pub const OF_ITS_OWN: &str = "syncq's own; sersync passes over it";
pub const NOT_IN_USE: &str = "this plugin is not in use; -m NAME runs it alone";
pub const AS_ABOVE: &str = "as above";
pub const NO_EXPRESSION: &str = "passed over with a warning: it is no regular expression";
pub const NO_FILTER: &str = "the filter is off";
pub const NO_AUTH: &str = "auth is off";
pub const NO_CRONTAB: &str = "crontab is off";
pub const NO_CRONTAB_FILTER: &str = "crontabfilter is off";
pub const BLANKS: &str = "the blanks around it are taken off; sersync took them for a part of the name";

/// The rows in the order of the format.
pub const ROWS: &[Row] = &[
    row("head", "version", Always, Unused, "neither looks at it"),
    row("host", "hostip", Always, Unused, "sersync printed it, and nothing listened there; syncq has no use for it"),
    row("host", "port", Always, Unused, "sersync printed it, and nothing listened there; syncq has no use for it"),
    row(
        "debug",
        "start",
        On,
        Differs,
        "every rsync command goes to the log, as in sersync; raw events do not. `syncq status` shows the command that fails \
         without it, and `syncq explain PATH` tells what becomes of a path",
    ),
    same("debug", "start"),
    row(
        "fileSystem",
        "xfs",
        On,
        Differs,
        "not needed: directories are recognised on every file system. sersync then followed symbolic links, loops too",
    ),
    row("fileSystem", "xfs", Always, Unused, "not needed: directories are recognised on every file system"),
    of("filter", "start", On, &[&FILTER, &FILTERED_RUNS]),
    same("filter", "start"),
    row("filter/exclude", "expression", If(without_filter), Unused, NO_FILTER),
    row("filter/exclude", "expression", If(is_no_expression), Differs, NO_EXPRESSION).about(Matter::Expression),
    row("filter/exclude", "expression", If(|here| here.earlier > 0), Differs, AS_ABOVE),
    row(
        "filter/exclude",
        "expression",
        Always,
        Differs,
        "it has to match the whole of name, dir/ or /dir/name, as in sersync; but each path is tried in all these forms, and \
         so is every directory above it. sersync tried one form, which let nested files through",
    ),
    of("inotify/delete", "start", On, &[&BRACKETS, &STAR, &EMPTY_SOURCE, &HALF_A_SOURCE, &FIRST_COMPARISON]),
    same("inotify/delete", "start"),
    row("inotify/createFolder", "start", On, Same, ""),
    of("inotify/createFolder", "start", Always, &[&CREATE_FOLDER]),
    row("inotify/createFile", "start", On, Same, ""),
    row(
        "inotify/createFile",
        "start",
        Always,
        Differs,
        "files are sent when they are closed, as in sersync; symbolic links, hard links, pipes and files without a name until \
         then are sent as well. sersync missed those",
    ),
    of("inotify/closeWrite", "start", If(|here| is_true(here.value) && !here.is_on("syncq/legacyHidden")), &[&DOT_FILES]),
    same("inotify/closeWrite", "start"),
    row("inotify/moveFrom", "start", On, Same, ""),
    of("inotify/moveFrom", "start", Always, &[&MOVE_FROM]),
    same("inotify/moveTo", "start"),
    of("inotify/attrib", "start", On, &[&CHMOD]),
    same("inotify/attrib", "start"),
    row(
        "inotify/modify",
        "start",
        On,
        Differs,
        "a file that is being written is sent at most once per hotInterval (1 s); sersync ran rsync for every write",
    ),
    row(
        "inotify/modify",
        "start",
        Always,
        Differs,
        "a file that stays open is sent once it has been quiet for 5 s, and truncate(2) is noticed; sersync waited for the \
         close, and missed the other",
    ),
    besides("sersync/localpath", "watch", If(blanks), BLANKS).about(Matter::Blanks),
    of("sersync/localpath", "watch", If(|here| here.earlier > 0), &[&LOCALPATHS])
    .about(Matter::Localpaths),
    of("sersync/localpath", "watch", Always, &[&WITHOUT_A_DAEMON, &EMPTY_SOURCE]),
    besides("sersync/localpath/remote", "ip", If(blanks), BLANKS).about(Matter::Blanks),
    of("sersync/localpath/remote", "ip", If(|here| here.earlier == 0), &[&DOWN]),
    same("sersync/localpath/remote", "ip"),
    besides("sersync/localpath/remote", "name", If(blanks), BLANKS).about(Matter::Blanks),
    same("sersync/localpath/remote", "name"),
    besides(
        "sersync/rsync/commonParams",
        "params",
        If(|here| updates(here) && !here.file.value("sersync/rsync/commonParams", "keepNewer").is_some_and(is_true)),
        "",
    ).and(&[&UPDATE])
    .about(Matter::Update),
    row(
        "sersync/rsync/commonParams",
        "params",
        If(is_for_a_shell),
        Differs,
        "quotes are understood as a shell does, and no shell ever sees it: nothing is expanded or run",
    ),
    same("sersync/rsync/commonParams", "params"),
    row("sersync/rsync/commonParams", "keepNewer", Always, Differs, OF_ITS_OWN),
    row(
        "sersync/rsync/auth",
        "start",
        If(|here| is_true(here.value) && with_ssh_and_password(here)),
        Differs,
        "with ssh the password file is dropped, since rsync takes it for its daemons only. In sersync every rsync failed",
    )
    .about(Matter::AuthWithSsh),
    same("sersync/rsync/auth", "start"),
    row("sersync/rsync/auth", "users", If(without_auth), Unused, NO_AUTH),
    row(
        "sersync/rsync/auth",
        "users",
        If(with_ssh_and_password),
        Differs,
        "dropped with the password file: it is the user of an rsync daemon. For ssh write it into the remote: ip=\"user@host\"",
    ),
    besides("sersync/rsync/auth", "users", If(blanks), BLANKS).about(Matter::Blanks),
    same("sersync/rsync/auth", "users"),
    row("sersync/rsync/auth", "passwordfile", If(without_auth), Unused, NO_AUTH),
    row("sersync/rsync/auth", "passwordfile", If(with_ssh_and_password), Differs, "dropped: ssh takes keys"),
    besides("sersync/rsync/auth", "passwordfile", If(blanks), BLANKS).about(Matter::Blanks),
    row("sersync/rsync/auth", "passwordfile", If(|here| here.value.is_empty()), Same, ""),
    row(
        "sersync/rsync/auth",
        "passwordfile",
        Always,
        Differs,
        "it is looked at before the start (mode 600, the password alone), and a refusal is explained; sersync threw \
         rsync's complaint away",
    ),
    row(
        "sersync/rsync/userDefinedPort",
        "start",
        If(|here| is_true(here.value) && with_ssh(here)),
        Differs,
        "with ssh it is the port of sshd; sersync passed over it",
    )
    .about(Matter::PortWithSsh),
    same("sersync/rsync/userDefinedPort", "start"),
    row(
        "sersync/rsync/userDefinedPort",
        "port",
        If(|here| !here.is_on("sersync/rsync/userDefinedPort")),
        Unused,
        "userDefinedPort is off",
    ),
    same("sersync/rsync/userDefinedPort", "port"),
    row("sersync/rsync/timeout", "start", On, Same, ""),
    row(
        "sersync/rsync/timeout",
        "start",
        Always,
        Differs,
        "without it a host that does not answer is given up after 30 s, and an rsync in which nothing moves after 20 minutes. \
         In sersync a hung rsync held up everything for ever",
    ),
    row("sersync/rsync/timeout", "time", If(|here| !here.is_on("sersync/rsync/timeout")), Unused, "timeout is off"),
    same("sersync/rsync/timeout", "time"),
    row(
        "sersync/rsync/ssh",
        "start",
        On,
        Differs,
        "ssh is called so that it never asks anything (BatchMode) and gives up a silent host; in sersync either could hold up \
         everything",
    ),
    same("sersync/rsync/ssh", "start"),
    row("sersync/failLog", "path", If(|here| here.value.trim().is_empty()), Same, ""),
    row(
        "sersync/failLog",
        "path",
        If(blanks),
        Differs,
        "a list of what is failing, for reading and never run, with mode 600. The blanks around it are taken off; with them \
         sersync never found its file, and recorded nothing",
    )
    .about(Matter::Blanks),
    of("sersync/failLog", "path", Always, &[&FAIL_SCRIPT]),
    of("sersync/failLog", "timeToExecute", Always, &[&TIME_TO_EXECUTE]),
    row("sersync/crontab", "start", On, Differs, "until a target has been equal once it deletes nothing there, unless syncq was started with `-r`").and(&[&SCHEDULE, &FILTERED_RUNS]),
    same("sersync/crontab", "start"),
    row("sersync/crontab", "schedule", If(without_crontab), Unused, NO_CRONTAB),
    row(
        "sersync/crontab",
        "schedule",
        If(|here| here.value.trim().parse::<u32>().is_ok_and(|minutes| minutes > 0)),
        Same,
        "",
    ),
    of("sersync/crontab", "schedule", If(|here| here.value.trim().starts_with('@') || here.value.trim().contains(char::is_whitespace)), &[&SCHEDULE]),
    row("sersync/crontab", "schedule", Always, Differs, "no number of minutes; the warning says what it is taken for"),
    row("sersync/crontab", "timezone", Always, Differs, OF_ITS_OWN),
    row("sersync/crontab/crontabfilter", "start", If(without_crontab), Unused, NO_CRONTAB),
    same("sersync/crontab/crontabfilter", "start"),
    row("sersync/crontab/crontabfilter/exclude", "expression", If(without_crontab_filter), Unused, NO_CRONTAB_FILTER),
    same("sersync/crontab/crontabfilter/exclude", "expression"),
    row(
        "sersync/plugin",
        "start",
        On,
        Differs,
        "the plugin is told of a path once the targets have it, beside the mirroring: a slow or dead one delays nothing, and \
         its notices wait for it. sersync ran it whatever came of the transfer, and dropped what failed",
    ),
    same("sersync/plugin", "start"),
    row("sersync/plugin", "name", If(without_plugin), Unused, "no plugin is on"),
    row(
        "sersync/plugin",
        "name",
        If(|here| here.value.trim().eq_ignore_ascii_case("http")),
        Differs,
        "it works; sersync never had it built in",
    ),
    same("sersync/plugin", "name"),
    row("plugin", "name", If(not_in_use), Unused, NOT_IN_USE),
    same("plugin", "name"),
    row("plugin/param", "prefix", If(not_in_use), Unused, NOT_IN_USE),
    of("plugin/param", "prefix", Always, &[&COMMAND_PLUGIN]),
    row("plugin/param", "suffix", If(not_in_use), Unused, NOT_IN_USE),
    row(
        "plugin/param",
        "suffix",
        If(is_for_a_shell),
        Differs,
        "split into words, quotes as in a shell; a redirection, a pipe or a variable is an argument like any other. Put what \
         needs a shell into a script, and name that in prefix",
    )
    .about(Matter::Shell),
    same("plugin/param", "suffix"),
    row("plugin/param", "ignoreError", If(not_in_use), Unused, NOT_IN_USE),
    row("plugin/param", "ignoreError", On, Same, ""),
    row("plugin/param", "ignoreError", Always, Differs, "failures are logged and counted in `syncq status`"),
    row("plugin/filter", "start", If(not_in_use), Unused, NOT_IN_USE),
    same("plugin/filter", "start"),
    row("plugin/filter/include", "expression", If(not_in_use), Unused, NOT_IN_USE),
    row("plugin/filter/include", "expression", If(is_no_expression), Differs, NO_EXPRESSION).about(Matter::Expression),
    same("plugin/filter/include", "expression"),
    row("plugin/localpath", "watch", If(not_in_use), Unused, NOT_IN_USE),
    row(
        "plugin/localpath",
        "watch",
        Always,
        Differs,
        "the directory that the plugin is told of. In sersync it took the place of the mirrored one",
    )
    .about(Matter::PluginWatch),
    row("plugin/localpath/deshost", "ip", If(not_in_use), Unused, NOT_IN_USE),
    row("plugin/localpath/deshost", "ip", Always, Differs, "also a host name").and(&[&NOTICES]),
    row("plugin/localpath/deshost", "port", If(not_in_use), Unused, NOT_IN_USE),
    same("plugin/localpath/deshost", "port"),
    row("plugin/localpath/deshost", "url", If(not_in_use), Unused, NOT_IN_USE),
    row("plugin/localpath/deshost", "url", Always, Differs, "plugin http works; sersync never had it built in"),
    row("plugin/localpath/cdninfo", "domainname", If(not_in_use), Unused, NOT_IN_USE),
    same("plugin/localpath/cdninfo", "domainname"),
    row("plugin/localpath/cdninfo", "port", If(not_in_use), Unused, NOT_IN_USE),
    same("plugin/localpath/cdninfo", "port"),
    row("plugin/localpath/cdninfo", "username", If(not_in_use), Unused, NOT_IN_USE),
    same("plugin/localpath/cdninfo", "username"),
    row("plugin/localpath/cdninfo", "passwd", If(not_in_use), Unused, NOT_IN_USE),
    of("plugin/localpath/cdninfo", "passwd", Always, &[&CDN_PASSWORD]),
    row("plugin/localpath/sendurl", "base", If(not_in_use), Unused, NOT_IN_USE),
    of("plugin/localpath/sendurl", "base", Always, &[&CDN_URL]),
    row("plugin/localpath/regexurl", "regex", If(not_in_use), Unused, NOT_IN_USE),
    same("plugin/localpath/regexurl", "regex"),
    row("plugin/localpath/regexurl", "match", If(not_in_use), Unused, NOT_IN_USE),
    of("plugin/localpath/regexurl", "match", Always, &[&BAD_EXPRESSION]),
];

/// Elements without which sersync crashed or refused to start. syncq has a default for each.
pub const MANDATORY: &[&str] = &[
    "host",
    "debug",
    "fileSystem",
    "filter",
    "inotify",
    "inotify/delete",
    "inotify/createFolder",
    "inotify/createFile",
    "inotify/closeWrite",
    "inotify/moveFrom",
    "inotify/moveTo",
    "inotify/attrib",
    "inotify/modify",
    "sersync/rsync",
    "sersync/rsync/commonParams",
    "sersync/rsync/auth",
    "sersync/rsync/userDefinedPort",
    "sersync/rsync/timeout",
    "sersync/rsync/ssh",
    "sersync/failLog",
    "sersync/crontab",
    "sersync/plugin",
];

/// Attributes that are switches.
const SWITCHES: [&str; 5] = ["start", "xfs", "regex", "ignoreError", "keepNewer"];

/// The statement about an attribute.
pub struct Said {
    pub verdict: Verdict,
    pub message: String,
    /// The warnings on the file that repeat the message.
    pub told: Vec<Matter>,
}

/// The full statement about an attribute at its place. No row exists for syncq's own section and for unknown names.
pub fn said_of(element: &str, attribute: &str, here: &Here<'_>) -> Said {
    if element.starts_with("syncq/") {
        return Said { verdict: Differs, message: OF_ITS_OWN.to_owned(), told: Vec::new() };
    }
    let mut told: Vec<String> = Vec::new();
    let mut matters = Vec::new();
    if SWITCHES.contains(&attribute) && is_true(here.value) && here.value != "true" {
        told.push("taken for true; sersync took exactly true for that, and this for false".to_owned());
        matters.extend([Matter::Switch, Matter::Blanks]);
    }
    let mut decided = None;
    for row in ROWS.iter().filter(|row| row.element == element && row.attribute == attribute) {
        if row.when.holds(here) {
            matters.push(row.matter);
            told.extend(
                Some(row.text()).filter(|says| !says.is_empty() && (row.verdict == Differs || told.is_empty())),
            );
            if !row.is_besides {
                decided = Some(row.verdict);
                break;
            }
        }
    }
    let (verdict, message) = match decided {
        None => (Verdict::Ignored, "neither knows it".to_owned()),
        // A verdict of Same does not stand if some row has told a difference.
        Some(verdict) if told.is_empty() || verdict == Unused => (verdict, told.join("; ")),
        Some(_) => (Differs, told.join("; ")),
    };
    Said { verdict, message, told: matters }
}

#[cfg(test)]
mod tests;
