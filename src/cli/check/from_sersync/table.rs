//! What syncq does differently from sersync, by element and attribute of `confxml.xml`: the one place for it.
//!
//! Of the rows of an attribute the first one whose condition holds decides, but for those that are told besides. Data only: the
//! conditions are `row`'s, and how it is printed is not decided here.

use super::row::{
    Here, Row, Verdict, When, besides, blanks, is_for_a_shell, is_no_expression, is_true, not_in_use, row, same,
    updates, with_ssh, with_ssh_and_password, without_auth, without_crontab, without_crontab_filter, without_filter,
    without_plugin,
};
use crate::config::Matter;
use Verdict::{Differs, Same, Unused};
use When::{Always, If, On};

const OF_ITS_OWN: &str = "syncq's own; sersync passes over it";
const NOT_IN_USE: &str = "this plugin is not in use; -m NAME runs it alone";
const AS_ABOVE: &str = "as above";
const NO_EXPRESSION: &str = "passed over with a warning: it is no regular expression";
const NO_FILTER: &str = "the filter is off";
const NO_AUTH: &str = "auth is off";
const NO_CRONTAB: &str = "crontab is off";
const NO_CRONTAB_FILTER: &str = "crontabfilter is off";
const BLANKS: &str = "the blanks around it are taken off; sersync took them for a part of the name";

/// In the order of the format.
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
    row(
        "filter",
        "start",
        On,
        Differs,
        "it holds for events, new directories, -r and crontab alike. sersync refused -r and crontab with a filter, and \
         copied what is excluded together with new directories",
    ),
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
    row(
        "inotify/delete",
        "start",
        On,
        Differs,
        "deletions go by the exact name: no bracket or * in a name deletes a neighbour, or nothing. An empty or unmounted \
         source deletes nothing, and a comparison that would delete more than half of a target asks first. So does the \
         first comparison with a target, however little only the target has: started without -r it deletes nothing, shows \
         how much that is in `syncq status`, and `syncq accept-deletions` has it deleted. With -r it deletes, as sersync did",
    ),
    same("inotify/delete", "start"),
    row("inotify/createFolder", "start", On, Same, ""),
    row(
        "inotify/createFolder",
        "start",
        Always,
        Differs,
        "new directories are watched all the same, so that files in them arrive. sersync never looked into them",
    ),
    row("inotify/createFile", "start", On, Same, ""),
    row(
        "inotify/createFile",
        "start",
        Always,
        Differs,
        "files are sent when they are closed, as in sersync; symbolic links, hard links, pipes and files without a name until \
         then are sent as well. sersync missed those",
    ),
    row(
        "inotify/closeWrite",
        "start",
        If(|here| is_true(here.value) && !here.is_on("syncq/legacyHidden")),
        Differs,
        "files whose names begin with a dot are sent too, but for temporaries of editors and of rsync; sersync \
         passed over .htaccess and .env. <syncq><legacyHidden start=\"true\"/> in <head> brings its rule back",
    ),
    same("inotify/closeWrite", "start"),
    row("inotify/moveFrom", "start", On, Same, ""),
    row(
        "inotify/moveFrom",
        "start",
        Always,
        Differs,
        "the old name stays on the target, as in sersync; what changes below a renamed directory arrives under its new name. \
         sersync sent that to a path that no longer existed",
    ),
    same("inotify/moveTo", "start"),
    row(
        "inotify/attrib",
        "start",
        On,
        Differs,
        "mode, owner and times are followed, of directories too. In sersync a chmod of a directory ended its watching",
    ),
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
    row(
        "sersync/localpath",
        "watch",
        If(|here| here.earlier > 0),
        Differs,
        "it is mirrored too. sersync passed over every <localpath> but the first",
    )
    .about(Matter::Localpaths),
    row(
        "sersync/localpath",
        "watch",
        Always,
        Differs,
        "what changes during the first comparison, or while nothing runs, is found; sersync lost it. If the directory is \
         missing or another one, mirroring is suspended until it is back",
    ),
    besides("sersync/localpath/remote", "ip", If(blanks), BLANKS).about(Matter::Blanks),
    row(
        "sersync/localpath/remote",
        "ip",
        If(|here| here.earlier == 0),
        Differs,
        "each remote has a durable queue of its own: one that is down or slow delays no other, and gets all it missed. In \
         sersync one dead remote held up all of them",
    ),
    same("sersync/localpath/remote", "ip"),
    besides("sersync/localpath/remote", "name", If(blanks), BLANKS).about(Matter::Blanks),
    same("sersync/localpath/remote", "name"),
    besides(
        "sersync/rsync/commonParams",
        "params",
        If(|here| updates(here) && !here.file.value("sersync/rsync/commonParams", "keepNewer").is_some_and(is_true)),
        "-u is dropped: with it a file that was replaced by an older one (a restore, tar -x, cp -p) never reaches the target. \
         keepNewer=\"true\" keeps it",
    )
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
    row(
        "sersync/failLog",
        "path",
        Always,
        Differs,
        "a list of what is failing, for reading, with mode 600. sersync made it a script that anybody could write, ran it as \
         root and emptied it whatever came of it. `syncq import-faillog` takes over what an old one stands for",
    ),
    row(
        "sersync/failLog",
        "timeToExecute",
        Always,
        Differs,
        "the longest pause between two tries, in minutes: a failing change is tried again after 1 s, then ever later up to \
         this, until it succeeds. sersync tried once more, then ran its script that seldom",
    ),
    row(
        "sersync/crontab",
        "start",
        On,
        Differs,
        "it runs on time, under load and with a filter too; sersync waited for a minute without any failure, and switched it \
         off with a filter. Until a target has been equal once it deletes nothing there, unless syncq was started with -r",
    ),
    same("sersync/crontab", "start"),
    row("sersync/crontab", "schedule", If(without_crontab), Unused, NO_CRONTAB),
    row(
        "sersync/crontab",
        "schedule",
        If(|here| here.value.trim().parse::<u32>().is_ok_and(|minutes| minutes > 0)),
        Same,
        "",
    ),
    row(
        "sersync/crontab",
        "schedule",
        If(|here| here.value.trim().starts_with('@') || here.value.trim().contains(char::is_whitespace)),
        Differs,
        "a cron expression; sersync read minutes only",
    ),
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
    row(
        "plugin/param",
        "prefix",
        Always,
        Differs,
        "split into words and started without a shell; the path is one argument. In sersync a file name could run commands",
    ),
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
    row(
        "plugin/localpath/deshost",
        "ip",
        Always,
        Differs,
        "also a host name; notices wait while nobody listens. sersync dropped them after 100 ms in all",
    ),
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
    row(
        "plugin/localpath/cdninfo",
        "passwd",
        Always,
        Differs,
        "it appears in no log; sersync appended each request with it to ./errorlog.txt",
    ),
    row("plugin/localpath/sendurl", "base", If(not_in_use), Unused, NOT_IN_USE),
    row(
        "plugin/localpath/sendurl",
        "base",
        Always,
        Differs,
        "what follows it is URL-encoded, so that no file name adds a parameter or a header line",
    ),
    row("plugin/localpath/regexurl", "regex", If(not_in_use), Unused, NOT_IN_USE),
    same("plugin/localpath/regexurl", "regex"),
    row("plugin/localpath/regexurl", "match", If(not_in_use), Unused, NOT_IN_USE),
    row(
        "plugin/localpath/regexurl",
        "match",
        Always,
        Differs,
        "a bad one is an error at the start; sersync died of it at the first event",
    ),
];

