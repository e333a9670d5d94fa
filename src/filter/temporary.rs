//! Names of files that live for a moment only, and that editors, rsync, GLib and NFS leave beside the real ones.
//!
//! A real file that is skipped is a silent loss, while a temporary that is mirrored costs one useless transfer. So each
//! pattern is anchored and rather misses a temporary, and directories are never skipped.

use std::ffi::OsString;

use super::Kind;

const VIM_SWAP_ENDINGS: [&[u8]; 5] = [b".swp", b".swo", b".swn", b".swx", b".swpx"];
/// The number of characters that `mkstemp` replaces.
const RANDOM_BYTES: usize = 6;
const NFS_DIGITS_MIN: usize = 16;
const UPPER: &str = "[A-Z]";
const ANY: &str = "[A-Za-z0-9]";

/// Whether a file of this name is a temporary.
pub(super) fn is_temporary(name: &[u8], kind: Kind) -> bool {
    match name {
        _ if kind == Kind::Directory => false,
        [.., b'~'] | [b'.', b'#', ..] | [b'#', .., b'#'] => true,
        [b'.', rest @ ..] => is_vim_swap(rest) || is_rsync_partial(rest) || is_glib_save(rest) || is_nfs_orphan(rest),
        _ => false,
    }
}

/// sersync's own rule: dot-files, backup copies and vim's probe are skipped.
pub(super) fn is_legacy_hidden(name: &[u8], kind: Kind) -> bool {
    kind != Kind::Directory && (name == b"4913" || name.starts_with(b".") || name.ends_with(b"~"))
}

fn is_vim_swap(rest: &[u8]) -> bool {
    VIM_SWAP_ENDINGS.iter().any(|ending| rest.ends_with(ending))
}

/// `.NAME.XXXXXX`. The letters tell `.env.sample` and `.log.202401` from the names that mkstemp makes up: those all but
/// always have an upper-case letter after the first position, and hardly ever six of them.
fn is_rsync_partial(rest: &[u8]) -> bool {
    let Some((head, random)) = rest.split_last_chunk::<RANDOM_BYTES>() else { return false };
    let [_, .., b'.'] = head else { return false };
    random.iter().all(u8::is_ascii_alphanumeric)
        && random.iter().skip(1).any(u8::is_ascii_uppercase)
        && !random.iter().all(u8::is_ascii_uppercase)
}

fn is_glib_save(rest: &[u8]) -> bool {
    rest.strip_prefix(b"goutputstream-").is_some_and(|random| random.len() == RANDOM_BYTES)
}

fn is_nfs_orphan(rest: &[u8]) -> bool {
    rest.strip_prefix(b"nfs")
        .is_some_and(|digits| digits.len() >= NFS_DIGITS_MIN && digits.iter().all(u8::is_ascii_hexdigit))
}

/// The same as [`is_temporary`] and [`is_legacy_hidden`], in rsync's language. The first rule that matches decides, so a
/// rule that keeps a name stands before the rule under which the name would fall.
pub(super) fn rsync_rules(legacy_hidden: bool) -> Vec<OsString> {
    let mut rules = Rules(Vec::new());
    rules.skip("*~");
    rules.skip("#*#");
    if legacy_hidden {
        rules.skip(".*");
        rules.skip("4913");
        return rules.0;
    }
    rules.skip(".#*");
    for ending in ["swp", "swo", "swn", "swx", "swpx"] {
        rules.skip(&format!(".*.{ending}"));
    }
    rules.skip(&format!(".goutputstream-{}", "?".repeat(RANDOM_BYTES)));

    rules.keep(&real_names());
    for pattern in rsync_partials() {
        rules.skip(&pattern);
    }

    let digits = "[0-9A-Fa-f]".repeat(NFS_DIGITS_MIN);
    rules.keep(".nfs*[!0-9A-Fa-f]*");
    rules.skip(&format!(".nfs{digits}*"));
    rules.0
}

/// Whether a killed receiver leaves files of this name.
pub(super) fn is_leftover(name: &[u8]) -> bool {
    matches!(name, [b'.', rest @ ..] if is_rsync_partial(rest))
}

/// Rules in rsync's language that keep all directories, the files that [`is_leftover`] names, and nothing else.
pub(super) fn leftover_rules() -> Vec<OsString> {
    let mut rules = vec!["+ */".to_owned(), format!("- {}", real_names())];
    rules.extend(rsync_partials().map(|pattern| format!("+ {pattern}")));
    rules.push("- *".to_owned());
    rules.into_iter().map(OsString::from).collect()
}

/// Names that [`rsync_partials`] would cover and that mkstemp hardly ever makes up.
fn real_names() -> String {
    format!(".?*.{}", UPPER.repeat(RANDOM_BYTES))
}

/// The patterns of `.NAME.XXXXXX`, behind [`real_names`].
fn rsync_partials() -> impl Iterator<Item = String> {
    (1..RANDOM_BYTES).map(|position| {
        let random: String = (0..RANDOM_BYTES).map(|at| if at == position { UPPER } else { ANY }).collect();
        format!(".?*.{random}")
    })
}

struct Rules(Vec<OsString>);

impl Rules {
    fn keep(&mut self, pattern: &str) {
        self.0.push(format!("+ {pattern}").into());
    }

    /// Skips files that match, and no directories. The rule is perishable (`p`): a temporary on the target does not keep
    /// a directory alive that is gone from the source.
    fn skip(&mut self, pattern: &str) {
        self.keep(&format!("{pattern}/"));
        self.0.push(format!("-p {pattern}").into());
    }
}
