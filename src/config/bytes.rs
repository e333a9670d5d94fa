//! Reads the bytes of a configuration file: at most `CONFIG_BYTES_MAX`, and without a byte order mark. Does not look at their
//! meaning.

use std::io::Read;
use std::path::Path;

use super::error::ConfigError;
use crate::trust;

/// Larger files are refused: no configuration comes near this size, and a wrong path may name anything.
pub(super) const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The bytes of a file; of a file that is too large, enough bytes to notice that.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, ConfigError> {
    let unreadable = |source| ConfigError::Read { file: file.to_path_buf(), source };
    let mut bytes = Vec::new();
    trust::open_given(file)
        .map_err(unreadable)?
        .take(CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

/// Refuses more bytes than a configuration file may have.
pub(super) fn check_size(file: &Path, bytes: &[u8]) -> Result<(), ConfigError> {
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { file: file.to_path_buf(), limit_bytes: CONFIG_BYTES_MAX });
    }
    Ok(())
}

/// The bytes without UTF-8's byte order mark.
pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}
