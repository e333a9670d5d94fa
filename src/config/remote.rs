//! The `<rsync>` section and the `<remote>` elements: the targets of a root, and rsync's options to reach them.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::{Destination, Host, HostError, Target, TransferOptions, Usable};

use super::diagnostic::{Matter, Notes};
use super::error::{Fault, Problem};
use super::params;
use super::value::{self, Value};
use super::xml::Element;

const TIMEOUT_SECONDS: u64 = 100;
/// A year, in seconds. Nobody means a longer timeout, and rsync takes none.
const TIMEOUT_SECONDS_MAX: u64 = 366 * 24 * 60 * 60;
const RSYNCD_PORT: u16 = 874;

/// How all targets of a configuration are reached.
#[derive(Debug, Default)]
pub(super) struct Access {
    pub(super) options: TransferOptions,
    ssh: bool,
    user: Option<String>,
}

/// Reads `<rsync>`.
pub(super) fn access(sersync: &Element, delete: bool, notes: &mut Notes<'_>) -> Result<Access, Problem> {
    let mut access = Access::default();
    access.options.delete = delete;
    let default = "params are -artz, no password, no port, no timeout, no ssh";
    let Some(rsync) = value::section(sersync, "rsync", default, notes) else { return Ok(access) };

    let params = common_params(rsync, notes)?;
    if params.deletes.is_some() && !delete {
        notes.warn(rsync.offset, "params ask for deletions, while <delete start=\"false\"/> forbids them");
    }
    access.options.params = params.params;
    access.ssh = value::switch(rsync, "ssh", false, notes);
    auth(rsync, params.password_file, &mut access, notes)?;
    // rsync uses a --port in the params for rsync daemons only.
    access.options.port = port(rsync, access.ssh, notes)?.or(params.port.filter(|_| !access.ssh));
    access.options.timeout = timeout(rsync, notes);
    Ok(access)
}

fn common_params(rsync: &Element, notes: &mut Notes<'_>) -> Result<Usable, Problem> {
    let defaults = || Usable { params: TransferOptions::default().params, ..Usable::default() };
    let default = "params are -artz";
    let Some(element) = value::section(rsync, "commonParams", default, notes) else { return Ok(defaults()) };
    let keep_newer = value::attribute(element, "keepNewer", notes)
        .is_some_and(|keep_newer| value::boolean(keep_newer, "keepNewer", notes));
    match value::expected(element, "params", default, notes) {
        Some(value) => params::read(value, keep_newer, notes),
        None => Ok(defaults()),
    }
}

fn auth(
    rsync: &Element,
    params_file: Option<PathBuf>,
    access: &mut Access,
    notes: &mut Notes<'_>,
) -> Result<(), Problem> {
    let section = value::section(rsync, "auth", "no user and no password", notes);
    let mut password_file = None;
    if let Some(auth) = section.filter(|auth| value::start(auth, false, notes)) {
        let users = value::expected(auth, "users", "no user", notes).filter(|value| !value.is_empty());
        let file = value::expected(auth, "passwordfile", "no password", notes);
        password_file = file.filter(|value| !value.is_empty()).map(Value::to_path);
        if file.is_some_and(|value| value.is_empty()) && !access.ssh {
            notes.warn_with(
                auth.offset,
                "<auth> is on without a password: rsync daemons that ask for one will refuse",
                "passwordfile names a file of mode 600 that holds the password only",
            );
        }
        if access.ssh && password_file.is_some() {
            notes.warn_of(
                Matter::AuthWithSsh,
                auth.offset,
                "users and passwordfile are ignored: rsync takes them for its daemons only, not with ssh",
                Some("switch <auth> off and write the user into the remote: ip=\"user@host\""),
            );
        } else if let Some(users) = users {
            access.user = Some(user(users, notes)?);
        }
    }
    for file in password_file.iter().chain(&params_file).filter(|file| file.is_relative() && !access.ssh) {
        let message =
            format!("the password file {} is relative: it is meant from the watched directory", file.display());
        notes.warn_with(
            section.map_or(rsync.offset, |auth| auth.offset),
            message,
            "write it in full, outside of what is mirrored",
        );
    }
    match (password_file, params_file) {
        (file, _) if access.ssh && file.is_some() => {}
        (None, Some(_)) if access.ssh => {
            notes.warn_with(rsync.offset, "params: --password-file is ignored with ssh", "leave it out");
        }
        (Some(file), Some(_)) => {
            notes.warn(rsync.offset, "params: --password-file is ignored in favour of passwordfile");
            access.options.password_file = Some(file);
        }
        (file, params_file) => access.options.password_file = file.or(params_file),
    }
    Ok(())
}

fn user(value: Value<'_>, notes: &Notes<'_>) -> Result<String, Problem> {
    let name = str::from_utf8(value.bytes).ok().and_then(|user| Host::parse(&format!("{user}@h")).ok()?.user);
    name.ok_or_else(|| {
        let shown = value.bytes.split(|&b| b == b':').next().unwrap_or_default();
        let hides = if shown.len() < value.bytes.len() { ":***" } else { "" };
        let given = format!("{}{hides}", notes.show(shown));
        Fault::Value { attribute: "users", given, expected: "user name" }.at(value.offset)
    })
}

