//! How ssh is called: the user's options, and defaults for those that he has not set. Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use crate::model::{Destination, Target};

/// The program, found through PATH.
pub(crate) const SSH: &str = "ssh";

/// How ssh behaves unless the user has said otherwise: a host that does not answer within half a minute is down, and a
/// connection that is silent for three times a quarter of a minute is dead.
const DEFAULTS: [(&str, &str); 3] =
    [("ConnectTimeout", "30"), ("ServerAliveInterval", "15"), ("ServerAliveCountMax", "3")];

/// The remote shell for a target as rsync takes it, with options that keep ssh from asking and hanging. `own` is the user's
/// remote shell, if there is one. `None`: it is not ssh. Where an option is given twice ssh takes the first, so the user's
/// win.
pub fn line(own: Option<&OsStr>, port: Option<u16>, timeout: Option<Duration>) -> Option<OsString> {
    let mut line = base(own, port)?;
    append(&mut line, ["BatchMode=yes".to_owned()]);
    append(&mut line, DEFAULTS.iter().map(|(name, value)| format!("{name}={}", limited(name, value, timeout))));
    Some(line)
}

/// `hint` with its `HOST` replaced by the words that reach this target's host by hand.
pub fn by_hand(target: &Target, hint: &str) -> String {
    let Destination::Ssh { host, .. } = &target.destination else { return hint.to_owned() };
    let Some(base) = base(target.options.params.remote_shell(), target.options.port) else { return hint.to_owned() };
    let port = words(&base).as_deref().and_then(port_of);
    let name = host.rsplit_once('@').map_or(host.as_str(), |(_, name)| name);
    let (copy, known) = match &port {
        Some(port) => (
            format!("ssh-copy-id -p {port} {host}"),
            format!("ssh-keygen -R '[{}]:{port}'", name.trim_matches(['[', ']'])),
        ),
        None => (format!("ssh-copy-id {host}"), format!("ssh-keygen -R {name}")),
    };
    let line = base.to_string_lossy();
    hint.replace("ssh-copy-id HOST", &copy)
        .replace("ssh-keygen -R HOST", &known)
        .replace("ssh -G HOST", &format!("{line} -G {host}"))
        .replace("ssh HOST", &format!("{line} {host}"))
}

/// The port in the words of an ssh command line. ssh takes the first.
fn port_of(words: &[OsString]) -> Option<String> {
    let mut words = words.iter().skip(1).map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        if let Some(port) = word.strip_prefix("-p") {
            return if port.is_empty() { words.next().map(|port| port.into_owned()) } else { Some(port.to_owned()) };
        }
        let option = word.strip_prefix("-o").unwrap_or(&word).to_ascii_lowercase();
        if let Some(port) = option.strip_prefix("port=") {
            return Some(port.to_owned());
        }
    }
    None
}

/// The remote shell with the user's options alone. `None`: it is not ssh.
pub(crate) fn base(own: Option<&OsStr>, port: Option<u16>) -> Option<OsString> {
    let mut line = own.unwrap_or(OsStr::new(SSH)).to_owned();
    let words = words(&line)?;
    if Path::new(words.first()?).file_name()? != SSH {
        return None;
    }
    if let Some(port) = port {
        line.push(format!(" -p {port}"));
    }
    Some(line)
}

pub(crate) fn append(line: &mut OsString, options: impl IntoIterator<Item = String>) {
    for option in options {
        line.push(" -o ");
        line.push(option);
    }
}

/// A user who lets rsync wait for less than half a minute wants the same limit for ssh's connection.
fn limited(name: &str, value: &str, timeout: Option<Duration>) -> String {
    match (timeout, value.parse::<u64>()) {
        (Some(timeout), Ok(limit)) if name == "ConnectTimeout" => timeout.as_secs().clamp(1, limit).to_string(),
        _ => value.to_owned(),
    }
}

