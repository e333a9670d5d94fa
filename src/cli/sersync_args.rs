//! Translates sersync's command line for `syncq run`, so that existing scripts, crontabs and units go on working. Pure.
//!
//! sersync knows short flags only, also joined (`-dro FILE`). It ignores the words behind them, and reads `./confxml.xml` if
//! there are no flags at all. A program name that starts with `sersync` (a symbolic link) means `run`, unless a subcommand of
//! syncq is named: `sersync2 check` does not ask for a daemon.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The configuration that sersync reads if none is named.
pub const DEFAULT_CONFIG: &str = "confxml.xml";

/// Puts `run` in front of a command line in sersync's form, and leaves any other unchanged. `has_default_config` tells whether
/// `./confxml.xml` exists.
pub fn translate(
    mut args: Vec<OsString>,
    has_default_config: bool,
    is_command: impl Fn(&OsStr) -> bool,
) -> Vec<OsString> {
    let name = args.first().map(|program| Path::new(program).file_name().unwrap_or_default());
    let as_sersync = name.is_some_and(|name| name.as_bytes().starts_with(b"sersync"));
    let is_run = match args.get(1) {
        _ if as_sersync => args.get(1).is_none_or(|first| !is_command(first) && first != "-V" && first != "--version"),
        None => has_default_config,
        Some(first) => is_short_flags(first),
    };
    if is_run && !args.is_empty() {
        args.insert(1, "run".into());
    }
    args
}

/// Whether a word consists of short flags. `-h` and `-V` alone remain questions to syncq itself.
fn is_short_flags(arg: &OsStr) -> bool {
    match arg.as_bytes() {
        b"-h" | b"-V" => false,
        [b'-', flag, ..] => *flag != b'-',
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sersyncs_forms_mean_run() {
        for (given, with_config, expected) in [
            ("syncq -r -d -o a.xml", false, "syncq run -r -d -o a.xml"),
            ("syncq -dro a.xml b.xml", false, "syncq run -dro a.xml b.xml"),
            ("syncq -n 10", false, "syncq run -n 10"),
            ("syncq -m command", false, "syncq run -m command"),
            ("/usr/bin/sersync2", false, "/usr/bin/sersync2 run"),
            ("sersync2 -h", false, "sersync2 run -h"),
            ("sersync a.xml", false, "sersync run a.xml"),
            ("sersync2 run -d", false, "sersync2 run -d"),
            ("sersync2 -V", false, "sersync2 -V"),
            ("sersync2 check -o a.xml", false, "sersync2 check -o a.xml"),
            ("sersync2 status", true, "sersync2 status"),
            ("/opt/bin/sersync help", false, "/opt/bin/sersync help"),
            ("syncq", true, "syncq run"),
            ("syncq", false, "syncq"),
            ("syncq -h", true, "syncq -h"),
            ("syncq -V", true, "syncq -V"),
            ("syncq --help", true, "syncq --help"),
            ("syncq -", true, "syncq -"),
            ("syncq status", true, "syncq status"),
        ] {
            let args = given.split(' ').map(OsString::from).collect();
            let is_command = |word: &OsStr| ["run", "check", "status", "help"].iter().any(|command| word == *command);
            let translated = translate(args, with_config, is_command);
            assert_eq!(translated.join(OsStr::new(" ")), OsStr::new(expected), "{given}");
        }
    }
}
