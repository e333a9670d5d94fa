//! The rsync of each side of a test: the one in PATH, unless the environment names another version (`tools/rsync-matrix`).

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// The side on which a run starts, or the side on which it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    /// The environment variable that names the side's program.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Client => "SYNCQ_TEST_RSYNC_CLIENT",
            Self::Server => "SYNCQ_TEST_RSYNC_SERVER",
        }
    }
}

/// The program of one side.
pub fn rsync(side: Side) -> PathBuf {
    let in_path = || {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).map(|dir| dir.join("rsync")).find(|program| program.is_file())
    };
    env::var_os(side.variable()).map(PathBuf::from).or_else(in_path).expect("rsync is in PATH")
}

/// The directory of one side's rsync, followed by the system's directories.
pub fn path_with(side: Side) -> OsString {
    const SYSTEM: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
    let program = rsync(side);
    match program.parent() {
        Some(dir) if !SYSTEM.split(':').any(|known| dir.as_os_str() == known) => {
            let mut path = dir.as_os_str().to_owned();
            path.push(":");
            path.push(SYSTEM);
            path
        }
        _ => SYSTEM.into(),
    }
}
