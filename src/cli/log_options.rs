//! The logging options of long-running commands.

use clap::{Args, ValueEnum};

use super::exit::CliError;
use crate::system::logging::{self, AREAS, Form, LoggingError, Output};

#[derive(Debug, Args)]
pub struct LogOptions {
    /// What to log: error, warn, info, debug or trace, also per area, as in info,mirror=debug [default: info]
    #[arg(long, value_name = "LEVEL", env = "SYNCQ_LOG", hide_env_values = true)]
    log_level: Option<String>,
    /// How to log [default: text]
    #[arg(long, value_name = "FORM", env = "SYNCQ_LOG_FORMAT", hide_env_values = true, ignore_case = true)]
    log_format: Option<FormArg>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormArg {
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}

impl LogOptions {
    /// Starts logging. An empty level (an environment variable that is set but empty) counts as not given.
    pub fn start(&self, default_level: &str, output: Output) -> Result<(), CliError> {
        let level = self.log_level.as_deref().filter(|level| !level.trim().is_empty()).unwrap_or(default_level);
        let form = match self.log_format {
            Some(FormArg::Json) => Form::Json,
            Some(FormArg::Text) | None => Form::Text,
        };
        logging::init(level, form, output).map_err(|error| {
            let hint = match error {
                LoggingError::Level { .. } => {
                    "use error, warn, info, debug or trace, as in info,mirror=debug".to_owned()
                }
                LoggingError::Area { .. } => format!("the areas are {}", AREAS.join(", ")),
                _ => return anyhow::Error::new(error).into(),
            };
            CliError::usage(error.to_string()).hint(hint)
        })
    }
}
