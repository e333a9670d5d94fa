//! The plugin sections as data. Running plugins is done elsewhere. No message shows a password.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::diagnostic::{Matter, Notes};
use super::error::{Fault, Problem};
use super::value::{self, Value};
use super::words;
use super::xml::Element;

/// The plugins of sersync's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PluginKind {
    Command,
    Socket,
    RefreshCdn,
    Http,
}

impl PluginKind {
    const ALL: [Self; 4] = [Self::Command, Self::Socket, Self::RefreshCdn, Self::Http];

    /// The plugin's name in the configuration and behind `-m`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Socket => "socket",
            Self::RefreshCdn => "refreshCDN",
            Self::Http => "http",
        }
    }

    /// The plugin with that name; upper and lower case are equal.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(name))
    }
}

/// The content of a `<plugin>` section.
#[derive(Debug, Clone, PartialEq)]
pub enum Plugin {
    Command(CommandPlugin),
    Socket(SocketPlugin),
    RefreshCdn(RefreshCdnPlugin),
    Http(HttpPlugin),
}

impl Plugin {
    pub fn kind(&self) -> PluginKind {
        match self {
            Self::Command(_) => PluginKind::Command,
            Self::Socket(_) => PluginKind::Socket,
            Self::RefreshCdn(_) => PluginKind::RefreshCdn,
            Self::Http(_) => PluginKind::Http,
        }
    }

    /// The directory in the section. In sersync it replaced the mirrored directory; in syncq it does not.
    pub fn watch(&self) -> Option<&PathBuf> {
        match self {
            Self::Command(_) => None,
            Self::Socket(plugin) => plugin.watch.as_ref(),
            Self::RefreshCdn(plugin) => plugin.watch.as_ref(),
            Self::Http(plugin) => plugin.watch.as_ref(),
        }
    }

    /// Whether the plugin is told of changes in the mirrored directory `root`.
    pub fn is_told_of(&self, root: &Path) -> bool {
        self.watch().is_none_or(|watch| root.starts_with(watch) || watch.starts_with(root))
    }
}

/// Runs `prefix PATH suffix`.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandPlugin {
    pub prefix: Vec<OsString>,
    pub suffix: Vec<OsString>,
    /// Discard the command's output.
    pub ignore_error: bool,
    /// With the filter on: regular expressions, one of which has to match the whole absolute path. An empty list matches no
    /// path.
    pub includes: Option<Vec<String>>,
}

/// Sends the path to an address, on a connection of its own each time.
#[derive(Debug, Clone, PartialEq)]
pub struct SocketPlugin {
    pub watch: Option<PathBuf>,
    pub host: String,
    pub port: u16,
}

/// Tells ChinaCache which URL has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct RefreshCdnPlugin {
    pub watch: Option<PathBuf>,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Secret,
    /// The beginning of every URL.
    pub base: String,
    /// An expression that is searched in the absolute path. The URL goes on with group 1 and everything behind the match.
    /// Without an expression the URL goes on with the path below the watched directory.
    pub path_match: Option<String>,
}

/// Posts the path to a URL.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpPlugin {
    pub watch: Option<PathBuf>,
    pub url: HttpUrl,
}

/// `http://[user:password@]host[:port][/path[?query]]`. Messages leave out the parts that may be secret.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpUrl {
    pub host: String,
    pub port: u16,
    /// `user:password`, with percent signs resolved.
    pub credentials: Option<Secret>,
    /// Path and query, as in a request. Secret, because a token often stands in the query.
    pub target: Secret,
}

impl HttpUrl {
    fn parse(text: &str) -> Option<Self> {
        // In a URL all other characters are written with percent signs.
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let scheme = text.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"))?;
        let rest = text.get(scheme.len()..)?;
        let rest = rest.split('#').next()?;
        let (authority, target) = rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len()))?;
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, authority),
        };
        // The colons of an IPv6 address stand inside brackets.
        let (host, port) = match address.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, port.parse().ok().filter(|&port| port > 0)?),
            None => (address, 80),
        };
        // A text that is no host name may be a password in front of a forgotten @.
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address,
            None if host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) => host,
            None => return None,
        };
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let credentials = credentials.map(|credentials| Secret(decoded(credentials)));
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port, credentials, target: Secret(target) })
    }
}

