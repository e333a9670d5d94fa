//! The faults that make a configuration unusable: each with its place, and with the text to write instead.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::filter::FilterError;
use crate::model::{HostError, Refused, Why};
use crate::schedule::ScheduleError;

/// Why there is no configuration. The command line then ends with exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", .file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is larger than {limit_bytes} bytes", .file.display())]
    TooLarge { file: PathBuf, limit_bytes: u64 },
    /// Line and column count from 1, columns in characters of the file's encoding.
    #[error("{}:{line}:{column}: {fault}{}", .file.display(), Others(others))]
    At {
        file: PathBuf,
        line: u32,
        column: u32,
        fault: Fault,
        /// Further faults, with line and column.
        others: Vec<(u32, u32, Fault)>,
    },
}

impl ConfigError {
    /// Whether the file is not XML, even as leniently as sersync reads it.
    pub fn is_syntax(&self) -> bool {
        matches!(self, Self::At { fault, .. } if fault.is_syntax())
    }

    /// The way out of the fault, in one line.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("name the configuration with -o FILE".into()),
            Self::TooLarge { .. } => Some("is this the right file?".into()),
            Self::At { fault, .. } => fault.hint(),
        }
    }
}

/// The faults after the first.
struct Others<'f>(&'f [(u32, u32, Fault)]);

impl fmt::Display for Others<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(line, column, fault)| write!(f, "; {line}:{column}: {fault}"))
    }
}

/// A fault at an offset of the file.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) offset: usize,
    pub(super) fault: Fault,
    /// Further faults with their offsets, in the order of the file.
    pub(super) others: Vec<(usize, Fault)>,
}

impl Fault {
    pub(super) fn at(self, offset: usize) -> Problem {
        Problem { offset, fault: self, others: Vec::new() }
    }
}

