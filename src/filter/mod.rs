//! Decides which paths are mirrored: the user's expressions, and a short list of temporaries.
//!
//! Paths and expressions are bytes. An expression has to match the whole of one of the forms in which sersync shows a
//! path to it. An excluded path takes everything below along, so that a live event, a new directory and a whole-tree run
//! come to the same verdict.
//!
//! Pure: never looks at the file system.

mod dialect;
mod expression;
mod kind;
mod pattern;
mod temporary;

use std::ffi::OsString;

use crate::model::RelPath;

pub use dialect::FilterError;
pub use expression::{check, compile};
pub use kind::Kind;
pub use pattern::Pattern;

use expression::Expressions;

/// Why a path is not mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusion {
    /// The path's name is that of a temporary.
    Temporary,
    /// sersync's old rule excludes it.
    Hidden,
    /// The user's expression of this number excludes it.
    Expression(usize),
}

/// The verdict on paths of one root.
#[derive(Debug)]
pub struct Filter {
    expressions: Option<Expressions>,
    legacy_hidden: bool,
}

impl Filter {
    /// Compiles the expressions; each of them has passed [`check`].
    pub fn new(excludes: &[String], legacy_hidden: bool) -> Result<Self, FilterError> {
        let expressions = if excludes.is_empty() { None } else { Some(Expressions::new(excludes)?) };
        Ok(Self { expressions, legacy_hidden })
    }

    /// Whether the path, or an ancestor of it, is not mirrored. The root always is.
    pub fn excludes(&self, path: &RelPath, kind: Kind) -> bool {
        if path.is_root() {
            return false;
        }
        // Only the last name counts here: every ancestor is a directory, and directories are no temporaries.
        if temporary::is_temporary(path.name(), kind)
            || (self.legacy_hidden && temporary::is_legacy_hidden(path.name(), kind))
        {
            return true;
        }
        self.expressions.as_ref().is_some_and(|expressions| expressions.exclude(path, kind == Kind::Directory))
    }

    /// Whether the path stays on a target although its directory is gone from the source. A temporary does not: nobody
    /// would ever delete the files that a killed receiver has left in such a directory.
    pub fn spares(&self, path: &RelPath, kind: Kind) -> bool {
        !path.is_root()
            && self.expressions.as_ref().is_some_and(|expressions| expressions.exclude(path, kind == Kind::Directory))
    }

    /// The reason why [`excludes`](Self::excludes) says yes, if it does.
    pub fn exclusion(&self, path: &RelPath, kind: Kind) -> Option<Exclusion> {
        if path.is_root() {
            None
        } else if temporary::is_temporary(path.name(), kind) {
            Some(Exclusion::Temporary)
        } else if self.legacy_hidden && temporary::is_legacy_hidden(path.name(), kind) {
            Some(Exclusion::Hidden)
        } else {
            let number = self.expressions.as_ref()?.first_match(path, kind == Kind::Directory)?;
            Some(Exclusion::Expression(number))
        }
    }

    /// Whether the user gave expressions (which rsync's own rules cannot express).
    pub fn has_expressions(&self) -> bool {
        self.expressions.is_some()
    }

    /// The names that are skipped, apart from the user's expressions, as values for rsync's `--filter=`: for runs
    /// with `-r` or `--delete`.
    ///
    /// They belong behind all other filter rules of a command line, since rsync stops at the first rule that matches and
    /// some of these include.
    pub fn rsync_rules(&self) -> Vec<OsString> {
        temporary::rsync_rules(self.legacy_hidden)
    }

    /// Whether a file of the target has a name such as a killed receiver leaves there (`.NAME.XXXXXX`). A file that the
    /// user excludes is no leftover.
    pub fn is_leftover(&self, path: &RelPath) -> bool {
        temporary::is_leftover(path.name())
            && !self.expressions.as_ref().is_some_and(|expressions| expressions.exclude(path, false))
    }

    /// Values for rsync's `--filter=` that leave of a tree only its directories and the files that may be leftovers.
    pub fn leftover_rules() -> Vec<OsString> {
        temporary::leftover_rules()
    }
}

#[cfg(test)]
mod tests;
