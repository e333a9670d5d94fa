//! `syncq run`: the daemon for one or more configuration files. sersync's own command line arrives here as well.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::configs::Loaded;
use super::exit::CliError;
use super::listen::ListenArgs;
use super::log_options::LogOptions;
use super::sersync_args::DEFAULT_CONFIG;
use super::{apart, configs, excludes, listen, neighbours, state_dir};
use crate::config::PluginKind;
use crate::daemon::{ConfigSource, NotTaken, Options, RootOptions, init};
use crate::model::{AtFirst, Root};
use crate::system::{detach, logging};

/// Mirror what configuration files describe, until stopped
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq run -d -r -o /etc/syncq/confxml.xml"))]
pub struct RunArgs {
    /// Configuration file; may be given several times [default: confxml.xml]
    #[arg(short = 'o', long = "config", value_name = "CONF")]
    config: Vec<PathBuf>,
    /// Compare every target in full, and not only what changed since the last run
    #[arg(short = 'r', long)]
    reconcile: bool,
    /// Run in the background; returns when the daemon is ready
    #[arg(short = 'd', long)]
    daemon: bool,
    /// At most this many rsyncs at a time [default: 10]
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true, value_parser = super::values::whole::<i64>)]
    threads: Option<i64>,
    /// Only run this plugin for every change, and no rsync
    #[arg(short = 'm', long, value_name = "PLUGIN")]
    plugin: Option<String>,
    /// Mirror a watched directory that is another one than the last time
    #[arg(long)]
    accept_root: bool,
    /// Let the first comparison delete more than maxDelete allows
    #[arg(long)]
    accept_deletions: bool,
    /// Where jobs are kept [default: one per configuration file]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    log: LogOptions,
    /// This is the child of `-d`
    #[arg(long = detach::CHILD_FLAG, hide = true)]
    detached: bool,
    /// sersync ignores what follows its flags
    #[arg(hide = true)]
    ignored: Vec<OsString>,
}

