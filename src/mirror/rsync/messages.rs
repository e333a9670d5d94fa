//! Reads one line of rsync's standard error: its subject, its speaker, its system error, and the name in it. Pure.
//!
//! rsync has no codes for single paths, only sentences, and a name in a sentence may hold anything that a sentence holds.
//! So a sentence is taken apart from both ends: a table knows how it begins and how it ends, and everything between is the
//! name. Where more than one name is possible, all are returned, and the caller compares them with the listed paths.
//!
//! A sentence that is in no table is [`About::Unknown`]: never taken for success. Deliberately absent: the meaning of a
//! line for a run (`outcome`), and the lines that a target prints in every run (`noise`).

use memchr::memmem::{find, rfind};
use memchr::{memchr, memrchr};

use super::itemize::{skips_deletions, unescape};

/// The subject of a message, as far as it decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A path failed.
    Failure,
    /// Only the attributes of a path failed; what lies below it did not.
    Attributes,
    /// A path had vanished when rsync came to it.
    Vanished,
    /// The server's own configuration keeps the server from taking a path, and from touching what it has there.
    Refused,
    /// rsync makes no more deletions in this run.
    DeletionsSkipped,
    /// `--max-delete` was reached.
    DeletionsLimited,
    /// No event of its own: a summary, a consequence of another line, a notice that rsync used another way.
    Noise,
    /// A sentence in no table.
    Unknown,
}

/// How much a failure leaves undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The path alone.
    Alone,
    /// The path and everything below it: a directory that was not made or not read, or about which nothing is known.
    Below,
}

/// Whether a name may be that of rsync's temporary file instead of the path's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    Never,
    Perhaps,
    Always,
}

