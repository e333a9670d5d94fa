//! The rules of the event switches: whether a change of a file is reported, and when its content counts as complete.
//!
//! Pure.

use std::time::Duration;

use super::WatchSettings;
use super::kernel::Look;
use crate::model::Settle;

/// How long a new file may go without a sign of a writer until it is taken as it is. A file published by linking an
/// unnamed one (`O_TMPFILE`) is complete at its creation and never closed under its name; any other file gets its
/// `IN_CLOSE_WRITE` or `IN_MODIFY` before or soon after.
pub const UNWRITTEN_QUIET: Duration = Duration::from_millis(100);

/// How long the new times of a directory whose listing changed may wait for the run that sends the entry concerned: times
/// and entry go out together then.
pub const TIMES_WAIT: Duration = Duration::from_millis(100);

/// When the file under a name that has just come into being is complete; `None` if it is not reported.
pub fn created(settings: &WatchSettings, look: Look) -> Option<Settle> {
    if !look.is_plain || settings.events.create_file {
        Some(Settle::Now)
    } else if settings.events.close_write {
        Some(Settle::Quiet(UNWRITTEN_QUIET))
    } else {
        None
    }
}

/// When a file that is being written to is complete; `None` if it is not reported.
pub fn modified(settings: &WatchSettings) -> Option<Settle> {
    if settings.events.modify {
        Some(Settle::Within(settings.hot_interval))
    } else if settings.events.close_write {
        Some(Settle::Quiet(settings.quiet_period))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::watch::tests::settings;

    #[test]
    fn switches_decide_when_a_file_is_complete() {
        let quiet = Some(Settle::Quiet(UNWRITTEN_QUIET));
        let look =
            Look { size: 1, is_plain: true, inode: 1, device: 1, links: 1, written: (1, 0), changed: Timestamp(1) };
        let (long, hot) = (Some(Settle::Quiet(Duration::from_secs(5))), Some(Settle::Within(Duration::from_secs(1))));
        for (create_file, close_write, modify, on_create, on_modify) in [
            (false, true, false, quiet, long),
            (true, true, false, Some(Settle::Now), long),
            (false, true, true, quiet, hot),
            (false, false, true, None, hot),
            (false, false, false, None, None),
        ] {
            let mut settings = settings(std::path::Path::new("/r"));
            settings.events.create_file = create_file;
            settings.events.close_write = close_write;
            settings.events.modify = modify;
            assert_eq!(created(&settings, Look { is_plain: true, ..look }), on_create);
            assert_eq!(created(&settings, Look { is_plain: false, ..look }), Some(Settle::Now));
            assert_eq!(modified(&settings), on_modify);
        }
    }
}
