//! Checks the plugin in use: whether its program exists, and whether other users can read its password.
//!
//! No listener, CDN or web server is contacted: a request would count as a notice.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::note::{Check, Note};
use crate::cli::exit::quoted;
use crate::config::{Config, Plugin};

pub fn check(config: &Config) -> Option<Note> {
    let holds_secret = match config.plugin.as_ref()? {
        Plugin::Command(command) => return program(command.prefix.first()?),
        Plugin::Socket(_) => false,
        Plugin::RefreshCdn(_) => true,
        // A URL's query often contains a token.
        Plugin::Http(http) => http.url.credentials.is_some() || http.url.target.reveal().contains('?'),
    };
    let is_open = config.file.metadata().is_ok_and(|found| found.mode() & 0o044 != 0);
    (holds_secret && is_open).then(|| {
        let message = "it holds the password of the plugin, and other users can read it";
        Note::warn(Check::Plugin, config.file.display().to_string(), message)
            .hint(format!("chmod 600 {}", quoted(&config.file)))
    })
}

/// Looks for the program as the daemon will, whose `PATH` may differ from the user's.
fn program(name: &OsStr) -> Option<Note> {
    let is_program = |path: &Path| path.is_file() && accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    let found = match name.as_bytes().contains(&b'/') {
        true => is_program(Path::new(name)),
        false => std::env::var_os("PATH")
            .is_some_and(|dirs| std::env::split_paths(&dirs).any(|dir| is_program(&dir.join(name)))),
    };
    (!found).then(|| {
        Note::warn(Check::Plugin, name.display().to_string(), "there is no such program, or it may not be run")
            .hint("<param prefix=\"…\"> begins with the program's full path; chmod +x makes a script one")
    })
}