/// Splits a remote shell's line like rsync: at blanks, unless quoted; a doubled quote within quotes stands for one quote.
/// `None` for an open quote.
pub(crate) fn words(line: &OsStr) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = line.as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match quote {
            Some(open) if byte == open => match bytes.next_if_eq(&open) {
                Some(_) => word.get_or_insert_default().push(open),
                None => quote = None,
            },
            Some(_) => word.get_or_insert_default().push(byte),
            None if byte == b' ' => words.extend(word.take().map(OsString::from_vec)),
            None if byte == b'\'' || byte == b'"' => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            None => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word.map(OsString::from_vec));
    quote.is_none().then_some(words)
}

/// Whether the user's words decide themselves whether and where connections are shared.
pub(crate) fn shares(words: &[OsString]) -> bool {
    words.iter().skip(1).any(|word| {
        let word = word.as_bytes();
        word.starts_with(b"-S")
            || word.starts_with(b"-M")
            || word.to_ascii_lowercase().windows(b"control".len()).any(|part| part == b"control")
    })
}

/// Options of ssh that take a value, and those among them whose value is a file.
const WITH_VALUE: &[u8] = b"BbcDEeFIiJLlmOoPpQRSWw";
const WITH_FILE: &[u8] = b"EFi";

/// Options of `-o` whose value names files, in lower case.
const FILE_OPTIONS: [&str; 6] = [
    "identityfile",
    "certificatefile",
    "userknownhostsfile",
    "globalknownhostsfile",
    "revokedhostkeys",
    "identityagent",
];

/// Whether the user's words, or the program's name, name a file that ssh finds from its working directory. Where a value is
/// not a file's name, such as a command, only words with a slash are taken for file names.
pub(crate) fn names_relative_path(words: &[OsString]) -> bool {
    let mut words = words.iter().map(|word| word.as_bytes());
    if words.next().is_some_and(|program| program.contains(&b'/') && !program.starts_with(b"/")) {
        return true;
    }
    while let Some(word) = words.next() {
        let Some(letters) = word.strip_prefix(b"-") else { continue };
        let Some(at) = letters.iter().position(|letter| WITH_VALUE.contains(letter)) else { continue };
        let (letter, rest) =
            letters.split_at_checked(at).and_then(|(_, rest)| rest.split_first()).unwrap_or((&b' ', b""));
        let value = if rest.is_empty() { words.next().unwrap_or_default() } else { rest };
        let is_found = match letter {
            b'o' => {
                let value = String::from_utf8_lossy(value);
                let (name, value) = value.trim().split_once(['=', ' ', '\t']).unwrap_or_default();
                let is_file = FILE_OPTIONS.contains(&name.trim().to_ascii_lowercase().as_str());
                value.split_ascii_whitespace().any(|part| is_relative(part.trim_matches(['=', '"']), is_file))
            }
            b'I' => is_relative(&String::from_utf8_lossy(value), false),
            letter => WITH_FILE.contains(letter) && is_relative(&String::from_utf8_lossy(value), true),
        };
        if is_found {
            return true;
        }
    }
    false
}

/// Whether a value is a relative path. ssh expands a tilde, `%d` and variables to absolute paths.
fn is_relative(value: &str, is_file: bool) -> bool {
    let is_name = (is_file || value.contains('/')) && !value.contains("://");
    let is_elsewhere = ["/", "~", "%d", "$"].iter().any(|start| value.starts_with(start));
    is_name && !is_elsewhere && !["", "none", "SSH_AUTH_SOCK"].contains(&value)
}

/// The settings that the user's configuration of ssh leaves to syncq.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Defaults of syncq where the user has set nothing, as `Name=value`.
    pub(crate) defaults: Vec<String>,
    /// The user has a `ControlPath`.
    pub(crate) shares: bool,
}

impl Settings {
    /// Reads the output of `ssh -G`: a name in lower case and its value on each line, also for options that nobody has set.
    pub(crate) fn read(printed: &str, timeout: Option<Duration>) -> Self {
        const UNSET: [(&str, &str); 3] =
            [("connecttimeout", "none"), ("serveraliveinterval", "0"), ("serveralivecountmax", "3")];
        let value = |name: &str| printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let is_set = |name: &str| {
            let name = name.to_ascii_lowercase();
            value(&name).is_some_and(|found| !UNSET.contains(&(name.as_str(), found)))
        };
        let ours = DEFAULTS.iter().filter(|(name, _)| !is_set(name));
        Self {
            defaults: ours.map(|(name, value)| format!("{name}={}", limited(name, value, timeout))).collect(),
            shares: value("controlpath").is_some_and(|path| path != "none"),
        }
    }
}