/// Elements that sersync cannot do without: it crashed, or refused to start, where syncq has a default.
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

/// Attributes that are on or off.
const SWITCHES: [&str; 5] = ["start", "xfs", "regex", "ignoreError", "keepNewer"];

/// What is said of an attribute.
pub struct Said {
    pub verdict: Verdict,
    pub message: String,
    /// The warnings on the file that say the same.
    pub told: Vec<Matter>,
}

/// All that is said of an attribute at its place. Of syncq's own section and of what is unknown no row tells.
pub fn said_of(element: &str, attribute: &str, here: &Here<'_>) -> Said {
    if element.starts_with("syncq/") {
        return Said { verdict: Differs, message: OF_ITS_OWN.to_owned(), told: Vec::new() };
    }
    let mut told = Vec::new();
    let mut matters = Vec::new();
    if SWITCHES.contains(&attribute) && is_true(here.value) && here.value != "true" {
        told.push("taken for true; sersync took exactly true for that, and this for false");
        matters.extend([Matter::Switch, Matter::Blanks]);
    }
    let mut decided = None;
    for row in ROWS.iter().filter(|row| row.element == element && row.attribute == attribute) {
        if row.when.holds(here) {
            matters.push(row.matter);
            told.extend(Some(row.says).filter(|says| !says.is_empty() && (row.verdict == Differs || told.is_empty())));
            if !row.is_besides {
                decided = Some(row.verdict);
                break;
            }
        }
    }
    let (verdict, message) = match decided {
        None => (Verdict::Ignored, "neither knows it".to_owned()),
        // One that differs in anything is not the same.
        Some(verdict) if told.is_empty() || verdict == Unused => (verdict, told.join("; ")),
        Some(_) => (Differs, told.join("; ")),
    };
    Said { verdict, message, told: matters }
}

#[cfg(test)]
mod tests;
