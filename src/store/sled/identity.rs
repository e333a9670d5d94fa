//! The small file beside the store that says which store belongs there, so that an emptied or exchanged store is noticed:
//! sled takes an empty directory for a new store and says nothing.
//!
//! The file also repeats the schema, which can thus be checked before sled touches anything, and tells whether the last
//! syncq closed the store in order. It has lines of `name value`; unknown names are skipped, so later versions may add
//! some.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::path::Path;

use super::disk;
use crate::trust;

/// The most bytes that are read of the file, which has some 200.
const FILE_BYTES_MAX: u64 = 4_096;

/// Names one store for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreId(pub [u8; 16]);

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub id: StoreId,
    pub schema: u32,
    /// The version of the syncq that wrote the store last.
    pub writer: String,
    /// Whether the store was closed in order.
    pub clean: bool,
}

impl StoreId {
    /// A new id. It needs to differ from others, not to be hard to guess.
    pub fn random() -> Self {
        Self(fastrand::u128(..).to_be_bytes())
    }
}

impl Identity {
    /// Reads the file at `path`; `None` if it is not there or says nothing sensible.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let read = trust::open_plain(path, OpenOptions::new().read(true)).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map(|_| bytes)
        });
        match read {
            Ok(bytes) => {
                let identity = std::str::from_utf8(&bytes).ok().and_then(Self::parse);
                if identity.is_none() {
                    log::warn!("{} is unreadable and will be written anew", path.display());
                }
                Ok(identity)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the file so that after a power cut either the old or the new one is there.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        disk::replace(path, self.to_text().as_bytes())
    }

    fn to_text(&self) -> String {
        let id = u128::from_be_bytes(self.id.0);
        let clean = if self.clean { "yes" } else { "no" };
        format!(
            "# Which store belongs here. Written by syncq; do not edit.\nid {id:032x}\nschema {}\nwriter {}\nclean {clean}\n",
            self.schema, self.writer
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Some(Self {
            id: StoreId(u128::from_str_radix(value("id")?, 16).ok()?.to_be_bytes()),
            schema: value("schema")?.parse().ok()?,
            writer: value("writer").unwrap_or("?").to_owned(),
            clean: value("clean") == Some("yes"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_back_and_later_lines_are_skipped() {
        let identity = Identity { id: StoreId([7; 16]), schema: 3, writer: "0.4.1".into(), clean: true };
        let text = identity.to_text();
        assert_eq!(Identity::parse(&text), Some(identity.clone()));
        assert_eq!(Identity::parse(&(text + "colour blue\n")), Some(identity));
        assert_eq!(Identity::parse("id zz\nschema 1\n"), None);
        assert_eq!(Identity::parse(""), None);
    }
}