/// Where in a sentence the name stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Between the first quote and the last.
    Quoted,
    /// From behind the beginning up to the end.
    Rest,
    /// From behind the beginning up to the last of these words.
    Until(&'static str),
    /// From behind the first of these words up to the end.
    Behind(&'static str),
    /// `"temporary file" -> "name"`.
    Renamed,
    /// A quoted name, these words, and the path that a link leads to, which is no path of the mirror.
    Leads(&'static str),
    Nowhere,
}

/// A known sentence.
#[derive(Debug, Clone, Copy)]
struct Form {
    begins: &'static str,
    ends: &'static str,
    about: About,
    extent: Extent,
    place: Place,
    mask: Mask,
    /// Only the side that reads the source prints this sentence.
    ours: bool,
}

const fn form(begins: &'static str, about: About, extent: Extent, place: Place, mask: Mask) -> Form {
    Form { begins, ends: "", about, extent, place, mask, ours: false }
}

const fn ours(begins: &'static str, about: About, extent: Extent, place: Place) -> Form {
    Form { begins, ends: "", about, extent, place, mask: Mask::Never, ours: true }
}

const fn noise(begins: &'static str, ends: &'static str) -> Form {
    let nothing = form(begins, About::Noise, Extent::Alone, Place::Nowhere, Mask::Never);
    Form { ends, ..nothing }
}

use About::{Attributes, Failure, Refused, Vanished};
use Extent::{Alone, Below};
use Mask::{Always, Never, Perhaps};
use Place::{Behind, Leads, Nowhere, Quoted, Renamed, Rest, Until};

/// Sentences followed by a system error. The first form that fits both beginning and end decides.
const WITH_ERROR: &[Form] = &[
    noise("read error", ""),
    // The basis file cannot be opened for comparison, so all of the new content is sent.
    noise("failed to open ", ", continuing"),
    noise("do_fallocate ", ""),
    form("failed to set times on ", Attributes, Alone, Quoted, Perhaps),
    form("failed to set permissions on ", Attributes, Alone, Quoted, Perhaps),
    form("failed to modify permissions on ", Attributes, Alone, Quoted, Perhaps),
    form("chown ", Attributes, Alone, Quoted, Perhaps),
    form("chgrp ", Attributes, Alone, Quoted, Perhaps),
    form("rsync_xal_set: ", Attributes, Alone, Leads(","), Perhaps),
    form("set_xattr_acl: ", Attributes, Alone, Leads(","), Perhaps),
    form("set_acl: sys_acl_set_file(", Attributes, Alone, Until(", "), Perhaps),
    form("set_acl: sys_acl_set_fd_type(", Attributes, Alone, Until(", "), Perhaps),
    form("set_acl: acl_set_file_at(", Attributes, Alone, Until(", "), Perhaps),
    form("set_acl: xacl_set(", Attributes, Alone, Until(", "), Perhaps),
    form("set_acl: sys_acl_delete_def_file(", Attributes, Alone, Until(")"), Perhaps),
    form("mkstemp ", Failure, Alone, Quoted, Always),
    form("rename failed for ", Failure, Alone, Quoted, Perhaps),
    form("rename ", Failure, Alone, Renamed, Perhaps),
    form("copy ", Failure, Alone, Renamed, Perhaps),
    form("symlink ", Failure, Alone, Leads(" -> "), Perhaps),
    form("link ", Failure, Alone, Leads(" => "), Perhaps),
    form("delete_file: unlink(", Failure, Alone, Until(") failed"), Never),
    form("delete_file: rmdir(", Failure, Alone, Until(") failed"), Never),
    form("delete_file: make_backup(", Failure, Alone, Until(") failed"), Never),
    form("write failed on ", Failure, Alone, Quoted, Perhaps),
    form("ftruncate failed on ", Failure, Alone, Quoted, Perhaps),
    form("fsync failed on ", Failure, Alone, Quoted, Perhaps),
    form("close failed on ", Failure, Alone, Quoted, Perhaps),
    form("mknod ", Failure, Alone, Quoted, Perhaps),
    form("open ", Failure, Alone, Quoted, Perhaps),
    form("unlink ", Failure, Alone, Quoted, Never),
    ours("send_files failed to open ", Failure, Alone, Quoted),
    ours("read errors mapping ", Failure, Alone, Quoted),
    ours("opendir ", Failure, Below, Quoted),
    ours("readdir(", Failure, Below, Quoted),
    ours("link_stat ", Failure, Below, Quoted),
    ours("readlink_stat(", Failure, Below, Quoted),
    form("recv_generator: mkdir ", Failure, Below, Quoted, Never),
    form("", Failure, Below, Quoted, Perhaps),
];

const NAME_IS_LACKING: &str = "cannot convert filename: ";

/// Sentences without a system error. A sentence in neither table is `Unknown`.
const WITHOUT_ERROR: &[Form] = &[
    noise("rsync error: ", ""),
    noise("rsync warning: ", ""),
    // The line before has named the directory.
    noise("*** Skipping any contents from this failed directory ***", ""),
    noise("WARNING: ", " (will try again)."),
    noise("WARNING: file is too large for checksum sending: ", ""),
    noise("renaming ", " because of text busy"),
    noise("default_perms_for_dir: ", ", falling back on umask"),
    noise("--link-dest arg does not exist: ", ""),
    noise("--link-dest arg is not a dir: ", ""),
    // Messages of ssh.
    noise("Warning: Permanently added ", ""),
    noise("** ", ""),
    noise("ControlSocket ", " disabling multiplexing"),
    noise("Shared connection to ", " closed."),
    form("Deletions stopped due to --max-delete", About::DeletionsLimited, Alone, Nowhere, Never),
    ours("file has vanished: ", Vanished, Below, Quoted),
    ours("directory has vanished: ", Vanished, Below, Quoted),
    form("WARNING: parent dir is absent in the file list: ", Vanished, Below, Rest, Never),
    Form { ends: "\"", ..form("ERROR: daemon refused to receive ", Refused, Below, Quoted, Never) },
    form("could not make way for new directory: ", Failure, Below, Rest, Never),
    form("could not make way for ", Failure, Alone, Behind(": "), Never),
    form("cannot delete non-empty directory: ", Failure, Alone, Rest, Never),
    form("ERROR: ", Failure, Alone, Until(" failed verification -- update "), Perhaps),
    form("Unable to create partial-dir for ", Failure, Alone, Until(" -- discarding "), Perhaps),
    form("temporary filename too long: ", Failure, Alone, Rest, Never),
    form("recv_files: ", Failure, Alone, Quoted, Never),
    ours("symlink has no referent: ", Failure, Below, Quoted),
    ours("cannot send file with empty name in ", Failure, Below, Quoted),
    ours("skipped diminished file: ", Failure, Alone, Quoted),
    ours("skipping symlink with 0-length value: ", Failure, Alone, Quoted),
    ours("skipping overly long name: ", Failure, Below, Rest),
    ours("path too long: ", Failure, Alone, Rest),
    ours("filename overflows max-path len by ", Failure, Below, Behind(": ")),
    form(NAME_IS_LACKING, Failure, Below, Until(" ("), Never),
    form("cannot convert symlink data for: \"", Failure, Alone, Until("\" ("), Never),
    form("skipping socket (creation unsupported here): ", Failure, Alone, Quoted, Never),
    form("Time value of ", Attributes, Alone, Until(" truncated on receiver."), Never),
    form("Create time value of ", Attributes, Alone, Until(" truncated on receiver."), Never),
    form("Access time value of ", Attributes, Alone, Until(" truncated on receiver."), Never),
    form("uid 4294967295 (-1) is impossible to set on ", Attributes, Alone, Quoted, Never),
    form("gid 4294967295 (-1) is impossible to set on ", Attributes, Alone, Quoted, Never),
];

const UNKNOWN: Form = form("", About::Unknown, Below, Quoted, Perhaps);

/// The names that a line may be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Decoded, the likeliest first.
    pub names: Vec<Vec<u8>>,
    /// Whether the sentence allows only one name.
    pub sure: bool,
    pub mask: Mask,
}

/// One line of rsync's standard error.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    bytes: &'a [u8],
    /// The line without the speaker's name in front and the system error behind.
    body: &'a [u8],
    speaker: &'a [u8],
    form: Form,
    pub about: About,
    /// The system error's number, from the parentheses at the end.
    pub errno: Option<i32>,
}