/// A password that no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The plugin that `<sersync>` puts to use, if `sersync` is given, and all complete sections.
pub(super) fn read(
    head: &Element,
    sersync: Option<&Element>,
    notes: &mut Notes<'_>,
) -> Result<(Option<Plugin>, Vec<Plugin>), Problem> {
    let in_use = match sersync {
        Some(sersync) => in_use(sersync, notes)?,
        None => None,
    };
    let mut plugins: Vec<Plugin> = Vec::new();
    for section in head.children("plugin") {
        let Some(name) = value::expected(section, "name", "it is ignored", notes) else { continue };
        let name = notes.show(name.bytes);
        let Some(kind) = PluginKind::from_name(&name) else {
            notes.warn_with(
                section.offset,
                format!("plugin {name} is ignored: there is none of that name"),
                "one of command, socket, refreshCDN, http",
            );
            continue;
        };
        if plugins.iter().any(|plugin| plugin.kind() == kind) {
            notes.warn(section.offset, format!("plugin {name} is given twice; the first counts"));
            continue;
        }
        match read_section(section, kind, notes) {
            Ok(plugin) => plugins.push(plugin),
            Err(problem) if in_use.is_some_and(|(used, _)| used == kind) => return Err(problem),
            Err(problem) => notes.warn(problem.offset, format!("{}; the section is ignored", problem.fault)),
        }
    }
    let Some((kind, offset)) = in_use else { return Ok((None, plugins)) };
    let plugin = plugins.iter().find(|plugin| plugin.kind() == kind).cloned();
    let missing = || Fault::NoPluginSection { name: kind.as_str() }.at(offset);
    Ok((Some(plugin.ok_or_else(missing)?), plugins))
}

/// The plugin that `<sersync>` switches on, and the offset of that element.
fn in_use(sersync: &Element, notes: &mut Notes<'_>) -> Result<Option<(PluginKind, usize)>, Problem> {
    let Some(element) = value::section(sersync, "plugin", "none runs", notes) else { return Ok(None) };
    if !value::start(element, false, notes) {
        return Ok(None);
    }
    let Some(name) = value::expected(element, "name", "command", notes) else {
        return Ok(Some((PluginKind::Command, element.offset)));
    };
    let shown = notes.show(name.bytes);
    match PluginKind::from_name(&shown) {
        Some(kind) => Ok(Some((kind, element.offset))),
        None => Err(Fault::UnknownPlugin { given: shown }.at(name.offset)),
    }
}

fn read_section(section: &Element, kind: PluginKind, notes: &mut Notes<'_>) -> Result<Plugin, Problem> {
    let mut reader = Reader { plugin: kind.as_str(), section, notes };
    Ok(match kind {
        PluginKind::Command => Plugin::Command(reader.command()?),
        PluginKind::Socket => Plugin::Socket(SocketPlugin {
            watch: reader.watch(),
            host: reader.text("deshost", "ip")?,
            port: reader.port("deshost")?,
        }),
        PluginKind::RefreshCdn => Plugin::RefreshCdn(RefreshCdnPlugin {
            watch: reader.watch(),
            host: reader.text("cdninfo", "domainname")?,
            port: reader.port("cdninfo")?,
            user: reader.text("cdninfo", "username")?,
            password: Secret(reader.text("cdninfo", "passwd")?),
            base: reader.text("sendurl", "base")?,
            path_match: reader.path_match()?,
        }),
        PluginKind::Http => {
            let url = reader.value("deshost", "url")?;
            let parsed = str::from_utf8(url.bytes).ok().and_then(HttpUrl::parse);
            let url = parsed.ok_or_else(|| Fault::PluginUrl.at(url.offset))?;
            Plugin::Http(HttpPlugin { watch: reader.watch(), url })
        }
    })
}

struct Reader<'r, 'n> {
    plugin: &'static str,
    section: &'r Element,
    notes: &'r mut Notes<'n>,
}

