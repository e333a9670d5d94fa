//! The text behind the options of every subcommand. The subcommands themselves are not known here.

use super::exit::EXIT_CODES;

/// Returns the help text behind a subcommand's options: an example, then the exit codes.
pub(super) fn help_tail(example: &str) -> String {
    format!("Example:\n  {example}\n\n{EXIT_CODES}")
}
