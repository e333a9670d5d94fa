//! Reads the configuration files that a command names, and checks the places that the files name.
//!
//! A fault that only a person can mend ends the start here, with a hint. A fault that may pass by itself (a target that is
//! down) is left to the daemon.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::exit::{CliError, quoted};
use super::output::counted;
use super::password_file;
use crate::config;
use crate::config::{Config, Control, PluginKind, Purpose};
use crate::daemon::{Configuration, FailLogOptions, PluginOptions, PluginRoot, RootOptions};
use crate::mirror::{self, Adopted};
use crate::model::{Endpoint, Root};
use crate::trust;

/// The most missing settings of a file that are told one by one.
const DEFAULTS_SHOWN_MAX: usize = 3;

/// The content of all configuration files.
#[derive(Debug, Default)]
pub struct Loaded {
    pub config: Configuration,
    /// `<debug start="true"/>` in any of them.
    pub debug: bool,
    /// `<control listen="…"/>`, which has to be equal in all files that have it.
    pub endpoint: Option<Endpoint>,
    /// The settings that come from rsync's own environment variables.
    pub adopted: Vec<Adopted>,
    /// Oddities in the files that do no harm, one line each.
    pub notices: Vec<String>,
}

/// Reads and checks all of `files`. With `only`, the roots have no targets, and only that plugin is told of changes.
pub fn load(files: &[PathBuf], only: Option<PluginKind>) -> Result<Loaded, CliError> {
    let mut loaded = Loaded::default();
    let mut controls = Vec::new();
    for file in files {
        let purpose = if only.is_some() { Purpose::Plugin } else { Purpose::Mirror };
        let (config, diagnostics) = config::load_for(purpose, file).map_err(|error| {
            let hint = error.hint();
            let error = CliError::config(error);
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?;
        let defaults = diagnostics.iter().filter(|diagnostic| diagnostic.is_default()).count();
        let is_short = defaults > DEFAULTS_SHOWN_MAX;
        if is_short {
            let shown = file.display();
            let settings = counted(defaults as u64, "setting");
            loaded.notices.push(format!(
                "{shown}: {settings} are missing and have their defaults; syncq check -o {} names them",
                quoted(file)
            ));
        }
        let notices: Vec<String> = diagnostics
            .iter()
            .filter(|diagnostic| !(is_short && diagnostic.is_default()))
            .map(|diagnostic| match &diagnostic.hint {
                Some(hint) => format!("{diagnostic}; {hint}"),
                None => diagnostic.to_string(),
            })
            .collect();
        loaded.debug |= config.debug;
        controls.extend(config.control.clone().map(|control| (config.file.clone(), control)));
        match only {
            Some(kind) => loaded.add_followed(config, kind, &notices)?,
            None => loaded.add(config)?,
        }
        loaded.notices.extend(others_hand(file));
        loaded.notices.extend(notices);
    }
    loaded.endpoint = one_endpoint(controls.iter().map(|(file, control)| (file.as_path(), control)))?;
    Ok(loaded)
}

/// The notice about a file that other users can write. Whoever writes it decides which commands run, and where files are
/// deleted.
pub fn others_hand(file: &Path) -> Option<String> {
    let why = trust::others_hand(file)?;
    Some(format!("{} {why}: whoever writes it decides what syncq runs and what it deletes", file.display()))
}

/// The one endpoint of several files: a daemon listens once.
pub fn one_endpoint<'c>(
    mut controls: impl Iterator<Item = (&'c Path, &'c Control)>,
) -> Result<Option<Endpoint>, CliError> {
    let place = |(file, control): (&Path, &Control)| format!("{}:{}:{}", file.display(), control.line, control.column);
    let Some(first) = controls.next() else { return Ok(None) };
    match controls.find(|(_, control)| control.endpoint != first.1.endpoint) {
        None => Ok(Some(first.1.endpoint.clone())),
        Some(other) => {
            let error = anyhow::anyhow!("{}: <control> says something else than {}", place(other), place(first));
            Err(CliError::config(error).hint("leave one of them out: a daemon listens once"))
        }
    }
}

impl Loaded {
    fn add(&mut self, config: Config) -> Result<(), CliError> {
        let first = self.config.roots.len();
        let indices = || first..first + config.roots.len();
        if let Some(plugin) = config.plugin {
            let roots = indices().zip(&config.roots).zip(&config.spelled);
            let told = roots.filter(|((_, root), _)| plugin.is_told_of(&root.path));
            let roots = told.map(|((index, _), spelled)| PluginRoot { index, spelled: spelled.clone() }).collect();
            self.config.plugins.push(PluginOptions { plugin, roots });
        }
        if let Some(path) = config.fail_log {
            let path = std::path::absolute(path).context("cannot find the working directory")?;
            self.config.fail_logs.push(FailLogOptions { path, roots: indices().collect() });
        }
        for mut root in config.roots {
            for adopted in adopted(&mut root) {
                if !self.adopted.contains(&adopted) {
                    self.adopted.push(adopted);
                }
            }
            check_watch(&config.file, &root.path)?;
            for target in &root.targets {
                if let Some(password_file) = &target.options.password_file {
                    password_file::check(password_file)?;
                }
            }
            self.config.roots.push(RootOptions { root, settings: config.settings.clone() });
        }
        Ok(())
    }

    /// Adds the directories that a plugin follows. As in sersync, a plugin with a directory of its own follows only that one.
    fn add_followed(&mut self, config: Config, kind: PluginKind, notices: &[String]) -> Result<(), CliError> {
        let name = kind.as_str();
        let Some(plugin) = config.plugin_section(kind).cloned() else {
            let why = notices.iter().find(|notice| notice.contains(&format!("plugin {name}")));
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            let shown = config.file.display();
            return Err(CliError::config(anyhow::anyhow!("{shown} has no usable <plugin name=\"{name}\">{why}"))
                .hint(format!("add <plugin name=\"{name}\"> to <head>")));
        };
        let own = plugin.watch().filter(|watch| watch.is_absolute()).cloned();
        let watched: Vec<(PathBuf, PathBuf)> = match own {
            Some(watch) => vec![(watch.components().collect(), watch)],
            None => config.roots.iter().map(|root| root.path.clone()).zip(config.spelled.iter().cloned()).collect(),
        };
        if watched.is_empty() {
            let shown = config.file.display();
            return Err(CliError::config(anyhow::anyhow!("{shown} names no directory for plugin {name} to follow"))
                .hint("<sersync><localpath watch=\"/data/www\"/></sersync>"));
        }
        let mut roots = Vec::new();
        for (path, spelled) in watched {
            check_watch(&config.file, &path)?;
            roots.push(PluginRoot { index: self.config.roots.len(), spelled });
            let root = Root { path, ..config.template.clone() };
            self.config.roots.push(RootOptions { root, settings: config.settings.clone() });
        }
        self.config.plugins.push(PluginOptions { plugin, roots });
        Ok(())
    }
}

/// Applies rsync's own environment variables to the targets of a root, and returns how each was used.
pub(super) fn adopted(root: &mut Root) -> Vec<Adopted> {
    mirror::adopt(&mut root.targets, &mirror::own_variable)
}

/// Logs the use of rsync's variables once, at the start.
pub(super) fn log_adopted(adopted: &[Adopted]) {
    for Adopted { message, is_set_aside } in adopted {
        match is_set_aside {
            true => log::warn!("environment: {message}"),
            false => log::info!("environment: {message}"),
        }
    }
}

pub(super) fn check_watch(file: &Path, watch: &Path) -> Result<(), CliError> {
    let refuse = |error: anyhow::Error| {
        CliError::config(error).hint(format!("create it, or correct <localpath watch=\"…\"> in {}", file.display()))
    };
    let shown = watch.display();
    let found = match std::fs::metadata(watch) {
        // Only the daemon's store knows whether the directory ever existed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.with_context(|| format!("cannot watch {shown}")).map_err(refuse)?,
    };
    if !found.is_dir() {
        return Err(refuse(anyhow::anyhow!("cannot watch {shown}: it is no directory")));
    }
    std::fs::read_dir(watch).with_context(|| format!("cannot read {shown}")).map_err(CliError::config)?;
    Ok(())
}
