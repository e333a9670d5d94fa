//! Reads sersync's `confxml.xml`, as people really write it, into a validated [`Config`].
//!
//! `xml` turns bytes into a small tree, `schema` knows the names, `effective` gives every element its meaning or its default. A
//! fault that sersync would have ignored or crashed on becomes a [`Diagnostic`]. Only a fault that leaves nothing sensible to
//! do is a [`ConfigError`]. Both name file, line and column.
//!
//! Paths stay the bytes that they are in the file, whatever the file's encoding is or claims to be. Nothing here looks at the
//! file system, except [`load`] and [`outline`], which read the one file.

mod blank;
mod bytes;
mod checked;
mod diagnostic;
mod effective;
mod error;
mod extension;
mod outline;
mod params;
mod plugin;
mod remote;
mod schema;
mod value;
mod words;
mod xml;

use std::path::Path;

pub use checked::{Config, Control, Purpose};
pub use diagnostic::{Diagnostic, Matter};
pub use error::{ConfigError, Fault};
pub use outline::{Attribute, Outline, Part, What};
pub use plugin::{CommandPlugin, HttpPlugin, HttpUrl, Plugin, PluginKind, RefreshCdnPlugin, Secret, SocketPlugin};
pub use words::{SplitError, split_words};

use bytes::{check_size, read, without_mark};

/// Reads and checks a configuration file. The diagnostics are warnings, in the order of the file.
pub fn load(file: &Path) -> Result<(Config, Vec<Diagnostic>), ConfigError> {
    load_for(Purpose::Mirror, file)
}

/// Like [`load`], for a purpose.
pub fn load_for(purpose: Purpose, file: &Path) -> Result<(Config, Vec<Diagnostic>), ConfigError> {
    parse_for(purpose, file, &read(file)?)
}

/// Reads a configuration file as it stands, whether it makes sense or not: only a file that is not XML is an error.
pub fn outline(file: &Path) -> Result<Outline, ConfigError> {
    outline::read(file, &read(file)?)
}

/// Every attribute of the format with its element, named as in an [`Outline`].
#[cfg(test)]
pub(crate) fn known_attributes() -> Vec<(String, &'static str)> {
    schema::all_attributes()
}

/// Checks the bytes of a configuration file. `file` is for messages only.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<(Config, Vec<Diagnostic>), ConfigError> {
    parse_for(Purpose::Mirror, file, bytes)
}

fn parse_for(purpose: Purpose, file: &Path, bytes: &[u8]) -> Result<(Config, Vec<Diagnostic>), ConfigError> {
    check_size(file, bytes)?;
    let bytes = without_mark(bytes);
    let mut notes = diagnostic::Notes::new(bytes);
    let read = xml::parse(bytes, &mut notes).and_then(|read| effective::config(purpose, file, &read.head, &mut notes));
    match read {
        Ok(config) => Ok((config, notes.into_diagnostics(file))),
        Err(problem) => Err(notes.error(file, problem)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