impl<'r> Reader<'r, '_> {
    /// An element of the section's `<localpath>`.
    fn element(&self, name: &str) -> Option<&'r Element> {
        self.section.child("localpath")?.child(name)
    }

    fn watch(&mut self) -> Option<PathBuf> {
        let value = value::attribute(self.section.child("localpath")?, "watch", self.notes)?;
        (!value.is_empty()).then(|| value.to_path())
    }

    fn value(&mut self, element: &'static str, attribute: &'static str) -> Result<Value<'r>, Problem> {
        let found = self.element(element);
        found
            .and_then(|found| value::attribute(found, attribute, self.notes))
            .filter(|value| !value.is_empty())
            .ok_or_else(|| self.incomplete(element, attribute, found.map(|found| found.offset)))
    }

    fn incomplete(&self, element: &'static str, attribute: &'static str, offset: Option<usize>) -> Problem {
        let plugin = self.plugin;
        Fault::PluginIncomplete { plugin, element, attribute }.at(offset.unwrap_or(self.section.offset))
    }

    fn text(&mut self, element: &'static str, attribute: &'static str) -> Result<String, Problem> {
        let value = self.value(element, attribute)?;
        String::from_utf8(value.bytes.to_vec()).map_err(|_| self.incomplete(element, attribute, Some(value.offset)))
    }

    fn port(&mut self, element: &'static str) -> Result<u16, Problem> {
        let value = self.value(element, "port")?;
        let port = value.number().filter(|&port: &u16| port > 0);
        port.ok_or_else(|| self.incomplete(element, "port", Some(value.offset)))
    }

    fn path_match(&mut self) -> Result<Option<String>, Problem> {
        let regex = self.element("regexurl").and_then(|element| value::attribute(element, "regex", self.notes));
        if !regex.is_some_and(|regex| value::boolean(regex, "regex", self.notes)) {
            return Ok(None);
        }
        let text = self.text("regexurl", "match")?;
        let offset = self.element("regexurl").map_or(self.section.offset, |found| found.offset);
        match crate::filter::check(&text) {
            Ok(()) => Ok(Some(text)),
            Err(reason) => Err(Fault::PluginMatch { reason }.at(offset)),
        }
    }

    fn command(&mut self) -> Result<CommandPlugin, Problem> {
        let param = self.section.child("param");
        let offset = param.map(|param| param.offset);
        let prefix = param.and_then(|param| value::attribute(param, "prefix", self.notes));
        let prefix = prefix.filter(|prefix| !prefix.is_empty());
        let prefix = prefix.ok_or_else(|| self.incomplete("param", "prefix", offset))?;
        let prefix = self.words(prefix, "prefix")?;
        let suffix = match param.and_then(|param| value::attribute(param, "suffix", self.notes)) {
            Some(suffix) => self.words(suffix, "suffix")?,
            None => Vec::new(),
        };
        let ignore_error = param
            .and_then(|param| value::attribute(param, "ignoreError", self.notes))
            .is_some_and(|ignore_error| value::boolean(ignore_error, "ignoreError", self.notes));
        let filter = self.section.child("filter");
        let includes = match filter.filter(|filter| value::start(filter, false, self.notes)) {
            Some(filter) => Some(value::regexes(filter, "include", self.notes)),
            None => None,
        };
        Ok(CommandPlugin { prefix, suffix, ignore_error, includes })
    }

    fn words(&mut self, value: Value<'_>, attribute: &'static str) -> Result<Vec<OsString>, Problem> {
        let words = words::split(value.bytes)
            .map_err(|open| Fault::Unbalanced { attribute, quote: open.quote }.at(value.offset_of(open.offset)))?;
        if let Some(word) = words.iter().find(|word| is_operator(&word.text)) {
            let shown = self.notes.show(&word.text);
            self.notes.warn_of(
                Matter::Shell,
                value.offset_of(word.offset),
                format!("{attribute}: {shown} is for a shell, and none is run: it is an argument like any other"),
                Some("put what needs a shell into a script, and name that in prefix"),
            );
        }
        Ok(words.into_iter().map(|word| OsString::from_vec(word.text)).collect())
    }
}

/// Whether the word is one with which a shell joins or redirects commands.
fn is_operator(word: &[u8]) -> bool {
    let undirected = word.iter().position(|b| !b.is_ascii_digit()).map_or(&b""[..], |at| word.split_at(at).1);
    matches!(word, b"|" | b"||" | b"&" | b"&&" | b";")
        || word.ends_with(b";")
        || (matches!(undirected.first(), Some(b'<' | b'>')) && !word.iter().any(u8::is_ascii_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The start announced that such a plugin is told of changes, right after the warning that it is not.
    #[test]
    fn a_plugin_that_watches_elsewhere_is_told_of_nothing() {
        for (watch, root, told) in [
            (None, "/a", true),
            (Some("/a/"), "/a", true),
            (Some("/a/b"), "/a", true),
            (Some("/a"), "/a/b", true),
            (Some("/ab"), "/a", false),
            (Some("/opt/tongbu"), "/a", false),
        ] {
            let socket = SocketPlugin { watch: watch.map(PathBuf::from), host: "h".to_owned(), port: 1 };
            assert_eq!(Plugin::Socket(socket).is_told_of(Path::new(root)), told, "{watch:?} {root}");
        }
    }

    #[test]
    fn what_only_a_shell_understands_is_seen() {
        for word in [">", ">>", "2>&1", ">/tmp/log", "<", "|", "||", "&&", "&", ";", "/x;"] {
            assert!(is_operator(word.as_bytes()), "{word}");
        }
        // Inside quotes the program that is run gives operators their meaning.
        for word in ["cd /x && ./y \"$0\" >> z", "", "2", "a>b", "--if=a|b", "> said she"] {
            assert!(!is_operator(word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let secret = |text: &str| Secret(text.to_owned());
        for (text, host, port, credentials, target) in [
            ("http://h", "h", 80, None, "/"),
            ("HTTP://h:8080/a/b?c=d#e", "h", 8080, None, "/a/b?c=d"),
            ("http://u:p%40w@h/", "h", 80, Some("u:p@w"), "/"),
            ("http://u@[::1]:81/x", "::1", 81, Some("u"), "/x"),
            ("http://[::1]?q", "::1", 80, None, "/?q"),
        ] {
            let expected =
                HttpUrl { host: host.to_owned(), port, credentials: credentials.map(secret), target: secret(target) };
            assert_eq!(HttpUrl::parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "h",
            "https://h/",
            "http://",
            "http:///x",
            "http://h:0/",
            "http://h:x/",
            "http://h/a b",
            "http://h/\r\nX: y",
            "http://é/",
            "http://u:p127.0.0.1:80/",
            "http://u:p<127.0.0.1/",
        ] {
            assert_eq!(HttpUrl::parse(text), None, "{text}");
        }
    }
}
