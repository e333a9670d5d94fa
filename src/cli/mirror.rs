//! `syncq mirror`: one source, its destinations, no configuration file.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{ArgAction, Args};
use parking_lot::Mutex;

use super::exit::CliError;
use super::listen::ListenArgs;
use super::log_options::LogOptions;
use super::progress::Progress;
use super::state_dir::real_path;
use super::{apart, configs, destination, excludes, neighbours, password_file, run, state_dir, values};
use crate::daemon::{Configuration, Options, RootOptions, init};
use crate::filter::Filter;
use crate::model::{AtFirst, Destination, EventSwitches, Params, Root, Settings, Target, TransferOptions, Usable, Why};
use crate::system::logging;

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

/// Reads `-n`. sersync's `-n 0`, which `run` accepts, is refused here.
fn threads(text: &str) -> Result<i64, String> {
    let given = values::whole(text)?;
    let is_usable = usize::try_from(given).is_ok_and(|threads| (1..=run::THREADS_MAX).contains(&threads));
    if is_usable { Ok(given) } else { Err(format!("give a number from 1 to {}", run::THREADS_MAX)) }
}

pub fn run(args: MirrorArgs) -> Result<ExitCode, CliError> {
    if let Some(code) = init::stand_in().context("cannot look after processes")? {
        return Ok(ExitCode::from(code));
    }
    let here = std::env::current_dir().context("cannot find the working directory")?;
    let source = checked_source(&args.source, &here)?;
    let mut notices = Vec::new();
    let mut root = root(&args, &source, &here, &mut notices)?;
    let adopted = configs::adopted(&mut root);
    let state_dir = match &args.state_dir {
        Some(dir) => dir.clone(),
        None => state_dir::for_source(&source)?,
    };
    let listen = args.listen.options()?;
    let roots = vec![root];
    state_dir::check_outside(&state_dir, roots.iter().map(Root::path))?;
    if let Some(refused) = apart::refused(&roots, &state_dir).into_iter().next() {
        return Err(refused.error);
    }
    notices.extend(notices_of(&args, &roots));
    state_dir::create(&state_dir)?;
    args.log.start(logging::DEFAULT_LEVEL, logging::Output::Stderr)?;
    let threads = run::threads(args.threads, &mut notices);
    for notice in &notices {
        log::warn!("{notice}");
    }
    configs::log_adopted(&adopted);

    // The progress view begins when the daemon is ready, and ends with it.
    let progress: Arc<Mutex<Option<Progress>>> = Arc::default();
    let begun = Arc::clone(&progress);
    crate::system::detach::tighten_umask();
    excludes::report_unmatched(roots.clone());
    neighbours::warn_of_meetings(&state_dir, &roots);
    let ran = crate::daemon::run(Options {
        config: Configuration {
            roots: roots.into_iter().map(|root| RootOptions { root, settings: Settings::default() }).collect(),
            ..Configuration::default()
        },
        threads,
        // Compare in full: a person who types this command expects equal trees now, whatever has happened to the target.
        reconcile: true,
        accept_root: args.accept_root,
        accept_deletions: args.accept_deletions,
        at_first: AtFirst::Few,
        state_dir,
        listen,
        source: None,
        plugin_only: false,
        on_ready: Some(Box::new(move |inspect| {
            let view = Progress::start(move || Some(inspect.status()));
            *begun.lock() = view;
        })),
    });
    drop(progress.lock().take());
    ran?;
    Ok(ExitCode::SUCCESS)
}

/// Checks the source and returns its path as it was named. Each run resolves the path anew, so that a link that is switched is
/// noticed.
fn checked_source(given: &Path, here: &Path) -> Result<PathBuf, CliError> {
    let refuse = |error: anyhow::Error| CliError::config(error).hint("SRC has to be a directory of this machine");
    let shown = given.display();
    let real = given.canonicalize().with_context(|| format!("cannot mirror {shown}")).map_err(refuse)?;
    if !real.is_dir() {
        return Err(refuse(anyhow::anyhow!("cannot mirror {shown}: it is no directory")));
    }
    std::fs::read_dir(&real).with_context(|| format!("cannot read {shown}")).map_err(CliError::config)?;
    let named = destination::absolute(given.as_os_str(), here);
    // The meaning of `..` depends on the links before it, so such a path is resolved now.
    Ok(if named.components().any(|part| part == Component::ParentDir) { real } else { named })
}

