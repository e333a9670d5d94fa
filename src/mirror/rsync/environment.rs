//! The variables that rsync would take from its environment. Each is honoured, or set aside where that is impossible, and
//! either is reported.
//!
//! A variable that stands for an option becomes one ([`adopt`]), so that every run, `check` and the commands in the log
//! agree. Variables that only rsync can use, such as passwords and proxies, go along with each run ([`prepare`]). Every
//! other variable whose name begins with `RSYNC_` is kept from rsync. rsync's locale is C, since its words are read; only
//! if it converts names (`--iconv`) does it have this process's character set.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::process::Command;

use crate::model::{Destination, Target, plain};

/// Variables that go along with each run.
const PASSED_ON: [&str; 7] =
    [PASSWORD, PROXY, CONNECT_PROG, "RSYNC_SHELL", "RSYNC_CHECKSUM_LIST", "RSYNC_COMPRESS_LIST", "RSYNC_MAX_ALLOC"];
/// The prefix of the variables of `rsync-ssl`, which may be somebody's remote shell.
const SSL: &str = "RSYNC_SSL_";
const PASSWORD: &str = "RSYNC_PASSWORD";
const PROXY: &str = "RSYNC_PROXY";
const CONNECT_PROG: &str = "RSYNC_CONNECT_PROG";

/// The fate of a variable, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    pub message: String,
    /// The variable has no effect.
    pub is_set_aside: bool,
}

/// Looks up a variable. An empty one counts as not set.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The variables of this process.
pub fn own(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Whether these variables have rsync daemons reached through another host or a program.
pub fn redirects(variable: Variables<'_>) -> bool {
    [PROXY, CONNECT_PROG].iter().any(|name| variable(name).is_some_and(|value| !value.is_empty()))
}

/// Makes options of the variables that stand for some, unless the params set the same. Returns what becomes of each
/// variable that matters to one of the targets. The messages contain no value that may be secret.
pub fn adopt<'a>(targets: impl IntoIterator<Item = &'a mut Target>, variable: Variables<'_>) -> Vec<Adopted> {
    let mut told = Told { variable, found: Vec::new(), seen: BTreeSet::new() };
    for target in targets {
        match &target.destination {
            Destination::Local(_) => {}
            Destination::Ssh { .. } => told.of_ssh(target),
            Destination::Daemon { .. } => told.of_daemon(target),
        }
        told.of_any(target);
    }
    told.found
}

struct Told<'v> {
    variable: Variables<'v>,
    found: Vec<Adopted>,
    seen: BTreeSet<String>,
}