/// Reads the port. An invalid one is refused, not replaced by the usual one: another daemon at the usual port may have a module
/// of the same name, which would be made equal to the source.
fn port(rsync: &Element, ssh: bool, notes: &mut Notes<'_>) -> Result<Option<u16>, Problem> {
    let Some(element) = value::section(rsync, "userDefinedPort", "the usual port", notes) else { return Ok(None) };
    if !value::start(element, false, notes) {
        return Ok(None);
    }
    let default = format!("port {RSYNCD_PORT}");
    let port = match value::expected(element, "port", &default, notes) {
        None => RSYNCD_PORT,
        Some(value) if value.is_empty() => {
            notes.warn(value.offset, format!("port is empty; {RSYNCD_PORT} is used"));
            RSYNCD_PORT
        }
        Some(value) => value.number().filter(|&port| port > 0).ok_or_else(|| {
            let given = notes.show(value.bytes);
            Fault::Value { attribute: "port", given, expected: "port from 1 to 65535" }.at(value.offset)
        })?,
    };
    if ssh {
        notes.warn_of(
            Matter::PortWithSsh,
            element.offset,
            format!("port {port} is used for ssh; sersync ignored it there"),
            Some("if ssh listens on 22, write <userDefinedPort start=\"false\"/>"),
        );
    }
    Ok(Some(port))
}

fn timeout(rsync: &Element, notes: &mut Notes<'_>) -> Option<Duration> {
    let element = value::section(rsync, "timeout", "no timeout", notes)?;
    if !value::start(element, false, notes) {
        return None;
    }
    let default = format!("{TIMEOUT_SECONDS} seconds");
    let seconds = match value::expected(element, "time", &default, notes) {
        None => TIMEOUT_SECONDS,
        Some(value) => value.number().filter(|&seconds| seconds <= TIMEOUT_SECONDS_MAX).unwrap_or_else(|| {
            let shown = notes.show(value.bytes);
            notes.warn(value.offset, format!("time {shown} is no number of seconds; {TIMEOUT_SECONDS} is used"));
            TIMEOUT_SECONDS
        }),
    };
    // rsync too reads 0 as no timeout.
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// The targets of one `<localpath>` for the directory `root` that the root does not have yet. An unusable remote is left out
/// with a warning as long as there is another one: a fault in one remote must not stop the others.
pub(super) fn targets(
    localpath: &Element,
    root: &Path,
    access: &Access,
    seen: &mut HashSet<Destination>,
    notes: &mut Notes<'_>,
) -> Result<Vec<Target>, Problem> {
    let mut options = access.options.clone();
    // Resolve the path as sersync did, which ran rsync in the watched directory.
    options.password_file = options.password_file.map(|file| root.join(file));
    let mut targets = Vec::new();
    let mut unusable = Vec::new();
    let mut is_any = false;
    for remote in localpath.children("remote") {
        let destination = match destination(remote, access, notes) {
            Ok(destination) => destination,
            Err(problem) => {
                unusable.push(problem);
                continue;
            }
        };
        is_any = true;
        if seen.insert(destination.clone()) {
            targets.push(Target { destination, options: options.clone() });
        } else {
            notes.warn(remote.offset, format!("{destination} is given twice; once is enough"));
        }
    }
    if !is_any {
        return Err(unusable.into_iter().next().unwrap_or_else(|| Fault::NoRemote.at(localpath.offset)));
    }
    for problem in unusable {
        let message = format!("nothing is mirrored to this remote: {}", problem.fault);
        match problem.fault.hint() {
            Some(hint) => notes.warn_with(problem.offset, message, hint),
            None => notes.warn(problem.offset, message),
        }
    }
    Ok(targets)
}

fn destination(remote: &Element, access: &Access, notes: &mut Notes<'_>) -> Result<Destination, Problem> {
    let ip = required(remote, "ip", notes)?;
    let name = required(remote, "name", notes)?;
    let host = host(ip, access.user.as_deref(), notes)?;
    let mut path = name.bytes;
    while let [rest @ .., b'/'] = path
        && !rest.is_empty()
    {
        path = rest;
    }
    let path_or_module = OsString::from_vec(path.to_vec());
    // rsync knows neither `host::/x` nor `host:::x`.
    let slash = !access.ssh && path.starts_with(b"/");
    if slash || path.starts_with(b":") {
        return Err(Fault::Module { given: notes.show(name.bytes) }.at(name.offset));
    }
    Ok(if access.ssh {
        Destination::Ssh { host, path: path_or_module.into() }
    } else {
        Destination::Daemon { host, module: path_or_module }
    })
}

fn required<'e>(remote: &'e Element, attribute: &'static str, notes: &mut Notes<'_>) -> Result<Value<'e>, Problem> {
    value::attribute(remote, attribute, notes)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Fault::RemoteIncomplete { attribute }.at(remote.offset))
}

/// Reads `[user@]host`. Without a user of its own, the host gets the user of `<auth>`.
fn host(value: Value<'_>, user: Option<&str>, notes: &mut Notes<'_>) -> Result<String, Problem> {
    let given = str::from_utf8(value.bytes).map_err(|_| HostError::Unreadable);
    let host =
        given.and_then(Host::parse).map_err(|why| Fault::Host { given: hidden(value, notes), why }.at(value.offset))?;
    if let (Some(own), Some(user)) = (&host.user, user.filter(|&user| host.user.as_deref() != Some(user))) {
        let message = format!("{own}@{} has a user of its own; users=\"{user}\" is ignored here", host.name);
        notes.warn(value.offset, message);
    }
    let user = host.user.or_else(|| user.map(str::to_owned));
    Ok(Host { user, name: host.name }.to_string())
}

/// A value for a message, cut at the first colon if a password may follow.
fn hidden(value: Value<'_>, notes: &Notes<'_>) -> String {
    match value.bytes.iter().position(|&b| b == b':').filter(|_| value.bytes.contains(&b'@')) {
        Some(colon) => format!("{}:***", notes.show(value.bytes.get(..colon).unwrap_or_default())),
        None => notes.show(value.bytes),
    }
}
