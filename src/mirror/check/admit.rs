//! Whether the user's own rsync options let a path through. rsync itself is asked, with a target that holds nothing: a path
//! that it would not send there is left out, be it for its name, size, kind or file system. So the answer agrees with the
//! runs.
//!
//! Deliberately absent: the filter's expressions, which rsync does not know, and paths that are gone from the source, which
//! rsync would not find.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::mirror::outcome::diagnosis::first_words;
use crate::mirror::plan::arguments::{Mode, Pass, arguments};
use crate::mirror::plan::narrow;
use crate::mirror::plan::run::{Deletion, Entry, Run, RunKind};
use crate::mirror::plan::source::Presence;
use crate::mirror::rsync::capture::Capture;
use crate::mirror::rsync::ended::End;
use crate::mirror::rsync::itemize::{difference, to_path, unescape};
use crate::mirror::rsync::process::{Priority, run};
use crate::mirror::rsync::stop::StopSignal;
use crate::mirror::target::context::TargetContext;
use crate::model::{Destination, Given, Lane, Origin, RelPath, Target};

/// The empty target: a directory of this name in the state directory, which is never made.
const EMPTY_TARGET: &str = "nothing";

/// How rsync's lines about hidden paths begin.
const HIDING: [&[u8]; 2] = [b"[sender] hiding file ", b"[sender] hiding directory "];
const BECAUSE: &[u8] = b" because of pattern ";

const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// Why the user's own options leave out what stands at the path, in words that go on from "it is not mirrored:". `None` if
/// they do not, or nothing stands there. The error: rsync could not be asked.
pub fn left_out(ctx: &TargetContext, path: &RelPath, stop: &StopSignal) -> io::Result<Option<String>> {
    let presence = ctx.source_as_rsync_finds_it().look(path);
    if path.is_root() || matches!(presence, Presence::Missing | Presence::Unknown(_)) {
        return Ok(None);
    }
    let entry = Entry { path: path.clone(), presence, orphan: false, jobs: Vec::new() };
    let question = Run { looks: true, ..Run::new(RunKind::Flat, Origin::Scan, vec![entry]) };
    let question = narrow::prepared(&question, &ctx.root);
    let state_dir = Path::new(&ctx.program.owner);
    // Options about the way to the real target play no part, and rsync refuses some of them for a local target.
    let reaches = |given: &Given| ["password-file", "rsh", "rsync-path"].iter().any(|name| given.is(name));
    let mut options = ctx.target.options.clone();
    options.params = options.params.without(reaches);
    let nowhere = Target { destination: Destination::Local(state_dir.join(EMPTY_TARGET)), options };
    let mut args = arguments(&nowhere, &question, Mode::new(Lane::Small, Deletion::Off, Pass::Show));
    let is_named = |output: &[u8]| {
        let names = output.split(|&b| b == b'\n').filter_map(difference);
        names.filter_map(|(name, _)| to_path(&name)).any(|name| name == *path)
    };
    let output = |args: &[OsString]| {
        let kept = Some(Capture::new(OUTPUT_BYTES_MAX, 0));
        let ended = run(&ctx.program, &ctx.root, args, b"", kept, Priority::Usual, stop)?;
        match ended.end {
            End::Exit(0 | 23 | 24) => Ok(ended.stdout.bytes()),
            _ => Err(io::Error::other(first_words(&ended.stderr.bytes()))),
        }
    };
    if is_named(&output(&args)?) {
        return Ok(None);
    }
    // Not asked at first, since with this option rsync tells of every name beside the path as well.
    args.insert(0, "--debug=FILTER1".into());
    let said = output(&args)?;
    let pattern = said.split(|&b| b == b'\n').find_map(|line| pattern_hiding(line, path));
    Ok(Some(match pattern {
        Some(pattern) => format!("rsync's own options leave it out, by the pattern {pattern}"),
        // The path is left out by its size or kind, or since another file system begins there; rsync does not say which.
        None => {
            let words: Vec<_> = ctx.target.options.params.iter().map(|word| word.to_string_lossy()).collect();
            format!("rsync's own options leave it out ({})", words.join(" "))
        }
    }))
}

/// The pattern in `line` that hides the path or a directory above it.
fn pattern_hiding(line: &[u8], path: &RelPath) -> Option<String> {
    let rest = HIDING.iter().find_map(|words| line.strip_prefix(*words))?;
    // Both a name and a pattern may contain these words. The name is known, so it decides where it ends.
    let at = rest.windows(BECAUSE.len()).enumerate().filter(|(_, words)| *words == BECAUSE).map(|(at, _)| at);
    let splits = at.filter_map(|at| Some((rest.get(..at)?, rest.get(at + BECAUSE.len()..)?)));
    let (_, pattern) = splits.into_iter().find(|(name, _)| {
        let name = to_path(&unescape(name));
        name.is_some_and(|name| name.covers(path) && !name.is_root())
    })?;
    Some(String::from_utf8_lossy(pattern).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_of_the_path_is_found_among_those_of_others() {
        let path = RelPath::new(b"private/a because of pattern b").unwrap();
        for (line, expected) in [
            ("[sender] hiding directory private because of pattern /private", Some("/private")),
            (
                "[sender] hiding file private/a because of pattern b because of pattern *b [per-dir .rules]",
                Some("*b [per-dir .rules]"),
            ),
            ("[sender] hiding file other because of pattern /other", None),
            ("[sender] hiding file private/a because of pattern b", None),
            ("[sender] showing file private because of pattern /private", None),
            (">f+++++++++ private", None),
        ] {
            assert_eq!(pattern_hiding(line.as_bytes(), &path).as_deref(), expected, "{line}");
        }
    }
}