/// Whether ssh tried to connect and could not.
pub(crate) fn blames_host(stderr: &[u8]) -> bool {
    stderr.starts_with(b"ssh: connect to host ") || String::from_utf8_lossy(stderr).contains("\nssh: connect to host ")
}

/// Whether ssh failed at sharing a connection and not at the host.
pub(crate) fn blames_sharing(stderr: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stderr);
    ["unix_listener", "ControlPath", "ControlSocket", "ControlPersist"].iter().any(|word| text.contains(word))
}

/// The program and its arguments that have the host of `target` run its rsync with `argument`. `None` unless the target is
/// reached through ssh.
pub fn command(target: &Target, argument: &str) -> Option<(OsString, Vec<OsString>)> {
    let Destination::Ssh { host, .. } = &target.destination else { return None };
    let params = &target.options.params;
    let line = line(params.remote_shell(), target.options.port, target.options.timeout)?;
    let mut words = words(&line)?;
    let program = words.remove(0);
    words.extend(destination(host));
    let mut rsync =
        params.given().iter().rev().find(|given| given.is("rsync-path")).and_then(|given| given.value.clone());
    let mut there = rsync.take().unwrap_or_else(|| "rsync".into());
    there.push(" ");
    there.push(argument);
    words.push(there);
    Some((program, words))
}

