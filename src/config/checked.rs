//! What a configuration file says once it has been read and checked: plain values, without a place in the file except
//! where a later error has to name it. How they come about is not said here.

use std::path::PathBuf;

use super::plugin::{Plugin, PluginKind};
use crate::model::{self, Endpoint, Settings};

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

impl Config {
    /// The section of a plugin, if the file has a complete one.
    pub fn plugin_section(&self, kind: PluginKind) -> Option<&Plugin> {
        self.plugins.iter().find(|plugin| plugin.kind() == kind)
    }
}

/// `<control listen="7878" tokenFile="..."/>`, and where in the file it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    pub endpoint: Endpoint,
    /// Counted from 1.
    pub line: u32,
    pub column: u32,
}

/// What a file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Mirror,
    /// To follow directories with a plugin, as sersync's `-m`: targets and how they are reached do not matter.
    Plugin,
}
