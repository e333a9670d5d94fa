//! `syncq check`: looks at everything that a mirror needs, before it runs or while it does, and reports what is wrong.
//!
//! `places` and `limits` look at this machine, `probe_report` asks the targets, `effective` shows the effective configuration,
//! and `from_sersync` tells what syncq does differently. Findings are [`note::Note`]s, printed as they come.
//!
//! Nothing is changed: no state directory is created, and no daemon is told anything. The one exception is a small file that is
//! written on each target and deleted at once; `--no-write-probe` leaves it out.

mod effective;
mod from_sersync;
mod limits;
mod note;
mod places;
mod plugin;
mod probe_report;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::exit::{CliError, Exit};
use super::output::{counted, stdout};
use super::sersync_args::DEFAULT_CONFIG;
use super::{apart, configs, listen, neighbours, run, state_dir};
use crate::config::{self, Config};
use crate::daemon::RootOptions;
use crate::mirror::{self, Confinement, Places, ProbeOptions};
use crate::model::{Root, Target};
use note::{Check, Level, Note, Report};

/// Check a configuration, this machine and the targets
///
/// Needs no daemon and changes nothing. Each target is asked with the rsync commands that mirroring uses. To see whether
/// its directory can be written, a small file (.syncq-check.XXXXXX) is sent and deleted at once.
#[derive(Debug, Args)]
#[command(after_help = super::help_tail("syncq check -o /etc/syncq/confxml.xml"))]
pub struct CheckArgs {
    /// Configuration file; may be given several times [default: confxml.xml]
    #[arg(short = 'o', long = "config", value_name = "CONF")]
    config: Vec<PathBuf>,
    /// Where jobs are to be kept [default: one per configuration file]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Ask no target
    #[arg(long)]
    offline: bool,
    /// Say line by line what syncq does differently from sersync with this file, and look at nothing else
    #[arg(long, value_name = "CONF", conflicts_with = "config")]
    from_sersync: Option<PathBuf>,
    /// With --from-sersync: check everything else as well
    #[arg(long, requires = "from_sersync", conflicts_with = "offline")]
    online: bool,
    /// Write nothing on the targets, not even for a moment
    #[arg(long)]
    no_write_probe: bool,
    /// How long each rsync may take
    #[arg(long, value_name = "TIME", value_parser = crate::cli::values::pause, default_value = "15s")]
    timeout: Duration,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub fn run(args: &CheckArgs) -> Result<ExitCode, CliError> {
    let mut report = Report::new(stdout(), args.json);
    let is_bad = match &args.from_sersync {
        Some(file) if !args.online => check_from_sersync(file, &mut report)?.is_none(),
        _ => check_all(args, &mut report)?,
    };
    let has_failed = report.end()?;
    Ok(match (is_bad, has_failed) {
        (true, _) => Exit::Config.into(),
        (false, true) => Exit::Failed.into(),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// Prints the comparison with sersync, then the file's errors and warnings.
fn check_from_sersync<W: Write>(file: &Path, report: &mut Report<W>) -> Result<Option<Config>, CliError> {
    // An error about a file that is not XML is reported further below.
    let mut loaded = config::load(file);
    if let Ok(outline) = config::outline(file) {
        let mut found = from_sersync::compare(file, &outline);
        if let Ok((_, warnings)) = &mut loaded {
            *warnings = from_sersync::untold(&mut found, std::mem::take(warnings));
        }
        match report.json {
            true => from_sersync::write_json(&mut report.out, &found)?,
            false => {
                from_sersync::write_text(&mut report.out, &found)?;
                writeln!(report.out)?;
            }
        }
    }
    check_loaded(file, loaded, false, report)
}

/// Reports the errors and warnings of one file, and its effective configuration. `None`: the file cannot be used.
fn check_loaded<W: Write>(
    file: &Path,
    loaded: Result<(Config, Vec<config::Diagnostic>), config::ConfigError>,
    shows: bool,
    report: &mut Report<W>,
) -> Result<Option<Config>, CliError> {
    match loaded {
        Ok((config, diagnostics)) => {
            report.add(&summary(&config))?;
            for line in effective::lines(&config).into_iter().filter(|_| shows) {
                report.add(&Note::ok(Check::Effective, file.display().to_string(), line))?;
            }
            report.add_all(&diagnostics.iter().map(warning).collect::<Vec<_>>())?;
            let others = configs::others_hand(file);
            report
                .add_all(others.map(|others| Note::warn(Check::Config, file.display().to_string(), others)).as_ref())?;
            Ok(Some(config))
        }
        Err(error) => {
            report.add(&error_note(file, error))?;
            Ok(None)
        }
    }
}

/// Runs all checks. Returns whether the configuration is bad.
fn check_all<W: Write>(args: &CheckArgs, report: &mut Report<W>) -> Result<bool, CliError> {
    let files = match (&args.from_sersync, args.config.is_empty()) {
        (Some(file), _) => vec![file.clone()],
        (None, true) => vec![PathBuf::from(DEFAULT_CONFIG)],
        (None, false) => args.config.clone(),
    };
    let state_dir = match (&args.state_dir, files.first()) {
        (Some(dir), _) => dir.clone(),
        (None, Some(first)) => state_dir::for_config(first, None)?,
        (None, None) => return Err(CliError::usage("there is no configuration file")),
    };
    let mut configs = Vec::new();
    for file in &files {
        configs.extend(match args.from_sersync.is_some() {
            true => check_from_sersync(file, report)?,
            false => check_loaded(file, config::load(file), true, report)?,
        });
    }
    let refused = contradictions(&configs, &state_dir);
    let is_bad = configs.len() < files.len() || !refused.is_empty();
    report.add_all(&refused)?;

    let rsync = rsync(args.timeout);
    let has_rsync = rsync.iter().all(|note| note.level != Level::Fail);
    report.add_all(&rsync)?;
    for config in &configs {
        report.add_all(&places::sources(&config.file, &config.roots))?;
        report.add_all(config.fail_log.as_deref().and_then(|list| places::fail_log(&config.file, list)).as_ref())?;
    }
    for adopted in mirror::adopt(
        configs.iter_mut().flat_map(|config| &mut config.roots).flat_map(|root| &mut root.targets),
        &mirror::own_variable,
    ) {
        report.add(&match adopted.is_set_aside {
            true => Note::warn(Check::Rsync, "environment", adopted.message),
            false => Note::ok(Check::Rsync, "environment", adopted.message),
        })?;
    }
    let roots: Vec<&Root> = configs.iter().flat_map(|config| &config.roots).collect();
    report.names_roots = roots.len() > 1;
    report.add_all(&places::overlaps(&roots))?;
    if !roots.is_empty() {
        report.add_all(&limits::check(&roots))?;
    }
    report.add_all(&places::passwords(&roots))?;
    report.add_all(&configs.iter().filter_map(token_file).collect::<Vec<_>>())?;
    report.add_all(&configs.iter().filter_map(plugin::check).collect::<Vec<_>>())?;
    report.add_all(&places::state(&state_dir))?;
    report.add_all(&meetings(&state_dir, &roots))?;
    if has_rsync {
        report.add_all(&configs.iter().flat_map(confined).collect::<Vec<_>>())?;
    }
    if has_rsync && !args.offline {
        let options = ProbeOptions { writes: !args.no_write_probe, limit: args.timeout };
        report.add_all(&probe_report::check(&configs, options))?;
    }
    Ok(is_bad)
}

fn summary(config: &Config) -> Note {
    let targets: usize = config.roots.iter().map(|root| root.targets.len()).sum();
    let message = format!("{} with {}", counted(config.roots.len() as u64, "root"), counted(targets as u64, "target"));
    Note::ok(Check::Config, config.file.display().to_string(), message)
}

fn warning(diagnostic: &config::Diagnostic) -> Note {
    let note = Note::warn(Check::Config, diagnostic.file.display().to_string(), diagnostic.message.clone());
    let note = note.at(diagnostic.line, diagnostic.column);
    match &diagnostic.hint {
        Some(hint) => note.hint(hint.clone()),
        None => note,
    }
}

fn error_note(file: &Path, error: config::ConfigError) -> Note {
    let subject = file.display().to_string();
    let hint = error.hint();
    let note = match &error {
        config::ConfigError::At { line, column, fault, others, .. } => {
            let others: String =
                others.iter().map(|(line, column, fault)| format!("; {line}:{column}: {fault}")).collect();
            Note::fail(Check::Config, subject, format!("{fault}{others}")).at(*line, *column)
        }
        config::ConfigError::Read { .. } | config::ConfigError::TooLarge { .. } => {
            places::refusal(Check::Config, &subject, &CliError::config(error))
        }
    };
    match hint {
        Some(hint) => note.hint(hint),
        None => note,
    }
}

/// The faults with which no daemon would start although each file is valid by itself.
fn contradictions(configs: &[Config], state_dir: &Path) -> Vec<Note> {
    let roots = configs.iter().flat_map(|config| {
        config.roots.iter().map(|root| RootOptions { root: root.clone(), settings: config.settings.clone() })
    });
    let roots: Vec<RootOptions> = roots.collect();
    let shown = state_dir.display().to_string();
    let outside = state_dir::check_outside(state_dir, roots.iter().map(|root| root.root.path()));
    let outside = outside.err().map(|refused| places::refusal(Check::State, &shown, &refused));
    let once = run::check_once(&roots).err().map(|refused| {
        let file = configs.last().map(|config| config.file.display().to_string()).unwrap_or_default();
        places::refusal(Check::Config, &file, &refused)
    });
    let controls = configs.iter().filter_map(|config| Some((config.file.as_path(), config.control.as_ref()?)));
    let listens = configs::one_endpoint(controls).err().map(|refused| {
        let file = configs.last().map(|config| config.file.display().to_string()).unwrap_or_default();
        places::refusal(Check::Config, &file, &refused)
    });
    let apart = apart::refused(roots.iter().map(|root| &root.root), state_dir);
    let apart = apart.iter().map(|refused| places::refusal(Check::Target, &refused.target, &refused.error));
    once.into_iter().chain(listens).chain(outside).chain(apart).collect()
}

/// The places where two mirrors on this machine get into each other's way.
fn meetings(state_dir: &Path, roots: &[&Root]) -> Vec<Note> {
    let roots: Vec<Root> = roots.iter().copied().cloned().collect();
    let note = |check| {
        move |found: neighbours::Meeting| {
            let level = if found.harms { Level::Warn } else { Level::Ok };
            let note = Note::new(level, check, found.subject, found.message);
            found.hint.into_iter().fold(note, Note::hint)
        }
    };
    let own = neighbours::own_meetings(&roots).into_iter().map(note(Check::Target));
    own.chain(neighbours::meetings(state_dir, &roots).into_iter().map(note(Check::Daemon))).collect()
}

/// The fault of the control API's token file, if it has one.
fn token_file(config: &Config) -> Option<Note> {
    let endpoint = &config.control.as_ref()?.endpoint;
    let file = endpoint.token_file.as_ref()?.display().to_string();
    Some(match listen::options(endpoint) {
        Ok(_) => Note::ok(Check::Password, file, "readable, and closed to others"),
        Err(refused) => places::refusal(Check::Password, &file, &refused),
    })
}

/// Checks whether rsync is installed, and which version.
fn rsync(limit: Duration) -> Vec<Note> {
    let path = match mirror::find_rsync() {
        Ok(path) => path.display().to_string(),
        Err(missing) => {
            let hint = missing.hint();
            return vec![Note::fail(Check::Rsync, "rsync", missing.to_string()).hint(hint)];
        }
    };
    match mirror::rsync_version(limit) {
        Ok(found) => {
            let protocol = found.protocol.map(|number| format!(", protocol {number}")).unwrap_or_default();
            let message = format!("version {}{protocol}", found.version);
            let untested = found
                .untested()
                .map(|untested| Note::warn(Check::Rsync, path.clone(), untested.message()).hint(untested.hint()));
            let note = match mirror::confinement() {
                Confinement::Missing(missing) => {
                    Note::warn(Check::Rsync, path, format!("{message}; {}", missing.message())).hint(missing.hint())
                }
                Confinement::Landlock => {
                    Note::ok(Check::Rsync, path, format!("{message}, confined to source and target by Landlock"))
                }
                Confinement::Unneeded => Note::ok(Check::Rsync, path, message),
            };
            [note].into_iter().chain(untested).collect()
        }
        Err(found) => vec![Note { check: Check::Rsync, ..Note::trouble(path, &found.into()) }],
    }
}

/// Reports for single targets how rsync is confined to the source and the target. Facts that hold for all targets are left out.
fn confined(config: &Config) -> Vec<Note> {
    let pairs = config.roots.iter().flat_map(|root| root.targets.iter().map(move |target| (root, target)));
    let note = |(root, target): (&Root, &Target)| {
        let note = match Places::new(root.path(), target).confinement(config.settings.ssh_share) {
            Confinement::Unneeded => return None,
            Confinement::Missing(missing) if missing.is_general() => return None,
            Confinement::Landlock => {
                Note::ok(Check::Target, target.name(), "rsync is confined here to source and target")
            }
            Confinement::Missing(missing) => {
                Note::warn(Check::Target, target.name(), missing.message()).hint(missing.hint())
            }
        };
        Some(Note { root: Some(root.path.display().to_string()), ..note })
    };
    pairs.filter_map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventSwitches;

    /// A root without targets.
    pub fn root(path: PathBuf) -> Root {
        Root {
            path,
            targets: Vec::new(),
            events: EventSwitches::default(),
            excludes: Vec::new(),
            legacy_hidden: false,
            schedule: None,
        }
    }

    #[test]
    fn a_state_directory_in_a_root_contradicts() {
        let (config, _) =
            config::parse(Path::new("c.xml"), include_bytes!("../../../tests/fixtures/configs/stock.xml"))
                .expect("the stock file");
        let notes = contradictions(std::slice::from_ref(&config), Path::new("/opt/tongbu/state"));
        assert!(notes.len() == 1 && notes[0].message.contains("lies inside"), "{notes:#?}");
        assert!(contradictions(std::slice::from_ref(&config), Path::new("/var/state")).is_empty());
        let twice = contradictions(&[config.clone(), config], Path::new("/var/state"));
        assert!(twice.len() == 1 && twice[0].message.contains("by two configuration files"), "{twice:#?}");
    }
}