impl<'a> Line<'a> {
    pub fn read(bytes: &'a [u8]) -> Self {
        let from_rsync = bytes.strip_prefix(b"rsync: ");
        let rest = from_rsync.unwrap_or(bytes);
        let (speaker, rest) = spoken(rest).unwrap_or((b"", rest));
        let error = from_rsync.and_then(|_| with_error(rest));
        let (body, errno) = error.map_or((rest, None), |(body, errno)| (body, Some(errno)));
        let forms = if errno.is_some() { WITH_ERROR } else { WITHOUT_ERROR };
        let is_form = |form: &&Form| {
            body.starts_with(form.begins.as_bytes())
                && body.ends_with(form.ends.as_bytes())
                && !matches!(form.place, Until(words) if find(body, words.as_bytes()).is_none())
        };
        let form = forms.iter().find(is_form).copied().unwrap_or(UNKNOWN);
        let about = if skips_deletions(bytes) { About::DeletionsSkipped } else { form.about };
        Self { bytes, body, speaker, form, about, errno }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The message without the speaker's name.
    pub fn text(&self) -> String {
        let text = self.bytes.strip_prefix(b"rsync: ").unwrap_or(self.bytes);
        String::from_utf8_lossy(spoken(text).map_or(text, |(_, text)| text)).into_owned()
    }

    /// Whether the sending side, which is ours, says it: the sender reads the source, everybody else the target.
    pub fn is_senders(&self) -> bool {
        self.speaker == b"sender" || (self.speaker.is_empty() && self.form.ours)
    }

    /// Whether the failure is that the other side's character set lacks the name.
    pub fn is_about_a_name(&self) -> bool {
        self.form.begins == NAME_IS_LACKING
    }

    /// How much the failure leaves undone.
    pub fn extent(&self) -> Extent {
        self.form.extent
    }

    /// The line without the text between its first and last quote. The words left are rsync's own, whatever the names are.
    pub fn own_words(&self) -> Vec<u8> {
        let quotes = (memchr(b'"', self.bytes), memrchr(b'"', self.bytes));
        let (Some(first), Some(last)) = quotes else { return self.bytes.to_vec() };
        [self.bytes.get(..=first).unwrap_or_default(), self.bytes.get(last..).unwrap_or_default()].concat()
    }

    /// All names that the line may be about.
    pub fn names(&self) -> Names {
        let rest = self.body.get(self.form.begins.len()..).unwrap_or_default();
        let (found, sure): (Vec<&[u8]>, bool) = match self.form.place {
            Nowhere => (Vec::new(), true),
            Rest => (vec![rest], true),
            Until(words) => (rfind(rest, words.as_bytes()).and_then(|end| rest.get(..end)).into_iter().collect(), true),
            Behind(words) => {
                let begin = find(rest, words.as_bytes()).map(|at| at + words.len());
                (begin.and_then(|begin| rest.get(begin..)).into_iter().collect(), true)
            }
            Renamed => renamed(self.body),
            Leads(words) => leading(self.body, words.as_bytes()),
            Quoted if self.about == About::Unknown => (anything(self.body), false),
            Quoted => quoted(self.body),
        };
        Names { names: found.into_iter().map(unescape).collect(), sure, mask: self.form.mask }
    }
}

/// The lines of a captured standard error, without blank ones.
pub fn lines(stderr: &[u8]) -> impl Iterator<Item = Line<'_>> {
    stderr.split(|&b| b == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty()).map(Line::read)
}

/// Splits `[sender] sentence`.
fn spoken(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = text.strip_prefix(b"[")?;
    let end = find(rest, b"] ")?;
    let (speaker, sentence) = (rest.get(..end)?, rest.get(end + 2..)?);
    speaker.iter().all(u8::is_ascii_alphabetic).then_some((speaker, sentence))
}

/// Splits `sentence: Permission denied (13)`.
fn with_error(text: &[u8]) -> Option<(&[u8], i32)> {
    let inner = text.strip_suffix(b")")?;
    let open = rfind(inner, b" (")?;
    let errno = str::from_utf8(inner.get(open + 2..)?).ok()?.parse().ok()?;
    let sentence = inner.get(..open)?;
    Some((sentence.get(..rfind(sentence, b": ")?)?, errno))
}

