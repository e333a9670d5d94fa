//! Reads sersync's `confxml.xml`, as people have really written it, into a validated [`Config`].
//!
//! `xml` turns bytes into a small tree, `schema` knows the names, `effective` gives every element its meaning or its
//! default. What sersync would have ignored or crashed on becomes a [`Diagnostic`]; only what leaves nothing sensible
//! to do is a [`ConfigError`]. Both name file, line and column.
//!
//! Paths stay the bytes that they are in the file, whatever its encoding is or claims to be. Nothing here looks at
//! the file system, except [`load`] and [`outline`], which read the one file.

mod blank;
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

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::model::{self, Endpoint, Settings};
use crate::trust;

pub use diagnostic::{Diagnostic, Matter};
pub use error::{ConfigError, Fault};
pub use outline::{Attribute, Outline, Part, What};
pub use plugin::{CommandPlugin, HttpPlugin, HttpUrl, Plugin, PluginKind, RefreshCdnPlugin, Secret, SocketPlugin};
pub use words::{SplitError, split_words};

/// Larger files are refused: no configuration comes near, and a wrong path may name anything.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Everything that a configuration file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub file: PathBuf,
    /// At least one, each with at least one target, unless the file is read for a plugin alone.
    pub roots: Vec<model::Root>,
    /// What holds for every root: no path of its own, and no targets.
    pub template: model::Root,
    /// The directory of each root as the file spells it, slash at the end included.
    pub spelled: Vec<PathBuf>,
    pub debug: bool,
    pub settings: Settings,
    /// Where the control API is on TCP, if anywhere.
    pub control: Option<Control>,
    /// Where the readable list of what is failing goes.
    pub fail_log: Option<PathBuf>,
    /// The plugin to run after each change.
    pub plugin: Option<Plugin>,
    /// All plugin sections that are complete, in use or not: `-m` can pick any.
    pub plugins: Vec<Plugin>,
}

/// `<control listen="7878" tokenFile="..."/>`, and where in the file it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    pub endpoint: Endpoint,
    /// Counted from 1.
    pub line: u32,
    pub column: u32,
}

impl Config {
    /// The section of a plugin, if the file has a complete one.
    pub fn plugin_section(&self, kind: PluginKind) -> Option<&Plugin> {
        self.plugins.iter().find(|plugin| plugin.kind() == kind)
    }
}

/// What a file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Mirror,
    /// To follow directories with a plugin, as sersync's `-m`: targets and how they are reached do not matter.
    Plugin,
}

/// Reads and checks a configuration file. The diagnostics are warnings, in the order of the file.
pub fn load(file: &Path) -> Result<(Config, Vec<Diagnostic>), ConfigError> {
    load_for(Purpose::Mirror, file)
}

/// The same for a purpose.
pub fn load_for(purpose: Purpose, file: &Path) -> Result<(Config, Vec<Diagnostic>), ConfigError> {
    parse_for(purpose, file, &read(file)?)
}

/// Reads a configuration file as it stands, whether it makes sense or not: only what is no XML is an error.
pub fn outline(file: &Path) -> Result<Outline, ConfigError> {
    outline::read(file, &read(file)?)
}

/// Every attribute of the format with its element, as an [`Outline`] names it.
#[cfg(test)]
pub(crate) fn known_attributes() -> Vec<(String, &'static str)> {
    schema::all_attributes()
}

/// The bytes of a file, and a few too many of one that is too large.
fn read(file: &Path) -> Result<Vec<u8>, ConfigError> {
    let unreadable = |source| ConfigError::Read { file: file.to_path_buf(), source };
    let mut bytes = Vec::new();
    trust::open_given(file)
        .map_err(unreadable)?
        .take(CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
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

fn check_size(file: &Path, bytes: &[u8]) -> Result<(), ConfigError> {
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { file: file.to_path_buf(), limit_bytes: CONFIG_BYTES_MAX });
    }
    Ok(())
}

/// The bytes without UTF-8's byte order mark.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

#[cfg(test)]
pub(crate) mod tests;