impl Told<'_> {
    fn value(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn shown(&self, name: &str) -> Option<String> {
        self.value(name).map(|value| plain(&value.to_string_lossy()))
    }

    fn say(&mut self, message: String, is_set_aside: bool) {
        if self.seen.insert(message.clone()) {
            self.found.push(Adopted { message, is_set_aside });
        }
    }

    fn of_ssh(&mut self, target: &mut Target) {
        let params = &mut target.options.params;
        if let Some(shell) = self.value("RSYNC_RSH").filter(|_| !params.has_any(&["rsh"])) {
            self.say(format!("RSYNC_RSH is used: -e '{}'", plain(&shell.to_string_lossy())), false);
            params.extend([OsString::from("-e"), shell]);
        }
        let is_on = |value: &OsString| value.to_str().is_some_and(|value| value.trim().parse::<i64>() != Ok(0));
        let says = params.has_any(&["secluded-args", "protect-args", "old-args"]);
        if self.value("RSYNC_PROTECT_ARGS").filter(is_on).is_some() && !says {
            self.say("RSYNC_PROTECT_ARGS is used: --protect-args".to_owned(), false);
            params.extend(["--protect-args"]);
        }
        if self.value("RSYNC_OLD_ARGS").filter(is_on).is_some() && !says {
            let message = "RSYNC_OLD_ARGS is set aside: with it a name could be taken for several";
            self.say(message.to_owned(), true);
        }
    }

    fn of_daemon(&mut self, target: &Target) {
        let Destination::Daemon { host, .. } = &target.destination else { return };
        let has_password = self.value(PASSWORD).is_some();
        if has_password && target.options.password_file.is_none() {
            self.say("RSYNC_PASSWORD is used for the rsync daemons that have no password file".to_owned(), false);
        }
        if !host.contains('@') && (has_password || target.options.password_file.is_some()) {
            let (user, name) = match (self.shown("USER"), self.shown("LOGNAME")) {
                (Some(user), _) => (user, "USER"),
                (None, Some(user)) => (user, "LOGNAME"),
                (None, None) => ("nobody".to_owned(), "USER, which is not set"),
            };
            self.say(format!("{}: it names no user, so rsync asks as {user} ({name})", target.name()), false);
        }
        if target.options.params.remote_shell().is_none() {
            if let Some(proxy) = self.shown(PROXY) {
                // The value may be `user:password@host:port`.
                let address = proxy.rsplit('@').next().unwrap_or_default();
                self.say(format!("RSYNC_PROXY is used: rsync daemons are reached through {address}"), false);
            }
            if self.value(CONNECT_PROG).is_some() {
                self.say(
                    "RSYNC_CONNECT_PROG is used: rsync daemons are reached through that program".to_owned(),
                    false,
                );
            }
        }
    }

    fn of_any(&mut self, target: &mut Target) {
        let params = &mut target.options.params;
        if let Some(charset) = self.value("RSYNC_ICONV").filter(|_| !params.has_any(&["iconv"])) {
            let mut option = OsString::from("--iconv=");
            option.push(&charset);
            self.say(format!("RSYNC_ICONV is used: {}", plain(&option.to_string_lossy())), false);
            params.extend([option]);
        }
        if let Some(dir) = self.value("RSYNC_PARTIAL_DIR").filter(|_| !params.has_any(&["partial-dir", "inplace"])) {
            if params.has_any(&["partial", "P"]) {
                let mut option = OsString::from("--partial-dir=");
                option.push(&dir);
                self.say(format!("RSYNC_PARTIAL_DIR is used: {}", plain(&option.to_string_lossy())), false);
                params.extend([option]);
            } else {
                let message = "RSYNC_PARTIAL_DIR is set aside: there is no --partial in the params";
                self.say(message.to_owned(), true);
            }
        }
        for name in ["RSYNC_CHECKSUM_LIST", "RSYNC_COMPRESS_LIST", "RSYNC_MAX_ALLOC"] {
            if let Some(value) = self.shown(name) {
                self.say(format!("{name} is used: {value}"), false);
            }
        }
        if self.value("CVSIGNORE").is_some() && params.has_any(&["cvs-exclude"]) {
            self.say("CVSIGNORE is used: it adds to what -C leaves out".to_owned(), false);
        }
        let mut ours =
            params.given().iter().filter(|given| given.is("iconv")).filter_map(|given| given.value.as_deref());
        if ours.next_back().is_some_and(|charsets| charsets.to_string_lossy().split(',').next() == Some(".")) {
            match locale(self.variable) {
                Some(locale) => {
                    let locale = plain(&locale.to_string_lossy());
                    self.say(
                        format!("--iconv=. means the character set of {locale}, as the environment has it"),
                        false,
                    );
                }
                None => {
                    let message = "--iconv=. is set aside: it means the character set of the environment, which names none \
                                   (LANG): name it, like --iconv=UTF-8";
                    self.say(message.to_owned(), true);
                }
            }
        }
    }
}

/// The locale whose character set the names have. `None`: it is the C locale.
fn locale(variable: Variables<'_>) -> Option<OsString> {
    let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set)?;
    (locale != OsStr::new("C") && locale != OsStr::new("POSIX")).then_some(locale)
}

