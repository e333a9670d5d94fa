//! `syncq mirror`: one source, its destinations, no configuration file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use clap::{ArgAction, Args};

use super::exit::CliError;
use super::listen::ListenArgs;
use super::log_options::LogOptions;
use super::progress::Progress;
use super::state_dir::real_path;
use super::{destination, excludes, neighbours, password_file, run, state_dir, values};
use crate::daemon::{Configuration, Options, RootOptions, init, logging};
use crate::filter::Filter;
use crate::model::{Destination, Effect, EventSwitches, Params, Root, Settings, Target, TransferOptions};

const DEST_HELP: &str =
    "Local directory, [user@]host:/path (ssh), [user@]host::module[/path] or rsync://host[:port]/module";

/// Mirror a directory to one or more destinations, until stopped
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq mirror /srv/www /backup/www web2:/srv/www backup::www"))]
pub struct MirrorArgs {
    /// Directory to mirror
    #[arg(value_name = "SRC")]
    source: PathBuf,
    #[arg(value_name = "DEST", required = true, help = DEST_HELP)]
    destinations: Vec<OsString>,
    /// File with the password for rsync daemons
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Port of the rsync daemons, or of sshd
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Further argument for rsync; may be given several times
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    rsync_arg: Vec<OsString>,
    /// Leave out paths that match as a whole, like 'app/uploads' or '(.*)/cache'; may be given several times
    #[arg(long, value_name = "REGEX")]
    exclude: Vec<String>,
    /// Delete on the destinations what is gone from SRC
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    delete: bool,
    /// Follow changes of mode, owner and times
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    attrib: bool,
    /// At most this many rsyncs at a time [default: 10]
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true, value_parser = threads)]
    threads: Option<i64>,
    /// Mirror SRC even if it is another directory than the last time
    #[arg(long)]
    accept_root: bool,
    /// Let the first comparison delete more than maxDelete allows
    #[arg(long)]
    accept_deletions: bool,
    /// Where jobs are kept [default: one per SRC]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    log: LogOptions,
}

/// sersync's `-n 0`, which `run` knows, never was a word of this command.
fn threads(text: &str) -> Result<i64, String> {
    let given = values::whole(text)?;
    let is_usable = usize::try_from(given).is_ok_and(|threads| (1..=run::THREADS_MAX).contains(&threads));
    if is_usable { Ok(given) } else { Err(format!("give a number from 1 to {}", run::THREADS_MAX)) }
}

pub fn run(args: MirrorArgs) -> Result<ExitCode, CliError> {
    if let Some(code) = init::stand_in().context("cannot look after processes")? {
        return Ok(ExitCode::from(code));
    }
    let source = checked_source(&args.source)?;
    let here = std::env::current_dir().context("cannot find the working directory")?;
    let root = root(&args, &source, &here)?;
    let state_dir = match &args.state_dir {
        Some(dir) => dir.clone(),
        None => state_dir::for_source(&source)?,
    };
    let listen = args.listen.options()?;
    let roots = vec![root];
    state_dir::check_outside(&state_dir, roots.iter().map(Root::path))?;
    state_dir::create(&state_dir)?;
    args.log.start(logging::DEFAULT_LEVEL, logging::Output::Stderr)?;
    let mut notices = Vec::new();
    let threads = run::threads(args.threads, &mut notices);
    for given in params(&args).given() {
        if let Effect::Lossy(effect) = given.effect() {
            notices.push(format!("with --rsync-arg={} {effect}", given.shown));
        }
    }
    for notice in &notices {
        log::warn!("{notice}");
    }

    // The view begins when the daemon is ready and ends with it.
    let progress: Arc<Mutex<Option<Progress>>> = Arc::default();
    let begun = Arc::clone(&progress);
    crate::daemon::detach::tighten_umask();
    excludes::report_unmatched(roots.clone());
    neighbours::warn_of_meetings(&state_dir, &roots);
    let ran = crate::daemon::run(Options {
        config: Configuration {
            roots: roots.into_iter().map(|root| RootOptions { root, settings: Settings::default() }).collect(),
            ..Configuration::default()
        },
        threads,
        // Whoever types it expects equal trees now, whatever somebody did to the other one.
        reconcile: true,
        accept_root: args.accept_root,
        accept_deletions: args.accept_deletions,
        state_dir,
        listen,
        source: None,
        plugin_only: false,
        on_ready: Some(Box::new(move |inspect| {
            let view = Progress::start(move || Some(inspect.status()));
            *begun.lock().unwrap_or_else(PoisonError::into_inner) = view;
        })),
    });
    drop(progress.lock().unwrap_or_else(PoisonError::into_inner).take());
    ran?;
    Ok(ExitCode::SUCCESS)
}

