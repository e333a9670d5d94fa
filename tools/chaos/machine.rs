//! Calls of the machine's own programs for the stage, and the kernel's table of mounts.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name of the file system that is mounted below the tree.
pub const DISK: &str = "syncq-faults-disk";

/// Sets attributes that bind even root. Returns whether that succeeded.
pub fn chattr(how: &[&str], path: &Path) -> bool {
    Command::new("chattr").args(how).arg("--").arg(path).output().is_ok_and(|output| output.status.success())
}

/// Runs a program, and returns whether it succeeded.
pub fn ran(program: &str, args: &[&Path]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

/// The places in a tree at which the disk is mounted.
pub fn disks_below(tree: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read("/proc/self/mountinfo").expect("a table of mounts");
    let point = |line: &[u8]| {
        let is_disk = line.windows(DISK.len()).any(|part| part == DISK.as_bytes());
        let field = line.split(|&byte| byte == b' ').nth(4).filter(|_| is_disk)?;
        let mut point = Vec::new();
        let mut rest = field;
        // The table writes a blank as `\040`.
        while let Some((&first, behind)) = rest.split_first() {
            let code = (first == b'\\').then(|| std::str::from_utf8(behind.get(..3)?).ok()).flatten();
            let byte = code.and_then(|code| u8::from_str_radix(code, 8).ok());
            point.push(byte.unwrap_or(first));
            rest = if byte.is_some() { &behind[3..] } else { behind };
        }
        Some(PathBuf::from(OsString::from_vec(point)).strip_prefix(tree).ok()?.to_owned())
    };
    mounts.split(|&byte| byte == b'\n').filter_map(point).collect()
}
