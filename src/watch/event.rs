//! The meaning of each of the kernel's events.
//!
//! Pure: values in, values out, nothing looked up. Reading events is the inotify crate's work.

use std::os::unix::ffi::OsStrExt;

use inotify::EventMask;

use super::table::Wd;

/// One event as the kernel gives it. The inotify crate's own events cannot be made up, as tests have to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEvent<'a> {
    pub wd: Wd,
    pub mask: EventMask,
    pub cookie: u32,
    /// Empty if the event is about the watched directory itself.
    pub name: &'a [u8],
}

impl<'a> From<inotify::Event<&'a std::ffi::OsStr>> for RawEvent<'a> {
    fn from(event: inotify::Event<&'a std::ffi::OsStr>) -> Self {
        Self {
            wd: Wd(event.wd.get_watch_descriptor_id()),
            mask: event.mask,
            cookie: event.cookie,
            name: event.name.map(|name| name.as_bytes()).unwrap_or_default(),
        }
    }
}

impl RawEvent<'_> {
    /// How much of the kernel's queue the event took: a header of 16 bytes, and the name with at least one NUL, filled up
    /// to a multiple of 16.
    pub fn queued_bytes(&self) -> usize {
        const HEADER_BYTES: usize = 16;
        if self.name.is_empty() {
            HEADER_BYTES
        } else {
            HEADER_BYTES + (self.name.len() + 1).next_multiple_of(HEADER_BYTES)
        }
    }
}

/// An event, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The kernel's queue was full: events are lost, nobody knows which.
    Overflow,
    /// Something about the watched directory itself.
    Itself { wd: Wd, what: Itself },
    /// Something about a name in the watched directory.
    Entry { dir: Wd, name: &'a [u8], is_dir: bool, what: What },
    /// Nothing of interest.
    Nothing,
}

/// An event on a watched directory itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Itself {
    /// Mode, owner, times or extended attributes changed.
    Attributes,
    Deleted,
    Moved,
    /// The directory's file system was unmounted.
    Unmounted,
    /// The watch has ended.
    Unwatched,
}

/// An event on a name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Created,
    Deleted,
    /// The name is gone; the entry that had it may turn up with the same cookie.
    MovedFrom(u32),
    MovedTo(u32),
    /// The file was open for writing and has been closed.
    Written,
    /// Content changed; more may follow.
    Modified,
    Attributes,
}

impl<'a> RawEvent<'a> {
    /// Tells what the event says.
    pub fn decode(self) -> Event<'a> {
        let Self { wd, mask, cookie, name } = self;
        if mask.contains(EventMask::Q_OVERFLOW) {
            return Event::Overflow;
        }
        if name.is_empty() {
            let meanings = [
                (EventMask::UNMOUNT, Itself::Unmounted),
                (EventMask::DELETE_SELF, Itself::Deleted),
                (EventMask::MOVE_SELF, Itself::Moved),
                (EventMask::IGNORED, Itself::Unwatched),
                (EventMask::ATTRIB, Itself::Attributes),
            ];
            let found = meanings.into_iter().find(|(flag, _)| mask.contains(*flag));
            return found.map_or(Event::Nothing, |(_, what)| Event::Itself { wd, what });
        }
        let meanings = [
            (EventMask::CREATE, What::Created),
            (EventMask::DELETE, What::Deleted),
            (EventMask::MOVED_FROM, What::MovedFrom(cookie)),
            (EventMask::MOVED_TO, What::MovedTo(cookie)),
            (EventMask::CLOSE_WRITE, What::Written),
            (EventMask::MODIFY, What::Modified),
            (EventMask::ATTRIB, What::Attributes),
        ];
        let found = meanings.into_iter().find(|(flag, _)| mask.contains(*flag));
        let is_dir = mask.contains(EventMask::ISDIR);
        found.map_or(Event::Nothing, |(_, what)| Event::Entry { dir: wd, name, is_dir, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meanings() {
        let entry = |is_dir, what| Event::Entry { dir: Wd(1), name: b"n", is_dir, what };
        let itself = |what| Event::Itself { wd: Wd(1), what };
        for (mask, name, meaning) in [
            (EventMask::CREATE, &b"n"[..], entry(false, What::Created)),
            (EventMask::CREATE | EventMask::ISDIR, b"n", entry(true, What::Created)),
            (EventMask::DELETE | EventMask::ISDIR, b"n", entry(true, What::Deleted)),
            (EventMask::MOVED_FROM, b"n", entry(false, What::MovedFrom(9))),
            (EventMask::MOVED_TO | EventMask::ISDIR, b"n", entry(true, What::MovedTo(9))),
            (EventMask::CLOSE_WRITE, b"n", entry(false, What::Written)),
            (EventMask::MODIFY, b"n", entry(false, What::Modified)),
            (EventMask::ATTRIB | EventMask::ISDIR, b"n", entry(true, What::Attributes)),
            (EventMask::ATTRIB | EventMask::ISDIR, b"", itself(Itself::Attributes)),
            (EventMask::DELETE_SELF, b"", itself(Itself::Deleted)),
            (EventMask::MOVE_SELF, b"", itself(Itself::Moved)),
            (EventMask::UNMOUNT, b"", itself(Itself::Unmounted)),
            (EventMask::IGNORED, b"", itself(Itself::Unwatched)),
            (EventMask::Q_OVERFLOW, b"", Event::Overflow),
            (EventMask::OPEN, b"n", Event::Nothing),
            (EventMask::empty(), b"", Event::Nothing),
        ] {
            assert_eq!(RawEvent { wd: Wd(1), mask, cookie: 9, name }.decode(), meaning, "{mask:?}");
        }
    }
}