/// Runs the daemon. `is_command` tells whether a word names a subcommand.
pub fn run(
    args: RunArgs,
    command_line: &[OsString],
    is_command: impl Fn(&OsStr) -> bool,
) -> Result<ExitCode, CliError> {
    if let Some(code) = init::stand_in().context("cannot look after processes")? {
        return Ok(ExitCode::from(code));
    }
    if args.detached {
        detach::begin().context("cannot leave the terminal")?;
    }
    detach::tighten_umask();
    let mut notices = Vec::new();
    let files = config_files(&args, is_command, &mut notices)?;
    let only = args.plugin.as_ref().map(plugin_named).transpose()?;
    let state_dir = match (&args.state_dir, files.first()) {
        (Some(dir), _) => dir.clone(),
        (None, Some(first)) => state_dir::for_config(first, only.map(PluginKind::as_str))?,
        (None, None) => return Err(CliError::usage("there is no configuration file").hint("name one: -o FILE")),
    };
    let mut listen = args.listen.options()?;
    if args.daemon && !args.detached {
        let code = detach::launch(&child_arguments(command_line)).context("cannot start the daemon")?;
        return Ok(ExitCode::from(code));
    }

    let loaded = load(&files, only, &state_dir)?;
    // An address on the command line wins over the files.
    let from_files = listen.is_none();
    if let (true, Some(endpoint)) = (from_files, &loaded.endpoint) {
        listen = Some(listen::options(endpoint)?);
    }
    state_dir::create(&state_dir)?;

    let default_level = if loaded.debug { "debug" } else { logging::DEFAULT_LEVEL };
    let output = match args.detached {
        true => logging::Output::File(state_dir.join("syncq.log")),
        false => logging::Output::Stderr,
    };
    args.log.start(default_level, output)?;
    let threads = threads(args.threads, &mut notices);
    if loaded.debug {
        log::info!("Open debug, you will see debug infomation");
    }
    for notice in notices.iter().chain(&loaded.notices) {
        log::warn!("{notice}");
    }
    configs::log_adopted(&loaded.adopted);
    let roots: Vec<_> = loaded.config.roots.iter().map(|root| root.root.clone()).collect();
    neighbours::warn_of_meetings(&state_dir, &roots);
    excludes::report_unmatched(roots);
    let detached = args.detached;
    let endpoint = loaded.endpoint;
    crate::daemon::run(Options {
        config: loaded.config,
        threads,
        reconcile: args.reconcile,
        accept_root: args.accept_root,
        accept_deletions: args.accept_deletions,
        at_first: if args.reconcile { AtFirst::Usual } else { AtFirst::Nothing },
        state_dir: state_dir.clone(),
        listen,
        source: Some(ConfigSource {
            files: files.clone(),
            load: Box::new(move || {
                let again = load_again(&files, only, &state_dir)?;
                if from_files && again.endpoint != endpoint {
                    log::warn!("<control> is another one than at the start; it takes effect at the next start");
                }
                Ok(again.config)
            }),
            explain: |error| CliError::from(error).into(),
        }),
        plugin_only: only.is_some(),
        on_ready: Some(Box::new(move |_| {
            if detached {
                detach::ready();
            }
        })),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the files, and refuses settings that the daemon cannot carry out.
fn load(files: &[PathBuf], only: Option<PluginKind>, state_dir: &Path) -> Result<Loaded, CliError> {
    let loaded = configs::load(files, only)?;
    check_once(&loaded.config.roots)?;
    let roots = || loaded.config.roots.iter().map(|root| &root.root);
    state_dir::check_outside(state_dir, roots().map(Root::path))?;
    match apart::refused(roots(), state_dir).into_iter().next() {
        Some(refused) => Err(refused.error),
        None => Ok(loaded),
    }
}

/// Like [`load`], for a running daemon: oddities are logged, and errors become words for `status`.
fn load_again(files: &[PathBuf], only: Option<PluginKind>, state_dir: &Path) -> Result<Loaded, NotTaken> {
    let loaded = load(files, only, state_dir)?;
    loaded.notices.iter().for_each(|notice| log::warn!("{notice}"));
    let roots: Vec<_> = loaded.config.roots.iter().map(|root| root.root.clone()).collect();
    neighbours::warn_of_meetings(state_dir, &roots);
    Ok(loaded)
}

/// The plugin that `-m` asks for.
fn plugin_named(name: &String) -> Result<PluginKind, CliError> {
    PluginKind::from_name(name)
        .ok_or_else(|| CliError::usage(format!("{name} is no plugin")).hint("one of command, socket, refreshCDN, http"))
}

const THREADS_DEFAULT: usize = 10;
/// The most rsyncs at a time: more help no machine.
pub const THREADS_MAX: usize = 1_024;

/// How many rsyncs `-n` allows. Zero means the default, as in sersync. A negative number, with which sersync would hang, does
/// too.
pub fn threads(given: Option<i64>, notices: &mut Vec<String>) -> usize {
    let Some(given) = given else { return THREADS_DEFAULT };
    match usize::try_from(given) {
        Ok(threads @ 1..=THREADS_MAX) => threads,
        Ok(1..) => {
            notices.push(format!("-n {given} is too much, using {THREADS_MAX}"));
            THREADS_MAX
        }
        _ => {
            notices.push(format!("-n {given} makes no sense, using {THREADS_DEFAULT}"));
            THREADS_DEFAULT
        }
    }
}

/// The configuration files as absolute paths. Extra arguments are tolerated only behind an `-o`, where users of sersync have
/// them; elsewhere they more likely follow a forgotten `-o`.
fn config_files(
    args: &RunArgs,
    is_command: impl Fn(&OsStr) -> bool,
    notices: &mut Vec<String>,
) -> Result<Vec<PathBuf>, CliError> {
    if let (true, Some(extra)) = (args.config.is_empty(), args.ignored.first()) {
        let extra = extra.display();
        return Err(CliError::usage(format!("unexpected argument {extra}")).hint(format!("did you mean -o {extra}?")));
    }
    if let Some(command) = args.ignored.iter().find(|extra| is_command(extra)) {
        let command = command.display();
        return Err(CliError::usage(format!("{command} is a command, and this would start a daemon"))
            .hint(format!("write it first: syncq {command} ...; a file of that name is ./{command}")));
    }
    for extra in &args.ignored {
        notices.push(format!("the argument {} is ignored; each configuration file needs an -o", extra.display()));
    }
    let given = if args.config.is_empty() { vec![PathBuf::from(DEFAULT_CONFIG)] } else { args.config.clone() };
    let absolute = given.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>();
    absolute.map_err(|error| CliError::usage(format!("the name of a configuration file is empty: {error}")))
}

/// Refuses several files that mirror one directory to one destination. The store knows a target by that pair, so it would be
/// undecided whose options hold.
pub(super) fn check_once(roots: &[RootOptions]) -> Result<(), CliError> {
    let mut seen = HashSet::new();
    for RootOptions { root, .. } in roots {
        for target in &root.targets {
            if !seen.insert((&root.path, &target.destination)) {
                let (path, name) = (root.path.display(), target.name());
                return Err(CliError::config(anyhow::anyhow!(
                    "{path} is mirrored to {name} by two configuration files"
                ))
                .hint("leave one of them out, or run them as two daemons with a --state-dir each"));
            }
        }
    }
    Ok(())
}

/// The same command line with the flag of the child behind `run`.
fn child_arguments(command_line: &[OsString]) -> Vec<OsString> {
    let mut arguments = command_line.to_vec();
    arguments.insert(1.min(arguments.len()), format!("--{}", detach::CHILD_FLAG).into());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;
    use crate::cli::is_command;
    use crate::model::{Destination, EventSwitches, Target, TransferOptions};
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parse(line: &str) -> RunArgs {
        Alone::try_parse_from(line.split(' ')).expect("a command line").run
    }

    #[test]
    fn sersyncs_flags_in_all_their_forms() {
        for line in ["run -d -r -o a.xml -n 4", "run -dro a.xml -n4", "run -rd -n 4 -o a.xml b.xml"] {
            let args = parse(line);
            assert!(args.daemon && args.reconcile && args.threads == Some(4), "{line}");
            let mut notices = Vec::new();
            let configs = config_files(&args, is_command, &mut notices).expect("files");
            assert!(configs.len() == 1 && configs.iter().all(|file| file.is_absolute() && file.ends_with("a.xml")));
            assert_eq!(notices.len(), usize::from(line.ends_with("b.xml")));
        }
        assert_eq!(parse("run -o a.xml -o b.xml").config.len(), 2);
        assert!(config_files(&parse("run a.xml"), is_command, &mut Vec::new()).is_err());
        // `sersync2 -o a.xml check` started to mirror.
        let refused =
            config_files(&parse("run -o a.xml check"), is_command, &mut Vec::new()).expect_err("refused").to_string();
        assert!(refused.contains("check is a command"), "{refused}");
    }

    #[test]
    fn an_odd_number_of_threads_is_mended_and_reported() {
        for (given, threads_expected, reported) in
            [(None, 10, 0), (Some(1), 1, 0), (Some(0), 10, 1), (Some(-5), 10, 1), (Some(5_000), 1_024, 1)]
        {
            let mut notices = Vec::new();
            assert_eq!((threads(given, &mut notices), notices.len()), (threads_expected, reported));
        }
        assert_eq!(parse("run -n -5").threads, Some(-5));
    }

    #[test]
    fn two_files_may_share_a_source_but_not_a_target() {
        let root = |destination: &str| RootOptions {
            settings: crate::model::Settings::default(),
            root: crate::model::Root {
                path: "/srv/www".into(),
                targets: vec![Target {
                    destination: Destination::Local(destination.into()),
                    options: TransferOptions::default(),
                }],
                events: EventSwitches::default(),
                excludes: Vec::new(),
                legacy_hidden: false,
                schedule: None,
            },
        };
        assert!(check_once(&[root("/a"), root("/b")]).is_ok());
        assert_eq!(check_once(&[root("/a"), root("/a")]).expect_err("refused").exit, Exit::Config);
    }

    #[test]
    fn the_child_is_marked_behind_its_subcommand() {
        let line: Vec<OsString> = ["run", "-dro", "a.xml"].map(OsString::from).to_vec();
        assert_eq!(child_arguments(&line), ["run", "--detached", "-dro", "a.xml"].map(OsString::from));
    }
}