/// The notices that the operator should see before anything is written.
fn notices_of(args: &MirrorArgs, roots: &[Root]) -> Vec<String> {
    let mut notices = Vec::new();
    for root in roots {
        let real = real_path(&root.path);
        if real != root.path {
            let (named, real) = (root.path.display(), real.display());
            notices.push(format!(
                "{named} is {real} through a link: when that leads to another directory, nothing is sent before a restart \
                 with --accept-root"
            ));
        }
        for (given, target) in args.destinations.iter().zip(&root.targets) {
            if let Destination::Local(path) = &target.destination {
                notices.extend(apart::is_made_notice(given, path));
            }
        }
        if args.port.is_some() && root.targets.iter().all(|target| matches!(target.destination, Destination::Local(_)))
        {
            notices.push("--port has no effect: no destination is reached through a port".to_owned());
        }
    }
    notices
}

/// Makes the root from the arguments. `notices` gets the oddities that do no harm.
fn root(args: &MirrorArgs, source: &Path, here: &Path, notices: &mut Vec<String>) -> Result<Root, CliError> {
    let params = params(args)?;
    notices.extend(params.notices.iter().map(|notice| format!("--rsync-arg: {}", notice.message)));
    if let Some(option) = params.deletes.as_ref().filter(|_| !args.delete) {
        notices.push(format!("--rsync-arg: {option} is dropped, since --delete=false forbids deletions"));
    }
    let excludes =
        args.exclude.iter().map(|typed| excludes::expression(typed, source)).collect::<Result<Vec<_>, _>>()?;
    Filter::new(&excludes, false).context("cannot use --exclude").map_err(CliError::config)?;
    let given = args.password_file.clone().or_else(|| params.password_file.clone());
    let password_file = given.map(|file| checked_password_file(&file, here)).transpose()?;
    let mut targets: Vec<Target> = Vec::new();
    for given in &args.destinations {
        let parsed = destination::parse(given, here).map_err(|error| {
            CliError::usage(format!("cannot use the destination '{}': {error}", destination::shown(given)))
                .hint(error.hint(given))
        })?;
        targets.push(target(args, &params, parsed, password_file.as_ref()));
    }
    if password_file.is_some() && !targets.iter().any(|target| target.destination.is_daemon()) {
        return Err(CliError::usage("a password file is of no use here: no destination is an rsync daemon")
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

fn params(args: &MirrorArgs) -> Result<Usable, CliError> {
    let params: Params = std::iter::once("-a".into()).chain(args.rsync_arg.iter().cloned()).collect();
    params.usable(false).map_err(|refused| {
        let hint = match (refused.why, refused.dashed()) {
            (_, Some(dashed)) => format!("options begin with plain hyphens: {dashed}"),
            (Why::NotAnOption, None) => {
                format!(
                    "rsync would take {} for a path; a value is joined to its option: --rsync-arg=--bwlimit=1000",
                    refused.option
                )
            }
            (Why::NoValue, None) => format!("join it to the option: --rsync-arg={}=VALUE", refused.option),
            (Why::NoPort | Why::Unusable(_), None) => "leave it out".to_owned(),
        };
        CliError::config(anyhow::anyhow!("--rsync-arg: {refused}")).hint(hint)
    })
}

fn target(args: &MirrorArgs, given: &Usable, parsed: destination::Parsed, password_file: Option<&PathBuf>) -> Target {
    let mut options =
        TransferOptions { params: given.params.clone(), delete: args.delete, ..TransferOptions::default() };
    options.port = match &parsed.destination {
        Destination::Local(_) => None,
        Destination::Ssh { .. } => args.port,
        // rsync uses a --port among its own arguments for rsync daemons only.
        Destination::Daemon { .. } => parsed.port.or(args.port).or(given.port),
    };
    // rsync refuses --password-file for any target but an rsync daemon.
    options.password_file = password_file.filter(|_| parsed.destination.is_daemon()).cloned();
    Target { destination: parsed.destination, options }
}

fn checked_password_file(file: &Path, here: &Path) -> Result<PathBuf, CliError> {
    let path = destination::absolute(file.as_os_str(), here);
    password_file::check(&path)?;
    Ok(path)
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
