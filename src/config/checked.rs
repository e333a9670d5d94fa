//! The content of a configuration file after reading and checking: plain values, with places in the file only where a later
//! error has to name one. How the values are read is not said here.

use std::path::PathBuf;

use super::plugin::{Plugin, PluginKind};
use crate::model::{self, Endpoint, Settings};

/// The content of one configuration file.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub file: PathBuf,
    /// At least one root, each with at least one target, unless the file is read for a plugin alone.
    pub roots: Vec<model::Root>,
    /// The settings that hold for every root: a root without a path and without targets.
    pub template: model::Root,
    /// The directory of each root as the file spells it, including a slash at the end.
    pub spelled: Vec<PathBuf>,
    pub debug: bool,
    pub settings: Settings,
    /// The TCP address of the control API, if it has one.
    pub control: Option<Control>,
    /// The path of the readable list of failing jobs.
    pub fail_log: Option<PathBuf>,
    /// The plugin to run after each change.
    pub plugin: Option<Plugin>,
    /// All complete plugin sections, in use or not: `-m` can pick any.
    pub plugins: Vec<Plugin>,
}

impl Config {
    /// The section of a plugin, if the file has a complete one.
    pub fn plugin_section(&self, kind: PluginKind) -> Option<&Plugin> {
        self.plugins.iter().find(|plugin| plugin.kind() == kind)
    }
}

/// `<control listen="7878" tokenFile="..."/>`, with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    pub endpoint: Endpoint,
    /// Counted from 1.
    pub line: u32,
    pub column: u32,
}

/// The purpose for which a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Mirror,
    /// To follow directories with a plugin, as sersync does with `-m`: targets, and how they are reached, do not matter.
    Plugin,
}
