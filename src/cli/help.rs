//! The text behind a subcommand's options, which all of them share. Which commands there are is not known here.

use super::exit::EXIT_CODES;

/// Help behind a subcommand's options: an example, then the exit codes.
pub(super) fn help_tail(example: &str) -> String {
    format!("Example:\n  {example}\n\n{EXIT_CODES}")
}
