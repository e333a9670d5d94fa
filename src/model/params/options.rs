//! What is known of rsync's options: one row each, with the effect on a mirror.
//!
//! A new option of rsync's belongs here. The question to ask is whether live changes may still go by name with it.

use self::Effect::{Lossy, Same, Selects, Unusable};

/// The effect of an option on a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The same for paths that are sent by name and for paths that rsync finds by itself.
    Same,
    /// Only rsync knows what it finds, follows or spares with the option: live changes go as comparisons of what has
    /// changed.
    Selects,
    /// The option works, and leaves the mirror out of step: the text says how.
    Lossy(&'static str),
    /// No run could do its work, or a target's content would depend on the order of changes: the text says why.
    Unusable(&'static str),
}

/// One option of rsync's.
#[derive(Debug)]
pub struct Known {
    /// The name without the dashes; the letter itself for an option that has no other name.
    pub name: &'static str,
    pub letter: Option<u8>,
    /// Whether a value follows, in the same word or as the next one.
    pub takes_value: bool,
    pub effect: Effect,
    /// Whether the option means the same in a run that is rooted in another directory, and lets no file be written in
    /// place.
    pub is_same_elsewhere: bool,
}

const fn row(name: &'static str, letter: u8, takes_value: bool, effect: Effect, is_same_elsewhere: bool) -> Known {
    let letter = if letter == 0 { None } else { Some(letter) };
    Known { name, letter, takes_value, effect, is_same_elsewhere }
}

/// A switch.
const fn switch(name: &'static str, letter: u8, effect: Effect) -> Known {
    row(name, letter, false, effect, false)
}

/// An option with a value.
const fn value(name: &'static str, letter: u8, effect: Effect) -> Known {
    row(name, letter, true, effect, false)
}

/// A switch that means the same everywhere.
const fn everywhere(name: &'static str, letter: u8) -> Known {
    row(name, letter, false, Same, true)
}

/// An option with a value that means the same everywhere.
const fn value_everywhere(name: &'static str, letter: u8) -> Known {
    row(name, letter, true, Same, true)
}

const NOTHING_SENT: Effect = Unusable("rsync would send nothing");
const OWN_LIST: Effect = Unusable("syncq gives rsync its own list of files");
const OTHER_JOB: Effect = Unusable("rsync would do something else");
const EMPTIES_SOURCE: Effect = Unusable("it empties the source");
const NEVER_NEW: Effect = Lossy("new files never reach the target");

/// All options of rsync 3.5, and the names that older ones had.
#[rustfmt::skip]
pub const KNOWN: &[Known] = &[
    // Attributes of files.
    everywhere("archive", b'a'), everywhere("links", b'l'), everywhere("perms", b'p'), everywhere("times", b't'),
    everywhere("group", b'g'), everywhere("owner", b'o'), everywhere("D", b'D'), everywhere("devices", 0),
    everywhere("specials", 0), everywhere("executability", b'E'), everywhere("acls", b'A'), everywhere("xattrs", b'X'),
    everywhere("atimes", b'U'), everywhere("crtimes", b'N'), everywhere("omit-dir-times", b'O'),
    everywhere("omit-link-times", b'J'), everywhere("numeric-ids", 0), everywhere("fake-super", 0),
    everywhere("sparse", b'S'), value_everywhere("chmod", 0), value_everywhere("chown", 0),
    value_everywhere("usermap", 0), value_everywhere("groupmap", 0),
    switch("hard-links", b'H', Same), switch("super", 0, Same), switch("drop-D", 0, Same),
    switch("munge-links", 0, Same), value("iconv", 0, Same),
    switch("copy-devices", 0, Same), switch("write-devices", 0, Same),
    // How files get to the target.
    everywhere("compress", b'z'), value_everywhere("compress-level", 0), value_everywhere("zl", 0),
    value_everywhere("compress-choice", 0), value_everywhere("zc", 0), value("compress-threads", 0, Same),
    value("zt", 0, Same), value("skip-compress", 0, Same), switch("old-compress", 0, Same),
    switch("new-compress", 0, Same), everywhere("whole-file", b'W'), value_everywhere("bwlimit", 0),
    value_everywhere("timeout", 0), value_everywhere("contimeout", 0), value_everywhere("sockopts", 0),
    value_everywhere("rsh", b'e'), value_everywhere("rsync-path", 0), value("address", 0, Same), value("port", 0, Same),
    everywhere("ipv4", b'4'), everywhere("ipv6", b'6'), value("protocol", 0, Same), value("password-file", 0, Same),
    value("early-input", 0, Same), value("remote-option", b'M', Same), switch("secluded-args", b's', Same),
    switch("protect-args", 0, Same), switch("old-args", 0, Same), switch("trust-sender", 0, Same),
    switch("blocking-io", 0, Same), value("copy-as", 0, Same), value("max-alloc", 0, Same), value("block-size", b'B', Same),
    value("checksum-choice", 0, Same), value("cc", 0, Same), value("checksum-seed", 0, Same), switch("checksum", b'c', Same),
    switch("ignore-times", b'I', Same), value("modify-window", b'@', Same), switch("fuzzy", b'y', Same),
    value("compare-dest", 0, Same), value("copy-dest", 0, Same), value("link-dest", 0, Same),
    switch("inplace", 0, Same), value("temp-dir", b'T', Same), switch("partial", 0, Same), value("partial-dir", 0, Same),
    switch("delay-updates", 0, Same), switch("preallocate", 0, Same), switch("fsync", 0, Same),
    switch("open-noatime", 0, Same), switch("insecure-links", 0, Same), value("confine-root", 0, Same),
    switch("update", b'u', Same).in_any_directory(),
    // The output of rsync.
    everywhere("verbose", b'v'), everywhere("quiet", b'q'), everywhere("human-readable", b'h'),
    everywhere("8-bit-output", b'8'), value("info", 0, Same), value("debug", 0, Same), value("stderr", 0, Same),
    switch("msgs2stderr", 0, Same), switch("motd", 0, Same), switch("stats", 0, Same), switch("progress", 0, Same),
    switch("P", b'P', Same), switch("itemize-changes", b'i', Same), value("out-format", 0, Same), value("log-format", 0, Same),
    value("log-file", 0, Same), value("log-file-format", 0, Same), value("outbuf", 0, Same),
    // Which paths are sent. The runs of syncq have these switches of their own as well.
    everywhere("recursive", b'r'), switch("inc-recursive", 0, Same), switch("i-r", 0, Same), switch("dirs", b'd', Same),
    switch("old-dirs", 0, Same), switch("old-d", 0, Same), switch("relative", b'R', Same), switch("mkpath", 0, Same),
    // Which paths are deleted. The runs of syncq have these switches of their own as well.
    everywhere("del", 0), everywhere("delete", 0), everywhere("delete-before", 0), everywhere("delete-during", 0),
    everywhere("delete-delay", 0), everywhere("delete-after", 0), switch("delete-missing-args", 0, Same),
    switch("ignore-errors", 0, Same), everywhere("force", 0), value_everywhere("max-delete", 0),
    // A file that is left out by its size is left out by name as well. A link that is left out is listed all the same.
    value("max-size", 0, Same), value("min-size", 0, Same), switch("safe-links", 0, Same),

    // Options on what rsync finds, follows or spares when it looks for itself. No list of names tells rsync that.
    value("exclude", 0, Selects), value("include", 0, Selects), value("filter", b'f', Selects), switch("F", b'F', Selects),
    value("exclude-from", 0, Selects), value("include-from", 0, Selects), switch("from0", b'0', Selects),
    switch("cvs-exclude", b'C', Selects), switch("one-file-system", b'x', Selects), switch("copy-links", b'L', Selects),
    switch("copy-dirlinks", b'k', Selects), switch("copy-unsafe-links", 0, Selects), switch("keep-dirlinks", b'K', Selects),
    switch("implied-dirs", 0, Same),
    // A backup keeps its directory alive, unless the rules spare the backup. Only a run that compares is told these
    // rules.
    switch("backup", b'b', Selects), value("backup-dir", 0, Selects), value("suffix", 0, Selects),

    switch("prune-empty-dirs", b'm', Unusable("a directory may be empty in one run and full in another; remove empty directories from the source")),
    switch("delete-excluded", 0, Unusable("it deletes what other runs are just receiving; delete what is excluded by hand, once")),

    switch("ignore-existing", 0, Lossy("files that the target has are never updated")),
    switch("existing", 0, NEVER_NEW), switch("ignore-non-existing", 0, NEVER_NEW),
    switch("append", 0, Lossy("changes within a file never reach the target")), switch("append-verify", 0, Same),
    switch("size-only", 0, Lossy("changes that keep a file's size may never reach the target")),
    value("stop-after", 0, Lossy("a run that takes longer never ends well")),
    value("time-limit", 0, Lossy("a run that takes longer never ends well")),
    value("stop-at", 0, Lossy("no run after that moment ends well")),

    switch("dry-run", b'n', NOTHING_SENT), switch("list-only", 0, NOTHING_SENT), value("only-write-batch", 0, NOTHING_SENT),
    value("files-from", 0, OWN_LIST),
    switch("ignore-missing-args", 0, Unusable("deletions would not reach the target")),
    switch("remove-source-files", 0, EMPTIES_SOURCE), switch("remove-sent-files", 0, EMPTIES_SOURCE),
    switch("daemon", 0, OTHER_JOB), switch("server", 0, OTHER_JOB), switch("sender", 0, OTHER_JOB),
    value("config", 0, OTHER_JOB), value("read-batch", 0, OTHER_JOB), switch("help", 0, OTHER_JOB),
    switch("version", b'V', OTHER_JOB), value("write-batch", 0, Unusable("each run would overwrite the batch of the one before")),
];

impl Known {
    const fn in_any_directory(self) -> Self {
        Self { is_same_elsewhere: true, ..self }
    }
}

/// The effect of an option that is switched off by `--no-NAME`.
pub fn effect_of_no(name: &str) -> Effect {
    match name {
        "relative" | "R" => Unusable("files would land at other places on the target"),
        _ => Same,
    }
}