/// Gives a run its environment.
pub(crate) fn prepare(command: &mut Command, args: &[OsString]) {
    for (name, _) in std::env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        if text.starts_with("RSYNC_") && !PASSED_ON.contains(&text) && !text.starts_with(SSL) {
            command.env_remove(name);
        }
    }
    // Without any password rsync would prompt on the terminal, or take the list for the password.
    if own(PASSWORD).is_none() {
        command.env(PASSWORD, "");
    }
    command.env("TZ", "UTC");
    let converts = args.iter().any(|arg| arg.as_encoded_bytes().starts_with(b"--iconv"));
    match locale(&own).filter(|_| converts) {
        Some(locale) => {
            command.env_remove("LC_ALL").env("LANG", "C").env("LC_CTYPE", locale);
            for category in ["LC_MESSAGES", "LC_NUMERIC", "LC_TIME", "LC_COLLATE"] {
                command.env(category, "C");
            }
        }
        None => {
            command.env("LC_ALL", "C");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TransferOptions;

    fn target(kind: &str, params: &[&str]) -> Target {
        let destination = match kind {
            "local" => Destination::Local("/b".into()),
            "ssh" => Destination::Ssh { host: "h".into(), path: "/b".into() },
            host => Destination::Daemon { host: host.into(), module: "m".into() },
        };
        let options = TransferOptions { params: params.iter().collect(), ..TransferOptions::default() };
        Target { destination, options }
    }

    /// These variables were kept from rsync without a message.
    #[test]
    fn each_variable_is_used_where_it_is_meant_or_said_to_be_set_aside() {
        for (name, value, kind, params, expected, words, is_set_aside) in [
            ("RSYNC_RSH", "ssh -p 9", "ssh", &["-a"][..], &["-a", "-e", "ssh -p 9"][..], "-e 'ssh -p 9'", false),
            ("RSYNC_RSH", "ssh -p 9", "ssh", &["-e", "rsh"], &["-e", "rsh"], "", false),
            ("RSYNC_RSH", "ssh -p 9", "u@h", &["-a"], &["-a"], "", false),
            ("RSYNC_RSH", "ssh -p 9", "local", &["-a"], &["-a"], "", false),
            ("RSYNC_PASSWORD", "S3cret", "u@h", &["-a"], &["-a"], "RSYNC_PASSWORD is used", false),
            ("RSYNC_PASSWORD", "S3cret", "ssh", &["-a"], &["-a"], "", false),
            ("RSYNC_PROXY", "u:S3cret@proxy:80", "u@h", &["-a"], &["-a"], "through proxy:80", false),
            ("RSYNC_PROXY", "proxy:80", "local", &["-a"], &["-a"], "", false),
            ("RSYNC_CONNECT_PROG", "nc S3cret %H 873", "u@h", &["-a"], &["-a"], "that program", false),
            ("RSYNC_ICONV", "UTF-8,latin1", "local", &["-a"], &["-a", "--iconv=UTF-8,latin1"], "--iconv=UTF-8", false),
            ("RSYNC_ICONV", "UTF-8", "local", &["--iconv=-"], &["--iconv=-"], "", false),
            ("RSYNC_PARTIAL_DIR", ".p", "local", &["-aP"], &["-aP", "--partial-dir=.p"], "--partial-dir=.p", false),
            ("RSYNC_PARTIAL_DIR", ".p", "local", &["-a"], &["-a"], "set aside", true),
            ("RSYNC_PROTECT_ARGS", "1", "ssh", &["-a"], &["-a", "--protect-args"], "--protect-args", false),
            ("RSYNC_PROTECT_ARGS", "0", "ssh", &["-a"], &["-a"], "", false),
            ("RSYNC_OLD_ARGS", "1", "ssh", &["-a"], &["-a"], "set aside", true),
            ("RSYNC_OLD_ARGS", "1", "local", &["-a"], &["-a"], "", false),
            ("RSYNC_CHECKSUM_LIST", "md5", "local", &["-a"], &["-a"], "RSYNC_CHECKSUM_LIST is used: md5", false),
            ("CVSIGNORE", "*.o", "local", &["-aC"], &["-aC"], "CVSIGNORE is used", false),
            ("CVSIGNORE", "*.o", "local", &["-a"], &["-a"], "", false),
            ("LANG", "de_DE.UTF-8", "local", &["--iconv=."], &["--iconv=."], "of de_DE.UTF-8", false),
            ("LC_ALL", "C", "local", &["--iconv=.,latin1"], &["--iconv=.,latin1"], "set aside", true),
            ("RSYNC_PORT", "9", "u@h", &["-a"], &["-a"], "", false),
            ("RSYNC_RSH", "", "ssh", &["-a"], &["-a"], "", false),
        ] {
            let variable = |asked: &str| (asked == name).then(|| OsString::from(value));
            let mut targets = [target(kind, params), target(kind, params)];
            let found = adopt(&mut targets, &variable);
            let shown = format!("{name}={value} {kind} {params:?}: {found:?}");
            for target in &targets {
                assert_eq!(target.options.params.iter().collect::<Vec<_>>(), expected, "{shown}");
            }
            assert_eq!(found.len(), usize::from(!words.is_empty()), "{shown}");
            assert!(found.iter().all(|one| one.message.contains(words) && one.is_set_aside == is_set_aside), "{shown}");
            assert!(found.iter().all(|one| !one.message.contains("S3cret")), "{shown}");
        }
    }

    #[test]
    fn whom_a_daemon_is_asked_as_is_told_where_a_password_is_given() {
        for (variables, user) in [
            (&[("USER", "joe"), ("LOGNAME", "jim")][..], "as joe (USER)"),
            (&[("LOGNAME", "jim")], "as jim (LOGNAME)"),
            (&[], "as nobody"),
        ] {
            let variable =
                |asked: &str| variables.iter().find(|(name, _)| *name == asked).map(|(_, value)| OsString::from(value));
            let mut target = target("h", &["-a"]);
            target.options.password_file = Some("/p".into());
            let found = adopt([&mut target], &variable);
            assert!(found.len() == 1 && found[0].message.contains(user), "{found:?}");
        }
    }
}