fn checked_source(given: &Path) -> Result<PathBuf, CliError> {
    let refuse = |error: anyhow::Error| CliError::config(error).hint("SRC has to be a directory of this machine");
    let shown = given.display();
    let source = given.canonicalize().with_context(|| format!("cannot mirror {shown}")).map_err(refuse)?;
    if !source.is_dir() {
        return Err(refuse(anyhow::anyhow!("cannot mirror {shown}: it is no directory")));
    }
    std::fs::read_dir(&source).with_context(|| format!("cannot read {shown}")).map_err(CliError::config)?;
    Ok(source)
}

fn root(args: &MirrorArgs, source: &Path, here: &Path) -> Result<Root, CliError> {
    check_params(&params(args))?;
    let excludes =
        args.exclude.iter().map(|typed| excludes::expression(typed, source)).collect::<Result<Vec<_>, _>>()?;
    Filter::new(&excludes, false).context("cannot use --exclude").map_err(CliError::config)?;
    let password_file = args.password_file.as_deref().map(|file| checked_password_file(file, here)).transpose()?;
    let mut targets: Vec<Target> = Vec::new();
    for given in &args.destinations {
        let parsed = destination::parse(given, here).map_err(|error| {
            CliError::usage(format!("cannot use the destination '{}': {error}", given.display()))
                .hint("write /path, [user@]host:/path, [user@]host::module or rsync://host/module")
        })?;
        if let Destination::Local(path) = &parsed.destination {
            check_apart(source, path)?;
        }
        let new = target(args, parsed, password_file.as_ref());
        if let Some(same) = targets.iter().find(|target| target.destination == new.destination) {
            let error = CliError::usage(format!("the destination {} is given twice", new.destination));
            let differs = same.options.port != new.options.port;
            let hint = "a target's name has no port: give the modules of the two rsync daemons different names";
            return Err(if differs { error.hint(hint) } else { error });
        }
        targets.push(new);
    }
    if password_file.is_some() && !targets.iter().any(|target| target.destination.is_daemon()) {
        return Err(CliError::usage("--password-file is of no use here: no destination is an rsync daemon")
            .hint("ssh takes keys: ssh-copy-id HOST"));
    }
    Ok(Root {
        path: source.to_owned(),
        targets,
        events: EventSwitches { delete: args.delete, attrib: args.attrib, ..EventSwitches::default() },
        excludes,
        legacy_hidden: false,
        schedule: None,
    })
}

fn params(args: &MirrorArgs) -> Params {
    std::iter::once("-a".into()).chain(args.rsync_arg.iter().cloned()).collect()
}

/// Refuses arguments with which rsync could not mirror.
fn check_params(params: &Params) -> Result<(), CliError> {
    for given in params.given() {
        let option = &given.shown;
        if !given.is_option {
            return Err(CliError::usage(format!("cannot use --rsync-arg={option}: it is not an option"))
                .hint("join a value to its option: --rsync-arg=--bwlimit=1000"));
        }
        if let Effect::Unusable(reason) = given.effect() {
            return Err(CliError::usage(format!("cannot use --rsync-arg={option}: {reason}")).hint("leave it out"));
        }
    }
    Ok(())
}

fn target(args: &MirrorArgs, parsed: destination::Parsed, password_file: Option<&PathBuf>) -> Target {
    let mut options = TransferOptions { params: params(args), delete: args.delete, ..TransferOptions::default() };
    options.port = match &parsed.destination {
        Destination::Local(_) => None,
        _ => parsed.port.or(args.port),
    };
    // rsync refuses the option for anything but its daemon.
    options.password_file = password_file.filter(|_| parsed.destination.is_daemon()).cloned();
    Target { destination: parsed.destination, options }
}

/// Refuses a destination that would mirror into itself, through symbolic links too.
pub(super) fn check_apart(source: &Path, destination: &Path) -> Result<(), CliError> {
    let (from, to) = (real_path(source), real_path(destination));
    let reason = if from == to {
        "they are the same directory"
    } else if to.starts_with(&from) {
        "the destination lies inside the source, so every copy would be a change to copy"
    } else if from.starts_with(&to) {
        "the source lies inside the destination and would be deleted by its own mirror"
    } else {
        return Ok(());
    };
    let message = format!("cannot mirror {} to {}: {reason}", source.display(), destination.display());
    Err(CliError::config(anyhow::Error::msg(message)).hint("choose a destination beside the source"))
}

fn checked_password_file(file: &Path, here: &Path) -> Result<PathBuf, CliError> {
    let path = destination::absolute(file.as_os_str(), here);
    password_file::check(&path)?;
    Ok(path)
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