/// The fault at one place of the file. Names and values are as in the file, made printable.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    // Not well-formed.
    #[error("the file is empty")]
    Empty,
    #[error("the file is UTF-16")]
    Utf16,
    #[error("a NUL byte")]
    Nul,
    #[error("text before <?xml ...?>: {text}")]
    TextBeforeHead { text: String },
    #[error("no <head>{around}")]
    NoHead { around: String },
    #[error("<{name}> is not closed")]
    NotClosed { name: String },
    #[error("</{found}> where </{expected}> is expected, for the <{expected}> of line {opened_line}")]
    EndTag { expected: String, found: String, opened_line: u32 },
    #[error("</{found}> closes nothing")]
    StrayEndTag { found: String },
    #[error("the tag <{name}> has no >")]
    TagNotClosed { name: String },
    #[error("a comment inside the tag <{name}>")]
    CommentInTag { name: String },
    #[error("a < that begins no tag")]
    StrayLess,
    #[error("an attribute of <{element}> cannot be made out at {text}")]
    Attribute { element: String, text: String },
    #[error("a comment without -->")]
    CommentNotClosed,
    #[error("{reason}")]
    Markup { reason: Box<quick_xml::Error> },
    #[error("elements nest deeper than {limit}")]
    TooDeep { limit: usize },
    #[error("<{element}> has more than {limit} attributes")]
    TooManyAttributes { element: String, limit: usize },

    // Well-formed, but useless.
    #[error("nothing to watch: no <localpath>")]
    NoLocalPath,
    #[error("nothing to watch: <{given}> is no <localpath>")]
    NotLocalPath { given: String },
    #[error("nothing to watch: <localpath watch=\"{watch}\"> stands outside of <sersync>")]
    LocalPathElsewhere { watch: String },
    #[error("<localpath> has no watch directory")]
    NoWatch,
    #[error("watch {given} is not an absolute path")]
    RelativeWatch { given: String },
    #[error("<localpath> has no <remote>")]
    NoRemote,
    #[error("<remote> has no {attribute}")]
    RemoteIncomplete { attribute: &'static str },
    #[error("{given} is no host name{}", password_in(.why))]
    Host { given: String, why: HostError },
    #[error("{given} is no module of an rsync daemon")]
    Module { given: String },
    #[error("{attribute}: {quote} is not closed")]
    Unbalanced { attribute: &'static str, quote: &'static str },
    #[error("params: {0}")]
    Params(Refused),
    #[error("schedule: {reason}")]
    Schedule { reason: ScheduleError },
    #[error("filter: {reason}")]
    Filter { reason: FilterError },
    #[error("{attribute}: {given} has no unit")]
    NoUnit { attribute: &'static str, given: String, example: &'static str },
    #[error("others can reach {address}, and there is no tokenFile")]
    OpenEndpoint { address: SocketAddr },
    #[error("<control> has a tokenFile and no listen")]
    TokenAlone,
    #[error("{attribute}: {given} is no {expected}")]
    Value { attribute: &'static str, given: String, expected: &'static str },
    #[error("{given} is no plugin")]
    UnknownPlugin { given: String },
    #[error("no complete <plugin name=\"{name}\">, which <sersync> asks for")]
    NoPluginSection { name: &'static str },
    #[error("plugin {plugin}: <{element}> has no usable {attribute}")]
    PluginIncomplete { plugin: &'static str, element: &'static str, attribute: &'static str },
    #[error("plugin refreshCDN: match cannot be used: {reason}")]
    PluginMatch { reason: FilterError },
    // The message leaves out the URL, which may contain a password.
    #[error("plugin http: url is no http:// address")]
    PluginUrl,
}

impl Fault {
    fn is_syntax(&self) -> bool {
        match self {
            Self::Empty
            | Self::Utf16
            | Self::Nul
            | Self::TextBeforeHead { .. }
            | Self::NoHead { .. }
            | Self::NotClosed { .. }
            | Self::EndTag { .. }
            | Self::StrayEndTag { .. }
            | Self::TagNotClosed { .. }
            | Self::CommentInTag { .. }
            | Self::StrayLess
            | Self::Attribute { .. }
            | Self::CommentNotClosed
            | Self::Markup { .. }
            | Self::TooDeep { .. }
            | Self::TooManyAttributes { .. } => true,
            Self::NoLocalPath
            | Self::NotLocalPath { .. }
            | Self::LocalPathElsewhere { .. }
            | Self::NoWatch
            | Self::RelativeWatch { .. }
            | Self::NoRemote
            | Self::RemoteIncomplete { .. }
            | Self::Host { .. }
            | Self::Module { .. }
            | Self::Unbalanced { .. }
            | Self::Params(..)
            | Self::Schedule { .. }
            | Self::Filter { .. }
            | Self::NoUnit { .. }
            | Self::OpenEndpoint { .. }
            | Self::TokenAlone
            | Self::Value { .. }
            | Self::UnknownPlugin { .. }
            | Self::NoPluginSection { .. }
            | Self::PluginIncomplete { .. }
            | Self::PluginMatch { .. }
            | Self::PluginUrl => false,
        }
    }

    /// The text to write instead, in one line.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoHead { around } if !around.is_empty() => {
                "write <head version=\"2.5\"> before it and </head> at the end; <localpath> belongs into <sersync> in it".into()
            }
            Self::Empty | Self::NoHead { .. } => "the file starts with <head version=\"2.5\"> and ends with </head>".into(),
            Self::Utf16 | Self::Nul => "save the file as UTF-8".into(),
            Self::TextBeforeHead { .. } => "delete it, or make it a comment: <!-- ... -->".into(),
            Self::NotClosed { name } => format!("add </{name}>, or end the tag with />"),
            Self::EndTag { expected, .. } => format!("write </{expected}> here, or before this line"),
            Self::StrayEndTag { .. } => "delete it".into(),
            Self::TagNotClosed { .. } => "end the tag with > or />; a quote may be missing too".into(),
            Self::CommentInTag { .. } => "put the comment before or behind the tag".into(),
            Self::StrayLess => "write &lt; in text".into(),
            Self::Attribute { .. } => "write name=\"value\"; a quote may be missing".into(),
            Self::CommentNotClosed => "end the comment with -->".into(),
            Self::Markup { .. } | Self::TooDeep { .. } | Self::TooManyAttributes { .. } => return None,
            Self::LocalPathElsewhere { .. } => {
                "put it, with <rsync>, <failLog> and <crontab>, into <sersync>...</sersync>".into()
            }
            Self::NotLocalPath { .. } => "did you mean localpath?".into(),
            Self::NoLocalPath | Self::NoWatch => "<sersync><localpath watch=\"/data/www\">...</localpath>".into(),
            Self::RelativeWatch { given } if given.starts_with(['~', '$']) => {
                "no shell ever sees it: write the path in full".into()
            }
            Self::RelativeWatch { given } => format!("begin with a slash: /{given}"),
            Self::NoRemote | Self::RemoteIncomplete { .. } => {
                "<remote ip=\"192.0.2.7\" name=\"www\"/>, where www is a module of the rsync daemon there".into()
            }
            Self::Host { why: HostError::Password, .. } => {
                "the password goes into a file of mode 600: <auth start=\"true\" users=\"…\" passwordfile=\"…\"/>"
                    .into()
            }
            Self::Host { given, .. } if given.contains('/') => {
                "ip is a name or address alone; what comes behind it goes into name".into()
            }
            Self::Host { given, .. } if given.contains(':') => {
                "ip is a name or address alone; a port goes into <userDefinedPort start=\"true\" port=\"…\"/>".into()
            }
            Self::Host { .. } => "ip is a name or address, with user@ before it if need be".into(),
            Self::Module { .. } => {
                "name a module of rsyncd.conf; for a path use <ssh start=\"true\"/> with keys instead of a password"
                    .into()
            }
            Self::Unbalanced { quote, .. } => format!("add another {quote}, or write \\{quote} for the character"),
            Self::Params(refused) => match (refused.why, refused.dashed()) {
                (_, Some(dashed)) => format!("options begin with plain hyphens: {dashed}"),
                (Why::NotAnOption, None) => "join a value to its option: --exclude='*.log'; no redirections".into(),
                (Why::NoValue, None) => format!("write {}=VALUE", refused.option),
                (Why::NoPort | Why::Unusable(_), None) => "leave it out".into(),
            },
            Self::Schedule { reason: ScheduleError::Timezone { .. } } => "write Europe/Berlin, or leave it out".into(),
            Self::Schedule { .. } => "write minutes (600), five cron fields (0 3 * * *), or @daily".into(),
            Self::Filter { .. } => "exclude whole directories instead of many single names".into(),
            Self::NoUnit { example, given, .. } => format!("add one, such as {given}{example}"),
            Self::OpenEndpoint { .. } => {
                "add tokenFile=\"/etc/syncq/token\", or listen on 127.0.0.1 and use a tunnel (ssh -L)".into()
            }
            Self::TokenAlone => "add listen=\"7878\"".into(),
            Self::Value { .. } => return None,
            Self::UnknownPlugin { .. } => "one of command, socket, refreshCDN, http".into(),
            Self::NoPluginSection { name } => format!("add <plugin name=\"{name}\"> to <head>"),
            Self::PluginMatch { .. } => "correct it; a regular expression as Perl has it".into(),
            Self::PluginUrl => "write http://host:port/path; https is not supported".into(),
            Self::PluginIncomplete { element, attribute, .. } => format!("<{element} {attribute}=\"...\"/>"),
        })
    }
}

fn password_in(why: &HostError) -> &'static str {
    if *why == HostError::Password { ": there is a password in it" } else { "" }
}