/// The name between the first quote and the last. If the sentence ends in another way, all names up to any later quote.
fn quoted(body: &[u8]) -> (Vec<&[u8]>, bool) {
    let Some(inner) = memchr(b'"', body).and_then(|open| body.get(open + 1..)) else { return (Vec::new(), false) };
    let end = inner.strip_suffix(b" failed").or_else(|| inner.strip_suffix(b" is a directory")).unwrap_or(inner);
    let end =
        end.strip_suffix(b")").and_then(|end| rfind(end, b"\" (in ").and_then(|at| end.get(..=at))).unwrap_or(end);
    // The sentence may end like `readdir("name")`.
    let end = end.strip_suffix(b")").filter(|end| end.ends_with(b"\"")).unwrap_or(end);
    if let Some(name) = end.strip_suffix(b"\"") {
        return (vec![name], true);
    }
    let ends = inner.iter().enumerate().rev().filter(|&(_, &b)| b == b'"').map(|(at, _)| at);
    (ends.filter_map(|end| inner.get(..end)).collect(), false)
}

/// The name in `rename "temporary" (in module) -> "name"`. The temporary file's name holds as many arrows as the other,
/// so the one between them is the middle one.
fn renamed(body: &[u8]) -> (Vec<&[u8]>, bool) {
    const ARROW: &[u8] = b" -> \"";
    let arrows: Vec<usize> = positions(body, ARROW).collect();
    let behind = |at: usize| body.get(at + ARROW.len()..);
    match arrows.get(arrows.len() / 2).filter(|_| arrows.len() % 2 == 1) {
        Some(&middle) => {
            let temporary = body.get(..middle).unwrap_or_default();
            let names = behind(middle).into_iter().flat_map(second);
            let is_its = |name: &&[u8]| {
                let last = name.rsplit(|&b| b == b'/').next().unwrap_or_default();
                !last.is_empty() && find(temporary, &[b".", last, b"."].concat()).is_some()
            };
            let names: Vec<&[u8]> = names.filter(is_its).collect();
            let sure = names.len() == 1;
            (names, sure)
        }
        None => (arrows.iter().filter_map(|&at| behind(at)).flat_map(second).collect(), false),
    }
}

/// The second name of a sentence. Some versions put it into a second pair of quotes, with the module.
fn second(rest: &[u8]) -> Vec<&[u8]> {
    let rest = rest.strip_suffix(b" failed").unwrap_or(rest);
    let single = rest.strip_suffix(b"\"").unwrap_or(rest);
    let doubled = single.strip_prefix(b"\"").and_then(|inner| {
        let within = inner.strip_suffix(b")").and_then(|inner| inner.get(..=rfind(inner, b"\" (in ")?));
        within.unwrap_or(inner).strip_suffix(b"\"")
    });
    doubled.into_iter().chain([single]).collect()
}

/// The name in `symlink "name" (in module) -> "target"`.
fn leading<'a>(body: &'a [u8], words: &[u8]) -> (Vec<&'a [u8]>, bool) {
    let Some(inner) = memchr(b'"', body).and_then(|open| body.get(open + 1..)) else { return (Vec::new(), false) };
    let before = |at: usize| {
        let name = inner.get(..at)?;
        let within = name.strip_suffix(b")").and_then(|name| name.get(..=rfind(name, b"\" (in ")?));
        within.unwrap_or(name).strip_suffix(b"\"")
    };
    let mut names: Vec<&[u8]> = positions(inner, words).filter_map(before).collect();
    // The longest first.
    names.reverse();
    let sure = names.len() == 1;
    (names, sure)
}

/// All texts in an unknown sentence that may be a name: up to and from any quote, and from any word to the end.
fn anything(body: &[u8]) -> Vec<&[u8]> {
    const NAMES_MAX: usize = 64;
    let (quoted, _) = quoted(body);
    let ends: Vec<&[u8]> = positions(body, b" ").filter_map(|at| body.get(at + 1..)).collect();
    let trimmed = |name: &'_ [u8]| -> Option<usize> { rfind(name, b" (").filter(|_| name.ends_with(b")")) };
    let cut = ends.iter().filter_map(|name| name.get(..trimmed(name)?));
    let plain = ends.iter().map(|name| name.strip_suffix(b".").unwrap_or(name));
    quoted.into_iter().chain(ends.iter().copied()).chain(cut).chain(plain).take(NAMES_MAX).collect()
}

/// All positions of the needle, overlapping ones included (`x -> -> y`); `memmem::find_iter` finds only the first of those.
fn positions<'a>(haystack: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    haystack.windows(needle.len()).enumerate().filter(move |(_, window)| *window == needle).map(|(at, _)| at)
}

#[cfg(test)]
mod tests;