/// The host in the form that ssh takes: `[user@]host`.
pub(crate) fn destination(host: &str) -> Vec<OsString> {
    let (user, host) = match host.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, host),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let user = user.map(|user| ["-l".into(), user.into()]);
    user.into_iter().flatten().chain([host.into()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TransferOptions;

    #[test]
    fn hints_name_the_host_as_it_is_reached() {
        for (host, params, port, hint, expected) in [
            ("u@h", &["-a"][..], None, "ssh-copy-id HOST", "ssh-copy-id u@h"),
            ("u@h", &["-a"], Some(9260), "ssh-copy-id HOST", "ssh-copy-id -p 9260 u@h"),
            (
                "127.0.0.1",
                &["-e", "ssh -i /k -p 9260"],
                None,
                "by hand: ssh HOST",
                "by hand: ssh -i /k -p 9260 127.0.0.1",
            ),
            ("u@h", &["-e", "ssh -oPort=9260"], None, "ssh-keygen -R HOST", "ssh-keygen -R '[h]:9260'"),
            ("u@h", &[], None, "ssh-keygen -R HOST", "ssh-keygen -R h"),
            ("u@h", &["-e", "rsh"], None, "ssh HOST", "ssh HOST"),
        ] {
            let params = params.iter().map(OsString::from).collect();
            let options = TransferOptions { params, port, ..TransferOptions::default() };
            let destination = Destination::Ssh { host: host.into(), path: "/x".into() };
            assert_eq!(by_hand(&Target { destination, options }, hint), expected);
        }
    }

    fn split(line: &str) -> Option<Vec<String>> {
        let words = words(OsStr::new(line))?;
        Some(words.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn a_remote_shell_is_split_as_rsync_splits_it() {
        for (line, expected) in [
            ("ssh", Some(vec!["ssh"])),
            ("  ssh  -p 2 ", Some(vec!["ssh", "-p", "2"])),
            ("ssh -i '/k y'", Some(vec!["ssh", "-i", "/k y"])),
            (r#"ssh -i "/k'y" ''"#, Some(vec!["ssh", "-i", "/k'y", ""])),
            ("ssh -i 'it''s'", Some(vec!["ssh", "-i", "it's"])),
            ("ssh -i 'open", None),
        ] {
            assert_eq!(split(line), expected.map(|words| words.into_iter().map(str::to_owned).collect()), "{line}");
        }
    }

    #[test]
    fn what_the_user_says_stands_first_and_other_shells_are_left_alone() {
        let said = |own: Option<&str>, port, timeout: Option<u64>| {
            line(own.map(OsStr::new), port, timeout.map(Duration::from_secs)).map(|line| line.into_string().unwrap())
        };
        let ours = "-o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=3";
        assert_eq!(said(None, None, None), Some(format!("ssh {ours}")));
        assert_eq!(said(None, Some(2222), Some(100)), Some(format!("ssh -p 2222 {ours}")));
        assert_eq!(said(None, None, Some(5)), Some(format!("ssh {}", ours.replace("30", "5"))));
        assert_eq!(said(Some("/usr/bin/ssh -i /k"), Some(22), None), Some(format!("/usr/bin/ssh -i /k -p 22 {ours}")));
        for other in ["rsh", "/opt/sshwrap -x", "ssh 'open", ""] {
            assert_eq!(said(Some(other), None, None), None, "{other}");
        }
    }

    #[test]
    fn a_user_who_shares_connections_goes_on_doing_it_his_way() {
        for (line, expected) in [
            ("ssh -i /k -p 2", false),
            ("ssh -S /tmp/s", true),
            ("ssh -M", true),
            ("ssh -o ControlPath=none", true),
            ("ssh -ocontrolmaster=auto", true),
        ] {
            assert_eq!(shares(&words(OsStr::new(line)).unwrap()), expected, "{line}");
        }
    }

    #[test]
    fn relative_paths_are_found_wherever_ssh_takes_a_file() {
        for (line, expected) in [
            ("ssh -i /k -F ~/conf -E /l -p 2 -4A", false),
            ("ssh -i key", true),
            ("ssh -ikey", true),
            ("ssh -4Ai key", true),
            ("ssh -l user -F conf", true),
            ("ssh -F none -i ${HOME}/k", false),
            ("ssh -l i -J user@jump -c a,b", false),
            ("ssh -J ssh://user@jump:22", false),
            ("ssh -o IdentityFile=key", true),
            ("ssh -oIdentityFile=.ssh/key", true),
            ("ssh -o 'IdentityFile key'", true),
            ("ssh -o 'identityfile = ~/key'", false),
            ("ssh -o IdentityFile=%d/key -o IdentityAgent=none", false),
            ("ssh -o 'UserKnownHostsFile=/a b'", true),
            ("ssh -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no", false),
            ("ssh -o 'ProxyCommand=nc -X 5 -x proxy:1080 %h %p'", false),
            ("ssh -o ProxyJump=ssh://user@jump:22", false),
            ("ssh -o 'ProxyCommand=bin/proxy %h'", true),
            ("ssh -I libpkcs11.so", false),
            ("ssh -I lib/pkcs11.so", true),
            ("bin/ssh", true),
            ("/usr/bin/ssh -i", false),
        ] {
            assert_eq!(names_relative_path(&words(OsStr::new(line)).unwrap()), expected, "{line}");
        }
    }

    /// A host that is down was tried twice, half a minute each.
    #[test]
    fn an_ssh_that_could_not_connect_by_itself_is_no_broken_connection() {
        let lost = "mux_client_request_session: read from master failed: Broken pipe\n";
        let down = "ssh: connect to host h port 22: Connection timed out\n";
        for (said, expected) in [(down.to_owned(), true), (format!("{lost}{down}"), true), (lost.to_owned(), false)] {
            assert_eq!(blames_host(said.as_bytes()), expected, "{said}");
        }
    }

    #[test]
    fn the_configuration_of_ssh_wins_over_our_defaults() {
        let unset = "connecttimeout none\nserveraliveinterval 0\nserveralivecountmax 3\ncontrolmaster false\n";
        let all = ["ConnectTimeout=30", "ServerAliveInterval=15", "ServerAliveCountMax=3"];
        assert_eq!(Settings::read(unset, None), Settings { defaults: all.map(str::to_owned).into(), shares: false });
        assert_eq!(Settings::read("", None).defaults, all);
        let set = "connecttimeout 5\nserveraliveinterval 60\nserveralivecountmax 3\ncontrolpath /home/me/.ssh/c\n";
        let read = Settings::read(set, None);
        assert_eq!((read.defaults, read.shares), (vec!["ServerAliveCountMax=3".to_owned()], true));
    }
}
